"""A cursor over BER that copies nothing: values of 25 MB are found, not moved (X.690 §8.1.3.6, §8.7).

What comes along with a message, such as certificates, keeps its octets; ``core.cms.ber`` writes it anew instead. Each value of
indefinite length is searched for its end once, and nothing here recurses.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from postseal.core.cms.ber import FREE_PIECES, LEAST_AVERAGE
from postseal.core.der import OCTET_STRING
from postseal.core.errors import BadData

MAX_DEPTH = 32
# OpenSSL's pieces are 4 KB: this is 800 MB of content.
MAX_ELEMENTS = 200_000
_CONSTRUCTED = 0x20


class Part(NamedTuple):
    """One value: its content is ``data[body:end]``, what comes next begins at ``stop``, behind end-of-contents octets."""

    tag: int
    start: int
    body: int
    end: int
    stop: int


def refuse(why: str) -> NoReturn:
    raise BadData(f"not a CMS message: {why}")


class _Walk:
    """The octets, and what is known of them: where values of indefinite length end, and how many may still be looked at."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = MAX_ELEMENTS
        self._ends: dict[int, int] = {}

    def part(self, at: int, limit: int) -> Part:
        tag, length, body = self._header(at, limit)
        if length is not None:
            return Part(tag, at, body, body + length, body + length)
        if body not in self._ends:
            self._find_ends(body, limit)
        end = self._ends[body]
        return Part(tag, at, body, end, end + 2)

    def _find_ends(self, body: int, limit: int) -> None:
        """X.690 §8.1.5: the end-of-contents octets of the value at ``body``, and of those of indefinite length in it."""
        data, pending, at = self.data, [body], body
        while pending:
            if at + 2 <= limit and data[at] == 0 and data[at + 1] == 0:
                self._ends[pending.pop()] = at
                at += 2
                continue
            _, length, inner = self._header(at, limit)
            if length is not None:
                at = inner + length
                continue
            if len(pending) >= MAX_DEPTH:
                refuse(f"nested more than {MAX_DEPTH} deep")
            pending.append(inner)
            at = inner

    def _header(self, at: int, limit: int) -> tuple[int, int | None, int]:
        """(tag, length or None for indefinite, where the content begins)."""
        self.left -= 1
        if self.left < 0:
            refuse(f"more than {MAX_ELEMENTS} elements")
        if at + 2 > limit:
            refuse("it is cut off")
        tag, first = self.data[at], self.data[at + 1]
        at += 2
        if tag & 0x1F == 0x1F:
            refuse("a tag number over 30")
        if first == 0x80:
            if not tag & _CONSTRUCTED:
                refuse("a primitive value of indefinite length")
            return tag, None, at
        length = first
        if first > 0x80:
            count = first & 0x7F
            if count > 8 or at + count > limit:
                refuse("a length that can't be")
            length = int.from_bytes(self.data[at : at + count], "big")
            at += count
        if at + length > limit:
            refuse("it is cut off")
        return tag, length, at


class BerCursor:
    """A place in a buffer, as ``core.der.Cursor`` is one in DER."""

    __slots__ = ("_walk", "at", "end")

    def __init__(self, walk: _Walk, at: int, end: int) -> None:
        self._walk, self.at, self.end = walk, at, end

    @classmethod
    def over(cls, octets: bytes | memoryview) -> BerCursor:
        return cls(_Walk(memoryview(octets)), 0, len(octets))

    def peek(self) -> int:
        """The next identifier octet, or -1 at the end."""
        return self._walk.data[self.at] if self.at < self.end else -1

    def take(self, tag: int | None = None) -> Part:
        """The next value, which must have ``tag`` unless that is None."""
        part = self._walk.part(self.at, self.end)
        if tag is not None and part.tag != tag:
            refuse(f"expected tag 0x{tag:02x}, found 0x{part.tag:02x} at offset {self.at}")
        self.at = part.stop
        return part

    def enter(self, tag: int) -> BerCursor:
        """A cursor over the content of the next value; this one goes on behind it."""
        return self.inside(self.take(tag))

    def inside(self, part: Part) -> BerCursor:
        return BerCursor(self._walk, part.body, part.end)

    def children(self, limit: int, what: str) -> list[Part]:
        """All remaining values, at most ``limit``; ``what`` they are, for people."""
        found: list[Part] = []
        while self.at < self.end:
            if len(found) >= limit:
                refuse(f"it has more than {limit} {what}")
            found.append(self.take())
        return found

    def finish(self) -> None:
        if self.at != self.end:
            refuse("there is something after its end")

    def raw(self, part: Part) -> memoryview:
        """The value with its header, as it was received."""
        return self._walk.data[part.start : part.stop]

    def content(self, part: Part) -> memoryview:
        return self._walk.data[part.body : part.end]

    def _short_pieces(self, pieces: list[memoryview], most: int) -> None:
        """Takes the pieces of an OCTET STRING that come next, as far as each has a length of one octet."""
        walk, at, end = self._walk, self.at, self.end
        data, left = walk.data, walk.left
        while at + 1 < end and data[at] == OCTET_STRING and (length := data[at + 1]) < 0x80 and left > 0:
            if len(pieces) > most:
                refuse("content in too many pieces")
            body, stop = at + 2, at + 2 + length
            if stop > end:
                break
            pieces.append(data[body:stop])
            at = stop
            left -= 1
        self.at, walk.left = at, left

    def octets(self, part: Part) -> tuple[memoryview, ...]:
        """X.690 §8.7.3: what an OCTET STRING holds, whole or in pieces, in views of the buffer."""
        if part.tag & ~_CONSTRUCTED != OCTET_STRING:
            refuse("an OCTET STRING is something else")
        pieces: list[memoryview] = []
        most = FREE_PIECES + (part.end - part.body) // LEAST_AVERAGE
        open_strings = [self.inside(part)] if part.tag & _CONSTRUCTED else []
        if not open_strings:
            return (self.content(part),)
        while open_strings:
            cursor = open_strings[-1]
            cursor._short_pieces(pieces, most)
            if cursor.peek() == -1:
                open_strings.pop()
                continue
            piece = cursor.take()
            if piece.tag & ~_CONSTRUCTED != OCTET_STRING:
                refuse("an OCTET STRING holds something else")
            if len(pieces) > most:
                refuse("content in too many pieces")
            if not piece.tag & _CONSTRUCTED:
                pieces.append(self.content(piece))
            elif len(open_strings) >= MAX_DEPTH:
                refuse(f"nested more than {MAX_DEPTH} deep")
            else:
                open_strings.append(self.inside(piece))
        return tuple(pieces)
