"""CRLs as files: ``crl/<sha256>.crl``, written aside, synced and renamed; compared with their name when read."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from cachetools import LRUCache

from postseal.core.crl import Crl, parse_crl
from postseal.core.errors import BadData, Unavailable
from postseal.sources.store import adopt, cause

_CACHE_BYTES = 256 * 1024 * 1024


class CrlFiles:
    """The files in ``folder``. A CRL is parsed once per process. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._parsed: LRUCache[str, Crl] = LRUCache(_CACHE_BYTES, getsizeof=lambda crl: len(crl.der) + 1000)

    def path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.crl"

    def write(self, crl: Crl) -> None:
        """CACHE-7: the bytes are on disk, whole, when this returns. Raises Unavailable."""
        final = self.path(crl.sha256)
        temporary = self.folder / f".{crl.sha256}.{os.getpid()}.{threading.get_ident()}"
        try:
            try:
                with open(temporary, "wb") as out:
                    os.fchmod(out.fileno(), 0o640)
                    out.write(crl.der)
                    out.flush()
                    os.fsync(out.fileno())
                adopt(temporary)
                os.replace(temporary, final)
                handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as exc:
            raise Unavailable(f"can't write {final}: {exc.strerror}") from exc

    def keep(self, crl: Crl) -> None:
        """A CRL that was just written needn't be parsed again."""
        with self._lock, suppress(ValueError):
            self._parsed[crl.sha256] = crl

    def read(self, sha256: str) -> Crl | str:
        """The CRL of this name; or why file and name don't agree."""
        with self._lock:
            crl = self._parsed.get(sha256)
        if crl is not None:
            return crl
        try:
            der = self.path(sha256).read_bytes()
            if hashlib.sha256(der).hexdigest() != sha256:
                return "its content is not what was stored"
            crl = parse_crl(der, max(len(der), 1))
        except (OSError, BadData) as exc:
            return cause(exc)
        self.keep(crl)
        return crl

    def drop(self, sha256: str) -> None:
        """Whatever the file is, it is gone afterwards, as far as that can be had."""
        with suppress(OSError):
            self.path(sha256).unlink()

    def sweep(self, named: Collection[str], before: float) -> None:
        """Drop files that no row names: left by a crash between rename and commit, or between commit and unlink.

        Those changed after ``before`` stay: another process may be about to commit the row.
        """
        wanted = {f"{sha256}.crl" for sha256 in named}
        with suppress(OSError):
            for entry in os.scandir(self.folder):
                if entry.name not in wanted and entry.stat().st_mtime < before:
                    os.unlink(entry.path)
