"""Sealing one message on the command line: the engine of the milter without its policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from postseal.app.cms_intake import canonical, header_fields, refuse, take_header
from postseal.core.cms.built import check_built
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.lines import base64_blocks
from postseal.core.cms.smime import split
from postseal.core.policy import Cleared
from postseal.core.suite import Suite


class Scratch(Protocol):
    """Where ciphertext waits until its length is known: append, then read once from the start."""

    def write(self, data: bytes, /) -> object: ...

    def chunks(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """``octets`` yields the sealed message, CRLF throughout; ``notes`` are sentences for the operator."""

    octets: Iterator[bytes]
    notes: tuple[str, ...]


def seal(
    message: Iterable[bytes], cleared: Sequence[Cleared], suite: Suite, key: bytes, iv: bytes, scratch: Scratch
) -> Sealed:
    """Seal one message for ``cleared``. ``key`` and ``iv`` are fresh and used nowhere else. Raises BadData.

    All of ``message`` is read before this returns; nothing of it but ciphertext is kept, in ``scratch``.
    """
    chunks = iter(message)
    header, start, lf_only = take_header(chunks)
    parts = split(header_fields(header))
    if parts.fault:
        raise refuse(parts.fault, parts.fault_detail)
    notes = []
    if lf_only:
        notes.append("lines ended with LF; they were converted to CRLF before sealing")
    sealer = ContentSealer(suite, key, iv)
    length = 0

    def keep(ciphertext: bytes) -> int:
        scratch.write(ciphertext)
        return len(ciphertext)

    length += keep(sealer.update(parts.inner))
    for chunk in canonical(_joined(start, chunks), lf_only):
        length += keep(sealer.update(chunk))
    length += keep(sealer.finish())
    head, tail = envelope(suite, key, cleared, iv, length, sealer.tag)
    check_built(head, tail, length, cleared)
    outer = b"".join(field.line for field in parts.outer(suite)) + b"\r\n"

    def octets() -> Iterator[bytes]:
        yield outer
        yield from base64_blocks(_around(head, scratch.chunks(), tail))

    return Sealed(octets(), tuple(notes))


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _around(head: bytes, middle: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from middle
    yield tail
