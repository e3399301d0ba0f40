"""NSS by its ``cmsutil``: with Debian's own libraries, or with those inside Debian's thunderbird package."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from postseal.core.suite import Suite
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
    must,
    package_version,
    run,
)
from support.readers.correspondents import KINDS, OTHERS, PASSWORD, Correspondents, address


class Nss:
    """``libraries`` is where other NSS libraries than Debian's are."""

    def __init__(self, home: Path, world: Correspondents, libraries: Path | None = None) -> None:
        self._home = home
        self._world = world
        self._libraries = libraries
        self._environment = dict(os.environ)
        if libraries is not None:
            self._environment["LD_LIBRARY_PATH"] = str(libraries)
        self.name = "nss" if libraries is None else "thunderbird"
        self.title = "NSS (cmsutil)" if libraries is None else "Thunderbird's NSS"
        self._no_key = self._fill()

    def _fill(self) -> dict[str, str]:
        """Make the database; returns the keys that it can't hold, with its words."""
        database = f"sql:{self._home}"
        must(["certutil", "-N", "-d", database, "--empty-password"], self._environment)
        anchor = ["-n", "root", "-t", "C,C,C", "-i", str(self._world.home / "root.der")]
        must(["certutil", "-A", "-d", database, *anchor], self._environment)
        refused: dict[str, str] = {}
        for name in KINDS:
            if name == "x25519":
                refused[name] = "PKCS #12 with an X25519 key"
                continue
            file = self._world.path(name, "p12")
            done = run(["pk12util", "-d", database, "-W", PASSWORD, "-i", file], self._environment)
            if done.returncode:
                refused[name] = f"importing the key: {_words(done.stderr)}"
        for name in OTHERS | refused:
            certificate = ["-n", name, "-t", ",,", "-i", self._world.path(name, "der")]
            done = run(["certutil", "-A", "-d", database, *certificate], self._environment)
            assert done.returncode == 0 or name in refused, done.stderr.decode()
        return refused

    def version(self) -> str:
        if self._libraries is None:
            return package_version("libnss3-tools")
        return (self._libraries / "version").read_text().strip()

    def encrypt(self, jobs: Sequence[Encrypt]) -> list[Answer]:
        return each(self._encrypt, jobs)

    def decrypt(self, jobs: Sequence[Decrypt]) -> list[Answer]:
        return each(self._decrypt, jobs)

    def sign(self, jobs: Sequence[Sign]) -> list[Answer]:
        return each(self._sign, jobs)

    def verify(self, jobs: Sequence[Verify]) -> list[Answer]:
        return each(self._verify, jobs)

    def _cmsutil(self, number: int, octets: bytes, *arguments: str) -> Answer:
        source, result = self._home / f"{number}.in", self._home / f"{number}.out"
        source.write_bytes(octets)
        result.unlink(missing_ok=True)
        command = ["cmsutil", *arguments, "-d", f"sql:{self._home}", "-i", str(source), "-o", str(result)]
        done = run(command, self._environment)
        return result.read_bytes() if done.returncode == 0 else Refusal(_words(done.stderr))

    def _encrypt(self, number: int, job: Encrypt) -> Answer:
        if job.suite is not Suite.AES_128_CBC:
            return Refusal("cmsutil -E has no option for the cipher, and takes AES-128-CBC", supported=False)
        if job.by_key_id:
            return Refusal("cmsutil -E has no option for key identifiers", supported=False)
        if OAEP.keys() & {*job.keys}:
            return Refusal("cmsutil -E has no option for OAEP", supported=False)
        return self._cmsutil(number, job.content, "-E", "-r", ",".join(address(name) for name in job.keys))

    def _decrypt(self, number: int, job: Decrypt) -> Answer:
        if job.key in self._no_key:
            return Refusal(self._no_key[job.key], supported=False)
        return self._cmsutil(number, job.der, "-D")

    def _sign(self, number: int, job: Sign) -> Answer:
        if job.scheme == "pss":
            return Refusal("cmsutil -S has no option for PSS", supported=False)
        if len(SIGNERS[job.scheme]) > 1:
            return Refusal("cmsutil -S has no option for a second signer", supported=False)
        key = SIGNERS[job.scheme][0]
        if key in self._no_key:
            return Refusal(self._no_key[key], supported=False)
        # -G: with signed attributes, as mail has them.
        arguments = ["-S", "-G", "-P", "-H", DIGESTS[job.scheme].upper(), "-N", key]
        if job.detached:
            arguments.append("-T")
        return self._cmsutil(number, job.content, *arguments)

    def _verify(self, number: int, job: Verify) -> Answer:
        if job.content is None:
            return self._cmsutil(number, job.der, "-D", "-u", "4")
        content = self._home / f"{number}.content"
        content.write_bytes(job.content)
        done = self._cmsutil(number, job.der, "-D", "-u", "4", "-c", str(content))
        return done if isinstance(done, Refusal) else job.content


def _words(errors: bytes) -> str:
    text = errors.decode(errors="replace")
    codes = re.findall(r"SE[CR]_ERROR_\w+", text) or re.findall(r"status = (\w+)", text)
    return codes[-1] if codes else text.strip().splitlines()[-1] if text.strip() else "without a word"
