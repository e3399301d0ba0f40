"""``postseal lookup``: the service that fetches CRLs and OCSP answers."""

from __future__ import annotations

import argparse
from typing import Any

from postseal.shell.cli.main import add_command


def register(commands: Any) -> None:
    """Add the subcommand."""
    add_command(commands, "lookup", run, "run the service that fetches CRLs and OCSP answers, in the foreground")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from postseal.shell.lookupd import serve

    return serve(args.config)
