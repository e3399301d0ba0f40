"""The one judgement of a certificate: who may sign its CRLs, which path is taken, and who decides (RFC 5280 §6.3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, Evidence, OcspEvidence
from postseal.core.judgement import Judgement, JudgementSettings, judge_certificate
from postseal.core.path import Anchor, AnchorSettings, Path, PathFault, PathSettings
from postseal.core.revocation import Doubt, Order, RevocationSettings, Status
from support.evidence import (
    CRL_URL,
    OCSP_URL,
    Answer,
    Ocsp,
    certificate_issuer,
    crl,
    directory_name,
    entry,
    full_name,
    name_of,
    node,
    number,
    reason,
    scope,
    seq,
    uri,
    utc,
)
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority, key, name, usage

ROOT = authority("Root", kind="p256")
SUB = ROOT.sub("Issuing CA", kind="p256")
INDIRECT = [number(1), scope(indirect=True)]


def points(*point: bytes) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), seq(*point)), False


def appointing(who: Leaf, url: str = CRL_URL) -> bytes:
    """A distribution point that leaves its CRL to ``who``."""
    return seq(node(0xA0, full_name(uri(url))), node(0xA2, directory_name(name_of(who))))


def crl_issuer(
    parent: Authority, common_name: str = "CRL issuer", *, bits: Sequence[str] | None = ("crl_sign",),
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (), slot: object = None, not_after: Any = None,
) -> Authority:  # fmt: skip
    """An end entity that may sign CRLs, and nothing else."""
    who = parent.issue(
        None, kind="p256", common_name=common_name, slot=slot or common_name, extra=extra, eku=None,
        key_usage=usage(*bits) if bits is not None else None, not_after=not_after or NOW + 100 * DAY,
    )  # fmt: skip
    return Authority(who.certificate, who.key, name(common_name))


SIGNER = crl_issuer(ROOT)
ALICE = SUB.issue("alice@example.test", kind="p256", extra=[points(appointing(SIGNER))])
MINE = certificate_issuer(name_of(SUB))


def evidence(*items: bytes | tuple[bytes, str]) -> list[Evidence]:
    pairs = [item if isinstance(item, tuple) else (item, f"file:{n}") for n, item in enumerate(items)]
    return [CrlEvidence(parse_crl(der), url, NOW) for der, url in pairs]


def judged(
    *items: bytes | tuple[bytes, str] | Evidence,
    leaf: Leaf = ALICE,
    pool: Sequence[Leaf] = (SUB, SIGNER),
    anchors: Sequence[Anchor] = (Anchor(ROOT.certificate),),
    **settings: Any,
) -> Judgement:
    found = [e for item in items for e in (evidence(item) if isinstance(item, bytes | tuple) else [item])]
    both = JudgementSettings(PathSettings(), RevocationSettings(**settings))
    certificates = tuple(item.certificate for item in pool)
    return judge_certificate(leaf.certificate, anchors, certificates, lambda _: found, both, NOW)


# ---- CRL issuers that the certificate names -----------------------------------------------------------------------------


def worst(found: Judgement) -> Status | None:
    return found.worst.status if found.worst is not None else None


def test_t19_an_appointed_crl_issuer_decides() -> None:
    """CRL-2, CRL-15, T-19: the CRL of the issuer that cRLIssuer names, for number and issuer together."""
    good = judged(crl(SIGNER, extensions=INDIRECT), crl(ROOT))
    assert [v.status for v in good.verdicts] == [Status.GOOD, Status.GOOD]
    assert worst(judged(crl(SIGNER, [entry(ALICE, MINE)], extensions=INDIRECT), crl(ROOT))) is Status.REVOKED
    before = judged(crl(SIGNER, [entry(ALICE)], extensions=INDIRECT), crl(ROOT))
    assert before.good, "an entry without an issuer before any other is the CRL issuer's own"
    inherited = crl(SIGNER, [entry(7, MINE), entry(ALICE)], extensions=INDIRECT)
    assert worst(judged(inherited, crl(ROOT))) is Status.REVOKED
    other = crl(SIGNER, [entry(7, MINE), entry(ALICE, certificate_issuer(name_of(ROOT)))], extensions=INDIRECT)
    assert judged(other, crl(ROOT)).good


def test_t19_it_must_say_that_it_is_indirect() -> None:
    """CRL-2, T-19: without indirectCRL a CRL speaks for its own issuer's certificates only."""
    found = judged((crl(SIGNER), CRL_URL), crl(ROOT))
    assert (found.verdicts[0].reason, found.verdicts[0].suspicious) == ("rev.wrong-issuer", True)
    listing = judged((crl(SIGNER, [entry(ALICE, MINE)]), CRL_URL), crl(ROOT))
    assert listing.verdicts[0].status is Status.UNKNOWN


def test_the_own_issuer_may_speak_beside_the_appointed_one() -> None:
    """CRL-10, RFC 5280 §6.3.3 last paragraph: a complete CRL of the issuer counts, whoever else is named."""
    assert judged(crl(SUB), crl(ROOT)).good
    both = judged(crl(SUB), crl(SIGNER, [entry(ALICE, MINE)], extensions=INDIRECT), crl(ROOT))
    assert worst(both) is Status.REVOKED


def test_t04_a_sibling_that_signs_a_crl() -> None:
    """CRL-2, CRL-5, T-4: an end entity's CRL in its own name, in the CA's name, or appointed but without leave to sign."""
    rogue = SUB.issue("mallory@example.test", kind="p256", slot="m", key_usage=None)
    mallory = Authority(rogue.certificate, rogue.key, name("mallory@example.test"))
    victim = SUB.issue("v@example.test", kind="p256", slot="v", crl_urls=[CRL_URL])
    own_name = judged((crl(mallory), CRL_URL), crl(ROOT), leaf=victim, pool=(SUB, mallory))
    assert (own_name.verdicts[0].reason, own_name.verdicts[0].doubt) == ("rev.wrong-issuer", Doubt.SUSPICION)
    cas_name = judged((crl(SUB, key=rogue.key), CRL_URL), crl(ROOT), leaf=victim, pool=(SUB, mallory))
    assert cas_name.verdicts[0].reason == "rev.bad-signature"
    for bits in (None, ("digital_signature",), ("key_cert_sign",)):
        weak = crl_issuer(ROOT, bits=bits, slot=bits)
        named = judged((crl(weak, extensions=INDIRECT), CRL_URL), crl(ROOT), pool=(SUB, weak))
        assert (named.verdicts[0].status, named.verdicts[0].reason) == (Status.UNKNOWN, "rev.no-crl-sign")


def test_a_signer_leads_to_the_same_anchor() -> None:
    """PRE-7, RFC 5280 §6.3.3 (f): a CRL issuer of that name below another anchor, trusted as that may be, isn't it."""
    elsewhere = authority("Other root", kind="p256")
    stranger = crl_issuer(elsewhere, slot="stranger")
    anchors = (Anchor(ROOT.certificate), Anchor(elsewhere.certificate))
    crls = (crl(stranger, extensions=INDIRECT), crl(ROOT), crl(elsewhere))
    found = judged(*crls, pool=(SUB, stranger), anchors=anchors)
    assert (found.verdicts[0].status, found.verdicts[0].reason) == (Status.UNKNOWN, "rev.crl-signer")
    ended = crl_issuer(ROOT, slot="ended", not_after=NOW - HOUR)
    assert judged(crl(ended, extensions=INDIRECT), crl(ROOT), pool=(SUB, ended)).verdicts[0].reason == "rev.crl-signer"


def test_the_anchor_itself_may_be_appointed() -> None:
    """CRL-2: a root that keeps one indirect CRL for all below it; its own key needs no path."""
    who = SUB.issue("r@example.test", kind="p256", slot="r", extra=[points(appointing(ROOT))])
    assert judged(crl(ROOT, extensions=INDIRECT), leaf=who).good
    listing = crl(ROOT, [entry(who, MINE)], extensions=INDIRECT)
    assert judged(listing, leaf=who).verdicts[0].status is Status.REVOKED


def test_the_certificate_of_a_signer_may_come_with_its_crl() -> None:
    """PRE-7: what the store knows of the signer is a hint, and judged like everything else."""
    der = parse_crl(crl(SIGNER, extensions=INDIRECT))
    known = CrlEvidence(der, CRL_URL, NOW, (SIGNER.certificate,))
    assert judged(known, crl(ROOT), pool=(SUB,)).good
    assert judged(CrlEvidence(der, CRL_URL, NOW), crl(ROOT), pool=(SUB,)).verdicts[0].reason == "rev.crl-signer"
    wrong = CrlEvidence(der, CRL_URL, NOW, (SUB.certificate,))
    assert judged(wrong, crl(ROOT), pool=(SUB,)).verdicts[0].reason == "rev.crl-signer"


# ---- the signer's own status --------------------------------------------------------------------------------------------


def test_t21_the_signer_is_judged_too() -> None:
    """PRE-7, T-21: a signer that is revoked, or of which nothing is known, makes nothing GOOD; its list counts if unknown."""
    mine = crl(SIGNER, extensions=INDIRECT)
    unknown = judged(mine, crl(SUB, extensions=[scope(ca=True)]), pool=(SUB, SIGNER))
    assert (unknown.verdicts[0].status, unknown.verdicts[0].reason) == (Status.UNKNOWN, "rev.crl-signer")
    revoked = judged(mine, crl(ROOT, [entry(SIGNER)])).verdicts[0]
    assert (revoked.status, revoked.reason, revoked.doubt) == (Status.UNKNOWN, "rev.crl-signer", Doubt.SUSPICION)
    assert "is revoked" in revoked.detail
    listing = crl(SIGNER, [entry(ALICE, MINE)], extensions=INDIRECT)
    assert judged(listing).verdicts[0].status is Status.REVOKED
    stolen = judged(listing, crl(ROOT, [entry(SIGNER)])).verdicts[0]
    assert (stolen.status, stolen.forbids) == (Status.UNKNOWN, True)


def test_what_would_help_to_know_the_signer_is_asked_for() -> None:
    """PRE-7: the question about the signer comes back with those about the path, as long as an answer would help."""
    signer = crl_issuer(ROOT, extra=[points(seq(node(0xA0, full_name(uri("http://root.test/crl")))))])
    found = judged(crl(signer, extensions=INDIRECT), pool=(SUB, signer))
    assert signer.certificate in [q.certificate for q in found.missing]
    assert not judged(crl(signer, extensions=INDIRECT), crl(ROOT), pool=(SUB, signer)).missing


def chained(levels: int) -> tuple[Leaf, list[Authority], list[bytes]]:
    """A certificate whose CRL is signed by one whose CRL is signed by one …: ``levels`` of them, the root tells of the last."""
    end = full_name(uri("http://end.test/"))
    extra = [points(seq(node(0xA0, end)))]
    crls = [crl(ROOT, extensions=[number(1), scope(end)])]
    signers: list[Authority] = []
    for n in range(levels):
        signer = crl_issuer(ROOT, f"Signer {n}", extra=extra)
        signers.append(signer)
        crls.append(crl(signer, extensions=[number(1), scope(full_name(uri(f"http://{n}.test/")), indirect=True)]))
        extra = [points(appointing(signer, f"http://{n}.test/"))]
    return SUB.issue("c@example.test", kind="p256", slot="c", extra=extra), signers, crls


@pytest.mark.parametrize(
    ("levels", "status"), [(1, Status.GOOD), (2, Status.GOOD), (3, Status.UNKNOWN), (9, Status.UNKNOWN)]
)
def test_signers_of_signers_end(levels: int, status: Status) -> None:
    """PRE-7: a signer is judged and its signer too, and there it ends."""
    leaf, signers, crls = chained(levels)
    found = judged(*crls, leaf=leaf, pool=(SUB, *signers)).verdicts[0]
    assert found.status is status
    assert ("more than 2" in found.detail) == (status is Status.UNKNOWN)


def test_nobody_vouches_for_itself() -> None:
    """PRE-7: two CRL issuers that vouch for each other are a circle, and a circle is UNKNOWN."""
    one_name, two_name = "Circle 1", "Circle 2"
    fake = {n: Authority(SIGNER.certificate, key("p256", ("leaf", n)), name(n)) for n in (one_name, two_name)}

    def naming(common_name: str) -> tuple[x509.ExtensionType, bool]:
        der = fake[common_name].subject.public_bytes()
        return points(seq(node(0xA0, full_name(uri(CRL_URL))), node(0xA2, directory_name(der))))

    one = crl_issuer(ROOT, one_name, extra=[naming(two_name)])
    two = crl_issuer(ROOT, two_name, extra=[naming(one_name)])
    who = SUB.issue("o@example.test", kind="p256", slot="o", extra=[naming(one_name)])
    only_cas = crl(ROOT, extensions=[number(1), scope(ca=True)])
    crls = (crl(one, extensions=INDIRECT), crl(two, extensions=INDIRECT), only_cas)
    found = judged(*crls, leaf=who, pool=(SUB, one, two))
    assert (found.verdicts[0].status, found.verdicts[0].reason) == (Status.UNKNOWN, "rev.crl-signer")
    assert judged(*crls, crl(ROOT), leaf=who, pool=(SUB, one, two)).good, "with a word from outside it isn't a circle"


def test_a_ca_may_appoint_a_signer_for_itself() -> None:
    """PRE-7, PKITS 4.14.30: the CA may write into a signer's certificate that its own CRL tells of it."""
    subject = name("Sole").public_bytes()
    own = points(seq(node(0xA0, full_name(uri(CRL_URL))), node(0xA2, directory_name(subject))))
    signer = crl_issuer(ROOT, "Sole", extra=[own])
    who = SUB.issue("s@example.test", kind="p256", slot="s", extra=[own])
    only_cas = crl(ROOT, extensions=[number(1), scope(ca=True)])
    assert judged(crl(signer, extensions=INDIRECT), only_cas, leaf=who, pool=(SUB, signer)).good
    listed = crl(signer, [entry(signer, certificate_issuer(name_of(ROOT)))], extensions=INDIRECT)
    assert not judged(listed, only_cas, leaf=who, pool=(SUB, signer)).good
    silent = crl_issuer(ROOT, "Sole", slot="silent")
    assert not judged(crl(silent, extensions=INDIRECT), only_cas, leaf=who, pool=(SUB, silent)).good


def test_a_list_per_key() -> None:
    """CRL-10: a fetched CRL of another key of the CA clears only where the certificate points to; what it lists is revoked."""
    private = key("p256", "second key")
    extensions = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage("key_cert_sign", "crl_sign"), True)]
    certificate = ROOT._sign(SUB.subject, private.public_key(), extensions, not_before=NOW - DAY, not_after=NOW + DAY)
    second = Authority(certificate, private, SUB.subject)
    who = SUB.issue("k@example.test", kind="p256", slot="k", crl_urls=[CRL_URL])
    more = {"leaf": who, "pool": (SUB, second)}
    elsewhere = judged((crl(second), "http://crl.example.test/second.crl"), crl(ROOT), **more)
    assert (elsewhere.verdicts[0].status, elsewhere.verdicts[0].reason) == (Status.UNKNOWN, "rev.wrong-scope")
    assert judged((crl(second), CRL_URL), crl(ROOT), **more).good
    assert judged(crl(second), crl(ROOT), **more).good, "imported by hand"
    named = scope(full_name(uri(CRL_URL)))
    assert judged((crl(second, extensions=[named]), "http://mirror.test/"), crl(ROOT), **more).good
    listing = judged((crl(second, [entry(who)]), "http://crl.example.test/second.crl"), crl(ROOT), **more)
    assert worst(listing) is Status.REVOKED


def test_the_search_for_signers_is_bounded() -> None:
    """PRE-6: a hundred certificates with the CRL issuer's name cost a few signatures, and never make anything GOOD."""
    crowd = [crl_issuer(ROOT, slot=("crowd", n % 3), not_after=NOW + (50 + n) * DAY) for n in range(100)]
    found = judged(crl(SIGNER, extensions=INDIRECT), crl(ROOT), pool=(SUB, *crowd, SIGNER))
    assert found.verdicts[0].status is Status.UNKNOWN
    many = [
        crl(SIGNER, extensions=[number(n), scope(full_name(uri(f"http://{n}.test/")), indirect=True)])
        for n in range(40)
    ]
    budget = judged(*many, crl(ROOT), pool=(SUB, *crowd)).verdicts[0]
    assert (budget.status, budget.reason) == (Status.UNKNOWN, "rev.budget")


def test_another_certificate_of_the_key_may_allow_to_sign_crls() -> None:
    """CRL-5: where the issuer's certificate in the path lacks cRLSign, another one for the same name and key counts."""
    private = key("p256", "split usage")
    subject = name("Split usage")
    window = {"not_before": NOW - DAY, "not_after": NOW + DAY}
    ca = (x509.BasicConstraints(ca=True, path_length=None), True)
    for_certificates = ROOT._sign(subject, private.public_key(), [ca, (usage("key_cert_sign"), True)], **window)
    for_crls = ROOT._sign(subject, private.public_key(), [(usage("crl_sign"), True)], **window)
    split = Authority(for_certificates, private, subject)
    who = split.issue("u@example.test", kind="p256", slot="u")
    crls = (crl(split), crl(ROOT))
    assert judged(*crls, leaf=who, pool=(split,)).verdicts[0].reason == "rev.no-crl-sign"
    assert judged(*crls, leaf=who, pool=(split, Authority(for_crls, private, subject))).good


def test_unrelated_crls_cost_no_budget() -> None:
    """PRE-6: an operator may hand in the CRLs of a hundred CAs at once; what counts is what concerns the certificate."""
    who = SUB.issue("z@example.test", kind="p256", slot="z")
    one = parse_crl(crl(authority("Unrelated", kind="p256")))
    crowd = [CrlEvidence(one, f"file:{n}", NOW) for n in range(500)]
    assert judged(*crowd, crl(SUB), crl(ROOT), leaf=who).good
    mine = parse_crl(crl(SUB))
    many = [CrlEvidence(mine, f"file:{n}", NOW) for n in range(100)]
    assert judged(*many, crl(ROOT), leaf=who).verdicts[0].reason == "rev.budget"


# ---- the path and the whole ---------------------------------------------------------------------------------------------


def test_t21_the_worst_of_the_path_decides() -> None:
    """PRE-3, T-21: an intermediate that is revoked, or of which nothing is known, spoils a leaf that is GOOD."""
    who = SUB.issue("w@example.test", kind="p256", slot="w")
    assert judged(crl(SUB), crl(ROOT), leaf=who).good
    revoked = judged(crl(SUB), crl(ROOT, [entry(SUB)]), leaf=who)
    assert [v.status for v in revoked.verdicts] == [Status.GOOD, Status.REVOKED]
    assert revoked.worst is not None
    assert revoked.worst.status is Status.REVOKED
    unknown = judged(crl(SUB), leaf=who)
    assert unknown.worst is not None
    assert unknown.worst.status is Status.UNKNOWN


def twice() -> tuple[Authority, Authority, Leaf, Authority]:
    """A CA with one key and two certificates, from two roots, and somebody whom it certified."""
    second = authority("Second root", kind="p256")
    extensions = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage("key_cert_sign", "crl_sign"), True)]
    window = {"not_before": NOW - DAY, "not_after": NOW + 3000 * DAY}
    certificate = second._sign(SUB.subject, SUB.key.public_key(), extensions, **window)  # type: ignore[arg-type]
    return second, Authority(certificate, SUB.key, SUB.subject), SUB.issue("t@example.test", kind="p256", slot="t"), SUB


def test_the_first_good_path_is_taken() -> None:
    """RFC 5280 §6.1: where one path has a revoked CA and another is good, the good one is the path."""
    second, cross, who, sub = twice()
    anchors = (Anchor(ROOT.certificate), Anchor(second.certificate))
    for revoked, kept, via in ((ROOT, second, cross), (second, ROOT, sub)):
        bad = sub if revoked is ROOT else cross
        found = judged(crl(SUB), crl(revoked, [entry(bad)]), crl(kept), leaf=who, pool=(sub, cross), anchors=anchors)
        assert found.good
        assert isinstance(found.path, Path)
        assert found.path.certificates[1] == via.certificate
    both = judged(
        crl(SUB), crl(ROOT, [entry(sub)]), crl(second, [entry(cross)]), leaf=who, pool=(sub, cross), anchors=anchors
    )
    assert (worst(both), both.tried) == (Status.REVOKED, 2)


def test_the_best_path_when_none_is_good() -> None:
    """A path in doubt is better than one with somebody revoked, and one without suspicion better than one with."""
    second, cross, who, sub = twice()
    anchors = (Anchor(ROOT.certificate), Anchor(second.certificate))
    pool = (sub, cross)
    for revoked, bad, left in ((ROOT, sub, second), (second, cross, ROOT)):
        found = judged(crl(SUB), crl(revoked, [entry(bad)]), leaf=who, pool=pool, anchors=anchors)
        assert worst(found) is Status.UNKNOWN
        assert isinstance(found.path, Path)
        assert found.path.anchor.certificate == left.certificate
    for forged, left in ((ROOT, second), (second, ROOT)):
        found = judged(crl(SUB), crl(forged, spoil=True), leaf=who, pool=pool, anchors=anchors)
        assert isinstance(found.path, Path)
        assert found.path.anchor.certificate == left.certificate


@pytest.mark.parametrize(("code", "status"), [(1, Status.REVOKED), (2, Status.REVOKED), (4, Status.UNKNOWN)])
def test_a_compromised_key_is_in_no_mere_doubt(code: int, status: Status) -> None:
    """RPL-4: a key that one issuer calls compromised isn't used because the other issuer's CRL is out of reach."""
    second, cross, who, sub = twice()
    anchors = (Anchor(ROOT.certificate), Anchor(second.certificate))
    for revoked, bad, other in ((ROOT, sub, second), (second, cross, ROOT)):
        listed = crl(revoked, [entry(bad, reason(code))])
        found = judged(crl(SUB), listed, leaf=who, pool=(sub, cross), anchors=anchors)
        assert worst(found) is status
        # Who vouches for its own certificate of the key is believed.
        assert judged(crl(SUB), listed, crl(other), leaf=who, pool=(sub, cross), anchors=anchors).good


def test_a_revoked_leaf_is_revoked_on_every_path() -> None:
    """RPL-4: no second path makes a certificate GOOD that the first one found revoked."""
    second, cross, who, sub = twice()
    anchors = (Anchor(ROOT.certificate), Anchor(second.certificate))
    found = judged(crl(SUB, [entry(who)]), crl(ROOT), crl(second), leaf=who, pool=(sub, cross), anchors=anchors)
    assert (worst(found), found.tried) == (Status.REVOKED, 2)


def test_no_path_is_a_fault() -> None:
    """PRE-1: without a path nothing is asked and nothing judged."""
    found = judged(crl(SUB), pool=())
    assert isinstance(found.path, PathFault)
    assert (found.verdicts, found.missing, found.good) == ((), (), False)


def test_an_anchor_in_the_path_is_asked_nothing() -> None:
    """PRE-4: it is revoked by taking it away."""
    found = judged(crl(ROOT, [entry(ROOT)]), leaf=ROOT)
    assert [v.reason for v in found.verdicts] == ["rev.anchor"]


def test_without_revocation_there_are_no_verdicts() -> None:
    settings = JudgementSettings(PathSettings(), RevocationSettings(), with_revocation=False)
    found = judge_certificate(
        ALICE.certificate, (Anchor(ROOT.certificate),), (SUB.certificate,), lambda _: [], settings, NOW
    )
    assert isinstance(found.path, Path)
    assert found.verdicts == ()


ORDERS = [
    (Order.CRL_FIRST, "good", "good", "rev.crl"),
    (Order.OCSP_FIRST, "good", "good", "rev.ocsp"),
    (Order.CRL_ONLY, "good", "good", "rev.crl"),
    (Order.OCSP_ONLY, "good", "good", "rev.ocsp"),
    (Order.BOTH, "good", "good", "good"),
    (Order.CRL_FIRST, "none", "good", "rev.ocsp"),
    (Order.CRL_ONLY, "none", "good", "unknown"),
    (Order.OCSP_ONLY, "good", "none", "unknown"),
    (Order.BOTH, "good", "none", "unknown"),
    *((order, *pair, "revoked") for order in Order for pair in (("revoked", "good"), ("good", "revoked"))),
]  # fmt: skip


@pytest.mark.parametrize(("order", "by_crl", "by_ocsp", "expected"), ORDERS)
def test_orders_are_per_anchor(order: Order, by_crl: str, by_ocsp: str, expected: str) -> None:
    """RPL-1, RPL-4: the anchor's order decides what makes GOOD; a revocation counts from any source in any order."""
    who = SUB.issue("p@example.test", kind="p256", slot="p", crl_urls=[CRL_URL], ocsp_urls=[OCSP_URL])
    items: list[Evidence] = []
    if by_crl != "none":
        items += [CrlEvidence(parse_crl(crl(SUB, [entry(who)] if by_crl == "revoked" else [])), CRL_URL, NOW)]
    if by_ocsp != "none":
        items += [OcspEvidence(Ocsp([Answer(who, SUB, by_ocsp)], SUB).der(), OCSP_URL, NOW)]
    # The path is the leaf alone, so that nothing else is asked.
    anchor = Anchor(SUB.certificate, settings=AnchorSettings(order=order))
    found = judged(*items, leaf=who, anchors=(anchor,), order=Order.CRL_FIRST).verdicts[0]
    assert expected in (found.reason, found.status)


def test_noise_never_leaves_the_engine() -> None:
    """RPL-3: evidence of no kind, and a CRL whose parts raise, end as UNKNOWN."""
    broken = CrlEvidence(None, CRL_URL, NOW)  # type: ignore[arg-type]
    found = judged(broken, object())  # type: ignore[arg-type]
    assert {v.reason for v in found.verdicts} == {"rev.malformed"}


# ---- short-lived certificates -------------------------------------------------------------------------------------------

NO_REV_AVAIL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00"), False)


def short(**more: Any) -> Leaf:
    window = {"not_before": NOW - DAY, "not_after": NOW + 5 * DAY}
    return SUB.issue("n@example.test", kind="p256", slot="n", **{"extra": [NO_REV_AVAIL], **window, **more})


def test_certificates_that_will_not_be_revoked() -> None:
    """RPL-7, RFC 9608: noRevAvail is believed only of end entities, without pointers, that live as briefly as configured."""
    week = {"short_lived": timedelta(days=7)}
    assert judged(crl(ROOT), leaf=short()).verdicts[0].reason == "rev.none-declared"
    found = judged(crl(ROOT), leaf=short(), **week).verdicts[0]
    assert (found.status, found.reason, found.usable_until) == (Status.GOOD, "rev.short-lived", NOW + 5 * DAY)
    assert judged(crl(ROOT), leaf=short(not_after=NOW + 7 * DAY), **week).verdicts[0].status is Status.UNKNOWN
    assert judged(crl(ROOT), leaf=short(extra=[]), **week).verdicts[0].status is Status.UNKNOWN
    assert judged(crl(ROOT), leaf=short(crl_urls=[CRL_URL]), **week).verdicts[0].status is Status.UNKNOWN
    assert judged(crl(ROOT), leaf=short(ocsp_urls=[OCSP_URL]), **week).verdicts[0].status is Status.UNKNOWN
    listed = short()
    assert judged(crl(SUB, [entry(listed, reason(1))]), leaf=listed, **week).verdicts[0].status is Status.REVOKED
    ca = ROOT.sub("Brief", kind="p256", not_before=NOW - DAY, not_after=NOW + DAY, extra=[NO_REV_AVAIL])
    assert judged(leaf=ca, **week).verdicts[0].status is Status.UNKNOWN


def test_a_critical_pointer_to_deltas_is_no_unknown_extension() -> None:
    """CRL-18, CERT-18: freshestCRL in a certificate is processed, so it may be critical."""
    pointer = x509.FreshestCRL([x509.DistributionPoint([x509.UniformResourceIdentifier(CRL_URL)], None, None, None)])
    who = SUB.issue("f@example.test", kind="p256", slot="f", extra=[(pointer, True)])
    assert judged(crl(SUB, next_update=utc(NOW + DAY)), crl(ROOT), leaf=who).good
