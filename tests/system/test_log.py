"""The mail log as real daemons read it: rsyslogd with a private configuration, systemd-journald in a private namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postseal.sources.log import open_log

HOSTILE = 'CN=evil\n<0>kernel: panic\x1b[2J\u202e "quoted"'


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


class Rsyslogd:
    """A private rsyslogd: its socket and its file below ``directory``, nothing of the system's."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "log"
        self.file = directory / "mail.log"
        self._directory = directory
        self._config = directory / "rsyslog.conf"
        self._config.write_text(
            textwrap.dedent(f"""\
            global(workDirectory="{directory}")
            module(load="imuxsock" SysSock.Use="off")
            input(type="imuxsock" Socket="{self.socket}")
            template(name="t" type="string" string="%pri-text%|%syslogtag%|%msg%\\n")
            *.* action(type="omfile" file="{self.file}" template="t")
            """)
        )
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["rsyslogd", "-n", "-f", self._config, "-i", self._directory / "pid"], stderr=subprocess.DEVNULL
        )
        wait_for(self.socket.exists, "rsyslogd's socket")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self.socket.unlink(missing_ok=True)

    def lines(self, number: int) -> list[str]:
        wait_for(lambda: len(self._read()) >= number, f"{number} lines")
        return self._read()

    def _read(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []


@pytest.fixture
def rsyslogd(tmp_path: Path) -> Iterator[Rsyslogd]:
    daemon = Rsyslogd(tmp_path)
    yield daemon
    daemon.stop()


def test_rsyslogd_reads_the_lines_back(rsyslogd: Rsyslogd) -> None:
    """Facility mail, our identifier with the pid, Postfix's way to mark warnings."""
    log = open_log("postseal/milter", "mail", rsyslogd.socket)
    log.info("4XyZ: to=<b@y.example>, action=sealed", {"QUEUE_ID": "4XyZ"})
    log.warning("4XyZ: revocation status unknown")
    log.error("no disk")
    log.debug("not at this level")
    pid = os.getpid()
    assert rsyslogd.lines(3) == [
        f"mail.info|postseal/milter[{pid}]:| 4XyZ: to=<b@y.example>, action=sealed",
        f"mail.warning|postseal/milter[{pid}]:| warning: 4XyZ: revocation status unknown",
        f"mail.err|postseal/milter[{pid}]:| error: no disk",
    ]


def test_hostile_text_stays_one_line(rsyslogd: Rsyslogd) -> None:
    """Whatever a caller forgets to escape, it can't forge a second event (THR-10)."""
    log = open_log("postseal/milter", "local3", rsyslogd.socket)
    log.info(HOSTILE)
    log.info("x" * 100_000)
    log.info("last")
    first, long, last = rsyslogd.lines(3)
    assert first.split("| ")[1] == 'CN=evil\\x0a<0>kernel: panic\\x1b[2J\\u202e "quoted"'
    assert len(long) < 7300
    assert long.endswith("...")
    assert last.startswith("local3.info|")


def test_the_log_survives_a_restart_of_rsyslogd(rsyslogd: Rsyslogd, capfd: pytest.CaptureFixture[str]) -> None:
    """While nobody listens lines go to stderr, and afterwards to the new socket again."""
    log = open_log("postseal/milter", "mail", rsyslogd.socket)
    log.info("one")
    assert len(rsyslogd.lines(1)) == 1
    rsyslogd.stop()
    log.info("two")
    assert capfd.readouterr().err == f"postseal/milter[{os.getpid()}]: two\n"
    rsyslogd.start()
    log.info("three")
    assert rsyslogd.lines(2)[1].endswith("| three")


def test_forked_workers_log_under_their_own_pid(rsyslogd: Rsyslogd) -> None:
    log = open_log("postseal/milter", "mail", rsyslogd.socket)
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            log.info(f"child {number}")
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    assert {re.sub(r".*\[(\d+)\].*", r"\1", line) for line in rsyslogd.lines(3)} == {str(pid) for pid in children}


def test_a_daemon_that_reads_nothing_costs_one_moment_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The queue of a stuck log daemon is full: two thousand lines go to stderr in two seconds, not in two thousand waits."""
    path = tmp_path / "stuck"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(path))
        log = open_log("postseal/milter", "mail", path)
        began = time.monotonic()
        for number in range(2000):
            log.info(f"line {number}")
        assert time.monotonic() - began < 2
        assert "line 1999" in capfd.readouterr().err
        stuck.recv(10000)
        log.info("room again")
        assert "room again" not in capfd.readouterr().err


def test_a_log_that_cannot_be_written_at_all_is_silent(tmp_path: Path) -> None:
    """No daemon and a closed stderr: the call still returns, in a process of its own."""
    code = (
        "import os\nos.close(2)\nfrom postseal.sources.log import open_log\n"
        f"log = open_log('postseal/milter', 'mail', {str(tmp_path / 'none')!r})\nlog.error('x')\nlog.info('y')\n"
        "print('fine', flush=True)\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "fine\n"


def test_threads_may_log_at_the_same_time(rsyslogd: Rsyslogd) -> None:
    log = open_log("postseal/milter", "mail", rsyslogd.socket)
    threads = [threading.Thread(target=lambda n=n: [log.info(f"{n}-{i}") for i in range(50)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = {line.split("| ")[1] for line in rsyslogd.lines(200)}
    assert texts == {f"{n}-{i}" for n in range(4) for i in range(50)}


WRITER = """\
from datetime import timedelta
from postseal.app.journal import Journal
from postseal.core.policy import decide
from postseal.sources.clock import SystemClock
from postseal.sources.log import open_log
from support.facts import GOOD, MESSAGE, UNREACHABLE, assessed, recipient, rules
from support.pki import NOW

journal = Journal(open_log("postseal/milter"), None, SystemClock())
for queue_id, verdict in (("4XyZ", UNREACHABLE), ("4AbC", GOOD)):
    people = [recipient(assessed(verdict))]
    journal.record(queue_id, "<boss@corp.example>", MESSAGE, people, decide(MESSAGE, people, rules(), NOW), at=NOW, delay=0.004)
open_log("postseal/lookup").warning("evil\\nsecond line", {"QUEUE_ID": "a\\nPRIORITY=0", "bad name": "x", "_PID": "1"})
"""
SCRIPT = """\
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
"$JOURNALD" >/dev/null 2>&1 &
i=0
while [ ! -S /run/systemd/journal/socket ]; do i=$((i+1)); [ $i -lt 500 ]; sleep 0.02; done
"$PYTHON" -c "$WRITER"
journalctl --sync >/dev/null 2>&1 || sleep 0.5
journalctl -t postseal/milter -p warning -o json
echo ---
journalctl -t postseal/milter -o json QUEUE_ID=4AbC
echo ---
journalctl -t postseal/lookup -o json
echo ---
journalctl -t postseal/milter -p warning -o cat QUEUE_ID=4XyZ
"""


@pytest.mark.root
def test_journald_gets_the_fields(tmp_path: Path) -> None:
    """The query of the manual, ``journalctl -t postseal/milter -p warning QUEUE_ID=…``, finds the line with its fields."""
    journald = shutil.which("systemd-journald", path="/usr/lib/systemd:/lib/systemd")
    assert journald is not None
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "JOURNALD": journald,
        "PYTHON": sys.executable,
        "WRITER": WRITER,
        "PYTHONPATH": str(tests),
    }
    done = subprocess.run(
        ["unshare", "-mpf", "--mount-proc", "--propagation", "private", "--kill-child", "sh", "-c", SCRIPT],
        capture_output=True, text=True, timeout=60, env=environment, check=True,
    )  # fmt: skip
    warned, good, lookup, shown = (part.strip() for part in done.stdout.split("---"))
    entry = json.loads(warned)
    fields = ("PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY", "QUEUE_ID", "SENDER", "RECIPIENT", "ACTION", "REASON", "RULE",
              "WARNING_CODE", "_TRANSPORT")  # fmt: skip
    assert {name: entry[name] for name in fields} == {
        "PRIORITY": "4", "SYSLOG_IDENTIFIER": "postseal/milter", "SYSLOG_FACILITY": "2", "QUEUE_ID": "4XyZ",
        "SENDER": "boss@corp.example", "RECIPIENT": "alice@example.test", "ACTION": "sealed", "REASON": "ok.sealed",
        "RULE": "r", "WARNING_CODE": "rev.unreachable", "_TRANSPORT": "journal",
    }  # fmt: skip
    assert entry["MESSAGE"] == shown
    assert shown.startswith("warning: 4XyZ: to=<alice@example.test>: revocation status unknown: Could not retrieve URL")
    assert entry["SYSLOG_PID"] == entry["_PID"]
    line = json.loads(good)
    assert "revocation=crl/good, age=1200s, rule=r, delay=0.004" in line["MESSAGE"]
    assert len(line["CERTIFICATE"]) == 64
    forged = json.loads(lookup)
    assert forged["PRIORITY"] == "4", "a line feed in a value must not become another field"
    assert forged["MESSAGE"] == "warning: evil\\x0asecond line"
    assert forged["QUEUE_ID"] == "a\\x0aPRIORITY=0"
