"""CMS structures, declared once and used both to build and to read (RFC 5652 §6 and §10, RFC 5083 §2, RFC 5084, RFC 5753).

What is declared here is the part around the content. The encrypted content itself is streamed: its length is known before
it is written, so the headers of everything that encloses it are computed with ``header``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.x509 import Name
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.errors import BadData
from postseal.core.suite import Suite

DATA = Oid("1.2.840.113549.1.7.1")
SIGNED_DATA = Oid("1.2.840.113549.1.7.2")
ENVELOPED_DATA = Oid("1.2.840.113549.1.7.3")
COMPRESSED_DATA = Oid("1.2.840.113549.1.9.16.1.9")
AUTH_ENVELOPED_DATA = Oid("1.2.840.113549.1.9.16.1.23")

RSA_ENCRYPTION = Oid("1.2.840.113549.1.1.1")
RSAES_OAEP = Oid("1.2.840.113549.1.1.7")
EC_PUBLIC_KEY = Oid("1.2.840.10045.2.1")
# RFC 8410 §3
X25519 = Oid("1.3.101.110")

ORI_KEM = Oid("1.2.840.113549.1.9.16.13.3")
# Key encapsulation that is recognised: ML-KEM (RFC 9936 §2).
KEMS: dict[Oid, str] = {
    Oid("2.16.840.1.101.3.4.4.1"): "ml-kem-512",
    Oid("2.16.840.1.101.3.4.4.2"): "ml-kem-768",
    Oid("2.16.840.1.101.3.4.4.3"): "ml-kem-1024",
}

# Ciphers that are recognised as encryption, though nothing here opens them: DES-EDE3-CBC, RC2-CBC, Camellia (RFC 3657), AES-CCM
# (RFC 5084), ChaCha20-Poly1305 (RFC 8103).
FOREIGN_CIPHERS: dict[Oid, str] = {
    Oid("1.2.840.113549.3.7"): "des-ede3-cbc",
    Oid("1.2.840.113549.3.2"): "rc2-cbc",
    Oid("1.2.392.200011.61.1.1.1.2"): "camellia128-cbc",
    Oid("1.2.392.200011.61.1.1.1.3"): "camellia192-cbc",
    Oid("1.2.392.200011.61.1.1.1.4"): "camellia256-cbc",
    Oid("2.16.840.1.101.3.4.1.7"): "aes128-ccm",
    Oid("2.16.840.1.101.3.4.1.47"): "aes256-ccm",
    Oid("1.2.840.113549.1.9.16.3.18"): "chacha20-poly1305",
}

# Content encryption (RFC 3565 §4.1, RFC 5084 §3.2): key length in octets, and whether it is GCM.
CONTENT_CIPHERS: dict[Oid, tuple[str, int, bool]] = {
    Oid("2.16.840.1.101.3.4.1.2"): ("aes128-cbc", 16, False),
    Oid("2.16.840.1.101.3.4.1.22"): ("aes192-cbc", 24, False),
    Oid("2.16.840.1.101.3.4.1.42"): ("aes256-cbc", 32, False),
    Oid("2.16.840.1.101.3.4.1.6"): ("aes128-gcm", 16, True),
    Oid("2.16.840.1.101.3.4.1.26"): ("aes192-gcm", 24, True),
    Oid("2.16.840.1.101.3.4.1.46"): ("aes256-gcm", 32, True),
}
SUITE_OID: dict[Suite, Oid] = {Suite(name): oid for oid, (name, _, _) in CONTENT_CIPHERS.items() if name in set(Suite)}

# RFC 4055 §2.1: hash functions of RSAES-OAEP.
OAEP_HASHES: dict[Oid, str] = {
    Oid("1.3.14.3.2.26"): "sha1",
    Oid("2.16.840.1.101.3.4.2.4"): "sha224",
    Oid("2.16.840.1.101.3.4.2.1"): "sha256",
    Oid("2.16.840.1.101.3.4.2.2"): "sha384",
    Oid("2.16.840.1.101.3.4.2.3"): "sha512",
}
# RFC 3565 §2.3.2: AES key wrap, by length of the key-encryption key in octets.
AES_WRAP: dict[Oid, int] = {
    Oid("2.16.840.1.101.3.4.1.5"): 16,
    Oid("2.16.840.1.101.3.4.1.25"): 24,
    Oid("2.16.840.1.101.3.4.1.45"): 32,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """A key agreement scheme dhSinglePass-stdDH: the hash of its key derivation, which is X9.63's or HKDF."""

    hash: str
    hkdf: bool = False

    @property
    def name(self) -> str:
        """As in the name of the scheme: sha256kdf, hkdf-sha256."""
        return f"hkdf-{self.hash}" if self.hkdf else f"{self.hash}kdf"


STD_DH: dict[Oid, Scheme] = {
    # RFC 5753 §7.1.4
    Oid("1.3.133.16.840.63.0.2"): Scheme("sha1"),
    Oid("1.3.132.1.11.0"): Scheme("sha224"),
    Oid("1.3.132.1.11.1"): Scheme("sha256"),
    Oid("1.3.132.1.11.2"): Scheme("sha384"),
    Oid("1.3.132.1.11.3"): Scheme("sha512"),
    # RFC 8418 §2.2
    Oid("1.2.840.113549.1.9.16.3.19"): Scheme("sha256", hkdf=True),
    Oid("1.2.840.113549.1.9.16.3.20"): Scheme("sha384", hkdf=True),
    Oid("1.2.840.113549.1.9.16.3.21"): Scheme("sha512", hkdf=True),
}


@asn1.sequence
class Elements:
    """A SEQUENCE around any SEQUENCE (OF ANY): takes the inner one apart, one level. See ``elements``."""

    items: list[asn1.TLV]


@asn1.sequence
class PlainAlgorithm:
    """AlgorithmIdentifier without parameters."""

    algorithm: Oid


@asn1.sequence
class NullAlgorithm:
    """AlgorithmIdentifier whose parameters are NULL (RFC 3370 §4.2.1 asks this for rsaEncryption)."""

    algorithm: Oid
    parameters: asn1.Null


@asn1.sequence
class CbcAlgorithm:
    """RFC 3565 §4.1: the parameters are the IV."""

    algorithm: Oid
    iv: bytes


@asn1.sequence
class GcmParameters:
    """RFC 5084 §3.2. The ICV length is declared as optional, not DEFAULT 12, so that 16 is always written (ALG-5)."""

    nonce: bytes
    icv_length: int | None = None


@asn1.sequence
class GcmAlgorithm:
    algorithm: Oid
    parameters: GcmParameters


@asn1.sequence
class KeyWrapAlgorithm:
    """RFC 5753 §7.2: a key-agreement scheme whose parameter is the key-wrap algorithm."""

    algorithm: Oid
    wrap: PlainAlgorithm


@asn1.sequence
class IssuerAndSerialNumber:
    """Both as they stand in the certificate, octet for octet: readers compare the DER of the name."""

    issuer: asn1.TLV
    serial: asn1.TLV


RecipientIdentifier = IssuerAndSerialNumber | bytes
"""As a value: the other choice is the subjectKeyIdentifier."""


@asn1.sequence
class KeyTransRecipientInfo:
    """RFC 5652 §6.2.1. Version 0 goes with issuerAndSerialNumber, 2 with subjectKeyIdentifier."""

    version: int
    rid: IssuerAndSerialNumber | Annotated[bytes, asn1.Implicit(0)]
    key_encryption_algorithm: asn1.TLV
    encrypted_key: bytes


@asn1.sequence
class RecipientKeyIdentifier:
    subject_key_identifier: bytes
    date: asn1.GeneralizedTime | None = None
    other: list[asn1.TLV] | None = None


@asn1.sequence
class RecipientEncryptedKey:
    rid: IssuerAndSerialNumber | Annotated[RecipientKeyIdentifier, asn1.Implicit(0)]
    encrypted_key: bytes


@asn1.sequence
class OriginatorPublicKey:
    algorithm: asn1.TLV
    public_key: asn1.BitString


@asn1.sequence
class KeyAgreeRecipientInfo:
    """RFC 5652 §6.2.2, with an ephemeral key of the originator (RFC 5753 §3.1.1)."""

    version: int
    originator: Annotated[
        IssuerAndSerialNumber | Annotated[bytes, asn1.Implicit(0)] | Annotated[OriginatorPublicKey, asn1.Implicit(1)],
        asn1.Explicit(0),
    ]
    ukm: Annotated[bytes | None, asn1.Explicit(1)] = None
    key_encryption_algorithm: asn1.TLV
    recipient_encrypted_keys: list[RecipientEncryptedKey]


@asn1.sequence
class KekRecipientInfo:
    """RFC 5652 §6.2.3: recognised, never opened."""

    version: int
    kekid: list[asn1.TLV]
    key_encryption_algorithm: asn1.TLV
    encrypted_key: bytes


@asn1.sequence
class PasswordRecipientInfo:
    """RFC 5652 §6.2.4: recognised, never opened."""

    version: int
    key_derivation_algorithm: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)] = None
    key_encryption_algorithm: asn1.TLV
    encrypted_key: bytes


@asn1.sequence
class OtherRecipientInfo:
    """RFC 5652 §6.2.5: recognised, never opened."""

    ori_type: Oid
    ori_value: asn1.TLV


@asn1.sequence
class KemRecipientInfo:
    """RFC 9629 §3, the value of an OtherRecipientInfo of type ``ORI_KEM``: recognised, not opened yet."""

    version: int
    rid: IssuerAndSerialNumber | Annotated[bytes, asn1.Implicit(0)]
    kem: asn1.TLV
    kemct: bytes
    kdf: asn1.TLV
    kek_length: int
    ukm: Annotated[bytes | None, asn1.Explicit(0)] = None
    wrap: asn1.TLV
    encrypted_key: bytes


RecipientInfo = (
    KeyTransRecipientInfo | KeyAgreeRecipientInfo | KekRecipientInfo | PasswordRecipientInfo | OtherRecipientInfo
)
RecipientInfos = asn1.SetOf[
    KeyTransRecipientInfo
    | Annotated[KeyAgreeRecipientInfo, asn1.Implicit(1)]
    | Annotated[KekRecipientInfo, asn1.Implicit(2)]
    | Annotated[PasswordRecipientInfo, asn1.Implicit(3)]
    | Annotated[OtherRecipientInfo, asn1.Implicit(4)]
]


@asn1.sequence
class RecipientsHead:
    """The SET OF RecipientInfo inside a SEQUENCE of its own, so that it can be coded apart from what follows it."""

    infos: RecipientInfos


@asn1.sequence
class ContentInfo:
    """RFC 5652 §3."""

    content_type: Oid
    content: Annotated[asn1.TLV, asn1.Explicit(0)]


@asn1.sequence
class EccCmsSharedInfo:
    """RFC 5753 §7.2: what the key derivation is bound to. ``supp_pub_info`` is the length of the KEK in bits, 4 octets."""

    key_info: asn1.TLV
    entity_u_info: Annotated[bytes | None, asn1.Explicit(0)] = None
    supp_pub_info: Annotated[bytes, asn1.Explicit(2)]


@asn1.sequence
class HashAlgorithm:
    algorithm: Oid
    parameters: asn1.Null | None = None


@asn1.sequence
class MaskGenAlgorithm:
    algorithm: Oid
    hash: HashAlgorithm


@asn1.sequence
class LabelSource:
    algorithm: Oid
    label: bytes


@asn1.sequence
class OaepParameters:
    """RFC 4055 §4.1: SHA-1, MGF1 with SHA-1 and the empty label where a part is absent."""

    hash_algorithm: Annotated[HashAlgorithm | None, asn1.Explicit(0)] = None
    mask_gen_algorithm: Annotated[MaskGenAlgorithm | None, asn1.Explicit(1)] = None
    label_source: Annotated[LabelSource | None, asn1.Explicit(2)] = None


@asn1.sequence
class CertificateTop:
    tbs: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.TLV


def tlv(der: bytes) -> asn1.TLV:
    """One DER value of any type. Raises BadData."""
    try:
        return asn1.decode_der(asn1.TLV, der)
    except ValueError as exc:
        raise BadData(f"not DER: {exc}") from exc


def header(tag: int, length: int) -> bytes:
    """Identifier and definite length octets (X.690 §8.1.3, shortest form) of a value of ``length`` octets."""
    if length < 128:
        return bytes((tag, length))
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets


def elements(sequence: asn1.TLV) -> list[asn1.TLV]:
    """What a SEQUENCE of any kind holds. Raises ValueError when it is not a SEQUENCE."""
    der = asn1.encode_der(sequence)
    return asn1.decode_der(Elements, header(0x30, len(der)) + der).items


def algorithm_of(identifier: asn1.TLV) -> tuple[Oid, asn1.TLV | None]:
    """An AlgorithmIdentifier -> its OID and its parameters, if there are any. Raises ValueError."""
    items = elements(identifier)
    if not 1 <= len(items) <= 2:
        raise ValueError("an AlgorithmIdentifier has one or two parts")
    return items[0].parse(Oid), items[1] if len(items) == 2 else None


def issuer_and_serial(certificate: bytes) -> IssuerAndSerialNumber:
    """Issuer and serialNumber of a DER certificate, octet for octet as in it. Raises BadData."""
    try:
        parts = elements(asn1.decode_der(CertificateTop, certificate).tbs)
        # RFC 5280 §4.1: version [0] is absent in version 1.
        first = 1 if parts[0].tag_bytes == b"\xa0" else 0
        return IssuerAndSerialNumber(issuer=parts[first + 2], serial=parts[first])
    except (ValueError, IndexError) as exc:
        raise BadData(f"not a certificate: {exc}") from exc


def name_text(name: asn1.TLV) -> str:
    """A Name for people (RFC 4514); its DER in hex when it can't be read. Hostile text: escape it."""
    try:
        parsed: Name = name.parse(Name)
        return parsed.rfc4514_string()
    except ValueError:
        return "#" + asn1.encode_der(name).hex()


def integer(value: asn1.TLV) -> int:
    """An INTEGER's value; two's complement of the octets as they are, so that no serial number is refused."""
    return int.from_bytes(value.data, "big", signed=True)
