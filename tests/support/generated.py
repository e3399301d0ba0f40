"""Whole PKIs as values: certificates and CRLs are described, and written as DER when asked for.

Descriptions are frozen and their DER is remembered, so a thousand generated PKIs share most of their signatures. Names are
written "Organisation/Common name" or "Common name"; general names "email:…", "dns:…", "uri:…", "ip:…" and "dir:…"; times are
days from NOW. Keys are numbers: certificates with the same number have the same P-256 key. Nothing is shared with the
readers under test.

root = Cert("Root", "Root", key=0, signer=0, ca=True)
leaf = Cert("Alice", "Root", key=1, signer=0, points=(Point(("http://ca.test/1.crl",)),))
crl = Listing("Root", key=0, entries=(Entry(leaf.serial, reason=1),))
"""

from __future__ import annotations

import hashlib
import ipaddress
from base64 import encodebytes
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from postseal.core.certs import Certificate, load_certificate
from support.evidence import (
    CRITICAL_UNKNOWN,
    Extension,
    algorithm,
    boolean,
    delta_of,
    directory_name,
    extension_list,
    full_name,
    integer,
    kind_for,
    node,
    number,
    octets,
    oid,
    public_bits,
    reason,
    scope,
    seq,
    sign,
    utc,
)
from support.pki import NOW, key

EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
ANY_EKU = "2.5.29.37.0"
ANY_POLICY = "2.5.29.32.0"
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
          "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
CA_USAGE = ("key_cert_sign", "crl_sign")
LEAF_USAGE = ("digital_signature", "key_agreement")


class _Short:
    """Its repr leaves out what is at its default, so that a failing example can be read, and typed in."""

    def __repr__(self) -> str:
        shown = []
        for about in fields(self):  # type: ignore[arg-type]
            value = getattr(self, about.name)
            if about.default is MISSING:
                shown.append(repr(value))
            elif value != about.default:
                shown.append(f"{about.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Point(_Short):
    """One distribution point: URIs, ReasonFlags by bit number, the name of another CRL issuer."""

    uris: tuple[str, ...] = ()
    reasons: tuple[int, ...] = ()
    issuer: str = ""

    def der(self) -> bytes:
        return seq(
            node(0xA0, full_name(*(node(0x86, u.encode()) for u in self.uris))) if self.uris else b"",
            node(0x81, bits(self.reasons)) if self.reasons else b"",
            node(0xA2, directory_name(name(self.issuer))) if self.issuer else b"",
        )


@dataclass(frozen=True, repr=False)
class Cert(_Short):
    """One certificate. ``usage`` and ``ca`` None leave the extension out; ``aki`` is the key that the identifier names."""

    subject: str
    issuer: str
    key: int
    signer: int
    serial: int = 0
    ca: bool | None = None
    path_length: int | None = None
    usage: tuple[str, ...] | None = None
    eku: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    email: str = ""
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    mappings: tuple[tuple[str, str], ...] = ()
    explicit_after: int | None = None
    mapping_after: int | None = None
    any_after: int | None = None
    points: tuple[Point, ...] = ()
    freshest: tuple[Point, ...] = ()
    from_day: float = -100
    to_day: float = 1000
    aki: int | None = None
    no_aki: bool = False
    unknown: bool = False
    spoil: bool = False

    @property
    def self_issued(self) -> bool:
        return self.subject == self.issuer

    @property
    def number(self) -> int:
        """The serial number; without one given it comes from everything else."""
        return self.serial or int.from_bytes(hashlib.sha256(repr(self).encode()).digest()[:8], "big") | 1

    @property
    def der(self) -> bytes:
        return _certificate(self)

    @property
    def loaded(self) -> Certificate:
        return _loaded(self)


@dataclass(frozen=True, repr=False)
class Entry(_Short):
    """One entry of a CRL; ``issuer`` writes a certificateIssuer, ``critical`` an unknown critical extension."""

    serial: int
    reason: int | None = None
    issuer: str = ""
    critical: bool = False


@dataclass(frozen=True, repr=False)
class Listing(_Short):
    """One CRL. ``point`` to ``reasons`` make up its IssuingDistributionPoint."""

    issuer: str
    key: int
    number: int | None = 1
    entries: tuple[Entry, ...] = ()
    from_day: float = -1
    to_day: float | None = 7
    point: tuple[str, ...] = ()
    user: bool = False
    ca: bool = False
    attribute: bool = False
    indirect: bool = False
    reasons: tuple[int, ...] = ()
    delta_of: int | None = None
    freshest: bool = False
    aki: int | None = None
    no_aki: bool = False
    unknown: bool = False
    spoil: bool = False

    @property
    def has_scope(self) -> bool:
        return bool(self.point or self.user or self.ca or self.attribute or self.indirect or self.reasons)

    @property
    def der(self) -> bytes:
        return _listing(self)


@dataclass(frozen=True, repr=False)
class World(_Short):
    """A PKI and the certificate in question."""

    leaf: Cert
    anchors: tuple[Cert, ...]
    pool: tuple[Cert, ...] = ()
    listings: tuple[Listing, ...] = ()

    def chains(self) -> Iterator[tuple[Cert, ...]]:
        """All chains of names and keys from the leaf up, the anchor last, no name and key twice."""
        yield from self._above((self.leaf,))

    def _above(self, chain: tuple[Cert, ...]) -> Iterator[tuple[Cert, ...]]:
        last = chain[-1]
        for anchor in self.anchors:
            if (anchor.subject, anchor.key) == (last.issuer, last.signer):
                yield (*chain, anchor)
        for other in self.pool:
            known = {(c.subject, c.key) for c in chain[1:]}
            if (other.subject, other.key) == (last.issuer, last.signer) and (other.subject, other.key) not in known:
                yield from self._above((*chain, other))

    def without(self, *listings: int) -> World:
        """The same with CRLs taken away, by their position."""
        return replace(self, listings=tuple(c for n, c in enumerate(self.listings) if n not in listings))


def bits(numbers: Sequence[int]) -> bytes:
    """Content of a named BIT STRING in DER."""
    if not numbers:
        return b"\x00"
    value = bytearray(max(numbers) // 8 + 1)
    for bit in numbers:
        value[bit // 8] |= 0x80 >> bit % 8
    return bytes((7 - max(numbers) % 8,)) + bytes(value)


@lru_cache(maxsize=4096)
def name(text: str) -> bytes:
    organisation, _, common = text.rpartition("/")
    pairs = [("2.5.4.10", organisation)] if organisation else []
    return seq(*(_rdn(kind, value) for kind, value in [*pairs, ("2.5.4.3", common)] if value))


def _rdn(kind: str, value: str, tag: int = 0x0C) -> bytes:
    return node(0x31, seq(oid(kind), node(tag, value.encode())))


def subject(cert: Cert) -> bytes:
    if not cert.email:
        return name(cert.subject)
    # IA5String, as PKCS #9 wants it.
    return seq(name(cert.subject)[2:], _rdn("1.2.840.113549.1.9.1", cert.email, 0x16))


def general_name(text: str) -> bytes:
    """ip: an address in a subjectAltName, a network in a constraint; dir: a Name."""
    kind, _, value = text.partition(":")
    if kind == "dir":
        return directory_name(_directory(value))
    if kind == "ip":
        if "/" not in value:
            return node(0x87, ipaddress.ip_address(value).packed)
        network = ipaddress.ip_network(value)
        return node(0x87, network.network_address.packed, network.netmask.packed)
    return node({"email": 0x81, "dns": 0x82, "uri": 0x86}[kind], value.encode())


def _directory(value: str) -> bytes:
    """ "Acme/" is the organisation alone, to which all names below it belong."""
    return name(value)


@lru_cache(maxsize=64)
def _spki(slot: int) -> bytes:
    return bytes(
        key("p256", ("generated", slot)).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


@lru_cache(maxsize=64)
def key_id(slot: int) -> bytes:
    return hashlib.sha1(public_bits(key("p256", ("generated", slot)))).digest()


def _signed(tbs: bytes, signer: int, spoil: bool) -> bytes:
    private = key("p256", ("generated", signer))
    kind = kind_for(private)
    return seq(tbs, algorithm(kind), node(3, b"\x00", sign(private, kind, tbs + b"spoilt" if spoil else tbs)))


def _moment(day: float) -> bytes:
    return utc(NOW + timedelta(days=day))


def _extensions(cert: Cert) -> Iterator[Extension]:
    yield "2.5.29.14", False, octets(key_id(cert.key))
    if not cert.no_aki:
        yield "2.5.29.35", False, seq(node(0x80, key_id(cert.signer if cert.aki is None else cert.aki)))
    if cert.ca is not None:
        length = integer(cert.path_length) if cert.path_length is not None else b""
        yield "2.5.29.19", True, seq(boolean(True) if cert.ca else b"", length)
    if cert.usage is not None:
        yield "2.5.29.15", True, node(3, bits([USAGES.index(u) for u in cert.usage]))
    if cert.eku:
        yield "2.5.29.37", False, seq(*(oid(e) for e in cert.eku))
    if cert.names:
        yield "2.5.29.17", False, seq(*(general_name(n) for n in cert.names))
    if cert.permitted or cert.excluded:
        trees = [node(tag, *(seq(general_name(n)) for n in found))
                 for tag, found in ((0xA0, cert.permitted), (0xA1, cert.excluded)) if found]  # fmt: skip
        yield "2.5.29.30", True, seq(*trees)
    yield from _policy_extensions(cert)
    if cert.points:
        yield "2.5.29.31", False, seq(*(p.der() for p in cert.points))
    if cert.freshest:
        yield "2.5.29.46", False, seq(*(p.der() for p in cert.freshest))
    if cert.unknown:
        yield CRITICAL_UNKNOWN


def _policy_extensions(cert: Cert) -> Iterator[Extension]:
    if cert.policies:
        yield "2.5.29.32", False, seq(*(seq(oid(p)) for p in cert.policies))
    if cert.mappings:
        yield "2.5.29.33", True, seq(*(seq(oid(one), oid(other)) for one, other in cert.mappings))
    if cert.explicit_after is not None or cert.mapping_after is not None:
        skips = ((0x80, cert.explicit_after), (0x81, cert.mapping_after))
        yield "2.5.29.36", True, seq(*(node(tag, bytes((n,))) for tag, n in skips if n is not None))
    if cert.any_after is not None:
        yield "2.5.29.54", True, integer(cert.any_after)


@lru_cache(maxsize=20_000)
def _certificate(cert: Cert) -> bytes:
    tbs = seq(
        node(0xA0, integer(2)),
        integer(cert.number),
        algorithm("ecdsa-sha256"),
        name(cert.issuer),
        seq(_moment(cert.from_day), _moment(cert.to_day)),
        subject(cert),
        _spki(cert.key),
        node(0xA3, extension_list(list(_extensions(cert)))),
    )
    return _signed(tbs, cert.signer, cert.spoil)


@lru_cache(maxsize=20_000)
def _loaded(cert: Cert) -> Certificate:
    return load_certificate(cert.der)


def _entry(item: Entry) -> bytes:
    found: list[Extension] = [reason(item.reason)] if item.reason is not None else []
    if item.issuer:
        found.append(("2.5.29.29", True, seq(directory_name(name(item.issuer)))))
    if item.critical:
        found.append(CRITICAL_UNKNOWN)
    return seq(integer(item.serial), _moment(-2), extension_list(found) if found else b"")


@lru_cache(maxsize=20_000)
def _listing(crl: Listing) -> bytes:
    found: list[Extension] = [] if crl.number is None else [number(crl.number)]
    if not crl.no_aki:
        found.append(("2.5.29.35", False, seq(node(0x80, key_id(crl.key if crl.aki is None else crl.aki)))))
    if crl.has_scope:
        place = full_name(*(node(0x86, u.encode()) for u in crl.point)) if crl.point else b""
        mask = bits(crl.reasons) if crl.reasons else b""
        found.append(
            scope(place, user=crl.user, ca=crl.ca, attribute=crl.attribute, indirect=crl.indirect, reasons=mask)
        )
    if crl.delta_of is not None:
        found.append(delta_of(crl.delta_of))
    if crl.freshest:
        found.append(("2.5.29.46", False, seq(Point(("http://ca.test/delta.crl",)).der())))
    if crl.unknown:
        found.append(CRITICAL_UNKNOWN)
    tbs = seq(
        integer(1),
        algorithm("ecdsa-sha256"),
        name(crl.issuer),
        _moment(crl.from_day),
        b"" if crl.to_day is None else _moment(crl.to_day),
        seq(*(_entry(e) for e in crl.entries)) if crl.entries else b"",
        node(0xA0, extension_list(found)) if found else b"",
    )
    return _signed(tbs, crl.key, crl.spoil)


def write_pem(path: Path, label: str, ders: Sequence[bytes]) -> Path:
    """All of them in one file."""
    begin, end = f"-----BEGIN {label}-----\n".encode(), f"-----END {label}-----\n".encode()
    path.write_bytes(b"".join(begin + encodebytes(der) + end for der in ders))
    return path
