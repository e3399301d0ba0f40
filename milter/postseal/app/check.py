"""What would happen to mail for an address now: the milter's own judgement, without a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from postseal.app.assess import Assessment, Assessor
from postseal.app.doubting import Doubting
from postseal.app.ports import Clock
from postseal.core.address import Mailbox
from postseal.core.plan import Action, Decision
from postseal.core.policy import MessageFacts, PolicySettings, RecipientFacts, Rule, decide, match_rule


@dataclass(frozen=True, slots=True)
class Checked:
    """The decision for one address, and all that it rests on."""

    mailbox: Mailbox
    decision: Decision
    assessment: Assessment
    at: datetime

    @property
    def sealed(self) -> bool:
        return self.decision.action is Action.SEAL


def check(
    mailbox: Mailbox,
    sender: Mailbox | None,
    *,
    internal: bool,
    assessor: Assessor,
    rules: Sequence[Rule],
    settings: PolicySettings,
    clock: Clock,
    budget: float,
    doubting: Doubting,
) -> Checked:
    """Judge ``mailbox`` as the milter would for a message from ``sender``; waits up to ``budget`` seconds for evidence."""
    at = clock.now()
    assessment = assessor.assess(mailbox, at)
    if assessment.missing and budget > 0 and not internal:
        assessor.fetch(assessment.missing, budget).result()
        at = clock.now()
        assessment = assessor.assess(mailbox, at)
    doubted = doubting.recall(mailbox, assessment, match_rule(rules, sender, mailbox), at)
    facts = RecipientFacts(
        str(mailbox), mailbox, internal, assessment.assessed, assessment.error, doubted, assessment.remembered
    )
    plan = decide(MessageFacts(sender), (facts,), rules, at, settings)
    return Checked(mailbox, plan.decisions[0], assessment, at)
