"""The content of one message, encrypted while it arrives: once for each cipher suite that will probably be needed.

Plaintext passes through, never kept (THR-16). What must be read again (a clear copy, mail that says it is encrypted already,
a suite that turns out to be needed at the end) is decrypted from our own ciphertext with the key that we hold until then.
"""

from __future__ import annotations

import binascii
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from postseal.app.ports import Spool
from postseal.core.cms.built import check_built
from postseal.core.cms.content import ContentOpener, ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.lines import base64_blocks
from postseal.core.errors import BadData
from postseal.core.policy import Cleared
from postseal.core.suite import Suite

# RFC 5652 §6.1 and RFC 5083 §2: what a sealed body starts with, behind the header of its outermost SEQUENCE.
_ENVELOPED = bytes.fromhex("06092a864886f70d010703")
_AUTH_ENVELOPED = bytes.fromhex("060b2a864886f70d0109100117")


class _Stream:
    """One content key at work."""

    def __init__(self, suite: Suite, spool: Spool) -> None:
        self.suite = suite
        self.spool = spool
        self.key = secrets.token_bytes(suite.key_length)
        self.iv = secrets.token_bytes(suite.iv_length)
        self.sealer = ContentSealer(suite, self.key, self.iv)

    def update(self, chunk: bytes) -> None:
        sealed = self.sealer.update(chunk)
        if sealed:
            self.spool.append(sealed)

    def finish(self) -> None:
        self.spool.append(self.sealer.finish())

    def plain(self) -> Iterator[bytes]:
        opener = ContentOpener(self.suite, self.key, self.iv, self.sealer.tag)
        for sealed in self.spool:
            yield opener.update(sealed)
        yield opener.finish()


@dataclass(frozen=True, slots=True)
class SealedForm:
    """One envelope around a content. ``size`` is the octets of the body in base64 with CRLF."""

    head: bytes
    tail: bytes
    content: Iterable[bytes]
    size: int

    def body(self) -> Iterator[bytes]:
        """The body in blocks of whole lines, each under 64 KiB. Raises BadData unless the first one is CMS."""
        first = True
        for block in base64_blocks(self._octets()):
            if first:
                # THR-14: the last look at what leaves: whatever went wrong before, this must be CMS.
                assert_sealed(block)
                first = False
            yield block

    def _octets(self) -> Iterator[bytes]:
        yield self.head
        yield from self.content
        if self.tail:
            yield self.tail


def assert_sealed(body: bytes) -> None:
    """Raises BadData unless ``body``, base64, starts as a ContentInfo with enveloped data."""
    try:
        der = binascii.a2b_base64(body[:64], strict_mode=True)
    except binascii.Error as exc:
        raise BadData("what was built isn't base64") from exc
    length_octets = der[1] & 0x7F if len(der) > 1 and der[1] & 0x80 else 0
    if der[:1] != b"\x30" or not der[2 + length_octets :].startswith((_ENVELOPED, _AUTH_ENVELOPED)):
        raise BadData("what was built isn't a CMS envelope")


class Content:
    """The inner entity of a message under every suite in use. Use it from one thread at a time; ``close`` it at the end."""

    def __init__(self, suites: Sequence[Suite], new_spool: Callable[[], Spool], inner_header: bytes) -> None:
        """``inner_header`` is the header of the inner entity with its empty line; the body follows by ``update``.

        Raises Unavailable.
        """
        self._new_spool = new_spool
        self._streams = {suite: _Stream(suite, new_spool()) for suite in suites}
        self._header_length = len(inner_header)
        self.body_length = 0
        try:
            for stream in self._streams.values():
                stream.update(inner_header)
        except BaseException:
            # Nobody has this object yet who could.
            self.close()
            raise

    def update(self, chunk: bytes) -> None:
        """The next octets of the body. Raises Unavailable when ciphertext can't be kept."""
        self.body_length += len(chunk)
        for stream in self._streams.values():
            stream.update(chunk)

    def finish(self) -> None:
        """The body has ended."""
        for stream in self._streams.values():
            stream.finish()

    def body(self) -> Iterator[bytes]:
        """The body as it was received, decrypted back. Raises BadData when our own ciphertext is damaged."""
        left = self._header_length
        for chunk in next(iter(self._streams.values())).plain():
            if left:
                chunk, left = chunk[left:], max(0, left - len(chunk))
            if chunk:
                yield chunk

    def sealed(self, suite: Suite, cleared: Sequence[Cleared]) -> SealedForm:
        """An envelope for these certificates and no other, parsed back and compared. Raises BadData, and Unavailable when
        a suite that wasn't foreseen can't be kept."""
        stream = self._streams.get(suite) or self._again(suite)
        length = stream.spool.size
        head, tail = envelope(suite, stream.key, cleared, stream.iv, length, stream.sealer.tag)
        check_built(head, tail, length, cleared)
        characters = 4 * -(-(len(head) + length + len(tail)) // 3)
        return SealedForm(head, tail, stream.spool, characters + 2 * -(-characters // 76))

    def _again(self, suite: Suite) -> _Stream:
        """ALG-5: the same content under another suite, with a key of its own, from our ciphertext: plaintext is never kept."""
        old = next(iter(self._streams.values()))
        new = _Stream(suite, self._new_spool())
        try:
            for chunk in old.plain():
                new.update(chunk)
            new.finish()
        except BaseException:
            # A part of the message must never be taken for all of it.
            new.spool.close()
            raise
        self._streams[suite] = new
        return new

    def close(self) -> None:
        """Forget ciphertext and keys."""
        for stream in self._streams.values():
            stream.spool.close()
        self._streams = {}
