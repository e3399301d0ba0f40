"""Opening encrypted CMS with a private key.

Every failure to decrypt looks the same (ALG-6): which check failed is what a Bleichenbacher or padding oracle asks for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
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
from postseal.core.cms.key_agreement import key_encryption_key
from postseal.core.cms.key_transport import KDF_HASHES
from postseal.core.cms.parse import Enveloped, parse_enveloped
from postseal.core.errors import BadData

AgreementKey = ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey
PrivateKey = rsa.RSAPrivateKey | AgreementKey

# ALG-6: the one sentence for whatever went wrong once a key is involved.
CANNOT_OPEN = "the message can't be decrypted: it isn't encrypted to this key, or it is damaged"

_MAX_ATTEMPTS = 100


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
        elif isinstance(info, cms.KeyAgreeRecipientInfo) and isinstance(key, AgreementKey):
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


def _agreed(info: cms.KeyAgreeRecipientInfo, encrypted_key: bytes, key: AgreementKey) -> Iterator[bytes]:
    """RFC 5753 §3.1.2: no key at all when anything is wrong (key wrap notices)."""
    try:
        scheme, wrap = cms.algorithm_of(info.key_encryption_algorithm)
        if wrap is None or not isinstance(info.originator, cms.OriginatorPublicKey):
            return
        wrap_oid, _ = cms.algorithm_of(wrap)
        shared = _shared(key, info.originator.public_key.as_bytes())
        kek = key_encryption_key(shared, wrap, cms.AES_WRAP[wrap_oid], cms.STD_DH[scheme], info.ukm)
        yield keywrap.aes_key_unwrap(kek, encrypted_key)
    except (ValueError, KeyError, UnsupportedAlgorithm, keywrap.InvalidUnwrap):
        return


def _shared(key: AgreementKey, public: bytes) -> bytes:
    """Raises ValueError for a public key that isn't one, or gives a secret of zeros (RFC 7748 §6.1)."""
    if isinstance(key, x25519.X25519PrivateKey):
        return key.exchange(x25519.X25519PublicKey.from_public_bytes(public))
    # The point is checked to be on the curve of our key.
    return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, public))


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
