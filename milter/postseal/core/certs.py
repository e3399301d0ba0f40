"""Certificates as values: a thin wrapper that keeps the bytes and the facts that everybody asks for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postseal.core.errors import BadData


@dataclass(frozen=True, eq=False)
class Certificate:
    """An X.509 certificate. Equal when the bytes are equal. Made by ``load_certificate`` only."""

    der: bytes
    x509: x509.Certificate = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, 64 lower-case hex digits: the key under which certificates are stored."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def subject(self) -> bytes:
        """DER of the subject Name."""
        return self.x509.subject.public_bytes()

    @cached_property
    def issuer(self) -> bytes:
        """DER of the issuer Name."""
        return self.x509.issuer.public_bytes()

    @cached_property
    def spki(self) -> bytes:
        """DER of the SubjectPublicKeyInfo. Raises BadData for a key type that cryptography doesn't know."""
        try:
            return self.x509.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except Exception as exc:
            raise BadData(f"certificate {self.fingerprint[:16]}: unsupported public key: {exc}") from exc

    @cached_property
    def key_id(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, lower-case hex: names a CA key in the evidence store."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def serial(self) -> int:
        return self.x509.serial_number

    @property
    def not_before(self) -> datetime:
        return self.x509.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        return self.x509.not_valid_after_utc

    @cached_property
    def name(self) -> str:
        """The subject for people (RFC 4514). Hostile text: escape it before it reaches a log."""
        return self.x509.subject.rfc4514_string()


def load_certificate(der: bytes) -> Certificate:
    """One DER certificate, strict: no trailing data. Raises BadData."""
    try:
        return Certificate(bytes(der), x509.load_der_x509_certificate(der))
    except Exception as exc:
        raise BadData(f"not a certificate: {exc}") from exc


def load_certificates(blob: bytes) -> tuple[Certificate, ...]:
    """All certificates in a DER certificate, PEM bundle, or PKCS#7 bundle (DER or PEM). Raises BadData if there is none."""
    raise NotImplementedError  # owner: pki
