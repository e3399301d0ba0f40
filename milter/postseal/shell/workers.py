"""The milter's supervisor: opens the socket, forks workers, replaces those that die, reloads and stops them.

No threads and no databases here, because it forks. Signals: SIGTERM and SIGINT stop (messages in work may finish), SIGHUP
reads the configuration again and rolls to new workers; a wrong configuration changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from postseal.config import Config, load_config
from postseal.core.errors import ConfigError, PostsealError, Unavailable
from postseal.shell.listener import Listener, SocketSettings
from postseal.shell.worker import NO_DESCRIPTOR, Place, run_worker
from postseal.sources.clock import SystemClock
from postseal.sources.notify import notify, watchdog_interval
from postseal.wiring.metrics import start_counting
from postseal.wiring.milter import milter_log

_START_TIMEOUT = 60.0
# After the drain time a worker that is still there is killed.
_KILL_AFTER = 5.0
_BACKOFF = (0.1, 30.0)
# A worker that lived this long doesn't count as one that dies at once.
_LIVED = 10.0


class StartFailed(PostsealError):
    """A worker could not start; ``exit_code`` is that of its own error."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


class _NoDescriptor(Exception):
    """This libmilter can't take over our socket."""


@dataclass(slots=True)
class _Child:
    pid: int
    status: int
    started: float
    number: int = 0
    ready: bool = False
    kill_at: float | None = None
    failed: str = ""
    code: int = 70
    # The status of waitpid, once it has ended.
    ended: int | None = None


@dataclass(slots=True)
class _Slot:
    """A place for one worker of the current generation."""

    child: _Child | None = None
    deaths: int = 0
    respawn_at: float = 0.0


@dataclass(slots=True)
class _Flags:
    stop: bool = False
    reload: bool = False
    pipe: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))


class Supervisor:
    """Runs until it is told to stop. ``inherit`` False makes one worker open the socket itself, as without ``fd:``."""

    def __init__(self, config: Config, *, inherit: bool = True) -> None:
        self._config = config
        self._inherit = inherit
        self._clock = SystemClock()
        self._log = milter_log(config)
        self._settings = socket_settings(config)
        self._listener: Listener | None = None
        self._slots: list[_Slot] = []
        self._known: dict[int, _Child] = {}
        self._flags = _Flags()
        # Never written: workers see its end when the supervisor is gone, however it went.
        self._alive_read, self._alive_write = os.pipe2(os.O_CLOEXEC)
        self._counting: int | None = None

    def run(self) -> int:
        """Serve until SIGTERM; the exit code. Raises a PostsealError of one sentence when the start fails."""
        self._listener = Listener(self._settings)
        self._catch_signals()
        self._counting = start_counting(self._config, "milter", self._log.warning)
        try:
            self._start()
        except BaseException:
            self._end_all(0.0)
            self._listener.remove()
            raise
        self._log.info(f"listening on {self._settings}, workers: {len(self._slots)}")
        self._tell_ready()
        while not self._flags.stop:
            self._turn()
            self._respawn()
            if self._flags.reload:
                self._flags.reload = False
                self._reload()
        notify("STOPPING=1")
        self._log.info("stopping: messages in work may finish")
        # New connections are refused from now on; what waits in the socket's queue is reset and tried again.
        self._listener.remove()
        self._end_all(self._config.milter.drain_timeout + _KILL_AFTER)
        self._log.info("stopped")
        return 0

    def _tell_ready(self) -> None:
        notify("READY=1", f"STATUS=listening on {self._settings}")

    def _catch_signals(self) -> None:
        def stop(number: int, frame: object) -> None:
            self._flags.stop = True

        def reload(number: int, frame: object) -> None:
            self._flags.reload = True

        signal.set_wakeup_fd(self._flags.pipe[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, reload)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    # --- workers

    def _start(self) -> None:
        try:
            self._slots = self._generation(self._config)
        except _NoDescriptor:
            self._inherit = False
            self._slots = self._generation(self._config)
        if not self._inherit:
            self._log.warning("this libmilter can't share a socket between processes (fd:); one worker serves alone")

    def _generation(self, config: Config) -> list[_Slot]:
        """A full set of workers that are ready, or none and an error."""
        if not self._inherit and self._listener is not None:
            # The worker opens it again.
            self._listener.remove()
        made = [_Slot(self._spawn(config, number)) for number in range(worker_count(config) if self._inherit else 1)]
        children = [slot.child for slot in made if slot.child]
        try:
            self._await_ready(children)
        except BaseException:
            for child in children:
                _signal(child, signal.SIGKILL)
            raise
        return made

    def _spawn(self, config: Config, slot: int) -> _Child:
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        inherited = self._listener.socket.fileno() if self._listener and self._inherit else None
        # Smallest first: a new worker goes on with the counters of one that has ended.
        taken = {child.number for child in self._known.values()}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        place = Place(self._settings, inherited, status_write, self._alive_read, _cpu(config, slot), number)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            # The write end must be the supervisor's alone, so that its end is noticed.
            others = [child.status for child in self._known.values()]
            # … and so must be what shows that the service lives.
            others += [] if self._counting is None else [self._counting]
            for descriptor in (self._alive_write, status_read, *self._flags.pipe, *others):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            run_worker(place, config)
        os.close(status_write)
        child = _Child(pid, status_read, self._clock.monotonic(), number)
        self._known[pid] = child
        return child

    def _await_ready(self, children: Sequence[_Child]) -> None:
        end = self._clock.monotonic() + _START_TIMEOUT
        while not all(child.ready for child in children):
            if self._flags.stop:
                # Those that serve already may have messages in work: they drain like all others.
                return
            if self._clock.monotonic() > end:
                raise Unavailable(f"the workers did not start within {_START_TIMEOUT:g} s")
            self._turn()
            for child in children:
                if child.failed == NO_DESCRIPTOR:
                    raise _NoDescriptor
                if child.failed:
                    raise StartFailed(child.failed, child.code)

    def _turn(self) -> None:
        """Wait until something happens, at most a second, and take note of it."""
        watchdog = watchdog_interval()
        timeout = min(1.0, watchdog or 1.0)
        now = self._clock.monotonic()
        timeout = min([timeout, *(max(0.0, slot.respawn_at - now) for slot in self._slots if slot.child is None)])
        pending = [child.status for child in self._known.values() if not child.ready and not child.failed]
        with contextlib.suppress(InterruptedError):
            select.select([self._flags.pipe[0], *pending], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._flags.pipe[0], 512):
                pass
        if watchdog:
            notify("WATCHDOG=1")
        for child in self._known.values():
            self._read_status(child)
        self._reap()
        now = self._clock.monotonic()
        for child in self._known.values():
            if child.kill_at is not None and now > child.kill_at:
                self._log.error(f"worker {child.pid} did not end in time and is killed")
                child.kill_at = None
                _signal(child, signal.SIGKILL)

    def _read_status(self, child: _Child) -> None:
        """The one line that a worker writes when it has started, or has not."""
        if child.ready or child.failed or not select.select([child.status], [], [], 0)[0]:
            return
        line = os.read(child.status, 65536)
        try:
            said = json.loads(line)
        except ValueError:
            child.failed = f"worker {child.pid} ended while it started"
            return
        child.ready = bool(said.get("ready"))
        child.failed = NO_DESCRIPTOR if said.get(NO_DESCRIPTOR) else str(said.get("error", ""))
        child.code = int(said.get("code", 70))

    def _reap(self) -> None:
        while self._known:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._known.pop(pid, None)
            if child is None:
                continue
            self._read_status(child)
            os.close(child.status)
            child.ended = status
            if not child.ready and not child.failed:
                child.failed = f"worker {pid} ended while it started"

    def _lost(self, slot: _Slot, child: _Child, status: int) -> None:
        """A worker of the current generation has died: another one takes its place, later each time it dies at once."""
        now = self._clock.monotonic()
        slot.child = None
        slot.deaths = 0 if now - child.started > _LIVED else slot.deaths + 1
        first, most = _BACKOFF
        pause = min(most, first * 2**slot.deaths)
        slot.respawn_at = now + pause
        how = f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        why = f": {child.failed}" if child.failed else ""
        self._log.error(f"worker {child.pid} died ({how}){why}; another one starts in {pause:g} s")

    def _respawn(self) -> None:
        for slot in self._slots:
            if slot.child is not None and slot.child.ended is not None:
                self._lost(slot, slot.child, slot.child.ended)
        now = self._clock.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.child is None and now >= slot.respawn_at:
                slot.child = self._spawn(self._config, number)

    # --- reload and stop

    def _reload(self) -> None:
        notify("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")
        try:
            config = load_config(self._config.path)
            if socket_settings(config) != self._settings:
                self._log.warning(f"the socket stays {self._settings} until postseal is restarted")
            if self._counting is None:
                self._counting = start_counting(config, "milter", self._log.warning)
            self._roll(config)
        except (ConfigError, PostsealError, _NoDescriptor) as exc:
            self._log.error(f"not reloaded, the old configuration stays: {exc}")
        else:
            self._config, self._log = config, milter_log(config)
            self._log.info(f"reloaded {config.path}")
        self._tell_ready()

    def _roll(self, config: Config) -> None:
        """New workers take over, the old ones drain. They may be replaced only when the new ones are ready."""
        old, self._slots = self._slots, []
        leaving = [slot.child for slot in old if slot.child]
        if not self._inherit:
            # One path, one owner: the old worker lets go first.
            self._drain(leaving)
        try:
            self._slots = self._generation(config)
        except BaseException:
            self._slots = old
            if not self._inherit:
                for slot in old:
                    slot.child = None
            raise
        self._drain(leaving)

    def _drain(self, children: Sequence[_Child]) -> None:
        kill_at = self._clock.monotonic() + self._config.milter.drain_timeout + _KILL_AFTER
        for child in children:
            if child.kill_at is None:
                child.kill_at = kill_at
                _signal(child, signal.SIGTERM)

    def _end_all(self, timeout: float) -> None:
        """SIGTERM, and SIGKILL to those that are still there after ``timeout`` seconds."""
        end = self._clock.monotonic() + timeout
        for child in self._known.values():
            child.kill_at = None
            _signal(child, signal.SIGTERM if timeout else signal.SIGKILL)
        self._slots = []
        while self._known:
            self._turn()
            if self._clock.monotonic() > end:
                for child in self._known.values():
                    _signal(child, signal.SIGKILL)


def _signal(child: _Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)


def socket_settings(config: Config) -> SocketSettings:
    return SocketSettings(config.milter.socket, config.milter.socket_mode, config.milter.socket_group)


def worker_count(config: Config) -> int:
    """The configured number; 0 is one for each core that this process may use."""
    return config.milter.workers or len(os.sched_getaffinity(0))


def _cpu(config: Config, slot: int) -> int | None:
    if not config.milter.pin_workers:
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[slot % len(cpus)]
