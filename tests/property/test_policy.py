"""Over all combinations of facts: no clear text without a rule that allows it, nothing sealed for a revoked certificate."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core.assess import Assessed, Finding
from postseal.core.certs import Certificate
from postseal.core.ciphers import CipherRule, Pack
from postseal.core.doubts import NO_KNOBS, DoubtKnobs, OnDoubt
from postseal.core.path import PathFault
from postseal.core.plan import Action, Plan, outcomes, reply_for
from postseal.core.policy import (
    MessageFacts,
    PolicySettings,
    Protection,
    RecipientFacts,
    Rule,
    Seal,
    Strictness,
    WithoutCertificate,
    decide,
    match_rule,
    rcpt_answer,
)
from postseal.core.policy import Pattern as P
from postseal.core.revocation import Status
from postseal.core.suite import Suite
from postseal.core.verdict import OnNoneDeclared
from support.facts import ALICE, ALICE_EC, ALICE_OLD, SENDER, VERDICTS, assessed, recipient, without_path
from support.pki import NOW

verdicts = st.sampled_from(list(VERDICTS.values()))
certificates = st.sampled_from([ALICE, ALICE_OLD, ALICE_EC])
findings = st.lists(st.builds(Finding, st.just("cert.key-usage"), st.just("no"), st.booleans()), max_size=2).map(tuple)


@st.composite
def candidates(draw: st.DrawFn) -> Assessed:
    certificate: Certificate = draw(certificates)
    if draw(st.integers(0, 5)) == 0:
        return without_path(certificate=certificate)
    return assessed(draw(verdicts), draw(verdicts), certificate=certificate, findings=draw(findings))


@st.composite
def people(draw: st.DrawFn) -> RecipientFacts:
    known = draw(st.lists(candidates(), max_size=3))
    address = f"user{draw(st.integers(0, 9))}@{draw(st.sampled_from(['a', 'b', 'c']))}.example"
    error = draw(st.sampled_from(["", "", "", "gone"]))
    hours = draw(st.lists(st.tuples(certificates, st.integers(-1, 99)), max_size=2))
    doubted = tuple((c.fingerprint, NOW - timedelta(hours=n)) for c, n in hours)
    internal = draw(st.integers(0, 5)) == 0
    if draw(st.integers(0, 9)) == 0:
        return RecipientFacts("<bad address>", None, internal, tuple(known), error, doubted)
    return recipient(*known, address=address, internal=internal, directory_error=error, doubted=doubted)


KNOBS = (OnDoubt, OnDoubt, OnNoneDeclared, OnDoubt)
cipher_rules = st.builds(
    CipherRule, st.sampled_from(Pack), st.none() | st.sampled_from(Suite), st.sampled_from(Suite), st.sampled_from(Suite)
).filter(lambda rule: not rule.contradiction())  # fmt: skip
rule_lists = st.lists(
    st.builds(
        Rule, st.sampled_from(["r1", "r2"]), st.sampled_from([(P("any"),), (P("a.example"),), (P("b.example"),)]),
        st.just((P("any"),)), st.sampled_from(Seal), st.sampled_from(WithoutCertificate), st.sampled_from(Strictness),
        cipher_rules, doubt=st.builds(DoubtKnobs, *(st.none() | st.sampled_from(k) for k in KNOBS)),
    ),
    max_size=3,
)  # fmt: skip
messages = st.builds(
    MessageFacts,
    st.sampled_from([SENDER, None]),
    st.sampled_from(Protection),
    st.sampled_from(["", "", "mail.bare-cr"]),
)
knobs = st.builds(
    PolicySettings, st.sampled_from(OnDoubt), st.sampled_from(OnNoneDeclared), st.sampled_from(OnDoubt),
    st.sampled_from(OnDoubt),
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(messages, st.lists(people(), max_size=4), rule_lists, knobs)
def test_safety_over_all_facts(
    message: MessageFacts, recipients: list[RecipientFacts], rules: list[Rule], knob: PolicySettings
) -> None:
    plan = decide(message, recipients, rules, NOW, knob)
    assert [d.recipient for d in plan.decisions] == [r.recipient for r in recipients]
    for facts, decision in zip(recipients, plan.decisions, strict=True):
        assert (decision.action is Action.SEAL) == bool(decision.cleared)
        if decision.action is Action.CLEAR:
            assert_clear_is_allowed(message, facts, rules)
        assert decision.reason != "sys.internal-error" or "no rule matches" in decision.detail
        for cleared in decision.cleared:
            assert cleared.assessed in facts.assessed
            assert_sealable(cleared.assessed, facts, message, rules)
    assert_deliveries(plan)
    for facts in recipients:
        answer = rcpt_answer(facts, message, rules, NOW, knob)
        assert answer is None or answer.action in (Action.REFUSE, Action.DEFER)


def assert_clear_is_allowed(message: MessageFacts, facts: RecipientFacts, rules: list[Rule]) -> None:
    """Written from the manual, not from the code: who may get clear text at all?"""
    if facts.internal or message.protection is Protection.ENCRYPTED:
        return
    rule = match_rule(rules, message.sender, facts.mailbox)
    if rule.seal is Seal.NEVER:
        return
    assert rule.seal is Seal.MAY
    assert rule.without_certificate is WithoutCertificate.CLEAR
    assert facts.mailbox is not None
    assert not facts.directory_error
    # RPL-6: doubt never opens the way. Who has a certificate whose status is merely unknown gets no clear text, under any knob.
    assert not [
        a
        for a in facts.assessed
        if not isinstance(a.path, PathFault)
        and not any(f.fatal for f in a.findings)
        and not any(v.forbids for v in a.verdicts)
    ]


def assert_sealable(
    assessment: Assessed | None, facts: RecipientFacts, message: MessageFacts, rules: list[Rule]
) -> None:
    assert assessment is not None
    assert not isinstance(assessment.path, PathFault)
    assert not any(f.fatal for f in assessment.findings)
    assert all(v.status is not Status.REVOKED for v in assessment.verdicts)
    assert all(v.reason != "rev.listed-unsupported" for v in assessment.verdicts)
    assert not message.fault
    rule = match_rule(rules, message.sender, facts.mailbox)
    if rule.revocation is Strictness.STRICT and rule.doubt == NO_KNOBS:
        assert all(v.status is Status.GOOD for v in assessment.verdicts)
    if rule.doubt.on_unavailable is OnDoubt.REFUSE:
        assert not any(v.reason == "rev.unreachable" for v in assessment.verdicts)


def assert_deliveries(plan: Plan) -> None:
    """All or nothing, and never clear and sealed recipients in one copy."""
    bad = [d for d in plan.decisions if d.action not in (Action.SEAL, Action.CLEAR)]
    if bad:
        assert plan.deliveries == ()
        assert plan.worst not in (Action.SEAL, Action.CLEAR)
        assert (reply_for(plan) is None) == (plan.worst is Action.HOLD)
        assert all(d.action not in (Action.SEAL, Action.CLEAR) for d in outcomes(plan))
        return
    assert reply_for(plan) is None
    sealed = {d.recipient for d in plan.decisions if d.action is Action.SEAL}
    for copy in plan.deliveries:
        if copy.suite is None:
            assert copy is plan.deliveries[-1]
            assert not copy.cleared
            assert {d.action for d in plan.decisions if d.recipient in copy.recipients} >= {Action.CLEAR}
        else:
            assert set(copy.recipients) <= sealed
            assert copy.cleared
    assert {r for copy in plan.deliveries for r in copy.recipients} == {d.recipient for d in plan.decisions}
