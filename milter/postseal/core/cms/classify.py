"""What a message is: signed, encrypted, or only said to be (RFC 8551 §3.9)."""

from __future__ import annotations

from collections.abc import Sequence

from postseal.core.cms import structures as cms
from postseal.core.cms.armour import cms_octets
from postseal.core.cms.parse import well_formed_type
from postseal.core.message import ContentType, Field, only, parse_content_type, parse_disposition
from postseal.core.policy import Protection

# RFC 8551 §3.2.1: names of files that are one CMS object in whole (a .p7s is a signature beside what it signs).
_NAMES = (".p7m", ".p7z")
_SMIME_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")


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
        if any(name.strip().lower().endswith(_NAMES) for name in names):
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
    octets = cms_octets(fields, body)
    kind = None if octets is None else well_formed_type(octets)
    if kind is not None:
        if kind in (cms.ENVELOPED_DATA, cms.AUTH_ENVELOPED_DATA):
            return Protection.ENCRYPTED
        return Protection.SIGNED if kind == cms.SIGNED_DATA else Protection.NONE
    says_signed = claimed.parameters.get("smime-type", "").lower() in ("signed-data", "certs-only", "compressed-data")
    return Protection.NONE if says_signed else Protection.CLAIMED_ONLY
