"""The supervisor and its workers as processes: start and its errors, death, drain, reload."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, postseal_as, run_postseal
from support.milterclient import MilterClient
from support.scratch import answers, free_port, scratch, wait_for

FIELDS = [(b"Subject", b" x")]
POLICY = [{"name": "all", "seal": "must", "without_certificate": "refuse"}]


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch() as made:
        yield made


class Milter(Daemon):
    """Waits for all workers; the first one answers before the supervisor knows that the last one has started."""

    def start(self, timeout: float = 30.0) -> None:
        super().start(timeout)
        self.wait_log("workers: ")


def milter(directory: Path, **settings: Any) -> Daemon:
    return Milter(directory, "milter", policy=POLICY, settings={"milter": settings})


def pid_of(daemon: Daemon, client: MilterClient) -> int:
    """Which worker serves a connection: the one whose log line has this queue id."""
    queue_id = f"Q{time.monotonic_ns()}"
    client.send("<x@elsewhere.test>", ["<b@example.test>"], FIELDS, b"", macros={"i": queue_id})
    daemon.wait_log(f"{queue_id}: ")
    line = next(line for line in daemon.log().splitlines() if f"{queue_id}: " in line)
    return int(line.partition("[")[2].partition("]")[0])


def begun(daemon: Daemon) -> MilterClient:
    """A connection with a message in work."""
    client = MilterClient(daemon.milter)
    client.connect()
    client.mail("<a@home.test>")
    client.rcpt("<i@home.test>")
    return client


# --- start


def test_the_socket_has_mode_and_group(directory: Path) -> None:
    """THR-31: nobody else reaches it; it goes away at the end."""
    daemon = milter(directory, socket_mode="0660", socket_group="daemon")
    with daemon:
        path = Path(daemon.milter.removeprefix("unix:"))
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert status.st_gid == 1
        assert len(daemon.children()) == 2
    assert not path.exists()


def test_every_worker_serves(directory: Path) -> None:
    """One socket, several processes."""
    with milter(directory, workers=3, pin_workers=True) as daemon:
        seen = set()
        for _ in range(100):
            with MilterClient(daemon.milter) as client:
                client.connect()
                seen.add(pid_of(daemon, client))
            if len(seen) > 1:
                break
        assert 1 < len(seen) <= 3
        assert seen <= set(daemon.children())


def test_a_tcp_socket(directory: Path) -> None:
    """inet:PORT@HOST."""
    with milter(directory, socket=f"inet:{free_port()}@127.0.0.1") as daemon:
        client = begun(daemon)
        assert client.message(FIELDS, b"").kind == "a"


def test_a_stale_socket_is_replaced_a_live_one_is_not(directory: Path) -> None:
    """What a crash left behind is no obstacle; a second instance says so in one sentence and exits with 69."""
    daemon = milter(directory)
    path = daemon.milter.removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with daemon:
        second = run_postseal("milter", "--config", str(daemon.config_file))
        assert second.returncode == 69
        assert second.stderr == f"postseal: can't listen on unix:{path}: another process listens there already\n"
        assert answers(daemon.milter)
        inode = os.stat(path).st_ino
    assert inode


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"socket": "unix:/proc/none/x.sock"}, 73, "can't listen on unix:/proc/none/x.sock: No such file or directory"),
        ({"socket_group": "no-such-group"}, 73, "socket_group: there is no group 'no-such-group'"),
        ({"socket": "inet:1@192.0.2.1"}, 73, "Cannot assign requested address"),
        ({"workers": -1}, 78, "workers"),
        ({"spool_directory": "/proc/none/spool"}, 73, "can't make the spool directory /proc/none/spool"),
    ],
)
def test_a_wrong_start_is_one_sentence(directory: Path, settings: dict[str, Any], code: int, words: str) -> None:
    """Its exit code and one sentence; nothing stays behind."""
    daemon = milter(directory, **settings)
    done = run_postseal("milter", "--config", str(daemon.config_file))
    lines = [line for line in done.stderr.splitlines() if line.startswith("postseal: ")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in done.stderr


def test_a_plain_file_in_the_way_is_not_deleted(directory: Path) -> None:
    """Only a socket that nobody listens on is stale."""
    daemon = milter(directory)
    path = Path(daemon.milter.removeprefix("unix:"))
    path.write_text("precious")
    done = run_postseal("milter", "--config", str(daemon.config_file))
    assert (done.returncode, path.read_text()) == (73, "precious")
    assert "not a socket" in done.stderr


def test_permission(directory: Path) -> None:
    """As nobody, in a directory of root: exit 77."""
    daemon = milter(directory)
    os.chmod(daemon.run, 0o755)
    command = postseal_as(directory, 65534, 65534)
    done = subprocess.run([*command, "milter", "--config", str(daemon.config_file)], capture_output=True, timeout=60)
    assert done.returncode == 77, done.stderr
    assert b"Permission denied" in done.stderr


def test_without_fd_sockets_one_worker_serves_alone(directory: Path) -> None:
    """Where libmilter has no ``fd:`` (it is Debian's patch): said in the log; mode, reload and stop work all the same."""
    daemon = milter(directory, socket_mode="0600")
    code = (
        "from postseal.config import load_config; from postseal.shell.workers import Supervisor; import sys;"
        f"sys.exit(Supervisor(load_config({str(daemon.config_file)!r}), inherit=False).run())"
    )
    with open(daemon.log_file, "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stderr=log)
    try:
        daemon.wait_log("one worker serves alone")
        daemon.wait_log("workers: 1")
        path = Path(daemon.milter.removeprefix("unix:"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert begun(daemon).message(FIELDS, b"").kind == "a"
        process.send_signal(signal.SIGHUP)
        daemon.wait_log("reloaded")
        wait_for(lambda: answers(daemon.milter), "the new worker")
        assert begun(daemon).message(FIELDS, b"").kind == "a"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


# --- death


def test_a_killed_worker_is_replaced(directory: Path) -> None:
    """Its connections are gone (the MTA says 4xx), all others and new ones are served."""
    with milter(directory) as daemon:
        client = begun(daemon)
        other = begun(daemon)
        client.message(FIELDS, b"")
        victim = pid_of(daemon, client)
        os.kill(victim, signal.SIGKILL)
        daemon.wait_log(f"worker {victim} died (killed by signal 9)")
        assert client.hung_up()
        wait_for(lambda: len(daemon.children()) == 2, "a new worker")
        assert victim not in daemon.children()
        assert begun(daemon).message(FIELDS, b"").kind == "a"
        other.close()


def test_workers_don_t_outlive_a_killed_supervisor(directory: Path) -> None:
    """No orphan keeps the socket."""
    daemon = milter(directory, drain_timeout="1 s")
    daemon.start()
    children = daemon.children()
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait()  # type: ignore[union-attr]
    wait_for(lambda: not any(alive(pid) for pid in children), "the end of the workers", 10)
    daemon.start()
    assert daemon.stop() == 0


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# --- drain and reload


def test_sigterm_lets_a_message_finish(directory: Path) -> None:
    """P3: it is answered, new connections are refused, then all ends with 0."""
    daemon = milter(directory, drain_timeout="10 s")
    daemon.start()
    client = begun(daemon)
    daemon.signal(signal.SIGTERM)
    wait_for(lambda: not answers(daemon.milter), "the closed socket")
    answer = client.message(FIELDS, b"x\r\n")
    assert answer.kind == "a"
    before = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_sigterm_during_the_start(directory: Path, turn: int) -> None:
    """A message that a worker took before the last one had started is finished too."""
    daemon = Daemon(directory, "milter", policy=POLICY, settings={"milter": {"workers": 4}})
    daemon.start()
    client = begun(daemon)
    daemon.signal(signal.SIGTERM)
    wait_for(lambda: not answers(daemon.milter), "the closed socket")
    assert client.message(FIELDS, b"x\r\n").kind == "a"
    assert daemon.stop() == 0


def test_drain_is_bounded(directory: Path) -> None:
    """A client that never ends its message can't hold the service."""
    daemon = milter(directory, drain_timeout="1 s")
    daemon.start()
    client = begun(daemon)
    before = time.monotonic()
    assert daemon.stop() == 0
    assert 0.9 < time.monotonic() - before < 5
    assert "1 messages were not finished within drain_timeout" in daemon.log()
    client.close()


def test_sighup_rolls_to_new_workers_while_old_messages_finish(directory: Path) -> None:
    """The new configuration decides new messages, the old one those that had begun."""
    with milter(directory) as daemon:
        old = daemon.children()
        client = begun(daemon)
        daemon.settings["milter"]["internal_domains"] = ["other.test"]
        daemon.reload()
        daemon.wait_log("reloaded")
        assert client.message(FIELDS, b"").kind == "a"
        wait_for(lambda: not set(old) & set(daemon.children()), "the end of the old workers", 10)
        with MilterClient(daemon.milter) as fresh:
            fresh.connect()
            fresh.mail("<a@other.test>")
            assert fresh.rcpt("<b@example.test>").reply.startswith("550 5.7.1")


@pytest.mark.parametrize(
    "text", ["[milter]\nworkers = 1000000\n", "not toml", '[milter]\nspool_directory = "/proc/no/x"\n']
)
def test_sighup_with_a_wrong_configuration_keeps_the_old_one(directory: Path, text: str) -> None:
    """Said as an error with the place; the workers that serve stay the same."""
    with milter(directory) as daemon:
        before = daemon.children()
        daemon.config_file.write_text(text + "[log]\nsocket = 'stderr'\n" if "spool" in text else text)
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("error: not reloaded, the old configuration stays: ")
        wait_for(lambda: daemon.children() == before, "the same workers")
        with MilterClient(daemon.milter) as client:
            client.connect()
            client.mail("<a@home.test>")
            assert client.rcpt("<b@example.test>").reply.startswith("550 5.7.1")


def test_busy_is_451(directory: Path) -> None:
    """THR-32: more messages than places."""
    with milter(directory, workers=1, max_messages=1) as daemon:
        first = begun(daemon)
        with MilterClient(daemon.milter) as second:
            second.connect()
            second.mail("<a@home.test>")
            assert second.rcpt("<b@example.test>").reply.startswith("451 4.3.2")
            first.abort()
            wait_for(lambda: _accepts(daemon), "the free place", 5)


def _accepts(daemon: Daemon) -> bool:
    with MilterClient(daemon.milter) as client:
        client.connect()
        client.mail("<a@home.test>")
        return client.rcpt("<i@home.test>").kind == "c"


def test_the_service_manager_is_told(directory: Path) -> None:
    """sd_notify: ready when all workers are, reloading around SIGHUP, watchdog, stopping."""
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(str(directory / "notify"))
    inbox.settimeout(10)
    heard: list[str] = []

    def listen() -> None:
        while (message := inbox.recv(4096).decode()) != "END":
            heard.extend(message.split("\n"))

    listener = threading.Thread(target=listen)
    listener.start()
    environment = {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "200000"}
    daemon = Daemon(directory, "milter", policy=POLICY, environment=environment)
    with daemon:
        wait_for(lambda: "READY=1" in heard, "READY")
        wait_for(lambda: heard.count("WATCHDOG=1") > 2, "the watchdog")
        daemon.reload()
        wait_for(lambda: "RELOADING=1" in heard and heard.count("READY=1") == 2, "the reload")
    assert "STOPPING=1" in heard
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(b"END", str(directory / "notify"))
    listener.join(5)
    inbox.close()


# --- postseal run


def test_run_starts_both_and_restarts_what_dies(directory: Path) -> None:
    """Milter and lookup under one process; a killed one comes back; SIGTERM ends all with 0."""
    daemon = Daemon(directory, "run", policy=POLICY)
    with daemon:
        daemon.wait_log("milter and lookup are running")
        first = daemon.children()
        assert len(first) == 2
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(daemon.children()) - set(first)) == 2, "new services")
        wait_for(lambda: answers(daemon.milter) and answers(daemon.lookup), "both sockets")
        last = daemon.children()
        assert daemon.stop() == 0
    assert not any(alive(pid) for pid in (*first, *last))


def test_services_don_t_outlive_a_killed_run(directory: Path) -> None:
    """Nothing stays behind that would serve without anybody to restart it."""
    with Daemon(directory, "run") as daemon:
        children = daemon.children()
        assert len(children) == 2
        os.kill(daemon.pid, signal.SIGKILL)
        wait_for(lambda: not any(alive(pid) for pid in children), "the end of both services")
        daemon.kill()


def test_run_ends_with_the_code_of_what_can_t_start(directory: Path) -> None:
    """Nothing is left running."""
    daemon = Daemon(directory, "run", policy=POLICY, settings={"milter": {"socket_group": "no-such-group"}})
    done = run_postseal("run", "--config", str(daemon.config_file))
    assert done.returncode == 73, done.stderr
    assert "no group" in done.stderr
    assert not answers(daemon.lookup)
