"""RecipientInfos: the content key wrapped for each recipient (RFC 5652 §6.2, RFC 5753).

What RSA padding and ephemeral EC keys need of randomness comes from the crypto library.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.errors import BadData

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


def recipient_info(certificate: Certificate, key: bytes) -> cms.KeyTransRecipientInfo | cms.KeyAgreeRecipientInfo:
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
