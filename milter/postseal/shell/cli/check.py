"""``postseal check``: what would happen to mail for an address now, judged live by the milter's own code."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from postseal.app.check import Checked, check
from postseal.config import Config, load_config
from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.errors import BadData, Usage
from postseal.core.explain import Node, drawn, tree
from postseal.core.policy import MessageFacts, RecipientFacts
from postseal.core.record import DecisionRecord, record_of
from postseal.core.text import address, escape
from postseal.shell.cli.explain import as_json
from postseal.shell.cli.main import add_command
from postseal.shell.cli.why import as_nodes, as_values, why
from postseal.sources.clock import SystemClock
from postseal.wiring.assess import build_assessor, build_doubting


def register(commands: Any) -> None:
    parser = add_command(
        commands,
        "check",
        run,
        "say what would happen to mail for ADDRESS now, and why (exit 1: not all would be sealed)",
    )
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="envelope recipient")
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", help="envelope sender, for rules that look at it")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="judge by the stored evidence alone, ask postseal lookup for nothing, and say what it would do",
    )
    parser.add_argument(
        "--explain", action="store_true", help="list each check with its clause, and what each piece of evidence says"
    )


def run(args: argparse.Namespace) -> int:
    """0 when mail to every address would be sealed, 1 otherwise."""
    config = load_config(args.config)
    recipients = [_mailbox(text) for text in args.addresses]
    sender = _mailbox(args.sender) if args.sender else None
    clock = SystemClock()
    assessor = build_assessor(config, clock, _warn)
    found = [
        check(
            mailbox, sender, internal=config.is_internal(mailbox), assessor=assessor, rules=config.rules,
            settings=config.policy_settings, clock=clock, budget=0.0 if args.offline else config.milter.budget,
            doubting=build_doubting(config, _warn),
        )
        for mailbox in recipients
    ]  # fmt: skip
    more = [why(config, checked, explain=args.explain, plan=args.offline or args.explain) for checked in found]
    records = [_record(config, checked, sender) for checked in found]
    if args.json:
        values = [{**as_json(r), **({"why": as_values(m)} if m else {})} for r, m in zip(records, more, strict=True)]
        print(json.dumps(values, indent=2))
    else:
        for record, reasons in zip(records, more, strict=True):
            would = _would(record)
            print("\n".join(drawn(Node(would.text, (*would.below, *as_nodes(reasons))))))
        if sender is not None and not config.is_internal(sender):
            print(
                f"Mail from {address(str(sender))} is not outbound, since {sender.domain} is not in internal_domains: "
                "the milter would let it pass untouched."
            )
    return 0 if all(checked.sealed for checked in found) else 1


def _warn(problem: str) -> None:
    print(f"postseal: warning: {escape(problem)}", file=sys.stderr)


def _mailbox(text: str) -> Mailbox:
    try:
        return parse_mailbox(text)
    except BadData as exc:
        raise Usage(f"check: {exc}") from exc


def _record(config: Config, checked: Checked, sender: Mailbox | None) -> DecisionRecord:
    facts = RecipientFacts(
        str(checked.mailbox), checked.mailbox, config.is_internal(checked.mailbox), checked.assessment.assessed,
        checked.assessment.error,
    )  # fmt: skip
    return record_of(
        "", str(sender or ""), MessageFacts(sender), facts, checked.decision, at=checked.at, delay=0.0, note=""
    )


def _would(record: DecisionRecord) -> Node:
    """The tree of the record under a title that says that nothing has been sent."""
    return Node(f"{address(record.recipient)}: would be {_WOULD[record.action]}", tree(record).below)


_WOULD = {
    "sealed": "sealed",
    "clear": "sent in clear",
    "refused": "refused",
    "deferred": "deferred",
    "held": "held",
}
