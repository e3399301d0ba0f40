"""Prefetch by plan, simulated: a thousand issuers over a month."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path as FilePath
from urllib.parse import urlsplit

import pytest

from postseal.app import freshness
from postseal.core.crl import parse_crl
from postseal.core.transfer import Fetched, FetchFailed, Transfer
from support import pki
from support.lookups import NOW, ROOT, Bench
from support.pki import DAY, HOUR, Authority

ISSUERS = 1000
WINDOW = 20 * DAY
LIFE = {"not_before": NOW - 30 * DAY, "not_after": NOW + 335 * DAY}


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Some twenty thousand synced writes: in memory, where there is a file system there.
    shm = "/dev/shm" if FilePath("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        bench = Bench(FilePath(folder), chance=random.Random(7).random)
        yield bench
        bench.lookups.close()


class Authorities:
    """Issuers that make a CRL of twenty days every day, one host each. Remembers the end of what each of them gave last."""

    def __init__(self, bench: Bench, count: int) -> None:
        self.bench = bench
        self.all: dict[str, Authority] = {}
        for number in range(count):
            own = pki.key("p256", ("issuer", number))
            name = pki.name(f"Issuer {number}")
            extensions = [(pki.x509.BasicConstraints(ca=True, path_length=None), True)]
            self.all[f"h{number}.test"] = Authority(ROOT._sign(name, own.public_key(), extensions, **LIFE), own, name)
        self.ends = dict.fromkeys(self.all, NOW + DAY)
        self.expired: list[str] = []
        self.fetched: Counter[str] = Counter()

    def seed(self) -> None:
        """The first CRL of each is in the store, as messages would have brought it."""
        for host, one in self.all.items():
            url, at = f"http://{host}/x.crl", self.bench.clock.now()
            fetched = self.answer(url, None, {})
            assert isinstance(fetched, Fetched)
            crl = parse_crl(fetched.body)
            plan = freshness.refresh_at(crl.this_update, crl.next_update, None, at, self.bench.chance)
            self.bench.store.store_crl(crl, (one.certificate,), url, at, plan)
        self.fetched.clear()

    def answer(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        host, at = urlsplit(url).netloc, self.bench.clock.now()
        if at > self.ends[host]:
            self.expired.append(host)
        self.fetched[host] += 1
        days = (at - NOW) // DAY
        made = NOW + days * DAY - HOUR
        self.ends[host] = made + WINDOW
        return Fetched(url, self.all[host].crl(number=1 + days, this_update=made, next_update=made + WINDOW))


def test_cache_2_thousand_issuers_for_a_month(bench: Bench) -> None:
    """CACHE-2: over 30 days nothing expires, and each issuer is fetched about as often as its window allows."""
    site = Authorities(bench, ISSUERS)
    bench.web.answers["http://"] = site.answer
    site.seed()
    for _ in range(30 * 4):
        bench.clock.advance(timedelta(hours=6))
        while bench.prefetch():
            pass
    at = bench.clock.now()
    assert site.expired == []
    assert min(site.ends.values()) > at
    assert all(e.next_update is not None and e.next_update > at for e in bench.store.entries())
    # The next fetch comes 10 to 16 days after thisUpdate, which is at most a day before the fetch.
    assert len(site.fetched) == ISSUERS
    assert max(site.fetched.values()) <= 3
    assert 1.8 * ISSUERS <= bench.web.count() <= 2.6 * ISSUERS


def test_catch_up_after_a_start_is_spread(bench: Bench) -> None:
    """CACHE-2: after two days down all is fetched again that is due, a number at a time."""
    site = Authorities(bench, 150)
    bench.web.answers["http://"] = site.answer
    site.seed()
    bench.clock.advance(19 * DAY)
    bench.lookups = bench.make()
    ticks = []
    while started := bench.prefetch():
        ticks.append(started)
    assert sum(ticks) == 150
    assert max(ticks) <= 64
    assert site.expired == []


def test_outage_of_all_hosts_for_two_days(bench: Bench) -> None:
    """CACHE-3: with everything unreachable each URL and host is asked with growing patience, and evidence lasts."""
    site = Authorities(bench, 5)
    bench.web.answers["http://"] = site.answer
    site.seed()
    bench.clock.advance(12 * DAY)
    bench.web.answers["http://"] = FetchFailed("", "rev.unreachable", "no route to host", host_fault=True)
    before = bench.web.count()
    for _ in range(2 * 24 * 12):
        bench.clock.advance(timedelta(minutes=5))
        bench.prefetch()
    tries = (bench.web.count() - before) / 5
    assert 20 <= tries <= 60
    bench.web.answers["http://"] = site.answer
    for _ in range(16):
        bench.clock.advance(timedelta(minutes=5))
        bench.prefetch()
    assert min(site.ends.values()) > bench.clock.now() + 5 * DAY
