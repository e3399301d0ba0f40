"""CRLs as files: ``crl/<sha256>.crl``, and beside a large one its index, ``crl/<sha256>.idx``.

Every file is written aside, synced and renamed, so at any moment there is the whole file or none (CACHE-7). A small CRL is
read, compared with its name and parsed by each process. Of a large one the index is mapped, so that all processes share its
pages, and entries are read from the file where they are found. It is opened in a moment, because the index tells how the file
looked when it was last hashed, and what the hash of its signed part is. A file that looks different is hashed anew. An index
is made once, by another process where one is given, and at leisure; until it is there the octets of the CRL are searched. One
that is damaged or from another version is made again.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from cachetools import LRUCache

from postseal.core.crl import Crl, open_crl, parse_crl, signed_hash
from postseal.core.crl_entries import AnyEntries, Entries, RawEntries, indexed, raw_entries
from postseal.core.crl_index import Index, index_octets, read_index
from postseal.core.crl_scan import scanned_entries
from postseal.core.der import Octets
from postseal.core.errors import BadData, Unavailable
from postseal.sources.crl_indexing import map_file, stamp, write_index
from postseal.sources.file_octets import FileOctets
from postseal.sources.store import adopt, cause

# Below this size parsing costs less than opening an index.
LARGE = 256 * 1024
_CACHE_OCTETS = 256 * 1024 * 1024
# A large CRL takes little memory, but two open files: as many are kept as if each took this.
_LARGE_WEIGHT = 4 * 1024 * 1024
_MAX_BAD = 1000
Indexer = Callable[[int, int, str, bytes], int]
"""``crl_indexing.write_index``, perhaps in another process. Raises BadData, Unavailable or OSError."""
Fault = tuple[str, str]
"""Reason code and words."""


def _harmless(blob: bytes) -> Fault | None:
    return None


class CrlFiles:
    """The files in ``folder``. A CRL is parsed once per process. Safe for threads; ``indexer`` makes an index.

    ``inspect`` looks at the octets of a stranger before they are parsed here.
    """

    def __init__(
        self, folder: Path, indexer: Indexer = write_index, inspect: Callable[[bytes], Fault | None] = _harmless
    ) -> None:
        self.folder = folder
        self.inspect = inspect
        self._indexer = indexer
        self._lock = threading.Lock()
        self._parsed: LRUCache[str, Crl] = LRUCache(_CACHE_OCTETS, getsizeof=_weight)
        self._arrived: dict[str, Path] = {}
        self._bad: LRUCache[str, str] = LRUCache(_MAX_BAD)
        self._indexing: dict[str, Future[int | str]] = {}
        self._worker: ThreadPoolExecutor | None = None

    def path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.crl"

    def index_path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.idx"

    # ---- writing ----------------------------------------------------------------------------------------------------

    def incoming(self) -> Incoming:
        """For a CRL that comes in pieces."""
        return Incoming(self)

    def arrived(self, sha256: str, path: Path) -> None:
        """The octets of this name are in a file of this folder already."""
        with self._lock:
            self._arrived[sha256] = path

    def write(self, crl: Crl) -> None:
        """CACHE-7: the bytes are on disk, whole, when this returns. Raises Unavailable."""
        final = self.path(crl.sha256)
        with self._lock:
            aside = self._arrived.pop(crl.sha256, None)
        if aside is None:
            aside = self.aside(crl.sha256)
            with _writing(final, aside), open(aside, "wb") as out:
                out.write(crl.der[:])
        self._settle(aside, final)
        if self.wants_index(crl.sha256):
            # Until it is scanned: so that other processes need neither hash it nor look whether it can be searched.
            scanned = crl.entries.scanned if isinstance(crl.entries, Entries) else None
            known = Index(crl.sha256, len(crl.der), stamp(os.stat(final)), signed_hash(crl), scanned)
            final, aside = self.index_path(crl.sha256), self.aside(f"{crl.sha256}.idx")
            with _writing(final, aside), open(aside, "wb") as out:
                out.writelines(index_octets(known))
            self._settle(aside, final)

    def aside(self, name: str) -> Path:
        """The name of a file that is being written; what a crash leaves of it is swept later."""
        return self.folder / f".{name}.{os.getpid()}.{threading.get_ident()}"

    def _settle(self, aside: Path, final: Path) -> None:
        with _writing(final, aside):
            file = os.open(aside, os.O_RDWR)
            try:
                os.fchmod(file, 0o640)
                os.fsync(file)
            finally:
                os.close(file)
            adopt(aside)
            os.replace(aside, final)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def keep(self, crl: Crl) -> None:
        """A CRL that was just written needn't be parsed again."""
        with self._lock, suppress(ValueError):
            self._parsed[crl.sha256] = crl

    def drop(self, sha256: str) -> None:
        """Whatever the files are, they are gone afterwards, as far as that can be had."""
        for path in (self.path(sha256), self.index_path(sha256)):
            with suppress(OSError):
                path.unlink()

    def sweep(self, named: Collection[str], before: float) -> None:
        """Drop files that no row names: left by a crash between rename and commit, or between commit and unlink.

        Those changed after ``before`` stay: another process may be about to commit the row.
        """
        wanted = {f"{sha256}{suffix}" for sha256 in named for suffix in (".crl", ".idx")}
        with suppress(OSError):
            for entry in os.scandir(self.folder):
                if entry.name not in wanted and entry.stat().st_mtime < before:
                    os.unlink(entry.path)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def read(self, sha256: str) -> Crl | str:
        """The CRL of this name; or why file and name don't agree."""
        with self._lock:
            crl = self._parsed.get(sha256)
        if crl is not None and (isinstance(crl.entries, Entries) or not self.index_path(sha256).exists()):
            return crl
        try:
            crl = self._open(sha256, crl)
        except (OSError, BadData, ValueError) as exc:
            return cause(exc)
        self.keep(crl)
        return crl

    def _open(self, sha256: str, known: Crl | None) -> Crl:
        """Raises BadData, OSError, and ValueError for an empty file."""
        with open(self.path(sha256), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if status.st_size < LARGE:
                der = file.read()
                _compare(der, sha256)
                return parse_crl(der, max(len(der), 1))
            index = self._index_of(sha256, status.st_size)
            if known is None and (index is None or index.stamp != stamp(status)):
                _compare(map_file(file.fileno()), sha256)
            if known is not None and (index is None or index.scanned is None):
                return known
            if index is None:
                return open_crl(map_file(file.fileno()), sha256, _raw)
            # Without the hash of the signed part (EdDSA signs all of it) its octets are needed in one piece.
            data = FileOctets(file.fileno()) if index.tbs_digest else map_file(file.fileno())
            read = RawEntries if index.scanned is None else indexed(index.scanned)
            return open_crl(data, sha256, read, index.tbs_digest)

    def _index_of(self, sha256: str, size: int) -> Index | None:
        try:
            with open(self.index_path(sha256), "rb", buffering=0) as file:
                return read_index(map_file(file.fileno()), sha256, size)
        except (OSError, ValueError):
            return None

    # ---- indexes ----------------------------------------------------------------------------------------------------

    def wants_index(self, sha256: str) -> bool:
        """Is it large, and without an index that fits it as it is?"""
        try:
            status = os.stat(self.path(sha256))
        except OSError:
            return False
        if status.st_size < LARGE:
            return False
        index = self._index_of(sha256, status.st_size)
        return index is None or index.scanned is None or index.stamp != stamp(status)

    def index(self, sha256: str, source: Path | None = None, tbs_digest: bytes = b"") -> Future[int | str]:
        """Make the index of a CRL (in ``source``, or written): how many entries it has, or why it isn't one; one at a time.

        ``tbs_digest`` is the hash of its signed part if the file was gone through just now. The future raises Unavailable
        when it can't be found out now.
        """
        with self._lock:
            running = self._indexing.get(sha256)
            if running is None:
                self._worker = self._worker or ThreadPoolExecutor(1, "index")
                running = self._indexing[sha256] = self._worker.submit(
                    self._make_index, sha256, source or self.path(sha256), tbs_digest
                )
        return running

    def _make_index(self, sha256: str, source: Path, tbs_digest: bytes) -> int | str:
        final = self.index_path(sha256)
        aside = self.aside(f"{sha256}.idx")
        try:
            with _writing(final, aside), open(source, "rb", buffering=0) as file, open(aside, "wb") as out:
                count = self._indexer(file.fileno(), out.fileno(), sha256, tbs_digest)
            self._settle(aside, final)
        except BadData as exc:
            with self._lock:
                self._bad[sha256] = str(exc)
            return str(exc)
        finally:
            with self._lock:
                self._indexing.pop(sha256, None)
        return count

    def entries_by_index(self, sha256: str, source: Path, data: Octets) -> AnyEntries:
        """Make the index first. Raises BadData and Unavailable."""
        made = self.index(sha256, source).result()
        index = self._index_of(sha256, len(data))
        if isinstance(made, str) or index is None or index.scanned is None:
            raise BadData(made if isinstance(made, str) else "its index can't be read")
        return Entries(data, index.scanned)

    def bad(self, sha256: str) -> str:
        """Why this process knows already that what has this name isn't a CRL; empty when it doesn't."""
        with self._lock:
            return self._bad.get(sha256, "")


class Incoming:
    """A CRL on its way: kept in memory while it is small, then in a file. A context; what isn't stored is gone afterwards."""

    def __init__(self, files: CrlFiles) -> None:
        self._files = files
        self._hash = hashlib.sha256()
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._path = files.aside(f"incoming.{id(self):x}")

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            # If it was stored, it has another name now.
            with suppress(OSError):
                self._path.unlink()

    def take(self, part: bytes) -> None:
        """The next octets. Raises OSError when they can't be kept."""
        self._hash.update(part)
        if self._file is None:
            self._memory += part
            if len(self._memory) < LARGE:
                return
            self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115
            part = bytes(self._memory)
            self._memory.clear()
        view = memoryview(part)
        while view:
            view = view[self._file.write(view) :]

    def crl(self, max_size: int) -> Crl | Fault:
        """What came, parsed; or what is wrong with it."""
        try:
            if self._file is None:
                blob = bytes(self._memory)
                return self._files.inspect(blob) or parse_crl(blob, max_size)
            return self._large(max_size)
        except BadData as exc:
            return "rev.malformed", str(exc)
        except OSError as exc:
            return "rev.store-unavailable", f"can't read {self._path}: {exc.strerror}"

    def _large(self, max_size: int) -> Crl | Fault:
        with open(self._path, "rb", buffering=0) as file:
            data = map_file(file.fileno())
        if len(data) > max_size or not _is_der(data):
            # CRL-1: PEM and base64 are decoded in memory.
            blob = data[:]
            return self._files.inspect(blob) or parse_crl(blob, max_size)
        name = self._hash.hexdigest()
        known = self._files.bad(name)
        if known:
            raise BadData(known)
        crl = open_crl(data, name, self._entries)
        self._files.arrived(name, self._path)
        return crl

    def _entries(self, data: Octets, start: int, end: int) -> AnyEntries:
        """For a first answer unless only a scan can tell what the entries mean; that is not for this process to do."""
        raw = raw_entries(data, start, end)
        if raw is not None:
            return raw
        return self._files.entries_by_index(self._hash.hexdigest(), self._path, data)


def _is_der(data: mmap.mmap) -> bool:
    """A CRL of this size has a length in three or four octets; in text no octet is above 127."""
    return data[0] == 0x30 and data[1] in (0x83, 0x84)


@contextmanager
def _writing(final: Path, aside: Path) -> Iterator[None]:
    """Errors become Unavailable with the name of the file that couldn't be written, and what was written of it goes."""
    try:
        yield
    except (OSError, BadData) as exc:
        with suppress(OSError):
            aside.unlink()
        if isinstance(exc, BadData):
            raise
        raise Unavailable(f"can't write {final}: {exc.strerror}") from exc


def _raw(data: Octets, start: int, end: int) -> AnyEntries:
    return raw_entries(data, start, end) or scanned_entries(data, start, end)


def _compare(data: bytes | mmap.mmap, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadData("its content is not what was stored")


def _weight(crl: Crl) -> int:
    return len(crl.der) + 1000 if isinstance(crl.der, bytes) else _LARGE_WEIGHT
