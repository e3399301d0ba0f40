"""What stored evidence says about each certificate of a path, piece by piece, and what the lookup process would do next.

For people: nothing is fetched, resolved or written. The order and the limits are those of ``app.lookup``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from postseal.app.flights import BREAKER
from postseal.app.lookup import sources_of
from postseal.app.lookup_ports import UrlState
from postseal.core.assess import Assessed
from postseal.core.certs import Certificate
from postseal.core.errors import Unavailable
from postseal.core.evidence import Evidence, NoAnswer, Question, issuer_urls, question_for
from postseal.core.judgement import settings_below
from postseal.core.path import Path, PathFault
from postseal.core.revocation import RevocationSettings, Verdict, judge, still_needed


class Memory(Protocol):
    """``sources.evidence.EvidenceStore``, to read."""

    def evidence(self, question: Question) -> tuple[Evidence, ...]: ...

    def url_state(self, url: str, about: str = "") -> UrlState: ...

    def host_state(self, host: str) -> tuple[int, datetime | None]: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of stored evidence, and the verdict that it would give alone."""

    kind: str
    url: str
    fetched_at: datetime
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """One URL in the order in which it would be asked. ``why_not`` is empty when it would be; ``known`` says what is known."""

    kind: str
    url: str
    why_not: str
    known: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """One certificate. ``needed`` tells whether anything would be fetched for it at all; ``skipped`` is what can't be used."""

    certificate: Certificate
    verdict: Verdict
    needed: bool
    pieces: tuple[Piece, ...]
    steps: tuple[Step, ...]
    skipped: tuple[str, ...]


def outlook(
    assessed: Assessed, memory: Memory, foresee: Callable[[str], str], settings: RevocationSettings, at: datetime,
    *, fetches: bool = True, requests: int = 6,
) -> tuple[Outlook, ...]:  # fmt: skip
    """One entry per certificate of the path except its anchor; none without a path (PRE-1: nothing would be asked).

    ``foresee`` says why the address guard refuses a URL, as far as its text tells; ``fetches`` and
    ``requests`` are ``[lookup] fetch`` and ``requests_per_message``.
    """
    path = assessed.path
    if not isinstance(path, Path):
        return ()
    found = []
    left = requests
    below = settings_below(path.anchor, settings)
    for index, certificate in enumerate(path.certificates):
        if certificate == path.anchor.certificate:
            continue
        question = question_for(certificate, path.issuer_of(index), path.certificates[index + 2 :])
        evidence = _evidence(memory, question, at)
        verdict = assessed.verdicts[index] if index < len(assessed.verdicts) else judge(question, evidence, below, at)
        needed = still_needed(question, evidence, below, at, verdict)
        steps = []
        for kind, url in sources_of(question, below):
            why_not = _why_not(memory, question, kind, url, foresee, at) if fetches else "[lookup] fetch = false"
            if not why_not and needed:
                left -= 1
                why_not = f"one message may start {requests} requests at most" if left < 0 else ""
            steps.append(Step(kind, url, why_not, _known(memory, url)))
        pieces = tuple(_piece(question, e, below, at) for e in evidence)
        found.append(Outlook(certificate, verdict, needed and fetches, pieces, tuple(steps), question.skipped))
    return tuple(found)


def issuer_steps(assessed: Assessed, memory: Memory, foresee: Callable[[str], str], at: datetime) -> tuple[Step, ...]:
    """Where the lookup process would fetch the certificate of an issuer that isn't known; empty when that isn't the trouble."""
    fault = assessed.path
    if not isinstance(fault, PathFault) or fault.code != "path.no-issuer":
        return ()
    missing = fault.certificate or assessed.candidate.certificate
    steps = []
    for url in issuer_urls(missing):
        why_not = _left_alone(memory, url, missing, foresee, at)
        steps.append(Step("issuer", url, why_not, _known(memory, url)))
    return tuple(steps)


def _evidence(memory: Memory, question: Question, at: datetime) -> tuple[Evidence, ...]:
    try:
        return memory.evidence(question)
    except Unavailable as exc:
        return (NoAnswer("", "rev.store-unavailable", str(exc), at),)


def _piece(question: Question, evidence: Evidence, settings: RevocationSettings, at: datetime) -> Piece:
    when = evidence.at if isinstance(evidence, NoAnswer) else evidence.fetched_at
    kind = type(evidence).__name__.removesuffix("Evidence").lower()
    return Piece(kind, evidence.url, when, judge(question, (evidence,), settings, at))


def _why_not(
    memory: Memory, question: Question, kind: str, url: str, foresee: Callable[[str], str], at: datetime
) -> str:
    return _left_alone(memory, url, question.certificate if kind == "ocsp" else question.issuer, foresee, at)


def _left_alone(memory: Memory, url: str, subject: Certificate, foresee: Callable[[str], str], at: datetime) -> str:
    """Why a URL isn't asked now, about that certificate; empty when it may be."""
    refusal = foresee(url)
    if refusal:
        return f"refused by the address guard: {refusal}"
    try:
        for about in ("", subject.fingerprint):
            state = memory.url_state(url, about)
            if state.retry_at is not None and state.retry_at > at:
                return f"left alone until {_clock(state.retry_at)} after {_failures(state.failures)}"
        count, until = memory.host_state(urlsplit(url).netloc.lower())
    except Unavailable as exc:
        return str(exc)
    if count >= BREAKER and until is not None and until > at:
        return f"its host is left alone until {_clock(until)} after {_failures(count)}"
    return ""


def _known(memory: Memory, url: str) -> str:
    try:
        state = memory.url_state(url)
    except Unavailable:
        return ""
    if state.failures:
        return f"{_failures(state.failures)} in a row"
    return f"answered {_clock(state.answered_at)}" if state.answered_at is not None else "never asked"


def _failures(count: int) -> str:
    return "1 failure" if count == 1 else f"{count} failures"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
