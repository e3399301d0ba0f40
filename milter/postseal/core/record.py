"""A decision as a plain record: everything that ``postseal explain`` needs to draw it as a tree, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from postseal.core.address import Mailbox
from postseal.core.assess import Assessed
from postseal.core.certs import Certificate
from postseal.core.choice import losers, ranked
from postseal.core.path import PathFault
from postseal.core.plan import Decision
from postseal.core.policy import MessageFacts, RecipientFacts
from postseal.core.revocation import Verdict

# A recipient with hundreds of certificates must not fill the disk.
_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One recipient of one message. ``sender`` and ``recipient`` are the look-up keys of their mailboxes, or raw text."""

    at: datetime
    queue_id: str
    sender: str
    recipient: str
    action: str
    reason: str
    rule: str
    details: Mapping[str, Any]


def record_of(
    queue_id: str,
    sender: str,
    message: MessageFacts,
    facts: RecipientFacts | None,
    decision: Decision,
    *,
    at: datetime,
    delay: float,
    note: str,
) -> DecisionRecord:
    """The record of one decision. ``facts`` None means that nothing was found out about the recipient."""
    mailbox = facts.mailbox if facts else None
    used = [cleared.assessed for cleared in decision.cleared]
    assessed = facts.assessed if facts else ()
    return DecisionRecord(
        at=at,
        queue_id=queue_id,
        sender=message.sender.folded if message.sender else _bare(sender),
        recipient=mailbox.folded if mailbox else _bare(decision.recipient),
        action=decision.action.value,
        reason=decision.reason,
        rule=decision.rule,
        details={
            "detail": decision.detail,
            "note": note,
            "delay": round(delay, 6),
            "protection": message.protection.value,
            "internal": bool(facts and facts.internal),
            "directory_error": facts.directory_error if facts else "",
            "cipher": decision.suite.value if decision.suite else "",
            **_cipher(decision),
            "warnings": [{"code": w.code, "detail": w.detail, "error": w.error} for w in decision.warnings],
            "candidates": _candidates(assessed, mailbox, used),
            "candidates_left_out": max(0, len(assessed) - _CANDIDATES),
        },
    )


def _cipher(decision: Decision) -> dict[str, str]:
    """How the content key was wrapped, why it was this cipher, and whose word that rests on."""
    choice = decision.choice if decision.suite else None
    if choice is None:
        return {"key_transport": "", "cipher_why": "", "capabilities_from": "", "capabilities": ""}
    return {
        "key_transport": choice.key,
        "cipher_why": choice.why,
        "capabilities_from": choice.source.value,
        "capabilities": ", ".join(choice.listed),
    }


def _candidates(
    assessed: Sequence[Assessed], mailbox: Mailbox | None, used: Sequence[Assessed | None]
) -> list[dict[str, Any]]:
    """Best first, each loser with what it lacks (facts of the choice: ``core.choice``)."""
    order = ranked(assessed, mailbox) if mailbox else tuple(assessed)
    why = [""] * len(order)
    if mailbox and order:
        why[1:] = [words for _, words in losers(order, mailbox)]
    return [{**_candidate(a, used), "why_not": words} for a, words in zip(order, why, strict=True)][:_CANDIDATES]


def _bare(text: str) -> str:
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


def _candidate(assessed: Assessed, used: Sequence[Assessed | None]) -> dict[str, Any]:
    certificate = assessed.candidate.certificate
    out: dict[str, Any] = {
        "certificate": certificate_facts(certificate),
        "origin": assessed.candidate.origin.value,
        "source": assessed.candidate.source,
        "used": assessed in used,
        "findings": [{"code": f.code, "detail": f.detail, "fatal": f.fatal} for f in assessed.findings],
    }
    path = assessed.path
    if isinstance(path, PathFault):
        return {**out, "fault": {"code": path.code, "detail": path.detail}, "path": [], "verdicts": []}
    return {
        **out,
        "fault": None,
        "path": [certificate_facts(c) for c in (*path.certificates, path.anchor.certificate)],
        "verdicts": [verdict_facts(v) for v in assessed.verdicts],
    }


def certificate_facts(certificate: Certificate) -> dict[str, Any]:
    """Names and dates of a certificate, for JSON."""
    return {
        "sha256": certificate.fingerprint,
        "subject": certificate.name,
        "serial": f"{certificate.serial:x}",
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
    }


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """A verdict for JSON; times as RFC 3339 or None."""
    return {
        "verdict": verdict.status.value,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "source": verdict.source,
        "this_update": verdict.this_update.isoformat() if verdict.this_update else None,
        "next_update": verdict.next_update.isoformat() if verdict.next_update else None,
        "revoked_at": verdict.revoked_at.isoformat() if verdict.revoked_at else None,
        "revocation_reason": verdict.revocation_reason,
        "suspicious": verdict.suspicious,
        "doubt": verdict.doubt.value if verdict.doubt else "",
    }
