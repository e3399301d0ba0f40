"""Look-up in the list of revoked certificates of a CRL of any size.

``crl_scan`` walks over the list once. What it keeps of an entry is six octets: the last four of its serial number's encoding,
and in which block of about two kilobytes it is, sorted. A look-up bisects these, then searches the block, and a hit counts only
where an entry's serial number is. So nothing is trusted to be unique, and the entries stay where they are, in the CRL.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from postseal.core.der import (
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    BadDer,
    Cursor,
    Octets,
    canonical_integer,
    extensions,
    header,
)
from postseal.core.distribution import parse_general_names

REASON, HOLD_INSTRUCTION, INVALIDITY, CERTIFICATE_ISSUER = "2.5.29.21", "2.5.29.23", "2.5.29.24", "2.5.29.29"
UNDERSTOOD = frozenset({REASON, HOLD_INSTRUCTION, INVALIDITY, CERTIFICATE_ISSUER})
MAX_EXTENSIONS = 16
_SLICE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is known about the entries between ``start`` and ``end`` of a CRL. Arrays may be views of a file.

    ``starts`` are the offsets of the blocks and ``end``; ``keys`` (sorted) and ``blocks`` are parallel; ``marks`` are the
    offsets of entries from which on another issuer holds (RFC 5280 §5.3.3).
    """

    start: int
    end: int
    count: int
    starts: Sequence[int]
    keys: Sequence[int]
    blocks: Sequence[int]
    marks: Sequence[int]
    odd: bool = False
    """Are there serial numbers that aren't minimal (CRL-16)?"""
    unknown_critical: str = ""
    issuer_not_critical: bool = False


class Entries:
    """Look-up of serial numbers in the CRL ``data``."""

    __slots__ = ("_data", "_scanned")

    def __init__(self, data: Octets, scanned: Scanned) -> None:
        self._data = data
        self._scanned = scanned

    @property
    def scanned(self) -> Scanned:
        return self._scanned

    def offsets(self, serial: bytes) -> Sequence[int]:
        """Where the entries of a serial number begin, in their order; ``serial`` is canonical content of an INTEGER."""
        if not 0 < len(serial) < 0x80:
            return ()
        try:
            return self._bisected(serial)
        except (IndexError, BadDer):
            # An index that doesn't fit its CRL, by whatever accident, must not hide an entry.
            return RawEntries(self._data, self._scanned.start, self._scanned.end).offsets(serial)

    def _bisected(self, serial: bytes) -> Sequence[int]:
        known = self._scanned
        encoded = b"\x02%c%b" % (len(serial), serial)
        key, keys = key_of(encoded), known.keys
        at, count = bisect_left(keys, key), len(keys)
        found: list[int] = []
        last = -1
        while at < count and keys[at] == key:
            block = known.blocks[at]
            at += 1
            if block != last:
                start, end = known.starts[block], known.starts[block + 1]
                found += self._walked(serial, start, end) if known.odd else self._found(encoded, start, end)
                last = block
        return found

    def _found(self, encoded: bytes, start: int, end: int) -> list[int]:
        block, at = self._data[start:end], 0
        matches: list[int] = []
        found = block.find(encoded)
        while found >= 0:
            # Only where an entry's serial number is: go there from the block's beginning.
            stop = at
            while stop <= found:
                at = stop
                size = block[at + 1]
                stop = at + 2 + size if size < 0x80 else header(block, at, len(block)).end
            if found == at + 2 or header(block, at, len(block)).body == found:
                matches.append(start + at)
            found = block.find(encoded, found + 1)
        return matches

    def _walked(self, serial: bytes, start: int, end: int) -> list[int]:
        block, at = self._data[start:end], 0
        matches: list[int] = []
        while at < len(block):
            entry = header(block, at, len(block))
            if canonical_integer(Cursor(block, entry.body, entry.end).content(INTEGER)) == serial:
                matches.append(start + at)
            at = entry.end
        return matches

    @property
    def count(self) -> int:
        return self._scanned.count

    @property
    def unknown_critical(self) -> str:
        """CRL-14: dotted OID of a critical extension in any entry that isn't understood; empty when there is none."""
        return self._scanned.unknown_critical

    @property
    def carries_others(self) -> bool:
        """Does any entry name an issuer (CRL-15)?"""
        return bool(self._scanned.marks)

    @property
    def issuer_not_critical(self) -> bool:
        """CRL-15: is an issuer named in an extension that isn't critical, as RFC 5280 §5.3.3 demands?"""
        return self._scanned.issuer_not_critical

    def issuers_of(self, at: int) -> tuple[bytes, ...] | None:
        """The issuers (DER Names) of the entry at offset ``at``; None: the CRL's own.

        RFC 5280 §5.3.3: the first entries are the CRL issuer's; an issuer that is named holds until the next is.
        """
        group = bisect_right(self._scanned.marks, at) - 1
        if group < 0:
            return None
        entry = Cursor(self._data, self._scanned.marks[group], self._scanned.end).enter()
        entry.take(INTEGER)
        entry.take()
        return parse_general_names(extensions(entry.enter(), MAX_EXTENSIONS)[CERTIFICATE_ISSUER].value)


class RawEntries:
    """Look-up in a large CRL of which nothing but the signature was looked at, until there is an index.

    Correct because DER has one encoding for each value: what isn't found as octets isn't there.
    """

    __slots__ = ("_data", "_end", "_start")

    count = 0
    unknown_critical = ""
    carries_others = False
    issuer_not_critical = False

    def __init__(self, data: Octets, start: int, end: int) -> None:
        self._data, self._start, self._end = data, start, end

    def offsets(self, serial: bytes) -> Sequence[int]:
        """As ``Entries.offsets``."""
        if not 0 < len(serial) < 0x80:
            return ()
        # A short number occurs everywhere; in an entry the tag of the date follows it.
        tails = (b"",) if len(serial) >= 4 else (bytes((UTC_TIME,)), bytes((GENERALIZED_TIME,)))
        places = [at for tail in tails for at in _places(self._data, serial + tail, self._start, self._end)]
        return sorted(start for at in places if (start := self._start_of(at, serial)) >= 0)

    def issuers_of(self, at: int) -> None:
        """As ``Entries.issuers_of``."""

    def _start_of(self, at: int, serial: bytes) -> int:
        """The beginning of the entry whose serial number has what is at ``at`` as the end of its content, or -1."""
        data, end = self._data, at + len(serial)
        # CRL-16: superfluous octets, if any, are all like the sign.
        lowest = at if data[at - 1] not in (0x00, 0xFF) else max(at - 0x80, self._start)
        for body in range(at, lowest - 1, -1):
            if (
                data[body - 2 : body] != bytes((INTEGER, min(end - body, 0x7F)))
                or canonical_integer(data[body:end]) != serial
            ):
                continue
            for start in range(body - 4, max(body - 9, self._start - 1), -1):
                if data[start] == SEQUENCE and self._begins(start, body - 2):
                    return start
        return -1

    def _begins(self, start: int, body: int) -> bool:
        try:
            return header(self._data, start, self._end).body == body
        except BadDer:
            return False


def raw_entries(data: Octets, start: int, end: int) -> RawEntries | None:
    """For a first answer before the list is scanned; None when only a scan can tell what the entries mean."""
    # CRL-14, CRL-15: BOOLEAN TRUE before an OCTET STRING is a critical extension; then the OID of certificateIssuer.
    for sign in (b"\x01\x01\xff\x04", b"\x06\x03\x55\x1d\x1d"):
        if next(_places(data, sign, start, end), -1) >= 0:
            return None
    return RawEntries(data, start, end)


def _places(data: Octets, pattern: bytes, start: int, end: int) -> Iterator[int]:
    """All places of ``pattern``, sought in slices so that other threads have their turn."""
    for low in range(start, end, _SLICE):
        high = min(low + _SLICE + len(pattern) - 1, end)
        found = data.find(pattern, low, high)
        while found >= 0:
            yield found
            found = data.find(pattern, found + 1, high)


def key_of(encoded: bytes) -> int:
    """The key of an INTEGER in DER: its last four octets."""
    return int.from_bytes(encoded[-4:], "little")


AnyEntries = Entries | RawEntries
Reader = Callable[[Octets, int, int], AnyEntries]
"""Makes the entries of a list that lies between two offsets. Raises BadDer."""


def indexed(scanned: Scanned) -> Reader:
    """The entries as an index has them."""

    def read(data: Octets, start: int, end: int) -> Entries:
        if (scanned.start, scanned.end) != (start, end):
            raise BadDer("the index is that of another CRL")
        return Entries(data, scanned)

    return read
