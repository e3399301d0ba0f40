"""Other keys of the CA that issued a certificate: after a key change its CRLs may be signed with another than the certificate.

RFC 5280 §6.3.3 (f): the CRL issuer needs a path of its own, to the same trust anchor as the certificate in question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from postseal.core.certs import Certificate
from postseal.core.evidence import CrlEvidence, Evidence, Question, question_for
from postseal.core.names import same_name
from postseal.core.path import Path, PathSettings, build_path
from postseal.core.profile import profile
from postseal.core.revocation import RevocationSettings, Status, Verdict, judge

_MOST = 4


def judge_with_rollover(
    question: Question,
    evidence: Sequence[Evidence],
    path: Path,
    pool: Sequence[Certificate],
    settings: tuple[PathSettings, RevocationSettings],
    at: datetime,
) -> Verdict:
    """``judge``, and where that knows nothing, ``judge`` with each other key of the same CA that may sign CRLs.

    ``path`` is the one that holds ``question.certificate``; ``pool`` is where further certificates of the CA are looked for.
    A verdict reached so is GOOD only if the certificate of the other key is part of the path, and thus judged itself, or is
    GOOD by a CRL of the key that issued it (PRE-7: no deeper).
    """
    path_settings, revocation = settings
    verdict = judge(question, evidence, revocation, at)
    crls = [item for item in evidence if isinstance(item, CrlEvidence)]
    if verdict.status is not Status.UNKNOWN or verdict.forbids or not crls:
        return verdict
    for signer, signer_path in _other_keys(question, path, pool, path_settings, at):
        other = judge(replace(question, issuer=signer), crls, revocation, at)
        if other.status is Status.REVOKED:
            return other
        if other.status is Status.GOOD and (signer in path.certificates or _is_good(signer_path, crls, revocation, at)):
            return other
    return verdict


def _other_keys(
    question: Question, path: Path, pool: Sequence[Certificate], settings: PathSettings, at: datetime
) -> Iterator[tuple[Certificate, Path]]:
    """Certificates of the issuer with another key, with a valid path to the same anchor; at most four."""
    found = 0
    for candidate in dict.fromkeys((*path.certificates, *pool)):
        usage = profile(candidate).key_usage
        # A certificate says nothing about itself (PRE-7), and CRL-5: keyUsage must allow it to sign CRLs.
        if candidate == question.certificate or candidate.spki == question.issuer.spki:
            continue
        if not same_name(candidate.subject, question.issuer.subject) or (usage is not None and not usage.crl_sign):
            continue
        own = build_path(candidate, (path.anchor,), tuple(pool), replace(settings, email_protection=False), at)
        if isinstance(own, Path):
            yield candidate, own
        found += 1
        if found == _MOST:
            return


def _is_good(path: Path, crls: Sequence[CrlEvidence], settings: RevocationSettings, at: datetime) -> bool:
    verdicts = (
        judge(question_for(certificate, path.issuer_of(index)), crls, settings, at)
        for index, certificate in enumerate(path.certificates)
    )
    return all(verdict.status is Status.GOOD for verdict in verdicts)
