"""What outlives the evidence: rollback marks and revocations that were seen, over restarts, forgetting and damage."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from postseal.core.crl import Crl, parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import CrlEvidence, Question, RevokedBefore, question_for
from postseal.sources.evidence import EvidenceStore
from support.pki import DAY, NOW, authority

URL = "http://ca.test/1.crl"
ROOT = authority("Marks root")
LEAF = ROOT.issue("a@home.test", crl_urls=[URL])
CHAIN = (ROOT.certificate,)


def ask() -> Question:
    return question_for(LEAF.certificate, ROOT.certificate)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def store(directory: Path, reports: list[str]) -> EvidenceStore:
    return EvidenceStore(directory, readonly=False, report=reports.append)


def put(store: EvidenceStore, number: int) -> Crl:
    crl = parse_crl(ROOT.crl(number=number))
    store.store_crl(crl, CHAIN, URL, NOW, NOW + DAY)
    return crl


def test_t08_mark_survives_restart_and_forgetting(store: EvidenceStore, directory: Path) -> None:
    """CRL-25, T-8: the highest CRL of a scope is remembered when the CRL is forgotten and the process is another."""
    crl = put(store, 7)
    assert store.forget([crl.sha256]) == 1
    store.close()
    again = EvidenceStore(directory, readonly=False)
    assert again.evidence(ask()) == ()
    mark = again.mark_of(CHAIN, parse_crl(ROOT.crl(number=3)))
    assert mark is not None
    assert (mark.number, mark.sha256, mark.this_update) == (7, crl.sha256, crl.this_update)


def test_mark_is_never_lowered(store: EvidenceStore) -> None:
    """CRL-25: each of number and thisUpdate is the highest ever, also when an older CRL gets past the caller."""
    high = put(store, 9)
    put(store, 4)
    (mark,) = store.marks.all()
    assert (mark.number, mark.this_update) == (9, high.this_update)


def test_t08_database_of_a_backup_is_outdated(store: EvidenceStore, directory: Path) -> None:
    """CRL-25: an older CRL that comes back with an old database is marked as outdated for whoever judges it."""
    put(store, 1)
    store.close()
    backup = (directory / "evidence.sqlite").read_bytes()
    crl_files = {p.name: p.read_bytes() for p in (directory / "crl").iterdir()}
    second = EvidenceStore(directory, readonly=False)
    put(second, 2)
    assert [e.outdated for e in second.evidence(ask()) if isinstance(e, CrlEvidence)] == [False]
    second.close()
    (directory / "evidence.sqlite").write_bytes(backup)
    for name, content in crl_files.items():
        (directory / "crl" / name).write_bytes(content)
    third = EvidenceStore(directory, readonly=True)
    assert [(e.crl.number, e.outdated) for e in third.evidence(ask()) if isinstance(e, CrlEvidence)] == [(1, True)]


def test_marks_survive_damage_of_the_evidence(store: EvidenceStore, directory: Path, reports: list[str]) -> None:
    """Evidence that has to be made anew leaves the marks alone; damaged marks are said to be lost."""
    put(store, 5)
    store.close()
    (directory / "evidence.sqlite").write_bytes(b"\x00garbage" * 5000)
    again = EvidenceStore(directory, readonly=False, report=reports.append)
    assert [m.number for m in again.marks.all()] == [5]
    again.close()
    (directory / "marks.sqlite").write_bytes(b"\x00garbage" * 5000)
    last = EvidenceStore(directory, readonly=False, report=reports.append)
    assert last.marks.all() == ()
    assert "the memory of newest CRLs and of revocations is lost" in reports[-1]


def test_reset_scope(store: EvidenceStore) -> None:
    """CACHE-12, CRL-25: for a CA that came out of a backup one mark goes, with its CRL; other scopes keep theirs."""
    put(store, 8)
    other = authority("Marks other")
    store.store_crl(parse_crl(other.crl(number=6)), (other.certificate,), URL, NOW, NOW + DAY)
    (name,) = (m.name for m in store.marks.all() if m.number == 8)
    assert store.reset_scope(name)
    assert [m.number for m in store.marks.all()] == [6]
    assert store.evidence(ask()) == ()
    assert not store.reset_scope(name)


def test_t27_revocation_is_remembered_until_expiry(store: EvidenceStore, directory: Path) -> None:
    """CRL-27: it stays when the evidence goes, for this issuer and number only, and ends with the certificate."""
    seen = RevokedBefore(URL, NOW, NOW - DAY, "keyCompromise", NOW)
    store.remember_revoked(ask(), seen)
    store.remember_revoked(ask(), RevokedBefore("http://later.test/", NOW + DAY))
    other = ROOT.issue("b@home.test", crl_urls=[URL])
    for one in (store, EvidenceStore(directory, readonly=True)):
        assert one.evidence(ask()) == (seen,)
        assert one.evidence(question_for(other.certificate, ROOT.certificate)) == ()
    store.marks.prune(LEAF.certificate.not_after - DAY)
    assert store.marks.revoked_before(ask()) == seen
    store.marks.prune(LEAF.certificate.not_after + DAY)
    assert store.marks.revoked_before(ask()) is None


def test_newest_is_the_newest_of_all(store: EvidenceStore) -> None:
    """CACHE-9: the newest thisUpdate that was ever accepted, over all scopes; None while there is none."""
    assert store.newest() is None
    crl = put(store, 1)
    older = authority("Marks older")
    store.store_crl(parse_crl(older.crl(this_update=NOW - 3 * DAY)), (older.certificate,), URL, NOW, NOW + DAY)
    assert store.newest() == crl.this_update


def test_reader_before_the_first_writer_of_this_version(store: EvidenceStore, directory: Path) -> None:
    """Without a database of marks a reader goes on with the evidence; it is there as soon as the writer is."""
    put(store, 1)
    store.close()
    (directory / "marks.sqlite").unlink()
    reader = EvidenceStore(directory, readonly=True)
    assert len(reader.evidence(ask())) == 1
    assert reader.newest() is None


@pytest.mark.parametrize("name", ["marks.sqlite", "evidence.sqlite"])
def test_locked_database_holds_up_one_reader(
    name: str, store: EvidenceStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RPL-5: who keeps a database locked (lookup in the wrong hands, say) takes a moment of the mail's time, and no more."""
    put(store, 1)
    store.close()
    reader = EvidenceStore(directory, readonly=True)
    assert len(reader.evidence(ask())) == 1
    reader.close()
    holder = sqlite3.connect(directory / name, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("CREATE TABLE held (x)")
    opened: list[tuple[str, float]] = []
    connect = sqlite3.connect

    def noting(file: str, **more: Any) -> sqlite3.Connection:
        opened.append((file, more["timeout"]))
        return connect(file, **more)

    monkeypatch.setattr(sqlite3, "connect", noting)
    reader = EvidenceStore(directory, readonly=True)
    for leaf in (LEAF, *(ROOT.issue(f"{n}@home.test", crl_urls=[URL]) for n in range(20))):
        with pytest.raises(Unavailable, match=f"{name}: database is locked"):
            reader.evidence(question_for(leaf.certificate, ROOT.certificate))
    assert [timeout for file, timeout in opened if name in file] == [0.5]
    holder.close()
