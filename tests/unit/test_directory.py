"""Recipients' certificates from folders and the database, and trust from folders: real files, real SQLite."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates
from cryptography.x509.oid import ObjectIdentifier

from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.assess import Candidate, Origin
from postseal.core.errors import BadData, Unavailable
from postseal.core.path import AnchorSettings
from postseal.sources.clock import SystemClock
from postseal.sources.directory import Directories
from postseal.sources.directory.folder import FolderDirectory
from postseal.sources.directory.store import CertificateStore
from postseal.sources.trust import FolderTrust
from support.pki import NOW, Authority, Leaf, authority

ALICE = parse_mailbox("alice@example.test")
UTF8_MAILBOX = ObjectIdentifier("1.3.6.1.5.5.7.8.9")


class Clock:
    """A clock that stands until it is told to go on; ``now`` is ten seconds ahead of the file system's."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.ahead = timedelta(seconds=10)

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def later(self, seconds: float = 1.1) -> None:
        self.seconds += seconds


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority("Directory Root")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alice(ca: Authority) -> Leaf:
    return ca.issue("Alice@Example.TEST")


def fingerprints(found: tuple[Candidate, ...]) -> list[str]:
    return [c.certificate.fingerprint for c in found]


class TestFolder:
    """A folder of files."""

    @pytest.mark.parametrize(
        ("file", "form"),
        [
            ("a.pem", lambda leaf: leaf.pem),
            ("a.der", lambda leaf: leaf.certificate.der),
            ("a.p7b", lambda leaf: serialize_certificates([leaf.certificate.x509], Encoding.DER)),
            ("a.p7c", lambda leaf: serialize_certificates([leaf.certificate.x509], Encoding.PEM)),
            ("no extension", lambda leaf: b"a comment first\n" + leaf.pem),
        ],
    )
    def test_every_form_is_read(
        self, tmp_path: Path, clock: Clock, alice: Leaf, file: str, form: Callable[[Leaf], bytes]
    ) -> None:
        (tmp_path / file).write_bytes(form(alice))
        folder = FolderDirectory(tmp_path, clock)
        [candidate] = folder.candidates(ALICE)
        assert candidate.certificate == alice.certificate
        assert candidate.origin is Origin.FOLDER
        assert candidate.source == str(tmp_path / file)
        assert folder.problems() == ()

    def test_addresses_are_compared_with_ascii_case_folded(self, tmp_path: Path, clock: Clock, alice: Leaf) -> None:
        """RFC 8550 §3, CERT-2."""
        (tmp_path / "a.pem").write_bytes(alice.pem)
        folder = FolderDirectory(tmp_path, clock)
        assert folder.candidates(parse_mailbox("ALICE@example.TEST"))
        assert not folder.candidates(parse_mailbox("alice+x@example.test"))

    def test_changes_count_after_a_second_without_a_restart(self, tmp_path: Path, clock: Clock, ca: Authority) -> None:
        """Added, replaced in place, and removed; and nothing is looked at twice within a second."""
        first, second = ca.issue("alice@example.test"), ca.issue("alice@example.test", slot=1)
        folder = FolderDirectory(tmp_path, clock)
        assert folder.candidates(ALICE) == ()
        (tmp_path / "a.pem").write_bytes(first.pem)
        assert folder.candidates(ALICE) == ()
        clock.later()
        assert fingerprints(folder.candidates(ALICE)) == [first.certificate.fingerprint]
        (tmp_path / "a.pem").write_bytes(second.pem)
        clock.later()
        assert fingerprints(folder.candidates(ALICE)) == [second.certificate.fingerprint]
        (tmp_path / "a.pem").unlink()
        clock.later()
        assert folder.candidates(ALICE) == ()

    def test_two_certificates_for_one_address_are_both_candidates(
        self, tmp_path: Path, clock: Clock, ca: Authority
    ) -> None:
        leaves = [ca.issue("alice@example.test", slot=slot) for slot in (0, 1)]
        for index, leaf in enumerate(leaves):
            (tmp_path / f"{index}.pem").write_bytes(leaf.pem)
        shutil.copy(tmp_path / "0.pem", tmp_path / "copy.pem")
        found = FolderDirectory(tmp_path, clock).candidates(ALICE)
        assert fingerprints(found) == [leaf.certificate.fingerprint for leaf in leaves]

    def test_ca_certificates_beside_it_help_its_path_but_are_nobodys(
        self, tmp_path: Path, clock: Clock, ca: Authority
    ) -> None:
        sub = ca.sub(
            "Directory Sub", extra=[(x509.SubjectAlternativeName([x509.RFC822Name("ca@example.test")]), False)]
        )
        leaf = sub.issue("alice@example.test")
        (tmp_path / "chain.pem").write_bytes(leaf.pem + sub.pem)
        folder = FolderDirectory(tmp_path, clock)
        [candidate] = folder.candidates(ALICE)
        assert candidate.extra == (sub.certificate,)
        assert folder.candidates(parse_mailbox("ca@example.test")) == ()

    def test_bad_files_are_told_once_and_the_others_count(
        self, tmp_path: Path, clock: Clock, alice: Leaf, ca: Authority
    ) -> None:
        told: list[str] = []
        (tmp_path / "a.pem").write_bytes(alice.pem)
        (tmp_path / "notes.txt").write_text("hello")
        (tmp_path / "empty.pem").write_bytes(b"")
        (tmp_path / "gone.pem").symlink_to("/nonexistent/x.pem")
        (tmp_path / "nameless.pem").write_bytes(ca.issue(None).pem)
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / ".hidden").write_text("ignored")
        (tmp_path / "a.pem~").write_text("ignored")
        (tmp_path / "folder").mkdir()
        folder = FolderDirectory(tmp_path, clock, told.append)
        for _ in range(3):
            assert folder.candidates(ALICE)
            clock.later()
        assert len(told) == 5
        assert sorted(told) == sorted(folder.problems())
        texts = "\n".join(told)
        assert f"{tmp_path}/gone.pem: No such file or directory (a symbolic link to /nonexistent/x.pem)" in texts
        assert f"{tmp_path}/fifo: not a regular file" in texts
        assert f"{tmp_path}/nameless.pem: no certificate of a person with a mail address in it" in texts
        assert f"{tmp_path}/notes.txt: " in texts
        assert f"{tmp_path}/empty.pem: " in texts

    def test_a_problem_that_is_mended_is_forgotten(self, tmp_path: Path, clock: Clock, alice: Leaf) -> None:
        (tmp_path / "a.pem").write_text("rubbish")
        folder = FolderDirectory(tmp_path, clock)
        assert folder.candidates(ALICE) == ()
        assert len(folder.problems()) == 1
        (tmp_path / "a.pem").write_bytes(alice.pem)
        clock.later()
        assert folder.candidates(ALICE)
        assert folder.problems() == ()
        (tmp_path / "b.pem").write_text("rubbish")
        clock.later()
        folder.candidates(ALICE)
        (tmp_path / "b.pem").unlink()
        clock.later()
        folder.candidates(ALICE)
        assert folder.problems() == ()

    def test_a_file_that_is_being_written_does_not_lose_its_certificate(
        self, tmp_path: Path, clock: Clock, alice: Leaf
    ) -> None:
        """For two seconds, half a file counts as what it was before: mail must not go in clear meanwhile."""
        clock.ahead = timedelta(0)
        (tmp_path / "a.pem").write_bytes(alice.pem)
        folder = FolderDirectory(tmp_path, clock)
        assert folder.candidates(ALICE)
        (tmp_path / "a.pem").write_bytes(alice.pem[:100])
        clock.later()
        assert folder.candidates(ALICE)
        assert folder.problems() == ()
        clock.ahead = timedelta(seconds=3)
        clock.later()
        assert folder.candidates(ALICE) == ()
        assert len(folder.problems()) == 1

    def test_a_change_within_the_same_clock_tick_is_seen(self, tmp_path: Path, clock: Clock, ca: Authority) -> None:
        """Same size, same time: what changed just before it was read is read again."""
        clock.ahead = timedelta(0)
        one, two = ca.issue("alice@example.test"), ca.issue("alice@example.test", slot=1)
        (tmp_path / "a.der").write_bytes(one.certificate.der)
        folder = FolderDirectory(tmp_path, clock)
        before = os.stat(tmp_path / "a.der")
        assert folder.candidates(ALICE)
        with open(tmp_path / "a.der", "r+b") as file:
            file.write(two.certificate.der)
            file.truncate()
        os.utime(tmp_path / "a.der", ns=(before.st_atime_ns, before.st_mtime_ns))
        clock.later()
        assert fingerprints(folder.candidates(ALICE)) == [two.certificate.fingerprint]

    def test_a_folder_that_is_not_there_is_unavailable_not_empty(self, tmp_path: Path, clock: Clock) -> None:
        """ "No certificate" would let mail go in clear."""
        folder = FolderDirectory(tmp_path / "absent", clock)
        with pytest.raises(Unavailable, match=rf"certificate folder {tmp_path}/absent: No such file or directory"):
            folder.candidates(ALICE)
        (tmp_path / "absent").mkdir()
        assert folder.candidates(ALICE) == ()

    def test_a_folder_that_vanishes_keeps_what_was_read(self, tmp_path: Path, clock: Clock, alice: Leaf) -> None:
        path = tmp_path / "certificates"
        path.mkdir()
        (path / "a.pem").write_bytes(alice.pem)
        folder = FolderDirectory(path, clock)
        assert folder.candidates(ALICE)
        shutil.rmtree(path)
        clock.later()
        assert folder.candidates(ALICE)
        assert folder.problems() == (
            f"certificate folder {path}: No such file or directory; what was read from it before stays in use",
        )

    def test_a_folder_that_everybody_may_write_to_is_a_problem(self, tmp_path: Path, clock: Clock) -> None:
        tmp_path.chmod(0o777)
        folder = FolderDirectory(tmp_path, clock)
        folder.candidates(ALICE)
        assert folder.problems() == (f"certificate folder {tmp_path} can be written to by everybody",)

    def test_a_thousand_files_cost_little_once_read(self, tmp_path: Path, clock: Clock, alice: Leaf) -> None:
        """A look at an unchanged folder reads no file: it takes milliseconds, a look-up between two looks microseconds."""
        for index in range(1000):
            (tmp_path / f"{index}.der").write_bytes(alice.certificate.der)
        folder = FolderDirectory(tmp_path, clock)
        folder.candidates(ALICE)
        reads = _reads_of(lambda: (clock.later(), folder.candidates(ALICE)))
        assert reads == 0
        began = datetime.now(UTC)
        for _ in range(10_000):
            folder.candidates(ALICE)
        assert datetime.now(UTC) - began < timedelta(seconds=1)


def _reads_of(action: Callable[[], object]) -> int:
    """How many files ``action`` opens."""
    import sys

    opened: list[str] = []
    active = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if active[0] and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    action()
    active[0] = False
    return len(opened)


class TestStore:
    """The SQLite store."""

    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> CertificateStore:
        return CertificateStore(tmp_path / "state" / "certificates.sqlite", clock)

    def test_what_is_added_is_found_by_every_address(self, store: CertificateStore, ca: Authority) -> None:
        names = x509.SubjectAlternativeName([x509.RFC822Name("alice@example.test"), x509.RFC822Name("al@example.test")])
        leaf = ca.issue(None, extra=[(names, False)])
        assert store.add([(leaf.certificate, "a.pem")], NOW) == (leaf.certificate,)
        for mailbox in (ALICE, parse_mailbox("AL@example.test")):
            [candidate] = store.candidates(mailbox)
            assert candidate == Candidate(leaf.certificate, Origin.IMPORTED, "store (a.pem)")
        [entry] = store.entries()
        assert entry.addresses == ("al@example.test", "alice@example.test")
        assert entry.imported_at == NOW
        assert entry.source == "a.pem"

    def test_adding_again_changes_nothing(self, store: CertificateStore, alice: Leaf) -> None:
        store.add([(alice.certificate, "a.pem")], NOW)
        before = store.generation()
        assert store.add([(alice.certificate, "b.pem")], NOW) == ()
        assert store.generation() == before
        assert len(store.entries()) == 1

    def test_a_batch_is_all_or_nothing(self, store: CertificateStore, alice: Leaf, ca: Authority) -> None:
        with pytest.raises(BadData, match="has no mail address"):
            store.add([(alice.certificate, "a"), (ca.issue(None).certificate, "b")], NOW)
        assert store.entries() == ()

    def test_another_process_changes_count_within_a_second(
        self, tmp_path: Path, store: CertificateStore, clock: Clock, alice: Leaf
    ) -> None:
        """The milter reads, ``postseal cert`` writes."""
        admin = CertificateStore(tmp_path / "state" / "certificates.sqlite")
        assert store.candidates(ALICE) == ()
        admin.add([(alice.certificate, "a")], NOW)
        clock.later()
        assert store.candidates(ALICE)
        generation = store.generation()
        assert admin.remove(alice.certificate.fingerprint)
        clock.later()
        assert store.candidates(ALICE) == ()
        assert store.generation() != generation

    def test_a_pin_comes_first_and_is_only_for_its_address(self, store: CertificateStore, ca: Authority) -> None:
        names = x509.SubjectAlternativeName([x509.RFC822Name("alice@example.test"), x509.RFC822Name("al@example.test")])
        old = ca.issue(None, extra=[(names, False)])
        new = ca.issue("alice@example.test", slot=1)
        store.add([(old.certificate, "old")], NOW)
        store.add([(new.certificate, "new")], NOW + timedelta(days=1))
        assert fingerprints(store.candidates(ALICE))[0] == new.certificate.fingerprint
        store.pin(ALICE, old.certificate.fingerprint, NOW)
        first = store.candidates(ALICE)[0]
        assert (first.certificate, first.origin) == (old.certificate, Origin.PIN)
        assert store.candidates(parse_mailbox("al@example.test"))[0].origin is Origin.IMPORTED
        assert store.find(old.certificate.fingerprint).pinned == ("alice@example.test",)
        assert store.unpin(ALICE)
        assert not store.unpin(ALICE)
        assert fingerprints(store.candidates(ALICE))[0] == new.certificate.fingerprint

    def test_a_pin_needs_a_stored_certificate_of_that_address(self, store: CertificateStore, alice: Leaf) -> None:
        with pytest.raises(BadData, match="is not in the store"):
            store.pin(ALICE, "0" * 64, NOW)
        store.add([(alice.certificate, "a")], NOW)
        with pytest.raises(BadData, match=r"is not for bob@example\.test; it names alice@example\.test"):
            store.pin(parse_mailbox("bob@example.test"), alice.certificate.fingerprint, NOW)

    def test_removing_takes_addresses_and_pins_along(
        self, store: CertificateStore, tmp_path: Path, alice: Leaf
    ) -> None:
        store.add([(alice.certificate, "a")], NOW)
        store.pin(ALICE, alice.certificate.fingerprint, NOW)
        assert store.remove(alice.certificate.fingerprint)
        assert not store.remove(alice.certificate.fingerprint)
        with sqlite3.connect(tmp_path / "state" / "certificates.sqlite") as database:
            assert database.execute("SELECT count(*) FROM addresses").fetchone() == (0,)
            assert database.execute("SELECT count(*) FROM pins").fetchone() == (0,)

    def test_references(self, store: CertificateStore, ca: Authority) -> None:
        leaves = [ca.issue("alice@example.test", slot=slot) for slot in (0, 1)]
        store.add([(leaf.certificate, "x") for leaf in leaves], NOW)
        wanted = leaves[0].certificate
        assert store.find(wanted.fingerprint[:12]).certificate == wanted
        assert store.find(f"SHA256:{wanted.fingerprint.upper()}").certificate == wanted
        assert len(store.entries("ALICE@example.test")) == 2
        with pytest.raises(BadData, match=r"2 certificates .*: give a fingerprint"):
            store.find("alice@example.test")
        with pytest.raises(BadData, match="no certificate in the store"):
            store.find("bob@example.test")
        with pytest.raises(BadData, match="neither a mail address nor at least 8 hex digits"):
            store.find("abc")

    def test_a_database_that_was_never_made_is_empty(self, store: CertificateStore, tmp_path: Path) -> None:
        assert store.candidates(ALICE) == ()
        assert store.entries() == ()
        assert not store.remove("0" * 64)
        assert not store.unpin(ALICE)
        assert not (tmp_path / "state").exists()

    def test_a_database_that_is_lost_is_unavailable_not_empty(
        self, store: CertificateStore, tmp_path: Path, clock: Clock, alice: Leaf
    ) -> None:
        """ "No certificate" would let mail go in clear."""
        store.add([(alice.certificate, "a")], NOW)
        assert store.candidates(ALICE)
        shutil.rmtree(tmp_path / "state")
        clock.later()
        with pytest.raises(Unavailable, match=r"certificate store .*certificates.sqlite: "):
            store.candidates(ALICE)

    def test_a_database_that_is_rubbish_is_unavailable(self, store: CertificateStore, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "certificates.sqlite").write_bytes(b"rubbish" * 1000)
        with pytest.raises(Unavailable, match="file is not a database"):
            store.candidates(ALICE)

    def test_the_milters_user_reads_what_root_imported(self, tmp_path: Path, alice: Leaf) -> None:
        """Files that root makes belong to the owner of the state directory; a user with read permission only can read."""
        state = tmp_path / "state"
        state.mkdir()
        os.chown(state, 65534, 65534)
        for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            path.chmod(0o755)
        CertificateStore(state / "certificates.sqlite").add([(alice.certificate, "a")], NOW)
        status = os.stat(state / "certificates.sqlite")
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o640)
        copy = subprocess.run(
            ["setpriv", "--reuid=65533", "--regid=65534", "--clear-groups", "cat", str(state / "certificates.sqlite")],
            capture_output=True,
        )
        assert copy.stdout.startswith(b"SQLite format 3")


class _Fixed:
    def __init__(self, *candidates: Candidate, fail: bool = False) -> None:
        self._candidates, self._fail = candidates, fail

    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        if self._fail:
            raise Unavailable("it is gone")
        return self._candidates


class TestDirectories:
    """Several sources as one."""

    def test_each_certificate_once_with_its_most_trusted_origin_first(self, ca: Authority) -> None:
        one, two = (ca.issue("alice@example.test", slot=slot).certificate for slot in (0, 1))
        joined = Directories(
            [
                _Fixed(Candidate(one, Origin.FOLDER, "f", (ca.certificate,))),
                _Fixed(Candidate(two, Origin.IMPORTED, "s"), Candidate(one, Origin.PIN, "s")),
            ]
        )
        assert joined.candidates(ALICE) == (
            Candidate(one, Origin.PIN, "s", (ca.certificate,)),
            Candidate(two, Origin.IMPORTED, "s"),
        )

    def test_one_that_is_unavailable_makes_all_unavailable(self, ca: Authority) -> None:
        """It may hold the only usable certificate."""
        known = _Fixed(Candidate(ca.issue("alice@example.test").certificate, Origin.FOLDER, "f"))
        with pytest.raises(Unavailable, match="it is gone"):
            Directories([known, _Fixed(fail=True)]).candidates(ALICE)


class TestTrust:
    """Anchors and intermediates."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        (tmp_path / "anchors").mkdir()
        return tmp_path / "anchors", tmp_path / "intermediates"

    def test_both_folders_are_read_and_watched(self, folders: tuple[Path, Path], clock: Clock, ca: Authority) -> None:
        anchors, intermediates = folders
        sub = ca.sub("Trust Sub")
        (anchors / "root.pem").write_bytes(ca.pem)
        trust = FolderTrust(anchors, intermediates, clock)
        assert [(a.certificate, a.label) for a in trust.anchors()] == [(ca.certificate, "root.pem")]
        assert trust.intermediates() == ()
        generation = trust.generation()
        intermediates.mkdir()
        (intermediates / "sub.pem").write_bytes(sub.pem)
        clock.later()
        assert trust.intermediates() == (sub.certificate,)
        assert trust.generation() != generation

    def test_nothing_changed_means_the_same_generation(
        self, folders: tuple[Path, Path], clock: Clock, ca: Authority
    ) -> None:
        """Verdicts are kept as long as the generation stays: a rewritten file with the same content doesn't drop them."""
        anchors, intermediates = folders
        (anchors / "root.pem").write_bytes(ca.pem)
        trust = FolderTrust(anchors, intermediates, clock)
        generation = trust.generation()
        (anchors / "root.pem").write_bytes(ca.pem)
        clock.later()
        assert trust.generation() == generation
        (anchors / "root.pem").unlink()
        clock.later()
        assert trust.generation() != generation
        assert trust.anchors() == ()

    def test_without_an_anchor_folder_it_is_unavailable(self, tmp_path: Path, clock: Clock) -> None:
        trust = FolderTrust(tmp_path / "anchors", tmp_path / "intermediates", clock)
        with pytest.raises(Unavailable, match=rf"certificate folder {tmp_path}/anchors: No such file or directory"):
            trust.anchors()

    def test_problems_of_both_are_told(self, folders: tuple[Path, Path], clock: Clock) -> None:
        anchors, intermediates = folders
        intermediates.mkdir()
        (anchors / "x.pem").write_text("x")
        (intermediates / "y.pem").write_text("y")
        told: list[str] = []
        trust = FolderTrust(anchors, intermediates, clock, told.append)
        trust.anchors()
        assert [Path(t.split(": ")[0]).name for t in told] == ["x.pem", "y.pem"]
        assert trust.problems() == tuple(told)

    def test_settings_by_file_and_by_fingerprint(self, folders: tuple[Path, Path], clock: Clock, ca: Authority) -> None:
        """A fingerprint counts more than the file; what is about nothing is told, once."""
        anchors, intermediates = folders
        other = authority("Other anchor")
        (anchors / "both.pem").write_bytes(ca.pem + other.pem)
        of_file, of_one = AnchorSettings(domains=("a.test",)), AnchorSettings(public=True)
        settings = {"both.pem": of_file, other.certificate.fingerprint: of_one, "missing.pem": of_file}
        told: list[str] = []
        trust = FolderTrust(anchors, intermediates, clock, told.append, settings)
        assert [a.settings for a in trust.anchors()] == [of_file, of_one]
        assert told == [f'[[anchor]] certificate = "missing.pem": there is no such file or certificate in {anchors}']
        assert (trust.unused(), trust.problems()) == (tuple(told), ())
        (anchors / "missing.pem").write_bytes(authority("Third anchor").pem)
        clock.later()
        assert [a.settings for a in trust.anchors()] == [of_file, of_one, of_file]
        assert (trust.unused(), len(told)) == ((), 1)


def test_the_first_look_is_waited_for_by_all(tmp_path: Path) -> None:
    """Threads that ask while the folder is read for the first time never see it empty: mail could leave in clear."""
    leaf = authority("Root").issue("bob@partner.test")
    for number in range(150):
        (tmp_path / f"{number}.pem").write_bytes(leaf.pem)
    for _ in range(3):
        directory = FolderDirectory(tmp_path, SystemClock())
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(directory.candidates, [parse_mailbox("bob@partner.test")] * 64))
        assert all(found)
