"""Short, world-searchable temporary directories: Unix socket paths are limited to 107 octets, and user postfix must get in."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def scratch(prefix: str = "ps-") -> Iterator[Path]:
    """A directory below the system's temporary one, mode 0755, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        os.chmod(directory, 0o755)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def answers(address: str) -> bool:
    """Does something accept connections at ``unix:PATH``, ``inet:PORT@HOST`` or ``HOST:PORT``?"""
    if address.startswith(("unix:", "/")):
        family, where = socket.AF_UNIX, address.removeprefix("unix:")
    elif address.startswith("inet:"):
        port, _, host = address.removeprefix("inet:").partition("@")
        family, where = socket.AF_INET, (host or "127.0.0.1", int(port))  # type: ignore[assignment]
    else:
        host, _, port = address.rpartition(":")
        family, where = socket.AF_INET, (host, int(port))  # type: ignore[assignment]
    with socket.socket(family) as s:
        s.settimeout(1)
        try:
            s.connect(where)
        except OSError:
            return False
        return True


def wait_for(condition: Callable[[], object], what: str, timeout: float = 20.0, pause: float = 0.02) -> None:
    """Poll until ``condition()`` is true; AssertionError naming ``what`` when the time is over."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {timeout:g} s waiting for {what}")
        time.sleep(pause)
