"""A sealed message opened as a stream: its octets are held once, decoded, and the content goes out as it is decrypted.

That is for a message with one layer, as most are. What has more of them, or another form, is opened in whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import cast

from postseal.app.cms_entity import Entity, Kind
from postseal.app.cms_intake import uses_lf
from postseal.app.cms_layers import Layer, Opened, Opening, left_out, open_message, opened_header
from postseal.core.cms.armour import Base64Decoder, decode_base64, encoding_of
from postseal.core.cms.classify import smime_body
from postseal.core.cms.opening import unseal
from postseal.core.der import Octets
from postseal.core.message import HEADER_LIMIT, Field, HeaderFault, header_length, parse_header

# OBJECT IDENTIFIERs of EnvelopedData and AuthEnvelopedData, which stand behind at most two lengths.
_ENCRYPTED = (bytes.fromhex("06092a864886f70d010703"), bytes.fromhex("060b2a864886f70d0109100117"))
_PREFIX = 32
_GLANCE = 4096


def open_stream(chunks: Iterable[bytes], opening: Opening) -> tuple[Opened, Iterator[bytes]]:
    """``open_message`` for a message in chunks: the account, with no octets in it, and the message in clear.

    Tag or padding have been checked when it returns; of the message in clear nothing is held.
    """
    source = iter(chunks)
    taken = _beginning(source)
    outer = _sealed(taken) if opening.holders else None
    if outer is None:
        return _whole(b"".join((taken, *source)), opening)
    # It grows where it is; joining pieces would hold them twice.
    octets = bytearray()
    for piece in decode_base64(chain((outer.body,), source), Base64Decoder(lenient=True)):
        octets += piece
    unsealed = unseal(cast("Octets", octets), opening.holders, opening.reading)
    plain = unsealed.chunks()
    inner, held = _inner(plain)
    if inner is None:
        # More layers, or content that needs care: all of it at once.
        binary = Entity(_without_encoding(outer), bytes(octets))
        return _whole(bytes(octets), opening, binary)
    layer = Layer(Kind.ENCRYPTED, unsealed.cipher, unsealed.authenticated, notes=unsealed.notes)
    header = opened_header(outer.fields or (), inner.fields or ())
    return Opened(b"", (layer,), tuple(left_out(inner, outer))), chain((header, held), plain)


def _whole(message: bytes, opening: Opening, entity: Entity | None = None) -> tuple[Opened, Iterator[bytes]]:
    opened = open_message(message, opening, entity)
    return opened, iter((opened.octets,))


def _beginning(source: Iterator[bytes]) -> bytes:
    """The header, and some of the body."""
    taken = bytearray()
    for chunk in source:
        taken += chunk
        end = header_length(bytes(taken[:HEADER_LIMIT]))
        if (end is not None and len(taken) >= end + _GLANCE) or len(taken) > HEADER_LIMIT + _GLANCE:
            break
    return bytes(taken)


def _sealed(taken: bytes) -> Entity | None:
    """The header and the beginning of the body of an encrypted message in base64, lines ending with CRLF; else None."""
    end = header_length(taken[:HEADER_LIMIT])
    fields = None if end is None or uses_lf(taken) else parse_header(taken[:end])
    if fields is None or isinstance(fields, HeaderFault) or smime_body(fields) is None:
        return None
    first = taken[end:] if encoding_of(fields) == b"base64" else b""
    prefix = Base64Decoder(lenient=True).update(first[:_GLANCE])[:_PREFIX]
    return Entity(fields, first) if any(oid in prefix for oid in _ENCRYPTED) else None


def _inner(plain: Iterator[bytes]) -> tuple[Entity | None, bytes]:
    """(the header of the content, what of its body has come); None when it isn't to be passed on as it is."""
    taken = bytearray()
    for chunk in plain:
        taken += chunk
        if header_length(bytes(taken)) is not None or len(taken) > HEADER_LIMIT:
            break
    octets = bytes(taken)
    end = header_length(octets[:HEADER_LIMIT])
    fields = None if end is None or uses_lf(octets) else parse_header(octets[:end])
    if fields is None or isinstance(fields, HeaderFault):
        return None, b""
    entity = Entity(fields, b"")
    if entity.is_cms or entity.is_multipart_signed:
        return None, b""
    return entity, octets[end:]


def _without_encoding(outer: Entity) -> tuple[Field, ...]:
    return tuple(field for field in outer.fields or () if not field.named(b"content-transfer-encoding"))
