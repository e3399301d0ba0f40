"""Doubt: why a status is unknown, in groups."""

from __future__ import annotations

import pytest

from postseal.core.reasons import CATALOGUE
from postseal.core.verdict import SUSPICIOUS, Doubt, Status, Verdict

DECIDED = {"rev.anchor", "rev.crl", "rev.ocsp"}
REVOKED = {code for code in CATALOGUE if code.startswith("rev.revoked-")}
ABSENT = {"rev.none-declared", "rev.ocsp-unknown"}


def test_every_reason_of_an_unknown_status_has_its_group() -> None:
    """The causes that the manual lists: what looks forged, what nobody offers, and all else is a matter of time."""
    unknown = {code for code in CATALOGUE if code.startswith("rev.")} - DECIDED - REVOKED
    groups = {code: Verdict(Status.UNKNOWN, code).doubt for code in unknown}
    assert {c for c, doubt in groups.items() if doubt is Doubt.SUSPICION} == SUSPICIOUS
    assert {c for c, doubt in groups.items() if doubt is Doubt.ABSENCE} == ABSENT
    named = {"unreachable", "timeout", "stale", "blocked-by-guard", "budget", "malformed", "unsupported", "clock"}
    assert {c for c, doubt in groups.items() if doubt is Doubt.AVAILABILITY} >= {f"rev.{name}" for name in named}
    assert {
        f"rev.{name}" for name in ("bad-signature", "wrong-issuer", "rollback", "unauthorized-responder")
    } <= SUSPICIOUS


@pytest.mark.parametrize("status", [Status.GOOD, Status.REVOKED])
def test_what_is_known_is_in_no_doubt(status: Status) -> None:
    assert Verdict(status, "rev.crl", suspicious=True).doubt is None


def test_suspicious_evidence_beside_another_cause_is_suspicion() -> None:
    assert Verdict(Status.UNKNOWN, "rev.stale", suspicious=True).doubt is Doubt.SUSPICION
