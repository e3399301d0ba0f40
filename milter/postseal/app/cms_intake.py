"""A message from a file or a pipe, taken in for sealing, opening and inspecting.

Octets in, octets out; files, standard streams and randomness are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from postseal.core.cms.lines import LineCheck
from postseal.core.errors import BadData
from postseal.core.message import HEADER_LIMIT, Field, HeaderFault, header_length, parse_header
from postseal.core.reasons import reason
from postseal.core.text import escape

_DETAILS_SHOWN = 200


def refuse(code: str, detail: str = "") -> BadData:
    """The catalogue's sentence for a ``mail.*`` code, as an error."""
    sentence = f"{reason(code).sentence} ({code})"
    return BadData(f"{sentence}: {escape(detail, _DETAILS_SHOWN)}" if detail else sentence)


def take_header(chunks: Iterator[bytes]) -> tuple[bytes, bytes, bool]:
    """(header with its empty line in CRLF form, what of the body came with it, whether lines end with LF only)."""
    taken = bytearray()
    for chunk in chunks:
        taken += chunk
        found = _header_in(bytes(taken))
        if found is not None:
            return found
        if len(taken) > HEADER_LIMIT:
            raise refuse("mail.header-too-large", f"no empty line in the first {HEADER_LIMIT} octets")
    octets = bytes(taken)
    if not octets:
        raise BadData("there is no message: the input is empty")
    lf_only = uses_lf(octets)
    return octets.replace(b"\n", b"\r\n") if lf_only else octets, b"", lf_only


def uses_lf(octets: bytes) -> bool:
    """The first line end decides: text with LF as Unix keeps it, or CRLF as it travels."""
    end = octets.find(b"\n")
    return end >= 0 and octets[end - 1 : end] != b"\r"


def _header_in(octets: bytes) -> tuple[bytes, bytes, bool] | None:
    if not uses_lf(octets):
        length = header_length(octets)
        return None if length is None else (octets[:length], octets[length:], False)
    end = 1 if octets.startswith(b"\n") else octets.find(b"\n\n") + 2
    if end == 1 and not octets.startswith(b"\n"):
        return None
    return octets[:end].replace(b"\n", b"\r\n"), octets[end:], True


def header_fields(header: bytes, secret: bool = False) -> tuple[Field, ...]:
    """The fields of a header. Raises BadData, which quotes what is wrong unless it is ``secret``."""
    fields = parse_header(header)
    if isinstance(fields, HeaderFault):
        raise refuse(fields.code, "" if secret else fields.detail)
    return fields


def canonical(chunks: Iterable[bytes], lf_only: bool) -> Iterator[bytes]:
    """The body with CRLF line ends. Raises BadData for a CR or LF that stands alone (RFC 8551 §3.1.1)."""
    check = LineCheck()
    for chunk in chunks:
        if lf_only:
            if b"\r" in chunk:
                raise refuse("mail.bare-cr", "lines end with LF, but there is a CR too")
            yield chunk.replace(b"\n", b"\r\n")
        else:
            check.update(chunk)
            yield chunk
    if fault := check.finish():
        raise refuse(fault)


def body_again(chunks: Iterator[bytes], lf_only: bool) -> Iterator[bytes]:
    """The body of a message that was read and checked before."""
    _, start, _ = take_header(chunks)
    for chunk in joined(start, chunks):
        yield chunk.replace(b"\n", b"\r\n") if lf_only else chunk


def joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """One iterator of ``first`` and all that follows it."""
    yield first
    yield from rest
