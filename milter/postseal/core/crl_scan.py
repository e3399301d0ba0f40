"""The one pass over the entries of a CRL: every entry is checked, and what finds it again is kept.

Entries of the usual shapes, in a large CRL nearly all of them, are checked many at a time by an expression that is made for the
shapes that this CRL has (``crl_shapes``); all others one at a time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from postseal.core.crl_entries import CERTIFICATE_ISSUER, MAX_EXTENSIONS, UNDERSTOOD, Entries, Scanned, key_of
from postseal.core.crl_shapes import Shape, expressions, shape_of
from postseal.core.der import (
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    BadDer,
    Cursor,
    Element,
    Octets,
    canonical_integer,
    extensions,
    header,
)
from postseal.core.distribution import parse_general_names

_MAX_ODD_SERIALS = 1000
_MAX_REMEMBERED = 4096
# Octets of a block, unless there would be too many blocks for two octets.
_BLOCK = 1024
_MAX_BLOCKS = 0xFFFF
# How often a shape must have been met for an expression to be made for it, and how many shapes one expression knows.
_WORTH_IT = 8
_MAX_SHAPES = 24
# Records in one sorted run: few enough for the processor's cache, which makes half of the time.
_RUN = 1 << 14


def scan(data: Octets, start: int, end: int) -> Scanned:
    """Check all entries between ``start`` and ``end``, and make them searchable. Raises BadDer."""
    walk = _Scan(data, start, end)
    walk.run()
    keys, blocks = walk.records.sorted()
    return Scanned(
        start, end, len(keys), walk.starts, keys, blocks, walk.marks, walk.odd > 0, walk.unknown_critical,
        walk.issuer_not_critical,
    )  # fmt: skip


def scanned_entries(data: Octets, start: int, end: int) -> Entries:
    """The entries of a list that is scanned now. Raises BadDer."""
    return Entries(data, scan(data, start, end))


class _Scan:
    """The one pass over all entries."""

    def __init__(self, data: Octets, start: int, end: int) -> None:
        self.data, self.start, self.end = data, start, end
        self.block = max(_BLOCK, (end - start) // (_MAX_BLOCKS - 1) + 1)
        self.starts = array("I")
        self.marks = array("I")
        self.odd = 0
        self.unknown_critical = ""
        self.issuer_not_critical = False
        self.records = _Records()
        self._issuer = b""
        self._shapes: list[Shape] = []
        self._met: dict[Shape, int] = {}
        self._checked: dict[bytes, bytes] = {}

    def run(self) -> None:
        data, end, at, limit = self.data, self.end, self.start, 0
        matches, keys_of = expressions(())
        add = self.records.add
        try:
            while at < end:
                if at >= limit:
                    limit = at + self.block
                    self.starts.append(at)
                    self.records.enter(len(self.starts) - 1)
                # An entry that begins before the limit may end behind it.
                found = matches.match(data, at, min(limit + 0x81, end)) if matches is not None else None
                if found is not None and found.end() > at:
                    stop = found.end()
                    add(keys_of.findall(data, at, stop))
                    at = stop
                    continue
                element = self._one(at)
                shape = shape_of(data, element)
                at = element.end
                if shape is not None and self._worth_it(shape):
                    matches, keys_of = expressions(tuple(sorted(self._shapes)))
        except IndexError:
            raise BadDer("the list of entries ends inside an entry") from None
        self.starts.append(end)

    def _worth_it(self, shape: Shape) -> bool:
        """Has this shape just become one that the expression shall know?"""
        if shape in self._shapes or len(self._shapes) >= _MAX_SHAPES:
            return False
        self._met[shape] = self._met.get(shape, 0) + 1
        if self._met[shape] < _WORTH_IT:
            return False
        self._shapes.append(shape)
        return True

    def _one(self, at: int) -> Element:
        """Check the entry at ``at``, whatever its shape, and record it."""
        data, end = self.data, self.end
        element = header(data, at, end)
        body, stop = element.body, element.end
        if element.tag != SEQUENCE:
            raise BadDer(f"an entry isn't a SEQUENCE at offset {at}")
        length = data[body + 1]
        if data[body] != INTEGER or not 0 < length < 0x80:
            raise BadDer(f"broken entry at offset {at}")
        serial = data[body + 2 : body + 2 + length]
        canonical = canonical_integer(serial)
        if canonical != serial:
            # CRL-16: old CAs wrote superfluous leading octets; such serials are compared in their canonical form.
            self.odd += 1
            if self.odd > _MAX_ODD_SERIALS:
                raise BadDer(f"more than {_MAX_ODD_SERIALS} serial numbers that aren't minimal")
        time_at = body + 2 + length
        after = time_at + 2 + data[time_at + 1]
        if data[time_at] not in (UTC_TIME, GENERALIZED_TIME) or after > stop:
            raise BadDer(f"an entry without a revocation date at offset {at}")
        if after != stop:
            self._check_extensions(at, after, stop)
        encoded = bytes((INTEGER, len(canonical))) + canonical
        self.records.add([key_of(encoded).to_bytes(4, "little")])
        return element

    def _check_extensions(self, at: int, after: int, stop: int) -> None:
        written = self.data[after:stop]
        issuer = self._checked.get(written)
        if issuer is None:
            issuer = self._read_extensions(written, after)
            if len(self._checked) < _MAX_REMEMBERED:
                self._checked[written] = issuer
        if issuer and issuer != self._issuer:
            self._issuer = issuer
            self.marks.append(at)

    def _read_extensions(self, written: bytes, at: int) -> bytes:
        """The value of certificateIssuer, if there is one."""
        try:
            wrapper = Cursor(written)
            found = extensions(wrapper.enter(), MAX_EXTENSIONS)
            wrapper.finish()
        except BadDer as exc:
            raise BadDer(f"the extensions of an entry at offset {at}: {exc}") from None
        # CRL-14, RFC 5280 §5.3: an unknown critical extension in any entry spoils the CRL for every certificate.
        if not self.unknown_critical:
            self.unknown_critical = next((e.oid for e in found.values() if e.critical and e.oid not in UNDERSTOOD), "")
        named = found.get(CERTIFICATE_ISSUER)
        if named is None:
            return b""
        parse_general_names(named.value)
        self.issuer_not_critical |= not named.critical
        return named.value


@dataclass(slots=True)
class _Records:
    """(key, block) pairs, sorted in runs. A pair is kept as the double 2^52 + key * 2^16 + block.

    Python sorts a list of floats several times as fast as one of integers or octets of that size, and up to 2^53 a double is
    exact. Its highest octets are then always 0x4330, so the doubles of a whole block come out of one join.
    """

    _flat: bytearray = field(default_factory=bytearray)
    _runs: list[array[float]] = field(default_factory=list)
    _between: bytes = b""
    _block: bytes = b""

    def enter(self, block: int) -> None:
        """What is added from now on is in this block."""
        self._block = block.to_bytes(2, "little")
        self._between = b"\x30\x43" + self._block

    def add(self, keys: Sequence[bytes]) -> None:
        self._flat += self._block + self._between.join(keys) + b"\x30\x43"
        if len(self._flat) >= _RUN * 8:
            self._flush()

    def _flush(self) -> None:
        doubles = array("d", bytes(self._flat))
        if _BIG_ENDIAN:
            doubles.byteswap()
        self._runs.append(array("d", sorted(doubles)))
        self._flat.clear()

    def sorted(self) -> tuple[array[int], array[int]]:
        """All keys in order, and the blocks that belong to them."""
        self._flush()
        keys, blocks = array("I"), array("H")
        for part in _merged(self._runs):
            doubles = array("d", part)
            if _BIG_ENDIAN:
                doubles.byteswap()
            written = doubles.tobytes()
            for target, at in ((keys, 2), (blocks, 0)):
                size = target.itemsize
                column = bytearray(len(part) * size)
                for octet in range(size):
                    column[octet::size] = written[at + octet :: 8]
                target.frombytes(column)
        if _BIG_ENDIAN:
            keys.byteswap()
            blocks.byteswap()
        return keys, blocks


_BIG_ENDIAN = array("H", b"\x00\x01")[0] == 1


def _merged(runs: Sequence[array[float]]) -> Iterable[list[float]]:
    """The values of sorted runs in order, in parts of about one run's size so that memory stays bounded."""
    total = sum(map(len, runs))
    if len(runs) == 1:
        return [list(runs[0])] if total else []
    sample = sorted(value for run in runs for value in run[:: max(1, _RUN // 64)])
    cuts = [sample[i] for i in range(0, len(sample), max(1, len(sample) * _RUN // total))][1:]
    return _parts(runs, cuts)


def _parts(runs: Sequence[array[float]], cuts: Sequence[float]) -> Iterator[list[float]]:
    ends = [0] * len(runs)
    for cut in (*cuts, float("inf")):
        begins, ends = ends, [bisect_left(run, cut) for run in runs]
        part: list[float] = []
        for run, begin, end in zip(runs, begins, ends, strict=True):
            part += run[begin:end]
        # Merging sorted pieces is what Python's sort does best.
        part.sort()
        if part:
            yield part
