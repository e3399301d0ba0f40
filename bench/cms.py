"""CMS: CPU and memory of sealing, opening and verifying, against openssl, cryptography and M2Crypto on the same files.

Every measurement is a process of its own, the peers take turns, and the figures are medians. What a process spends before it
begins is taken off both: postseal and the libraries measure themselves once they are loaded, of openssl's CPU that of the same
command with next to no input is subtracted. Sealed is to base64 in a file; openssl's lines end with LF, ours with CRLF.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from common import alternate, median, save, table

ROUNDS = 7
LARGE, SMALL, HUGE = 25_000_000, 2_000, 1_000_000_000
SUITES = ("aes256-cbc", "aes256-gcm")
MILLI = 1000

Found = dict[str, float]


class Bench:
    """Files that all measurements share, and what was found."""

    def __init__(self, folder: Path) -> None:
        from support.pki import authority

        now = datetime.now(UTC)
        span = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=90)}
        root = authority("Bench root", **span)
        bob = root.issue("bob@partner.example", **span)
        self.folder = folder
        self.results: dict[str, Any] = {}
        for name, octets in {"root.pem": root.pem, "bob.pem": bob.pem, "bob.key": bob.key_pem}.items():
            (folder / name).write_bytes(octets)
        p256 = root.issue("eve@partner.example", kind="p256", **span)
        (folder / "p256.pem").write_bytes(p256.pem)
        # A key for each of them takes ten seconds to make and wraps no faster or slower.
        people = (root.issue(f"{n}@partner.example", slot=n % 10, **span) for n in range(100))
        (folder / "hundred.pem").write_bytes(b"".join(each.pem for each in people))
        header = (
            b"From: Ann <ann@home.test>\r\nTo: Bob <bob@partner.example>\r\nSubject: bench\r\nMIME-Version: 1.0\r\n"
        )
        header += b"Message-ID: <1@home.test>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        line = b"x" * 74 + b"\r\n"
        (folder / "empty").write_bytes(b"\r\n")
        (folder / "body").write_bytes(line * (LARGE // len(line)))
        (folder / "small.eml").write_bytes(header + line * ((SMALL - len(header)) // len(line)))
        (folder / "large.eml").write_bytes(header + line * (LARGE // len(line)))
        (folder / "tiny.eml").write_bytes(header + line)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def task(self, *words: str | Path) -> Found:
        self._clear()
        command = [sys.executable, str(Path(__file__).with_name("cms_tasks.py")), *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: Found = json.loads(done.stdout)
        return found

    def command(self, words: Sequence[str], stdin: str = os.devnull, stdout: str = os.devnull) -> float:
        """CPU of a command, its start included, in seconds."""
        self._clear()
        with open(stdin, "rb") as source, open(stdout, "wb") as sink:
            process = subprocess.Popen(words, stdin=source, stdout=sink, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            raise SystemExit(f"failed: {' '.join(words)}")
        return usage.ru_utime + usage.ru_stime

    def _clear(self) -> None:
        """To give up the pages of the file before would be counted as work of whoever opens it next."""
        for path in self.folder.glob("out.*"):
            path.unlink()

    def encrypting(self, suite: str, source: str) -> list[str]:
        cipher = {"aes256-cbc": "-aes256", "aes256-gcm": "-aes-256-gcm"}[suite]
        words = ["openssl", "cms", "-encrypt", "-binary", "-stream", cipher, "-in", self.path(source)]
        return [*words, "-out", self.path("out.openssl"), self.path("bob.pem")]

    def cpu(self, *words: str) -> float:
        return self.task(*words)["cpu"]


def without_start(found: dict[str, list[float]], name: str, start: str) -> float:
    return median(found[name]) - median(found[start])


def sealing(bench: Bench) -> None:
    rows = []
    body, bob, out = bench.path("body"), bench.path("bob.pem"), bench.path("out.postseal")
    for suite in SUITES:
        seal = [sys.executable, "-m", "postseal.shell.cli.main", "seal", "--cipher", suite, "--to", bob]
        peers: dict[str, Callable[[], float]] = {
            "openssl": partial(bench.command, bench.encrypting(suite, "body")),
            "openssl start": partial(bench.command, bench.encrypting(suite, "empty")),
            "postseal": partial(bench.cpu, "seal", suite, body, bob, out),
            "postseal, as the milter": partial(bench.cpu, "held", suite, body, bob, out, str(1 << 30)),
            "postseal seal": partial(bench.command, seal, bench.path("large.eml"), out),
            "postseal seal start": partial(bench.command, seal, bench.path("tiny.eml"), out),
        }
        if suite == "aes256-cbc":
            peers["cryptography PKCS7EnvelopeBuilder"] = partial(bench.cpu, "pkcs7", body, bob, out)
            peers["M2Crypto"] = partial(bench.cpu, "m2crypto", body, bob, out)
        found = alternate(peers, ROUNDS)
        taken = {
            name: without_start(found, name, f"{name} start") if f"{name} start" in found else median(found[name])
            for name in found
            if not name.endswith(" start")
        }
        rows += [[suite, name, cpu * MILLI, cpu / taken["openssl"]] for name, cpu in taken.items()]
        bench.results[f"25 MB {suite}"] = taken
    title = "Sealing 25 MB for one RSA-2048 recipient, file to file in base64, without the start"
    table(title, ["suite", "by", "CPU ms", "of openssl's"], rows)


def small_messages(bench: Bench) -> None:
    rows = []
    source, bob, out = bench.path("small.eml"), bench.path("bob.pem"), bench.path("out.postseal")
    peers: dict[str, Callable[[], float]] = {
        "openssl cms, a process for each": partial(bench.command, bench.encrypting("aes256-cbc", "small.eml")),
        "aes256-cbc, RSA-2048": partial(bench.cpu, "small", "aes256-cbc", source, bob, "500"),
        "aes256-gcm, RSA-2048": partial(bench.cpu, "small", "aes256-gcm", source, bob, "500"),
        "aes256-cbc, P-256": partial(bench.cpu, "small", "aes256-cbc", source, bench.path("p256.pem"), "500"),
        "cryptography PKCS7EnvelopeBuilder (once)": partial(bench.cpu, "pkcs7", source, bob, out),
        "M2Crypto (once)": partial(bench.cpu, "m2crypto", source, bob, out),
    }
    found = {name: median(values) for name, values in alternate(peers, ROUNDS).items()}
    started = found["openssl cms, a process for each"]
    rows = [[name, cpu * MILLI, started / cpu] for name, cpu in found.items()]
    bench.results["2 KB"] = found
    table("Sealing 2 KB, everything from header to base64", ["by", "CPU ms", "messages for one openssl"], rows)
    hundred = bench.task("many", "aes256-cbc", source, bench.path("hundred.pem"), "20")
    bench.results["100 recipients"] = hundred
    table(
        "2 KB for 100 RSA-2048 recipients in one message",
        ["100 bare RSA operations ms", "the message ms", "ratio"],
        [[hundred["bare"] * MILLI, hundred["cpu"] * MILLI, hundred["cpu"] / hundred["bare"]]],
    )


def peaks(bench: Bench) -> None:
    rows = []
    huge, out, bob = bench.folder / "huge.eml", bench.path("out.postseal"), bench.path("bob.pem")
    body, suite = bench.path("body"), "aes256-cbc"
    with huge.open("wb") as file:
        file.write(b"Subject: huge\r\n\r\n")
        block = (b"x" * 74 + b"\r\n") * 10_000
        for _ in range(HUGE // len(block)):
            file.write(block)
    spool = str(_memory_limit())
    runs = {
        "25 MB, ciphertext in memory": (LARGE, partial(bench.task, "held", suite, body, bob, out, str(1 << 40))),
        "1 GB, ciphertext in a file": (HUGE, partial(bench.task, "held", suite, huge, bob, out, spool)),
        "1 GB, length known": (HUGE, partial(bench.task, "seal", suite, huge, bob, out)),
    }
    for name, (size, run) in runs.items():
        peak = median([run()["peak"] for _ in range(3)]) * 2**20 / 1e6
        rows.append([name, peak, peak * 1e6 / size])
    for name, piped in {"1 GB, postseal seal < file": False, "1 GB, cat file | postseal seal": True}.items():
        base = _command_peak(bench, "tiny.eml", piped)
        peak = (_command_peak(bench, huge.name, piped) - base) * 1024 / 1e6
        rows.append([name, peak, peak * 1e6 / HUGE])
    bench.results["peak MB"] = {row[0]: row[1] for row in rows}
    table("Peak memory above the interpreter", ["what", "MB", "of the message"], rows)
    huge.unlink()


def _memory_limit() -> int:
    from postseal.config import Config

    return Config.default().milter.memory_limit


def _command_peak(bench: Bench, source: str, piped: bool) -> int:
    """Peak of ``postseal seal`` in KiB, as the kernel counts it."""
    measure = "import os, subprocess, sys; child = subprocess.Popen(sys.argv[1:]); "
    measure += "print(os.wait4(child.pid, 0)[2].ru_maxrss, file=sys.stderr)"
    seal = [sys.executable, "-c", measure, sys.executable, "-m", "postseal.shell.cli.main", "seal", "--to"]
    with open(bench.path(source), "rb") as file, open(bench.path("out.postseal"), "wb") as sink:
        writer = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) if piped else None
        stdin = writer.stdout if writer else file
        done = subprocess.run(
            [*seal, bench.path("bob.pem")], stdin=stdin, stdout=sink, stderr=subprocess.PIPE, check=True
        )
        if writer:
            writer.wait()
    return int(done.stderr.split()[-1])


def workers(bench: Bench) -> None:
    """How much more two seal than one, on two cores: in processes as the milter has them, and in threads of one process."""

    def rate(processes: int, threads: int, suite: str) -> float:
        times = 12
        command = [sys.executable, str(Path(__file__).with_name("cms_tasks.py")), "worker", suite]
        command += [bench.path("body"), bench.path("bob.pem"), str(times), str(threads)]
        running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for each in running:
            assert each.stdout is not None
            each.stdout.readline()
        for each in running:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        wall = max(json.loads(each.communicate()[0])["wall"] for each in running)
        return processes * threads * times / float(wall)

    rows = []
    for suite in SUITES:
        peers = {
            "one": partial(rate, 1, 1, suite),
            "two processes": partial(rate, 2, 1, suite),
            "two threads": partial(rate, 1, 2, suite),
        }
        found = {name: median(values) for name, values in alternate(peers, ROUNDS).items()}
        rows += [[suite, name, value, value / found["one"]] for name, value in found.items()]
        bench.results[f"workers {suite}"] = found
    table("25 MB sealed again and again", ["suite", "by", "messages/s", "of one"], rows)


def reading(bench: Bench) -> None:
    rows = []
    bob, key, out = bench.path("bob.pem"), bench.path("bob.key"), bench.path("out.postseal")
    seal = [sys.executable, "-m", "postseal.shell.cli.main", "seal", "--to", bob, "--cipher"]
    sign = ["openssl", "cms", "-sign", "-binary", "-crlfeol", "-md", "sha256", "-signer", bob, "-inkey", key]
    for size, source in (("large", "large.eml"), ("tiny", "tiny.eml")):
        for suite in SUITES:
            bench.command([*seal, suite], bench.path(source), bench.path(f"{size}.{suite}"))
        bench.command([*sign, "-in", bench.path(source), "-out", bench.path(f"{size}.signed")])
    decrypt = ["openssl", "cms", "-decrypt", "-binary", "-recip", bob, "-inkey", key, "-out", bench.path("out.openssl")]
    verify = ["openssl", "cms", "-verify", "-binary", "-crlfeol", "-CAfile", bench.path("root.pem"), "-out"]
    verify += [bench.path("out.openssl")]
    for name, theirs, ours in (
        ("open aes256-cbc", decrypt, ("opening", bench.path("large.aes256-cbc"), key, out)),
        ("open aes256-gcm", decrypt, ("opening", bench.path("large.aes256-gcm"), key, out)),
        ("verify detached RSA, SHA-256", verify, ("verifying", bench.path("large.signed"), out)),
    ):
        kind = Path(ours[1]).suffix
        found = alternate(
            {
                "openssl": partial(bench.command, [*theirs, "-in", ours[1]]),
                "openssl start": partial(bench.command, [*theirs, "-in", bench.path(f"tiny{kind}")]),
                "postseal": partial(bench.cpu, *ours),
            },
            ROUNDS,
        )
        openssl, postseal = without_start(found, "openssl", "openssl start"), median(found["postseal"])
        peak = median([bench.task(*ours)["peak"] for _ in range(3)])
        rows.append([name, openssl * MILLI, postseal * MILLI, postseal / openssl, peak])
        bench.results[name] = {"openssl": openssl, "postseal": postseal, "peak_mib": peak}
    title = "Reading 25 MB, file to file, without the start"
    table(title, ["what", "openssl CPU ms", "postseal CPU ms", "ratio", "postseal peak MiB"], rows)


def main() -> None:
    parts = {
        "sealing": sealing,
        "small": small_messages,
        "reading": reading,
        "peaks": peaks,
        "workers": workers,
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for part in sys.argv[1:] or parts:
            parts[part](bench)
    print(f"\nwritten: {save('cms', bench.results)}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    main()
