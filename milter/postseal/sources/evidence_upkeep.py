"""Keeping the evidence store in bounds and in time: what is used, what goes first, what a day has cost, what the clock did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select

from postseal.core.certs import load_certificate
from postseal.core.evidence import Question
from postseal.core.ocsp import revokes_for_good
from postseal.sources import evidence_tables as t
from postseal.sources.crl_files import CrlFiles
from postseal.sources.evidence_db import Database
from postseal.sources.evidence_marks import Marks
from postseal.sources.leases import FileLease, Leases

_WEEK = timedelta(days=7)
_MAX_INTERMEDIATES = 2000
_DAYS_KEPT = 30


@dataclass(frozen=True, slots=True)
class Limits:
    """CACHE-10: octets of all CRLs, number of OCSP answers, and which share of either one issuer may take."""

    octets: int = 4 * 1024**3
    answers: int = 200_000
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class ClockState:
    """CACHE-9: the latest wall time that was noted, and whether the clock has gone back behind it."""

    latest: datetime
    suspect: bool


class Upkeep:
    """Part of the evidence store. Methods raise Unavailable when the databases can't be used."""

    _db: Database
    _files: CrlFiles
    _limits: Limits
    _leases: Leases
    _monotonic: Callable[[], float]
    marks: Marks

    # ---- use and leases ---------------------------------------------------------------------------------------------

    def note_use(self, question: Question, at: datetime) -> None:
        """The evidence for ``question`` is in use: it is fetched ahead, and goes last when room is needed."""
        keys = t.ocsp_keys(question)
        mine = (t.crl.c.issuer_key == keys["issuer_key"]) | (t.crl.c.issuer_name == keys["issuer_name"])

        def write(connection: Connection) -> None:
            connection.execute(t.crl.update().where(mine).values(used_at=t.stamp(at)))
            connection.execute(t.ocsp.update().where(t.matches(t.ocsp, keys)).values(used_at=t.stamp(at)))

        self._db.write(write, silent=True)

    def lease(self, name: str) -> FileLease | None:
        """CACHE-5: the right to do ``name`` alone on this node; None while another process has it."""
        return self._leases.take(name)

    # ---- what a day has cost (THR-6) --------------------------------------------------------------------------------

    def spent(self, at: datetime) -> int:
        """Octets that were fetched on the day of ``at``."""
        with self._db.reading() as connection:
            return connection.scalar(select(t.spent.c.octets).where(t.spent.c.day == at.toordinal())) or 0

    def spend(self, at: datetime, octets: int) -> None:
        """One more request, which brought so many octets."""
        day = at.toordinal()

        def write(connection: Connection) -> None:
            row = connection.execute(select(t.spent).where(t.spent.c.day == day)).first()
            requests, sum_of = (row.requests, row.octets) if row is not None else (0, 0)
            t.put(connection, t.spent, ("day",), {"day": day, "requests": requests + 1, "octets": sum_of + octets})
            connection.execute(delete(t.spent).where(t.spent.c.day < day - _DAYS_KEPT))

        self._db.write(write, silent=True)

    # ---- the clock (CACHE-9) ----------------------------------------------------------------------------------------

    def observe_clock(self, at: datetime, skew: timedelta) -> str:
        """Note the time. A sentence when the clock has gone back, once; nothing is purged and no mark is lowered then."""
        now, boot = self._monotonic(), boot_id()
        with self._db.reading() as connection:
            row = connection.execute(select(t.clock)).first()
        if row is not None:
            # Within one boot the monotonic clock tells how much time must have passed at least.
            passed = max(0.0, now - row.monotonic) if row.boot == boot else 0.0
            behind = row.wall + passed - at.timestamp()
            if behind > skew.total_seconds():
                if row.suspect:
                    return ""
                self._db.write(lambda c: c.execute(t.clock.update().values(suspect=1)))
                return (
                    f"the clock went back by {round(behind)} seconds; CRLs and OCSP answers are judged by the new time"
                )
        values = {"id": 1, "wall": t.stamp(at), "monotonic": now, "boot": boot, "suspect": 0}
        self._db.write(lambda c: t.put(c, t.clock, ("id",), values), silent=row is None or not row.suspect)
        return ""

    def clock_state(self) -> ClockState | None:
        """For the administrator; None before the first note."""
        with self._db.reading() as connection:
            row = connection.execute(select(t.clock)).first()
        return None if row is None else ClockState(t.moment(row.wall), bool(row.suspect))

    def _proven(self, connection: Connection, at: datetime) -> datetime:
        """The latest moment that signed evidence proves to be past, if the clock says so too.

        A clock that jumps forward must not make us throw away what is good still: only evidence of that time does.
        """
        honest = t.ocsp.c.this_update <= t.ocsp.c.fetched_at
        answers: float | None = connection.scalar(select(func.max(t.ocsp.c.this_update)).where(honest))
        newest = self.marks.newest()
        seconds = max(answers or 0.0, newest.timestamp() if newest is not None else 0.0)
        return min(at, t.moment(seconds))

    # ---- bounds -----------------------------------------------------------------------------------------------------

    def prune(self, at: datetime) -> None:
        """Drop what has been over for long: OCSP answers, failures of URLs, CRLs that nobody uses, certificates of CAs.

        RPL-4: an answer that revokes for good stays as long as the certificate could be used; without it an attacker
        would only have to wait, and then to keep the responder out of reach.
        """
        week_ago = (at - _WEEK).timestamp()
        with self._db.reading() as connection:
            proven = self._proven(connection, at)

        def write(connection: Connection) -> list[str]:
            # CACHE-9: twice its own length after its end, and a week at least.
            window = t.ocsp.c.next_update - t.ocsp.c.this_update
            ended = t.ocsp.c.next_update + window < proven.timestamp()
            old = select(t.ocsp).where(ended, t.ocsp.c.next_update < (proven - _WEEK).timestamp())
            gone = [
                r.name
                for r in connection.execute(old)
                if load_certificate(r.certificate).not_after < proven or not revokes_for_good(r.der)
            ]
            connection.execute(delete(t.ocsp).where(t.ocsp.c.name.in_(gone)))
            connection.execute(delete(t.failure).where(t.failure.c.retry_at < week_ago))
            connection.execute(delete(t.host).where(t.host.c.retry_at < week_ago))
            unused = (proven - t.UNUSED).timestamp()
            idle = t.crl.c.used_at < unused, t.crl.c.next_update < unused, ~t.crl.c.url.startswith("file:")
            names = list(connection.scalars(select(t.crl.c.sha256).where(*idle)).all())
            connection.execute(delete(t.crl).where(*idle))
            _drop_orphans(connection)
            return [*names, *make_room(connection, self._limits)]

        self._unlink(self._db.write(write))
        self.marks.prune(proven)

    def _unlink(self, names: list[str]) -> None:
        """Drop files of CRLs that no row names any more."""
        if not names:
            return
        with self._db.reading() as connection:
            named = set(connection.scalars(select(t.crl.c.sha256).where(t.crl.c.sha256.in_(names))).all())
        for name in set(names) - named:
            self._files.drop(name)


def make_room(connection: Connection, limits: Limits, spare: str = "") -> list[str]:
    """CACHE-10: what was used longest ago goes first, but a greedy issuer's own before that of others.

    ``spare`` is the hash of a CRL that stays whatever happens. The hashes of the CRLs that went.
    """
    total = connection.scalar(select(func.sum(t.crl.c.size))) or 0
    oldest_first = select(t.crl).order_by(t.crl.c.used_at, t.crl.c.fetched_at)
    rows = list(connection.execute(oldest_first)) if total > limits.octets else []
    by_issuer: dict[str, int] = {}
    for row in rows:
        by_issuer[row.issuer_key] = by_issuer.get(row.issuer_key, 0) + row.size
    gone: list[str] = []
    while total > limits.octets:
        left = [r for r in rows if r.sha256 != spare and r.sha256 not in gone]
        greedy = [r for r in left if by_issuer[r.issuer_key] > limits.octets * limits.share]
        if not left:
            break
        victim = (greedy or left)[0]
        gone.append(victim.sha256)
        total -= victim.size
        by_issuer[victim.issuer_key] -= victim.size
    _forget_crls(connection, gone)
    _fewer_answers(connection, limits)
    return gone


def _forget_crls(connection: Connection, names: list[str]) -> None:
    if names:
        urls = select(t.crl.c.url).where(t.crl.c.sha256.in_(names))
        connection.execute(t.url.update().where(t.url.c.url.in_(urls)).values(**t.UNANSWERED))
        connection.execute(delete(t.crl).where(t.crl.c.sha256.in_(names)))


def _fewer_answers(connection: Connection, limits: Limits) -> None:
    count = func.count()
    if (connection.scalar(select(count).select_from(t.ocsp)) or 0) <= limits.answers:
        return
    most = int(limits.answers * limits.share)
    greedy = connection.execute(select(t.ocsp.c.issuer_key, count).group_by(t.ocsp.c.issuer_key).having(count > most))
    for key, number in greedy.all():
        _oldest(connection, t.ocsp.c.issuer_key == key, number - most)
    over = (connection.scalar(select(count).select_from(t.ocsp)) or 0) - limits.answers
    if over > 0:
        _oldest(connection, t.ocsp.c.issuer_key != "", over)


def _oldest(connection: Connection, which: ColumnElement[bool], number: int) -> None:
    names = select(t.ocsp.c.name).where(which).order_by(t.ocsp.c.used_at).limit(number)
    connection.execute(delete(t.ocsp).where(t.ocsp.c.name.in_(names)))


def _drop_orphans(connection: Connection) -> None:
    """Rows that belong to nothing any more: paths of issuers, aliases, URLs; and surplus or expired certificates."""

    def nobody(table: Table, used_by: Table, *columns: str) -> ColumnElement[bool]:
        return ~select(used_by.c[columns[0]]).where(*(used_by.c[c] == table.c[c] for c in columns)).exists()

    keys = ("issuer_key", "issuer_name")
    connection.execute(delete(t.alias).where(nobody(t.alias, t.crl, *keys, "idp")))
    connection.execute(delete(t.issuer).where(nobody(t.issuer, t.crl, *keys), nobody(t.issuer, t.ocsp, *keys)))
    idle = nobody(t.url, t.alias, "url"), nobody(t.url, t.ocsp, "url")
    connection.execute(delete(t.url).where(*idle))
    newest = select(t.intermediate.c.fingerprint).order_by(t.intermediate.c.fetched_at.desc()).limit(_MAX_INTERMEDIATES)
    connection.execute(delete(t.intermediate).where(t.intermediate.c.fingerprint.not_in(newest)))


def boot_id() -> str:
    """Changes with every boot, and with it the origin of the monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
