"""How the fetching of one URL can end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Landed:
    """The answer is stored; it needn't be fetched again for ``rest``."""

    rest: timedelta


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was stored; ``about`` is a fingerprint when only that certificate's answer is concerned."""

    why: str
    detail: str
    retry_after: float | None = None
    host_fault: bool = False
    about: str = ""
