"""One worker process: libmilter in a thread of its own, signals and draining in the main thread.

P2: libmilter stops at SIGTERM, SIGHUP and SIGINT when it runs in the main thread. P3: its own stop doesn't drain.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import milter
from postseal.app.seal import Workload
from postseal.config import Config, UnixSocket
from postseal.core.errors import PostsealError
from postseal.shell.listener import SocketSettings, group_id
from postseal.shell.milterd import Session, install
from postseal.sources.clock import SystemClock
from postseal.sources.process import keep_secrets
from postseal.wiring.milter import MilterGraph, build_milter

# The last answer of a message is written after its callback has returned, by libmilter.
_GRACE = 0.3
_POLL = 0.02
NO_DESCRIPTOR = "no-descriptor"


@dataclass(frozen=True, slots=True)
class Place:
    """What the supervisor gives a worker: ``listener`` a descriptor, or None to open ``settings`` itself.

    ``status`` takes one JSON line; ``parent`` is readable (at its end) when the supervisor has gone. ``cpu`` None is any.
    No other worker that lives has the same ``number``.
    """

    settings: SocketSettings
    listener: int | None
    status: int
    parent: int
    cpu: int | None
    number: int = 0


def run_worker(place: Place, config: Config, build: Callable[[Config, int], MilterGraph] = build_milter) -> NoReturn:
    """The whole life of a worker. Reports readiness or why there is none, serves, drains, ends."""
    code = 0
    # Only workers see mail; the supervisor that forked this one never does.
    keep_secrets()
    try:
        code = _Worker(place, config).run(build)
    except PostsealError as exc:
        _report(place, {"error": str(exc), "code": exc.exit_code})
        code = exc.exit_code
    except BaseException as exc:
        text = f"internal error: {type(exc).__name__}: {exc}"
        _report(place, {"error": text, "code": 70})
        print(f"postseal: worker {os.getpid()}: {text}", file=sys.stderr, flush=True)
        code = 70
    finally:
        # Threads of libmilter may still be in C; an orderly end of the interpreter would pull it from under their feet.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _report(place: Place, status: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        os.write(place.status, json.dumps(status).encode() + b"\n")


class _Worker:
    def __init__(self, place: Place, config: Config) -> None:
        self._place = place
        self._config = config
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        # The supervisor decides; a terminal sends Ctrl-C to the whole group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _on_term(self, number: int, frame: object) -> None:
        self._stopping = True

    def run(self, build: Callable[[Config, int], MilterGraph]) -> int:
        place = self._place
        if place.cpu is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {place.cpu})
        graph = build(self._config, place.number)
        install(lambda: Session(graph.sealing), graph.log)
        if not self._open_socket():
            _report(place, {NO_DESCRIPTOR: True})
            return 0
        server = threading.Thread(target=milter.main, name="libmilter", daemon=True)
        server.start()
        _report(place, {"ready": True})
        while not self._stopping and server.is_alive():
            ready, _, _ = select.select([self._wake, place.parent], [], [], 1.0)
            if place.parent in ready:
                graph.log.error("the supervisor has gone; this worker ends")
                break
        if not self._stopping and not server.is_alive():
            graph.log.error("libmilter ended by itself; this worker ends")
        self._drain(graph)
        return 0

    def _open_socket(self) -> bool:
        """False when this libmilter can't take over an open socket (``fd:`` is a patch of Debian's)."""
        place = self._place
        if place.listener is not None:
            milter.setconn(f"fd:{place.listener}")
            try:
                milter.opensocket(False)
            except milter.error:
                return False
            return True
        address = place.settings.address
        milter.setconn(str(place.settings))
        before = os.umask(0o777 & ~place.settings.mode)
        try:
            # The supervisor has made sure that nobody listens there.
            milter.opensocket(isinstance(address, UnixSocket))
        except milter.error as exc:
            raise PostsealError(f"can't listen on {place.settings}: {exc}") from exc
        finally:
            os.umask(before)
        group = group_id(place.settings.group)
        if isinstance(address, UnixSocket) and group is not None:
            os.chown(address.path, -1, group)
        return True

    def _drain(self, graph: MilterGraph) -> None:
        """Take no new connections, let messages finish, at most ``drain_timeout`` long (environment: real drain)."""
        _silence_listeners(self._place.listener)
        _wait_idle(graph.sealing.workload, graph.clock, self._config.milter.drain_timeout)
        left = graph.sealing.workload.active
        if left:
            graph.log.warning(f"{left} messages were not finished within drain_timeout; their clients will try again")
        graph.close()


def _wait_idle(workload: Workload, clock: SystemClock, timeout: float) -> None:
    """Until nothing has been in work for a moment, or ``timeout`` seconds are over."""
    end = clock.monotonic() + timeout
    idle_since: float | None = None
    sleeper = threading.Event()
    while (now := clock.monotonic()) < end or (idle_since is not None and now < idle_since + _GRACE):
        if workload.active:
            idle_since = None
        elif idle_since is None:
            idle_since = now
        elif now >= idle_since + _GRACE:
            return
        sleeper.wait(_POLL)


def _silence_listeners(descriptor: int | None) -> None:
    """Put a socket that nobody knows in place of the one that libmilter polls; its sessions go on."""
    dummy = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dummy.bind("")
    dummy.listen(1)
    dummy.setblocking(False)
    for number in [descriptor] if descriptor is not None else _listening():
        os.dup2(dummy.fileno(), number)


def _listening() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as probe:
            if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(int(name))
    return found
