"""A message as it was received: header fields and body as octets, never re-serialised.

A header is taken apart by one strict rule (RFC 5322 §2.2); what two readers could take apart in two ways is refused by name
rather than guessed (THR-11).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A header larger than this is no header. Postfix's own header_size_limit is 102400.
HEADER_LIMIT = 1024 * 1024

# RFC 5322 §2.2: a field name is printable US-ASCII without the colon.
_NAME = re.compile(rb"[!-9;-~]+\Z")
_LINE_END_IN_VALUE = re.compile(rb"\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n|\x00")
# RFC 5322 §4.2 obs-FWS: a folded line of white space only looks like the end of the header to some readers.
_EMPTY_FOLD = re.compile(rb"\r\n[ \t]*(?:\r\n|\Z)")
_FOLD = re.compile(rb"\r\n(?=[ \t])")


@dataclass(frozen=True, slots=True)
class Field:
    """One header field. ``value`` is all after the colon, leading space included, folds with CRLF, without the final CRLF."""

    name: bytes
    value: bytes

    @property
    def line(self) -> bytes:
        """The field as it stands in a message, with its CRLF."""
        return self.name + b":" + self.value + b"\r\n"

    def named(self, lower_name: bytes) -> bool:
        return self.name.lower() == lower_name

    @property
    def unfolded(self) -> bytes:
        """The value on one line without white space around it (RFC 5322 §2.2.3)."""
        return _FOLD.sub(b"", self.value).strip(b" \t")


def field_fault(field: Field) -> tuple[str, str] | None:
    """(``mail.*`` code, detail) when a field isn't well formed, else None."""
    if not _NAME.match(field.name):
        return "mail.bad-header", f"field name {field.name[:60]!r}"
    if _LINE_END_IN_VALUE.search(field.value):
        return "mail.bad-header", f"NUL, bare CR or bare LF in field {field.name.decode('ascii')}"
    if _EMPTY_FOLD.search(field.value):
        return "mail.bad-header", f"empty continuation line in field {field.name.decode('ascii')}"
    return None


@dataclass(frozen=True, slots=True)
class HeaderFault:
    """Why octets can't be taken apart into fields and a body: a ``mail.*`` code and what is wrong, for people."""

    code: str
    detail: str


def header_length(octets: bytes) -> int | None:
    """Length of the header with its empty line, when ``octets`` holds all of it (lines end with CRLF); else None."""
    if octets.startswith(b"\r\n"):
        return 2
    end = octets.find(b"\r\n\r\n")
    return None if end < 0 else end + 4


def parse_header(header: bytes) -> tuple[Field, ...] | HeaderFault:
    """The header of a message, lines ending with CRLF, with or without its empty line -> its fields, or why not."""
    if len(header) > HEADER_LIMIT:
        return HeaderFault("mail.header-too-large", f"the header is over {HEADER_LIMIT} octets")
    if header and not header.endswith(b"\r\n"):
        return HeaderFault("mail.bad-header", "the last line of the header doesn't end with CRLF")
    lines = header.split(b"\r\n")[:-1]
    if lines and not lines[-1]:
        lines.pop()
    if lines and lines[0][:1] in (b" ", b"\t"):
        return HeaderFault("mail.bad-header", "the first line is a continuation line")
    if lines and lines[0].startswith(b"From ") and not lines[0][5:].lstrip().startswith(b":"):
        return HeaderFault("mail.bad-header", "the first line is that of an mbox file, which isn't part of the message")
    starts = [i for i, line in enumerate(lines) if line[:1] not in (b" ", b"\t")]
    fields: list[Field] = []
    for start, end in pairwise([*starts, len(lines)]):
        name, colon, value = b"\r\n".join(lines[start:end]).partition(b":")
        if not colon:
            return HeaderFault("mail.bad-header", f"line {start + 1} has no colon: {name[:60]!r}")
        fields.append(Field(name, value))
    for field in fields:
        if fault := field_fault(field):
            return HeaderFault(*fault)
    return tuple(fields)


def split_message(octets: bytes) -> tuple[tuple[Field, ...], bytes] | HeaderFault:
    """A whole message with CRLF line ends -> (fields, body). A message without an empty line has no body."""
    length = header_length(octets)
    fields = parse_header(octets if length is None else octets[:length])
    if isinstance(fields, HeaderFault):
        return fields
    return fields, b"" if length is None else octets[length:]


@dataclass(frozen=True, slots=True)
class ContentType:
    """``media`` is type/subtype in lower case; parameter names in lower case, values as written without quotes."""

    media: str
    parameters: dict[str, str]


_TOKEN = r"[!#-'*+\-.0-9A-Z^-z{|}~]+"
_MEDIA = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
# RFC 2045 §5.1 wants quotes around "=", "/" and others; many leave them out around boundary and protocol.
_BARE = r'[^\s;"(),<>\\\x00-\x1f\x7f-\xff]+'
_PARAMETER = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_BARE}))\s*)?')
_COMMENT = re.compile(r"\([^()\\\"]*\)")


def parse_content_type(value: bytes) -> ContentType | None:
    """The value of a Content-Type or, with a type alone, Content-Disposition field (RFC 2045 §5.1); None if it isn't one."""
    text = _COMMENT.sub(" ", _FOLD.sub(b"", value).decode("latin-1"))
    media = _MEDIA.match(text)
    if media is None:
        return None
    return ContentType(media[1].lower(), _parameters(text, media.end()) or {})


def parse_disposition(value: bytes) -> dict[str, str]:
    """The parameters of a Content-Disposition field (RFC 2183), names in lower case; empty when it can't be read."""
    text = _FOLD.sub(b"", value).decode("latin-1")
    start = text.find(";")
    return _parameters(text, start) if start >= 0 else {}


def _parameters(text: str, position: int) -> dict[str, str]:
    found: dict[str, str] = {}
    while match := _PARAMETER.match(text, position):
        position = match.end()
        if match[1]:
            plain = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            found.setdefault(match[1].lower(), plain)
    return found


def only(fields: Sequence[Field], lower_name: bytes) -> Field | None:
    """The one field of that name; None when there is none or more than one."""
    found = [field for field in fields if field.named(lower_name)]
    return found[0] if len(found) == 1 else None
