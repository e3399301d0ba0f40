"""Parsing at arm's length: a stranger's object is read by a helper process under limits before it is read here (THR-7).

A CRL, an OCSP answer or a certificate that would take a parser's memory, time or life takes those of a child that was
forked for it (``sources.confined``). What the child read within its limits is read here too, with the same code and so at
no greater cost.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from postseal.core.errors import Unavailable
from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.confined import MAX_MESSAGE
from postseal.sources.exchange import Http, Sink

# -P: nothing is imported from the directory where somebody happened to start us.
HELPER = (sys.executable, "-P", "-m", "postseal.sources.confined")
_MIB = 1024 * 1024
# Beyond the child's own limit: the helper itself must have died or been stopped.
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """For one object: octets of memory, seconds of CPU and in all, how large a file may grow, how many may be opened."""

    memory: int = 256 * _MIB
    cpu: int = 2
    wall: float = 10.0
    output: int = 0
    files: int = 0

    @classmethod
    def for_size(cls, size: int) -> Limits:
        """What honest parsing of ``size`` octets takes, several times over."""
        cpu = 2 + size // (2 * _MIB)
        return cls(memory=256 * _MIB + 12 * size, cpu=cpu, wall=10.0 + 4.0 * cpu)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object isn't read here: a ``rev.*`` code and the cause in words."""

    why: str
    detail: str


@dataclass(frozen=True, slots=True)
class Done:
    """What a job returned; ``bad`` tells what it found wrong with the object, within its limits."""

    value: Mapping[str, Any]
    bad: str
    cpu: float
    rss: int


class _Helper:
    """One helper process, started when it is first needed and again when it has died."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def ask(self, message: bytes, files: Sequence[int], wall: float) -> dict[str, Any]:
        """Raises OSError when there is no answer in time."""
        channel = self._channel or self._start()
        channel.settimeout(wall + _GRACE)
        socket.send_fds(channel, [message], files)
        answer = channel.recv(2 * MAX_MESSAGE)
        if not answer:
            raise ConnectionError("the helper ended")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._channel = ours
        return ours

    def stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None


class Confinement:
    """A small pool of helpers; safe to use from several threads. ``command`` starts one, the number of its socket behind it."""

    def __init__(self, helpers: int = 2, command: Sequence[str] = HELPER) -> None:
        self._helpers = [_Helper(command) for _ in range(helpers)]
        self._free: queue.LifoQueue[_Helper] = queue.LifoQueue()
        for helper in self._helpers:
            self._free.put(helper)

    def refusal(self, blob: bytes) -> Refusal | None:
        """Why ``blob`` isn't read here; None when reading it costs no more than it should. Raises Unavailable.

        None doesn't say that it is well formed.
        """
        with _in_memory(blob) as file:
            outcome = self.run("read", [file], {}, Limits.for_size(len(blob)))
        return outcome if isinstance(outcome, Refusal) else None

    def run(self, job: str, files: Sequence[int], arguments: Mapping[str, Any], limits: Limits) -> Done | Refusal:
        """Run a job of ``sources.confined.JOBS`` on open files, at most four. Raises Unavailable."""
        message = json.dumps({"job": job, "arguments": arguments, "limits": asdict(limits)}).encode()
        try:
            helper = self._free.get(timeout=limits.wall)
        except queue.Empty:
            raise Unavailable(f"no helper process was free in {limits.wall:g} s") from None
        try:
            outcome = helper.ask(message, files, limits.wall)
        except (OSError, ValueError) as exc:
            helper.stop()
            raise Unavailable(f"the helper process failed: {exc}") from exc
        finally:
            self._free.put(helper)
        return _outcome(outcome, limits)

    def close(self) -> None:
        """End the helpers."""
        for helper in self._helpers:
            helper.stop()


def _outcome(found: Mapping[str, Any], limits: Limits) -> Done | Refusal:
    if "failed" in found:
        raise Unavailable(f"the helper process can't start another one: {found['failed']}")
    if found.get("memory"):
        return Refusal("rev.too-large", f"reading it takes more than {limits.memory // _MIB} MiB of memory")
    if found.get("late"):
        return Refusal("rev.malformed", f"reading it takes more than {limits.cpu} s")
    if "died" in found:
        return Refusal("rev.malformed", f"the process that read it died of signal {found['died']}")
    return Done(found.get("value", {}), found.get("bad", ""), found["cpu"], found["rss"])


class ConfinedHttp:
    """HTTP whose answers have been read by a helper before anybody sees them here. Never raises.

    What goes to a sink isn't looked at: whoever reads that later has it read by a job of its own.
    """

    def __init__(self, http: Http, confinement: Confinement) -> None:
        self._http = http
        self._confinement = confinement

    def get(self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None) -> Transfer:
        return self._read(self._http.get(url, max_size=max_size, deadline=deadline, headers=headers))

    def get_to(
        self, url: str, sink: Sink, *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer:  # fmt: skip
        return self._http.get_to(url, sink, max_size=max_size, deadline=deadline, until=until, headers=headers)

    def post(self, url: str, body: bytes, *, content_type: str, max_size: int, deadline: float) -> Transfer:
        answer = self._http.post(url, body, content_type=content_type, max_size=max_size, deadline=deadline)
        return self._read(answer)

    def _read(self, answer: Transfer) -> Transfer:
        if not isinstance(answer, Fetched):
            return answer
        try:
            refusal = self._confinement.refusal(answer.body)
        except Unavailable as exc:
            return FetchFailed(answer.url, "rev.budget", str(exc))
        return answer if refusal is None else FetchFailed(answer.url, refusal.why, refusal.detail)


@contextlib.contextmanager
def _in_memory(blob: bytes) -> Any:
    """A file without a name that holds ``blob``, for another process to map."""
    with open(os.memfd_create("object", os.MFD_CLOEXEC), "wb", buffering=0) as file:
        view = memoryview(blob)
        while view:
            view = view[file.write(view) :]
        yield file.fileno()
