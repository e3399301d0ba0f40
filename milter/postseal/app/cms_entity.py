"""Messages and MIME entities as they stand: a header, a body, and the CMS object that the body may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from postseal.app.cms_intake import header_end, header_fields, refuse, uses_lf
from postseal.core.cms import armour
from postseal.core.cms.classify import smime_body
from postseal.core.cms.multipart import smime_signed
from postseal.core.cms.signed_reader import object_type
from postseal.core.errors import BadData
from postseal.core.message import HEADER_LIMIT, Field, HeaderFault, header_length, parse_header


class Kind(StrEnum):
    """What one layer of a message is."""

    ENCRYPTED = "encrypted"
    SIGNED = "signed"
    CLEAR_SIGNED = "clear-signed"
    COMPRESSED = "compressed"
    CERTIFICATES = "certificates"


_TYPES = {
    "1.2.840.113549.1.7.2": Kind.SIGNED,
    "1.2.840.113549.1.7.3": Kind.ENCRYPTED,
    "1.2.840.113549.1.9.16.1.23": Kind.ENCRYPTED,
    "1.2.840.113549.1.9.16.1.9": Kind.COMPRESSED,
}


@dataclass(frozen=True, slots=True)
class Entity:
    """``fields`` is None for a bare CMS object; ``lf_only`` tells that lines end with LF in ``body``."""

    fields: tuple[Field, ...] | None = field(repr=False)
    body: bytes = field(repr=False)
    lf_only: bool = False

    @property
    def is_multipart_signed(self) -> bool:
        return self.fields is not None and smime_signed(self.fields)

    @property
    def is_cms(self) -> bool:
        """Is all of it one CMS object, by what the header says (RFC 8551 §3.9)?"""
        return self.fields is None or smime_body(self.fields) is not None

    def crlf_body(self) -> bytes:
        """The body in canonical form (RFC 8551 §3.1.1), for a message that is kept with LF."""
        if not self.lf_only:
            return self.body
        body = self.body.replace(b"\r\n", b"\n") if b"\r" in self.body else self.body
        return body.replace(b"\n", b"\r\n")

    def cms_octets(self) -> bytes:
        """The CMS object. Raises BadData."""
        octets = armour.cms_octets(self.fields or (), self.body, lenient=True)
        if not octets:
            raise BadData("the message can't be opened: its transfer encoding is damaged or unknown")
        return octets


def take_entity(octets: bytes, secret: bool = False) -> Entity:
    """A message, or a bare CMS object in BER or PEM. Raises BadData for a header that can't be read in one way only, which says
    nothing of what stands in it when it was ``secret``.
    """
    # A SEQUENCE of 128 octets or more, or of indefinite length: no header begins so.
    if octets[:1] == b"\x30" and octets[1:2] >= b"\x80":
        return Entity(None, octets)
    if octets[:11] == b"-----BEGIN " and armour.from_pem(octets, lenient=True) is not None:
        return Entity(None, octets)
    lf_only = uses_lf(octets)
    end = header_end(octets, lf_only) or len(octets)
    if end > HEADER_LIMIT:
        raise refuse("mail.header-too-large", f"no empty line in the first {HEADER_LIMIT} octets")
    header = octets[:end].replace(b"\n", b"\r\n") if lf_only else octets[:end]
    return Entity(header_fields(header, secret), octets[end:], lf_only)


def looks_like_entity(octets: bytes) -> bool:
    """May the content of a bare CMS object be another layer? It is one only when its header says so."""
    if octets[:1] == b"\x30" and octets[1:2] >= b"\x80":
        return cms_kind(octets) is not None
    start = octets[:HEADER_LIMIT].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    end = header_length(start)
    if end is None:
        return False
    fields = parse_header(start[:end])
    return not isinstance(fields, HeaderFault) and (smime_body(fields) is not None or smime_signed(fields))


def sealed_as_a_whole(covered: bytes) -> bool:
    """Is what is clear-signed one encrypted CMS object, with nothing beside it (RFC 2634 §1.1)? Never raises."""
    if not looks_like_entity(covered[:HEADER_LIMIT]):
        return False
    try:
        entity = take_entity(covered)
        return entity.fields is not None and entity.is_cms and cms_kind(entity.cms_octets()) is Kind.ENCRYPTED
    except BadData:
        return False


def cms_kind(octets: bytes) -> Kind | None:
    """What a CMS object says it is; None for what isn't a layer of mail."""
    return _TYPES.get(object_type(octets))
