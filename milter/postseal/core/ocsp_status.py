"""What one OCSP response says about one certificate, and whether its signer may say it (RFC 6960 §3.2, §4.2.2.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from postseal.core.certificate_facts import CertificateFacts, certificate_facts
from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl_status import Finding, Target, algorithm_code
from postseal.core.der import BadDer, later
from postseal.core.errors import BadData
from postseal.core.evidence import OcspEvidence
from postseal.core.names import same_name
from postseal.core.ocsp import ResponderError, Response, Single, matches, parse_response
from postseal.core.signature import key_fault, parse_algorithm, verifies
from postseal.core.verdict import Nonce, RevocationSettings, Status, Verdict

_OCSP_SIGNING, _NO_CHECK = "1.3.6.1.5.5.7.3.9", "1.3.6.1.5.5.7.48.1.5"
# Extensions of a responder certificate that are checked here or change nothing for an end entity.
_UNDERSTOOD = frozenset(
    {_NO_CHECK, "1.3.6.1.5.5.7.1.1", *(f"2.5.29.{n}" for n in (14, 15, 17, 18, 19, 31, 32, 35, 37))}
)
# OCSP-8: more certificates of the same name than this are nobody's honest mistake.
_MAX_CANDIDATES = 4

_STRANGER = "it is signed neither by the CA nor by a responder whose certificate came along"

DelegateStatus = Callable[[CertificateFacts], Verdict]
"""OCSP-10: what the CRLs at hand say about the certificate of a responder."""

# OCSP-10: without a way to revoke it, a responder's certificate should be short-lived.
_LONG_LIFE = timedelta(days=90)
# OCSP-12: how old an answer without nextUpdate may be, to the request that it answers.
_RECENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Authority:
    """Who signed: ``fault`` says why it doesn't count. ``until`` ends with a delegated signer's certificate."""

    fault: str = ""
    code: str = "rev.unauthorized-responder"
    until: datetime | None = None
    remark: str = ""


def check_ocsp(
    target: Target, evidence: OcspEvidence, settings: RevocationSettings, at: datetime, delegate_status: DelegateStatus
) -> Finding | None:
    """None when the response is about another certificate and wasn't served where the certificate points either."""
    declared = evidence.url in target.ocsp_urls
    try:
        response = parse_response(evidence.der)
    except ResponderError as exc:
        # OCSP-4: unsigned, so it never says anything about the certificate.
        return _unknown(evidence, "rev.ocsp-error", f"the responder answered {exc}")
    except BadDer as exc:
        return _unknown(evidence, "rev.malformed", f"not an OCSP response: {exc}")
    ours = [s for s in response.singles if matches(s, target.certificate, target.issuer)]
    if not ours:
        if not declared:
            return None
        return _unknown(evidence, "rev.ocsp-mismatch", "it is about another certificate")
    signer = _authorise(response, evidence.der, target.issuer, settings, at, delegate_status)
    if signer.fault:
        return _unknown(evidence, signer.code, signer.fault, signer.code not in _HONEST)
    # OCSP-3: revoked wins, else the newest decides.
    single = max(ours, key=lambda s: (s.status == "revoked", s.this_update))
    # OCSP-5
    critical = response.unknown_critical or single.unknown_critical
    if critical:
        words = f"it has the unknown critical extension {critical}"
        if single.status != "revoked":
            return _unknown(evidence, "rev.unsupported", words)
        found = _unknown(evidence, "rev.listed-unsupported", f"it says revoked, but {words}")
        return Finding(found.verdict, found.scope, blocks=True)
    if single.status == "revoked":
        # RPL-4: also in answer to another request; a recorded revocation is one.
        return Finding(_revoked(evidence, single), b"ocsp")
    return _nonce_fault(response, evidence, settings) or _by_time(response, single, signer, evidence, settings, at)


# A signer with one of these faults is no attacker.
_HONEST = frozenset({"rev.weak-algorithm", "rev.unsupported", "rev.responder-unchecked"})


def _nonce_fault(response: Response, evidence: OcspEvidence, settings: RevocationSettings) -> Finding | None:
    """OCSP-13, RFC 9654 §2.1: an answer to another request may be an old one that somebody recorded."""
    if not evidence.nonce or response.nonce == evidence.nonce:
        # Without a nonce of ours, one in the answer means nothing: it may be from a cache.
        return None
    if response.nonce is not None:
        return _unknown(evidence, "rev.wrong-nonce", "its nonce isn't that of the request", True)
    if settings.nonce == Nonce.REQUIRE:
        return _unknown(evidence, "rev.no-nonce", "it has no nonce, and nonce is require")
    return None


def _by_time(
    response: Response,
    single: Single,
    signer: _Authority,
    evidence: OcspEvidence,
    settings: RevocationSettings,
    at: datetime,
) -> Finding:
    # OCSP-12; RFC 6960 §2.4: producedAt is when it was signed, so the clock bounds it, and not the moment that is asked about.
    signed_until = later(max(at, settings.clock or at), settings.skew)
    if single.this_update > later(at, settings.skew) or response.produced_at > signed_until:
        return _unknown(evidence, "rev.not-yet-valid", "it is dated in the future", single=single)
    if single.this_update > later(response.produced_at, settings.skew):
        return _unknown(evidence, "rev.malformed", "thisUpdate is later than producedAt", single=single)
    end = single.next_update
    if end is None:
        # RFC 6960 §2.4: newer information is always available, so it can't be kept. Without a nonce of ours in it, it
        # can't be told from an old one.
        if not evidence.nonce or response.nonce != evidence.nonce:
            return _unknown(evidence, "rev.stale", "it has no nextUpdate, so it may be of any age", single=single)
        if at > later(single.this_update, _RECENT):
            return _unknown(evidence, "rev.stale", "it has no nextUpdate and is more than an hour old", single=single)
        end = at
    elif end < single.this_update:
        return _unknown(evidence, "rev.malformed", "nextUpdate is before thisUpdate", single=single)
    elif at > later(end, settings.skew):
        when = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        return _unknown(evidence, "rev.stale", f"it is out of date since {when}", single=single)
    if single.status == "unknown":
        return _unknown(evidence, "rev.ocsp-unknown", "the responder doesn't know the certificate", single=single)
    # OCSP-11, CACHE-1: an answer doesn't outlive its signer.
    until = end if signer.until is None else min(end, signer.until)
    remark = f"OCSP answer from {evidence.url}: {signer.remark}" if signer.remark else ""
    verdict = Verdict(
        Status.GOOD, "rev.ocsp", remark, evidence.url, single.this_update, single.next_update, usable_until=until
    )  # fmt: skip
    return Finding(verdict, b"ocsp")


def _authorise(
    response: Response,
    der: bytes,
    issuer: CertificateFacts,
    settings: RevocationSettings,
    at: datetime,
    delegate_status: DelegateStatus,
) -> _Authority:
    """OCSP-6 to OCSP-11: signed by the CA's own key, by a responder that this very key appointed, or by one of ours."""
    algorithm = parse_algorithm(response.algorithm)
    weak = algorithm.fault(settings.weak_keys)
    if weak:
        return _Authority(f"it is {weak}", algorithm_code(algorithm))
    # OCSP-7 (b)
    if _is_responder(response, issuer):
        weak = key_fault(issuer.spki, settings.weak_keys)
        if weak:
            return _Authority(f"it is signed with a {weak}", "rev.weak-algorithm")
        if _response_verifies(der, issuer.spki):
            return _Authority()
    refused = _Authority(_STRANGER)
    # OCSP-7 (a)
    for appointed in _appointed(response, issuer, settings):
        refused = _by_appointment(appointed, der, settings, at)
        if not refused.fault:
            return refused
    # OCSP-9: only certificates that came along and that the responder ID names.
    if _is_responder(response, issuer):
        refused = _Authority("its signature doesn't verify with the key of the CA", "rev.bad-signature")
    candidates = [facts for facts in map(_readable, response.certificates) if facts and _is_responder(response, facts)]
    for candidate in candidates[:_MAX_CANDIDATES]:
        fault = _delegation_fault(candidate, issuer, settings, at)
        if fault:
            refused = _Authority(fault)
        elif _response_verifies(der, candidate.spki):
            return _own_revocation(candidate, settings, delegate_status)
        else:
            words = "its signature doesn't verify with the key of the responder that it names"
            refused = _Authority(words, "rev.bad-signature")
    return refused


def _appointed(
    response: Response, issuer: CertificateFacts, settings: RevocationSettings
) -> Iterator[CertificateFacts]:
    """Responders that the administrator trusts for this CA's key and that the responder ID names."""
    key = hashlib.sha256(issuer.spki).hexdigest() if settings.responders else ""
    for known in settings.responders:
        if known.issuer_key == key:
            facts = _readable(known.certificate.der)
            if facts and _is_responder(response, facts):
                yield facts


def _by_appointment(responder: CertificateFacts, der: bytes, settings: RevocationSettings, at: datetime) -> _Authority:
    # Its issuer, purpose and revocation are the administrator's business; OCSP-11 holds all the same.
    fault = _time_fault(responder, settings, at)
    if fault:
        return _Authority(fault)
    weak = key_fault(responder.spki, settings.weak_keys)
    if weak:
        return _Authority(f"the configured responder has a {weak}", "rev.weak-algorithm")
    if not _response_verifies(der, responder.spki):
        return _Authority("its signature doesn't verify with the key of the configured responder", "rev.bad-signature")
    return _Authority(until=responder.not_after)


def _own_revocation(
    candidate: CertificateFacts, settings: RevocationSettings, delegate_status: DelegateStatus
) -> _Authority:
    """OCSP-10, RFC 6960 §4.2.2.2.1: is the responder's certificate itself revoked? Never asked by OCSP, which would loop."""
    if _NO_CHECK in candidate.extensions:
        lifetime = candidate.not_after - candidate.not_before
        remark = ""
        if lifetime > _LONG_LIFE:
            remark = (
                f"the responder's certificate can't be revoked (id-pkix-ocsp-nocheck) and lives {lifetime.days} days"
            )
        return _Authority(until=candidate.not_after, remark=remark)
    status = delegate_status(candidate)
    if status.status is Status.REVOKED:
        return _Authority(f"the responder's certificate is revoked by the CRL from {status.source}")
    if status.status is Status.GOOD and status.usable_until is not None:
        return _Authority(until=min(candidate.not_after, status.usable_until))
    remark = "the responder's certificate lacks id-pkix-ocsp-nocheck, and its own revocation couldn't be checked"
    if settings.public:
        return _Authority(remark, "rev.responder-unchecked")
    return _Authority(until=candidate.not_after, remark=remark)


def delegate_to_check(
    der: bytes, issuer: Certificate, settings: RevocationSettings, at: datetime
) -> Certificate | None:
    """OCSP-10: the delegate that signed this response, if its own revocation has to be looked up; never raises."""
    try:
        response, facts = parse_response(der), certificate_facts(issuer.der)
        if _is_responder(response, facts):
            return None
        for listed in response.certificates:
            candidate = _readable(listed)
            if candidate is None or not _is_responder(response, candidate) or _NO_CHECK in candidate.extensions:
                continue
            # PRE-1: the certificates in an answer aren't signed with it, so anybody may have put in one with other URLs.
            if not _delegation_fault(candidate, facts, settings, at) and _response_verifies(der, candidate.spki):
                return load_certificate(listed)
    except (BadDer, BadData):
        pass
    return None


def _readable(der: bytes) -> CertificateFacts | None:
    try:
        return certificate_facts(der)
    except BadDer:
        return None


def _is_responder(response: Response, signer: CertificateFacts) -> bool:
    # OCSP-8, RFC 6960 §4.2.1: by the subject's name, or by SHA-1 of the subjectPublicKey bits.
    if response.responder_name:
        return same_name(response.responder_name, signer.subject)
    return hashlib.sha1(signer.key_bits, usedforsecurity=False).digest() == response.responder_key


def _delegation_fault(
    candidate: CertificateFacts, issuer: CertificateFacts, settings: RevocationSettings, at: datetime
) -> str:
    """OCSP-7 (c): why a certificate doesn't make its holder a responder of the CA, in words; empty when it does."""
    # RFC 6960 §4.2.2.2: issued directly by the CA, with the key that issued the certificate in question.
    if not same_name(candidate.issuer, issuer.subject):
        return "the responder's certificate is from another CA"
    if _OCSP_SIGNING not in candidate.extended_usages():
        return "the responder's certificate lacks the extended key usage id-kp-OCSPSigning"
    if not candidate.may_sign:
        return "the responder's keyUsage doesn't allow signatures"
    critical = [e.oid for e in candidate.extensions.values() if e.critical and e.oid not in _UNDERSTOOD]
    if critical:
        return f"the responder's certificate has the unknown critical extension {critical[0]}"
    fault = _time_fault(candidate, settings, at)
    if fault:
        return fault
    weak = parse_algorithm(candidate.algorithm).fault(settings.weak_keys)
    if weak:
        return f"the responder's certificate is {weak}"
    weak = key_fault(candidate.spki, settings.weak_keys)
    if weak:
        return f"the responder has a {weak}"
    if not _certificate_verifies(candidate.tbs, candidate.algorithm, candidate.signature, issuer.spki):
        return "the responder's certificate isn't signed with the key of the CA"
    return ""


def _time_fault(responder: CertificateFacts, settings: RevocationSettings, at: datetime) -> str:
    # OCSP-11: judged at this moment, not at producedAt.
    if at > responder.not_after:
        return "the responder's certificate has expired"
    if later(at, settings.skew) < responder.not_before:
        return "the responder's certificate isn't valid yet"
    return ""


@lru_cache(maxsize=1024)
def _certificate_verifies(tbs: bytes, algorithm: bytes, signature: bytes, spki: bytes) -> bool:
    return verifies(parse_algorithm(algorithm), signature, tbs, spki)


@lru_cache(maxsize=2048)
def _response_verifies(der: bytes, spki: bytes) -> bool:
    response = parse_response(der)
    return verifies(parse_algorithm(response.algorithm), response.signature, response.tbs, spki)


def _revoked(evidence: OcspEvidence, single: Single) -> Verdict:
    when = single.revoked_at.strftime("%Y-%m-%dT%H:%M:%SZ") if single.revoked_at else "at an unknown date"
    detail = f"revoked {when}, reason {single.reason}, by the OCSP answer from {evidence.url}"
    return Verdict(
        Status.REVOKED, "rev.revoked-ocsp", detail, evidence.url, single.this_update, single.next_update,
        revoked_at=single.revoked_at, revocation_reason=single.reason,
    )  # fmt: skip


def _unknown(
    evidence: OcspEvidence, code: str, words: str, suspicious: bool = False, single: Single | None = None
) -> Finding:
    verdict = Verdict(
        Status.UNKNOWN, code, f"OCSP answer from {evidence.url}: {words}", evidence.url,
        single.this_update if single else None, single.next_update if single else None, suspicious=suspicious,
    )  # fmt: skip
    return Finding(verdict, b"ocsp")
