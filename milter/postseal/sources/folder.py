"""A folder of certificate files that is watched: what was added, changed or removed counts within two seconds.

A look costs one ``stat`` per file and is made at most once a second; only files that changed are read again. A file that
can't be used is a problem that is told once, never an error: the other files count.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Protocol

from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData, Unavailable

_INTERVAL = 1.0
# A file that changed this short ago may still be written: what it held before stays in use, and it is read again.
_SETTLED = timedelta(seconds=2)
_MAX_SIZE = 64 * 1024 * 1024
_LEFT_BY_EDITORS = ("~", ".swp", ".tmp", ".bak", ".dpkg-new", ".dpkg-old", ".dpkg-dist")

_Signature = tuple[int, int, int, int]
Problem = Callable[[str], None]


class Clock(Protocol):
    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class _File:
    signature: _Signature
    certificates: tuple[Certificate, ...]
    settled: bool


def silent(problem: str) -> None:
    """The default callback for problems: nobody listens, ``problems()`` still lists them."""


class WatchedFolder:
    """The certificates in the files of one folder (PEM, DER, PKCS#7; no subfolders, no hidden or editors' files).

    ``optional`` lets a folder that doesn't exist be an empty one. Safe to use from several threads.
    """

    def __init__(self, path: Path, clock: Clock, on_problem: Problem = silent, *, optional: bool = False) -> None:
        self.path = Path(path)
        self._clock, self._on_problem, self._optional = clock, on_problem, optional
        self._lock = Lock()
        self._files: dict[str, _File] = {}
        self._problems: dict[str, str] = {}
        self._next_look = float("-inf")
        self._generation = 0
        self._readable = False

    def refresh(self) -> int:
        """Look at the folder if it is time to; the generation, which changes whenever a file's certificates do.

        Raises Unavailable when the folder could never be read; later failures are problems, and what was read stays.
        """
        if self._clock.monotonic() >= self._next_look and self._lock.acquire(blocking=not self._readable):
            try:
                if self._clock.monotonic() >= self._next_look:
                    self._look()
                    self._next_look = self._clock.monotonic() + _INTERVAL
            finally:
                self._lock.release()
        return self._generation

    def certificates(self) -> Mapping[str, tuple[Certificate, ...]]:
        """File name -> its certificates in their order, as of the last ``refresh``."""
        return {name: file.certificates for name, file in sorted(self._files.items()) if file.certificates}

    def problems(self) -> tuple[str, ...]:
        """One sentence per file (or the folder) that can't be used now."""
        return tuple(self._problems.values())

    def report(self, name: str, text: str) -> None:
        """Note a problem with a file; told to the callback unless it is known already."""
        if self._problems.get(name) != text:
            self._problems[name] = text
            self._on_problem(text)

    def _look(self) -> None:
        try:
            found = {e.name: e for e in os.scandir(self.path) if not ignored(e.name)}
        except FileNotFoundError:
            if not self._optional:
                self._unreadable("No such file or directory")
                return
            found = {}
        except OSError as exc:
            self._unreadable(exc.strerror or str(exc))
            return
        self._folder_mode()
        for gone in set(self._problems) - set(found) - {""}:
            del self._problems[gone]
        files: dict[str, _File] = {}
        for name, entry in found.items():
            file = self._file(name, entry)
            if file is not None:
                files[name] = file
        before = {name: file.certificates for name, file in self._files.items()}
        self._files = files
        if before != {name: file.certificates for name, file in files.items()}:
            self._generation += 1
        # Last: until the first look is over, others wait for it rather than see an empty folder.
        self._readable = True

    def _unreadable(self, why: str) -> None:
        text = f"certificate folder {self.path}: {why}"
        if not self._readable:
            raise Unavailable(text)
        self.report("", f"{text}; what was read from it before stays in use")

    def _folder_mode(self) -> None:
        try:
            writable = self.path.stat().st_mode & stat.S_IWOTH
        except OSError:
            return
        if writable:
            self.report("", f"certificate folder {self.path} can be written to by everybody")
        else:
            self._problems.pop("", None)

    def _file(self, name: str, entry: os.DirEntry[str]) -> _File | None:
        """The file as it is now; None for what isn't a file or can't be used."""
        before = self._files.get(name)
        try:
            status = entry.stat()
            if stat.S_ISDIR(status.st_mode):
                return None
            if not stat.S_ISREG(status.st_mode):
                raise BadData("not a regular file")
            signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            settled = self._clock.now() - datetime.fromtimestamp(status.st_ctime, UTC) > _SETTLED
            if before is not None and before.settled and before.signature == signature:
                return before
            certificates = _read(self.path / name)
        except (OSError, BadData) as exc:
            return self._failed(name, entry, before, exc)
        self._problems.pop(name, None)
        if before is not None and before.certificates == certificates:
            certificates = before.certificates
        return _File(signature, certificates, settled)

    def _failed(self, name: str, entry: os.DirEntry[str], before: _File | None, exc: Exception) -> _File | None:
        if isinstance(exc, OSError):
            why = exc.strerror or str(exc)
            if entry.is_symlink():
                why += f" (a symbolic link to {os.readlink(self.path / name)})"
            self.report(name, f"certificate file {self.path / name}: {why}")
            return None
        status = entry.stat()
        signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        if self._clock.now() - datetime.fromtimestamp(status.st_ctime, UTC) <= _SETTLED:
            return _File(signature, before.certificates if before else (), settled=False)
        self.report(name, f"certificate file {self.path / name}: {exc}")
        return _File(signature, (), settled=True)


def ignored(name: str) -> bool:
    """Hidden files, and those that editors and package managers leave behind."""
    return name.startswith((".", "#")) or name.endswith(_LEFT_BY_EDITORS)


def _read(path: Path) -> tuple[Certificate, ...]:
    # Not blocking, in case that somebody put a FIFO in the place of the file after it was looked at.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        blob = file.read(_MAX_SIZE + 1)
    if len(blob) > _MAX_SIZE:
        raise BadData(f"larger than {_MAX_SIZE // 1024 // 1024} MiB")
    return load_certificates(blob)
