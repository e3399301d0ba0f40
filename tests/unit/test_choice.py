"""The best of several certificates, in an order that never depends on chance, and why the others lost."""

import random
from typing import Any

import pytest

from postseal.core.address import parse_mailbox
from postseal.core.assess import Assessed, Candidate, Finding, Origin
from postseal.core.choice import losers, ranked, why_not
from postseal.core.path import Anchor, Path, PathFault
from postseal.core.revocation import Status, Verdict
from support.pki import DAY, NOW, Leaf, authority, usage

ROOT = authority("Root")
ALICE = parse_mailbox("alice@example.test")
GOOD = Verdict(Status.GOOD, "rev.crl")
UNKNOWN = Verdict(Status.UNKNOWN, "rev.timeout", "no answer")
REVOKED = Verdict(Status.REVOKED, "rev.revoked-crl", "revoked yesterday")
LISTED = Verdict(Status.UNKNOWN, "rev.listed-unsupported", "listed on an odd CRL")
FATAL = Finding("cert.wrong-purpose", "not for mail", True)


def issued(slot: object = 0, kind: str = "rsa2048", address: str = "alice@example.test", **more: Any) -> Leaf:
    more.setdefault("serial", 5000)
    return ROOT.issue(address, kind=kind, slot=slot, **more)


def assessed(
    leaf: Leaf, origin: Origin = Origin.FOLDER, verdict: Verdict = GOOD, *findings: Finding, fault: str = ""
) -> Assessed:
    path: Path | PathFault = (
        PathFault(fault, "in words") if fault else Path((leaf.certificate,), Anchor(ROOT.certificate))
    )
    return Assessed(Candidate(leaf.certificate, origin, "test"), path, () if fault else (verdict,), findings)


BETTER = {
    "usable before unfit": (assessed(issued(), Origin.HARVESTED), assessed(issued(1), Origin.PIN, GOOD, FATAL), "not for mail"),
    "unfit before untrusted": (
        assessed(issued(), Origin.FOLDER, GOOD, FATAL), assessed(issued(1), fault="path.no-issuer"), "path.no-issuer"),
    "untrusted before revoked": (assessed(issued(), fault="path.expired"), assessed(issued(1), Origin.PIN, REVOKED), "revoked"),
    "listed on an odd CRL is as bad as revoked": (assessed(issued()), assessed(issued(1), Origin.PIN, LISTED), "odd CRL"),
    "pinned": (assessed(issued(), Origin.PIN, UNKNOWN), assessed(issued(1)), "pinned"),
    "origin": (assessed(issued(), Origin.IMPORTED, UNKNOWN), assessed(issued(1), Origin.DIRECTORY), "more trusted source"),
    "revocation known": (assessed(issued()), assessed(issued(1), Origin.FOLDER, UNKNOWN), "revocation status"),
    "exact case": (assessed(issued()), assessed(issued(1, address="ALICE@example.test")), "same case"),
    "encryption only": (
        assessed(issued(key_usage=usage("key_encipherment"), not_before=NOW - 90 * DAY)), assessed(issued(1)),
        "encryption only"),
    "newer": (assessed(issued(not_before=NOW - DAY)), assessed(issued(1, kind="rsa3072")), "newer"),
    "stronger": (assessed(issued(kind="p384")), assessed(issued(1, kind="p256")), "stronger"),
    "EC against RSA": (assessed(issued(kind="p256")), assessed(issued(1)), "stronger"),
    "longer RSA": (assessed(issued(kind="rsa3072")), assessed(issued(1)), "stronger"),
}  # fmt: skip


@pytest.mark.parametrize("title", BETTER)
def test_better(title: str) -> None:
    winner, loser, reason = BETTER[title]
    assert ranked([loser, winner], ALICE) == (winner, loser)
    assert ranked([winner, loser], ALICE) == (winner, loser)
    assert reason in why_not(winner, loser, ALICE)
    assert why_not(loser, winner, ALICE) == ""


def test_all_else_being_equal_the_fingerprint_decides() -> None:
    one, two = assessed(issued(serial=1)), assessed(issued(serial=2))
    first, second = ranked([one, two], ALICE)
    assert first.candidate.certificate.fingerprint < second.candidate.certificate.fingerprint
    assert "fingerprint" in why_not(first, second, ALICE)


def test_order_is_total_and_deterministic() -> None:
    everything = [item for winner, loser, _ in BETTER.values() for item in (winner, loser)]
    expected = [a.candidate for a in ranked(everything, ALICE)]
    shuffle = random.Random(7)
    for _ in range(20):
        shuffle.shuffle(everything)
        assert [a.candidate.origin for a in ranked(everything, ALICE)] == [c.origin for c in expected]


def test_usable_ones_come_first_and_losers_have_reasons() -> None:
    good = assessed(issued())
    bad = [assessed(issued(2), Origin.PIN, REVOKED), assessed(issued(3), fault="path.expired")]
    order = ranked([*bad, good], ALICE)
    assert order[0] is good
    told = losers(order, ALICE)
    assert [reason.split(":")[0] for _, reason in told] == ["path.expired", "revoked"]


def test_unknown_is_usable_here() -> None:
    """Whether an unknown status is good enough is the policy's business; it comes before what can't be used."""
    unknown, listed = assessed(issued(), Origin.FOLDER, UNKNOWN), assessed(issued(2), Origin.PIN, LISTED)
    assert ranked([listed, unknown], ALICE) == (unknown, listed)


def test_one_or_none() -> None:
    assert ranked([], ALICE) == ()
    assert losers([assessed(issued())], ALICE) == ()
