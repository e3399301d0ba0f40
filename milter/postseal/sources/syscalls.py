"""A system call filter for processes that only compute (seccomp(2)): what a parser has no use for is refused by the kernel.

Limits on files, memory and time leave much that a process may do to others of its user: signals, ptrace, unlink, exec. The
filter is a list of what remains. On a machine whose call numbers aren't listed here there is none, and the limits remain.
"""

from __future__ import annotations

import ctypes
import os
import struct

from postseal.sources.process import no_new_privileges

# name -> number on x86_64 and on aarch64 (asm/unistd_64.h, asm-generic/unistd.h).
_CALLS: dict[str, tuple[int, int]] = {
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233),
    # files that are open already
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79), "lseek": (8, 62),
    "pread64": (17, 67), "pwrite64": (18, 68), "dup": (32, 23), "fcntl": (72, 25), "ftruncate": (77, 46), "fsync": (74, 82),
    "fdatasync": (75, 83),
    # itself
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "futex": (202, 98),
    "sched_yield": (24, 124), "getpid": (39, 172), "gettid": (186, 178), "setpriority": (141, 140), "getpriority": (140, 141),
    "clock_gettime": (228, 113), "getrandom": (318, 278), "rseq": (334, 293), "membarrier": (324, 283),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
# linux/audit.h
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# linux/bpf_common.h, linux/seccomp.h, linux/prctl.h
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE = 0, 4
_X32 = 0x40000000
_EPERM = 1
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def _program(column: int, architecture: int) -> bytes:
    """Classic BPF: the architecture must be ours, the number must be listed; all else is refused with EPERM."""
    numbers = sorted(call[column] for call in _CALLS.values())
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if column == 0:
        # Another way to number the calls of the same machine.
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for index, number in enumerate(numbers):
        steps.append((_EQUAL, len(numbers) - index, 0, number))
    steps += [(_RETURN, 0, 0, _REFUSE | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def only_compute() -> bool:
    """From now on nothing but the calls above. False where this can't be had."""
    machine = _MACHINES.get(os.uname().machine)
    # A program for 32 bits numbers its calls in another way.
    if machine is None or ctypes.sizeof(ctypes.c_void_p) != 8 or not no_new_privileges():
        return False
    program = _program(*machine)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: length, pointer.
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), filter_, 0, 0) == 0)
