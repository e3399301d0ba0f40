"""A private Postfix beside the system's: own configuration, queue and data directories, high ports, own log. Needs root.

with scratch() as directory, Sink() as sink, PrivatePostfix(directory / "pf", "unix:/…/milter.sock", sink.port) as postfix:
    postfix.send("a@home.test", ["b@example.test"], message)
    sink.wait_for("b@example.test")

The milter settings and the second listener are those of packaging/postfix/, with only socket and ports replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import socketserver
import subprocess
import threading
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from support.scratch import ROOT, answers, free_port, wait_for

SNIPPETS = ROOT / "packaging" / "postfix"
_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}

_MAIN_CF = """\
compatibility_level = 3.6
config_directory = {etc}
queue_directory = {queue}
data_directory = {data}
maillog_file = {log}
maillog_file_prefixes = {directory}
myhostname = mx.home.test
mydomain = home.test
myorigin = home.test
mydestination =
local_recipient_maps =
local_transport = error:no mail is delivered here
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{sink}
default_destination_recipient_limit = 50
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtputf8_enable = yes
biff = no
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject
minimal_backoff_time = 2s
maximal_backoff_time = 5s
queue_run_delay = 2s
in_flow_delay = 0s
"""
_SASL_CF = """\
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{sasl}
"""
_MASTER_CF = """\
127.0.0.1:{port} inet n - n - 50 smtpd
    -o syslog_name=postfix/submission
postlog   unix-dgram n - n - 1 postlogd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
"""


class _SaslHandler(socketserver.StreamRequestHandler):
    """Dovecot's authentication protocol 1.x, mechanism PLAIN, as far as Postfix speaks it."""

    def handle(self) -> None:
        users: Mapping[str, str] = self.server.users  # type: ignore[attr-defined]
        self.wfile.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
        while line := self.rfile.readline():
            words = line.decode().rstrip("\n").split("\t")
            if words[0] != "AUTH":
                continue
            answer = next((w[5:] for w in words if w.startswith("resp=")), "")
            _, user, password = b64decode(answer).decode().split("\0")
            good = users.get(user) == password
            reply = f"OK\t{words[1]}\tuser={user}\n" if good else f"FAIL\t{words[1]}\tuser={user}\n"
            self.wfile.write(reply.encode())


class _SaslServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class PrivatePostfix:
    """``milter`` is ``unix:/path``, ``inet:PORT@HOST`` or "" for none; ``sink`` the port that all mail is relayed to.

    ``extra`` are main.cf settings that win over the snippets; ``users`` (login -> password) switches SASL on.
    Ports: ``port`` (submission, with the milter) and ``reinject_port`` (without).
    """

    def __init__(
        self,
        directory: Path,
        milter: str,
        sink: int,
        *,
        users: Mapping[str, str] | None = None,
        message_size_limit: int | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.etc, self.queue = self.directory / "etc", self.directory / "queue"
        self.log_file = self.directory / "mail.log"
        self.port, self.reinject_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._sasl = _SaslServer(("127.0.0.1", 0), _SaslHandler) if users else None
        if self._sasl:
            self._sasl.users = dict(users or {})  # type: ignore[attr-defined]
        for path in (self.etc, self.queue, self.directory / "data"):
            path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", "postfix", str(self.directory / "data")], check=True)
        settings = dict(extra or {})
        if message_size_limit is not None:
            settings["message_size_limit"] = str(message_size_limit)
            settings["mailbox_size_limit"] = "0"
        self._write(milter, sink, settings)

    def _write(self, milter: str, sink: int, extra: Mapping[str, str]) -> None:
        main = _MAIN_CF.format(
            etc=self.etc, queue=self.queue, data=self.directory / "data", log=self.log_file,
            directory=self.directory, sink=sink,
        )  # fmt: skip
        main += _snippet("main.cf").replace("unix:postseal/milter.sock", postfix_socket(milter))
        if self._sasl:
            main += _SASL_CF.format(sasl=self._sasl.server_address[1])
        # A later line of main.cf would win too, but Postfix warns about it.
        for name, value in extra.items():
            main = re.sub(rf"(?m)^{re.escape(name)} =.*\n", "", main) + f"{name} = {value}\n"
        (self.etc / "main.cf").write_text(main)
        listener = _snippet("master.cf").replace(
            "127.0.0.1:10026 inet n - y", f"127.0.0.1:{self.reinject_port} inet n - n"
        )
        (self.etc / "master.cf").write_text(_MASTER_CF.format(port=self.port) + listener)

    def __enter__(self) -> PrivatePostfix:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["postfix", "-c", str(self.etc), *arguments], env=_ENV, capture_output=True, text=True, timeout=60
        )

    def start(self) -> None:
        """Start and wait until both listeners answer."""
        if self._sasl:
            threading.Thread(target=self._sasl.serve_forever, args=(0.05,), daemon=True).start()
        check = self._run("check")
        if check.returncode:
            raise AssertionError(f"postfix check: {check.stderr or self.log()}")
        with open(self.directory / "output", "wb") as output:
            self._process = subprocess.Popen(
                ["postfix", "-c", str(self.etc), "start-fg"], env=_ENV, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_for(self._up, f"Postfix in {self.directory} (log: {self.directory}/output, mail.log)")

    def _up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"Postfix ended: {(self.directory / 'output').read_text()}{self.log()}")
        return answers(f"127.0.0.1:{self.port}") and answers(f"127.0.0.1:{self.reinject_port}")

    def stop(self) -> None:
        """Stop all of it; harmless when it doesn't run."""
        process, self._process = self._process, None
        if process is not None:
            self._run("stop")
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
        if self._sasl:
            self._sasl.shutdown()
            self._sasl.server_close()
            self._sasl = None

    def reload(self) -> None:
        done = self._run("reload")
        assert done.returncode == 0, done.stderr

    def set(self, name: str, value: str) -> None:
        """Change one main.cf parameter and reload."""
        subprocess.run(["postconf", "-c", str(self.etc), "-e", f"{name}={value}"], env=_ENV, check=True)
        self.reload()

    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        message: bytes | str,
        *,
        login: tuple[str, str] | None = None,
        port: int | None = None,
        options: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> dict[str, tuple[int, bytes]]:
        """Submit by SMTP; smtplib's answer: refused recipients with code and text. Raises smtplib's exceptions."""
        with smtplib.SMTP("127.0.0.1", port or self.port, local_hostname="client.test", timeout=timeout) as client:
            if login:
                client.ehlo()
                client.login(*login)
            return client.sendmail(sender, list(recipients), message, mail_options=list(options))

    def sendmail(self, sender: str, recipients: Sequence[str], message: bytes) -> None:
        """Inject locally with sendmail(1): the message passes non_smtpd_milters."""
        command = ["/usr/sbin/sendmail", "-C", str(self.etc), "-i", "-f", sender, "--", *recipients]
        done = subprocess.run(command, input=message, env=_ENV, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()

    def log(self) -> str:
        """The whole mail log."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """First match of a regular expression in the log, waiting for it."""
        wait_for(lambda: re.search(pattern, self.log()), f"{pattern!r} in the mail log:\n{self.log()}", timeout)
        found = re.search(pattern, self.log())
        assert found
        return found

    def queue_ids(self) -> list[str]:
        """Ids of all messages that are in the queue now (``!`` marks held ones, ``*`` active ones)."""
        done = subprocess.run(["postqueue", "-c", str(self.etc), "-p"], env=_ENV, capture_output=True, text=True)
        return re.findall(r"(?m)^([0-9A-Za-z]{6,}[*!]?)\s+\d+ ", done.stdout)

    def wait_empty(self, timeout: float = 30.0) -> None:
        """Wait until the queue holds nothing."""
        wait_for(lambda: not self.queue_ids(), "an empty queue", timeout, 0.1)

    def release(self) -> None:
        """Release everything that is on hold."""
        subprocess.run(["postsuper", "-c", str(self.etc), "-H", "ALL"], env=_ENV, check=True, capture_output=True)

    def wait_delivered(self, sink: object, recipient: str, count: int = 1, timeout: float = 30.0) -> object:
        """The sink's ``count``-th message for ``recipient``; the mail log is in the error if it doesn't come."""
        try:
            return sink.wait_for(recipient, count, timeout)  # type: ignore[attr-defined]
        except AssertionError as exc:
            raise AssertionError(f"{exc}\nmail log:\n{self.log()}") from None


def postfix_socket(milter: str) -> str:
    """postseal's notation of a socket in Postfix's: ``inet:PORT@HOST`` becomes ``inet:HOST:PORT``."""
    if milter.startswith("inet:") and "@" in milter:
        port, _, host = milter.removeprefix("inet:").partition("@")
        return f"inet:{host}:{port}"
    return milter


def _snippet(name: str) -> str:
    return "".join(line for line in (SNIPPETS / name).read_text().splitlines(True) if not line.startswith("#"))
