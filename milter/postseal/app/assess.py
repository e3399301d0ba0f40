"""Assess a recipient's certificates with what is on hand: path, fitness, revocation. Never touches the network.

What is still missing comes back as questions, which ``fetch`` hands to the lookup process. Results are kept for a short
time, never beyond the moment at which a certificate or its evidence ends (CACHE-1, CACHE-11), and dropped when the trust
store or the evidence changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

from postseal.app.ports import CapabilityMemory, Directory, EvidenceReader, Lookup, TrustStore
from postseal.core.address import Mailbox
from postseal.core.assess import Assessed, Candidate
from postseal.core.certs import Certificate
from postseal.core.ciphers import Remembered
from postseal.core.clock import clock_fault, doubted
from postseal.core.errors import Unavailable
from postseal.core.evidence import Evidence, NoAnswer, Orphan, Question
from postseal.core.fitness import fitness
from postseal.core.judgement import Judgement, JudgementSettings, judge_paths, possible_paths
from postseal.core.path import Path, PathFault, PathSettings
from postseal.core.revocation import RevocationSettings, Status, recheck_at

# CACHE-11: a verdict is reused for at most this long, so that a revocation is seen soon even if nothing else changes.
_REUSE = timedelta(minutes=10)
_REUSE_FAULT = timedelta(minutes=1)
_MAX_CANDIDATES = 20
# Soon enough to see what another process fetched meanwhile.
_REUSE_WHILE_FETCHING = timedelta(seconds=5)
_TELL_AGAIN = timedelta(hours=12)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assessment:
    """All candidates of one mailbox as judged at one moment.

    ``missing`` asks for evidence that would help; ``error`` says why the certificate store could not be read, or why nobody can
    tell what is valid now, if so. ``remembered`` is what the correspondent said in signed mail that it can read.
    """

    assessed: tuple[Assessed, ...] = ()
    missing: tuple[Question | Orphan, ...] = ()
    error: str = ""
    remembered: Remembered | None = None


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    value: T
    generation: tuple[int, int]
    since: datetime
    until: datetime

    def usable(self, generation: tuple[int, int], at: datetime) -> bool:
        # A clock that went back makes every kept value suspect.
        return self.generation == generation and self.since <= at < self.until


class Assessor:
    """Judges mailboxes. One per process; safe to call from several threads (each call works on values)."""

    def __init__(
        self,
        directory: Directory,
        trust: TrustStore,
        evidence: EvidenceReader,
        lookup: Lookup,
        path_settings: PathSettings,
        revocation_settings: RevocationSettings,
        fetch_issuers: bool = False,
        memory: CapabilityMemory | None = None,
        x25519: bool = False,
    ) -> None:
        self._directory = directory
        self._trust = trust
        self._evidence = evidence
        self._lookup = lookup
        self._path_settings = path_settings
        self._revocation = revocation_settings
        self._fetch_issuers = fetch_issuers
        self._memory = memory
        self._x25519 = x25519
        self._told: LRUCache[tuple[str, Status], datetime] = LRUCache(maxsize=20_000)
        self._lock = Lock()
        self._kept: LRUCache[tuple[str, ...], _Kept[Assessment]] = LRUCache(maxsize=20_000)
        self._paths: LRUCache[tuple[str, ...], _Kept[tuple[Path, ...] | PathFault]] = LRUCache(maxsize=20_000)

    def assess(self, mailbox: Mailbox, at: datetime) -> Assessment:
        """Judge every candidate certificate of ``mailbox`` at ``at``. Never raises for a store that can't be read."""
        try:
            candidates, left_out = _looked_at(self._directory.candidates(mailbox), at)
            remembered = self._memory.remembered(mailbox) if self._memory is not None and candidates else None
        except Unavailable as exc:
            return Assessment(error=str(exc))
        try:
            generation = (self._trust.generation(), self._evidence.generation())
        except Unavailable:
            generation = (self._trust.generation(), -1)
        # Origin and helpers too: a certificate may be pinned, or get its intermediate, without changing itself.
        helpers = (f.fingerprint for c in candidates for f in c.extra)
        key = (str(mailbox), *(f"{c.origin} {c.certificate.fingerprint}" for c in candidates), *helpers, str(left_out))
        with self._lock:
            kept = self._kept.get(key)
        if kept is None or not kept.usable(generation, at):
            assessment, until = self._judge_all(candidates, mailbox, at)
            if left_out and not any(map(_may_do, assessment.assessed)):
                # THR-19: many that can't be used must not hide the one that can, so that mail would go in clear.
                error = f"{mailbox} has {left_out} valid certificates more than are looked at ({_MAX_CANDIDATES})"
                assessment = replace(assessment, error=assessment.error or error)
            kept = _Kept(assessment, generation, at, until)
            with self._lock:
                self._kept[key] = kept
        # What is remembered isn't judged, so it isn't kept either: the store has the latest.
        return replace(kept.value, remembered=remembered) if remembered is not None else kept.value

    def fetch(self, questions: Sequence[Question | Orphan], budget: float, message: str = "") -> Future[None]:
        """Have missing evidence fetched; done when stored or when ``budget`` seconds are over. Never raises.

        ``message`` names the message for which it is fetched (THR-6).
        """
        return self._lookup.ask(questions, budget, message)

    def _judge_all(
        self, candidates: Sequence[Candidate], mailbox: Mailbox, at: datetime
    ) -> tuple[Assessment, datetime]:
        assessed: list[Assessed] = []
        missing: dict[tuple[str, str], Question | Orphan] = {}
        until = at + _REUSE
        for candidate in candidates:
            one, wanted, one_until = self._judge_one(candidate, mailbox, at)
            assessed.append(one)
            missing.update({_key(item): item for item in wanted})
            until = min(until, one_until)
        # CACHE-9, THR-27: who can turn our clock back must not thereby make certificates unusable, and mail go in clear.
        error = self._clock_fault(at) if assessed and not any(map(_may_do, assessed)) else ""
        return Assessment(tuple(assessed), tuple(missing.values()), error), until

    def _judge_one(
        self, candidate: Candidate, mailbox: Mailbox, at: datetime
    ) -> tuple[Assessed, tuple[Question | Orphan, ...], datetime]:
        weak_keys = self._path_settings.weak_keys
        findings = fitness(candidate.certificate, mailbox, at, weak_keys=weak_keys, x25519=self._x25519)
        paths, until = self._paths_of(candidate, at)
        # PRE-1: nothing is asked about a certificate without a validated path; PRE-2: nor about an unusable one.
        if isinstance(paths, PathFault) or any(f.fatal for f in findings):
            path = paths if isinstance(paths, PathFault) else paths[0]
            orphans = () if any(f.fatal for f in findings) else self._orphans(candidate, path, at)
            return Assessed(candidate, path, (), findings), orphans, min(until, at + _REUSE_FAULT)
        settings = JudgementSettings(self._path_settings, self._revocation)
        asked: dict[Question, None] = {}

        def evidence_for(question: Question) -> tuple[Evidence, ...]:
            asked[question] = None
            return self._evidence_for(question, at)

        found = judge_paths(paths, self._pool(candidate), evidence_for, settings, at)
        found = self._with_clock(found, at)
        self._tell(asked, found, at)
        for verdict in found.verdicts:
            if verdict.reason != "rev.anchor":
                until = min(until, max(recheck_at(verdict, at), at + _REUSE_WHILE_FETCHING))
        if found.missing:
            # What is being fetched may arrive at any moment, also by another process.
            until = min(until, at + _REUSE_WHILE_FETCHING)
        return Assessed(candidate, found.path, found.verdicts, findings), found.missing, until

    def _paths_of(self, candidate: Candidate, at: datetime) -> tuple[tuple[Path, ...] | PathFault, datetime]:
        """The paths of a candidate, kept as long as every certificate in them stays valid and the trust store the same."""
        pool = self._pool(candidate)
        generation = (self._trust.generation(), hash(pool))
        key = (candidate.certificate.fingerprint, *(c.fingerprint for c in candidate.extra))
        with self._lock:
            kept = self._paths.get(key)
        if kept is not None and kept.usable(generation, at):
            return kept.value, kept.until
        paths = possible_paths(candidate.certificate, self._trust.anchors(), pool, self._path_settings, at)
        if isinstance(paths, PathFault):
            until = at + _REUSE_FAULT
        else:
            until = _first_expiry([c for path in paths for c in path.certificates], at + _REUSE)
        with self._lock:
            self._paths[key] = _Kept(paths, generation, at, until)
        return paths, until

    def _pool(self, candidate: Candidate) -> tuple[Certificate, ...]:
        """Certificates that may complete a path, trusted for nothing."""
        try:
            fetched = self._evidence.intermediates()
        except Unavailable:
            fetched = ()
        return (*candidate.extra, *self._trust.intermediates(), *fetched)

    def _orphans(self, candidate: Candidate, path: Path | PathFault, at: datetime) -> tuple[Orphan, ...]:
        """RFC 5280 §4.2.2.1: whose issuer isn't known, if it says where that may be had. The candidates are the
        administrator's or a directory's, never mail's (THR-1)."""
        if not self._fetch_issuers or not isinstance(path, PathFault) or path.code != "path.no-issuer":
            return ()
        lonely = path.certificate or candidate.certificate
        try:
            return (Orphan(lonely),) if self._evidence.wants_issuer(lonely, at) else ()
        except Unavailable:
            return ()

    def _with_clock(self, found: Judgement, at: datetime) -> Judgement:
        """CACHE-9: a clock that can't be right makes every verdict unknown, but takes no revocation back."""
        fault = self._clock_fault(at)
        return replace(found, verdicts=doubted(found.verdicts, fault)) if fault else found

    def _clock_fault(self, at: datetime) -> str:
        try:
            return clock_fault(at, self._evidence.newest(), self._revocation.skew)
        except Unavailable:
            return clock_fault(at, None, self._revocation.skew)

    def _tell(self, asked: Iterable[Question], found: Judgement, at: datetime) -> None:
        """CACHE-2, CRL-27: the lookup process sees only what is missing; now and then it hears of what isn't.

        So evidence in use is fetched ahead, and a revocation is remembered beyond the evidence for it.
        """
        news = []
        worst = found.worst
        status = worst.status if worst is not None else Status.GOOD
        for question in asked:
            key = (question.certificate.fingerprint, status)
            with self._lock:
                told = self._told.get(key)
                if question in found.missing or (told is not None and told <= at < told + _TELL_AGAIN):
                    continue
                self._told[key] = at
            news.append(question)
        if news:
            self._lookup.tell(news)

    def _evidence_for(self, question: Question, at: datetime) -> tuple[Evidence, ...]:
        try:
            return self._evidence.evidence(question)
        except Unavailable as exc:
            return (NoAnswer("", "rev.store-unavailable", str(exc), at),)


def _looked_at(candidates: tuple[Candidate, ...], at: datetime) -> tuple[tuple[Candidate, ...], int]:
    """As many as may cost time, in the order given, but those that are expired last; and how many others are valid now."""
    if len(candidates) <= _MAX_CANDIDATES:
        return candidates, 0
    ordered = sorted(candidates, key=lambda c: c.certificate.not_after < at)
    left_out = [c for c in ordered[_MAX_CANDIDATES:] if c.certificate.not_after >= at]
    return tuple(ordered[:_MAX_CANDIDATES]), len(left_out)


def _may_do(assessed: Assessed) -> bool:
    """Is there nothing against the certificate but perhaps doubt?"""
    barred = any(f.fatal for f in assessed.findings) or any(v.forbids for v in assessed.verdicts)
    return isinstance(assessed.path, Path) and not barred


def _key(wanted: Question | Orphan) -> tuple[str, str]:
    return (wanted.certificate.fingerprint, wanted.issuer.key_id if isinstance(wanted, Question) else "")


def _first_expiry(certificates: Sequence[Certificate], limit: datetime) -> datetime:
    return min(limit, *(c.not_after for c in certificates))
