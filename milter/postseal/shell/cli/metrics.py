"""``postseal metrics``: the service that serves metrics to Prometheus."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from postseal.config import load_config
from postseal.shell.cli.main import add_command


def register(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "metrics", run, "serve metrics of all services to Prometheus, in the foreground")
    parser.add_argument("--print", action="store_true", dest="once", help="print the metrics once and end")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM, or print."""
    config = load_config(args.config)
    from postseal.shell.metricsd import listener, serve

    if not args.once:
        return serve(config)
    from postseal.wiring.metrics import build_exposition

    listener(config)
    sys.stdout.write(build_exposition(config).render()[1].decode())
    return 0
