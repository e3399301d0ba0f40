"""From a body as mail brings it to the octets of its CMS object: transfer encodings and PEM undone (RFC 2045 §6, RFC 7468).

Two ways of reading. Strict is for deciding what a message is: then nothing may stand beside the encoding, or plain text could
pass for encrypted (THR-11). Lenient is for opening, where what stands beside it is left out of what comes out anyway.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Sequence

import pybase64

from postseal.core.errors import BadData
from postseal.core.message import Field

_BLANK = b" \t\r\n"
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/= \t\r\n]")
_STRETCH = re.compile(rb"([^=]+)=*")
_CHUNK = 65536
_FREE_PIECES = 65_536
_LEAST_AVERAGE = 12
# RFC 7468 §8 and §9, and what OpenSSL and gpgsm call it.
# One way only to the end of the first line: two of them make a body of empty lines take hours.
_PEM = re.compile(
    rb"-----BEGIN (CMS|PKCS7|PKCS #7 SIGNED DATA|(?:ENCRYPTED|SIGNED) MESSAGE)-----[ \t]*\r?\n([^-]*)-----END \1-----\s*"
)
_DAMAGED = "the transfer encoding is damaged: it isn't base64"
# RFC 2045 §6.1: what doesn't change the octets.
_IDENTITY = (b"7bit", b"8bit", b"binary")


class Base64Decoder:
    """Base64 in chunks cut anywhere. Blanks and line ends mean nothing.

    Lenient: the padding at the end may be missing, what begins with a line that holds other characters isn't part of it
    (footers of mailing lists), and each of several encodings one behind the other may have its padding.
    ``left_out`` counts octets that were passed over.
    """

    __slots__ = ("_ended", "_held", "_lenient", "_pieces", "_seen", "left_out")

    def __init__(self, lenient: bool = False) -> None:
        self._lenient = lenient
        self._held = b""
        self._ended = False
        self._pieces = self._seen = 0
        self.left_out = 0

    def update(self, chunk: bytes) -> bytes:
        """As much as is complete. Raises BadData."""
        text = chunk.translate(None, _BLANK)
        if self._ended:
            if text and not self._lenient:
                raise BadData(_DAMAGED)
            self.left_out += len(text)
            return b""
        if self._held:
            text = self._held + text
        ready = len(text) & ~3
        self._held = text[ready:]
        if self._lenient and _FOREIGN.search(self._held):
            return self._piecewise(text, chunk)
        if not ready:
            return b""
        try:
            octets = pybase64.b64decode(text[:ready] if self._held else text, validate=True)
        except (binascii.Error, ValueError) as exc:
            if not self._lenient:
                raise BadData(_DAMAGED) from exc
            return self._piecewise(text, chunk)
        if text.endswith(b"=", 0, ready) and not self._lenient:
            # RFC 2045 §6.8: the padding is the end.
            self._ended = True
            if self._held:
                raise BadData(_DAMAGED)
        return octets

    def finish(self) -> bytes:
        """The rest. Raises BadData."""
        if self._ended:
            return b""
        self._ended = True
        if self._held and not self._lenient:
            raise BadData(_DAMAGED)
        return _padded(self._held)

    def _piecewise(self, text: bytes, chunk: bytes) -> bytes:
        """What is good of a chunk with other characters, or padding on the way."""
        foreign = _FOREIGN.search(chunk)
        if foreign is not None:
            end = chunk.rfind(b"\n", 0, foreign.start()) + 1
            beside = len(chunk[end:].translate(None, _BLANK))
            self._ended = True
            self.left_out += beside
            text = text[: max(0, len(text) - beside)]
        found = []
        stretches = [match.group() for match in _STRETCH.finditer(text)]
        # THR-7: who pads does it by line, or by object.
        self._pieces += len(stretches)
        self._seen += len(text)
        if self._pieces > _FREE_PIECES and self._seen < _LEAST_AVERAGE * self._pieces:
            raise BadData(_DAMAGED)
        # The last stretch isn't complete, unless its padding is there or nothing follows.
        self._held = b""
        if stretches and not self._ended and not stretches[-1].endswith(b"="):
            last = stretches.pop()
            ready = len(last) & ~3
            self._held = last[ready:]
            stretches.append(last[:ready])
        for stretch in stretches:
            found.append(_padded(stretch))
        return b"".join(found)


def _padded(text: bytes) -> bytes:
    bare = text.rstrip(b"=")
    try:
        return pybase64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadData(_DAMAGED) from exc


def decode_base64(chunks: Iterable[bytes], decoder: Base64Decoder) -> Iterator[bytes]:
    """The octets of a body that comes in chunks. Raises BadData."""
    for chunk in chunks:
        if octets := decoder.update(chunk):
            yield octets
    if octets := decoder.finish():
        yield octets


def encoding_of(fields: Sequence[Field]) -> bytes | None:
    """The content transfer encoding in lower case; None when there are two."""
    encodings = [field for field in fields if field.named(b"content-transfer-encoding")]
    if len(encodings) > 1:
        return None
    return encodings[0].unfolded.lower() if encodings else b"7bit"


def decode_body(fields: Sequence[Field], body: bytes, lenient: bool = False) -> bytes | None:
    """The body without its transfer encoding (RFC 2045 §6); None when it can't be decoded without guessing."""
    encoding = encoding_of(fields)
    if encoding == b"base64":
        return _base64(body, lenient)
    if encoding == b"quoted-printable":
        # a2b_qp drops what stands between "=", a bare CR and the next LF: plain text could hide there.
        if body.count(b"\r") != body.count(b"\r\n"):
            return None
        return binascii.a2b_qp(body)
    return body if encoding in _IDENTITY else None


def cms_octets(fields: Sequence[Field], body: bytes, lenient: bool = False) -> bytes | None:
    """The octets of what should be a CMS object: the transfer encoding undone, and PEM or base64 that nothing told of."""
    octets = decode_body(fields, body, lenient)
    if octets is None or octets[:1] == b"\x30":
        return octets
    if octets[:_CHUNK].lstrip(_BLANK).startswith(b"-----BEGIN "):
        return from_pem(octets, lenient)
    # Base64 without a header that says so; what isn't that is left as it is, for a clear word about it.
    plain = _base64(octets, lenient)
    return plain if plain and plain[:1] == b"\x30" else octets


def from_pem(octets: bytes, lenient: bool = False) -> bytes | None:
    """The object in the one PEM block that ``octets`` are, strictly with nothing beside it."""
    start = octets.find(b"-----BEGIN ")
    match = _PEM.match(octets, start) if start >= 0 else None
    if match is None:
        return None
    if not lenient and (match.end() != len(octets) or octets[:start].strip(_BLANK)):
        return None
    return _base64(match[2], lenient)


def _base64(body: bytes, lenient: bool) -> bytes | None:
    if octets := _even_lines(body):
        return octets
    view = memoryview(body)
    chunks = (bytes(view[start : start + _CHUNK]) for start in range(0, len(body), _CHUNK))
    try:
        return b"".join(decode_base64(chunks, Base64Decoder(lenient)))
    except BadData:
        return None


def _even_lines(body: bytes) -> bytes | None:
    """Base64 in lines of one length, as everybody writes it, decoded without a copy of the text; else None.

    The library passes over foreign characters. It passed over nothing but the line ends when these and four characters for
    each three octets are all that there is.
    """
    line = body.find(b"\r\n")
    if line <= 0:
        return None
    whole = len(body) - len(body) % (line + 2)
    lines = whole // (line + 2)
    ends = body[line : whole : line + 2], body[line + 1 : whole : line + 2]
    if ends != (b"\r" * lines, b"\n" * lines):
        return None
    try:
        octets = pybase64.b64decode(body)
    except (binascii.Error, ValueError):
        return None
    line_ends = 2 * lines + 2 * body.count(b"\r\n", whole)
    return octets if 4 * -(-len(octets) // 3) + line_ends == len(body) else None
