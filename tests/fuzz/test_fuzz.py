"""The fuzzer on every reader, bounded: a set number of inputs from a set start, the same in each run.

``./dev fuzz reader`` goes on without an end. The fuzzer, atheris, has wheels for x86_64 only: on other machines what it starts
from is read, and that nothing else was tried is told as a skipped test, which ``--no-skips`` takes for a failure.
"""

from __future__ import annotations

import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
SEEDS = FOLDER.parent / "data" / "fuzz"
# Messages that others made are seeds too.
FOREIGN = FOLDER.parent / "data" / "foreign"
OTHERS = {
    "enveloped": ("pyasn1", "rfc4134", "openssl"),
    "ber": ("pyasn1", "rfc4134"),
    "signed": ("pyasn1", "rfc4134", "openssl"),
    "message": ("nss",),
    "compressed": ("pyasn1", "asn1crypto"),
}
# Inputs, and how many edges of the code these must have reached: a fuzzer that sees nothing finds nothing.
RUNS = {
    "enveloped": (8_000, 150),
    "ber": (20_000, 70),
    "message": (20_000, 400),
    "signed": (20_000, 300),
    "compressed": (20_000, 60),
    "capabilities": (20_000, 60),
}


def folders(target: str) -> list[Path]:
    return [SEEDS / target, *(FOREIGN / folder for folder in OTHERS.get(target, ()))]


@pytest.mark.parametrize("target", RUNS)
def test_what_the_fuzzer_starts_from_is_read_without_it(target: str) -> None:
    """THR-7: no exception but BadData, on any machine; cut off at any tenth of its length, too."""
    read = runpy.run_path(str(FOLDER / "targets.py"))["TARGETS"][target]
    seeds = [path.read_bytes() for folder in folders(target) for path in folder.iterdir() if path.is_file()]
    assert seeds
    for seed in seeds:
        for tenth in range(11):
            read(seed[: len(seed) * tenth // 10])


@pytest.fixture
def fuzzer() -> None:
    if platform.machine() != "x86_64":
        pytest.importorskip(
            "atheris", reason="atheris has wheels for x86_64 only: the fuzzer isn't run on this machine"
        )


def fuzz(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "run.py"), target, "-timeout=2", "-rss_limit_mb=1000", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.usefixtures("fuzzer")
@pytest.mark.parametrize("target", RUNS)
def test_the_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    """THR-7: no exception but BadData, no input that takes two seconds or a gigabyte."""
    runs, edges = RUNS[target]
    (tmp_path / "corpus").mkdir()
    done = fuzz(
        target, "-seed=4", f"-runs={runs}", "-max_len=4096", f"-artifact_prefix={tmp_path}/", str(tmp_path / "corpus"),
        *map(str, folders(target)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {runs} runs" in done.stderr
    covered = max(int(found) for found in re.findall(r" cov: (\d+) ", done.stderr))
    assert covered >= edges, f"{covered} edges reached"


@pytest.mark.usefixtures("fuzzer")
def test_the_fuzzer_would_find_something(tmp_path: Path) -> None:
    """A target that fails is reported as a crash, with what it was given kept in a file."""
    broken = tmp_path / "broken.py"
    source = (FOLDER / "run.py").read_text()
    assert "from targets import TARGETS" in source
    broken.write_text(
        source.replace("from targets import TARGETS", "TARGETS = {'ber': lambda data: 1 // (1 - data.count(b'0'))}")
    )
    done = subprocess.run(
        [sys.executable, str(broken), "ber", "-seed=4", "-runs=100000", f"-artifact_prefix={tmp_path}/"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stdout
    assert len(list(tmp_path.glob("crash-*"))) == 1
