"""CompressedData: what OpenSSL makes opens, bombs don't go off, and nothing hides behind the end."""

from __future__ import annotations

import os
import subprocess
import zlib

import pytest
from cryptography.hazmat import asn1

from postseal.core.cms import structures as cms
from postseal.core.cms.compressed import InflationLimits, decompress, inflated
from postseal.core.errors import BadData
from support.bombs import tlv

ZLIB = bytes.fromhex("060b2a864886f70d0109100308")


def compressed(octets: bytes, algorithm: bytes = ZLIB) -> bytes:
    content = tlv(0x30, asn1.encode_der(cms.DATA) + tlv(0xA0, tlv(0x04, octets)))
    body = tlv(0x30, b"\x02\x01\x00" + tlv(0x30, algorithm) + content)
    return tlv(0x30, asn1.encode_der(cms.COMPRESSED_DATA) + tlv(0xA0, body))


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 700_000])
def test_compressed_content_comes_out_as_it_went_in(size: int) -> None:
    for content in (os.urandom(size), bytes(size)):
        der = compressed(zlib.compress(content))
        assert decompress(der) == content
        assert all(len(piece) <= 65536 for piece in inflated(der))


def test_openssl_takes_the_samples_for_compressed_data() -> None:
    """The samples of this module are what others take for CompressedData too; Debian's OpenSSL has no zlib to say more."""
    done = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-inform", "DER"],
        input=compressed(zlib.compress(b"hello")), capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert b"id-smime-ct-compressedData" in done.stdout
    assert b"zlib compression" in done.stdout


def test_ber_in_pieces_is_read() -> None:
    pieces = b"".join(tlv(0x04, bytes((octet,))) for octet in zlib.compress(b"hello" * 100))
    indefinite = b"\xa0\x80\x24\x80" + pieces + b"\0\0" * 2
    content = b"\x30\x80" + asn1.encode_der(cms.DATA) + indefinite + b"\0\0"
    body = b"\x30\x80\x02\x01\x00" + tlv(0x30, ZLIB) + content + b"\0\0"
    octets = b"\x30\x80" + asn1.encode_der(cms.COMPRESSED_DATA) + b"\xa0\x80" + body + b"\0\0" * 2
    assert decompress(octets) == b"hello" * 100


def test_a_bomb_does_not_go_off() -> None:
    """THR-4: 100 MB of blanks out of 100 KB; what has come out by then is no more than the cap."""
    bomb = compressed(zlib.compress(bytes(100_000_000), 9))
    assert len(bomb) < 110_000
    pieces = []
    with pytest.raises(BadData, match="would be more than"):
        pieces.extend(inflated(bomb))
    assert sum(map(len, pieces)) <= InflationLimits().most(len(bomb))
    with pytest.raises(BadData, match="more than 5000 octets"):
        decompress(compressed(zlib.compress(bytes(5001))), InflationLimits(octets=5000))
    assert len(decompress(compressed(zlib.compress(bytes(5000))), InflationLimits(octets=5000))) == 5000


def test_a_short_message_of_blanks_is_no_bomb() -> None:
    assert decompress(compressed(zlib.compress(b" " * 1_000_000))) == b" " * 1_000_000


def test_bombs_in_bombs_multiply_nothing() -> None:
    """THR-4: each layer alone grows within bounds; the limits of the message count for all of them together."""
    inner = compressed(zlib.compress(bytes(200_000_000), 9))
    outer = compressed(zlib.compress(compressed(zlib.compress(inner, 9))))
    limits = InflationLimits().within(len(outer))
    with pytest.raises(BadData, match="would be more than"):
        decompress(decompress(decompress(outer, limits), limits), limits)
    assert limits.most(10**9) == limits.octets == InflationLimits().most(len(outer))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (zlib.compress(b"hello") + b"secret", "after its end"),
        (zlib.compress(b"hello") + zlib.compress(b"more"), "after its end"),
        (zlib.compress(b"hello")[:-1], "cut off"),
        (zlib.compress(b"hello")[:-4] + bytes(4), "damaged"),
        (b"", "cut off"),
        (b"hello", "damaged"),
    ],
)
def test_damaged_content_is_refused(octets: bytes, why: str) -> None:
    with pytest.raises(BadData, match=why):
        decompress(compressed(octets))


def test_what_is_no_compressed_data_is_refused() -> None:
    good = compressed(zlib.compress(b"hello"))
    other = good.replace(asn1.encode_der(cms.COMPRESSED_DATA), asn1.encode_der(cms.AUTH_ENVELOPED_DATA))
    with pytest.raises(BadData, match="it is of type"):
        decompress(other)
    with pytest.raises(BadData, match="nobody knows"):
        decompress(compressed(zlib.compress(b"hello"), bytes.fromhex("06022a03")))
    with pytest.raises(BadData, match="after its end"):
        decompress(good + b"x")
    for octets in (b"", b"\x30\x80", good[:-1], good[:30]):
        with pytest.raises(BadData, match="not a"):
            decompress(octets)
