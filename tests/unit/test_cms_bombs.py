"""T-15, THR-7: what means to exhaust a reader of CMS is refused within half a second and 300 MB."""

from __future__ import annotations

import base64
import zlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postseal.app.cms_inspect import inspect
from postseal.app.cms_layers import Opening as OpenMessage
from postseal.app.cms_layers import open_message
from postseal.app.verify import Request
from postseal.core.cms.armour import decode_body
from postseal.core.cms.ber import MAX_DEPTH, check_bounds, to_der
from postseal.core.cms.classify import classify
from postseal.core.cms.compressed import decompress
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.errors import BadData
from postseal.core.message import Field
from postseal.core.policy import Protection
from support.arms_length import bounded
from support.bombs import (
    CBC,
    COMPRESSED,
    DATA,
    ENVELOPED_BOMBS,
    RID,
    auth_enveloped,
    enveloped,
    key_agreement,
    key_transport,
    nested,
    tlv,
)
from support.cms import recipient
from support.pki import NOW

FIELDS = (Field(b"Content-Type", b" application/pkcs7-mime"), Field(b"Content-Transfer-Encoding", b" base64"))


def claimed_only(octets: bytes) -> None:
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    assert classify(FIELDS, body) is not Protection.ENCRYPTED


@pytest.mark.parametrize("name", ENVELOPED_BOMBS)
def test_a_bomb_is_refused_soon_and_in_little_memory(name: str) -> None:
    """T-15: nesting 10,000 deep in every place, lengths that can't be, pieces of nothing, millions of elements."""
    bomb = ENVELOPED_BOMBS[name]()
    reader = recipient()
    for read in (
        lambda: parse_enveloped(bomb),
        lambda: inspect(bomb),
        lambda: open_enveloped(bomb, reader.key, reader.certificate),
    ):
        assert bounded(read).refused
    account = bounded(lambda: claimed_only(bomb))
    assert account.refused == ""
    bounded(lambda: to_der(bomb))


def test_bounds_let_through_what_is_within_them() -> None:
    check_bounds(nested(MAX_DEPTH))
    to_der(nested(MAX_DEPTH))
    with pytest.raises(BadData, match=f"nested more than {MAX_DEPTH} deep"):
        check_bounds(nested(MAX_DEPTH + 1))
    parse_enveloped(enveloped(tlv(0x31, key_transport() * 2000)))
    with pytest.raises(BadData, match="it has more than 2000 recipients"):
        parse_enveloped(enveloped(tlv(0x31, key_transport() * 2001)))
    for damaged in (b"\x30", b"\x30\x05\x04", b"\x30\x80\0\0", b"\x1f\x81\x01\0"):
        with pytest.raises(ValueError):
            check_bounds(damaged)


@pytest.mark.parametrize("length", [0, 1, 16, 255, 257, 100_000])
def test_an_rsa_ciphertext_of_the_wrong_length_is_like_any_other_failure(length: int) -> None:
    """ALG-6: no exception of the crypto library comes through, whatever the length."""
    octets = auth_enveloped(infos=tlv(0x31, key_transport(key=length)))
    account = bounded(lambda: open_enveloped(octets, recipient().key))
    assert account.refused.startswith("the message can't be decrypted")


@pytest.mark.parametrize(
    "body",
    [
        b"=" * 10_000_000,
        b"=\r" * 5_000_000,
        b"=\r\n" * 3_000_000,
        b" \t" * 5_000_000,
        b"QUJD\r\n" * 1_500_000 + b"!",
        b"QQ==" * 2_000_000,
        b"-----BEGIN CMS-----" + b"\n" * 2_000_000 + b"QUJD" * 500_000,
        b"-----BEGIN CMS-----" + b" " * 2_000_000 + b"\n" + b"QUJD" * 500_000,
    ],
    ids=["pads", "soft ends without LF", "soft ends", "blanks", "lines and a bad end", "many ends", "PEM", "PEM line"],
)
@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable", b"7bit"])
def test_no_transfer_encoding_takes_long(body: bytes, encoding: bytes) -> None:
    """THR-7: nothing is quadratic in the size of a body."""
    fields = (FIELDS[0], Field(b"Content-Transfer-Encoding", b" " + encoding))
    assert bounded(lambda: decode_body(fields, body)).refused == ""
    assert bounded(lambda: classify(fields, body)).refused == ""


@pytest.mark.parametrize("piece", [b"AA=", b"QQ==", b"QUI=\r\n"])
def test_padding_everywhere_does_not_take_long_to_open(piece: bytes) -> None:
    """THR-7: opening lets padding pass where one encoding ends and another begins, not millions of times."""
    body = piece * (24_000_000 // len(piece))
    assert bounded(lambda: decode_body(FIELDS, body, lenient=True)).refused == ""
    few = b"QUJDQUJDQUJDQUI=\r\n" * 100_000
    assert decode_body(FIELDS, few, lenient=True) == b"ABCABCABCAB" * 100_000


@pytest.mark.parametrize(
    "value",
    [
        b' application/pkcs7-mime; name="' + b"\\" * 60_000,
        b" application/pkcs7-mime" + b"; a" * 20_000,
        b" application/pkcs7-mime" + b'; a="b"' * 9_000,
        b" application/pkcs7-mime" + b"(" * 60_000,
        b" application/pkcs7-mime" + b"; name*0*=x" * 6_000,
        b" " * 65_000 + b"application/pkcs7-mime",
        b" multipart/signed; boundary=" + b"-" * 60_000,
    ],
    ids=["quotes", "parameters", "quoted parameters", "comments", "continuations", "blanks", "boundary"],
)
def test_no_header_field_takes_long(value: bytes) -> None:
    """THR-7: nothing is quadratic in the size of a header field."""
    message = b"Content-Type:" + value + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n"
    bounded(lambda: inspect(message))
    bounded(lambda: classify((Field(b"Content-Type", value),), b"QUJD"))


@pytest.mark.parametrize("size", [32, 8_000_000])
def test_many_recipients_cost_no_more_than_a_few(size: int) -> None:
    """T-15: 2000 infos that somebody made up, none of which holds a key for this content."""
    infos = tlv(0x31, key_transport() * 2000)
    # One wrong key in 256 gives padding that looks right, so with CBC there may be content of noise.
    bounded(lambda: open_enveloped(enveloped(infos, tlv(0x80, bytes(size))), recipient().key))
    account = bounded(lambda: open_enveloped(auth_enveloped(infos=infos, content=bytes(size // 8)), recipient().key))
    assert account.refused.startswith("the message can't be decrypted")


@pytest.mark.parametrize("kind", ["p256", "p521"])
def test_many_agreed_keys_cost_no_more_than_a_few(kind: str) -> None:
    """T-15: thousands of keys behind a good point, or behind as many: each would take an agreement."""
    leaf = recipient(kind)
    point = leaf.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    one = tlv(0x30, RID, tlv(4, bytes(40)))
    for infos in (key_agreement(one, point) * 2000, key_agreement(one * 8000, point)):
        account = bounded(lambda infos=infos: open_enveloped(auth_enveloped(infos=tlv(0x31, infos)), leaf.key))  # type: ignore[misc]
        assert account.refused.startswith("the message can't be decrypted")


def test_a_password_recipient_costs_no_derivation() -> None:
    """T-15: PBKDF2 with two thousand million rounds, which nobody computes: no password is ever asked for."""
    prf = tlv(0x30, bytes.fromhex("06082a864886f70d0209"), b"\x05\0")
    derivation = tlv(0x04, bytes(8)), tlv(2, b"\x7f\xff\xff\xff"), prf
    pbkdf2 = tlv(0xA0, bytes.fromhex("06092a864886f70d01050c"), tlv(0x30, *derivation))
    wrap = tlv(0x30, bytes.fromhex("060b2a864886f70d0109100309"), CBC)
    infos = tlv(0x31, tlv(0xA3, b"\x02\x01\0", pbkdf2, wrap, tlv(4, bytes(64))))
    octets = auth_enveloped(infos=infos)
    assert bounded(lambda: inspect(octets)).refused == ""
    for kind in ("rsa2048", "p256"):
        account = bounded(lambda kind=kind: open_enveloped(octets, recipient(kind).key))  # type: ignore[misc]
        assert account.refused.startswith("the message can't be decrypted")


def compressed(content: bytes) -> bytes:
    return compressed_stream(zlib.compress(content, 9))


def compressed_stream(stream: bytes) -> bytes:
    zlib_algorithm = tlv(0x30, bytes.fromhex("060b2a864886f70d0109100308"))
    encapsulated = tlv(0x30, DATA, tlv(0xA0, tlv(4, stream)))
    return tlv(0x30, COMPRESSED, tlv(0xA0, tlv(0x30, b"\x02\x01\0", zlib_algorithm, encapsulated)))


def as_message(octets: bytes) -> bytes:
    header = (
        b"Content-Type: application/pkcs7-mime; smime-type=compressed-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    return header + base64.encodebytes(octets).replace(b"\n", b"\r\n")


def endless(count: int) -> bytes:
    """``count`` megabytes of nothing, compressed without ever being there: one block, again and again, and no end."""
    packer = zlib.compressobj(9)
    stream = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return stream[:2] + stream[2:] * count


def test_a_compression_bomb_goes_off_outside() -> None:
    """T-15, THR-4: two gigabytes in two megabytes, a bomb in a bomb, and one whose end is missing."""
    layers = OpenMessage(Request(()), NOW)
    bomb = compressed_stream(endless(2000))
    inside = as_message(compressed(as_message(compressed_stream(endless(300)))))
    cut = compressed_stream(zlib.compress(bytes(50_000_000), 9)[:-1000])
    for octets in (bomb, as_message(bomb), inside, cut):
        account = bounded(lambda octets=octets: open_message(octets, layers))  # type: ignore[misc]
        assert account.refused
    for octets in (bomb, cut):
        assert bounded(lambda octets=octets: decompress(octets)).refused  # type: ignore[misc]


def test_layers_without_an_end_are_refused() -> None:
    """T-15: as many layers as there can be in a message of megabytes, and one more than is read."""
    message = b"Content-Type: text/plain\r\n\r\n" + b"x" * 76 + b"\r\n"
    for _ in range(9):
        message = as_message(compressed(message))
    account = bounded(lambda: open_message(message, OpenMessage(Request(()), NOW)))
    assert "more than 8 layers" in account.refused
