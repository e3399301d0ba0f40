"""Encrypted CMS taken apart: octets from strangers -> ``Enveloped``, bounded, nothing raised but BadData."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.cms import structures as cms
from postseal.core.cms.ber import Content, Walk, check_bounds, to_der
from postseal.core.der import Octets
from postseal.core.errors import BadData

_MAX_RECIPIENTS = 2000
_MAX_ATTRIBUTES = 200
# What may follow the last octet: a line end that the transport added to a binary body says nothing to anybody.
_BLANK = b"\r\n \t\x00"
_MAX_BLANK = 16


@dataclass(frozen=True, slots=True)
class Enveloped:
    """A parsed EnvelopedData or (``authenticated``) AuthEnvelopedData. ``aad`` is the DER of the authenticated attributes.

    ``content`` refers to the octets that were parsed: it isn't held a second time.
    """

    authenticated: bool
    recipients: tuple[cms.RecipientInfo, ...]
    content_type: Oid
    cipher: Oid
    parameters: asn1.TLV | None
    content: Content
    mac: bytes
    aad: bytes


def parse_enveloped(octets: Octets) -> Enveloped:
    """One CMS object in DER or BER, nothing after it. Raises BadData when it is no Enveloped- or AuthEnvelopedData."""
    walk = Walk(octets)
    try:
        kind = enter_content_info(walk)
        if kind not in (cms.ENVELOPED_DATA, cms.AUTH_ENVELOPED_DATA):
            raise BadData(f"not an encrypted CMS message: it is of type {kind.dotted_string}")
        enveloped = _enveloped(walk, kind == cms.AUTH_ENVELOPED_DATA)
    except ValueError as exc:
        raise BadData(f"not an encrypted CMS message: {exc}") from exc
    leave_content_info(walk)
    return enveloped


def well_formed_type(octets: Octets) -> Oid | None:
    """The type of a CMS object in DER or BER; of the encrypted types only when there may be a key that opens it, else None."""
    walk = Walk(octets)
    try:
        kind = enter_content_info(walk)
        if kind in (cms.ENVELOPED_DATA, cms.AUTH_ENVELOPED_DATA):
            if not could_be_opened(parse_enveloped(octets)):
                return None
        else:
            walk.skip()
            leave_content_info(walk)
    except (ValueError, BadData):
        return None
    return kind


def could_be_opened(enveloped: Enveloped) -> bool:
    """May there be a key that opens it? THR-11: content without IV, or of a length that its cipher never gives, or whose key
    was wrapped for nobody, is opened by no reader, and may be plain text that only says that it is encrypted.
    """
    known = cms.CONTENT_CIPHERS.get(enveloped.cipher)
    name = known[0] if known else cms.FOREIGN_CIPHERS[enveloped.cipher]
    # RFC 8551 §6: RC2 was used with 40 bits, which is no secret; mail with it is sealed once more.
    if name == "rc2-cbc" or not any(map(_holds_a_key, enveloped.recipients)):
        return False
    cbc = name.endswith("-cbc")
    # RFC 5083 §2.1: authenticated ciphers go with AuthEnvelopedData, others with EnvelopedData.
    if cbc == enveloped.authenticated or enveloped.parameters is None:
        return False
    if not cbc:
        # RFC 5084 §3.2, RFC 8103 §2: a tag of at least 4 octets; parameters are a SEQUENCE, or the nonce alone.
        form = b"\x04" if name == "chacha20-poly1305" else b"\x30"
        return 4 <= len(enveloped.mac) <= 16 and enveloped.parameters.tag_bytes == form
    block = 8 if name == "des-ede3-cbc" else 16
    try:
        iv = enveloped.parameters.parse(bytes)
    except ValueError:
        return False
    # RFC 5652 §6.3: padding is always there.
    return len(iv) == block and len(enveloped.content) > 0 and len(enveloped.content) % block == 0


def _holds_a_key(info: cms.RecipientInfo) -> bool:
    if isinstance(info, cms.KeyTransRecipientInfo):
        # An RSA key of 512 bits is the shortest that anybody ever used.
        return len(info.encrypted_key) >= 64
    if isinstance(info, cms.KeyAgreeRecipientInfo):
        # A wrapped key is 8 octets longer than the key, and no key here is shorter than 16.
        return any(len(each.encrypted_key) >= 24 for each in info.recipient_encrypted_keys)
    return isinstance(info, cms.OtherRecipientInfo) or len(info.encrypted_key) >= 24


def enter_content_info(walk: Walk) -> Oid:
    """RFC 5652 §3: into the content. Raises ValueError, BadData."""
    walk.enter(0x30)
    kind = asn1.decode_der(Oid, to_der(walk.part(0x06)))
    walk.enter(0xA0)
    return kind


def leave_content_info(walk: Walk) -> None:
    """Out of it, to the end of the octets. Raises BadData when anything but blanks follows."""
    walk.leave()
    walk.leave()
    rest = walk.rest()
    if len(rest) > _MAX_BLANK or rest.strip(_BLANK):
        raise BadData("not a CMS message: there is something after its end")


def _enveloped(walk: Walk, authenticated: bool) -> Enveloped:
    """RFC 5652 §6.1, RFC 5083 §2.1: version, originatorInfo, recipients, content, and what follows it."""
    walk.enter(0x30)
    walk.part(0x02)
    if walk.peek() == 0xA0:
        _check_unread(walk.part(0xA0))
    recipients = _recipients(walk.part(0x31))
    walk.enter(0x30)
    content_type = asn1.decode_der(Oid, to_der(walk.part(0x06)))
    cipher, parameters = cms.algorithm_of(cms.tlv(to_der(walk.part(0x30))))
    if cipher not in cms.CONTENT_CIPHERS and cipher not in cms.FOREIGN_CIPHERS:
        raise BadData(f"not an encrypted CMS message: unknown content cipher {cipher.dotted_string}")
    # RFC 5652 §6.1: the content may be kept elsewhere; mail has no elsewhere.
    if walk.peek() < 0:
        raise BadData("not an encrypted CMS message: the content isn't in it")
    content = walk.content(0x80)
    walk.leave()
    mac, aad = b"", b""
    if walk.peek() == 0xA1:
        attributes = _sorted_set(walk.part(0xA1))
        # RFC 5083 §2.2: the AAD is the DER of the attributes with the tag of SET OF in place of [1].
        aad = attributes if authenticated else b""
    if authenticated:
        mac = asn1.decode_der(bytes, to_der(walk.part(0x04, 0x24)))
        if walk.peek() == 0xA2:
            _sorted_set(walk.part(0xA2))
    walk.leave()
    return Enveloped(authenticated, recipients, content_type, cipher, parameters, content, mac, aad)


def _check_unread(value: bytes) -> None:
    """What is passed over is within bounds all the same: nobody who reads it later is surprised. Raises BadData."""
    try:
        check_bounds(value)
    except ValueError:
        to_der(value)


def _recipients(infos: bytes) -> tuple[cms.RecipientInfo, ...]:
    # RFC 5652 §6.1: SET SIZE (1..MAX); the upper bound is ours, and is kept before anything is made of them.
    count = _count(infos, _MAX_RECIPIENTS)
    if not 1 <= count <= _MAX_RECIPIENTS:
        number = f"more than {_MAX_RECIPIENTS}" if count else "no"
        raise BadData(f"not an encrypted CMS message: it has {number} recipients")
    try:
        found = _decode_recipients(infos)
    except ValueError:
        # Not DER: perhaps indefinite lengths, or as they came instead of sorted (X.690 §11.6).
        found = _decode_recipients(to_der(infos))
    for info in found:
        if not isinstance(info, cms.OtherRecipientInfo):
            cms.algorithm_of(info.key_encryption_algorithm)
    return found


def _decode_recipients(infos: bytes) -> tuple[cms.RecipientInfo, ...]:
    # THR-7: what the parser is given unchanged is walked first; it has no bounds of its own.
    check_bounds(infos)
    return tuple(asn1.decode_der(cms.RecipientsHead, cms.header(0x30, len(infos)) + infos).infos.as_list())


def _sorted_set(attributes: bytes) -> bytes:
    """An implicitly tagged SET OF Attribute as the DER of the SET OF."""
    if _count(attributes, _MAX_ATTRIBUTES) > _MAX_ATTRIBUTES:
        raise BadData(f"not an encrypted CMS message: it has more than {_MAX_ATTRIBUTES} attributes")
    return to_der(b"\x31" + attributes[1:])


def _count(value: bytes, most: int) -> int:
    """How many values a constructed value holds; counting ends above ``most``."""
    walk = Walk(value)
    walk.enter(value[0])
    count = 0
    while walk.peek() >= 0 and count <= most:
        walk.skip()
        count += 1
    return count
