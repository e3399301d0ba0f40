"""SMIMECapabilities: what a mail client says that it can read (RFC 8551 §2.5.2), and the certificate extension (RFC 4262 §2).

What it says may be a stranger's word: who may be believed is decided in ``core.ciphers`` (ALG-2), here it is only read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from postseal.core.certs import Certificate
from postseal.core.der import OID, SEQUENCE, BadDer, Cursor, oid_content, tlv
from postseal.core.errors import BadData
from postseal.core.oaep import OID_RSAES_OAEP, parameters, transport_of
from postseal.core.suite import KeyTransport, Suite

# RFC 4262 §2: the extension has the attribute's OID and syntax.
EXTENSION = "1.2.840.113549.1.9.15"

# RFC 3565 §4.1, RFC 5084 §3.2.
_AES = "2.16.840.1.101.3.4.1."
SUITE_OIDS: dict[Suite, str] = {
    Suite.AES_128_CBC: f"{_AES}2",
    Suite.AES_192_CBC: f"{_AES}22",
    Suite.AES_256_CBC: f"{_AES}42",
    Suite.AES_128_GCM: f"{_AES}6",
    Suite.AES_256_GCM: f"{_AES}46",
}
_MAX_CAPABILITIES = 128
_MAX_OCTETS = 16 * 1024


@dataclass(frozen=True, slots=True)
class Capability:
    """One SMIMECapability. ``parameters`` are DER, or empty where there are none."""

    oid: str
    parameters: bytes = b""


def parse_capabilities(der: bytes) -> tuple[Capability, ...]:
    """SMIMECapabilities ::= SEQUENCE OF SMIMECapability, in the order of preference. Raises BadData."""
    if len(der) > _MAX_OCTETS:
        raise BadData(f"S/MIME capabilities of {len(der)} octets: more than {_MAX_OCTETS} are not read")
    try:
        outer = Cursor(der)
        items = outer.enter()
        outer.finish()
        return tuple(_capability(items.inside(e)) for e in items.children(SEQUENCE, _MAX_CAPABILITIES))
    except BadDer as exc:
        raise BadData(f"the S/MIME capabilities can't be read: {exc}") from exc


def _capability(item: Cursor) -> Capability:
    oid = item.oid()
    parameters = item.raw() if item.peek() >= 0 else b""
    item.finish()
    return Capability(oid, parameters)


def encode_capabilities(capabilities: Iterable[Capability]) -> bytes:
    """The DER of SMIMECapabilities, in the order given."""
    return tlv(SEQUENCE, *(tlv(SEQUENCE, tlv(OID, oid_content(c.oid)), c.parameters) for c in capabilities))


def certificate_capabilities(certificate: Certificate) -> tuple[Capability, ...] | None:
    """What the certificate's extension lists; None without one, and where it can't be read: it is nobody's duty to have it."""
    try:
        extension = certificate.raw_extensions.get(EXTENSION)
        return None if extension is None else parse_capabilities(extension.value)
    except BadData:
        return None


_SUITES = {oid: suite for suite, oid in SUITE_OIDS.items()}


def suites(capabilities: Iterable[Capability]) -> frozenset[Suite]:
    """The content ciphers among them that postseal writes."""
    return frozenset(_SUITES[c.oid] for c in capabilities if c.oid in _SUITES)


def transports(capabilities: Iterable[Capability]) -> frozenset[KeyTransport]:
    """The kinds of RSAES-OAEP among them that postseal writes."""
    found = (transport_of(c.parameters) for c in capabilities if c.oid == OID_RSAES_OAEP)
    return frozenset(transport for transport in found if transport is not None)


# DES-EDE3-CBC, RC2-CBC, DES-CBC, RC4; and what isn't ours but good: Camellia, AES-CCM, AES-192-GCM, ChaCha20-Poly1305.
_WEAK = frozenset({"1.2.840.113549.3.7", "1.2.840.113549.3.2", "1.3.14.3.2.7", "1.2.840.113549.3.4"})
_STRONG = frozenset(_SUITES) | {
    *(f"1.2.392.200011.61.1.1.1.{n}" for n in (2, 3, 4)),
    *(f"{_AES}{n}" for n in (7, 27, 47, 26)),
    "1.2.840.113549.1.9.16.3.18",
}


def weak_only(capabilities: Iterable[Capability]) -> bool:
    """Do they list content ciphers, but only such as nobody should use any more?"""
    listed = {c.oid for c in capabilities}
    return bool(listed & _WEAK) and not listed & _STRONG


def _algorithm(oid: str, *parameters: bytes) -> bytes:
    return tlv(SEQUENCE, tlv(OID, oid_content(oid)), *parameters)


def oaep_capability(hash_name: str) -> Capability:
    """RFC 4055 §4.1: RSAES-OAEP with one hash function."""
    return Capability(OID_RSAES_OAEP, parameters(hash_name))


def _agreement(scheme: str, wrap: int) -> Capability:
    """RFC 5753 §6: a key agreement scheme together with AES key wrap."""
    return Capability(scheme, _algorithm(f"{_AES}{wrap}"))


# dhSinglePass-stdDH-sha256kdf, -sha384kdf, -sha512kdf, and RFC 8418 §2.2: with HKDF, for X25519.
_SHA256_KDF, _SHA384_KDF, _SHA512_KDF = (f"1.3.132.1.11.{n}" for n in (1, 2, 3))
_HKDF = "1.2.840.113549.1.9.16.3.19"

# RFC 8551 §2.5.2: in order of preference, apart by category. Compression is left out although it is read: who compresses lets
# an observer compare lengths, and nobody should begin because of us.
OURS: tuple[Capability, ...] = (
    *(
        Capability(SUITE_OIDS[suite])
        for suite in (Suite.AES_256_GCM, Suite.AES_128_GCM, Suite.AES_256_CBC, Suite.AES_192_CBC, Suite.AES_128_CBC)
    ),
    *(oaep_capability(name) for name in ("sha512", "sha384", "sha256")),
    *(_agreement(scheme, 45) for scheme in (_SHA512_KDF, _SHA384_KDF, _SHA256_KDF, _HKDF)),
    *(_agreement(scheme, 5) for scheme in (_SHA256_KDF, _HKDF)),
)
