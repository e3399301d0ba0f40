"""``postseal seal``, ``open`` and ``inspect``: one message from standard input to standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from postseal.app import cms
from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData, CannotCreate, NotPermitted, Unavailable
from postseal.core.fitness import fitness, key_family
from postseal.core.policy import clear_by_operator
from postseal.core.suite import KeyFamily, Suite
from postseal.core.text import escape
from postseal.shell.cli.main import add_command
from postseal.sources.clock import SystemClock

_CHUNK = 64 * 1024
# Ciphertext above this goes to a private file without a name.
_MEMORY = 16 * 1024 * 1024
_KEY_TRANSPORT = ("pkcs1",)


def register(commands: Any) -> None:
    """Add the three commands to the command line."""
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
    parser = add_command(
        commands, "open", run_open, "Decrypt the sealed message on standard input to standard output.",
        epilog="A bare CMS object in DER or BER is read too; then its content comes out as it is. "
        "With --json the report on standard error is JSON.",
    )  # fmt: skip
    parser.add_argument("--key", metavar="F", required=True, help="private key, PEM or DER")
    parser.add_argument("--passphrase-file", metavar="F", help="file whose first line is the key's passphrase")
    parser.add_argument("--certificate", metavar="F", help="the key's certificate: only what is sealed to it is opened")
    add_command(
        commands, "inspect", run_inspect, "Show what the message on standard input is: structure, cipher, recipients."
    )


class _TemporaryScratch:
    """Ciphertext in memory, above a limit in a file that has no name."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY)  # noqa: SIM115

    def write(self, data: bytes, /) -> None:
        try:
            self._file.write(data)
        except OSError as exc:
            raise CannotCreate(f"temporary file in {tempfile.gettempdir()}: {exc.strerror}") from exc

    def chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError as exc:
        raise NotPermitted(f"{path}: {exc.strerror}") from exc
    except OSError as exc:
        raise Unavailable(f"{path}: {exc.strerror}") from exc


def _certificate(path: str) -> Certificate:
    blob = _read_file(path)
    try:
        found = load_certificates(blob)
    except BadData as exc:
        raise BadData(f"{path}: {exc}") from exc
    if len(found) != 1:
        raise BadData(f"{path} holds {len(found)} certificates; give a file with one")
    return found[0]


def _input() -> Iterator[bytes]:
    while chunk := sys.stdin.buffer.read(_CHUNK):
        yield chunk


def _output(blocks: Iterable[bytes]) -> None:
    try:
        for block in blocks:
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CannotCreate(f"standard output: {exc.strerror}") from exc


def _report(args: argparse.Namespace, notes: Sequence[str]) -> None:
    if args.json:
        print(json.dumps({"notes": list(notes)}), file=sys.stderr)
        return
    for note in notes:
        print(f"postseal: {note}", file=sys.stderr)


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
    certificates = [(path, _certificate(path)) for path in args.to]
    notes = [note for path, certificate in certificates for note in _fit(path, certificate)]
    notes.append("the certificates' path and revocation were not checked")
    unique = list(dict.fromkeys(certificate for _, certificate in certificates))
    if {key_family(certificate) for certificate in unique} == {KeyFamily.RSA, KeyFamily.EC}:
        notes.append("RSA and EC recipients in one message: older mail programs can't open it")
    suite = Suite(args.cipher)
    sealed = cms.seal(
        _input(),
        [clear_by_operator(certificate) for certificate in unique],
        suite,
        os.urandom(suite.key_length),
        os.urandom(suite.iv_length),
        _TemporaryScratch(),
    )
    _output(sealed.octets)
    _report(args, (*notes, *sealed.notes))
    return 0


def run_open(args: argparse.Namespace) -> int:
    """``postseal open``: exit 0, or 65 when the message can't be decrypted with the key."""
    passphrase = None
    if args.passphrase_file:
        passphrase = _read_file(args.passphrase_file).split(b"\n", 1)[0].rstrip(b"\r")
    try:
        key = cms.load_private_key(_read_file(args.key), passphrase)
        certificate = _certificate(args.certificate) if args.certificate else None
        if certificate is not None:
            cms.check_pair(certificate, key)
    except BadData as exc:
        raise BadData(f"{args.key}: {exc}") from exc
    opened = cms.open_sealed(sys.stdin.buffer.read(), key, certificate)
    _output((opened.octets,))
    _report(args, opened.notes)
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """``postseal inspect``: exit 0 whatever the message is, 65 when it can't be taken apart."""
    found = cms.inspect(sys.stdin.buffer.read())
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"protection: {found['protection']}")
    if found["content_type"]:
        print(f"content type: {escape(found['content_type'])}")
    if "fault" in found:
        print(f"fault: {escape(found['fault'])}")
    if found["cms"]:
        structure = found["cms"]
        print(
            f"structure: {structure['type']}, {structure['cipher']}, {structure['content_length']} octets of ciphertext"
        )
        for each in structure["recipients"]:
            named = each.get("subject_key_id")
            name = (
                f"subject key identifier {named}"
                if named
                else f"issuer {escape(each['issuer'] or '')}, serial {each['serial']}"
            )
            print(f"recipient: {each['kind']}, {each['algorithm']}, {name}")
    return 0
