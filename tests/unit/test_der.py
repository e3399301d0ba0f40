"""The DER reader accepts DER and nothing else, and its limits hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from postseal.core.der import (
    INTEGER,
    OID,
    SEQUENCE,
    BadDer,
    Cursor,
    canonical_integer,
    extensions,
    integer_content,
    later,
    oid_content,
    oid_text,
    time_value,
    tlv,
)
from support.evidence import extension, integer, node, oid, seq


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends inside"),
        (b"\x30", "ends inside"),
        (b"\x30\x80\x00\x00", "indefinite"),
        (b"\x30\x85\x01\x00\x00\x00\x00", "oversized length"),
        (b"\x30\x84\xff\xff\xff\xff", "longer than what holds it"),
        (b"\x30\x81\x05\x02\x03\x01\x02\x03", "isn't minimal"),
        (b"\x30\x82\x00\x80" + bytes(128), "isn't minimal"),
        (b"\x1f\x81\x01\x00", "above 30"),
        (b"\x30\x03\x02\x01", "longer than what holds it"),
        (b"\x31\x00", "expected tag 0x30, found 0x31"),
    ],
)
def test_refuses_what_is_not_der(data: bytes, words: str) -> None:
    """Indefinite, oversized and longer-than-needed lengths, and elements that don't fit, are refused with the cause."""
    with pytest.raises(BadDer, match=words):
        Cursor(data).take(SEQUENCE)


def test_depth_is_limited_without_recursion() -> None:
    """THR-7: Ten thousand nested SEQUENCEs end in BadDer, not in RecursionError."""
    data = b""
    for _ in range(10_000):
        data = seq(data)
    cursor = Cursor(data)

    def descend() -> None:
        inner = cursor
        for _ in range(10_000):
            inner = inner.enter()

    with pytest.raises(BadDer, match="nested deeper"):
        descend()


def test_a_list_is_limited() -> None:
    """A list of more elements than expected is refused before it is worked on."""
    cursor = Cursor(seq(*[integer(1)] * 20)).enter()
    with pytest.raises(BadDer, match="more than 10 elements"):
        cursor.children(INTEGER, 10)


def test_trailing_data_is_noticed() -> None:
    """finish() insists that an element is used up."""
    cursor = Cursor(seq(integer(1), integer(2))).enter()
    assert cursor.integer() == 1
    with pytest.raises(BadDer, match="unexpected data at offset 5"):
        cursor.finish()


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, -128, -129, 255, 256, 1 << 159, -(1 << 158)])
def test_integers_round_trip_in_canonical_form(value: int) -> None:
    """Reading what was written gives the number again, and the content has the fewest octets."""
    assert Cursor(tlv(INTEGER, integer_content(value))).integer() == value
    assert tlv(INTEGER, canonical_integer(b"\x00" * (value >= 0) + integer_content(value))) == tlv(
        INTEGER, integer_content(value)
    )


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff\x80", b"\x01" * 22])
def test_refuses_odd_integers(content: bytes) -> None:
    """Empty, padded and huge INTEGERs are refused where strictness is asked for."""
    with pytest.raises(BadDer):
        Cursor(node(INTEGER, content)).integer()


@pytest.mark.parametrize(
    ("padded", "canonical"),
    [(b"\x00\x00\x05", b"\x05"), (b"\x00\x80", b"\x00\x80"), (b"\xff\xff\x80", b"\x80"), (b"\x00", b"\x00")],
)
def test_canonical_integer_drops_only_superfluous_octets(padded: bytes, canonical: bytes) -> None:
    """CRL-16: the sign stays, padding goes."""
    assert canonical_integer(padded) == canonical


@pytest.mark.parametrize("dotted", ["2.5.29.20", "1.2.840.113549.1.1.11", "0.9.2342", "2.999.3"])
def test_object_identifiers_round_trip(dotted: str) -> None:
    """Dotted text and content octets are two forms of the same thing."""
    assert oid_text(oid_content(dotted)) == dotted


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x2a\x86", b"\x2a" + b"\x01" * 64])
def test_refuses_broken_object_identifiers(content: bytes) -> None:
    """Empty, padded, cut and endless OBJECT IDENTIFIERs are refused."""
    with pytest.raises(BadDer):
        Cursor(node(OID, content)).oid()


@pytest.mark.parametrize(
    ("tag", "text", "moment"),
    [
        (0x17, b"491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (0x17, b"500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (0x18, b"20260601120000Z", datetime(2026, 6, 1, 12, tzinfo=UTC)),
        (0x18, b"99991231235959Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times(tag: int, text: bytes, moment: datetime) -> None:
    """CRL-22: two-digit years from 50 on are 19xx; GeneralizedTime before 2050 is tolerated; year 9999 is a time."""
    assert time_value(tag, text) == moment


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (0x17, b"2601010000Z"),
        (0x17, b"260101000000+0100"),
        (0x18, b"20260101000000.5Z"),
        (0x18, b"20260230000000Z"),
        (0x18, b"2026010100000 Z"),
        (0x18, b"00000101000000Z"),
        (0x0C, b"260101000000Z"),
    ],
)
def test_refuses_other_times(tag: int, text: bytes) -> None:
    """Times without seconds, with zones or fractions, and days that don't exist are refused."""
    with pytest.raises(BadDer):
        time_value(tag, text)


def test_later_stays_inside_the_calendar() -> None:
    """nextUpdate in the year 9999 plus a skew is no OverflowError."""
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert later(end, timedelta(days=400)).year == 9999


def test_extensions_are_unique_and_well_formed() -> None:
    """RFC 5280 §4.2: the same extension twice is refused; an explicit FALSE is tolerated; a BOOLEAN of 1 is not."""
    one = extension("2.5.29.20", False, b"\x02\x01\x01")
    assert extensions(Cursor(one))["2.5.29.20"].critical is False
    with pytest.raises(BadDer, match="occurs twice"):
        extensions(Cursor(one + one))
    explicit = seq(oid("2.5.29.20"), node(1, b"\x00"), node(4, b""))
    assert extensions(Cursor(explicit))["2.5.29.20"].critical is False
    with pytest.raises(BadDer, match="BOOLEAN"):
        extensions(Cursor(seq(oid("2.5.29.20"), node(1, b"\x01"), node(4, b""))))
