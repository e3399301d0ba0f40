"""What must outlive the evidence: rollback marks, revocations that were seen, and how long each CA has been reliable.

None of it can be fetched again, so it is in a database of its own, ``marks.sqlite``, where each commit is synced (CACHE-7). It
survives when the evidence is forgotten, or its database has to be made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    select,
)

from postseal.core.certs import Certificate
from postseal.core.crl import Crl
from postseal.core.evidence import Question, RevokedBefore
from postseal.sources import evidence_tables as t
from postseal.sources.evidence_db import Database

VERSION = 1
metadata = MetaData()
_LONG = timedelta(days=30)
_EDITIONS = 4
# In the column of deltas: not a CRL at all, but the OCSP answers of an issuer, of which only the history counts.
_ANSWERS = 2
_NOTED_EVERY = timedelta(hours=1)
SCOPE = ("issuer_key", "issuer_name", "idp", "delta")

mark = Table(
    "mark", metadata,
    Column("issuer_key", String, primary_key=True),
    Column("issuer_name", String, primary_key=True),
    Column("idp", LargeBinary, primary_key=True),
    Column("delta", Integer, primary_key=True),
    Column("issuer", LargeBinary, nullable=False),
    Column("number", String),
    Column("this_update", Float, nullable=False, index=True),
    Column("sha256", String, nullable=False),
    Column("next_update", Float),
    Column("fresh_since", Float, nullable=False),
    Column("updates", Integer, nullable=False),
)  # fmt: skip
revoked = Table(
    "revoked", metadata,
    Column("issuer_key", String, primary_key=True),
    Column("serial", LargeBinary, primary_key=True),
    Column("not_after", Float, nullable=False, index=True),
    Column("revoked_at", Float),
    Column("reason", String, nullable=False),
    Column("this_update", Float),
    Column("url", String, nullable=False),
    Column("seen_at", Float, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """CRL-25: the highest CRL of one scope that was ever stored. ``name`` is what ``reset_scope`` takes.

    ``fresh_since``: from then until ``next_update`` there was a current CRL at every moment (RPL-6).
    """

    name: str
    issuer: Certificate
    delta: bool
    number: int | None
    this_update: datetime
    sha256: str
    next_update: datetime | None
    fresh_since: datetime
    updates: int


class Marks:
    """Reads and writes marks. Methods raise Unavailable when the database can't be used."""

    def __init__(self, database: Database) -> None:
        self._db = database
        # Kept until the next commit: all certificates of a CA ask for the same.
        self._kept: tuple[int, dict[tuple[Any, ...], Mark | None]] = (0, {})
        self._any_revoked = (0, True)

    def of(self, keys: Mapping[str, Any]) -> Mark | None:
        """The mark of a scope as ``evidence_tables.crl_keys`` gives it."""
        generation, scope = self._db.generation(), tuple(keys[k] for k in SCOPE)
        current, kept = self._kept
        if not generation or current != generation:
            kept = {}
            self._kept = (generation, kept)
        if scope not in kept:
            with self._db.reading() as connection:
                row = connection.execute(select(mark).where(t.matches(mark, keys))).first()
            kept[scope] = _mark(row) if row is not None else None
        return kept[scope]

    def all(self) -> tuple[Mark, ...]:
        """All marks, by the name of the issuer."""
        with self._db.reading() as connection:
            rows = connection.execute(select(mark).where(mark.c.delta != _ANSWERS)).all()
        return tuple(sorted(map(_mark, rows), key=lambda m: (m.issuer.name, m.name)))

    def newest(self) -> datetime | None:
        """CACHE-9: the newest thisUpdate that was ever accepted; the present can't be before it. OCSP counts by the hour."""
        with self._db.reading() as connection:
            seconds: float | None = connection.scalar(select(func.max(mark.c.this_update)))
        return t.moment(seconds)

    def reliable(self, issuer: Certificate, at: datetime, *, ocsp: bool = False) -> Mark | None:
        """RPL-6: the mark of a CA that had a current CRL (with ``ocsp``: some current answer) at every moment of a month."""
        kind = _ANSWERS if ocsp else 0
        keys = {"issuer_key": issuer.key_id, "issuer_name": t.name_hash(issuer.subject), "delta": kind}
        with self._db.reading() as connection:
            marks = [_mark(row) for row in connection.execute(select(mark).where(t.matches(mark, keys)))]
        proven = (m for m in marks if m.updates >= _EDITIONS and _end(m, at) - m.fresh_since >= _LONG)
        return max(proven, key=lambda m: m.this_update, default=None)

    def raise_to(self, crl: Crl, issuer: Certificate, keys: Mapping[str, Any], at: datetime) -> None:
        """A CRL is about to be stored: nothing older of its scope counts from now on. Marks are never lowered."""

        def write(connection: Connection) -> None:
            row = connection.execute(select(mark).where(t.matches(mark, keys))).first()
            if row is not None and row.sha256 == crl.sha256:
                return
            old = _mark(row) if row is not None else None
            number, this_update, sha256 = crl.number, crl.this_update, crl.sha256
            if old is not None and (old.this_update, old.number or 0) > (crl.this_update, crl.number or 0):
                this_update, sha256 = old.this_update, old.sha256
            if old is not None and old.number is not None:
                number = max(old.number, number or 0)
            unbroken = old is not None and (old.next_update is None or old.next_update >= at)
            t.put(connection, mark, SCOPE, {
                **keys, "issuer": issuer.der, "number": None if number is None else str(number), "sha256": sha256,
                "this_update": t.stamp(this_update), "next_update": t.stamp(crl.next_update),
                "fresh_since": t.stamp(old.fresh_since if old is not None and unbroken else at),
                "updates": (old.updates if old is not None else 0) + 1,
            })  # fmt: skip

        self._db.write(write)

    def note_answer(self, issuer: Certificate, this_update: datetime, next_update: datetime, at: datetime) -> None:
        """RPL-6: the responder of ``issuer`` has given an answer; noted by the hour, because each note is synced."""
        keys = {"issuer_key": issuer.key_id, "issuer_name": t.name_hash(issuer.subject), "idp": b"", "delta": _ANSWERS}
        # CACHE-9: revoked counts with any date, but one in the future mustn't make the clock look wrong for everybody.
        this_update = min(this_update, at)
        old = self.of(keys)
        soon = min(_NOTED_EVERY, (next_update - this_update) / 2)
        if old is not None and timedelta(0) <= this_update - old.this_update < soon:
            return
        unbroken = old is not None and old.next_update is not None and old.next_update >= at
        newest = max(this_update, old.this_update) if old is not None else this_update
        values = {
            **keys, "issuer": issuer.der, "number": None, "sha256": "", "this_update": t.stamp(newest),
            "next_update": t.stamp(next_update), "fresh_since": t.stamp(old.fresh_since if old and unbroken else at),
            "updates": (old.updates if old is not None else 0) + 1,
        }  # fmt: skip
        self._db.write(lambda connection: t.put(connection, mark, SCOPE, values))

    def reset_scope(self, name: str) -> bool:
        """CACHE-12: forget one mark, for a CA that was restored from a backup; False if there is none of that name."""

        def write(connection: Connection) -> int:
            names = [r for r in connection.execute(select(mark)) if scope_name(r) == name]
            for row in names:
                connection.execute(delete(mark).where(*(mark.c[k] == getattr(row, k) for k in SCOPE)))
            return len(names)

        return self._db.write(write) > 0

    # ---- revocations that were seen (CRL-27) ----------------------------------------------------------------------------

    def remember(self, question: Question, seen: RevokedBefore) -> None:
        """The certificate of ``question`` was judged revoked, for good."""
        keys = revoked_keys(question)

        def write(connection: Connection) -> None:
            if connection.scalar(select(revoked.c.reason).where(t.matches(revoked, keys))) is not None:
                return
            t.put(connection, revoked, tuple(keys), {
                **keys, "not_after": t.stamp(question.certificate.not_after), "revoked_at": t.stamp(seen.revoked_at),
                "reason": seen.reason, "this_update": t.stamp(seen.this_update), "url": seen.url,
                "seen_at": t.stamp(seen.fetched_at),
            })  # fmt: skip

        self._db.write(write)

    def revoked_before(self, question: Question) -> RevokedBefore | None:
        if not self._is_any_revoked():
            return None
        with self._db.reading() as connection:
            row = connection.execute(select(revoked).where(t.matches(revoked, revoked_keys(question)))).first()
        if row is None:
            return None
        return RevokedBefore(
            row.url, t.moment(row.seen_at), t.moment(row.revoked_at), row.reason, t.moment(row.this_update)
        )

    def _is_any_revoked(self) -> bool:
        generation = self._db.generation()
        kept, known = self._any_revoked
        if not generation or kept != generation:
            with self._db.reading() as connection:
                known = connection.scalar(select(revoked.c.reason).limit(1)) is not None
            self._any_revoked = (generation, known)
        return known

    def prune(self, proven: datetime) -> None:
        """Drop revocations of certificates that have expired for certain."""
        self._db.write(
            lambda c: c.execute(delete(revoked).where(revoked.c.not_after < proven.timestamp())), silent=True
        )


def revoked_keys(question: Question) -> dict[str, Any]:
    """CRL-27: the key of the issuer and the serial number, so that a renewed certificate isn't meant."""
    keys = t.ocsp_keys(question)
    return {"issuer_key": keys["issuer_key"], "serial": keys["serial"]}


def scope_name(row: Row[Any]) -> str:
    """The name of a scope for people: the beginning of a hash over its parts."""
    return t.digest(row.issuer_key, row.issuer_name, bytes(row.idp).hex(), str(row.delta))[:16]


def _end(mark: Mark, at: datetime) -> datetime:
    return at if mark.next_update is None else min(at, mark.next_update)


def _mark(row: Row[Any]) -> Mark:
    return Mark(
        name=scope_name(row),
        issuer=t.certificates(row.issuer)[0],
        delta=bool(row.delta),
        number=None if row.number is None else int(row.number),
        this_update=t.moment(row.this_update),
        sha256=row.sha256,
        next_update=t.moment(row.next_update),
        fresh_since=t.moment(row.fresh_since),
        updates=row.updates,
    )
