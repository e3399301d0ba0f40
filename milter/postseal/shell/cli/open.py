"""``postseal open``: a sealed message from standard input, decrypted, to standard output."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from postseal.app.cms_open import check_pair, load_private_key, open_sealed
from postseal.core.errors import BadData
from postseal.shell.cli.files import message_out, read_certificate, read_file, report
from postseal.shell.cli.main import add_command
from postseal.sources.process import keep_secrets


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "open", run_open, "Decrypt the sealed message on standard input to standard output.",
        epilog="A bare CMS object in DER or BER is read too; then its content comes out as it is. "
        "With --json the report on standard error is JSON.",
    )  # fmt: skip
    parser.add_argument("--key", metavar="F", required=True, help="private key, PEM or DER")
    parser.add_argument("--passphrase-file", metavar="F", help="file whose first line is the key's passphrase")
    parser.add_argument("--certificate", metavar="F", help="the key's certificate: only what is sealed to it is opened")


def run_open(args: argparse.Namespace) -> int:
    """``postseal open``: exit 0, or 65 when the message can't be decrypted with the key."""
    keep_secrets()
    passphrase = None
    if args.passphrase_file:
        passphrase = read_file(args.passphrase_file).split(b"\n", 1)[0].rstrip(b"\r")
    try:
        key = load_private_key(read_file(args.key), passphrase)
        certificate = read_certificate(args.certificate) if args.certificate else None
        if certificate is not None:
            check_pair(certificate, key)
    except BadData as exc:
        raise BadData(f"{args.key}: {exc}") from exc
    opened = open_sealed(sys.stdin.buffer.read(), key, certificate)
    message_out((opened.octets,))
    report(args, opened.notes)
    return 0
