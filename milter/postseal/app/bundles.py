"""Bundles of evidence as use cases: what goes into one, and what is taken out of one.

Marks and remembered revocations don't travel: they are made on each node from evidence that it has verified itself. So a bundle
of whoever it may be can bring news and keep silent, but can't make the receiving node refuse what is true, or believe what
isn't.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from postseal.app.imports import Importer, Refused
from postseal.core import bundle
from postseal.core.bundle import Item, ItemKind, Manifest
from postseal.core.certs import Certificate, load_certificate
from postseal.core.cms import signed
from postseal.core.crl import Crl, parse_crl
from postseal.core.der import Octets
from postseal.core.errors import BadData
from postseal.core.ocsp import revokes_for_good


class Entry(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def chain(self) -> tuple[Certificate, ...]: ...
    @property
    def certificate(self) -> Certificate | None: ...
    @property
    def url(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def next_update(self) -> datetime | None: ...
    @property
    def fetched_at(self) -> datetime: ...


class Store(Protocol):
    """``sources.evidence.EvidenceStore``."""

    def entries(self) -> Sequence[Entry]: ...

    def crl(self, sha256: str) -> Crl | None: ...

    def ocsp(self, name: str) -> bytes | None: ...

    def intermediates(self) -> tuple[Certificate, ...]: ...


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be written: the manifest, and how to get the octets of its items, one after the other."""

    manifest: Manifest
    contents: Callable[[], Iterator[Octets]]
    expired: int
    unreadable: int


def pack(store: Store, node: str, at: datetime, since: datetime | None) -> Parcel:
    """All current evidence of ``store``, or what was fetched after ``since``. What has expired helps nobody."""
    certificates = {c.fingerprint: c.der for c in store.intermediates()}
    items: list[Item] = []
    sources: list[Callable[[], Octets]] = []
    expired = unreadable = 0
    for entry in store.entries():
        if since is not None and entry.fetched_at <= since:
            continue
        content = _content(store, entry)
        if content is None:
            unreadable += 1
            continue
        # RPL-4: that a certificate is revoked for good stays true.
        if entry.next_update is not None and entry.next_update < at and not _final(entry, content):
            expired += 1
            continue
        involved = (*entry.chain, *((entry.certificate,) if entry.certificate is not None else ()))
        certificates.update({c.fingerprint: c.der for c in involved})
        # A CRL is named by its hash in the store.
        name = entry.name if entry.kind == ItemKind.CRL else hashlib.sha256(content()).hexdigest()
        items.append(
            Item(
                ItemKind(entry.kind), name, entry.size, entry.url, entry.fetched_at,
                tuple(c.fingerprint for c in entry.chain),
                entry.certificate.fingerprint if entry.certificate is not None else "",
            )
        )  # fmt: skip
        sources.append(content)
    first = [Item(ItemKind.CERTIFICATE, name, len(der)) for name, der in certificates.items()]
    manifest = Manifest(node, at.replace(microsecond=0), (*first, *items), since)

    def contents() -> Iterator[Octets]:
        yield from certificates.values()
        for source in sources:
            yield source()

    return Parcel(manifest, contents, expired, unreadable)


def _content(store: Store, entry: Entry) -> Callable[[], Octets] | None:
    """How to get the octets of an entry when their turn comes: all of them at once may be more than there is memory."""
    if entry.kind == ItemKind.OCSP:
        der = store.ocsp(entry.name)
        return None if der is None else lambda: der

    def read() -> Octets:
        crl = store.crl(entry.name)
        if crl is None:
            raise BadData(f"CRL {entry.name[:16]} went away while it was exported; try again")
        # Of a large CRL this is a file.
        return crl.der[:]

    return read if store.crl(entry.name) is not None else None


def _final(entry: Entry, content: Callable[[], Octets]) -> bool:
    return entry.kind == ItemKind.OCSP and revokes_for_good(bytes(content()))


# ---- taking -------------------------------------------------------------------------------------------------------------


class Bundle(Protocol):
    """``sources.bundles.BundleFile``."""

    @property
    def manifest(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...

    def item(self, number: int, manifest: Manifest) -> bytes:
        """Octets of an item. Raises BadData when they aren't those of its SHA-256."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made a bundle, as far as a signature shows it."""

    manifest: Manifest
    signer: Certificate | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one item: ``outcome`` is stored, known, older (ours is newer) or refused; ``detail`` says why."""

    item: Item
    outcome: str
    detail: str = ""


def origin(made: Bundle, signers: Sequence[Certificate], at: datetime, *, unsigned: bool) -> Origin:
    """Check the signature and read the manifest. Raises BadData: not signed, by nobody we know, or not readable."""
    if not made.signature:
        if not unsigned:
            raise BadData("it isn't signed; with --unsigned it is taken all the same")
        return Origin(bundle.decode(made.manifest), None)
    if not signers:
        raise BadData("it is signed, but the folder of bundle_signers ([certificates]) holds no certificate")
    faults: dict[str, None] = {}
    for signer in signers:
        fault = signed.check(made.signature, made.manifest, signer)
        if not fault:
            if not signer.not_before <= at <= signer.not_after:
                raise BadData(f"the certificate of its signer, {signer.name}, isn't valid now")
            return Origin(bundle.decode(made.manifest), signer)
        faults[fault] = None
    raise BadData(f"nobody in [certificates] bundle_signers signed it: {'; '.join(faults)}")


def open_items(
    made: Bundle, found: Origin, make_importer: Callable[[Sequence[Certificate]], Importer], crl_max_size: int
) -> Iterator[Taken]:
    """Take the items one by one, each verified as if it had been fetched. Certificates come first, for the paths.

    CACHE-13: no other node's verdict is taken, only evidence.
    """
    manifest = found.manifest
    certificates: dict[str, Certificate] = {}
    for number, item in enumerate(manifest.items):
        if item.kind is ItemKind.CERTIFICATE:
            certificates[item.sha256] = load_certificate(made.item(number, manifest))
    importer = make_importer(tuple(certificates.values()))
    importer.take_issuers(tuple(certificates.values()), f"bundle:{manifest.node}")
    for number, item in enumerate(manifest.items):
        if item.kind is ItemKind.CERTIFICATE:
            continue
        try:
            if item.size > crl_max_size:
                raise Refused("rev.too-large", f"it has {item.size} octets, crl_max_size is {crl_max_size}")
            yield _take(importer, item, made.item(number, manifest), certificates, crl_max_size)
        except BadData as exc:
            older = isinstance(exc, Refused) and exc.code == "rev.rollback"
            yield Taken(item, "older" if older else "refused", str(exc).removeprefix(f"{item.sha256[:16]}: "))


def _take(importer: Importer, item: Item, der: bytes, certificates: dict[str, Certificate], crl_max_size: int) -> Taken:
    name = item.sha256[:16]
    if item.kind is ItemKind.CRL:
        new = importer.take_crl(name, parse_crl(der, crl_max_size), item.url)
    else:
        new = importer.take_ocsp(name, der, (certificates[item.subject],), item.url)
    return Taken(item, "stored" if new else "known")


def why_too_old(
    manifest: Manifest, last: datetime | None, max_age: timedelta | None, at: datetime, skew: timedelta
) -> str:
    """What speaks against the date of a bundle, in words; empty when nothing does."""
    if max_age is not None and at - manifest.created > max_age:
        return f"it was made {manifest.created:%Y-%m-%d %H:%M} UTC, which is longer ago than --max-age allows"
    return bundle.why_refused(manifest, last, at, skew)
