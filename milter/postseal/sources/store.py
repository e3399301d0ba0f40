"""SQLite through SQLAlchemy Core, the same way for evidence, certificates and decisions.

Write-ahead logging: readers never wait for the writer, and a writer that is killed at any point leaves a database that the
next one opens as of its last commit. One engine per process; after a fork the child makes new connections of its own
(SQLite forbids the use of a connection across a fork).

**Reading under another uid.** The milter may read the store but never write it, so it opens the database with
``mode=ro`` and needs read permission only: the directory is 0750 and the files 0640, group shared. SQLite gives ``-wal`` and
``-shm`` the mode of the database. Three states can be met, and all work:

- the writer lives: ``-wal`` and ``-shm`` are there, and the reader follows every commit;
- the writer was killed: they are there still, and SQLite rebuilds the index of the log in the reader's own memory;
- the writer ended properly, so ``-wal`` is gone and a reader without write permission can't make it: the reader opens the
  file as ``immutable``, which is true as long as there is no ``-wal``. Every checkout of a connection compares; a reader that
  finds a writer back (or the file replaced) opens the database anew.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import urllib.parse
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from postseal.core.errors import CannotCreate, Unavailable

BUSY_TIMEOUT = 5.0
FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
_DAMAGE = ("malformed", "not a database", "corrupt", "disk image")
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        # close=False: closing would touch locks and files that belong to the parent's connections.
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_after_fork)


def open_engine(
    path: Path | str, readonly: bool = False, *, synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
    patience: float = BUSY_TIMEOUT,
) -> Engine:  # fmt: skip
    """An engine for the SQLite database at ``path``; nothing is opened before the first use.

    ``readonly`` never creates or changes a file. With ``synchronous`` NORMAL a power failure may lose the last commits
    but never damages the database; FULL syncs each commit. Transactions of a writer take the write lock at their start.
    ``patience`` is how many seconds are waited for a lock.
    """
    file = Path(path)
    state = _State(file, readonly, patience)
    engine = create_engine(
        "sqlite://", creator=state.connect, poolclass=QueuePool, pool_size=4, max_overflow=60, pool_timeout=BUSY_TIMEOUT
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        # SQLAlchemy's transactions, not the ones that sqlite3 guesses.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
        if not readonly:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute("PRAGMA foreign_keys=ON")
        record.info["state"] = state.now()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")

    @event.listens_for(engine, "checkout")
    def _compare(connection: Any, record: Any, proxy: Any) -> None:
        if record.info.get("state") != state.now():
            raise DisconnectionError("the database file was replaced, or its writer came or went")

    _engines.add(engine)
    return engine


class _State:
    """How the database file looks from outside: what decides whether an open connection still fits."""

    def __init__(self, file: Path, readonly: bool, patience: float) -> None:
        self._patience = patience
        self._file = str(file)
        self._readonly = readonly

    def now(self) -> tuple[int, ...]:
        """Device and inode of the file; for readers whether something is in its log, and else its time and size too.

        Without a log it is opened as immutable, and SQLite then never looks whether a writer came and went since.
        """
        try:
            status = os.stat(self._file)
        except OSError:
            return (0, 0)
        if not self._readonly:
            return (status.st_dev, status.st_ino)
        if self._log_size() > 0:
            return (status.st_dev, status.st_ino, 1)
        return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)

    def _log_size(self) -> int:
        try:
            return os.stat(self._file + "-wal").st_size
        except OSError:
            return -1

    def connect(self) -> sqlite3.Connection:
        if not self._readonly:
            create_private(Path(self._file))
            return self._open("mode=rw")
        if self._log_size() < 0:
            return self._open("mode=ro&immutable=1")
        try:
            return self._open("mode=ro")
        except sqlite3.OperationalError:
            if self._log_size() > 0:
                raise
            # An empty log without its index: nothing is in it that the file lacks.
            return self._open("mode=ro&immutable=1")

    def _open(self, options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{urllib.parse.quote(self._file)}?{options}",
            uri=True,
            check_same_thread=False,
            timeout=self._patience,
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection


def create_private(file: Path) -> None:
    """Make an empty file with mode 0640 if there is none. Made by root, it belongs to the owner of its directory."""
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(handle, FILE_MODE)
        adopt(file)
    finally:
        os.close(handle)


def create_directory(directory: Path) -> None:
    """Make ``directory`` with mode 0750, and the set-group-ID bit of the one above, if there is none. Raises CannotCreate."""
    try:
        if directory.is_dir():
            return
        # exist_ok: several workers may find it missing at the same moment.
        directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        adopt(directory)
        mode = stat.S_IMODE(directory.stat().st_mode)
        # Only when the umask took more than it should: systemd's RestrictSUIDSGID forbids chmod to name that bit, and a
        # chmod that doesn't name it clears it.
        if mode & 0o777 != DIRECTORY_MODE:
            directory.chmod(DIRECTORY_MODE)
    except OSError as exc:
        raise CannotCreate(f"can't create the directory {directory}: {exc.strerror}") from exc


def adopt(path: Path) -> None:
    """Root's own files would be closed to the service; give them to the owner and group of the directory above."""
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid)


def is_damage(exc: BaseException) -> bool:
    """Does ``exc`` say that the database file itself is damaged (not merely locked, absent or full)?"""
    return isinstance(exc, SQLAlchemyError | sqlite3.DatabaseError) and any(word in str(exc) for word in _DAMAGE)


@contextmanager
def plain_errors(path: Path | str, what: str) -> Iterator[None]:
    """Turn database errors into Unavailable: one sentence that names the file and the cause."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        raise Unavailable(f"{what} {path}: {cause(exc)}") from exc


def cause(exc: BaseException) -> str:
    """The short cause inside a database error, without SQL."""
    inner = getattr(exc, "orig", None) or exc
    if isinstance(exc, OperationalError | sqlite3.OperationalError) and "unable to open" in str(inner):
        return "can't be opened (it doesn't exist, or permission is denied)"
    if "readonly database" in str(inner):
        return "permission denied; run this as root"
    return (getattr(inner, "strerror", None) or str(inner)).splitlines()[0]
