"""Large CRLs as files: mapped, indexed, answered before and after, whatever happens to the files and whoever is killed."""

from __future__ import annotations

import base64
import mmap
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from postseal.core.crl import Crl, parse_crl
from postseal.core.crl_entries import Entries, RawEntries
from postseal.core.errors import BadData, Unavailable
from postseal.core.evidence import CrlEvidence, NoAnswer, Question, question_for
from postseal.sources import confined, crl_files
from postseal.sources.confine import HELPER, Confinement
from postseal.sources.crl_confined import ConfinedCrls
from postseal.sources.crl_files import LARGE, CrlFiles
from postseal.sources.crl_indexing import write_index
from postseal.sources.evidence import EvidenceStore
from support.evidence import certificate_issuer, crl, entry, integer, name_of, number, octets, reason, scope, seq, utc
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
    return True


def left_over(directory: Path) -> list[str]:
    return sorted(p.name for p in (directory / "crl").iterdir() if p.name.startswith("."))


class Gate:
    """An indexer that waits until it may begin."""

    def __init__(self) -> None:
        self.open, self.asked = threading.Event(), 0

    def __call__(self, source: int, target: int, sha256: str) -> int:
        self.asked += 1
        assert self.open.wait(20)
        return write_index(source, target, sha256)


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


def indexed(store: EvidenceStore) -> None:
    """Wait until nothing is being indexed."""
    running: list[Future[int | str]] = list(store._files._indexing.values())
    for future in running:
        future.exception(20)
    if store._files._worker is not None:
        store._files._worker.submit(int).result(20)


def test_answers_before_and_after_the_index(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """The first CRL of a CA answers as soon as it is there; when the index is, all processes use that."""
    gate = Gate()
    store, reader = make(indexer=gate), make(readonly=True)
    put(store, FIRST)
    for one in (store, reader):
        found = the_crl(one)
        assert found is not None
        assert isinstance(found.entries, RawEntries)
        assert answers(found)
    gate.open.set()
    indexed(store)
    for one in (store, reader, make(readonly=True)):
        found = the_crl(one)
        assert found is not None
        assert isinstance(found.entries, Entries)
        assert isinstance(found.der, mmap.mmap)
        assert answers(found)
        assert found.entry_count == COUNT
    (row,) = reader.entries()
    assert (row.entries, row.size) == (COUNT, len(FIRST))
    assert sorted(p.suffix for p in (directory / "crl").iterdir()) == [".crl", ".idx"]
    assert gate.asked == 1


def test_small_crls_have_no_index(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """Below a quarter of a megabyte there is one file, and nothing is mapped."""
    store = make()
    put(store, crl(ROOT, ENTRIES[:5000]))
    found = the_crl(make(readonly=True))
    assert found is not None
    assert isinstance(found.der, bytes)
    assert len(found.der) < LARGE
    assert [p.suffix for p in (directory / "crl").iterdir()] == [".crl"]


def test_successor_is_indexed_before_it_takes_over(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """While the old CRL answers, the new one is first indexed: no reader ever meets one without an index."""
    gate = Gate()
    gate.open.set()
    store = make(indexer=gate)
    put(store, FIRST)
    indexed(store)
    gate.open.clear()
    reader = make(readonly=True)
    thread = threading.Thread(target=put, args=(store, SECOND))
    thread.start()
    while gate.asked < 2:
        pass
    found = the_crl(reader)
    assert found is not None
    assert found.sha256 == parse_crl(FIRST).sha256
    gate.open.set()
    thread.join()
    found = the_crl(reader)
    assert found is not None
    assert isinstance(found.entries, Entries)
    assert found.sha256 == parse_crl(SECOND).sha256
    assert found.find(b"\x05") is not None
    assert sorted(p.stem for p in (directory / "crl").iterdir()) == [found.sha256] * 2
    assert left_over(directory) == []


def test_malformed_successor_never_replaces(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """CACHE-4, CRL-1: what is wrong with one entry of a large CRL is found before it takes the place of a good one."""
    store = make()
    put(store, FIRST)
    indexed(store)
    for words in ("an entry without a revocation date", "an entry without a revocation date"):
        with store.incoming() as incoming:
            incoming.take(MALFORMED)
            found = incoming.crl(1 << 30)
            if isinstance(found, Crl):
                with pytest.raises(BadData, match=words):
                    store.store_crl(found, (ROOT.certificate,), URL, NOW, NOW + DAY)
            else:
                # The second time it is recognised before anything is done with it.
                assert found[0] == "rev.malformed"
                assert words in found[1]
    assert isinstance(found, tuple)
    assert answers(the_crl(make(readonly=True)))
    assert sorted(p.suffix for p in (directory / "crl").iterdir()) == [".crl", ".idx"]


def test_malformed_first_is_dropped_when_that_is_found(make: Callable[..., EvidenceStore], reports: list[str]) -> None:
    """CRL-1: without another the octets answer at first; when the scan fails it counts as absent, and that is told."""
    gate = Gate()
    store = make(indexer=gate)
    put(store, MALFORMED)
    assert answers(the_crl(store))
    gate.open.set()
    indexed(store)
    assert the_crl(store) is None
    assert the_crl(make(readonly=True)) is None
    assert len(reports) == 1
    assert "an entry without a revocation date" in reports[0]
    assert "it counts as absent" in reports[0]


def test_entries_of_others_are_scanned_first(make: Callable[..., EvidenceStore]) -> None:
    """CRL-15: what a search for octets can't tell apart isn't answered before the index is there."""
    der = large(4, entry(SERIALS[3], certificate_issuer(name_of(OTHER))), indirect=True)
    asked: list[str] = []

    def indexer(source: int, target: int, sha256: str) -> int:
        asked.append(sha256)
        return write_index(source, target, sha256)

    store = make(indexer=indexer)
    found = put(store, der)
    assert asked == [found.sha256]
    for crl_ in (found, the_crl(make(readonly=True))):
        assert crl_ is not None
        assert isinstance(crl_.entries, Entries)
        assert crl_.find(integer(SERIALS[3])[2:], name_of(OTHER)) is not None
        assert crl_.find(integer(SERIALS[4])[2:], name_of(OTHER)) is None
        assert crl_.find(integer(SERIALS[4])[2:]) is not None
    assert not store._files.wants_index(found.sha256)


@pytest.mark.parametrize("damage", ["torn", "changed", "empty", "older", "gone", "directory"])
def test_damaged_index_is_made_again(
    damage: str, make: Callable[..., EvidenceStore], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CACHE-7: a reader does without a damaged index, the next writer makes a new one."""
    if damage == "older":
        monkeypatch.setattr("postseal.core.crl_index.VERSION", 0)
    store = make()
    name = put(store, FIRST).sha256
    indexed(store)
    monkeypatch.undo()
    index = directory / "crl" / f"{name}.idx"
    content = bytearray(index.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 1
    elif damage != "older":
        del content[0 if damage == "empty" else len(content) // 2 :]
    index.unlink()
    if damage == "directory":
        index.mkdir()
    elif damage != "gone":
        index.write_bytes(content)
    found = the_crl(make(readonly=True))
    assert found is not None
    assert isinstance(found.entries, RawEntries)
    assert answers(found)
    if damage == "directory":
        index.rmdir()
    again = make()
    indexed(again)
    found = the_crl(make(readonly=True))
    assert found is not None
    assert isinstance(found.entries, Entries)
    assert answers(found)


def test_damaged_crl_counts_as_absent_also_with_an_index(
    make: Callable[..., EvidenceStore], directory: Path, reports: list[str]
) -> None:
    """CACHE-7: the index vouches only for the file that it has seen; one that looks different is hashed."""
    store = make()
    name = put(store, FIRST).sha256
    indexed(store)
    file = directory / "crl" / f"{name}.crl"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    reader = make(readonly=True)
    assert the_crl(reader) is None
    (absent,) = (e for e in reader.evidence(ask()) if isinstance(e, NoAnswer))
    assert absent.detail == "the stored CRL is damaged"
    assert "its content is not what was stored" in reports[0]


def test_restored_file_is_hashed_and_indexed_again(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """A file from a backup has another inode: it is hashed once, believed, and the next writer renews the index."""
    store = make()
    name = put(store, FIRST).sha256
    indexed(store)
    file = directory / "crl" / f"{name}.crl"
    content = file.read_bytes()
    file.rename(file.with_suffix(".old"))
    file.write_bytes(content)
    assert store._files.wants_index(name)
    assert answers(the_crl(make(readonly=True)))
    again = make()
    indexed(again)
    assert not again._files.wants_index(name)


def test_text_is_decoded_first(make: Callable[..., EvidenceStore]) -> None:
    """CRL-1: a large CRL in PEM or base64 is the same CRL."""
    plain = base64.encodebytes(FIRST)
    for text in (plain, b"-----BEGIN X509 CRL-----\n" + plain + b"-----END X509 CRL-----\n"):
        store = make()
        assert put(store, text).sha256 == parse_crl(FIRST).sha256
        indexed(store)
        found = the_crl(make(readonly=True))
        assert found is not None
        assert isinstance(found.entries, Entries)


@pytest.mark.parametrize(
    "blob", [b"", b"<html>" + b"x" * LARGE, FIRST[:-1], FIRST + b"\x00", b"\x30\x84" + bytes(LARGE)]
)
def test_rubbish_is_named_and_leaves_nothing(blob: bytes, make: Callable[..., EvidenceStore], directory: Path) -> None:
    """CRL-1, CRL-30: what isn't a CRL, or isn't all of one, is refused with a cause, and no file of it stays."""
    store = make()
    with store.incoming() as incoming:
        incoming.take(blob)
        found = incoming.crl(1 << 30)
    assert isinstance(found, tuple)
    assert found[0] == "rev.malformed"
    assert list((directory / "crl").iterdir()) == []


def test_larger_than_allowed(make: Callable[..., EvidenceStore]) -> None:
    """THR-4: the limit holds for what came in pieces too."""
    with make().incoming() as incoming:
        incoming.take(FIRST)
        found = incoming.crl(LARGE)
    assert isinstance(found, tuple)
    assert "more than the" in found[1]


def test_helper_process_makes_the_index(make: Callable[..., EvidenceStore], directory: Path) -> None:
    """THR-7: the list of a stranger is gone through by a process under limits, never by lookup itself."""
    readers, indexers = Confinement(1), Confinement(1)
    crls = ConfinedCrls(readers, indexers)
    try:
        store = EvidenceStore(directory, readonly=False, crls=crls)
        put(store, FIRST)
        indexed(store)
        found = the_crl(make(readonly=True))
        assert found is not None
        assert isinstance(found.entries, Entries)
        assert answers(found)
        with store.incoming() as incoming:
            incoming.take(MALFORMED)
            bad = incoming.crl(1 << 30)
            assert isinstance(bad, Crl)
            with pytest.raises(BadData, match="an entry without a revocation date"):
                store.store_crl(bad, (ROOT.certificate,), URL, NOW, NOW + DAY)
        small = parse_crl(crl(OTHER, [entry(5)]))
        with store.incoming() as incoming:
            incoming.take(bytes(small.der))
            assert incoming.crl(1 << 30) == small
    finally:
        readers.close()
        indexers.close()


def test_helper_that_fails_leaves_the_first_answer(directory: Path, make: Callable[..., EvidenceStore]) -> None:
    """Without a helper there is no index, which is told, and the CRL answers all the same."""
    told: list[str] = []
    broken = Confinement(1, [*HELPER[:-1], "postseal.no_such_module"])
    store = EvidenceStore(directory, readonly=False, report=told.append, crls=ConfinedCrls(broken, broken))
    put(store, FIRST)
    indexed(store)
    assert answers(the_crl(make(readonly=True)))
    assert any("has no index yet" in text for text in told)
    broken.close()


def test_jobs_of_the_helper_include_indexing() -> None:
    """What ``ConfinedCrls`` asks for is a job that helpers know."""
    assert confined.JOBS["index"] is confined.index


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
    done_r, done_w = os.pipe()
    child = os.fork()
    if child == 0:
        code, looked = 1, 0
        try:
            os.set_blocking(done_r, False)
            os.close(done_w)
            reader = EvidenceStore(directory, readonly=True)
            seen = set()
            while True:
                found = the_crl(reader)
                if not answers(found) or found is None or not isinstance(found.entries, Entries):
                    break
                seen.add(found.sha256)
                looked += 1
                try:
                    if os.read(done_r, 1) == b"":
                        code = 0 if looked > 20 and len(seen) > 2 else 2
                        break
                except BlockingIOError:
                    continue
        finally:
            os._exit(code)
    os.close(done_r)
    for version in range(11, 19):
        put(store, large(version))
    os.close(done_w)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


CONFIG = """[ca]
default_ca = d
[d]
database = index.txt
crlnumber = number
default_md = sha256
default_crl_days = 7
certificate = ca.pem
private_key = ca.key
crl_extensions = e
[e]
authorityKeyIdentifier = keyid
"""


def test_crl_made_by_openssl(make: Callable[..., EvidenceStore], tmp_path: Path) -> None:
    """A CRL of thousands made by ``openssl ca``: with its index every number is found, with its reason and date."""
    reasons = {
        "keyCompromise": "keyCompromise",
        "superseded": "superseded",
        "CACompromise": "cACompromise",
        "": "unspecified",
    }
    serials = [(1 << 150) + n * 12345 for n in range(6500)] + [n + 1 for n in range(500)]
    lines = []
    for n, serial in enumerate(serials):
        named = list(reasons)[n % len(reasons)]
        digits = f"{serial:X}"
        digits = digits.zfill(len(digits) + len(digits) % 2)
        lines.append(
            f"R\t300101000000Z\t2501{1 + n % 28:02}000000Z{',' + named if named else ''}\t{digits}\tunknown\t/CN={n}\n"
        )
    for name, content in {
        "index.txt": "".join(lines), "number": "1000\n", "ca.cnf": CONFIG, "ca.pem": ROOT.pem.decode(),
        "ca.key": ROOT.key_pem.decode(),
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        ["openssl", "ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    store = make()
    put(store, (tmp_path / "crl.pem").read_bytes())
    indexed(store)
    found = the_crl(make(readonly=True))
    assert found is not None
    assert isinstance(found.entries, Entries)
    assert found.entry_count == len(serials)
    for n, serial in enumerate(serials):
        listed = found.find(integer(serial)[2:])
        assert listed is not None
        assert (listed.reason, listed.revoked_at and listed.revoked_at.day) == (
            list(reasons.values())[n % 4],
            1 + n % 28,
        )
    assert found.find(integer(serials[0] + 1)[2:]) is None


def test_full_disk_leaves_nothing(
    make: Callable[..., EvidenceStore], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that can't be written is told in a sentence; nothing half-written stays, and the CRL answers."""
    told: list[str] = []

    def full(source: int, target: int, sha256: str) -> int:
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
