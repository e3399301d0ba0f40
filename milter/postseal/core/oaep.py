"""RSAES-OAEP: its parameters in DER, and what an id-RSAES-OAEP key in a certificate asks of the sender (RFC 4055 §4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from postseal.core.der import NULL, OCTET_STRING, OID, SEQUENCE, BadDer, Cursor, context, oid_content, tlv
from postseal.core.suite import KeyTransport

OID_RSAES_OAEP = "1.2.840.113549.1.1.7"
_OID_MGF1 = "1.2.840.113549.1.1.8"
_OID_SPECIFIED = "1.2.840.113549.1.1.9"
_SHA1 = "1.3.14.3.2.26"
# RFC 4055 §2.1
_HASHES = {
    _SHA1: "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_OID_OF = {name: oid for oid, name in _HASHES.items()}


@dataclass(frozen=True, slots=True)
class Oaep:
    """One choice of RSAES-OAEP. ``identifier`` is the DER of the AlgorithmIdentifier that says so."""

    identifier: bytes
    hash: str
    mask_hash: str
    label: bytes = b""


def oaep(transport: KeyTransport) -> Oaep:
    """What is written for it."""
    name = transport.removeprefix("oaep-")
    return Oaep(tlv(SEQUENCE, tlv(OID, oid_content(OID_RSAES_OAEP)), parameters(name)), name, name)


def parameters(name: str) -> bytes:
    """ALG-4, RFC 4055 §4.1: the hash, MGF1 with the same hash, both explicit, and the empty label, which DER leaves out."""
    # RFC 4055 §2.1: written with NULL, read with or without.
    digest = tlv(SEQUENCE, tlv(OID, oid_content(_OID_OF[name])), tlv(NULL))
    mask = tlv(SEQUENCE, tlv(OID, oid_content(_OID_MGF1)), digest)
    return tlv(SEQUENCE, tlv(context(0), digest), tlv(context(1), mask))


def transport_of(der: bytes) -> KeyTransport | None:
    """What RSAES-OAEP-params ask for; None when it is something that we don't write, or broken.

    RFC 4055 §4.1: the parameters name the hash function. Without any it is OAEP of whatever kind, and ALG-4 says which.
    """
    if not der or der == tlv(NULL):
        return KeyTransport.OAEP_SHA256
    try:
        outer = Cursor(der)
        digest, mask, label = _parts(outer.enter())
        outer.finish()
    except BadDer:
        return None
    name = f"oaep-{_HASHES.get(digest)}" if digest == mask and not label else ""
    return next((transport for transport in KeyTransport if transport == name), None)


@lru_cache(maxsize=512)
def demanded(spki: bytes) -> Oaep | None:
    """The parameters that an id-RSAES-OAEP SubjectPublicKeyInfo demands; None when it leaves them to the sender.

    Raises BadDer for parameters that aren't those of RFC 4055, and for hashes that nobody here knows.
    """
    key = Cursor(spki).enter()
    identifier = key.raw(SEQUENCE)
    algorithm = Cursor(identifier).enter()
    if algorithm.oid() != OID_RSAES_OAEP or algorithm.peek() == -1:
        return None
    # RFC 4055 §1.2 leaves the choice to the sender only when parameters are absent; NULL is a way to write that.
    if algorithm.peek() == NULL:
        algorithm.take(NULL)
        algorithm.finish()
        return None
    digest, mask, label = _parts(algorithm.enter())
    algorithm.finish()
    if digest not in _HASHES or mask not in _HASHES:
        raise BadDer(f"RSAES-OAEP with the hash functions {digest} and {mask}")
    # The parameters of the recipient info are those of the key, octet for octet: whoever compares finds them equal.
    return Oaep(identifier, _HASHES[digest], _HASHES[mask], label)


def _parts(fields: Cursor) -> tuple[str, str, bytes]:
    """The OIDs of hash and mask hash, and the label (RFC 4055 §4.1). Raises BadDer."""
    digest = mask = _SHA1
    label = b""
    if fields.peek() == context(0):
        digest = _digest(fields.enter(context(0)))
    if fields.peek() == context(1):
        mask = _function(fields.enter(context(1)))
    if fields.peek() == context(2):
        label = _label(fields.enter(context(2)))
    fields.finish()
    return digest, mask, label


def _digest(outer: Cursor) -> str:
    inner = outer.enter()
    outer.finish()
    oid = inner.oid()
    if inner.peek() == NULL:
        inner.take(NULL)
    inner.finish()
    return oid


def _function(outer: Cursor) -> str:
    inner = outer.enter()
    outer.finish()
    if inner.oid() != _OID_MGF1:
        raise BadDer("RSAES-OAEP with another mask generation function than MGF1")
    return _digest(inner)


def _label(outer: Cursor) -> bytes:
    inner = outer.enter()
    outer.finish()
    if inner.oid() != _OID_SPECIFIED:
        raise BadDer("RSAES-OAEP with a label of an unknown source")
    label = inner.content(OCTET_STRING)
    inner.finish()
    return label
