"""Signatures over bytes as they were received: which algorithms are good enough, and does the key verify."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postseal.core.der import INTEGER, NULL, OID, SEQUENCE, BadDer, Cursor, context

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.3.14.3.2.26": hashes.SHA1(),
    "2.16.840.1.101.3.4.2.4": hashes.SHA224(),
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_RSA = "1.2.840.113549.1.1."
_MGF1 = _RSA + "8"
_PSS = _RSA + "10"
_ECDSA = "1.2.840.10045.4."


class Scheme(StrEnum):
    """How a signature is computed."""

    PKCS1 = "RSA"
    PSS = "RSA-PSS"
    ECDSA = "ECDSA"
    EDDSA = "EdDSA"
    BROKEN = "broken"
    UNKNOWN = "unknown"


_NAMED: dict[str, tuple[Scheme, hashes.HashAlgorithm | None]] = {
    _RSA + "5": (Scheme.PKCS1, hashes.SHA1()),
    _RSA + "14": (Scheme.PKCS1, hashes.SHA224()),
    _RSA + "11": (Scheme.PKCS1, hashes.SHA256()),
    _RSA + "12": (Scheme.PKCS1, hashes.SHA384()),
    _RSA + "13": (Scheme.PKCS1, hashes.SHA512()),
    _ECDSA + "1": (Scheme.ECDSA, hashes.SHA1()),
    _ECDSA + "3.1": (Scheme.ECDSA, hashes.SHA224()),
    _ECDSA + "3.2": (Scheme.ECDSA, hashes.SHA256()),
    _ECDSA + "3.3": (Scheme.ECDSA, hashes.SHA384()),
    _ECDSA + "3.4": (Scheme.ECDSA, hashes.SHA512()),
    "1.3.101.112": (Scheme.EDDSA, None),
    "1.3.101.113": (Scheme.EDDSA, None),
    _RSA + "2": (Scheme.BROKEN, None),  # MD2
    _RSA + "3": (Scheme.BROKEN, None),  # MD4
    _RSA + "4": (Scheme.BROKEN, None),  # MD5
}
# CERT-13, RFC 8550 §4.3: bits of an RSA key, and the largest public exponent.
MIN_RSA, MIN_WEAK_RSA, MAX_RSA = 2048, 1024, 8192
MAX_EXPONENT = 1 << 64
# CERT-13: P-256 and larger curves; P-224 only where weak keys are admitted.
MIN_EC, MIN_WEAK_EC = 256, 224


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A signature algorithm as named by an AlgorithmIdentifier."""

    scheme: Scheme
    hash: hashes.HashAlgorithm | None
    oid: str
    salt: int = 0

    def fault(self, weak_keys: bool) -> str:
        """Why the algorithm isn't good enough, in words; empty when it is. SHA-2, SHA-1 only with ``weak_keys``, never MD5."""
        if self.scheme is Scheme.BROKEN:
            return "signed with MD2, MD4 or MD5"
        if self.scheme is Scheme.UNKNOWN:
            return f"signed with the unknown algorithm {self.oid}"
        if not weak_keys and type(self.hash) is hashes.SHA1:
            return "signed with SHA-1"
        return ""


@lru_cache(maxsize=256)
def parse_algorithm(identifier: bytes) -> Algorithm:
    """AlgorithmIdentifier in DER. An algorithm that isn't known is a value, broken DER raises BadDer."""
    outer = Cursor(identifier)
    inner = outer.enter()
    outer.finish()
    oid = inner.oid()
    if oid == _PSS:
        return _parse_pss(inner)
    if oid not in _NAMED:
        return Algorithm(Scheme.UNKNOWN, None, oid)
    # RFC 4055 §5: NULL for RSA; RFC 5758 §3.2, RFC 8410 §3: absent for the others, NULL is tolerated.
    if inner.peek() == NULL:
        inner.take(NULL)
    inner.finish()
    scheme, hash_ = _NAMED[oid]
    return Algorithm(scheme, hash_, oid)


def _parse_pss(inner: Cursor) -> Algorithm:
    # RFC 4055 §3.1: RSASSA-PSS-params with defaults SHA-1, MGF1 with SHA-1, 20, 1.
    hash_oid = mask_oid = "1.3.14.3.2.26"
    salt = 20
    if inner.peek() == SEQUENCE:
        params = inner.enter()
        if params.peek() == context(0):
            hash_oid = _hash_oid(params.enter(context(0)))
        if params.peek() == context(1):
            mask = params.enter(context(1)).enter()
            if mask.oid() != _MGF1:
                return Algorithm(Scheme.UNKNOWN, None, _PSS)
            mask_oid = _hash_oid(mask)
        if params.peek() == context(2):
            salt = params.enter(context(2)).integer(2)
        if params.peek() == context(3) and params.enter(context(3)).content(INTEGER) != b"\x01":
            raise BadDer("RSASSA-PSS with an unknown trailer")
        params.finish()
    inner.finish()
    if hash_oid != mask_oid or hash_oid not in _HASHES or salt < 0:
        return Algorithm(Scheme.UNKNOWN, None, _PSS)
    return Algorithm(Scheme.PSS, _HASHES[hash_oid], _PSS, salt)


def _hash_oid(cursor: Cursor) -> str:
    inner = cursor.enter()
    oid = inner.content(OID)
    if inner.peek() == NULL:
        inner.take(NULL)
    inner.finish()
    cursor.finish()
    return Cursor(b"\x06" + bytes((len(oid),)) + oid).oid()


@lru_cache(maxsize=512)
def _load(spki: bytes) -> object:
    return load_der_public_key(spki)


@lru_cache(maxsize=512)
def key_fault(spki: bytes, weak_keys: bool) -> str:
    """Why the key of a SubjectPublicKeyInfo mustn't verify anything, in words; empty when it may."""
    try:
        key = _load(spki)
    except Exception as exc:
        return f"unsupported public key: {exc}"
    if isinstance(key, rsa.RSAPublicKey):
        least = MIN_WEAK_RSA if weak_keys else MIN_RSA
        if not least <= key.key_size <= MAX_RSA:
            return f"RSA key of {key.key_size} bits, {least} to {MAX_RSA} are allowed"
        # RFC 8551 §6: an exponent without bound is a way to keep the verifier busy.
        exponent = key.public_numbers().e
        if exponent > MAX_EXPONENT or exponent < 3 or exponent % 2 == 0:
            return "RSA key with an absurd exponent"
    if isinstance(key, ec.EllipticCurvePublicKey):
        least = MIN_WEAK_EC if weak_keys else MIN_EC
        if key.key_size < least:
            return f"EC key on the curve {key.curve.name}, {least} bits are the least that is allowed"
    return ""


@lru_cache(maxsize=512)
def _restriction(spki: bytes) -> Algorithm | None:
    """RFC 4055 §1.2, §3.1: an id-RSASSA-PSS key is for RSASSA-PSS only, and where it has parameters, for these; else None."""
    identifier = Cursor(spki).enter().raw(SEQUENCE)
    inner = Cursor(identifier).enter()
    if inner.oid() != _PSS:
        return None
    return parse_algorithm(identifier) if inner.peek() == SEQUENCE else Algorithm(Scheme.PSS, None, _PSS)


def _allowed(algorithm: Algorithm, restriction: Algorithm | None) -> bool:
    if restriction is None:
        return True
    if restriction.scheme is not Scheme.PSS or algorithm.scheme is not Scheme.PSS or algorithm.hash is None:
        return False
    # RFC 4055 §3.3: the same hash, and a salt of that length or longer.
    return restriction.hash is None or (
        algorithm.hash.name == restriction.hash.name and algorithm.salt >= restriction.salt
    )


def digest_of(algorithm: Algorithm, message: bytes | memoryview) -> bytes:
    """The hash of ``message`` that the algorithm signs; empty when it signs the message itself."""
    return b"" if algorithm.hash is None else _digest(algorithm.hash, message)


def verifies(
    algorithm: Algorithm, signature: bytes, message: bytes | memoryview, spki: bytes, digest: bytes = b""
) -> bool:
    """Does the key in ``spki`` (DER SubjectPublicKeyInfo) verify? False for a key or algorithm that doesn't fit.

    ``digest`` is ``digest_of`` the message if that is known already.
    """
    try:
        key = _load(spki)
        if isinstance(key, rsa.RSAPublicKey) and key.key_size <= MAX_RSA and key.public_numbers().e <= MAX_EXPONENT:
            if not _allowed(algorithm, _restriction(spki)):
                return False
            return _verify_rsa(key, algorithm, signature, digest or digest_of(algorithm, message))
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.scheme is Scheme.ECDSA and algorithm.hash:
            prehashed = ec.ECDSA(Prehashed(algorithm.hash))
            key.verify(signature, digest or _digest(algorithm.hash, message), prehashed)
            return True
        if isinstance(key, ed25519.Ed25519PublicKey) and algorithm.oid == "1.3.101.112":
            key.verify(signature, bytes(message))
            return True
        if isinstance(key, ed448.Ed448PublicKey) and algorithm.oid == "1.3.101.113":
            key.verify(signature, bytes(message))
            return True
    except InvalidSignature:
        return False
    except Exception:
        # An odd key or parameter that the library refuses verifies nothing.
        return False
    return False


def _verify_rsa(key: rsa.RSAPublicKey, algorithm: Algorithm, signature: bytes, digest: bytes) -> bool:
    if algorithm.hash is None:
        return False
    pad: padding.AsymmetricPadding
    if algorithm.scheme is Scheme.PKCS1:
        pad = padding.PKCS1v15()
    elif algorithm.scheme is Scheme.PSS:
        pad = padding.PSS(padding.MGF1(algorithm.hash), algorithm.salt)
    else:
        return False
    key.verify(signature, digest, pad, Prehashed(algorithm.hash))
    return True


def _digest(algorithm: hashes.HashAlgorithm, message: bytes | memoryview) -> bytes:
    state = hashes.Hash(algorithm)
    state.update(message)
    return state.finalize()
