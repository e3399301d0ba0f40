"""Writing the index of a CRL from one open file to another: in this process, or as a job of ``sources.confined``."""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import suppress

from postseal.core.crl_index import index_octets, make_index
from postseal.core.errors import BadData

_NICE = 10


def stamp(status: os.stat_result) -> bytes:
    """How a file looks from outside: as long as this is the same, its content is what it was when it was hashed."""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}".encode()


def map_file(file: int) -> mmap.mmap:
    """The whole of an open file, read-only; it lives as long as something refers to it. Raises OSError or ValueError."""
    return mmap.mmap(file, 0, prot=mmap.PROT_READ)


def write_index(source: int, target: int, sha256: str, tbs_digest: bytes = b"") -> int:
    """Write the index of the CRL in ``source`` to ``target`` and sync it; how many entries. Raises BadData or OSError.

    With ``tbs_digest``, the hash of its signed part, somebody has gone through the file just now; without, it is compared
    with its name.
    """
    status = os.fstat(source)
    data = map_file(source)
    if not tbs_digest and hashlib.sha256(data).hexdigest() != sha256:
        raise BadData("its content is not what was stored")
    index = make_index(data, sha256, stamp(status), tbs_digest)
    for piece in index_octets(index):
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
    os.fsync(target)
    return index.scanned.count if index.scanned is not None else 0


def give_way() -> None:
    """Have this process run when no other one wants to."""
    # A system call filter may forbid it; then the index is made at the usual priority.
    with suppress(OSError):
        os.nice(_NICE)
