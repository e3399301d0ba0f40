"""Sealing one message on the command line: the engine of the milter without its policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from postseal.app.cms_intake import Made, body_again, joined, take_message
from postseal.core.cms.built import check_built
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.stream import held_lines, sealed_lines
from postseal.core.policy import Cleared
from postseal.core.suite import Suite


class Scratch(Protocol):
    """Where ciphertext waits until its length is known: append, then read once from the start."""

    def write(self, data: bytes, /) -> object: ...

    def chunks(self) -> Iterator[bytes]: ...


def seal(
    message: Iterable[bytes],
    cleared: Sequence[Cleared],
    suite: Suite,
    key: bytes,
    iv: bytes,
    scratch: Scratch,
    again: Callable[[], Iterator[bytes]] | None = None,
) -> Made:
    """Seal one message for ``cleared``. ``key`` and ``iv`` are fresh and used nowhere else. Raises BadData.

    All of ``message`` is read before this returns. Nothing of it but ciphertext is kept, in ``scratch``; and nothing at all
    when ``again`` gives its octets a second time: then they are only measured and checked here, and sealed while ``octets``
    is read.
    """
    taken = take_message(message)
    parts, body, lf_only = taken.parts, taken.body, taken.lf_only
    notes = ["lines ended with LF; they were converted to CRLF before sealing"] if lf_only else []
    if again is None:
        lines = _kept(joined(parts.inner, body), cleared, suite, key, iv, scratch)
    else:
        length = len(parts.inner) + sum(map(len, body))
        lines = sealed_lines(joined(parts.inner, body_again(again(), lf_only)), length, suite, key, iv, cleared)
    outer = b"".join(field.line for field in parts.outer(suite)) + b"\r\n"
    return Made(joined(outer, lines), tuple(notes))


def _kept(
    content: Iterable[bytes], cleared: Sequence[Cleared], suite: Suite, key: bytes, iv: bytes, scratch: Scratch
) -> Iterator[bytes]:
    sealer = ContentSealer(suite, key, iv)
    length = 0
    for chunk in content:
        sealed = sealer.update(chunk)
        scratch.write(sealed)
        length += len(sealed)
    sealed = sealer.finish()
    scratch.write(sealed)
    length += len(sealed)
    head, tail = envelope(suite, key, cleared, iv, length, sealer.tag)
    check_built(head, tail, length, cleared)
    return held_lines(head, scratch.chunks(), tail)
