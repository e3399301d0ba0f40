"""Decision records in SQLite, written by a thread of its own so that a locked or full disk never holds up mail."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Column, Float, Index, Integer, MetaData, Row, Select, String, Table, delete, insert, select

from postseal.core.errors import PostsealError, Unavailable
from postseal.core.record import DecisionRecord
from postseal.sources.store import create_directory, open_engine, plain_errors

_METADATA = MetaData()
_TABLE = Table(
    "decision",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("queue_id", String, nullable=False),
    Column("sender", String, nullable=False),
    Column("recipient", String, nullable=False),
    Column("action", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("details", String, nullable=False),
    Index("decision_queue_id", "queue_id"),
    Index("decision_addresses", "recipient", "sender"),
    Index("decision_at", "at"),
)
# None asks the writer to end.
_Queue = queue.Queue[Sequence[DecisionRecord] | None]
_WAITING = 5000
_BATCH = 500
# Seconds for which records are gathered: a commit for each message would cost as much as sealing it.
_GATHER = 0.1
_PRUNE_EVERY = timedelta(hours=1)
# Several workers that make the database at the same moment can disturb each other whatever SQLite's busy time-out is.
_RETRIES = (0.05, 0.25)


class DecisionStore:
    """Records of the last ``keep``. ``keep`` zero stores nothing. ``on_error`` hears, as one sentence, what wasn't stored."""

    def __init__(
        self,
        path: Path | str,
        keep: timedelta = timedelta(days=30),
        *,
        readonly: bool = False,
        on_error: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._path = Path(path)
        self._keep = keep
        self._on_error = on_error
        self._engine = open_engine(self._path, readonly=readonly)
        self._ready = False
        self._pruned: datetime | None = None
        self._lock = threading.Lock()
        self._owner = 0
        self._queue: _Queue = queue.Queue(_WAITING)
        self._writer: threading.Thread | None = None

    def add(self, records: Sequence[DecisionRecord]) -> None:
        """Have the records stored soon, together. Raises Unavailable when too many are waiting already."""
        if not records or not self._keep:
            return
        self._start()
        try:
            self._queue.put_nowait(tuple(records))
        except queue.Full:
            raise Unavailable(f"the decision store {self._path} is too slow: {_WAITING} records are waiting") from None

    def close(self, timeout: float = 5.0) -> None:
        """Wait until what was added is stored, at most ``timeout`` seconds, and end the thread. Adding starts it again."""
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is None or self._owner != os.getpid():
                return
            self._owner = 0
            try:
                self._queue.put(None, timeout=timeout)
            except queue.Full:
                return
        writer.join(timeout)

    def find(
        self, *, queue_id: str | None = None, sender: str | None = None, recipient: str | None = None, limit: int = 100
    ) -> tuple[DecisionRecord, ...]:
        """Records that match everything given, newest first; an empty ``sender`` is that of bounces. Raises Unavailable."""
        query: Select[tuple[int]] = select(_TABLE).order_by(_TABLE.c.at.desc(), _TABLE.c.id).limit(limit)
        for column, wanted in (
            (_TABLE.c.queue_id, queue_id),
            (_TABLE.c.sender, sender),
            (_TABLE.c.recipient, recipient),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        with plain_errors(self._path, "the decision store"), self._engine.connect() as connection:
            return tuple(_record(row) for row in connection.execute(query))

    def prune(self, before: datetime) -> int:
        """Remove the records from before a moment; returns how many. Raises Unavailable."""
        with plain_errors(self._path, "the decision store"), self._engine.begin() as connection:
            return connection.execute(delete(_TABLE).where(_TABLE.c.at < before.timestamp())).rowcount

    def _start(self) -> None:
        if self._owner == os.getpid():
            return
        with self._lock:
            # A thread doesn't survive a fork: every process has its own, made by its first record.
            if self._owner != os.getpid():
                self._queue = queue.Queue(_WAITING)
                self._writer = threading.Thread(target=self._write, args=(self._queue,), name="decisions", daemon=True)
                self._writer.start()
                self._owner = os.getpid()

    def _write(self, waiting: _Queue) -> None:
        ended = False
        while not ended:
            batches = list(_take(waiting))
            ended = batches[-1] is None
            records = [record for batch in batches if batch is not None for record in batch]
            try:
                self._store_patiently(records)
            except Exception as exc:
                self._on_error(f"{len(records)} decision records are lost: {exc}")

    def _store_patiently(self, records: Sequence[DecisionRecord]) -> None:
        for pause in _RETRIES if records else ():
            try:
                return self._store(records)
            except PostsealError:
                threading.Event().wait(pause)
        return self._store(records) if records else None

    def _store(self, records: Sequence[DecisionRecord]) -> None:
        if not self._ready:
            create_directory(self._path.parent)
        with plain_errors(self._path, "the decision store"), self._engine.begin() as connection:
            if not self._ready:
                _METADATA.create_all(connection)
            connection.execute(insert(_TABLE), [_row(record) for record in records])
        self._ready = True
        newest = max(record.at for record in records)
        if self._pruned is None or newest - self._pruned >= _PRUNE_EVERY:
            self.prune(newest - self._keep)
            self._pruned = newest


def _take(waiting: _Queue) -> Iterator[Sequence[DecisionRecord] | None]:
    """At least one batch, and what else is there already, so that busy times cost few commits. None comes last."""
    batch = waiting.get()
    yield batch
    if batch is not None:
        threading.Event().wait(_GATHER)
    for _ in range(_BATCH - 1):
        if batch is None:
            return
        try:
            batch = waiting.get_nowait()
        except queue.Empty:
            return
        yield batch


def _row(record: DecisionRecord) -> dict[str, object]:
    return {
        "at": record.at.timestamp(),
        "queue_id": _storable(record.queue_id),
        "sender": _storable(record.sender),
        "recipient": _storable(record.recipient),
        "action": record.action,
        "reason": record.reason,
        "rule": record.rule,
        "details": json.dumps(record.details, separators=(",", ":")),
    }


def _storable(text: str) -> str:
    # Octets that aren't UTF-8 come as lone surrogates, which SQLite can't hold.
    return text.encode("utf-8", "backslashreplace").decode()


def _record(row: Row[tuple[int]]) -> DecisionRecord:
    values = row._mapping
    return DecisionRecord(
        at=datetime.fromtimestamp(values["at"], UTC),
        queue_id=values["queue_id"],
        sender=values["sender"],
        recipient=values["recipient"],
        action=values["action"],
        reason=values["reason"],
        rule=values["rule"],
        details=json.loads(values["details"]),
    )
