"""Line ends checked (RFC 8551 §3.1.1), and octets as lines of base64 (RFC 2045 §6.8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

import pybase64

_NO_LINE_ENDS = bytes(set(range(256)) - set(b"\r\n"))


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
        pairs = chunk.count(b"\r\n")
        # As many CR and LF as there are in pairs: none stands alone. Two passes in C; looking for either costs three.
        if 2 * pairs + self._carry != len(chunk.translate(None, _NO_LINE_ENDS)):
            self.fault = "mail.bare-cr" if chunk.count(b"\r") > pairs + self._carry else "mail.bare-lf"

    def finish(self) -> str:
        """The fault's code: ``mail.bare-cr``, ``mail.bare-lf`` or empty."""
        if self._carry and not self.fault:
            self.fault = "mail.bare-cr"
        return self.fault


# RFC 2045 §6.8: lines of 76. 840 of them with CRLF are 65 520 octets: the most that one SMFIR_REPLBODY (65 535) can carry.
_LINES = 840
_BLOCK = 57 * _LINES
_UNPACK = {n: Struct("76s" * n).unpack_from for n in (_LINES, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)}


def base64_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Octets in chunks of any size -> base64 in CRLF lines; every block is whole lines and at most 65 520 octets."""
    held: list[bytes | memoryview] = []
    missing = _BLOCK
    for chunk in chunks:
        view = memoryview(chunk)
        if held:
            if len(view) < missing:
                held.append(chunk)
                missing -= len(view)
                continue
            yield _lines(b"".join((*held, view[:missing])))
            view = view[missing:]
        whole = len(view) - len(view) % _BLOCK
        for start in range(0, whole, _BLOCK):
            yield _lines(view[start : start + _BLOCK])
        held = [bytes(view[whole:])] if whole < len(view) else []
        missing = _BLOCK - (len(view) - whole)
    if held:
        yield _lines(b"".join(held))


def _lines(data: bytes | memoryview) -> bytes:
    encoded = pybase64.b64encode(data)
    full, rest = divmod(len(encoded), 76)
    if full == _LINES:
        return b"\r\n".join(_UNPACK[_LINES](encoded)) + b"\r\n"
    lines: list[bytes] = []
    offset = 0
    for count in (512, 256, 128, 64, 32, 16, 8, 4, 2, 1):
        if full & count:
            lines += _UNPACK[count](encoded, offset)
            offset += 76 * count
    if rest:
        lines.append(encoded[offset:])
    return b"\r\n".join(lines) + b"\r\n"
