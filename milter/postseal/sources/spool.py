"""Ciphertext of one message: in memory up to a limit, above it in a private file that has no name.

Only ciphertext may come here; the file can outlive a crash on the disk's free blocks, but nobody can open it by name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from postseal.core.errors import Unavailable

_READ_SIZE = 256 * 1024
# What open(2) says where the file system or the kernel has no O_TMPFILE.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class Spool:
    """Octets that are appended once and read any number of times. Not for several threads at once."""

    def __init__(self, limit: int, directory: Path) -> None:
        """``limit`` is how many octets stay in memory; a file in ``directory`` takes all of it above that."""
        self._limit = limit
        self._directory = directory
        self._chunks: list[bytes] = []
        self._file: int | None = None
        self.size = 0

    @property
    def in_file(self) -> bool:
        """Has the content gone to a file?"""
        return self._file is not None

    def append(self, data: bytes) -> None:
        """Add octets. Raises Unavailable when the file can't be made or the disk is full; the spool is useless then."""
        if self._file is None and self.size + len(data) > self._limit:
            self._file = self._open()
            held, self._chunks = self._chunks, []
            for chunk in held:
                self._write(chunk)
        if self._file is None:
            self._chunks.append(data)
        else:
            self._write(data)
        self.size += len(data)

    def __iter__(self) -> Iterator[bytes]:
        """All octets from the start, in blocks. Raises Unavailable when the file can't be read back whole."""
        if self._file is None:
            yield from self._chunks
            return
        offset = 0
        while offset < self.size:
            try:
                block = os.pread(self._file, min(_READ_SIZE, self.size - offset), offset)
            except OSError as exc:
                raise Unavailable(f"can't read back the spool file in {self._directory}: {exc.strerror}") from exc
            if not block:
                raise Unavailable(f"the spool file in {self._directory} is shorter than what was written to it")
            offset += len(block)
            yield block

    def close(self) -> None:
        """Forget everything; harmless when done twice."""
        self._chunks = []
        self.size = 0
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _open(self) -> int:
        try:
            try:
                return os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)
            except OSError as exc:
                if exc.errno not in _NO_TMPFILE:
                    raise
            # mkstemp makes the file with mode 0600.
            file, path = tempfile.mkstemp(prefix="message-", dir=self._directory)
            os.unlink(path)
            return file
        except OSError as exc:
            raise Unavailable(f"can't make a spool file in {self._directory}: {exc.strerror}") from exc

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._file, view) :]
            except OSError as exc:
                raise Unavailable(f"can't write the spool file in {self._directory}: {exc.strerror}") from exc
