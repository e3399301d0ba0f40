"""Trust anchors and intermediate certificates from two folders, watched for changes."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from postseal.core.certs import Certificate
from postseal.core.path import Anchor
from postseal.sources.folder import Clock, Problem, WatchedFolder, silent


class FolderTrust:
    """A TrustStore. Every certificate in ``anchors`` is trusted to issue; ``intermediates`` only help to build paths.

    All methods raise Unavailable while the folders could not be read even once; an absent ``intermediates`` is empty.
    """

    def __init__(self, anchors: Path, intermediates: Path, clock: Clock, on_problem: Problem = silent) -> None:
        self._folders = (
            WatchedFolder(anchors, clock, on_problem),
            WatchedFolder(intermediates, clock, on_problem, optional=True),
        )
        self._lock = Lock()
        self._seen: tuple[int, int] | None = None
        self._anchors: tuple[Anchor, ...] = ()
        self._intermediates: tuple[Certificate, ...] = ()
        self._generation = 0

    def anchors(self) -> tuple[Anchor, ...]:
        self._refresh()
        return self._anchors

    def intermediates(self) -> tuple[Certificate, ...]:
        self._refresh()
        return self._intermediates

    def generation(self) -> int:
        """Changes whenever a certificate is added to or removed from either folder."""
        self._refresh()
        return self._generation

    def problems(self) -> tuple[str, ...]:
        """One sentence per file that can't be used now."""
        return tuple(text for folder in self._folders for text in folder.problems())

    def _refresh(self) -> None:
        now = (self._folders[0].refresh(), self._folders[1].refresh())
        if now == self._seen:
            return
        with self._lock:
            anchors, others = (folder.certificates() for folder in self._folders)
            self._anchors = tuple(
                {c.fingerprint: Anchor(c, name) for name, some in anchors.items() for c in some}.values()
            )
            self._intermediates = tuple({c.fingerprint: c for some in others.values() for c in some}.values())
            self._seen = now
            self._generation += 1
