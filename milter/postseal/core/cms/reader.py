"""Reading CMS: what a message is, whether what was built is right, and opening it with a private key.

Bytes from strangers come in here, so everything is bounded, nothing raises but BadData, and every failure to decrypt looks
the same (ALG-6): which check failed is what a Bleichenbacher or padding oracle asks for.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pybase64
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ExtensionNotFound, SubjectKeyIdentifier
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.cms.ber import to_der
from postseal.core.cms.envelope import KDF_HASHES, TAG_LENGTH, key_encryption_key
from postseal.core.errors import BadData
from postseal.core.message import ContentType, Field, only, parse_content_type, parse_disposition
from postseal.core.policy import Cleared, Protection

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# ALG-6: the one sentence for whatever went wrong once a key is involved.
CANNOT_OPEN = "the message can't be decrypted: it isn't encrypted to this key, or it is damaged"

_MAX_RECIPIENTS = 2000
_MAX_ATTEMPTS = 100
_SMIME_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")


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
        return _parse(octets)
    except ValueError:
        pass  # not DER; perhaps BER
    try:
        return _parse(to_der(octets))
    except ValueError as exc:
        raise BadData(f"not an encrypted CMS message: {exc}") from exc


def well_formed_type(octets: bytes) -> Oid | None:
    """The type of a CMS object in DER or BER; of the encrypted types only when all of it is well formed, else None."""
    for form in (bytes, to_der):
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


# --- what was built ---------------------------------------------------------------------------------------------------


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
    wanted = sorted((each.certificate.issuer, each.certificate.serial) for each in cleared)
    if found != wanted:
        raise BadData("the sealed message that was built isn't for the recipients that policy cleared")


def _read_back(head: bytes, tail: bytes, content_length: int) -> list[tuple[bytes, int]]:
    """The recipient identifiers of an envelope, sorted: (DER of the issuer, serial number). Raises ValueError."""
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
    infos = asn1.decode_der(cms.RecipientsHead, cms.header(0x30, len(recipients)) + recipients).infos
    rids = [rid for info in infos.as_list() for rid in _issuer_rids(info)]
    return sorted((asn1.encode_der(rid.issuer), rid.serial.parse(int)) for rid in rids)


def _oid(der: bytes) -> Oid:
    return asn1.decode_der(Oid, der)


def _issuer_rids(info: cms.RecipientInfo) -> list[cms.IssuerAndSerialNumber]:
    rids: list[object]
    if isinstance(info, cms.KeyTransRecipientInfo):
        rids = [info.rid]
    elif isinstance(info, cms.KeyAgreeRecipientInfo):
        rids = [each.rid for each in info.recipient_encrypted_keys]
    else:
        rids = []
    found = [rid for rid in rids if isinstance(rid, cms.IssuerAndSerialNumber)]
    if not found or len(found) != len(rids):
        raise ValueError("a recipient isn't named by issuer and serial number")
    return found


# --- opening ----------------------------------------------------------------------------------------------------------


def open_enveloped(der: bytes, key: PrivateKey, certificate: Certificate | None = None) -> bytes:
    """The content of an Enveloped- or AuthEnvelopedData, for the holder of ``key``; nothing is given out unauthenticated.

    With ``certificate`` only the recipient that names it is tried, else all of the key's kind. Raises BadData: for octets
    that are no encrypted CMS with what is wrong, and once a key is involved with ``CANNOT_OPEN`` for every cause.
    """
    enveloped = parse_enveloped(der)
    if enveloped.cipher not in cms.CONTENT_CIPHERS:
        raise BadData(
            f"the content is encrypted with {cms.FOREIGN_CIPHERS[enveloped.cipher]}, which postseal doesn't open"
        )
    for attempt, content_key in enumerate(_content_keys(enveloped, key, certificate)):
        if attempt == _MAX_ATTEMPTS:
            break
        try:
            return _decrypt(enveloped, content_key)
        except (ValueError, InvalidTag):
            continue
    raise BadData(CANNOT_OPEN)


def _names(rid: object, certificate: Certificate | None) -> bool:
    """Does a recipient identifier name the certificate? Without a certificate, any may."""
    if certificate is None:
        return True
    if isinstance(rid, cms.IssuerAndSerialNumber):
        return asn1.encode_der(rid) == asn1.encode_der(cms.issuer_and_serial(certificate.der))
    key_id = rid.subject_key_identifier if isinstance(rid, cms.RecipientKeyIdentifier) else rid
    return key_id == _subject_key_id(certificate)


def _subject_key_id(certificate: Certificate) -> bytes | None:
    try:
        return certificate.x509.extensions.get_extension_for_class(SubjectKeyIdentifier).value.digest
    except (ValueError, ExtensionNotFound):
        return None


def _content_keys(enveloped: Enveloped, key: PrivateKey, certificate: Certificate | None) -> Iterator[bytes]:
    """Content keys that the recipient infos give; a wrong one is found out by what it decrypts."""
    length = cms.CONTENT_CIPHERS[enveloped.cipher][1]
    for info in enveloped.recipients:
        if isinstance(info, cms.KeyTransRecipientInfo) and isinstance(key, rsa.RSAPrivateKey):
            if _names(info.rid, certificate):
                yield _transported(info, key, length)
        elif isinstance(info, cms.KeyAgreeRecipientInfo) and isinstance(key, ec.EllipticCurvePrivateKey):
            for each in info.recipient_encrypted_keys:
                if _names(each.rid, certificate):
                    yield from _agreed(info, each.encrypted_key, key)


def _transported(info: cms.KeyTransRecipientInfo, key: rsa.RSAPrivateKey, length: int) -> bytes:
    """RFC 8551 §6 and RFC 3218 §2.3: when the padding is wrong go on with a key that nobody can foresee."""
    try:
        content_key = key.decrypt(info.encrypted_key, _rsa_padding(info.key_encryption_algorithm))
    except (ValueError, KeyError, UnsupportedAlgorithm):
        content_key = b""
    if len(content_key) == length:
        return content_key
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return hmac.digest(hashlib.sha256(secret).digest(), info.encrypted_key, "sha256")[:length]


def _rsa_padding(algorithm: asn1.TLV) -> AsymmetricPadding:
    oid, parameters = cms.algorithm_of(algorithm)
    if oid == cms.RSA_ENCRYPTION:
        return PKCS1v15()
    if oid != cms.RSAES_OAEP:
        raise ValueError("not a key transport algorithm that is known")
    # RFC 4055 §4.1: SHA-1 where nothing else is said (ALG-4: accepted when reading).
    oaep = cms.OaepParameters() if parameters is None else parameters.parse(cms.OaepParameters)
    sha1 = Oid("1.3.14.3.2.26")
    main = oaep.hash_algorithm.algorithm if oaep.hash_algorithm else sha1
    mask = oaep.mask_gen_algorithm.hash.algorithm if oaep.mask_gen_algorithm else sha1
    label = oaep.label_source.label if oaep.label_source else b""
    return OAEP(MGF1(KDF_HASHES[cms.OAEP_HASHES[mask]]), KDF_HASHES[cms.OAEP_HASHES[main]], label or None)


def _agreed(info: cms.KeyAgreeRecipientInfo, encrypted_key: bytes, key: ec.EllipticCurvePrivateKey) -> Iterator[bytes]:
    """RFC 5753 §3.1.2: no key at all when anything is wrong (key wrap notices)."""
    try:
        scheme, wrap = cms.algorithm_of(info.key_encryption_algorithm)
        if wrap is None or not isinstance(info.originator, cms.OriginatorPublicKey):
            return
        wrap_oid, _ = cms.algorithm_of(wrap)
        # The point is checked to be on the curve of our key.
        point = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, info.originator.public_key.as_bytes())
        shared = key.exchange(ec.ECDH(), point)
        kek = key_encryption_key(shared, wrap, cms.AES_WRAP[wrap_oid], cms.STD_DH_KDF[scheme], info.ukm)
        yield keywrap.aes_key_unwrap(kek, encrypted_key)
    except (ValueError, KeyError, UnsupportedAlgorithm, keywrap.InvalidUnwrap):
        return


def _decrypt(enveloped: Enveloped, key: bytes) -> bytes:
    """The whole content, tag or padding checked before anything is returned. Raises ValueError or InvalidTag."""
    _, length, gcm = cms.CONTENT_CIPHERS[enveloped.cipher]
    if len(key) != length or gcm != enveloped.authenticated or enveloped.parameters is None:
        raise ValueError("key, cipher and kind don't fit")
    if gcm:
        parameters = enveloped.parameters.parse(cms.GcmParameters)
        # ALG-5: RFC 5084 §3.2 has 12 as default; only 12 to 16, and exactly as long as the tag that came.
        icv_length = 12 if parameters.icv_length is None else parameters.icv_length
        if not 12 <= icv_length <= 16 or len(enveloped.mac) != icv_length or len(parameters.nonce) != 12:
            raise ValueError("tag or nonce of a length that isn't accepted")
        opener = Cipher(AES(key), GCM(parameters.nonce, enveloped.mac, min_tag_length=12)).decryptor()
        opener.authenticate_additional_data(enveloped.aad)
        return opener.update(enveloped.content) + opener.finalize()
    iv = enveloped.parameters.parse(bytes)
    if len(iv) != 16 or not enveloped.content or len(enveloped.content) % 16:
        raise ValueError("IV or content of a length that can't be")
    decryptor = Cipher(AES(key), CBC(iv)).decryptor()
    plain = decryptor.update(enveloped.content) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    return plain[:-16] + unpadder.update(plain[-16:]) + unpadder.finalize()


# --- what a message is ------------------------------------------------------------------------------------------------


def decode_body(fields: Sequence[Field], body: bytes) -> bytes | None:
    """The body without its transfer encoding (RFC 2045 §6); None when it can't be decoded without guessing."""
    encodings = [field for field in fields if field.named(b"content-transfer-encoding")]
    if len(encodings) > 1:
        return None
    encoding = encodings[0].unfolded.lower() if encodings else b"7bit"
    if encoding == b"base64":
        try:
            # RFC 2045 §6.8 lets a reader skip foreign characters; what hides between them is not part of a sealed message.
            return pybase64.b64decode(body.translate(None, b" \t\r\n"), validate=True)
        except (binascii.Error, ValueError):
            return None
    if encoding == b"quoted-printable":
        # a2b_qp drops what stands between "=", a bare CR and the next LF: plain text could hide there.
        if body.count(b"\r") != body.count(b"\r\n"):
            return None
        return binascii.a2b_qp(body)
    return body if encoding in (b"7bit", b"8bit", b"binary") else None


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
