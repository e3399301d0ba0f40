"""BER to DER, as far as CMS needs it, bounded in depth, elements and time (X.690 §8.1.3.6, §8.7.3, §11.6).

OpenSSL with ``-stream`` and Thunderbird write indefinite lengths and OCTET STRINGs in pieces. The walker has a stack of its
own, so that nesting can't exhaust Python's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NoReturn

from postseal.core.cms.structures import header
from postseal.core.errors import BadData

MAX_DEPTH = 32
# OpenSSL's pieces are 4 KB: this is 800 MB of content, and half a second of work for somebody who writes pieces of nothing.
MAX_ELEMENTS = 200_000

_OCTET_STRING = 0x04
_SET = 0x31
_CONSTRUCTED = 0x20


class _Frame:
    """A constructed value that is still open. ``end`` is None for an indefinite length."""

    __slots__ = ("end", "length", "pieces", "starts", "tag")

    def __init__(self, tag: int, end: int | None) -> None:
        self.tag = tag
        self.end = end
        self.pieces: list[bytes | memoryview] = []
        self.starts: list[int] = []
        self.length = 0

    def add(self, tag: int, pieces: list[bytes | memoryview], length: int) -> None:
        """A complete child: its value in pieces."""
        if self.tag == _OCTET_STRING | _CONSTRUCTED:
            # X.690 §8.7.3.2: the pieces of a constructed OCTET STRING are OCTET STRINGs; only their values count.
            if tag != _OCTET_STRING:
                _refuse("an OCTET STRING holds something else")
            self.pieces += pieces
            self.length += length
            return
        if self.tag == _SET:
            self.starts.append(len(self.pieces))
        head = header(tag, length)
        self.pieces.append(head)
        self.pieces += pieces
        self.length += len(head) + length

    def close(self) -> tuple[int, list[bytes | memoryview], int]:
        """(tag, value in pieces, its length) in DER."""
        if self.tag == _OCTET_STRING | _CONSTRUCTED:
            return _OCTET_STRING, self.pieces, self.length
        if self.tag == _SET:
            edges = pairwise([*self.starts, len(self.pieces)])
            children = [b"".join(self.pieces[start:end]) for start, end in edges]
            # X.690 §11.6: the elements of a SET OF come in the order of their octets.
            return _SET, [b"".join(sorted(children))], self.length
        return self.tag, self.pieces, self.length


def _refuse(why: str) -> NoReturn:
    raise BadData(f"not a CMS message: {why}")


def _header(octets: bytes, position: int, limit: int) -> tuple[int, int | None, int]:
    """(tag, length or None for indefinite, where the value begins). ``limit`` is the end of what encloses it."""
    if position + 2 > limit:
        _refuse("it is cut off")
    tag, first = octets[position], octets[position + 1]
    position += 2
    if tag & 0x1F == 0x1F:
        _refuse("a tag number over 30")
    if first < 0x80:
        length: int | None = first
    elif first == 0x80:
        if not tag & _CONSTRUCTED:
            _refuse("a primitive value of indefinite length")
        return tag, None, position
    else:
        count = first & 0x7F
        if count > 8 or position + count > limit:
            _refuse("a length that can't be")
        length = int.from_bytes(octets[position : position + count], "big")
        position += count
    if length is not None and position + length > limit:
        _refuse("it is cut off")
    return tag, length, position


def check_bounds(der: bytes) -> None:
    """Raises BadData for DER that is nested too deep or has too many elements, whatever the parser would make of it.

    Types that a structure keeps as they are (names, parameters, attributes) are walked too: somebody takes them apart later.
    Raises ValueError for what is no DER.
    """
    ends = [len(der)]
    position = 0
    for _ in range(MAX_ELEMENTS):
        while position == ends[-1]:
            ends.pop()
            if not ends:
                return
        try:
            tag, length, position = _header(der, position, ends[-1])
        except BadData as exc:
            raise ValueError(str(exc)) from exc
        if length is None:
            raise ValueError("an indefinite length")
        if tag & _CONSTRUCTED:
            if len(ends) > MAX_DEPTH:
                _refuse(f"nested more than {MAX_DEPTH} deep")
            ends.append(position + length)
        else:
            position += length
    _refuse(f"more than {MAX_ELEMENTS} elements")


def to_der(octets: bytes) -> bytes:
    """One BER value -> the same with definite lengths, whole OCTET STRINGs and sorted SETs. Raises BadData.

    Trailing octets are refused. Primitive values are copied as they are.
    """
    if not octets:
        _refuse("it is cut off")
    view = memoryview(octets)
    root = _Frame(0, len(octets))
    stack = [root]
    limits = [len(octets)]
    position = 0
    for _ in range(MAX_ELEMENTS):
        frame = stack[-1]
        while frame.end == position:
            if len(stack) == 1:
                return b"".join(root.pieces)
            stack.pop()
            limits.pop()
            stack[-1].add(*frame.close())
            frame = stack[-1]
        if frame is root and root.pieces:
            _refuse("there is something after its end")
        if frame.end is None and octets[position : position + 2] == b"\x00\x00":
            # X.690 §8.1.5: end-of-contents closes the innermost value of indefinite length.
            position += 2
            stack.pop()
            limits.pop()
            stack[-1].add(*frame.close())
            continue
        tag, length, position = _header(octets, position, limits[-1])
        if tag & _CONSTRUCTED:
            if len(stack) > MAX_DEPTH:
                _refuse(f"nested more than {MAX_DEPTH} deep")
            stack.append(_Frame(tag, None if length is None else position + length))
            limits.append(limits[-1] if length is None else position + length)
        elif length is not None:
            frame.add(tag, [view[position : position + length]], length)
            position += length
    _refuse(f"more than {MAX_ELEMENTS} elements")
