"""When to fetch: plans for refreshing evidence, back-off after failures, and which of two CRLs is the better. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from postseal.app.lookup_ports import Mark
from postseal.core.crl import Crl
from postseal.core.verdict import Status, Verdict

_SHORTEST = timedelta(minutes=5)
_WITHOUT_NEXT_UPDATE = timedelta(hours=12)
_FIRST_DELAY = 60.0
_LONGEST_DELAY = 3600.0


def refresh_at(
    this_update: datetime, next_update: datetime | None, max_age: float | None, at: datetime,
    chance: Callable[[], float], *, earliest: float = 0.5, latest: float = 0.8,
) -> datetime:  # fmt: skip
    """CACHE-2: at a random point of the window's second half, so that not everybody asks at once.

    ``max_age`` (seconds, from HTTP) may only make it earlier, within 5 minutes and half of the window (CACHE-1).
    """
    if next_update is None:
        return at + _WITHOUT_NEXT_UPDATE * (0.8 + 0.2 * chance())
    window = next_update - this_update
    planned = this_update + window * (earliest + (latest - earliest) * chance())
    if max_age is not None:
        planned = min(planned, at + max(min(_SHORTEST, window / 2), min(timedelta(seconds=max_age), window / 2)))
    # Fetched late in its window: spread over what is left of it.
    soonest = at + max(min(_SHORTEST, window / 4), (next_update - at) * 0.5 * chance())
    return max(planned, soonest) if planned <= at else planned


def after_304(max_age: float | None) -> timedelta:
    """When to ask again after "not modified": as the server says, within 5 minutes and 6 hours."""
    wanted = timedelta(hours=1) if max_age is None else timedelta(seconds=min(max_age, 86400.0))
    return min(max(wanted, _SHORTEST), timedelta(hours=6))


def retry_soon(next_update: datetime | None, at: datetime) -> timedelta:
    """How long a due fetch that fails is out of the plan, apart from back-off."""
    if next_update is None or next_update <= at:
        return timedelta(minutes=2)
    return min(timedelta(minutes=10), max(timedelta(seconds=30), (next_update - at) / 10))


def rest(this_update: datetime, next_update: datetime | None) -> timedelta:
    """CACHE-1: for how long evidence that was just fetched isn't fetched again, even if it doesn't satisfy."""
    if next_update is None:
        return _SHORTEST
    return min(_SHORTEST, max(timedelta(seconds=2), (next_update - this_update) / 2))


def back_off(failures: int, retry_after: float | None, chance: Callable[[], float]) -> timedelta:
    """CACHE-3: 1 minute, doubled with each failure in a row up to an hour, plus or minus a fifth; or what the server asks."""
    delay = min(_FIRST_DELAY * 2.0 ** min(failures - 1, 10), _LONGEST_DELAY) * (0.8 + 0.4 * chance())
    if retry_after is not None:
        delay = max(delay, min(retry_after, _LONGEST_DELAY))
    return timedelta(seconds=delay)


def rolls_back(mark: Mark | None, new: Crl) -> tuple[str, str] | None:
    """CRL-25: reason code and words if ``new`` is older than what was stored once, even if that is gone by now."""
    if mark is None or mark.sha256 == new.sha256:
        return None
    numbered = new.number is not None and mark.number is not None
    if new.this_update < mark.this_update or (numbered and (new.number or 0) < (mark.number or 0)):
        return "rev.rollback", "the CRL is older than the one that was fetched before"
    # RFC 5280 §5.2.3: two CRLs of one scope never have one number. If only the signature was made again, nothing is lost.
    if numbered and new.number == mark.number and new.this_update == mark.this_update:
        return "rev.rollback", "another CRL with the same number and date was fetched before"
    return None


def number_used_twice(mark: Mark | None, new: Crl) -> bool:
    """RFC 5280 §5.2.3: does a later CRL carry the number of another one? It is taken, and its CA is told on."""
    same = mark is not None and new.number is not None and mark.number == new.number
    return same and mark is not None and mark.sha256 != new.sha256 and new.this_update > mark.this_update


def why_worse(old: Crl | None, new: Crl, at: datetime, skew: timedelta) -> tuple[str, str] | None:
    """CACHE-4, THR-25: reason code and words if ``new`` must not replace ``old``, of the same key and scope."""
    # One from the future would make every honest one after it look older, and our clock wrong; also in place of a stale one.
    if new.this_update > at + skew:
        return _FROM_THE_FUTURE
    if old is None or old.sha256 == new.sha256:
        return None
    # CRL-25
    if new.this_update < old.this_update or (
        new.number is not None and old.number is not None and new.number < old.number
    ):
        return "rev.rollback", "the CRL is older than the one that was fetched before"
    if not _unusable(old, at, skew):
        doubt = _unusable(new, at, skew)
        if doubt:
            return doubt
    return None


_FROM_THE_FUTURE = ("rev.not-yet-valid", "the CRL is from the future")


def why_worse_answer(old: Verdict, new: Verdict) -> tuple[str, str] | None:
    """CACHE-4 for OCSP, from the verdicts that two authentic answers give: why ``new`` must not replace ``old``, if so."""
    if old.this_update is not None and new.this_update is not None and new.this_update < old.this_update:
        # An answer may be good for days after it was made, so a revocation could be undone with a recorded one.
        return "rev.rollback", "the OCSP answer is older than the one that was fetched before"
    final = old.status is Status.REVOKED and old.revocation_reason != "certificateHold"
    if final and new.status is not Status.REVOKED:
        # RPL-4, CRL-27: only a hold ends; a responder that takes back another revocation has forgotten it, or isn't itself.
        return "rev.rollback", "the OCSP answer takes back a revocation that isn't a hold"
    return None


def _unusable(crl: Crl, at: datetime, skew: timedelta) -> tuple[str, str] | None:
    if crl.this_update > at + skew:
        return _FROM_THE_FUTURE
    if crl.next_update is not None and crl.next_update + skew < at:
        return "rev.stale", "the CRL has expired"
    # CRL-13, CRL-14
    if crl.unknown_critical or crl.unknown_critical_entry:
        return "rev.unsupported", "the CRL is of a kind that isn't supported"
    return None
