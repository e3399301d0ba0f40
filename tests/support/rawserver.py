"""A server on loopback that reads one request head and then does exactly what the test says, octet by octet."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Behaviour = Callable[[socket.socket, bytes], None]


class RawServer:
    """Accepts connections, reads one request head (and what comes with it), then misbehaves as told."""

    def __init__(self, behaviour: Behaviour, read_request: bool = True) -> None:
        self.requests: list[bytes] = []
        self._behaviour = behaviour
        self._read = read_request
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with contextlib.suppress(OSError), channel:
            request = b""
            while self._read and b"\r\n\r\n" not in request:
                part = channel.recv(65536)
                if not part:
                    break
                request += part
            self.requests.append(request)
            self._behaviour(channel, request)

    def close(self) -> None:
        self._listener.close()


def answer(head: str, body: bytes = b"") -> Behaviour:
    return lambda channel, _: channel.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
