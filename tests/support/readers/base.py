"""What every mail program of the matrix can be asked: four kinds of jobs, answered with octets or its words of refusal."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from postseal.core.suite import Suite


@dataclass(frozen=True, slots=True)
class Refusal:
    """The program said no. ``supported`` is False when there is no way to ask it: no option, or its key store can't hold the
    key.
    """

    words: str
    supported: bool = True

    @property
    def text(self) -> str:
        return f"{'refuses' if self.supported else 'not supported'}: {self.words}"


@dataclass(frozen=True, slots=True)
class Encrypt:
    """``keys`` are names of ``Correspondents``; an RSA key goes with OAEP and a hash where the name is one of ``OAEP``.
    ``by_key_id``: certificates are named by subjectKeyIdentifier.
    """

    keys: tuple[str, ...]
    suite: Suite
    content: bytes
    by_key_id: bool = False


@dataclass(frozen=True, slots=True)
class Decrypt:
    """``key`` is a name of ``Correspondents``."""

    der: bytes
    key: str


@dataclass(frozen=True, slots=True)
class Sign:
    """``scheme`` is a name of ``SIGNERS``."""

    scheme: str
    detached: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Verify:
    """``content`` is what a detached signature is about, None for an opaque one."""

    der: bytes
    content: bytes | None


Answer = bytes | Refusal
Job = TypeVar("Job")

# Names of RSA keys that wrap by OAEP, and the hash.
OAEP = {"oaep": "sha256", "oaep512": "sha512"}
# Names of signature schemes and the keys that sign, each with the scheme of its own kind but for ``pss``.
SIGNERS: dict[str, tuple[str, ...]] = {
    "rsa": ("rsa",),
    "pss": ("rsa",),
    "p256": ("p256",),
    "p384": ("p384",),
    "p521": ("p521",),
    "brainpool": ("brainpool",),
    "ed25519": ("ed25519",),
    "two": ("rsa", "p256"),
}
DIGESTS = {name: "sha256" for name in SIGNERS} | {"p384": "sha384", "p521": "sha512", "ed25519": "sha512"}


class Program(Protocol):
    """A program that reads or writes CMS. ``name`` is a key of the tables, ``title`` what the document calls it.
    One that has ``peels`` goes on to a signature inside what it decrypts, and refuses when that isn't good.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def version(self) -> str: ...

    def encrypt(self, jobs: Sequence[Encrypt]) -> list[Answer]: ...

    def decrypt(self, jobs: Sequence[Decrypt]) -> list[Answer]: ...

    def sign(self, jobs: Sequence[Sign]) -> list[Answer]: ...

    def verify(self, jobs: Sequence[Verify]) -> list[Answer]: ...


def run(
    command: Sequence[str | Path], environment: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(list(command), input=stdin, capture_output=True, timeout=60, env=environment, check=False)


def must(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> bytes:
    """Output of a command that sets something up: it must succeed."""
    done = run(command, environment)
    assert done.returncode == 0, (command, done.stderr.decode(errors="replace"))
    return done.stdout


def each(work: Callable[[int, Job], Answer], jobs: Sequence[Job]) -> list[Answer]:
    """``work`` for every job, two programs at a time; it gets a number that names its files."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, range(len(jobs)), jobs))


def package_version(package: str) -> str:
    """The upstream part of an installed Debian package's version."""
    return upstream(must(["dpkg-query", "-W", "-f", "${Version}", package]).decode())


def upstream(version: str) -> str:
    return re.sub(r"^\d+:", "", version).partition("-")[0].partition("+")[0]


def shortened(text: bytes, *, drop: Sequence[str] = ()) -> str:
    """The last line of an error output that says something, without what ``drop`` matches."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    said = lines[-1] if lines else "without a word"
    for pattern in drop:
        said = re.sub(pattern, "", said)
    return said.strip(" :.")
