"""The mail log: the journal's own protocol where systemd-journald runs, syslog at /dev/log elsewhere, else stderr.

A log that can't be written never disturbs mail: nothing here raises, and a full queue of the log daemon costs a moment once,
not once per line.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from postseal.core.text import one_line

ERR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7
LEVELS = {"error": ERR, "warning": WARNING, "info": INFO, "debug": DEBUG}
# RFC 3164 §4.1.1
FACILITIES = {"user": 1, "mail": 2, "daemon": 3, **{f"local{n}": 16 + n for n in range(8)}}

JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"
# rsyslogd cuts a message at 8 KiB.
LINE_MAX = 7168
_PATIENCE = struct.pack("ll", 0, 200_000)
_FIELD = re.compile(r"[A-Z][A-Z0-9_]{0,62}\Z")


class MailLog:
    """One identifier, such as ``postseal/milter``. Safe for threads and across fork: no state but one unbound socket."""

    def __init__(self, identifier: str, facility: str, target: str, threshold: int) -> None:
        self._identifier = identifier
        self._facility = FACILITIES[facility]
        self._target = target
        self._threshold = threshold
        self._patient = True
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)

    def write(self, priority: int, text: str, fields: Mapping[str, str] | None = None) -> None:
        """One line at a syslog priority (RFC 5424 §6.2.1). ``fields`` go to the journal beside it. Never raises."""
        if priority > self._threshold:
            return
        # The last defence (THR-10): whatever a caller forgot, one event stays one line of printable ASCII.
        line = one_line(text, LINE_MAX)
        try:
            if not self._send(priority, line, fields or {}):
                print(f"{self._identifier}[{os.getpid()}]: {line}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            # stderr is closed or full; there is nobody left to tell.
            return

    def debug(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.write(DEBUG, text, fields)

    def info(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.write(INFO, text, fields)

    def warning(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        """As Postfix does, the line says ``warning:`` too, for those who read files."""
        self.write(WARNING, f"warning: {text}", fields)

    def error(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.write(ERR, f"error: {text}", fields)

    def _send(self, priority: int, line: str, fields: Mapping[str, str]) -> bool:
        if self._target == "stderr" or self._socket is None:
            return False
        if self._target != "auto":
            return self._datagram(self._target, self._syslog(priority, line))
        # Looked up for every line, so that a log daemon may come, go and restart at any time.
        if Path(JOURNAL_SOCKET).exists() and self._datagram(JOURNAL_SOCKET, self._journal(priority, line, fields)):
            return True
        return self._datagram(SYSLOG_SOCKET, self._syslog(priority, line))

    def _datagram(self, path: str, data: bytes) -> bool:
        assert self._socket is not None
        try:
            self._socket.sendto(data, 0 if self._patient else socket.MSG_DONTWAIT, path)
        except BlockingIOError:
            self._patient = False
            return False
        except OSError:
            return False
        self._patient = True
        return True

    def _syslog(self, priority: int, line: str) -> bytes:
        # RFC 3164 §4.1 without the time: daemons take their own for what comes by a local socket.
        return f"<{self._facility * 8 + priority}>{self._identifier}[{os.getpid()}]: {line}".encode()

    def _journal(self, priority: int, line: str, fields: Mapping[str, str]) -> bytes:
        own = {
            "MESSAGE": line,
            "PRIORITY": str(priority),
            "SYSLOG_FACILITY": str(self._facility),
            "SYSLOG_IDENTIFIER": self._identifier,
            "SYSLOG_PID": str(os.getpid()),
        }
        more = {k: one_line(v, LINE_MAX) for k, v in fields.items() if _FIELD.match(k) and k not in own}
        # One line each: the values hold no line feed, so the journal's binary form isn't needed.
        return "".join(f"{name}={text}\n" for name, text in {**own, **more}.items()).encode()


def open_log(identifier: str, facility: str = "mail", target: str | Path = "auto", level: str = "info") -> MailLog:
    """A log that writes from ``level`` upwards to ``auto``, ``stderr`` or the syslog socket at a path."""
    return MailLog(identifier, facility, str(target), LEVELS[level])
