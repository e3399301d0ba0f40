"""An entity is made fit to be clear-signed: what a transport would change on its way is encoded before, part by part.

RFC 8551 §3.1.3: a signature over octets that a relay changes is broken, so all of multipart/signed is 7-bit text in short lines
before it is signed. Postfix, for one, turns 8-bit parts into quoted-printable where the next host knows no 8BITMIME, and wraps
lines of more than 998 octets (P15). Only leaves that need it are encoded; everything else keeps its octets.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from postseal.core.cms.armour import decode_body
from postseal.core.cms.lines import base64_blocks
from postseal.core.message import ContentType, Field, HeaderFault, parse_content_type, split_message

_MAX_DEPTH = 16
_MAX_PARTS = 10_000

# RFC 5322 §2.1.1: 998 octets in a line. RFC 2045 §2.7, §6.2: 7-bit data has no NUL and no octet above 127.
_LONGEST = 998
_LABEL = re.compile(rb"(?i)content-transfer-encoding:\s*(?:8bit|binary)")
_IDENTITY = (b"7bit", b"8bit", b"binary")
_FROM = re.compile(rb"(?m)^From ")


@dataclass(frozen=True, slots=True)
class Entity:
    """A MIME entity: its header fields and its body, lines ending with CRLF."""

    fields: tuple[Field, ...] = field(repr=False)
    body: bytes = field(repr=False)


class _Untouchable(Exception):
    """A part that must not be encoded, or can't; the text says which and why."""


def _hard(octets: bytes) -> bool:
    """Will some relay have to change it?"""
    return not octets.isascii() or b"\0" in octets or _long_line(octets)


def _long_line(octets: bytes) -> bool:
    """Looks for the last line end in reach, since every line would be looked at otherwise."""
    at = 0
    while len(octets) - at > _LONGEST:
        found = octets.rfind(b"\r\n", at, at + _LONGEST + 2)
        if found < 0:
            return True
        at = found + 2
    return False


def _soft(octets: bytes) -> bool:
    """RFC 8551 §3.1.3, RFC 2049 §3: some put ">" before lines that begin with "From ", or cut off blanks at line ends."""
    return (
        b"\nFrom " in octets
        or octets.startswith(b"From ")
        or b" \r\n" in octets
        or b"\t\r\n" in octets
        or octets.endswith((b" ", b"\t"))
    )


def survives(entity: Entity) -> bool:
    """Does the entity come through any transport of mail as it is?"""
    header = b"".join(field.line for field in entity.fields)
    body = entity.body
    return not (_hard(header) or _hard(body) or _soft(body) or _LABEL.search(header) or _LABEL.search(body))


def seven_bit(entity: Entity) -> Entity | str:
    """The entity with every leaf encoded that needs it; or why that can't be done, in words. Total.

    Parts that are signed or encrypted already keep their octets, so such a part with 8-bit text in it is a reason why not.
    """
    if survives(entity):
        return entity
    try:
        return _entity(entity, 0)
    except _Untouchable as exc:
        return str(exc)


# RFC 2045 §5.2, RFC 2046 §5.1.5: what an entity without Content-Type is, and what it is in a digest.
_TEXT, _MESSAGE = ContentType("text/plain", {}), ContentType("message/rfc822", {})


def _entity(entity: Entity, depth: int, default: ContentType = _TEXT) -> Entity:
    if depth > _MAX_DEPTH:
        raise _Untouchable(f"parts are nested more than {_MAX_DEPTH} deep")
    if _hard(b"".join(field.line for field in entity.fields)):
        raise _Untouchable("a header field inside isn't 7-bit text in lines of 998 octets")
    declared, encoding = _type(entity.fields, default), _encoding(entity.fields)
    kind = declared.media.partition("/")[0]
    if kind in ("multipart", "message") and encoding not in _IDENTITY:
        # RFC 2045 §6.4: composite types have no encoding of their own.
        raise _Untouchable(f"a part of type {declared.media} has a transfer encoding")
    if declared.media in ("multipart/signed", "multipart/encrypted"):
        return _kept(entity, encoding, "a part that is signed or encrypted already can't travel as 7-bit text")
    if kind == "multipart":
        return _multipart(entity, declared, depth)
    if declared.media == "message/rfc822":
        # RFC 2046 §5.2.1: a message inside isn't encoded itself, its parts are.
        inner = _entity(_parsed(entity.body), depth + 1)
        return Entity(_labelled(entity.fields, b"7bit"), _octets(inner))
    if kind == "message":
        return _kept(entity, encoding, f"a part of type {declared.media} can't be encoded")
    return _leaf(entity, declared, encoding)


def _kept(entity: Entity, encoding: bytes, why: str) -> Entity:
    """A part that isn't touched: its lines that begin with "From " are a risk that it took before."""
    if encoding != b"7bit" or _hard(entity.body) or _LABEL.search(entity.body):
        raise _Untouchable(why)
    return entity


def _type(fields: Sequence[Field], default: ContentType = _TEXT) -> ContentType:
    found = [field for field in fields if field.named(b"content-type")]
    if not found:
        return default
    declared = parse_content_type(found[0].value) if len(found) == 1 else None
    if declared is None:
        raise _Untouchable("a part has a Content-Type that can't be read")
    return declared


def _encoding(fields: Sequence[Field]) -> bytes:
    found = [field for field in fields if field.named(b"content-transfer-encoding")]
    if len(found) > 1:
        raise _Untouchable("a part has two transfer encodings")
    return found[0].unfolded.lower() if found else b"7bit"


def _labelled(fields: Sequence[Field], encoding: bytes) -> tuple[Field, ...]:
    """The fields with this Content-Transfer-Encoding, in its place; 7bit isn't added where nothing stood."""
    new = Field(b"Content-Transfer-Encoding", b" " + encoding)
    if any(field.named(b"content-transfer-encoding") for field in fields):
        return tuple(new if field.named(b"content-transfer-encoding") else field for field in fields)
    return tuple(fields) if encoding == b"7bit" else (*fields, new)


def _leaf(entity: Entity, declared: ContentType, encoding: bytes) -> Entity:
    body = entity.body
    if not _hard(body) and not _soft(body):
        return Entity(_labelled(entity.fields, b"7bit"), body) if encoding in _IDENTITY else entity
    raw = decode_body(entity.fields, body)
    if raw is None:
        raise _Untouchable("a part has a transfer encoding that is damaged or unknown")
    encoded = _quoted(raw) if declared.media.startswith("text/") else None
    if encoded is not None:
        return Entity(_labelled(entity.fields, b"quoted-printable"), encoded)
    return Entity(_labelled(entity.fields, b"base64"), b"".join(base64_blocks((raw,))))


def _quoted(raw: bytes) -> bytes | None:
    """RFC 2045 §6.7: quoted-printable; None where base64 is shorter, or where a line end stands alone and would be lost."""
    pairs = raw.count(b"\r\n")
    if raw.count(b"\r") != pairs or raw.count(b"\n") != pairs:
        return None
    if 6 * len(raw.translate(None, bytes(range(128)))) > len(raw):
        return None
    # The library takes its line ends from the first one that it sees; soft ones shall be CRLF too.
    lines = binascii.b2a_qp(raw, istext=True).replace(b"\r\n", b"\n")
    return _FROM.sub(b"=46=\nrom ", lines).replace(b"\n", b"\r\n")


def _parsed(octets: bytes) -> Entity:
    taken = split_message(octets)
    if isinstance(taken, HeaderFault):
        # Not which line: it may be text of the message.
        raise _Untouchable("a part has a malformed header")
    return Entity(*taken)


def _octets(entity: Entity) -> bytes:
    return b"".join((*(field.line for field in entity.fields), b"\r\n", entity.body))


def _multipart(entity: Entity, declared: ContentType, depth: int) -> Entity:
    found = _delimiters(declared, entity.body)
    if len(found) < 2:
        raise _Untouchable("a multipart has no parts")
    body, default = entity.body, _MESSAGE if declared.media == "multipart/digest" else _TEXT
    made = [_margin(body[: found[0].start()])]
    for here, after in pairwise(found):
        part = body[here.end() + 2 : after.start()]
        if _hard(part) or _soft(part) or _LABEL.search(part):
            part = _octets(_entity(_parsed(part), depth + 1, default))
        made += [b"\r\n--", here[1], b"\r\n", part]
    made += [b"\r\n--", found[0][1], b"--", _margin(body[found[-1].end() :])]
    joined = b"".join(made)
    # A multipart without preamble begins with its first boundary: the line end before that isn't there.
    return Entity(_labelled(entity.fields, b"7bit"), joined if made[0] else joined[2:])


def _margin(octets: bytes) -> bytes:
    """Preamble or epilogue (RFC 2046 §5.1.1): nobody is shown it; what wouldn't survive is left out."""
    return octets if not _hard(octets) and not _soft(octets) else b"\r\n"


def _delimiters(declared: ContentType, body: bytes) -> list[re.Match[bytes]]:
    """RFC 2046 §5.1.1: the delimiter lines up to the closing one, which may be missing: then the end of the body closes."""
    boundary = declared.parameters.get("boundary", "").encode("latin-1").rstrip(b" ")
    if not 1 <= len(boundary) <= 70:
        raise _Untouchable("a multipart names no boundary, or one that can't be")
    found: list[re.Match[bytes]] = []
    pattern = re.compile(rb"(?:\A|\r\n)--(" + re.escape(boundary) + rb")(--)?[ \t]*(?=\r\n|\Z)")
    for match in pattern.finditer(body):
        found.append(match)
        if match[2]:
            return found
        if len(found) > _MAX_PARTS:
            raise _Untouchable(f"a multipart has more than {_MAX_PARTS} parts")
    end = re.compile(rb"\Z()").search(body)
    return [*found, end] if found and end else []


def without_margins(entity: Entity) -> Entity:
    """The entity without preamble and epilogue, when it is a multipart that isn't signed or encrypted.

    Outlook calls a signature bad that covers text behind the last boundary; other readers don't show it.
    """
    try:
        declared = _type(entity.fields)
        if not declared.media.startswith("multipart/") or declared.media in ("multipart/signed", "multipart/encrypted"):
            return entity
        found = _delimiters(declared, entity.body)
    except _Untouchable:
        return entity
    if not found or not found[-1].group(0):
        return entity
    start, end = found[0].start(), found[-1].end()
    start += 2 if entity.body[start : start + 2] == b"\r\n" else 0
    rest = entity.body[end : end + 2]
    end += len(rest) if rest == b"\r\n" else 0
    return entity if (start, end) == (0, len(entity.body)) else Entity(entity.fields, entity.body[start:end])
