"""The ``postseal`` command in this process: octets in and out, sentences, exit code."""

from __future__ import annotations

import contextlib
import io
import subprocess
from unittest import mock

from postseal.shell.cli.main import main


def postseal(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """With standard streams of its own: starting Python 70 times would take half a minute."""
    output, errors = io.BytesIO(), io.StringIO()
    with (
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch("sys.stdout", io.TextIOWrapper(output, write_through=True)) as stdout,
        contextlib.redirect_stderr(errors),
    ):
        code = main(arguments)
        stdout.flush()
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue().encode())
