"""What lookups may cost: requests per message, host and minute, octets per day; one fetch for all processes; the breaker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path as FilePath

import pytest

from postseal.core.evidence import NoAnswer, question_for
from postseal.core.revocation import Status
from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.evidence import EvidenceStore
from support.lookups import CRL, NOW, OCSP, ROOT, Bench, authority, crl, issue, question, responder
from support.pki import DAY, HOUR
from support.responders import Responder


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.lookups.close()


def test_asks_for_one_message_share_their_requests(bench: Bench) -> None:
    """THR-6: recipients are asked about one by one, and still one message makes six requests; the next has its own."""
    many = [question(f"http://h{n}.test/x.crl", slot=n) for n in range(12)]
    for asked in many[:9]:
        bench.lookups.ask([asked], 5.0, "message-1")
    assert bench.web.count() == 6
    assert bench.status(many[5])[1] == "rev.unreachable"
    assert bench.status(many[8]) == (Status.UNKNOWN, "rev.budget")
    bench.lookups.ask([many[8]], 5.0, "message-2")
    assert bench.web.count() == 7
    assert bench.status(many[8])[1] == "rev.unreachable"


def test_host_is_asked_ten_times_a_minute(bench: Bench) -> None:
    """THR-6: beyond that the status is unknown for want of a budget, until the minute is over."""
    many = [question(ocsp=(f"{OCSP}/{n}",), slot=n) for n in range(14)]
    bench.web.answers[OCSP] = responder(Responder(ROOT))
    for asked in many:
        bench.ask(asked)
    assert bench.web.count() == 10
    assert [bench.status(q) for q in many[9:11]] == [(Status.GOOD, "rev.ocsp"), (Status.UNKNOWN, "rev.budget")]
    (failure,) = bench.failures(many[12])
    assert failure.retry_at == NOW + timedelta(seconds=60)
    bench.clock.advance(timedelta(seconds=61))
    bench.ask(many[12])
    assert bench.status(many[12]) == (Status.GOOD, "rev.ocsp")


def test_administrator_has_no_budget(bench: Bench) -> None:
    """CACHE-12: an order to refresh is followed, however often."""
    bench.web.answers[CRL] = crl(ROOT)
    bench.ask(question(CRL))
    for _ in range(15):
        bench.lookups.refresh(bench.store.entries(), 5.0)
    assert bench.web.count() == 16


def test_octets_of_a_day_are_bounded(tmp_path: FilePath) -> None:
    """THR-6: when they are used up nothing is fetched until the next day, also by another process."""
    bench = Bench(tmp_path, octets_per_day=1500)
    many = [question(ocsp=(f"http://h{n}.test/",), slot=n) for n in range(8)]
    bench.web.answers["http://"] = responder(Responder(ROOT))
    for asked in many:
        bench.ask(asked)
    used = bench.web.count()
    assert 2 <= used < 8
    assert bench.store.spent(bench.clock.now()) >= 1500
    bench.lookups = bench.make()
    bench.ask(many[7])
    assert bench.web.count() == used
    assert bench.status(many[7]) == (Status.UNKNOWN, "rev.budget")
    bench.clock.advance(DAY)
    bench.ask(many[7])
    assert bench.web.count() == used + 1


def test_what_breaks_off_has_cost_too(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """THR-6: a server that breaks off each large body at its end doesn't get around the octets of a day."""
    bench = Bench(tmp_path, octets_per_day=1500)

    def breaks_off(url: str, sink: Callable[[bytes], object], **more: object) -> Transfer:
        sink(bytes(800))
        return FetchFailed(url, "rev.malformed", "the answer is incomplete")

    monkeypatch.setattr(bench.web, "get_to", breaks_off)
    many = [question(f"http://h{n}.test/x.crl", slot=n) for n in range(4)]
    for asked in many:
        bench.ask(asked)
    assert bench.store.spent(bench.clock.now()) == 1600
    assert [bench.status(q)[1] for q in many] == ["rev.malformed", "rev.malformed", "rev.budget", "rev.budget"]
    bench.lookups.close()


def test_rpl_2_crl_that_is_too_large_leaves_it_to_ocsp(bench: Bench) -> None:
    """RPL-2: where the CRL is larger than allowed the responder decides, and the CRL isn't tried with every message."""
    asked = question(CRL, ocsp=(OCSP,))
    bench.web.answers = {
        CRL: FetchFailed(CRL, "rev.too-large", "the answer has 99 bytes"),
        OCSP: responder(Responder(ROOT)),
    }
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.ocsp")
    bench.ask(asked)
    assert bench.web.count(CRL) == 1


def test_breaker_lets_one_request_try(bench: Bench) -> None:
    """CACHE-3, T-26: when the host's time is over one request goes through; while it runs all others stay away."""
    for number in range(5):
        bench.ask(question(f"http://dead.test/{number}.crl", slot=number))
    bench.clock.advance(timedelta(seconds=61))
    inside, go = threading.Event(), threading.Event()

    def slow(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        inside.set()
        go.wait(10)
        return FetchFailed(url, "rev.http-status", "HTTP status 503", host_fault=True)

    bench.web.answers["http://dead.test/"] = slow
    trying = threading.Thread(target=bench.ask, args=(question("http://dead.test/5.crl", slot=5),))
    trying.start()
    assert inside.wait(10)
    bench.ask(question("http://dead.test/6.crl", slot=6))
    assert bench.web.count("http://dead.test/") == 6
    go.set()
    trying.join()
    bench.ask(question("http://dead.test/7.crl", slot=7))
    assert bench.web.count("http://dead.test/") == 6


def test_other_process_waits_and_takes_what_came(bench: Bench, tmp_path: FilePath) -> None:
    """CACHE-5: two processes on one store fetch once; the one that waited finds the result."""
    asked = question(CRL)
    inside, go = threading.Event(), threading.Event()

    def slow(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        inside.set()
        go.wait(10)
        return Fetched(url, crl(ROOT))

    bench.web.answers[CRL] = slow
    other = Bench(tmp_path)
    other.web, other.clock = bench.web, bench.clock
    other.lookups = other.make()
    first = threading.Thread(target=bench.ask, args=(asked,))
    first.start()
    assert inside.wait(10)
    # The flight's end is later than the moment at which the other one saw that it was needed.
    bench.clock.at += timedelta(seconds=1)
    second = threading.Thread(target=other.lookups.ask, args=([asked], 10.0))
    second.start()
    threading.Event().wait(0.2)
    bench.clock.at += timedelta(seconds=1)
    go.set()
    first.join()
    second.join()
    assert bench.web.count() == 1
    assert other.status(asked) == (Status.GOOD, "rev.crl")


def test_lease_ends_with_the_process_that_had_it(tmp_path: FilePath) -> None:
    """CACHE-5, CACHE-7: kill -9 in the middle of a fetch doesn't keep others from fetching; one name, one holder."""
    import os
    import signal

    store = EvidenceStore(tmp_path / "evidence", readonly=False)
    ready_r, ready_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(ready_w, b"y" if store.lease("a") is not None else b"n")
            signal.pause()
        finally:
            os._exit(0)
    assert os.read(ready_r, 1) == b"y"
    assert store.lease("a") is None
    other = store.lease("b")
    assert other is not None
    other.release()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    mine = store.lease("a")
    assert mine is not None
    assert store.lease("a") is None
    mine.release()
    assert list((tmp_path / "evidence" / "lease").iterdir()) == []


def test_rpl_6_sudden_absence_is_an_error(bench: Bench) -> None:
    """RPL-6, THR-20: a CA that had a current CRL for a month and has none now is alarming, others get a warning."""
    asked = question(CRL)
    for week in range(6):
        at = bench.clock.now()
        bench.web.answers[CRL] = crl(ROOT, number=week + 1, this_update=at - HOUR, next_update=at + 8 * DAY)
        bench.ask(asked)
        bench.lookups.refresh(bench.store.entries(), 5.0)
        bench.clock.advance(7 * DAY)
    del bench.web.answers[CRL]
    bench.ask(asked)
    assert bench.alarms == []
    bench.clock.advance(2 * DAY)
    bench.ask(asked)
    assert "always had a current CRL, for 4" in bench.alarms[0]
    (failure,) = (e for e in bench.store.evidence(asked) if isinstance(e, NoAnswer))
    assert failure.alarming
    young = authority("Budget young")
    bench.trust.roots.append(young)
    bench.ask(question_for(issue(young, crl_urls=["http://new.test/x.crl"]).certificate, young.certificate))
    assert len(bench.alarms) == 1


def test_rpl_6_responder_that_falls_silent_is_an_error(bench: Bench) -> None:
    """RPL-6: the same for a CA whose responder always answered, whichever certificate was asked about."""
    reader = EvidenceStore(bench.directory / "evidence", readonly=True)
    for day in range(45):
        asked = question(ocsp=(OCSP,), slot=day % 3)
        at = NOW + day * DAY
        bench.store.store_ocsp(asked, (ROOT.certificate,), b"x", OCSP, at, at, at, at + 3 * DAY)
    bench.clock.advance(49 * DAY)
    asked = question(ocsp=(OCSP,), slot="new")
    bench.ask(asked)
    assert "always had current OCSP answers, for 47 days" in bench.alarms[0]
    (failure,) = (e for e in reader.evidence(asked) if isinstance(e, NoAnswer))
    assert failure.alarming
    assert [m.name for m in reader.marks.all()] == []
