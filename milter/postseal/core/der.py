"""A small strict reader for DER (ITU-T X.690 §8, §10, §11), and the few writers that postseal needs.

``Cursor`` walks over one buffer without copying: it knows where it is and where its element ends. Nothing here recurses:
depth is what the caller enters, and it is limited (THR-7). Everything that isn't DER raises BadDer.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, overload

from postseal.core.errors import BadData

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, ENUMERATED = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31

_MAX_DEPTH = 24
_MAX_ITEMS = 4096
_TIME_TEXT = {UTC_TIME: 13, GENERALIZED_TIME: 15}


class BadDer(BadData):
    """The bytes are not the DER that was expected; the text says what is wrong and at which offset."""


def context(number: int, constructed: bool = True) -> int:
    """The identifier octet of the context-specific tag ``[number]``, number below 31."""
    return 0x80 | (0x20 if constructed else 0) | number


class Octets(Protocol):
    """``bytes``, or what is used like it: a file that is mapped to memory."""

    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, part: slice, /) -> bytes: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def find(self, part: bytes, start: int, end: int, /) -> int: ...


class Element(NamedTuple):
    """One tag-length-value: the element is ``data[start:end]``, its content ``data[body:end]``."""

    tag: int
    start: int
    body: int
    end: int


def header(data: Octets, at: int, limit: int) -> Element:
    """The element that begins at ``at`` and must end at or before ``limit``. Definite, minimal lengths only."""
    if at + 2 > limit:
        raise BadDer(f"the data ends inside an element at offset {at}")
    tag, length, body = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise BadDer(f"tag numbers above 30 are not used here (offset {at})")
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 4 or body + octets > limit:
            raise BadDer(f"indefinite or oversized length at offset {at}")
        length = int.from_bytes(data[body : body + octets], "big")
        # X.690 §10.1: the length has the fewest octets that can hold it.
        if length < 0x80 or length >> (8 * (octets - 1)) == 0:
            raise BadDer(f"length isn't minimal at offset {at}")
        body += octets
    if body + length > limit:
        raise BadDer(f"an element at offset {at} is longer than what holds it")
    return Element(tag, at, body, body + length)


class Cursor:
    """A place in a buffer. ``take`` and ``enter`` go forward; ``finish`` insists that nothing is left."""

    __slots__ = ("at", "data", "depth", "end")

    def __init__(self, data: Octets, at: int = 0, end: int | None = None, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise BadDer(f"nested deeper than {_MAX_DEPTH} levels")
        self.data, self.at, self.depth = data, at, depth
        self.end = len(data) if end is None else end

    def peek(self) -> int:
        """The next identifier octet, or -1 at the end."""
        return self.data[self.at] if self.at < self.end else -1

    def take(self, tag: int | None = None) -> Element:
        """The next element, which must have ``tag`` unless that is None."""
        element = header(self.data, self.at, self.end)
        if tag is not None and element.tag != tag:
            raise BadDer(f"expected tag 0x{tag:02x}, found 0x{element.tag:02x} at offset {self.at}")
        self.at = element.end
        return element

    def content(self, tag: int) -> bytes:
        """The content octets of the next element."""
        element = self.take(tag)
        return bytes(self.data[element.body : element.end])

    def raw(self, tag: int | None = None) -> bytes:
        """The next element with its header."""
        element = self.take(tag)
        return bytes(self.data[element.start : element.end])

    def enter(self, tag: int = SEQUENCE) -> Cursor:
        """A cursor over the content of the next element; this one goes on behind it."""
        return self.inside(self.take(tag))

    def inside(self, element: Element) -> Cursor:
        return Cursor(self.data, element.body, element.end, self.depth + 1)

    def children(self, tag: int | None = None, limit: int = _MAX_ITEMS) -> list[Element]:
        """All remaining elements, at most ``limit``."""
        found: list[Element] = []
        while self.at < self.end:
            if len(found) >= limit:
                raise BadDer(f"more than {limit} elements in one list")
            found.append(self.take(tag))
        return found

    def finish(self) -> None:
        if self.at != self.end:
            raise BadDer(f"unexpected data at offset {self.at}")

    def boolean(self) -> bool:
        content = self.content(BOOLEAN)
        if content not in (b"\x00", b"\xff"):  # X.690 §11.1
            raise BadDer("a BOOLEAN is neither 00 nor FF")
        return content == b"\xff"

    def integer(self, max_octets: int = 21) -> int:
        return int.from_bytes(_minimal(self.content(INTEGER), max_octets), "big", signed=True)

    def enumerated(self) -> int:
        return int.from_bytes(_minimal(self.content(ENUMERATED), 4), "big", signed=True)

    def oid(self) -> str:
        return oid_text(self.content(OID))

    def octets(self) -> bytes:
        return self.content(OCTET_STRING)

    def bits(self) -> bytes:
        """The octets of a BIT STRING that has no unused bits, as signatures and keys are."""
        content = self.content(BIT_STRING)
        if not content or content[0] != 0:
            raise BadDer("a BIT STRING of whole octets is expected")
        return content[1:]

    def time(self) -> datetime:
        """UTCTime or GeneralizedTime in the forms of RFC 5280 §4.1.2.5, aware UTC."""
        element = self.take()
        return time_value(element.tag, bytes(self.data[element.body : element.end]))


def _minimal(content: bytes, max_octets: int) -> bytes:
    if not content or len(content) > max_octets:
        raise BadDer(f"an INTEGER has {len(content)} octets; 1 to {max_octets} are allowed")
    if canonical_integer(content) != content:
        raise BadDer("an INTEGER isn't minimal")  # X.690 §8.3.2
    return content


def canonical_integer(content: bytes) -> bytes:
    """The content octets of an INTEGER without superfluous leading octets."""
    while len(content) > 1 and ((content[0] == 0 and content[1] < 0x80) or (content[0] == 0xFF and content[1] > 0x7F)):
        content = content[1:]
    return content


def oid_text(content: bytes) -> str:
    """Content octets of an OBJECT IDENTIFIER as dotted decimal."""
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise BadDer("broken OBJECT IDENTIFIER")
    arcs: list[int] = []
    value, fresh = 0, True
    for octet in content:
        if fresh and octet == 0x80:
            raise BadDer("broken OBJECT IDENTIFIER")
        value, fresh = value << 7 | octet & 0x7F, not octet & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def time_value(tag: int, content: bytes) -> datetime:
    """RFC 5280 §4.1.2.5: always with seconds and Z, no fractions; two-digit years from 50 on are 19xx."""
    digits = content[:-1]
    if len(content) != _TIME_TEXT.get(tag) or content[-1] != 0x5A or not digits.isdigit():
        raise BadDer("a time isn't UTCTime YYMMDDHHMMSSZ or GeneralizedTime YYYYMMDDHHMMSSZ")
    text = digits.decode("ascii")
    if tag == UTC_TIME:
        text = f"{'19' if text >= '5' else '20'}{text}"
    # Newer versions of Python read the hour 24 as the next day's beginning.
    if text[8:10] > "23":
        raise BadDer("a time doesn't exist: there is no such hour")
    try:
        # The fastest way there is: a look-up in a CRL spends much of its time here.
        return datetime.fromisoformat(f"{text[:8]}T{text[8:]}Z")
    except ValueError as exc:
        raise BadDer(f"a time doesn't exist: {exc}") from None


class Extension(NamedTuple):
    """One X.509 extension: dotted OID, criticality, content of its OCTET STRING."""

    oid: str
    critical: bool
    value: bytes


def extensions(cursor: Cursor, limit: int = 64) -> dict[str, Extension]:
    """Extensions ::= SEQUENCE OF Extension, ``cursor`` being inside the SEQUENCE. No OID twice (RFC 5280 §4.2)."""
    found: dict[str, Extension] = {}
    for element in cursor.children(SEQUENCE, limit):
        item = cursor.inside(element)
        oid = item.oid()
        # X.690 §11.5 forbids an encoded DEFAULT FALSE, real CAs write it all the same and it is harmless.
        critical = item.boolean() if item.peek() == BOOLEAN else False
        value = item.octets()
        item.finish()
        if oid in found:
            raise BadDer(f"extension {oid} occurs twice")
        found[oid] = Extension(oid, critical, value)
    return found


def tlv(tag: int, *parts: bytes) -> bytes:
    """An element around ``parts``."""
    size = sum(map(len, parts))
    if size < 0x80:
        return b"".join((bytes((tag, size)), *parts))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return b"".join((bytes((tag, 0x80 | len(octets))), octets, *parts))


def integer_content(value: int) -> bytes:
    """The canonical content octets of an INTEGER."""
    magnitude = value if value >= 0 else ~value
    return value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def oid_content(dotted: str) -> bytes:
    """The content octets of an OBJECT IDENTIFIER."""
    arcs = [int(arc) for arc in dotted.split(".")]
    out = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        out += bytes(reversed(septets))
    return bytes(out)


FAR_FUTURE = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)


def later(moment: datetime, span: timedelta) -> datetime:
    """``moment + span``, held at the end of the calendar instead of failing there (nextUpdate 99991231235959Z is real)."""
    return moment + span if moment < FAR_FUTURE - span else FAR_FUTURE
