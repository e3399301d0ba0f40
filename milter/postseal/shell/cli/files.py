"""Files and standard streams of the commands that take one message in and give one out."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData, CannotCreate, NotPermitted, Unavailable
from postseal.sources.spool import Spool

_CHUNK = 64 * 1024
# Ciphertext above this goes to a file.
_MEMORY = 8 * 1024 * 1024


class TemporaryScratch:
    """Ciphertext in memory, above a limit in a private file that has no name."""

    def __init__(self) -> None:
        self._directory = tempfile.gettempdir()
        self._spool = Spool(_MEMORY, Path(self._directory))

    def write(self, data: bytes, /) -> None:
        try:
            self._spool.append(data)
        except Unavailable as exc:
            raise CannotCreate(str(exc)) from exc

    def chunks(self) -> Iterator[bytes]:
        return iter(self._spool)


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError as exc:
        raise NotPermitted(f"{path}: {exc.strerror}") from exc
    except OSError as exc:
        raise Unavailable(f"{path}: {exc.strerror}") from exc


def read_certificate(path: str) -> Certificate:
    blob = read_file(path)
    try:
        found = load_certificates(blob)
    except BadData as exc:
        raise BadData(f"{path}: {exc}") from exc
    if len(found) != 1:
        raise BadData(f"{path} holds {len(found)} certificates; give a file with one")
    return found[0]


def message_in() -> Iterator[bytes]:
    _prompt()
    while chunk := read_input(_CHUNK):
        yield chunk


def whole_message() -> bytes:
    """All of standard input, for commands that can do nothing with a part of it."""
    _prompt()
    return read_input()


def _prompt() -> None:
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(
            "postseal: reading the message from the terminal; Ctrl-D at the beginning of a line ends it",
            file=sys.stderr,
        )


def read_input(size: int = -1) -> bytes:
    """From standard input, all that is left or at most ``size`` octets."""
    try:
        return sys.stdin.buffer.read(size)
    except OSError as exc:
        raise Unavailable(f"standard input: {exc.strerror}") from exc


def message_again() -> Callable[[], Iterator[bytes]] | None:
    """How standard input is read once more from where it stands now; None when it is no file."""
    try:
        if not stat.S_ISREG(os.fstat(sys.stdin.buffer.fileno()).st_mode):
            return None
        start = sys.stdin.buffer.tell()
    except OSError:
        return None

    def again() -> Iterator[bytes]:
        sys.stdin.buffer.seek(start)
        return message_in()

    return again


def message_out(blocks: Iterable[bytes]) -> None:
    try:
        for block in even(blocks):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    except OSError as exc:
        raise CannotCreate(f"standard output: {exc.strerror}") from exc


def even(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets in pieces of 64 KB: a file system writes a page that comes in two halves twice."""
    held: list[bytes | memoryview] = []
    size = 0
    for block in blocks:
        view = memoryview(block)
        while size + len(view) >= _CHUNK:
            cut = _CHUNK - size
            yield b"".join((*held, view[:cut]))
            view, held, size = view[cut:], [], 0
        if view:
            held.append(view)
            size += len(view)
    yield b"".join(held)


def report(args: argparse.Namespace, notes: Sequence[str]) -> None:
    if args.json:
        print(json.dumps({"notes": list(notes)}), file=sys.stderr)
        return
    for note in notes:
        print(f"postseal: {note}", file=sys.stderr)
