"""SignedData that is written here: read by OpenSSL, and looked at octet by octet."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from postseal.core.cms import signed_structures as cms
from postseal.core.cms.signing import SignatureScheme, Signer, Signing
from postseal.core.der import INTEGER, NULL, OCTET_STRING, OID, SEQUENCE, SET, Cursor, context, tlv
from postseal.core.errors import BadData
from support.pki import key
from support.signers import (
    AT,
    BRAINPOOL,
    CAPABILITIES,
    KINDS,
    PSS_KEYS,
    detached,
    issuing,
    leaf,
    opaque,
    openssl_verify,
    other_curve,
    signer,
    signing_root,
)

CONTENT = b"Content-Type: text/plain\r\n\r\nd\xc3\xbc \x00 signed\r\n" * 40
EVERY = [
    *((kind, "") for kind in (*KINDS, *BRAINPOOL, *PSS_KEYS)),
    ("rsa2048", "pss"),
    ("rsa3072", ""),
    ("rsa4096", "pss"),
]
# OpenSSL before 3.2 doesn't verify Ed25519 in CMS (RFC 8419), so the signature over the attributes is given to it alone.
BY_OPENSSL = [each for each in EVERY if each[0] != "ed25519"]


class Parts:
    """A SignedData taken apart with the strict reader of DER."""

    def __init__(self, der: bytes) -> None:
        outer = Cursor(der)
        info = outer.enter()
        outer.finish()
        assert info.oid() == cms.SIGNED_DATA
        explicit = info.enter(context(0))
        info.finish()
        data = explicit.enter()
        explicit.finish()
        self.version = data.integer()
        self.digest_algorithms = _elements(data, SET)
        encapsulated = data.enter()
        assert encapsulated.oid() == cms.DATA
        self.content = encapsulated.enter(context(0)).octets() if encapsulated.peek() != -1 else None
        self.certificates = _elements(data, context(0))
        self.signer_infos = _elements(data, SET)
        data.finish()

    def signer(self, number: int = 0) -> Info:
        return Info(self.signer_infos[number])


class Info:
    """One SignerInfo."""

    def __init__(self, der: bytes) -> None:
        body = Cursor(der).enter()
        self.version = body.integer()
        self.sid = body.raw(SEQUENCE)
        self.digest_algorithm = body.raw(SEQUENCE)
        attributes = _elements(body, context(0))
        self.signed = tlv(SET, *attributes)
        self.algorithm = body.raw(SEQUENCE)
        self.signature = body.octets()
        body.finish()
        self.attributes = {}
        for each in attributes:
            attribute = Cursor(each).enter()
            name = attribute.oid()
            self.attributes[name] = attribute.content(SET)
            attribute.finish()
        assert len(self.attributes) == len(attributes)


def _elements(cursor: Cursor, tag: int) -> list[bytes]:
    inside = cursor.enter(tag)
    found = [inside.data[e.start : e.end] for e in inside.children()]
    # X.690 §11.6
    assert found == sorted(found)
    return [bytes(each) for each in found]


@pytest.mark.parametrize(("kind", "scheme"), BY_OPENSSL)
def test_openssl_verifies_every_scheme_detached_and_opaque(tmp_path: Path, kind: str, scheme: str) -> None:
    made = signer(kind, scheme)
    done = openssl_verify(tmp_path, detached(CONTENT, made, chunk=7), CONTENT)
    assert (done.returncode, done.stdout) == (0, CONTENT), done.stderr
    assert openssl_verify(tmp_path, detached(CONTENT, made), CONTENT + b"x").returncode != 0
    done = openssl_verify(tmp_path, opaque(CONTENT, made))
    assert (done.returncode, done.stdout) == (0, CONTENT), done.stderr


@pytest.mark.parametrize("made", [detached, opaque])
def test_openssl_verifies_ed25519_over_the_attributes(tmp_path: Path, made: Callable[..., bytes]) -> None:
    """RFC 8419 §3.1: signed is the DER of the SET OF attributes, itself and not a hash of it."""
    info = Parts(made(CONTENT, signer("ed25519"))).signer()
    (tmp_path / "attributes").write_bytes(info.signed)
    (tmp_path / "signature").write_bytes(info.signature)
    (tmp_path / "crt").write_bytes(leaf("ed25519").pem)
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-certin", "-inkey", "crt"]
    command = [*verify, "-in", "attributes", "-sigfile", "signature"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False).returncode == 0
    (tmp_path / "attributes").write_bytes(info.signed + b"x")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False).returncode != 0


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 127, b"x" * 128, b"x" * 65536])
def test_content_of_any_length(tmp_path: Path, content: bytes) -> None:
    assert Parts(opaque(content, signer("p256"))).content == content
    done = openssl_verify(tmp_path, opaque(content, signer("p256")))
    assert (done.returncode, done.stdout) == (0, content), done.stderr


def test_several_signers_verify_and_share_what_they_can(tmp_path: Path) -> None:
    """RFC 5652 §5.1: one digest algorithm and one certificate each, though two signers have them in common."""
    signers = [signer("rsa2048"), signer("rsa2048", "pss", 1), signer("p384"), signer("ed25519")]
    without = signers[:3]
    assert openssl_verify(tmp_path, detached(CONTENT, *without), CONTENT).returncode == 0
    assert openssl_verify(tmp_path, opaque(CONTENT, *without)).returncode == 0
    for der in (detached(CONTENT, *signers), opaque(CONTENT, *signers)):
        parts = Parts(der)
        assert len(parts.signer_infos) == 4
        assert len(parts.certificates) == 5
        assert sorted(parts.digest_algorithms) == sorted(map(cms.digest_algorithm, ("sha256", "sha384", "sha512")))
    assert Signing(signers, AT).micalg == "sha-256,sha-384,sha-512"


@pytest.mark.parametrize(
    ("kind", "scheme", "hash_name"),
    [("rsa2048", "", "sha256"), ("rsa3072", "", "sha256"), ("rsa4096", "", "sha512"), ("rsa2048", "pss", "sha256"),
     ("p256", "", "sha256"), ("p384", "", "sha384"), ("p521", "", "sha512"), ("ed25519", "", "sha512"),
     ("brainpoolP256r1", "", "sha256"), ("brainpoolP384r1", "", "sha384"), ("brainpoolP512r1", "", "sha512"),
     ("rsa-pss", "", "sha256"), ("rsa-pss-sha384", "", "sha384")],
)  # fmt: skip
def test_the_digest_is_as_strong_as_the_key(kind: str, scheme: str, hash_name: str) -> None:
    """RFC 5754 §2: the identifier has no parameters. RFC 8419 §3.1: SHA-512 for Ed25519."""
    made = Parts(detached(CONTENT, signer(kind, scheme)))
    assert made.signer().digest_algorithm == cms.digest_algorithm(hash_name)
    assert made.digest_algorithms == [cms.digest_algorithm(hash_name)]
    assert made.signer().attributes[cms.MESSAGE_DIGEST] == tlv(OCTET_STRING, hashlib.new(hash_name, CONTENT).digest())
    assert Signing([signer(kind, scheme)], AT).micalg == hash_name.replace("sha", "sha-")


def test_versions_and_names() -> None:
    """RFC 5652 §5.1, §5.3: version 1 for data, X.509 certificates and issuerAndSerialNumber."""
    of = leaf("rsa2048").certificate
    parts = Parts(detached(CONTENT, signer("rsa2048")))
    assert (parts.version, parts.signer().version, parts.content) == (1, 1, None)
    sid = Cursor(parts.signer().sid).enter()
    assert (sid.raw(SEQUENCE), sid.integer()) == (of.issuer, of.serial)
    sid.finish()


def test_certificates_of_the_path_go_along_but_the_root() -> None:
    of = leaf("p256")
    chain = (issuing().certificate, signing_root().certificate)
    assert set(Parts(detached(b"", signer("p256"))).certificates) == {of.certificate.der, chain[0].der}
    with_root = Signer(of.certificate, of.key, chain=chain, with_root=True)
    assert set(Parts(detached(b"", with_root)).certificates) == {of.certificate.der, *(c.der for c in chain)}
    alone = signing_root()
    assert Parts(detached(b"", Signer(alone.certificate, alone.key))).certificates == [alone.certificate.der]


def test_algorithm_identifiers() -> None:
    """RFC 3370 §3.2: NULL for rsaEncryption; RFC 5758 §3.2 and RFC 8419 §2.1: no parameters."""
    wanted = {
        ("rsa2048", ""): cms.algorithm("1.2.840.113549.1.1.1", tlv(NULL)),
        ("p256", ""): cms.algorithm("1.2.840.10045.4.3.2"),
        ("p384", ""): cms.algorithm("1.2.840.10045.4.3.3"),
        ("p521", ""): cms.algorithm("1.2.840.10045.4.3.4"),
        ("ed25519", ""): cms.algorithm("1.3.101.112"),
    }
    for (kind, scheme), algorithm in wanted.items():
        assert Parts(detached(b"", signer(kind, scheme))).signer().algorithm == algorithm


@pytest.mark.parametrize(
    ("kind", "scheme", "hash_oid", "salt"),
    [("rsa2048", "pss", "2.16.840.1.101.3.4.2.1", 32), ("rsa4096", "pss", "2.16.840.1.101.3.4.2.3", 64),
     ("rsa-pss", "", "2.16.840.1.101.3.4.2.1", 32), ("rsa-pss-sha384", "", "2.16.840.1.101.3.4.2.2", 48)],
)  # fmt: skip
def test_parameters_of_pss_are_explicit(kind: str, scheme: str, hash_oid: str, salt: int) -> None:
    """RFC 4055 §3.1, RFC 4056 §3: hash, MGF1 with the same hash, salt as long as the hash; the trailer field is left out."""
    identifier = Cursor(Parts(detached(b"", signer(kind, scheme))).signer().algorithm).enter()
    assert identifier.oid() == "1.2.840.113549.1.1.10"
    parameters = identifier.enter()
    hash_ = parameters.enter(context(0)).raw(SEQUENCE)
    assert hash_ == cms.algorithm(hash_oid, tlv(NULL))
    mask = parameters.enter(context(1)).enter()
    assert (mask.oid(), mask.raw(SEQUENCE)) == ("1.2.840.113549.1.1.8", hash_)
    assert parameters.enter(context(2)).integer() == salt
    parameters.finish()


def test_signed_attributes() -> None:
    """RFC 5652 §11.1 to §11.3, RFC 8551 §2.5: one value each, and no attribute but these."""
    attributes = Parts(detached(CONTENT, signer("rsa2048"))).signer().attributes
    assert set(attributes) == {
        cms.CONTENT_TYPE, cms.MESSAGE_DIGEST, cms.SIGNING_TIME, cms.SMIME_CAPABILITIES, cms.SIGNING_CERTIFICATE_V2,
    }  # fmt: skip
    assert attributes[cms.CONTENT_TYPE] == cms.oid(cms.DATA)
    assert attributes[cms.SMIME_CAPABILITIES] == CAPABILITIES
    silent = Signing([signer("rsa2048")], AT)
    assert cms.SMIME_CAPABILITIES not in Parts(silent.finish()).signer().attributes


@pytest.mark.parametrize(
    ("at", "der"),
    [(datetime(2026, 11, 24, 1, 2, 3, 999999, UTC), b"\x17\x0d261124010203Z"),
     (datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x17\x0d491231235959Z"),
     (datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z"),
     (datetime(1950, 1, 1, tzinfo=UTC), b"\x17\x0d500101000000Z"),
     (datetime(1949, 12, 31, tzinfo=UTC), b"\x18\x0f19491231000000Z")],
)  # fmt: skip
def test_signing_time_is_utctime_until_2049(at: datetime, der: bytes) -> None:
    """RFC 8551 §2.5.1."""
    assert Parts(detached(b"", signer("p256"), at=at)).signer().attributes[cms.SIGNING_TIME] == der


def test_signing_certificate_names_the_certificate_with_sha256_left_out() -> None:
    """RFC 5035 §4: hashAlgorithm is SHA-256 by default, and DER leaves a default out."""
    of = leaf("p384").certificate
    value = Parts(detached(b"", signer("p384"))).signer().attributes[cms.SIGNING_CERTIFICATE_V2]
    identifiers = Cursor(value).enter().enter()
    identifier = identifiers.enter()
    identifiers.finish()
    assert identifier.octets() == hashlib.sha256(of.der).digest()
    issuer_serial = identifier.enter()
    identifier.finish()
    names = issuer_serial.enter()
    assert names.enter(context(4)).raw(SEQUENCE) == of.issuer
    names.finish()
    assert issuer_serial.integer() == of.serial


def test_encryption_key_preference_is_told_when_asked_for() -> None:
    """RFC 8551 §2.5.3: [0] issuerAndSerialNumber of the certificate to which answers are to be encrypted."""
    signing, encryption = leaf("p256"), leaf("rsa2048", 3)
    made = Signer(signing.certificate, signing.key, encryption=encryption.certificate)
    value = Cursor(Parts(detached(b"", made)).signer().attributes["1.2.840.113549.1.9.16.2.11"]).enter(context(0))
    assert value.raw(SEQUENCE) == encryption.certificate.issuer
    assert value.content(INTEGER) == encryption.certificate.serial.to_bytes(2, "big")
    value.finish()


def test_the_likeliest_length_of_ecdsa_is_met_every_time() -> None:
    """The head of opaque SignedData is written before the signature is there."""
    for kind in ("p256", "p384", "p521", *BRAINPOOL):
        made = signer(kind)
        assert {len(made.sign(b"%d" % n, made.signature_length)) for n in range(20)} == {made.signature_length}
        assert len({len(made.sign(b"%d" % n)) for n in range(40)}) > 1


def test_content_of_another_length_than_said_is_refused() -> None:
    signing = Signing([signer("rsa2048")], AT)
    signing.head(10)
    signing.update(b"123456789")
    with pytest.raises(BadData, match="hasn't the length that was said before"):
        signing.tail()


def test_keys_that_do_not_fit_are_one_sentence() -> None:
    of, other = leaf("rsa2048"), leaf("p256")
    with pytest.raises(BadData, match="isn't that of the certificate"):
        Signer(of.certificate, other.key)
    with pytest.raises(BadData, match="isn't that of the certificate"):
        Signer(of.certificate, leaf("rsa2048", 1).key)
    with pytest.raises(BadData, match="signs with ecdsa, not with pss"):
        Signer(other.certificate, other.key, SignatureScheme.PSS)
    bound = leaf("rsa-pss")
    with pytest.raises(BadData, match="signs with pss, not with pkcs1"):
        Signer(bound.certificate, bound.key, SignatureScheme.PKCS1)
    with pytest.raises(BadData, match="curve secp256k1"):
        Signer(*other_curve())
    with pytest.raises(BadData, match="a signer"):
        Signing([], AT)
    short = issuing().issue("a@example.test", kind="rsa1024", not_after=AT + timedelta(days=1000))
    with pytest.raises(BadData, match="RSA key of 1024 bits"):
        Signer(short.certificate, short.key)


def test_a_private_key_shows_in_no_text() -> None:
    made = signer("rsa2048")
    numbers = key("rsa2048", ("leaf", ("signer", 0))).private_numbers()
    assert isinstance(numbers, rsa.RSAPrivateNumbers)
    texts = repr(made) + repr(Signing([made], AT)) + str(made)
    assert str(numbers.d) not in texts
    assert "Certificate(" in texts


def test_curves_have_the_lengths_that_their_orders_give() -> None:
    """The table of likeliest lengths, worked out again from the orders of the curves."""
    for kind in ("p256", "p384", "p521", *BRAINPOOL):
        private = leaf(kind).key
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        order = private.curve.group_order
        parts: dict[int, float] = {}
        for octets in range(1, 80):
            low, high = (2 ** (8 * octets - 9) if octets > 1 else 0), 2 ** (8 * octets - 1)
            parts[octets] = (min(order, high) - min(order, low)) / order
        totals: dict[int, float] = {}
        for first, p in parts.items():
            for second, q in parts.items():
                inner = first + second + 4
                totals[inner + (2 if inner < 128 else 3)] = totals.get(inner + (2 if inner < 128 else 3), 0) + p * q
        assert max(totals, key=lambda length: totals[length]) == signer(kind).signature_length
        assert totals[signer(kind).signature_length] > 0.49


def test_an_oid_is_written_as_the_reader_reads_it() -> None:
    assert Cursor(cms.oid(cms.SIGNED_DATA)).raw(OID) == bytes.fromhex("06092a864886f70d010702")
