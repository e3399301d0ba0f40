"""Metrics through prometheus-client, over all processes of a node: its files of shared memory, written here and read here.

Each service has a directory of its own below the runtime directory, emptied when the service starts. Each of its processes
has a number that no other living one has, and so files of its own; a worker that takes the place of a dead one goes on with
the dead one's counters, so they never go back and the files don't become more with every death. The files are given all
their room when they are made: writing to shared memory that a full disk can't back would end the process (mmap(2), SIGBUS).

``postseal metrics`` reads them. What it finds in them is another process's word: only the metrics of ``CATALOGUE`` are
passed on, and a file that can't be read counts as absent.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postseal.core.errors import Unavailable
from postseal.sources.store import create_directory

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TRANSFER = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The files of one process, with room for everything that the catalogues of reasons can fill them with.
_ROOM = {"counter": 256 * 1024, "histogram": 64 * 1024}
_FILE = re.compile(r"(counter|histogram)_[0-9]{1,6}\.db")
_LARGEST = 4 * 1024 * 1024
_ALIVE = "alive"


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric as documented. ``buckets`` make it a histogram; ``gauge`` metrics are computed when they are read."""

    name: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    gauge: bool = False

    @property
    def kind(self) -> str:
        return "gauge" if self.gauge else "histogram" if self.buckets else "counter"


DECISIONS = Declared(
    "postseal_decisions_total", ("action", "reason"), "Recipients, by what became of their mail and why."
)
DOUBTS = Declared(
    "postseal_doubts_total", ("doubt", "reason"), "Recipients whose certificate's revocation status was unknown."
)
DELAY = Declared("postseal_message_seconds", (), "How long messages were held up by postseal.", LATENCY)
FAILURES = Declared("postseal_failures_total", ("reason",), "Messages deferred because something of postseal's failed.")
QUESTIONS = Declared(
    "postseal_lookup_questions_total",
    ("outcome",),
    "Questions to the lookup service: taken, or refused without a valid path.",
)
FETCHES = Declared(
    "postseal_lookup_fetches_total", ("kind", "outcome"), "Fetches of evidence that ended: ok, or the reason for none."
)
FETCH_SECONDS = Declared(
    "postseal_lookup_fetch_seconds", ("kind",), "From the start of a fetch until its result was stored.", TRANSFER
)
OCTETS = Declared("postseal_lookup_received_bytes_total", (), "Octets of evidence received over the network.")
JOINED = Declared("postseal_lookup_joined_total", ("kind",), "Waiters that joined a fetch which was under way already.")
BACKOFFS = Declared(
    "postseal_lookup_backoffs_total", ("kind",), "Fetches not made because the URL or host is left alone."
)
PREFETCHES = Declared(
    "postseal_lookup_prefetches_total", ("kind",), "Fetches started ahead of time, before evidence ends."
)
ROLLBACKS = Declared(
    "postseal_lookup_rollbacks_total", (), "Evidence refused because it was older than what was seen before."
)
UP = Declared("postseal_up", ("service",), "1 while the service runs.", gauge=True)
INFO = Declared("postseal_info", ("version",), "Always 1.", gauge=True)
STORE = Declared("postseal_evidence_readable", (), "1 while the evidence store can be read.", gauge=True)
ITEMS = Declared("postseal_evidence_items", ("issuer", "kind"), "Stored CRLs and OCSP answers.", gauge=True)
AGE = Declared(
    "postseal_evidence_age_seconds", ("issuer", "kind"), "Time since thisUpdate of the oldest CRL.", gauge=True
)
REMAINS = Declared(
    "postseal_evidence_next_update_seconds", ("issuer", "kind"),
    "Time until the first nextUpdate of the issuer's CRLs; negative when it is over.", gauge=True,
)  # fmt: skip
ISSUER = Declared(
    "postseal_evidence_issuer_info", ("issuer", "name"), "Always 1; the name that belongs to a key.", gauge=True
)
FAILING = Declared(
    "postseal_evidence_failing_urls", ("reason",), "URLs that are left alone after failures.", gauge=True
)

MAIL = (DECISIONS, DOUBTS, DELAY, FAILURES)
LOOKUP = (QUESTIONS, FETCHES, FETCH_SECONDS, OCTETS, JOINED, BACKOFFS, PREFETCHES, ROLLBACKS)
EVIDENCE = (STORE, ITEMS, AGE, REMAINS, ISSUER, FAILING)
CATALOGUE = {m.name: m for m in (*MAIL, *LOOKUP, *EVIDENCE, UP, INFO)}
SERVICES = ("milter", "lookup")


def prepare(directory: Path) -> int:
    """Empty ``directory`` for a service that starts; the descriptor returned shows, while it is open, that it lives.

    Raises Unavailable. Call it before any process of the service counts.
    """
    try:
        create_directory(directory)
        handle = os.open(directory / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            _lock(handle)
            for entry in os.scandir(directory):
                if _FILE.fullmatch(entry.name):
                    os.unlink(entry.path)
        except OSError:
            os.close(handle)
            raise
    except OSError as exc:
        cause = "another process counts there" if isinstance(exc, BlockingIOError) else exc.strerror
        raise Unavailable(f"metrics directory {directory}: {cause}; nothing is counted") from exc
    return handle


def _lock(handle: int) -> None:
    """Whoever looks whether we live holds the lock for a moment, so one refusal says nothing."""
    for left in reversed(range(20)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.01)


class Recorder:
    """Counts in the files of process ``number``. One per process: prometheus-client has one place for all its values.

    Both meters of ``app.metering``. Raises Unavailable when the files can't be made.
    """

    def __init__(self, directory: Path, number: int) -> None:
        try:
            for kind, room in _ROOM.items():
                _make_room(directory / f"{kind}_{number}.db", room)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
            import prometheus_client
            from prometheus_client import values

            values.ValueClass = values.MultiProcessValue(lambda: number)
            registry = prometheus_client.CollectorRegistry()
            made = {d: _make(prometheus_client, registry, d) for d in (*MAIL, *LOOKUP)}
        except (OSError, ValueError, RuntimeError) as exc:
            cause = getattr(exc, "strerror", None) or str(exc)
            raise Unavailable(f"metrics directory {directory}: {cause}; nothing is counted") from exc
        self._made = made
        # A child of a metric is looked up once; afterwards counting is one addition in shared memory.
        self._children: dict[tuple[str, ...], Callable[[float], None]] = {}

    def decided(self, action: str, reason: str) -> None:
        self._count(DECISIONS, action, reason)

    def doubted(self, doubt: str, reason: str) -> None:
        self._count(DOUBTS, doubt, reason)

    def took(self, seconds: float) -> None:
        self._observe(DELAY, seconds)

    def failed(self, reason: str) -> None:
        self._count(FAILURES, reason)

    def asked(self, taken: int, refused: int) -> None:
        self._count(QUESTIONS, "taken", by=taken)
        if refused:
            self._count(QUESTIONS, "refused", by=refused)

    def fetched(self, kind: str, outcome: str, seconds: float) -> None:
        self._count(FETCHES, kind, outcome)
        self._observe(FETCH_SECONDS, seconds, kind)
        if outcome == "rev.rollback":
            self._count(ROLLBACKS)

    def received(self, octets: int) -> None:
        self._count(OCTETS, by=octets)

    def joined(self, kind: str) -> None:
        self._count(JOINED, kind)

    def backed_off(self, kind: str) -> None:
        self._count(BACKOFFS, kind)

    def prefetched(self, kind: str) -> None:
        self._count(PREFETCHES, kind)

    def _count(self, declared: Declared, *labels: str, by: float = 1.0) -> None:
        self._call(declared, labels, "inc", by)

    def _observe(self, declared: Declared, value: float, *labels: str) -> None:
        self._call(declared, labels, "observe", value)

    def _call(self, declared: Declared, labels: tuple[str, ...], verb: str, value: float) -> None:
        key = (declared.name, *labels)
        child = self._children.get(key)
        if child is None:
            metric = self._made[declared]
            child = self._children[key] = getattr(metric.labels(*labels) if labels else metric, verb)
        child(value)


def _make(client: Any, registry: Any, declared: Declared) -> Any:
    if declared.buckets:
        return client.Histogram(
            declared.name, declared.help, declared.labels, registry=registry, buckets=declared.buckets
        )
    return client.Counter(declared.name, declared.help, declared.labels, registry=registry)


def _make_room(path: Path, room: int) -> None:
    """The file with all its room, zeros if it is new; one that can't be read any more is made anew."""
    with suppress(FileNotFoundError):
        if _readable(path) is None:
            path.unlink()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        os.posix_fallocate(handle, 0, room)
    finally:
        os.close(handle)


def _readable(path: Path) -> list[str] | None:
    """The keys in a file of prometheus-client; None when it isn't one."""
    from prometheus_client.mmap_dict import MmapedDict

    try:
        keys = [key for key, *_ in MmapedDict.read_all_values_from_file(str(path))]
        names = [str(json.loads(key)[0]) for key in keys]
    except FileNotFoundError:
        raise
    # What a dying process or a hostile one leaves: cut short, not UTF-8, not JSON, lengths that lead nowhere.
    except Exception:
        return None
    return names


# ---- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value at the moment of reading; ``labels`` in the order of the declaration."""

    declared: Declared
    value: float
    labels: tuple[str, ...] = ()


class Exposition:
    """All metrics of a node as text: what the services have counted in ``directories``, and ``gauges``, asked each time."""

    def __init__(self, directories: dict[str, Path], gauges: Callable[[], Iterable[Gauge]]) -> None:
        import prometheus_client

        self._directories = directories
        self._gauges = gauges
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text, in the format that ``accept`` (a header field) asks for."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def collect(self) -> Iterator[Any]:
        """For prometheus-client."""
        from prometheus_client.metrics_core import GaugeMetricFamily
        from prometheus_client.multiprocess import MultiProcessCollector

        files = [str(p) for directory in self._directories.values() for p in _files(directory)]
        for metric in MultiProcessCollector.merge(files):
            declared = CATALOGUE.get(metric.name + "_total") or CATALOGUE.get(metric.name)
            if declared is not None and metric.type == declared.kind:
                # The help is ours, and so are the labels; an unknown label would be somebody else's text.
                metric.documentation = declared.help
                allowed = {*declared.labels, "le"}
                metric.samples = [s for s in metric.samples if allowed.issuperset(s.labels)]
                yield metric
        families: dict[str, Any] = {}
        up = [Gauge(UP, float(alive(path)), (name,)) for name, path in self._directories.items()]
        for gauge in (*up, *self._gauges()):
            declared = gauge.declared
            family = families.setdefault(
                declared.name, GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)
            )
            family.add_metric(gauge.labels, gauge.value)
        yield from families.values()

    def describe(self) -> list[Any]:
        """For prometheus-client: nothing is known before the files are read."""
        return []


def alive(directory: Path) -> bool:
    """Does the service of ``directory`` run? It holds a lock from its start to its end, however it ends."""
    try:
        handle = os.open(directory / _ALIVE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _files(directory: Path) -> list[Path]:
    """The files of one service that can be read now."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(directory):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                sound = stat.S_ISREG(status.st_mode) and 8 <= status.st_size <= _LARGEST
                if sound and _FILE.fullmatch(entry.name) and _readable(Path(entry.path)):
                    found.append(Path(entry.path))
    return sorted(found)
