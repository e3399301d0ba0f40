"""The transfer encoding of a sealed body: whichever way is taken, base64 is decoded strictly (RFC 2045 §6.8)."""

from __future__ import annotations

import base64
import binascii
import random

import pybase64
import pytest

from postseal.core.cms.armour import decode_body
from postseal.core.message import Field

_FIELDS = (Field(b"Content-Transfer-Encoding", b" base64"),)


def in_lines(data: bytes, length: int, last: bytes = b"\r\n") -> bytes:
    text = base64.b64encode(data)
    return b"\r\n".join(text[start : start + length] for start in range(0, len(text), length)) + last


def strict(body: bytes) -> bytes | None:
    """What a decoder gives that knows nothing of lines."""
    try:
        return pybase64.b64decode(body.translate(None, b" \t\r\n"), validate=True)
    except binascii.Error:
        return None


@pytest.mark.parametrize("length", [4, 60, 64, 76, 1000])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 114, 5000])
@pytest.mark.parametrize("last", [b"", b"\r\n", b"\r\n\r\n"])
def test_lines_of_any_length_are_decoded(length: int, size: int, last: bytes) -> None:
    data = random.Random(size).randbytes(size)
    assert decode_body(_FIELDS, in_lines(data, length, last)) == data


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"\r\nA", b"\r\n!"), (b"A", b"\0"), (b"\r\n", b"*\r\n"), (b"AA\r\n", b"==\r\n"), (b"A", b""), (b"==", b"=")],
)
def test_what_is_no_base64_is_not_skipped(old: bytes, new: bytes) -> None:
    """What hides between the characters of a sealed body isn't part of it, so the body is damaged."""
    body = in_lines(bytes(400), 76)
    assert old in body
    assert decode_body(_FIELDS, body.replace(old, new, 1)) is None


def test_whatever_is_done_to_the_lines_the_octets_are_those_of_a_strict_decoder() -> None:
    """RFC 2045 §6.8: white space doesn't count, and everything else does."""
    chance = random.Random(4)
    accepted = 0
    for _ in range(5000):
        data = chance.randbytes(chance.choice((1, 57, 58, 114, 200)))
        body = bytearray(in_lines(data, chance.choice((4, 64, 76)), chance.choice((b"", b"\r\n"))))
        for _ in range(chance.randrange(3)):
            at = chance.randrange(len(body))
            body[at : at + chance.randrange(2)] = chance.choice((b"", b"=", b"\r", b"\n", b" ", b"A", b"-", b"\r\n"))
        found = decode_body(_FIELDS, bytes(body))
        assert found == strict(bytes(body))
        accepted += found == data
    assert accepted > 1500
