"""A large file as octets that are read where somebody looks at them."""

from __future__ import annotations

import os
from typing import overload

_WINDOW = 4096
_SLICE = 1024 * 1024


class FileOctets:
    """Used like ``bytes``. Nothing is mapped, so a process doesn't grow with what it looked at, and a file that somebody cuts
    short is an error instead of a signal. Lives as long as something refers to it, also when the file has no name any more.
    """

    __slots__ = ("_file", "_size", "_window")

    def __init__(self, file: int) -> None:
        self._file = os.dup(file)
        self._size = os.fstat(file).st_size
        self._window = (0, b"")

    def __del__(self) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int, /) -> int: ...
    @overload
    def __getitem__(self, at: slice, /) -> bytes: ...
    def __getitem__(self, at: int | slice, /) -> int | bytes:
        first, window = self._window
        if isinstance(at, int):
            if not first <= at < first + len(window):
                if not 0 <= at < self._size:
                    raise IndexError(at)
                first, window = self._window = at, self._read(at, min(at + _WINDOW, self._size))
            return window[at - first]
        start, stop = at.start, at.stop
        if start is None or stop is None or not 0 <= start <= stop <= self._size:
            start, stop, _ = at.indices(self._size)
            stop = max(start, stop)
        if first <= start and stop <= first + len(window):
            return window[start - first : stop - first]
        octets = self._read(start, stop)
        if len(octets) <= _WINDOW:
            self._window = start, octets
        return octets

    def find(self, part: bytes, start: int, end: int, /) -> int:
        for low in range(start, end, _SLICE):
            found = self._read(low, min(low + _SLICE + len(part) - 1, end)).find(part)
            if found >= 0:
                return low + found
        return -1

    def __buffer__(self, flags: int, /) -> memoryview:
        return memoryview(self._read(0, self._size))

    def _read(self, start: int, stop: int) -> bytes:
        """Raises OSError, also when the file has become shorter."""
        octets = os.pread(self._file, stop - start, start)
        if len(octets) != stop - start:
            raise OSError("the file was cut short while it was read")
        return octets
