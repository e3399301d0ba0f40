"""``./dev demo`` does what it says: right outcomes, nothing left behind, and ``--keep`` keeps."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from support.scratch import ROOT, wait_for

DEMO = [sys.executable, str(ROOT / "demo" / "run.py")]
KINDS = (
    "valid certificate, RSA key", "valid certificate, EC key", "revoked, says the CRL", "revoked, says OCSP",
    "CRL and OCSP can't be reached", "expired", "an issuer that isn't trusted", "no certificate", "a mixed message",
)  # fmt: skip


def _processes_of(directory: str) -> list[str]:
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if directory in line]


def test_the_demo_ends_well_and_leaves_nothing() -> None:
    """Every kind of recipient of the README is among the messages, and all outcomes are the expected ones."""
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in KINDS:
        assert kind in done.stdout
    assert "NOT AS EXPECTED" not in done.stdout
    assert "opened with the recipient's key by openssl cms: text and report.pdf (30720 bytes)" in done.stdout
    directory = re.search(r"up in \S+ s in (\S+)", done.stdout)
    assert directory
    assert not Path(directory[1]).exists()
    assert _processes_of(directory[1]) == []


def test_the_demo_can_be_kept_and_stopped() -> None:
    """``--keep`` gives the terminal back, mail still flows, and the ``kill`` that it prints ends all of it."""
    done = subprocess.run([*DEMO, "--keep"], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    pid = int(re.search(r"To stop it: +(?:sudo )?kill (\d+)", done.stdout)[1])  # type: ignore[index]
    directory = re.search(r"What arrives: +(\S+)/arrived/", done.stdout)[1]  # type: ignore[index]
    try:
        command = re.search(r"(/usr/sbin/sendmail .*) < MESSAGE", done.stdout)[1].split()  # type: ignore[index]
        before = len(list(Path(directory, "arrived").iterdir()))
        subprocess.run(command, input=b"Subject: kept\n\nstill here\n", check=True, timeout=30)
        wait_for(lambda: len(list(Path(directory, "arrived").iterdir())) > before, "another message")
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not _processes_of(directory) and not Path(directory).exists(), "the end of the demo", 40)
