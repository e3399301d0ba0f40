"""The real lookup service and a large CRL: answered at once, indexed by a helper, found again after kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postseal.core.crl import Crl
from postseal.core.crl_entries import Entries
from postseal.core.evidence import CrlEvidence, Question, question_for
from postseal.core.revocation import RevocationSettings, Status, judge
from postseal.sources.evidence import EvidenceStore
from postseal.sources.file_octets import FileOctets
from postseal.sources.lookup_client import LookupClient
from support.daemon import Daemon
from support.evidence import crl, entry, number, reason, utc
from support.pki import DAY, HOUR, Leaf, authority
from support.responders import WebServer
from support.scratch import wait_for

START = datetime.now(UTC).replace(microsecond=0)
COUNT = 8000
ROOT = authority("Root of a large CRL", not_before=START - DAY, not_after=START + 60 * DAY)


def version(n: int, *revoked: Leaf) -> bytes:
    entries = [entry((1 << 126) + k * 0x10001, reason(1)) for k in range(COUNT)]
    return crl(ROOT, [*entries, *(entry(leaf, reason(4)) for leaf in revoked)], extensions=[number(n)],
               this_update=utc(START - HOUR + n * HOUR / 60), next_update=utc(START + DAY))  # fmt: skip


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


def test_service_with_a_large_crl(scratch: Path, web: WebServer) -> None:
    """T-24, CACHE-7: a large CRL comes, is indexed by a helper process, is replaced, and survives kill -9 and a lost index."""
    url = web.url("/large.crl")
    good, bad = (
        ROOT.issue(f"{who}@home.test", slot=who, crl_urls=[url], not_before=START - DAY, not_after=START + 30 * DAY)
        for who in ("good", "bad")
    )
    settings = {
        "lookup": {
            "allow_networks": ["127.0.0.0/8"],
            "ports": [web.port],
            "crl_max_size": "1 GiB",
            "request_timeout": "20 s",
        }
    }
    daemon = Daemon(scratch, "lookup", settings=settings)
    (daemon.anchors / "root.pem").write_bytes(ROOT.pem)
    client = LookupClient(daemon.run / "lookup.sock")
    reader = EvidenceStore(daemon.state / "evidence", readonly=True)

    def status(leaf: Leaf) -> Status:
        question = question_for(leaf.certificate, ROOT.certificate)
        return judge(question, reader.evidence(question), RevocationSettings(), datetime.now(UTC)).status

    def stored() -> Crl:
        (found,) = (e.crl for e in reader.evidence(ask(good)) if isinstance(e, CrlEvidence))
        return found

    def ask(leaf: Leaf) -> Question:
        return question_for(leaf.certificate, ROOT.certificate)

    def is_indexed() -> bool:
        return isinstance(stored().entries, Entries)

    web.put("/large.crl", version(1, bad))
    try:
        daemon.start()
        client.ask([ask(good), ask(bad)], 30.0).result(35)
        assert (status(good), status(bad)) == (Status.GOOD, Status.REVOKED)
        wait_for(is_indexed, "the index")
        assert (status(good), status(bad)) == (Status.GOOD, Status.REVOKED)
        assert isinstance(stored().der, FileOctets)
        assert stored().entry_count == COUNT + 1
        before = stored().sha256
        daemon.kill()
        (daemon.state / "evidence" / "crl" / f"{before}.idx").unlink()
        daemon.start()
        fresh = daemon.state / "evidence" / "crl" / f"{before}.idx"
        wait_for(fresh.exists, "the index that was lost")
        web.put("/large.crl", version(2, bad, good))
        (result,) = client.refresh([url], 60.0)["results"]
        assert result["reason"] == ""
        # Not a moment without an index.
        assert is_indexed()
        assert (status(good), status(bad)) == (Status.REVOKED, Status.REVOKED)
        assert stored().sha256 != before
        assert sorted(p.suffix for p in fresh.parent.iterdir()) == [".crl", ".idx"]
    finally:
        daemon.kill()
