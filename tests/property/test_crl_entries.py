"""The scan and the look-up of CRL entries agree with a plain loop over the list, for lists of every odd kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core import crl_scan
from postseal.core.crl_entries import Entries, RawEntries, raw_entries
from postseal.core.crl_scan import scan
from postseal.core.der import BadDer, canonical_integer
from support.evidence import (
    UNKNOWN_OID,
    certificate_issuer,
    entry,
    invalidity,
    node,
    oid,
    reason,
    seq,
)
from support.pki import NOW

NAMES = [seq(node(0x31, seq(oid("2.5.4.3"), node(0x0C, name)))) for name in (b"one", b"two", b"three")]


@dataclass(frozen=True)
class Listed:
    """One entry as generated: the content of its serial number, its issuer mark, and its DER."""

    serial: bytes
    issuer: int | None
    der: bytes


def _minimal(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


SERIALS = st.one_of(
    # The mass of a large CRL, with lengths that share expressions, and numbers that come again.
    st.integers(min_value=1 << 120, max_value=(1 << 128) - 1).map(_minimal),
    st.sampled_from([_minimal(value) for value in (0, 1, -1, 127, 128, 255, 256, 65536, -65537, 1 << 31, 1 << 158)]),
    st.integers(min_value=-(1 << 159), max_value=(1 << 159) - 1).map(_minimal),
    # CRL-16: superfluous octets, and more than twenty.
    st.integers(min_value=-300, max_value=300).map(lambda v: (b"\xff" if v < 0 else b"\x00") * 3 + _minimal(v)),
    st.binary(min_size=1, max_size=40),
)
EXTENSIONS = st.one_of(
    st.just(()),
    st.sampled_from([0, 1, 4, 6, 8]).map(lambda code: (reason(code),)),
    st.just((invalidity(NOW),)),
    st.just((reason(1), invalidity(NOW))),
    st.just((("2.5.29.23", False, b"\x06\x03\x2a\x03\x04"),)),
    st.binary(max_size=150).map(lambda content: ((UNKNOWN_OID, False, node(4, content)),)),
)


@st.composite
def listed(draw: st.DrawFn, marks: bool) -> Listed:
    serial = draw(SERIALS)
    issuer = draw(st.sampled_from([None, None, None, 0, 1, 2])) if marks else None
    extensions = draw(EXTENSIONS)
    if issuer is not None:
        extensions = (*extensions, certificate_issuer(NAMES[issuer]))
    return Listed(serial, issuer, entry(serial, *extensions, general=draw(st.booleans())))


def lists(marks: bool = False) -> st.SearchStrategy[list[Listed]]:
    """Entries in runs, because real CRLs repeat their shapes: that is what the expressions are made for."""
    run = st.tuples(listed(marks), st.integers(min_value=1, max_value=40), st.randoms(use_true_random=False))

    def unroll(runs: Sequence[tuple[Listed, int, object]]) -> list[Listed]:
        found = []
        for first, count, random in runs:
            found.append(first)
            for _ in range(count - 1):
                # The same shape, another number.
                serial = bytes((first.serial[0],)) + bytes(random.randrange(256) for _ in first.serial[1:])  # type: ignore[attr-defined]
                found.append(Listed(serial, first.issuer, first.der.replace(first.serial, serial, 1)))
        return found

    return st.lists(run, max_size=12).map(unroll)


def naive(items: Sequence[Listed]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    at = 0
    for item in items:
        found.setdefault(canonical_integer(item.serial), []).append(at)
        at += len(item.der)
    return found


def check(items: Sequence[Listed], strangers: Sequence[bytes]) -> None:
    # Something before and behind the list, which must not count.
    around = entry(items[0].serial) if items else b"\x30\x00"
    data = around + b"".join(item.der for item in items) + around
    start, end = len(around), len(data) - len(around)
    expected = naive(items)
    entries = Entries(data, scan(data, start, end))
    raw = RawEntries(data, start, end)
    assert entries.count == len(items)
    assert entries.carries_others == any(item.issuer is not None for item in items)
    for serial in [*expected, *map(canonical_integer, strangers)]:
        places = [start + at for at in expected.get(serial, [])]
        assert list(entries.offsets(serial)) == places, serial.hex()
        assert list(raw.offsets(serial)) == places, serial.hex()
    assert (raw_entries(data, start, end) is None) >= entries.carries_others
    at, issuer = start, None
    for item in items:
        issuer = item.issuer if item.issuer is not None else issuer
        assert entries.issuers_of(at) == (None if issuer is None else (NAMES[issuer],))
        at += len(item.der)


@given(lists(), st.lists(SERIALS, max_size=5))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_finds_what_a_loop_finds(items: list[Listed], strangers: list[bytes]) -> None:
    """CRL-16: odd, negative, repeated and oversized serial numbers are found where they are, and nothing else is."""
    check(items, strangers)


@given(lists(marks=True), st.lists(SERIALS, max_size=5))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_tells_the_issuers_apart(items: list[Listed], strangers: list[bytes]) -> None:
    """CRL-15: the issuer of each entry is the last that was named before it."""
    check(items, strangers)


@given(lists(), st.integers(min_value=1, max_value=12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_sorts_in_runs(items: list[Listed], size: int) -> None:
    """What doesn't fit into one run of sorting is merged from several: the keys come out the same."""
    data = b"".join(item.der for item in items)
    whole = scan(data, 0, len(data))
    old = crl_scan._RUN
    crl_scan._RUN = size
    try:
        pieces = scan(data, 0, len(data))
    finally:
        crl_scan._RUN = old
    assert (list(pieces.keys), list(pieces.blocks)) == (list(whole.keys), list(whole.blocks))
    assert list(whole.keys) == sorted(whole.keys)


@given(lists(marks=True), st.data())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_checks_what_a_loop_checks(items: list[Listed], data: st.DataObject) -> None:
    """CRL-1: a changed octet is accepted by the expressions exactly when it is accepted one entry at a time."""
    octets = bytearray(b"".join(item.der for item in items))
    if octets:
        for _ in range(data.draw(st.integers(min_value=1, max_value=2))):
            place = data.draw(st.integers(min_value=0, max_value=len(octets) - 1))
            octets[place] = data.draw(st.integers(min_value=0, max_value=255))
    blob = bytes(octets)
    outcomes = []
    for worth_it in (1, 1 << 30):
        old = crl_scan._WORTH_IT
        crl_scan._WORTH_IT = worth_it
        try:
            outcomes.append(_outcome(blob))
        finally:
            crl_scan._WORTH_IT = old
    assert outcomes[0] == outcomes[1]


def _outcome(blob: bytes) -> object:
    try:
        scanned = scan(blob, 0, len(blob))
    except BadDer as exc:
        return str(exc)
    return [scanned.count, list(scanned.keys), list(scanned.marks), scanned.odd, scanned.unknown_critical]


def test_critical_extension_anywhere() -> None:
    """CRL-14: the unknown critical extension of one entry in the middle of thousands is seen, also before the scan."""
    plain = [entry((1 << 126) + n, reason(1)) for n in range(3000)]
    odd = entry(7, (UNKNOWN_OID, True, b"\x05\x00"))
    data = b"".join([*plain, odd, *plain])
    assert scan(data, 0, len(data)).unknown_critical == UNKNOWN_OID
    assert raw_entries(data, 0, len(data)) is None
    harmless = b"".join(plain)
    assert scan(harmless, 0, len(harmless)).unknown_critical == ""
    assert raw_entries(harmless, 0, len(harmless)) is not None


def test_number_inside_an_extension_is_no_entry() -> None:
    """A serial number's octets inside of another entry's extension aren't an entry."""
    wanted = entry((1 << 126) + 5)
    data = b"".join(entry((1 << 125) + n, (UNKNOWN_OID, False, node(4, wanted[2:20]))) for n in range(40))
    assert not list(Entries(data, scan(data, 0, len(data))).offsets(_minimal((1 << 126) + 5)))


def test_issuer_that_is_no_name_is_refused() -> None:
    """CRL-15: a certificateIssuer that can't be read makes the list malformed, wherever it is."""
    bad = entry(5, ("2.5.29.29", True, b"\x30\x02\x05"))
    data = b"".join([*(entry(1000 + n) for n in range(50)), bad])
    with pytest.raises(BadDer):
        scan(data, 0, len(data))
