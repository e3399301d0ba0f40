"""The plan for one message: what happens to each recipient, why, and which copies are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from postseal.core.certs import Certificate
from postseal.core.ciphers import Choice, CipherRule, common
from postseal.core.fitness import key_family
from postseal.core.profile import profile
from postseal.core.reasons import CATALOGUE
from postseal.core.suite import KeyFamily, Suite
from postseal.core.text import address, escape

if TYPE_CHECKING:
    from postseal.core.policy import Cleared

T = TypeVar("T")


class Action(StrEnum):
    SEAL = "sealed"
    CLEAR = "clear"
    REFUSE = "refused"
    DEFER = "deferred"
    HOLD = "held"


@dataclass(frozen=True, slots=True)
class Warn:
    """A warning for the mail log beside a decision. ``error`` asks for priority err instead of warning."""

    code: str
    detail: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one recipient. ``reason`` is a catalogue code, ``rule`` the name of the rule that decided.

    ``doubted`` are fingerprints of certificates whose unknown revocation status alone keeps mail waiting, or ended that.
    ``choice`` says why it is ``suite``.
    """

    recipient: str
    action: Action
    reason: str
    rule: str
    detail: str = ""
    cleared: tuple[Cleared, ...] = ()
    suite: Suite | None = None
    warnings: tuple[Warn, ...] = ()
    doubted: tuple[str, ...] = ()
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One copy: the same bytes for all its recipients. ``suite`` None is the clear copy; ``family`` None with a suite is for
    keys of any family."""

    recipients: tuple[str, ...]
    suite: Suite | None
    family: KeyFamily | None
    cleared: tuple[Cleared, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """``decisions`` in the order of the recipients. ``deliveries`` is empty unless every decision is SEAL or CLEAR.

    ``deliveries[0]`` stays in the original message (edited in place; a sealed one whenever there is one), the others are
    re-injected.
    """

    decisions: tuple[Decision, ...]
    deliveries: tuple[Delivery, ...]

    @property
    def worst(self) -> Action:
        """REFUSE before DEFER before HOLD; else SEAL when anything is sealed, CLEAR when all goes as it came."""
        actions = {decision.action for decision in self.decisions}
        return next((action for action in _WORST_FIRST if action in actions), Action.CLEAR)


_WORST_FIRST = (Action.REFUSE, Action.DEFER, Action.HOLD, Action.SEAL, Action.CLEAR)


def deferred(recipients: Sequence[str], code: str, detail: str) -> Plan:
    """A plan that defers all for one ``sys.*`` or ``mail.*`` reason: what failed isn't the recipients' doing."""
    return Plan(tuple(Decision(recipient, Action.DEFER, code, "", detail) for recipient in recipients), ())


def outcomes(plan: Plan) -> tuple[Decision, ...]:
    """What really happens to each recipient: a message that isn't accepted for one is delivered to none."""
    if plan.deliveries or plan.worst in (Action.SEAL, Action.CLEAR):
        return plan.decisions
    return tuple(
        replace(d, action=plan.worst, reason="rcpt.with-others", detail="", cleared=(), suite=None, warnings=())
        if d.action in (Action.SEAL, Action.CLEAR)
        else d
        for d in plan.decisions
    )


def group(decisions: Sequence[Decision], join_families: bool = False) -> tuple[Delivery, ...]:
    """The copies that a plan needs (ALG-3): one per suite and kind of recipient, the largest first, then the clear one.

    With ``join_families`` one per suite.
    """
    sealed: dict[tuple[Suite, _Kind | None], list[Decision]] = {}
    clear: list[str] = []
    for decision in _told_apart(decisions):
        if decision.action is Action.CLEAR:
            clear.append(decision.recipient)
        elif decision.action is Action.SEAL and decision.suite and decision.cleared:
            kinds = {_kind(cleared) for cleared in decision.cleared}
            if len(kinds) > 1 and not join_families:
                raise ValueError("a recipient's certificates must be of one kind")
            sealed.setdefault((decision.suite, None if join_families else kinds.pop()), []).append(decision)
        else:
            return ()
    copies = [
        Delivery(
            _different([d.recipient for d in members]),
            suite,
            kind[0] if kind else None,
            _once_each([cleared for d in members for cleared in d.cleared]),
        )
        for (suite, kind), members in sealed.items()
    ]
    copies.sort(key=lambda copy: -len(copy.recipients))
    if clear:
        copies.append(Delivery(_different(clear), None, None))
    return tuple(copies)


def _told_apart(decisions: Sequence[Decision]) -> Sequence[Decision]:
    """A key identifier that two keys bear names neither: a reader tries the first, and gives up or shows rubbish.

    Such certificates are named by issuer and serial number.
    """
    shared = shared_key_ids([cleared for decision in decisions for cleared in decision.cleared])
    if not shared:
        return decisions
    return [
        replace(
            decision,
            cleared=tuple(
                replace(c, wrap=replace(c.wrap, by_key_id=c.wrap.by_key_id and _key_id(c.certificate) not in shared))
                for c in decision.cleared
            ),
        )
        for decision in decisions
    ]


def shared_key_ids(people: Sequence[Cleared]) -> frozenset[bytes]:
    """Subject key identifiers by which several keys would be named."""
    keys: dict[bytes, set[bytes]] = {}
    for cleared in people:
        if cleared.wrap.by_key_id:
            keys.setdefault(_key_id(cleared.certificate), set()).add(cleared.certificate.spki)
    return frozenset(key_id for key_id, owners in keys.items() if len(owners) > 1)


def _key_id(certificate: Certificate) -> bytes:
    return profile(certificate).subject_key_id or b""


_Kind = tuple[KeyFamily, bool]


def _kind(cleared: Cleared) -> _Kind:
    """What must not be mixed, because a reader then can't even find its own part.

    Key families, for older NSS (P16); and names of either form, since gpgsm gives up at the first key identifier.
    """
    family = key_family(cleared.certificate)
    if family is None:
        raise ValueError("a certificate was cleared that can't be sealed for")
    return family, cleared.wrap.by_key_id


def in_one_copy(plan: Plan, join_families: bool = False) -> Plan:
    """ALG-3: the plan with one suite for all, where there can't be several copies and each could get that one too."""
    sealed = [d for d in plan.decisions if d.action is Action.SEAL and d.choice is not None]
    shared = common(d.choice.others for d in sealed if d.choice is not None)
    if shared is None or all(d.suite is shared for d in sealed):
        return plan
    decisions = tuple(_sharing(d, shared) if d in sealed else d for d in plan.decisions)
    return Plan(decisions, group(decisions, join_families))


def _sharing(decision: Decision, suite: Suite) -> Decision:
    choice = decision.choice
    if choice is None or decision.suite is suite:
        return decision
    why = f"{suite} instead of {choice.suite}, so that one copy suits all recipients; {choice.why}"
    return replace(decision, suite=suite, choice=replace(choice, suite=suite, why=why))


def likely_suites(decisions: Sequence[Decision], rules: Mapping[str, CipherRule]) -> tuple[Suite, ...]:
    """The suites that a message will need as far as can be known before it has been judged for good; at least one."""
    found = {d.suite: None for d in decisions if d.suite is not None}
    for decision in decisions:
        rule = rules.get(decision.recipient)
        # What waits for evidence may still be sealed.
        if rule is not None and rule.unasked is not None and (decision.action is Action.DEFER or not found):
            found[rule.unasked] = None
    return tuple(found) or (Suite.AES_256_CBC,)


def _different(items: Sequence[T]) -> tuple[T, ...]:
    """Each once, in order. One alone isn't hashed: that goes through all that is known of a certificate."""
    return tuple(items) if len(items) < 2 else tuple(dict.fromkeys(items))


def _once_each(people: Sequence[Cleared]) -> tuple[Cleared, ...]:
    """Each certificate once, also one for two addresses that was judged in two ways (pinned for one of them)."""
    if len(people) < 2:
        return tuple(people)
    found: dict[object, Cleared] = {}
    for cleared in people:
        found.setdefault((cleared.certificate, cleared.wrap), cleared)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply for one recipient or a whole message. ``text`` is one line of printable ASCII, at most 900 characters.

    ``lines`` are the same text, one clause per recipient, for a reply of several lines (RFC 5321 §4.2.1). A ``%`` is not
    doubled; libmilter wants that of its caller.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "; ".join(self.lines)


_REPLY_MAX = 900
_CLAUSE_MAX = 300


def reply_for(plan: Plan) -> Reply | None:
    """The one reply to a message that isn't accepted, naming each recipient and reason, worst first.

    None when nothing is refused or deferred: the message is sealed, passed or held.
    """
    bad = [d for d in plan.decisions if d.action in (Action.REFUSE, Action.DEFER)]
    if not bad:
        return None
    bad.sort(key=lambda d: _WORST_FIRST.index(d.action))
    first = reply_to(bad[0])
    clauses = [clause for decision in bad for clause in reply_to(decision).lines]
    shown: list[str] = []
    for index, clause in enumerate(clauses):
        rest = len(clauses) - index
        more = f"and {rest} more"
        room = _REPLY_MAX - len("; ".join([*shown, clause])) - (0 if rest == 1 else len(f"; and {rest - 1} more"))
        if room < 0:
            shown.append(more)
            break
        shown.append(clause)
    return Reply(first.code, first.enhanced, tuple(shown))


def reply_to(decision: Decision) -> Reply:
    """The reply for one refused or deferred recipient. The class always fits the action: a DEFER is never a 5xx."""
    entry = CATALOGUE.get(decision.reason)
    code, enhanced = (entry.reply, entry.enhanced) if entry and entry.reply else (550, "5.7.1")
    # RFC 3463 §2: the class of the enhanced code is that of the reply.
    if decision.action is not Action.REFUSE and code >= 500:
        code, enhanced = 451, f"4{enhanced[1:]}"
    elif decision.action is Action.REFUSE and code < 500:
        code, enhanced = 550, f"5{enhanced[1:]}"
    sentence = entry.sentence if entry else decision.reason
    detail = f": {escape(decision.detail, _DETAIL_MAX)}" if decision.detail else ""
    clause = f"{address(decision.recipient)}: {sentence}{detail}"
    return Reply(code, enhanced, (_cut(clause),))


_DETAIL_MAX = 200


def _cut(clause: str) -> str:
    """Cut to what one line of a reply may hold; the clause is escaped already."""
    return clause if len(clause) <= _CLAUSE_MAX else f"{clause[: _CLAUSE_MAX - 3]}..."
