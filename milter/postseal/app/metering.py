"""What is counted (CACHE-14), as protocols that ``sources.metrics`` fulfils, and meters that count nothing.

Labels are words of our own catalogues: no addresses, no URLs, no names that a certificate brings. Nothing here raises, and a
call costs a few microseconds at most: it stands in the way of every message.
"""

from __future__ import annotations

from typing import Protocol


class MailMeter(Protocol):
    """Counts what becomes of mail."""

    def decided(self, action: str, reason: str) -> None:
        """One recipient: ``plan.Action`` and the reason's code."""
        ...

    def doubted(self, doubt: str, reason: str) -> None:
        """One recipient whose revocation status is unknown: the group of the doubt, and the verdict's reason."""
        ...

    def took(self, seconds: float) -> None:
        """One message was held up for so long."""
        ...

    def failed(self, reason: str) -> None:
        """One message was deferred because something of ours failed."""
        ...


class LookupMeter(Protocol):
    """Counts what the lookup process does. ``kind`` is crl, ocsp or another kind of errand."""

    def asked(self, taken: int, refused: int) -> None:
        """Questions of one ask, and how many of them were refused for lack of a valid path (PRE-1)."""
        ...

    def fetched(self, kind: str, outcome: str, seconds: float) -> None:
        """One flight has landed: ``outcome`` is "ok" or the reason's code."""
        ...

    def received(self, octets: int) -> None:
        """Octets of bodies that came over the network."""
        ...

    def joined(self, kind: str) -> None:
        """CACHE-5: somebody waits for a flight that was under way already."""
        ...

    def backed_off(self, kind: str) -> None:
        """CACHE-3: a URL or host wasn't asked, because it is left alone for now."""
        ...

    def prefetched(self, kind: str) -> None:
        """CACHE-2: a fetch ahead of time was started."""
        ...


class NoMeter:
    """Counts nothing; both protocols."""

    def decided(self, action: str, reason: str) -> None: ...

    def doubted(self, doubt: str, reason: str) -> None: ...

    def took(self, seconds: float) -> None: ...

    def failed(self, reason: str) -> None: ...

    def asked(self, taken: int, refused: int) -> None: ...

    def fetched(self, kind: str, outcome: str, seconds: float) -> None: ...

    def received(self, octets: int) -> None: ...

    def joined(self, kind: str) -> None: ...

    def backed_off(self, kind: str) -> None: ...

    def prefetched(self, kind: str) -> None: ...


NO_METER = NoMeter()
