"""Content-encryption suites and recipient key families (ALG-1: nothing weaker than these)."""

from __future__ import annotations

from enum import StrEnum


class Suite(StrEnum):
    """How content is encrypted. CBC gives EnvelopedData (RFC 5652 §6), GCM AuthEnvelopedData (RFC 5083, 5084)."""

    AES_128_CBC = "aes128-cbc"
    AES_256_CBC = "aes256-cbc"
    AES_256_GCM = "aes256-gcm"

    @property
    def key_length(self) -> int:
        """Octets of the content-encryption key."""
        return 16 if self is Suite.AES_128_CBC else 32

    @property
    def iv_length(self) -> int:
        """Octets of the IV (CBC) or nonce (GCM)."""
        return 12 if self is Suite.AES_256_GCM else 16


class KeyFamily(StrEnum):
    """RSA and EC recipients in one message can't be opened by older readers, so they are sealed apart."""

    RSA = "rsa"
    EC = "ec"
