"""``postseal sign``: one message from standard input, signed, to standard output."""

from __future__ import annotations

import argparse
from typing import Any

from postseal.app.cms_sign import sign
from postseal.shell.cli.files import message_again, message_in, message_out, report
from postseal.shell.cli.main import add_command
from postseal.shell.cli.signers import add_signer_options, order_of, signers_of
from postseal.sources.process import keep_secrets


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "sign", run_sign, "Sign the message on standard input (S/MIME) to standard output.",
        epilog="The certificates' fitness to sign is checked, their path and revocation are not. Parts that relays would "
        "change on their way are encoded before; where that can't be done the message is signed opaque. To sign and encrypt, "
        "use postseal seal with --sign-key. With --json the report on standard error is JSON.",
    )  # fmt: skip
    add_signer_options(parser, required=True)


def run_sign(args: argparse.Namespace) -> int:
    """``postseal sign``: exit 0, or 65 for a message, key or certificate that can't be used."""
    keep_secrets()
    signers, notes = signers_of(args)
    made = sign(message_in(), order_of(args, signers), message_again())
    message_out(made.octets)
    report(args, (*notes, *made.notes))
    return 0
