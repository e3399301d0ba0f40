"""``postseal explain``: the recorded decisions about a message, or about mail between two addresses."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from postseal.config import load_config
from postseal.core.address import parse_path
from postseal.core.errors import BadData, Unavailable, Usage
from postseal.core.explain import catalogue_as_markdown, drawn, tree
from postseal.core.record import DecisionRecord
from postseal.core.text import escape
from postseal.shell.cli.main import add_command
from postseal.sources.decisions import DecisionStore


def register(commands: Any) -> None:
    parser = add_command(
        commands, "explain", run, "say what was decided about a message, and why (exit 1: nothing recorded)"
    )
    parser.add_argument("queue_id", nargs="?", default="", metavar="QUEUEID", help="queue id, as in the mail log")
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", help='envelope sender, "<>" for the empty one')
    parser.add_argument("--to", dest="recipient", default="", metavar="ADDRESS", help="envelope recipient")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most N records, newest first (default 20)"
    )

    parser.add_argument("--reasons", action="store_true", help="list all reasons as Markdown instead")


def run(args: argparse.Namespace) -> int:
    """0 when something was recorded, 1 when not."""
    if args.reasons:
        sys.stdout.write(catalogue_as_markdown())
        return 0
    if not (args.queue_id or args.recipient) and args.sender is None:
        raise Usage("explain: give a queue id, or --from and --to")
    config = load_config(args.config)
    if not config.decision_store.exists():
        raise Unavailable(
            f"there is no decision store {config.decision_store}: nothing was recorded yet"
            if config.decisions.keep
            else f'nothing is recorded, because {config.path} says [decisions] keep = "0 s"'
        )
    store = DecisionStore(config.decision_store, readonly=True)
    found = store.find(
        queue_id=args.queue_id or None,
        sender=None if args.sender is None else _key(args.sender),
        recipient=_key(args.recipient) if args.recipient else None,
        limit=max(1, args.limit),
    )
    if args.json:
        print(json.dumps([as_json(record) for record in found], indent=2))
    else:
        for record in found:
            print("\n".join(drawn(tree(record))))
    if not found:
        what = escape(args.queue_id) or "mail between these addresses"
        print(
            f"postseal: nothing is recorded about {what}; records are kept for {_span(config.decisions.keep)}",
            file=sys.stderr,
        )
    return 0 if found else 1


def _key(text: str) -> str:
    """The form under which addresses are stored."""
    try:
        mailbox = parse_path(text)
    except BadData:
        return text
    return mailbox.folded if mailbox else ""


def _span(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds >= 86400 else f"{seconds:g} seconds"


def as_json(record: DecisionRecord) -> dict[str, Any]:
    """The stable JSON form."""
    return {
        "at": record.at.isoformat(),
        "queue_id": record.queue_id,
        "sender": record.sender,
        "recipient": record.recipient,
        "action": record.action,
        "reason": record.reason,
        "rule": record.rule,
        **record.details,
    }
