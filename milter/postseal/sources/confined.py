"""The helper process in which the bytes of strangers are parsed first: ``python -m postseal.sources.confined FD``.

It is started once and has one thread. For each object it forks a child that gives up what a parser doesn't need (files,
sockets, memory, time, nearly all system calls), runs one job from ``JOBS`` and says how it ended. Whatever happens to the
child, the helper lives, and ``sources.confine``, its only client, gets an answer (THR-7).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from postseal.core import ocsp
from postseal.core.certs import load_certificate, load_certificates
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.profile import profile
from postseal.core.signature import key_fault, parse_algorithm
from postseal.sources.clock import SystemClock
from postseal.sources.crl_indexing import give_way, write_index
from postseal.sources.process import die_with_parent, keep_capabilities, no_new_privileges
from postseal.sources.syscalls import only_compute

MAX_MESSAGE = 64 * 1024
_MAX_FILES = 4
Arguments = Mapping[str, Any]
Job = Callable[[Sequence[int], Arguments], dict[str, Any]]


def _content(file: int) -> bytes:
    # Not by mmap: Python would need another descriptor for it.
    left, parts = os.fstat(file).st_size, bytearray()
    while left > 0 and (part := os.pread(file, left, len(parts))):
        parts += part
        left -= len(part)
    return bytes(parts)


def _crl(blob: bytes) -> int:
    return parse_crl(blob, len(blob)).entry_count


def _certificate(der: bytes) -> None:
    certificate = load_certificate(der)
    facts = profile(certificate)
    key_fault(certificate.spki, weak_keys=True)
    if facts.algorithm is None:
        parse_algorithm(certificate.parts.outer_algorithm)


def _certificates(blob: bytes) -> int:
    found = load_certificates(blob, limit=1000)
    for certificate in found:
        _certificate(certificate.der)
    return len(found)


def _ocsp(blob: bytes) -> int:
    response = ocsp.parse_response(blob)
    for der in response.certificates:
        with contextlib.suppress(BadData):
            _certificate(der)
    return len(response.singles)


_KINDS: dict[str, Callable[[bytes], int]] = {"crl": _crl, "certificates": _certificates, "ocsp": _ocsp}


def read(files: Sequence[int], arguments: Arguments) -> dict[str, Any]:
    """How many things each parser finds in the object. All have a go: a server may answer with anything."""
    blob, found, bad = _content(files[0]), {}, []
    for kind, parse in _KINDS.items():
        try:
            found[kind] = parse(blob)
        except BadData as exc:
            bad.append(f"as {kind}: {exc}")
    if not found:
        raise BadData("; ".join(bad))
    return found


def index(files: Sequence[int], arguments: Arguments) -> dict[str, Any]:
    """Write the index of the CRL in the first file to the second."""
    give_way()
    try:
        return {"entries": write_index(files[0], files[1], arguments["sha256"], bytes.fromhex(arguments["tbs_digest"]))}
    except OSError as exc:
        # The disk is full, say: that isn't the CRL's fault.
        return {"cause": exc.strerror or str(exc)}


JOBS: dict[str, Job] = {"read": read, "index": index}
"""What can be done here. A job gets open files and arguments, and returns what JSON can carry; it opens nothing."""


def _limit(limits: Mapping[str, int], used: int) -> None:
    """For the rest of this process: bounded memory and CPU time, no new file, socket or process, no output, no core."""
    for what, value in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["output"]),
        (resource.RLIMIT_NOFILE, used + limits["files"]),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    # SIGXCPU at the first, SIGKILL at the second.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu"], limits["cpu"] + 1))


def _run(request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
    try:
        return {"value": JOBS[request["job"]](files, request["arguments"])}
    except BadData as exc:
        return {"bad": str(exc)[:2000]}
    except MemoryError:
        return {"memory": True}
    except Exception as exc:
        return {"bad": f"{type(exc).__name__} while reading it"}


def _only(files: Sequence[int]) -> list[int]:
    """Move ``files`` to the first numbers after standard error and close all others."""
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD, 100) for file in files]
    for number, file in enumerate(aside, 3):
        os.dup2(file, number)
    os.closerange(3 + len(files), 1 << 20)
    return list(range(3, 3 + len(files)))


def _child(request: Mapping[str, Any], files: Sequence[int], answer: int) -> NoReturn:
    code = 1
    try:
        die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # Neither the socket to the client nor the log is the parser's: it could speak for us there.
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        kept = _only([answer, *files])
        _limit(request["limits"], kept[-1] + 1)
        only_compute()
        os.write(kept[0], json.dumps(_run(request, kept[1:])).encode()[:MAX_MESSAGE])
        code = 0
    finally:
        os._exit(code)


def _collect(pid: int, source: int, wall: float) -> tuple[bytes, bool]:
    """What the child wrote until it closed the pipe, and whether its time ran out."""
    monotonic = SystemClock().monotonic
    end, parts = monotonic() + wall, b""
    ready = select.poll()
    ready.register(source, select.POLLIN | select.POLLHUP)
    while (left := end - monotonic()) > 0 and len(parts) <= MAX_MESSAGE:
        if ready.poll(left * 1000):
            part = os.read(source, MAX_MESSAGE)
            if not part:
                return parts, False
            parts += part
    return b"", True


def attend(request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
    """Run one job in a child; what became of it, with the CPU seconds and KiB of memory that it took."""
    source, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(request, files, answer)
    os.close(answer)
    try:
        said, late = _collect(pid, source, request["limits"]["wall"])
    finally:
        os.close(source)
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    outcome: dict[str, Any] = {"late": True} if late or number == signal.SIGXCPU else {}
    if not outcome:
        try:
            outcome = json.loads(said)
        except ValueError:
            outcome = {"died": number}
    return {**outcome, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss}


def serve(channel: socket.socket) -> None:
    """Answer requests, one after the other, until the client closes its end."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, MAX_MESSAGE, _MAX_FILES)
        if not message:
            return
        try:
            outcome = attend(json.loads(message), files)
        except OSError as exc:
            # Out of processes or memory ourselves.
            outcome = {"failed": exc.strerror or str(exc)}
        finally:
            for file in files:
                os.close(file)
        channel.send(json.dumps(outcome).encode())


def _warm_up() -> None:
    """Have everything loaded that a child needs: it can't open files."""
    with open(os.devnull, "rb") as nothing, contextlib.suppress(BadData):
        read([nothing.fileno()], {})


def main() -> None:
    """The helper's life."""
    # The library warns of what strangers write; whoever asked hears what matters of it as an answer.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"postseal\.")
    # The terminal's and the service's signals are for the process that started us; it closes the socket when it ends.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    no_new_privileges()
    keep_capabilities()
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    _warm_up()
    with contextlib.suppress(ConnectionError):
        serve(channel)


if __name__ == "__main__":
    main()
