"""Clear-signed mail taken apart (RFC 1847 §2.1, RFC 8551 §3.5.3): exactly the octets that are signed, and what is around them.

The body comes with CRLF line ends and isn't written anew: a signature is over octets, and a MIME library has others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from postseal.core.cms.armour import cms_octets
from postseal.core.errors import BadData
from postseal.core.message import Field, HeaderFault, only, parse_content_type, parse_disposition, split_message

_SIGNATURE_TYPES = ("application/pkcs7-signature", "application/x-pkcs7-signature")
# A line that begins like the boundary costs a look; a body that has nothing else is nobody's mail.
_MAX_LOOKS = 10_000
_MAX_PART_HEADER = 64 * 1024
_MAX_BOUNDARY = 70
# However it is separated from what is before it: readers differ about comments too.
_BOUNDARY = re.compile(rb"(?i)[;\s)]boundary[*0-9]*\s*[(=]")
_MAX_LINE = 1000


@dataclass(frozen=True, slots=True)
class ClearSigned:
    """``covered`` is the signed entity, ``signature`` the CMS octets; ``preamble`` and ``epilogue`` are what nobody signed.

    ``micalg`` is what the header says of the digests, which decides nothing. ``notes`` are sentences about what is odd.
    """

    covered: memoryview
    signature: bytes
    preamble: memoryview
    epilogue: memoryview
    micalg: str
    notes: tuple[str, ...]


class _Delimiter(NamedTuple):
    """``start`` is where the CRLF begins that belongs to it, ``stop`` is behind its line."""

    start: int
    stop: int
    closing: bool


def smime_signed(fields: Sequence[Field]) -> bool:
    """Does the header say multipart/signed by S/MIME, or not say by what?"""
    field = only(fields, b"content-type")
    declared = parse_content_type(field.value) if field else None
    if declared is None or declared.media != "multipart/signed":
        return False
    return declared.parameters.get("protocol", "").lower() in ("", *_SIGNATURE_TYPES)


def split_signed(fields: Sequence[Field], body: bytes) -> ClearSigned:
    """The two parts of a multipart/signed body, lines ending with CRLF. Raises BadData for what isn't one."""
    field = only(fields, b"content-type")
    declared = parse_content_type(field.value) if field else None
    if declared is None or declared.media != "multipart/signed":
        raise BadData("the message isn't clear-signed: its Content-Type isn't multipart/signed")
    # THR-11: readers disagree which of two counts.
    if len(_BOUNDARY.findall(field.value if field else b"")) > 1:
        raise BadData("the clear-signed message can't be taken apart: it names two boundaries")
    boundary = declared.parameters.get("boundary", "").encode("latin-1").rstrip(b" ")
    # RFC 2046 §5.1.1: 1 to 70 characters.
    if not 1 <= len(boundary) <= _MAX_BOUNDARY:
        raise BadData(
            "the clear-signed message can't be taken apart: it names no boundary, or a boundary that can't be"
        )
    notes: list[str] = []
    protocol = declared.parameters.get("protocol", "").lower()
    if protocol not in _SIGNATURE_TYPES:
        notes.append("the header doesn't say that it is signed by S/MIME: the parameter protocol is missing or another")
    # THR-11, RFC 5322 §2.3: readers that take a CR or LF alone for a line end would cut elsewhere.
    if _after_bare_line_end(body, b"--" + boundary):
        raise BadData("the clear-signed message can't be taken apart: its boundary stands behind a CR or LF alone")
    delimiters, alike = _delimiters(body, boundary)
    if alike:
        notes.append("a line begins like the boundary and goes on: readers that compare beginnings would cut there")
    first, second, last = _three(delimiters, len(body), notes)
    view = memoryview(body)
    covered = view[first.stop : max(first.stop, second.start)]
    signature = _signature(bytes(view[second.stop : max(second.stop, last.start)]), notes)
    preamble, epilogue = view[: first.start], view[last.stop :]
    return ClearSigned(
        covered, signature, preamble, epilogue, declared.parameters.get("micalg", "").lower(), tuple(notes)
    )


def _delimiters(body: bytes, boundary: bytes) -> tuple[list[_Delimiter], bool]:
    """The delimiter lines up to the closing one, and whether other lines begin like them.

    RFC 2046 §5.1.1: a line of two hyphens and the boundary, two more hyphens when it is the last, white space that a gateway
    may have added; the CRLF before it belongs to it. Nested multiparts have boundaries that begin with the outer one, so the
    line must have nothing else.
    """
    found: list[_Delimiter] = []
    alike = False
    for start in _lines_with(body, b"--" + boundary):
        behind = start + len(boundary) + 2
        end = body.find(b"\r\n", behind)
        stop = len(body) if end < 0 else end + 2
        rest = body[behind : min(stop, behind + _MAX_LINE)].rstrip(b" \t\r\n")
        # RFC 5322 §2.1.1: what stands behind so many blanks isn't looked for.
        if rest not in (b"", b"--") or stop - behind > _MAX_LINE:
            alike = True
            continue
        found.append(_Delimiter(max(0, start - 2), stop, rest == b"--"))
        if rest or len(found) > 3:
            break
    return found, alike


def _after_bare_line_end(body: bytes, beginning: bytes) -> bool:
    if b"\r" + beginning in body:
        return True
    # What is looked for comes first, and then what mustn't be before it: that is the fast way round.
    after, before = re.escape(b"\n" + beginning), re.escape(b"\r\n" + beginning)
    return re.search(after + b"(?<!" + before + b")", body) is not None


def _lines_with(body: bytes, beginning: bytes) -> Iterator[int]:
    """Where lines begin with ``beginning``."""
    if body.startswith(beginning):
        yield 0
    at = 0
    for _ in range(_MAX_LOOKS):
        at = body.find(b"\r\n" + beginning, at)
        if at < 0:
            return
        yield at + 2
        # The CRLF behind this line may be the one before the next.
        at += 2 + len(beginning)
    raise BadData(f"the clear-signed message can't be taken apart: over {_MAX_LOOKS} lines begin like its boundary")


def _three(found: list[_Delimiter], length: int, notes: list[str]) -> tuple[_Delimiter, _Delimiter, _Delimiter]:
    """The delimiters before, between and behind the two parts."""
    opening = [each for each in found if not each.closing]
    # RFC 1847 §2.1: exactly two parts. What would be shown besides the signed one is a way to show what nobody signed.
    if len(opening) != 2:
        count = "more than two" if len(opening) > 2 else str(len(opening)) if opening else "no"
        raise BadData(
            f"the clear-signed message can't be taken apart: it has {count} part{'s' * (len(opening) != 1)}, not two"
        )
    if found[-1].closing:
        return opening[0], opening[1], found[-1]
    notes.append("the final boundary is missing: the message may be cut off behind the signature")
    return opening[0], opening[1], _Delimiter(length, length, True)


def _signature(part: bytes, notes: list[str]) -> bytes:
    """The second part without its header and transfer encoding."""
    if part.find(b"\r\n\r\n") > _MAX_PART_HEADER:
        raise BadData("the signature part has a header that is too large")
    # RFC 2046 §5.1: a part without header fields begins with an empty line.
    taken = split_message(part)
    if isinstance(taken, HeaderFault):
        raise BadData(f"the header of the signature part is malformed: {taken.detail}")
    fields, body = taken
    field = only(fields, b"content-type")
    declared = parse_content_type(field.value) if field else None
    if declared is None or declared.media not in _SIGNATURE_TYPES:
        name = declared.parameters.get("name", "") if declared else ""
        disposition = only(fields, b"content-disposition")
        named = (name, parse_disposition(disposition.value).get("filename", "") if disposition else "")
        # RFC 8551 §3.2.1: where the type was lost on the way, the name of the file is what is left.
        # What readers show, such as text, is more than a lost type: it would be shown beside what is signed.
        lost = declared is not None and declared.media.startswith("application/")
        if declared is None or not lost or not any(each.lower().endswith((".p7s", ".p7m")) for each in named):
            raise BadData("the second part of the clear-signed message isn't an S/MIME signature")
        notes.append(f"the signature part is typed as {declared.media}")
    octets = cms_octets(fields, body)
    if octets is None:
        raise BadData("the signature part can't be read: its transfer encoding is damaged or unknown")
    return octets
