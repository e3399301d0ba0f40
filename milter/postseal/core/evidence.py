"""What is asked about a certificate, and what came back: values between fetching, storing and judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from postseal.core.certificate_facts import certificate_facts
from postseal.core.certs import Certificate
from postseal.core.crl import Crl
from postseal.core.der import BadDer
from postseal.core.profile import extension, profile

MAX_CRL_URLS = 8
MAX_OCSP_URLS = 3
MAX_DELTA_URLS = 4
MAX_LDAP_URLS = 3
MAX_CRL_ISSUERS = 8
_MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class Question:
    """Is ``certificate``, issued by ``issuer``, revoked? URLs are those of its CRLDP and AIA, http and https only.

    Made only from a certificate whose path to an anchor has been validated (PRE-1). ``chain`` may hold further certificates
    of that path; the lookup process, which validates it again, needs them if it doesn't know them itself. ``skipped`` tells
    in words which pointers of the certificate can't be used (ldap:, malformed, another CRL issuer, more than are tried):
    without any URL but with something skipped the answer is "unsupported", not "none declared". ``crl_issuers`` are the DER
    Names in cRLIssuer of its distribution points: others than the issuer who may sign its CRLs (CRL-2). ``delta_urls`` are
    those of its freshestCRL (CRL-18). ``ldap_urls`` are CRLDP names for directories; who may follow them does (CRL-28).
    """

    certificate: Certificate
    issuer: Certificate
    crl_urls: tuple[str, ...]
    ocsp_urls: tuple[str, ...]
    chain: tuple[Certificate, ...] = ()
    skipped: tuple[str, ...] = ()
    crl_issuers: tuple[bytes, ...] = ()
    delta_urls: tuple[str, ...] = ()
    ldap_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Orphan:
    """A certificate without a path, because the issuer of it isn't known: where might the issuer's certificate be had?

    Not validated, so only certificates that an administrator or a directory gave us become one (THR-1, PRE-1).
    """

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class CrlEvidence:
    """A parsed CRL as fetched from ``url`` (or ``file:NAME`` when imported); its signature is not yet judged.

    ``signer`` may begin with the certificate whose key signed it, followed by what else leads to an anchor. It is a hint for
    CRLs that the question's issuer didn't sign itself, and judged like everything else. ``outdated`` tells that the store
    once had a newer one of the same scope: then it can revoke, but makes nothing good (CRL-25).
    """

    crl: Crl
    url: str
    fetched_at: datetime
    signer: tuple[Certificate, ...] = ()
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class OcspEvidence:
    """The DER bytes of an OCSPResponse as fetched from ``url``; nothing in it is judged yet.

    ``nonce`` is that of the request, for the one judgement that follows the fetching; empty when none was sent or when the
    answer comes from the store.
    """

    der: bytes
    url: str
    fetched_at: datetime
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A source that gave no evidence. ``why`` is a ``rev.*`` reason code, ``detail`` the error in words.

    The source isn't asked again before ``retry_at`` (CACHE-3); None means that it may be asked at once. ``alarming``: it
    always gave fresh evidence until now (RPL-6).
    """

    url: str
    why: str
    detail: str
    at: datetime
    retry_at: datetime | None = None
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class RevokedBefore:
    """CRL-27: the certificate of the question was revoked by evidence that was judged before and may be gone by now.

    Only for revocations that aren't a hold. ``url`` is where that evidence came from, ``fetched_at`` when it was judged.
    """

    url: str
    fetched_at: datetime
    revoked_at: datetime | None = None
    reason: str = "unspecified"
    this_update: datetime | None = None


Evidence = CrlEvidence | OcspEvidence | NoAnswer | RevokedBefore


def question_for(certificate: Certificate, issuer: Certificate, chain: Sequence[Certificate] = ()) -> Question:
    """The question for ``certificate``: its usable CRL and OCSP URLs in their order, each once. Never raises.

    CRL URLs are those of all fullNames (CRL-11: several points, and several names of one point, are all tried), also of
    points with a cRLIssuer (CRL-2). OCSP URLs are at most three (OCSP-20). What is left out is named in ``skipped``.
    """
    return _question(certificate, issuer, tuple(chain))


@lru_cache(maxsize=4096)
def _question(certificate: Certificate, issuer: Certificate, chain: tuple[Certificate, ...]) -> Question:
    """Remembered, since mail asks about the same few again and again."""
    extensions = profile(certificate).extensions
    skipped: list[str] = []
    points = extension(extensions, x509.CRLDistributionPoints) or ()
    crl_urls = [url for point in points for url in _point_urls(point, skipped)]
    access = extension(extensions, x509.AuthorityInformationAccess) or ()
    freshest = extension(extensions, x509.FreshestCRL) or ()
    delta_urls = [url for point in freshest for url in _point_urls(point, [])]
    named = [e.access_location for e in access if e.access_method == AuthorityInformationAccessOID.OCSP]
    ocsp_urls = [url for url in (_usable(name, "OCSP responder", skipped) for name in named) if url]
    return Question(
        certificate,
        issuer,
        _first(crl_urls, MAX_CRL_URLS, "CRL", skipped),
        _first(ocsp_urls, MAX_OCSP_URLS, "OCSP", skipped),
        chain,
        tuple(skipped),
        _crl_issuers(certificate),
        _first(delta_urls, MAX_DELTA_URLS, "delta CRL", []),
        _first([url for point in points for url in _ldap_urls(point)], MAX_LDAP_URLS, "LDAP", []),
    )


def _ldap_urls(point: x509.DistributionPoint) -> list[str]:
    """CRL-28: what they say is vetted where they are followed; here they only have to be text that can be handed on."""
    names = [n.value for n in point.full_name or () if isinstance(n, x509.UniformResourceIdentifier)]
    return [n for n in names if n[:7].lower() == "ldap://" and len(n) <= _MAX_URL and n.isascii() and n.isprintable()]


def _crl_issuers(certificate: Certificate) -> tuple[bytes, ...]:
    try:
        points = certificate_facts(certificate.der).points or ()
    except BadDer:
        return ()
    return tuple(dict.fromkeys(name for point in points for name in point.crl_issuers))[:MAX_CRL_ISSUERS]


def delta_urls(question: Question, evidence: Sequence[Evidence]) -> tuple[str, ...]:
    """Where delta CRLs for the question are: freshestCRL of the certificate, then of the CRLs at hand; none without a CRL.

    CRL-17, CRL-18: a delta is nothing without its base, so the base is fetched first, and its word is heard too.
    """
    crls = [item.crl for item in evidence if isinstance(item, CrlEvidence) and item.crl.delta_base is None]
    if not crls:
        return ()
    names = [name for crl in crls for point in crl.freshest if point.name is not None for name in point.name.urls()]
    usable = (_usable(x509.UniformResourceIdentifier(name), "delta CRL", []) for name in names)
    return _first([*question.delta_urls, *(url for url in usable if url)], MAX_DELTA_URLS, "delta CRL", [])


def issuer_urls(certificate: Certificate) -> tuple[str, ...]:
    """http and https URLs where the issuer's certificate may be (AIA caIssuers, RFC 5280 §4.2.2.1), at most three."""
    return _issuer_urls(extension(profile(certificate).extensions, x509.AuthorityInformationAccess))


def crl_issuer_urls(der: bytes) -> tuple[str, ...]:
    """The same for a CRL (RFC 5280 §5.2.7): where the certificate of its signer may be."""
    try:
        return _issuer_urls(extension(x509.load_der_x509_crl(der).extensions, x509.AuthorityInformationAccess))
    except Exception:
        # The library's parser has no common error; what it can't read names nobody.
        return ()


def _issuer_urls(access: x509.AuthorityInformationAccess | None) -> tuple[str, ...]:
    named = [e.access_location for e in access or () if e.access_method == AuthorityInformationAccessOID.CA_ISSUERS]
    skipped: list[str] = []
    return tuple(url for url in (_usable(name, "issuer", skipped) for name in named) if url)[:3]


def _point_urls(point: x509.DistributionPoint, skipped: list[str]) -> list[str]:
    # CRL-12: a name relative to the CRL issuer is an entry in a directory.
    if point.full_name is None:
        skipped.append("a CRL distribution point without a full name")
        return []
    return [url for url in (_usable(name, "CRL", skipped) for name in point.full_name) if url]


def _usable(name: x509.GeneralName, kind: str, skipped: list[str]) -> str:
    """The URL if it is http or https and well formed, else "" (CRL-28: ldap is for another version)."""
    if not isinstance(name, x509.UniformResourceIdentifier):
        skipped.append(f"a {kind} name that isn't a URL")
        return ""
    url = name.value
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        skipped.append(f"malformed {kind} URL {url[:200]!a}")
        return ""
    if parts.scheme.lower() not in ("http", "https"):
        skipped.append(f"{kind} URL {url[:200]!a}, which is neither http nor https")
        return ""
    # RFC 3986 §2: no spaces, no control characters; user names and passwords in a certificate's URL are a trap.
    printable = url.isascii() and not any(c <= " " or c == "\x7f" for c in url)
    if not host or not printable or "@" in parts.netloc or len(url) > _MAX_URL:
        skipped.append(f"malformed {kind} URL {url[:200]!a}")
        return ""
    return url


def _first(urls: Sequence[str], most: int, kind: str, skipped: list[str]) -> tuple[str, ...]:
    different = tuple(dict.fromkeys(urls))
    if len(different) > most:
        skipped.append(f"{len(different) - most} further {kind} URLs")
    return different[:most]
