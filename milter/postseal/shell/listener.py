"""The socket that the MTA connects to: opened once by the supervisor, shared by all workers."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from postseal.config import InetSocket, UnixSocket
from postseal.core.errors import CannotCreate, NotPermitted, PostsealError, Unavailable

_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """Where to listen; mode and group are for a Unix socket, group None leaves that of the process."""

    address: UnixSocket | InetSocket
    mode: int = 0o660
    group: str | None = None

    def __str__(self) -> str:
        if isinstance(self.address, UnixSocket):
            return f"unix:{self.address.path}"
        return f"inet:{self.address.port}@{self.address.host}"


class Listener:
    """A listening socket that doesn't block. ``close`` also removes a Unix socket's path, if it is still ours."""

    def __init__(self, settings: SocketSettings) -> None:
        """Raises Unavailable when the address is in use, NotPermitted or CannotCreate when the system says no."""
        self.settings = settings
        self._identity: tuple[int, int] | None = None
        address = settings.address
        try:
            self.socket = self._unix(address.path) if isinstance(address, UnixSocket) else self._inet(address)
        except PostsealError:
            raise
        except PermissionError as exc:
            raise NotPermitted(f"can't listen on {settings}: {exc.strerror}") from exc
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise Unavailable(f"can't listen on {settings}: another process listens there already") from exc
            raise CannotCreate(f"can't listen on {settings}: {exc.strerror or exc}") from exc
        self.socket.listen(_BACKLOG)
        # P4: a worker that loses the race for a connection must not hang in accept().
        self.socket.setblocking(False)

    def _inet(self, address: InetSocket) -> socket.socket:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        return made

    def _unix(self, path: Path) -> socket.socket:
        group = group_id(self.settings.group)
        remove_stale(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # THR-31: nobody can connect before mode and group are what they should be.
        before = os.umask(0o777)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, self.settings.mode)
        status = path.lstat()
        self._identity = status.st_dev, status.st_ino
        return made

    def close(self) -> None:
        """Stop listening in this process; connections that wait are for whoever still has the socket."""
        self.socket.close()

    def remove(self) -> None:
        """``close``, and take the path away so that nobody connects to a socket without an owner."""
        self.close()
        address = self.settings.address
        if self._identity is None or not isinstance(address, UnixSocket):
            return
        with contextlib.suppress(OSError):
            status = address.path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                address.path.unlink()


def remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises Unavailable when somebody does, CannotCreate for another file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise CannotCreate(f"can't listen on unix:{path}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass
    raise Unavailable(f"can't listen on unix:{path}: another process listens there already")


def group_id(name: str | None) -> int | None:
    """Raises CannotCreate for a group that doesn't exist."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise CannotCreate(f"socket_group: there is no group {name!a}") from None
