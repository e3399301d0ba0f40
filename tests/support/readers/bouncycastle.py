"""Bouncy Castle: Debian's libbcmail-java with a driver, in one Java process for all jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.readers.base import OAEP, SIGNERS, Answer, Decrypt, Encrypt, Refusal, Sign, Verify, must, package_version
from support.readers.correspondents import Correspondents

_JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("bcprov", "bcpkix", "bcutil", "bcmail"))
_ALGORITHMS = {
    "rsa": "SHA256withRSA",
    "pss": "SHA256withRSAandMGF1",
    "p256": "SHA256withECDSA",
    "p384": "SHA384withECDSA",
    "p521": "SHA512withECDSA",
    "brainpool": "SHA256withECDSA",
    "ed25519": "Ed25519",
}


class BouncyCastle:
    """The driver runs from the first job until ``close``."""

    name = "bouncycastle"
    title = "Bouncy Castle"

    def __init__(self, home: Path, world: Correspondents) -> None:
        self._home = home
        self._world = world
        source = Path(__file__).with_name("Driver.java")
        must(["javac", "-nowarn", "-cp", _JARS, "-d", home, source])
        self._process = subprocess.Popen(
            ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{home}:{_JARS}", "Driver"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(home / "errors").open("wb"), text=True,
        )  # fmt: skip

    def version(self) -> str:
        return package_version("libbcmail-java")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def encrypt(self, jobs: Sequence[Encrypt]) -> list[Answer]:
        return [self._encrypt(job) for job in jobs]

    def decrypt(self, jobs: Sequence[Decrypt]) -> list[Answer]:
        return [self._decrypt(job) for job in jobs]

    def sign(self, jobs: Sequence[Sign]) -> list[Answer]:
        return [self._sign(job) for job in jobs]

    def verify(self, jobs: Sequence[Verify]) -> list[Answer]:
        return [self._verify(job) for job in jobs]

    def _file(self, name: str, octets: bytes) -> str:
        path = self._home / name
        path.write_bytes(octets)
        return str(path)

    def _ask(self, *fields: str) -> Answer:
        """``fields`` with the file of the result in the place of RESULT."""
        result = self._home / "result"
        result.unlink(missing_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = "\t".join(str(result) if each == "RESULT" else each for each in fields)
        print(line, file=self._process.stdin, flush=True)
        answer, _, words = self._process.stdout.readline().rstrip("\n").partition("\t")
        assert answer in ("ok", "no"), (answer, (self._home / "errors").read_text())
        return result.read_bytes() if answer == "ok" else Refusal(words.strip(" ."))

    def _encrypt(self, job: Encrypt) -> Answer:
        ways = {"rsa": "pkcs1", "other-rsa": "pkcs1"} | {name: f"oaep-{each[3:]}" for name, each in OAEP.items()}
        recipients = [
            part for name in job.keys for part in (ways.get(name, "ecdh"), self._world.path(name, "der"))
        ]  # fmt: skip
        rid = "key" if job.by_key_id else "issuer"
        return self._ask("encrypt", str(job.suite), rid, self._file("content", job.content), "RESULT", *recipients)

    def _decrypt(self, job: Decrypt) -> Answer:
        keys = (self._world.path(job.key, "p8"), self._world.path(job.key, "der"))
        return self._ask("decrypt", self._file("message", job.der), "RESULT", *keys)

    def _sign(self, job: Sign) -> Answer:
        form = "detached" if job.detached else "opaque"
        content, root = self._file("content", job.content), str(self._world.home / "root.der")
        signers = []
        for key in SIGNERS[job.scheme]:
            algorithm = _ALGORITHMS["pss" if job.scheme == "pss" else key]
            signers += [algorithm, self._world.path(key, "p8"), self._world.path(key, "der")]
        return self._ask("sign", form, content, "RESULT", root, *signers)

    def _verify(self, job: Verify) -> Answer:
        content = "-" if job.content is None else self._file("content", job.content)
        return self._ask(
            "verify", self._file("message", job.der), content, str(self._world.home / "root.der"), "RESULT"
        )  # fmt: skip
