"""KeyTransRecipientInfo: the content key encrypted with an RSA key (RFC 5652 §6.2.1, RFC 3370 §4.2.1, RFC 4055 §4)."""

from __future__ import annotations

from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.der import SEQUENCE, Cursor
from postseal.core.errors import BadData
from postseal.core.oaep import Oaep, demanded, oaep
from postseal.core.profile import key_kind, rsa_key, rsa_modulus
from postseal.core.suite import KeyTransport, Wrap

KDF_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # only to read what others wrote, and where a certificate demands it
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
# RFC 3370 §4.2.1: rsaEncryption has NULL parameters.
_PKCS1 = asn1.encode_der(cms.NullAlgorithm(algorithm=cms.RSA_ENCRYPTION, parameters=asn1.Null()))


def oaep_padding(chosen: Oaep) -> padding.OAEP:
    """The crypto library's form of it."""
    mask = padding.MGF1(KDF_HASHES[chosen.mask_hash])
    return padding.OAEP(mask, KDF_HASHES[chosen.hash], chosen.label or None)


class KeyTransRecipient:
    """Everything about one recipient that doesn't depend on the message: only the RSA operation is left to do."""

    __slots__ = ("_before", "_padding", "_public", "envelope_version")

    def __init__(self, public: rsa.RSAPublicKey, rid: cms.RecipientIdentifier, chosen: Oaep | None) -> None:
        """With ``chosen`` None by PKCS #1 v1.5."""
        self._public = public
        self._padding: padding.AsymmetricPadding = padding.PKCS1v15() if chosen is None else oaep_padding(chosen)
        # RFC 5652 §6.2.1: version 0 goes with issuerAndSerialNumber, 2 with subjectKeyIdentifier; §6.1: so does the envelope's.
        self.envelope_version = 2 if isinstance(rid, bytes) else 0
        # The encrypted key is as long as the modulus, so all that stands before it is known.
        size = -(-public.key_size // 8)
        info = cms.KeyTransRecipientInfo(
            version=self.envelope_version,
            rid=rid,
            key_encryption_algorithm=cms.tlv(_PKCS1 if chosen is None else chosen.identifier),
            encrypted_key=bytes(size),
        )
        self._before = asn1.encode_der(info)[:-size]

    def info(self, key: bytes) -> bytes:
        """DER of the RecipientInfo for a content key. Raises ValueError when the key doesn't fit into the modulus."""
        return self._before + self._public.encrypt(key, self._padding)


def prepare(certificate: Certificate, rid: cms.RecipientIdentifier, wrap: Wrap) -> KeyTransRecipient:
    """Raises BadData."""
    public = rsa_key(certificate)
    if public is None:
        raise BadData(f"certificate {certificate.fingerprint[:16]}: its RSA key can't be used")
    return KeyTransRecipient(public, rid, _chosen(certificate, wrap.transport))


def _chosen(certificate: Certificate, transport: KeyTransport) -> Oaep | None:
    chosen = None if transport is KeyTransport.PKCS1 else oaep(transport)
    if key_kind(certificate) == "RSA-OAEP":
        # RFC 4055 §1.2: such a key is for RSAES-OAEP only, and where it has parameters, for these.
        return demanded(certificate.spki) or chosen or oaep(KeyTransport.OAEP_SHA256)
    return chosen


def expected(certificate: Certificate, transport: KeyTransport) -> tuple[bytes, int]:
    """What the RecipientInfo for a certificate must hold: the content of keyEncryptionAlgorithm, octets of the encrypted key.

    Empty and 0 for a key that isn't RSA.
    """
    if rsa_key(certificate) is None:
        return b"", 0
    chosen = _chosen(certificate, transport)
    identifier = Cursor(_PKCS1 if chosen is None else chosen.identifier)
    return identifier.content(SEQUENCE), -(-rsa_modulus(certificate).bit_length() // 8)
