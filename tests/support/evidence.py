"""CRLs and OCSP answers of every odd kind: DER written by hand, because honest builders refuse to write most of them.

Nothing here is shared with the reader under test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding

from postseal.core.certs import load_certificate
from support.pki import DAY, HOUR, NOW, Authority, Leaf

CRL_URL = "http://crl.example.test/ca.crl"
OCSP_URL = "http://ocsp.example.test/"

Extension = tuple[str, bool, bytes]


def node(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 + len(octets))) + octets + content


def seq(*parts: bytes) -> bytes:
    return node(0x30, *parts)


def integer(value: int) -> bytes:
    return node(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(content: bytes) -> bytes:
    return node(4, content)


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for arc in (first * 40 + second, *rest):
        groups = [arc % 128]
        while arc >= 128:
            arc //= 128
            groups.insert(0, arc % 128 + 128)
        out += bytes(groups)
    return node(6, out)


def boolean(value: bool) -> bytes:
    return node(1, b"\xff" if value else b"\x00")


def utc(moment: datetime) -> bytes:
    return node(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def generalized(moment: datetime) -> bytes:
    return node(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def extension(dotted: str, critical: bool, value: bytes) -> bytes:
    return seq(oid(dotted), boolean(True) if critical else b"", octets(value))


def extension_list(items: Sequence[Extension]) -> bytes:
    return seq(*(extension(*item) for item in items))


def uri(text: str) -> bytes:
    return node(0x86, text.encode())


def directory_name(name: bytes) -> bytes:
    return node(0xA4, name)


def full_name(*names: bytes) -> bytes:
    """DistributionPointName of the fullName kind."""
    return node(0xA0, *names)


UNKNOWN_OID = "1.3.6.1.4.1.99999.7"
CRITICAL_UNKNOWN: Extension = (UNKNOWN_OID, True, b"\x05\x00")

SIGNATURES = {
    "md5": ("1.2.840.113549.1.1.4", hashes.MD5),
    "sha1": ("1.2.840.113549.1.1.5", hashes.SHA1),
    "sha256": ("1.2.840.113549.1.1.11", hashes.SHA256),
    "sha384": ("1.2.840.113549.1.1.12", hashes.SHA384),
    "sha512": ("1.2.840.113549.1.1.13", hashes.SHA512),
    "ecdsa-sha1": ("1.2.840.10045.4.1", hashes.SHA1),
    "ecdsa-sha256": ("1.2.840.10045.4.3.2", hashes.SHA256),
}
_SHA256_ID = seq(oid("2.16.840.1.101.3.4.2.1"), b"\x05\x00")


def algorithm(kind: str) -> bytes:
    """AlgorithmIdentifier of a signature; ``pss`` is RSASSA-PSS with SHA-256 and a salt of 32."""
    if kind == "pss":
        mask = seq(oid("1.2.840.113549.1.1.8"), _SHA256_ID)
        return seq(
            oid("1.2.840.113549.1.1.10"),
            seq(node(0xA0, _SHA256_ID), node(0xA1, mask), node(0xA2, integer(32))),
        )
    if kind == "dsa":
        return seq(oid("2.16.840.1.101.3.4.3.2"))
    if kind in ("ed25519", "ed448"):
        return seq(oid("1.3.101.112" if kind == "ed25519" else "1.3.101.113"))
    return seq(oid(SIGNATURES[kind][0]), b"" if kind.startswith("ecdsa") else b"\x05\x00")


def kind_for(key: Any) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "ecdsa-sha256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    return "ed448" if isinstance(key, ed448.Ed448PrivateKey) else "sha256"


def sign(key: Any, kind: str, data: bytes) -> bytes:
    if kind in ("ed25519", "ed448"):
        return bytes(key.sign(data))
    if kind == "dsa":
        return integer(7)
    if kind == "pss":
        return bytes(key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()))
    digest = SIGNATURES[kind][1]()
    if kind.startswith("ecdsa"):
        return bytes(key.sign(data, ec.ECDSA(digest)))
    return bytes(key.sign(data, padding.PKCS1v15(), digest))


def serial_of(who: Leaf | int) -> int:
    return who if isinstance(who, int) else who.certificate.serial


def entry(who: Leaf | int | bytes, *extensions: Extension, when: datetime = NOW - DAY, general: bool = False) -> bytes:
    """One revokedCertificates entry; bytes are the content of the serial's INTEGER as they are."""
    serial = node(2, who) if isinstance(who, bytes) else integer(serial_of(who))
    return seq(serial, generalized(when) if general else utc(when), extension_list(extensions) if extensions else b"")


def reason(code: int) -> Extension:
    return ("2.5.29.21", False, node(0x0A, bytes((code,))))


def invalidity(moment: datetime) -> Extension:
    return ("2.5.29.24", False, generalized(moment))


def certificate_issuer(name: bytes) -> Extension:
    return ("2.5.29.29", True, seq(directory_name(name)))


def number(value: int) -> Extension:
    return ("2.5.29.20", False, integer(value))


def delta_of(base: int) -> Extension:
    return ("2.5.29.27", True, integer(base))


def authority_key(key_id: bytes) -> Extension:
    return ("2.5.29.35", False, seq(node(0x80, key_id)))


def scope(
    name: bytes = b"", *, user: bool = False, ca: bool = False, attribute: bool = False, indirect: bool = False,
    reasons: bytes = b"",
) -> Extension:  # fmt: skip
    """A critical IssuingDistributionPoint; ``reasons`` is the content of the ReasonFlags BIT STRING."""
    flags = [(1, user), (2, ca), (4, indirect), (5, attribute)]
    parts = [node(0xA0, name)] if name else []
    parts += [node(0x80 | n, b"\xff") for n, on in flags if on and n < 3]
    parts += [node(0x83, reasons)] if reasons else []
    parts += [node(0x80 | n, b"\xff") for n, on in flags if on and n > 3]
    return ("2.5.29.28", True, seq(*parts))


def name_of(who: Leaf) -> bytes:
    return who.certificate.x509.subject.public_bytes()


def crl(
    ca: Authority,
    entries: Sequence[bytes] = (),
    *,
    extensions: Sequence[Extension] = (number(1),),
    issuer: bytes | None = None,
    key: Any = None,
    kind: str = "",
    inner_kind: str = "",
    version: bytes = integer(1),
    this_update: bytes = utc(NOW - HOUR),
    next_update: bytes = utc(NOW + 7 * DAY),
    spoil: bool = False,
    tail: bytes = b"",
) -> bytes:
    """A CRL in DER; every part can be replaced. ``spoil`` breaks the signature, ``tail`` follows the CRL."""
    key = key or ca.key
    kind = kind or kind_for(key)
    tbs = seq(
        version,
        algorithm(inner_kind or kind),
        issuer if issuer is not None else name_of(ca),
        this_update,
        next_update,
        seq(*entries) if entries else b"",
        node(0xA0, extension_list(extensions)) if extensions else b"",
    )
    signature = sign(key, kind, tbs + b"spoilt" if spoil else tbs)
    return seq(tbs, algorithm(kind), node(3, b"\x00", signature)) + tail


@dataclass
class Answer:
    """One SingleResponse: ``status`` good, revoked or unknown."""

    about: Leaf
    issuer: Leaf
    status: str = "good"
    hash: str = "sha256"
    serial: int | None = None
    revoked_at: datetime = NOW - DAY
    reason: int | None = None
    this_update: datetime = NOW - HOUR
    next_update: datetime | None = NOW + DAY
    extensions: Sequence[Extension] = ()
    issuer_key: bytes | None = None

    def der(self) -> bytes:
        hash_oid = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1", "md5": "1.2.840.113549.2.5"}
        public = self.issuer_key if self.issuer_key is not None else public_bits(self.issuer.key)
        cert_id = seq(
            seq(oid(hash_oid[self.hash]), b"\x05\x00"),
            octets(hashlib.new(self.hash, name_of(self.issuer)).digest()),
            octets(hashlib.new(self.hash, public).digest()),
            integer(self.about.certificate.serial if self.serial is None else self.serial),
        )
        why = node(0xA0, node(0x0A, bytes((self.reason,)))) if self.reason is not None else b""
        status = {
            "good": node(0x80),
            "revoked": node(0xA1, generalized(self.revoked_at), why),
            "unknown": node(0x82),
        }[self.status]
        return seq(
            cert_id,
            status,
            generalized(self.this_update),
            node(0xA0, generalized(self.next_update)) if self.next_update else b"",
            node(0xA1, extension_list(self.extensions)) if self.extensions else b"",
        )


def public_bits(key: Any) -> bytes:
    """The subjectPublicKey of a key: what OCSP hashes."""
    public = key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)


@dataclass
class Ocsp:
    """An OCSPResponse to be signed by ``signer``; every part can be replaced."""

    answers: Sequence[Answer]
    signer: Leaf
    by_key: bool = False
    certificates: Sequence[Leaf] = ()
    produced_at: datetime = NOW - HOUR
    extensions: Sequence[Extension] = ()
    kind: str = ""
    status: int = 0
    response_type: str = "1.3.6.1.5.5.7.48.1.1"
    version: bytes = b""
    spoil: bool = False
    responder: bytes | None = field(default=None)

    def der(self) -> bytes:
        if self.responder is not None:
            responder = self.responder
        elif self.by_key:
            responder = node(0xA2, octets(hashlib.sha1(public_bits(self.signer.key)).digest()))
        else:
            responder = node(0xA1, name_of(self.signer))
        kind = self.kind or kind_for(self.signer.key)
        data = seq(
            self.version,
            responder,
            generalized(self.produced_at),
            seq(*(a.der() for a in self.answers)),
            node(0xA1, extension_list(self.extensions)) if self.extensions else b"",
        )
        signature = sign(self.signer.key, kind, data + b"spoilt" if self.spoil else data)
        certificates = node(0xA0, seq(*(c.certificate.der for c in self.certificates))) if self.certificates else b""
        basic = seq(data, algorithm(kind), node(3, b"\x00", signature), certificates)
        return seq(node(0x0A, bytes((self.status,))), node(0xA0, seq(oid(self.response_type), octets(basic))))


def signed_again(leaf: Leaf, ca: Authority, old: str, new: str) -> Leaf:
    """The same certificate with another RSA signature algorithm, also one that honest builders refuse."""
    tbs = leaf.certificate.x509.tbs_certificate_bytes.replace(algorithm(old), algorithm(new), 1)
    der = seq(tbs, algorithm(new), node(3, b"\x00", sign(ca.key, new, tbs)))
    return Leaf(load_certificate(der), leaf.key)
