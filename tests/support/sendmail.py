"""A private Sendmail 8.17 beside whatever runs: Debian's packages unpacked by ``./dev test``, own configuration. Needs root.

with scratch() as directory, Sink() as sink, PrivateSendmail(directory / "sm", daemon.milter, sink.port) as sendmail:
    sendmail.send("a@home.test", ["b@example.test"], message)

The milter and the second listener are those of packaging/sendmail/postseal.mc, with only socket and ports replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from support.scratch import ROOT, answers, free_port, wait_for

UNPACKED = ROOT / ".cache" / "sendmail"
SNIPPET = ROOT / "packaging" / "sendmail" / "postseal.mc"

_MC = """\
divert(0)dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `mx.home.test')dnl
define(`confPID_FILE', `{directory}/sendmail.pid')dnl
define(`QUEUE_DIR', `{directory}/queue')dnl
define(`STATUS_FILE', `{directory}/statistics')dnl
define(`HELP_FILE', `')dnl
define(`ALIAS_FILE', `')dnl
define(`confCW_FILE', `-o {directory}/local-host-names')dnl
define(`confTO_IDENT', `0')dnl
define(`confLOG_LEVEL', `14')dnl
define(`confMIN_QUEUE_AGE', `1s')dnl
define(`confMILTER_LOG_LEVEL', `14')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {sink}')dnl
define(`ESMTP_MAILER_ARGS', `TCP $h {sink}')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`no_default_msa')dnl
DAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port={port}')dnl
{snippet}MAILER(`smtp')dnl
"""


class PrivateSendmail:
    """``milter`` is ``inet:PORT@HOST`` or a ``unix:`` path below a directory that not everybody may write to."""

    def __init__(self, directory: Path, milter: str, sink: int) -> None:
        self.directory = directory.absolute()
        self.port, self.reinject_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (self.directory / "queue").mkdir(parents=True)
        (self.directory / "queue").chmod(0o700)
        self.directory.chmod(0o755)
        self._configure(milter, sink)

    def _configure(self, milter: str, sink: int) -> None:
        snippet = SNIPPET.read_text().replace("inet:8891@127.0.0.1", milter).replace("10026", str(self.reinject_port))
        mc = _MC.format(directory=self.directory, port=self.port, sink=sink, snippet=snippet)
        (self.directory / "sendmail.mc").write_text(mc)
        macros = UNPACKED / "usr/share/sendmail/cf"
        # Relative, because the macros hand the path to a shell without quotes, and a clone's may have a space.
        command = ["m4", "-D_CF_DIR_=./", "m4/cf.m4", str(self.directory / "sendmail.mc")]
        made = subprocess.run(command, cwd=macros, capture_output=True, text=True, timeout=60)
        assert made.returncode == 0, made.stderr
        assert not made.stderr, made.stderr
        cf = re.sub(r"(?m)^O RunAsUser=.*\n", "", made.stdout).replace("/etc/mail/", f"{self.directory}/")
        (self.directory / "sendmail.cf").write_text(cf)
        # Without a full name for this host Sendmail sleeps for a minute, so it gets a hosts file of its own.
        (self.directory / "hosts").write_text(f"127.0.0.1 mx.home.test localhost {socket.gethostname()}\n")

    def __enter__(self) -> PrivateSendmail:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start in a mount namespace of its own and wait until both listeners answer."""
        options = '-bD -q2s -C "$1/sendmail.cf" -X "$1/traffic.log"'
        script = f'mount --bind "$1/hosts" /etc/hosts && cd "$1/queue" && exec "$2" {options}'
        with open(self.directory / "output", "wb") as output:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(self.directory),
                 str(UNPACKED / "usr/libexec/sendmail/sendmail")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_for(self._up, f"Sendmail in {self.directory}", 30)

    def _up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Sendmail ended: {(self.directory / 'output').read_text()}")
        return answers(f"127.0.0.1:{self.port}") and answers(f"127.0.0.1:{self.reinject_port}")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)

    def send(
        self, sender: str, recipients: Sequence[str], message: bytes, *, port: int | None = None
    ) -> dict[str, tuple[int, bytes]]:
        """Submit by SMTP; smtplib's answer: refused recipients with code and text. Raises smtplib's exceptions."""
        with smtplib.SMTP("127.0.0.1", port or self.port, local_hostname="client.test", timeout=60) as client:
            return client.sendmail(sender, list(recipients), message)

    def traffic(self) -> str:
        """All SMTP dialogues so far: the first place to look when something is odd."""
        return (self.directory / "traffic.log").read_text(errors="replace")
