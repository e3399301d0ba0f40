"""``postseal seal``: one message from standard input, encrypted for certificates, to standard output."""

from __future__ import annotations

import argparse
import os
from typing import Any

from postseal.app.cms_seal import seal
from postseal.core.certs import Certificate
from postseal.core.errors import BadData
from postseal.core.fitness import fitness, key_family
from postseal.core.policy import clear_by_operator
from postseal.core.suite import KeyFamily, Suite
from postseal.core.text import escape
from postseal.shell.cli.files import TemporaryScratch, message_again, message_in, message_out, read_certificate, report
from postseal.shell.cli.main import add_command
from postseal.sources.clock import SystemClock

_KEY_TRANSPORT = ("pkcs1",)


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "seal", run_seal, "Encrypt the message on standard input for certificates (S/MIME) to standard output.",
        epilog="This is the operator's own act: the certificates' fitness is checked, their path and revocation are not. "
        "With --json the report on standard error is JSON.",
    )  # fmt: skip
    parser.add_argument(
        "--to", metavar="CERT", nargs="+", action="extend", required=True,
        help="files with one certificate each, DER or PEM; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--cipher", choices=[str(suite) for suite in Suite], default=str(Suite.AES_256_CBC),
        help="content encryption (default aes256-cbc; few mail programs read GCM)",
    )  # fmt: skip
    parser.add_argument(
        "--key-transport",
        choices=_KEY_TRANSPORT,
        default="pkcs1",
        help="how RSA keys wrap the content key (default pkcs1)",
    )


def _fit(path: str, certificate: Certificate) -> list[str]:
    """Remarks on a certificate; raises BadData when mail must not be sealed to it."""
    notes = []
    for finding in fitness(certificate, None, SystemClock().now()):
        sentence = f"{path}: {escape(finding.detail)} ({finding.code})"
        if finding.fatal:
            raise BadData(sentence)
        notes.append(sentence)
    return notes


def run_seal(args: argparse.Namespace) -> int:
    """``postseal seal``: exit 0, or 65 for a message or certificate that can't be used."""
    certificates = [(path, read_certificate(path)) for path in args.to]
    notes = [note for path, certificate in certificates for note in _fit(path, certificate)]
    notes.append("the certificates' path and revocation were not checked")
    unique = list(dict.fromkeys(certificate for _, certificate in certificates))
    if {key_family(certificate) for certificate in unique} == {KeyFamily.RSA, KeyFamily.EC}:
        notes.append("RSA and EC recipients in one message: older mail programs can't open it")
    suite = Suite(args.cipher)
    sealed = seal(
        message_in(),
        [clear_by_operator(certificate) for certificate in unique],
        suite,
        os.urandom(suite.key_length),
        os.urandom(suite.iv_length),
        TemporaryScratch(),
        message_again(),
    )
    message_out(sealed.octets)
    report(args, (*notes, *sealed.notes))
    return 0
