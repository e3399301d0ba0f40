"""Content keys out of RecipientInfos, for those who hold private keys (RFC 5652 §6.2, RFC 5753, RFC 8418).

Whatever is wrong with a wrapped key, a key comes out: one that nobody can foresee, so that only the content shows whether it
was the right one (RFC 3218 §2.3, ALG-6).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ExtensionNotFound, SubjectKeyIdentifier
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.cms.key_agreement import key_encryption_key
from postseal.core.cms.key_transport import KDF_HASHES

AgreementKey = ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey
PrivateKey = rsa.RSAPrivateKey | AgreementKey

_SHA1 = Oid("1.3.14.3.2.26")
_MGF1 = Oid("1.2.840.113549.1.1.8")
# RFC 3217: CMS3DESwrap.
_TRIPLE_DES_WRAP = Oid("1.2.840.113549.1.9.16.3.6")
# RFC 5753 §7.1.4: dhSinglePass-cofactorDH-*kdf-scheme. The cofactor of every curve that is read is 1: the same as stdDH.
_SCHEMES = cms.STD_DH | {
    Oid("1.3.133.16.840.63.0.3"): cms.Scheme("sha1"),
    Oid("1.3.132.1.14.0"): cms.Scheme("sha224"),
    Oid("1.3.132.1.14.1"): cms.Scheme("sha256"),
    Oid("1.3.132.1.14.2"): cms.Scheme("sha384"),
    Oid("1.3.132.1.14.3"): cms.Scheme("sha512"),
}


@dataclass(frozen=True, slots=True)
class Holder:
    """A private key, and the certificate for it where it is known: then only recipients that name it are tried."""

    key: PrivateKey = field(repr=False)
    certificate: Certificate | None = None


def content_keys(
    recipients: Sequence[cms.RecipientInfo], length: int, holders: Sequence[Holder], allow_3des: bool
) -> Iterator[tuple[bytes, bool]]:
    """Content keys of ``length`` octets that the recipient infos give to the holders; at least one, good or not.

    With each, whether it may be the right one: False when OAEP or key wrap, which check what they hold, say that it isn't.
    Then it is there only so that the work is the same.
    """
    found = False
    for holder in holders:
        secret = _secret(holder.key)
        for wrapped in _wrapped_for(recipients, holder):
            yield _unwrapped(wrapped, holder.key, secret, length, allow_3des)
            found = True
    if not found:
        # ALG-6: a message to somebody else takes as long as a damaged one.
        yield hmac.digest(_secret(holders[0].key), b"no recipient", "sha256")[:length], False


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """One wrapped key and what surrounds it."""

    info: cms.KeyTransRecipientInfo | cms.KeyAgreeRecipientInfo
    encrypted_key: bytes


def _wrapped_for(recipients: Sequence[cms.RecipientInfo], holder: Holder) -> Iterator[_Wrapped]:
    for info in recipients:
        if isinstance(info, cms.KeyTransRecipientInfo) and isinstance(holder.key, rsa.RSAPrivateKey):
            if _names(info.rid, holder.certificate):
                yield _Wrapped(info, info.encrypted_key)
        elif isinstance(info, cms.KeyAgreeRecipientInfo) and not isinstance(holder.key, rsa.RSAPrivateKey):
            for each in info.recipient_encrypted_keys:
                if _names(each.rid, holder.certificate):
                    yield _Wrapped(info, each.encrypted_key)


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


def _secret(key: PrivateKey) -> bytes:
    """What the keys that stand in for missing ones are derived from."""
    return hashlib.sha256(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).digest()


def _unwrapped(wrapped: _Wrapped, key: PrivateKey, secret: bytes, length: int, allow_3des: bool) -> tuple[bytes, bool]:
    # RFC 8551 §6 and RFC 3218 §2.3: when the padding is wrong go on with a key that nobody can foresee, the same each time. It
    # is made in any case. The crypto library does so for PKCS #1 v1.5 itself (implicit rejection), with a random length.
    substitute = hmac.digest(secret, wrapped.encrypted_key, "sha256")[:length]
    unchecked = False
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            padding = _rsa_padding(wrapped.info.key_encryption_algorithm)
            unchecked = isinstance(padding, PKCS1v15)
            found = key.decrypt(wrapped.encrypted_key, padding)
        else:
            found = _agreed(wrapped.info, wrapped.encrypted_key, key, allow_3des)
    except (ValueError, KeyError, UnsupportedAlgorithm, keywrap.InvalidUnwrap):
        found = b""
    fits = len(found) == length
    return found if fits else substitute, fits or unchecked


def _rsa_padding(algorithm: asn1.TLV) -> AsymmetricPadding:
    oid, parameters = cms.algorithm_of(algorithm)
    # RFC 3370 §4.2.1 asks for NULL; where it is missing there is nothing else that could be meant.
    if oid == cms.RSA_ENCRYPTION:
        return PKCS1v15()
    if oid != cms.RSAES_OAEP:
        raise ValueError("not a key transport algorithm that is known")
    # RFC 4055 §4.1: SHA-1 where nothing else is said (ALG-4: accepted when reading).
    absent = parameters is None or parameters.tag_bytes == b"\x05"
    oaep = cms.OaepParameters() if absent or parameters is None else parameters.parse(cms.OaepParameters)
    main = oaep.hash_algorithm.algorithm if oaep.hash_algorithm else _SHA1
    mask = _SHA1
    if oaep.mask_gen_algorithm:
        if oaep.mask_gen_algorithm.algorithm != _MGF1:
            raise ValueError("not a mask generation function that is known")
        mask = oaep.mask_gen_algorithm.hash.algorithm
    label = oaep.label_source.label if oaep.label_source else b""
    return OAEP(MGF1(KDF_HASHES[cms.OAEP_HASHES[mask]]), KDF_HASHES[cms.OAEP_HASHES[main]], label or None)


def _agreed(
    info: cms.KeyTransRecipientInfo | cms.KeyAgreeRecipientInfo,
    encrypted_key: bytes,
    key: AgreementKey,
    allow_3des: bool,
) -> bytes:
    """RFC 5753 §3.1.2, RFC 8418 §3. Raises ValueError, KeyError, UnsupportedAlgorithm or InvalidUnwrap: key wrap notices."""
    scheme, wrap = cms.algorithm_of(info.key_encryption_algorithm)
    # An originator with a static key of his own (RFC 5652 §6.2.2) is named, not given; nobody writes that.
    if isinstance(info, cms.KeyTransRecipientInfo) or wrap is None:
        raise ValueError("not a key agreement")
    if not isinstance(info.originator, cms.OriginatorPublicKey):
        raise ValueError("not an ephemeral key")
    wrap_oid, _ = cms.algorithm_of(wrap)
    triple_des = allow_3des and wrap_oid == _TRIPLE_DES_WRAP
    kek_length = 24 if triple_des else cms.AES_WRAP[wrap_oid]
    point = info.originator.public_key.as_bytes()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        # The point is checked to be on the curve of our key.
        shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, point))
    else:
        # RFC 8418 §2, RFC 7748 §6.1: a shared secret of zeros is refused by the crypto library.
        shared = key.exchange(x25519.X25519PublicKey.from_public_bytes(point))
    kek = key_encryption_key(shared, wrap, kek_length, _SCHEMES[scheme], info.ukm)
    return _triple_des_unwrap(kek, encrypted_key) if triple_des else keywrap.aes_key_unwrap(kek, encrypted_key)


def _triple_des_unwrap(kek: bytes, wrapped: bytes) -> bytes:
    """RFC 3217 §3.2. Raises ValueError."""
    if len(wrapped) != 40:
        raise ValueError("not a wrapped Triple-DES key")

    def decrypted(iv: bytes, octets: bytes) -> bytes:
        decryptor = Cipher(TripleDES(kek), CBC(iv)).decryptor()
        return decryptor.update(octets) + decryptor.finalize()

    outer = decrypted(bytes.fromhex("4adda22c79e82105"), wrapped)[::-1]
    key_and_check = decrypted(outer[:8], outer[8:])
    if not hmac.compare_digest(
        hashlib.sha1(key_and_check[:24], usedforsecurity=False).digest()[:8], key_and_check[24:]
    ):
        raise ValueError("the check of the wrapped key is wrong")
    return key_and_check[:24]
