"""``postseal open``: a protected message from standard input, decrypted and verified, to standard output."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from postseal.app.cms_account import opened_as_json, opened_as_text
from postseal.app.cms_layers import Opening
from postseal.app.cms_open import check_pair, load_private_key
from postseal.app.cms_stream import open_stream
from postseal.core.cms.opening import Reading
from postseal.core.cms.unwrapping import Holder
from postseal.core.errors import BadData, Usage
from postseal.shell.cli.files import message_in, message_out, read_certificate, read_file
from postseal.shell.cli.judging import judging_options, judging_request, judging_time
from postseal.shell.cli.main import add_command
from postseal.sources.process import keep_secrets


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "open", run_open,
        "Decrypt and verify the message on standard input, and write what is in it to standard output.",
        epilog="Layers of encryption, signature and compression are taken off one after the other, at most eight; an account "
        "of each goes to standard error, with --json as JSON. A clear-signed message comes out as it is, unless all that is "
        "signed is one encrypted object (triple wrapping): then that is opened too. A bare CMS object in "
        "DER, BER or PEM is read too; then its content comes out as it is. Exit status 1 when a signature isn't good: it must "
        "hold, be by the sender in From or by --address and, with --anchor, by a certificate that is trusted, fit and not "
        "revoked, now or at the time of --at.",
    )  # fmt: skip
    parser.add_argument(
        "--key", metavar="F", action="append", default=[], help="private key, PEM or DER; may be repeated"
    )
    parser.add_argument("--passphrase-file", metavar="F", help="file whose first line is the passphrase of the keys")
    parser.add_argument(
        "--certificate", metavar="F", action="append", default=[],
        help="certificate of a key: only what is sealed to it is opened with that key; may be repeated",
    )  # fmt: skip
    parser.add_argument("--allow-3des", action="store_true", help="decrypt Triple-DES too, with a warning")
    judging_options(parser, address="mail address that the signer must have, instead of the one in From")


def run_open(args: argparse.Namespace) -> int:
    """``postseal open``: 0, or 1 when there is a signature that isn't good, or 65 when the message can't be opened."""
    keep_secrets()
    if not args.key and not args.anchor:
        raise Usage("open: give --key to decrypt, --anchor to verify, or both")
    at = judging_time(args)
    opening = Opening(judging_request(args, at), at, _holders(args), Reading(allow_3des=args.allow_3des))
    opened, blocks = open_stream(message_in(), opening)
    message_out(blocks)
    if args.json:
        print(json.dumps(opened_as_json(opened)), file=sys.stderr)
    else:
        for line in opened_as_text(opened):
            print(f"postseal: {line}", file=sys.stderr)
    return 1 if opened.refused else 0


def _holders(args: argparse.Namespace) -> tuple[Holder, ...]:
    passphrase = None
    if args.passphrase_file:
        passphrase = read_file(args.passphrase_file).split(b"\n", 1)[0].rstrip(b"\r")
    holders = []
    for name in args.key:
        try:
            holders.append(Holder(load_private_key(read_file(name), passphrase)))
        except BadData as exc:
            raise BadData(f"{name}: {exc}") from exc
    for name in args.certificate:
        certificate = read_certificate(name)
        for number, holder in enumerate(holders):
            try:
                check_pair(certificate, holder.key)
            except BadData as exc:
                fault = exc
                continue
            holders[number] = Holder(holder.key, certificate)
            break
        else:
            raise BadData(f"{name}: {fault}" if holders else f"{name}: there is no key for the certificate")
    return tuple(holders)
