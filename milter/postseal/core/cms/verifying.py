"""What each signer of a SignedData signed, and whether it holds (RFC 5652 §5.4 to §5.6): an account, never a bare yes.

Only the mathematics is done here. Whether the signer's certificate is trusted, fit, not revoked and the sender's is
``app.cms_verify``'s to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives import hashes

from postseal.core.certs import Certificate
from postseal.core.cms.signed_attributes import (
    CONTENT_TYPE,
    MESSAGE_DIGEST,
    SIGNING_TIME,
    Claims,
    claims,
    names_certificate,
    protects_algorithms,
)
from postseal.core.cms.signed_reader import DATA, Signed, SignerIdentifier, SignerInfo, joined
from postseal.core.der import OID, SET, BadDer, Cursor, context, oid_content, tlv
from postseal.core.errors import BadData
from postseal.core.profile import profile
from postseal.core.signature import Algorithm, Scheme, key_fault, parse_algorithm, verifies

_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
_EC_PUBLIC_KEY = "1.2.840.10045.2.1"
DIGESTS: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "1.3.14.3.2.26": ("sha1", hashes.SHA1()),
    "2.16.840.1.101.3.4.2.4": ("sha224", hashes.SHA224()),
    "2.16.840.1.101.3.4.2.1": ("sha256", hashes.SHA256()),
    "2.16.840.1.101.3.4.2.2": ("sha384", hashes.SHA384()),
    "2.16.840.1.101.3.4.2.3": ("sha512", hashes.SHA512()),
}
# RFC 8551 §2.1 and RFC 6151 §2: recognised, never computed.
_BROKEN_DIGESTS = {"1.2.840.113549.2.2": "md2", "1.2.840.113549.2.4": "md4", "1.2.840.113549.2.5": "md5"}
_WEAK_DIGESTS = ("sha1", "sha224")
# RFC 5652 §11.1 to §11.3: these must be signed attributes; what others say outside of the signature would be taken for theirs.
_SIGNED_ONLY = {CONTENT_TYPE: "contentType", MESSAGE_DIGEST: "messageDigest", SIGNING_TIME: "signingTime"}
# Certificates that carry the identifier of one signer; more of them are a way to keep the verifier busy.
_MAX_CANDIDATES = 4

Buffer = bytes | memoryview


class State(StrEnum):
    """Whether a signature holds. INTACT says nothing about whose key it is."""

    INTACT = "intact"
    BAD = "bad"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Covered:
    """The octets that signatures are over, in pieces, and their digests by OID."""

    pieces: tuple[memoryview, ...]
    digests: Mapping[str, bytes]

    @property
    def length(self) -> int:
        return sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True)
class SignerAccount:
    """All about one SignerInfo but trust. ``code`` is a ``sig.*`` code, ``weak`` says in words what is too weak, or nothing."""

    sid: SignerIdentifier
    certificate: Certificate | None
    scheme: str
    digest: str
    claims: Claims
    unsigned: tuple[str, ...]
    state: State
    code: str
    detail: str = ""
    weak: str = ""


class _Fault(Exception):
    """Ends the check of one signer; never leaves this module."""

    def __init__(self, code: str, detail: str = "", state: State = State.BAD) -> None:
        super().__init__(code)
        self.code, self.detail, self.state = code, detail, state


def cover(signed: Signed, content: Iterable[Buffer] | None = None) -> Covered:
    """The digests that the signers need of the content: that inside, or ``content`` when it stands elsewhere. One pass."""
    pieces = tuple(memoryview(each) for each in content) if content is not None else signed.content or ()
    states = {each.digest: hashes.Hash(DIGESTS[each.digest][1]) for each in signed.signers if each.digest in DIGESTS}
    for state in states.values():
        for piece in pieces:
            state.update(piece)
    return Covered(pieces, {oid: state.finalize() for oid, state in states.items()})


def check_signers(
    signed: Signed, covered: Covered, certificates: Sequence[Certificate] = ()
) -> tuple[SignerAccount, ...]:
    """One account for each SignerInfo, in their order. ``certificates`` are looked at besides those that came along. Total."""
    pool = tuple(dict.fromkeys((*signed.certificates, *certificates)))
    return tuple(_check(info, signed.content_type, covered, pool) for info in signed.signers)


def _check(info: SignerInfo, content_type: str, covered: Covered, pool: Sequence[Certificate]) -> SignerAccount:
    said = claims(info.attributes)
    candidates = [each for each in pool if _named(info.sid, each)][:_MAX_CANDIDATES]
    digest = DIGESTS[info.digest][0] if info.digest in DIGESTS else _BROKEN_DIGESTS.get(info.digest, info.digest)
    scheme, weak = "", ""
    certificate = candidates[0] if candidates else None
    try:
        algorithm = _algorithm(info)
        scheme = _scheme(algorithm, certificate)
        _attributes_fault(info, said, content_type, covered)
        if info.attributes is not None and _message_digest(info) != covered.digests[info.digest]:
            own = any(_holds(info, algorithm, covered, each.spki) for each in candidates)
            raise _Fault("sig.wrong-content", "the signature itself is by that key" if own else "")
        certificate = _signer(info, algorithm, covered, candidates)
        _certificate_fault(said, certificate)
        weak = _weakness(info, algorithm, certificate)
        return SignerAccount(
            info.sid, certificate, scheme, digest, said, info.unsigned, State.INTACT, "sig.intact", "", weak
        )
    except _Fault as fault:
        return SignerAccount(
            info.sid, certificate, scheme, digest, said, info.unsigned, fault.state, fault.code, fault.detail
        )


def _named(sid: SignerIdentifier, certificate: Certificate) -> bool:
    if sid.issuer:
        return certificate.issuer == sid.issuer and _serial(certificate) == sid.serial
    return bool(sid.subject_key_id) and profile(certificate).subject_key_id == sid.subject_key_id


def _serial(certificate: Certificate) -> bytes:
    tbs = Cursor(certificate.parts.tbs).enter()
    if tbs.peek() == context(0):
        tbs.take()
    element = tbs.take()
    return bytes(tbs.data[element.body : element.end])


def _algorithm(info: SignerInfo) -> Algorithm:
    if info.digest in _BROKEN_DIGESTS:
        raise _Fault("sig.broken-algorithm", f"the digest is {_BROKEN_DIGESTS[info.digest].upper()}")
    if info.digest not in DIGESTS:
        raise _Fault("sig.unknown-algorithm", f"the digest algorithm {info.digest}", State.UNVERIFIED)
    hash_ = DIGESTS[info.digest][1]
    try:
        name = Cursor(info.algorithm).enter().oid()
        # RFC 5652 §10.1.2, RFC 3370 §3.2: the key's algorithm may stand there alone; the hash is then that of the digest.
        if name == _RSA_ENCRYPTION:
            return Algorithm(Scheme.PKCS1, hash_, name)
        if name == _EC_PUBLIC_KEY:
            return Algorithm(Scheme.ECDSA, hash_, name)
        algorithm = parse_algorithm(info.algorithm)
    except BadDer as exc:
        raise _Fault("sig.malformed", f"the signature algorithm: {exc}") from exc
    if algorithm.scheme is Scheme.BROKEN:
        raise _Fault("sig.broken-algorithm", algorithm.fault(weak_keys=True))
    if algorithm.scheme is Scheme.UNKNOWN:
        raise _Fault("sig.unknown-algorithm", f"the signature algorithm {algorithm.oid}", State.UNVERIFIED)
    # RFC 8933 §3.1: one hash for the content and for the signature, so that the weaker can't be put in the place of one.
    if algorithm.hash is not None and algorithm.hash.name != hash_.name:
        raise _Fault("sig.bad-attributes", f"signed with {algorithm.hash.name}, but the digest is {hash_.name}")
    return algorithm


def _scheme(algorithm: Algorithm, certificate: Certificate | None) -> str:
    if algorithm.scheme is not Scheme.EDDSA:
        return str(algorithm.scheme)
    return "Ed25519" if algorithm.oid == "1.3.101.112" else "Ed448"


def _attributes_fault(info: SignerInfo, said: Claims, content_type: str, covered: Covered) -> None:
    """RFC 5652 §5.3, §5.6, §11: what is signed must be this content, as content of this type."""
    for oid, name in _SIGNED_ONLY.items():
        if oid in info.unsigned:
            raise _Fault(
                "sig.bad-attributes", f"the attribute {name} is among the unsigned ones, where anybody can put it"
            )
    if info.attributes is None:
        if content_type != DATA:
            raise _Fault("sig.bad-attributes", f"content of type {content_type} needs signed attributes")
        if _is_attributes(covered):
            raise _Fault("sig.confusion")
        return
    if said.fault:
        raise _Fault("sig.bad-attributes", said.fault)
    # RFC 5652 §11.1, §11.2: both must be there, with one value each.
    value = next(each.values[0] for each in info.attributes if each.oid == CONTENT_TYPE)
    if value != tlv(OID, oid_content(content_type)):
        raise _Fault("sig.content-type")
    if not protects_algorithms(info):
        raise _Fault("sig.bad-attributes", "the signed algorithms are others than those that are named outside")


def _message_digest(info: SignerInfo) -> bytes:
    """RFC 5652 §11.2: the digest of the content that was signed; the attribute is there, with one value."""
    value = next(each.values[0] for each in info.attributes or () if each.oid == MESSAGE_DIGEST)
    try:
        return Cursor(value).octets()
    except BadDer as exc:
        raise _Fault("sig.bad-attributes", f"the message digest: {exc}") from exc


def _is_attributes(covered: Covered) -> bool:
    """Is the content one DER SET and nothing else?

    Who takes the signed attributes of somebody's signature as the content of another message, and leaves out attributes
    there, has a signature that holds over content that nobody wrote. No MIME entity looks like that.
    """
    first = next((piece for piece in covered.pieces if len(piece)), None)
    if first is None or first[0] != SET:
        return False
    try:
        outer = Cursor(joined(covered.pieces))
        outer.take(SET)
        outer.finish()
    except BadDer:
        return False
    return True


def _signer(info: SignerInfo, algorithm: Algorithm, covered: Covered, candidates: Sequence[Certificate]) -> Certificate:
    """The certificate whose key verifies; several may have the same subject key identifier."""
    if not candidates:
        raise _Fault("sig.no-certificate", "", State.UNVERIFIED)
    faults = []
    for certificate in candidates:
        # CERT-13: keys that are too short are told apart below; these no one may verify with.
        fault = key_fault(certificate.spki, weak_keys=True)
        if fault:
            faults.append(fault)
        elif _holds(info, algorithm, covered, certificate.spki):
            return certificate
    if len(faults) == len(candidates):
        raise _Fault("sig.unusable-key", faults[0], State.UNVERIFIED)
    raise _Fault("sig.wrong-key")


def _holds(info: SignerInfo, algorithm: Algorithm, covered: Covered, spki: bytes) -> bool:
    if info.attributes is not None:
        return any(verifies(algorithm, info.signature, form, spki) for form in info.signed_forms)
    if algorithm.hash is None:
        # RFC 8419 §3.2: without signed attributes the content itself is what EdDSA signs.
        return verifies(algorithm, info.signature, joined(covered.pieces), spki)
    return verifies(algorithm, info.signature, b"", spki, covered.digests[info.digest])


def _certificate_fault(said: Claims, certificate: Certificate) -> None:
    # RFC 5035 §5.4: another certificate for the same key must not take the place of the one that was signed with.
    try:
        named = names_certificate(said, certificate)
    except BadData as exc:
        raise _Fault("sig.bad-attributes", f"the signing certificate attribute: {exc}") from exc
    if not named:
        raise _Fault("sig.wrong-certificate")


def _weakness(info: SignerInfo, algorithm: Algorithm, certificate: Certificate) -> str:
    # RFC 8551 §2.1, §2.2: SHA-256 and better; others only for what is old.
    name = DIGESTS[info.digest][0]
    if name in _WEAK_DIGESTS:
        return f"signed with {name.upper().replace('SHA', 'SHA-')}"
    return algorithm.fault(weak_keys=False) or key_fault(certificate.spki, weak_keys=False)
