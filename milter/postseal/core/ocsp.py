"""OCSP on the wire: requests for one certificate, and strict parsing of responses (RFC 6960, profile RFC 9919).

Who may sign a response, and what it says about a certificate, is judged in ``ocsp_status``.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from postseal.core.certificate_facts import CertificateFacts, certificate_facts
from postseal.core.crl import reason_code
from postseal.core.der import (
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    BadDer,
    Cursor,
    Extension,
    context,
    extensions,
    oid_content,
    tlv,
)

if TYPE_CHECKING:
    from postseal.core.evidence import Question

_BASIC, _NONCE = "1.3.6.1.5.5.7.48.1.1", "1.3.6.1.5.5.7.48.1.2"
_HASH_OIDS = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1"}
_HASH_NAMES = {oid: name for name, oid in _HASH_OIDS.items()}
# OCSP-19, RFC 6960 §4.4.2 to §4.4.8: extensions that change nothing for us. certificateIssuer isn't among them.
_UNDERSTOOD = frozenset(
    {_NONCE, *(f"1.3.6.1.5.5.7.48.1.{n}" for n in (3, 6, 7, 9)), "2.5.29.21", "2.5.29.23", "2.5.29.24"}
)
_MAX_SINGLES, _MAX_CERTIFICATES = 256, 16
_MAX_GET = 255
# RFC 9654 §2.1: 1 to 128 octets are legal, and a client uses at least 32.
NONCE_OCTETS, _MAX_NONCE = 32, 128

STATUS_NAMES = {
    0: "successful",
    1: "malformedRequest",
    2: "internalError",
    3: "tryLater",
    5: "sigRequired",
    6: "unauthorized",
}


@dataclass(frozen=True, slots=True)
class Single:
    """One SingleResponse. ``status`` is good, revoked or unknown; ``hash`` the CertID's, "" when it isn't supported."""

    hash: str
    name_hash: bytes
    key_hash: bytes
    serial: bytes
    status: str
    revoked_at: datetime | None
    reason: str
    this_update: datetime
    next_update: datetime | None
    unknown_critical: str


@dataclass(frozen=True, slots=True)
class Response:
    """A BasicOCSPResponse. Exactly one of ``responder_name`` (DER Name) and ``responder_key`` (SHA-1) is not empty."""

    tbs: bytes = field(repr=False)
    algorithm: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)
    responder_name: bytes
    responder_key: bytes
    produced_at: datetime
    singles: tuple[Single, ...]
    unknown_critical: str
    nonce: bytes | None


def build_request(question: Question, hash: str = "sha256", nonce: bytes = b"") -> bytes:
    """DER of an OCSPRequest for one certificate (OCSP-1): no requestor name, no signature. ``hash`` is sha256 or sha1.

    Raises ValueError for a nonce of more than 128 octets.
    """
    if len(nonce) > _MAX_NONCE:
        raise ValueError(f"a nonce has at most {_MAX_NONCE} octets")
    subject, issuer = certificate_facts(question.certificate.der), certificate_facts(question.issuer.der)
    name_hash, key_hash = issuer_hashes(hash, subject.issuer, issuer.key_bits)
    cert_id = tlv(
        SEQUENCE,
        tlv(SEQUENCE, tlv(OID, oid_content(_HASH_OIDS[hash])), tlv(NULL)),
        tlv(OCTET_STRING, name_hash),
        tlv(OCTET_STRING, key_hash),
        tlv(INTEGER, subject.serial),
    )
    tbs = tlv(SEQUENCE, tlv(SEQUENCE, cert_id))
    if nonce:
        # RFC 9654 §2.1: the value is an OCTET STRING inside the extension's OCTET STRING.
        value = tlv(OCTET_STRING, tlv(OCTET_STRING, nonce))
        tbs += tlv(context(2), tlv(SEQUENCE, tlv(SEQUENCE, tlv(OID, oid_content(_NONCE)), value)))
    return tlv(SEQUENCE, tlv(SEQUENCE, tbs))


def http_request(url: str, der: bytes, *, post: bool = False) -> tuple[str, str, bytes]:
    """Method, URL and body of the request: GET when the whole URL has at most 255 octets, else POST (OCSP-14).

    ``post`` asks for POST anyhow. A POST needs Content-Type application/ocsp-request (RFC 6960 Appendix A.1).
    """
    if post:
        return "POST", url, der
    encoded = base64.b64encode(der).decode("ascii")
    for plain, escaped in (("+", "%2B"), ("/", "%2F"), ("=", "%3D")):
        encoded = encoded.replace(plain, escaped)
    target = (url if url.endswith("/") else url + "/") + encoded
    # RFC 6960 Appendix A.1: GET, so that caches help, as long as the URL is short. Behind a query there is no place for it.
    if len(target) <= _MAX_GET and "?" not in url and "#" not in url:
        return "GET", target, b""
    return "POST", url, der


@lru_cache(maxsize=4096)
def issuer_hashes(hash_name: str, issuer_name: bytes, key_bits: bytes) -> tuple[bytes, bytes]:
    """issuerNameHash and issuerKeyHash (RFC 6960 §4.1.1): of the DER Name, and of the key without tag and unused bits."""
    return hashlib.new(hash_name, issuer_name).digest(), hashlib.new(hash_name, key_bits).digest()


def response_status(der: bytes) -> str:
    """responseStatus by name, "malformed" when it can't be read. Unsigned: it never decides anything (OCSP-4)."""
    try:
        return _status(Cursor(der).enter())
    except BadDer:
        return "malformed"


def has_nonce(der: bytes) -> bool:
    """Is there a nonce in a successful response? False for what can't be read."""
    try:
        return parse_response(der).nonce is not None
    except BadDer:
        return False


def about_responder(der: bytes) -> bool:
    """Does an answer that doesn't help concern the responder as a whole, rather than the one certificate asked about?

    "unauthorized" concerns the certificate: RFC 9919 has responders say so of what they have no answer for.
    """
    return response_status(der) in ("malformed", "internalError", "tryLater", "sigRequired")


def revokes_for_good(der: bytes) -> bool:
    """Does any SingleResponse say revoked, for another reason than certificateHold? False for what can't be read."""
    try:
        singles = parse_response(der).singles
    except BadDer:
        return False
    return any(s.status == "revoked" and s.reason != "certificateHold" for s in singles)


def _status(cursor: Cursor) -> str:
    code = cursor.enumerated()
    return STATUS_NAMES.get(code, f"status {code}")


class ResponderError(BadDer):
    """The responder answered with an error status; the text is its name (OCSP-4)."""


@lru_cache(maxsize=2048)
def parse_response(der: bytes) -> Response:
    """A successful OCSPResponse. Raises ResponderError for another status, BadDer for what isn't one."""
    if der.lstrip()[:1] == b"<":
        raise BadDer("an HTML or XML page")
    outer = Cursor(der)
    body = outer.enter()
    outer.finish()
    status = _status(body)
    if status != "successful":
        raise ResponderError(status)
    # OCSP-4: a successful answer without responseBytes exists in the wild; it is an error like any other.
    if body.peek() != context(0):
        raise BadDer("the answer has no response in it")
    wrapper = body.enter(context(0))
    body.finish()
    response_bytes = wrapper.enter()
    wrapper.finish()
    kind = response_bytes.oid()
    if kind != _BASIC:  # OCSP-5
        raise BadDer(f"the response type {kind} isn't id-pkix-ocsp-basic")
    basic_der = response_bytes.octets()
    response_bytes.finish()
    return _parse_basic(basic_der)


def _parse_basic(der: bytes) -> Response:
    outer = Cursor(der)
    body = outer.enter()
    outer.finish()
    tbs = body.take(SEQUENCE)
    algorithm = body.raw(SEQUENCE)
    signature = body.bits()
    certificates: tuple[bytes, ...] = ()
    if body.peek() == context(0):
        wrapper = body.enter(context(0))
        listed = wrapper.enter()
        wrapper.finish()
        certificates = tuple(der[e.start : e.end] for e in listed.children(SEQUENCE, _MAX_CERTIFICATES))
    body.finish()
    data = body.inside(tbs)
    if data.peek() == context(0) and data.enter(context(0)).integer() != 0:
        raise BadDer("the response isn't version 1")  # OCSP-5
    name, key = _responder(data)
    produced_at = data.time()
    singles = data.enter()
    parsed = tuple(_parse_single(singles.inside(e)) for e in singles.children(SEQUENCE, _MAX_SINGLES))
    found = _optional_extensions(data)
    data.finish()
    nonce = found.get(_NONCE)
    return Response(
        tbs=der[tbs.start : tbs.end],
        algorithm=algorithm,
        signature=signature,
        certificates=certificates,
        responder_name=name,
        responder_key=key,
        produced_at=produced_at,
        singles=parsed,
        unknown_critical=_unknown_critical(found),
        nonce=None if nonce is None else _nonce(nonce.value),
    )


def _nonce(value: bytes) -> bytes:
    """OCSP-13, RFC 9654 §2.1: an OCTET STRING; some responders leave out that layer."""
    cursor = Cursor(value)
    try:
        content = cursor.octets()
        cursor.finish()
    except BadDer:
        return value
    return content


def _responder(data: Cursor) -> tuple[bytes, bytes]:
    """ResponderID ::= CHOICE { byName [1] Name, byKey [2] KeyHash } (OCSP-8)."""
    if data.peek() == context(1):
        inner = data.enter(context(1))
        name = inner.raw(SEQUENCE)
        inner.finish()
        return name, b""
    inner = data.enter(context(2))
    key = inner.octets()
    inner.finish()
    if len(key) != 20:
        raise BadDer("the responder's key hash isn't SHA-1")
    return b"", key


def _parse_single(item: Cursor) -> Single:
    cert_id = item.enter()
    algorithm = cert_id.enter()
    hash_name = _HASH_NAMES.get(algorithm.oid(), "")
    name_hash, key_hash = cert_id.octets(), cert_id.octets()
    serial = cert_id.content(INTEGER)
    cert_id.finish()
    status, revoked_at, reason = "unknown", None, ""
    tag = item.peek()
    if tag == context(1):
        status, reason = "revoked", "unspecified"
        info = item.enter(context(1))
        # OCSP-18, RFC 6960 §4.4.8: 1970-01-01 and certificateHold means "never issued"; it is a date like any other.
        revoked_at = info.time()
        if info.peek() == context(0):
            reason = reason_code(info.content(context(0)))
        info.finish()
    elif tag in (context(0, False), context(2, False)):
        if item.content(tag):
            raise BadDer("a certificate status isn't NULL")
        status = "good" if tag == context(0, False) else "unknown"
    else:
        raise BadDer("unknown certificate status")
    this_update = item.time()
    next_update = item.enter(context(0)).time() if item.peek() == context(0) else None
    found = _optional_extensions(item)
    item.finish()
    return Single(
        hash_name, name_hash, key_hash, serial, status, revoked_at, reason, this_update, next_update,
        _unknown_critical(found),
    )  # fmt: skip


def _optional_extensions(cursor: Cursor) -> dict[str, Extension]:
    if cursor.peek() != context(1):
        return {}
    wrapper = cursor.enter(context(1))
    found = extensions(wrapper.enter())
    wrapper.finish()
    return found


def _unknown_critical(found: dict[str, Extension]) -> str:
    return next((e.oid for e in found.values() if e.critical and e.oid not in _UNDERSTOOD), "")


def matches(single: Single, subject: CertificateFacts, issuer: CertificateFacts) -> bool:
    """OCSP-2: is the SingleResponse about the certificate, hashes recomputed with the response's own algorithm?"""
    if not single.hash or single.serial != subject.serial:
        return False
    found = (single.name_hash, single.key_hash)
    # Some responders hash the name as it is written in the CA's own certificate.
    return any(found == issuer_hashes(single.hash, name, issuer.key_bits) for name in {subject.issuer, issuer.subject})


def refresh_window(der: bytes) -> tuple[datetime, datetime] | None:
    """CACHE-2: when to fetch a newer answer, between half and three quarters of the time from thisUpdate to nextUpdate.

    None when the answer can't be kept at all. The caller picks a random moment in it.
    """
    try:
        singles = parse_response(der).singles
    except BadDer:
        return None
    spans = [(s.this_update, s.next_update - s.this_update) for s in singles if s.next_update is not None]
    if not spans or any(span < timedelta(0) for _, span in spans):
        return None
    start, span = min(spans, key=lambda item: item[0] + item[1])
    return start + span * 0.5, start + span * 0.75
