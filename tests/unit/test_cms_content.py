"""Content in pieces: never joined, bounded in their number, and the same octets whatever they are read from."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from postseal.core.cms.ber import MAX_DEPTH, Content, Walk
from postseal.core.cms.parse import parse_enveloped
from postseal.core.errors import BadData

HEAD = bytes.fromhex("3080 06092a864886f70d010703 a080 3080 020100")


def content_of(octets: bytes) -> Content:
    walk = Walk(octets)
    found = walk.content(0x80)
    assert walk.peek() == -1
    return found


def octet_string(value: bytes) -> bytes:
    return b"\x04\x83" + len(value).to_bytes(3, "big") + value


def in_pieces(value: bytes, *cuts: int) -> bytes:
    edges = [0, *cuts, len(value)]
    return b"\xa0\x80" + b"".join(octet_string(value[start:end]) for start, end in pairwise(edges)) + b"\0\0"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
@pytest.mark.parametrize("cuts", [(), (0,), (1, 2, 3), (1000, 70_000, 70_001), tuple(range(0, 300_000, 4096))])
def test_content_is_the_same_however_it_was_cut(size: int, cuts: tuple[int, ...]) -> None:
    value = os.urandom(size)
    content = content_of(in_pieces(value, *(cut for cut in cuts if cut <= size)))
    pieces = [bytes(piece) for piece in content]
    assert b"".join(pieces) == bytes(content) == value
    assert len(content) == size
    assert all(0 < len(piece) <= 65536 for piece in pieces)
    # The cipher is called with few large pieces, also when a writer cut small ones.
    assert len(pieces) <= size // 65536 + 2
    for count in (0, 1, 16, 32, 5000, size + 1):
        assert content.last(count) == value[max(0, size - count) :]


def test_content_of_one_piece_is_not_copied() -> None:
    octets = b"\x80\x83\x01\x11\x70" + bytes(70_000)
    first, second = content_of(octets)
    assert isinstance(first, memoryview)
    assert first.obj is octets
    assert (len(first), len(second)) == (65536, 70_000 - 65536)


def test_pieces_of_pieces_are_read_as_deep_as_anything() -> None:
    """X.690 §8.7.3: the pieces of a constructed OCTET STRING may be constructed themselves."""
    nested = b"\xa0\x80" + b"\x24\x80" * 10 + octet_string(b"a") + b"\x24\x04\x04\x01b\x04" + b"\x01c"
    assert bytes(content_of(b"\xa0\x80\x24\x06\x04\x01a\x04\x01b\x24\x80\x04\x01c\0\0\0\0")) == b"abc"
    with pytest.raises(BadData, match="cut off"):
        content_of(nested)
    with pytest.raises(BadData, match="deep"):
        content_of(b"\xa0\x80" + b"\x24\x80" * (MAX_DEPTH + 1) + b"\0\0" * (MAX_DEPTH + 2))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        ("a080 020101 0000", "something else"),
        ("a080 0401aa", "cut off"),
        ("a003 0402aa", "cut off"),
        ("8080 0401aa 0000", "indefinite"),
        ("a080 2403 020101 0000", "something else"),
        ("0401aa", "expected"),
    ],
)
def test_broken_content_is_refused(octets: str, why: str) -> None:
    with pytest.raises(BadData, match=why):
        content_of(bytes.fromhex(octets))


@pytest.mark.parametrize("piece", [b"\x04\x00", b"\x04\x01x", b"\x24\x80\x00\x00", b"\x24\x80"])
def test_content_in_crumbs_is_refused(piece: bytes) -> None:
    """T-15: a message of one-octet pieces costs its reader a hundred times its length."""
    with pytest.raises(BadData, match=r"pieces|elements|deep"):
        content_of(b"\xa0\x80" + piece * 2_000_000 + b"\0\0" * 2_000_000)


def test_a_message_of_many_honest_pieces_is_read() -> None:
    """What ``openssl -stream`` makes of 400 MB are 100 000 pieces; here they are of 400 octets."""
    assert len(content_of(b"\xa0\x80" + octet_string(bytes(400)) * 100_000 + b"\0\0")) == 40_000_000


@pytest.mark.parametrize("value", [b"\x31\x80" + b"\x30\x80" * 10_000, b"\x31\x80" + b"\x05\x00" * 1_000_000])
def test_bombs_around_the_content_are_refused(value: bytes) -> None:
    """T-15: nesting 10 000 deep, and more elements than anybody has recipients."""
    with pytest.raises(BadData, match=r"deep|elements"):
        parse_enveloped(HEAD + value)


def test_the_number_of_recipients_is_known_before_anything_is_made_of_them() -> None:
    """T-15: 4 MB of tiny recipients are counted, not parsed."""
    tiny = bytes.fromhex("300c 020100 8000 3003 06012a 0400")
    many = tiny * 200_000
    with pytest.raises(BadData, match="more than 2000 recipients"):
        parse_enveloped(HEAD + b"\x31\x84" + len(many).to_bytes(4, "big") + many)
    huge = b"\x31\x84" + (5_000_000).to_bytes(4, "big") + bytes(5_000_000)
    with pytest.raises(BadData, match="a part of more than"):
        parse_enveloped(HEAD + huge)
    with pytest.raises(BadData, match="no recipients"):
        parse_enveloped(HEAD + b"\x31\x00" + bytes(20))
