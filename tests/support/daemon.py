"""Start ``postseal run``, ``lookup`` or ``milter`` as an administrator would: a configuration file and a process.

with scratch() as directory, Daemon(directory, "run", policy=[{"seal": "must", "without_certificate": "refuse"}]) as daemon:
    … PrivatePostfix(directory / "pf", daemon.milter, sink.port) …
    daemon.log()
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from support.scratch import ROOT, answers, wait_for

Table = Mapping[str, Any]
POSTSEAL = (sys.executable, "-m", "postseal.shell.cli.main")


def toml(tables: Mapping[str, Table | Sequence[Table]]) -> str:
    """A configuration as text: strings, numbers, booleans and lists in tables, and arrays of tables."""
    lines: list[str] = []
    for name, value in tables.items():
        for table in [value] if isinstance(value, Mapping) else value:
            lines.append(f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]")
            lines.extend(f"{key} = {_value(item)}" for key, item in table.items())
            lines.append("")
    return "\n".join(lines)


def _value(item: Any) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, list | tuple):
        return "[" + ", ".join(_value(i) for i in item) + "]"
    if isinstance(item, int | float):
        return str(item)
    text = str(item).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def postseal_as(directory: Path, uid: int, gid: int) -> list[str]:
    """A ``launcher`` that runs postseal as another user, without groups or capabilities. Needs root.

    The tree may lie where that user can't go, so it is mounted below ``directory``, in a namespace of its own.
    """
    tree = directory / f"tree-{uid}"
    tree.mkdir(exist_ok=True)
    python = sys.executable.replace(str(ROOT), str(tree), 1)
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return [
        "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(ROOT), str(tree),
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all",
        "env", f"PYTHONPATH={tree}/milter", "PYTHONDONTWRITEBYTECODE=1", python, "-m", "postseal.shell.cli.main",
    ]  # fmt: skip


def run_postseal(*arguments: str, timeout: float = 60.0, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """One ``postseal`` command to its end; output as text."""
    done = subprocess.run([*POSTSEAL, *arguments], input=stdin, capture_output=True, timeout=timeout)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


class Daemon:
    """All files of one postseal below ``directory``: postseal.toml, certificates/, anchors/, intermediates/, state/, run/.

    ``settings`` are tables and keys that differ from the defaults made here (loopback is admitted, ``home.test`` is
    internal, the log goes to stderr, which is kept in ``postseal.log``); ``policy`` the ``[[policy]]`` rules.
    ``launcher`` is what comes before the command: a way to run it as another user.
    """

    def __init__(
        self,
        directory: Path,
        command: str = "run",
        *,
        settings: Mapping[str, Table] | None = None,
        policy: Sequence[Table] = (),
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = POSTSEAL,
    ) -> None:
        self.launcher = tuple(launcher)
        self.directory, self.command = directory.absolute(), command
        self.certificates = self.directory / "certificates"
        self.anchors, self.intermediates = self.directory / "anchors", self.directory / "intermediates"
        self.state, self.run = self.directory / "state", self.directory / "run"
        for path in (self.certificates, self.anchors, self.intermediates, self.state, self.run):
            path.mkdir(parents=True, exist_ok=True)
        self.config_file, self.log_file = self.directory / "postseal.toml", self.directory / "postseal.log"
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.settings = self._defaults()
        for table, keys in (settings or {}).items():
            self.settings.setdefault(table, {}).update(keys)
        self.policy: list[Table] = list(policy)
        self.write()

    def _defaults(self) -> dict[str, dict[str, Any]]:
        return {
            "general": {"state_directory": self.state, "runtime_directory": self.run},
            "milter": {
                "socket": f"unix:{self.run}/milter.sock", "socket_mode": "0666", "internal_domains": ["home.test"],
                "workers": 2, "pin_workers": False, "drain_timeout": "5 s",
            },
            "lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [80, 443]},
            "certificates": {
                "directory": self.certificates, "anchors": self.anchors, "intermediates": self.intermediates,
            },
            "revocation": {},
            "log": {"socket": "stderr"},
        }  # fmt: skip

    def write(self) -> None:
        """Write postseal.toml from ``settings`` and ``policy`` (again, after a change; then ``reload``)."""
        tables: dict[str, Table | Sequence[Table]] = {k: v for k, v in self.settings.items() if v}
        if self.policy:
            tables["policy"] = self.policy
        self.config_file.write_text(toml(tables))

    @property
    def milter(self) -> str:
        """The milter's socket as ``unix:PATH`` or ``inet:PORT@HOST``."""
        return str(self.settings["milter"]["socket"])

    @property
    def lookup(self) -> str:
        return f"unix:{self.settings['lookup'].get('socket') or self.run / 'lookup.sock'}"

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.kill() if isinstance(exc, Exception) else self.stop()

    def start(self, timeout: float = 30.0) -> None:
        """Start and wait until the sockets of ``command`` answer."""
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, self.command, "--config", str(self.config_file)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self.environment, start_new_session=True,
            )  # fmt: skip
        sockets = {"run": (self.milter, self.lookup), "milter": (self.milter,), "lookup": (self.lookup,)}[self.command]
        try:
            wait_for(lambda: self._alive() and all(map(answers, sockets)), f"postseal {self.command}", timeout)
        except AssertionError as exc:
            self.kill()
            raise AssertionError(f"{exc}\n{self.log()}") from None

    def _alive(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"postseal {self.command} ended with {self.process.returncode}")
        return True

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        """Process ids of the direct children (workers, or the services under ``run``)."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def reload(self) -> None:
        self.write()
        self.signal(signal.SIGHUP)

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM and wait; the exit code. Kills the whole group and fails when it doesn't end."""
        process = self.process
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"postseal {self.command} did not end within {timeout:g} s\n{self.log()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all processes of it, as when the machine loses power."""
        process, self.process = self.process, None
        if process is not None:
            # Services under ``run`` have process groups of their own, but all of them are of one session.
            for pid in (process.pid, *_session(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(10)

    def log(self) -> str:
        """All that it wrote to stderr and stdout so far."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, text: str, timeout: float = 20.0) -> None:
        wait_for(lambda: text in self.log(), f"{text!r} in postseal's log:\n{self.log()}", timeout)


def _session(leader: int) -> list[int]:
    """All processes of the session that ``leader`` began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): the name in brackets may hold anything, so fields count from the last bracket; session is the sixth.
            if path.read_text().rpartition(")")[2].split()[3] == str(leader):
                found.append(int(path.parent.name))
    return found
