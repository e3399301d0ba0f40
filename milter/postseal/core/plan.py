"""The plan for one message: what happens to each recipient, why, and which copies are sent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from postseal.core.cms.suite import KeyFamily, Suite

if TYPE_CHECKING:
    from postseal.core.policy import Cleared


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
    """What happens to one recipient. ``reason`` is a catalogue code, ``rule`` the name of the rule that decided."""

    recipient: str
    action: Action
    reason: str
    rule: str
    detail: str = ""
    cleared: tuple[Cleared, ...] = ()
    suite: Suite | None = None
    warnings: tuple[Warn, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One copy: the same bytes for all its recipients. ``suite`` None is the clear copy."""

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
        """REFUSE before DEFER before HOLD; else SEAL or CLEAR."""
        raise NotImplementedError  # owner: policy
