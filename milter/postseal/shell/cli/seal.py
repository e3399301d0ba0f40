"""``postseal seal``: one message from standard input, signed if wanted and encrypted for certificates, to standard output."""

from __future__ import annotations

import argparse
import os
from typing import Any

from postseal.app.cms_seal import seal
from postseal.app.cms_sign import SealOrder, sign_and_seal
from postseal.core.errors import Usage
from postseal.core.suite import Suite
from postseal.shell.cli.files import TemporaryScratch, message_again, message_in, message_out, report
from postseal.shell.cli.main import add_command
from postseal.shell.cli.seal_recipients import add_recipient_options, recipients
from postseal.shell.cli.signers import add_signer_options, order_of, signers_of
from postseal.sources.process import keep_secrets


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "seal", run_seal, "Encrypt the message on standard input for certificates (S/MIME) to standard output.",
        epilog="With --sign-key it is signed first, and the signature is encrypted with it. "
        "This is the operator's own act: the certificates' fitness is checked, their path and revocation are not. "
        "With --json the report on standard error is JSON.",
    )  # fmt: skip
    add_recipient_options(parser)
    parser.add_argument(
        "--cipher", choices=[str(suite) for suite in Suite], default=str(Suite.AES_256_CBC),
        help="content encryption (default aes256-cbc; few mail programs read GCM)",
    )  # fmt: skip
    add_signer_options(parser, "sign-", required=False)
    parser.add_argument(
        "--triple", action="store_true",
        help="sign what was sealed once more, so that gateways can check who sent it without reading it",
    )  # fmt: skip


def run_seal(args: argparse.Namespace) -> int:
    """``postseal seal``: exit 0, or 65 for a message, key or certificate that can't be used."""
    keep_secrets()
    cleared, notes = recipients(args)
    signers, remarks = signers_of(args)
    if args.triple and not signers:
        raise Usage("--triple signs what was sealed: give --sign-key")
    suite = Suite(args.cipher)
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    if signers:
        outside = order_of(args, signers) if args.triple else None
        order = SealOrder(cleared, suite, key, iv)
        made = sign_and_seal(message_in(), order_of(args, signers), order, message_again(), outside)
    else:
        made = seal(message_in(), cleared, suite, key, iv, TemporaryScratch(), message_again())
    message_out(made.octets)
    report(args, (*notes, *remarks, *made.notes))
    return 0
