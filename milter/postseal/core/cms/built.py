"""What was built is read back before it is sent: its lengths fit, and it is for those recipients and nobody else, with the
content key encrypted for each in the way that was chosen for him."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.cms.content import TAG_LENGTH
from postseal.core.cms.key_transport import expected
from postseal.core.errors import BadData
from postseal.core.policy import Cleared
from postseal.core.profile import profile
from postseal.core.suite import KeyTransport

_SEQUENCE, _BY_KEY_ID = 0x30, 0x80
# RFC 5652 §6.2.1: the version follows the form of the identifier.
_FORMS = ((0, _SEQUENCE), (2, _BY_KEY_ID))
# How a KeyTransRecipientInfo of 256 to 65535 octets begins, up to the length of the identifier, and how its key does.
_TRANSPORT, _KEY = Struct(">HHHBBB").unpack_from, Struct(">HH").unpack_from
# SEQUENCE and INTEGER there, the algorithm's SEQUENCE, and the OCTET STRING of the key, with how their lengths are given.
_USUAL = (0x3082, 0x0201, 0x30, 0x0482)
# No shorter one is looked at: then what stands before its key is within it, up to the length of the algorithm.
_LEAST = 272


@asn1.sequence
class _KeyTrans:
    """KeyTransRecipientInfo as it is read back: who is named, and that all parts are there."""

    version: int
    rid: asn1.TLV
    key_encryption_algorithm: asn1.TLV
    encrypted_key: bytes


@asn1.sequence
class _Recipients:
    """What postseal writes, and nothing else that RecipientInfo could be."""

    infos: asn1.SetOf[_KeyTrans | Annotated[cms.KeyAgreeRecipientInfo, asn1.Implicit(1)]]


class _Headers:
    """Reads nested DER headers of a value whose middle (the ciphertext) isn't at hand."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.position = 0

    def enter(self, tag: int) -> int:
        """Step into a value; returns its length. Raises ValueError."""
        head, start = self._head, self.position
        if head[start : start + 1] != bytes((tag,)):
            raise ValueError(f"tag {tag:#x} expected at {start}")
        first = head[start + 1] if start + 1 < len(head) else 0xFF
        count = 0 if first < 0x80 else first & 0x7F
        length = first if first < 0x80 else int.from_bytes(head[start + 2 : start + 2 + count], "big")
        self.position = start + 2 + count
        if head[start : self.position] != cms.header(tag, length):
            raise ValueError(f"length at {start} isn't DER")
        return length

    def value(self, tag: int) -> bytes:
        """Step over a value that is complete in the head; returns all of it."""
        start = self.position
        length = self.enter(tag)
        self.position += length
        if self.position > len(self._head):
            raise ValueError(f"value at {start} is cut off")
        return self._head[start : self.position]


def check_built(head: bytes, tail: bytes, content_length: int, cleared: Sequence[Cleared]) -> None:
    """Read back what ``envelope`` built: all lengths fit, and the recipients are those cleared, no more, no fewer.

    Raises BadData: the caller must not send it.
    """
    try:
        found = _read_back(head, tail, content_length)
    except (ValueError, KeyError) as exc:
        raise BadData(f"the sealed message that was built is malformed: {exc}") from exc
    wanted = sorted([_wanted(each.certificate, each.wrap.transport, each.wrap.by_key_id) for each in cleared])
    if found != wanted:
        raise BadData("the sealed message that was built isn't for the recipients that policy cleared")


# How a recipient is named: IssuerAndSerialNumber, or subjectKeyIdentifier with its tag in the CHOICE; and for an RSA key the
# content of keyEncryptionAlgorithm and the length of the encrypted key.
_Found = tuple[bytes, bytes, int]


@lru_cache(maxsize=4096)
def _wanted(certificate: Certificate, transport: KeyTransport, by_key_id: bool) -> _Found:
    name = _key_id(profile(certificate).subject_key_id or b"") if by_key_id else certificate.issuer_and_serial
    return name, *expected(certificate, transport)


def _key_id(octets: bytes) -> bytes:
    return cms.header(_BY_KEY_ID, len(octets)) + octets


def _read_back(head: bytes, tail: bytes, content_length: int) -> list[_Found]:
    """The recipients of an envelope, sorted, in the form of ``_wanted``. Raises ValueError."""
    total = len(head) + content_length + len(tail)
    walk = _Headers(head)

    def encloses_rest(tag: int, rest: int) -> None:
        length = walk.enter(tag)
        if walk.position + length != rest:
            raise ValueError(f"length at {walk.position} doesn't fit")

    encloses_rest(0x30, total)
    authenticated = {cms.ENVELOPED_DATA: False, cms.AUTH_ENVELOPED_DATA: True}[_oid(walk.value(0x06))]
    encloses_rest(0xA0, total)
    encloses_rest(0x30, total)
    walk.value(0x02)
    recipients = walk.value(0x31)
    encloses_rest(0x30, total - len(tail))
    if _oid(walk.value(0x06)) != cms.DATA:
        raise ValueError("the content isn't of type data")
    cipher, parameters = cms.algorithm_of(cms.tlv(walk.value(0x30)))
    encloses_rest(0x80, len(head) + content_length)
    if walk.position != len(head) or cms.CONTENT_CIPHERS[cipher][2] != authenticated or parameters is None:
        raise ValueError("head, cipher and content don't fit together")
    if authenticated:
        mac = asn1.decode_der(bytes, tail)
        if not len(mac) == parameters.parse(cms.GcmParameters).icv_length == TAG_LENGTH:
            raise ValueError("the tag has the wrong length")
    elif tail:
        raise ValueError("something follows the content")
    found = _transported(recipients)
    if found is None:
        infos = asn1.decode_der(_Recipients, cms.header(0x30, len(recipients)) + recipients).infos.as_list()
        found = [each for info in infos for each in _found(info, cms.CONTENT_CIPHERS[cipher][1])]
    return sorted(found)


def _oid(der: bytes) -> Oid:
    return asn1.decode_der(Oid, der)


def _transported(recipients: bytes) -> list[_Found] | None:
    """What a SET OF KeyTransRecipientInfo of the usual lengths holds; None for any other, which the library judges.

    A hundred of them are read in less than half the time that it takes to make objects of all their parts.
    """
    at, total = 2 + (recipients[1] & 0x7F if recipients[1] & 0x80 else 0), len(recipients)
    before, found = b"", []
    while at < total:
        if total - at < _LEAST:
            return None
        form, length, integer, version, tag, size = _TRANSPORT(recipients, at)
        info = recipients[at : at + 4 + length]
        if not _LEAST <= length == len(info) - 4:
            return None
        # X.690 §10.1: no length may be in a longer form than it needs; §11.6: a SET OF is in order.
        end = 9 + size
        if size == 0x81 and info[9] > 0x7F:
            end = 10 + info[9]
        elif size > 0x7F:
            return None
        key = end + 2 + info[end + 1]
        if key + 4 > len(info):
            return None
        key_form, key_length = _KEY(info, key)
        if (
            (form, integer, info[end], key_form) != _USUAL
            or (version, tag) not in _FORMS
            or info[end + 1] > 0x7F
            or not 0xFF < key_length == len(info) - key - 4
            or info < before
        ):
            return None
        found.append((info[7:end], info[end + 2 : key], key_length))
        at += len(info)
        before = info
    return found


def _found(info: _KeyTrans | cms.KeyAgreeRecipientInfo, key_length: int) -> list[_Found]:
    """Raises ValueError."""
    if isinstance(info, _KeyTrans):
        tag = info.rid.tag_bytes[0]
        if (info.version, tag) not in _FORMS:
            raise ValueError("a recipient isn't named by issuer and serial number or by key identifier")
        name = cms.header(tag, len(info.rid.data)) + info.rid.data
        return [(name, bytes(info.key_encryption_algorithm.data), len(info.encrypted_key))]
    found: list[_Found] = []
    for each in info.recipient_encrypted_keys:
        # AES key wrap makes it one block of 8 octets longer.
        if len(each.encrypted_key) != key_length + 8:
            raise ValueError("a wrapped key has the wrong length")
        rid = each.rid
        if isinstance(rid, cms.IssuerAndSerialNumber):
            found.append((asn1.encode_der(rid), b"", 0))
        else:
            found.append((_key_id(rid.subject_key_identifier), b"", 0))
    if info.version != 3 or not found:
        raise ValueError("a key agreement recipient without a key")
    return found
