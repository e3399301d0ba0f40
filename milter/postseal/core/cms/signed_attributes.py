"""Signed attributes of mail (RFC 5652 §11, RFC 8551 §2.5, RFC 5035, RFC 6211): what a signer says besides the content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from postseal.core.certs import Certificate
from postseal.core.cms.signed_reader import Attribute, SignerInfo
from postseal.core.der import (
    GENERALIZED_TIME,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    UTC_TIME,
    BadDer,
    Cursor,
    context,
    time_value,
)

CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
CAPABILITIES = "1.2.840.113549.1.9.15"
ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52"
KEY_PREFERENCE = "1.2.840.113549.1.9.16.2.11"
SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"

# RFC 5652 §11, RFC 8551 §2.5, RFC 5035 §3: one value each.
_SINGLE = (
    CONTENT_TYPE,
    MESSAGE_DIGEST,
    SIGNING_TIME,
    CAPABILITIES,
    ALGORITHM_PROTECTION,
    KEY_PREFERENCE,
    SIGNING_CERTIFICATE,
    SIGNING_CERTIFICATE_V2,
)
_KNOWN = {
    CONTENT_TYPE: "contentType",
    MESSAGE_DIGEST: "messageDigest",
    SIGNING_TIME: "signingTime",
    CAPABILITIES: "smimeCapabilities",
    ALGORITHM_PROTECTION: "cmsAlgorithmProtection",
    KEY_PREFERENCE: "smimeEncryptionKeyPreference",
    SIGNING_CERTIFICATE: "signingCertificate",
    SIGNING_CERTIFICATE_V2: "signingCertificateV2",
    # Outlook's own form of the key preference.
    "1.3.6.1.4.1.311.16.4": "microsoftRecipientInfo",
}
_ESS_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_MAX_ESS = 32


@dataclass(frozen=True, slots=True)
class CertificateName:
    """RFC 5035 §4: ESSCertIDv2, or ESSCertID of RFC 2634. ``issuer`` is the DER of the Name, ``serial`` content octets."""

    hash: str
    value: bytes
    issuer: bytes = b""
    serial: bytes = b""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the signed attributes say; nothing of it is believed here. ``fault`` is why they can't be signed attributes of mail.

    ``signing_time`` is None when there is none; ``capabilities`` and ``key_preference`` are DER, or empty.
    """

    present: bool = False
    names: tuple[str, ...] = ()
    signing_time: datetime | None = None
    capabilities: bytes = b""
    key_preference: bytes = b""
    ess: tuple[CertificateName, ...] = ()
    fault: str = ""


def claims(attributes: Sequence[Attribute] | None) -> Claims:
    """Total: what can't be read is told in ``fault``. None when there are no signed attributes, which isn't an empty set."""
    if attributes is None:
        return Claims()
    names = tuple(_KNOWN.get(each.oid, each.oid) for each in attributes)
    found = {each.oid: each.values for each in attributes}
    fault = _fault(attributes, found)
    if fault:
        return Claims(True, names, fault=fault)
    try:
        time = _signing_time(found[SIGNING_TIME][0]) if SIGNING_TIME in found else None
        # RFC 5035 §5.4: who gives both must mean the same certificate by both.
        ess = tuple(
            _certificate_name(found[oid][0], oid)
            for oid in (SIGNING_CERTIFICATE_V2, SIGNING_CERTIFICATE)
            if oid in found
        )
    except BadDer as exc:
        return Claims(True, names, fault=f"a signed attribute can't be read: {exc}")
    return Claims(
        True,
        names,
        time,
        found.get(CAPABILITIES, (b"",))[0],
        found.get(KEY_PREFERENCE, (b"",))[0],
        ess=ess,
    )


def _fault(attributes: Sequence[Attribute], found: dict[str, tuple[bytes, ...]]) -> str:
    # RFC 5652 §5.3: no attribute twice, and at least these two.
    if len(found) != len(attributes):
        return "a signed attribute occurs twice"
    for oid in _SINGLE:
        if oid in found and len(found[oid]) != 1:
            return f"the signed attribute {_KNOWN[oid]} has {len(found[oid])} values"
    for oid in (CONTENT_TYPE, MESSAGE_DIGEST):
        if oid not in found:
            return f"the signed attribute {_KNOWN[oid]} is missing"
    return ""


def _signing_time(der: bytes) -> datetime | None:
    """RFC 5652 §11.3: UTCTime from 1950 to 2049, GeneralizedTime otherwise; either is read.

    It is a claim that nothing depends on, so a time in a wrong form is none.
    """
    try:
        cursor = Cursor(der)
        tag = cursor.peek()
        return time_value(tag, cursor.content(tag)) if tag in (UTC_TIME, GENERALIZED_TIME) else None
    except BadDer:
        return None


def _certificate_name(der: bytes, oid: str) -> CertificateName:
    """RFC 5035 §3, RFC 2634 §5.4: the first of the certificates is the signer's, the others are his path."""
    certificates = Cursor(der).enter(SEQUENCE).enter(SEQUENCE)
    first = certificates.children(SEQUENCE, _MAX_ESS)
    if not first:
        raise BadDer("the signing certificate attribute names none")
    entry = certificates.inside(first[0])
    hash_ = "sha1"
    if oid == SIGNING_CERTIFICATE_V2:
        # RFC 5035 §4: SHA-256 where nothing else is said.
        hash_ = "sha256"
        if entry.peek() == SEQUENCE:
            named = entry.enter(SEQUENCE).oid()
            if named not in _ESS_HASHES:
                raise BadDer(f"the signing certificate attribute uses the hash {named}")
            hash_ = _ESS_HASHES[named]
    value = entry.content(OCTET_STRING)
    if entry.peek() != SEQUENCE:
        return CertificateName(hash_, value)
    pair = entry.enter(SEQUENCE)
    names = pair.enter(SEQUENCE)
    # RFC 5280 §4.2.1.6: directoryName [4] is explicit, Name being a CHOICE.
    issuer = names.enter(context(4)).raw(SEQUENCE) if names.peek() == context(4) else b""
    return CertificateName(hash_, value, issuer, pair.content(INTEGER))


def names_certificate(said: Claims, certificate: Certificate) -> bool:
    """Do all signing certificate attributes, as far as there are any, name this certificate?"""
    for each in said.ess:
        # RFC 5035 §5.4.1: the hash decides; issuer and serial number, when they are there, must fit too.
        if hashlib.new(each.hash, certificate.der, usedforsecurity=False).digest() != each.value:
            return False
        if each.serial and int.from_bytes(each.serial, "big", signed=True) != certificate.serial:
            return False
    return True


def protects_algorithms(info: SignerInfo) -> bool:
    """RFC 6211 §2: when the attribute is there, it holds the algorithms that stand outside of it, where nobody signed them."""
    for attribute in info.attributes or ():
        if attribute.oid == ALGORITHM_PROTECTION:
            try:
                inside = Cursor(attribute.values[0]).enter(SEQUENCE)
                digest = inside.enter(SEQUENCE).oid()
                element = inside.take(context(1)) if inside.peek() == context(1) else None
                if digest != info.digest or element is None:
                    return False
                signature = Cursor(info.algorithm).take(SEQUENCE)
                if inside.data[element.body : element.end] != info.algorithm[signature.body : signature.end]:
                    return False
            except BadDer:
                return False
    return True
