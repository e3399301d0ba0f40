"""Memory of doubt around a decision: since when mail waits for a certificate's status before it, what has changed after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from postseal.app.assess import Assessment
from postseal.app.ports import DoubtMemory
from postseal.core.address import Mailbox
from postseal.core.assess import Assessed
from postseal.core.errors import Unavailable
from postseal.core.path import PathFault
from postseal.core.plan import Decision
from postseal.core.policy import PolicySettings, RecipientFacts, Rule
from postseal.core.revocation import Status
from postseal.core.text import escape


class Doubting:
    """Without its memory mail in doubt still waits, it is only never refused for having waited too long.

    ``tell`` hears what is wrong with the memory, as one sentence.
    """

    def __init__(self, memory: DoubtMemory | None, settings: PolicySettings, tell: Callable[[str], None]) -> None:
        self._memory = memory
        self._settings = settings
        self._tell = tell

    def recall(
        self, mailbox: Mailbox, assessment: Assessment, rule: Rule, at: datetime
    ) -> tuple[tuple[str, datetime], ...]:
        """Which of the certificates are in doubt already, and since when; nothing under rules that never let mail wait."""
        if self._memory is None or not assessment.assessed or not rule.may_defer(self._settings):
            return ()
        names = [a.candidate.certificate.fingerprint for a in assessment.assessed]
        try:
            return self._memory.since(mailbox.folded, names, at)
        except Unavailable as exc:
            self._tell(f"can't find out since when mail waits: {escape(str(exc))}")
            return ()

    def record(self, recipients: Sequence[RecipientFacts], decisions: Sequence[Decision], at: datetime) -> None:
        """Note the doubts that decided, and forget those that are over."""
        if self._memory is None:
            return
        try:
            for facts, decision in zip(recipients, decisions, strict=True):
                if facts.mailbox is None:
                    continue
                if decision.doubted:
                    self._memory.note(facts.mailbox.folded, decision.doubted, at)
                known = {name for name, _ in facts.doubted} & set(map(_name, filter(_all_good, facts.assessed)))
                if known:
                    self._memory.clear(facts.mailbox.folded, sorted(known))
        except Unavailable as exc:
            self._tell(f"can't note since when mail waits: {escape(str(exc))}")


def _name(assessed: Assessed) -> str:
    return assessed.candidate.certificate.fingerprint


def _all_good(assessed: Assessed) -> bool:
    return not isinstance(assessed.path, PathFault) and all(v.status is Status.GOOD for v in assessed.verdicts)
