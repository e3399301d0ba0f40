"""CRLs under limits: small ones are read by a helper before they are read here, large ones are indexed by a helper."""

from __future__ import annotations

import os
from pathlib import Path

from postseal.core.errors import BadData, Unavailable
from postseal.sources.confine import Confinement, Limits, Refusal
from postseal.sources.crl_files import CrlFiles, Fault

_MIB = 1024 * 1024


class ConfinedCrls:
    """Makes the keeper of CRLs for ``EvidenceStore``. Indexing has a helper of its own, so that small things needn't wait."""

    def __init__(self, readers: Confinement, indexers: Confinement) -> None:
        self._readers, self._indexers = readers, indexers

    def __call__(self, folder: Path) -> CrlFiles:
        return CrlFiles(folder, self.index, self.inspect)

    def inspect(self, blob: bytes) -> Fault | None:
        """Why a stranger's octets aren't parsed here."""
        try:
            refusal = self._readers.refusal(blob)
        except Unavailable as exc:
            return "rev.budget", str(exc)
        return None if refusal is None else (refusal.why, refusal.detail)

    def index(self, source: int, target: int, sha256: str, tbs_digest: bytes) -> int:
        """``crl_indexing.write_index`` in another process."""
        arguments = {"sha256": sha256, "tbs_digest": tbs_digest.hex()}
        done = self._indexers.run("index", [source, target], arguments, _limits(os.fstat(source).st_size))
        if isinstance(done, Refusal):
            raise BadData(done.detail)
        if done.bad:
            raise BadData(done.bad)
        if "cause" in done.value:
            raise Unavailable(f"its index can't be written: {done.value['cause']}")
        return int(done.value["entries"])


def _limits(size: int) -> Limits:
    """What indexing takes, several times over: 25 octets of memory and 1 microsecond of CPU for each entry of 40 octets.

    The memory includes the mapped CRL; of the files, two are opened to map it.
    """
    cpu = 10 + size // (2 * _MIB)
    return Limits(memory=384 * _MIB + 4 * size, cpu=cpu, wall=60.0 + 4.0 * cpu, output=_MIB + size, files=2)
