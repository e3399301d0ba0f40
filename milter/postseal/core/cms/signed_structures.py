"""What SignedData is written with (RFC 5652 §5, §11): names of things, algorithm identifiers, and the signed attributes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from postseal.core.certs import Certificate
from postseal.core.der import (
    GENERALIZED_TIME,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    UTC_TIME,
    Cursor,
    context,
    integer_content,
    oid_content,
    tlv,
)


@lru_cache(maxsize=64)
def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER in DER."""
    return tlv(OID, oid_content(dotted))


def algorithm(dotted: str, *parameters: bytes) -> bytes:
    """An AlgorithmIdentifier in DER."""
    return tlv(SEQUENCE, oid(dotted), *parameters)


DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"

# RFC 5652 §11.1 to §11.3, RFC 8551 §2.5.2 and §2.5.3, RFC 5035 §3.
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
SMIME_CAPABILITIES = "1.2.840.113549.1.9.15"
ENCRYPTION_KEY_PREFERENCE = "1.2.840.113549.1.9.16.2.11"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"

RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
MGF1 = "1.2.840.113549.1.1.8"
RSASSA_PSS = "1.2.840.113549.1.1.10"
ED25519 = "1.3.101.112"

# The hashes that signatures are made with, by the library's names.
HASHES = {
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
# RFC 5758 §3.2
ECDSA_WITH = {
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
# RFC 8551 §3.5.3.2
MICALG = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}


@lru_cache(maxsize=8)
def digest_algorithm(hash_name: str) -> bytes:
    """RFC 5754 §2: the parameters of SHA-2 are absent."""
    return algorithm(HASHES[hash_name])


def pss_algorithm(hash_name: str, salt: int) -> bytes:
    """RFC 4055 §3.1, RFC 4056 §3: everything explicit but the trailer field, whose default DER leaves out."""
    # RFC 4055 §2.1: here the parameters of a hash are NULL.
    hash_ = algorithm(HASHES[hash_name], tlv(NULL))
    return algorithm(
        RSASSA_PSS,
        tlv(
            SEQUENCE,
            tlv(context(0), hash_),
            tlv(context(1), algorithm(MGF1, hash_)),
            tlv(context(2), tlv(INTEGER, integer_content(salt))),
        ),
    )


def set_of(elements: Iterable[bytes], tag: int = SET) -> bytes:
    """X.690 §11.6: the elements of a SET OF come in the order of their octets. ``tag`` may be an implicit one."""
    return tlv(tag, *sorted(elements))


def attribute(dotted: str, value: bytes) -> bytes:
    """RFC 5652 §5.3: all attributes that we sign have one value each."""
    return tlv(SEQUENCE, oid(dotted), tlv(SET, value))


def signing_time(at: datetime) -> bytes:
    """RFC 5652 §11.3, RFC 8551 §2.5.1: UTCTime from 1950 through 2049, GeneralizedTime otherwise, in whole seconds."""
    if 1950 <= at.year <= 2049:
        value = tlv(UTC_TIME, f"{at.year % 100:02}{at:%m%d%H%M%S}Z".encode("ascii"))
    else:
        value = tlv(GENERALIZED_TIME, f"{at.year:04}{at:%m%d%H%M%S}Z".encode("ascii"))
    return attribute(SIGNING_TIME, value)


def issuer_and_serial(certificate: Certificate, tag: int = SEQUENCE) -> bytes:
    """RFC 5652 §10.2.4: both octet for octet as in the certificate, since readers compare the DER."""
    return tlv(tag, certificate.issuer, _serial(certificate))


def _serial(certificate: Certificate) -> bytes:
    tbs = Cursor(certificate.parts.tbs).enter(SEQUENCE)
    # RFC 5280 §4.1: version [0] is absent in version 1.
    if tbs.peek() == context(0):
        tbs.take()
    return tbs.raw(INTEGER)


def signing_certificate(certificate: Certificate) -> bytes:
    """RFC 5035 §3, §4: which certificate the signer meant, so that no other one with the same key can take its place."""
    # The hash is SHA-256, whose identifier is the default and therefore left out; the issuer is one GeneralName [4].
    issuer = tlv(SEQUENCE, tlv(context(4), certificate.issuer))
    identifier = tlv(
        SEQUENCE,
        tlv(OCTET_STRING, bytes.fromhex(certificate.fingerprint)),
        tlv(SEQUENCE, issuer, _serial(certificate)),
    )
    return attribute(SIGNING_CERTIFICATE_V2, tlv(SEQUENCE, tlv(SEQUENCE, identifier)))


def encryption_key_preference(certificate: Certificate) -> bytes:
    """RFC 8551 §2.5.3: which certificate answers are to be encrypted to, [0] issuerAndSerialNumber."""
    return attribute(ENCRYPTION_KEY_PREFERENCE, issuer_and_serial(certificate, context(0)))
