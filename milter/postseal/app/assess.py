"""Assess a recipient's certificates with what is on hand: path, fitness, revocation. Never touches the network.

What is still missing comes back as questions, which ``fetch`` hands to the lookup process. Results are kept for a short
time, never beyond the moment at which a certificate or its evidence ends (CACHE-1, CACHE-11), and dropped when the trust
store or the evidence changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

from postseal.app.ports import Directory, EvidenceReader, Lookup, TrustStore
from postseal.core.address import Mailbox
from postseal.core.assess import Assessed, Candidate
from postseal.core.certs import Certificate
from postseal.core.errors import Unavailable
from postseal.core.evidence import Evidence, NoAnswer, Question
from postseal.core.fitness import fitness
from postseal.core.judgement import JudgementSettings, judge_paths, possible_paths
from postseal.core.path import Path, PathFault, PathSettings
from postseal.core.revocation import RevocationSettings, recheck_at

# CACHE-11: a verdict is reused for at most this long, so that a revocation is seen soon even if nothing else changes.
_REUSE = timedelta(minutes=10)
_REUSE_FAULT = timedelta(minutes=1)
_MAX_CANDIDATES = 20
# Soon enough to see what another process fetched meanwhile.
_REUSE_WHILE_FETCHING = timedelta(seconds=5)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assessment:
    """All candidates of one mailbox as judged at one moment.

    ``missing`` asks for evidence that would help; ``error`` says why the certificate store could not be read, if so.
    """

    assessed: tuple[Assessed, ...] = ()
    missing: tuple[Question, ...] = ()
    error: str = ""


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
    ) -> None:
        self._directory = directory
        self._trust = trust
        self._evidence = evidence
        self._lookup = lookup
        self._path_settings = path_settings
        self._revocation = revocation_settings
        self._lock = Lock()
        self._kept: LRUCache[tuple[str, ...], _Kept[Assessment]] = LRUCache(maxsize=20_000)
        self._paths: LRUCache[tuple[str, ...], _Kept[tuple[Path, ...] | PathFault]] = LRUCache(maxsize=20_000)

    def assess(self, mailbox: Mailbox, at: datetime) -> Assessment:
        """Judge every candidate certificate of ``mailbox`` at ``at``. Never raises for a store that can't be read."""
        try:
            candidates = self._directory.candidates(mailbox)[:_MAX_CANDIDATES]
        except Unavailable as exc:
            return Assessment(error=str(exc))
        try:
            generation = (self._trust.generation(), self._evidence.generation())
        except Unavailable:
            generation = (self._trust.generation(), -1)
        # Origin and helpers too: a certificate may be pinned, or get its intermediate, without changing itself.
        helpers = (f.fingerprint for c in candidates for f in c.extra)
        key = (str(mailbox), *(f"{c.origin} {c.certificate.fingerprint}" for c in candidates), *helpers)
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and kept.usable(generation, at):
            return kept.value
        assessment, until = self._judge_all(candidates, mailbox, at)
        with self._lock:
            self._kept[key] = _Kept(assessment, generation, at, until)
        return assessment

    def fetch(self, questions: Sequence[Question], budget: float) -> Future[None]:
        """Have missing evidence fetched; done when stored or when ``budget`` seconds are over. Never raises."""
        return self._lookup.ask(questions, budget)

    def _judge_all(
        self, candidates: Sequence[Candidate], mailbox: Mailbox, at: datetime
    ) -> tuple[Assessment, datetime]:
        assessed: list[Assessed] = []
        missing: dict[tuple[str, str], Question] = {}
        until = at + _REUSE
        for candidate in candidates:
            one, questions, one_until = self._judge_one(candidate, mailbox, at)
            assessed.append(one)
            missing.update({(q.certificate.fingerprint, q.issuer.key_id): q for q in questions})
            until = min(until, one_until)
        return Assessment(tuple(assessed), tuple(missing.values())), until

    def _judge_one(
        self, candidate: Candidate, mailbox: Mailbox, at: datetime
    ) -> tuple[Assessed, tuple[Question, ...], datetime]:
        findings = fitness(candidate.certificate, mailbox, at, weak_keys=self._path_settings.weak_keys)
        paths, until = self._paths_of(candidate, at)
        # PRE-1: nothing is asked about a certificate without a validated path; PRE-2: nor about an unusable one.
        if isinstance(paths, PathFault) or any(f.fatal for f in findings):
            path = paths if isinstance(paths, PathFault) else paths[0]
            return Assessed(candidate, path, (), findings), (), min(until, at + _REUSE_FAULT)
        settings = JudgementSettings(self._path_settings, self._revocation)
        pool = (*candidate.extra, *self._trust.intermediates())
        found = judge_paths(paths, pool, lambda question: self._evidence_for(question, at), settings, at)
        for verdict in found.verdicts:
            if verdict.reason != "rev.anchor":
                until = min(until, max(recheck_at(verdict, at), at + _REUSE_WHILE_FETCHING))
        if found.missing:
            # What is being fetched may arrive at any moment, also by another process.
            until = min(until, at + _REUSE_WHILE_FETCHING)
        return Assessed(candidate, found.path, found.verdicts, findings), found.missing, until

    def _paths_of(self, candidate: Candidate, at: datetime) -> tuple[tuple[Path, ...] | PathFault, datetime]:
        """The paths of a candidate, kept as long as every certificate in them stays valid and the trust store the same."""
        generation = (self._trust.generation(), 0)
        key = (candidate.certificate.fingerprint, *(c.fingerprint for c in candidate.extra))
        with self._lock:
            kept = self._paths.get(key)
        if kept is not None and kept.usable(generation, at):
            return kept.value, kept.until
        intermediates = (*candidate.extra, *self._trust.intermediates())
        paths = possible_paths(candidate.certificate, self._trust.anchors(), intermediates, self._path_settings, at)
        if isinstance(paths, PathFault):
            until = at + _REUSE_FAULT
        else:
            until = _first_expiry([c for path in paths for c in path.certificates], at + _REUSE)
        with self._lock:
            self._paths[key] = _Kept(paths, generation, at, until)
        return paths, until

    def _evidence_for(self, question: Question, at: datetime) -> tuple[Evidence, ...]:
        try:
            return self._evidence.evidence(question)
        except Unavailable as exc:
            return (NoAnswer("", "rev.store-unavailable", str(exc), at),)


def _first_expiry(certificates: Sequence[Certificate], limit: datetime) -> datetime:
    return min(limit, *(c.not_after for c in certificates))
