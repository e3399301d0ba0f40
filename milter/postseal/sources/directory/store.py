"""Recipients' certificates in an SQLite database, filled by ``postseal cert import``.

Certificates are keyed by the SHA-256 of their DER (not by address, serial or key identifier: renewal may keep all of these).
A pin names the one certificate that an administrator wants for an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

from cachetools import LRUCache
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.assess import Candidate, Origin
from postseal.core.certs import Certificate, load_certificate
from postseal.core.ciphers import Remembered
from postseal.core.errors import BadData
from postseal.core.fitness import addresses
from postseal.sources.clock import SystemClock
from postseal.sources.directory import memory
from postseal.sources.folder import Clock
from postseal.sources.store import create_directory, open_engine, plain_errors

_LOOK = 0.5
_WHAT = "certificate store"

_metadata = MetaData()
_certificates = Table(
    "certificates", _metadata,
    Column("sha256", String, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("not_after", Integer, nullable=False, index=True),
    Column("origin", String, nullable=False),
    Column("source", String, nullable=False),
    Column("imported_at", Integer, nullable=False),
)  # fmt: skip
_addresses = Table(
    "addresses", _metadata,
    Column("address", String, primary_key=True),
    Column("sha256", ForeignKey("certificates.sha256", ondelete="CASCADE"), primary_key=True),
    Index("addresses_by_certificate", "sha256"),
)  # fmt: skip
_pins = Table(
    "pins", _metadata,
    Column("address", String, primary_key=True),
    Column("sha256", ForeignKey("certificates.sha256", ondelete="CASCADE"), nullable=False),
    Column("pinned_at", Integer, nullable=False),
)  # fmt: skip
_state = Table("state", _metadata, Column("name", String, primary_key=True), Column("value", Integer, nullable=False))


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored certificate. ``pinned`` are the addresses (folded) that an administrator bound to it."""

    certificate: Certificate
    addresses: tuple[str, ...]
    origin: Origin
    source: str
    imported_at: datetime
    pinned: tuple[str, ...] = ()


class CertificateStore:
    """A Directory, and the administrator's view of it. Reading never creates the database; a missing one is empty.

    A database that was there and is gone, or can't be read, is Unavailable: "no certificate" would be wrong.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._clock: Clock = clock or SystemClock()
        self._reader = open_engine(self._path, readonly=True)
        self._writer: Engine | None = None
        self._lock = Lock()
        self._cache: LRUCache[str, tuple[Candidate, ...]] = LRUCache(maxsize=20_000)
        self._words: LRUCache[str, Remembered | None] = LRUCache(maxsize=20_000)
        self._generation = -1
        self._next_look = float("-inf")
        self._seen = False

    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        """Pinned first, then the newest import first. Raises Unavailable."""
        if not self._look():
            return ()
        with self._lock:
            kept = self._cache.get(mailbox.folded)
            generation = self._generation
        if kept is not None:
            return kept
        with plain_errors(self._path, _WHAT), self._reader.begin() as connection:
            found = tuple(_candidate(e, mailbox.folded) for e in _entries(connection, address=mailbox.folded))
        found = tuple(sorted(found, key=lambda c: c.origin is not Origin.PIN))
        with self._lock:
            if generation == self._generation:
                self._cache[mailbox.folded] = found
        return found

    def remembered(self, mailbox: Mailbox) -> Remembered | None:
        """What signed mail of the mailbox said that it can read. Raises Unavailable."""
        if not self._look():
            return None
        with self._lock:
            generation = self._generation
            if mailbox.folded in self._words:
                return self._words[mailbox.folded]
        with plain_errors(self._path, _WHAT), self._reader.begin() as connection:
            found = memory.read(connection, mailbox.folded)
        with self._lock:
            if generation == self._generation:
                self._words[mailbox.folded] = found
        return found

    def words(self) -> dict[str, Remembered]:
        """All that is remembered, by address (folded). Raises Unavailable."""
        with plain_errors(self._path, _WHAT):
            if not self._path.exists():
                return {}
            with self._reader.begin() as connection:
                return memory.read_all(connection)

    def learn(self, mailbox: Mailbox, word: Remembered) -> bool:
        """Remember what a signed message said; False if a newer one is known. Raises Unavailable, CannotCreate."""
        with plain_errors(self._path, _WHAT), self._write() as connection:
            news = memory.write(connection, mailbox.folded, word)
            _changed(connection)
        return news

    def generation(self) -> int:
        """Changes with every import, removal and pin."""
        self._look()
        return self._generation

    def _look(self) -> bool:
        """Notice changes, at most twice a second. False while there is no database."""
        if self._clock.monotonic() < self._next_look:
            return self._generation >= 0
        if not self._path.exists() and not self._seen:
            self._generation = -1
        else:
            self._seen = True
            with plain_errors(self._path, _WHAT), self._reader.begin() as connection:
                now = connection.scalar(select(_state.c.value).where(_state.c.name == "generation")) or 0
            with self._lock:
                if now != self._generation:
                    self._cache.clear()
                    self._words.clear()
                    self._generation = now
        self._next_look = self._clock.monotonic() + _LOOK
        return self._generation >= 0

    def _write(self) -> AbstractContextManager[Connection]:
        if self._writer is None:
            create_directory(self._path.parent)
            self._writer = open_engine(self._path, synchronous="FULL")
            with self._writer.begin() as connection:
                _metadata.create_all(connection)
                memory.create(connection)
                if connection.scalar(select(func.count()).select_from(_state)) == 0:
                    connection.execute(insert(_state).values(name="generation", value=0))
        self._next_look = float("-inf")
        return self._writer.begin()

    def add(
        self,
        certificates: Iterable[tuple[Certificate, str]],
        at: datetime,
        origin: Origin = Origin.IMPORTED,
        only: Mailbox | None = None,
    ) -> tuple[Certificate, ...]:
        """Store (certificate, source) pairs in one transaction; returns those that were new.

        They count for all addresses in them, or for ``only`` that one. Raises BadData for a certificate without a mail
        address, Unavailable, CannotCreate.
        """
        new: list[Certificate] = []
        more = False
        with plain_errors(self._path, _WHAT), self._write() as connection:
            for certificate, source in certificates:
                # T-12: a certificate with a stranger's address in it too doesn't get the stranger's mail.
                names = _names(certificate, only)
                if connection.scalar(_known(certificate.fingerprint)):
                    more |= only is not None and _also_for(connection, certificate.fingerprint, names)
                    continue
                connection.execute(
                    insert(_certificates).values(
                        sha256=certificate.fingerprint,
                        der=certificate.der,
                        origin=origin.value,
                        source=source,
                        not_after=int(certificate.not_after.timestamp()),
                        imported_at=int(at.timestamp()),
                    )
                )
                connection.execute(
                    insert(_addresses), [{"address": name, "sha256": certificate.fingerprint} for name in names]
                )
                new.append(certificate)
            if new or more:
                _changed(connection)
        return tuple(new)

    def entries(self, reference: str = "") -> tuple[Entry, ...]:
        """All entries, or those of an address, or those whose SHA-256 begins with ``reference`` (hex, ≥ 8 digits)."""
        with plain_errors(self._path, _WHAT):
            if not self._path.exists():
                return ()
            with self._reader.begin() as connection:
                return _entries(connection, **_where(reference))

    def find(self, reference: str) -> Entry:
        """The one certificate that ``reference`` (address or SHA-256) names. Raises BadData if it is none or several."""
        found = self.entries(reference)
        if len(found) != 1:
            many = ", ".join(e.certificate.fingerprint[:16] for e in found[:5])
            what = f"{len(found)} certificates ({many}): give a fingerprint" if found else "no certificate in the store"
            raise BadData(f"{reference}: {what}")
        return found[0]

    def remove(self, fingerprint: str) -> bool:
        """Remove one certificate, its pins and what it signed about capabilities; False if there was none."""
        if not self._path.exists():
            return False
        with plain_errors(self._path, _WHAT), self._write() as connection:
            gone = connection.execute(delete(_certificates).where(_certificates.c.sha256 == fingerprint)).rowcount > 0
            memory.forget_signer(connection, fingerprint)
            if gone:
                _changed(connection)
        return gone

    def pin(self, mailbox: Mailbox, fingerprint: str, at: datetime) -> None:
        """Prefer one stored certificate for an address; replaces an earlier pin. Raises BadData if it isn't the address's."""
        with plain_errors(self._path, _WHAT), self._write() as connection:
            of = select(_addresses.c.address).where(_addresses.c.sha256 == fingerprint)
            names = connection.scalars(of).all()
            if not names:
                raise BadData(f"certificate {fingerprint[:16]} is not in the store")
            if mailbox.folded not in names:
                raise BadData(
                    f"certificate {fingerprint[:16]} is not for {mailbox}; it names {', '.join(sorted(names))}"
                )
            connection.execute(delete(_pins).where(_pins.c.address == mailbox.folded))
            connection.execute(
                insert(_pins).values(address=mailbox.folded, sha256=fingerprint, pinned_at=int(at.timestamp()))
            )
            _changed(connection)

    def unpin(self, mailbox: Mailbox) -> bool:
        """Forget the pin of an address; False if there was none."""
        if not self._path.exists():
            return False
        with plain_errors(self._path, _WHAT), self._write() as connection:
            gone = connection.execute(delete(_pins).where(_pins.c.address == mailbox.folded)).rowcount > 0
            if gone:
                _changed(connection)
        return gone


def _names(certificate: Certificate, only: Mailbox | None) -> list[str]:
    names = sorted(
        {
            mailbox.folded
            for mailbox in addresses(certificate).mailboxes
            if only is None or mailbox.folded == only.folded
        }
    )
    if not names:
        raise BadData(f"certificate {certificate.fingerprint[:16]} has no mail address{f' {only}' if only else ''}")
    return names


def _also_for(connection: Connection, fingerprint: str, names: Sequence[str]) -> bool:
    """Let a stored certificate count for these addresses too; False if it did."""
    have = set(connection.scalars(select(_addresses.c.address).where(_addresses.c.sha256 == fingerprint)))
    rows = [{"address": name, "sha256": fingerprint} for name in names if name not in have]
    if rows:
        connection.execute(insert(_addresses), rows)
    return bool(rows)


def _known(fingerprint: str) -> Select[Any]:
    return select(func.count()).select_from(_certificates).where(_certificates.c.sha256 == fingerprint)


def _changed(connection: Connection) -> None:
    connection.execute(update(_state).where(_state.c.name == "generation").values(value=_state.c.value + 1))


def _where(reference: str) -> dict[str, str]:
    if not reference:
        return {}
    if "@" in reference:
        return {"address": parse_mailbox(reference).folded}
    prefix = reference.lower().removeprefix("sha256:").replace(":", "")
    if len(prefix) < 8 or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
        raise BadData(f"{reference!a} is neither a mail address nor at least 8 hex digits of a SHA-256 fingerprint")
    return {"prefix": prefix}


def _entries(connection: Connection, *, address: str = "", prefix: str = "") -> tuple[Entry, ...]:
    query = select(_certificates).order_by(_certificates.c.imported_at.desc(), _certificates.c.sha256)
    if address:
        owned = select(_addresses.c.sha256).where(_addresses.c.address == address)
        query = query.where(_certificates.c.sha256.in_(owned))
    if prefix:
        query = query.where(_certificates.c.sha256.startswith(prefix))
    rows = connection.execute(query).all()
    keys = [row.sha256 for row in rows]
    names, pins = _grouped(connection, _addresses, keys), _grouped(connection, _pins, keys)
    return tuple(
        Entry(
            load_certificate(row.der),
            names.get(row.sha256, ()),
            Origin(row.origin),
            row.source,
            datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=row.imported_at),
            pins.get(row.sha256, ()),
        )
        for row in rows
    )


def _grouped(connection: Connection, table: Table, keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """sha256 -> addresses, from ``addresses`` or ``pins``."""
    found: dict[str, list[str]] = {}
    for start in range(0, len(keys), 500):
        some = keys[start : start + 500]
        query = select(table.c.sha256, table.c.address).where(table.c.sha256.in_(some)).order_by(table.c.address)
        for sha256, address in connection.execute(query):
            found.setdefault(sha256, []).append(address)
    return {key: tuple(names) for key, names in found.items()}


def _candidate(entry: Entry, address: str) -> Candidate:
    origin = Origin.PIN if address in entry.pinned else entry.origin
    return Candidate(entry.certificate, origin, f"store ({entry.source})")
