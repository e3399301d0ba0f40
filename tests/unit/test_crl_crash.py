"""Large CRLs and accidents: killed at every step, replaced while others read, a full disk, a file that shrinks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postseal.core.crl import Crl, parse_crl
from postseal.core.crl_entries import Entries
from postseal.core.errors import Unavailable
from postseal.core.evidence import question_for
from postseal.core.revocation import RevocationSettings, Status, judge
from postseal.sources import crl_files
from postseal.sources.crl_files import CrlFiles
from postseal.sources.evidence import EvidenceStore
from support.evidence import integer, octets
from support.largecrl import (
    COUNT,
    FIRST,
    ROOT,
    SECOND,
    SERIALS,
    UNLISTED,
    URL,
    answers,
    ask,
    indexed,
    large,
    left_over,
    put,
    the_crl,
)
from support.pki import DAY, NOW


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def make(directory: Path, reports: list[str]) -> Iterator[Callable[..., EvidenceStore]]:
    made: list[EvidenceStore] = []

    def store(readonly: bool = False, **more: object) -> EvidenceStore:
        found = EvidenceStore(
            directory,
            readonly=readonly,
            report=reports.append,
            crls=lambda folder: CrlFiles(folder, **more),  # type: ignore[arg-type]
        )
        made.append(found)
        return found

    yield store
    for one in made:
        indexed(one)


WATCHED = ("fsync", "replace", "open", "write", "fchmod", "unlink", "chown", "rename")


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in a child that is killed at its ``step``-th call that could change a file; whether it lived."""
    child = os.fork()
    if child == 0:
        left = [step]

        def watch(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*args: object, **kwargs: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        code = 1
        try:
            for name in WATCHED:
                setattr(os, name, watch(name))
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status == 0


@pytest.mark.parametrize("before", [None, FIRST])
def test_killed_at_any_step(before: bytes | None, make: Callable[..., EvidenceStore], directory: Path) -> None:
    """CACHE-7: kill -9 before each step of storing and indexing a large CRL: afterwards there is the old one or the new."""

    def work() -> None:
        store = EvidenceStore(directory, readonly=False)
        put(store, SECOND)
        indexed(store)

    first = make()
    if before is not None:
        put(first, before)
        indexed(first)
    allowed = {None if before is None else parse_crl(before).sha256, parse_crl(SECOND).sha256}
    step, lived, seen = 0, False, set()
    while not lived:
        step += 1
        assert step < 200
        lived = killed_at(step, work)
        found = the_crl(make(readonly=True))
        seen.add(found.sha256 if found is not None else None)
        assert seen <= allowed
        assert found is None or answers(found)
    assert step > 10
    again = make()
    indexed(again)
    found = the_crl(make(readonly=True))
    assert found is not None
    assert (found.sha256, found.entry_count) == (parse_crl(SECOND).sha256, COUNT + 1)


def test_readers_of_another_process_never_miss_one(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """The switch from one large CRL to the next is atomic: readers in another process have an answer at every moment."""
    store = make()
    put(store, large(10))
    indexed(store)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            reader, seen = EvidenceStore(directory, readonly=True), set[str]()
            while len(seen) < 4:
                found = the_crl(reader)
                assert answers(found)
                assert found is not None
                assert isinstance(found.entries, Entries)
                if found.sha256 not in seen:
                    seen.add(found.sha256)
                    os.write(write, b".")
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    # The next one as soon as the last one was seen, so that readers are met at all moments of the switch.
    for version in range(11, 40):
        if os.read(read, 1) == b"":
            break
        put(store, large(version))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_file_cut_short_is_unknown(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """RPL-3: a file that is cut short under a process which has it open neither kills it nor makes anything good."""
    store = make()
    name = put(store, FIRST).sha256
    indexed(store)
    reader = make(readonly=True)
    found = the_crl(reader)
    assert found is not None
    os.truncate(directory / "crl" / f"{name}.crl", len(FIRST) // 3)
    assert found.find(UNLISTED) is None
    with pytest.raises(OSError, match="cut short"):
        found.find(integer(SERIALS[-2])[2:])
    question = question_for(ROOT.issue("b@large.test", kind="p256", serial=SERIALS[-2]).certificate, ROOT.certificate)
    verdict = judge(question, reader.evidence(ask()), RevocationSettings(), NOW)
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.malformed")


def test_full_disk_leaves_nothing(
    make: Callable[..., EvidenceStore], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that can't be written is told in a sentence; nothing half-written stays, and the CRL answers."""
    told: list[str] = []

    def full(source: int, target: int, sha256: str, tbs_digest: bytes) -> int:
        os.write(target, octets(b"half"))
        raise OSError(28, "No space left on device")

    store = EvidenceStore(directory, readonly=False, report=told.append, crls=lambda folder: CrlFiles(folder, full))
    put(store, FIRST)
    indexed(store)
    assert "No space left on device" in told[0]
    assert left_over(directory) == []
    assert answers(the_crl(make(readonly=True)))
    monkeypatch.setattr(crl_files, "LARGE", 10)
    with store.incoming() as incoming, monkeypatch.context() as patch:
        patch.setattr(os, "replace", _no_space)
        incoming.take(bytes(FIRST))
        found = incoming.crl(1 << 30)
        assert isinstance(found, Crl)
        with pytest.raises(Unavailable, match="No space left on device"):
            store.store_crl(found, (ROOT.certificate,), URL, NOW, NOW + DAY)
    assert left_over(directory) == []


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
