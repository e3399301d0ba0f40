"""A real milter daemon with a policy for dialogues: alice has an RSA certificate, erin an EC one, bob and carol none."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.daemon import Daemon
from support.milterclient import MilterClient
from support.pki import Authority, Leaf, authority
from support.sink import Sink

TODAY = datetime.now(UTC)
DAY = timedelta(days=1)
VALID: Any = {"not_before": TODAY - DAY, "not_after": TODAY + 100 * DAY}
POLICY = [
    {"name": "partners", "recipients": ["partner.test"], "seal": "must", "without_certificate": "refuse"},
    {"name": "never", "recipients": ["never.test"], "seal": "never"},
    {"name": "held", "recipients": ["held.test"], "seal": "may", "without_certificate": "hold"},
    {"name": "rest", "seal": "may", "without_certificate": "clear"},
]


class Setting:
    """The daemon, its certificates and the listener for copies."""

    def __init__(self, directory: Path, sink: Sink) -> None:
        self.directory = directory
        self.sink = sink
        self.root: Authority = authority("Root", **VALID)
        self.alice: Leaf = self.root.issue("alice@partner.test", slot="alice", **VALID)
        self.erin: Leaf = self.root.issue("erin@partner.test", slot="erin", kind="p256", **VALID)
        self.daemon = Daemon(
            directory, "milter", policy=POLICY,
            settings={"milter": {"reinject": f"127.0.0.1:{sink.port}", "memory_limit": "64 KiB", "budget": "0.2 s"}},
        )  # fmt: skip
        (self.daemon.anchors / "root.pem").write_bytes(self.root.pem)
        for name, leaf in (("alice", self.alice), ("erin", self.erin)):
            (self.daemon.certificates / f"{name}.pem").write_bytes(leaf.pem)
            (directory / f"{name}.key").write_bytes(leaf.key_pem)

    def mta(self, **options: Any) -> MilterClient:
        """A new connection of an MTA whose client is on this host."""
        client = MilterClient(self.daemon.milter, **options)
        client.connect()
        return client

    def open(self, name: str, message: bytes) -> bytes:
        """A sealed message opened by OpenSSL with the key of ``name``."""
        return openssl_open(self.daemon.certificates / f"{name}.pem", self.directory / f"{name}.key", message)


def openssl_open(certificate: Path, key: Path, message: bytes) -> bytes:
    done = subprocess.run(
        ["openssl", "cms", "-decrypt", "-binary", "-inform", "SMIME", "-recip", str(certificate), "-inkey", str(key)],
        input=message, capture_output=True, env={**os.environ, "OPENSSL_CONF": "/dev/null"}, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
