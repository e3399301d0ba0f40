"""A number in a file that all processes map: raised by writers after a commit, read at the cost of one stat."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from pathlib import Path

from postseal.sources.store import create_private


class Counter:
    """The number in the file at ``path``; 0 while there is none."""

    def __init__(self, path: Path, readonly: bool) -> None:
        self._path = path
        self._readonly = readonly
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._identity: tuple[int, int] = (0, 0)

    def value(self) -> int:
        """The number; 0 while there is no file."""
        try:
            status = os.stat(self._path)
        except OSError:
            return 0
        if self._map is None or (status.st_dev, status.st_ino) != self._identity:
            with self._lock:
                self._open()
        return struct.unpack_from("=Q", self._map)[0] if self._map is not None else 0

    def _open(self) -> None:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._map = None
            return
        try:
            status = os.fstat(handle)
            self._map = mmap.mmap(handle, 8, prot=mmap.PROT_READ) if status.st_size >= 8 else None
            self._identity = (status.st_dev, status.st_ino)
        finally:
            os.close(handle)

    def bump(self) -> None:
        """Raise the number. Raises OSError."""
        create_private(self._path)
        handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Several processes may write (lookup and the command line).
            fcntl.flock(handle, fcntl.LOCK_EX)
            old = os.pread(handle, 8, 0)
            number = struct.unpack("=Q", old)[0] if len(old) == 8 else 0
            os.pwrite(handle, struct.pack("=Q", number + 1), 0)
        finally:
            os.close(handle)
