"""What a certificate says about itself, extracted once: the facts that path building and fitness ask for again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from postseal.core.certs import Certificate, without_extension
from postseal.core.der import OID, BadDer, Cursor, oid_content, tlv
from postseal.core.name_constraints import OID_NAME_CONSTRAINTS, NameConstraints, parse_constraints
from postseal.core.names import NameKey, name_key
from postseal.core.policies import NO_POLICIES, PolicyFacts, parse_policies
from postseal.core.signature import MAX_EXPONENT, MAX_RSA, MIN_RSA, MIN_WEAK_RSA, Algorithm, Scheme, parse_algorithm
from postseal.core.suite import FAMILIES

ANY_EKU = "2.5.29.37.0"
EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"

_SPECIAL_RSA = {"1.2.840.113549.1.1.10": "RSA-PSS", "1.2.840.113549.1.1.7": "RSA-OAEP"}
_RSA_OR_EC = ("1.2.840.113549.1.1.1", "1.2.840.10045.2.1")

# Qualifiers of certificatePolicies (RFC 5280 §4.2.1.4: must be interpreted when critical) are CPS pointer and user notice, text
# for people; the library refuses others.
_PROCESSED = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        # CRL-18: judged with the deltas that it points to, as far as use_deltas asks for them.
        ExtensionOID.FRESHEST_CRL,
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Facts of one certificate; none of them is a judgement.

    ``broken`` tells in words why the extensions can't be read; then all the others have their empty values.
    ``unknown`` are the OIDs of critical extensions that aren't processed (CERT-18). ``ca`` is None without basicConstraints.
    """

    subject: NameKey
    issuer: NameKey
    version: int
    algorithm: Algorithm | None
    algorithm_broken: str
    extensions: x509.Extensions | None
    broken: str
    ca: bool | None
    path_length: int | None
    key_usage: x509.KeyUsage | None
    eku: frozenset[str] | None
    subject_key_id: bytes | None
    authority_key_id: bytes | None
    policies: PolicyFacts
    name_constraints: NameConstraints | None
    unknown: tuple[str, ...]

    @property
    def self_issued(self) -> bool:
        """RFC 5280 §6.1: the same name as subject and issuer."""
        return self.subject == self.issuer

    @property
    def serves_mail(self) -> bool:
        """CERT-11: no extended key usage, or one that includes emailProtection or anyExtendedKeyUsage."""
        return self.eku is None or EMAIL_PROTECTION in self.eku or ANY_EKU in self.eku


@lru_cache(maxsize=8192)
def profile(certificate: Certificate) -> Profile:
    """The facts of ``certificate``. Total: what can't be read is told in ``broken`` and ``algorithm_broken``."""
    algorithm, algorithm_broken = _algorithm(certificate)
    extensions, broken = _extensions(certificate)
    try:
        policies = NO_POLICIES if extensions is None else parse_policies(extensions)
        name_constraints = _name_constraints(certificate, extensions)
    except BadDer as exc:
        extensions, broken, policies, name_constraints = None, str(exc), NO_POLICIES, None
    constraints = extension(extensions, x509.BasicConstraints)
    purposes = extension(extensions, x509.ExtendedKeyUsage)
    own_id = extension(extensions, x509.SubjectKeyIdentifier)
    issuer_id = extension(extensions, x509.AuthorityKeyIdentifier)
    return Profile(
        subject=name_key(certificate.subject),
        issuer=name_key(certificate.issuer),
        version=certificate.x509.version.value + 1,
        algorithm=algorithm,
        algorithm_broken=algorithm_broken,
        extensions=extensions,
        broken=broken,
        ca=None if constraints is None else constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        key_usage=extension(extensions, x509.KeyUsage),
        eku=None if purposes is None else frozenset(oid.dotted_string for oid in purposes),
        subject_key_id=None if own_id is None else own_id.digest,
        authority_key_id=None if issuer_id is None else issuer_id.key_identifier,
        policies=policies,
        name_constraints=name_constraints,
        unknown=tuple(
            item.oid.dotted_string
            for item in extensions or ()
            if item.critical and item.oid.dotted_string not in _PROCESSED
        ),
    )


def rsa_fault(certificate: Certificate, weak_keys: bool) -> tuple[str, str]:
    """CERT-13 for an RSA key: (``weak`` | ``oversized`` | ``absurd``, the words for it), or two empty strings.

    The numbers are read from the bytes, since the library refuses to load the worst of them. Other keys have no fault here.
    """
    numbers = _rsa_numbers(certificate.spki)
    if numbers is None:
        return "", ""
    modulus, exponent = numbers
    bits, least = modulus.bit_length(), MIN_WEAK_RSA if weak_keys else MIN_RSA
    if bits > MAX_RSA:
        return "oversized", f"an RSA key of {bits} bits; {MAX_RSA} are the most that is accepted"
    # RFC 8551 §6: an exponent without bound is a way to keep the verifier busy; 1 and even ones aren't RSA at all.
    if exponent < 3 or exponent % 2 == 0 or exponent > MAX_EXPONENT or modulus % 2 == 0:
        return "absurd", "an RSA key with an absurd exponent or modulus"
    if bits < least:
        return "weak", f"an RSA key of {bits} bits; {least} are the least that is accepted"
    return "", ""


def rsa_modulus(certificate: Certificate) -> int:
    """The modulus of an RSA key; 1 for any other key."""
    numbers = _rsa_numbers(certificate.spki)
    return 1 if numbers is None else numbers[0]


@lru_cache(maxsize=4096)
def rsa_key(certificate: Certificate) -> rsa.RSAPublicKey | None:
    """The RSA key that encrypts, of a certificate that says rsaEncryption or id-RSAES-OAEP; None for any other."""
    # The library doesn't load the latter; what stands in the BIT STRING is an RSAPublicKey all the same (RFC 4055 §1.2).
    numbers = _rsa_numbers(certificate.spki) if key_kind(certificate) in ("RSA", "RSA-OAEP") else None
    try:
        return None if numbers is None else rsa.RSAPublicNumbers(numbers[1], numbers[0]).public_key()
    except ValueError:
        return None


def _rsa_numbers(spki: bytes) -> tuple[int, int] | None:
    """RFC 8017 A.1.1 RSAPublicKey inside RFC 5280 §4.1.2.7: (modulus, exponent), or None when it is another key."""
    try:
        body = Cursor(spki).enter()
        if body.enter().oid() not in ("1.2.840.113549.1.1.1", *_SPECIAL_RSA):
            return None
        numbers = Cursor(body.bits()).enter()
        return numbers.integer(1 << 16), numbers.integer(1 << 16)
    except BadDer:
        return None


_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def extension(extensions: x509.Extensions | None, kind: type[_Kind]) -> _Kind | None:
    """The value of the extension of class ``kind``, or None."""
    if extensions is None:
        return None
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _algorithm(certificate: Certificate) -> tuple[Algorithm | None, str]:
    parts = certificate.parts
    # RFC 5280 §4.1.1.2: the algorithm outside, which the signature doesn't cover, must equal the one inside.
    if parts.inner_algorithm != parts.outer_algorithm:
        return None, "the signature algorithms inside and outside of the signed part differ"
    try:
        return parse_algorithm(parts.outer_algorithm), ""
    except BadDer as exc:
        return None, f"the signature algorithm can't be read: {exc}"


def _extensions(certificate: Certificate) -> tuple[x509.Extensions | None, str]:
    try:
        return certificate.x509.extensions, ""
    except Exception as exc:
        # The library's parser has no common error; whatever it says, the extensions can't be read.
        words = " ".join(str(exc).split())[:200] or type(exc).__name__
    try:
        # Unless it is the name constraints that it can't stand: they are read from the bytes anyhow, subtree by subtree.
        return without_extension(certificate, OID_NAME_CONSTRAINTS).extensions, ""
    except Exception:
        return None, words


def _name_constraints(certificate: Certificate, extensions: x509.Extensions | None) -> NameConstraints | None:
    """From the bytes, since the library drops minimum and maximum and refuses some subtrees. Raises BadDer."""
    if extensions is None or _LOOK not in certificate.parts.tbs:
        return None
    found = certificate.raw_extensions.get(OID_NAME_CONSTRAINTS)
    return None if found is None else parse_constraints(found.value)


# The encoding of the OID of nameConstraints: without it there is nothing to look for.
_LOOK = tlv(OID, oid_content(OID_NAME_CONSTRAINTS))


@lru_cache(maxsize=8192)
def key_kind(certificate: Certificate) -> str:
    """The kind of the public key in one word: RSA, the name of an EC curve, Ed25519, Ed448, X25519, X448, DSA, RSA-PSS …

    A kind that the library doesn't know is the OID of its algorithm; a key that can't be read is ``unreadable``.
    """
    try:
        # RFC 4055 §3.1: a key that says id-RSASSA-PSS is for signatures only; the library shows it as any RSA key.
        oid = Cursor(certificate.spki).enter().enter().oid()
    except BadDer:
        return "unreadable"
    if oid in _SPECIAL_RSA:
        return _SPECIAL_RSA[oid]
    try:
        key = certificate.x509.public_key()
    except Exception:
        curve = _brainpool(certificate.spki)
        # The library has these curves, so it is the point that can't be read.
        known = curve in FAMILIES
        return curve if curve and not known else "unreadable" if known or oid in _RSA_OR_EC else oid
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")


# RFC 5639 §4.1, by the last arc of the OID; the library has only some of these curves.
_BRAINPOOL = tuple(f"brainpoolP{bits}{form}" for bits in (160, 192, 224, 256, 320, 384, 512) for form in ("r1", "t1"))


def _brainpool(spki: bytes) -> str:
    """The name of the Brainpool curve that a key is on, or an empty string."""
    try:
        algorithm = Cursor(spki).enter().enter()
        algorithm.take(OID)
        curve, _, arc = algorithm.oid().rpartition(".")
    except BadDer:
        return ""
    return _BRAINPOOL[int(arc) - 1] if curve == "1.3.36.3.3.2.8.1.1" and 1 <= int(arc) <= len(_BRAINPOOL) else ""


def algorithm_fault(about: Profile, weak_keys: bool) -> tuple[str, str]:
    """CERT-14, RFC 8550 §4.3: SHA-256 and better; SHA-1 and SHA-224 only when weak keys are admitted; MD5 never.

    (``weak-signature`` | ``broken-signature`` | ``unsupported-signature``, the words for it), or two empty strings.
    """
    algorithm = about.algorithm
    if algorithm is None:
        return "unsupported-signature", about.algorithm_broken
    if algorithm.scheme is Scheme.BROKEN:
        return "broken-signature", algorithm.fault(weak_keys)
    if algorithm.scheme is Scheme.UNKNOWN:
        return "unsupported-signature", _unknown_algorithm(algorithm)
    if not weak_keys and isinstance(algorithm.hash, (hashes.SHA1, hashes.SHA224)):
        return "weak-signature", f"signed with {algorithm.hash.name.upper().replace('SHA', 'SHA-')}"
    return "", ""


_DSA = ("1.2.840.10040.4.3", *(f"2.16.840.1.101.3.4.3.{n}" for n in (1, 2, 3, 4)))


def _unknown_algorithm(algorithm: Algorithm) -> str:
    # FIPS 186-5 withdrew DSA, and RFC 8551 §2.2 doesn't list it any more.
    if algorithm.oid in _DSA:
        return "signed with DSA, which postseal doesn't accept"
    return algorithm.fault(False)
