"""KeyAgreeRecipientInfo: ephemeral-static Diffie-Hellman on NIST and Brainpool curves (RFC 5753) and with X25519 (RFC 8418)."""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.cms.key_transport import KDF_HASHES
from postseal.core.errors import BadData
from postseal.core.suite import Wrap

_WRAP_OID = {length: oid for oid, length in cms.AES_WRAP.items()}
_SCHEME_OID = {scheme: oid for oid, scheme in cms.STD_DH.items()}
# RFC 5753 §7.1.4 gives no pairing; the hash that has the strength of the curve is used.
_CURVE_HASH = {
    "secp256r1": "sha256",
    "secp384r1": "sha384",
    "secp521r1": "sha512",
    "brainpoolP256r1": "sha256",
    "brainpoolP384r1": "sha384",
    "brainpoolP512r1": "sha512",
}


@lru_cache(maxsize=64)
def _shared_info(wrap: bytes, length: int, ukm: bytes | None) -> bytes:
    info = cms.EccCmsSharedInfo(
        key_info=cms.tlv(wrap), entity_u_info=ukm, supp_pub_info=(8 * length).to_bytes(4, "big")
    )
    return asn1.encode_der(info)


def key_encryption_key(shared: bytes, wrap: asn1.TLV, length: int, scheme: cms.Scheme, ukm: bytes | None) -> bytes:
    """A key of ``length`` octets for the wrap algorithm ``wrap``, bound to ECC-CMS-SharedInfo (RFC 5753 §7.2).

    By the X9.63 KDF, or by HKDF with the ukm as its salt (RFC 8418 §2.2).
    """
    info = _shared_info(asn1.encode_der(wrap), length, ukm)
    digest = KDF_HASHES[scheme.hash]
    if scheme.hkdf:
        return HKDF(digest, length, ukm, info).derive(shared)
    return X963KDF(digest, length, info).derive(shared)


@lru_cache(maxsize=32)
def _algorithm(scheme: cms.Scheme, length: int) -> tuple[asn1.TLV, asn1.TLV]:
    """(keyEncryptionAlgorithm, its wrap algorithm) for a wrap key of ``length`` octets."""
    wrap = cms.PlainAlgorithm(algorithm=_WRAP_OID[length])
    return cms.tlv(asn1.encode_der(cms.KeyWrapAlgorithm(algorithm=_SCHEME_OID[scheme], wrap=wrap))), cms.tlv(
        asn1.encode_der(wrap)
    )


class KeyAgreeRecipient:
    """A recipient with a public key for Diffie-Hellman; each message and recipient gets an ephemeral key of its own."""

    __slots__ = ("_public", "_rid", "_scheme")

    # RFC 5652 §6.1: an EnvelopedData with a KeyAgreeRecipientInfo has version 2.
    envelope_version = 2

    def __init__(
        self, public: ec.EllipticCurvePublicKey | x25519.X25519PublicKey, rid: cms.RecipientIdentifier
    ) -> None:
        self._public = public
        # RFC 5652 §6.2.2: by issuerAndSerialNumber, or [0] RecipientKeyIdentifier.
        self._rid = cms.RecipientKeyIdentifier(subject_key_identifier=rid) if isinstance(rid, bytes) else rid
        curve = public.curve.name if isinstance(public, ec.EllipticCurvePublicKey) else ""
        # RFC 8418 §2: HKDF with SHA-256 goes with X25519.
        self._scheme = cms.Scheme(_CURVE_HASH[curve]) if curve else cms.Scheme("sha256", hkdf=True)

    def info(self, key: bytes) -> bytes:
        """DER of the RecipientInfo for a content key. Raises ValueError when nothing can be agreed upon with the key."""
        shared, originator = _agree(self._public)
        # RFC 8551 §2.3: the wrap key has the size of the content key.
        algorithm, wrap = _algorithm(self._scheme, len(key))
        kek = key_encryption_key(shared, wrap, len(key), self._scheme, None)
        info = cms.KeyAgreeRecipientInfo(
            version=3,
            originator=originator,
            key_encryption_algorithm=algorithm,
            recipient_encrypted_keys=[
                cms.RecipientEncryptedKey(rid=self._rid, encrypted_key=keywrap.aes_key_wrap(kek, key)),
            ],
        )
        # RFC 5652 §6.2: kari is [1] IMPLICIT.
        return b"\xa1" + asn1.encode_der(info)[1:]


# RFC 5753 §3.1.1: the parameters of the ephemeral key are absent; the curve is that of the recipient's certificate.
_EC_ALGORITHM = cms.tlv(asn1.encode_der(cms.PlainAlgorithm(algorithm=cms.EC_PUBLIC_KEY)))
# RFC 8418 §3.1: id-X25519, and parameters must be absent.
_X25519_ALGORITHM = cms.tlv(asn1.encode_der(cms.PlainAlgorithm(algorithm=cms.X25519)))


def _agree(public: ec.EllipticCurvePublicKey | x25519.X25519PublicKey) -> tuple[bytes, cms.OriginatorPublicKey]:
    """Shared secret, and the ephemeral public key that the recipient needs to find it again."""
    if isinstance(public, x25519.X25519PublicKey):
        once = x25519.X25519PrivateKey.generate()
        octets = once.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        originator = cms.OriginatorPublicKey(algorithm=_X25519_ALGORITHM, public_key=asn1.BitString(octets, 0))
        return once.exchange(public), originator
    ephemeral = ec.generate_private_key(public.curve)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    originator = cms.OriginatorPublicKey(algorithm=_EC_ALGORITHM, public_key=asn1.BitString(point, 0))
    return ephemeral.exchange(ec.ECDH(), public), originator


def prepare(certificate: Certificate, rid: cms.RecipientIdentifier, wrap: Wrap) -> KeyAgreeRecipient:
    """Raises BadData."""
    try:
        public = certificate.x509.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise BadData(f"certificate {certificate.fingerprint[:16]}: unsupported public key: {exc}") from exc
    if not isinstance(public, ec.EllipticCurvePublicKey | x25519.X25519PublicKey):
        raise BadData(f"certificate {certificate.fingerprint[:16]}: its key isn't one for key agreement")
    return KeyAgreeRecipient(public, rid)
