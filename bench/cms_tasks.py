"""What bench/cms.py measures, each in a process of its own: ``cms_tasks.py TASK ARGUMENT…`` prints one line of JSON.

``cpu`` is the time of the process from the moment when everything is loaded, in seconds; ``peak`` is the memory that it took
above that, in MiB.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postseal.shell.cli.files import even

CHUNK = 65536


def memory(key: str) -> int:
    """A line of /proc/self/status in KiB."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key + ":"))


def measured(work: Callable[[], Any]) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    start, wall = time.process_time(), time.perf_counter()
    work()
    cpu, wall = time.process_time() - start, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "peak": (memory("VmHWM") - before) / 1024}


def chunks_of(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def cleared_in(path: str) -> list[Any]:
    from postseal.core.certs import load_certificates
    from postseal.core.policy import clear_by_operator

    return [clear_by_operator(each) for each in load_certificates(Path(path).read_bytes())]


def fresh(suite: Any) -> tuple[bytes, bytes]:
    return os.urandom(suite.key_length), os.urandom(suite.iv_length)


def write(path: str, blocks: Iterator[bytes]) -> None:
    """As ``postseal seal`` writes: pieces of 64 KB."""
    with open(path, "wb", buffering=0) as file:
        for block in even(blocks):
            file.write(block)


def seal(suite_name: str, source: str, certificate: str, out: str) -> dict[str, float]:
    """Content of known length: nothing is held."""
    from postseal.core.cms.stream import sealed_lines
    from postseal.core.suite import Suite

    suite, cleared = Suite(suite_name), cleared_in(certificate)

    def work() -> None:
        length = os.stat(source).st_size
        write(out, sealed_lines(chunks_of(source), length, suite, *fresh(suite), cleared))

    return measured(work)


def held(suite_name: str, source: str, certificate: str, out: str, limit: str) -> dict[str, float]:
    """As the milter does it: ciphertext is kept, above ``limit`` octets in a file, until the message has ended."""
    from postseal.app.content import Content
    from postseal.core.suite import Suite
    from postseal.sources.spool import Spool

    suite, cleared = Suite(suite_name), cleared_in(certificate)

    def work() -> None:
        content = Content([suite], lambda: Spool(int(limit), Path(out).parent), b"")
        for chunk in chunks_of(source):
            content.update(chunk)
        content.finish()
        write(out, content.sealed(suite, cleared).body())
        content.close()

    return measured(work)


def pkcs7(source: str, certificate: str, out: str) -> dict[str, float]:
    """cryptography's own builder."""
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options
    from cryptography.x509 import load_pem_x509_certificate

    recipient = load_pem_x509_certificate(Path(certificate).read_bytes())

    def work() -> None:
        builder = PKCS7EnvelopeBuilder().set_data(Path(source).read_bytes()).add_recipient(recipient)
        builder = builder.set_content_encryption_algorithm(AES256)
        Path(out).write_bytes(builder.encrypt(Encoding.SMIME, [PKCS7Options.Binary]))

    return measured(work)


def m2crypto(source: str, certificate: str, out: str) -> dict[str, float]:
    from M2Crypto import BIO, SMIME, X509

    smime, stack = SMIME.SMIME(), X509.X509_Stack()
    stack.push(X509.load_cert(certificate))
    smime.set_x509_stack(stack)
    smime.set_cipher(SMIME.Cipher("aes_256_cbc"))

    def work() -> None:
        sealed = smime.encrypt(BIO.MemoryBuffer(Path(source).read_bytes()), flags=SMIME.PKCS7_BINARY)
        sink = BIO.openfile(out, "wb")
        smime.write(sink, sealed)
        sink.close()

    return measured(work)


def small(suite_name: str, source: str, certificate: str, times: str) -> dict[str, float]:
    """A whole message from header to the last line of base64, again and again; ``cpu`` is for one."""
    from postseal.core.cms.lines import LineCheck
    from postseal.core.cms.smime import split
    from postseal.core.cms.stream import sealed_lines
    from postseal.core.message import HeaderFault, header_length, parse_header
    from postseal.core.suite import Suite

    suite, cleared, message = Suite(suite_name), cleared_in(certificate), Path(source).read_bytes()

    def one() -> bytes:
        end = header_length(message)
        fields = parse_header(message[:end])
        assert not isinstance(fields, HeaderFault)
        parts, body = split(fields), message[end:]
        check = LineCheck()
        check.update(body)
        assert (check.finish(), parts.fault) == ("", "")
        length = len(parts.inner) + len(body)
        lines = sealed_lines((parts.inner, body), length, suite, *fresh(suite), cleared)
        return b"".join((*(field.line for field in parts.outer(suite)), b"\r\n", *lines))

    return repeated(one, int(times))


def repeated(one: Callable[[], Any], times: int) -> dict[str, float]:
    one()
    found = measured(lambda: [one() for _ in range(times)])
    return {**found, "cpu": found["cpu"] / times}


def many(suite_name: str, source: str, certificates: str, times: str) -> dict[str, float]:
    """One message for all certificates in a file; ``bare`` is the CPU of their RSA operations alone."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    keys = [each.certificate.x509.public_key() for each in cleared_in(certificates)]
    key = os.urandom(32)
    bare: list[float] = []
    found: list[float] = []
    for _ in range(7):
        bare.append(repeated(lambda: [each.encrypt(key, PKCS1v15()) for each in keys], int(times))["cpu"])
        found.append(small(suite_name, source, certificates, times)["cpu"])
    return {"cpu": sorted(found)[3], "bare": sorted(bare)[3], "peak": 0.0}


def worker(suite_name: str, source: str, certificate: str, times: str, threads: str) -> dict[str, float]:
    """``threads`` seal the same file again and again into nothing, once a line has come from standard input."""
    from postseal.core.cms.stream import sealed_lines
    from postseal.core.suite import Suite

    suite, cleared, length = Suite(suite_name), cleared_in(certificate), os.stat(source).st_size

    def work() -> None:
        for _ in range(int(times)):
            with open(os.devnull, "wb", buffering=0) as sink:
                for block in sealed_lines(chunks_of(source), length, suite, *fresh(suite), cleared):
                    sink.write(block)

    print("ready", flush=True)
    sys.stdin.readline()

    def together() -> None:
        running = [threading.Thread(target=work) for _ in range(int(threads))]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return measured(together)


def opening(source: str, key: str, out: str) -> dict[str, float]:
    """As ``postseal open`` does it."""
    from postseal.app.cms_layers import Opening, open_message
    from postseal.app.cms_open import load_private_key
    from postseal.app.verify import Request
    from postseal.core.cms.unwrapping import Holder

    holder = Holder(load_private_key(Path(key).read_bytes(), None), None)
    how = Opening(Request(()), datetime.now(UTC), (holder,))
    return measured(lambda: write(out, iter((open_message(Path(source).read_bytes(), how).octets,))))


def verifying(source: str, out: str) -> dict[str, float]:
    """The signature of a multipart/signed message and what it covers; trust in the signer is another matter."""
    from postseal.core.cms.multipart import split_signed
    from postseal.core.cms.signed_reader import parse_signed
    from postseal.core.cms.verifying import State, check_signers, cover
    from postseal.core.message import HeaderFault, split_message

    def work() -> None:
        taken = split_message(Path(source).read_bytes())
        assert not isinstance(taken, HeaderFault)
        parts = split_signed(*taken)
        signed = parse_signed(parts.signature)
        accounts = check_signers(signed, cover(signed, (parts.covered,)))
        assert [each.state for each in accounts] == [State.INTACT]
        Path(out).write_bytes(parts.covered)

    return measured(work)


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    each.__name__: each for each in (seal, held, pkcs7, m2crypto, small, many, worker, opening, verifying)
}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
