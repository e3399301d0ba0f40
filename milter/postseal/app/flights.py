"""Flights: each URL is fetched by one thread of one process at a time, and left alone after it failed.

What an errand fetches is decided elsewhere; here it is decided whether it may start now: it may be under way already, in this
process or another (CACHE-5), have landed a moment ago (CACHE-1), rest after failures (CACHE-3), or be more than one message
or one host may cause (THR-6).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from cachetools import LRUCache

from postseal.app import freshness
from postseal.app.budgets import Allowance, HostLimits
from postseal.app.landing import Failed, Landed
from postseal.app.lookup_ports import Lease, Store
from postseal.app.metering import NO_METER, LookupMeter
from postseal.app.ports import Clock
from postseal.core.certs import Certificate
from postseal.core.errors import Unavailable
from postseal.core.evidence import NoAnswer, Question

BREAKER = 5
_LOOK_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class Errand:
    """One URL to fetch, for whom. ``chain`` is the validated path of the issuer, issuer first; ``asked`` False: ahead.

    Of kind "issuer" it is the one certificate whose issuer isn't known. ``since`` is when it was seen to be needed: what
    another process stored after that is as good. ``insist``: an administrator wants to know what is true now, so OCSP is
    asked with a nonce.
    """

    kind: str
    url: str
    chain: tuple[Certificate, ...]
    question: Question | None
    since: datetime
    asked: bool = True
    insist: bool = False

    @property
    def subject(self) -> str:
        """The certificate that the answer is about: of OCSP the one asked for, otherwise the first of the chain."""
        asked = self.question.certificate if self.kind == "ocsp" and self.question else self.chain[0]
        return asked.fingerprint

    @property
    def key(self) -> tuple[str, ...]:
        """CACHE-5: what is one flight. An OCSP URL gives another answer for each certificate."""
        whose = self.chain[0].key_id if self.kind == "crl" else self.subject
        return (self.kind, self.url, whose)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.lower()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a flight ended: ``why`` is empty when there is evidence from the URL now."""

    url: str
    why: str = ""
    detail: str = ""


class Flights:
    """Starts errands and remembers how they ended. ``work`` fetches one before a deadline of the monotonic clock.

    ``warn`` hears one sentence per failure; ``alarm`` hears it instead when a CA that always was reliable has failed (RPL-6).
    """

    def __init__(
        self, store: Store, clock: Clock, work: Callable[[Errand, float], Landed | Failed], hosts: HostLimits,
        request_timeout: float, concurrency: int, warn: Callable[[str], None], alarm: Callable[[str], None],
        chance: Callable[[], float], meter: LookupMeter = NO_METER,
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._work = work
        self._hosts = hosts
        self._request_timeout = request_timeout
        self._warn = warn
        self._alarm = alarm
        self._chance = chance
        self._meter = meter
        self._lock = threading.Lock()
        self._pause = threading.Event()
        self._flights: dict[tuple[str, ...], Future[Outcome]] = {}
        self._probed: set[str] = set()
        self._fresh: LRUCache[tuple[str, ...], float] = LRUCache(10_000)
        self._fetchers = ThreadPoolExecutor(concurrency, "fetch")

    def fly(self, errand: Errand, allowance: Allowance | None, force: bool = False) -> Future[Outcome] | None:
        """Join the flight of this errand or start one; None when the URL is left alone now."""
        flight = self._joined(errand)
        if flight is not None:
            return flight
        probe = False
        if not force:
            if self._rests(errand):
                return None
            blocked, probe = self._blocked(errand)
            if blocked:
                self._meter.backed_off(errand.kind)
                return None
        with self._lock:
            flight = self._flights.get(errand.key)
            if flight is not None:
                self._meter.joined(errand.kind)
                return flight
            # A flight may have landed since we looked.
            if not force and self._fresh.get(errand.key, 0.0) > self._clock.monotonic():
                return None
            if probe and errand.host in self._probed:
                return None
            why, wait = self._over_budget(errand, allowance, force)
            if not why:
                if probe:
                    self._probed.add(errand.host)
                flight = self._fetchers.submit(self._run, errand)
                self._flights[errand.key] = flight
                return flight
        self._refused(errand, why, wait)
        return None

    def idle(self) -> bool:
        """Is nothing being fetched?"""
        with self._lock:
            return not self._flights

    def close(self) -> None:
        """Start nothing new; running flights end by their own deadlines."""
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    # ---- may it start? ----------------------------------------------------------------------------------------------

    def _joined(self, errand: Errand) -> Future[Outcome] | None:
        with self._lock:
            flight = self._flights.get(errand.key)
        if flight is not None:
            self._meter.joined(errand.kind)
        return flight

    def _rests(self, errand: Errand) -> bool:
        """What was fetched a moment ago rests, unless an administrator had it forgotten meanwhile."""
        with self._lock:
            rests = self._fresh.get(errand.key, 0.0) > self._clock.monotonic()
        if rests and self._store.url_state(errand.url).answered_at is None:
            with self._lock:
                self._fresh.pop(errand.key, None)
            return False
        return rests

    def _blocked(self, errand: Errand) -> tuple[bool, bool]:
        """CACHE-3: is the URL, its answer about this one certificate, or its host in back-off? May only one request try?"""
        at = self._clock.now()
        for about in {"", errand.subject}:
            retry_at = self._store.url_state(errand.url, about).retry_at
            if retry_at is not None and retry_at > at:
                return True, False
        count, until = self._store.host_state(errand.host)
        # Half-open: when the time is over one request may try; it closes or opens the breaker for all others.
        broken = count >= BREAKER and until is not None
        return (broken and until is not None and until > at), broken

    def _over_budget(self, errand: Errand, allowance: Allowance | None, force: bool) -> tuple[str, float]:
        """THR-6: why the errand isn't started, in words, and for how many seconds; "" when it may."""
        if force:
            self._hosts.count(errand.host)
            return "", 0.0
        wait = self._hosts.wait(errand.host)
        if wait > 0:
            return f"more than {self._hosts.per_minute} requests a minute to one host", wait
        if allowance is not None and not allowance.take():
            return f"more than {allowance.count} requests for one message", 0.0
        self._hosts.count(errand.host)
        return "", 0.0

    def _refused(self, errand: Errand, why: str, wait: float) -> None:
        """THR-6: the status is unknown for want of a budget, and says so; nothing is held against the URL."""
        self._meter.fetched(errand.kind, "rev.budget", 0.0)
        at = self._clock.now()
        about = errand.subject
        if not errand.asked or self._store.url_state(errand.url, about).failures:
            return
        failure = NoAnswer(errand.url, "rev.budget", why, at, at + timedelta(seconds=wait))
        self._store.record_failure(failure, 0, errand.host, 0, at, about=about)

    # ---- one flight -------------------------------------------------------------------------------------------------

    def _run(self, errand: Errand) -> Outcome:
        started = self._clock.monotonic()
        try:
            outcome = self._alone(errand, started + self._request_timeout)
        except Unavailable as exc:
            # The disk is full, say: mail goes on with what is known.
            self._warn(f"evidence from {errand.url} can't be kept: {exc}")
            outcome = Outcome(errand.url, "rev.store-unavailable", str(exc))
        except Exception as exc:
            # RPL-3: no hostile answer may end the flight without an outcome.
            outcome = self._failed(errand, Failed("rev.malformed", f"{type(exc).__name__} while reading the answer"))
        finally:
            with self._lock:
                self._flights.pop(errand.key, None)
                self._probed.discard(errand.host)
        self._meter.fetched(errand.kind, outcome.why or "ok", self._clock.monotonic() - started)
        return outcome

    def _alone(self, errand: Errand, deadline: float) -> Outcome:
        """CACHE-5: with the lease of this errand, so that no other process fetches the same."""
        lease = self._lease(errand, deadline)
        if lease is None:
            return Outcome(errand.url, "rev.timeout", "another process is fetching it, and takes long")
        try:
            elsewhere = self._meanwhile(errand)
            if elsewhere is not None:
                return elsewhere
            if not self._hosts.enter(errand.host, self._request_timeout / 2):
                return Outcome(errand.url, "rev.timeout", "too many requests to this host are waiting already")
            try:
                result = self._work(errand, self._clock.monotonic() + self._request_timeout)
            finally:
                self._hosts.leave(errand.host)
            return self._landed(errand, result) if isinstance(result, Landed) else self._failed(errand, result)
        finally:
            lease.release()

    def _lease(self, errand: Errand, deadline: float) -> Lease | None:
        while True:
            lease = self._store.lease("\n".join(errand.key))
            if lease is not None or self._clock.monotonic() >= deadline:
                return lease
            self._pause.wait(_LOOK_AGAIN)

    def _meanwhile(self, errand: Errand) -> Outcome | None:
        """What another process found out about this errand after it was seen to be needed."""
        if errand.question is not None and errand.kind != "issuer":
            for item in self._store.evidence(errand.question):
                seen = item.at if isinstance(item, NoAnswer) else item.fetched_at
                if item.url == errand.url and seen > errand.since:
                    return Outcome(item.url, item.why, item.detail) if isinstance(item, NoAnswer) else Outcome(item.url)
            return None
        answered_at = self._store.url_state(errand.url).answered_at
        return Outcome(errand.url) if answered_at is not None and answered_at > errand.since else None

    def _landed(self, errand: Errand, result: Landed) -> Outcome:
        with self._lock:
            self._fresh[errand.key] = self._clock.monotonic() + result.rest.total_seconds()
        self._store.record_success(errand.url, errand.host, about=errand.subject)
        return Outcome(errand.url)

    def _failed(self, errand: Errand, result: Failed) -> Outcome:
        """CACHE-3: remember the failure, and leave the URL alone for a while; with ``about`` for that certificate only."""
        url, host, about = errand.url, errand.host, result.about
        at = self._clock.now()
        try:
            count = self._store.url_state(url, about).failures + 1
            retry_at = at + freshness.back_off(count, result.retry_after, self._chance)
            host_count = self._store.host_state(host)[0] + 1 if result.host_fault else 0
            until = at + freshness.back_off(max(1, host_count - BREAKER + 1), result.retry_after, self._chance)
            failure = NoAnswer(url, result.why, result.detail, at, retry_at)
            self._store.record_failure(failure, count, host, host_count, until, about=about)
            # RPL-6, THR-20: who blocks the CRL of a reliable CA for all of its window is told on.
            words = f"could not retrieve URL {url}: {result.detail}; next attempt in {(retry_at - at).seconds} s"
            reliable = None
            if errand.kind != "issuer":
                reliable = self._store.reliable_for(errand.chain[0], at, ocsp=errand.kind == "ocsp")
            if reliable is None:
                self._warn(words)
            else:
                what = "a current CRL" if errand.kind == "crl" else "current OCSP answers"
                name, days = errand.chain[0].name, reliable.days
                self._alarm(f"{name} always had {what}, for {days} days, and has none now: {words}")
        except Unavailable as exc:
            self._warn(f"could not retrieve URL {url}: {result.detail}; and that can't be noted: {exc}")
        return Outcome(url, result.why, result.detail)


def outcome_of(url: str, flight: Future[Outcome] | None) -> Outcome:
    """How an administrator's order ended so far."""
    if flight is None:
        words = "not fetched: imported from a file, or its issuer isn't trusted any more"
        return Outcome(url, "rev.no-evidence", words)
    return flight.result() if flight.done() else Outcome(url, "rev.timeout", "not done yet; it goes on")
