"""Shapes of CRL entries: a regular expression that proves the form of many entries in a row.

An expression is made for the shapes that a CRL has. It matches only entries whose lengths agree with each other, one directly
behind the other, so it proves as much as a loop over them would, at a tenth of the cost.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from postseal.core.der import GENERALIZED_TIME, INTEGER, UTC_TIME, Element, Octets, canonical_integer


class Shape(NamedTuple):
    """What the expression knows of an entry: octets of its serial number, tag of its date, which of _EXTENSIONS it has."""

    serial: int
    time: int
    extensions: int


# Entry extensions as nearly every CA writes them: reasonCode, then perhaps invalidityDate, nothing critical.
_REASON_CODE = rb"\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01."
_INVALIDITY_DATE = rb"\x30\x18\x06\x03\x55\x1d\x18\x04\x11\x18\x0f\d{14}Z"
_EXTENSIONS = (
    (0, b"", b""),
    (14, rb"\x30\x0c" + _REASON_CODE, rb"\x30\x0c\x30.{11}"),
    (40, rb"\x30\x26" + _REASON_CODE + _INVALIDITY_DATE, rb"\x30\x26\x30.{37}"),
    (28, rb"\x30\x1a" + _INVALIDITY_DATE, rb"\x30\x1a\x30.{25}"),
)
_EXTENSION_SHAPES = tuple(re.compile(exact, re.DOTALL) for _, exact, _ in _EXTENSIONS)
_TIMES = {
    UTC_TIME: (15, rb"\x17\x0d\d{12}Z", rb"\x17\x0d.{13}"),
    GENERALIZED_TIME: (17, rb"\x18\x0f\d{14}Z", rb"\x18\x0f.{15}"),
}
_TIME_SHAPES = {tag: re.compile(exact) for tag, (_, exact, _) in _TIMES.items()}
# X.690 §8.3.2: the first nine bits of an INTEGER aren't all the same.
_MINIMAL = rb"(?:[\x01-\xfe].|\x00[\x80-\xff]|\xff[\x00-\x7f])"


def shape_of(data: Octets, entry: Element) -> Shape | None:
    """The shape of an entry that was checked, if the expression can be made to know it."""
    size, stop = data[entry.body + 1], entry.end
    serial = data[entry.body + 2 : entry.body + 2 + size]
    if not 2 <= size <= 20 or canonical_integer(serial) != serial or entry.body != entry.start + 2:
        return None
    time_at = entry.body + 2 + size
    tag = data[time_at]
    dated = _TIME_SHAPES[tag].match(data, time_at, stop)
    if dated is None:
        return None
    for index, shape in enumerate(_EXTENSION_SHAPES):
        if shape.fullmatch(data, dated.end(), stop) is not None:
            return Shape(size, tag, index)
    return None


@lru_cache(maxsize=256)
def expressions(shapes: tuple[Shape, ...]) -> tuple[re.Pattern[bytes] | None, re.Pattern[bytes]]:
    """An expression that matches entries of these shapes one behind the other, and one that yields their keys.

    The second may be lax: it is used only on what the first has matched.
    """
    never = re.compile(b"(?!)")
    if not shapes:
        return None, never
    exact = b"|".join(_exact(shape) for shape in shapes)
    heads = b"|".join(sorted({b"." + _serial(shape.serial, False) for shape in shapes}))
    times = b"|".join(sorted({_TIMES[shape.time][2] for shape in shapes}))
    tails = b"|".join(sorted({_EXTENSIONS[shape.extensions][2] for shape in shapes}, reverse=True))
    keys = rb"\x30(?:" + heads + rb")(.{4})(?:" + times + rb")(?:" + tails + b")"
    return re.compile(rb"(?:\x30(?:" + exact + rb"))*", re.DOTALL), re.compile(keys, re.DOTALL)


def _exact(shape: Shape) -> bytes:
    size = 2 + shape.serial + _TIMES[shape.time][0] + _EXTENSIONS[shape.extensions][0]
    head = re.escape(bytes((size,))) + _serial(shape.serial, True) + b".{4}"
    return head + _TIMES[shape.time][1] + _EXTENSIONS[shape.extensions][1]


def _serial(size: int, exact: bool) -> bytes:
    """An INTEGER of ``size`` octets, all but the last four octets of its encoding."""
    encoded = re.escape(bytes((INTEGER,))), re.escape(bytes((size,)))
    minimal = _MINIMAL if exact else b""
    if size == 2:
        return b"(?=" + encoded[0] + encoded[1] + minimal + b")"
    if size == 3:
        return encoded[0] + b"(?=" + encoded[1] + minimal + b")"
    return encoded[0] + encoded[1] + (b"(?=" + minimal + b")" if exact else b"") + b".{%d}" % (size - 4)
