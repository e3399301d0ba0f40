"""Encrypted CMS taken apart: bytes from strangers -> ``Enveloped``, bounded, nothing raised but BadData."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.cms import structures as cms
from postseal.core.cms.ber import check_bounds, to_der
from postseal.core.errors import BadData

_MAX_RECIPIENTS = 2000


@dataclass(frozen=True, slots=True)
class Enveloped:
    """A parsed EnvelopedData or (``authenticated``) AuthEnvelopedData. ``aad`` is the DER of the authenticated attributes."""

    authenticated: bool
    recipients: tuple[cms.RecipientInfo, ...]
    content_type: Oid
    cipher: Oid
    parameters: asn1.TLV | None
    content: bytes
    mac: bytes
    aad: bytes


def parse_enveloped(octets: bytes) -> Enveloped:
    """One CMS object in DER or BER, nothing after it. Raises BadData when it is no Enveloped- or AuthEnvelopedData."""
    try:
        return _parse(_bounded(octets))
    except ValueError:
        pass  # not DER; perhaps BER
    try:
        return _parse(to_der(octets))
    except ValueError as exc:
        raise BadData(f"not an encrypted CMS message: {exc}") from exc


def well_formed_type(octets: bytes) -> Oid | None:
    """The type of a CMS object in DER or BER; of the encrypted types only when all of it is well formed, else None."""
    for form in (_bounded, to_der):
        try:
            der = form(octets)
            kind = asn1.decode_der(cms.ContentInfo, der).content_type
            if kind in (cms.ENVELOPED_DATA, cms.AUTH_ENVELOPED_DATA):
                _parse(der)
            return kind
        except ValueError:
            continue
        except BadData:
            return None
    return None


def _bounded(octets: bytes) -> bytes:
    """THR-7: what the parser is given unchanged is walked first; it has no bounds of its own. ``to_der`` has."""
    check_bounds(octets)
    return octets


def _parse(der: bytes) -> Enveloped:
    """Raises ValueError for what isn't DER of the right shape, BadData for the right shape with wrong values."""
    info = asn1.decode_der(cms.ContentInfo, der)
    if info.content_type == cms.ENVELOPED_DATA:
        plain = info.content.parse(cms.EnvelopedData)
        return _enveloped(plain.recipient_infos, plain.encrypted_content_info, None)
    if info.content_type == cms.AUTH_ENVELOPED_DATA:
        auth = info.content.parse(cms.AuthEnvelopedData)
        return _enveloped(auth.recipient_infos, auth.encrypted_content_info, auth)
    raise BadData(f"not an encrypted CMS message: it is of type {info.content_type.dotted_string}")


def _enveloped(
    infos: cms.RecipientInfos, eci: cms.EncryptedContentInfo, auth: cms.AuthEnvelopedData | None
) -> Enveloped:
    recipients = tuple(infos.as_list())
    # RFC 5652 §6.1: SET SIZE (1..MAX); the upper bound is ours.
    if not 1 <= len(recipients) <= _MAX_RECIPIENTS:
        raise BadData(f"not an encrypted CMS message: it has {len(recipients)} recipients")
    for info in recipients:
        if not isinstance(info, cms.OtherRecipientInfo):
            cms.algorithm_of(info.key_encryption_algorithm)
    if (eci.encrypted_content is None) == (eci.segments is None):
        raise BadData("not an encrypted CMS message: the content isn't in it")
    content = eci.encrypted_content if eci.encrypted_content is not None else b"".join(eci.segments or ())
    cipher, parameters = cms.algorithm_of(eci.content_encryption_algorithm)
    if cipher not in cms.CONTENT_CIPHERS and cipher not in cms.FOREIGN_CIPHERS:
        raise BadData(f"not an encrypted CMS message: unknown content cipher {cipher.dotted_string}")
    aad = b""
    if auth is not None and auth.authenticated_attributes is not None:
        # RFC 5083 §2.2: the AAD is the DER of the attributes with the tag of SET OF in place of [1].
        attributes = b"".join(sorted(asn1.encode_der(each) for each in auth.authenticated_attributes))
        aad = cms.header(0x31, len(attributes)) + attributes
    return Enveloped(
        auth is not None, recipients, eci.content_type, cipher, parameters, content, auth.mac if auth else b"", aad
    )
