"""CPU and peak memory of sealing one message, against ``openssl cms -encrypt -stream`` on the same file."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import alternate, median, save, table

SIZES = {"1 MB": 1_000_000, "25 MB": 25_000_000}
ROUNDS = 7
CHUNK = 65535


def main() -> None:
    from support.pki import authority

    rows = []
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        leaf = authority("Bench root").issue("bob@partner.example")
        certificate = Path(folder, "bob.pem")
        certificate.write_bytes(leaf.pem)
        for label, size in SIZES.items():
            body = Path(folder, "body")
            body.write_bytes((b"x" * 74 + b"\r\n") * (size // 76))
            memory: dict[str, list[float]] = {"openssl": [], "postseal": []}

            def openssl(body: Path = body, memory: dict[str, list[float]] = memory) -> float:
                return _openssl(body, certificate, memory["openssl"])

            def postseal(body: Path = body, memory: dict[str, list[float]] = memory) -> float:
                return _postseal(body, certificate, memory["postseal"])

            found = alternate({"openssl": openssl, "postseal": postseal}, ROUNDS)
            cpu = {name: median(values) * 1000 for name, values in found.items()}
            peak = {name: median(values) for name, values in memory.items()}
            ratio = cpu["postseal"] / cpu["openssl"]
            rows.append([label, cpu["openssl"], cpu["postseal"], ratio, peak["openssl"], peak["postseal"]])
            results[label] = {"cpu_ms": cpu, "ratio": ratio, "peak_mib": peak}
    table(
        "Sealing: CPU and memory, one RSA-2048 recipient, AES-256-CBC",
        ["size", "openssl CPU ms", "postseal CPU ms", "ratio", "openssl peak MiB", "postseal peak over idle MiB"],
        rows,
    )
    print(f"\nwritten: {save('sealing', results)}")


def _openssl(body: Path, certificate: Path, memory: list[float]) -> float:
    command = ["openssl", "cms", "-encrypt", "-binary", "-stream", "-aes256", "-in", str(body), "-out", os.devnull]
    process = subprocess.Popen([*command, str(certificate)])
    peak = 0
    while True:
        # ru_maxrss would be that of this process, which the child was before it became openssl.
        with contextlib.suppress(OSError, StopIteration):
            peak = max(peak, _status("VmHWM", process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.001)
    if status:
        raise SystemExit(f"openssl failed with status {status}")
    memory.append(peak / 1024)
    return usage.ru_utime + usage.ru_stime


def _postseal(body: Path, certificate: Path, memory: list[float]) -> float:
    """A fresh process each time; it measures itself, since a worker of the milter has Python loaded already."""
    command = [sys.executable, __file__, "--child", str(body), str(certificate)]
    cpu, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    memory.append(float(peak))
    return float(cpu)


def _child(body: Path, certificate: Path) -> None:
    from postseal.core.certs import load_certificates
    from postseal.core.cms import built, content, envelope, lines
    from postseal.core.policy import clear_by_operator
    from postseal.core.suite import Suite

    cleared = [clear_by_operator(load_certificates(certificate.read_bytes())[0])]
    suite = Suite.AES_256_CBC
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    before = _status("VmRSS")
    start = time.process_time()
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    sealer = content.ContentSealer(suite, key, iv)
    with body.open("rb") as file:
        kept = [sealer.update(chunk) for chunk in iter(lambda: file.read(CHUNK), b"")]
    kept.append(sealer.finish())
    length = sum(map(len, kept))
    head, tail = envelope.envelope(suite, key, cleared, iv, length, sealer.tag)
    built.check_built(head, tail, length, cleared)

    def der() -> Iterator[bytes]:
        yield head
        kept.reverse()
        while kept:
            yield kept.pop()
        yield tail

    with open(os.devnull, "wb") as sink:
        for block in lines.base64_blocks(der()):
            sink.write(block)
    print(time.process_time() - start, (_status("VmHWM") - before) / 1024)


def _status(key: str, pid: int | str = "self") -> int:
    """A line of /proc/PID/status in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key + ":"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        main()
