"""Line ends checked (RFC 8551 §3.1.1), and octets as lines of base64 (RFC 2045 §6.8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

import pybase64


class LineCheck:
    """Finds a bare CR or a bare LF in a body that arrives in chunks; a CRLF may lie across two of them.

    NUL, 8-bit octets, lines over 998 octets and a missing last CRLF are no faults: they travel sealed, octet for octet.
    """

    __slots__ = ("_carry", "fault")

    def __init__(self) -> None:
        self._carry = False
        self.fault = ""

    def update(self, chunk: bytes) -> None:
        """Look at the next octets. Only the first fault counts."""
        if self.fault or not chunk:
            return
        if self._carry:
            chunk = b"\r" + chunk
        self._carry = chunk.endswith(b"\r")
        # As long as what it replaces: one search over a copy, with no counting before it. What is left then stands alone.
        rest = chunk.replace(b"\r\n", b"  ")
        if rest.find(b"\r", 0, len(rest) - self._carry) >= 0:
            self.fault = "mail.bare-cr"
        elif b"\n" in rest:
            self.fault = "mail.bare-lf"

    def finish(self) -> str:
        """The fault's code: ``mail.bare-cr``, ``mail.bare-lf`` or empty."""
        if self._carry and not self.fault:
            self.fault = "mail.bare-cr"
        return self.fault


# RFC 2045 §6.8: lines of 76. 840 of them with CRLF are 65 520 octets: the most that one SMFIR_REPLBODY (65 535) can carry.
_LINES = 840
BLOCK = 57 * _LINES
# The empty piece at the end makes ``join`` write the last CRLF too, instead of a copy of everything.
_UNPACK_BLOCK = Struct("76s" * _LINES + "0s").unpack
_UNPACK = {n: Struct("76s" * n).unpack_from for n in (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)}
# What doesn't fill a block yet waits in one of these; a message in preparation holds one.
_buffers: list[bytearray] = []


def base64_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Octets in chunks of any size -> base64 in CRLF lines; every block is whole lines and at most 65 520 octets."""
    try:
        # Asked first, another thread could take the last one in between.
        buffer = _buffers.pop()
    except IndexError:
        buffer = bytearray(BLOCK)
    room = memoryview(buffer)
    filled = 0
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            start, end = 0, len(view)
            if filled:
                start = min(BLOCK - filled, end)
                room[filled : filled + start] = view[:start]
                filled += start
                if filled < BLOCK:
                    continue
                yield encoded_block(buffer)
            while end - start >= BLOCK:
                yield encoded_block(view[start : start + BLOCK])
                start += BLOCK
            filled = end - start
            room[:filled] = view[start:]
        if filled:
            yield encoded_lines(room[:filled])
    finally:
        _buffers.append(buffer)


def encoded_block(data: bytes | bytearray | memoryview) -> bytes:
    """Exactly ``BLOCK`` octets -> 840 lines of base64."""
    return b"\r\n".join(_UNPACK_BLOCK(pybase64.b64encode(data)))


def encoded_lines(data: bytes | memoryview) -> bytes:
    """At most ``BLOCK`` octets, the last ones -> lines of base64."""
    encoded = pybase64.b64encode(data)
    full, rest = divmod(len(encoded), 76)
    if full == _LINES:
        return b"\r\n".join(_UNPACK_BLOCK(encoded))
    lines: list[bytes] = []
    offset = 0
    for count, unpack in _UNPACK.items():
        if full & count:
            lines += unpack(encoded, offset)
            offset += 76 * count
    if rest:
        lines.append(encoded[offset:])
    lines.append(b"")
    return b"\r\n".join(lines)
