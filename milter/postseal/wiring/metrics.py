"""The object graph of counting: what a process counts with, and what ``postseal metrics`` serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime

from postseal import __version__
from postseal.app.metering import NO_METER, NoMeter
from postseal.config import Config
from postseal.core.errors import PostsealError, Unavailable
from postseal.core.text import one_line
from postseal.sources import metrics as m
from postseal.sources.clock import SystemClock
from postseal.sources.evidence import EvidenceStore
from postseal.sources.metrics import Exposition, Gauge, Recorder, prepare

Warn = Callable[[str], None]
# CACHE-10 bounds the store; this bounds what one scrape brings.
_MOST_ISSUERS = 5000


def start_counting(config: Config, service: str, warn: Warn) -> int | None:
    """For a service that starts, before its processes count. Keep the descriptor open. Never raises: mail is worth more."""
    if config.metrics.listen is None:
        return None
    try:
        return prepare(config.metrics_directory(service))
    except PostsealError as exc:
        warn(str(exc))
        return None


def build_meter(config: Config, service: str, number: int, warn: Warn) -> Recorder | NoMeter:
    """What process ``number`` of ``service`` counts with. Never raises."""
    if config.metrics.listen is None:
        return NO_METER
    try:
        return Recorder(config.metrics_directory(service), number)
    except PostsealError as exc:
        warn(str(exc))
        return NO_METER


def build_exposition(config: Config) -> Exposition:
    """What ``postseal metrics`` serves: the services' counters, and the state of the evidence store at each reading."""
    directories = {service: config.metrics_directory(service) for service in m.SERVICES}
    store = EvidenceStore(config.evidence_directory, readonly=True)
    state = _EvidenceState(store)

    def gauges() -> Iterator[Gauge]:
        yield Gauge(m.INFO, 1.0, (__version__,))
        if store.exists():
            yield from state.gauges(SystemClock().now())

    return Exposition(directories, gauges)


class _EvidenceState:
    """Gauges of the evidence store. Its rows are read again only when something was written to it."""

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._generation = -1
        self._issuers: dict[str, str] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._oldest: dict[str, datetime] = {}
        self._first: dict[str, datetime] = {}

    def gauges(self, at: datetime) -> tuple[Gauge, ...]:
        with self._lock:
            return tuple(self._now(at))

    def _now(self, at: datetime) -> Iterator[Gauge]:
        try:
            self._read()
            failing: dict[str, int] = {}
            for failure in self._store.failures():
                failing[failure.why] = failing.get(failure.why, 0) + (failure.retry_at is None or failure.retry_at > at)
        except Unavailable:
            yield Gauge(m.STORE, 0.0)
            return
        yield Gauge(m.STORE, 1.0)
        for (issuer, kind), count in self._counts.items():
            yield Gauge(m.ITEMS, float(count), (issuer, kind))
        for issuer, name in self._issuers.items():
            yield Gauge(m.ISSUER, 1.0, (issuer, name))
        for issuer, moment in self._oldest.items():
            yield Gauge(m.AGE, (at - moment).total_seconds(), (issuer, "crl"))
        for issuer, moment in self._first.items():
            yield Gauge(m.REMAINS, (moment - at).total_seconds(), (issuer, "crl"))
        for reason, count in failing.items():
            yield Gauge(m.FAILING, float(count), (reason,))

    def _read(self) -> None:
        generation = self._store.generation()
        if generation == self._generation != 0:
            return
        self._issuers, self._counts, self._oldest, self._first = {}, {}, {}, {}
        for entry in self._store.entries():
            key = entry.issuer.key_id[:16]
            if key not in self._issuers and len(self._issuers) >= _MOST_ISSUERS:
                continue
            # THR-10: names in certificates are hostile text.
            self._issuers[key] = one_line(entry.issuer.name, 100)
            self._counts[key, entry.kind] = self._counts.get((key, entry.kind), 0) + 1
            # OCSP answers that nobody uses any more end, and nothing is wrong with that.
            if entry.kind == "crl":
                if entry.this_update is not None:
                    self._oldest[key] = min(entry.this_update, self._oldest.get(key, entry.this_update))
                if entry.next_update is not None:
                    self._first[key] = min(entry.next_update, self._first.get(key, entry.next_update))
        self._generation = generation
