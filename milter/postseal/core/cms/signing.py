"""SignedData is written (RFC 5652 §5): detached or opaque, by one signer or several, over content that streams by.

The content goes through one hash for each digest algorithm and isn't held. All lengths are definite: of opaque SignedData the
head can be written before the content is there, because the length of all that follows it is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from postseal.core.certs import Certificate
from postseal.core.cms import signed_structures as cms
from postseal.core.cms.structures import header
from postseal.core.der import INTEGER, NULL, OCTET_STRING, SEQUENCE, BadDer, Cursor, context, integer_content, tlv
from postseal.core.errors import BadData
from postseal.core.signature import MIN_RSA, Scheme, key_fault, parse_algorithm

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class SignatureScheme(StrEnum):
    """How a signature is made: RSASSA-PKCS1-v1_5 and RSASSA-PSS (RFC 8017 §8), ECDSA (RFC 5753 §2), Ed25519 (RFC 8419)."""

    PKCS1 = "pkcs1"
    PSS = "pss"
    ECDSA = "ecdsa"
    ED25519 = "ed25519"


_HASH_CLASS: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
# The curves that signatures are made on, by the library's names: hash, and the likeliest length of a signature in DER.
# RFC 5639 §3 has the Brainpool curves; of the other ones RFC 8551 §2.2 names P-256, and P-384 and P-521 are common.
_CURVES: dict[str, tuple[str, int]] = {
    "secp256r1": ("sha256", 71),
    "secp384r1": ("sha384", 103),
    "secp521r1": ("sha512", 139),
    "brainpoolP256r1": ("sha256", 70),
    "brainpoolP384r1": ("sha384", 102),
    "brainpoolP512r1": ("sha512", 135),
}
# Half of the signatures, or nearly so, have the likeliest length: not to meet one in so many means that something is broken.
_MOST_TRIES = 400


class Signer:
    """A certificate, its private key, and how it signs. Raises BadData when these don't fit together.

    ``chain`` goes along with the certificate, without roots (RFC 8551 §2.3: whoever trusts one has it) unless ``with_root``.
    ``encryption`` is the certificate that answers should be encrypted to, where that is to be told. Whether the certificate
    is fit to sign mail at this time is ``core.fitness.signing_fitness``'s to say, and whether it is trusted the reader's.
    """

    __slots__ = ("_fixed", "_key", "_salt", "algorithm", "certificate", "certificates", "hash", "scheme", "sid")

    def __init__(
        self,
        certificate: Certificate,
        key: SigningKey,
        scheme: SignatureScheme | None = None,
        chain: Sequence[Certificate] = (),
        *,
        encryption: Certificate | None = None,
        with_root: bool = False,
    ) -> None:
        _check_pair(certificate, key)
        self.certificate = certificate
        self._key = key
        self.scheme = _scheme(certificate, key, scheme)
        self.hash, self._salt = _hash_and_salt(certificate, key)
        self.algorithm = _algorithm(self.scheme, self.hash, self._salt)
        self.sid = cms.issuer_and_serial(certificate)
        kept = [each for each in chain if with_root or each.subject != each.issuer]
        self.certificates = tuple(dict.fromkeys((certificate, *kept)))
        # Attributes that are the same in each signature. RFC 5652 §11.1: the content type is that of the content.
        fixed = [cms.attribute(cms.CONTENT_TYPE, cms.oid(cms.DATA)), cms.signing_certificate(certificate)]
        if encryption is not None:
            fixed.append(cms.encryption_key_preference(encryption))
        self._fixed = tuple(fixed)

    def __repr__(self) -> str:
        return f"Signer({self.certificate!r}, {self.scheme})"

    @property
    def micalg(self) -> str:
        """RFC 8551 §3.5.3.2: the name of the digest algorithm in multipart/signed."""
        return cms.MICALG[self.hash]

    def attributes(self, digest: bytes, common: Sequence[bytes]) -> bytes:
        """The SET OF signed attributes in DER: over this is signed, not over the [0] that stands in its place."""
        # RFC 5652 §11.2: messageDigest.
        return cms.set_of((*self._fixed, *common, cms.attribute(cms.MESSAGE_DIGEST, tlv(OCTET_STRING, digest))))

    def sign(self, message: bytes, length: int = 0) -> bytes:
        """The signature of ``message``; with ``length`` one that has as many octets."""
        for _ in range(_MOST_TRIES):
            signature = self._sign(message)
            if not length or len(signature) == length:
                return signature
        raise BadData("the private key makes no signature of the usual length")

    def _sign(self, message: bytes) -> bytes:
        key, hash_ = self._key, _HASH_CLASS[self.hash]
        if isinstance(key, rsa.RSAPrivateKey):
            if self.scheme is SignatureScheme.PSS:
                return key.sign(message, padding.PSS(padding.MGF1(hash_), self._salt), hash_)
            return key.sign(message, padding.PKCS1v15(), hash_)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(message, ec.ECDSA(hash_))
        return key.sign(message)

    @property
    def signature_length(self) -> int:
        """Octets of its signatures: the likeliest number where it varies from one to the next (ECDSA)."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return (self._key.key_size + 7) // 8
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return _CURVES[self._key.curve.name][1]
        return 64

    def info(self, attributes: bytes, signature: bytes) -> bytes:
        """RFC 5652 §5.3: SignerInfo, version 1 because its signer is named by issuerAndSerialNumber."""
        return tlv(
            SEQUENCE,
            tlv(INTEGER, b"\x01"),
            self.sid,
            cms.digest_algorithm(self.hash),
            bytes((context(0),)) + attributes[1:],
            self.algorithm,
            tlv(OCTET_STRING, signature),
        )


def _check_pair(certificate: Certificate, key: SigningKey) -> None:
    fault = key_fault(certificate.spki, weak_keys=False)
    if fault:
        raise BadData(f"the certificate can't sign: {fault}")
    if certificate.x509.public_key() != key.public_key():
        raise BadData("the private key isn't that of the certificate")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        raise BadData(f"keys on the curve {key.curve.name} don't sign mail: no RFC for it names them")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA:
        raise BadData(f"an RSA key of {key.key_size} bits is too short to sign with")


def _scheme(certificate: Certificate, key: SigningKey, wanted: SignatureScheme | None) -> SignatureScheme:
    if isinstance(key, rsa.RSAPrivateKey):
        # RFC 4055 §1.2: a key that says id-RSASSA-PSS is used with no other scheme.
        pss_only = _spki_algorithm(certificate)[0] == cms.RSASSA_PSS
        schemes = (SignatureScheme.PSS,) if pss_only else (SignatureScheme.PKCS1, SignatureScheme.PSS)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        schemes = (SignatureScheme.ECDSA,)
    else:
        schemes = (SignatureScheme.ED25519,)
    if wanted is not None and wanted not in schemes:
        raise BadData(f"the certificate's key signs with {' or '.join(schemes)}, not with {wanted}")
    return wanted or schemes[0]


def _spki_algorithm(certificate: Certificate) -> tuple[str, bytes, bool]:
    """The OID of the key's algorithm, its AlgorithmIdentifier in DER, and whether that has parameters."""
    identifier = Cursor(certificate.spki).enter().raw(SEQUENCE)
    inner = Cursor(identifier).enter()
    return inner.oid(), identifier, inner.peek() not in (-1, NULL)


def _hash_and_salt(certificate: Certificate, key: SigningKey) -> tuple[str, int]:
    """A hash as strong as the key, and for RSASSA-PSS a salt as long as the hash (RFC 4055 §3.1, RFC 8017 §9.1)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _CURVES[key.curve.name][0], 0
    if isinstance(key, ed25519.Ed25519PrivateKey):
        # RFC 8419 §3.1: with signed attributes the digest is SHA-512.
        return "sha512", 0
    oid, identifier, limited = _spki_algorithm(certificate)
    if oid == cms.RSASSA_PSS and limited:
        return _pss_limits(identifier)
    # SP 800-57 part 1, table 2: 3072 bits are as strong as SHA-256. RFC 8551 §2.1: readers must know SHA-256 and SHA-512.
    name = "sha256" if key.key_size <= 3072 else "sha512"
    return name, _HASH_CLASS[name].digest_size


def _pss_limits(identifier: bytes) -> tuple[str, int]:
    """RFC 4055 §3.3: the key's own parameters bind its signatures; the salt may be longer than they say, never shorter."""
    try:
        limits = parse_algorithm(identifier)
    except BadDer as exc:
        raise BadData(f"the parameters of the RSASSA-PSS key can't be read: {exc}") from exc
    name = limits.hash.name if limits.hash is not None else ""
    if limits.scheme is not Scheme.PSS or name not in _HASH_CLASS:
        raise BadData("the RSASSA-PSS key is bound to a hash other than SHA-256, SHA-384 and SHA-512")
    return name, max(limits.salt, _HASH_CLASS[name].digest_size)


def _algorithm(scheme: SignatureScheme, hash_name: str, salt: int) -> bytes:
    if scheme is SignatureScheme.PKCS1:
        # RFC 3370 §3.2: rsaEncryption, parameters NULL; every reader knows it, and the hash is that of the digest.
        return cms.algorithm(cms.RSA_ENCRYPTION, tlv(NULL))
    if scheme is SignatureScheme.PSS:
        return cms.pss_algorithm(hash_name, salt)
    # RFC 5758 §3.2, RFC 8419 §2.1: without parameters.
    return cms.algorithm(cms.ECDSA_WITH[hash_name] if scheme is SignatureScheme.ECDSA else cms.ED25519)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Signing:
    """One SignedData at work. Detached: ``update`` …, ``finish``. Opaque: ``head``, ``update`` …, ``tail``.

    ``at`` is signed as the signing time. ``capabilities`` is the DER of SMIMECapabilities (RFC 8551 §2.5.2), what answers
    may be encrypted with; when it is empty the attribute is left out.
    """

    __slots__ = ("_common", "_hashes", "_length", "_promised", "_rest_length", "_signers")

    def __init__(self, signers: Sequence[Signer], at: datetime, capabilities: bytes = b"") -> None:
        if not signers:
            raise BadData("a signature needs a signer")
        self._signers = tuple(signers)
        self._common = [cms.signing_time(at)]
        if capabilities:
            self._common.append(cms.attribute(cms.SMIME_CAPABILITIES, capabilities))
        self._hashes: dict[str, _Hash] = {name: hashlib.new(name) for name in self.hash_names}
        self._length = 0
        self._promised: int | None = None
        # Octets of certificates and SignerInfos, once somebody has been told.
        self._rest_length = 0

    @property
    def hash_names(self) -> tuple[str, ...]:
        """The digest algorithms of all signers, each once."""
        return tuple(dict.fromkeys(signer.hash for signer in self._signers))

    @property
    def micalg(self) -> str:
        """RFC 8551 §3.5.3.2: the value of the parameter micalg."""
        return ",".join(cms.MICALG[name] for name in self.hash_names)

    def update(self, chunk: bytes) -> None:
        """The next octets of the content."""
        self._length += len(chunk)
        for each in self._hashes.values():
            each.update(chunk)

    @property
    def detached_length(self) -> int:
        """Octets of what ``finish`` will return; it keeps to that once it was asked for."""
        return len(self._detached(b"", self._promise()))

    def finish(self) -> bytes:
        """Detached SignedData over all that was added, a ContentInfo in DER."""
        rest = self._kept_promise()
        return self._detached(rest, len(rest))

    def _detached(self, rest: bytes, rest_length: int) -> bytes:
        # RFC 5652 §5.2: without eContent.
        signed = self._front() + tlv(SEQUENCE, cms.oid(cms.DATA))
        return _enclosed(signed, rest_length) + (rest or bytes(rest_length))

    def head(self, length: int) -> bytes:
        """What stands before a content of ``length`` octets in opaque SignedData, a ContentInfo in DER."""
        self._promised = length
        # RFC 5652 §5.2: eContent is [0] EXPLICIT OCTET STRING.
        head = header(OCTET_STRING, length)
        head = cms.oid(cms.DATA) + header(context(0), len(head) + length) + head
        return _enclosed(self._front() + header(SEQUENCE, len(head) + length) + head, length + self._promise())

    def tail(self) -> bytes:
        """What follows the content. Raises BadData when that hasn't the length for which the head was made."""
        if self._promised != self._length:
            raise BadData("the content that was signed hasn't the length that was said before")
        return self._kept_promise()

    @property
    def tail_length(self) -> int:
        """Octets of what ``tail`` will return."""
        return self._promise()

    def _promise(self) -> int:
        if not self._rest_length:
            blanks = [bytes(_HASH_CLASS[signer.hash].digest_size) for signer in self._signers]
            infos = [
                signer.info(signer.attributes(blank, self._common), bytes(signer.signature_length))
                for signer, blank in zip(self._signers, blanks, strict=True)
            ]
            self._rest_length = len(self._rest(infos))
        return self._rest_length

    def _kept_promise(self) -> bytes:
        rest = self._rest(self._infos(exact=self._rest_length > 0))
        if self._rest_length and len(rest) != self._rest_length:
            raise BadData("the signature that was made hasn't the length that was said before")
        return rest

    def _front(self) -> bytes:
        # RFC 5652 §5.1: version 1, since the content is data, the certificates are X.509, and no SignerInfo has version 3.
        return tlv(INTEGER, integer_content(1)) + cms.set_of(map(cms.digest_algorithm, self.hash_names))

    def _rest(self, infos: Sequence[bytes]) -> bytes:
        certificates = dict.fromkeys(each.der for signer in self._signers for each in signer.certificates)
        return cms.set_of(certificates, context(0)) + cms.set_of(infos)

    def _infos(self, exact: bool) -> list[bytes]:
        digests = {name: state.digest() for name, state in self._hashes.items()}
        made = []
        for signer in self._signers:
            attributes = signer.attributes(digests[signer.hash], self._common)
            made.append(signer.info(attributes, signer.sign(attributes, signer.signature_length if exact else 0)))
        return made


def _enclosed(signed: bytes, after: int) -> bytes:
    """The beginning of a ContentInfo around SignedData that begins with ``signed``; ``after`` octets follow that."""
    head = header(SEQUENCE, len(signed) + after) + signed
    head = cms.oid(cms.SIGNED_DATA) + header(context(0), len(head) + after) + head
    return header(SEQUENCE, len(head) + after) + head
