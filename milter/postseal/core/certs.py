"""Certificates as values: a thin wrapper that keeps the bytes and the facts that everybody asks for."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from postseal.core.der import BIT_STRING, INTEGER, SEQUENCE, BadDer, Cursor, Extension, context, extensions, tlv
from postseal.core.errors import BadData
from postseal.core.pem import pem_blocks

# A serial number of zero or below is the CA's fault and harmless here; strangers must not fill our log with it.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")


class Parts(NamedTuple):
    """Fields of a certificate as slices of its DER (RFC 5280 §4.1), exactly as they were received."""

    tbs: bytes
    inner_algorithm: bytes
    issuer: bytes
    subject: bytes
    spki: bytes
    outer_algorithm: bytes
    signature: bytes
    serial: bytes


@dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    """An X.509 certificate. Equal when the bytes are equal. Made by ``load_certificate`` only."""

    der: bytes
    x509: x509.Certificate

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"Certificate({self.fingerprint[:16]})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, 64 lower-case hex digits: the key under which certificates are stored."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def parts(self) -> Parts:
        """The raw fields. ``load_certificate`` has made sure that they are there."""
        return _split(self.der)

    @cached_property
    def raw_extensions(self) -> dict[str, Extension]:
        """The extensions by OID as received, in strict DER. Raises BadDer."""
        tbs = Cursor(self.parts.tbs).enter(SEQUENCE)
        last = tbs.children()[-1]
        if last.tag != context(3):
            return {}
        outer = tbs.inside(last)
        found = extensions(outer.enter(SEQUENCE), 256)
        outer.finish()
        return found

    @cached_property
    def subject(self) -> bytes:
        """DER of the subject Name, as received."""
        return self.parts.subject

    @cached_property
    def issuer(self) -> bytes:
        """DER of the issuer Name, as received."""
        return self.parts.issuer

    @cached_property
    def spki(self) -> bytes:
        """DER of the SubjectPublicKeyInfo, as received; whether the key in it is one that we know is another question."""
        return self.parts.spki

    @cached_property
    def key_id(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, lower-case hex: names a CA key in the evidence store."""
        return hashlib.sha256(self.spki).hexdigest()

    @cached_property
    def issuer_and_serial(self) -> bytes:
        """DER of the IssuerAndSerialNumber (RFC 5652 §10.2.4), both octet for octet as in the certificate."""
        return tlv(SEQUENCE, self.parts.issuer, self.parts.serial)

    @property
    def serial(self) -> int:
        return self.x509.serial_number

    @cached_property
    def not_before(self) -> datetime:
        return self.x509.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime:
        return self.x509.not_valid_after_utc

    @cached_property
    def name(self) -> str:
        """The subject for people (RFC 4514); the serial number where it is empty. Hostile text: escape it for a log."""
        return self.x509.subject.rfc4514_string() or f"(no name, serial {self.serial:x})"


def _split(der: bytes) -> Parts:
    """RFC 5280 §4.1: Certificate and TBSCertificate up to the key. Raises BadDer."""
    outer = Cursor(der)
    certificate = outer.enter(SEQUENCE)
    outer.finish()
    tbs_at = certificate.at
    tbs = certificate.enter(SEQUENCE)
    if tbs.peek() == context(0):
        tbs.take()
    serial = tbs.raw(INTEGER)
    inner = tbs.raw(SEQUENCE)
    issuer = tbs.raw(SEQUENCE)
    tbs.take(SEQUENCE)
    subject = tbs.raw(SEQUENCE)
    spki = tbs.raw(SEQUENCE)
    whole = bytes(der[tbs_at : certificate.at])
    algorithm = certificate.raw(SEQUENCE)
    bits = certificate.content(BIT_STRING)
    # X.690 §8.6.2: the first octet counts unused bits. No signature has any: one that does verifies nothing.
    signature = bits[1:] if bits[:1] == b"\x00" else b""
    certificate.finish()
    return Parts(whole, inner, issuer, subject, spki, algorithm, signature, serial)


def load_certificate(der: bytes) -> Certificate:
    """One DER certificate, strict: no trailing data. Raises BadData.

    Extensions and key are not judged here: a certificate with a key or an extension that nobody knows is still one.
    """
    try:
        parsed = x509.load_der_x509_certificate(der)
        certificate = Certificate(bytes(der), parsed)
        # Names and times are decoded at first use by the library: have it fail here, not in the middle of a path.
        _ = certificate.parts, certificate.name, parsed.issuer, certificate.not_before, certificate.not_after
    except Exception as exc:
        raise BadData(f"not a certificate: {_cause(exc)}") from exc
    return certificate


def without_extension(certificate: Certificate, oid: str) -> x509.Certificate:
    """The library's view of a certificate without one extension, for reading the others. Raises any exception."""
    signed, outer = certificate.parts.tbs, certificate.parts.outer_algorithm
    tbs = Cursor(signed).enter(SEQUENCE)
    *fields, last = tbs.children()
    items = tbs.inside(last).enter(SEQUENCE)
    kept = [e for e in items.children(SEQUENCE) if items.inside(e).oid() != oid]
    rest = tlv(context(3), tlv(SEQUENCE, *(signed[e.start : e.end] for e in kept))) if kept else b""
    body = tlv(SEQUENCE, *(signed[e.start : e.end] for e in fields), rest)
    return x509.load_der_x509_certificate(tlv(SEQUENCE, body, outer, tlv(BIT_STRING, b"\x00")))


def load_certificates(blob: bytes, *, limit: int = 10_000) -> tuple[Certificate, ...]:
    """All certificates in a DER certificate, a PEM bundle, or a PKCS#7 bundle without content (DER or PEM), in order.

    Text around and between PEM blocks is ignored, and so are blocks of other kinds (keys, CRLs). Raises BadData when there
    is no certificate, when there are more than ``limit``, or when one can't be read; the text says which.
    """
    if not blob.strip():
        raise BadData("the file is empty")
    if blob[:1] == b"\x30":
        found = _from_der(blob)
    else:
        found = []
        for number, (label, der) in enumerate(pem_blocks(blob, _CERTIFICATE_LABELS + _PKCS7_LABELS), 1):
            try:
                found += _from_pem(label, der)
            except BadData as exc:
                raise BadData(f"PEM block {number}: {exc}") from exc
            if len(found) > limit:
                break
    if not found:
        raise BadData(f"no certificate found (expected DER, PEM or PKCS#7){_instead(blob)}")
    if len(found) > limit:
        raise BadData(f"more than {limit} certificates in one file")
    return tuple(found)


def readable_certificates(blob: bytes, *, limit: int = 100) -> tuple[Certificate, ...]:
    """``load_certificates`` for what a stranger's server sends: certificates in it that can't be read are left out.

    Raises BadData when there is no other.
    """
    try:
        return load_certificates(blob, limit=limit)
    except BadData:
        found = [c for der in _parts_of(blob)[:limit] for c in _readable(der)]
        if not found:
            raise
        return tuple(found)


def _parts_of(blob: bytes) -> list[bytes]:
    """The certificates of a PEM file or of a PKCS#7 bundle in DER, whether they can be read or not."""
    if blob[:1] != b"\x30":
        blocks = list(pem_blocks(blob, _CERTIFICATE_LABELS + _PKCS7_LABELS))
        return [part for label, der in blocks for part in (_parts_of(der) if label in _PKCS7_LABELS else [der])]
    try:
        # RFC 5652 §3, §5.1: ContentInfo, SignedData with version, digest algorithms, content, and then the certificates.
        info = Cursor(blob).enter(SEQUENCE)
        info.oid()
        signed = info.enter(context(0)).enter(SEQUENCE)
        for _ in range(3):
            signed.take()
        bundle = signed.enter(context(0))
        return [bytes(blob[e.start : e.end]) for e in bundle.children(SEQUENCE)]
    except BadDer:
        return []


def _readable(der: bytes) -> tuple[Certificate, ...]:
    try:
        return (load_certificate(der),)
    except BadData:
        return ()


# RFC 7468 §5 and §8, with the older names that its §5.3 and §8.3 mention.
_CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_PKCS7_LABELS = ("PKCS7", "CMS", "PKCS #7 SIGNED DATA")
_CRL = ": it holds a CRL (postseal evidence import takes it)"


def _instead(blob: bytes) -> str:
    """What a PEM file without a certificate holds, where that is a likely mistake."""
    if b"PRIVATE KEY-----" in blob:
        return ": it holds a private key"
    if b"-----BEGIN CERTIFICATE REQUEST" in blob or b"-----BEGIN NEW CERTIFICATE REQUEST" in blob:
        return ": it holds a certificate request; the CA makes the certificate from it"
    if b"-----BEGIN X509 CRL" in blob:
        return _CRL
    return ""


def _from_pem(label: str, der: bytes) -> list[Certificate]:
    if label in _PKCS7_LABELS:
        return _from_pkcs7(der)
    # OpenSSL's own form: a certificate with trust settings behind it, which mean nothing here.
    return [load_certificate(_first_element(der) if label == "TRUSTED CERTIFICATE" else der)]


def _from_der(blob: bytes) -> list[Certificate]:
    try:
        cursor = Cursor(blob).enter(SEQUENCE)
        is_pkcs7 = cursor.peek() == 0x06
    except BadDer:
        is_pkcs7 = False
    # RFC 5652 §3: a ContentInfo begins with an OBJECT IDENTIFIER, a certificate with a SEQUENCE. BER may be inside.
    if is_pkcs7 or blob[:2] == b"\x30\x80":
        return _from_pkcs7(blob)
    if is_pkcs12(blob):
        raise BadData(
            "a PKCS#12 file, which holds a private key; take the certificate out of it: openssl pkcs12 -nokeys -in FILE"
        )
    try:
        return [load_certificate(blob)]
    except BadData:
        if _is_crl(blob):
            raise BadData(f"no certificate found{_CRL}") from None
        raise


def is_pkcs12(blob: bytes) -> bool:
    """RFC 7292 §4: a PFX begins with version 3, where a certificate has a SEQUENCE."""
    return re.match(rb"\x30(?:[\x00-\x7f]|\x82..|\x83...)\x02\x01\x03", blob, re.DOTALL) is not None


def _is_crl(blob: bytes) -> bool:
    try:
        x509.load_der_x509_crl(blob)
    except Exception:
        return False
    return True


def _from_pkcs7(der: bytes) -> list[Certificate]:
    # CRL-26: CRLs beside them aren't looked at; evidence comes from where certificates point, or by the administrator's hand.
    try:
        parsed = pkcs7.load_der_pkcs7_certificates(der)
    except Exception as exc:
        raise BadData(f"not a PKCS#7 bundle of certificates: {_cause(exc)}") from exc
    return [_again(certificate, number) for number, certificate in enumerate(parsed, 1)]


def _again(certificate: x509.Certificate, number: int) -> Certificate:
    try:
        return load_certificate(certificate.public_bytes(Encoding.DER))
    except BadData as exc:
        raise BadData(f"certificate {number} of the bundle: {exc}") from exc


def _first_element(der: bytes) -> bytes:
    try:
        return Cursor(der).raw(SEQUENCE)
    except BadDer:
        return der


def _cause(exc: Exception) -> str:
    """The library's message on one line, without the trace of nested fields that it appends."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text if len(text) <= 200 else text[:200] + "…"
