"""What one CRL says about one certificate: RFC 5280 §6.3.3 (b) to (k). Several CRLs together are judged in ``revocation``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from postseal.core import delta as deltas_of
from postseal.core.certificate_facts import CertificateFacts
from postseal.core.crl import Crl, Entry, signature_valid
from postseal.core.crl_scope import Relation, covered_reasons, names_the_place, relation
from postseal.core.der import later
from postseal.core.distribution import ALL_REASONS
from postseal.core.evidence import CrlEvidence
from postseal.core.names import name_key, same_name
from postseal.core.signature import Algorithm, Scheme, key_fault, parse_algorithm
from postseal.core.verdict import RevocationSettings, Status, UseDeltas, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """What one piece of evidence says. ``blocks`` means that no other evidence can make it GOOD any more.

    ``covers`` are the reasons that a GOOD covers (bits of ReasonFlags), ``scope`` tells apart what can replace each other.
    """

    verdict: Verdict
    scope: Hashable
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
    delta_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key signed a CRL. ``own``: the key that issued the certificate in question, about which nothing is left to ask.

    Any other signer has a path to the same anchor; ``doubt`` says in words why it still isn't known to be good, ``revoked``
    that it is known not to be. ``until`` is when what is known of it ends. ``exhausted``: the search for it was cut short.
    """

    facts: CertificateFacts | None
    name: str
    own: bool = False
    doubt: str = ""
    revoked: bool = False
    until: datetime | None = None
    exhausted: bool = False


SignerOf = Callable[[CrlEvidence], Signer | None]
"""Who else than the issuer signed a CRL, if anybody is known; ``core.crl_signers`` has it."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """An authentic CRL that is meant for the certificate: what it covers, and its entry for it."""

    evidence: CrlEvidence
    signer: Signer
    covers: int
    entry: Entry | None
    scope: Hashable
    """CRL-25: what can take the place of this CRL is from the same issuer and key, and has the same bytes as its scope."""

    @property
    def crl(self) -> Crl:
        return self.evidence.crl


def hear(
    target: Target, evidence: CrlEvidence, settings: RevocationSettings, signer_of: SignerOf | None
) -> Spoken | Finding | None:
    """Is the CRL authentic, usable and meant for the certificate? A Finding says why not.

    None when it has nothing to do with the certificate and wasn't served where the certificate points either.
    """
    crl = evidence.crl
    declared = evidence.url in target.crl_urls or evidence.url in target.delta_urls
    how = relation(target.certificate, crl)
    # CRL-2, RFC 5280 §6.3.3 (b)(1)
    if how is Relation.NONE:
        return _stranger(target, evidence) if declared else None
    # CRL-6, RFC 5280 §6.3.3 (g)
    if how is Relation.ISSUER and signature_valid(crl, target.issuer.spki):
        signer: Signer | None = Signer(target.issuer, target.issuer_name, own=True)
        if not target.issuer.may_sign_crls and signer_of is not None:
            # CRL-5: another certificate of the same name and key may allow what this one doesn't.
            other = signer_of(evidence)
            signer = other if other is not None and other.facts is not None else signer
    else:
        signer = signer_of(evidence) if signer_of is not None else None
    if signer is None:
        return _unsigned(target, evidence, how, declared)
    if signer.facts is None:
        # PRE-6: what wasn't looked at to the end might have said revoked.
        found = _unknown(evidence, "rev.budget" if signer.exhausted else "rev.no-crl-sign", signer.doubt)
        return replace(found, blocks=signer.exhausted)
    return _authentic(target, evidence, signer, settings)


def _stranger(target: Target, evidence: CrlEvidence) -> Finding:
    appointed = [name for point in target.certificate.points or () for name in point.crl_issuers]
    if any(same_name(evidence.crl.issuer, name) for name in appointed):
        words = "it is from another CRL issuer, and doesn't say that it is an indirect CRL"
    else:
        words = f"its issuer isn't the certificate's issuer {target.issuer_name}"
    return _unknown(evidence, "rev.wrong-issuer", words, True)


def _unsigned(target: Target, evidence: CrlEvidence, how: Relation, declared: bool) -> Finding:
    """Why the CRL isn't authentic, or why nobody can tell."""
    crl = evidence.crl
    if how is Relation.APPOINTED:
        words = "no certificate of its CRL issuer is at hand that fits its signature and leads to the same anchor"
        return _unknown(evidence, "rev.crl-signer", words)
    if _names_other_key(crl, target.issuer):
        # Two CAs, or two keys of one CA, share the name; only where the certificate points to is that odd.
        return _unknown(evidence, "rev.wrong-issuer", _OTHER_KEY, declared)
    algorithm = parse_algorithm(crl.algorithm)
    if algorithm.fault(weak_keys=True):
        return _unknown(evidence, algorithm_code(algorithm), f"it is {algorithm.fault(weak_keys=True)}")
    detail = f"its signature doesn't verify with the key of {target.issuer_name}"
    return _unknown(evidence, "rev.bad-signature", detail, True)


def _names_other_key(crl: Crl, signer: CertificateFacts) -> bool:
    return crl.authority_key_id is not None and signer.key_id is not None and crl.authority_key_id != signer.key_id


def algorithm_code(algorithm: Algorithm) -> str:
    """The reason code for an algorithm that has a fault."""
    return "rev.unsupported" if algorithm.scheme is Scheme.UNKNOWN else "rev.weak-algorithm"


_OTHER_KEY = "its authority key identifier names another key than that of the certificate's issuer"


def _authentic(
    target: Target, evidence: CrlEvidence, signer: Signer, settings: RevocationSettings
) -> Spoken | Finding | None:
    """The CRL is signed with a key that may sign it."""
    crl = evidence.crl
    # CRL-15: number and issuer together name a certificate.
    entry = crl.find(target.certificate.serial, target.certificate.issuer)
    fault = _unusable(crl, signer, settings)
    if fault is not None:
        return _listed_all_the_same(evidence, fault[0], fault[1], entry)
    covers = covered_reasons(target.certificate, crl)
    if isinstance(covers, str):
        # CRL-7: out of scope it says nothing about the certificate, whether it lists the number or not.
        if evidence.url in target.crl_urls:
            return _unknown(evidence, "rev.wrong-scope", covers)
        return None
    if entry is None and signer.doubt:
        return _unknown(evidence, "rev.crl-signer", signer.doubt, signer.revoked)
    if entry is None and not _may_clear(target, evidence, signer):
        words = "it is signed with another key of the CA, and isn't where the certificate points to"
        return _unknown(evidence, "rev.wrong-scope", words)
    assert signer.facts is not None
    return Spoken(
        evidence, signer, covers, entry, (name_key(crl.issuer), signer.facts.spki, crl.idp or b"")
    )  # fmt: skip


def _may_clear(target: Target, evidence: CrlEvidence, signer: Signer) -> bool:
    """May this key's CRL make the certificate GOOD by not listing it?

    Some CAs keep a list per key and say so nowhere but in the place where it is. So a list of another key than the issuer's
    counts where the certificate points to, by its URL or the scope that the list names, or when somebody imported it.
    """
    if signer.own or relation(target.certificate, evidence.crl) is Relation.APPOINTED:
        return True
    fetched = evidence.url.startswith(("http:", "https:", "ldap:"))
    declared = evidence.url in target.crl_urls or evidence.url in target.delta_urls
    return not fetched or declared or names_the_place(target.certificate, evidence.crl)


def _unusable(crl: Crl, signer: Signer, settings: RevocationSettings) -> tuple[str, str] | None:
    """Why an authentic CRL mustn't decide: (reason code, words)."""
    assert signer.facts is not None
    algorithm = parse_algorithm(crl.algorithm)
    weak = algorithm.fault(settings.weak_keys)
    if weak:
        return algorithm_code(algorithm), f"it is {weak}"
    weak = key_fault(signer.facts.spki, settings.weak_keys)
    if weak:
        return "rev.weak-algorithm", f"it is signed with a {weak}"
    # CRL-4, RFC 5280 §5.2.1
    if _names_other_key(crl, signer.facts):
        return "rev.wrong-issuer", _OTHER_KEY
    # CRL-5, RFC 5280 §6.3.3 (f)
    if not signer.facts.may_sign_crls:
        return "rev.no-crl-sign", f"the keyUsage of {signer.name} lacks cRLSign"
    # CRL-13, RFC 5280 §5.2
    if crl.unknown_critical:
        return "rev.unsupported", f"it has the unknown critical extension {crl.unknown_critical[0]}"
    # CRL-14, RFC 5280 §5.3
    if crl.unknown_critical_entry:
        return "rev.unsupported", f"an entry has the unknown critical extension {crl.unknown_critical_entry}"
    # CRL-15, RFC 5280 §5.3.3: who can't say properly whose entries these are may mean any certificate by any of them.
    if crl.carries_others and not crl.indirect:
        return "rev.unsupported", "it has entries of other issuers without saying that it is an indirect CRL"
    if crl.issuer_not_critical:
        return "rev.unsupported", "an entry names its issuer in an extension that isn't critical"
    # PRE-7: what a revoked key signed may be anybody's.
    if signer.revoked:
        return "rev.crl-signer", signer.doubt
    return None


def _listed_all_the_same(evidence: CrlEvidence, code: str, words: str, entry: Entry | None) -> Finding:
    """CRL-13: what can't be interpreted in full never gives GOOD, least of all when it lists the certificate."""
    suspicious = code in ("rev.wrong-issuer", "rev.crl-signer")
    # CRL-19: removeFromCRL takes an entry away, in a delta; here it only doesn't add one.
    if entry is None or entry.reason == deltas_of.REMOVED:
        return _unknown(evidence, code, words, suspicious)
    found = _unknown(evidence, "rev.listed-unsupported", f"it lists the certificate, but {words}", suspicious)
    return Finding(found.verdict, found.scope, blocks=True)


def about_delta(spoken: Spoken, bases: Iterable[Spoken]) -> Finding | None:
    """What a delta CRL says by itself: revoked, or nothing (CRL-17)."""
    if spoken.entry is not None and spoken.entry.reason != deltas_of.REMOVED:
        return Finding(_revoked(spoken.evidence, spoken.entry), spoken.scope)
    if any(base.scope == spoken.scope and deltas_of.applies(base.crl, spoken.crl) for base in bases):
        return None
    return _unknown(spoken.evidence, "rev.unsupported", "it is a delta CRL without the base that it builds on")


def about_base(
    target: Target, base: Spoken, deltas: Iterable[Spoken], settings: RevocationSettings, at: datetime
) -> Finding:
    """What a complete CRL says, with the newest delta that applies to it: RFC 5280 §6.3.3 (i) to (k)."""
    delta = _current_delta(target, base, deltas, settings, at)
    entry = base.entry
    if entry is not None and not (delta is not None and deltas_of.lifts(entry, delta.entry)):
        # CRL-20, CRL-21: any entry means revoked now, whatever its reason or date, and also on a CRL that is out of date.
        return Finding(_revoked(base.evidence, entry), base.scope)
    if base.signer.doubt:
        return _unknown(base.evidence, "rev.crl-signer", base.signer.doubt, base.signer.revoked)
    if delta is not None and delta.entry is not None and delta.entry.reason != deltas_of.REMOVED:
        return Finding(_revoked(delta.evidence, delta.entry), base.scope)
    if delta is None and settings.use_deltas is UseDeltas.REQUIRE and (target.delta_urls or base.crl.freshest):
        words = "a delta CRL is announced and required, and no current one is at hand that applies to it"
        return _unknown(base.evidence, "rev.stale", words)
    return _by_time(target, base, delta, settings, at)


def _current_delta(
    target: Target, base: Spoken, deltas: Iterable[Spoken], settings: RevocationSettings, at: datetime
) -> Spoken | None:
    if settings.use_deltas is UseDeltas.NO:
        return None
    # CRL-25: a newer one than an outdated delta may have taken back what it lifts.
    current = (d for d in deltas if not d.evidence.outdated and _in_time(target, d.evidence, settings, at))
    # RFC 5280 §6.3.3 (h): the delta is signed with the key of the base.
    same = {d.crl: d for d in current if d.scope == base.scope}
    newest = deltas_of.latest(base.crl, same)
    return None if newest is None or same[newest].signer.doubt else same[newest]


def _in_time(target: Target, evidence: CrlEvidence, settings: RevocationSettings, at: datetime) -> bool:
    end = crl_usable_until(evidence, target.certificate.is_ca, settings, at)
    return evidence.crl.this_update <= later(at, settings.skew) and at <= later(end, settings.skew)


def _by_time(target: Target, base: Spoken, delta: Spoken | None, settings: RevocationSettings, at: datetime) -> Finding:
    """CRL-22 to CRL-24: an authentic CRL in scope that doesn't list the certificate is good for as long as it is current."""
    evidence, crl = base.evidence, base.crl
    if crl.this_update > later(at, settings.skew):
        return _unknown(evidence, "rev.not-yet-valid", f"it is dated {_text(crl.this_update)}, in the future")
    end = crl_usable_until(evidence, target.certificate.is_ca, settings, at)
    current = at <= later(end, settings.skew)
    if delta is not None:
        # RFC 5280 §5.2.4: base and delta together are as a complete CRL of the delta's time, also after the base has ended.
        evidence, crl = delta.evidence, delta.crl
        until = crl_usable_until(evidence, target.certificate.is_ca, settings, at)
        alone = current and base.entry is None and settings.use_deltas is not UseDeltas.REQUIRE
        end = max(end, until) if alone else until
    elif not current:
        found = _unknown(evidence, "rev.stale", f"it is out of date since {_text(end)}")
        # CACHE-6: of some use for a while yet, if it would do alone.
        expired_at = end if base.covers == ALL_REASONS else None
        return replace(found, verdict=replace(found.verdict, expired_at=expired_at))
    if base.signer.until is not None:
        end = min(end, base.signer.until)
    remark = _remark(evidence)
    verdict = Verdict(
        Status.GOOD, "rev.crl", remark, evidence.url, crl.this_update, crl.next_update, usable_until=end
    )  # fmt: skip
    return Finding(verdict, base.scope, base.covers)


# CRL-24: nobody can mean that; an honest offline CA says a year.
_ABSURD = timedelta(days=30 * 365)


def _remark(evidence: CrlEvidence) -> str:
    """What an administrator should know of a CRL that is good."""
    crl = evidence.crl
    if crl.next_update is None:
        return f"the CRL from {evidence.url} has no nextUpdate"
    if crl.next_update - crl.this_update > _ABSURD:
        return f"the CRL from {evidence.url} says that it is current until {_text(crl.next_update)}"
    return ""


def superseded(finding: Finding, source: CrlEvidence) -> Finding:
    """CRL-25: an older CRL than one that is known of the same scope makes nothing good."""
    return (
        _unknown(source, "rev.rollback", "a newer CRL of the same scope is known")
        if (finding.verdict.status is Status.GOOD)
        else finding
    )


def crl_usable_until(evidence: CrlEvidence, for_ca: bool, settings: RevocationSettings, at: datetime) -> datetime:
    """CACHE-1, CRL-23, CRL-24: the end of the time in which a CRL decides, skew not counted."""
    crl = evidence.crl
    if crl.next_update is None:
        return later(min(evidence.fetched_at, at), settings.max_age_without_next_update)
    return min(crl.next_update, later(crl.this_update, settings.max_ca_crl_age if for_ca else settings.max_crl_age))


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
    return Finding(verdict, None)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
