"""The work of ``postseal lookup``: fetch what questions need, check it, store it; and do so again before it expires.

A question is served only after its path to an anchor was validated here, whatever the asker says (PRE-1). Sources are asked
in the configured order until nothing more is needed; each gets a share of the time so that the next has some left (RPL-5).
One flight per URL serves all who wait for it (CACHE-5); it goes on when they have left, so that the next message finds its
result. What was fetched is stored only if it is better than what is there (CACHE-4).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from cachetools import LRUCache, TTLCache

from postseal.app import freshness
from postseal.app.lookup_ports import Entry, Http, Incoming, Store
from postseal.app.metering import NO_METER, LookupMeter
from postseal.app.ocsp_flight import Landed, OcspFlights
from postseal.app.ports import Clock, TrustStore
from postseal.core.certs import Certificate
from postseal.core.crl import Crl, signature_valid
from postseal.core.errors import BadData, PostsealError, Unavailable
from postseal.core.evidence import CrlEvidence, NoAnswer, Question, question_for
from postseal.core.names import same_name
from postseal.core.path import PathFault, PathSettings, build_path
from postseal.core.revocation import Order, RevocationSettings, crl_sources, still_needed
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer

# THR-6: one message must not become many requests.
REQUESTS_PER_ASK = 6
_PER_HOST = 2
_MAX_BUDGET = 60.0
_BREAKER = 5
_ASKERS = 256
_ANCHORED_FOR = 60.0
# How much longer a large CRL may take as long as it keeps coming.
_LONGEST_DOWNLOAD = 1800.0


@dataclass(frozen=True, slots=True)
class LookupSettings:
    """Limits: seconds, octets, requests at a time."""

    request_timeout: float = 10.0
    crl_max_size: int = 64 * 1024 * 1024
    ocsp_max_size: int = 64 * 1024
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Errand:
    """One URL to fetch, for whom. ``chain`` is the validated path of the issuer, issuer first; ``asked`` False: ahead.

    ``insist``: an administrator wants to know what is true now, so OCSP is asked with a nonce.
    """

    kind: str
    url: str
    chain: tuple[Certificate, ...]
    question: Question | None
    asked: bool = True
    insist: bool = False

    @property
    def subject(self) -> str:
        """The certificate that the answer is about: of OCSP the one asked for, of a CRL its issuer's."""
        asked = self.question.certificate if self.kind == "ocsp" and self.question else self.chain[0]
        return asked.fingerprint

    @property
    def key(self) -> tuple[str, ...]:
        """CACHE-5: what is one flight. An OCSP URL gives another answer for each certificate."""
        return (self.kind, self.url, self.chain[0].key_id, self.subject if self.kind == "ocsp" else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a flight ended: ``why`` is empty when there is evidence from the URL now."""

    url: str
    why: str = ""
    detail: str = ""


class _Allowance:
    """How many requests an ask may still start."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


class Lookups:
    """Serves asks from many threads. ``warn`` hears one sentence for each thing that an administrator should know."""

    def __init__(
        self, store: Store, http: Http, trust: TrustStore, clock: Clock, path_settings: PathSettings,
        revocation: RevocationSettings, settings: LookupSettings, warn: Callable[[str], None],
        chance: Callable[[], float] = random.random, meter: LookupMeter = NO_METER,
    ) -> None:  # fmt: skip
        self._meter = meter
        self._store = store
        self._http = http
        self._trust = trust
        self._clock = clock
        self._path_settings = path_settings
        self._revocation = revocation
        self._settings = settings
        self._warn = warn
        self._chance = chance
        self._ocsp = OcspFlights(
            store, http, clock, revocation, settings.ocsp_max_size, chance,
            lambda url, question, chain: self._fly(Errand("crl", url, chain, question), None),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._pruned: datetime | None = None
        self._flights: dict[tuple[str, ...], Future[Outcome]] = {}
        self._fresh: LRUCache[tuple[str, ...], float] = LRUCache(10_000)
        self._hosts: LRUCache[str, threading.BoundedSemaphore] = LRUCache(10_000)
        self._anchored: TTLCache[tuple[str, str, int], tuple[Certificate, ...]] = TTLCache(
            10_000, _ANCHORED_FOR, timer=clock.monotonic
        )
        self._fetchers = ThreadPoolExecutor(settings.concurrency, "fetch")
        self._askers = ThreadPoolExecutor(_ASKERS, "ask")

    def ask(self, questions: Sequence[Question], budget: float) -> int:
        """Fetch what ``questions`` need; returns after at most ``budget`` seconds. The number of questions refused."""
        deadline = self._clock.monotonic() + min(budget, _MAX_BUDGET)
        known = tuple({c.fingerprint: c for q in questions for c in (q.issuer, *q.chain)}.values())
        allowance = _Allowance(REQUESTS_PER_ASK)
        work = []
        for question in questions:
            chain = self._chain(question, known)
            if chain is not None:
                work.append(self._askers.submit(self._serve, question, chain, deadline, allowance))
        self._meter.asked(len(work), len(questions) - len(work))
        wait_for(work, max(0.0, deadline - self._clock.monotonic()))
        return len(questions) - len(work)

    def refresh(self, entries: Sequence[Entry], budget: float) -> list[Outcome]:
        """An administrator's order to fetch now, back-off or not. One outcome per entry that has a URL."""
        flights: list[tuple[str, Future[Outcome] | None]] = []
        for entry in entries:
            errand = self._errand(entry)
            flight = self._fly(replace(errand, insist=True), None, force=True) if errand is not None else None
            flights.append((entry.url, flight))
        wait_for([f for _, f in flights if f is not None], min(budget, _MAX_BUDGET))
        return [_outcome(url, flight) for url, flight in flights]

    def prefetch(self) -> int:
        """Start to fetch again what is due (CACHE-2); returns how many flights were started."""
        at = self._clock.now()
        started = 0
        if self._pruned is None or at - self._pruned > timedelta(hours=1):
            self._store.prune(at)
            self._pruned = at
        for entry in self._store.due(at, at - timedelta(days=14)):
            # A success plans the next fetch itself; this only keeps a failure from coming back at once.
            self._store.postpone(entry.name, at + freshness.retry_soon(entry.next_update, at))
            errand = self._errand(entry)
            if errand is not None and self._fly(errand, None) is not None:
                self._meter.prefetched(errand.kind)
                started += 1
        return started

    def idle(self) -> bool:
        """Is nothing being fetched?"""
        with self._lock:
            return not self._flights

    def close(self) -> None:
        """Start nothing new; running flights end by their own deadlines."""
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    # ---- may we? ------------------------------------------------------------------------------------------------------

    def _chain(self, question: Question, known: Sequence[Certificate] = ()) -> tuple[Certificate, ...] | None:
        """The path of the question's issuer, issuer first, if it and the certificate itself are valid now (PRE-1, THR-23)."""
        chain: tuple[Certificate, ...] = ()
        try:
            key = (question.certificate.fingerprint, question.issuer.fingerprint, self._trust.generation())
            with self._lock:
                kept = self._anchored.get(key)
            if kept is not None:
                return kept
            at = self._clock.now()
            others = (question.issuer, *question.chain, *known, *self._trust.intermediates())
            # The whole path in one piece: only so is everybody in it asked whether it is a CA.
            path = build_path(question.certificate, self._trust.anchors(), others, self._path_settings, at)
            if isinstance(path, PathFault):
                fault = path.detail or path.code
            elif path.issuer_of(0).key_id != question.issuer.key_id:
                fault = "it is of another issuer"
            else:
                chain, fault = path.certificates[1:] or (path.anchor.certificate,), ""
        except PostsealError as exc:
            fault = str(exc)
        if fault:
            self._warn(f"not fetching for certificate {question.certificate.fingerprint[:16]}: {fault}")
            return None
        with self._lock:
            self._anchored[key] = chain
        return chain

    def _issuer_chain(
        self, issuer: Certificate, others: Sequence[Certificate], at: datetime
    ) -> tuple[Certificate, ...] | None:
        anchors = self._trust.anchors()
        if any((a.certificate.key_id, a.certificate.subject) == (issuer.key_id, issuer.subject) for a in anchors):
            return (issuer,)
        path = build_path(issuer, anchors, others, self._path_settings, at)
        return None if isinstance(path, PathFault) else path.certificates

    def _errand(self, entry: Entry) -> Errand | None:
        """What to do to fetch stored evidence again; None for what was imported, or isn't trusted any more."""
        if not entry.url.lower().startswith(("http://", "https://", "ldap://")):
            return None
        try:
            if self._issuer_chain(entry.chain[0], entry.chain[1:], self._clock.now()) is None:
                return None
        except Unavailable:
            return None
        question = question_for(entry.certificate, entry.chain[0]) if entry.certificate is not None else None
        return Errand(entry.kind, entry.url, entry.chain, question, asked=False)

    # ---- one question ---------------------------------------------------------------------------------------------------

    def _serve(
        self, question: Question, chain: tuple[Certificate, ...], deadline: float, allowance: _Allowance
    ) -> None:
        try:
            sources = _sources(question, self._revocation)
            for index, (kind, url) in enumerate(sources):
                if not self._needed(question):
                    return
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return
                flight = self._fly(Errand(kind, url, chain, question), allowance)
                if flight is not None:
                    # RPL-5: half of what is left, so that the next source has its chance; the last gets all.
                    wait_for([flight], left if index + 1 == len(sources) else left / 2)
        except Unavailable as exc:
            self._warn(f"evidence can't be looked up: {exc}")

    def _needed(self, question: Question) -> bool:
        return still_needed(question, self._store.evidence(question), self._revocation, self._clock.now())

    def _fly(self, errand: Errand, allowance: _Allowance | None, force: bool = False) -> Future[Outcome] | None:
        """Join the flight of this errand or start one; None when the URL is left alone now."""
        with self._lock:
            flight = self._flights.get(errand.key)
            if flight is not None:
                self._meter.joined(errand.kind)
                return flight
            rests = not force and self._fresh.get(errand.key, 0.0) > self._clock.monotonic()
        # What was fetched a moment ago rests, unless an administrator had it forgotten meanwhile.
        if rests and self._store.url_state(errand.url).answered_at is None:
            with self._lock:
                self._fresh.pop(errand.key, None)
            rests = False
        if rests:
            return None
        if not force and self._blocked(errand):
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
            if allowance is not None and not allowance.take():
                return None
            flight = self._fetchers.submit(self._run, errand)
            self._flights[errand.key] = flight
            return flight

    def _blocked(self, errand: Errand) -> bool:
        """CACHE-3: is the URL, its answer about this one certificate, or its host in back-off?"""
        at = self._clock.now()
        for about in {"", errand.subject}:
            retry_at = self._store.url_state(errand.url, about).retry_at
            if retry_at is not None and retry_at > at:
                return True
        count, until = self._store.host_state(_host(errand.url))
        return count >= _BREAKER and until is not None and until > at

    # ---- one flight -----------------------------------------------------------------------------------------------------

    def _run(self, errand: Errand) -> Outcome:
        started = self._clock.monotonic()
        try:
            outcome = self._fetch(errand)
        except Unavailable as exc:
            # The disk is full, say: mail goes on with what is known.
            self._warn(f"evidence from {errand.url} can't be kept: {exc}")
            outcome = Outcome(errand.url, "rev.store-unavailable", str(exc))
        except Exception as exc:
            # RPL-3: no hostile answer may end the flight without an outcome.
            outcome = self._failed(errand.url, "rev.malformed", f"{type(exc).__name__} while reading the answer")
        finally:
            with self._lock:
                self._flights.pop(errand.key, None)
        self._meter.fetched(errand.kind, outcome.why or "ok", self._clock.monotonic() - started)
        return outcome

    def _fetch(self, errand: Errand) -> Outcome:
        deadline = self._clock.monotonic() + self._settings.request_timeout
        with self._lock:
            slot = self._hosts.setdefault(_host(errand.url), threading.BoundedSemaphore(_PER_HOST))
        if not slot.acquire(timeout=self._settings.request_timeout / 2):
            return Outcome(errand.url, "rev.timeout", "too many requests to this host are waiting already")
        try:
            if errand.kind == "crl":
                return self._fetch_crl(errand, deadline)
            assert errand.question is not None
            return self._fetch_ocsp(errand, errand.question, deadline)
        finally:
            slot.release()

    def _fetch_crl(self, errand: Errand, deadline: float) -> Outcome:
        with self._store.incoming() as incoming:
            transfer = self._http.get_to(
                errand.url, incoming.take, max_size=self._settings.crl_max_size, deadline=deadline,
                until=deadline + _LONGEST_DOWNLOAD, headers=self._conditions(errand),
            )  # fmt: skip
            return self._received_crl(errand, transfer, incoming)

    def _received_crl(self, errand: Errand, transfer: Transfer, incoming: Incoming) -> Outcome:
        at = self._clock.now()
        if isinstance(transfer, FetchFailed):
            return self._failed(errand.url, transfer.why, transfer.detail, transfer.retry_after, transfer.host_fault)
        if isinstance(transfer, NotModified):
            # CACHE-1: the server's word only plans when to ask again.
            self._store.still_current(errand.url, at, at + freshness.after_304(transfer.max_age))
            return self._landed(errand, timedelta(minutes=5))
        crl = incoming.crl(self._settings.crl_max_size)
        if isinstance(crl, tuple):
            return self._failed(errand.url, *crl)
        try:
            return self._accept_crl(errand, crl, transfer, at)
        except BadData as exc:
            return self._failed(errand.url, "rev.malformed", str(exc))

    def _conditions(self, errand: Errand) -> dict[str, str]:
        """Headers that save the body of a CRL that we have; none when we don't have it (any more)."""
        state = self._store.url_state(errand.url)
        if errand.question is not None:
            evidence = self._store.evidence(errand.question)
            if not any(isinstance(e, CrlEvidence) and e.url == errand.url for e in evidence):
                return {}
        headers = {"If-None-Match": state.etag, "If-Modified-Since": state.last_modified}
        return {name: value for name, value in headers.items() if value}

    def _accept_crl(self, errand: Errand, crl: Crl, transfer: Fetched, at: datetime) -> Outcome:
        """Store the CRL if its signature is the issuer's and it is better than what is there (CACHE-4)."""
        issuer = errand.chain[0]
        # CRL-2: also when the key fits. A CA that was renamed keeps its key, and the CRL of one name isn't that of the other.
        if not same_name(crl.issuer, issuer.subject):
            return self._failed(errand.url, "rev.wrong-issuer", "the CRL is another issuer's", about=errand.subject)
        if not signature_valid(crl, issuer.spki):
            words = "the CRL isn't signed by the issuer's key"
            return self._failed(errand.url, "rev.bad-signature", words, about=errand.subject)
        mark = self._store.mark_of(errand.chain, crl)
        if freshness.number_used_twice(mark, crl):
            self._warn(f"{issuer.name} used the CRL number {crl.number} twice, see {errand.url}")
        worse = freshness.rolls_back(mark, crl)
        if worse is None:
            old = self._store.crl_of(errand.chain, crl)
            worse = freshness.why_worse(old.crl if old is not None else None, crl, at, self._revocation.skew)
        if worse:
            return self._failed(errand.url, *worse)
        refresh_at = freshness.refresh_at(crl.this_update, crl.next_update, transfer.max_age, at, self._chance)
        self._store.store_crl(
            crl, errand.chain, errand.url, at, refresh_at, etag=transfer.etag, last_modified=transfer.last_modified
        )
        return self._landed(errand, freshness.rest(crl.this_update, crl.next_update))

    def _fetch_ocsp(self, errand: Errand, question: Question, deadline: float) -> Outcome:
        done = self._ocsp.fetch(errand.url, question, errand.chain, deadline, asked=errand.asked, insist=errand.insist)
        if isinstance(done, Landed):
            return self._landed(errand, done.rest)
        return self._failed(errand.url, done.why, done.detail, done.retry_after, done.host_fault, about=done.about)

    def _landed(self, errand: Errand, rest: timedelta) -> Outcome:
        with self._lock:
            self._fresh[errand.key] = self._clock.monotonic() + rest.total_seconds()
        self._store.record_success(errand.url, _host(errand.url), about=errand.subject)
        return Outcome(errand.url)

    def _failed(
        self, url: str, why: str, detail: str, retry_after: float | None = None, host_fault: bool = False,
        about: str = "",
    ) -> Outcome:  # fmt: skip
        """CACHE-3: remember the failure, and leave the URL alone for a while; with ``about`` for that certificate only."""
        at = self._clock.now()
        try:
            count = self._store.url_state(url, about).failures + 1
            retry_at = at + freshness.back_off(count, retry_after, self._chance)
            host, host_count = _host(url), 0
            if host_fault:
                host_count = self._store.host_state(host)[0] + 1
            until = at + freshness.back_off(max(1, host_count - _BREAKER + 1), retry_after, self._chance)
            failure = NoAnswer(url, why, detail, at, retry_at)
            self._store.record_failure(failure, count, host, host_count, until, about=about)
            self._warn(f"could not retrieve URL {url}: {detail}; next attempt in {(retry_at - at).seconds} s")
        except Unavailable as exc:
            self._warn(f"could not retrieve URL {url}: {detail}; and that can't be noted: {exc}")
        return Outcome(url, why, detail)


def _sources(question: Question, settings: RevocationSettings) -> list[tuple[str, str]]:
    """What to ask, in order (RPL-1). OCSP-20: at most three responders."""
    order = settings.order
    crls = [("crl", url) for url in crl_sources(question, settings)]
    answers = [("ocsp", url) for url in question.ocsp_urls[:3]]
    if order is Order.CRL_ONLY:
        return crls
    if order is Order.OCSP_ONLY:
        return answers
    return answers + crls if order is Order.OCSP_FIRST else crls + answers


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _outcome(url: str, flight: Future[Outcome] | None) -> Outcome:
    if flight is None:
        return Outcome(
            url, "rev.no-evidence", "not fetched: imported from a file, or its issuer isn't trusted any more"
        )
    return flight.result() if flight.done() else Outcome(url, "rev.timeout", "not done yet; it goes on")
