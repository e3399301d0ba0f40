"""Looks at the machine for ``postseal doctor``: Postfix's settings, others' rights, the kernel's clock. Changes nothing."""

from __future__ import annotations

import ctypes
import functools
import grp
import os
import pwd
import socket
import stat
import subprocess
from pathlib import Path

from postseal.core.checkup import PostfixFacts
from postseal.core.errors import Unavailable

_MAIN = (
    "smtpd_milters",
    "non_smtpd_milters",
    "milter_default_action",
    "message_size_limit",
    "queue_directory",
    "mail_owner",
)
_TIME_ERROR = 5
_READ, _WRITE, _ENTER = 4, 2, 1


def read_postfix(directory: str) -> PostfixFacts:
    """Ask ``postconf``; ``directory`` empty means the system's Postfix. Raises Unavailable."""
    main = {}
    for name in _MAIN:
        # -x expands $name; postconf -h prints the value alone.
        main[name] = _postconf(directory, "-x", "-h", name).strip()
    services, chrooted = [], set()
    for line in _postconf(directory, "-M").splitlines():
        words = line.split(None, 7)
        if len(words) == 8:
            services.append((words[0], words[1], words[7]))
            # master(5): the fifth column; "-" is "n" since Postfix 3.0.
            if words[4] == "y":
                chrooted.add(words[7].split()[0])
    overrides = {}
    for line in _postconf(directory, "-P").splitlines():
        name, _, value = line.partition("=")
        overrides[name.strip()] = value.strip()
    return PostfixFacts(main, tuple(services), overrides, frozenset(chrooted))


def _postconf(directory: str, *arguments: str) -> str:
    command = ["postconf", *(["-c", directory] if directory else []), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin", "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError as exc:
        raise Unavailable("postconf isn't installed, so the settings of Postfix weren't looked at") from exc
    except subprocess.CalledProcessError as exc:
        raise Unavailable(f"{' '.join(command)}: {exc.stderr.strip().splitlines()[-1] if exc.stderr else exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"{' '.join(command)} doesn't end") from exc
    return done.stdout


def may_write(user: str, path: Path) -> str:
    """Empty when ``user`` may connect to the socket at ``path``; else what stands in the way, as a clause."""
    return _hindrance(user, path, _WRITE, "write to it")


def may_read(user: str, path: Path) -> str:
    """Empty when ``user`` may read the file, or list the folder, at ``path``; else what stands in the way, as a clause."""
    return _hindrance(user, path, _READ | _ENTER if path.is_dir() else _READ, "read it")


def _hindrance(user: str, path: Path, wanted: int, what: str) -> str:
    try:
        uid, groups = _identity(user)
    except KeyError:
        return f"there is no user {user}"
    for place in reversed(path.parents):
        if not _allowed(place.stat(), uid, groups, _ENTER):
            return f"{user} may not enter {place} ({_shown(place)})"
    if not _allowed(path.stat(), uid, groups, wanted):
        return f"{user} may not {what} ({_shown(path)})"
    return ""


@functools.cache
def _identity(user: str) -> tuple[int, frozenset[int]]:
    """User and group ids. Raises KeyError."""
    entry = pwd.getpwnam(user)
    return entry.pw_uid, frozenset({g.gr_gid for g in grp.getgrall() if user in g.gr_mem} | {entry.pw_gid})


def _allowed(status: os.stat_result, uid: int, groups: frozenset[int], wanted: int) -> bool:
    if uid == 0:
        return True
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return status.st_mode >> shift & wanted == wanted


def _shown(path: Path) -> str:
    status = path.stat()
    return f"mode {stat.S_IMODE(status.st_mode):04o}, {user_name(status.st_uid)}:{group_name(status.st_gid)}"


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def connects(target: Path | tuple[str, int], timeout: float = 2.0) -> str:
    """Empty when something listens there; else the cause."""
    try:
        if isinstance(target, Path):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(timeout)
                channel.connect(str(target))
        else:
            socket.create_connection(target, timeout).close()
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def clock_is_synchronised() -> bool | None:
    """What the kernel says about its clock (adjtimex(2)); None when it doesn't say."""
    # struct timex has 208 octets on 64-bit Linux; ``modes`` 0 only reads.
    buffer = ctypes.create_string_buffer(512)
    state = int(ctypes.CDLL(None).adjtimex(buffer))
    return None if state < 0 else state != _TIME_ERROR
