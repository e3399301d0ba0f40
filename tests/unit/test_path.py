"""Paths are built and validated by RFC 5280 §6.1, with bounded work (PRE-6, CERT-11, CERT-13, CERT-14, CERT-18)."""

import time
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.certs import Certificate, load_certificate
from postseal.core.der import SEQUENCE, Cursor, context, tlv
from postseal.core.path import _RANK, Anchor, AnchorSettings, Path, PathFault, PathSettings, build_path, build_paths
from postseal.core.path_checks import anchor_doubt
from postseal.core.reasons import CATALOGUE
from support.paths import ALICE, CA, ROOT, SIGNS, SUB, build, code, odd_ca
from support.pki import DAY, NOW, Authority, Leaf, authority, key, name, usage

_RSA_SHA256 = bytes.fromhex("2a864886f70d01010b")
_SHA1 = (bytes.fromhex("2a864886f70d010105"), hashes.SHA1())


def resigned(leaf: Leaf, parent: Authority, algorithm: tuple[bytes, hashes.HashAlgorithm]) -> Leaf:
    """The same certificate with another RSA signature algorithm: the library doesn't make weak ones."""
    oid, digest = algorithm
    tbs = leaf.certificate.parts.tbs.replace(_RSA_SHA256, oid, 1)
    signature = parent.key.sign(tbs, padding.PKCS1v15(), digest)
    outer = leaf.certificate.parts.outer_algorithm.replace(_RSA_SHA256, oid)
    return Leaf(load_certificate(tlv(SEQUENCE, tbs, outer, tlv(3, b"\x00", signature))), leaf.key)


def version_1(leaf: Leaf, parent: Authority) -> Leaf:
    """The same certificate as X.509 version 1: no version, no extensions, signed again."""
    tbs = Cursor(leaf.certificate.parts.tbs).enter(SEQUENCE)
    kept = [
        bytes(tbs.data[e.start : e.end]) for e in tbs.children() if e.tag not in (context(0), context(3))
    ]  # fmt: skip
    body = tlv(SEQUENCE, *kept)
    signature = parent.key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    der = tlv(SEQUENCE, body, leaf.certificate.parts.outer_algorithm, tlv(3, b"\x00", signature))
    return Leaf(load_certificate(der), leaf.key)


def test_the_usual_path() -> None:
    found = build(ALICE, SUB)
    assert isinstance(found, Path)
    assert found.certificates == (ALICE.certificate, SUB.certificate)
    assert found.anchor.certificate == ROOT.certificate
    assert found.issuer_of(0) == SUB.certificate
    assert found.issuer_of(1) == ROOT.certificate


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "p256", "p384", "p521", "ed25519"])
def test_keys_that_may_sign(kind: str) -> None:
    root = authority(f"Root {kind}", kind=kind)
    sub = root.sub(f"Sub {kind}", kind=kind)
    assert code(sub.issue("a@example.test"), sub, anchors=[root]) == "valid"


def test_ed448_and_pss_may_sign() -> None:
    edwards = odd_ca(ROOT, "Ed448", CA, private=ed448.Ed448PrivateKey.generate())
    assert code(bare_leaf(edwards), edwards) == "valid"
    builder = (
        x509.CertificateBuilder().subject_name(name("p")).issuer_name(SUB.subject).public_key(key().public_key())
        .serial_number(77).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    )  # fmt: skip
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    signed = builder.sign(SUB.key, hashes.SHA256(), rsa_padding=pss)
    assert code(Leaf(load_certificate(signed.public_bytes(Encoding.DER)), None), SUB) == "valid"


def bare_leaf(ca: Authority, digest: Any = None) -> Leaf:
    """A certificate without extensions."""
    certificate = ca._sign(
        name("bare"), key().public_key(), [], not_before=NOW - DAY, not_after=NOW + DAY, hash_algorithm=digest
    )
    return Leaf(certificate, key())


def refused() -> dict[str, tuple[str, Leaf, tuple[Leaf, ...], dict[str, Any]]]:
    """Name -> expected code, leaf, intermediates, settings."""
    cases: dict[str, tuple[str, Leaf, tuple[Leaf, ...], dict[str, Any]]] = {}

    def add(title: str, expected: str, leaf: Leaf, *others: Leaf, **settings: Any) -> None:
        cases[title] = (expected, leaf, others, settings)

    def under(ca: Authority) -> Leaf:
        return ca.issue("alice@example.test")

    add("no intermediate", "path.no-issuer", ALICE)
    other = authority("Other")
    add("other root", "path.untrusted-root", under(other), other)
    fake = Authority(SUB.certificate, key("rsa2048", "fake"), SUB.subject)
    add("forged leaf", "path.bad-signature", under(fake), SUB)
    add("expired leaf", "path.expired", SUB.issue("a@b.test", not_after=NOW - DAY), SUB)
    add("future leaf", "path.not-yet-valid", SUB.issue("a@b.test", not_before=NOW + DAY), SUB)
    expired = ROOT.sub("Expired", not_after=NOW - DAY)
    add("expired CA", "path.expired", under(expired), expired)
    plain = odd_ca(ROOT, "No constraints", SIGNS)
    add("no basicConstraints", "path.not-ca", under(plain), plain)
    false = odd_ca(ROOT, "False", (x509.BasicConstraints(ca=False, path_length=None), True), SIGNS)
    add("cA false", "path.not-ca", under(false), false)
    old = Authority(version_1(ROOT.sub("Old"), ROOT).certificate, key("rsa2048", ("ca", "Old")), name("Old"))
    add("version 1 CA", "path.not-ca", under(old), old)
    mute = odd_ca(ROOT, "Mute", CA, (usage("crl_sign"), True))
    add("no keyCertSign", "path.no-cert-sign", under(mute), mute)
    short = ROOT.sub("Short", path_length=0)
    below = short.sub("Below")
    add("path length", "path.too-long", under(below), below, short)
    web = ROOT.sub("Web", extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)])
    add("CA for the web", "path.wrong-purpose", under(web), web)
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    odd = ROOT.sub("Odd", extra=[unknown])
    add("unknown critical extension in a CA", "path.unknown-extension", under(odd), odd)
    add("unknown critical extension", "path.unknown-extension", SUB.issue("a@b.test", slot=1, extra=[unknown]), SUB)
    explicit = ROOT.sub("policyConstraints", extra=[(x509.PolicyConstraints(0, None), True)])
    add("policyConstraints", "path.policy", under(explicit), explicit)
    soft = ROOT.sub("Soft limits", extra=[(x509.NameConstraints([x509.RFC822Name("b.test")], None), False)])
    add("nameConstraints not critical", "path.name-constraints", under(soft), soft)
    small = odd_ca(ROOT, "Small", CA, SIGNS, private=key("rsa1024"))
    add("RSA 1024 CA", "path.weak-key", under(small), small)
    add("RSA 1024 leaf", "path.weak-key", SUB.issue("a@b.test", kind="rsa1024"), SUB)
    add("SHA-1", "path.weak-signature", resigned(ALICE, SUB, _SHA1), SUB)
    add("SHA-224", "path.weak-signature", SUB.issue("a@b.test", hash_algorithm=hashes.SHA224()), SUB)
    brain = odd_ca(ROOT, "Brainpool", CA, SIGNS, private=ec.generate_private_key(ec.BrainpoolP256R1()))
    add("Brainpool CA", "path.unsupported-key", under(brain), brain)
    digital = odd_ca(ROOT, "DSA", CA, SIGNS, private=dsa.generate_private_key(2048))
    add("DSA signature", "path.unsupported-signature", bare_leaf(digital, hashes.SHA256()), digital)
    add("too deep", "path.budget", ALICE, SUB, max_length=1)
    return cases


CASES = refused()


@pytest.mark.parametrize("title", CASES)
def test_refused(title: str) -> None:
    """CERT-16: Each fault has its code, a sentence that names the certificate, and an entry in the catalogue."""
    expected, leaf, others, settings = CASES[title]
    found = build(leaf, *others, **settings)
    assert isinstance(found, PathFault)
    assert found.code == expected, found.detail
    assert found.detail
    assert found.certificate is not None
    assert CATALOGUE[expected].sentence


def test_every_rank_is_in_the_catalogue_and_back() -> None:
    listed = {c for c in CATALOGUE if c.startswith("path.")} - {"path.valid"}
    assert set(_RANK) == listed
    assert all(CATALOGUE[c].clause for c in listed)


def test_weak_keys_are_admitted_on_demand_but_md5_never() -> None:
    small = authority("Small root", kind="rsa1024")
    sub = small.sub("Small sub", kind="rsa1024")
    leaf = resigned(sub.issue("a@b.test", kind="rsa1024"), sub, _SHA1)
    assert code(leaf, sub, anchors=[small], weak_keys=True) == "valid"
    assert code(leaf, sub, anchors=[small]) == "path.weak-signature"
    md5 = bytes.fromhex("06092a864886f70d0101040500")
    sha256 = bytes.fromhex("06092a864886f70d01010b0500")
    forged = Leaf(load_certificate(ALICE.certificate.der.replace(sha256, md5)), None)
    assert code(forged, SUB, weak_keys=True) == "path.broken-signature"


def test_the_algorithm_outside_must_be_the_one_inside() -> None:
    """RFC 5280 §4.1.1.2"""
    der, sha384 = ALICE.certificate.der, bytes.fromhex("2a864886f70d01010c")
    at = der.rindex(_RSA_SHA256)
    mixed = Leaf(load_certificate(der[:at] + sha384 + der[at + len(_RSA_SHA256) :]), None)
    assert code(mixed, SUB) == "path.unsupported-signature"


@pytest.mark.parametrize(
    ("bits", "exponent"), [(8193, 65537), (16384, 65537), (2048, 1), (2048, 4), (2048, (1 << 64) + 1)]
)
def test_absurd_rsa_keys_are_refused_before_they_cost_time(bits: int, exponent: int) -> None:
    """CERT-13: the key of a forged CA decides how long its signature takes to verify."""
    modulus = (1 << (bits - 1)) | 0xF1F1F1F1
    public = tlv(SEQUENCE, *(tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in (modulus, exponent)))
    spki = tlv(SEQUENCE, bytes.fromhex("300d06092a864886f70d0101010500"), tlv(3, b"\x00", public))
    monster = Leaf(load_certificate(with_key(SUB, spki)), None)
    started = time.perf_counter()
    found = build(ALICE, monster)
    assert time.perf_counter() - started < 0.5
    assert isinstance(found, PathFault)
    assert found.code == "path.weak-key", found.detail


def with_key(ca: Leaf, spki: bytes) -> bytes:
    """The certificate with another key, its signature left as it was."""
    parts = ca.certificate.parts
    old = Cursor(parts.tbs).enter()
    body = parts.tbs[old.at :].replace(parts.spki, spki)
    return tlv(SEQUENCE, tlv(SEQUENCE, body), parts.outer_algorithm, tlv(3, b"\x00", parts.signature))


def test_purpose_any_needs_no_mail_purpose() -> None:
    _, leaf, others, _ = CASES["CA for the web"]
    assert code(leaf, *others, email_protection=False) == "valid"


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_nested_purposes_that_include_mail(purpose: x509.ObjectIdentifier) -> None:
    ca = ROOT.sub(f"Mail {purpose.dotted_string}", extra=[(x509.ExtendedKeyUsage([purpose]), False)])
    assert code(ca.issue("a@b.test"), ca) == "valid"


def test_critical_policies_are_processed() -> None:
    """CERT-17: RFC 5280 §6.1.5 (g): without policyConstraints they can't make a path fail when nobody asks for a policy."""
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), ["http://cps.test/"])])
    ca = ROOT.sub("Policies", extra=[(policies, True), (x509.InhibitAnyPolicy(0), True)])
    found = build(ca.issue("a@b.test", extra=[(policies, True)]), ca)
    assert isinstance(found, Path)
    assert found.policies.authority == {"1.2.3"}
    assert not found.policies.permits(frozenset({"1.2.4"}))


def test_an_anchor_may_require_a_policy() -> None:
    """CERT-17"""
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])
    ca = ROOT.sub("Policies again", extra=[(policies, False)])
    leaf, other = ca.issue("a@b.test", extra=[(policies, False)]), ca.issue("a@b.test")
    assert anchored(leaf, ca, required_policies=frozenset({"1.2.3", "1.2.9"})) == "valid"
    assert anchored(leaf, ca, required_policies=frozenset({"1.2.9"})) == "path.policy"
    assert anchored(other, ca, required_policies=frozenset({"1.2.3"})) == "path.policy"
    assert anchored(other, ca) == "valid"


def anchored(leaf: Leaf, *others: Leaf, **settings: Any) -> str:
    """The code of the path to ROOT with these settings of the anchor."""
    anchor = Anchor(ROOT.certificate, "", AnchorSettings(**settings))
    found = build_path(leaf.certificate, (anchor,), tuple(o.certificate for o in others), PathSettings(), NOW)
    return found.code if isinstance(found, PathFault) else "valid"


def test_an_anchor_may_be_given_up_from_a_date_on() -> None:
    """PRE-4: what it issued before counts until it expires."""
    issued = ALICE.certificate.not_before
    assert anchored(ALICE, SUB, distrust_after=issued) == "valid"
    assert anchored(ALICE, SUB, distrust_after=issued - timedelta(seconds=1)) == "path.distrusted"


def test_who_signs_crls_isnt_asked_what_mail_is_asked() -> None:
    """An anchor's settings are about mail; the signer of a CRL has neither addresses nor policies."""
    settings = AnchorSettings(
        domains=("a.test",), required_policies=frozenset({"1.2.3"}), distrust_after=NOW - 999 * DAY
    )
    anchor = Anchor(ROOT.certificate, "", settings)
    mail, other = PathSettings(), PathSettings(email_protection=False)
    assert isinstance(build_path(ALICE.certificate, (anchor,), (SUB.certificate,), mail, NOW), PathFault)
    assert isinstance(build_path(ALICE.certificate, (anchor,), (SUB.certificate,), other, NOW), Path)


def test_domains_of_an_anchor_arent_for_contact_addresses_of_its_cas() -> None:
    """Old CA certificates name their help desk in the subject."""
    private = key("rsa2048", ("ca", "Help"))
    period = {"not_before": NOW - DAY, "not_after": NOW + DAY}
    contact = ROOT._sign(name("Help", email="help@ca.test"), private.public_key(), [CA, SIGNS], **period)
    ca = Authority(contact, private, name("Help", email="help@ca.test"))
    assert anchored(ca, domains=("a.test",)) == "valid"
    assert anchored(ca.issue("x@a.test"), ca, domains=("a.test",)) == "valid"
    assert anchored(ca.issue("x@ca.test"), ca, domains=("a.test",)) == "path.name-constraints"


def test_further_paths_come_in_order_and_a_fault_comes_alone() -> None:
    """The caller goes on as long as it likes."""
    again = Leaf(
        ROOT._sign(SUB.subject, SUB.key.public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY), None
    )
    pool = (SUB.certificate, again.certificate)
    found = list(build_paths(ALICE.certificate, (Anchor(ROOT.certificate),), pool, PathSettings(), NOW))
    assert [p.certificates[1] for p in found if isinstance(p, Path)] == [SUB.certificate, again.certificate]
    assert found[0] == build_path(ALICE.certificate, (Anchor(ROOT.certificate),), pool, PathSettings(), NOW)
    nothing = list(build_paths(ALICE.certificate, (), pool, PathSettings(), NOW))
    assert [type(f) for f in nothing] == [PathFault]


def test_not_before_has_some_patience_and_not_after_has_none() -> None:
    """CERT-15"""
    leaf = SUB.issue("a@b.test", not_before=NOW, not_after=NOW + DAY)
    assert code(leaf, SUB, at=leaf.certificate.not_before - PathSettings().skew) == "valid"
    assert code(leaf, SUB, at=leaf.certificate.not_before - 2 * PathSettings().skew) == "path.not-yet-valid"
    assert code(leaf, SUB, at=leaf.certificate.not_after) == "valid"
    assert code(leaf, SUB, at=leaf.certificate.not_after + timedelta(seconds=1)) == "path.expired"


def test_self_issued_certificates_dont_count_for_path_length() -> None:
    """RFC 5280 §6.1.4 (l)"""
    short = ROOT.sub("Rollover", path_length=0)
    new_key = key("rsa2048", "rollover")
    again = short._sign(
        short.subject, new_key.public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY
    )  # fmt: skip
    renewed = Authority(again, new_key, short.subject)
    assert code(renewed.issue("a@b.test"), renewed, short) == "valid"


def test_a_leaf_that_is_a_ca_doesnt_count_for_path_length() -> None:
    short = ROOT.sub("Short again", path_length=0)
    assert code(short.sub("Leaf CA"), short) == "valid"


def test_key_identifiers_only_order_candidates() -> None:
    """A wrong authorityKeyIdentifier is a wrong hint, not a fault."""
    wrong = x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None)
    leaf = Leaf(SUB._sign(
        name("w"), key().public_key(), [(wrong, False)], not_before=NOW - DAY, not_after=NOW + DAY), None)  # fmt: skip
    assert code(leaf, SUB) == "valid"


def test_of_several_paths_the_valid_one_is_found() -> None:
    """The CA was certified four times: expired, without keyCertSign, by a stranger, and well."""
    stranger = authority("Stranger")
    ca_key = key("rsa2048", ("ca", "Many"))
    parts = {"not_before": NOW - 9 * DAY, "not_after": NOW + 9 * DAY}
    late = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}
    good = Leaf(ROOT._sign(name("Many"), ca_key.public_key(), [CA, SIGNS], **parts), None)
    others = [
        Leaf(ROOT._sign(name("Many"), ca_key.public_key(), [CA, SIGNS], **late), None),
        Leaf(ROOT._sign(name("Many"), ca_key.public_key(), [CA, (usage("crl_sign"), True)], **parts), None),
        Leaf(stranger._sign(name("Many"), ca_key.public_key(), [CA, SIGNS], **parts), None),
        Leaf(ROOT._sign(name("Many"), key("rsa2048", "x").public_key(), [CA, SIGNS], **parts), None),
    ]
    leaf = Authority(good.certificate, ca_key, name("Many")).issue("a@b.test")
    found = build(leaf, *others, good)
    assert isinstance(found, Path)
    assert found.certificates[1] == good.certificate
    without = build(leaf, *others)
    # That the right certificate has expired says more than that another one isn't known or has another key.
    assert isinstance(without, PathFault)
    assert without.code == "path.expired"
    assert code(leaf, *others[1:]) == "path.no-cert-sign"
    assert code(leaf, *others[2:]) == "path.bad-signature"
    assert code(leaf, others[2]) == "path.no-issuer"


def test_the_answer_doesnt_depend_on_the_order_of_intermediates() -> None:
    _, leaf, others, _ = CASES["path length"]
    assert build(leaf, *others) == build(leaf, *reversed(others))


def odd_root(common_name: str, *extensions: tuple[x509.ExtensionType, bool]) -> Authority:
    """A self-signed certificate with exactly these extensions."""
    private = key("rsa2048", ("ca", common_name))
    blank = Authority(Certificate(b"", None), private, name(common_name))  # type: ignore[arg-type]
    return odd_ca(blank, common_name, *extensions, private=private)


class TestAnchors:
    """RFC 5280 §6.1.1 (d): a name and a key; the limits that its certificate states are kept (RFC 5937)."""

    def test_an_expired_anchor_vouches_for_nobody_unless_told_to(self) -> None:
        root = authority("Past", not_before=NOW - 900 * DAY, not_after=NOW - DAY)
        leaf = root.issue("a@b.test")
        assert code(leaf, anchors=[root]) == "path.expired"
        kept = Anchor(root.certificate, "", AnchorSettings(expired=True))
        assert isinstance(build_path(leaf.certificate, (kept,), (), PathSettings(), NOW), Path)
        assert code(authority("Next", not_before=NOW + DAY).issue("a@b.test"), anchors=[root]) == "path.no-issuer"
        early = authority("Next", not_before=NOW + DAY)
        assert code(early.issue("a@b.test"), anchors=[early]) == "path.not-yet-valid"

    def test_why_nobody_is_trusted_for_its_sake(self) -> None:
        """What an administrator should hear before the first mail does: doctor tells it."""
        late = authority("Past", not_before=NOW - 900 * DAY, not_after=NOW - DAY)
        for root, settings, expected in (
            (ROOT, AnchorSettings(), ""),
            (late, AnchorSettings(), "path.expired"),
            (late, AnchorSettings(expired=True), ""),
            (authority("Tiny", kind="rsa1024"), AnchorSettings(), "path.weak-key"),
            (ALICE, AnchorSettings(), "path.not-ca"),
        ):
            doubt = anchor_doubt(Anchor(root.certificate, "", settings), PathSettings(), NOW)
            assert (doubt.code if doubt else "") == expected

    def test_its_path_length_counts(self) -> None:
        root = odd_root("Flat", (x509.BasicConstraints(ca=True, path_length=0), True))
        sub = root.sub("Below flat")
        assert code(root.issue("a@b.test"), anchors=[root]) == "valid"
        assert code(sub.issue("a@b.test"), sub, anchors=[root]) == "path.too-long"

    def test_its_purpose_counts(self) -> None:
        root = odd_root("Web root", CA, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False))
        assert code(root.issue("a@b.test"), anchors=[root]) == "path.wrong-purpose"
        assert code(root.issue("a@b.test"), anchors=[root], email_protection=False) == "valid"

    def test_a_critical_extension_that_nobody_knows_refuses_it(self) -> None:
        unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
        root = odd_root("Odd root", CA, unknown)
        assert code(root.issue("a@b.test"), anchors=[root]) == "path.unknown-extension"

    def test_without_basic_constraints_it_is_no_ca_unless_it_is_of_version_1(self) -> None:
        root = odd_root("Bare root", SIGNS)
        assert code(root.issue("a@b.test"), anchors=[root]) == "path.not-ca"
        old = Leaf(version_1(root, root).certificate, None)
        assert code(root.issue("a@b.test"), anchors=[old]) == "valid"

    def test_its_own_signature_doesnt_count(self) -> None:
        """CERT-14: a SHA-1 self-signature proves and spoils nothing."""
        private = key("rsa2048", ("ca", "Sha1 root"))
        blank = Authority(Certificate(b"", None), private, name("Sha1 root"))  # type: ignore[arg-type]
        root = odd_ca(blank, "Sha1 root", CA, private=private)
        root = Authority(resigned(root, root, _SHA1).certificate, private, root.subject)
        assert code(root.issue("a@b.test"), anchors=[root]) == "valid"

    def test_a_self_signed_leaf_can_be_trusted_for_itself_only(self) -> None:
        private = key("rsa2048", "solo")
        blank = Authority(Certificate(b"", None), private, name("Solo"))  # type: ignore[arg-type]
        no_ca = (x509.BasicConstraints(ca=False, path_length=None), True)
        solo = odd_ca(blank, "Solo", no_ca, private=private)
        found = build(solo, anchors=[solo])
        assert isinstance(found, Path)
        assert found.certificates == (solo.certificate,)
        assert code(solo.issue("victim@b.test"), anchors=[solo]) == "path.not-ca"
        assert code(solo) == "path.untrusted-root"

    def test_who_is_an_anchor_needs_no_issuer_and_vouches_for_nobody_else(self) -> None:
        found = build(ALICE, anchors=[ALICE])
        assert isinstance(found, Path)
        assert (found.certificates, found.anchor.certificate) == ((ALICE.certificate,), ALICE.certificate)
        assert code(ALICE, SUB, anchors=[ALICE, ROOT]) == "valid"
        assert code(SUB.issue("bob@example.test", slot=1), SUB, anchors=[ALICE]) == "path.no-issuer"
        forged = Authority(ALICE.certificate, ALICE.key, ALICE.certificate.x509.subject).issue("victim@b.test")
        assert code(forged, anchors=[ALICE]) == "path.not-ca"
        late = SUB.issue("alice@example.test", not_after=NOW - DAY)
        assert code(late, anchors=[late]) == "path.expired"

    def test_another_certificate_of_the_anchors_name_and_key_isnt_it(self) -> None:
        again = SUB.issue("alice@example.test", not_after=NOW + DAY)
        assert code(again, anchors=[ALICE]) == "path.no-issuer"

    def test_without_a_name_nobody_is_an_issuer(self) -> None:
        """RFC 5280 §4.1.2.4: every certificate that names no issuer would be its own."""
        private = key("rsa2048", "nameless")
        blank = Authority(Certificate(b"", None), private, x509.Name([]))  # type: ignore[arg-type]
        root = Authority(
            blank._sign(x509.Name([]), private.public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY),
            private, x509.Name([]),
        )  # fmt: skip
        assert code(root.issue("a@b.test"), anchors=[root]) == "path.not-ca"
        nameless = ROOT._sign(
            x509.Name([]), private.public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY
        )
        assert code(root.issue("a@b.test"), Leaf(nameless, private)) == "path.not-ca"

    def test_an_intermediate_may_be_an_anchor(self) -> None:
        found = build(ALICE, anchors=[SUB])
        assert isinstance(found, Path)
        assert found.certificates == (ALICE.certificate,)

    def test_two_anchors_of_one_name(self) -> None:
        other = odd_ca(ROOT, "Root", CA, private=key("rsa2048", "second"))
        assert code(ALICE, SUB, anchors=[other, ROOT]) == "valid"

    def test_a_weak_anchor_key_is_refused(self) -> None:
        small = authority("Tiny", kind="rsa1024")
        assert code(small.issue("a@b.test"), anchors=[small]) == "path.weak-key"


def test_a_warm_path_costs_little() -> None:
    anchors, others, settings = (Anchor(ROOT.certificate),), (SUB.certificate,), PathSettings()
    build_path(ALICE.certificate, anchors, others, settings, NOW)
    best = min(_timed(anchors, others, settings) for _ in range(5))
    assert best < 300e-6, best


def _timed(anchors: tuple[Anchor, ...], others: tuple[Certificate, ...], settings: PathSettings) -> float:
    started = time.perf_counter()
    for _ in range(100):
        build_path(ALICE.certificate, anchors, others, settings, NOW)
    return (time.perf_counter() - started) / 100


@given(st.integers(0, len(SUB.certificate.parts.tbs) - 1), st.integers(1, 255))
def test_a_changed_octet_never_gives_a_path_or_an_exception(position: int, change: int) -> None:
    der = bytearray(SUB.certificate.der)
    offset = SUB.certificate.der.index(SUB.certificate.parts.tbs)
    der[offset + position] ^= change
    try:
        forged = load_certificate(bytes(der))
    except Exception:
        return
    assert isinstance(build(ALICE, Leaf(forged, None)), PathFault)
    assert isinstance(build(Leaf(forged, None)), PathFault)


def test_policy_qualifiers_that_nobody_knows_are_refused() -> None:
    """RFC 5280 §4.2.1.4: qualifiers of a critical extension must be understood, and there are two."""
    qualifier = tlv(SEQUENCE, bytes.fromhex("06032a0305"), tlv(0x16, b"http://cps.test/"))
    policy = tlv(SEQUENCE, bytes.fromhex("06032a0304"), tlv(SEQUENCE, qualifier))
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.32"), tlv(SEQUENCE, policy))
    assert code(SUB.issue("a@b.test", slot=9, extra=[(odd, True)]), SUB) == "path.bad-extension"


def test_a_critical_freshest_crl_is_processed() -> None:
    """CRL-18, CERT-18: core.judgement uses deltas, so a certificate may insist on them."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier("http://delta.test/")], None, None, None)
    delta = x509.FreshestCRL([point])
    assert code(SUB.issue("a@b.test", slot=9, extra=[(delta, True)]), SUB) == "valid"
    assert code(SUB.issue("a@b.test", slot=9, extra=[(delta, False)]), SUB) == "valid"
