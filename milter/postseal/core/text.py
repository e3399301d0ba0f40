"""Hostile text made safe for logs, SMTP replies and terminals (THR-10): printable ASCII only, one line, bounded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

FIELD_MAX = 1024
_CUT = "..."


def escape(text: str, limit: int = FIELD_MAX, also: str = "") -> str:
    r"""``text`` in printable ASCII of at most ``limit`` characters.

    Control characters and DEL become ``\xNN``, everything beyond ASCII (bidirectional marks with it) ``\uNNNN`` or
    ``\UNNNNNNNN``, octets that were not UTF-8 (PEP 383 surrogates) ``\xNN``; ``"`` and ``\`` get a backslash before them,
    so that the original can always be told. The characters in ``also`` become ``\xNN`` too. What doesn't fit is cut between
    characters and marked by ``...``.
    """
    # Only as much as can be shown is looked at: a name of 100 MB costs no more than a short one.
    pieces = [_escaped(char, also) for char in text[: limit + 1]]
    whole = "".join(pieces)
    if len(whole) <= limit:
        return whole
    length, kept = 0, []
    for piece in pieces:
        if length + len(piece) > limit - len(_CUT):
            break
        kept.append(piece)
        length += len(piece)
    return "".join(kept) + _CUT[:limit]


def _escaped(char: str, also: str) -> str:
    number = ord(char)
    if number < 0x20 or number == 0x7F or char in also:
        return f"\\x{number:02x}"
    if char in '"\\':
        return f"\\{char}"
    if number < 0x7F:
        return char
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def one_line(text: str, limit: int) -> str:
    """For a text whose parts are escaped already: what isn't printable ASCII is escaped, quotes and backslashes stay."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    pieces = (char if char in '"\\' else _escaped(char, "") for char in text[: limit + 1])
    whole = "".join(pieces)
    return whole if len(whole) <= limit else whole[: limit - len(_CUT)] + _CUT


@overload
def moment(at: datetime) -> str: ...
@overload
def moment(at: None) -> None: ...
def moment(at: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, to the second."""
    return None if at is None else at.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def address(text: str) -> str:
    """An envelope address as ``<…>``: nothing in it can end the brackets or begin another ``key=value``."""
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    return f"<{escape(bare, also='<>, ')}>"


def value(text: str) -> str:
    """The right side of ``key=value``: bare when it can't be misread, else in double quotes."""
    safe = escape(text)
    return safe if safe == text and safe and not any(c in safe for c in " ,;=<>") else f'"{safe}"'
