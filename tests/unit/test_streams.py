"""Standard streams that are closed, full or a terminal: one sentence, the right exit code, and nothing in the wrong place."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from postseal.shell.cli import main as command
from support.cms import root
from support.pki import NOW

MESSAGE = b"From: a@example.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
POSTSEAL = (sys.executable, "-m", "postseal.shell.cli.main")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("streams")
    who = root().issue("a@example.test", slot="streams", not_after=NOW + timedelta(days=3000))
    (folder / "crt").write_bytes(who.pem)
    (folder / "key").write_bytes(who.key_pem)
    (folder / "all").write_bytes(who.key_pem + who.pem)
    (folder / "mail").write_bytes(MESSAGE)
    sealed = subprocess.run([*POSTSEAL, "seal", "--to", folder / "crt"], input=MESSAGE, capture_output=True, check=True)
    (folder / "sealed").write_bytes(sealed.stdout)
    return {path.name: str(path) for path in folder.iterdir()}


def shell(redirections: str, *words: str, unbuffered: bool = False) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *POSTSEAL, *words],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1" * unbuffered},
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [("seal", "--to", "crt"), ("sign", "--key", "all"), ("open", "--key", "key"), ("inspect",)],
    ids=lambda w: w[0],
)
def test_streams_that_are_closed_or_full(words: tuple[str, ...], files: dict[str, str]) -> None:
    """Input 69, output 73; and never what an internal error is told by."""
    arguments = [files.get(word, word) for word in words]
    mail = files["mail" if words[0] in ("seal", "sign") else "sealed"]
    cases = [
        ("<&-", 69, b"postseal: standard input: Bad file descriptor\n"),
        (f"<{mail} >&-", 73, b"postseal: standard output: Bad file descriptor\n"),
        (f"<{mail} >/dev/full", 73, b"postseal: standard output: No space left on device\n"),
    ]
    for redirections, code, sentence in cases:
        done = shell(redirections, *arguments)
        assert (done.returncode, done.stderr, done.stdout) == (code, sentence, b""), redirections
    done = shell(f"<{mail} >/dev/full", *arguments, unbuffered=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (73, 1), done.stderr


def test_a_report_that_nobody_can_hear_never_gets_into_the_message(files: dict[str, str]) -> None:
    """With standard error closed, the account of a message was written behind the message."""
    done = shell(f"<{files['sealed']} 2>&-", "open", "--key", files["key"])
    assert (done.returncode, done.stdout) == (0, MESSAGE)
    done = shell(f"<{files['mail']} 2>&-", "seal", "--to", files["crt"])
    assert done.returncode == 0
    assert done.stdout.endswith(b"\r\n")
    assert b"postseal:" not in done.stdout


def test_a_report_that_cannot_be_written_is_no_verdict(files: dict[str, str]) -> None:
    """Exit 1 would say that a signature isn't good. The message is there all the same."""
    done = shell(f"<{files['sealed']} 2>/dev/full", "open", "--key", files["key"])
    assert (done.returncode, done.stdout) == (73, MESSAGE)
    assert shell("2>/dev/full", "seal", "--to", "/nowhere").returncode == 69


def test_a_message_that_is_not_taken_whole_is_no_success(files: dict[str, str], tmp_path: Path) -> None:
    """Who reads listings may leave early, which is no error; half a message is one."""
    large = tmp_path / "large"
    large.write_bytes(MESSAGE + b"line\r\n" * 200_000)
    for words in (("seal", "--to", files["crt"]), ("sign", "--key", files["all"])):
        with large.open("rb") as stdin, subprocess.Popen(
            [*POSTSEAL, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            said = process.stderr.read()
        assert (process.returncode, said) == (73, b"postseal: standard output: Broken pipe\n")


def test_a_terminal_is_told_that_a_message_is_awaited(files: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*POSTSEAL, "seal", "--to", files["crt"]], stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:  # fmt: skip
        os.close(theirs)
        assert os.read(ours, 1000).startswith(b"postseal: reading the message from the terminal")
        os.write(ours, b"\x04")
        assert process.wait(10) == 65
    os.close(ours)


def test_options_are_written_out_and_misspelt_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A passphrase on the command line mustn't come back in an error, by way of an option that was cut short."""
    cases = [
        (["open", "--passphrase", "s3cret"], "open: there is no option --passphrase; did you mean --passphrase-file?"),
        (["seal", "--to", "c", "--chipher=aes256-gcm"], "seal: there is no option --chipher; did you mean --cipher?"),
        (["open", "--key", "k", "--zzz"], "open: there is no option --zzz"),
        (["open", "--key", "k", "mail"], "open: unexpected argument: mail"),
        (["cert", "show", "--pme", "x"], "cert show: there is no option --pme; did you mean --pem?"),
        ([], "the following arguments are required: COMMAND"),
    ]  # fmt: skip
    for words, sentence in cases:
        assert command.main(words) == 64
        assert capsys.readouterr().err == f"postseal: {sentence}\n"
