"""Signature algorithms: what is good enough, what is refused, odd parameters."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa

from postseal.core.der import BadDer
from postseal.core.signature import Scheme, key_fault, parse_algorithm, verifies
from support.evidence import algorithm, integer, node, oid, seq, sign
from support.pki import key

SHA256, SHA384, SHA1 = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "1.3.14.3.2.26"
MGF1, PSS = "1.2.840.113549.1.1.8", "1.2.840.113549.1.1.10"


def pss(
    hash_oid: str = SHA256, mask_oid: str = SHA256, mask: str = MGF1, salt: int = 32, trailer: bytes = b""
) -> bytes:
    """AlgorithmIdentifier of RSASSA-PSS."""
    return seq(
        oid(PSS),
        seq(
            node(0xA0, seq(oid(hash_oid))),
            node(0xA1, seq(oid(mask), seq(oid(mask_oid)))),
            node(0xA2, integer(salt)),
            trailer,
        ),
    )


def spki(private: object) -> bytes:
    return private.public_key().public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("identifier", "scheme", "fault", "weak_fault"),
    [
        (algorithm("sha256"), Scheme.PKCS1, "", ""),
        (algorithm("sha1"), Scheme.PKCS1, "signed with SHA-1", ""),
        (algorithm("md5"), Scheme.BROKEN, "signed with MD2, MD4 or MD5", "signed with MD2, MD4 or MD5"),
        (algorithm("ecdsa-sha1"), Scheme.ECDSA, "signed with SHA-1", ""),
        (algorithm("ed448"), Scheme.EDDSA, "", ""),
        (pss(), Scheme.PSS, "", ""),
        (pss(SHA1, SHA1, salt=20), Scheme.PSS, "signed with SHA-1", ""),
        (seq(oid(PSS)), Scheme.PSS, "signed with SHA-1", ""),
        (seq(oid("1.2.3")), Scheme.UNKNOWN, "unknown algorithm 1.2.3", "unknown algorithm 1.2.3"),
        (seq(oid("1.2.3"), octets := node(4, b"x")), Scheme.UNKNOWN, "unknown algorithm", "unknown algorithm"),
        (pss(SHA256, SHA384), Scheme.UNKNOWN, "unknown algorithm", "unknown algorithm"),
        (pss("1.2.3", "1.2.3"), Scheme.UNKNOWN, "unknown algorithm", "unknown algorithm"),
        (pss(mask="1.2.3"), Scheme.UNKNOWN, "unknown algorithm", "unknown algorithm"),
        (pss(salt=-1), Scheme.UNKNOWN, "unknown algorithm", "unknown algorithm"),
        (pss(trailer=node(0xA3, integer(1))), Scheme.PSS, "", ""),
    ],
)
def test_floor(identifier: bytes, scheme: Scheme, fault: str, weak_fault: str) -> None:
    """CRL-6, OCSP-6: SHA-2 is good, SHA-1 needs weak_keys, MD5 and unknown algorithms never count."""
    found = parse_algorithm(identifier)
    assert found.scheme is scheme
    assert fault in found.fault(False)
    assert bool(fault) == bool(found.fault(False))
    assert bool(weak_fault) == bool(found.fault(True))


@pytest.mark.parametrize(
    "identifier",
    [
        b"",
        seq(),
        seq(oid("1.2.840.113549.1.1.11"), octets),
        seq(oid("1.2.840.113549.1.1.11"), b"\x05\x00", b"\x05\x00"),
        pss(trailer=node(0xA3, integer(2))),
        pss(trailer=node(0xA4, integer(1))),
    ],
)
def test_broken_identifiers(identifier: bytes) -> None:
    """RFC 4055 §3.1, §5: parameters that don't belong there, and an unknown trailer, are refused."""
    with pytest.raises(BadDer):
        parse_algorithm(identifier)


def test_ed448() -> None:
    """RFC 8032: Ed448 verifies, and not with a changed message."""
    private = ed448.Ed448PrivateKey.generate()
    found = parse_algorithm(algorithm("ed448"))
    signature = sign(private, "ed448", b"message")
    assert verifies(found, signature, b"message", spki(private))
    assert not verifies(found, signature, b"massage", spki(private))
    assert not verifies(parse_algorithm(algorithm("ed25519")), signature, b"message", spki(private))


def test_schemes_are_not_interchangeable() -> None:
    """A PKCS #1 signature isn't a PSS signature; an RSA key verifies neither ECDSA nor EdDSA nor MD5."""
    private = key()
    signature = sign(private, "sha256", b"message")
    assert verifies(parse_algorithm(algorithm("sha256")), signature, memoryview(b"message"), spki(private))
    for kind in ("pss", "sha384", "ecdsa-sha256", "ed25519", "md5"):
        assert not verifies(parse_algorithm(algorithm(kind)), signature, b"message", spki(private))


def rsa_spki(modulus: int, exponent: int) -> bytes:
    bits = node(3, b"\x00", seq(integer(modulus), integer(exponent)))
    return seq(seq(oid("1.2.840.113549.1.1.1"), b"\x05\x00"), bits)


@pytest.mark.parametrize(
    ("der", "words"),
    [
        (b"", "unsupported public key"),
        (seq(seq(oid("1.2.3")), node(3, b"\x00x")), "unsupported public key"),
        (rsa_spki((1 << 1023) + 1, 65537), "RSA key of 1024 bits, 2048 to 8192 are allowed"),
        (rsa_spki((1 << 9000) + 1, 65537), "bits"),
        (rsa_spki((1 << 2047) + 1, (1 << 70) + 1), "exponent"),
    ],
)
def test_keys_that_verify_nothing(der: bytes, words: str) -> None:
    """RFC 8551 §6: too short, too long (a way to keep us busy), absurd exponents."""
    assert words in key_fault(der, False)
    assert not verifies(parse_algorithm(algorithm("sha256")), b"x" * 256, b"message", der)


def test_good_keys() -> None:
    """2048 bits and usual curves are fine; 1024 bits need weak_keys."""
    for kind in ("rsa2048", "p256", "p384", "p521", "ed25519"):
        assert key_fault(spki(key(kind)), False) == ""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert key_fault(spki(short), True) == ""
    signature = sign(short, "sha256", b"m")
    assert isinstance(parse_algorithm(algorithm("sha256")).hash, hashes.SHA256)
    assert verifies(parse_algorithm(algorithm("sha256")), signature, b"m", spki(short))


@pytest.mark.parametrize(
    ("curve", "strict", "weak"),
    [(ec.SECP192R1(), False, False), (ec.SECP224R1(), False, True), (ec.SECP256R1(), True, True)],
)
def test_small_curves_verify_nothing(curve: ec.EllipticCurve, strict: bool, weak: bool) -> None:
    """CERT-13: P-256 and larger; P-224 where weak keys are admitted, as for RSA."""
    public = spki(ec.generate_private_key(curve))
    assert (key_fault(public, weak_keys=False) == "", key_fault(public, weak_keys=True) == "") == (strict, weak)
    assert strict or curve.name in key_fault(public, weak_keys=False)


def restricted(parameters: bytes) -> bytes:
    """An RSA key as id-RSASSA-PSS, with ``parameters``."""
    bits = spki(key("rsa2048"))
    plain = seq(oid("1.2.840.113549.1.1.1"), b"\x05\x00")
    return seq(seq(oid(PSS), parameters), bits[bits.index(plain) + len(plain) :])


@pytest.mark.parametrize(
    ("parameters", "verified"),
    [
        (b"", {"pss", "pss long"}),
        (pss()[2 + len(oid(PSS)) :], {"pss", "pss long"}),
        (pss(salt=48)[2 + len(oid(PSS)) :], {"pss long"}),
        (pss(SHA384, SHA384)[2 + len(oid(PSS)) :], set()),
        (pss(SHA256, SHA384)[2 + len(oid(PSS)) :], set()),
        (b"\x30\x80", set()),
    ],
    ids=["none", "same", "longer salt", "other hash", "odd", "broken"],
)
def test_a_key_for_pss_verifies_nothing_else(parameters: bytes, verified: set[str]) -> None:
    """RFC 4055 §1.2, §3.3: not PKCS #1 v1.5, and only the hash and the salt that the key asks for."""
    private = key("rsa2048")
    assert isinstance(private, rsa.RSAPrivateKey)
    sha256 = hashes.SHA256()
    made = {
        "pkcs1": (algorithm("sha256"), private.sign(b"m", padding.PKCS1v15(), sha256)),
        "pss": (pss(), private.sign(b"m", padding.PSS(padding.MGF1(sha256), 32), sha256)),
        "pss long": (pss(salt=48), private.sign(b"m", padding.PSS(padding.MGF1(sha256), 48), sha256)),
    }
    public = restricted(parameters)
    assert {
        name for name, (by, value) in made.items() if verifies(parse_algorithm(by), value, b"m", public)
    } == verified
    assert all(verifies(parse_algorithm(by), value, b"m", spki(private)) for by, value in made.values())
