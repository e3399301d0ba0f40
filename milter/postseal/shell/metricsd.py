"""``postseal metrics``: serves the numbers of all services by HTTP until SIGTERM. It reads files, and writes none.

A process of its own, so that neither the one that sees mail nor the one that sees the Internet listens to anybody for this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from postseal.config import Config, InetSocket, load_config
from postseal.core.errors import CannotCreate, ConfigError, NotPermitted, PostsealError, Unavailable
from postseal.sources.clock import SystemClock
from postseal.sources.log import open_log
from postseal.sources.metrics import Exposition
from postseal.sources.notify import notify, watchdog_interval
from postseal.wiring.metrics import build_exposition

# THR-22: bounded in number and time, although only this host can connect.
_CLIENTS = 8
_TIMEOUT = 5.0
_PAGE = b"<html><body>postseal: <a href='/metrics'>metrics</a></body></html>\n"


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT
    server: _Server

    def version_string(self) -> str:
        return "postseal"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            return self._say(200, "text/html", _PAGE)
        if path != "/metrics":
            return self._say(404, "text/plain", b"there is /metrics only\n")
        try:
            content_type, text = self.server.exposition.render(self.headers.get("Accept", ""))
        except Exception as exc:
            self.server.failed(exc)
            return self._say(500, "text/plain", b"the metrics can't be read; see the log\n")
        return self._say(200, content_type, text)

    do_HEAD = do_GET

    def _say(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: InetSocket, exposition: Exposition, log: Any) -> None:
        self.exposition = exposition
        self._log = log
        self._places = threading.BoundedSemaphore(_CLIENTS)
        family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(where[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the DNS for our name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "postseal", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        # Blocks the acceptor: who comes later waits in the listen queue, for as long as a request may take.
        if not self._places.acquire(timeout=_TIMEOUT):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away."""

    def failed(self, exc: Exception) -> None:
        cause = str(exc) if isinstance(exc, PostsealError) else f"{type(exc).__name__}: {exc}"
        self._log.error(f"metrics can't be read: {cause}")


def serve(config: Config) -> int:
    """Until SIGTERM or SIGINT; the exit code. Raises PostsealError when it can't start."""
    listen = listener(config)
    log = open_log("postseal/metrics", config.log.facility, config.log.socket, config.log.level)
    wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals: list[int] = []
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: signals.append(number))
    server = _bind(listen, build_exposition(config), log)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    name = f"{listen.host}:{listen.port}"
    log.info(f"metrics are served on {name}")
    notify("READY=1", f"STATUS=listening on {name}")
    while True:
        select.select([wake], [], [], min(watchdog_interval() or 60.0, 60.0))
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 512)
        notify("WATCHDOG=1")
        if signal.SIGHUP in signals:
            signals.clear()
            config = _again(config, server, log)
        elif signals:
            break
    notify("STOPPING=1")
    server.shutdown()
    server.server_close()
    return 0


def listener(config: Config) -> InetSocket:
    """Where to serve. Raises ConfigError when nowhere."""
    if config.metrics.listen is None:
        raise ConfigError(
            f"{config.path}: [metrics] listen is empty, so nothing is counted and there is nothing to serve"
        )
    return config.metrics.listen


def _bind(listen: InetSocket, exposition: Exposition, log: Any) -> _Server:
    where = f"metrics: can't listen on {listen.host}:{listen.port}"
    try:
        return _Server(listen, exposition, log)
    except PermissionError as exc:
        raise NotPermitted(f"{where}: {exc.strerror}") from exc
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise Unavailable(f"{where}: another process listens there already") from exc
        raise CannotCreate(f"{where}: {exc.strerror or exc}") from exc


def _again(config: Config, server: _Server, log: Any) -> Config:
    """SIGHUP: other directories are read at once, another address needs a restart."""
    notify("RELOADING=1", f"MONOTONIC_USEC={int(SystemClock().monotonic() * 1_000_000)}")
    try:
        fresh = load_config(config.path)
        if fresh.metrics.listen != config.metrics.listen:
            log.warning("a new [metrics] listen takes effect after a restart only")
        server.exposition = build_exposition(fresh)
        config = fresh
        log.info("configuration read again")
    except PostsealError as exc:
        log.error(f"configuration not read again, the old one stays: {exc}")
    notify("READY=1")
    return config
