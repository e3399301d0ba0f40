"""The evidence store: what is filed comes back, under the right key, after any accident, also for a reader of another uid."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from postseal.core.crl import parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import CrlEvidence, NoAnswer, OcspEvidence, Question, question_for
from postseal.sources.evidence import EvidenceStore
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority

URL = "http://ca.test/1.crl"
ROOT = authority("Evidence root")
LEAF = ROOT.issue("a@home.test", crl_urls=[URL], ocsp_urls=["http://ca.test/ocsp"])
NOBODY, SHARED_GROUP = 65534, 64999


def ask(leaf: Leaf = LEAF, issuer: Authority = ROOT) -> Question:
    return question_for(leaf.certificate, issuer.certificate)


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def store(directory: Path, reports: list[str]) -> EvidenceStore:
    return EvidenceStore(directory, readonly=False, report=reports.append)


def put(store: EvidenceStore, der: bytes, issuer: Authority = ROOT, url: str = URL) -> str:
    crl = parse_crl(der)
    store.store_crl(crl, (issuer.certificate,), url, NOW, NOW + DAY, etag='"1"')
    return crl.sha256


def crls(store: EvidenceStore, question: Question | None = None) -> list[str]:
    return [e.crl.sha256 for e in store.evidence(question or ask()) if isinstance(e, CrlEvidence)]


def partition(url: str) -> list[tuple[x509.ExtensionType, bool]]:
    point = x509.IssuingDistributionPoint([x509.UniformResourceIdentifier(url)], None, False, False, None, False, False)
    return [(point, True)]


def test_what_is_stored_comes_back(store: EvidenceStore, directory: Path) -> None:
    """A CRL comes back parsed, with its URL and time, from this process and from a reader."""
    name = put(store, ROOT.crl([LEAF]))
    for one in (store, EvidenceStore(directory, readonly=True)):
        (evidence,) = one.evidence(ask())
        assert isinstance(evidence, CrlEvidence)
        assert (evidence.crl.sha256, evidence.url, evidence.fetched_at) == (name, URL, NOW)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
def test_permissions_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    """Group reads, nobody else does; files below a set-group-ID directory stay the group's."""
    before = os.umask(umask)
    try:
        store = EvidenceStore(tmp_path / "evidence", readonly=False)
        put(store, ROOT.crl())
    finally:
        os.umask(before)
    for path in [tmp_path / "evidence", *(tmp_path / "evidence").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path


def test_newer_replaces_older_and_its_file(store: EvidenceStore, directory: Path) -> None:
    """One CRL per key and scope; the file of the one before goes."""
    put(store, ROOT.crl(number=1))
    second = put(store, ROOT.crl(number=2))
    assert crls(store) == [second]
    assert [p.name for p in (directory / "crl").iterdir()] == [f"{second}.crl"]


def test_partitions_and_namesakes_do_not_overwrite_each_other(store: EvidenceStore) -> None:
    """CACHE-8: two parts of one CA's CRL, and two CAs with one name, are four things."""
    twin = authority("Twin")
    from support.pki import key
    from support.pki import name as dn

    other_key = key("rsa2048", ("ca", "Twin 2"))
    other = Authority(authority("Twin 2").certificate, other_key, dn("Twin"))
    leaf_a = twin.issue("a@home.test", crl_urls=["http://ca.test/a.crl"])
    leaf_b = twin.issue("b@home.test", crl_urls=["http://ca.test/b.crl"])
    foreign = other.issue("c@home.test", crl_urls=["http://ca.test/a.crl"])
    first = put(store, twin.crl(extra=partition("http://ca.test/a.crl")), twin, "http://ca.test/a.crl")
    second = put(store, twin.crl(extra=partition("http://ca.test/b.crl")), twin, "http://ca.test/b.crl")
    full = put(store, twin.crl(number=5), twin, "http://ca.test/all.crl")
    third = put(store, other.crl(number=9), other, "http://ca.test/a.crl")
    assert set(crls(store, ask(leaf_a, twin))) == {first, full, third}
    assert set(crls(store, ask(leaf_b, twin))) == {second, full, third}
    # Whose signature counts is judged, with the signer that stands beside each CRL of another key.
    found = [e for e in store.evidence(ask(leaf_a, twin)) if isinstance(e, CrlEvidence)]
    assert [e.crl.sha256 for e in found if e.signer] == [third] == [found[-1].crl.sha256]
    assert found[-1].signer == (other.certificate,)
    assert crls(store, ask(foreign, other)) == [third]


def test_ocsp_is_filed_by_issuer_and_serial(store: EvidenceStore) -> None:
    """An OCSP answer is found for its certificate only; serial numbers of 20 octets and negative ones fit."""
    big = ROOT.issue("big@home.test", serial=2**159 - 1)
    for leaf, der in ((LEAF, b"one"), (big, b"two")):
        store.store_ocsp(ask(leaf), (ROOT.certificate,), der, "http://ca.test/ocsp", NOW, NOW + DAY, NOW, NOW + DAY)
    assert [e.der for e in store.evidence(ask()) if isinstance(e, OcspEvidence)] == [b"one"]
    assert [e.der for e in store.evidence(ask(big)) if isinstance(e, OcspEvidence)] == [b"two"]
    assert {e.certificate for e in store.entries()} == {LEAF.certificate, big.certificate}


def test_failure_never_evicts(store: EvidenceStore) -> None:
    """CACHE-4: a failure stands beside the evidence, and goes when the URL works again."""
    name = put(store, ROOT.crl())
    failure = NoAnswer(URL, "rev.timeout", "no complete answer in time", NOW, NOW + HOUR)
    store.record_failure(failure, 3, "ca.test", 1, NOW + HOUR)
    assert crls(store) == [name]
    assert failure in store.evidence(ask())
    assert store.url_state(URL).failures == 3
    assert store.host_state("ca.test") == (1, NOW + HOUR)
    store.record_success(URL, "ca.test")
    assert failure not in store.evidence(ask())
    assert store.url_state(URL).etag == '"1"'
    assert store.host_state("ca.test") == (0, None)


def test_generation_changes_for_all_who_look(store: EvidenceStore, directory: Path) -> None:
    """Every commit is seen by a reader; without one the number stays and answers come from memory."""
    reader = EvidenceStore(directory, readonly=True)
    seen = reader.generation()
    assert seen == reader.generation() > 0
    put(store, ROOT.crl())
    assert reader.generation() > seen
    assert reader.evidence(ask()) is reader.evidence(ask())


def test_reader_without_a_store_is_unavailable(directory: Path) -> None:
    """One sentence with the file; the generation is 0."""
    reader = EvidenceStore(directory, readonly=True)
    assert reader.generation() == 0
    with pytest.raises(Unavailable, match=r"evidence store .*evidence\.sqlite: can't be opened"):
        reader.evidence(ask())


def test_reader_follows_a_store_that_appears_later(directory: Path) -> None:
    """A milter that starts before the first lookup sees the evidence once there is any."""
    reader = EvidenceStore(directory, readonly=True)
    with pytest.raises(Unavailable):
        reader.evidence(ask())
    name = put(EvidenceStore(directory, readonly=False), ROOT.crl())
    assert crls(reader) == [name]


def test_changed_crl_file_counts_as_absent(directory: Path, store: EvidenceStore) -> None:
    """CACHE-7, T-24: a file whose bytes aren't those of its name is reported; the writer drops it, to be fetched again."""
    name = put(store, ROOT.crl())
    path = directory / "crl" / f"{name}.crl"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    heard: list[str] = []
    reader = EvidenceStore(directory, readonly=True, report=heard.append)
    (evidence,) = reader.evidence(ask())
    assert isinstance(evidence, NoAnswer)
    assert evidence.why == "rev.malformed"
    assert "not what was stored" in heard[0]
    assert path.exists()
    writer = EvidenceStore(directory, readonly=False, report=heard.append)
    writer.evidence(ask())
    assert not path.exists()
    assert writer.evidence(ask()) == ()
    assert writer.url_state(URL).etag == ""


@pytest.mark.parametrize("damage", ["garbage", "torn", "empty page"])
def test_damaged_database_is_moved_aside(damage: str, directory: Path, reports: list[str]) -> None:
    """Readers say Unavailable in one sentence; the writer starts anew and keeps the wreck for the curious."""
    put(EvidenceStore(directory, readonly=False), ROOT.crl())
    file = directory / "evidence.sqlite"
    with sqlite3.connect(file) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    plain.close()
    content = file.read_bytes()
    wrecks = {
        "garbage": b"\x00garbage" * 5000,
        "torn": content[: len(content) // 3 // 4096 * 4096],
        "empty page": content[:4096] + bytes(8192) + content[12288:],
    }
    file.write_bytes(wrecks[damage])

    def read_all() -> None:
        reader = EvidenceStore(directory, readonly=True)
        reader.entries()
        reader.evidence(ask())

    with pytest.raises(Unavailable, match="evidence store"):
        read_all()
    again = EvidenceStore(directory, readonly=False, report=reports.append)
    assert "starting with an empty one" in reports[0]
    assert (directory / "evidence.sqlite.damaged").exists()
    assert again.evidence(ask()) == ()
    name = put(again, ROOT.crl())
    assert crls(EvidenceStore(directory, readonly=True)) == [name]


def test_a_database_of_another_version_is_called_that(directory: Path, reports: list[str]) -> None:
    """It isn't damaged: after an upgrade nobody shall look for a broken disk."""
    put(EvidenceStore(directory, readonly=False), ROOT.crl())
    with sqlite3.connect(directory / "evidence.sqlite") as plain:
        plain.execute("PRAGMA user_version = 1")
    plain.close()
    assert EvidenceStore(directory, readonly=False, report=reports.append).evidence(ask()) == ()
    (told,) = reports
    assert "evidence.sqlite: made by another version of postseal (layout 1, not " in told


def test_database_damaged_while_open(directory: Path, store: EvidenceStore, reports: list[str]) -> None:
    """A running writer that meets damage starts anew at once, and a reader follows it."""
    put(store, ROOT.crl())
    reader = EvidenceStore(directory, readonly=True)
    reader.evidence(ask())
    for suffix in ("", "-wal", "-shm"):
        (directory / f"evidence.sqlite{suffix}").unlink(missing_ok=True)
    (directory / "evidence.sqlite").write_bytes(b"\x00garbage" * 5000)
    name = put(store, ROOT.crl(number=2))
    assert any("starting with an empty one" in r for r in reports)
    assert crls(store) == [name]
    assert crls(reader) == [name]


def test_orphan_files_go_at_the_start(directory: Path, store: EvidenceStore) -> None:
    """What a crash left between file and row is removed once it is old; young files may be about to be named."""
    name = put(store, ROOT.crl())
    young, old = directory / "crl" / ("a" * 64 + ".crl"), directory / "crl" / ".b.1.2"
    for path in (young, old):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    EvidenceStore(directory, readonly=False)
    assert sorted(p.name for p in (directory / "crl").iterdir()) == sorted([f"{name}.crl", young.name])


def test_forget(store: EvidenceStore, directory: Path) -> None:
    """Named evidence and failures go, with files and validators; the rest stays."""
    keep = put(store, authority("Other").crl(), authority("Other"), "http://other.test/x.crl")
    name = put(store, ROOT.crl())
    store.record_failure(NoAnswer("http://x.test/", "rev.timeout", "late", NOW, NOW), 1, "x.test", 9, NOW + DAY)
    assert store.forget([name, "http://x.test/", "../../etc/passwd"]) == 2
    assert [e.name for e in store.entries()] == [keep]
    assert store.failures() == ()
    assert store.host_state("x.test") == (0, None)
    assert [p.name for p in (directory / "crl").iterdir()] == [f"{keep}.crl"]


def test_due(store: EvidenceStore) -> None:
    """CACHE-2: due is what its plan says, without URLs in back-off and without OCSP that nobody asked for lately."""
    name = put(store, ROOT.crl())
    store.store_ocsp(ask(), (ROOT.certificate,), b"x", "http://ca.test/ocsp", NOW, NOW + HOUR, NOW, NOW + DAY)
    later = NOW + 2 * DAY
    assert store.due(NOW, NOW - DAY) == ()
    assert {e.kind for e in store.due(later, NOW - DAY)} == {"crl", "ocsp"}
    assert [e.name for e in store.due(later, NOW + DAY)] == [name]
    store.record_failure(NoAnswer(URL, "rev.timeout", "late", NOW, later + HOUR), 1, "ca.test", 0, NOW)
    assert store.due(later, NOW + DAY) == ()
    store.record_success(URL, "ca.test")
    store.postpone({name: later + HOUR})
    assert store.due(later, NOW + DAY) == ()
    store.still_current(URL, later, later + DAY)
    assert store.due(later + 2 * HOUR, NOW + DAY) == ()


def test_negative_rows_are_bounded(store: EvidenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """CACHE-10: the oldest failures go."""
    monkeypatch.setattr("postseal.sources.evidence_urls._MAX_FAILURES", 5)
    for number in range(9):
        at = NOW + number * HOUR
        store.record_failure(NoAnswer(f"http://x.test/{number}", "rev.timeout", "late", at, at), 1, "x.test", 0, at)
    assert [f.url[-1] for f in store.failures()] == ["4", "5", "6", "7", "8"]


def test_many_threads_read_while_one_writes(store: EvidenceStore, directory: Path) -> None:
    """Readers never fail and never see a row without its file."""
    reader = EvidenceStore(directory, readonly=True)
    put(store, ROOT.crl(number=1))
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                found = reader.evidence(ask())
            except Exception as exc:
                wrong.append(repr(exc))
                return
            wrong.extend(e.detail for e in found if isinstance(e, NoAnswer))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 40):
        put(store, ROOT.crl(number=number))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


WRITER = """
import os, sys, time
from pathlib import Path
from datetime import datetime, timedelta, UTC
from postseal.core.certs import load_certificate
from postseal.core.crl import parse_crl
from postseal.sources.evidence import EvidenceStore
folder = Path(sys.argv[1])
store = EvidenceStore(folder / "evidence", readonly=False)
issuer = load_certificate((folder / "issuer").read_bytes())
at = datetime(2026, 6, 1, tzinfo=UTC)
number = 0
while True:
    der = (folder / f"{number % 2}.crl").read_bytes()
    store.store_crl(parse_crl(der), (issuer,), "http://ca.test/1.crl", at, at)
    if number == 0:
        print("ready", flush=True)
        if sys.argv[2] == "once":
            break
    number += 1
if sys.argv[3:]:
    time.sleep(60)
store.close()
"""


def start_writer(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "issuer").write_bytes(ROOT.certificate.der)
    for number in range(2):
        (folder / f"{number}.crl").write_bytes(ROOT.crl(number=number + 1))
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_any_moment(tmp_path: Path, reports: list[str]) -> None:
    """CACHE-7: kill -9 in the middle of writing, many times over: there is always a whole CRL, and no damage."""
    for attempt in range(6):
        process = start_writer(tmp_path, "loop")
        time.sleep(0.01 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for readonly in (True, False):
            store = EvidenceStore(tmp_path / "evidence", readonly=readonly, report=reports.append)
            assert len(crls(store)) == 1
    assert reports == []


def as_nobody(work: Callable[[], bool]) -> bool:
    """Run ``work`` in a child with another uid that shares only a group; whether it returned True."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setgroups([])
            os.setgid(SHARED_GROUP)
            os.setuid(NOBODY)
            code = 0 if work() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def shared(scratch: Path) -> Path:
    """A state directory as the service file makes it: group shared, and the way to it open."""
    folder = scratch / "state"
    folder.mkdir()
    os.chown(folder, 0, SHARED_GROUP)
    folder.chmod(0o2750)
    return folder


@pytest.mark.root
@pytest.mark.parametrize("state", ["alive", "killed", "ended", "killed, then another ended"])
def test_reader_of_another_uid(state: str, shared: Path) -> None:
    """The milter reads while lookup writes, after it was killed, and after it ended; it can't write."""
    process = start_writer(shared, "once", *(() if state == "ended" else ("stay",)))
    if state != "alive":
        if state != "ended":
            process.kill()
        process.wait()
    if state == "killed, then another ended":
        start_writer(shared, "once").wait()
    directory = shared / "evidence"
    assert (directory / "evidence.sqlite-wal").exists() == (state in ("alive", "killed"))

    def read() -> bool:
        reader = EvidenceStore(directory, readonly=True)
        return len(crls(reader)) == 1 and reader.generation() > 0

    def write() -> bool:
        try:
            (directory / "crl" / "x").write_bytes(b"")
        except PermissionError:
            try:
                with open(directory / "evidence.sqlite", "r+b"):
                    return False
            except PermissionError:
                return True
        return False

    assert as_nobody(read)
    assert as_nobody(write)
    process.kill()
    process.wait()


@pytest.mark.root
def test_reader_of_another_uid_follows_comings_and_goings(shared: Path) -> None:
    """One reader process sees a writer end, come back with news, and be killed, without a restart of its own."""
    directory = shared / "evidence"
    start_writer(shared, "once").wait()
    go_r, go_w = os.pipe()
    back_r, back_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(SHARED_GROUP)
            os.setuid(NOBODY)
            reader = EvidenceStore(directory, readonly=True)
            while os.read(go_r, 1) == b"?":
                try:
                    text = ",".join(str(e.crl.number) for e in reader.evidence(ask()) if isinstance(e, CrlEvidence))
                except Unavailable as exc:
                    text = str(exc)
                os.write(back_w, text.encode() + b".")
        finally:
            os._exit(0)

    def seen() -> str:
        os.write(go_w, b"?")
        return os.read(back_r, 1000).decode()

    try:
        assert seen() == "1."
        writer = EvidenceStore(directory, readonly=False)
        put(writer, ROOT.crl(number=7))
        assert seen() == "7."
        writer.close()
        assert seen() == "7."
        process = start_writer(shared, "once", "stay")
        assert seen() == "1."
        process.kill()
        process.wait()
        assert seen() == "1."
        put(EvidenceStore(directory, readonly=False), ROOT.crl(number=9))
        assert seen() == "9."
    finally:
        os.write(go_w, b"!")
        os.waitpid(child, 0)


def test_child_after_a_fork_uses_its_own_connections(store: EvidenceStore, directory: Path) -> None:
    """A store that was used before a fork works in both processes after it."""
    name = put(store, ROOT.crl())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store._answers.clear()
            put(store, ROOT.crl(number=50))
            code = 0 if len(crls(store)) == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert crls(store) != [name]
    assert len(crls(EvidenceStore(directory, readonly=True))) == 1


@pytest.mark.root
def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """On a full file system nothing is stored, the cause is said, and what was there stays readable."""
    mount = tmp_path / "small"
    mount.mkdir()
    script = f"""
import os
from pathlib import Path
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from support.pki import authority, NOW, DAY
from postseal.core.crl import parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import question_for
from postseal.sources.evidence import EvidenceStore
root = authority("R", kind="p256")
leaf = root.issue("a@home.test", kind="p256")
question = question_for(leaf.certificate, root.certificate)
store = EvidenceStore(Path({str(mount)!r}) / "evidence", readonly=False)
store.store_crl(parse_crl(root.crl()), (root.certificate,), "http://ca.test/", NOW, NOW)
filler = os.open({str(mount)!r} + "/filler", os.O_CREAT | os.O_WRONLY)
try:
    while True:
        os.write(filler, bytes(1024))
except OSError:
    pass
big = parse_crl(root.crl(list(range(1, 3000)), number=2))
try:
    store.store_crl(big, (root.certificate,), "http://ca.test/", NOW, NOW)
    print("stored")
except Unavailable as exc:
    print(exc)
print([e.crl.number for e in store.evidence(question)], len(os.listdir({str(mount)!r} + "/evidence/crl")))
"""
    mounted = f'mount -t tmpfs -o size=1m none {mount} && exec "$0" -c "$SCRIPT"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, sys.executable],
        env={**os.environ, "SCRIPT": script},
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == 2, done.stderr
    assert said[0].endswith("No space left on device")
    assert said[1] == "[1] 1"
