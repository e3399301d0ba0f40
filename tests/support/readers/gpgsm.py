"""GnuPG's gpgsm, in a home of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
from support.readers.correspondents import KINDS, OTHERS, Correspondents, address

_CURVES = {
    "secp256r1": "NIST P-256",
    "secp384r1": "NIST P-384",
    "secp521r1": "NIST P-521",
    "brainpoolP256r1": "brainpoolP256r1",
    "brainpoolP512r1": "brainpoolP512r1",
}
# Lines of an error output that tell of a failure, not of the message.
_SAYS_WHY = r"^gpgsm: (?!Signature made| |CRLs|certificate should not|DBG|encrypted to)"
_NOISE = (
    r"^gpgsm: ",
    r"(message decryption|decrypting session key) failed: ",
    r"can't (encrypt to|sign using) '[^']*': ",
    r"error creating signature: ",
)


class Gpgsm:
    """``home`` has a short path: gpg-agent's socket lives in it."""

    name = "gpgsm"
    title = "gpgsm"

    def __init__(self, home: Path, work: Path, world: Correspondents) -> None:
        self._home = home
        self._work = work
        self._world = world
        self._environment = {**os.environ, "GNUPGHOME": str(home), "LC_ALL": "C"}
        (home / "gpgsm.conf").write_text("disable-crl-checks\ndisable-dirmngr\nno-secmem-warning\n")
        (home / "trustlist.txt").write_text(f"{world.root_fingerprint} S relax\n")
        self._no_key = self._fill()

    def _fill(self) -> dict[str, str]:
        """Import the certificates and put the keys beside them: gpgsm 2.2 crashes when it imports an EC key from PKCS #12."""
        must(["gpgsm", "--batch", "-q", "--import", self._world.home / "root.der"], self._environment)
        must(
            ["gpgsm", "--batch", "-q", "--import", *(self._world.path(name, "der") for name in KINDS | OTHERS)],
            self._environment,
        )
        keys = self._home / "private-keys-v1.d"
        keys.mkdir(exist_ok=True, mode=0o700)
        refused = {}
        for name in KINDS:
            listing = ["gpgsm", "--batch", "--with-colons", "--with-keygrip", "--list-keys", f"<{address(name)}>"]
            grip = re.search(r"(?m)^grp:+([0-9A-F]{40}):", must(listing, self._environment).decode())
            secret = _private_key(self._world.leaf(name).key)
            if grip is None:
                refused[name] = "gpg-agent holds no such key for gpgsm"
            else:
                (keys / f"{grip[1]}.key").write_bytes(secret)
        return refused

    def version(self) -> str:
        return package_version("gpgsm")

    def close(self) -> None:
        run(["gpgconf", "--kill", "all"], self._environment)

    def encrypt(self, jobs: Sequence[Encrypt]) -> list[Answer]:
        return each(self._encrypt, jobs)

    def decrypt(self, jobs: Sequence[Decrypt]) -> list[Answer]:
        return each(self._decrypt, jobs)

    def sign(self, jobs: Sequence[Sign]) -> list[Answer]:
        return each(self._sign, jobs)

    def verify(self, jobs: Sequence[Verify]) -> list[Answer]:
        return each(self._verify, jobs)

    def _gpgsm(self, number: int, octets: bytes, *arguments: str) -> Answer:
        source, result = self._work / f"{number}.in", self._work / f"{number}.out"
        source.write_bytes(octets)
        result.unlink(missing_ok=True)
        command = ["gpgsm", "--batch", "--yes", "-q", "--status-fd", "1", "-o", str(result), *arguments, str(source)]
        done = run(command, self._environment)
        if done.returncode < 0:
            return Refusal(f"crashes (signal {-done.returncode})")
        # When it can't open another recipient's part first, it says so by its exit code too.
        fine = b"DECRYPTION_OKAY" in done.stdout if "--decrypt" in arguments else done.returncode == 0
        if not fine or not result.exists():
            return Refusal(_words(done.stderr))
        return result.read_bytes()

    def _encrypt(self, number: int, job: Encrypt) -> Answer:
        if job.suite.gcm:
            return Refusal("gpgsm has no option for GCM", supported=False)
        if job.by_key_id:
            return Refusal("gpgsm has no option for key identifiers", supported=False)
        if OAEP.keys() & {*job.keys}:
            return Refusal("gpgsm has no option for OAEP", supported=False)
        recipients = [argument for name in job.keys for argument in ("-r", f"<{address(name)}>")]
        cipher = job.suite.removesuffix("-cbc").upper()
        return self._gpgsm(number, job.content, "--cipher-algo", cipher, *recipients, "--encrypt")

    def _decrypt(self, number: int, job: Decrypt) -> Answer:
        if job.key in self._no_key:
            return Refusal(self._no_key[job.key], supported=False)
        return self._gpgsm(number, job.der, "--decrypt")

    def _sign(self, number: int, job: Sign) -> Answer:
        if job.scheme == "pss":
            return Refusal("gpgsm has no option for PSS", supported=False)
        signers = []
        for key in SIGNERS[job.scheme]:
            if key in self._no_key:
                return Refusal(self._no_key[key], supported=False)
            signers += ["-u", f"<{address(key)}>"]
        command = "--detach-sign" if job.detached else "--sign"
        return self._gpgsm(number, job.content, "--digest-algo", DIGESTS[job.scheme], *signers, command)

    def _verify(self, number: int, job: Verify) -> Answer:
        if job.content is None:
            return self._gpgsm(number, job.der, "--verify")
        signature, content = self._work / f"{number}.sig", self._work / f"{number}.content"
        signature.write_bytes(job.der)
        content.write_bytes(job.content)
        done = run(["gpgsm", "--batch", "-q", "--verify", str(signature), str(content)], self._environment)
        if done.returncode < 0:
            return Refusal(f"crashes (signal {-done.returncode})")
        return job.content if done.returncode == 0 else Refusal(_words(done.stderr))


def _words(errors: bytes) -> str:
    """What it says of the cause: the last line but for its summing up."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if re.search(_SAYS_WHY, line)]
    causes = [line for line in lines if not re.search(r"No secret key|Internal error", line)] or lines
    said = causes[-1] if causes else "gpgsm: without a word"
    for pattern in _NOISE:
        said = re.sub(pattern, "", said)
    return said


def _expression(value: object) -> bytes:
    """An S-expression in canonical form."""
    if isinstance(value, list):
        return b"(" + b"".join(map(_expression, value)) + b")"
    if isinstance(value, int):
        value = value.to_bytes(value.bit_length() // 8 + 1, "big")
    octets = value if isinstance(value, bytes) else str(value).encode()
    return b"%d:%s" % (len(octets), octets)


def _private_key(key: Any) -> bytes:
    """The file that gpg-agent keeps of a key without a passphrase."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        small, large = sorted((numbers.p, numbers.q))
        parts = {"n": public.n, "e": public.e, "d": numbers.d, "p": small, "q": large, "u": pow(small, -1, large)}
        return _expression(["private-key", ["rsa", *([name, value] for name, value in parts.items())]])
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        secret = key.private_numbers().private_value
        return _expression(["private-key", ["ecc", ["curve", _CURVES[key.curve.name]], ["q", point], ["d", secret]]])
    curve, flag = ("Curve25519", "djb-tweak") if isinstance(key, x25519.X25519PrivateKey) else ("Ed25519", "eddsa")
    octets = key.private_bytes_raw()
    # Libgcrypt has numbers in big endian, and 0x40 before a point that has one coordinate.
    secret = octets[::-1] if flag == "djb-tweak" else octets
    point = b"\x40" + key.public_key().public_bytes_raw()
    return _expression(["private-key", ["ecc", ["curve", curve], ["flags", flag], ["q", point], ["d", secret]]])
