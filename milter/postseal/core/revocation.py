"""Revocation judgement: evidence in, one verdict per certificate out (RFC 5280 §6.3, RFC 6960; rules of facts §1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postseal.core.evidence import Evidence, Question


class Status(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Order(StrEnum):
    """Which source decides first (RPL-1)."""

    CRL_FIRST = "crl-first"
    OCSP_FIRST = "ocsp-first"
    CRL_ONLY = "crl-only"
    OCSP_ONLY = "ocsp-only"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about one certificate at one moment.

    ``reason`` is a ``rev.*`` code (rev.crl, rev.ocsp for GOOD; rev.unreachable, rev.timeout, rev.stale, rev.bad-signature …
    for UNKNOWN). ``source`` is the URL or ``file:NAME`` of the deciding evidence. ``suspicious`` marks what looks like an
    attack (bad signature, wrong issuer, unauthorised responder). ``detail`` is one clause in words, for the log.
    """

    status: Status
    reason: str
    detail: str = ""
    source: str = ""
    this_update: datetime | None = None
    next_update: datetime | None = None
    revoked_at: datetime | None = None
    revocation_reason: str = ""
    suspicious: bool = False


@dataclass(frozen=True, slots=True)
class RevocationSettings:
    """How evidence is judged; one instance per configuration."""

    order: Order = Order.CRL_FIRST
    skew: timedelta = timedelta(minutes=5)
    max_age_without_next_update: timedelta = timedelta(hours=24)
    weak_keys: bool = False


def judge(question: Question, evidence: Sequence[Evidence], settings: RevocationSettings, at: datetime) -> Verdict:
    """One verdict from all evidence at hand. Total: any input gives a Verdict, never an exception (RPL-3)."""
    raise NotImplementedError  # owner: revocation


def still_needed(question: Question, evidence: Sequence[Evidence], settings: RevocationSettings, at: datetime) -> bool:
    """Would fetching help: is there no fresh decisive evidence, and a URL that isn't in back-off?"""
    raise NotImplementedError  # owner: revocation
