"""OpenSSL's ``cms`` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.readers.base import (
    DIGESTS,
    OAEP,
    SIGNERS,
    Answer,
    Decrypt,
    Encrypt,
    Refusal,
    Sign,
    Verify,
    each,
    package_version,
    run,
)
from support.readers.correspondents import Correspondents

_CURVES = ("p256", "p384", "p521", "brainpool", "brainpool512", "other-p256")


class OpenSsl:
    """The command of Debian's package."""

    name = "openssl"
    title = "OpenSSL"

    def __init__(self, home: Path, world: Correspondents) -> None:
        self._home = home
        self._world = world

    def version(self) -> str:
        return package_version("openssl")

    def encrypt(self, jobs: Sequence[Encrypt]) -> list[Answer]:
        return each(self._encrypt, jobs)

    def decrypt(self, jobs: Sequence[Decrypt]) -> list[Answer]:
        return each(self._decrypt, jobs)

    def sign(self, jobs: Sequence[Sign]) -> list[Answer]:
        return each(self._sign, jobs)

    def verify(self, jobs: Sequence[Verify]) -> list[Answer]:
        return each(self._verify, jobs)

    def _cms(self, *arguments: str, stdin: bytes = b"") -> Answer:
        done = run(["openssl", "cms", *arguments, "-binary"], stdin=stdin)
        return done.stdout if done.returncode == 0 else Refusal(_words(done.stderr.decode(errors="replace")))

    def _encrypt(self, _number: int, job: Encrypt) -> Answer:
        cipher = f"-{job.suite.replace('-cbc', '')}" if not job.suite.gcm else f"-{job.suite.replace('aes', 'aes-')}"
        arguments = ["-encrypt", "-outform", "DER", cipher, *(["-keyid"] if job.by_key_id else [])]
        for name in job.keys:
            if name in _CURVES:
                arguments.append(f"-aes{8 * job.suite.key_length}-wrap")
            arguments += ["-recip", self._world.path(name, "pem")]
            if name in OAEP:
                arguments += ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", f"rsa_oaep_md:{OAEP[name]}"]
            elif name in _CURVES:
                arguments += ["-keyopt", "ecdh_kdf_md:sha256"]
        return self._cms(*arguments, stdin=job.content)

    def _decrypt(self, _number: int, job: Decrypt) -> Answer:
        keys = ["-recip", self._world.path(job.key, "pem"), "-inkey", self._world.path(job.key, "key")]
        return self._cms("-decrypt", "-inform", "DER", *keys, stdin=job.der)

    def _sign(self, _number: int, job: Sign) -> Answer:
        arguments = ["-sign", "-outform", "DER", "-md", DIGESTS[job.scheme]]
        for key in SIGNERS[job.scheme]:
            arguments += ["-signer", self._world.path(key, "pem"), "-inkey", self._world.path(key, "key")]
        arguments += ["-certfile", str(self._world.home / "root.pem")]
        if job.scheme == "pss":
            arguments += ["-keyopt", "rsa_padding_mode:pss"]
        if not job.detached:
            arguments.append("-nodetach")
        return self._cms(*arguments, stdin=job.content)

    def _verify(self, number: int, job: Verify) -> Answer:
        arguments = [
            "-verify",
            "-inform",
            "DER",
            "-CAfile",
            str(self._world.home / "root.pem"),
            "-purpose",
            "smimesign",
        ]
        if job.content is not None:
            content = self._home / f"{number}.content"
            content.write_bytes(job.content)
            arguments += ["-content", str(content)]
        return self._cms(*arguments, stdin=job.der)


def _words(errors: str) -> str:
    """The reason field of the first entry of the error queue: ``…:error:NUMBER:LIBRARY:FUNCTION:REASON:FILE:…``."""
    for line in errors.splitlines():
        fields = line.split(":")
        if "error" in fields[:2]:
            return ":".join(fields[fields.index("error") + 4 :][:1])
    return errors.strip().splitlines()[-1] if errors.strip() else "without a word"
