"""What happened to a message: a line per recipient in the mail log, warnings beside it, a decision record and a count each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from postseal.app.metering import NO_METER, MailMeter
from postseal.app.ports import Clock, DecisionWriter, MailLog
from postseal.core.assess import Assessed
from postseal.core.ciphers import Source
from postseal.core.path import Path
from postseal.core.plan import Action, Decision, Plan, outcomes
from postseal.core.policy import MessageFacts, RecipientFacts
from postseal.core.reasons import CATALOGUE
from postseal.core.record import record_of
from postseal.core.revocation import Status, Verdict
from postseal.core.text import address, escape, value


class Journal:
    """Writes to the log and to the decision store; a failure of either never reaches the caller."""

    def __init__(self, log: MailLog, store: DecisionWriter | None, clock: Clock, meter: MailMeter = NO_METER) -> None:
        self._log = log
        self._store = store
        self._clock = clock
        self._meter = meter

    def record(
        self,
        queue_id: str,
        sender: str,
        message: MessageFacts,
        recipients: Sequence[RecipientFacts],
        plan: Plan,
        *,
        at: datetime,
        delay: float,
        note: str = "",
    ) -> None:
        """Everything about one message. ``at`` is when it was judged, ``delay`` the seconds that we held it up."""
        try:
            for decision in outcomes(plan):
                self._lines(queue_id, sender, decision, at, delay, note)
        except Exception as exc:
            self._log.error(f"{escape(queue_id)}: can't write the log lines: {type(exc).__name__}: {escape(str(exc))}")
        try:
            if self._store is not None:
                known = {facts.recipient: facts for facts in recipients}
                self._store.add(
                    [
                        record_of(
                            queue_id, sender, message, known.get(d.recipient), d, at=at, delay=delay, note=note
                        )
                        for d in outcomes(plan)
                    ]
                )  # fmt: skip
        except Exception as exc:
            self._log.error(f"{escape(queue_id)}: no decision record: {escape(str(exc) or type(exc).__name__)}")
        self._count(recipients, plan, delay)

    def failed(self, code: str) -> None:
        """A message was deferred although nothing was decided about it: too many at once, or something failed."""
        self._meter.failed(code)

    def _count(self, recipients: Sequence[RecipientFacts], plan: Plan, delay: float) -> None:
        for decision in outcomes(plan):
            self._meter.decided(decision.action.value, decision.reason)
        for facts in recipients:
            doubtful = next((v for a in facts.assessed for v in a.verdicts if v.doubt is not None), None)
            if doubtful is not None and doubtful.doubt is not None:
                self._meter.doubted(doubtful.doubt.value, doubtful.reason)
        # What is refused at RCPT hasn't been held up.
        if delay > 0:
            self._meter.took(delay)

    def close(self) -> None:
        """Write what is still waiting; for the end of a process."""
        if self._store is not None:
            self._store.close()

    def _lines(self, queue_id: str, sender: str, decision: Decision, at: datetime, delay: float, note: str) -> None:
        fields = journal_fields(queue_id, sender, decision)
        self._log.info(line(queue_id, sender, decision, at=at, delay=delay, note=note), fields)
        start = f"{escape(queue_id)}: to={address(decision.recipient)}: "
        for warning in decision.warnings:
            write = self._log.error if warning.error else self._log.warning
            write(start + escape(warning.detail), {**fields, "WARNING_CODE": warning.code})
        if decision.action in _NOT_ACCEPTED and not decision.warnings and decision.reason != "rcpt.with-others":
            entry = CATALOGUE.get(decision.reason)
            text = f"{entry.sentence if entry else decision.reason}{': ' if decision.detail else ''}{decision.detail}"
            write = self._log.error if decision.reason.startswith("sys.") else self._log.warning
            write(f"{start}{escape(text)}; {decision.action.value}", {**fields, "WARNING_CODE": decision.reason})


_NOT_ACCEPTED = (Action.REFUSE, Action.DEFER, Action.HOLD)


def line(queue_id: str, sender: str, decision: Decision, *, at: datetime, delay: float, note: str = "") -> str:
    """The line of one recipient (docs/operations: how to read the log)."""
    parts = [
        f"to={address(decision.recipient)}",
        f"from={address(sender)}",
        f"action={decision.action.value}",
        f"reason={value(decision.reason)}",
    ]
    if decision.cleared:
        cleared = decision.cleared[0]
        parts.append(f"cert=sha256:{cleared.certificate.fingerprint[:16]}")
        parts += _cipher(decision)
        parts += _revocation(cleared.assessed, at)
    parts += [f"rule={value(decision.rule)}"] if decision.rule else []
    parts.append(f"delay={max(0.0, delay):.3f}")
    parts += [f"note={value(note)}"] if note else []
    return f"{escape(queue_id)}: {', '.join(parts)}"


def journal_fields(queue_id: str, sender: str, decision: Decision) -> Mapping[str, str]:
    """What ``journalctl FIELD=value`` finds; addresses without brackets."""
    fields = {
        "QUEUE_ID": escape(queue_id),
        "SENDER": address(sender)[1:-1],
        "RECIPIENT": address(decision.recipient)[1:-1],
        "ACTION": decision.action.value,
        "REASON": escape(decision.reason),
        "RULE": escape(decision.rule),
    }
    if decision.cleared:
        fields["CERTIFICATE"] = decision.cleared[0].certificate.fingerprint
    return fields


def _cipher(decision: Decision) -> list[str]:
    """Cipher, key transport, and whose word raised them, if anybody's."""
    parts = [f"cipher={decision.suite.value}"] if decision.suite else []
    if decision.suite and decision.choice is not None:
        parts.append(f"key={decision.choice.key}")
        if decision.choice.source is not Source.NONE:
            parts.append(f"capabilities={decision.choice.source.value}")
    return parts


def _revocation(assessed: Assessed | None, at: datetime) -> list[str]:
    """The verdict that says most about the path: the first that isn't good, else the leaf's; and how old its evidence is."""
    if assessed is None or not isinstance(assessed.path, Path) or not assessed.verdicts:
        return []
    verdict: Verdict = next((v for v in assessed.verdicts if v.status is not Status.GOOD), assessed.verdicts[0])
    parts = [f"revocation={value(verdict.reason.removeprefix('rev.'))}/{verdict.status.value}"]
    if verdict.this_update is not None:
        parts.append(f"age={max(0, int((at - verdict.this_update).total_seconds()))}s")
    return parts
