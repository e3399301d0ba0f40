"""``postseal sign`` as a user runs it: octets in and out, sentences, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from postseal.core.cms.multipart import split_signed
from postseal.core.cms.signed_attributes import claims
from postseal.core.cms.signed_reader import parse_signed
from postseal.core.message import HeaderFault, split_message
from support.command import postseal
from support.pki import Leaf, usage
from support.signers import FAR, issuing, leaf, signing_root

MESSAGE = (
    b"Received: from x\r\nFrom: a@example.test\r\nTo: b@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nd\xc3\xbcnn wie Papier\r\n"
)


def put(folder: Path, name: str, of: Leaf) -> list[str]:
    (folder / f"{name}.crt").write_bytes(of.pem)
    (folder / f"{name}.key").write_bytes(of.key_pem)
    return ["--key", str(folder / f"{name}.key"), "--certificate", str(folder / f"{name}.crt")]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """rsa.crt, rsa.key, p256.crt … and issuer.crt, root.crt."""
    for kind in ("rsa2048", "p256", "ed25519"):
        put(tmp_path, kind, leaf(kind))
    (tmp_path / "issuer.crt").write_bytes(issuing().pem)
    (tmp_path / "root.crt").write_bytes(signing_root().pem)
    return tmp_path


def options(files: Path, *kinds: str) -> list[str]:
    found = ["--chain", str(files / "issuer.crt")]
    for kind in kinds:
        found += ["--key", str(files / f"{kind}.key"), "--certificate", str(files / f"{kind}.crt")]
    return found


def verified(files: Path, message: bytes) -> bytes:
    """The entity, by OpenSSL."""
    command = ["openssl", "cms", "-verify", "-CAfile", str(files / "root.crt")]
    done = subprocess.run(command, input=message, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def signature_of(message: bytes) -> bytes:
    taken = split_message(message)
    assert not isinstance(taken, HeaderFault)
    return split_signed(*taken).signature


@pytest.mark.parametrize(
    ("kinds", "more"),
    [(("rsa2048",), []), (("rsa2048",), ["--scheme", "pss"]), (("p256",), []), (("rsa2048", "p256"), []),
     (("rsa2048", "p256"), ["--scheme", "pss"])],
)  # fmt: skip
def test_a_message_is_signed(files: Path, kinds: tuple[str, ...], more: list[str]) -> None:
    done = postseal("sign", *options(files, *kinds), *more, stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"Received: from x\r\nFrom: a@example.test\r\n")
    assert b'protocol="application/pkcs7-signature"' in done.stdout
    assert b"encoded before signing" in done.stderr
    header = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    wanted = header + b"d=C3=BCnn wie Papier\r\n"
    assert verified(files, done.stdout) == wanted
    done = postseal("sign", *options(files, *kinds), *more, "--opaque", stdin=MESSAGE)
    assert b"smime-type=signed-data" in done.stdout
    assert verified(files, done.stdout) == MESSAGE[MESSAGE.index(b"Content-Type") :]
    assert done.stderr == b""


def test_lines_with_lf_are_signed_with_crlf(files: Path) -> None:
    for more in ([], ["--opaque"]):
        done = postseal("sign", *options(files, "p256"), *more, stdin=MESSAGE.replace(b"\r\n", b"\n"))
        assert b"converted to CRLF before signing" in done.stderr
        assert done.stdout.count(b"\n") == done.stdout.count(b"\r\n")
        assert b"\r\n" in verified(files, done.stdout)


def test_a_file_is_read_twice_and_gives_the_same(files: Path) -> None:
    """The opaque form of a file is streamed: its length is found out first."""
    (files / "message").write_bytes(MESSAGE.replace(b"\r\n", b"\n") + b"more\n" * 100_000)
    command = [sys.executable, "-m", "postseal.shell.cli.main", "sign", "--opaque", *options(files, "p256")]
    with (files / "message").open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert verified(files, done.stdout).endswith(b"nn wie Papier\r\n" + b"more\r\n" * 100_000)


def test_a_key_with_a_passphrase(files: Path) -> None:
    """The passphrase comes from a file, never from the command line."""
    locked = leaf("p256").key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret words"))
    (files / "p256.key").write_bytes(locked)
    (files / "words").write_bytes(b"secret words\r\nsecond line\n")
    done = postseal("sign", *options(files, "p256"), "--passphrase-file", str(files / "words"), stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    (files / "words").write_bytes(b"other words\n")
    for more, why in (
        ([], b"give its passphrase"),
        (["--passphrase-file", str(files / "words")], b"passphrase is wrong"),
    ):
        done = postseal("sign", *options(files, "p256"), *more, stdin=MESSAGE)
        assert (done.returncode, done.stdout) == (65, b"")
        assert why in done.stderr
        assert b"words" not in done.stderr.replace(str(files).encode(), b"")


def test_one_file_with_key_certificate_and_chain(files: Path) -> None:
    """As openssl -signer takes it; roots are left out."""
    one = files / "one.pem"
    one.write_bytes(leaf("p256").key_pem + issuing().pem + leaf("p256").pem + signing_root().pem)
    done = postseal("sign", "--key", str(one), stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    found = parse_signed(signature_of(done.stdout)).certificates
    assert set(found) == {leaf("p256").certificate, issuing().certificate}


def test_attributes_of_a_signature(files: Path) -> None:
    """RFC 8551 §2.5: what postseal reads is announced; where answers go is told when it is asked for."""
    put(files, "reader", leaf("rsa2048", 5))
    done = postseal("sign", *options(files, "p256"), "--answers-to", str(files / "reader.crt"), stdin=MESSAGE)
    (info,) = parse_signed(signature_of(done.stdout)).signers
    said = claims(info.attributes)
    assert said.fault == ""
    assert said.capabilities
    assert leaf("rsa2048", 5).certificate.issuer in said.key_preference


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [(["--key", "p256.key", "--certificate", "rsa2048.crt"], 65, "no certificate of that private key"),
     (["--key", "p256.key"], 65, "it holds a private key"),
     (["--key", "p256.crt"], 65, "no PEM or DER private key"),
     (["--key", "p256.key", "--certificate", "p256.crt", "--scheme", "pss"], 64, "--scheme is for RSA keys"),
     (["--key", "p256.key", "--key", "rsa2048.key", "--certificate", "p256.crt"], 64, "2 keys of signers and 1"),
     (["--key", "nowhere", "--certificate", "p256.crt"], 69, "nowhere: No such file"),
     (["--certificate", "p256.crt"], 64, "--key"),
     (["--key", "web.key", "--certificate", "web.crt"], 65, "digitalSignature nor nonRepudiation")],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, why: str
) -> None:
    put(files, "web", issuing().issue("a@example.test", kind="p256", key_usage=usage("key_agreement"), not_after=FAR))
    monkeypatch.chdir(files)
    done = postseal("sign", *arguments, stdin=MESSAGE)
    assert (done.returncode, done.stdout) == (code, b"")
    assert why.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("message", "why"),
    [(b"", b"the input is empty"), (b"no header at all\r\n\r\nx", b"mail.bad-header"),
     (b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\nx", b"mail.duplicate-header"), (b"A: b\r\n\r\nx\ny", b"mail.bare-lf")],
)  # fmt: skip
def test_messages_that_cannot_be_signed(files: Path, message: bytes, why: bytes) -> None:
    for more in ([], ["--opaque"]):
        done = postseal("sign", *options(files, "p256"), *more, stdin=message)
        assert (done.returncode, done.stdout) == (65, b"")
        assert why in done.stderr


def test_notes_are_json_on_request(files: Path) -> None:
    done = postseal("sign", *options(files, "p256"), "--json", stdin=MESSAGE)
    assert json.loads(done.stderr) == {
        "notes": ["parts were encoded before signing, because relays would have changed them"]
    }
