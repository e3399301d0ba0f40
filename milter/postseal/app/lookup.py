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
from postseal.app.budgets import Allowance, HostLimits, MeteredHttp
from postseal.app.crl_flight import CrlFlights
from postseal.app.flights import Errand, Flights, Outcome, outcome_of
from postseal.app.issuer_flight import IssuerFlights
from postseal.app.landing import Failed, Landed
from postseal.app.lookup_ports import Entry, Http, Store
from postseal.app.metering import NO_METER, LookupMeter
from postseal.app.ocsp_flight import OcspFlights
from postseal.app.ports import Clock, TrustStore
from postseal.core.certs import Certificate
from postseal.core.crl import Crl
from postseal.core.crl_signers import Signers
from postseal.core.errors import PostsealError, Unavailable
from postseal.core.evidence import (
    CrlEvidence,
    Evidence,
    Orphan,
    Question,
    RevokedBefore,
    delta_urls,
    issuer_urls,
    question_for,
)
from postseal.core.judgement import settings_below
from postseal.core.path import Path, PathFault, PathSettings, build_path
from postseal.core.revocation import Order, RevocationSettings, Status, crl_sources, still_needed
from postseal.core.verdict import UseDeltas, Verdict

_MAX_BUDGET = 60.0
_ASKERS = 256
_ANCHORED_FOR = 60.0
_MESSAGES = 10_000
# Longer than any milter keeps a message.
_MESSAGE_LIFE = 600.0


@dataclass(frozen=True, slots=True)
class LookupSettings:
    """Limits: seconds, octets, requests at a time, for one message, to one host in a minute, octets in a day (THR-6)."""

    request_timeout: float = 10.0
    crl_max_size: int = 64 * 1024 * 1024
    ocsp_max_size: int = 64 * 1024
    concurrency: int = 8
    requests_per_message: int = 6
    host_concurrency: int = 2
    host_requests_per_minute: int = 10
    octets_per_day: int = 4 * 1024**3
    fetch_issuers: bool = True


@dataclass(frozen=True, slots=True)
class _Case:
    """A question that may be served: its validated path, and how its anchor wants revocation to be found out."""

    question: Question
    path: Path
    revocation: RevocationSettings

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """The path of the question's issuer, issuer first."""
        return self.path.certificates[1:] or (self.path.anchor.certificate,)


class Lookups:
    """Serves asks from many threads. ``warn`` hears one sentence for each thing that an administrator should know.

    ``alarm`` hears what is an error: a reliable CA that has no current CRL any more, a clock that went back.
    """

    def __init__(
        self, store: Store, http: Http, trust: TrustStore, clock: Clock, path_settings: PathSettings,
        revocation: RevocationSettings, settings: LookupSettings, warn: Callable[[str], None],
        chance: Callable[[], float] = random.random, meter: LookupMeter = NO_METER,
        alarm: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._trust = trust
        self._clock = clock
        self._path_settings = path_settings
        self._revocation = revocation
        self._settings = settings
        self._warn = warn
        self._alarm = alarm or warn
        self._meter = meter
        http = MeteredHttp(http, store, clock, settings.octets_per_day)
        hosts = HostLimits(settings.host_concurrency, settings.host_requests_per_minute, clock)

        def once_more(url: str) -> bool:
            return hosts.take(urlsplit(url).netloc.lower())

        self._crls = CrlFlights(
            store,
            http,
            trust,
            clock,
            path_settings,
            revocation,
            settings.crl_max_size,
            chance,
            warn,
            self._deltas,
            settings.fetch_issuers,
            once_more,
        )
        self._ocsp = OcspFlights(
            store, http, clock, revocation, settings.ocsp_max_size, chance,
            lambda url, question, chain: self._flights.fly(Errand("crl", url, chain, question, clock.now()), None),
            once_more,
        )  # fmt: skip
        self._issuers = IssuerFlights(store, http, trust, clock, path_settings, once_more)
        self._flights = Flights(
            store, clock, self._fetch, hosts, settings.request_timeout, settings.concurrency, warn, self._alarm, chance,
            meter,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._pruned: datetime | None = None
        self._anchored: TTLCache[tuple[str, str, int], Path] = TTLCache(10_000, _ANCHORED_FOR, timer=clock.monotonic)
        self._allowances: TTLCache[str, Allowance] = TTLCache(_MESSAGES, _MESSAGE_LIFE, timer=clock.monotonic)
        self._used: LRUCache[str, datetime] = LRUCache(_MESSAGES)
        self._askers = ThreadPoolExecutor(_ASKERS, "ask")

    def ask(self, questions: Sequence[Question | Orphan], budget: float, message: str = "") -> int:
        """Fetch what ``questions`` need; returns after at most ``budget`` seconds. The number of questions refused.

        ``message`` names the message for which they are asked: all asks for it share one allowance of requests (THR-6).
        """
        deadline = self._clock.monotonic() + min(budget, _MAX_BUDGET)
        asked = [q for q in questions if isinstance(q, Question)]
        known = tuple({c.fingerprint: c for q in asked for c in (q.issuer, *q.chain)}.values())
        allowance = self._allowance(message)
        work = []
        for question in questions:
            if isinstance(question, Orphan):
                work.append(self._askers.submit(self._find_issuer, question, deadline, allowance))
                continue
            path = self._path(question, known)
            if path is not None:
                case = _Case(question, path, settings_below(path.anchor, self._revocation))
                work.append(self._askers.submit(self._serve, case, deadline, allowance))
        self._meter.asked(len(work), len(questions) - len(work))
        wait_for(work, max(0.0, deadline - self._clock.monotonic()))
        return len(questions) - len(work)

    def note(self, questions: Sequence[Question]) -> None:
        """Where nothing is fetched: evidence is noted as used, and revocations are remembered, all the same (CRL-27)."""
        known = tuple({c.fingerprint: c for q in questions for c in (q.issuer, *q.chain)}.values())
        try:
            for question in questions:
                path = self._path(question, known)
                if path is not None:
                    self._note_use(question, self._clock.now())
                    self._remember(_Case(question, path, settings_below(path.anchor, self._revocation)))
        except Unavailable as exc:
            self._warn(f"what is in use can't be noted: {exc}")

    def refresh(self, entries: Sequence[Entry], budget: float) -> list[Outcome]:
        """An administrator's order to fetch now, back-off or not. One outcome per entry that has a URL."""
        flights: list[tuple[str, Future[Outcome] | None]] = []
        for entry in entries:
            errand = self._errand(entry)
            flight = self._flights.fly(replace(errand, insist=True), None, force=True) if errand is not None else None
            flights.append((entry.url, flight))
        wait_for([f for _, f in flights if f is not None], min(budget, _MAX_BUDGET))
        return [outcome_of(url, flight) for url, flight in flights]

    def upkeep(self) -> None:
        """What must be done now and then also where nothing is fetched: look at the clock, drop what is long over."""
        at = self._clock.now()
        # CACHE-9
        trouble = self._store.observe_clock(at, self._revocation.skew)
        if trouble:
            self._alarm(trouble)
        if self._pruned is None or at - self._pruned > timedelta(hours=1):
            self._store.prune(at)
            self._pruned = at

    def prefetch(self) -> int:
        """Upkeep, and start to fetch again what is due (CACHE-2); returns how many flights were started."""
        self.upkeep()
        at, started = self._clock.now(), 0
        due = self._store.due(at, at - timedelta(days=14))
        # A success plans the next fetch itself; this only keeps a failure from coming back at once.
        if due:
            self._store.postpone({e.name: at + freshness.retry_soon(e.next_update, at) for e in due})
        for entry in due:
            errand = self._errand(entry)
            if errand is not None and self._flights.fly(errand, None) is not None:
                self._meter.prefetched(errand.kind)
                started += 1
        return started

    def idle(self) -> bool:
        """Is nothing being fetched?"""
        return self._flights.idle()

    def close(self) -> None:
        """Start nothing new; running flights end by their own deadlines."""
        self._askers.shutdown(wait=False, cancel_futures=True)
        self._flights.close()

    # ---- may we? ----------------------------------------------------------------------------------------------------

    def _path(self, question: Question, known: Sequence[Certificate] = ()) -> Path | None:
        """The path of the question's certificate, if all of it is valid now (PRE-1, THR-23)."""
        try:
            key = (question.certificate.fingerprint, question.issuer.fingerprint, self._trust.generation())
            with self._lock:
                kept = self._anchored.get(key)
            if kept is not None:
                return kept
            at = self._clock.now()
            others = (question.issuer, *question.chain, *known, *self._helpers())
            # The whole path in one piece: only so is everybody in it asked whether it is a CA.
            path = build_path(question.certificate, self._trust.anchors(), others, self._path_settings, at)
            if isinstance(path, PathFault) and path.code == "path.wrong-purpose":
                # The question may be about a signer of CRLs, who needn't be for mail (RFC 5280 §6.3.3 (f)).
                path = build_path(question.certificate, self._trust.anchors(), others, self._crls.path_settings, at)
            if isinstance(path, PathFault):
                fault = path.detail or path.code
            elif path.issuer_of(0).key_id == question.issuer.key_id:
                with self._lock:
                    self._anchored[key] = path
                return path
            else:
                fault = "it is of another issuer"
        except PostsealError as exc:
            fault = str(exc)
        self._warn(f"not fetching for certificate {question.certificate.fingerprint[:16]}: {fault}")
        return None

    def _helpers(self) -> tuple[Certificate, ...]:
        """Certificates that may complete a path, trusted for nothing."""
        return (*self._trust.intermediates(), *self._store.intermediates())

    def _trusted(self, chain: Sequence[Certificate], kind: str, at: datetime) -> bool:
        """Does the stored path of an issuer or signer still lead to an anchor?"""
        anchors = self._trust.anchors()
        issuer = chain[0]
        if any((a.certificate.key_id, a.certificate.subject) == (issuer.key_id, issuer.subject) for a in anchors):
            return True
        # RFC 5280 §6.3.3 (f): who signs CRLs isn't asked whether it is for mail.
        settings = self._path_settings if kind == "ocsp" else self._crls.path_settings
        return not isinstance(build_path(issuer, anchors, chain[1:], settings, at), PathFault)

    def _errand(self, entry: Entry) -> Errand | None:
        """What to do to fetch stored evidence again; None for what was imported, or isn't trusted any more."""
        if not entry.url.lower().startswith(("http://", "https://", "ldap://")):
            return None
        at = self._clock.now()
        try:
            if not self._trusted(entry.chain, entry.kind, at):
                return None
        except Unavailable:
            return None
        question = question_for(entry.certificate, entry.chain[0]) if entry.certificate is not None else None
        return Errand(entry.kind, entry.url, entry.chain, question, at, asked=False)

    def _allowance(self, message: str) -> Allowance:
        with self._lock:
            kept = self._allowances.get(message) if message else None
            if kept is None:
                kept = Allowance(self._settings.requests_per_message)
                if message:
                    self._allowances[message] = kept
        return kept

    # ---- one question -----------------------------------------------------------------------------------------------

    def _serve(self, case: _Case, deadline: float, allowance: Allowance) -> None:
        question = case.question
        try:
            since = self._clock.now()
            self._note_use(question, since)
            sources = sources_of(question, case.revocation)
            for index, (kind, url) in enumerate(sources):
                evidence = self._store.evidence(question)
                verdict = self._judge(case, evidence)
                if not still_needed(question, evidence, case.revocation, self._clock.now(), verdict):
                    break
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return
                flight = self._flights.fly(Errand(kind, url, case.chain, question, since), allowance)
                if flight is not None:
                    # RPL-5: half of what is left, so that the next source has its chance; the last gets all.
                    wait_for([flight], left if index + 1 == len(sources) else left / 2)
                if allowance.spent:
                    break
            self._add_deltas(case, since, deadline, allowance)
            self._remember(case)
        except Unavailable as exc:
            self._warn(f"evidence can't be looked up: {exc}")

    def _judge(self, case: _Case, evidence: Sequence[Evidence]) -> Verdict:
        """As the milter will judge it, CRLs of other signers included."""
        signers = Signers(
            case.path, self._helpers(), self._store.evidence, self._path_settings, case.revocation, self._clock.now()
        )
        return signers.judge(case.question, evidence)

    def _note_use(self, question: Question, at: datetime) -> None:
        """CACHE-2, CACHE-10: what is asked about is in use; noted now and then, because each note is a write."""
        key = question.certificate.fingerprint
        with self._lock:
            noted = self._used.get(key)
            if noted is not None and timedelta(0) <= at - noted < timedelta(hours=6):
                return
            self._used[key] = at
        self._store.note_use(question, at)

    def _remember(self, case: _Case) -> None:
        """CRL-27: a revocation that was seen outlives the evidence for it. A hold doesn't: it may be lifted (CRL-20)."""
        question = case.question
        evidence = self._store.evidence(question)
        if any(isinstance(item, RevokedBefore) for item in evidence):
            return
        at = self._clock.now()
        verdict = self._judge(case, evidence)
        if verdict.status is Status.REVOKED and verdict.revocation_reason != "certificateHold":
            seen = RevokedBefore(
                verdict.source, at, verdict.revoked_at, verdict.revocation_reason or "unspecified", verdict.this_update
            )
            self._store.remember_revoked(question, seen)

    # ---- deltas (CRL-17, CRL-18) --------------------------------------------------------------------------------------

    def _deltas(self, errand: Errand, crl: Crl) -> None:
        """A complete CRL has landed that says where its deltas are: have them too, ahead of any question."""
        if crl.delta_base is not None or self._revocation.use_deltas is UseDeltas.NO:
            return
        at = self._clock.now()
        question = errand.question or question_for(errand.chain[0], errand.chain[0])
        for url in delta_urls(question, (CrlEvidence(crl, errand.url, at),)):
            self._flights.fly(Errand("crl", url, errand.chain, errand.question, at, asked=False), None)

    def _add_deltas(self, case: _Case, since: datetime, deadline: float, allowance: Allowance) -> None:
        """Deltas of the bases that are there, unless there are current ones; without a base they are of no use."""
        if case.revocation.use_deltas is UseDeltas.NO or case.revocation.order is Order.OCSP_ONLY:
            return
        question = case.question
        evidence = self._store.evidence(question)
        if _delta_is_current(evidence, self._clock.now()):
            return
        for url in delta_urls(question, evidence):
            flight = self._flights.fly(Errand("crl", url, case.chain, question, since), allowance)
            left = deadline - self._clock.monotonic()
            if flight is not None and left > 0:
                wait_for([flight], left)
            if _delta_is_current(self._store.evidence(question), self._clock.now()) or left <= 0:
                return

    # ---- issuers that aren't known ------------------------------------------------------------------------------------

    def _find_issuer(self, orphan: Orphan, deadline: float, allowance: Allowance) -> None:
        """AIA caIssuers, only when the issuer is really unknown here too."""
        try:
            fault = self._issuers.fault(orphan.certificate)
            if not self._settings.fetch_issuers or fault is None or fault.code != "path.no-issuer":
                return
            missing = fault.certificate or orphan.certificate
            for url in issuer_urls(missing):
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return
                errand = Errand("issuer", url, (missing,), None, self._clock.now())
                flight = self._flights.fly(errand, allowance)
                if flight is not None:
                    wait_for([flight], left)
                    if flight.done() and not flight.result().why:
                        return
        except Unavailable as exc:
            self._warn(f"issuers can't be looked up: {exc}")

    # ---- one errand ---------------------------------------------------------------------------------------------------

    def _fetch(self, errand: Errand, deadline: float) -> Landed | Failed:
        if errand.kind == "crl":
            return self._crls.fetch(errand, deadline)
        if errand.kind == "issuer":
            return self._issuers.fetch(errand, deadline)
        assert errand.question is not None
        return self._ocsp.fetch(
            errand.url, errand.question, errand.chain, deadline, asked=errand.asked, insist=errand.insist
        )


def sources_of(question: Question, settings: RevocationSettings) -> list[tuple[str, str]]:
    """What to ask, in order (RPL-1). OCSP-20: at most three responders."""
    order = settings.order
    crls = [("crl", url) for url in crl_sources(question, settings)]
    answers = [("ocsp", url) for url in question.ocsp_urls[:3]]
    if order is Order.CRL_ONLY:
        return crls
    if order is Order.OCSP_ONLY:
        return answers
    return answers + crls if order is Order.OCSP_FIRST else crls + answers


def _delta_is_current(evidence: Sequence[Evidence], at: datetime) -> bool:
    deltas = (e.crl for e in evidence if isinstance(e, CrlEvidence) and e.crl.delta_base is not None)
    return any(crl.next_update is not None and crl.next_update > at for crl in deltas)
