"""Sealing: content encryption as a stream, and the DER head and tail that make an envelope of the ciphertext.

The content key and IV don't depend on the recipients, so content is encrypted while it arrives, and the key is wrapped for
the recipients when they are known. One ciphertext can serve several envelopes (RSA recipients apart from EC recipients).

Randomness for key and IV comes from the caller; what RSA padding and ephemeral EC keys need comes from the crypto library.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.errors import BadData
from postseal.core.policy import Cleared
from postseal.core.suite import Suite

# ALG-5: the longest tag, always.
TAG_LENGTH = 16
_BLOCK = 16

# Output buffers, shared by all streams of the process: list.pop and list.append are atomic, and a stream holds a buffer only
# while one chunk is in the cipher. A buffer in each open session would cost 64 KB per idle SMTP connection.
_PIECE = 65536
_buffers: list[bytearray] = []

_WRAP_OID = {length: oid for oid, length in cms.AES_WRAP.items()}
_KDF_OID = {name: oid for oid, name in cms.STD_DH_KDF.items()}
KDF_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # only to read what others wrote
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
# RFC 5753 §7.1.4 gives no pairing; the hash that has the strength of the curve is used.
_CURVE_HASH = {"secp256r1": "sha256", "secp384r1": "sha384", "secp521r1": "sha512"}


def _through(context: CipherContext, data: bytes) -> bytes:
    """``data`` through a cipher context without the copies that ``update`` makes; the lock is released above 2 KB."""
    update_into = context.update_into
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = bytearray(_PIECE + _BLOCK)
    view = memoryview(buffer)
    try:
        if len(data) <= _PIECE:
            return bytes(view[: update_into(data, buffer)])
        source = memoryview(data)
        return b"".join(
            bytes(view[: update_into(source[start : start + _PIECE], buffer)]) for start in range(0, len(data), _PIECE)
        )
    finally:
        _buffers.append(buffer)


def _check_lengths(suite: Suite, key: bytes, iv: bytes) -> None:
    if len(key) != suite.key_length or len(iv) != suite.iv_length:
        raise BadData(f"{suite} needs a key of {suite.key_length} octets and an IV of {suite.iv_length}")


class ContentSealer:
    """Encrypts one content as a stream. ``tag`` is there after ``finish``; it is empty for CBC.

    A pair of key and IV must be used for one sealer only (GCM loses everything when a nonce comes twice, ALG-5).
    """

    __slots__ = ("_context", "_gcm", "_total", "tag")

    def __init__(self, suite: Suite, key: bytes, iv: bytes) -> None:
        _check_lengths(suite, key, iv)
        self._gcm = suite is Suite.AES_256_GCM
        self._context = Cipher(AES(key), GCM(iv) if self._gcm else CBC(iv)).encryptor()
        self._total = 0
        self.tag = b""

    def update(self, chunk: bytes) -> bytes:
        """The next octets of plaintext -> as much ciphertext as is ready."""
        self._total += len(chunk)
        return _through(self._context, chunk)

    def finish(self) -> bytes:
        """The rest of the ciphertext. Nothing may be added afterwards."""
        if isinstance(self._context, AEADEncryptionContext):
            rest = self._context.finalize()
            self.tag = self._context.tag
            return rest
        # RFC 5652 §6.3: 1 to 16 octets of padding, each its number.
        pad = _BLOCK - self._total % _BLOCK
        return self._context.update(bytes((pad,)) * pad) + self._context.finalize()


class ContentOpener:
    """Decrypts what ``ContentSealer`` made. With GCM nothing may be believed before ``finish`` has returned (ALG-7)."""

    __slots__ = ("_context", "_gcm", "_held")

    def __init__(self, suite: Suite, key: bytes, iv: bytes, tag: bytes) -> None:
        _check_lengths(suite, key, iv)
        self._gcm = suite is Suite.AES_256_GCM
        if self._gcm and len(tag) != TAG_LENGTH:
            raise BadData(f"{suite} has a tag of {TAG_LENGTH} octets")
        self._context = Cipher(AES(key), GCM(iv, tag) if self._gcm else CBC(iv)).decryptor()
        self._held = b""

    def update(self, chunk: bytes) -> bytes:
        """The next octets of ciphertext -> as much plaintext as is ready."""
        plain = _through(self._context, chunk)
        if self._gcm or not plain:
            return plain
        ready = self._held + plain[:-_BLOCK]
        self._held = plain[-_BLOCK:]
        return ready

    def finish(self) -> bytes:
        """The rest of the plaintext. Raises BadData when the ciphertext is damaged."""
        try:
            rest = self._context.finalize()
            if self._gcm:
                return rest
            unpadder = PKCS7(8 * _BLOCK).unpadder()
            return unpadder.update(self._held) + unpadder.finalize()
        except (InvalidTag, ValueError) as exc:
            raise BadData("the content can't be decrypted: it is damaged or the key is wrong") from exc


@lru_cache(maxsize=4096)
def _target(certificate: Certificate) -> tuple[cms.IssuerAndSerialNumber, rsa.RSAPublicKey | ec.EllipticCurvePublicKey]:
    """Recipient identifier and public key, kept for the next message to the same recipient."""
    try:
        public = certificate.x509.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise BadData(f"certificate {certificate.fingerprint[:16]}: unsupported public key: {exc}") from exc
    if isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in _CURVE_HASH:
            raise BadData(
                f"certificate {certificate.fingerprint[:16]}: mail can't be sealed to curve {public.curve.name}"
            )
    elif not isinstance(public, rsa.RSAPublicKey):
        raise BadData(f"certificate {certificate.fingerprint[:16]}: its key can't be used to encrypt")
    return cms.issuer_and_serial(certificate.der), public


# RFC 3370 §4.2.1: rsaEncryption has NULL parameters.
_RSA_ALGORITHM = cms.tlv(asn1.encode_der(cms.NullAlgorithm(algorithm=cms.RSA_ENCRYPTION, parameters=asn1.Null())))
# RFC 5753 §3.1.1: the parameters of the ephemeral key are absent; the curve is that of the recipient's certificate.
_EC_ALGORITHM = cms.tlv(asn1.encode_der(cms.PlainAlgorithm(algorithm=cms.EC_PUBLIC_KEY)))


def key_encryption_key(shared: bytes, wrap: asn1.TLV, length: int, kdf: str, ukm: bytes | None) -> bytes:
    """X9.63 KDF over ECC-CMS-SharedInfo (RFC 5753 §7.2) -> a key of ``length`` octets for the wrap algorithm ``wrap``."""
    info = cms.EccCmsSharedInfo(key_info=wrap, entity_u_info=ukm, supp_pub_info=(8 * length).to_bytes(4, "big"))
    return X963KDF(KDF_HASHES[kdf], length, asn1.encode_der(info)).derive(shared)


@lru_cache(maxsize=16)
def _agreement(curve: str, length: int) -> tuple[asn1.TLV, asn1.TLV, str]:
    """(keyEncryptionAlgorithm, its wrap algorithm, KDF hash) for a curve and a wrap key of ``length`` octets."""
    kdf = _CURVE_HASH[curve]
    wrap = cms.PlainAlgorithm(algorithm=_WRAP_OID[length])
    scheme = cms.KeyWrapAlgorithm(algorithm=_KDF_OID[kdf], wrap=wrap)
    return cms.tlv(asn1.encode_der(scheme)), cms.tlv(asn1.encode_der(wrap)), kdf


def _recipient_info(certificate: Certificate, key: bytes) -> cms.KeyTransRecipientInfo | cms.KeyAgreeRecipientInfo:
    rid, public = _target(certificate)
    if isinstance(public, rsa.RSAPublicKey):
        # RFC 5652 §6.2.1: version 0 goes with issuerAndSerialNumber.
        return cms.KeyTransRecipientInfo(
            version=0, rid=rid, key_encryption_algorithm=_RSA_ALGORITHM, encrypted_key=public.encrypt(key, PKCS1v15())
        )
    # RFC 5753 §3.1.1: ephemeral-static ECDH, a key of its own for each recipient; the wrap key is as long as the content key.
    ephemeral = ec.generate_private_key(public.curve)
    algorithm, wrap, kdf = _agreement(public.curve.name, len(key))
    kek = key_encryption_key(ephemeral.exchange(ec.ECDH(), public), wrap, len(key), kdf, None)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return cms.KeyAgreeRecipientInfo(
        version=3,
        originator=cms.OriginatorPublicKey(algorithm=_EC_ALGORITHM, public_key=asn1.BitString(point, 0)),
        key_encryption_algorithm=algorithm,
        recipient_encrypted_keys=[
            cms.RecipientEncryptedKey(rid=rid, encrypted_key=keywrap.aes_key_wrap(kek, key)),
        ],
    )


def _content_algorithm(suite: Suite, iv: bytes) -> bytes:
    oid = cms.SUITE_OID[suite]
    if suite is Suite.AES_256_GCM:
        parameters = cms.GcmParameters(nonce=iv, icv_length=TAG_LENGTH)
        return asn1.encode_der(cms.GcmAlgorithm(algorithm=oid, parameters=parameters))
    return asn1.encode_der(cms.CbcAlgorithm(algorithm=oid, iv=iv))


@lru_cache(maxsize=8)
def _oid(oid: Oid) -> bytes:
    return asn1.encode_der(cms.PlainAlgorithm(algorithm=oid))[2:]


def envelope(
    suite: Suite, key: bytes, cleared: Sequence[Cleared], iv: bytes, content_length: int, tag: bytes
) -> tuple[bytes, bytes]:
    """DER head and tail around ``content_length`` octets of ciphertext: ``head + ciphertext + tail`` is a ContentInfo.

    EnvelopedData for CBC (``tag`` empty), AuthEnvelopedData for GCM. Raises BadData for a key that can't be used.
    """
    _check_lengths(suite, key, iv)
    gcm = suite is Suite.AES_256_GCM
    if not cleared or len(tag) != (TAG_LENGTH if gcm else 0):
        raise BadData("an envelope needs at least one recipient, and a tag exactly when the suite is GCM")
    infos: list[cms.RecipientInfo] = [_recipient_info(each.certificate, key) for each in cleared]
    # asn1.SetOf sorts: DER wants a SET OF in order (X.690 §11.6).
    recipients = asn1.encode_der(cms.RecipientsHead(infos=asn1.SetOf(infos)))
    recipients = recipients[len(recipients) - _inner_length(recipients) :]
    tail = asn1.encode_der(tag) if gcm else b""

    head = _oid(cms.DATA) + _content_algorithm(suite, iv) + cms.header(0x80, content_length)
    head = cms.header(0x30, len(head) + content_length) + head
    # RFC 5652 §6.1: version 0 with KeyTrans by issuerAndSerialNumber only, else 2. RFC 5083 §2.1: AuthEnvelopedData is 0.
    transport_only = all(isinstance(info, cms.KeyTransRecipientInfo) for info in infos)
    version = asn1.encode_der(0 if gcm or transport_only else 2)
    head = version + recipients + head
    head = cms.header(0x30, len(head) + content_length + len(tail)) + head
    head = cms.header(0xA0, len(head) + content_length + len(tail)) + head
    head = _oid(cms.AUTH_ENVELOPED_DATA if gcm else cms.ENVELOPED_DATA) + head
    return cms.header(0x30, len(head) + content_length + len(tail)) + head, tail


def _inner_length(sequence: bytes) -> int:
    """Length of the value of a short or long form DER value that is complete in ``sequence``."""
    first = sequence[1]
    return first if first < 128 else int.from_bytes(sequence[2 : 2 + (first & 0x7F)], "big")
