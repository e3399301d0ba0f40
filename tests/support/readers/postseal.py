"""postseal by its command line, in this process."""

from __future__ import annotations

import base64
import contextlib
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import postseal
from postseal.core.capabilities import OURS, encode_capabilities
from postseal.core.cms.signed_reader import parse_signed
from postseal.core.cms.signing import SignatureScheme, Signer, Signing
from postseal.core.cms.verifying import State, check_signers, cover
from postseal.core.errors import BadData
from postseal.core.suite import KeyTransport, Wrap
from postseal.shell.cli.main import main
from support.cms import sealed
from support.readers.base import OAEP, SIGNERS, Answer, Decrypt, Encrypt, Refusal, Sign, Verify
from support.readers.correspondents import Correspondents

_HEADER = (
    b"From: sender@example.test\r\nTo: somebody@example.test\r\nSubject: interoperability\r\nMIME-Version: 1.0\r\n"
)


class Postseal:
    """``postseal seal`` and ``postseal open``: whole messages go in and out."""

    name = "postseal"
    title = "postseal"

    def __init__(self, home: Path, world: Correspondents) -> None:
        self._home = home
        self._world = world

    def version(self) -> str:
        return postseal.__version__

    def encrypt(self, jobs: Sequence[Encrypt]) -> list[Answer]:
        return [self._encrypt(job) for job in jobs]

    def decrypt(self, jobs: Sequence[Decrypt]) -> list[Answer]:
        return [self._decrypt(job) for job in jobs]

    def sign(self, jobs: Sequence[Sign]) -> list[Answer]:
        return [self._sign(job) for job in jobs]

    def verify(self, jobs: Sequence[Verify]) -> list[Answer]:
        return [_verified(job) for job in jobs]

    def _encrypt(self, job: Encrypt) -> Answer:
        transport = KeyTransport(f"oaep-{OAEP[job.keys[0]]}") if job.keys[0] in OAEP else KeyTransport.PKCS1
        if job.by_key_id or transport is not KeyTransport.PKCS1 or "x25519" in job.keys:
            wrap = Wrap(transport, job.by_key_id)
            return sealed(job.suite, [self._world.leaf(name) for name in job.keys], job.content, wrap)
        certificates = [self._world.path(name, "pem") for name in job.keys]
        message = command("seal", "--cipher", str(job.suite), "--to", *certificates, stdin=_HEADER + job.content)
        if isinstance(message, Refusal):
            return message
        return base64.b64decode(message.partition(b"\r\n\r\n")[2])

    def _sign(self, job: Sign) -> Answer:
        scheme = SignatureScheme.PSS if job.scheme == "pss" else None
        chain = (self._world.root.certificate,)
        leaves = [self._world.leaf(key) for key in SIGNERS[job.scheme]]
        signers = [Signer(leaf.certificate, leaf.key, scheme, chain, with_root=True) for leaf in leaves]
        signing = Signing(signers, datetime.now(UTC), encode_capabilities(OURS))
        if job.detached:
            signing.update(job.content)
            return signing.finish()
        head = signing.head(len(job.content))
        signing.update(job.content)
        return head + job.content + signing.tail()

    def _decrypt(self, job: Decrypt) -> Answer:
        keys = ("--key", self._world.path(job.key, "key"), "--certificate", self._world.path(job.key, "pem"))
        # Of a bare CMS object the content comes out as it is.
        return command("open", *keys, stdin=job.der)


def _verified(job: Verify) -> Answer:
    try:
        signed = parse_signed(job.der)
    except BadData as exc:
        return Refusal(str(exc))
    covered = cover(signed, None if job.content is None else [job.content])
    accounts = check_signers(signed, covered)
    if accounts and all(account.state is State.INTACT for account in accounts):
        return b"".join(covered.pieces)
    return Refusal(accounts[0].code if accounts else "nobody signed it")


def command(*arguments: str, stdin: bytes = b"") -> Answer:
    """Output of the command in this process, with standard streams of its own."""
    output, errors = io.BytesIO(), io.StringIO()
    with (
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch("sys.stdout", io.TextIOWrapper(output, write_through=True)) as stdout,
        contextlib.redirect_stderr(errors),
    ):
        code = main(arguments)
        stdout.flush()
    if code == 0:
        return output.getvalue()
    said = errors.getvalue().strip().splitlines()[-1]
    # Without the name of the file.
    return Refusal(re.sub(r"^(?:postseal: )?(?:/\S+: )?", "", said))
