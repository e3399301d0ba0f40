"""``postseal run``: milter, lookup and, where they are configured, metrics as children of one foreground process.

For containers, the demo and tests. A child that dies is started again; SIGHUP is passed on; SIGTERM and SIGINT stop all. A
child that can't start for a reason that won't go away by itself (configuration, permission, socket in use) ends all with its
exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field

from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.sources.log import open_log
from postseal.sources.notify import notify, watchdog_interval

# The order of the start; they stop the other way round, so that the last messages still find their evidence.
SERVICES = ("lookup", "milter")
METRICS = "metrics"
_BACKOFF = (0.2, 30.0)
_LIVED = 10.0
_KILL_AFTER = 10.0


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """prctl(2): in the child, before it becomes the service. If we are killed, no service stays behind without us."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


@dataclass(slots=True)
class _Service:
    name: str
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0
    inbox: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))


class Services:
    """Runs until it is told to stop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = SystemClock()
        self._log = open_log("postseal/run", config.log.facility, config.log.socket, config.log.level)
        self._services = [_Service(name) for name in services(config)]
        self._stop = self._reload = self._told = False
        self._wake, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for service in self._services:
            # sd_notify(3): an abstract address of our own for each child.
            service.inbox.bind("")
            service.inbox.setblocking(False)

    def run(self) -> int:
        """The exit code: 0 after SIGTERM, else that of the service that can't start."""
        self._catch_signals()
        code = None
        while not self._stop and code is None:
            code = self._turn()
        notify("STOPPING=1")
        for service in reversed(self._services):
            self._end(service)
        return code or 0

    def _catch_signals(self) -> None:
        def stop(number: int, frame: object) -> None:
            self._stop = True

        def reload(number: int, frame: object) -> None:
            self._reload = True

        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, reload)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _turn(self) -> int | None:
        """Start what isn't running, wait at most a second; an exit code when it makes no sense to go on."""
        now = self._clock.monotonic()
        for service in self._services:
            if service.process is None and now >= service.start_at:
                self._start(service)
        waits = [max(0.0, s.start_at - now) for s in self._services if s.process is None]
        watchdog = watchdog_interval()
        with contextlib.suppress(InterruptedError):
            inboxes = [service.inbox.fileno() for service in self._services]
            select.select([self._wake, *inboxes], [], [], min([1.0, watchdog or 1.0, *waits]))
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 512):
                pass
        if watchdog:
            notify("WATCHDOG=1")
        for service in self._services:
            self._listen(service)
        self._tell_ready()
        if self._reload:
            self._reload = False
            self._pass_on(signal.SIGHUP)
        return next((code for service in self._services if (code := self._look(service)) is not None), None)

    def _start(self, service: _Service) -> None:
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + service.inbox.getsockname()[1:].decode()}
        # The watchdog of systemd watches this process, not its children.
        environment.pop("WATCHDOG_USEC", None)
        environment.pop("WATCHDOG_PID", None)
        command = [sys.executable, "-m", "postseal.shell.cli.main", service.name, "--config", self._config.path]
        # A process group of its own: Ctrl-C on a terminal is for us to pass on, in order.
        service.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_end_with_parent
        )
        service.started = self._clock.monotonic()
        service.ready = False

    def _listen(self, service: _Service) -> None:
        with contextlib.suppress(BlockingIOError):
            while message := service.inbox.recv(4096):
                if b"READY=1" in message.split(b"\n"):
                    service.ready = True

    def _tell_ready(self) -> None:
        if not self._told and all(service.ready for service in self._services):
            self._told = True
            running = f"{' and '.join(sorted((s.name for s in self._services), reverse=True))} are running"
            self._log.info(running)
            notify("READY=1", f"STATUS={running}")

    def _look(self, service: _Service) -> int | None:
        process = service.process
        if process is None or process.poll() is None:
            return None
        code = process.returncode
        if not service.ready and not self._told and code > 0:
            # It has said why in its own words.
            return code
        now = self._clock.monotonic()
        service.deaths = 0 if now - service.started > _LIVED else service.deaths + 1
        pause = min(_BACKOFF[1], _BACKOFF[0] * 2**service.deaths)
        service.process, service.start_at = None, now + pause
        how = f"killed by signal {-code}" if code < 0 else f"exit {code}"
        self._log.error(f"{service.name} ended ({how}); it starts again in {pause:g} s")
        return None

    def _pass_on(self, number: int) -> None:
        for service in self._services:
            if service.process is not None and service.process.poll() is None:
                service.process.send_signal(number)

    def _end(self, service: _Service) -> None:
        process = service.process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(self._config.milter.drain_timeout + _KILL_AFTER)
        except subprocess.TimeoutExpired:
            self._log.error(f"{service.name} did not end in time and is killed")
            process.kill()
            process.wait()


def services(config: Config) -> tuple[str, ...]:
    """What is started, in this order."""
    return SERVICES if config.metrics.listen is None else (*SERVICES, METRICS)
