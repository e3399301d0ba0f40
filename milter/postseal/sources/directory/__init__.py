"""Where recipients' certificates come from. ``Directories`` joins several sources into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from postseal.core.address import Mailbox
from postseal.core.assess import Candidate, Origin

_TRUST = tuple(Origin)


class _Directory(Protocol):
    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]: ...


class Directories:
    """A Directory over several: all that any of them knows, each certificate once, under its most trusted origin.

    One that can't be read makes the answer Unavailable even if others know certificates: the missing one may hold the
    only usable certificate, and then "no certificate" would be wrong and mail could leave in clear.
    """

    def __init__(self, directories: Sequence[_Directory]) -> None:
        self._directories = tuple(directories)

    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        """Most trusted origin first. Raises Unavailable."""
        if len(self._directories) == 1:
            return self._directories[0].candidates(mailbox)
        best: dict[str, Candidate] = {}
        for directory in self._directories:
            for candidate in directory.candidates(mailbox):
                known = best.get(candidate.certificate.fingerprint)
                if known is None:
                    best[candidate.certificate.fingerprint] = candidate
                else:
                    best[candidate.certificate.fingerprint] = _merged(known, candidate)
        return tuple(sorted(best.values(), key=lambda c: _TRUST.index(c.origin)))


def _merged(one: Candidate, other: Candidate) -> Candidate:
    first, second = sorted((one, other), key=lambda c: _TRUST.index(c.origin))
    extra = tuple({c.fingerprint: c for c in (*first.extra, *second.extra)}.values())
    return Candidate(first.certificate, first.origin, first.source, extra)
