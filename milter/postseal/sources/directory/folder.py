"""Recipients' certificates from a folder of files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from threading import Lock

from postseal.core.address import Mailbox
from postseal.core.assess import Candidate, Origin
from postseal.core.certs import Certificate
from postseal.core.fitness import addresses
from postseal.core.profile import profile
from postseal.sources.folder import Clock, Problem, WatchedFolder, silent

_MAX_EXTRA = 16


class FolderDirectory:
    """A Directory: the certificates in the files of ``path``, by the mail addresses in them.

    CA certificates in a file don't count as recipients' but may complete the paths of the file's other certificates.
    """

    def __init__(self, path: Path, clock: Clock, on_problem: Problem = silent) -> None:
        self._folder = WatchedFolder(path, clock, on_problem)
        self._lock = Lock()
        self._seen = -1
        self._index: dict[str, tuple[Candidate, ...]] = {}

    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        """All certificates with this address. Raises Unavailable when the folder could never be read."""
        self.refresh()
        return self._index.get(mailbox.folded, ())

    def refresh(self) -> None:
        """Bring the index up to date if something changed; ``candidates`` does this too."""
        now = self._folder.refresh()
        if now == self._seen and now:
            return
        with self._lock:
            self._index = self._build()
            self._seen = now

    def problems(self) -> tuple[str, ...]:
        """One sentence per file that can't be used now."""
        return self._folder.problems()

    def __len__(self) -> int:
        """Number of addresses that have a certificate."""
        return len(self._index)

    def _build(self) -> dict[str, tuple[Candidate, ...]]:
        index: dict[str, dict[str, Candidate]] = defaultdict(dict)
        for name, certificates in self._folder.certificates().items():
            extra = tuple(c for c in certificates if profile(c).ca)[:_MAX_EXTRA]
            useful = False
            for certificate in certificates:
                if profile(certificate).ca:
                    continue
                for address in self._addresses(certificate):
                    candidate = Candidate(certificate, Origin.FOLDER, str(self._folder.path / name), extra)
                    index[address].setdefault(certificate.fingerprint, candidate)
                    useful = True
            if not useful:
                text = (
                    f"certificate file {self._folder.path / name}: no certificate of a person with a mail address in it"
                )
                self._folder.report(name, text)
        return {address: tuple(found.values()) for address, found in index.items()}

    @staticmethod
    def _addresses(certificate: Certificate) -> set[str]:
        return {mailbox.folded for mailbox in addresses(certificate).mailboxes}
