"""Files and standard streams of the commands that take one message in and give one out."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData, CannotCreate, NotPermitted, Unavailable

_CHUNK = 64 * 1024
# Ciphertext above this goes to a private file without a name.
_MEMORY = 16 * 1024 * 1024


class TemporaryScratch:
    """Ciphertext in memory, above a limit in a file that has no name."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY)  # noqa: SIM115

    def write(self, data: bytes, /) -> None:
        try:
            self._file.write(data)
        except OSError as exc:
            raise CannotCreate(f"temporary file in {tempfile.gettempdir()}: {exc.strerror}") from exc

    def chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk


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
    while chunk := sys.stdin.buffer.read(_CHUNK):
        yield chunk


def message_out(blocks: Iterable[bytes]) -> None:
    try:
        for block in blocks:
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CannotCreate(f"standard output: {exc.strerror}") from exc


def report(args: argparse.Namespace, notes: Sequence[str]) -> None:
    if args.json:
        print(json.dumps({"notes": list(notes)}), file=sys.stderr)
        return
    for note in notes:
        print(f"postseal: {note}", file=sys.stderr)
