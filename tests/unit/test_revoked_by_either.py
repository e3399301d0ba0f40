"""T-1: a recipient revoked by a CRL, by OCSP, or by one of them while the other says good, in every order, by every rule."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest

from postseal.app.seal import Accept, Edits
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question
from postseal.core.plan import Action
from postseal.core.policy import decide
from postseal.core.revocation import Order, RevocationSettings, Status, judge
from support import facts
from support.evidence import CRL_URL, OCSP_URL, Answer, Ocsp, crl, entry, reason
from support.facts import ALICE, MESSAGE, SUB
from support.mailworld import World
from support.pki import DAY, HOUR, NOW, Leaf

ALICE_LEAF = Leaf(ALICE, SUB.key)
QUESTION = Question(ALICE, SUB.certificate, (CRL_URL,), (OCSP_URL,))
CRL_GOOD = CrlEvidence(parse_crl(crl(SUB)), CRL_URL, NOW)
CRL_BAD = CrlEvidence(parse_crl(crl(SUB, [entry(ALICE_LEAF, reason(1))])), CRL_URL, NOW)
DOWN = NoAnswer(CRL_URL, "rev.unreachable", "connection refused", NOW)


def ocsp(status: str, age: timedelta = HOUR) -> OcspEvidence:
    answer = Answer(ALICE_LEAF, SUB, status, this_update=NOW - age, reason=1 if status == "revoked" else None)
    return OcspEvidence(Ocsp([answer], SUB, produced_at=NOW - age).der(), OCSP_URL, NOW)


CASES: dict[str, tuple[tuple[Evidence, ...], str]] = {
    "CRL alone": ((CRL_BAD,), CRL_URL),
    "OCSP alone": ((ocsp("revoked"),), OCSP_URL),
    "OCSP, and the CRL can't be had": ((DOWN, ocsp("revoked")), OCSP_URL),
    "the CRL says good, OCSP revoked": ((CRL_GOOD, ocsp("revoked")), OCSP_URL),
    "the CRL says revoked, OCSP good": ((CRL_BAD, ocsp("good")), CRL_URL),
    "the CRL says revoked, newer OCSP good": ((CRL_BAD, ocsp("good", timedelta(0))), CRL_URL),
    "the CRL says good, older OCSP revoked": ((CRL_GOOD, ocsp("revoked", 20 * HOUR)), OCSP_URL),
    "OCSP revoked, and unknown besides": ((ocsp("unknown"), ocsp("revoked")), OCSP_URL),
}


@pytest.mark.parametrize(("order", "revocation", "seal"), list(product(Order, ("soft", "strict"), ("may", "must"))))
@pytest.mark.parametrize("case", CASES)
def test_t01_never_sealed_for(case: str, order: Order, revocation: str, seal: str) -> None:
    """T-1, RPL-4: never sealed for, in soft or hard; the log has source, reason and date."""
    evidence, source = CASES[case]
    for listed in (evidence, evidence[::-1]):
        verdict = judge(QUESTION, listed, RevocationSettings(order=order), NOW)
        assert (verdict.status, verdict.source, verdict.revocation_reason) == (Status.REVOKED, source, "keyCompromise")
        decision = decide(
            MESSAGE, [facts.recipient(facts.assessed(verdict))], facts.rules(revocation=revocation, seal=seal), NOW
        )
        outcome = decision.decisions[0]
        assert outcome.action is (Action.CLEAR if seal == "may" else Action.REFUSE)
        assert outcome.cleared == ()
        [warning] = outcome.warnings
        assert f"was revoked on 2026-05-31 (keyCompromise), says {source}" in warning.detail


@pytest.mark.parametrize("revocation", ["soft", "strict"])
def test_t01_through_a_message(revocation: str) -> None:
    """T-1: only OCSP knows. Under "must" the message is refused, under "may" it goes as it came, never sealed for the key."""
    for seal, done in (("must", "refuse"), ("may", "clear")):
        rule = {"name": "all", "seal": seal, "without_certificate": done, "revocation": revocation}
        world = World(policy=[rule], budget=0.0)
        leaf = world.root.issue("b@example.test", slot="b", crl_urls=[CRL_URL], ocsp_urls=[OCSP_URL])
        world.known["b@example.test"] = [leaf.certificate]
        answer = Answer(leaf, world.root, "revoked", this_update=NOW - HOUR)
        world.stored = (
            CrlEvidence(parse_crl(crl(world.root)), CRL_URL, NOW),
            OcspEvidence(Ocsp([answer], world.root, produced_at=NOW - HOUR).der(), OCSP_URL, NOW),
        )
        outcome, refused = world.send(["<b@example.test>"], b"Subject: x\r\n\r\nplain\r\n")
        assert not isinstance(outcome, Edits)
        # Refused at RCPT, nothing is left of the message.
        assert isinstance(outcome, Accept)
        assert bool(refused) == (seal == "must")
        assert "was revoked on" in world.log.text
        assert OCSP_URL in world.log.text


def test_t01_a_good_one_beside_it_is_used() -> None:
    """T-1: another certificate of the same recipient."""
    revoked = facts.assessed(judge(QUESTION, (ocsp("revoked"),), RevocationSettings(), NOW))
    other = facts.assessed(facts.GOOD, certificate=facts.ALICE_OLD)
    plan = decide(MESSAGE, [facts.recipient(revoked, other)], facts.rules(), NOW + DAY)
    assert plan.decisions[0].cleared[0].certificate is facts.ALICE_OLD
