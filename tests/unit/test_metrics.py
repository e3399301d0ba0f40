"""Counting over processes (CACHE-14): files that survive their writers, and a reader that believes nobody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from postseal.core.errors import Unavailable
from postseal.sources.metrics import CATALOGUE, Exposition, Gauge, Recorder, alive, prepare
from postseal.sources.metrics import INFO as INFO_METRIC
from support.scratch import ROOT

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: bytes) -> Samples:
    """Every sample of an exposition, by name and sorted labels."""
    families = text_string_to_metric_families(text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def read(directory: Path, *gauges: Gauge) -> Samples:
    return samples(Exposition({"milter": directory}, lambda: gauges).render()[1])


def sealed(found: Samples) -> float:
    return found.get(("postseal_decisions_total", (("action", "sealed"), ("reason", "ok.sealed"))), 0.0)


def count(directory: Path, number: int, *, times: int = 1, end: str = "") -> subprocess.CompletedProcess[str]:
    """Another process that counts, and then does ``end``."""
    code = f"""
import os, signal
from pathlib import Path
from postseal.sources.metrics import Recorder
meter = Recorder(Path({str(directory)!r}), {number})
for _ in range({times}):
    meter.decided("sealed", "ok.sealed")
meter.took(0.003)
{end}
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)


def test_counts_of_several_processes_are_one_sum_and_outlive_a_killed_one(tmp_path: Path) -> None:
    """CACHE-14: what a worker counted stays when it is killed, and the one that takes its number goes on from there."""
    os.close(prepare(tmp_path))
    assert count(tmp_path, 0, times=3).returncode == 0
    assert count(tmp_path, 1, times=4, end="os.kill(os.getpid(), signal.SIGKILL)").returncode == -9
    assert sealed(read(tmp_path)) == 7
    assert count(tmp_path, 1, times=2).returncode == 0
    found = read(tmp_path)
    assert sealed(found) == 9
    assert found["postseal_message_seconds_count", ()] == 3
    assert found["postseal_message_seconds_bucket", (("le", "0.0025"),)] == 0
    assert found["postseal_message_seconds_bucket", (("le", "0.005"),)] == 3
    assert len(list(tmp_path.glob("*.db"))) == 4


def test_a_start_begins_at_nothing_and_shows_that_the_service_lives(tmp_path: Path) -> None:
    count(tmp_path, 0)
    assert not alive(tmp_path)
    handle = prepare(tmp_path)
    assert alive(tmp_path)
    assert sealed(read(tmp_path)) == 0
    assert read(tmp_path)["postseal_up", (("service", "milter"),)] == 1
    with pytest.raises(Unavailable, match="another process counts there"):
        prepare(tmp_path)
    os.close(handle)
    assert read(tmp_path)["postseal_up", (("service", "milter"),)] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 5000),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(path.read_bytes().replace(b'["postseal', b'{"postseal')),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_file_counts_as_absent(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """The others are still read, and nothing hangs."""
    os.close(prepare(tmp_path))
    count(tmp_path, 0, times=2)
    count(tmp_path, 1, times=5)
    spoil(tmp_path / "counter_1.db")
    assert sealed(read(tmp_path)) == 2


def test_a_writer_makes_a_damaged_file_anew(tmp_path: Path) -> None:
    os.close(prepare(tmp_path))
    (tmp_path / "counter_0.db").write_bytes(b"\x40\x9c\0\0" + b"\xff" * 5000)
    assert count(tmp_path, 0, times=2).returncode == 0
    assert sealed(read(tmp_path)) == 2


def test_only_metrics_of_the_catalogue_are_passed_on(tmp_path: Path) -> None:
    """The service that writes may have been taken over; the reader speaks in our words only."""
    os.close(prepare(tmp_path))
    code = f"""
import os
os.environ["PROMETHEUS_MULTIPROC_DIR"] = {str(tmp_path)!r}
from prometheus_client import CollectorRegistry, Counter, values
values.ValueClass = values.MultiProcessValue(lambda: 5)
Counter("evil", "x", registry=CollectorRegistry()).inc()
Counter("postseal_decisions", "lies", ["address"], registry=CollectorRegistry()).labels("bob@example.org").inc()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    _, text = Exposition({"milter": tmp_path}, lambda: ()).render()
    assert b"evil" not in text
    assert b"bob@" not in text
    assert b"lies" not in text


def test_files_have_all_their_room_from_the_start(tmp_path: Path) -> None:
    """A full disk shows when the service starts, not as a SIGBUS in the middle of a message."""
    os.close(prepare(tmp_path))
    count(tmp_path, 0)
    for path in tmp_path.glob("*.db"):
        status = path.stat()
        assert status.st_blocks * 512 >= status.st_size >= 64 * 1024, path


def test_every_reason_and_action_fits_into_the_room(tmp_path: Path) -> None:
    """No catalogue can make the file grow after its start."""
    from postseal.core.plan import Action
    from postseal.core.reasons import CATALOGUE as REASONS

    os.close(prepare(tmp_path))
    meter = Recorder(tmp_path, 0)
    size = (tmp_path / "counter_0.db").stat().st_size
    for code in REASONS:
        for action in Action if not code.startswith("rev.") else ():
            meter.decided(action.value, code)
        meter.doubted("availability", code)
        meter.failed(code)
        meter.fetched("ocsp", code, 0.1)
        meter.fetched("crl", code, 0.1)
    assert (tmp_path / "counter_0.db").stat().st_size == size


def test_a_directory_that_can_t_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"metrics directory .*/file/metrics: Not a directory; nothing is counted"):
        Recorder(tmp_path / "file" / "metrics", 0)


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    os.close(prepare(tmp_path))
    found = read(tmp_path, Gauge(INFO_METRIC, 1.0, ('1"} 5\nevil 1',)))
    assert ("evil", ()) not in found


def test_the_table_in_the_manual_is_the_catalogue() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"(?m)^\| `(postseal_\w+)` \| ([\w, ]*) \| (\w+)\. (.*) \|$", text)
    assert rows == [(d.name, ", ".join(d.labels), d.kind, d.help) for d in CATALOGUE.values()]
