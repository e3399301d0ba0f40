"""Merging what several sources say, asking for more, and keeping verdicts."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from postseal.core import reasons, revocation
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question
from postseal.core.revocation import (
    Order,
    RevocationSettings,
    Status,
    Verdict,
    judge,
    recheck_at,
    refresh_window,
    still_needed,
)
from support.evidence import CRL_URL, OCSP_URL, Answer, Ocsp, crl, entry, number, reason, scope, utc
from support.pki import DAY, HOUR, NOW, Leaf, authority

CA = authority("Issuing CA", kind="p256")
OTHER = authority("Other CA", kind="p256")
ALICE = CA.issue("alice@example.test", kind="p256", crl_urls=[CRL_URL], ocsp_urls=[OCSP_URL])
BOTH_URLS = Question(ALICE.certificate, CA.certificate, (CRL_URL,), (OCSP_URL,))
CRL_ONLY = Question(ALICE.certificate, CA.certificate, (CRL_URL,), ())
MINUTE = timedelta(minutes=1)


def crl_from(der: bytes, url: str = CRL_URL, fetched_at: datetime = NOW) -> CrlEvidence:
    return CrlEvidence(parse_crl(der), url, fetched_at)


def ocsp_from(status: str = "good", *, spoil: bool = False, url: str = OCSP_URL, **changes: Any) -> OcspEvidence:
    return OcspEvidence(Ocsp([Answer(ALICE, CA, status, **changes)], CA, spoil=spoil).der(), url, NOW)


GOOD_CRL = crl_from(crl(CA))
BAD_CRL = crl_from(crl(CA, [entry(ALICE, reason(1))]))
HOLD_CRL = crl_from(crl(CA, [entry(ALICE, reason(6))]))
STALE_CRL = crl_from(crl(CA, this_update=utc(NOW - 2 * DAY), next_update=utc(NOW - DAY)))
FORGED_CRL = crl_from(crl(CA, spoil=True))
PARTIAL_CRL = crl_from(crl(CA, extensions=[scope(reasons=b"\x06\x40")]))
GOOD_OCSP, BAD_OCSP, UNKNOWN_OCSP = ocsp_from(), ocsp_from("revoked"), ocsp_from("unknown")
STALE_OCSP = ocsp_from(this_update=NOW - 2 * DAY, next_update=NOW - DAY)
FORGED_OCSP = ocsp_from(spoil=True)
NO_CRL = NoAnswer(CRL_URL, "rev.unreachable", "connection refused", NOW - MINUTE)
NO_OCSP = NoAnswer(OCSP_URL, "rev.timeout", "no complete answer in 2.0 s", NOW - MINUTE)


def decide(*evidence: Evidence, order: Order = Order.CRL_FIRST, question: Question = BOTH_URLS) -> Verdict:
    return judge(question, evidence, RevocationSettings(order=order), NOW)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(
    "evidence",
    [(GOOD_CRL, BAD_OCSP), (BAD_CRL, GOOD_OCSP), (BAD_CRL, BAD_OCSP), (FORGED_CRL, BAD_OCSP), (BAD_CRL, NO_OCSP),
     (BAD_CRL, GOOD_CRL), (HOLD_CRL, BAD_OCSP, GOOD_OCSP), (STALE_CRL, BAD_OCSP), (BAD_CRL, FORGED_OCSP)],
)  # fmt: skip
def test_revoked_wins(order: Order, evidence: tuple[Evidence, ...]) -> None:
    """RPL-4, T-1: an authentic revocation wins over any GOOD, in every order of sources and of evidence."""
    for arranged in permutations(evidence):
        verdict = decide(*arranged, order=order)
        assert verdict.status is Status.REVOKED
        assert verdict.revocation_reason != "certificateHold"


G, U = Status.GOOD, Status.UNKNOWN
ORDERS = [
    # evidence, crl-first, ocsp-first, crl-only, ocsp-only, both
    ((GOOD_CRL, GOOD_OCSP), "rev.crl", "rev.ocsp", "rev.crl", "rev.ocsp", "rev.ocsp"),
    ((GOOD_CRL, NO_OCSP), "rev.crl", "rev.crl", "rev.crl", "rev.timeout", "rev.timeout"),
    ((NO_CRL, GOOD_OCSP), "rev.ocsp", "rev.ocsp", "rev.unreachable", "rev.ocsp", "rev.unreachable"),
    ((GOOD_CRL, UNKNOWN_OCSP), "rev.crl", "rev.crl", "rev.crl", "rev.ocsp-unknown", "rev.ocsp-unknown"),
    ((STALE_CRL, GOOD_OCSP), "rev.ocsp", "rev.ocsp", "rev.stale", "rev.ocsp", "rev.stale"),
    ((FORGED_CRL, GOOD_OCSP), "rev.ocsp", "rev.ocsp", "rev.bad-signature", "rev.ocsp", "rev.bad-signature"),
    ((GOOD_CRL, FORGED_OCSP), "rev.crl", "rev.crl", "rev.crl", "rev.bad-signature", "rev.bad-signature"),
    ((GOOD_CRL,), "rev.crl", "rev.crl", "rev.crl", "rev.no-evidence", "rev.no-evidence"),
    ((PARTIAL_CRL, GOOD_OCSP), "rev.ocsp", "rev.ocsp", "rev.reasons-incomplete", "rev.ocsp",
     "rev.reasons-incomplete"),
    ((NO_CRL, NO_OCSP), "rev.timeout", "rev.timeout", "rev.unreachable", "rev.timeout", "rev.timeout"),
]  # fmt: skip


@pytest.mark.parametrize("row", ORDERS)
def test_order_of_sources(row: tuple[Any, ...]) -> None:
    """RPL-1, RPL-3: the order says which source decides first; every UNKNOWN falls back to the other one, if allowed."""
    evidence, *codes = row
    orders = (Order.CRL_FIRST, Order.OCSP_FIRST, Order.CRL_ONLY, Order.OCSP_ONLY, Order.BOTH)
    for arranged in (evidence, evidence[::-1]):
        assert [decide(*arranged, order=order).reason for order in orders] == codes


def test_both_asks_for_what_is_declared() -> None:
    """RPL-1: "both" can't ask for OCSP where the certificate names no responder."""
    assert decide(GOOD_CRL, order=Order.BOTH, question=CRL_ONLY).reason == "rev.crl"
    only_ocsp = Question(ALICE.certificate, CA.certificate, (), (OCSP_URL,))
    assert decide(GOOD_OCSP, order=Order.BOTH, question=only_ocsp).reason == "rev.ocsp"
    assert decide(order=Order.BOTH, question=only_ocsp).reason == "rev.no-evidence"


def test_both_ends_with_the_sooner() -> None:
    """RPL-1, CACHE-1: with "both" the verdict ends when the first of the two ends."""
    assert decide(GOOD_CRL, GOOD_OCSP, order=Order.BOTH).usable_until == NOW + DAY


def test_the_order_decides_before_the_age() -> None:
    """RPL-2: a CRL that is too large leaves the decision to OCSP."""
    large = NoAnswer(CRL_URL, "rev.too-large", "the answer has more than 67108864 bytes", NOW)
    assert decide(large, GOOD_OCSP).reason == "rev.ocsp"
    assert decide(large, BAD_OCSP).status is Status.REVOKED


USEFUL = [
    ((FORGED_CRL, NO_OCSP), "rev.bad-signature"),
    ((STALE_CRL, NO_OCSP), "rev.stale"),
    ((STALE_CRL, FORGED_OCSP), "rev.bad-signature"),
    ((UNKNOWN_OCSP, NO_CRL), "rev.ocsp-unknown"),
    ((STALE_CRL, NO_CRL, NO_OCSP), "rev.stale"),
    ((NoAnswer(CRL_URL, "rev.http-status", "404 Not Found", NOW), NO_OCSP), "rev.http-status"),
]


@pytest.mark.parametrize(("evidence", "code"), USEFUL)
def test_the_most_useful_unknown(evidence: tuple[Evidence, ...], code: str) -> None:
    """RPL-3: what looks like an attack comes before stale, stale before unreachable; the other causes stay in the words."""
    for arranged in permutations(evidence):
        verdict = decide(*arranged)
        assert (verdict.status, verdict.reason) == (Status.UNKNOWN, code)
        assert verdict.suspicious == (code == "rev.bad-signature")
        assert verdict.detail.count("; ") == len(evidence) - 1


def test_words_for_the_administrator() -> None:
    """The words are those of the PGP Encryption Server, URL and cause included, so that old searches still find them."""
    verdict = decide(NO_CRL, question=CRL_ONLY)
    assert verdict.detail == f"Could not retrieve URL {CRL_URL}: connection refused"
    assert verdict.source == CRL_URL
    complete = NoAnswer(CRL_URL, "rev.timeout", f"Could not retrieve URL {CRL_URL}: too slow", NOW)
    assert decide(complete, question=CRL_ONLY).detail == complete.detail
    stale = decide(STALE_CRL, NO_CRL, question=CRL_ONLY)
    assert stale.detail == (
        f"CRL from {CRL_URL}: it is out of date since 2026-05-31T12:00:00Z; "
        f"Could not retrieve URL {CRL_URL}: connection refused"
    )
    assert (stale.this_update, stale.next_update) == (NOW - 2 * DAY, NOW - DAY)


def test_nothing_at_hand() -> None:
    """Nothing declared, nothing fetched yet, and nothing that the order allows are three different causes."""
    nothing = Question(CA.issue("n@example.test", kind="p256").certificate, CA.certificate, (), ())
    assert decide(question=nothing).reason == "rev.none-declared"
    assert decide().reason == "rev.no-evidence"
    assert decide().source == CRL_URL
    assert decide(order=Order.OCSP_FIRST).source == OCSP_URL
    left_out = decide(question=CRL_ONLY, order=Order.OCSP_ONLY)
    assert (left_out.status, left_out.reason) == (Status.UNKNOWN, "rev.none-declared")
    assert left_out.detail == "the certificate names no source that the order ocsp-only allows"
    assert not decide(question=nothing).forbids


def test_every_reason_is_in_the_catalogue() -> None:
    """Each code that judging can give has its sentence, and each code of the ranking exists."""
    for code in revocation._RANK:
        assert reasons.reason(code).sentence
    seen = {decide(*e).reason for row in ORDERS for e in (row[0], row[0][:1])}
    assert all(reasons.reason(code).sentence for code in seen)


def test_the_work_is_bounded() -> None:
    """PRE-6: beyond 64 pieces about a certificate GOOD isn't said any more; a revocation among the first counts."""
    others = [crl_from(crl(CA, extensions=[number(n), scope(ca=True)]), CRL_URL) for n in range(70)]
    verdict = decide(GOOD_CRL, *others)
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.budget")
    assert decide(BAD_CRL, *others).status is Status.REVOKED
    assert decide(GOOD_CRL, *others[:63]).status is Status.GOOD


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError(), KeyError("k"), OverflowError()])
@pytest.mark.parametrize("part", ["hear", "check_ocsp"])
def test_an_exception_in_one_source_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch, part: str, error: Exception
) -> None:
    """RPL-3: whatever is raised while a source is judged makes that source UNKNOWN, and the other one decides."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(revocation, part, fail)
    other = GOOD_OCSP if part != "check_ocsp" else GOOD_CRL
    mine = GOOD_CRL if part != "check_ocsp" else GOOD_OCSP
    verdict = decide(mine)
    assert (verdict.status, verdict.reason, verdict.source) == (Status.UNKNOWN, "rev.malformed", mine.url)
    assert type(error).__name__ in verdict.detail
    only = Order.CRL_ONLY if part != "check_ocsp" else Order.OCSP_ONLY
    assert decide(mine, order=only).reason == "rev.malformed"
    assert decide(mine, other).status is Status.GOOD


def test_garbage_instead_of_evidence() -> None:
    """RPL-3: evidence of no known kind, and a certificate that can't be read, are UNKNOWN."""
    assert decide(None, object()).reason == "rev.malformed"  # type: ignore[arg-type]
    broken = Question(Leaf(ALICE.certificate, None), CA.certificate, (), ())  # type: ignore[arg-type]
    verdict = decide(GOOD_CRL, question=broken)
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.malformed")
    assert still_needed(broken, [GOOD_CRL], RevocationSettings(), NOW) is True


def later_no(url: str, retry_at: datetime | None) -> NoAnswer:
    return NoAnswer(url, "rev.unreachable", "connection refused", NOW - MINUTE, retry_at)


NEEDED = [
    ("nothing yet", (), Order.CRL_FIRST, True),
    ("good", (GOOD_CRL,), Order.CRL_FIRST, False),
    ("good by ocsp", (GOOD_OCSP,), Order.CRL_FIRST, False),
    ("revoked", (BAD_CRL,), Order.CRL_FIRST, False),
    ("on hold", (HOLD_CRL,), Order.CRL_FIRST, False),
    ("on hold, out of date", (crl_from(crl(CA, [entry(ALICE, reason(6))], next_update=utc(NOW - MINUTE)), CRL_URL,
     NOW - DAY),), Order.CRL_FIRST, True),
    ("stale, fetched long ago", (crl_from(STALE_CRL.crl.der, CRL_URL, NOW - DAY),), Order.CRL_ONLY, True),
    ("stale, fetched now", (STALE_CRL,), Order.CRL_ONLY, False),
    ("stale, but there is OCSP", (STALE_CRL,), Order.CRL_FIRST, True),
    ("both in back-off", (later_no(CRL_URL, NOW + MINUTE), later_no(OCSP_URL, NOW + MINUTE)), Order.CRL_FIRST, False),
    ("one in back-off", (later_no(CRL_URL, NOW + MINUTE),), Order.CRL_FIRST, True),
    ("the only one in back-off", (later_no(CRL_URL, NOW + MINUTE),), Order.CRL_ONLY, False),
    ("the other one isn't asked", (later_no(OCSP_URL, NOW + MINUTE),), Order.OCSP_ONLY, False),
    ("back-off is over", (later_no(CRL_URL, NOW), later_no(OCSP_URL, NOW + MINUTE)), Order.CRL_FIRST, True),
    ("failed without back-off", (later_no(CRL_URL, None),), Order.CRL_ONLY, True),
    ("both, one good", (GOOD_CRL,), Order.BOTH, True),
    ("both, both good", (GOOD_CRL, GOOD_OCSP), Order.BOTH, False),
]  # fmt: skip


@pytest.mark.parametrize(("label", "evidence", "order", "needed"), NEEDED, ids=[n[0] for n in NEEDED])
def test_when_fetching_would_help(label: str, evidence: tuple[Evidence, ...], order: Order, needed: bool) -> None:
    """CACHE-3, CRL-20: fetch what isn't decided yet, unless every source was tried a moment ago."""
    assert still_needed(BOTH_URLS, evidence, RevocationSettings(order=order), NOW) is needed


def test_expired_certificates_are_not_asked_about() -> None:
    """PRE-2: an expired certificate can't be used, so nobody is asked."""
    after = ALICE.certificate.not_after + MINUTE
    assert still_needed(BOTH_URLS, (), RevocationSettings(), NOW)
    assert not still_needed(BOTH_URLS, (), RevocationSettings(), after)


def test_without_urls_nothing_can_be_fetched() -> None:
    """A certificate that declares nothing needs nothing."""
    nothing = Question(ALICE.certificate, CA.certificate, (), ())
    assert not still_needed(nothing, (), RevocationSettings(), NOW)


def test_how_long_a_verdict_is_kept() -> None:
    """CACHE-1, CACHE-11: ten minutes, never beyond the end of the evidence, one minute while UNKNOWN."""
    assert recheck_at(decide(GOOD_CRL), NOW) == NOW + 10 * MINUTE
    ends_soon = crl_from(crl(CA, next_update=utc(NOW + 3 * MINUTE)))
    assert recheck_at(decide(ends_soon), NOW) == NOW + 3 * MINUTE
    in_skew = crl_from(crl(CA, next_update=utc(NOW - 2 * MINUTE)))
    assert decide(in_skew).status is Status.GOOD
    assert recheck_at(decide(in_skew), NOW) == NOW + MINUTE
    assert recheck_at(decide(NO_CRL), NOW) == NOW + MINUTE
    assert recheck_at(decide(BAD_CRL), NOW, HOUR) == NOW + HOUR
    assert decide(GOOD_CRL).usable_until == NOW + 7 * DAY
    assert decide(ends_soon, GOOD_CRL).usable_until == NOW + 7 * DAY
    assert decide(NO_CRL).usable_until is None


def test_the_window_for_newer_evidence() -> None:
    """CACHE-2: for both kinds of evidence."""
    assert refresh_window(GOOD_CRL) == parse_window(GOOD_CRL.crl.this_update, NOW + 7 * DAY, 0.8)
    assert refresh_window(GOOD_OCSP) == parse_window(NOW - HOUR, NOW + DAY, 0.75)
    assert refresh_window(OcspEvidence(b"", OCSP_URL, NOW)) is None


def parse_window(start: datetime, end: datetime, last: float) -> tuple[datetime, datetime]:
    return start + (end - start) * 0.5, start + (end - start) * last
