"""``postseal milter``: the milter service. ``postseal run``: milter and lookup under one foreground supervisor."""

from __future__ import annotations

import argparse
from typing import Any

from postseal.config import load_config
from postseal.shell.cli.main import add_command


def register(commands: Any) -> None:
    add_command(commands, "milter", run_milter, "run the milter service in the foreground")
    add_command(commands, "run", run_all, "run milter and lookup together in the foreground")


def run_milter(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    # libmilter and cryptography are loaded for this command only.
    from postseal.shell.workers import Supervisor

    return Supervisor(config).run()


def run_all(args: argparse.Namespace) -> int:
    config = load_config(args.config)
    from postseal.shell.services import Services

    return Services(config).run()
