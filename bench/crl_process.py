"""What the processes do that ``bench/crl.py`` measures. It starts one at a time; each imports no more than it needs."""

from __future__ import annotations

import gc
import hashlib
import json
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from postseal.core.certs import load_certificate
from postseal.core.crl import Crl, open_crl, signature_valid, signed_hash
from postseal.core.crl_entries import AnyEntries, Entries, RawEntries, raw_entries
from postseal.core.crl_scan import scanned_entries
from postseal.core.der import Octets
from postseal.sources.crl_indexing import map_file, write_index

LOOKUPS = 20_000
URL = "http://crl.example.test/huge.crl"


def resident(pid: int | str = "self") -> tuple[float, float]:
    """Anonymous and file pages of a process in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return found.get("RssAnon", 0) / 1024, found.get("RssFile", 0) / 1024


def raw(data: Octets, start: int, end: int) -> AnyEntries:
    return raw_entries(data, start, end) or scanned_entries(data, start, end)


def index(crl_file: str, ca_file: str) -> dict[str, float]:
    """All that is done with a CRL: hashed as it arrives, verified, a first answer, indexed."""
    issuer = load_certificate(Path(ca_file).read_bytes())
    idle = resident()[0]
    cpu = time.process_time()
    arriving = hashlib.sha256()
    with open(crl_file, "rb", buffering=0) as file:
        while part := file.read(65536):
            arriving.update(part)
        data = map_file(file.fileno())
        arrived, arrived_cpu = time.perf_counter(), time.process_time()
        crl = open_crl(data, arriving.hexdigest(), raw)
        assert isinstance(crl.entries, RawEntries)
        assert signature_valid(crl, issuer.spki)
        assert crl.find(b"\x01" * 16) is None
        answered, answered_cpu = time.perf_counter(), time.process_time()
        with open(f"{crl_file[:-4]}.idx", "wb") as out:
            write_index(file.fileno(), out.fileno(), crl.sha256, signed_hash(crl))
    return {
        "verified and indexed, CPU s": time.process_time() - cpu,
        "first answer after the last octet, s": answered - arrived,
        "first answer, CPU s": answered_cpu - arrived_cpu,
        "idle": idle,
    }


def worker(crl_file: str, ca_file: str) -> dict[str, float]:
    """What a worker of the milter does: it opens the CRL with its index, and looks up."""
    from postseal.sources.crl_files import CrlFiles

    issuer = load_certificate(Path(ca_file).read_bytes())
    files = CrlFiles(Path(crl_file).parent)
    # Chosen by another process, because that takes memory.
    chooser = subprocess.run([sys.executable, __file__, "serials", crl_file], stdout=subprocess.PIPE, check=True)
    listed, unlisted = pickle.loads(chooser.stdout)
    del chooser
    # What the first CRL of whatever size loads anyway.
    assert isinstance(files.read("small"), str)
    load_certificate(issuer.der)
    gc.collect()
    anonymous, shared = resident()
    began = time.perf_counter()
    crl = files.read(Path(crl_file).stem)
    assert isinstance(crl, Crl)
    assert signature_valid(crl, issuer.spki)
    opened = time.perf_counter() - began
    found = {}
    for name, wanted, expected in (("hit", listed, True), ("miss", unlisted, False)):
        cpu = time.process_time()
        for serial in wanted:
            assert (crl.find(serial) is not None) == expected
        found[f"look-up, {name}, us"] = (time.process_time() - cpu) / len(wanted) * 1e6
        crl._located.clear()
    gc.collect()
    after = resident()
    return {
        "worker: open and verify, ms": opened * 1000,
        **found,
        "worker: own memory, MB": after[0] - anonymous,
        "worker: shared pages, MB": after[1] - shared,
    }


def serials(crl_file: str) -> tuple[list[bytes], list[bytes]]:
    """Numbers that are on the CRL, from all over it, and as many that aren't."""
    chance = random.Random(7)
    with open(crl_file, "rb") as file:
        crl = open_crl(map_file(file.fileno()), Path(crl_file).stem, scanned_entries)
    assert isinstance(crl.entries, Entries)
    starts, listed = crl.entries.scanned.starts, []
    for _ in range(LOOKUPS):
        block = chance.randrange(len(starts) - 1)
        at = starts[block]
        for _ in range(chance.randrange(40)):
            following = at + 2 + crl.der[at + 1]
            at = following if following < starts[block + 1] else at
        listed.append(crl.der[at + 4 : at + 4 + crl.der[at + 3]])
    return listed, [bytes((0x7F, *chance.randbytes(15))) for _ in range(LOOKUPS)]


def store(directory: str, crl_file: str, ca_file: str) -> dict[str, float]:
    """What ``postseal lookup`` does with a CRL that comes in pieces, until its index is there."""
    from postseal.sources.confine import Confinement
    from postseal.sources.crl_confined import ConfinedCrls
    from postseal.sources.evidence import EvidenceStore

    issuer = load_certificate(Path(ca_file).read_bytes())
    readers, indexers = Confinement(1), Confinement(1)
    evidence = EvidenceStore(Path(directory), readonly=False, crls=ConfinedCrls(readers, indexers))
    now = datetime.now(UTC)
    with evidence.incoming() as incoming, open(crl_file, "rb") as file:
        while part := file.read(65536):
            incoming.take(part)
        crl = incoming.crl(1 << 31)
        assert isinstance(crl, Crl)
        assert signature_valid(crl, issuer.spki)
        evidence.store_crl(crl, (issuer,), URL, now, now)
    while any(entry.entries == 0 for entry in evidence.entries()):
        time.sleep(0.01)
    readers.close()
    indexers.close()
    return {"memory of lookup, MB": resident()[0]}


COMMANDS: dict[str, Callable[..., dict[str, float]]] = {"index": index, "worker": worker, "store": store}

if __name__ == "__main__":
    if sys.argv[1] == "serials":
        pickle.dump(serials(sys.argv[2]), sys.stdout.buffer)
    else:
        print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
