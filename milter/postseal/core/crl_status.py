"""What one CRL says about one certificate: RFC 5280 §6.3.3 (b) to (j) for CRLs that the certificate's issuer signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from postseal.core.certificate_facts import CertificateFacts
from postseal.core.crl import Crl, Entry, signature_valid
from postseal.core.der import later
from postseal.core.distribution import ALL_REASONS, PointName
from postseal.core.evidence import CrlEvidence
from postseal.core.names import same_name
from postseal.core.signature import Algorithm, Scheme, key_fault, parse_algorithm
from postseal.core.verdict import RevocationSettings, Status, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """What one piece of evidence says. ``blocks`` means that no other evidence can make it GOOD any more.

    ``covers`` are the reasons that a GOOD covers (bits of ReasonFlags), ``scope`` tells apart what can replace each other.
    """

    verdict: Verdict
    scope: bytes | None
    covers: int = ALL_REASONS
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The certificate in question and its issuer, with the URLs that the certificate declares."""

    certificate: CertificateFacts
    issuer: CertificateFacts
    issuer_name: str
    crl_urls: tuple[str, ...]
    ocsp_urls: tuple[str, ...]


def check_crl(target: Target, evidence: CrlEvidence, settings: RevocationSettings, at: datetime) -> Finding | None:
    """None when the CRL has nothing to do with the certificate and wasn't served where the certificate points either."""
    crl = evidence.crl
    declared = evidence.url in target.crl_urls
    # CRL-2, RFC 5280 §6.3.3 (b)(1): without cRLIssuer the CRL's issuer is the certificate's issuer, nobody else.
    if not same_name(crl.issuer, target.certificate.issuer):
        if not declared:
            return None
        if any(p.elsewhere for p in target.certificate.points or ()):
            return _unknown(evidence, "rev.unsupported", "it is from another CRL issuer, which isn't supported")
        return _unknown(
            evidence, "rev.wrong-issuer", f"its issuer isn't the certificate's issuer {target.issuer_name}", True
        )
    foreign_key = (
        crl.authority_key_id is not None
        and target.issuer.key_id is not None
        and crl.authority_key_id != target.issuer.key_id
    )
    # CRL-6, RFC 5280 §6.3.3 (g)
    if not signature_valid(crl, target.issuer.spki):
        if foreign_key:
            # Two CAs, or two keys of one CA, share the name; only where the certificate points to is that odd.
            return _unknown(evidence, "rev.wrong-issuer", _OTHER_KEY, declared)
        algorithm = parse_algorithm(crl.algorithm)
        if algorithm.fault(weak_keys=True):
            return _unknown(evidence, algorithm_code(algorithm), f"it is {algorithm.fault(weak_keys=True)}")
        detail = f"its signature doesn't verify with the key of {target.issuer_name}"
        return _unknown(evidence, "rev.bad-signature", detail, True)
    return _authentic(target, evidence, foreign_key, settings, at)


def algorithm_code(algorithm: Algorithm) -> str:
    """The reason code for an algorithm that has a fault."""
    return "rev.unsupported" if algorithm.scheme is Scheme.UNKNOWN else "rev.weak-algorithm"


_OTHER_KEY = "its authority key identifier names another key than that of the certificate's issuer"


def _authentic(
    target: Target, evidence: CrlEvidence, foreign_key: bool, settings: RevocationSettings, at: datetime
) -> Finding | None:
    """The CRL is signed with the issuer's key."""
    crl = evidence.crl
    # CRL-15: number and issuer together name a certificate.
    entry = crl.find(target.certificate.serial, target.certificate.issuer)
    fault = _unusable(target, crl, foreign_key, settings)
    if fault is not None:
        return _listed_all_the_same(evidence, fault[0], fault[1], entry)
    covers = _covered_reasons(target, crl)
    if isinstance(covers, str):
        # CRL-7: out of scope it says nothing about the certificate, whether it lists the number or not.
        if evidence.url in target.crl_urls:
            return _unknown(evidence, "rev.wrong-scope", covers)
        return None
    if entry is not None:
        # CRL-20, CRL-21: any entry means revoked now, whatever its reason or date, and also on a CRL that is out of date.
        return Finding(_revoked(evidence, entry), _scope(crl))
    return _by_time(target, evidence, covers, settings, at)


def _unusable(target: Target, crl: Crl, foreign_key: bool, settings: RevocationSettings) -> tuple[str, str] | None:
    """Why an authentic CRL mustn't decide: (reason code, words)."""
    algorithm = parse_algorithm(crl.algorithm)
    weak = algorithm.fault(settings.weak_keys)
    if weak:
        return algorithm_code(algorithm), f"it is {weak}"
    weak = key_fault(target.issuer.spki, settings.weak_keys)
    if weak:
        return "rev.weak-algorithm", f"it is signed with a {weak}"
    # CRL-4, RFC 5280 §5.2.1
    if foreign_key:
        return "rev.wrong-issuer", _OTHER_KEY
    # CRL-5, RFC 5280 §6.3.3 (f)
    if not target.issuer.may_sign_crls:
        return "rev.no-crl-sign", f"the keyUsage of {target.issuer_name} lacks cRLSign"
    # CRL-13, RFC 5280 §5.2
    if crl.unknown_critical:
        return "rev.unsupported", f"it has the unknown critical extension {crl.unknown_critical[0]}"
    # CRL-14, RFC 5280 §5.3
    if crl.unknown_critical_entry:
        return "rev.unsupported", f"an entry has the unknown critical extension {crl.unknown_critical_entry}"
    # CRL-17: a delta without its base is never a basis for GOOD.
    if crl.delta_base is not None:
        return "rev.unsupported", "it is a delta CRL, which isn't supported"
    # CRL-15, RFC 5280 §5.3.3: who can't say properly whose entries these are may mean any certificate by any of them.
    if crl.carries_others and not crl.indirect:
        return "rev.unsupported", "it has entries of other issuers without saying that it is an indirect CRL"
    if crl.issuer_not_critical:
        return "rev.unsupported", "an entry names its issuer in an extension that isn't critical"
    # CRL-12
    if crl.scope is not None and crl.scope.name is not None and crl.scope.name.relative:
        return "rev.unsupported", "its distribution point has a relative name, which isn't supported"
    return None


def _listed_all_the_same(evidence: CrlEvidence, code: str, words: str, entry: Entry | None) -> Finding:
    """CRL-13: what can't be interpreted in full never gives GOOD, least of all when it lists the certificate."""
    # CRL-19: removeFromCRL takes an entry away, in a delta; here it only doesn't add one.
    if entry is None or entry.reason == "removeFromCRL":
        return _unknown(evidence, code, words, code == "rev.wrong-issuer")
    found = _unknown(evidence, "rev.listed-unsupported", f"it lists the certificate, but {words}")
    return Finding(found.verdict, found.scope, blocks=True)


def _covered_reasons(target: Target, crl: Crl) -> int | str:
    """The revocation reasons that the CRL covers for this certificate, or why it isn't meant for it."""
    scope = crl.scope
    if scope is None:
        # CRL-10, RFC 5280 §6.3.3 last paragraph: complete for every certificate of its issuer, wherever it came from.
        return ALL_REASONS
    # CRL-8, RFC 5280 §6.3.3 (b)(2)(ii) to (iv)
    if scope.only_attribute:
        return "it covers attribute certificates only"
    if scope.only_user and target.certificate.is_ca:
        return "it covers end entity certificates only"
    if scope.only_ca and not target.certificate.is_ca:
        return "it covers CA certificates only"
    if scope.name is None:
        return scope.reasons
    # CRL-3, RFC 5280 §6.3.3 (b)(2)(i)
    mask = 0
    for point in target.certificate.points or ():
        if point.name is not None and not point.elsewhere and _share_a_name(scope.name, point.name):
            mask |= point.reasons
    # The last paragraph of §6.3.3 adds a point with the name of the certificate's issuer and all reasons.
    if any(same_name(n, target.certificate.issuer) for n in scope.name.directory_names()):
        mask = ALL_REASONS
    if not mask:
        where = scope.name.text()
        return f"its distribution point {where} isn't one of the certificate's" if where else "it is of another scope"
    # CRL-9, RFC 5280 §6.3.3 (d)
    return mask & scope.reasons


def _share_a_name(one: PointName, other: PointName) -> bool:
    if set(one.uris()) & set(other.uris()) or set(one.others()) & set(other.others()):
        return True
    return any(same_name(a, b) for a in one.directory_names() for b in other.directory_names())


def _by_time(target: Target, evidence: CrlEvidence, covers: int, settings: RevocationSettings, at: datetime) -> Finding:
    """CRL-22 to CRL-24: an authentic CRL in scope that doesn't list the certificate is good for as long as it is current."""
    crl = evidence.crl
    if crl.this_update > later(at, settings.skew):
        return _unknown(evidence, "rev.not-yet-valid", f"it is dated {_text(crl.this_update)}, in the future")
    end = crl_usable_until(evidence, target.certificate.is_ca, settings, at)
    if at > later(end, settings.skew):
        return _unknown(evidence, "rev.stale", f"it is out of date since {_text(end)}")
    remark = "" if crl.next_update is not None else f"the CRL from {evidence.url} has no nextUpdate"
    verdict = Verdict(
        Status.GOOD, "rev.crl", remark, evidence.url, crl.this_update, crl.next_update, usable_until=end
    )  # fmt: skip
    return Finding(verdict, _scope(crl), covers)


def crl_usable_until(evidence: CrlEvidence, for_ca: bool, settings: RevocationSettings, at: datetime) -> datetime:
    """CACHE-1, CRL-23, CRL-24: the end of the time in which a CRL decides, skew not counted."""
    crl = evidence.crl
    if crl.next_update is None:
        return later(min(evidence.fetched_at, at), settings.max_age_without_next_update)
    return min(crl.next_update, later(crl.this_update, settings.max_ca_crl_age if for_ca else settings.max_crl_age))


def _scope(crl: Crl) -> bytes:
    return b"crl" + (crl.idp or b"")


def _revoked(evidence: CrlEvidence, entry: Entry) -> Verdict:
    crl = evidence.crl
    when = _text(entry.revoked_at) if entry.revoked_at else "at an unreadable date"
    detail = f"revoked {when}, reason {entry.reason}, by the CRL from {evidence.url}"
    if entry.invalid_since is not None:
        detail += f", invalid since {_text(entry.invalid_since)}"
    return Verdict(
        Status.REVOKED, "rev.revoked-crl", detail, evidence.url, crl.this_update, crl.next_update,
        revoked_at=entry.revoked_at, revocation_reason=entry.reason,
    )  # fmt: skip


def _unknown(evidence: CrlEvidence, code: str, words: str, suspicious: bool = False) -> Finding:
    crl = evidence.crl
    verdict = Verdict(
        Status.UNKNOWN, code, f"CRL from {evidence.url}: {words}", evidence.url, crl.this_update, crl.next_update,
        suspicious=suspicious,
    )  # fmt: skip
    return Finding(verdict, _scope(crl))


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
