"""Policy: facts in, ``Plan`` out. Total and pure; clear text needs a rule that allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from postseal.core.address import Mailbox
from postseal.core.assess import Assessed
from postseal.core.certs import Certificate
from postseal.core.cms.suite import Suite
from postseal.core.plan import Plan


class Seal(StrEnum):
    NEVER = "never"
    MAY = "may"
    MUST = "must"


class WithoutCertificate(StrEnum):
    CLEAR = "clear"
    REFUSE = "refuse"
    DEFER = "defer"
    HOLD = "hold"


class Strictness(StrEnum):
    SOFT = "soft"
    STRICT = "strict"


class Protection(StrEnum):
    """What the message already is. CLAIMED_ONLY says that it is encrypted but doesn't parse: treated as plain."""

    NONE = "none"
    SIGNED = "signed"
    ENCRYPTED = "encrypted"
    CLAIMED_ONLY = "claimed-only"


@dataclass(frozen=True, slots=True)
class Pattern:
    """``any``, ``user@domain``, ``domain`` or ``.domain`` (any subdomain). Compared as RFC 8550 §3 says."""

    text: str

    def matches(self, mailbox: Mailbox | None) -> bool:
        raise NotImplementedError  # owner: policy


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[policy]]`` entry. First match decides; the last one is always a catch-all."""

    name: str
    recipients: tuple[Pattern, ...]
    senders: tuple[Pattern, ...]
    seal: Seal
    without_certificate: WithoutCertificate
    revocation: Strictness
    suite: Suite


@dataclass(frozen=True, slots=True)
class Cleared:
    """A certificate that policy allows mail to be encrypted to. Only this module makes one; core.cms takes nothing else."""

    certificate: Certificate
    assessed: Assessed | None


@dataclass(frozen=True, slots=True)
class RecipientFacts:
    """One envelope recipient. ``recipient`` is the string exactly as the MTA gave it (delrcpt compares it by octets)."""

    recipient: str
    mailbox: Mailbox | None
    internal: bool
    assessed: tuple[Assessed, ...] = ()
    directory_error: str = ""


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """``fault`` is a ``mail.*`` code when the message can't be sealed as it is (duplicate Content-Type, bare CR …)."""

    sender: Mailbox | None
    protection: Protection = Protection.NONE
    fault: str = ""
    fault_detail: str = ""


def match_rule(rules: Sequence[Rule], sender: Mailbox | None, recipient: Mailbox | None) -> Rule:
    raise NotImplementedError  # owner: policy


def decide(message: MessageFacts, recipients: Sequence[RecipientFacts], rules: Sequence[Rule], at: datetime) -> Plan:
    """The plan for a message. Never raises."""
    raise NotImplementedError  # owner: policy


def clear_by_operator(certificate: Certificate) -> Cleared:
    """For ``postseal seal --to``: the operator's own act; fitness has been checked by the caller, path and revocation not."""
    return Cleared(certificate, None)
