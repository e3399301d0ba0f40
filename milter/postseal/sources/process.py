"""What a process gives up about itself, by prctl(2) and capset(2), for which Python has no names."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
# linux/capability.h: version 3 of capset has 64 capabilities in two halves.
_CAPABILITY_VERSION, _LAST_CAPABILITY = 0x20080522, 63
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER = 0, 1, 3


def _prctl(option: int, value: int) -> bool:
    return bool(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process ``number`` when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def no_new_privileges() -> bool:
    """No set-user-id program that this process starts gives it more rights than it has."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> bool:
    """No core dump, and no other process of the same user may look into this one (THR-17)."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def keep_secrets() -> None:
    """For a process that will hold mail in clear or keys: its memory is not written to a core file, and not shown to others.

    Both are asked for: the limit counts where the memory may be looked at all the same (as root), the other where a core is
    piped to a program, which no limit stops.
    """
    hide_memory()
    # A unit's system call filter may forbid this; it has LimitCORE=0 then.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def keep_capabilities(*kept: int) -> bool:
    """Give up every capability of root but ``kept``, for this process and what it starts. False when that failed.

    Without any to give up this does nothing. Only threads that start later have them dropped too, so call it early.
    """
    if os.geteuid() != 0:
        return True
    for number in range(_LAST_CAPABILITY + 1):
        # A number that this kernel doesn't know is refused; there is nothing to drop then.
        if number not in kept:
            _prctl(_PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    # effective, permitted, inheritable; an inherited set would outlive the exec of a helper.
    head = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    return bool(_libc.capset(ctypes.c_char_p(head), ctypes.c_char_p(data)) == 0)
