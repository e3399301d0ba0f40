"""BER as strangers write it: taken apart without joining the content, or made DER; bounded in depth, elements and time (T-15).

OpenSSL with ``-stream`` and Thunderbird write indefinite lengths and OCTET STRINGs in pieces (X.690 §8.1.3.6, §8.7.3).
``Walk`` steps through the few outer values of a CMS object and hands out its content as pieces of the input. ``to_der`` makes
DER of what is small, with a stack of its own, so that nesting can't exhaust Python's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import NoReturn

from postseal.core.cms.structures import header
from postseal.core.der import Octets
from postseal.core.errors import BadData

MAX_DEPTH = 32
# Half a second of work for somebody who writes elements of nothing.
MAX_ELEMENTS = 200_000
# What stands around the content: 2000 recipients with long names are 1 MB.
MAX_PART = 4 * 1024 * 1024
# A SET is joined and sorted on each level that it is nested: that costs a copy of it.
_MAX_SET = 16 * 1024 * 1024
# Pieces of content: writers make them of 1 KB to 64 KB. So many small ones are free; beyond them the average counts.
FREE_PIECES = 65_536
LEAST_AVERAGE = 256

_OCTET_STRING = 0x04
_SET = 0x31
_CONSTRUCTED = 0x20
# By identifier: a value shorter than this is DER as it stands. What is constructed is if it is empty, a string isn't even then;
# end-of-contents (X.690 §8.1.5) and tag numbers over 30 are none at all.
_SHORT = bytes(
    0 if tag in (0, _OCTET_STRING | _CONSTRUCTED) or tag & 0x1F == 0x1F else 1 if tag & _CONSTRUCTED else 0x80
    for tag in range(256)
)
# How much content is handed out at once: what the second-level cache of the processor holds.
_CHUNK = 65536


def _refuse(why: str) -> NoReturn:
    raise BadData(f"not a CMS message: {why}")


def _header(octets: Octets | memoryview, position: int, limit: int) -> tuple[int, int | None, int]:
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
        # X.690 §8.1.3.5: BER lets a length have more octets than it needs.
        count = first & 0x7F
        if count > 8 or position + count > limit:
            _refuse("a length that can't be")
        length = int.from_bytes(octets[position : position + count], "big")
        position += count
    if length is not None and position + length > limit:
        _refuse("it is cut off")
    return tag, length, position


class Content:
    """The value of an OCTET STRING in the pieces in which it came, never joined: ``len`` is that of all of it."""

    __slots__ = ("_edges", "_length", "_octets")

    def __init__(self, octets: Octets, edges: array[int]) -> None:
        self._octets = octets
        self._edges = edges
        self._length = sum(edges[1::2]) - sum(edges[::2])

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The value from its beginning, some 64 KB at a time."""
        octets, edges = self._octets, self._edges
        source: Octets | memoryview = memoryview(octets) if isinstance(octets, bytes) else octets
        held: list[bytes | memoryview] = []
        size = 0
        for at in range(0, len(edges), 2):
            start, end = edges[at], edges[at + 1]
            while end - start + size > _CHUNK:
                middle = start + _CHUNK - size
                yield b"".join((*held, source[start:middle])) if held else source[start:middle]
                held, size, start = [], 0, middle
            if end > start:
                held.append(source[start:end])
                size += end - start
        if held:
            yield b"".join(held) if len(held) > 1 else held[0]

    def __bytes__(self) -> bytes:
        return b"".join(self)

    def last(self, count: int) -> bytes:
        """The last ``count`` octets, or all when there are fewer."""
        found: list[bytes] = []
        edges = self._edges
        for at in range(len(edges) - 2, -1, -2):
            if count <= 0:
                break
            start = max(edges[at], edges[at + 1] - count)
            found.append(bytes(self._octets[start : edges[at + 1]]))
            count -= edges[at + 1] - start
        return b"".join(reversed(found))


class Walk:
    """Goes through one BER value from the outside: ``enter`` and ``leave`` constructed values, take what is small as DER.

    Raises BadData for everything that isn't as the caller expects it.
    """

    __slots__ = ("_budget", "_octets", "_open", "position")

    def __init__(self, octets: Octets) -> None:
        self._octets = octets
        self.position = 0
        self._budget = MAX_ELEMENTS
        # (end or None for an indefinite length, nearest end that is known) of each value that was entered.
        self._open: list[tuple[int | None, int]] = [(len(octets), len(octets))]

    def peek(self) -> int:
        """The next identifier octet; -1 at the end of the value that was entered last."""
        end, limit = self._open[-1]
        if end is not None:
            return -1 if self.position == end else self._octets[self.position]
        if self.position + 2 > limit:
            _refuse("it is cut off")
        # X.690 §8.1.5: end-of-contents closes the innermost value of indefinite length.
        tag = self._octets[self.position]
        return -1 if tag == 0 and self._octets[self.position + 1] == 0 else tag

    def _next(self, *tags: int) -> tuple[int, int | None, int]:
        found = self.peek()
        if found not in tags:
            wanted = " or ".join(f"0x{tag:02x}" for tag in tags)
            _refuse(f"tag {wanted} is expected, " + ("but there is nothing" if found < 0 else f"not 0x{found:02x}"))
        return _header(self._octets, self.position, self._open[-1][1])

    def enter(self, tag: int) -> None:
        _, length, body = self._next(tag)
        end = None if length is None else body + length
        self._open.append((end, self._open[-1][1] if end is None else end))
        self.position = body

    def leave(self) -> None:
        """Out of the value that was entered last, of which nothing may be left."""
        if self.peek() >= 0:
            _refuse("there is something that doesn't belong there")
        if self._open.pop()[0] is None:
            self.position += 2

    def rest(self) -> bytes:
        """What follows the outermost value, at most 64 octets of it."""
        return bytes(self._octets[self.position : min(self.position + 64, len(self._octets))])

    def part(self, *tags: int) -> bytes:
        """The next value, whole: as it stands when its own length is definite, else as DER."""
        _, length, body = self._next(*tags)
        start, limit = self.position, self._open[-1][1]
        if length is not None:
            if length > MAX_PART:
                _refuse(f"a part of more than {MAX_PART} octets around the content")
            self.position = body + length
            return bytes(self._octets[start : self.position])
        window = bytes(self._octets[start : min(limit, start + MAX_PART)])
        der, used, self._budget = _one_value(window, self._budget)
        self.position += used
        return der

    def skip(self) -> None:
        """Over the next value, whatever it is. What has a definite length isn't looked into."""
        tag = self.peek()
        _, length, body = self._next(tag if tag >= 0 else 0x30)
        if length is not None:
            self.position = body + length
            return
        octets = self._octets
        _, used, self._budget = _one_value(memoryview(octets)[self.position :], self._budget)
        self.position += used

    def content(self, primitive: int) -> Content:
        """The next value, an OCTET STRING in one piece or many, tagged ``primitive`` (constructed: 0x20 more)."""
        tag, length, body = self._next(primitive, primitive | _CONSTRUCTED)
        octets, edges = self._octets, array("Q")
        if not tag & _CONSTRUCTED:
            self.position = body + (length or 0)
            edges.extend((body, self.position))
            return Content(octets, edges)
        self.enter(tag)
        depth = len(self._open) - 1
        end, limit = self._open[-1]
        position = self.position
        most = 2 * (FREE_PIECES + len(octets) // LEAST_AVERAGE)
        while True:
            if position == end or (end is None and octets[position : position + 2] == b"\x00\x00"):
                self.position = position
                self.leave()
                if len(self._open) == depth:
                    return Content(octets, edges)
                position = self.position
                end, limit = self._open[-1]
                continue
            tag, length, body = _header(octets, position, limit)
            if tag == _OCTET_STRING and length is not None:
                position = body + length
                edges.append(body)
                edges.append(position)
                if len(edges) > most:
                    _refuse("content in too many pieces")
                continue
            # X.690 §8.7.3.2: the pieces of a constructed OCTET STRING are OCTET STRINGs, which may be in pieces again.
            if tag != _OCTET_STRING | _CONSTRUCTED:
                _refuse("an OCTET STRING holds something else")
            self._budget -= 1
            if len(self._open) > MAX_DEPTH or self._budget < 0:
                _refuse(f"nested more than {MAX_DEPTH} deep, or too many elements")
            self.position = position
            self.enter(tag)
            position = body
            end, limit = self._open[-1]


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
        if self.tag == _SET and len(self.starts) > 1:
            if self.length > _MAX_SET:
                _refuse(f"a SET of more than {_MAX_SET} octets")
            children: list[bytes] = (
                [*map(bytes, self.pieces)] if len(self.starts) == len(self.pieces) else self._children()
            )
            # X.690 §11.6: the elements of a SET OF come in the order of their octets.
            return _SET, [b"".join(sorted(children))], self.length
        return self.tag, self.pieces, self.length

    def _children(self) -> list[bytes]:
        return [b"".join(self.pieces[start:end]) for start, end in pairwise([*self.starts, len(self.pieces)])]

    def short_values(self, octets: bytes | memoryview, position: int, limit: int, budget: int) -> tuple[int, int]:
        """Takes the values that come next and are DER already: primitive ones of up to 127 octets, and empty ones.

        Returns where the first other thing is, and what is left of the number of elements. Octets in small pieces are copied:
        a view takes five times as much memory.
        """
        tag, pieces, first = self.tag, self.pieces, position
        if tag == _OCTET_STRING | _CONSTRUCTED:
            while (
                position + 1 < limit and octets[position] == _OCTET_STRING and (length := octets[position + 1]) < 0x80
            ):
                start, position = position + 2, position + 2 + length
                if position > limit or budget <= 0:
                    return start - 2, budget
                pieces.append(octets[start:position])
                self.length += length
                budget -= 1
            return position, budget
        while position + 1 < limit and (length := octets[position + 1]) < _SHORT[octets[position]]:
            end = position + 2 + length
            if end > limit or budget <= 0:
                break
            if tag == _SET:
                self.starts.append(len(pieces))
                pieces.append(octets[position:end])
            position = end
            budget -= 1
        if position > first:
            if tag != _SET:
                pieces.append(octets[first:position])
            self.length += position - first
        return position, budget


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
    der, used, _ = _one_value(octets, MAX_ELEMENTS)
    if used != len(octets):
        _refuse("there is something after its end")
    return der


def _one_value(octets: bytes | memoryview, budget: int) -> tuple[bytes, int, int]:
    """(the first value in ``octets`` as DER, how many octets it has there, what is left of the number of elements)."""
    view = memoryview(octets)
    root = _Frame(0, None)
    stack = [root]
    limits = [len(octets)]
    position = 0
    while True:
        frame = stack[-1]
        while len(stack) > 1 and (
            # X.690 §8.1.5: end-of-contents closes the innermost value of indefinite length.
            frame.end == position or (frame.end is None and bytes(view[position : position + 2]) == b"\x00\x00")
        ):
            position += 2 if frame.end is None else 0
            stack.pop()
            limits.pop()
            stack[-1].add(*frame.close())
            frame = stack[-1]
        if root.pieces:
            return b"".join(root.pieces), position, budget
        if 1 < len(stack) <= MAX_DEPTH:
            at = position
            position, budget = frame.short_values(octets, at, limits[-1], budget)
            if position > at:
                continue
        budget -= 1
        if budget < 0:
            _refuse(f"more than {MAX_ELEMENTS} elements")
        tag, length, position = _header(view, position, limits[-1])
        if tag & _CONSTRUCTED:
            if len(stack) > MAX_DEPTH:
                _refuse(f"nested more than {MAX_DEPTH} deep")
            stack.append(_Frame(tag, None if length is None else position + length))
            limits.append(limits[-1] if length is None else position + length)
        elif length is not None:
            frame.add(tag, [view[position : position + length]], length)
            position += length
