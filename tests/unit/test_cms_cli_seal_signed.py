"""``postseal seal --sign-key``: signed inside, and with ``--triple`` outside too. OpenSSL takes every layer off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from postseal.core.cms.classify import classify
from postseal.core.message import HeaderFault, split_message
from postseal.core.policy import Protection
from support.cms import root
from support.command import postseal
from support.pki import Leaf
from support.signers import FAR, issuing, leaf, signing_root

MESSAGE = (
    b"From: a@example.test\r\nTo: b@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nd\xc3\xbcnn wie Papier\r\n"
)
ENTITY = MESSAGE[MESSAGE.index(b"Content-Type") :]
ENCODED = ENTITY.replace(b"8bit", b"quoted-printable").replace(b"\xc3\xbc", b"=C3=BC")
SUITES = ("aes256-cbc", "aes256-gcm")


def reader() -> Leaf:
    return root().issue("b@example.test", slot="signed and sealed", not_after=FAR)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    to = reader()
    for name, data in (("to.crt", to.pem), ("to.key", to.key_pem), ("root.crt", signing_root().pem),
                       ("a.pem", leaf("p256").key_pem + leaf("p256").pem + issuing().pem)):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    return tmp_path


def seal(files: Path, *more: str, stdin: bytes = MESSAGE) -> subprocess.CompletedProcess[bytes]:
    return postseal("seal", "--to", str(files / "to.crt"), "--sign-key", str(files / "a.pem"), *more, stdin=stdin)


def openssl(files: Path, message: bytes, *arguments: str) -> bytes:
    command = ["openssl", "cms", *arguments]
    done = subprocess.run(command, cwd=files, input=message, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def decrypted(files: Path, message: bytes) -> bytes:
    return openssl(files, message, "-decrypt", "-recip", "to.crt", "-inkey", "to.key")


def verified(files: Path, message: bytes) -> bytes:
    return openssl(files, message, "-verify", "-CAfile", "root.crt")


def protection(message: bytes) -> Protection:
    taken = split_message(message)
    assert not isinstance(taken, HeaderFault)
    return classify(*taken)


@pytest.mark.parametrize("cipher", SUITES)
@pytest.mark.parametrize(("more", "entity"), [((), ENCODED), (("--opaque",), ENTITY)])
def test_signed_then_sealed(files: Path, cipher: str, more: tuple[str, ...], entity: bytes) -> None:
    """RFC 8551 §3.7: the entity inside the encryption is multipart/signed or opaque, with its own header."""
    done = seal(files, "--cipher", cipher, *more)
    assert done.returncode == 0, done.stderr
    assert protection(done.stdout) is Protection.ENCRYPTED
    assert done.stdout.lower().count(b"mime-version") == 1
    inside = decrypted(files, done.stdout)
    kind = b"application/pkcs7-mime; smime-type=signed-data" if more else b"multipart/signed"
    assert inside.startswith(b"Content-Type: " + kind)
    assert b"MIME-Version" not in inside
    assert verified(files, inside) == entity


@pytest.mark.parametrize("cipher", SUITES)
@pytest.mark.parametrize(("more", "entity"), [((), ENCODED), (("--opaque",), ENTITY)])
def test_triple_wrap(files: Path, cipher: str, more: tuple[str, ...], entity: bytes) -> None:
    """RFC 2634 §1.1: signed, encrypted, signed. The signature outside can be checked without the reader's key."""
    done = seal(files, "--triple", "--cipher", cipher, *more)
    assert done.returncode == 0, done.stderr
    assert protection(done.stdout) is Protection.SIGNED
    assert done.stdout.lower().count(b"mime-version") == 1
    sealed = verified(files, done.stdout)
    assert sealed.startswith(b"Content-Type: application/pkcs7-mime")
    assert verified(files, decrypted(files, sealed)) == entity
    options = ["--key", str(files / "to.key"), "--anchor", str(files / "root.crt"), "--no-revocation"]
    opened = postseal("open", *options, stdin=done.stdout)
    assert opened.returncode == 0, opened.stderr
    assert b"wie Papier" in opened.stdout
    assert b"enveloped" not in opened.stdout


def test_from_a_file_it_is_the_same(files: Path) -> None:
    """A file is read twice where that saves memory, and lines with LF become CRLF."""
    (files / "message").write_bytes(MESSAGE.replace(b"\r\n", b"\n") + b"more\n" * 100_000)
    for more in ([], ["--opaque"], ["--triple", "--opaque"]):
        command = [
            sys.executable,
            "-m",
            "postseal.shell.cli.main",
            "seal",
            "--to",
            "to.crt",
            "--sign-key",
            "a.pem",
            *more,
        ]
        with (files / "message").open("rb") as file:
            done = subprocess.run(command, cwd=files, stdin=file, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        sealed = verified(files, done.stdout) if "--triple" in more else done.stdout
        assert verified(files, decrypted(files, sealed)).endswith(b"Papier\r\n" + b"more\r\n" * 100_000)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [(["--triple"], 64, "give --sign-key"), (["--opaque"], 64, "no key that signs"),
     (["--sign-key", "to.key"], 65, "it holds a private key"), (["--scheme", "pss"], 64, "no key that signs")],
)  # fmt: skip
def test_options_that_do_not_fit(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, why: str
) -> None:
    monkeypatch.chdir(files)
    done = postseal("seal", "--to", "to.crt", *arguments, stdin=MESSAGE)
    assert (done.returncode, done.stdout) == (code, b"")
    assert why.encode() in done.stderr
