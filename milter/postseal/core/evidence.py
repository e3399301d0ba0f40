"""What is asked about a certificate, and what came back: values between fetching, storing and judging."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from postseal.core.certs import Certificate
from postseal.core.crl import Crl


@dataclass(frozen=True, slots=True)
class Question:
    """Is ``certificate``, issued by ``issuer``, revoked? URLs are those of its CRLDP and AIA, http and https only.

    Made only from a certificate whose path to an anchor has been validated (PRE-1). ``chain`` may hold further certificates
    of that path; the lookup process, which validates it again, needs them if it doesn't know them itself.
    """

    certificate: Certificate
    issuer: Certificate
    crl_urls: tuple[str, ...]
    ocsp_urls: tuple[str, ...]
    chain: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class CrlEvidence:
    """A parsed CRL as fetched from ``url`` (or ``file:NAME`` when imported); its signature is not yet judged."""

    crl: Crl
    url: str
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class OcspEvidence:
    """The DER bytes of an OCSPResponse as fetched from ``url``; nothing in it is judged yet."""

    der: bytes
    url: str
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A source that gave no evidence. ``why`` is a ``rev.*`` reason code, ``detail`` the error in words.

    The source isn't asked again before ``retry_at`` (CACHE-3); None means that it may be asked at once.
    """

    url: str
    why: str
    detail: str
    at: datetime
    retry_at: datetime | None = None


Evidence = CrlEvidence | OcspEvidence | NoAnswer
