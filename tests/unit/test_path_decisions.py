"""What a relying party has to decide where RFC 5280 speaks to CAs only: one decision, one test.

Lenient where refusing would only punish the holder of a certificate, strict where somebody could be deceived.
"""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from postseal.core.certs import Certificate, load_certificate
from postseal.core.der import SEQUENCE, Cursor, context, tlv
from postseal.core.errors import BadData
from postseal.core.path import Anchor, Path, PathSettings, build_path
from support.pki import DAY, NOW, Authority, Leaf, authority, key, name, usage

ROOT = authority("Root")
SUB = ROOT.sub("Issuing")
CA = (x509.BasicConstraints(ca=True, path_length=None), True)
SIGNS = (usage("key_cert_sign"), True)


def code(
    certificate: Certificate, *others: Certificate, anchor: Certificate = ROOT.certificate, **settings: Any
) -> str:
    found = build_path(certificate, (Anchor(anchor),), others, PathSettings(**settings), NOW)
    return "valid" if isinstance(found, Path) else found.code


def made(
    parent: Authority, *extensions: Any, subject: x509.Name | None = None, serial: int = 7, **more: Any
) -> Certificate:
    """A certificate with exactly these extensions, for the key of the slot ``leaf``."""
    public = key("rsa2048", ("leaf", 0)).public_key()
    period = {"not_before": NOW - DAY, "not_after": NOW + DAY}
    return parent._sign(subject or name("leaf"), public, extensions, serial=serial, **{**period, **more})


def changed(certificate: Certificate, parent: Authority, old: bytes, new: bytes) -> Certificate:
    """The same certificate with other octets of the same length in its signed part, signed again."""
    assert len(old) == len(new)
    tbs = certificate.parts.tbs.replace(old, new, 1)
    assert tbs != certificate.parts.tbs
    return signed(tbs, certificate, parent)


def signed(tbs: bytes, certificate: Certificate, parent: Authority) -> Certificate:
    signature = parent.key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    return load_certificate(tlv(SEQUENCE, tbs, certificate.parts.outer_algorithm, tlv(3, b"\x00", signature)))


@pytest.mark.parametrize("serial", [b"\x02\x01\x00", b"\x02\x01\x80", b"\x02\x01\xff"])
def test_serial_numbers_that_no_ca_should_give(serial: bytes) -> None:
    """RFC 5280 §4.1.2.2: certificate users should handle zero and negative ones gracefully."""
    assert code(changed(made(SUB), SUB, b"\x02\x01\x07", serial), SUB.certificate) == "valid"


def test_an_empty_subject_with_a_critical_alternative_name() -> None:
    """RFC 5280 §4.2.1.6; also when it should be critical and isn't."""
    for critical in (True, False):
        names = (x509.SubjectAlternativeName([x509.RFC822Name("a@b.test")]), critical)
        assert code(made(SUB, names, subject=x509.Name([])), SUB.certificate) == "valid"


def test_an_extension_that_is_there_twice() -> None:
    """RFC 5280 §4.2: which one would count?"""
    first = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False)
    second = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x05\x00"), False)
    twice = changed(made(SUB, first, second), SUB, b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")
    assert code(twice, SUB.certificate) == "path.bad-extension"


@pytest.mark.parametrize("critical", [True, False])
def test_extended_key_usage_counts_the_same_when_critical(critical: bool) -> None:
    """CERT-11: of CAs here, of the certificate itself in core.fitness."""
    for purpose, expected in (
        (ExtendedKeyUsageOID.EMAIL_PROTECTION, "valid"),
        (ExtendedKeyUsageOID.SERVER_AUTH, "path.wrong-purpose"),
    ):
        ca = ROOT.sub(f"EKU {critical} {expected}", extra=[(x509.ExtendedKeyUsage([purpose]), critical)])
        assert code(ca.issue("a@b.test").certificate, ca.certificate) == expected


def test_a_ca_without_key_usage_may_sign() -> None:
    """RFC 5280 §6.1.4 (n): only if it is there."""
    private = key("rsa2048", ("ca", "No usage"))
    ca = Authority(made_ca(ROOT, "No usage", private, CA), private, name("No usage"))
    assert code(ca.issue("a@b.test").certificate, ca.certificate) == "valid"


def made_ca(parent: Authority, common_name: str, private: Any, *extensions: Any, **more: Any) -> Certificate:
    period = {"not_before": NOW - DAY, "not_after": NOW + DAY}
    return parent._sign(name(common_name), private.public_key(), extensions, **{**period, **more})


def test_basic_constraints_neednt_be_critical() -> None:
    """RFC 5280 §4.2.1.9 asks it of CAs; old ones didn't, and who reads the extension reads it either way."""
    private = key("rsa2048", ("ca", "Soft"))
    ca = Authority(made_ca(ROOT, "Soft", private, (CA[0], False)), private, name("Soft"))
    assert code(ca.issue("a@b.test").certificate, ca.certificate) == "valid"


def test_key_identifiers_are_hints_in_all_their_forms() -> None:
    """RFC 4158 §3.5.12: also issuer and serial number, also when they are critical or missing."""
    wrong = x509.AuthorityKeyIdentifier(b"\x01" * 20, [x509.DirectoryName(name("Nobody"))], 4711)
    for identifier in (wrong, x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(name("Nobody"))], 4711)):
        for critical in (True, False):
            assert code(made(SUB, (identifier, critical)), SUB.certificate) == "valid"
    assert code(made(SUB), SUB.certificate) == "valid"


def test_names_in_other_string_types_and_letters_are_the_same_names() -> None:
    """RFC 5280 §7.1: the issuer field says Issuing as PrintableString, in capitals and with more space."""
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, "ISSUING ", _type=x509.name._ASN1Type.PrintableString)
    other = Authority(SUB.certificate, SUB.key, x509.Name([attribute]))
    assert code(made(other), SUB.certificate) == "valid"


def test_unique_identifiers_are_ignored() -> None:
    """RFC 5280 §4.1.2.8: to be parsed, and not to be used."""
    tbs = Cursor(made(SUB, (usage("digital_signature"), True)).parts.tbs).enter(SEQUENCE)
    fields = [bytes(tbs.data[e.start : e.end]) for e in tbs.children()]
    fields.insert(-1, tlv(0x81, b"\x00\x01"))
    whole = tlv(SEQUENCE, *fields)
    certificate = signed(whole, made(SUB), SUB)
    assert code(certificate, SUB.certificate) == "valid"


def test_versions() -> None:
    """RFC 5280 §4.1.2.1: a version 1 certificate may be anybody's, but no CA's below an anchor; version 4 doesn't exist."""
    leaf = made(SUB)
    tbs = Cursor(leaf.parts.tbs).enter(SEQUENCE)
    fields = [bytes(tbs.data[e.start : e.end]) for e in tbs.children()]
    old = signed(tlv(SEQUENCE, *(f for f in fields if f[0] not in (context(0), context(3)))), leaf, SUB)
    assert code(old, SUB.certificate) == "valid"
    with pytest.raises(BadData, match="not a certificate"):
        changed(leaf, SUB, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03")


def test_a_path_length_counts_cas_and_not_the_last_certificate() -> None:
    """RFC 5280 §4.2.1.9: zero allows end entities, and a CA as the last one; a later CA can't lift it."""
    zero = ROOT.sub("Zero", path_length=0)
    assert code(zero.issue("a@b.test").certificate, zero.certificate) == "valid"
    assert code(zero.sub("Last").certificate, zero.certificate) == "valid"
    wide = zero.sub("Wide", path_length=5)
    assert code(wide.issue("a@b.test").certificate, wide.certificate, zero.certificate) == "path.too-long"


_ACCESS = ExtensionOID.AUTHORITY_INFORMATION_ACCESS.dotted_string


@pytest.mark.parametrize("oid", [_ACCESS, "1.3.6.1.5.5.7.1.3", "2.16.840.1.113730.1.1"])
def test_critical_extensions_that_say_nothing_about_a_path_are_refused(oid: str) -> None:
    """CERT-18, RFC 5280 §4.2: critical asks for who processes it; not critical, it is ignored."""
    value = bytes.fromhex("3000") if oid.startswith("1.3") else bytes.fromhex("03020780")
    if oid == _ACCESS:
        where = x509.AccessDescription(
            x509.AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://o.test/")
        )
        extension: x509.ExtensionType = x509.AuthorityInformationAccess([where])
    else:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    assert code(made(SUB, (extension, True)), SUB.certificate) == "path.unknown-extension"
    assert code(made(SUB, (extension, False)), SUB.certificate) == "valid"


def test_an_anchor_that_is_an_intermediate_ends_the_path() -> None:
    """RFC 5280 §6.1.1 (d): what is above it isn't looked at, whatever it says."""
    late = ROOT.sub("Below nobody")
    leaf = late.issue("a@b.test").certificate
    assert code(leaf, anchor=late.certificate) == "valid"
    assert code(leaf, late.certificate, ROOT.certificate, anchor=late.certificate) == "valid"


def test_of_two_anchors_with_one_name_the_one_that_signed_is_found() -> None:
    """Also when the other has the key identifier, and when the first has expired and was renewed with the same key."""
    old = authority("Renewed", not_before=NOW - 900 * DAY, not_after=NOW - DAY)
    new = Leaf(authority("Renewed").certificate, old.key)
    assert new.certificate.spki == old.certificate.spki
    anchors = (Anchor(old.certificate), Anchor(new.certificate))
    found = build_path(old.issue("a@b.test").certificate, anchors, (), PathSettings(), NOW)
    assert isinstance(found, Path)
    assert found.anchor.certificate == new.certificate


def test_a_root_that_isnt_trusted_beside_a_cross_certificate_that_leads_on() -> None:
    """The path over the cross certificate is found, though the self-signed one has the same name and key."""
    private = key("rsa2048", ("ca", "Young root"))
    cross = made_ca(ROOT, "Young root", private, CA, SIGNS)
    young = Authority(cross, private, name("Young root"))
    own = made_ca(young, "Young root", private, CA, SIGNS)
    leaf = young.issue("a@b.test").certificate
    for pool in ((own, cross), (cross, own)):
        assert code(leaf, *pool) == "valid"
    assert code(leaf, own) == "path.untrusted-root"


def test_weak_keys_have_a_floor_that_no_option_lowers() -> None:
    """CERT-13: RSA below 1024 bits never; and MD5 never, as test_path shows."""
    public = rsa.RSAPublicNumbers(65537, (1 << 767) | 0xF1F1F1F1F1F1F1F1).public_key()
    weak = SUB._sign(name("weak"), public, [], not_before=NOW - DAY, not_after=NOW + DAY)
    assert code(weak, SUB.certificate, weak_keys=True) == "path.weak-key"
