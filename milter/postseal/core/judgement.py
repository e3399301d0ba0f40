"""The one judgement of a certificate: its path, and whether anybody in it is revoked. Mail, ``verify`` and tests all ask here.

Paths are tried in the order in which ``core.path`` finds them. The first whose certificates are all GOOD is taken, and if there
is none the best: one with nobody revoked before one with somebody, then the one with fewer doubts. The worst certificate of
the path decides about the path (RFC 5280 §6.1.3 (a)(3) asks every one of them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from postseal.core.certs import Certificate
from postseal.core.crl_signers import Budget, EvidenceFor, Signers
from postseal.core.evidence import Question, question_for
from postseal.core.path import Anchor, Path, PathFault, PathSettings, build_paths
from postseal.core.revocation import Doubt, RevocationSettings, Status, Verdict, still_needed

# PRE-6: paths that are judged before the best so far has to do. Honest certificates have one or two.
MAX_PATHS = 8


@dataclass(frozen=True, slots=True)
class JudgementSettings:
    """``with_revocation`` False leaves revocation out: then the first path is taken and there are no verdicts."""

    path: PathSettings
    revocation: RevocationSettings
    with_revocation: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """The chosen path, or the most useful fault. ``verdicts`` has one entry per certificate of the path, leaf first.

    An anchor that stands in the path itself has the verdict ``rev.anchor`` (PRE-4). ``missing`` are the questions for which
    fetching would help. ``tried`` counts the paths that were judged.
    """

    path: Path | PathFault
    verdicts: tuple[Verdict, ...] = ()
    missing: tuple[Question, ...] = ()
    tried: int = 0

    @property
    def good(self) -> bool:
        return isinstance(self.path, Path) and all(v.status is Status.GOOD for v in self.verdicts)

    @property
    def worst(self) -> Verdict | None:
        """The verdict that decides: REVOKED before UNKNOWN before GOOD, the certificate nearest to the leaf first."""
        return max(self.verdicts, key=_badness, default=None)


def judge_certificate(
    leaf: Certificate,
    anchors: Sequence[Anchor],
    pool: Sequence[Certificate],
    evidence_for: EvidenceFor,
    settings: JudgementSettings,
    at: datetime,
) -> Judgement:
    """The judgement of ``leaf`` at ``at``. ``pool`` are further certificates, untrusted. Total: never raises for bad input."""
    paths = possible_paths(leaf, anchors, pool, settings.path, at)
    if isinstance(paths, PathFault):
        return Judgement(paths)
    return judge_paths(paths, pool, evidence_for, settings, at)


def possible_paths(
    leaf: Certificate, anchors: Sequence[Anchor], pool: Sequence[Certificate], settings: PathSettings, at: datetime
) -> tuple[Path, ...] | PathFault:
    """At most ``MAX_PATHS`` valid paths in the order in which they are to be judged, or why there is none."""
    paths: list[Path] = []
    for path in islice(build_paths(leaf, anchors, pool, settings, at), MAX_PATHS):
        if isinstance(path, PathFault):
            return path
        paths.append(path)
    return tuple(paths)


def judge_paths(
    paths: Iterable[Path],
    pool: Sequence[Certificate],
    evidence_for: EvidenceFor,
    settings: JudgementSettings,
    at: datetime,
) -> Judgement:
    """``judge_certificate`` where the paths (at least one) are known already."""
    best: Judgement | None = None
    budget = Budget()
    revoked = _Revoked()
    tried = 0
    for path in paths:
        tried += 1
        if not settings.with_revocation:
            return Judgement(path, tried=tried)
        found = _judge_path(path, pool, evidence_for, settings, at, budget, revoked)
        if best is None or _doubts(found) < _doubts(best):
            best = found
        if found.good or tried >= MAX_PATHS:
            break
    assert best is not None
    if isinstance(best.path, Path) and best.verdicts and not best.good:
        pairs = zip(best.path.certificates, best.verdicts, strict=True)
        best = replace(best, verdicts=tuple(revoked.instead_of(v, c) for c, v in pairs))
    return Judgement(best.path, best.verdicts, best.missing, tried)


# RFC 5280 §5.3.1: with these reasons the key itself is in wrong hands, whichever certificate it is in.
_COMPROMISED = frozenset({"keyCompromise", "cACompromise"})


class _Revoked:
    """RPL-4: who is revoked is revoked on every path, whichever signers and sources count there.

    A CA may have several certificates for one name and key. Where one was revoked because the key is compromised, no other
    of them is in mere doubt: else it would be enough to keep that one's CRL out of reach.
    """

    def __init__(self) -> None:
        self._certificates: dict[Certificate, Verdict] = {}
        self._keys: dict[tuple[bytes, bytes], Verdict] = {}

    def note(self, certificate: Certificate, verdict: Verdict) -> None:
        self._certificates[certificate] = verdict
        if verdict.revocation_reason in _COMPROMISED:
            self._keys[certificate.subject, certificate.spki] = verdict

    def instead_of(self, verdict: Verdict, certificate: Certificate) -> Verdict:
        """A doubt about a certificate gives way to what is known about its key."""
        if verdict.status is not Status.UNKNOWN:
            return verdict
        return self._keys.get((certificate.subject, certificate.spki), verdict)

    def itself(self, certificate: Certificate) -> Verdict | None:
        return self._certificates.get(certificate)


def _judge_path(
    path: Path,
    pool: Sequence[Certificate],
    evidence_for: EvidenceFor,
    settings: JudgementSettings,
    at: datetime,
    budget: Budget,
    revoked: _Revoked,
) -> Judgement:
    revocation = settings_below(path.anchor, settings.revocation)
    signers = Signers(path, pool, evidence_for, settings.path, revocation, at, budget)
    verdicts: list[Verdict] = []
    missing: list[Question] = []
    for index, certificate in enumerate(path.certificates):
        # PRE-4: an anchor isn't asked about, also where it stands in the path itself; it is revoked by taking it away.
        if certificate == path.anchor.certificate:
            verdicts.append(Verdict(Status.GOOD, "rev.anchor"))
            continue
        # PRE-3: everybody else is. The lookup process validates again, and may not know the certificates further up.
        question = question_for(certificate, path.issuer_of(index), path.certificates[index + 2 :])
        evidence = evidence_for(question)
        verdict = revoked.itself(certificate) or signers.judge(question, evidence)
        if verdict.status is Status.REVOKED:
            revoked.note(certificate, verdict)
        verdicts.append(verdict)
        if still_needed(question, evidence, revocation, at, verdict):
            missing.append(question)
    return Judgement(path, tuple(verdicts), tuple(dict.fromkeys((*missing, *signers.missing))))


def settings_below(anchor: Anchor, settings: RevocationSettings) -> RevocationSettings:
    """How evidence is judged for certificates below ``anchor``."""
    own = anchor.settings
    if own.order is None and own.public == settings.public:
        return settings
    return replace(settings, order=own.order or settings.order, public=own.public or settings.public)


_BADNESS = {Status.GOOD: 0, Status.UNKNOWN: 1, Status.REVOKED: 3}


def _badness(verdict: Verdict) -> int:
    # CRL-13: listed by evidence that can't be interpreted comes next to revoked.
    return 2 if verdict.forbids and verdict.status is not Status.REVOKED else _BADNESS[verdict.status]


def _doubts(judgement: Judgement) -> tuple[int, int, int]:
    """What makes one path worse than another: somebody revoked, then what looks forged, then how many are in doubt."""
    worst, doubts = judgement.worst, [v.doubt for v in judgement.verdicts if v.doubt is not None]
    return _badness(worst) if worst else 0, sum(doubt is Doubt.SUSPICION for doubt in doubts), len(doubts)
