"""``postseal lookup``: serves the lookup socket in the foreground until SIGTERM; SIGHUP reads the configuration again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from postseal.app.lookup import Lookups
from postseal.app.metering import NO_METER, NoMeter
from postseal.config import Config, load_config
from postseal.core.errors import BadData, CannotCreate, PostsealError, TryAgain, Unavailable
from postseal.sources import lookup_wire as wire
from postseal.sources.clock import SystemClock
from postseal.sources.evidence import EvidenceStore
from postseal.sources.log import MailLog, open_log
from postseal.sources.metrics import Recorder
from postseal.sources.notify import notify, watchdog_interval
from postseal.sources.process import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    hide_memory,
    keep_capabilities,
    no_new_privileges,
)
from postseal.wiring.lookup import build_confinement, build_crls, build_lookups, build_store
from postseal.wiring.metrics import build_meter, start_counting

SOCKET_MODE = 0o660
MAX_CLIENTS = 256
_REQUEST_TIME = 5.0
_DRAIN = 5.0
_PREFETCH_EVERY = 15.0


class Server:
    """One lookup service: socket, store, and the use case that SIGHUP replaces."""

    def __init__(self, config_path: str) -> None:
        self._config_path = config_path
        self._config = load_config(config_path)
        self._log = _open_log(self._config)
        self._clock = SystemClock()
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._clients = threading.BoundedSemaphore(MAX_CLIENTS)
        self._active = 0
        self._active_lock = threading.Lock()
        self._confinement = build_confinement()
        self._counting: int | None = None
        self._meter: Recorder | NoMeter = NO_METER
        self._store: EvidenceStore
        self._lookups: Lookups

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Raises PostsealError when the service can't start."""
        path = self._config.lookup_socket
        _give_up_rights()
        lock = _claim(path)
        try:
            self._store = build_store(self._config, self._log.warning, build_crls(self._confinement))
            self._store.forget_refusals()
            self._count(self._config)
            self._lookups = build_lookups(
                self._config, self._store, self._confinement, self._log.warning, self._meter, self._log.error
            )
            listener = _listen(path, self._config.lookup.socket_group)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._on_signal)
            signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
            threading.Thread(target=self._serve, args=(listener,), name="accept", daemon=True).start()
            threading.Thread(target=self._prefetch, name="prefetch", daemon=True).start()
            self._log.info(f"lookup started, listening on {path}{_idle(self._config)}")
            notify("READY=1", f"STATUS=listening on {path}")
            self._wait()
            notify("STOPPING=1")
            self._drain(listener)
            with contextlib.suppress(OSError):
                path.unlink()
        finally:
            os.close(lock)
        self._log.info("lookup stopped")
        return 0

    def _build(self, config: Config) -> Lookups:
        return build_lookups(
            config, self._store, self._confinement, self._log.warning, self._meter, lambda text: self._log.error(text)
        )

    def _count(self, config: Config) -> None:
        """Begin to count, once; when the configuration says so no more, what counted goes on unread."""
        if self._counting is None:
            self._counting = start_counting(config, "lookup", self._log.warning)
            if self._counting is not None:
                self._meter = build_meter(config, "lookup", 0, self._log.warning)

    def _on_signal(self, number: int, frame: object) -> None:
        (self._reload if number == signal.SIGHUP else self._stop).set()

    def _wait(self) -> None:
        """The main thread: feed the watchdog, act on signals."""
        interval = watchdog_interval() or 60.0
        while not self._stop.is_set():
            if self._reload.is_set():
                self._reload.clear()
                self._configure_again()
            self._stop.wait(0.2 if self._reload.is_set() else min(interval, 1.0))
            notify("WATCHDOG=1")

    def _configure_again(self) -> None:
        notify("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")
        try:
            config = load_config(self._config_path)
            if config.evidence_directory != self._config.evidence_directory or (
                config.lookup_socket != self._config.lookup_socket
            ):
                self._log.warning("a new state directory or lookup socket takes effect after a restart only")
            self._count(config)
            fresh = build_lookups(
                config, self._store, self._confinement, self._log.warning, self._meter, self._log.error
            )
            self._store.forget_refusals()
            old, self._lookups, self._log = self._lookups, fresh, _open_log(config)
            old.close()
            self._config = config
            self._log.info(f"configuration read again{_idle(config)}")
        except PostsealError as exc:
            self._log.error(f"configuration not read again, the old one stays: {exc}")
        notify("READY=1")

    def _serve(self, listener: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            # THR-32: bounded; a client that comes too late hears so at once and goes on with what is known.
            if not self._clients.acquire(blocking=False):
                self._refuse(channel)
                continue
            with self._active_lock:
                self._active += 1
            threading.Thread(target=self._client, args=(channel,), name="client", daemon=True).start()

    def _refuse(self, channel: socket.socket) -> None:
        with contextlib.suppress(OSError), channel:
            wire.send(channel, wire.encode_reply({"error": "too many clients"}), lambda: 0.1)

    def _client(self, channel: socket.socket) -> None:
        started = self._clock.monotonic()

        def left() -> float:
            return _REQUEST_TIME - (self._clock.monotonic() - started)

        try:
            with channel:
                try:
                    request = wire.decode_request(wire.receive(channel, wire.MAX_REQUEST, left))
                    reply = self._answer(request, _peer(channel))
                except PostsealError as exc:
                    reply = {"error": str(exc)}
                wire.send(channel, wire.encode_reply(reply), lambda: _REQUEST_TIME)
        except OSError:
            # The client's time was over, and it left; the result is in the store.
            pass
        except Exception as exc:
            self._log.error(f"lookup: a request failed: {type(exc).__name__}: {exc}")
        finally:
            self._clients.release()
            with self._active_lock:
                self._active -= 1

    def _answer(self, request: wire.Ask | wire.Refresh, uid: int) -> dict[str, Any]:
        lookups = self._lookups
        if not self._config.lookup.fetch:
            if isinstance(request, wire.Ask):
                lookups.note(request.questions)
                return {"refused": 0}
            raise BadData("nothing is fetched here ([lookup] fetch = false): import evidence instead")
        if isinstance(request, wire.Ask):
            return {"refused": lookups.ask((*request.questions, *request.orphans), request.budget, request.message)}
        # A milter in the wrong hands must not make us hammer CAs: fetching at will is for administrators.
        if uid not in (0, os.geteuid()):
            raise BadData("only root and the user of postseal lookup may have evidence fetched at will")
        wanted = set(request.names)
        chosen = [e for e in self._store.entries() if not wanted or e.name in wanted or wanted & {e.url, *e.urls}]
        outcomes = lookups.refresh(chosen, request.budget)
        return {"results": [{"url": o.url, "reason": o.why, "detail": o.detail} for o in outcomes]}

    def _prefetch(self) -> None:
        while not self._stop.wait(_PREFETCH_EVERY):
            try:
                if self._config.lookup.fetch and self._config.lookup.prefetch:
                    self._lookups.prefetch()
                else:
                    self._lookups.upkeep()
            except Unavailable as exc:
                self._log.warning(f"evidence can't be looked after: {exc}")
            except Exception as exc:
                self._log.error(f"prefetch failed: {type(exc).__name__}: {exc}")

    def _drain(self, listener: socket.socket) -> None:
        """Let running asks end, for a bounded time; new ones find no listener."""
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        end = self._clock.monotonic() + _DRAIN
        pause = threading.Event()
        while self._clock.monotonic() < end and (self._active or not self._lookups.idle()):
            pause.wait(0.02)
        self._lookups.close()


def serve(config_path: str, leave: Callable[[int], Any] = os._exit) -> int:
    """Run the service. ``leave`` ends the process at once: a download that still runs must not hold it."""
    code = Server(config_path).run()
    leave(code)
    return code


def _idle(config: Config) -> str:
    return "" if config.lookup.fetch else "; nothing is fetched ([lookup] fetch = false), evidence has to be imported"


def _open_log(config: Config) -> MailLog:
    return open_log("postseal/lookup", config.log.facility, config.log.socket, config.log.level)


def _give_up_rights() -> None:
    """What talks to the Internet has no business with the machine, also where no service file says so (``postseal run``).

    Of root's powers those over files stay: the evidence and the socket may belong to somebody else.
    """
    no_new_privileges()
    hide_memory()
    keep_capabilities(CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER)


def _claim(path: Path) -> int:
    """Hold the lock beside the socket for as long as this process lives. Raises TryAgain when another one does."""
    name = f"{path}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotCreate(f"can't create {name}: {exc.strerror}") from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise TryAgain(f"another postseal lookup already serves {path}") from exc
    return handle


def _listen(path: Path, group: str | None) -> socket.socket:
    """The socket, with its mode and group right from its first moment. The lock is held, so a file there is stale."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    new = f"{path}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        old_mask = os.umask(0o777)
        try:
            listener.bind(new)
        finally:
            os.umask(old_mask)
        if group:
            import grp

            number = grp.getgrnam(group).gr_gid
            # The service file refuses chown, and there the group is right already.
            if os.stat(new).st_gid != number:
                os.chown(new, -1, number)
        os.chmod(new, SOCKET_MODE)
        listener.listen(MAX_CLIENTS)
        os.replace(new, path)
    except KeyError as exc:
        raise CannotCreate(f"socket {path}: there is no group {group}") from exc
    except OSError as exc:
        raise CannotCreate(f"can't listen on {path}: {exc.strerror or exc}") from exc
    return listener


def _peer(channel: socket.socket) -> int:
    """User id of the process at the other end (unix(7), SO_PEERCRED)."""
    _, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
