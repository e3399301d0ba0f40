"""T-15, THR-7: what means to exhaust a reader of signed mail ends within half a second and 300 MB."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from postseal.core.cms.multipart import split_signed
from postseal.core.cms.signed_reader import MAX_SIGNERS, object_type, parse_signed
from postseal.core.cms.verifying import SignerAccount, State, check_signers, cover
from postseal.core.message import Field
from support.arms_length import bounded
from support.bombs import SIGNED_BOMBS, signed, tlv
from support.pki import NOW, key

ACCEPTED = {"digest algorithms", "certificates", "issuer's name"}


def accounts(octets: bytes) -> Sequence[SignerAccount]:
    found = parse_signed(octets)
    return check_signers(found, cover(found, None if found.content is not None else [b"x"]))


@pytest.mark.parametrize("name", SIGNED_BOMBS)
def test_a_bomb_ends_soon_and_in_little_memory(name: str) -> None:
    """T-15. What is refused says so; what is skipped over (names, certificates nobody uses) makes no signature good."""
    bomb = SIGNED_BOMBS[name]()

    def read() -> None:
        assert not any(each.state is State.INTACT for each in accounts(bomb))

    assert bool(bounded(read).refused) != (name in ACCEPTED)
    bounded(lambda: object_type(bomb))


@cache
def large_certificates() -> list[bytes]:
    """Certificates of one issuer and serial number and many large keys, none of which made the signature."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bomb")])
    own = key("rsa2048")
    made = []
    for n in range(100):
        # A modulus of 16384 bits, the most that the crypto library takes, and the largest exponent for it.
        numbers = rsa.RSAPublicNumbers(2**64 - 59 - 2 * n, (1 << 16383) + 2 * n + 1)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(numbers.public_key())
            .serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=9))
        )  # fmt: skip
        made.append(builder.sign(own, hashes.SHA256()).public_bytes(Encoding.DER))
    return made


def test_large_keys_of_many_candidates_cost_little() -> None:
    """THR-7: 16 signers, as many as are read, each with a hundred certificates of 16384 bits to be tried."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bomb")]).public_bytes()
    rid = tlv(0x30, name, b"\x02\x01\x01")
    content = tlv(0xA0, tlv(4, b"x"))
    octets = signed(
        content=content, certificates=tlv(0xA0, *large_certificates()),
        signers=b"".join(_resized(rid) for _ in range(MAX_SIGNERS)),
    )  # fmt: skip

    def read() -> None:
        found = accounts(octets)
        assert len(found) == MAX_SIGNERS
        assert not any(each.state is State.INTACT for each in found)

    assert bounded(read).refused == ""


def _resized(rid: bytes) -> bytes:
    sha256 = tlv(0x30, bytes.fromhex("0609608648016503040201"))
    rsa_sha256 = tlv(0x30, bytes.fromhex("06092a864886f70d01010b0500"))
    return tlv(0x30, b"\x02\x01\x01", rid, sha256, rsa_sha256, tlv(4, b"\x01" * 2048))


HEAD = b'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary='
PART = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n"
DASHES = b"-" * 70


def clear_signed(signature: bytes) -> bytes:
    return b"--b\r\n\r\nx\r\n--b\r\n" + PART + signature + b"\r\n--b--\r\n"


BODIES: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "no boundary": (b"b", lambda: b"x\r\n" * 3_000_000),
    "nearly boundaries": (b"b", lambda: b"--b-\r\n" * 1_500_000),
    "boundaries": (b"b", lambda: b"--b\r\n" * 2_000_000),
    "hyphens": (DASHES, lambda: b"-" * 10_000_000),
    "lines of hyphens": (DASHES, lambda: (b"-" * 75 + b"\r\n") * 130_000),
    "line ends": (b"b", lambda: b"\r\n" * 5_000_000),
    "bare CR": (b"b", lambda: b"\r" * 10_000_000),
    "blanks behind the boundary": (b"b", lambda: b"--b" + b" " * 10_000_000 + b"\r\n"),
    "header of the signature part": (b"b", lambda: b"--b\r\n\r\n--b\r\n" + b"X: y\r\n" * 1_500_000 + b"\r\n\r\n--b--"),
    "folded header": (b"b", lambda: b"--b\r\n\r\n--b\r\nX: y\r\n" + b" z\r\n" * 2_000_000 + b"\r\n--b--"),
    "base64 of nothing": (b"b", lambda: clear_signed(b"=" * 10_000_000)),
    "base64 of a bomb": (b"b", lambda: clear_signed(base64.encodebytes(SIGNED_BOMBS["tiny pieces"]()))),
    "PEM blocks": (b"b", lambda: clear_signed(base64.encodebytes(b"-----BEGIN PKCS7-----\n" * 300_000))),
    "PEM without an end": (b"b", lambda: clear_signed(base64.encodebytes(b"-----BEGIN PKCS7-----" + b"\n" * 7_000_000))),
    "much after the end": (b"b", lambda: clear_signed(b"MAA=") + b"--b\r\n" * 2_000_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_no_multipart_takes_long(name: str) -> None:
    """THR-7: nothing is quadratic in the size of a body, whatever its lines look like."""
    boundary, made = BODIES[name]
    body = made()
    fields = (Field(b"Content-Type", b" " + HEAD + b'"' + boundary + b'"'),)

    def read() -> None:
        parts = split_signed(fields, body)
        found = parse_signed(parts.signature)
        check_signers(found, cover(found, [parts.covered]))

    assert bounded(read).refused
