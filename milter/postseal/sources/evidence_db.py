"""One SQLite database of the evidence store: opened, checked, made anew when it is damaged; every change is told to readers.

The evidence itself can be fetched again, so a database of another layout or with damage is moved aside and an empty one takes
its place. What can't be fetched again is in a database of its own (``evidence_marks``), with one sync per commit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import SQLAlchemyError

from postseal.core.errors import Unavailable
from postseal.sources.clock import SystemClock
from postseal.sources.counter import Counter
from postseal.sources.store import BUSY_TIMEOUT, cause, create_private, is_damage, open_engine

R = TypeVar("R")
# Readers of a log don't wait for writers but for moments. Whoever holds a lock for longer must not hold up mail, which asks
# about many certificates: one of them waits, the others hear it at once.
_READER_PATIENCE = 0.5
_LEFT_ALONE = 5.0


class Database:
    """Reads and (unless ``readonly``) writes ``file``. ``counter`` is raised by every commit that readers must see.

    ``lost`` is called after an empty database took the place of a damaged one; ``report`` hears one sentence about that.
    ``on_write`` adds to each transaction.
    """

    def __init__(
        self, file: Path, metadata: MetaData, version: int, counter: Counter, *, readonly: bool,
        report: Callable[[str], None], synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        lost: Callable[[], None] = lambda: None, words: str = "starting with an empty one",
        on_write: Callable[[Connection], None] = lambda connection: None,
    ) -> None:  # fmt: skip
        self.file = file
        self._metadata = metadata
        self._version = version
        self._counter = counter
        self._readonly = readonly
        self._report = report
        self._lost = lost
        self._words = words
        self._on_write = on_write
        self._lock = threading.Lock()
        self._monotonic = SystemClock().monotonic
        self._left_alone_until = 0.0
        patience = _READER_PATIENCE if readonly else BUSY_TIMEOUT
        self.engine = open_engine(file, readonly, synchronous=synchronous, patience=patience)

    def generation(self) -> int:
        """Changes with every commit that readers must see; 0 while there is no store."""
        return self._counter.value()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from. Raises Unavailable."""
        if self._monotonic() < self._left_alone_until:
            raise Unavailable(f"evidence store {self.file}: database is locked")
        try:
            with self.engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as exc:
            if is_damage(exc) and not self._readonly:
                self._start_anew(exc)
            if self._readonly and "locked" in str(exc):
                self._left_alone_until = self._monotonic() + _LEFT_ALONE
            raise Unavailable(f"evidence store {self.file}: {cause(exc)}") from exc

    def write(self, work: Callable[[Connection], R], *, silent: bool = False) -> R:
        """One transaction. ``silent``: it changes nothing that answers of readers depend on. Raises Unavailable."""
        try:
            try:
                with self.engine.begin() as connection:
                    result = work(connection)
                    self._on_write(connection)
            except SQLAlchemyError as exc:
                if not is_damage(exc):
                    raise
                self._start_anew(exc)
                with self.engine.begin() as connection:
                    result = work(connection)
            if not silent:
                self._counter.bump()
        except (SQLAlchemyError, OSError) as exc:
            raise Unavailable(f"evidence store {self.file}: {cause(exc)}") from exc
        return result

    def prepare(self) -> None:
        """Make the tables; move aside what is damaged or of another layout. Raises Unavailable."""
        try:
            try:
                self._check()
            except SQLAlchemyError as exc:
                if not isinstance(exc, SQLAlchemyDamage) and not is_damage(exc):
                    raise
                self._start_anew(exc)
            self._counter.bump()
        except (SQLAlchemyError, OSError) as exc:
            raise Unavailable(f"evidence store {self.file}: {cause(exc)}") from exc

    def _check(self) -> None:
        with self.engine.begin() as connection:
            verdict = connection.scalar(text("PRAGMA quick_check(1)"))
            version = connection.scalar(text("PRAGMA user_version"))
            if verdict != "ok":
                raise SQLAlchemyDamage(f"database is malformed: {verdict}")
            if version not in (0, self._version):
                raise SQLAlchemyDamage(f"made by another version of postseal (layout {version}, not {self._version})")
            self._metadata.create_all(connection)
            connection.execute(text(f"PRAGMA user_version={self._version}"))

    def _start_anew(self, exc: BaseException) -> None:
        with self._lock:
            self.engine.dispose()
            aside = self.file.with_name(f"{self.file.name}.damaged")
            self._report(f"evidence store {self.file}: {cause(exc)}; moved to {aside.name}, {self._words}")
            # The log belongs to the file that goes; left behind it would be applied to the new one.
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self.file}{suffix}")
            with suppress(FileNotFoundError):
                os.replace(self.file, aside)
            self._lost()
        create_private(self.file)
        self._check()


class SQLAlchemyDamage(SQLAlchemyError):
    """The database opens, but isn't what it should be."""
