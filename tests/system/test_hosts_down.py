"""T-6: all hosts with CRLs and OCSP responders are down, nothing is cached. Both services, over the milter protocol."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, run_postseal
from support.milterclient import Answer, MilterClient
from support.pki import DAY, authority

TODAY = datetime.now(UTC).replace(microsecond=0)
VALID: Any = {"not_before": TODAY - DAY, "not_after": TODAY + 100 * DAY}
SENDER, SOFT, STRICT = "<boss@home.test>", "<alice@soft.test>", "<bob@strict.test>"
FIELDS = [(b"From", b" boss@home.test"), (b"Subject", b" hello")]
CANARY = b"canary-5b17"
POLICY = [
    {"name": "strict", "recipients": ["strict.test"], "revocation": "strict", "without_certificate": "clear"},
    {"name": "soft", "without_certificate": "clear"},
]


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def daemon(scratch: Path) -> Iterator[tuple[Daemon, str]]:
    """Both services; the URL of the CRL, where nobody is."""
    port = closed_port()
    down = f"http://127.0.0.1:{port}"
    settings = {
        "lookup": {"ports": [port]},
        "milter": {"budget": "2 s", "workers": 2},
        "revocation": {"give_up": "6 h"},
    }
    daemon = Daemon(scratch, settings=settings, policy=POLICY)
    root = authority("Silent root", **VALID)
    (daemon.anchors / "root.pem").write_bytes(root.pem)
    for name in ("alice@soft.test", "bob@strict.test"):
        leaf = root.issue(name, slot=name, crl_urls=[f"{down}/ca.crl"], ocsp_urls=[f"{down}/ocsp"], **VALID)
        (daemon.certificates / f"{name}.pem").write_bytes(leaf.pem)
    daemon.start()
    try:
        yield daemon, f"{down}/ca.crl"
    finally:
        daemon.kill()


def send(daemon: Daemon, recipient: str) -> Answer:
    with MilterClient(daemon.milter) as mta:
        mta.connect()
        return mta.send(SENDER, [recipient], FIELDS, CANARY + b"\r\n", macros={"i": "4XyZ6"})


def earlier(daemon: Daemon, by: timedelta) -> None:
    """As if mail had been waiting for that much longer."""
    with sqlite3.connect(daemon.state / "doubts.sqlite") as database:
        database.execute("UPDATE doubt SET since = since - ?", [by.total_seconds()])
    database.close()


def test_t06_all_hosts_down(daemon: tuple[Daemon, str]) -> None:
    """T-6: soft seals and warns with certificate, URL and cause; strict answers 451, also after a restart, and 550 after
    give_up, whatever the rule says about recipients without certificate; nothing leaves in clear."""
    site, url = daemon
    sealed = send(site, SOFT)
    assert sealed.accepted
    assert CANARY not in (sealed.body or b"")
    assert b"pkcs7-mime" in sealed.message(FIELDS, CANARY)
    site.wait_log(f"Could not retrieve URL {url}: connection refused")
    site.wait_log("; certificate sha256:")
    site.wait_log("sealed anyway (revocation=soft)")
    for _ in (1, 2):
        waits = send(site, STRICT)
        assert waits.reply.startswith("451 4.7.5")
        assert not waits.changed
    # It is known after a restart since when mail waits.
    site.stop()
    earlier(site, timedelta(hours=7))
    told = run_postseal("check", "--config", str(site.config_file), "--offline", "bob@strict.test")
    assert told.returncode == 1
    assert "bob@strict.test>: would be refused" in told.stdout
    assert "rcpt.revocation-given-up" in told.stdout
    assert "(doubt: availability)" in told.stdout
    site.start()
    refused = send(site, STRICT)
    assert refused.reply.startswith("550 5.7.5")
    assert not refused.changed
    assert "reason=rcpt.revocation-given-up" in site.log()
    assert "action=clear" not in site.log()
    assert send(site, SOFT).accepted
