"""Trust anchors and intermediate certificates from two folders, watched for changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import MappingProxyType

from postseal.core.certs import Certificate
from postseal.core.path import Anchor, AnchorSettings
from postseal.sources.folder import Clock, Problem, WatchedFolder, silent

_NONE: Mapping[str, AnchorSettings] = MappingProxyType({})


class FolderTrust:
    """A TrustStore. Every certificate in ``anchors`` is trusted to issue; ``intermediates`` only help to build paths.

    ``settings`` are those of single anchors, by file name or by fingerprint, which counts more; the others have the defaults.
    All methods raise Unavailable while the folders could not be read even once; an absent ``intermediates`` is empty.
    """

    def __init__(
        self,
        anchors: Path,
        intermediates: Path,
        clock: Clock,
        on_problem: Problem = silent,
        settings: Mapping[str, AnchorSettings] = _NONE,
    ) -> None:
        self._settings = settings
        self._on_problem = on_problem
        self._unused: tuple[str, ...] = ()
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

    def unused(self) -> tuple[str, ...]:
        """One sentence per ``[[anchor]]`` that is about no file and no certificate."""
        return self._unused

    def _refresh(self) -> None:
        now = (self._folders[0].refresh(), self._folders[1].refresh())
        if now == self._seen:
            return
        with self._lock:
            anchors, others = (folder.certificates() for folder in self._folders)
            self._anchors = tuple(
                {c.fingerprint: self._anchor(c, name) for name, some in anchors.items() for c in some}.values()
            )
            self._look_for_unused({*anchors, *(anchor.certificate.fingerprint for anchor in self._anchors)})
            self._intermediates = tuple({c.fingerprint: c for some in others.values() for c in some}.values())
            self._seen = now
            self._generation += 1

    def _anchor(self, certificate: Certificate, name: str) -> Anchor:
        settings = self._settings.get(certificate.fingerprint) or self._settings.get(name) or AnchorSettings()
        return Anchor(certificate, name, settings)

    def _look_for_unused(self, present: set[str]) -> None:
        """A setting that is about nothing is a misspelt one: then an anchor is trusted for more than was meant."""
        unused = tuple(
            f'[[anchor]] certificate = "{name}": there is no such file or certificate in {self._folders[0].path}'
            for name in self._settings
            if name not in present
        )
        for text in unused:
            if text not in self._unused:
                self._on_problem(text)
        self._unused = unused
