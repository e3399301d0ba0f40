"""No plaintext and no key in an exception text, a log line, standard error, a repr or a file that others can read.

Canaries are sealed, opened and looked for, while every function on the way fails once.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

from postseal.app.cms_open import load_private_key
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from postseal.shell.cli import files as cli_files
from postseal.shell.cli import main as cli_main
from support.cms import cleared, recipient, sealed
from support.injection import Faults, injected, modules
from support.mailworld import World

KEY = b"KEY-CANARY-f3b1c07a9d42e85b-KEY!"
TEXT = b"TEXT-CANARY-61d0e8aa"
MESSAGE = b"From: a@home.test\r\nSubject: x\r\nContent-Type: text/plain\r\n\r\n" + (TEXT + b"\r\n") * 300
ON_THE_WAY = ("postseal.core.cms", "postseal.core.message", "postseal.app")


def forms(secret: bytes) -> list[bytes]:
    """How octets may come to be written: as they are, in hex, in base64 at each offset, as numbers."""
    encoded = [base64.b64encode(b"x" * n + secret)[4:-4] for n in range(3)]
    numbers = ", ".join(map(str, secret[:8])).encode()
    return [secret, secret.hex().encode(), *encoded, numbers, str(int.from_bytes(secret, "big")).encode()]


FORMS = {"text": forms(TEXT), "key": forms(KEY)}


def found_in(octets: bytes) -> list[str]:
    return [name for name, all_forms in FORMS.items() if any(each in octets for each in all_forms)]


def test_canaries_would_be_found() -> None:
    for written in (repr(KEY), KEY.hex(), base64.b64encode(b"12345" + KEY + b"678").decode(), str(list(KEY))):
        assert found_in(written.encode()) == ["key"]
    assert found_in(b"nothing") == []


class Watch:
    """What a run left behind, and what was looked at on the way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.leaks: list[str] = []

    def files(self) -> None:
        """Open files below the temporary directory, with a name or without: ciphertext only, and nobody else's to read."""
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}").startswith(str(self.directory)):
                    self._file(f"/proc/self/fd/{number}", os.stat(f"/proc/self/fd/{number}"))
        for path in self.directory.rglob("*"):
            self.leaks.append(f"a file with a name: {path}")

    def _file(self, path: str, about: os.stat_result) -> None:
        if stat.S_IMODE(about.st_mode) != 0o600 or about.st_nlink:
            self.leaks.append(f"{path}: mode {about.st_mode:o}, {about.st_nlink} names")
        self.leaks += [f"{name} in a file" for name in found_in(Path(path).read_bytes())]

    def object(self, each: object) -> None:
        self.leaks += [f"{name} in the repr of {type(each).__name__}" for name in found_in(repr(each).encode())]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    directory = tmp_path / "temporary"
    directory.mkdir()
    with mock.patch.object(tempfile, "tempdir", str(directory)), mock.patch.object(cli_files, "_MEMORY", 1000):
        yield Watch(directory)


def postseal(*arguments: str, stdin: bytes) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and error of a command in this process; its exceptions come as a traceback."""
    output, errors = io.BytesIO(), io.StringIO()
    with (
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch("sys.stdout", io.TextIOWrapper(output, write_through=True)) as stdout,
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = cli_main.main(arguments)
        except BaseException:
            code = 70
            errors.write(traceback.format_exc())
        stdout.flush()
    return code, output.getvalue(), errors.getvalue().encode()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("keys")
    for kind in ("rsa2048", "p256"):
        (folder / f"{kind}.crt").write_bytes(recipient(kind).pem)
        (folder / f"{kind}.key").write_bytes(recipient(kind).key_pem)
    return {path.name: str(path) for path in folder.iterdir()}


def known_key(length: int) -> bytes:
    return KEY[:length] if length >= 16 else b"n" * length


def sealed_message(suite: Suite) -> bytes:
    """Sealed with the known key, for both recipients."""
    from postseal.core.cms.content import ContentSealer
    from postseal.core.cms.envelope import envelope

    sealer = ContentSealer(suite, KEY[: suite.key_length], b"v" * suite.iv_length)
    ciphertext = sealer.update(MESSAGE.partition(b"Subject: x\r\n")[2]) + sealer.finish()
    people = [recipient("rsa2048"), recipient("p256")]
    head, tail = envelope(
        suite, KEY[: suite.key_length], cleared(people), b"v" * suite.iv_length, len(ciphertext), sealer.tag
    )
    body = base64.encodebytes(head + ciphertext + tail).replace(b"\n", b"\r\n")
    return (
        b"From: a@home.test\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + body
    )


def check(watch: Watch, code: int, output: bytes, errors: bytes, name: str) -> None:
    assert found_in(errors) == [], (name, errors)
    if code:
        # Of content that could not be taken wholly nothing was given out.
        assert found_in(output) == [], name
    watch.files()
    assert watch.leaks == [], name


def run_through(
    watch: Watch,
    run: Callable[[], tuple[int, bytes, bytes]],
    check_all: Callable[[int, bytes, bytes, str], None],
    least: int,
) -> None:
    """Once as it is, then once for each function that was called: failing before or after its work, expected or not."""
    faults = Faults(watch.files, watch.object)
    with injected(faults, modules(*ON_THE_WAY)):
        code, output, errors = run()
        assert code == 0, errors
        check_all(code, output, errors, "nothing")
        names = sorted(faults.called)
        assert len(names) >= least
        missed = 0
        for name in names:
            for after, error in ((False, KeyError), (True, BadData), (True, MemoryError)):
                faults.armed, faults.after, faults.error, faults.hit = name, after, error, False
                check_all(*run(), name)
                # Some are called only the first time: what they give is remembered.
                missed += not faults.hit
        assert missed <= len(names)


@pytest.mark.parametrize("cipher", ["aes256-cbc", "aes256-gcm"])
@pytest.mark.parametrize("debug", ["", "1"])
def test_seal_tells_nothing(cipher: str, debug: str, watch: Watch, paths: dict[str, str]) -> None:
    """Standard error, tracebacks, spool files and reprs while each function fails once; the ciphertext is all there is."""
    people = [paths["rsa2048.crt"], paths["p256.crt"]]

    def run() -> tuple[int, bytes, bytes]:
        return postseal("seal", "--to", *people, "--cipher", cipher, stdin=MESSAGE)

    def look(code: int, output: bytes, errors: bytes, name: str) -> None:
        assert found_in(output) == [], name
        check(watch, code, output, errors, name)

    with mock.patch("os.urandom", known_key), mock.patch.dict(os.environ, {"POSTSEAL_DEBUG": debug}):
        run_through(watch, run, look, 20)


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_open_tells_nothing_but_the_content(suite: Suite, kind: str, watch: Watch, paths: dict[str, str]) -> None:
    """While each function fails once: nothing on standard error, and on standard output all or nothing."""
    message = sealed_message(suite)
    # The library takes a tenth of a second to look at an RSA key; once is enough.
    load = cache(load_private_key) if kind == "rsa2048" else load_private_key

    def run() -> tuple[int, bytes, bytes]:
        with mock.patch("postseal.shell.cli.open.load_private_key", load):
            return postseal("open", "--key", paths[f"{kind}.key"], "--certificate", paths[f"{kind}.crt"], stdin=message)

    run_through(watch, run, lambda *found: check(watch, *found), 15)
    code, output, _ = run()
    assert code == 0
    assert TEXT in output


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
def test_damage_tells_nothing(suite: Suite, watch: Watch, paths: dict[str, str]) -> None:
    """Damaged anywhere: with the good key, what is said is never a piece of what it says."""
    message = sealed_message(suite)
    head, _, body = message.partition(b"\r\n\r\n")
    der = base64.b64decode(body)
    for place in range(0, len(der), 31):
        spoilt = der[:place] + bytes((der[place] ^ 0x55,)) + der[place + 1 :]
        for octets in (spoilt, head + b"\r\n\r\n" + base64.encodebytes(spoilt).replace(b"\n", b"\r\n")):
            code, output, errors = postseal("open", "--key", paths["p256.key"], stdin=octets)
            assert found_in(errors) == []
            if code:
                assert output == b""
    watch.files()
    assert watch.leaks == []


@pytest.mark.parametrize(
    "content",
    [
        TEXT + b"\r\n\r\nx",
        b"Content-Type: text/plain\r\n" + TEXT + b" no field\r\n\r\nx",
        b"Content-Type: " + TEXT + b'; a="\r\nContent-Type: text/plain\r\n\r\nx',
        b"Content-Type: multipart/signed; boundary=" + TEXT + b"\r\n\r\n--" + TEXT + b"\r\n" + TEXT,
        b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: " + TEXT + b"\r\n\r\n" + TEXT,
        b"Content-Type: application/pkcs7-mime\r\n\r\n" + b"0\x84" + TEXT,
        b"0\x80" + TEXT,
        b" " + TEXT + b": x\r\n\r\n",
    ],
)
def test_content_that_is_no_entity_is_not_quoted(content: bytes, watch: Watch, paths: dict[str, str]) -> None:
    """What is wrong inside of what was encrypted is told without a word of it."""
    inner = sealed(Suite.AES_256_GCM, [recipient("p256")], content)
    message = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    for octets in (inner, message + base64.encodebytes(inner).replace(b"\n", b"\r\n")):
        for options in ([], ["--json"]):
            code, output, errors = postseal("open", "--key", paths["p256.key"], *options, stdin=octets)
            assert found_in(errors) == [], errors
            assert code in (0, 1, 65), errors
            assert code != 65 or output == b""


def test_the_milter_tells_nothing(watch: Watch) -> None:
    """Log lines, replies and spool files of a message whose every function fails once."""

    def run() -> tuple[int, bytes, bytes]:
        # A new one each time: decisions are remembered.
        world = World(watch.directory)
        world.memory = 1000
        world.add("b@example.test")
        world.publish()
        told = b""
        try:
            outcome, refused = world.send(["<b@example.test>"], MESSAGE)
            told = repr((outcome, refused)).encode()
        except BaseException:
            # libmilter's side logs the type and the place (test_faults.py).
            told = traceback.format_exc().encode()
        return 0, b"", told + world.log.text.encode()

    with mock.patch("secrets.token_bytes", known_key):
        run_through(watch, run, lambda *found: check(watch, *found), 20)


def test_a_passphrase_is_not_told(watch: Watch, paths: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(KEY + b"\n")
    code, output, errors = postseal(
        "open", "--key", paths["rsa2048.key"], "--passphrase-file", str(tmp_path / "secret"), stdin=b"x"
    )
    assert (code, output) == (65, b"")
    assert found_in(errors) == []


def test_a_real_traceback_tells_nothing(paths: dict[str, str]) -> None:
    """The interpreter's own, of a process of its own, with POSTSEAL_DEBUG: source lines and types."""
    script = (
        "import sys\nfrom postseal.core.cms import lines\n"
        "def broken(chunks):\n    for chunk in chunks:\n        raise KeyError('injected')\n    yield b''\n"
        "lines.base64_blocks = broken\nfrom postseal.shell.cli.main import main\nsys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "seal", "--to", paths["p256.crt"]],
        input=MESSAGE, capture_output=True, env={**os.environ, "POSTSEAL_DEBUG": "1"}, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 70)
    assert found_in(done.stderr + done.stdout) == []
