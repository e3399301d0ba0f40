"""The engines of the SQLite databases: what a reader sees of writers in other processes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from postseal.sources.store import open_engine


def write(path: Path, number: int) -> None:
    """As a command does: it opens the database, writes, and is gone, and so is the log."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
        connection.execute("DELETE FROM numbers")
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        connection.commit()
    assert not Path(f"{path}-wal").exists()


def test_a_reader_sees_what_a_writer_did_that_came_and_went(tmp_path: Path) -> None:
    """Between two looks of a worker an import may begin and end; its certificates, or that one is gone, count all the same."""
    path = tmp_path / "some.sqlite"
    write(path, 1)
    reader = open_engine(path, readonly=True)

    def seen() -> int | None:
        with reader.begin() as connection:
            return connection.exec_driver_sql("SELECT number FROM numbers").scalar()

    assert seen() == 1
    for number in (2, 3):
        write(path, number)
        assert seen() == number
    reader.dispose()
