"""``postseal inspect``: what the message on standard input is."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from postseal.app.cms_inspect import inspect
from postseal.core.text import escape
from postseal.shell.cli.main import add_command


def register(commands: Any) -> None:
    """Add the command to the command line."""
    add_command(
        commands, "inspect", run_inspect, "Show what the message on standard input is: structure, cipher, recipients."
    )


def run_inspect(args: argparse.Namespace) -> int:
    """``postseal inspect``: exit 0 whatever the message is, 65 when it can't be taken apart."""
    found = inspect(sys.stdin.buffer.read())
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"protection: {found['protection']}")
    if found["content_type"]:
        print(f"content type: {escape(found['content_type'])}")
    if "fault" in found:
        print(f"fault: {escape(found['fault'])}")
    if found["cms"]:
        structure = found["cms"]
        print(
            f"structure: {structure['type']}, {structure['cipher']}, {structure['content_length']} octets of ciphertext"
        )
        for each in structure["recipients"]:
            named = each.get("subject_key_id")
            name = (
                f"subject key identifier {named}"
                if named
                else f"issuer {escape(each['issuer'] or '')}, serial {each['serial']}"
            )
            print(f"recipient: {each['kind']}, {each['algorithm']}, {name}")
    return 0
