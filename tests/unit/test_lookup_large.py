"""Fetching CRLs that are large, or pretend to be: over real HTTP, to files, within the limit."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postseal.app.lookup import Lookups, LookupSettings
from postseal.core.crl_entries import Entries
from postseal.core.evidence import CrlEvidence, NoAnswer, Question, question_for
from postseal.core.path import PathSettings
from postseal.core.revocation import RevocationSettings, Status, judge
from postseal.sources.evidence import EvidenceStore
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard
from support.evidence import crl, entry, number, reason, utc
from support.lookups import NOW, ROOT, FixedClock, Trust
from support.pki import DAY, HOUR, Leaf
from support.responders import WebServer

LIMIT = 600_000
ENTRIES = [entry((1 << 126) + n * 0x10001, reason(1)) for n in range(7000)]


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


class Node:
    """Lookup with real HTTP on a real store; the clock stands still unless it is told to go on."""

    def __init__(self, web: WebServer, directory: Path) -> None:
        self.url = web.url("/large.crl")
        self.web, self.clock, self.heard = web, FixedClock(), list[str]()
        self.directory = directory / "evidence"
        self.store = EvidenceStore(self.directory, readonly=False, report=self.heard.append)
        guard = Guard(ports=[web.port], allow_networks=["127.0.0.0/8"])
        http = Fetcher(guard, user_agent="postseal/test", monotonic=self.clock.monotonic)
        self.lookups = Lookups(
            self.store, http, Trust(ROOT), self.clock, PathSettings(),
            RevocationSettings(), LookupSettings(request_timeout=5.0, crl_max_size=LIMIT), self.heard.append,
            chance=lambda: 0.5,
        )  # fmt: skip

    def question(self, leaf: Leaf) -> Question:
        return question_for(leaf.certificate, ROOT.certificate)

    def refresh(self) -> list[str]:
        """Fetch again what is there; the reasons of what failed."""
        return [outcome.why for outcome in self.lookups.refresh(self.store.entries(), 20.0) if outcome.why]

    def status(self, leaf: Leaf) -> Status:
        question = self.question(leaf)
        reader = EvidenceStore(self.directory, readonly=True)
        return judge(question, reader.evidence(question), RevocationSettings(), self.clock.now()).status

    def crl(self) -> CrlEvidence:
        (found,) = (e for e in self.store.evidence(self.question(GOOD)) if isinstance(e, CrlEvidence))
        return found

    def files(self) -> list[str]:
        return sorted(p.suffix for p in (self.directory / "crl").iterdir())


GOOD = ROOT.issue("good@large.test", kind="p256", slot="good")
REVOKED = ROOT.issue("revoked@large.test", kind="p256", slot="revoked")


def pointed(leaf: Leaf, url: str, slot: str) -> Leaf:
    return ROOT.issue("x@large.test", kind="p256", slot=slot, crl_urls=[url], serial=leaf.certificate.serial)


@pytest.fixture
def node(web: WebServer, tmp_path: Path) -> Iterator[Node]:
    found = Node(web, tmp_path)
    yield found
    found.lookups.close()


def version(n: int, *more: bytes) -> bytes:
    return crl(
        ROOT,
        [*ENTRIES, *more],
        extensions=[number(n)],
        this_update=utc(NOW - HOUR + n * HOUR / 60),
        next_update=utc(NOW + DAY),
    )


def fetch_first(node: Node) -> tuple[Leaf, Leaf]:
    good, revoked = pointed(GOOD, node.url, "good"), pointed(REVOKED, node.url, "revoked")
    node.web.put("/large.crl", version(1, entry(REVOKED, reason(1))))
    assert node.lookups.ask([node.question(good), node.question(revoked)], 10.0) == 0
    assert (node.status(good), node.status(revoked)) == (Status.GOOD, Status.REVOKED)
    wait_for(lambda: not node.store._awaited)
    return good, revoked


def wait_for(done: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if done():
            return
        pause.wait(0.005)
    raise AssertionError("it doesn't end")


def test_large_crl_over_http(node: Node) -> None:
    """A large CRL is fetched to a file, answers at once, and is indexed; the next one takes its place with its index."""
    good, revoked = fetch_first(node)
    assert node.files() == [".crl", ".idx"]
    assert isinstance(node.crl().crl.entries, Entries)
    node.web.put("/large.crl", version(2, entry(REVOKED, reason(1)), entry(GOOD, reason(4))))
    assert node.refresh() == []
    assert (node.status(good), node.status(revoked)) == (Status.REVOKED, Status.REVOKED)
    assert isinstance(node.crl().crl.entries, Entries)
    assert node.files() == [".crl", ".idx"]


NEXT = version(2, entry(REVOKED, reason(1)), entry(GOOD, reason(4)))
HOSTILE = {
    "300 MB": ({"body": NEXT, "headers": {"Content-Length": str(300 << 20)}}, "rev.too-large"),
    "endless": ({"body": b"", "fault": "endless"}, "rev.too-large"),
    "gzip bomb": ({"body": bytes(300 << 20), "fault": "gzip"}, "rev.malformed"),
    "bomb without its name": ({"body": gzip.compress(bytes(300 << 20))}, "rev.malformed"),
    "promises more": ({"body": NEXT, "fault": "long-length"}, "rev.malformed"),
    "promises less": ({"body": NEXT, "fault": "short-length"}, "rev.malformed"),
    "truncated": ({"body": NEXT[:-1]}, "rev.malformed"),
    "too many entries": ({"body": version(2, *ENTRIES)}, "rev.too-large"),
    "unsigned": ({"body": NEXT[:-1] + bytes((NEXT[-1] ^ 1,))}, "rev.bad-signature"),
    "changed in the middle": ({"body": NEXT.replace(ENTRIES[3000][4:20], ENTRIES[3000][4:19] + b"?")}, "rev.bad-signature"),
    "a page": ({"body": b"<html>" + bytes(LIMIT - 10)}, "rev.malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_t16_old_crl_stays(name: str, node: Node) -> None:
    """T-16, THR-4, CRL-30: 300 MB, endless, a bomb, a lie about the length, cut short: capped, and the old CRL stays."""
    good, revoked = fetch_first(node)
    before, memory = node.crl().crl.sha256, resident()
    resource, why = HOSTILE[name]
    resource = dict(resource)
    node.web.put("/large.crl", resource.pop("body"), **resource)  # type: ignore[arg-type]
    assert node.refresh() == [why]
    assert resident() - memory < 64
    assert (node.status(good), node.status(revoked)) == (Status.GOOD, Status.REVOKED)
    assert node.crl().crl.sha256 == before
    assert node.files() == [".crl", ".idx"]
    (failure,) = (e for e in node.store.evidence(node.question(good)) if isinstance(e, NoAnswer))
    assert failure.why == why


def test_malformed_entry_of_a_large_crl_is_a_failure_of_the_url(node: Node) -> None:
    """CACHE-4: what only the scan finds is a failure as any other, with its cause and its back-off."""
    good, _ = fetch_first(node)
    node.web.put("/large.crl", version(2, b"\x30\x03\x02\x01\x4d"))
    assert node.refresh() == ["rev.malformed"]
    assert node.status(good) is Status.GOOD
    (failure,) = (e for e in node.store.evidence(node.question(good)) if isinstance(e, NoAnswer))
    assert "an entry without a revocation date" in failure.detail
    assert failure.retry_at is not None


def resident() -> int:
    """This process's own memory in MB."""
    with open(f"/proc/{os.getpid()}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) // 1024
