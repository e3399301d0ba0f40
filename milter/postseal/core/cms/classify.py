"""What a message is: its transfer encoding undone, and whether it is signed, encrypted, or only says so (RFC 8551 §3.9)."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import pybase64

from postseal.core.cms import structures as cms
from postseal.core.cms.parse import well_formed_type
from postseal.core.message import ContentType, Field, only, parse_content_type, parse_disposition
from postseal.core.policy import Protection

_SMIME_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")


def decode_body(fields: Sequence[Field], body: bytes) -> bytes | None:
    """The body without its transfer encoding (RFC 2045 §6); None when it can't be decoded without guessing."""
    encodings = [field for field in fields if field.named(b"content-transfer-encoding")]
    if len(encodings) > 1:
        return None
    encoding = encodings[0].unfolded.lower() if encodings else b"7bit"
    if encoding == b"base64":
        try:
            # RFC 2045 §6.8 lets a reader skip foreign characters; what hides between them is not part of a sealed message.
            return _even_lines(body) or pybase64.b64decode(body.translate(None, b" \t\r\n"), validate=True)
        except (binascii.Error, ValueError):
            return None
    if encoding == b"quoted-printable":
        # a2b_qp drops what stands between "=", a bare CR and the next LF: plain text could hide there.
        if body.count(b"\r") != body.count(b"\r\n"):
            return None
        return binascii.a2b_qp(body)
    return body if encoding in (b"7bit", b"8bit", b"binary") else None


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
    octets = pybase64.b64decode(body)
    line_ends = 2 * lines + 2 * body.count(b"\r\n", whole)
    return octets if 4 * -(-len(octets) // 3) + line_ends == len(body) else None


def smime_body(fields: Sequence[Field]) -> ContentType | None:
    """The Content-Type when it says that the body is one CMS object (RFC 8551 §3.9), else None."""
    field = only(fields, b"content-type")
    content_type = parse_content_type(field.value) if field else None
    if content_type is None or content_type.media in _SMIME_TYPES:
        return content_type
    # RFC 8551 §3.9: a gateway may have lost the type; the name is what is left.
    if content_type.media == "application/octet-stream":
        disposition = only(fields, b"content-disposition")
        filename = parse_disposition(disposition.value).get("filename", "") if disposition else ""
        names = (content_type.parameters.get("name", ""), filename)
        if any(name.lower().endswith(".p7m") for name in names):
            return content_type
    return None


def classify(fields: Sequence[Field], body: bytes) -> Protection:
    """What a message already is. ENCRYPTED only when the type says so and the body is one well-formed encrypted CMS object."""
    field = only(fields, b"content-type")
    declared = parse_content_type(field.value) if field else None
    if declared is not None and declared.media == "multipart/signed":
        return Protection.SIGNED
    claimed = smime_body(fields)
    if claimed is None:
        return Protection.NONE
    octets = decode_body(fields, body)
    kind = None if octets is None else well_formed_type(octets)
    if kind is not None:
        if kind in (cms.ENVELOPED_DATA, cms.AUTH_ENVELOPED_DATA):
            return Protection.ENCRYPTED
        return Protection.SIGNED if kind == cms.SIGNED_DATA else Protection.NONE
    says_signed = claimed.parameters.get("smime-type", "").lower() in ("signed-data", "certs-only", "compressed-data")
    return Protection.NONE if says_signed else Protection.CLAIMED_ONLY
