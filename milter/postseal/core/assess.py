"""A candidate certificate and all that was found out about it, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from postseal.core.certs import Certificate
from postseal.core.path import Path, PathFault
from postseal.core.revocation import Verdict


class Origin(StrEnum):
    """Where a candidate came from, most trusted first."""

    PIN = "pin"
    FOLDER = "folder"
    IMPORTED = "imported"
    OWN_CA = "own-ca"
    DIRECTORY = "directory"
    HARVESTED = "harvested"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A certificate that may be a recipient's; ``extra`` are certificates that came with it and may complete its path."""

    certificate: Certificate
    origin: Origin
    source: str
    extra: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark. ``fatal`` means that the certificate must not be used; otherwise it is a warning for the log."""

    code: str
    detail: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Assessed:
    """A candidate judged at one moment for one mailbox.

    ``verdicts`` has one entry per certificate of the path but the anchor, leaf first; empty when ``path`` is a fault.
    """

    candidate: Candidate
    path: Path | PathFault
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
