"""``postseal seal``: one message from standard input, encrypted for certificates, to standard output."""

from __future__ import annotations

import argparse
import os
from typing import Any

from postseal.app.cms_seal import seal
from postseal.core.suite import Suite
from postseal.shell.cli.files import TemporaryScratch, message_again, message_in, message_out, report
from postseal.shell.cli.main import add_command
from postseal.shell.cli.seal_recipients import add_recipient_options, recipients
from postseal.sources.process import keep_secrets


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "seal", run_seal, "Encrypt the message on standard input for certificates (S/MIME) to standard output.",
        epilog="This is the operator's own act: the certificates' fitness is checked, their path and revocation are not. "
        "With --json the report on standard error is JSON.",
    )  # fmt: skip
    add_recipient_options(parser)
    parser.add_argument(
        "--cipher", choices=[str(suite) for suite in Suite], default=str(Suite.AES_256_CBC),
        help="content encryption (default aes256-cbc; few mail programs read GCM)",
    )  # fmt: skip


def run_seal(args: argparse.Namespace) -> int:
    """``postseal seal``: exit 0, or 65 for a message or certificate that can't be used."""
    keep_secrets()
    cleared, notes = recipients(args)
    suite = Suite(args.cipher)
    sealed = seal(
        message_in(),
        cleared,
        suite,
        os.urandom(suite.key_length),
        os.urandom(suite.iv_length),
        TemporaryScratch(),
        message_again(),
    )
    message_out(sealed.octets)
    report(args, (*notes, *sealed.notes))
    return 0
