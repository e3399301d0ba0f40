"""``postseal seal``, ``open`` and ``inspect`` as a user runs them: octets in and out, sentences, exit codes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from support.cms import root
from support.command import postseal
from support.pki import NOW, Leaf

MESSAGE = (
    b"Received: from x\r\nFrom: a@example.test\r\nTo: b@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"d\xc3\xbc \x00 \xff\r\n\r\nno last line end"
)


@cache
def leaf(kind: str, address: str = "b@example.test") -> Leaf:
    return root().issue(address, kind=kind, slot=("cli", address), not_after=NOW + timedelta(days=3000))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Paths: rsa.crt, rsa.key, p256.crt …"""
    found = {}
    for kind, name in (("rsa2048", "rsa"), ("p256", "p256")):
        (tmp_path / f"{name}.crt").write_bytes(leaf(kind).pem)
        (tmp_path / f"{name}.key").write_bytes(leaf(kind).key_pem)
        found |= {f"{name}.crt": str(tmp_path / f"{name}.crt"), f"{name}.key": str(tmp_path / f"{name}.key")}
    return found


def inner_of(message: bytes) -> bytes:
    """Header fields of the content and body: what must come back octet for octet."""
    return message[message.index(b"Content-Type") :]


@pytest.mark.parametrize("name", ["rsa", "p256"])
@pytest.mark.parametrize("cipher", ["aes128-cbc", "aes256-cbc", "aes256-gcm"])
def test_a_sealed_message_opens_again(name: str, cipher: str, files: dict[str, str]) -> None:
    done = postseal("seal", "--to", files[f"{name}.crt"], "--cipher", cipher, stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    assert b"path and revocation were not checked" in done.stderr
    kind = b"authEnveloped-data" if cipher == "aes256-gcm" else b"enveloped-data"
    assert b"smime-type=" + kind + b";\r\n" in done.stdout
    assert done.stdout.count(b"MIME-Version: 1.0\r\n") == 1
    assert done.stdout.count(b"\n") == done.stdout.count(b"\r\n")
    assert b"8bit" not in done.stdout
    for certificate in ([], ["--certificate", files[f"{name}.crt"]]):
        opened = postseal("open", "--key", files[f"{name}.key"], *certificate, stdin=done.stdout)
        assert opened.returncode == 0, opened.stderr
        assert inner_of(opened.stdout) == inner_of(MESSAGE)
        assert opened.stdout == MESSAGE
        assert (b"doesn't authenticate" in opened.stderr) == (cipher != "aes256-gcm")


def test_openssl_opens_it_as_smime(files: dict[str, str], tmp_path: Path) -> None:
    done = postseal("seal", "--to", files["rsa.crt"], files["p256.crt"], stdin=MESSAGE)
    assert b"older mail programs can't open it" in done.stderr
    (tmp_path / "in.eml").write_bytes(done.stdout)
    for name in ("rsa", "p256"):
        command = ["openssl", "cms", "-decrypt", "-binary", "-in", str(tmp_path / "in.eml")]
        keys = ["-recip", files[f"{name}.crt"], "-inkey", files[f"{name}.key"]]
        assert subprocess.run([*command, *keys], capture_output=True, check=True).stdout == inner_of(MESSAGE)


def test_text_with_unix_line_ends_is_converted_and_said_so(files: dict[str, str]) -> None:
    text = b"Subject: hello\n\nline\n\nline"
    done = postseal("seal", "--json", "--to", files["rsa.crt"], stdin=text)
    assert any("converted to CRLF" in note for note in json.loads(done.stderr)["notes"])
    opened = postseal("open", "--key", files["rsa.key"], stdin=done.stdout.replace(b"\r\n", b"\n"))
    assert opened.stdout == (
        b"Subject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nline\r\n\r\nline"
    )


def test_what_openssl_sealed_opens(files: dict[str, str]) -> None:
    command = ["openssl", "cms", "-encrypt", "-aes256", "-stream", "-from", "x@example.test", "-subject", "s"]
    content = b"Content-Type: text/plain\n\nhello\n"
    sealed = subprocess.run([*command, files["rsa.crt"]], input=content, capture_output=True, check=True).stdout
    opened = postseal("open", "--key", files["rsa.key"], stdin=sealed)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.endswith(b"Content-Type: text/plain\r\n\r\nhello\r\n")
    assert b"From: x@example.test\r\n" in opened.stdout
    assert b"pkcs7" not in opened.stdout
    bare = subprocess.run(
        [*command[:4], "-outform", "DER", files["rsa.crt"]], input=content, capture_output=True, check=True
    )
    opened = postseal("open", "--key", files["rsa.key"], stdin=bare.stdout)
    assert opened.stdout == content.replace(b"\n", b"\r\n")


def test_fields_inside_do_not_become_fields_of_the_message(files: dict[str, str]) -> None:
    command = ["openssl", "cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", files["rsa.crt"]]
    content = b"From: evil@example.test\r\nContent-Type: text/plain\r\nX-Postseal: ok\r\n\r\nhello"
    der = subprocess.run(command, input=content, capture_output=True, check=True).stdout
    header = (
        b"From: a@example.test\r\nContent-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    )
    opened = postseal("open", "--key", files["rsa.key"], stdin=header + der)
    assert opened.stdout == b"From: a@example.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nhello"
    assert b"the field From inside the sealed content was left out" in opened.stderr
    assert b"the field X-Postseal inside" in opened.stderr


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"", "the input is empty"),
        (b"Content-Type: a/b\r\nContent-type: c/d\r\n\r\n", "comes twice (mail.duplicate-header): Content-type"),
        (b"Subject: x\r\n\r\na\nb\r\n", "LF without CR (mail.bare-lf)"),
        (b"Subject: x\r\n\r\na\rb\r\n", "CR without LF (mail.bare-cr)"),
        (b"Subject: x\n\na\rb\n", "CR without LF (mail.bare-cr)"),
        (b"no header\r\n\r\n", "malformed (mail.bad-header): line 1 has no colon"),
        (b"X: " + b"a" * 1_200_000, "too large (mail.header-too-large)"),
    ],
    ids=["empty", "duplicate", "bare-lf", "bare-cr", "bare-cr-unix", "no-colon", "too-large"],
)
def test_a_message_that_cannot_be_sealed_is_refused_by_name(
    message: bytes, sentence: str, files: dict[str, str]
) -> None:
    done = postseal("seal", "--to", files["rsa.crt"], stdin=message)
    assert done.returncode == 65
    assert done.stdout == b""
    assert sentence in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_certificates_that_cannot_be_used_are_named(files: dict[str, str], tmp_path: Path) -> None:
    two = tmp_path / "two.crt"
    two.write_bytes(leaf("rsa2048").pem + leaf("p256").pem)
    ended = tmp_path / "ended.crt"
    past = datetime(2024, 1, 1, tzinfo=UTC)
    ended.write_bytes(root().issue("b@example.test", not_before=past, not_after=past + timedelta(days=9)).pem)
    cases = (
        (str(tmp_path / "none.crt"), 69, "No such file"),
        (files["rsa.key"], 65, "no certificate found"),
        (str(two), 65, "holds 2 certificates"),
        (str(ended), 65, "ended.crt: "),
    )
    for path, code, sentence in cases:
        done = postseal("seal", "--to", path, stdin=MESSAGE)
        assert (done.returncode, done.stdout) == (code, b""), path
        assert sentence in done.stderr.decode()
        assert b"Traceback" not in done.stderr


def test_a_wrong_command_line_is_usage() -> None:
    assert postseal("seal").returncode == 64
    assert postseal("seal", "--to", "x", "--cipher", "des").returncode == 64
    assert postseal("seal", "--to", "x", "--key-transport", "oaep").returncode == 64
    assert postseal("seal", "--to", "x", "--recipient-id", "serial").returncode == 64
    assert postseal("open").returncode == 64


def test_keys_that_cannot_be_used_are_named(files: dict[str, str], tmp_path: Path) -> None:
    sealed = postseal("seal", "--to", files["rsa.crt"], stdin=MESSAGE).stdout
    locked = tmp_path / "locked.key"
    encryption = BestAvailableEncryption(b"correct horse")
    locked.write_bytes(leaf("rsa2048").key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption))
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_bytes(b"correct horse\nsecond line\n")
    bad.write_bytes(b"wrong\n")
    bag = tmp_path / "b.p12"
    bag.write_bytes(serialize_key_and_certificates(b"b", leaf("rsa2048").key, None, None, NoEncryption()))
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"\n")
    assert postseal("open", "--key", str(locked), "--passphrase-file", str(good), stdin=sealed).stdout == MESSAGE
    cases = (
        ((str(locked),), 65, "is encrypted"),
        ((str(locked), "--passphrase-file", str(bad)), 65, "passphrase is wrong"),
        ((str(locked), "--passphrase-file", str(tmp_path / "none")), 69, "No such file"),
        ((files["rsa.key"], "--passphrase-file", str(good)), 65, "isn't encrypted"),
        ((str(locked), "--passphrase-file", str(empty)), 65, "locked.key: the passphrase is empty"),
        ((files["rsa.crt"],), 65, "can't be read"),
        ((str(bag),), 65, "b.p12: a PKCS#12 file; take the key out of it: openssl pkcs12 -nocerts"),
        ((files["rsa.key"], "--certificate", files["p256.crt"]), 65, "isn't for this key"),
        ((files["p256.key"],), 65, "can't be decrypted"),
    )
    for arguments, code, sentence in cases:
        done = postseal("open", "--key", *arguments, stdin=sealed)
        assert (done.returncode, done.stdout) == (code, b""), sentence
        assert sentence in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1


def test_what_is_not_sealed_is_not_opened(files: dict[str, str]) -> None:
    for message, sentence in ((MESSAGE, "isn't sealed"), (b"\x30\x80\x00\x00", "not a CMS message"), (b"", "empty")):
        done = postseal("open", "--key", files["rsa.key"], stdin=message)
        assert done.returncode == 65
        assert sentence in done.stderr.decode()


def test_inspect_shows_structure_and_recipients(files: dict[str, str]) -> None:
    sealed = postseal(
        "seal", "--to", files["rsa.crt"], "--to", files["p256.crt"], "--cipher", "aes256-gcm", stdin=MESSAGE
    ).stdout
    found = json.loads(postseal("inspect", "--json", stdin=sealed).stdout)
    assert found["protection"] == "encrypted"
    assert found["cms"]["type"] == "auth-enveloped-data"
    assert (found["cms"]["cipher"], found["cms"]["tag_length"]) == ("aes256-gcm", 16)
    assert found["cms"]["content_length"] == len(inner_of(MESSAGE))
    recipients = {
        (each["kind"], each["algorithm"], each["issuer"], each["serial"]) for each in found["cms"]["recipients"]
    }
    assert recipients == {
        ("key-transport", "rsa-pkcs1v15", "CN=CMS test root", f"{leaf('rsa2048').certificate.serial:x}"),
        ("key-agreement", "ecdh-sha256kdf", "CN=CMS test root", f"{leaf('p256').certificate.serial:x}"),
    }
    lines = postseal("inspect", stdin=sealed).stdout.decode()
    assert "structure: auth-enveloped-data, aes256-gcm" in lines
    assert "recipient: key-agreement, ecdh-sha256kdf, issuer CN=CMS test root, serial" in lines


def test_inspect_tells_claims_and_plain_mail_apart() -> None:
    assert json.loads(postseal("inspect", "--json", stdin=MESSAGE).stdout)["protection"] == "none"
    claim = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nDear Bob\r\n"
    found = json.loads(postseal("inspect", "--json", stdin=claim).stdout)
    assert found["protection"] == "claimed-only"
    assert "not a" in found["fault"]
    assert postseal("inspect", stdin=b"no header\r\n").returncode == 65


_MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
)


def _peak(certificate: str, source: Path, sealed: Path, piped: bool) -> int:
    """Peak memory in KB of sealing a file, or what comes from a pipe, in a process of its own."""
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "postseal.shell.cli.main", "seal"]
    with sealed.open("wb") as stdout, contextlib.ExitStack() as stack:
        if piped:
            writer = stack.enter_context(subprocess.Popen(["cat", source], stdout=subprocess.PIPE))
            stdin = writer.stdout
        else:
            stdin = stack.enter_context(source.open("rb"))
        done = subprocess.run([*command, "--to", certificate], stdin=stdin, stdout=stdout, stderr=-1, check=True)
    return int(done.stderr)


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_a_large_message_is_sealed_in_little_memory(piped: bool, files: dict[str, str], tmp_path: Path) -> None:
    """100 MB take 16 MB more than a small message does, whether they can be read twice or not."""
    small, large, sealed = tmp_path / "small.eml", tmp_path / "large.eml", tmp_path / "out"
    small.write_bytes(b"Subject: small\r\n\r\nhello\r\n")
    with large.open("wb") as file:
        file.write(b"Subject: large\r\n\r\n")
        for _ in range(100):
            file.write((b"x" * 76 + b"\r\n") * 13_443)
    base = _peak(files["rsa.crt"], small, sealed, piped)
    assert _peak(files["rsa.crt"], large, sealed, piped) < base + 16_000
    assert sealed.stat().st_size > 1.36 * large.stat().st_size


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_file_is_sealed_from_where_it_stands(end: bytes, files: dict[str, str], tmp_path: Path) -> None:
    """What was read of standard input before isn't part of the message; a file gives the same message as a pipe."""
    source = tmp_path / "mbox"
    message = MESSAGE.replace(b"\r\n", end) + end * 50_000
    source.write_bytes(b"From a@example.test Tue Nov 24\n" + message)
    command = [sys.executable, "-m", "postseal.shell.cli.main", "seal", "--to", files["rsa.crt"]]
    with source.open("rb", buffering=0) as stdin:
        stdin.readline()
        done = subprocess.run(command, stdin=stdin, capture_output=True, check=True)
        assert stdin.tell() == source.stat().st_size
    opened = postseal("open", "--key", files["rsa.key"], stdin=done.stdout).stdout
    assert opened == message.replace(end, b"\r\n")
    assert done.stdout.count(b"\n") == done.stdout.count(b"\r\n")


def test_a_full_disk_is_one_sentence(files: dict[str, str]) -> None:
    command = [sys.executable, "-m", "postseal.shell.cli.main", "seal", "--to", files["rsa.crt"]]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, input=MESSAGE, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 73
    assert b"standard output: No space left on device" in done.stderr
