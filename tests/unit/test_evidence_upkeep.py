"""The evidence store over time: what is used stays, what is greedy goes first, and clocks that jump do no harm."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, OcspEvidence, question_for
from postseal.sources import evidence_tables as t
from postseal.sources.evidence import EvidenceStore
from postseal.sources.evidence_upkeep import Limits
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority

URL = "http://ca.test/1.crl"
ROOT = authority("Upkeep root", kind="p256")
LEAF = ROOT.issue("a@home.test", crl_urls=[URL], ocsp_urls=["http://ca.test/ocsp"], kind="p256")
SKEW = timedelta(minutes=5)


class Clock:
    def __init__(self) -> None:
        self.at, self.seconds = NOW, 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def pass_by(self, by: timedelta) -> None:
        self.at += by
        self.seconds += by.total_seconds()


def put(store: EvidenceStore, ca: Authority, at: datetime = NOW, size: int = 0, url: str = "", number: int = 1) -> str:
    crl = parse_crl(ca.crl(list(range(1, size)), this_update=at - HOUR, next_update=at + 7 * DAY, number=number))
    store.store_crl(crl, (ca.certificate,), url or f"http://{ca.certificate.key_id[:9]}.test/x.crl", at, at + DAY)
    return crl.sha256


def put_answer(store: EvidenceStore, leaf: Leaf, at: datetime = NOW) -> None:
    asked = question_for(leaf.certificate, ROOT.certificate)
    store.store_ocsp(asked, (ROOT.certificate,), b"x", "http://ca.test/ocsp", at, at + DAY, at, at + DAY)


def test_least_recently_used_crl_goes_first(tmp_path: Path) -> None:
    """CACHE-10: total size is bounded; what was asked about lately stays, and the newest always."""
    some = [authority(f"Upkeep {n}", kind="p256") for n in range(4)]
    store = EvidenceStore(tmp_path / "e", readonly=False, limits=Limits(octets=7000))
    names = [put(store, ca, NOW + n * HOUR, 50) for n, ca in enumerate(some[:3])]
    used = some[0].issue("u@home.test", kind="p256")
    store.note_use(question_for(used.certificate, some[0].certificate), NOW + DAY)
    names.append(put(store, some[3], NOW + 4 * HOUR, 50))
    before = {e.name for e in store.entries()}
    assert before == {names[0], names[2], names[3]}
    big = put(store, authority("Upkeep big", kind="p256"), NOW + 5 * HOUR, 120)
    left = {e.name for e in store.entries()}
    assert big in left
    assert names[0] in left
    assert left < before | {big}
    assert sum(e.size for e in store.entries()) <= 7000
    assert {p.stem for p in (tmp_path / "e" / "crl").iterdir() if p.suffix == ".crl"} == left


def test_greedy_issuer_flushes_only_itself(tmp_path: Path) -> None:
    """CACHE-10: one CA with ever more partitions doesn't drive out the CRLs of others."""
    from cryptography import x509

    store = EvidenceStore(tmp_path / "e", readonly=False, limits=Limits(octets=10_000))
    modest = put(store, ROOT)
    greedy = authority("Upkeep greedy", kind="p256")
    for number in range(12):
        url = f"http://greedy.test/{number}.crl"
        point = x509.IssuingDistributionPoint(
            [x509.UniformResourceIdentifier(url)], None, False, False, None, False, False
        )  # fmt: skip
        crl = parse_crl(greedy.crl(list(range(1, 30)), extra=[(point, True)]))
        store.store_crl(crl, (greedy.certificate,), url, NOW + number * HOUR, NOW + DAY)
    names = {e.name for e in store.entries()}
    assert modest in names
    assert 3 < len(names) < 12
    assert sum(e.size for e in store.entries()) <= 10_000


def test_answers_are_bounded_and_the_greedy_issuer_pays(tmp_path: Path) -> None:
    """CACHE-10: OCSP answers too, by last use."""
    store = EvidenceStore(tmp_path / "e", readonly=False, limits=Limits(answers=10))
    other = authority("Upkeep modest", kind="p256")
    alone = other.issue("m@home.test", kind="p256")
    question = question_for(alone.certificate, other.certificate)
    store.store_ocsp(question, (other.certificate,), b"m", "http://m.test/", NOW - DAY, NOW, NOW, NOW + 9 * DAY)
    for number in range(15):
        put_answer(store, ROOT.issue(f"{number}@home.test", kind="p256"), NOW + number * HOUR)
    store.prune(NOW)
    assert any(isinstance(e, OcspEvidence) for e in store.evidence(question))
    left = [e.certificate.name for e in store.entries() if e.certificate is not None and e.issuer == ROOT.certificate]
    assert sorted(left) == [f"CN={number}@home.test" for number in range(10, 15)]


def test_t23_forward_jump_purges_nothing(tmp_path: Path) -> None:
    """CACHE-9, T-23: a clock that jumps a year ahead throws nothing away; only evidence signed later does."""
    store = EvidenceStore(tmp_path / "e", readonly=False)
    put(store, ROOT)
    put_answer(store, LEAF)
    store.prune(NOW + 365 * DAY)
    assert {e.kind for e in store.entries()} == {"crl", "ocsp"}
    put(store, authority("Upkeep witness", kind="p256"), NOW + 120 * DAY)
    store.prune(NOW + 365 * DAY)
    assert [e.issuer.name for e in store.entries()] == ["CN=Upkeep witness"]


@pytest.mark.parametrize("rebooted", [False, True])
def test_t23_clock_that_goes_back_is_told_once(rebooted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CACHE-9, T-23: within a boot and over one; marks stay, evidence stays, and it is over when time has caught up."""
    clock = Clock()
    store = EvidenceStore(tmp_path / "e", readonly=False, clock=clock)
    name = put(store, ROOT)
    assert store.observe_clock(clock.at, SKEW) == ""
    clock.pass_by(2 * HOUR)
    if rebooted:
        monkeypatch.setattr("postseal.sources.evidence_upkeep.boot_id", lambda: "another boot")
        clock.seconds = 5.0
    clock.at -= 365 * DAY
    said = store.observe_clock(clock.at, SKEW)
    assert said.startswith("the clock went back by")
    assert store.observe_clock(clock.at, SKEW) == ""
    state = store.clock_state()
    assert state is not None
    assert state.suspect
    assert [e.name for e in store.entries()] == [name]
    (mark,) = store.marks.all()
    assert mark.this_update == NOW - HOUR
    clock.at += 366 * DAY
    assert store.observe_clock(clock.at, SKEW) == ""
    state = store.clock_state()
    assert state is not None
    assert not state.suspect


def test_clock_behind_its_own_seconds_is_noticed(tmp_path: Path) -> None:
    """CACHE-9: within one boot a clock that stood still, or was set back a little again and again, shows too."""
    clock = Clock()
    store = EvidenceStore(tmp_path / "e", readonly=False, clock=clock)
    store.observe_clock(clock.at, SKEW)
    clock.seconds += 3600
    assert "went back by 3600 seconds" in store.observe_clock(clock.at, SKEW)


def test_due_loads_only_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CACHE-2: a tick with nothing to do reads no certificate, however much is stored."""
    store = EvidenceStore(tmp_path / "e", readonly=False)
    for number in range(20):
        put(store, authority(f"Upkeep {number}", kind="p256"), NOW + number * HOUR)
    loaded: list[bytes] = []
    real = t.certificates
    monkeypatch.setattr(t, "certificates", lambda blob: loaded.append(blob) or real(blob))
    assert store.due(NOW, NOW - DAY) == ()
    assert loaded == []
    assert len(store.due(NOW + DAY + 4 * HOUR, NOW - DAY)) == 5
    assert len(loaded) == 5


WRITER = """
import sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from postseal.core.crl import parse_crl
from postseal.core.evidence import RevokedBefore, question_for
from postseal.sources.evidence import EvidenceStore
from support.pki import DAY, HOUR, NOW, authority
root = authority("Killed root", kind="p256")
leaf = root.issue("a@home.test", kind="p256", crl_urls=["http://ca.test/1.crl"])
question = question_for(leaf.certificate, root.certificate)
Path(sys.argv[1], "chain").write_bytes(root.certificate.der + leaf.certificate.der)
store = EvidenceStore(Path(sys.argv[1]) / "evidence", readonly=False)
number = 0
while True:
    number += 1
    at = NOW + number * HOUR
    der = root.crl([leaf], number=number, this_update=at, next_update=at + DAY)
    store.store_crl(parse_crl(der), (root.certificate,), "http://ca.test/1.crl", at, at)
    store.remember_revoked(question, RevokedBefore("http://ca.test/1.crl", at))
    store.store_intermediates((authority(f"Killed {number}", kind="p256").certificate,), "http://ca.test/", at)
    store.spend(at, number)
    store.observe_clock(at, timedelta(minutes=5))
    store.note_use(question, at)
    lease = store.lease("x")
    if number == 3:
        print("ready", flush=True)
    lease.release()
"""


def test_cache_7_killed_at_any_write_marks_never_lag(tmp_path: Path) -> None:
    """CACHE-7: kill -9 in the middle of any write: no damage, a whole CRL, and a mark that is at least as high."""
    reports: list[str] = []
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent.parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.011 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        root, leaf = t.certificates((folder / "chain").read_bytes())
        store = EvidenceStore(folder / "evidence", readonly=False, report=reports.append)
        found = store.evidence(question_for(leaf, root))
        (crl,) = (e.crl for e in found if isinstance(e, CrlEvidence))
        (mark,) = store.marks.all()
        assert mark.number is not None
        assert crl.number is not None
        assert 3 <= crl.number <= mark.number <= crl.number + 1
        assert store.marks.revoked_before(question_for(leaf, root)) is not None
        assert store.lease("x") is not None
    assert reports == []
