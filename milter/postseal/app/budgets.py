"""Budgets (THR-6): one message must not become many requests, and no host or line be flooded because of us."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from cachetools import LRUCache

from postseal.app.lookup_ports import Http
from postseal.app.ports import Clock
from postseal.core.transfer import Fetched, FetchFailed, Transfer

_MINUTE = 60.0
_HOSTS = 10_000


class Allowance:
    """How many requests one message may still cause."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._left = count
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    @property
    def spent(self) -> bool:
        """Was more asked for than there is?"""
        return self._left < 0


class HostLimits:
    """Requests to one host: so many at a time, so many within a minute."""

    def __init__(self, at_once: int, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: LRUCache[str, threading.BoundedSemaphore] = LRUCache(_HOSTS)
        self._times: LRUCache[str, deque[float]] = LRUCache(_HOSTS)

    def wait(self, host: str) -> float:
        """Seconds until the host may be asked again; 0 when it may be asked now."""
        now = self._clock.monotonic()
        with self._lock:
            times = self._times.setdefault(host, deque())
            while times and times[0] <= now - _MINUTE:
                times.popleft()
            return times[0] + _MINUTE - now if len(times) >= self.per_minute else 0.0

    def count(self, host: str) -> None:
        """A request to the host is about to start."""
        with self._lock:
            self._times.setdefault(host, deque()).append(self._clock.monotonic())

    def take(self, host: str) -> bool:
        """One request more to a host that is being asked already: counted, or refused."""
        if self.wait(host) > 0:
            return False
        self.count(host)
        return True

    def enter(self, host: str, patience: float) -> bool:
        """Take a slot, or give up after ``patience`` seconds."""
        with self._lock:
            slot = self._slots.setdefault(host, threading.BoundedSemaphore(self._at_once))
        return slot.acquire(timeout=patience)

    def leave(self, host: str) -> None:
        with self._lock:
            slot = self._slots.get(host)
        if slot is not None:
            slot.release()


class Ledger(Protocol):
    """What a day has cost so far, kept by the evidence store."""

    def spent(self, at: datetime) -> int: ...

    def spend(self, at: datetime, octets: int) -> None: ...


class MeteredHttp:
    """An ``Http`` that refuses when the day's octets are used up."""

    def __init__(self, http: Http, ledger: Ledger, clock: Clock, per_day: int) -> None:
        self._http = http
        self._ledger = ledger
        self._clock = clock
        self._per_day = per_day

    def get(self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None) -> Transfer:
        return self._count(url, lambda: self._http.get(url, max_size=max_size, deadline=deadline, headers=headers))

    def get_to(
        self, url: str, sink: Callable[[bytes], object], *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer:  # fmt: skip
        came = 0

        def counted(part: bytes) -> None:
            nonlocal came
            came += len(part)
            sink(part)

        # What breaks off has cost as much as what is whole, and a large body may break off at its last octet.
        return self._count(
            url,
            lambda: self._http.get_to(url, counted, max_size=max_size, deadline=deadline, until=until, headers=headers),
            lambda: came,
        )

    def post(self, url: str, body: bytes, *, content_type: str, max_size: int, deadline: float) -> Transfer:
        return self._count(
            url, lambda: self._http.post(url, body, content_type=content_type, max_size=max_size, deadline=deadline)
        )

    def _count(self, url: str, fetch: Callable[[], Transfer], came: Callable[[], int] = lambda: 0) -> Transfer:
        at = self._clock.now()
        if self._ledger.spent(at) >= self._per_day:
            return FetchFailed(url, "rev.budget", f"more than {self._per_day} octets were fetched today", 3600.0)
        transfer = fetch()
        size = len(transfer.body) if isinstance(transfer, Fetched) else 0
        self._ledger.spend(at, size + came())
        return transfer
