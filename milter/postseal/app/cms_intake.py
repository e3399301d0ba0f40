"""A message from a file or a pipe, taken in for sealing, opening and inspecting.

Octets in, octets out; files, standard streams and randomness are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from postseal.core.cms.lines import LineCheck
from postseal.core.cms.smime import Split, split
from postseal.core.errors import BadData
from postseal.core.message import HEADER_LIMIT, Field, HeaderFault, header_length, parse_header
from postseal.core.reasons import reason
from postseal.core.text import escape

_DETAILS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Made:
    """``octets`` yields the message, CRLF throughout; ``notes`` are sentences for the operator."""

    octets: Iterator[bytes]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """A message for sealing or signing: its header taken apart, its body in CRLF as it comes."""

    parts: Split
    body: Iterator[bytes]
    lf_only: bool


def take_message(message: Iterable[bytes]) -> Taken:
    """Raises BadData for a message that can't be protected as it is."""
    chunks = iter(message)
    header, start, lf_only = take_header(chunks)
    parts = split(header_fields(header))
    if parts.fault:
        raise refuse(parts.fault, parts.fault_detail)
    return Taken(parts, canonical(joined(start, chunks), lf_only), lf_only)


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


def header_end(octets: bytes, lf_only: bool) -> int | None:
    """Where the header with its empty line ends; None when there is no empty line."""
    if not lf_only:
        return header_length(octets)
    if octets.startswith(b"\n"):
        return 1
    found = octets.find(b"\n\n")
    return None if found < 0 else found + 2


def _header_in(octets: bytes) -> tuple[bytes, bytes, bool] | None:
    lf_only = uses_lf(octets)
    end = header_end(octets, lf_only)
    if end is None:
        return None
    header = octets[:end]
    return header.replace(b"\n", b"\r\n") if lf_only else header, octets[end:], lf_only


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
