"""Does the time that opening takes tell why it failed (ALG-6)? ``oracle.py [SAMPLES]``: run by hand, never in the tests.

For each way in which an RSA-wrapped key can be wrong the same message is opened SAMPLES times, the ways in turns and in random
order. Shown is Welch's t of each against "another key", the largest of those where all times above a percentile of all are
left out (as dudect does): below 4.5 in size nothing is to be seen with this many. "another key, again" shows what is noise.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import machine, percentile, save, table
from cryptography.hazmat.primitives.asymmetric import rsa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def failures(key: rsa.RSAPrivateKey, length: int) -> Iterator[tuple[str, bytes]]:
    """Blocks before encryption: what PKCS #1 v1.5 checks, one wrong at a time."""
    filler = b"\x07" * (256 - 3 - length)
    content_key = os.urandom(length)
    yield "another key", b"\0\2" + filler + b"\0" + content_key
    yield "another key, again", b"\0\2" + filler + b"\0" + os.urandom(length)
    yield "key too short", b"\0\2" + filler + b"\x07\0" + content_key[1:]
    yield "no separator", b"\0\2" + b"\x07" * 254
    yield "first octet", b"\1\2" + filler + b"\0" + content_key
    yield "block type", b"\0\1" + filler + b"\0" + content_key
    yield "short padding", b"\0\2" + b"\x07" * 7 + b"\0" + b"\x07" * (246 - length) + b"\0" + content_key


def raw(key: rsa.RSAPrivateKey, block: bytes) -> bytes:
    numbers = key.public_key().public_numbers()
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")


def peers() -> dict[str, Callable[[], None]]:
    from postseal.core.cms import structures as cms
    from postseal.core.cms.opening import open_enveloped
    from postseal.core.cms.parse import parse_enveloped
    from postseal.core.errors import BadData
    from postseal.core.suite import Suite
    from support.cms import recipient, sealed

    leaf = recipient()
    der = sealed(Suite.AES_128_GCM, [leaf], b"attack at dawn\r\n" * 60)
    (info,) = parse_enveloped(der).recipients
    assert isinstance(info, cms.KeyTransRecipientInfo)
    at = der.index(info.encrypted_key)

    def opening(octets: bytes) -> Callable[[], None]:
        def run() -> None:
            try:
                open_enveloped(octets, leaf.key, leaf.certificate)
            except BadData:
                return
            raise AssertionError("it opened")

        return run

    return {name: opening(der[:at] + raw(leaf.key, block) + der[at + 256 :]) for name, block in failures(leaf.key, 16)}


def welch(one: list[int], other: list[int]) -> float:
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / spread**0.5


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 15_000
    runs = peers()
    times: dict[str, list[int]] = {name: [] for name in runs}
    names = list(runs)
    for _ in range(samples):
        random.shuffle(names)
        for name in names:
            start = time.perf_counter_ns()
            runs[name]()
            times[name].append(time.perf_counter_ns() - start)
    pooled = [each for found in times.values() for each in found]
    first = times["another key"]
    rows = [
        (
            name,
            round(statistics.median(found) / 1000, 2),
            round(statistics.fmean(found) / 1000, 2),
            largest(found, first, pooled),
        )
        for name, found in times.items()
    ]
    table(f"{samples} samples of each failure", ("failure", "median µs", "mean µs", "t"), rows)
    save("oracle", {"machine": machine(), "samples": samples, "rows": rows})


def largest(one: list[int], other: list[int], pooled: list[int]) -> float:
    """The t furthest from zero of those for times up to a percentile."""
    found = []
    for percent in (50, 75, 90, 95, 99, 100):
        cut = percentile(pooled, percent)
        found.append(welch([each for each in one if each <= cut], [each for each in other if each <= cut]))
    return round(max(found, key=abs), 1)


if __name__ == "__main__":
    main()
