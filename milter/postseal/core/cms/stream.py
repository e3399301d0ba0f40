"""Sealing without holding anything: the plaintext's length is known, so every length of the DER can be written before it comes.

A chunk is encrypted straight behind what the last one left of a block, and every full block leaves as lines of base64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cryptography.hazmat import asn1

from postseal.core.cms.built import check_built
from postseal.core.cms.content import PIECE, TAG_LENGTH, ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.lines import BLOCK, base64_blocks, encoded_block, encoded_lines
from postseal.core.errors import BadData
from postseal.core.policy import Cleared
from postseal.core.suite import Suite

# Ciphertext that doesn't fill a block yet; a message in preparation holds one. New ones would have to be cleared each time.
_buffers: list[bytearray] = []


def sealed_lines(
    chunks: Iterable[bytes], length: int, suite: Suite, key: bytes, iv: bytes, cleared: Sequence[Cleared]
) -> Iterator[bytes]:
    """``length`` octets of plaintext in chunks -> a ContentInfo in CRLF lines of base64, at most 65 520 octets at once.

    Raises BadData at once for recipients that can't be used, and in the end when ``chunks`` hold more or less than ``length``:
    then what came out is no message and must not be sent. ``key`` and ``iv`` are fresh and used nowhere else.
    """
    # RFC 5652 §6.3: CBC pads to whole blocks, always. RFC 5084 §3.2: GCM doesn't, and its tag stands apart.
    sealed_length = length if suite.gcm else length + 16 - length % 16
    # The tag follows the content and has a fixed length: until it is known, octets of that length stand for it.
    head, tail = envelope(suite, key, cleared, iv, sealed_length, bytes(TAG_LENGTH) if suite.gcm else b"")
    check_built(head, tail, sealed_length, cleared)
    return _lines(head, chunks, length, ContentSealer(suite, key, iv))


def held_lines(head: bytes, sealed: Iterable[bytes], tail: bytes) -> Iterator[bytes]:
    """The same for ciphertext that was kept until its length was known: an envelope around ``sealed``, in lines."""
    return base64_blocks(_around(head, sealed, tail))


def _around(head: bytes, middle: Iterable[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from middle
    if tail:
        yield tail


def _lines(head: bytes, chunks: Iterable[bytes], length: int, sealer: ContentSealer) -> Iterator[bytes]:
    # One piece behind all but the last octet of a block, and what the cipher wants to have free behind that.
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = bytearray(BLOCK + PIECE + 16)
    try:
        yield from _through(memoryview(buffer), head, chunks, length, sealer)
    finally:
        _buffers.append(buffer)


def _through(
    room: memoryview, head: bytes, chunks: Iterable[bytes], length: int, sealer: ContentSealer
) -> Iterator[bytes]:
    whole = len(head) - len(head) % BLOCK
    for start in range(0, whole, BLOCK):
        yield encoded_block(head[start : start + BLOCK])
    filled = len(head) - whole
    room[:filled] = head[whole:]
    left = length
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        for start in range(0, len(chunk), PIECE):
            piece = chunk if len(chunk) <= PIECE else memoryview(chunk)[start : start + PIECE]
            filled += sealer.update_into(piece, room[filled:])
            done = 0
            while filled - done >= BLOCK:
                yield encoded_block(room[done : done + BLOCK])
                done += BLOCK
            if done:
                filled -= done
                room[:filled] = room[done : done + filled]
    if left:
        raise BadData(f"the message is not as long as it was said to be: {length - left} octets or more, not {length}")
    rest = sealer.finish()
    if sealer.tag:
        rest += asn1.encode_der(sealer.tag)
    # Less than a block is held, and what follows it is shorter than a line.
    room[filled : filled + len(rest)] = rest
    filled += len(rest)
    if filled >= BLOCK:
        yield encoded_block(room[:BLOCK])
        if filled > BLOCK:
            yield encoded_lines(room[BLOCK:filled])
    elif filled:
        yield encoded_lines(room[:filled])
