"""One message from MAIL to its end: collect, decide, seal. Knows no milter protocol and no socket.

The caller feeds what arrives and carries out the ``Outcome``; nothing is changed before everything has been computed (P10),
and whatever goes wrong on the way is a reply that makes the client try again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from threading import Lock

from postseal.app.assess import Assessment, Assessor
from postseal.app.content import Content, SealedForm
from postseal.app.doubting import Doubting
from postseal.app.journal import Journal
from postseal.app.outbound import Boundary, Client, Sender
from postseal.app.ports import Clock, DoubtMemory, MailLog, Reinjector, Spool
from postseal.core.address import Mailbox
from postseal.core.cms.classify import classify, smime_body
from postseal.core.cms.lines import LineCheck
from postseal.core.cms.smime import HeaderEdit, Split, split
from postseal.core.errors import BadData, Unavailable
from postseal.core.message import Field
from postseal.core.plan import (
    Action,
    Decision,
    Delivery,
    Plan,
    Reply,
    in_one_copy,
    likely_suites,
    reply_for,
    reply_to,
)
from postseal.core.policy import (
    MessageFacts,
    PolicySettings,
    Protection,
    RecipientFacts,
    Rule,
    Seal,
    decide,
    match_rule,
    rcpt_answer,
)
from postseal.core.reasons import reason
from postseal.core.text import address, escape

# Mail that says it is encrypted is decrypted back in memory to look at it; above this it is sealed once more, which is safe.
_CLASSIFY_MAX = 64 * 1024 * 1024
# Postfix waits milter_content_timeout for the end of a message as long as it hears something (P: progress every second).
_STEP = 1.0
_NO_QUEUE_ID = "NOQUEUE"
_MAIL_OPTIONS = ("BODY=8BITMIME", "SMTPUTF8", "RET=", "ENVID=")
_RCPT_OPTIONS = ("NOTIFY=", "ORCPT=")


@dataclass(frozen=True, slots=True)
class Accept:
    """The message goes on as it is. With ``hold`` it is held by the MTA for the administrator, with that text."""

    hold: str = ""


@dataclass(frozen=True, slots=True)
class Edits:
    """The message goes on sealed. To be done in one burst, header first; ``blocks`` are under 64 KiB each."""

    header: tuple[HeaderEdit, ...]
    delete_recipients: tuple[str, ...]
    blocks: Iterator[bytes]


Outcome = Accept | Edits | Reply


@dataclass(frozen=True, slots=True)
class SealSettings:
    """What of the configuration a message needs. ``message_size_limit`` 0 is none; ``budget`` in seconds."""

    rules: tuple[Rule, ...]
    boundary: Boundary
    policy: PolicySettings = field(default_factory=PolicySettings)
    budget: float = 3.0
    message_size_limit: int = 0
    max_messages: int = 100


class Workload:
    """How many messages this process works on: those that may be sealed are bounded (THR-32); a drain waits for all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._bounded = 0
        self.active = 0

    def enter(self, bounded: bool) -> bool:
        """Take a place; False when ``bounded`` and all places are taken."""
        with self._lock:
            if bounded and self._bounded >= self._limit:
                return False
            self._bounded += bounded
            self.active += 1
            return True

    def leave(self, bounded: bool) -> None:
        """Give it back, with the same ``bounded``."""
        with self._lock:
            self._bounded -= bounded
            self.active -= 1


@dataclass(frozen=True, slots=True)
class Sealing:
    """What all messages of a process share."""

    settings: SealSettings
    assessor: Assessor
    journal: Journal
    log: MailLog
    clock: Clock
    new_spool: Callable[[], Spool]
    reinjector: Reinjector | None
    workload: Workload
    doubts: DoubtMemory | None = None

    def begin(self, sender: str, client: Client, options: Sequence[str] = ()) -> MessageJob:
        """A message begins; ``sender`` and ``options`` as in MAIL. ``close`` the job whatever happens."""
        return MessageJob(self, sender, client, options)


@dataclass(slots=True)
class _Recipient:
    raw: str
    mailbox: Mailbox | None
    internal: bool
    never: bool
    rule: Rule
    options: tuple[str, ...]
    assessment: Assessment = field(default_factory=Assessment)
    doubted: tuple[tuple[str, datetime], ...] = ()

    @property
    def concerned(self) -> bool:
        """Can this recipient's mail be sealed at all?"""
        return self.mailbox is not None and not self.internal and not self.never

    def facts(self) -> RecipientFacts:
        found = self.assessment
        return RecipientFacts(
            self.raw, self.mailbox, self.internal, found.assessed, found.error, self.doubted, found.remembered
        )


class MessageJob:
    """One message. Calls come in the order of the SMTP dialogue; after an ``Outcome`` only ``sent`` and ``close`` follow.

    ``queue_id`` may be set as soon as the MTA tells it.
    """

    def __init__(self, sealing: Sealing, sender: str, client: Client, options: Sequence[str]) -> None:
        self._sealing = sealing
        self._settings = sealing.settings
        self._held_since = sealing.clock.monotonic()
        self.queue_id = ""
        # The queue ID may come late, and isn't told to the process that sees the Internet.
        self._name = secrets.token_hex(8)
        self._raw_sender = sender
        self._sender = Sender.parse(sender)
        self._options = tuple(o for o in options if o.upper().startswith(_MAIL_OPTIONS))
        self.not_outbound = self._settings.boundary.why_not_outbound(self._sender, client)
        self._recipients: dict[str, _Recipient] = {}
        self._fetches: list[Future[None]] = []
        self._last_fetch = self._held_since
        self._fields: list[Field] = []
        self._split = Split(b"")
        self._lines = LineCheck()
        self._content: Content | None = None
        self._record: tuple[Plan, MessageFacts, float, str] | None = None
        self._copied: list[str] = []
        # Mail that isn't ours costs next to nothing; slow strangers must not take the places of our own users.
        self._counted = sealing.workload.enter(not self.not_outbound)
        # What went wrong where no answer could be given; the next one gives it.
        self._failure: Reply | None = None
        if not self._counted:
            self._failure = _reply("sys.busy")
            sealing.journal.failed("sys.busy")
            sealing.log.warning(
                f"{_NO_QUEUE_ID}: from={address(sender)}: deferred, all {self._settings.max_messages} places for messages"
                " are taken (max_messages)"
            )
        elif self._sender.fault and not self.not_outbound:
            self._failure = _reply("mail.bad-sender", self._sender.fault)

    # --- the envelope

    def recipient(self, raw: str, options: Sequence[str] = ()) -> Reply | None:
        """One RCPT, the string exactly as given. A Reply refuses this recipient; None goes on."""
        if self._failure is not None:
            return self._failure
        if self.not_outbound or raw in self._recipients:
            self._recipients.setdefault(raw, self._unjudged(raw))
            return None
        recipient = self._recipient(raw, options)
        at = self._sealing.clock.now()
        if recipient.concerned and recipient.mailbox is not None:
            recipient.assessment = self._sealing.assessor.assess(recipient.mailbox, at)
        message = MessageFacts(self._sender.mailbox)
        if not recipient.assessment.missing:
            facts = recipient.facts()
            decision = rcpt_answer(facts, message, self._settings.rules, at, self._settings.policy)
            if decision is not None:
                self._journal(Plan((decision,), ()), message, [facts], "refused at RCPT")
                return reply_to(decision)
        elif self._settings.budget > 0:
            # Fetched while the rest of the message arrives.
            missing, budget = recipient.assessment.missing, self._settings.budget
            self._fetches.append(self._sealing.assessor.fetch(missing, budget, self._name))
            self._last_fetch = self._sealing.clock.monotonic()
        self._recipients[raw] = recipient
        return None

    def _unjudged(self, raw: str) -> _Recipient:
        return _Recipient(raw, None, False, True, self._settings.rules[-1], ())

    def _recipient(self, raw: str, options: Sequence[str]) -> _Recipient:
        mailbox, internal = self._settings.boundary.recipient(raw)
        rule = match_rule(self._settings.rules, self._sender.mailbox, mailbox)
        kept = tuple(o for o in options if o.upper().startswith(_RCPT_OPTIONS))
        return _Recipient(raw, mailbox, internal, rule.seal is Seal.NEVER, rule, kept)

    # --- the message

    def header(self, name: bytes, value: bytes) -> None:
        """One field as received; ``value`` with its leading space, folds with LF or CRLF."""
        if self._failure is None and not self.not_outbound:
            folded = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if b"\n" in value else value
            self._fields.append(Field(name, folded))

    def end_of_headers(self) -> Outcome | None:
        """Accept when there is nobody to seal for, so that the body isn't looked at; None when the body is wanted."""
        if self._failure is not None:
            return self._failure
        self._held_since = self._sealing.clock.monotonic()
        if self.not_outbound:
            decisions = tuple(Decision(raw, Action.CLEAR, "ok.not-outbound", "") for raw in self._recipients)
            self._set_record(Plan(decisions, ()), MessageFacts(self._sender.mailbox), self.not_outbound)
            return Accept()
        concerned = [r for r in self._recipients.values() if r.concerned]
        message = MessageFacts(self._sender.mailbox)
        plan = self._decide(message)
        certain = smime_body(self._fields) is None and not any(r.assessment.missing for r in concerned)
        if certain and plan.worst is Action.CLEAR:
            self._set_record(plan, message, "")
            return Accept()
        self._split = split(self._fields)
        # Without anybody to seal for the body is of no use: all that can be decided doesn't depend on it.
        if concerned and not self._split.fault:
            suites = likely_suites(plan.decisions, {r.raw: r.rule.ciphers for r in concerned})
            self._content = Content(suites, self._sealing.new_spool, self._split.inner)
        return None

    def body(self, chunk: bytes) -> None:
        """The next octets of the body, encrypted at once. Raises Unavailable when they can't be kept."""
        if self._content is not None and self._failure is None:
            self._lines.update(chunk)
            self._content.update(chunk)

    def fail(self, exc: BaseException) -> Reply:
        """An exception on the way: logged here, answered as soon as an answer can be given."""
        log = self._sealing.log
        name = escape(self.queue_id or _NO_QUEUE_ID)
        code = "sys.spool-unavailable" if isinstance(exc, Unavailable) else "sys.internal-error"
        self._failure = _reply(code)
        self._sealing.journal.failed(code)
        if isinstance(exc, Unavailable | BadData):
            log.error(f"{name}: {escape(str(exc))}; deferred")
        else:
            log.error(f"{name}: internal error, deferred: {traceback_text(exc)}")
        if self._copied:
            log.error(
                f"{name}: copies were delivered already to {', '.join(map(address, self._copied))}, although the message"
                " itself was not accepted; they will get it again when the client tries again"
            )
        self._record = None
        self._drop()
        return self._failure

    # --- the end

    def finish(self, progress: Callable[[], None]) -> Outcome:
        """The message has ended: wait for evidence within the budget, decide, build, re-inject. ``progress`` each second."""
        if self._failure is not None:
            return self._failure
        self._held_since = self._sealing.clock.monotonic()
        if self._content is not None:
            self._content.finish()
        self._await_evidence(progress)
        at = self._sealing.clock.now()
        doubting = Doubting(self._sealing.doubts, self._settings.policy, self._sealing.log.error)
        for recipient in self._recipients.values():
            if recipient.concerned and recipient.mailbox is not None:
                assessment = self._sealing.assessor.assess(recipient.mailbox, at)
                recipient.assessment = assessment
                recipient.doubted = doubting.recall(recipient.mailbox, assessment, recipient.rule, at)
        message = self._message_facts()
        decided = self._decide(message)
        doubting.record([r.facts() for r in self._recipients.values()], decided.decisions, at)
        plan = self._possible(decided)
        note = "" if message.protection is Protection.NONE else f"message is {message.protection.value}"
        if plan.worst in (Action.REFUSE, Action.DEFER, Action.HOLD) or not plan.deliveries:
            return self._not_sealed(plan, message, note)
        if plan.worst is Action.CLEAR:
            self._set_record(plan, message, note)
            return Accept()
        return self._seal(plan, message, note, progress)

    def sent(self) -> None:
        """The MTA has taken the outcome: write down what happened."""
        if self._record is not None:
            plan, message, delay, note = self._record
            self._record = None
            facts = [r.facts() for r in self._recipients.values()]
            self._journal(plan, message, facts, note, delay)

    def close(self) -> None:
        """The message is over, in whatever way. Harmless when done twice."""
        self._drop()
        if self._counted:
            self._counted = False
            self._sealing.workload.leave(not self.not_outbound)

    def _drop(self) -> None:
        if self._content is not None:
            self._content.close()
            self._content = None

    def _await_evidence(self, progress: Callable[[], None]) -> None:
        end = self._last_fetch + self._settings.budget
        pending = set(self._fetches)
        while pending and (left := end - self._sealing.clock.monotonic()) > 0:
            _, pending = wait(pending, min(left, _STEP))
            if pending:
                progress()

    def _message_facts(self) -> MessageFacts:
        protection = Protection.NONE
        if self._content is not None:
            claims = smime_body(self._fields) is not None and self._content.body_length <= _CLASSIFY_MAX
            protection = classify(self._fields, b"".join(self._content.body()) if claims else b"")
        fault, detail = self._split.fault, self._split.fault_detail
        return MessageFacts(self._sender.mailbox, protection, fault or self._lines.finish(), detail)

    def _decide(self, message: MessageFacts) -> Plan:
        facts = [r.facts() for r in self._recipients.values()]
        plan = decide(message, facts, self._settings.rules, self._sealing.clock.now(), self._settings.policy)
        if self._sealing.reinjector is not None:
            return plan
        return in_one_copy(plan, self._settings.policy.join_families)

    def _possible(self, plan: Plan) -> Plan:
        """The plan, or why this installation can't carry it out."""
        actions = {decision.action for decision in plan.decisions}
        if plan.worst is Action.HOLD and Action.SEAL in actions:
            # Held mail leaves as it came in when it is released; those for whom it must be sealed can't be with it.
            return _deferred(plan, "policy.mixed-hold")
        if len(plan.deliveries) > 1:
            if self._sealing.reinjector is None:
                return _deferred(plan, "policy.no-reinject")
            for delivery in plan.deliveries[1:]:
                for raw in delivery.recipients:
                    # P7: a recipient that isn't UTF-8 can't be named in delrcpt.
                    if not _encodable(raw):
                        return _deferred(plan, "sys.unwritable-address", only=raw)
        return plan

    def _not_sealed(self, plan: Plan, message: MessageFacts, note: str) -> Outcome:
        self._set_record(plan, message, note)
        held = [f"{address(d.recipient)}: {d.detail or d.reason}" for d in plan.decisions if d.action is Action.HOLD]
        return reply_for(plan) or (Accept(hold=escape("; ".join(held), 400)) if held else _reply("sys.internal-error"))

    def _seal(self, plan: Plan, message: MessageFacts, note: str, progress: Callable[[], None]) -> Outcome:
        content = self._content
        if content is None:
            raise RuntimeError("a plan seals a message whose content was not kept")
        forms = [content.sealed(d.suite, d.cleared) if d.suite else None for d in plan.deliveries]
        kept, first = plan.deliveries[0], forms[0]
        if first is None or kept.suite is None or not kept.recipients:
            raise RuntimeError("the copy in the original message is not sealed")
        head = sum(len(f.line) for f in self._split.outer(kept.suite)) + 2
        size = head + max(form.size for form in forms if form)
        limit = self._settings.message_size_limit
        if limit and size > limit:
            detail = f"{size} octets, the limit is {limit}"
            too_large = (replace(d, action=Action.REFUSE, reason="mail.too-large", detail=detail, cleared=(), suite=None)
                         for d in plan.decisions)  # fmt: skip
            return self._not_sealed(Plan(tuple(too_large), ()), message, note)
        # THR-12: the first block carries the egress assertion, so it is made before anything is sent.
        blocks = first.body()
        start = next(blocks)
        failed = self._reinject(plan.deliveries[1:], forms[1:], progress)
        if failed is not None:
            code, detail = failed
            action = Action.REFUSE if code == "sys.reinject-refused" else Action.DEFER
            decisions = (replace(d, action=action, reason=code, detail=detail, cleared=(), suite=None)
                         for d in plan.decisions)  # fmt: skip
            return self._not_sealed(Plan(tuple(decisions), ()), message, note)
        self._set_record(plan, message, note)
        moved = tuple(raw for delivery in plan.deliveries[1:] for raw in delivery.recipients)
        return Edits(self._split.edits(kept.suite), moved, chain((start,), blocks))

    def _reinject(
        self, deliveries: Sequence[Delivery], forms: Sequence[SealedForm | None], progress: Callable[[], None]
    ) -> tuple[str, str] | None:
        """Hand over all copies; (reason, detail) when one isn't taken."""
        for delivery, form in zip(deliveries, forms, strict=True):
            if self._sealing.reinjector is None:
                raise RuntimeError("copies without a listener for them")
            progress()
            options = {raw: self._recipients[raw].options for raw in delivery.recipients}
            try:
                self._sealing.reinjector.send(
                    self._raw_sender, delivery.recipients, self._copy(delivery, form),
                    mail_options=self._options, rcpt_options=options,
                )  # fmt: skip
            except (Unavailable, BadData) as exc:
                if self._copied:
                    self.fail(exc)
                return "sys.reinject-refused" if isinstance(exc, BadData) else "sys.reinject-failed", str(exc)
            self._copied += delivery.recipients
        return None

    def _copy(self, delivery: Delivery, form: SealedForm | None) -> Iterator[bytes]:
        """All octets of one copy, header first."""
        if form is not None and delivery.suite is not None:
            yield b"".join(f.line for f in self._split.outer(delivery.suite)) + b"\r\n"
            yield from form.body()
            return
        assert self._content is not None
        yield b"".join(f.line for f in self._fields) + b"\r\n"
        yield from self._content.body()

    def _set_record(self, plan: Plan, message: MessageFacts, note: str) -> None:
        self._record = plan, message, self._sealing.clock.monotonic() - self._held_since, note

    def _journal(
        self, plan: Plan, message: MessageFacts, facts: Sequence[RecipientFacts], note: str, delay: float = 0.0
    ) -> None:
        at = self._sealing.clock.now()
        queue_id = self.queue_id or _NO_QUEUE_ID
        self._sealing.journal.record(
            queue_id, self._raw_sender, message, facts, plan, at=at, delay=delay, note=note
        )  # fmt: skip


def _reply(code: str, detail: str = "") -> Reply:
    entry = reason(code)
    text = f"{entry.sentence}: {escape(detail, 200)}" if detail else entry.sentence
    return Reply(entry.reply or 451, entry.enhanced or "4.3.0", (text,))


def _deferred(plan: Plan, code: str, only: str | None = None) -> Plan:
    """The whole message waits for this reason; ``only`` names the one recipient who is to blame."""
    return Plan(
        tuple(
            replace(d, action=Action.DEFER, reason=code, detail="", cleared=(), suite=None, warnings=())
            if only in (None, d.recipient)
            else d
            for d in plan.decisions
        ),
        (),
    )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def traceback_text(exc: BaseException) -> str:
    """Type and places of an exception on one line. Its text isn't shown: it may quote the message."""
    places = []
    frame = exc.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{frame.tb_lineno} {code.co_name}")
        frame = frame.tb_next
    cause = f" ({exc.strerror})" if isinstance(exc, OSError) and exc.strerror else ""
    return f"{type(exc).__name__}{cause} at {' < '.join(reversed(places))}"
