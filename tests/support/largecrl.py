"""A large CRL, its successors, and a store to put them in."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

from postseal.core.crl import Crl, signature_valid
from postseal.core.evidence import CrlEvidence, Question, question_for
from postseal.sources.crl_indexing import write_index
from postseal.sources.evidence import EvidenceStore
from support.evidence import crl, entry, integer, number, reason, scope, seq, utc
from support.pki import DAY, HOUR, NOW, authority

URL = "http://ca.test/large.crl"
ROOT = authority("Large CRL CA", kind="p256")
OTHER = authority("Another CA of a large CRL", kind="p256")
LEAF = ROOT.issue("a@large.test", kind="p256", crl_urls=[URL])
COUNT = 7000
SERIALS = [(1 << 126) + n * 0x10001 for n in range(COUNT)]
ENTRIES = [entry(serial, reason(n % 3)) for n, serial in enumerate(SERIALS)]
LISTED, UNLISTED = integer(SERIALS[COUNT // 2])[2:], integer(SERIALS[0] + 1)[2:]


def large(version: int, *more: bytes, indirect: bool = False) -> bytes:
    """The CRL of a day: the entries that are on all of them, and ``more``."""
    return crl(
        ROOT, [*ENTRIES, *more], this_update=utc(NOW - HOUR + version * HOUR / 60),
        extensions=[number(version), *([scope(indirect=True)] if indirect else [])],
    )  # fmt: skip


FIRST, SECOND = large(1), large(2, entry(5))
# A date is missing: only who looks at every entry sees it.
MALFORMED = large(3, seq(integer(77)))


def ask() -> Question:
    return question_for(LEAF.certificate, ROOT.certificate)


def put(store: EvidenceStore, der: bytes) -> Crl:
    with store.incoming() as incoming:
        for at in range(0, len(der), 65536):
            incoming.take(der[at : at + 65536])
        found = incoming.crl(1 << 30)
        assert isinstance(found, Crl), found
        store.store_crl(found, (ROOT.certificate,), URL, NOW, NOW + DAY)
    return found


def the_crl(store: EvidenceStore) -> Crl | None:
    found = [e.crl for e in store.evidence(ask()) if isinstance(e, CrlEvidence)]
    assert len(found) <= 1
    return found[0] if found else None


def answers(found: Crl | None) -> bool:
    """Does it say what all versions say?"""
    assert found is not None
    listed = found.find(LISTED)
    assert listed is not None
    assert listed.reason == ("unspecified", "keyCompromise", "cACompromise")[COUNT // 2 % 3]
    assert found.find(UNLISTED) is None
    assert found.entry_count in (0, COUNT, COUNT + 1)
    assert signature_valid(found, ROOT.certificate.spki)
    return True


def left_over(directory: Path) -> list[str]:
    return sorted(p.name for p in (directory / "crl").iterdir() if p.name.startswith("."))


class Gate:
    """An indexer that waits until it may begin."""

    def __init__(self) -> None:
        self.open, self.asked = threading.Event(), 0

    def __call__(self, source: int, target: int, sha256: str, tbs_digest: bytes) -> int:
        self.asked += 1
        assert self.open.wait(20)
        return write_index(source, target, sha256, tbs_digest)


def indexed(store: EvidenceStore) -> None:
    """Wait until nothing is being indexed."""
    running: list[Future[int | str]] = list(store._files._indexing.values())
    for future in running:
        future.exception(20)
    if store._files._worker is not None:
        store._files._worker.submit(int).result(20)
