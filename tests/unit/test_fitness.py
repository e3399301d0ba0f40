"""Is a certificate fit for a mailbox? CERT-1 to CERT-5 and CERT-10 to CERT-15."""

import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, x448
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

import postseal.core.fitness as module
from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.certs import load_certificate
from postseal.core.der import SEQUENCE, Cursor, tlv
from postseal.core.fitness import addresses, fitness, key_family
from postseal.core.profile import key_kind
from postseal.core.reasons import CATALOGUE
from postseal.core.suite import KeyFamily
from support.cms import oaep_recipient
from support.pki import DAY, NOW, Leaf, authority, key, name, usage

ROOT = authority("Root")
ALICE = parse_mailbox("alice@example.test")
ENCIPHER = (usage("key_encipherment"), True)
AGREE = (usage("key_agreement"), True)


def smtp_utf8(text: str) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), tlv(0x0C, text.encode()))


def raw_rfc822(text: bytes) -> x509.UnrecognizedExtension:
    """A subjectAltName that the library's builder would refuse."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), tlv(SEQUENCE, tlv(0x81, text)))


def certificate(
    *extensions: tuple[x509.ExtensionType, bool], public: Any = None, san: x509.ExtensionType | None = None,
    subject: x509.Name | None = None,
) -> Leaf:  # fmt: skip
    names = san or x509.SubjectAlternativeName([x509.RFC822Name("alice@example.test")])
    made = ROOT._sign(
        subject or name("leaf"), public or key().public_key(), [(names, False), *extensions],
        not_before=NOW - DAY, not_after=NOW + DAY,
    )  # fmt: skip
    return Leaf(made, None)


def codes(leaf: Leaf, mailbox: Mailbox | None = ALICE, **options: Any) -> dict[str, bool]:
    """Code -> fatal."""
    return {f.code: f.fatal for f in fitness(leaf.certificate, mailbox, NOW, **options)}


@pytest.mark.parametrize("kind", ["rsa2048", "rsa4096", "p256", "p384", "p521"])
def test_a_usual_certificate_has_no_findings(kind: str) -> None:
    leaf = ROOT.issue("alice@example.test", kind=kind)
    assert fitness(leaf.certificate, ALICE, NOW) == ()
    assert key_family(leaf.certificate) is (KeyFamily.RSA if kind.startswith("rsa") else KeyFamily.EC)


class TestAddress:
    @pytest.mark.parametrize(
        ("san", "mailbox"),
        [
            (x509.RFC822Name("ALICE@Example.TEST"), "alice@example.test"),
            (x509.RFC822Name("alice@example.test"), "Alice@EXAMPLE.test"),
            (x509.RFC822Name("a@xn--bcher-kva.example"), "a@bücher.example"),
            (smtp_utf8("jürgen@xn--bcher-kva.example"), "jürgen@bücher.example"),
            (smtp_utf8("ju\u0308rgen@example.test"), "jürgen@example.test"),
            (x509.RFC822Name('"a b"@example.test'), '"a b"@example.test'),
        ],
    )
    def test_matches(self, san: x509.GeneralName, mailbox: str) -> None:
        """T-32: the same mailbox in other letters."""
        leaf = certificate(ENCIPHER, san=x509.SubjectAlternativeName([x509.DNSName("x.test"), san]))
        assert codes(leaf, parse_mailbox(mailbox)) == {}

    @pytest.mark.parametrize(
        ("san", "mailbox"),
        [
            (x509.RFC822Name("bob@example.test"), "alice@example.test"),
            (x509.RFC822Name("alice@sub.example.test"), "alice@example.test"),
            (x509.RFC822Name("alice+x@example.test"), "alice@example.test"),
            (x509.RFC822Name('"A b"@example.test'), '"a b"@example.test'),
            (smtp_utf8("JÜRGEN@example.test"), "jürgen@example.test"),
        ],
    )
    def test_doesnt_match(self, san: x509.GeneralName, mailbox: str) -> None:
        """T-32: No sub-domains, no sub-addresses, no folding inside quotes or beyond ASCII."""
        leaf = certificate(ENCIPHER, san=x509.SubjectAlternativeName([san]))
        assert codes(leaf, parse_mailbox(mailbox)) == {"cert.wrong-address": True}

    @pytest.mark.parametrize(
        "text",
        [b" alice@example.test", b"alice@example.test ", b"alice@example.test\x00@evil.test", b"alice@example.test\x00",
         b"alice@example.test.", b"<alice@example.test>", b"alice@example.test,b@evil.test", b"*@example.test.x y",
         b"alice(x)@example.test", b"alice@[192.0.2.1]", b"@example.test", b"example.test", b".example.test",
         b"alice @example.test", b"alice@example.test\r\n"],
    )  # fmt: skip
    def test_names_that_arent_plain_addresses_are_ignored(self, text: bytes) -> None:
        """CERT-3, T-32: what looks like the address to one parser must not pass for it here."""
        found = codes(certificate(ENCIPHER, san=raw_rfc822(text)))
        assert found == {"cert.odd-address": False, "cert.no-address": True}

    def test_names_beyond_ascii_in_rfc822_name_are_ignored(self) -> None:
        """CERT-4: IA5String has no U-labels; the library can't even read them."""
        found = codes(
            certificate(ENCIPHER, san=raw_rfc822("a@bücher.example".encode())), parse_mailbox("a@bücher.example")
        )
        assert any(found.values())

    @pytest.mark.parametrize("text", ["alice@example.test", "jürgen@bücher.example", "x"])
    def test_smtp_utf8_mailbox_is_only_for_what_rfc822_name_cant_say(self, text: str) -> None:
        """CERT-5"""
        leaf = certificate(ENCIPHER, san=x509.SubjectAlternativeName([smtp_utf8(text)]))
        assert codes(leaf, ALICE)["cert.no-address"]

    def test_the_subject_counts_only_without_any_address_in_the_alternative_name(self) -> None:
        """CERT-1"""
        subject = name("Alice", email="alice@example.test")
        no_mail = x509.SubjectAlternativeName([x509.DNSName("example.test")])
        legacy = certificate(ENCIPHER, san=no_mail, subject=subject)
        assert codes(legacy) == {"cert.address-in-subject": False}
        assert addresses(legacy.certificate).in_subject
        other = certificate(
            ENCIPHER, san=x509.SubjectAlternativeName([x509.RFC822Name("b@example.test")]), subject=subject
        )
        assert codes(other) == {"cert.wrong-address": True}
        odd = certificate(ENCIPHER, san=raw_rfc822(b"odd"), subject=subject)
        assert codes(odd)["cert.no-address"]

    def test_without_a_mailbox_addresses_dont_count(self) -> None:
        assert codes(certificate(ENCIPHER, san=raw_rfc822(b"odd")), None) == {}

    def test_the_name_in_the_same_case_comes_first(self) -> None:
        """CERT-6"""
        san = x509.SubjectAlternativeName(
            [x509.RFC822Name("ALICE@example.test"), x509.RFC822Name("alice@example.test")]
        )
        found = addresses(certificate(ENCIPHER, san=san).certificate)
        assert found.match(ALICE) == ALICE
        assert found.match(parse_mailbox("Alice@example.test")) == parse_mailbox("ALICE@example.test")
        assert found.match(parse_mailbox("bob@example.test")) is None


class TestUsage:
    @pytest.mark.parametrize(
        ("bits", "kind", "expected"),
        [
            (("digital_signature",), "rsa2048", {"cert.no-key-encipherment": True}),
            (("data_encipherment",), "rsa2048", {"cert.no-key-encipherment": True}),
            (("key_agreement",), "rsa2048", {"cert.no-key-encipherment": True}),
            (("key_encipherment",), "p256", {"cert.no-key-agreement": True}),
            (("digital_signature",), "p256", {"cert.no-key-agreement": True}),
            (("key_agreement", "decipher_only"), "p256", {"cert.no-key-agreement": True}),
            (("key_agreement", "encipher_only"), "p256", {}),
            (("key_encipherment", "digital_signature"), "rsa2048", {}),
        ],
    )
    def test_key_usage(self, bits: tuple[str, ...], kind: str, expected: dict[str, bool]) -> None:
        """CERT-10, T-31"""
        assert codes(ROOT.issue("alice@example.test", kind=kind, key_usage=usage(*bits))) == expected

    def test_no_key_usage_is_a_warning(self) -> None:
        assert codes(ROOT.issue("alice@example.test", key_usage=None)) == {"cert.no-key-usage": False}

    @pytest.mark.parametrize(
        ("eku", "expected"),
        [
            (None, {}),
            ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], {}),
            ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION], {}),
            ([ExtendedKeyUsageOID.CLIENT_AUTH], {"cert.wrong-purpose": True}),
        ],
    )
    def test_extended_key_usage(self, eku: Any, expected: dict[str, bool]) -> None:
        """CERT-11"""
        assert codes(ROOT.issue("alice@example.test", eku=eku)) == expected

    def test_a_ca_is_no_recipient(self) -> None:
        """CERT-12"""
        assert codes(certificate(ENCIPHER, (x509.BasicConstraints(True, None), True))) == {"cert.is-ca": True}


def bare_rsa(bits: int, exponent: int, modulus: int = 0) -> Leaf:
    """A certificate for a public key that nobody could make honestly."""
    parts = certificate(ENCIPHER).certificate.parts
    modulus = modulus or (1 << (bits - 1)) | 0x10001 << 64 | 1
    numbers = (modulus, exponent)
    public = tlv(SEQUENCE, *(tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers))
    spki = tlv(SEQUENCE, bytes.fromhex("300d06092a864886f70d0101010500"), tlv(3, b"\x00", public))
    body = parts.tbs[Cursor(parts.tbs).enter().at :].replace(parts.spki, spki)
    return Leaf(load_certificate(tlv(SEQUENCE, tlv(SEQUENCE, body), parts.outer_algorithm, tlv(3, b"\0", b"x"))), None)


class TestKeys:
    """CERT-13"""

    @pytest.mark.parametrize(
        ("bits", "exponent", "expected"),
        [(1024, 65537, "cert.weak-key"), (2047, 65537, "cert.weak-key"), (8193, 65537, "cert.oversized-key"),
         (16384, 65537, "cert.oversized-key"), (2048, 1, "cert.broken-key"), (2048, 65536, "cert.broken-key"),
         (2048, (1 << 64) + 1, "cert.broken-key")],
    )  # fmt: skip
    def test_rsa_limits(self, bits: int, exponent: int, expected: str) -> None:
        """T-31: what is accepted and what is not."""
        assert codes(bare_rsa(bits, exponent)) == {expected: True}

    def test_weak_keys_on_demand(self) -> None:
        leaf = ROOT.issue("alice@example.test", kind="rsa1024")
        assert codes(leaf) == {"cert.weak-key": True}
        assert codes(leaf, weak_keys=True) == {"cert.weak-key": False}
        assert codes(bare_rsa(768, 65537), weak_keys=True) == {"cert.weak-key": True}

    def test_small_factors_and_roca(self) -> None:
        """T-31: Known-broken keys; a ROCA modulus is a power of 65537 modulo each small prime."""
        assert codes(bare_rsa(2048, 65537, ((1 << 2047) // 3 + 1) * 3)) == {"cert.broken-key": True}
        primorial = 1
        for prime in (p for p in range(2, 168) if all(p % d for d in range(2, p))):
            primorial *= prime
        modulus = next(
            n for k in range(1, 10_000)
            if (n := (1 << 2047) // primorial * primorial + k * primorial + pow(65537, 5, primorial)).bit_length() == 2048
            and all(n % p for p in range(3, 2000, 2))
        )  # fmt: skip
        findings = fitness(bare_rsa(2048, 65537, modulus).certificate, None, NOW)
        assert [(f.code, f.fatal) for f in findings] == [("cert.broken-key", True)]
        assert "ROCA" in findings[0].detail

    @pytest.mark.parametrize(
        ("public", "kind", "expected"),
        [
            (ec.generate_private_key(ec.SECP256K1()).public_key(), "secp256k1", "cert.unsupported-key"),
            (x448.X448PrivateKey.generate().public_key(), "X448", "cert.no-reader"),
            (key("ed25519").public_key(), "Ed25519", "cert.signing-key"),
            (ed448.Ed448PrivateKey.generate().public_key(), "Ed448", "cert.signing-key"),
            (dsa.generate_private_key(2048).public_key(), "DSA", "cert.signing-key"),
        ],
    )
    def test_other_kinds(self, public: Any, kind: str, expected: str) -> None:
        leaf = certificate(AGREE, public=public)
        assert key_kind(leaf.certificate) == kind
        assert codes(leaf, x25519=True) == {expected: True}
        assert key_family(leaf.certificate) is None

    @pytest.mark.parametrize(("kind", "name"), [("bp256", "P256"), ("bp384", "P384"), ("bp512", "P512")])
    def test_brainpool_curves_of_the_crypto_library(self, kind: str, name: str) -> None:
        """RFC 5639, RFC 5753 §3"""
        leaf = ROOT.issue("alice@example.test", kind=kind)
        assert (key_kind(leaf.certificate), key_family(leaf.certificate)) == (f"brainpool{name}r1", KeyFamily.EC)
        assert codes(leaf) == {}
        assert codes(ROOT.issue("alice@example.test", kind=kind, key_usage=ENCIPHER[0])) == {
            "cert.no-key-agreement": True
        }

    @pytest.mark.parametrize(("arc", "kind"), [(3, "brainpoolP192r1"), (8, "brainpoolP256t1"), (9, "brainpoolP320r1")])
    def test_other_brainpool_curves(self, arc: int, kind: str) -> None:
        curve = bytes.fromhex("06092b2403030208010107")
        leaf = certificate(AGREE, public=key("bp256").public_key())
        changed = load_certificate(leaf.certificate.der.replace(curve, curve[:-1] + bytes([arc])))
        assert key_kind(changed) == kind
        assert codes(Leaf(changed, None)) == {"cert.brainpool": True}

    def test_a_point_that_is_not_on_its_curve(self) -> None:
        """A key that can't be loaded isn't fit because the name of its curve is a good one: sealing for it would only fail."""
        for kind in ("p256", "p384", "p521", "bp256", "bp384", "bp512"):
            good = ROOT.issue("alice@example.test", kind=kind)
            spki = good.certificate.spki
            changed = load_certificate(good.certificate.der.replace(spki, spki[:-1] + bytes([spki[-1] ^ 1])))
            assert key_kind(changed) == "unreadable"
            assert codes(Leaf(changed, None)) == {"cert.unsupported-key": True}

    def test_x25519_with_which_nothing_can_be_agreed_upon(self) -> None:
        """RFC 7748 §6.1: points of small order."""
        good = ROOT.issue("alice@example.test", kind="x25519").certificate
        for point in (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
            changed = load_certificate(good.der.replace(good.spki, good.spki[:-32] + point))
            assert codes(Leaf(changed, None), x25519=True) == {"cert.unsupported-key": True}

    def test_x25519_on_demand(self) -> None:
        """RFC 8418, RFC 8410 §5: only where it is asked for, and with keyAgreement."""
        leaf = ROOT.issue("alice@example.test", kind="x25519")
        assert codes(leaf) == {"cert.no-reader": True}
        assert codes(leaf, x25519=True) == {}
        assert key_family(leaf.certificate) is KeyFamily.X25519
        other = ROOT.issue("alice@example.test", kind="x25519", key_usage=ENCIPHER[0])
        assert codes(other, x25519=True) == {"cert.no-key-agreement": True}
        x448_leaf = certificate(AGREE, public=x448.X448PrivateKey.generate().public_key())
        assert codes(x448_leaf, x25519=True) == {"cert.no-reader": True}

    def test_oaep_keys(self) -> None:
        """RFC 4055 §4: a key that says id-RSAES-OAEP, with parameters that we know or with none."""
        oid = bytes.fromhex("06092a864886f70d010107")
        for parameters, expected in (
            (b"", {}),
            (b"\x30\x00", {}),
            (b"\x30\x02\x05\x00", {"cert.unsupported-key": True}),
            (bytes.fromhex("300da00b300906052b030405060500"), {"cert.unsupported-key": True}),
        ):
            leaf = oaep_recipient(tlv(SEQUENCE, oid, parameters))
            assert (key_kind(leaf.certificate), key_family(leaf.certificate)) == ("RSA-OAEP", KeyFamily.RSA)
            assert {f.code: f.fatal for f in fitness(leaf.certificate, None, NOW)} == expected

    def test_rsa_keys_for_signatures_only(self) -> None:
        """RFC 4055 §1.2: id-RSASSA-PSS in the key says that it only signs."""
        parts = certificate(ENCIPHER).certificate.parts
        rsa, pss = bytes.fromhex("300d06092a864886f70d0101010500"), bytes.fromhex("300b06092a864886f70d01010a")
        spki = tlv(SEQUENCE, pss, parts.spki[Cursor(parts.spki).enter().at + len(rsa) :])
        body = parts.tbs[Cursor(parts.tbs).enter().at :].replace(parts.spki, spki)
        der = tlv(SEQUENCE, tlv(SEQUENCE, body), parts.outer_algorithm, tlv(3, b"\0", b"x"))
        assert codes(Leaf(load_certificate(der), None)) == {"cert.signing-key": True}


def test_validity() -> None:
    """CERT-15"""
    assert codes(ROOT.issue("alice@example.test", not_after=NOW - DAY)) == {"cert.expired": True}
    assert codes(ROOT.issue("alice@example.test", not_before=NOW + DAY)) == {"cert.not-yet-valid": True}


def test_md5_is_never_good_enough() -> None:
    """CERT-14"""
    md5, sha256 = bytes.fromhex("2a864886f70d010104"), bytes.fromhex("2a864886f70d01010b")
    leaf = Leaf(load_certificate(certificate(ENCIPHER).certificate.der.replace(sha256, md5)), None)
    assert codes(leaf, weak_keys=True) == {"cert.broken-signature": True}
    sha1 = Leaf(load_certificate(leaf.certificate.der.replace(md5, bytes.fromhex("2a864886f70d010105"))), None)
    assert codes(sha1) == {"cert.weak-signature": True}
    assert codes(sha1, weak_keys=True) == {"cert.weak-signature": False}


def test_extensions_that_cant_be_read_are_fatal() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"\x05\x00")
    assert codes(certificate((broken, True))) == {"cert.bad-extension": True}


def test_every_code_is_in_the_catalogue() -> None:
    source = Path(str(module.__file__)).read_text()
    used = set(re.findall(r'"(cert\.[a-z-]+)"', source))
    used |= {f"cert.{kind}-signature" for kind in ("weak", "broken", "unsupported")}
    assert used <= set(CATALOGUE)
    assert all(CATALOGUE[code].clause for code in used)


LEAF: Leaf = ROOT.issue("alice@example.test")


@given(st.integers(0, len(LEAF.certificate.der) - 1), st.integers(1, 255))
def test_no_certificate_raises(position: int, change: int) -> None:
    """Total: whatever octet is changed, there are findings or none, but no exception."""
    der = bytearray(LEAF.certificate.der)
    der[position] ^= change
    try:
        changed = load_certificate(bytes(der))
    except Exception:
        return
    for finding in fitness(changed, ALICE, NOW):
        assert finding.code in CATALOGUE
    key_family(changed)
