"""Who signed a CRL, when it wasn't the key that issued the certificate: another key of the CA, or an appointed CRL issuer.

RFC 5280 §6.3.3 (f): such a signer needs a path of its own, to the same trust anchor as the certificate in question, and leave
to sign CRLs. PRE-7: it is judged itself, at most two levels deep, and never by its own word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from postseal.core.certificate_facts import CertificateFacts, certificate_facts
from postseal.core.certs import Certificate
from postseal.core.crl import Crl, signature_valid
from postseal.core.crl_status import Signer
from postseal.core.der import BadDer
from postseal.core.evidence import CrlEvidence, Evidence, Question, question_for
from postseal.core.names import same_name
from postseal.core.path import Path, PathSettings, build_path
from postseal.core.policies import ANY_INPUTS
from postseal.core.revocation import RevocationSettings, Status, Verdict, judge, still_needed

EvidenceFor = Callable[[Question], Sequence[Evidence]]
"""All evidence at hand that may answer a question. It mustn't raise."""

MAX_DEPTH = 2
# PRE-6: keys that are tried on one CRL, and on all CRLs of one judgement.
_MOST = 4
_MAX_SIGNATURES = 64


@dataclass(slots=True)
class Budget:
    """PRE-6: what one judgement may still do for the signers of CRLs."""

    signatures: int = _MAX_SIGNATURES

    def take(self) -> bool:
        self.signatures -= 1
        return self.signatures >= 0


@dataclass(slots=True)
class Signers:
    """The search for signers of one path. ``path`` holds the certificates that are judged anyway; ``pool`` are others."""

    path: Path
    pool: Sequence[Certificate]
    evidence_for: EvidenceFor
    path_settings: PathSettings
    revocation: RevocationSettings
    at: datetime
    budget: Budget = field(default_factory=Budget)
    missing: list[Question] = field(default_factory=list)
    """Questions about signers for which fetching would help."""
    _judged: dict[tuple[Certificate, tuple[Certificate, ...]], Verdict] = field(default_factory=dict)

    def judge(self, question: Question, evidence: Sequence[Evidence], above: tuple[Certificate, ...] = ()) -> Verdict:
        """The verdict on ``question``; ``above`` are the certificates whose judgement waits for this one."""
        waiting = (*above, question.certificate)
        return judge(question, evidence, self.revocation, self.at, lambda item: self.signer(item, waiting))

    def signer(self, evidence: CrlEvidence, waiting: tuple[Certificate, ...]) -> Signer | None:
        """Who signed the CRL, as far as it can be found out; None when nobody is known. Without ``facts``: nobody who may."""
        crl = evidence.crl
        denied: Signer | None = None
        for candidate, facts in self._candidates(evidence):
            if not self.budget.take():
                return Signer(None, "", doubt="too many signatures were to be checked for it", exhausted=True)
            if not signature_valid(crl, candidate.spki):
                continue
            # CRL-5: keyUsage must allow it; and who isn't a CA needs the explicit word, or anybody would do (T-4).
            if not facts.may_sign_crls or (facts.key_usage is None and not facts.is_ca):
                denied = Signer(None, candidate.name, doubt=f"the keyUsage of {candidate.name} lacks cRLSign")
                continue
            found = self._trusted(candidate, facts, evidence, waiting)
            if found is not None:
                return found
        return denied

    def _candidates(self, evidence: CrlEvidence) -> Iterator[tuple[Certificate, CertificateFacts]]:
        """Certificates of the CRL's issuer: what came with it first, then the path, then all others; at most four."""
        crl = evidence.crl
        everybody = (*evidence.signer[:1], *self.path.certificates, self.path.anchor.certificate, *self.pool)
        named = (c for c in dict.fromkeys(everybody) if same_name(c.subject, crl.issuer))
        found = 0
        for candidate in named:
            facts = _facts(candidate)
            # A key identifier can rule a key out (CRL-4); the signature alone rules it in.
            if facts is not None and not _other_key(crl, facts):
                yield candidate, facts
                found += 1
            if found == _MOST:
                return

    def _trusted(
        self, candidate: Certificate, facts: CertificateFacts, evidence: CrlEvidence, waiting: tuple[Certificate, ...]
    ) -> Signer | None:
        """The signer, with what is known of it; None without a path to the same anchor."""
        anchor = self.path.anchor
        # The anchor's key and name are trusted as they are (RFC 5280 §6.1.1 (d)).
        if (candidate.spki, candidate.subject) == (anchor.certificate.spki, anchor.certificate.subject):
            return Signer(facts, candidate.name)
        others = (*self.path.certificates, *evidence.signer[1:], *self.pool)
        # Purposes and policies are asked of the certificate in question, not of who signs CRLs.
        settings = replace(self.path_settings, email_protection=False, policies=ANY_INPUTS)
        own = build_path(candidate, (anchor,), others, settings, self.at)
        if not isinstance(own, Path):
            return None
        signer = Signer(facts, candidate.name, until=min(c.not_after for c in own.certificates))
        for index, certificate in enumerate(own.certificates):
            signer = self._with_verdict(signer, own, index, certificate, evidence, waiting)
            if signer.doubt:
                break
        return signer

    def _with_verdict(
        self, signer: Signer, own: Path, index: int, certificate: Certificate, evidence: CrlEvidence,
        waiting: tuple[Certificate, ...],
    ) -> Signer:  # fmt: skip
        """``signer`` after a look at one certificate of its path."""
        if certificate in waiting:
            # PRE-7: nobody vouches for itself, nor for what vouches for it …
            if index == 0 and len(waiting) > 1 and certificate == waiting[-1] and _appoints_itself(certificate):
                return signer
            return replace(signer, doubt=f"its signer {signer.name} would vouch for itself")
        if certificate in self.path.certificates:
            # … and who is in the path is asked about there, where the worst decides.
            return signer
        if len(waiting) > MAX_DEPTH:
            return replace(signer, doubt=f"the signers behind its signer {signer.name} are more than {MAX_DEPTH}")
        verdict = self._verdict(own, index, certificate, waiting)
        if verdict.status is Status.GOOD:
            ends = [moment for moment in (signer.until, verdict.usable_until) if moment is not None]
            return replace(signer, until=min(ends, default=None))
        state = "is revoked" if verdict.status is Status.REVOKED else "isn't known to be good"
        words = f"its signer {certificate.name} {state}: {verdict.detail or verdict.reason}"
        return replace(signer, doubt=words, revoked=verdict.status is Status.REVOKED)

    def _verdict(self, own: Path, index: int, certificate: Certificate, waiting: tuple[Certificate, ...]) -> Verdict:
        kept = self._judged.get((certificate, waiting))
        if kept is not None:
            return kept
        question = question_for(certificate, own.issuer_of(index), own.certificates[index + 2 :])
        evidence = self.evidence_for(question)
        verdict = self._judged[certificate, waiting] = self.judge(question, evidence, waiting)
        if still_needed(question, evidence, self.revocation, self.at, verdict) and question not in self.missing:
            self.missing.append(question)
        return verdict


def _facts(certificate: Certificate) -> CertificateFacts | None:
    try:
        return certificate_facts(certificate.der)
    except BadDer:
        return None


def _other_key(crl: Crl, facts: CertificateFacts) -> bool:
    return crl.authority_key_id is not None and facts.key_id is not None and crl.authority_key_id != facts.key_id


def _appoints_itself(signer: Certificate) -> bool:
    """Did the CA write into the signer's certificate that the signer's own CRL tells of it, and nobody else?

    So a CA says that it won't revoke this certificate, as it does for OCSP responders with id-pkix-ocsp-nocheck. Without that
    word of the CA a circle is a circle.
    """
    facts = _facts(signer)
    points = facts.points if facts is not None else None
    return bool(points) and all(any(same_name(n, signer.subject) for n in p.crl_issuers) for p in points or ())
