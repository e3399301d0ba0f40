"""A CRL of a million entries, and one of five: verified, indexed, searched, opened by workers, and replaced under load.

The peer is ``openssl crl -verify`` on the same file in the same run. Every measurement is a fresh process: CPU is user and
system time, memory the highest RssAnon that was seen. Lines that begin with "whole process" include its start.

Targets for a million entries, five times as much for five: at most 0.65 of the peer's CPU and 64 MB of own memory, a first
answer within 0.1 s, a look-up under 5 us, and a worker's growth under 20 MB of shared pages and 1 MB of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from common import median, percentile, save, table
from crl_process import URL, resident

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from postseal.core.crl import signature_valid
from postseal.core.evidence import CrlEvidence, question_for
from postseal.sources.evidence import EvidenceStore
from support.evidence import algorithm, extension_list, name_of, node, number, reason, utc
from support.pki import Authority, authority

ROUNDS = 3
SIZES = (1_000_000, 5_000_000)
PROCESS = str(Path(__file__).with_name("crl_process.py"))
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def write_crl(path: Path, ca: Authority, count: int, version: int) -> None:
    """A signed CRL with serial numbers of 16 or 17 octets, seven of ten entries with a reason."""
    chance = random.Random(count)
    reasons = [extension_list([reason(code)]) for code in (1, 4, 5)]
    dates = [utc(NOW - n * DAY) for n in range(1, 400)]
    entries = bytearray()
    while count:
        piece = chance.randbytes(16 * min(count, 65536))
        for at in range(0, len(piece), 16):
            serial = bytes((piece[at] | 1,)) + piece[at + 1 : at + 16]
            if serial[0] > 0x7F:
                serial = b"\x00" + serial
            rest = dates[piece[at + 1] + piece[at + 2] // 2]
            if piece[at + 3] < 179:
                rest += reasons[piece[at + 4] % 3]
            entries += b"%c%c\x02%c%b%b" % (0x30, 2 + len(serial) + len(rest), len(serial), serial, rest)
        count -= len(piece) // 16
    before = b"".join((b"\x02\x01\x01", algorithm("sha256"), name_of(ca), utc(NOW), utc(NOW + 7 * DAY)))
    after = node(0xA0, extension_list([number(version)]))
    inner = [before, _sequence(len(entries)), bytes(entries), after]
    tbs = [_sequence(sum(map(len, inner))), *inner]
    state = hashes.Hash(hashes.SHA256())
    for part in tbs:
        state.update(part)
    signature = ca.key.sign(state.finalize(), padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    end = algorithm("sha256") + node(3, b"\x00", signature)
    with open(path, "wb") as out:
        for part in (_sequence(sum(map(len, tbs)) + len(end)), *tbs, end):
            out.write(part)


def _sequence(size: int) -> bytes:
    """The header of a SEQUENCE of this size, without a copy of its content."""
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x30, 0x80 | len(octets))) + octets


def run(*command: str) -> tuple[float, float, str]:
    """CPU seconds, highest anonymous memory in MB, and the output of a process."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        most = 0.0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            most = max(most, resident(process.pid)[0])
            time.sleep(0.004)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        output.seek(0)
        return usage.ru_utime + usage.ru_stime, most, output.read().decode()


def size_of(count: int, folder: Path, ca: Authority, ca_file: str) -> dict[str, float]:
    """One size of CRL against the peer."""
    written = folder / "huge.crl"
    write_crl(written, ca, count, 1)
    name = hashlib.sha256(written.read_bytes()).hexdigest()
    crl_file = str(written.rename(folder / f"{name}.crl"))
    pem = str(Path(ca_file).with_suffix(".pem"))
    peer: list[dict[str, float]] = []
    ours: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        cpu, memory, _ = run(
            "openssl", "crl", "-inform", "DER", "-in", crl_file, "-noout", "-verify", "-CAfile", pem
        )  # fmt: skip
        peer.append({"cpu": cpu, "memory": memory})
        cpu, memory, said = run(sys.executable, PROCESS, "index", crl_file, ca_file)
        measured = json.loads(said)
        measured["own memory, MB"] = memory - measured.pop("idle")
        measured["whole process, CPU s"], measured["whole process, MB"] = cpu, memory
        measured |= json.loads(run(sys.executable, PROCESS, "worker", crl_file, ca_file)[2])
        ours.append(measured)
    found = {"CRL, MB": os.path.getsize(crl_file) / 1e6, "index, MB": os.path.getsize(f"{crl_file[:-4]}.idx") / 1e6}
    found |= {"openssl, CPU s": median([p["cpu"] for p in peer]), "openssl, MB": median([p["memory"] for p in peer])}
    found |= {key: median([o[key] for o in ours]) for key in ours[0]}
    for key in ("verified and indexed, CPU s", "whole process, CPU s"):
        found[f"{key.split(',')[0]}, of openssl's CPU"] = found[key] / found["openssl, CPU s"]
    for suffix in (".crl", ".idx"):
        (folder / f"{name}{suffix}").unlink()
    return found


def refresh(count: int, folder: Path, ca: Authority, ca_file: str) -> dict[str, float]:
    """Look-ups of one process while another stores and indexes the successor of the CRL that it reads, in microseconds."""
    directory = folder / "evidence"
    question = question_for(ca.issue("a@example.test", kind="p256", crl_urls=[URL]).certificate, ca.certificate)
    for version in (1, 2):
        write_crl(folder / f"{version}.der", ca, count, version)
    writer = [sys.executable, PROCESS, "store", str(directory)]
    subprocess.run([*writer, str(folder / "1.der"), ca_file], check=True, stdout=subprocess.DEVNULL)
    reader = EvidenceStore(directory, readonly=True)

    def look() -> float:
        began = time.perf_counter()
        (evidence,) = reader.evidence(question)
        assert isinstance(evidence, CrlEvidence)
        assert signature_valid(evidence.crl, ca.certificate.spki)
        assert evidence.crl.find(b"\x07") is None
        taken = time.perf_counter() - began
        time.sleep(0.0005)
        return taken * 1e6

    look()
    times: dict[str, list[float]] = {"quiet": [look() for _ in range(4000)], "during the refresh": []}
    running = subprocess.Popen([*writer, str(folder / "2.der"), ca_file], stdout=subprocess.PIPE)
    while running.poll() is None:
        times["during the refresh"].append(look())
    assert running.returncode == 0
    assert running.stdout is not None
    (entry,) = reader.entries()
    assert (entry.number, entry.entries) == (2, count)
    found: dict[str, float] = {"looks during the refresh": float(len(times["during the refresh"]))}
    for name, values in times.items():
        found |= {f"{name}, p{percent:g}": percentile(values, percent) for percent in (50, 99, 99.9)}
    found |= json.loads(running.stdout.read())
    shutil.rmtree(directory)
    return found


def main() -> int:
    sizes: list[dict[str, float]] = []
    switches: list[dict[str, float]] = []
    counts = [int(count) for count in sys.argv[1:]] or SIZES
    with tempfile.TemporaryDirectory(prefix="bench.") as name:
        folder = Path(name)
        ca = authority("Huge CRL CA", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY)
        ca_file = folder / "ca.der"
        ca_file.write_bytes(ca.certificate.der)
        (folder / "ca.pem").write_bytes(ca.pem)
        for count in counts:
            sizes.append(size_of(count, folder, ca, str(ca_file)))
            switches.append(refresh(count, folder, ca, str(ca_file)))
    header = ["", *(f"{count:,} entries" for count in counts)]
    table("Large CRLs", header, _rows(sizes))
    table("Look-ups of one process while another refreshes the CRL, microseconds", header, _rows(switches))
    save("crl", {"entries": list(counts), "sizes": sizes, "refresh": switches})
    return 0


def _rows(columns: list[dict[str, float]]) -> list[list[Any]]:
    return [[key, *(column[key] for column in columns)] for key in columns[0]]


if __name__ == "__main__":
    sys.exit(main())
