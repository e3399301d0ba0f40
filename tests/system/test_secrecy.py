"""Processes that hold mail in clear or keys: no core, no look into them, no other program, no file that others can read."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postseal.core.suite import Suite
from support.cms import recipient, sealed
from support.daemon import POSTSEAL, Daemon, postseal_as, run_postseal
from support.milterdaemon import Setting
from support.scratch import ROOT, wait_for
from support.sink import Sink

NOBODY = 65534
CANARY = b"canary-5d21"
MESSAGE = b"From: a@home.test\r\nSubject: x\r\n\r\n" + CANARY + b"\r\n"
FIELDS = [(b"From", b" a@home.test"), (b"Subject", b" x")]
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")


@pytest.fixture
def keys(scratch: Path) -> dict[str, str]:
    leaf = recipient()
    found = {"crt": scratch / "b.crt", "key": scratch / "b.key"}
    found["crt"].write_bytes(leaf.pem)
    found["key"].write_bytes(leaf.key_pem)
    return {name: str(path) for name, path in found.items()}


def core_limit(pid: int) -> str:
    """How large a core file may get; the limit that counts, which a process may raise again only for itself."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max core file size")).split()[4]


def others_can_look(pid: int) -> bool:
    """May another process of user nobody read the memory map?"""
    return subprocess.run([*AS_NOBODY, "cat", f"/proc/{pid}/maps"], capture_output=True).returncode == 0


@contextmanager
def waiting(launcher: list[str], *arguments: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that waits for its message, allowed to leave a core of any size."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    assert most != 0, "this machine allows no core at all"
    process = subprocess.Popen(
        [*launcher, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)),
    )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(MESSAGE)
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def end_by_abort(pid: int) -> bool:
    """Kill by SIGABRT; did the kernel write or pipe a core?"""
    os.kill(pid, signal.SIGABRT)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


@pytest.mark.root
@pytest.mark.parametrize("command", ["seal", "open"])
def test_a_command_that_holds_secrets_leaves_no_core(command: str, keys: dict[str, str], scratch: Path) -> None:
    """THR-17: SIGABRT while the message is read, with all limits lifted before."""
    os.chmod(keys["key"], 0o644)
    arguments = ["seal", "--to", keys["crt"]] if command == "seal" else ["open", "--key", keys["key"]]
    work = scratch / "work"
    work.mkdir()
    os.chmod(work, 0o777)
    with waiting(postseal_as(scratch, NOBODY, NOBODY), *arguments, cwd=work) as process:
        wait_for(lambda: core_limit(process.pid) == "0", "no core allowed", 10)
        assert not others_can_look(process.pid)
        assert not end_by_abort(process.pid)
        process.returncode = -signal.SIGABRT
    assert list(work.iterdir()) == []
    # The same way without these commands: what is looked at is there to be seen.
    with waiting([*AS_NOBODY, "sleep", "60"], cwd=work) as other:
        wait_for(lambda: "sleep" in Path(f"/proc/{other.pid}/comm").read_text(), "sleep", 5)
        assert core_limit(other.pid) != "0"
        assert others_can_look(other.pid)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A milter whose every exec is written down."""
    from support.scratch import scratch as made

    with made() as directory, Sink() as sink:
        setting = Setting(directory, sink)
        setting.daemon.launcher = (*strace(directory / "trace"), *POSTSEAL)
        with setting.daemon:
            yield setting
            # strace itself takes no notice of signals.
            os.kill(children(setting.daemon.pid)[0], signal.SIGTERM)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def strace(file: Path) -> tuple[str, ...]:
    return ("strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", str(file), "--")


def programs(file: Path) -> list[str]:
    """What was started, the first program included."""
    return [line for line in file.read_text().splitlines() if "exec" in line and "= 0" in line]


@pytest.mark.root
def test_the_milter_starts_no_program_and_its_workers_leave_no_core(traced: Setting) -> None:
    """No openssl process at run time; THR-17 for each worker. The supervisor sees no mail."""
    body = (CANARY + b"\r\n") * 20_000
    with traced.mta() as mta:
        answer = mta.send("<a@home.test>", ["<alice@partner.test>"], FIELDS, body)
        assert answer.body is not None
        assert CANARY in traced.open("alice", answer.message(FIELDS, body))
    assert len(programs(traced.directory / "trace")) == 1
    supervisor = children(traced.daemon.pid)[0]
    workers = children(supervisor)
    assert len(workers) == 2
    for worker in workers:
        assert core_limit(worker) == "0"
    for path in traced.directory.rglob("*"):
        if path.is_file():
            assert CANARY not in path.read_bytes(), path


@pytest.mark.root
def test_workers_can_not_be_looked_into(scratch: Path) -> None:
    """THR-17: other processes of the milter's user see the supervisor, which has no mail, and no worker."""
    policy = [{"name": "all", "seal": "may", "without_certificate": "clear"}]
    daemon = Daemon(scratch, "milter", policy=policy, launcher=postseal_as(scratch, NOBODY, NOBODY))
    for path in [scratch, *scratch.rglob("*")]:
        if "tree-" not in str(path):
            os.chown(path, NOBODY, NOBODY)
    with daemon:
        daemon.wait_log("workers: ")
        assert others_can_look(daemon.pid)
        workers = children(daemon.pid)
        assert len(workers) == 2
        assert not any(map(others_can_look, workers))


@pytest.mark.root
def test_commands_start_no_program(keys: dict[str, str], scratch: Path) -> None:
    """No openssl process at run time."""
    whole = sealed(Suite.AES_256_GCM, [recipient()], MESSAGE)
    for name, arguments, stdin in (
        ("seal", ["seal", "--to", keys["crt"]], MESSAGE),
        ("open", ["open", "--key", keys["key"]], whole),
        ("inspect", ["inspect"], whole),
        ("verify", ["verify", "--offline", "--anchor", keys["crt"], keys["crt"]], b""),
    ):
        trace = scratch / f"{name}.trace"
        done = subprocess.run([*strace(trace), *POSTSEAL, *arguments], input=stdin, capture_output=True, timeout=60)
        assert done.returncode in ((0,) if name != "verify" else (0, 1)), done.stderr
        assert len(programs(trace)) == 1, name


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_no_unit_allows_a_core(unit: Path) -> None:
    assert "\nLimitCORE=0\n" in unit.read_text()


def test_a_full_disk_is_one_sentence(keys: dict[str, str], scratch: Path) -> None:
    """What doesn't fit on the disk is told without a word of what it was; nothing is left behind."""
    limited = ["prlimit", "--fsize=4000000", "--", "env", f"TMPDIR={scratch}", *POSTSEAL]
    before = sorted(scratch.iterdir())
    body = (CANARY + b" " + b"x" * 50 + b"\r\n") * 400_000
    done = subprocess.run(
        [*limited, "seal", "--to", keys["crt"]], input=MESSAGE + body, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 73
    assert CANARY not in done.stderr
    assert done.stderr.endswith(f" in {scratch}: File too large\n".encode())
    assert done.stderr.count(b"\n") == 1
    assert sorted(scratch.iterdir()) == before
    assert run_postseal("seal", "--to", keys["crt"], stdin=MESSAGE).returncode == 0
