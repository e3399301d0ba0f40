"""An SMTP server that keeps what it is given, octet by octet, and can be told to refuse.

with Sink() as sink:
    … Postfix relays to 127.0.0.1:sink.port …
    message = sink.wait_for("b@example.test")
"""

from __future__ import annotations

import re
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from types import TracebackType


@dataclass(frozen=True)
class Delivery:
    """One message as it came: envelope paths without brackets, and the octets after DATA with dots un-stuffed."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    mail_parameters: str = ""

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def parsed(self) -> Message:
        return message_from_bytes(self.data)

    def __getitem__(self, name: str) -> str | None:
        """First header field of that name."""
        value = self.parsed[name]
        return None if value is None else str(value)


class _Handler(socketserver.StreamRequestHandler):
    sink: Sink

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self) -> None:
        self.sink = self.server.sink  # type: ignore[attr-defined]
        self._say("220 sink.test ESMTP")
        self._reset()
        while line := self.rfile.readline():
            try:
                if not self._command(line.decode("utf-8", "surrogateescape").rstrip("\r\n")):
                    return
            except (BrokenPipeError, ConnectionError):
                return

    def _reset(self) -> None:
        self.sender, self.parameters = "", ""
        self.recipients: list[str] = []

    def _command(self, line: str) -> bool:
        verb = line[:4].upper()
        if verb == "EHLO":
            self._say("250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 0")
        elif verb == "MAIL":
            self._reset()
            self.sender, self.parameters = _path(line)
            self._say("250 2.1.0 ok")
        elif verb == "RCPT":
            address = _path(line)[0]
            refusal = self.sink.refuse(address)
            if refusal is None:
                self.recipients.append(address)
            self._say(refusal or "250 2.1.5 ok")
        elif verb == "DATA":
            self._data()
        elif verb == "QUIT":
            self._say("221 2.0.0 bye")
            return False
        else:
            if verb == "RSET":
                self._reset()
            self._say("250 2.0.0 ok" if verb in ("HELO", "RSET", "NOOP") else "502 5.5.2 no")
        return True

    def _data(self) -> None:
        if not self.recipients:
            self._say("554 5.5.1 no valid recipients")
            return
        self._say("354 go on")
        parts = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                return
            parts.append(line[1:] if line.startswith(b".") else line)
        refusal = self.sink.refuse_data
        if not refusal:
            self.sink._add(Delivery(self.sender, tuple(self.recipients), b"".join(parts), self.parameters))
        self._say(refusal or "250 2.0.0 kept")
        self._reset()


def _path(line: str) -> tuple[str, str]:
    found = re.match(r"[^<]*<([^>]*)>\s*(.*)", line)
    return (found[1], found[2]) if found else ("", "")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Sink:
    """Listens on a free port of 127.0.0.1 while in its ``with`` block.

    ``refuse(address)`` returns None or a reply line for RCPT; ``refuse_data`` is a reply line after DATA, empty to accept;
    ``notify(delivery)`` is called with each message that is kept.
    """

    def __init__(self, port: int = 0) -> None:
        self.refuse: Callable[[str], str | None] = lambda address: None
        self.refuse_data = ""
        self.notify: Callable[[Delivery], None] = lambda delivery: None
        self._kept: list[Delivery] = []
        self._changed = threading.Condition(threading.RLock())
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.sink = self  # type: ignore[attr-defined]
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Sink:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _add(self, delivery: Delivery) -> None:
        self.notify(delivery)
        with self._changed:
            self._kept.append(delivery)
            self._changed.notify_all()

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        with self._changed:
            return tuple(self._kept)

    def clear(self) -> None:
        with self._changed:
            self._kept.clear()

    def to(self, recipient: str) -> tuple[Delivery, ...]:
        """All messages whose envelope has this recipient."""
        return tuple(d for d in self.deliveries if recipient in d.recipients)

    def wait_for(self, recipient: str, count: int = 1, timeout: float = 30.0) -> Delivery:
        """The ``count``-th message for a recipient, waiting for it. AssertionError when it doesn't come."""
        self._wait(lambda: len(self.to(recipient)) >= count, f"message {count} for {recipient}", timeout)
        return self.to(recipient)[count - 1]

    def wait_count(self, count: int, timeout: float = 30.0) -> tuple[Delivery, ...]:
        """All messages, as soon as there are ``count``."""
        self._wait(lambda: len(self._kept) >= count, f"{count} messages", timeout)
        return self.deliveries

    def _wait(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        end = time.monotonic() + timeout
        with self._changed:
            while not condition():
                if not self._changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    have = [(d.sender, d.recipients) for d in self._kept]
                    raise AssertionError(f"no {what} within {timeout:g} s; the sink has {have}")
