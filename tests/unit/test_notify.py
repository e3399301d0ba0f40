"""The service manager hears exactly what we say, and its absence is no failure."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from postseal.sources.notify import notify, watchdog_interval


def test_states_arrive_as_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY and STATUS in one call are one datagram, one assignment a line."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify("READY=1", "STATUS=listening")
        assert manager.recv(100) == b"READY=1\nSTATUS=listening"


def test_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is in the abstract namespace."""
    name = f"postseal-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket"])
def test_absent_manager_is_no_failure(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No, a wrong or a dead address sends nothing and raises nothing."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("10000000", None, 5.0), ("10000000", "1", None), ("0", None, None), ("soon", None, None)],
)
def test_watchdog_interval(usec: str, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is fed twice in its time, and only by the process it watches."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_interval() == expected
