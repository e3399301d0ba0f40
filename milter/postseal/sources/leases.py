"""Leases: only one process of a node does a thing at a time; the kernel takes them back from a process that dies (CACHE-5)."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from postseal.core.errors import Unavailable
from postseal.sources.store import adopt, create_directory


class FileLease:
    """A lock on a file of its own, which goes with the lease."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle

    def release(self) -> None:
        # While it is still locked, so that nobody else's file is meant.
        with suppress(OSError):
            self._path.unlink()
        os.close(self._handle)


class Leases:
    """Leases by name, as files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str) -> FileLease | None:
        """None while somebody else has it. Raises Unavailable when the folder can't be used."""
        path = self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]
        try:
            create_directory(self._folder)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise Unavailable(f"can't lock {path}: {exc.strerror}") from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have taken the file away between our opening and locking it.
            if os.stat(path).st_ino == os.fstat(handle).st_ino:
                adopt(path)
                return FileLease(path, handle)
        except OSError:
            pass
        os.close(handle)
        return None

    def sweep(self) -> None:
        """Files that a killed process left; those that are locked stay."""
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(OSError):
                    handle = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
                    try:
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(entry.path)
                    finally:
                        os.close(handle)
