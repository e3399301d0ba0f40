"""CRLs: strict parsing, scope, look-up of an entry (RFC 5280 §5). Signatures and authority are judged in ``revocation``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Crl:
    """A parsed CRL. The owner of this module adds what judging needs; these fields are the contract for other modules."""

    der: bytes = field(repr=False)
    sha256: str
    issuer: bytes
    this_update: datetime
    next_update: datetime | None
    number: int | None
    authority_key_id: bytes | None
    idp: bytes | None
    entry_count: int


def parse_crl(blob: bytes, max_size: int = 64 * 1024 * 1024) -> Crl:
    """DER, or PEM or base64 that holds exactly one DER object (CRL-1). Raises BadData with the cause."""
    raise NotImplementedError  # owner: revocation


def signature_valid(crl: Crl, spki: bytes) -> bool:
    """Does the key in ``spki`` (DER SubjectPublicKeyInfo) verify the CRL's signature? Results are remembered by content."""
    raise NotImplementedError  # owner: revocation
