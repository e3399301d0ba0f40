"""Can the clock be right? Judged by what is known for certain (CACHE-9, THR-27)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from postseal.core.verdict import Status, Verdict

BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""Before this version was made; moved on with every release. No right clock shows an earlier time."""


def clock_fault(at: datetime, newest: datetime | None, skew: timedelta) -> str:
    """Why the present can't be ``at``; "" when it can. ``newest`` is the newest thisUpdate of a CRL that was accepted."""
    if at < BUILT:
        return f"the system clock shows {_text(at)}, before postseal was made"
    # Subtracted on the side that can't leave the range of datetime.
    if newest is not None and newest - at > skew:
        return f"the system clock shows {_text(at)}, but there is a CRL of {_text(newest)}"
    return ""


def doubted(verdicts: Iterable[Verdict], fault: str) -> tuple[Verdict, ...]:
    """The verdicts of a clock with ``fault``: nothing is good or merely stale, but who is revoked is so at any time."""
    return tuple(
        v if v.forbids or v.reason == "rev.anchor" else Verdict(Status.UNKNOWN, "rev.clock", fault, v.source)
        for v in verdicts
    )


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
