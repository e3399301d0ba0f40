"""Talk to the service manager: sd_notify(3) over a datagram socket, without libsystemd.

Outside systemd (no ``NOTIFY_SOCKET`` in the environment) everything here does nothing, at no cost.
"""

from __future__ import annotations

import os
import socket


def notify(*states: str) -> bool:
    """Send assignments such as ``READY=1``, ``STOPPING=1``, ``RELOADING=1``, ``STATUS=…`` or ``WATCHDOG=1``.

    Returns whether they were sent. Never raises: a service manager that can't be reached is no reason to stop work.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # sd_notify(3): a leading @ stands for the abstract namespace.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(1.0)
            channel.sendto("\n".join(states).encode("utf-8", "replace"), target)
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """Seconds between two ``WATCHDOG=1`` (half of what systemd allows); None when no watchdog watches this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 2_000_000 if microseconds > 0 else None
