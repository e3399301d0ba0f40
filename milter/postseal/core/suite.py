"""Content-encryption suites and recipient key families (ALG-1: nothing weaker than these)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Suite(StrEnum):
    """How content is encrypted. CBC gives EnvelopedData (RFC 5652 §6), GCM AuthEnvelopedData (RFC 5083, 5084)."""

    AES_128_CBC = "aes128-cbc"
    AES_192_CBC = "aes192-cbc"
    AES_256_CBC = "aes256-cbc"
    AES_128_GCM = "aes128-gcm"
    AES_256_GCM = "aes256-gcm"

    @property
    def key_length(self) -> int:
        """Octets of the content-encryption key."""
        return int(self[3:6]) // 8

    @property
    def gcm(self) -> bool:
        """Is the content authenticated?"""
        return self.endswith("gcm")

    @property
    def iv_length(self) -> int:
        """Octets of the IV (CBC) or nonce (GCM)."""
        return 12 if self.gcm else 16


class KeyTransport(StrEnum):
    """How an RSA key wraps the content key: RFC 3370 §4.2.1, or RSAES-OAEP with explicit parameters (RFC 4055 §4.1, ALG-4)."""

    PKCS1 = "pkcs1"
    OAEP_SHA256 = "oaep-sha256"
    OAEP_SHA384 = "oaep-sha384"
    OAEP_SHA512 = "oaep-sha512"


class RecipientId(StrEnum):
    """By what a recipient's certificate is named (RFC 5652 §6.2.1)."""

    ISSUER = "issuer"
    KEY_ID = "key-id"


@dataclass(frozen=True, slots=True)
class Wrap:
    """How the content key is wrapped for one recipient. ``transport`` is for RSA keys; an id-RSAES-OAEP key is never used with
    PKCS #1 v1.5. ``by_key_id`` names the certificate by its subjectKeyIdentifier instead of issuer and serial number.
    """

    transport: KeyTransport = KeyTransport.PKCS1
    by_key_id: bool = False


PLAIN_WRAP = Wrap()


class KeyFamily(StrEnum):
    """Recipients of different families in one message can't be opened by older readers, so they are sealed apart."""

    RSA = "rsa"
    EC = "ec"
    X25519 = "x25519"


# By the kind of the key (core.profile.key_kind). A kind that isn't here can't be sealed for.
FAMILIES: dict[str, KeyFamily] = {
    "RSA": KeyFamily.RSA,
    "RSA-OAEP": KeyFamily.RSA,
    "secp256r1": KeyFamily.EC,
    "secp384r1": KeyFamily.EC,
    "secp521r1": KeyFamily.EC,
    "brainpoolP256r1": KeyFamily.EC,
    "brainpoolP384r1": KeyFamily.EC,
    "brainpoolP512r1": KeyFamily.EC,
    "X25519": KeyFamily.X25519,
}
