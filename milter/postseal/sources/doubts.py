"""Since when mail waits for the status of a certificate: one row per recipient and certificate, shared by all workers.

A counter beside the database tells readers whether anything was written since they looked, so that where nothing is in doubt,
which is nearly always, a look costs a microsecond. Times are Unix seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cachetools import LRUCache
from sqlalchemy import Column, Connection, Float, MetaData, String, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from postseal.core.errors import Unavailable
from postseal.sources.counter import Counter
from postseal.sources.store import create_directory, is_damage, open_engine, plain_errors

_METADATA = MetaData()
_TABLE = Table(
    "doubt",
    _METADATA,
    Column("recipient", String, primary_key=True),
    Column("fingerprint", String, primary_key=True),
    Column("since", Float, nullable=False),
    Column("last", Float, nullable=False, index=True),
)
_WHAT = "the store of doubts"
# CACHE-10: far more recipients than can wait in an honest queue.
_MOST = 100_000
# A client that doesn't come back for so long has given up itself.
_AT_LEAST = timedelta(days=1)
_NOTE_AGAIN = timedelta(minutes=5)

Found = tuple[tuple[str, datetime], ...]


class DoubtStore:
    """A DoubtMemory at ``path``. ``give_up`` is how long mail may wait: what wasn't noted for that long is forgotten."""

    def __init__(self, path: Path | str, give_up: timedelta, *, readonly: bool = False) -> None:
        self._path = Path(path)
        self._forget = max(give_up, _AT_LEAST)
        self._readonly = readonly
        self._engine = open_engine(self._path, readonly=readonly)
        self._counter = Counter(self._path.with_suffix(".generation"), readonly)
        self._lock = threading.Lock()
        self._ready = False
        self._seen: LRUCache[tuple[str, ...], tuple[int, tuple[tuple[str, float, float], ...]]] = LRUCache(10_000)

    def since(self, recipient: str, fingerprints: Sequence[str], at: datetime) -> Found:
        """Those of the certificates that are in doubt, and since when. Raises Unavailable."""
        generation = self._counter.value()
        if not generation:
            # Nothing was ever written.
            return ()
        key = (recipient, *fingerprints)
        with self._lock:
            kept = self._seen.get(key)
        if kept is None or kept[0] != generation:
            kept = generation, self._rows(recipient, fingerprints)
            with self._lock:
                self._seen[key] = kept
        oldest = (at - self._forget).timestamp()
        return tuple((name, datetime.fromtimestamp(since, UTC)) for name, since, last in kept[1] if last >= oldest)

    def _rows(self, recipient: str, fingerprints: Sequence[str]) -> tuple[tuple[str, float, float], ...]:
        wanted = select(_TABLE).where(_TABLE.c.recipient == recipient, _TABLE.c.fingerprint.in_(fingerprints))
        with plain_errors(self._path, _WHAT), self._engine.connect() as connection:
            return tuple((row.fingerprint, row.since, row.last) for row in connection.execute(wanted))

    def note(self, recipient: str, fingerprints: Sequence[str], at: datetime) -> None:
        """Mail waits because of these certificates, from now on or still. Raises Unavailable."""
        try:
            rows = self._rows(recipient, fingerprints) if self._counter.value() else ()
        except Unavailable:
            # If it's damage, writing mends it.
            rows = ()
        # A client that tries again every second must not make a commit each time.
        fresh = {name for name, _, last in rows if 0 <= at.timestamp() - last < _NOTE_AGAIN.total_seconds()}
        names = [name for name in fingerprints if name not in fresh]
        if names:
            self._write(lambda connection: self._put(connection, recipient, names, at))

    def _put(self, connection: Connection, recipient: str, fingerprints: Sequence[str], at: datetime) -> None:
        now = at.timestamp()
        # What is too old to count would count again with a new ``last``. A time in the future is that of a clock since mended.
        connection.execute(
            delete(_TABLE).where((_TABLE.c.last < now - self._forget.total_seconds()) | (_TABLE.c.since > now))
        )
        for name in fingerprints:
            values = {"recipient": recipient, "fingerprint": name, "since": now, "last": now}
            statement = insert(_TABLE).values(**values)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["recipient", "fingerprint"], set_={"last": now})
            )
        if (connection.scalar(select(func.count()).select_from(_TABLE)) or 0) > _MOST:
            edge = select(_TABLE.c.last).order_by(_TABLE.c.last.desc()).offset(_MOST).limit(1).scalar_subquery()
            connection.execute(delete(_TABLE).where(_TABLE.c.last <= edge))

    def clear(self, recipient: str, fingerprints: Sequence[str]) -> None:
        """The status of these certificates is known again. Raises Unavailable."""
        gone = (_TABLE.c.recipient == recipient) & _TABLE.c.fingerprint.in_(fingerprints)
        self._write(lambda connection: connection.execute(delete(_TABLE).where(gone)))

    def close(self) -> None:
        """Close what is open; the next use opens it again."""
        self._engine.dispose()

    def _write(self, work: Callable[[Connection], object]) -> None:
        if self._readonly:
            raise Unavailable(f"{_WHAT} {self._path}: opened for reading only")
        with plain_errors(self._path, _WHAT):
            try:
                self._commit(work)
            except SQLAlchemyError as exc:
                if not is_damage(exc):
                    raise
                # Nothing in it is worth more than that mail goes on: waiting begins anew.
                self._engine.dispose()
                for suffix in ("-wal", "-shm", ""):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                self._ready = False
                self._commit(work)
            self._counter.bump()

    def _commit(self, work: Callable[[Connection], object]) -> None:
        if not self._ready:
            create_directory(self._path.parent)
        with self._engine.begin() as connection:
            if not self._ready:
                _METADATA.create_all(connection)
            work(connection)
        self._ready = True
