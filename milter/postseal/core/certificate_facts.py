"""What judging revocation needs to know of a certificate, taken from its bytes as they are (RFC 5280 §4.1).

Names, keys and the signed part are slices of the certificate: hashes and signatures must be over the bytes that the CA
wrote, and a library that encodes a value anew may change them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from postseal.core.der import BIT_STRING, INTEGER, SEQUENCE, BadDer, Cursor, Extension, canonical_integer, context
from postseal.core.der import extensions as read_extensions
from postseal.core.distribution import DistributionPoint, parse_distribution_points

_SUBJECT_KEY_ID, _KEY_USAGE, _BASIC, _EKU = "2.5.29.14", "2.5.29.15", "2.5.29.19", "2.5.29.37"
_CRL_POINTS = "2.5.29.31"
_BIT_DIGITAL_SIGNATURE, _BIT_NON_REPUDIATION, _BIT_CRL_SIGN = 0, 1, 6


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Slices and flags of one certificate. ``serial`` is canonical INTEGER content, ``key_bits`` the subjectPublicKey."""

    serial: bytes
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    spki: bytes = field(repr=False)
    key_bits: bytes = field(repr=False)
    tbs: bytes = field(repr=False)
    algorithm: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    extensions: dict[str, Extension] = field(repr=False)
    is_ca: bool
    key_usage: int | None
    key_id: bytes | None
    points: tuple[DistributionPoint, ...] | None

    @property
    def may_sign_crls(self) -> bool:
        return self.key_usage is None or bool(self.key_usage >> _BIT_CRL_SIGN & 1)

    @property
    def may_sign(self) -> bool:
        usage = self.key_usage
        return usage is None or bool(usage >> _BIT_DIGITAL_SIGNATURE & 1 or usage >> _BIT_NON_REPUDIATION & 1)

    def extended_usages(self) -> frozenset[str]:
        """Dotted OIDs of extKeyUsage, empty without the extension."""
        if _EKU not in self.extensions:
            return frozenset()
        body = Cursor(self.extensions[_EKU].value).enter()
        found = set()
        while body.peek() >= 0:
            found.add(body.oid())
        return frozenset(found)


@lru_cache(maxsize=4096)
def certificate_facts(der: bytes) -> CertificateFacts:
    """Read one certificate. Raises BadDer."""
    outer = Cursor(der)
    certificate = outer.enter()
    outer.finish()
    tbs = certificate.take(SEQUENCE)
    algorithm = certificate.raw(SEQUENCE)
    signature = certificate.bits()
    certificate.finish()
    body = certificate.inside(tbs)
    if body.peek() == context(0):
        body.take()
    serial = canonical_integer(body.content(INTEGER))
    # RFC 5280 §4.1.1.2
    if body.raw(SEQUENCE) != algorithm:
        raise BadDer("the signature algorithms inside and outside of the signed part differ")
    issuer = body.raw(SEQUENCE)
    validity = body.enter()
    not_before, not_after = validity.time(), validity.time()
    subject = body.raw(SEQUENCE)
    spki = body.raw(SEQUENCE)
    for unique_id in (1, 2):
        if body.peek() == context(unique_id, False):
            body.take()
    extensions: dict[str, Extension] = {}
    if body.peek() == context(3):
        wrapper = body.enter(context(3))
        extensions = read_extensions(wrapper.enter())
        wrapper.finish()
    body.finish()
    key = Cursor(spki).enter()
    key.take(SEQUENCE)
    points = extensions.get(_CRL_POINTS)
    key_id = extensions.get(_SUBJECT_KEY_ID)
    return CertificateFacts(
        serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        spki=spki,
        key_bits=key.bits(),
        tbs=der[tbs.start : tbs.end],
        algorithm=algorithm,
        signature=signature,
        extensions=extensions,
        is_ca=_is_ca(extensions.get(_BASIC)),
        key_usage=_usage_mask(extensions.get(_KEY_USAGE)),
        key_id=None if key_id is None else Cursor(key_id.value).octets(),
        points=None if points is None else parse_distribution_points(points.value),
    )


def _is_ca(basic: Extension | None) -> bool:
    if basic is None:
        return False
    body = Cursor(basic.value).enter()
    return body.peek() == 0x01 and body.boolean()


def _usage_mask(usage: Extension | None) -> int | None:
    """KeyUsage with bit n of the BIT STRING as bit n of the number."""
    if usage is None:
        return None
    content = Cursor(usage.value).content(BIT_STRING)
    mask = 0
    for bit in range(max(0, (len(content) - 1) * 8)):
        if content[1 + bit // 8] >> (7 - bit % 8) & 1:
            mask |= 1 << bit
    return mask
