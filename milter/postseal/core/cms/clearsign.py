"""A message is signed: as multipart/signed, which every mail reader shows, or opaque (RFC 8551 §3.5, RFC 1847).

Signed is the entity and nothing else: its Content-* fields, an empty line, its body. ``prepared`` makes it one that comes
through any transport, or says why only the opaque form does. Parts that are signed already keep their octets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from postseal.core.cms.lines import base64_blocks
from postseal.core.cms.seven_bit import Entity, seven_bit, without_margins
from postseal.core.cms.signing import Signing
from postseal.core.cms.smime import DEFAULT_TYPE, Split, opaque_dress
from postseal.core.errors import BadData
from postseal.core.message import Field

# RFC 2046 §5.1.1: what a boundary may consist of; a space and some others are left out, since readers differ on them.
_BOUNDARY = re.compile(r"[0-9A-Za-z'+_\-./=]{1,70}\Z")

# RFC 8551 §3.3: the Content-* fields of opaque signed mail.
OPAQUE_DRESS = opaque_dress(b"signed-data")

# Folds are CRLF and a space: whoever copies a message from a window loses tabs.
_SIGNATURE_HEADER = (
    b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\n"
    b"Content-Transfer-Encoding: base64\r\n"
    b"Content-Disposition: attachment; filename=smime.p7s\r\n"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The entity to sign. ``only_opaque`` says in words why it wouldn't survive as multipart/signed, or is empty."""

    entity: Entity
    only_opaque: str = ""
    notes: tuple[str, ...] = ()


def prepared(parts: Split, body: bytes) -> Prepared:
    """The entity of a message for multipart/signed. ``parts`` has no fault, ``body`` has CRLF line ends."""
    given = Entity(parts.content, body)
    notes = []
    entity = without_margins(given)
    if entity is not given and not body.rstrip(b"\r\n").endswith(entity.body.rstrip(b"\r\n")):
        notes.append("text behind the last part, which mail programs don't show, was left out")
    if any(field is DEFAULT_TYPE for field in parts.content) and not body.isascii():
        entity = Entity(_with_charset(entity), entity.body)
    survivor = seven_bit(entity)
    if isinstance(survivor, str):
        return Prepared(given, survivor)
    if survivor is not entity:
        notes.append("parts were encoded before signing, because relays would have changed them")
    return Prepared(survivor, "", tuple(notes))


def _with_charset(entity: Entity) -> tuple[Field, ...]:
    """8-bit text without any Content-Type: encoded it must have a charset (RFC 2045 §5.2 gives it US-ASCII, which it isn't)."""
    try:
        entity.body.decode("utf-8")
        charset = b"utf-8"
    except UnicodeDecodeError:
        # RFC 1428 §3: octets of whatever charset.
        charset = b"unknown-8bit"
    typed = Field(b"Content-Type", b" text/plain; charset=" + charset)
    return tuple(typed if field is DEFAULT_TYPE else field for field in entity.fields)


class ClearSigned:
    """One multipart/signed body at work: ``head``, ``update`` …, ``finish``; what they return is the body, in order.

    ``boundary`` is random, and the caller's; ``update`` refuses content in which it occurs.
    """

    __slots__ = ("_delimiter", "_kept", "_signing", "dress", "head")

    def __init__(self, fields: Iterable[Field], signing: Signing, boundary: str) -> None:
        """``fields`` are the header of the entity: its Content-* fields."""
        if not _BOUNDARY.match(boundary):
            raise BadData("a boundary consists of 1 to 70 letters, digits and '+_-./= (RFC 2046 §5.1.1)")
        self._signing = signing
        self._delimiter = b"--" + boundary.encode("ascii")
        self._kept = b""
        header = b"".join(field.line for field in fields) + b"\r\n"
        # RFC 1847 §2.1, RFC 8551 §3.5.3: without preamble, so that nothing stands in the body that isn't signed.
        self.head = self._delimiter + b"\r\n" + self.update(header)
        self.dress = (_multipart_type(signing.micalg, boundary),)

    def update(self, chunk: bytes) -> bytes:
        """The next octets of the entity, as they go out. Raises BadData when the boundary is among them."""
        if not chunk:
            return b""
        if self._delimiter in (self._kept + chunk[: len(self._delimiter)]) or self._delimiter in chunk:
            raise BadData("the boundary occurs in the content")
        self._kept = (self._kept + chunk[-len(self._delimiter) :])[-len(self._delimiter) :]
        self._signing.update(chunk)
        return chunk

    def finish(self) -> bytes:
        """The signature's part and the end of the body."""
        signature = b"".join(base64_blocks((self._signing.finish(),)))
        before, after = self._around_signature()
        return before + signature + after

    def _around_signature(self) -> tuple[bytes, bytes]:
        # RFC 2046 §5.1.1: the CRLF before a delimiter is the delimiter's and isn't signed.
        before = b"\r\n" + self._delimiter + b"\r\n" + _SIGNATURE_HEADER + b"\r\n"
        # Outlook calls a message changed that has text behind the last boundary: no epilogue either.
        return before, self._delimiter + b"--\r\n"

    @property
    def tail_length(self) -> int:
        """Octets of what ``finish`` will return, asked for before it is called."""
        return sum(map(len, self._around_signature())) + encoded_length(self._signing.detached_length)


def encoded_length(octets: int) -> int:
    """Octets of CRLF lines of base64 (RFC 2045 §6.8)."""
    characters = 4 * -(-octets // 3)
    return characters + 2 * -(-characters // 76)


def _multipart_type(micalg: str, boundary: str) -> Field:
    # RFC 8551 §3.5.3.2: several algorithms are a list with commas, and that must be quoted.
    quoted = f'"{micalg}"' if "," in micalg else micalg
    value = f' multipart/signed; protocol="application/pkcs7-signature";\r\n micalg={quoted}; boundary="{boundary}"'
    return Field(b"Content-Type", value.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Dressed:
    """An entity whose length is known before it is there: its Content-* fields, and its body in chunks, to be read once."""

    fields: tuple[Field, ...]
    length: int
    chunks: Iterator[bytes]


def clear_signed(entity: Entity, signing: Signing, boundary: str) -> Dressed:
    """multipart/signed around ``entity``. Raises BadData, at once, for a bad boundary."""
    made = ClearSigned(entity.fields, signing, boundary)

    def octets() -> Iterator[bytes]:
        yield made.head
        yield made.update(entity.body)
        yield made.finish()

    return Dressed(made.dress, len(made.head) + len(entity.body) + made.tail_length, octets())


def opaque_signed(fields: Iterable[Field], body: Iterable[bytes], length: int, signing: Signing) -> Dressed:
    """application/pkcs7-mime, in base64 lines, around an entity whose body has ``length`` octets.

    Raises BadData in the end when the length isn't what was said.
    """
    header = b"".join(field.line for field in fields) + b"\r\n"
    inner = len(header) + length
    head = signing.head(inner)

    def octets() -> Iterator[bytes]:
        yield head
        signing.update(header)
        yield header
        for chunk in body:
            signing.update(chunk)
            yield chunk
        yield signing.tail()

    return Dressed(OPAQUE_DRESS, encoded_length(len(head) + inner + signing.tail_length), base64_blocks(octets()))
