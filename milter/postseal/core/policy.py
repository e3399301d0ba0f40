"""Policy: facts in, ``Plan`` out. Total and pure; clear text needs a rule that allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from postseal.core.address import Mailbox, domain_to_ascii, parse_mailbox
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


class OnSuspicious(StrEnum):
    """What ``soft`` does with evidence that looks forged. Who can forge can also block, so refusing buys little."""

    WARN = "warn"
    DEFER = "defer"


class OnNoneDeclared(StrEnum):
    """What ``soft`` does with a certificate that names no revocation source."""

    ACCEPT = "accept"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Knobs that apply to all rules (facts §1.1, the UNKNOWN rows)."""

    on_suspicious: OnSuspicious = OnSuspicious.WARN
    on_none_declared: OnNoneDeclared = OnNoneDeclared.WARN


@dataclass(frozen=True, slots=True)
class Pattern:
    """``any``, ``user@domain``, ``domain`` or ``.domain`` (any subdomain). Compared as RFC 8550 §3 says."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """A pattern as an administrator writes it, with the domain in A-labels and lower case. Raises BadData."""
        if text == "any":
            return cls(text)
        if "@" in text:
            return cls(str(parse_mailbox(text)))
        dot = "." if text.startswith(".") else ""
        return cls(dot + domain_to_ascii(text.removeprefix(".")))

    def matches(self, mailbox: Mailbox | None) -> bool:
        """``any`` matches all, the null sender included; nothing else matches None."""
        if self.text == "any":
            return True
        if mailbox is None:
            return False
        if "@" in self.text:
            return _mailbox(self.text).matches(mailbox)
        if self.text.startswith("."):
            return mailbox.domain.endswith(self.text)
        return mailbox.domain == self.text


@lru_cache(maxsize=4096)
def _mailbox(text: str) -> Mailbox:
    return parse_mailbox(text)


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

    @property
    def catch_all(self) -> bool:
        """Does the rule match every sender and recipient?"""
        return _ANY in self.recipients and _ANY in self.senders


_ANY = Pattern("any")


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
