"""postseal by its command line, in this process."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import postseal
from support.command import postseal as in_this_process
from support.readers.base import OAEP, SIGNERS, Answer, Decrypt, Encrypt, Refusal, Sign, Verify
from support.readers.correspondents import EVERYBODY, Correspondents
from support.readers.mime import signature_of, signed_entity

_HEADER = (
    b"From: sender@example.test\r\nTo: somebody@example.test\r\nSubject: interoperability\r\nMIME-Version: 1.0\r\n"
)


class Postseal:
    """``postseal seal`` and ``postseal open``: whole messages go in and out."""

    name = "postseal"
    title = "postseal"
    peels = True

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
        return [self._verify(job) for job in jobs]

    def _encrypt(self, job: Encrypt) -> Answer:
        hashes = [OAEP[name] for name in job.keys if name in OAEP]
        options = ["--cipher", str(job.suite), *(["--key-transport", f"oaep-{hashes[0]}"] if hashes else [])]
        if job.by_key_id:
            options += ["--recipient-id", "key-id"]
        if "x25519" in job.keys:
            options.append("--allow-x25519")
        certificates = [self._world.path(name, "pem") for name in job.keys]
        message = command("seal", *options, "--to", *certificates, stdin=_HEADER + job.content)
        return message if isinstance(message, Refusal) else base64.b64decode(message.partition(b"\r\n\r\n")[2])

    def _sign(self, job: Sign) -> Answer:
        options = ["--scheme", "pss"] if job.scheme == "pss" else []
        for key in SIGNERS[job.scheme]:
            options += ["--key", self._world.path(key, "key"), "--certificate", self._world.path(key, "pem")]
        if not job.detached:
            options.append("--opaque")
        message = command("sign", *options, stdin=_HEADER + job.content)
        if isinstance(message, Refusal):
            return message
        found = signature_of(message)
        assert found is not None
        der, content = found
        # What is signed is what was given, or the others would be asked about something else.
        assert content == (job.content if job.detached else None)
        return der

    def _decrypt(self, job: Decrypt) -> Answer:
        """What is signed inside is verified along with it."""
        keys = ("--key", self._world.path(job.key, "key"), "--certificate", self._world.path(job.key, "pem"))
        # Of a bare CMS object the content comes out as it is.
        return self._open(job.der, *keys)

    def _verify(self, job: Verify) -> Answer:
        if job.content is None:
            return self._open(job.der)
        opened = self._open(_HEADER + signed_entity(job.der, job.content))
        if isinstance(opened, Refusal):
            return opened
        found = signature_of(opened)
        assert found is not None
        assert found[1] is not None
        return found[1]

    def _open(self, octets: bytes, *keys: str) -> Answer:
        """``postseal open``, which ends with 1 when a signature isn't good up to the root."""
        anchor = str(self._world.home / "root.pem")
        return command("open", "--anchor", anchor, "--no-revocation", "--address", EVERYBODY, *keys, stdin=octets)


def command(*arguments: str, stdin: bytes = b"") -> Answer:
    """Output of the command in this process."""
    done = in_this_process(*arguments, stdin=stdin)
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode().strip().splitlines()[-1]
    # Without the name of the file.
    return Refusal(re.sub(r"^(?:postseal: )?(?:/\S+: )?", "", said).strip())
