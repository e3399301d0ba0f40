"""``postseal doctor``: the configuration and everything around it, one line each, with what to type."""

from __future__ import annotations

import argparse
import json
from typing import Any

from postseal.core.checkup import Health
from postseal.core.text import one_line
from postseal.shell.cli.main import add_command


def register(commands: Any) -> None:
    parser = add_command(
        commands, "doctor", run, "look for mistakes in the set-up: configuration, sockets, rights, Postfix"
    )
    parser.add_argument(
        "--postfix-config", default="", metavar="DIR", help="Postfix's configuration directory, if not the default"
    )


def run(args: argparse.Namespace) -> int:
    """0 when nothing FAILs, 1 otherwise."""
    from postseal.wiring.doctor import examine

    checks = []
    for check in examine(args.config, args.postfix_config):
        checks.append(check)
        if not args.json:
            print(one_line(f"{check.health.value:<4}  {check.name}: {check.text}", 1000))
            if check.advice and check.health is not Health.OK:
                print(one_line(f"      -> {check.advice}", 1000))
    failed = sum(check.health is Health.FAIL for check in checks)
    if args.json:
        entries = [
            {"check": c.name, "result": c.health.value.lower(), "text": c.text, "advice": c.advice} for c in checks
        ]
        print(json.dumps({"ok": not failed, "checks": entries}, indent=2))
    else:
        warned = sum(check.health is Health.WARN for check in checks)
        print(f"{len(checks)} checks: {failed} failed, {warned} warnings")
    return 1 if failed else 0
