"""Large CRLs as files: mapped, indexed, answered before and after, whatever happens to the files and whoever is killed."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postseal.core.crl import Crl, parse_crl, signed_hash
from postseal.core.crl_entries import Entries, RawEntries
from postseal.core.errors import BadData
from postseal.core.evidence import NoAnswer
from postseal.sources import confined
from postseal.sources.confine import HELPER, Confinement
from postseal.sources.crl_confined import ConfinedCrls
from postseal.sources.crl_files import LARGE, CrlFiles
from postseal.sources.crl_indexing import write_index
from postseal.sources.evidence import EvidenceStore
from postseal.sources.file_octets import FileOctets
from support.evidence import certificate_issuer, crl, entry, integer, name_of
from support.largecrl import (
    COUNT,
    ENTRIES,
    FIRST,
    MALFORMED,
    OTHER,
    ROOT,
    SECOND,
    SERIALS,
    URL,
    Gate,
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
    # A reader needn't hash it: the writer has told what it saw.
    assert found.tbs_digest == signed_hash(parse_crl(FIRST))
    assert isinstance(found.der, FileOctets)
    assert store._files.wants_index(found.sha256)
    gate.open.set()
    indexed(store)
    for one in (store, reader, make(readonly=True)):
        found = the_crl(one)
        assert found is not None
        assert isinstance(found.entries, Entries)
        assert isinstance(found.der, FileOctets)
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

    def indexer(source: int, target: int, sha256: str, tbs_digest: bytes) -> int:
        asked.append(sha256)
        return write_index(source, target, sha256, tbs_digest)

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


def test_file_octets_are_like_bytes(tmp_path: Path) -> None:
    """What reads a CRL can't tell a file from its octets."""
    (tmp_path / "x").write_bytes(FIRST)
    with open(tmp_path / "x", "rb") as file:
        read = FileOctets(file.fileno())
    (tmp_path / "x").unlink()
    assert len(read) == len(FIRST)
    for at in (0, 1, 4095, 4096, len(FIRST) - 1, 5):
        assert read[at] == FIRST[at]
    for at in (-1, len(FIRST)):
        with pytest.raises(IndexError):
            read[at]
    for part in (
        slice(0, 9),
        slice(4000, 5000),
        slice(7, 7),
        slice(9, 3),
        slice(len(FIRST) - 3, len(FIRST) + 9),
        slice(2),
    ):
        assert read[part] == FIRST[part]
    for start, end in ((0, len(FIRST)), (5, 200), (len(FIRST) // 2, len(FIRST)), (9, 9)):
        for wanted in (ENTRIES[0], ENTRIES[-1], ENTRIES[4000], b"not there"):
            assert read.find(wanted, start, end) == FIRST.find(wanted, start, end)
    assert bytes(read.__buffer__(0)) == FIRST


def test_text_is_decoded_first(make: Callable[..., EvidenceStore]) -> None:
    """CRL-1: a large CRL in PEM or base64 is the same CRL."""
    plain = base64.encodebytes(FIRST)
    for text in (plain, b"-----BEGIN X509 CRL-----\n" + plain + b"-----END X509 CRL-----\n"):
        store = make()
        name = put(store, text).sha256
        assert name == parse_crl(FIRST).sha256
        # It had to be scanned already.
        assert not store._files.wants_index(name)
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
    assert sum("stays without an index" in text for text in told) == 1
    # Nor does it keep the next one out.
    put(store, SECOND)
    indexed(store)
    found = the_crl(make(readonly=True))
    assert answers(found)
    assert found == parse_crl(SECOND)
    assert sum("stays without an index" in text for text in told) == 2
    broken.close()


def test_jobs_of_the_helper_include_indexing() -> None:
    """What ``ConfinedCrls`` asks for is a job that helpers know."""
    assert confined.JOBS["index"] is confined.index


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
