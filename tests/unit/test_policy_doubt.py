"""The knobs of doubt: which one decides, what it comes to, how long mail waits. Nothing of it ever leads to clear text."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from postseal.config import Config
from postseal.core.assess import Assessed
from postseal.core.path import AnchorSettings, Path
from postseal.core.plan import Action, Decision, reply_for
from postseal.core.policy import PolicySettings, RecipientFacts, Rule, decide, rcpt_answer
from postseal.core.reasons import CATALOGUE
from postseal.core.revocation import Status, Verdict
from postseal.core.verdict import OnNoneDeclared
from support.facts import (
    ALICE,
    ALICE_OLD,
    FORGED,
    GOOD,
    MESSAGE,
    NONE_DECLARED,
    OCSP_UNKNOWN,
    REVOKED,
    STALE,
    UNREACHABLE,
    assessed,
    recipient,
    rules,
)
from support.pki import NOW

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DOUBTS = {"on_unavailable": UNREACHABLE, "on_suspicious": FORGED, "on_none_declared": NONE_DECLARED,
          "on_ocsp_unknown": OCSP_UNKNOWN}  # fmt: skip
VALUES = {"on_unavailable": ("warn", "defer", "refuse"), "on_suspicious": ("warn", "defer", "refuse"),
          "on_none_declared": ("accept", "warn", "refuse"), "on_ocsp_unknown": ("warn", "defer", "refuse")}  # fmt: skip
EACH = [(name, value) for name, values in VALUES.items() for value in values]
USUAL = PolicySettings()
OUTCOME = {"accept": Action.SEAL, "warn": Action.SEAL, "defer": Action.DEFER, "refuse": Action.REFUSE}


def general(**knobs: object) -> PolicySettings:
    """As [revocation] would say it."""

    return Config.default(revocation=knobs).policy_settings


def one(
    facts: RecipientFacts, rule: tuple[Rule, ...], settings: PolicySettings = USUAL, at: datetime = NOW
) -> Decision:
    return decide(MESSAGE, [facts], rule, at, settings).decisions[0]


@pytest.mark.parametrize(("name", "value"), EACH)
@pytest.mark.parametrize("seal", ["may", "must"])
@pytest.mark.parametrize("ca", [False, True])
def test_each_group_has_its_general_knob(name: str, value: str, seal: str, ca: bool) -> None:
    """For the recipient's certificate and for a CA's alike; the warning names the knob, and so does the text of a refusal."""
    candidate = assessed(GOOD, DOUBTS[name]) if ca else assessed(DOUBTS[name])
    decision = one(recipient(candidate), rules(seal=seal), general(**{name: value}))
    assert decision.action is OUTCOME[value]
    texts = [w.detail for w in decision.warnings]
    if value == "accept":
        assert texts == []
    elif (name, value) == ("on_unavailable", "warn"):
        assert "sealed anyway (revocation=soft)" in texts[0]
    else:
        assert f"({name}={value}" in texts[0]
    others = [
        one(recipient(assessed(DOUBTS[n])), rules(), general(**{name: value})).action for n in DOUBTS if n != name
    ]
    usual = [one(recipient(assessed(DOUBTS[n])), rules()).action for n in DOUBTS if n != name]
    assert others == usual, "no knob touches another group"


@pytest.mark.parametrize(("name", "value"), EACH)
@pytest.mark.parametrize("revocation", ["soft", "strict"])
def test_a_rule_s_own_knob_comes_first(name: str, value: str, revocation: str) -> None:
    """Before the general one, and before strict."""
    rule = rules(revocation=revocation, **{name: value})
    for other in VALUES[name]:
        assert one(recipient(assessed(DOUBTS[name])), rule, general(**{name: other})).action is OUTCOME[value]


@pytest.mark.parametrize(("name", "value"), EACH)
def test_strict_never_seals_what_is_unknown(name: str, value: str) -> None:
    """A general "warn" or "accept" is for soft rules; a general "refuse" or "defer" is for both."""
    decision = one(recipient(assessed(DOUBTS[name])), rules(revocation="strict"), general(**{name: value}))
    waits = Action.DEFER if name in ("on_unavailable", "on_suspicious") else Action.REFUSE
    assert decision.action is (waits if value in ("accept", "warn") else OUTCOME[value])


def below(anchor: OnNoneDeclared) -> Assessed:
    found = assessed(NONE_DECLARED)
    assert isinstance(found.path, Path)
    settings = AnchorSettings(on_none_declared=anchor)
    return replace(found, path=replace(found.path, anchor=replace(found.path.anchor, settings=settings)))


def test_an_anchor_has_a_say_about_certificates_without_a_source() -> None:
    """A private CA without CRLs is trusted as it is, also under strict; a rule's own word still comes first."""
    for rule in (rules(), rules(revocation="strict")):
        accepted = one(recipient(below(OnNoneDeclared.ACCEPT)), rule, general(on_none_declared="refuse"))
        assert (accepted.action, accepted.warnings) == (Action.SEAL, ())
        assert one(recipient(below(OnNoneDeclared.REFUSE)), rule).action is Action.REFUSE
    own = rules(on_none_declared="refuse")
    assert one(recipient(below(OnNoneDeclared.ACCEPT)), own).action is Action.REFUSE


def test_an_unknown_certificate_isn_t_used_by_default() -> None:
    """RFC 6960 §2.2: the OCSP status unknown is not good; without a CRL that knows better the certificate isn't used."""
    decision = one(recipient(assessed(OCSP_UNKNOWN)), rules())
    assert (decision.action, decision.reason) == (Action.REFUSE, "rcpt.revocation-refused")
    reply = reply_for(decide(MESSAGE, [recipient(assessed(OCSP_UNKNOWN))], rules(), NOW))
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.7.5")
    other = assessed(GOOD, certificate=ALICE_OLD)
    assert one(recipient(assessed(OCSP_UNKNOWN), other), rules()).cleared[0].certificate is ALICE_OLD


@pytest.mark.parametrize("done", ["clear", "refuse", "defer", "hold"])
def test_a_refused_doubt_is_no_way_to_clear_text(done: str) -> None:
    """RPL-6: who blocks evidence must not win clear text by it; every other answer for "no certificate" stands."""
    decision = one(
        recipient(assessed(UNREACHABLE), assessed(REVOKED, certificate=ALICE_OLD)),
        rules(without_certificate=done, on_unavailable="refuse"),
    )
    expected = {"clear": Action.REFUSE, "refuse": Action.REFUSE, "defer": Action.DEFER, "hold": Action.HOLD}
    assert decision.action is expected[done]
    if decision.action is Action.REFUSE:
        assert decision.reason == "rcpt.revocation-refused"


def waiting(candidate: Assessed, since: datetime) -> RecipientFacts:
    return recipient(candidate, doubted=((ALICE.fingerprint, since),))


@pytest.mark.parametrize("done", ["clear", "refuse", "defer", "hold"])
def test_t06_strict_waits_until_give_up_then_refuses(done: str) -> None:
    """T-6: 451 until give_up after the first one, then 550 with a reason of its own, whatever without_certificate says."""
    strict = rules(revocation="strict", without_certificate=done)
    settings = general(give_up="6 h")
    late = {hours: one(waiting(assessed(UNREACHABLE), NOW - hours * HOUR), strict, settings) for hours in (0, 5, 6, 99)}
    assert [d.action for d in late.values()] == [Action.DEFER, Action.DEFER, Action.REFUSE, Action.REFUSE]
    assert {d.reason for d in late.values()} == {"rcpt.revocation-unknown", "rcpt.revocation-given-up"}
    assert all(d.doubted == (ALICE.fingerprint,) for d in late.values())
    assert "deferred (revocation=strict), until 2026-06-01 13:00 UTC at the latest" in late[5].warnings[0].detail
    assert "since 2026-06-01 06:00 UTC; not used, refused (revocation=strict, give_up)" in late[6].warnings[0].detail
    assert (late[5].warnings[0].error, late[6].warnings[0].error) == (False, True)
    reply = reply_for(decide(MESSAGE, [waiting(assessed(UNREACHABLE), NOW - DAY)], strict, NOW, settings))
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.7.5")
    good = one(waiting(assessed(GOOD), NOW - 9 * DAY), strict, settings)
    assert (good.action, good.doubted) == (Action.SEAL, ())


def test_mail_waits_while_any_certificate_may_turn_out_good() -> None:
    """One certificate given up, another in fresh doubt: 451; and a good one is used at once."""
    strict = rules(revocation="strict")
    old = assessed(UNREACHABLE, certificate=ALICE_OLD)
    facts = recipient(assessed(UNREACHABLE), old, doubted=((ALICE.fingerprint, NOW - 9 * DAY),))
    assert one(facts, strict).action is Action.DEFER
    good = recipient(
        assessed(UNREACHABLE), replace(old, verdicts=(GOOD, GOOD)), doubted=((ALICE.fingerprint, NOW - 9 * DAY),)
    )
    assert one(good, strict).action is Action.SEAL


def test_nothing_that_may_change_is_said_at_rcpt() -> None:
    """Evidence may come until the end of the message."""
    strict = rules(revocation="strict")
    both = recipient(assessed(NONE_DECLARED), assessed(OCSP_UNKNOWN, certificate=ALICE_OLD))
    for facts in (waiting(assessed(UNREACHABLE), NOW - 9 * DAY), recipient(assessed(OCSP_UNKNOWN)), both):
        assert rcpt_answer(facts, MESSAGE, strict, NOW) is None
    # For a certificate that names no source none is on its way.
    answer = rcpt_answer(recipient(assessed(NONE_DECLARED)), MESSAGE, strict, NOW)
    assert answer is not None
    assert answer.reason == "rcpt.revocation-refused"


@pytest.mark.parametrize(
    ("ca", "hours", "error"),
    [
        (False, 1, False),
        (False, 24, False),
        (False, 25, True),
        (True, 25, False),
        (True, 168, False),
        (True, 169, True),
    ],
)
def test_stale_crls_have_some_grace(ca: bool, hours: int, error: bool) -> None:
    """CACHE-6: under soft a CRL that ended is worth a warning for a while (a day; a week for those of CAs), then an error."""
    stale = replace(STALE, expired_at=NOW - hours * HOUR)
    decision = one(recipient(assessed(GOOD, stale) if ca else assessed(stale)), rules())
    assert decision.action is Action.SEAL
    assert [w.error for w in decision.warnings] == [error]
    assert ("stale_grace)" in decision.warnings[0].detail) is not error


def test_after_the_grace_the_knob_decides() -> None:
    """CACHE-6: also where on_unavailable isn't warn, a late CA doesn't stop mail at once; under strict there is no grace."""
    early, late = (recipient(assessed(replace(STALE, expired_at=NOW - hours * HOUR))) for hours in (2, 25))
    assert one(early, rules(on_unavailable="refuse")).action is Action.SEAL
    assert one(late, rules(on_unavailable="refuse")).action is Action.REFUSE
    assert one(early, rules(), general(stale_grace="1 h", on_unavailable="defer")).action is Action.DEFER
    assert one(early, rules(revocation="strict")).action is Action.DEFER


def test_ocsp_answers_and_forgeries_have_no_grace() -> None:
    """CACHE-6: never for OCSP (no expired_at), and not when something looks forged besides."""
    by_ocsp = replace(STALE, expired_at=None)
    decision = one(recipient(assessed(by_ocsp)), rules(on_unavailable="defer"))
    assert (decision.action, decision.warnings[0].error) == (Action.DEFER, True)
    forged = replace(STALE, expired_at=NOW - HOUR, suspicious=True)
    assert one(recipient(assessed(forged)), rules(on_suspicious="refuse")).action is Action.REFUSE


def test_a_ca_that_suddenly_has_no_evidence_is_an_error() -> None:
    """RPL-6: not only a warning in the log."""
    for alarming in (False, True):
        decision = one(recipient(assessed(replace(UNREACHABLE, alarming=alarming))), rules())
        assert [w.error for w in decision.warnings] == [alarming]


def test_every_unknown_verdict_comes_to_something() -> None:
    """No reason falls through: with every knob at refuse, nothing unknown is used."""

    closed = general(on_unavailable="refuse", on_suspicious="refuse", on_none_declared="refuse", stale_grace=0)
    for code in (c for c in CATALOGUE if c.startswith("rev.")):
        decision = one(recipient(assessed(Verdict(Status.UNKNOWN, code))), rules(), closed)
        assert decision.action in (Action.REFUSE, Action.CLEAR), code
        assert (decision.action is Action.CLEAR) == (code == "rev.listed-unsupported"), code
