"""Many messages at once to one cold CA, also through two lookup processes that share a store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postseal.core.evidence import question_for
from postseal.core.revocation import RevocationSettings, Status, judge
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from support.daemon import Daemon
from support.pki import DAY, HOUR, authority
from support.responders import WebServer

START = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


@pytest.mark.parametrize("processes", [1, 2])
def test_t25_500_parallel_asks_are_one_fetch(processes: int, web: WebServer, scratch: Path) -> None:
    """CACHE-5, T-25: 500 messages at the same moment, cold, through one process or two: exactly one request."""
    root = authority("Parallel root", not_before=START - DAY, not_after=START + 60 * DAY)
    leaf = root.issue(
        "a@home.test", crl_urls=[web.url("/ca.crl")], not_before=START - DAY, not_after=START + 30 * DAY
    )  # fmt: skip
    question = question_for(leaf.certificate, root.certificate)

    def slow(_: bytes) -> bytes:
        time.sleep(0.7)
        return root.crl(this_update=START - HOUR, next_update=START + DAY)

    web.put("/ca.crl", slow)
    daemons = []
    try:
        for number in range(processes):
            settings = {"lookup": {"ports": [80, web.port]}, "general": {"state_directory": scratch / "shared"}}
            daemons.append(Daemon(scratch / str(number), "lookup", settings=settings))
            (daemons[-1].anchors / "root.pem").write_bytes(root.pem)
            daemons[-1].start()
        clients = [LookupClient(daemons[n % processes].run / "lookup.sock") for n in range(16)]
        futures = [clients[n % 16].ask([question], 15.0) for n in range(500)]
        assert not wait(futures, 30).not_done
        assert web.count("/ca.crl") == 1
        store = EvidenceStore(scratch / "shared" / "evidence", readonly=True)
        verdict = judge(question, store.evidence(question), RevocationSettings(), datetime.now(UTC))
        assert verdict.status is Status.GOOD
    finally:
        for daemon in daemons:
            daemon.kill()
