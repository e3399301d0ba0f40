"""Responders and CRL servers that hang, lie or drown us: the other source decides, and what is stored stays (T-5, T-16)."""

from __future__ import annotations

import contextlib
import gzip
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postseal.core.evidence import NoAnswer, Question, question_for
from postseal.core.revocation import Order, RevocationSettings, Status, judge
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from support.daemon import Daemon
from support.pki import DAY, HOUR, Authority, authority
from support.rawserver import Behaviour, RawServer
from support.responders import CRL_TYPE, OCSP_TYPE, WebServer
from support.scratch import free_port

START = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": START - DAY, "not_after": START + 30 * DAY}
# What a responder does -> the reason that is noted.
RESPONDERS = {
    "silent": "rev.timeout", "drip": "rev.timeout", "drip-headers": "rev.timeout", "reset": "rev.unreachable",
    "long-length": "rev.malformed", "wrong-type": "rev.malformed", "empty": "rev.malformed", "gzip": "rev.malformed",
    "endless": "rev.too-large", "redirect": "rev.http-status", "status": "rev.http-status", "short-length": "rev.malformed",
}  # fmt: skip
# 30 03 0A 01 00: "successful" without an answer, and two more that are no answers.
BODIES = {"30030a0100": "rev.malformed", "30030a0106": "rev.ocsp-error", "3080": "rev.malformed"}
# URLs of certificates that can't be asked at all; the last two aren't even sources.
URLS = {
    "http://127.0.0.1:{closed}/": "rev.unreachable", "http://10.255.0.1/ocsp": "rev.blocked-by-guard",
    "http://no-such-host.invalid/": "rev.unreachable", "http://[::bad/": "", "ftp://127.0.0.1/ocsp": "",
}  # fmt: skip


@contextlib.contextmanager
def lookup(
    directory: Path, ca: Authority, ports: list[int], order: Order
) -> Iterator[tuple[LookupClient, EvidenceStore]]:
    settings = {
        "lookup": {
            "allow_networks": ["127.0.0.0/8"],
            "ports": [80, *ports],
            "request_timeout": "2 s",
            "concurrency": 16,
        },
        "revocation": {"order": str(order)},
    }
    with Daemon(directory, "lookup", settings=settings) as daemon:
        (daemon.anchors / "root.pem").write_bytes(ca.pem)
        yield LookupClient(daemon.run / "lookup.sock"), EvidenceStore(daemon.state / "evidence", readonly=True)


@pytest.mark.parametrize("group", ["faults", "bodies", "urls"])
def test_t05_a_good_crl_decides_whatever_the_responder_does(group: str, scratch: Path) -> None:
    """T-5, RPL-3, RPL-5: with OCSP first, GOOD by the CRL inside the message's budget; the responder's fault is noted."""
    ca = authority("Hostile root", not_before=START - DAY, not_after=START + 60 * DAY)
    with contextlib.ExitStack() as stack:
        honest = stack.enter_context(WebServer())
        crl = honest.put("/ca.crl", ca.crl([], this_update=START - HOUR, next_update=START + DAY))
        # A host of its own for each, so that none pays for another one.
        ports, expected = [honest.port], {}
        if group == "urls":
            closed = free_port()
            ports.append(closed)
            expected = {url.format(closed=closed): why for url, why in URLS.items()}
        for name, why in {"faults": RESPONDERS, "bodies": BODIES, "urls": {}}[group].items():
            web = stack.enter_context(WebServer())
            fault, body = (name, b"x" * 100) if group == "faults" else ("", bytes.fromhex(name))
            ports.append(web.port)
            expected[web.put("/ocsp", lambda _, body=body: body, OCSP_TYPE, fault=fault)] = why
        client, store = stack.enter_context(lookup(scratch, ca, ports, Order.OCSP_FIRST))
        questions = {
            url: question_for(
                ca.issue(f"{n}@home.test", slot=n, crl_urls=[crl], ocsp_urls=[url], **WINDOW).certificate,
                ca.certificate,
            )
            for n, url in enumerate(expected)
        }
        with ThreadPoolExecutor(len(questions)) as askers:
            list(askers.map(lambda question: client.ask([question], 8.0).result(10), questions.values()))
        settings, found = RevocationSettings(order=Order.OCSP_FIRST), {}
        for url, question in questions.items():
            evidence = store.evidence(question)
            verdict = judge(question, evidence, settings, datetime.now(UTC))
            assert (verdict.status, verdict.reason) == (Status.GOOD, "rev.crl"), (url, verdict)
            found[url] = next((e.why for e in evidence if isinstance(e, NoAnswer) and e.url == url), "")
        assert found == expected


def endless(head: bytes, part: bytes) -> Behaviour:
    def behave(channel: socket.socket, _: bytes) -> None:
        channel.sendall(head)
        while True:
            channel.sendall(part)

    return behave


class CrlServer:
    """An honest CRL at first; then whatever ``behaviour`` says."""

    def __init__(self, crl: bytes) -> None:
        self.behaviour: Behaviour = lambda c, _: c.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: {CRL_TYPE}\r\nContent-Length: {len(crl)}\r\n\r\n".encode() + crl
        )
        self._server = RawServer(lambda channel, request: self.behaviour(channel, request))
        self.url = f"http://127.0.0.1:{self._server.port}/ca.crl"
        self.port = self._server.port

    def close(self) -> None:
        self._server.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_t16_what_is_stored_survives_every_bad_answer(scratch: Path) -> None:
    """T-16, THR-4, CRL-30: 300 MB declared or not, endless chunks, a gzip bomb, lengths that lie: capped, the old CRL stays.

    The process never holds what it throws away.
    """
    ca = authority("Old root", not_before=START - DAY, not_after=START + 60 * DAY)
    old = ca.crl([], this_update=START - HOUR, next_update=START + DAY)
    newer = ca.crl([], this_update=START - HOUR / 2, next_update=START + DAY, number=2)
    bomb = gzip.compress(newer + bytes(20_000_000))
    server = CrlServer(old)
    question = question_for(ca.issue("a@home.test", crl_urls=[server.url], **WINDOW).certificate, ca.certificate)

    def fixed(head: str, body: bytes) -> Behaviour:
        return lambda c, _: c.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)

    faults: dict[str, tuple[Behaviour, str]] = {
        "300 MB declared": (fixed("Content-Length: 300000000", b"0"), "rev.too-large"),
        "300 MB and more": (endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 20)), "rev.too-large"),
        "endless chunks": (endless(CHUNKED, b"40000\r\n" + bytes(0x40000) + b"\r\n"), "rev.too-large"),
        "endless small chunks": (endless(CHUNKED, b"1\r\n0\r\n" * 10_000), "rev.timeout"),
        "gzip bomb": (fixed(f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}", bomb), "rev.malformed"),
        "gzip that isn't declared": (fixed(f"Content-Length: {len(bomb)}", bomb), "rev.malformed"),
        "length too long": (fixed(f"Content-Length: {len(newer) + 1}", newer), "rev.malformed"),
        "length too short": (fixed(f"Content-Length: {len(newer) - 1}", newer), "rev.malformed"),
        "truncated chunk": (lambda c, _: c.sendall(CHUNKED + b"%x\r\n" % len(newer) + newer[:-9]), "rev.malformed"),
        "chunks without an end": (
            lambda c, _: c.sendall(CHUNKED + b"%x\r\n" % len(newer) + newer + b"\r\n"), "rev.malformed"),
        "web page": (fixed("Content-Length: 13", b"<html></html>"), "rev.malformed"),
    }  # fmt: skip
    with lookup(scratch, ca, [server.port], Order.CRL_FIRST) as (client, store):
        client.ask([question], 5.0).result(10)
        assert good(store, question)
        for name, (behaviour, why) in faults.items():
            server.behaviour = behaviour
            (result,) = client.refresh([server.url], 20.0)["results"]
            assert result["reason"] == why, (name, result)
            assert good(store, question), name
        peaks = [peak(int(pid.name)) for pid in Path("/proc").iterdir() if pid.name.isdigit() and belongs(pid, scratch)]
        server.behaviour = fixed(f"Content-Length: {len(newer)}", newer)
        (result,) = client.refresh([server.url], 20.0)["results"]
        assert result["reason"] == ""
    server.close()
    assert peaks
    # 64 MiB is the limit for a CRL: it is never in memory as a whole.
    assert max(peaks) < 120_000, "KiB"


def good(store: EvidenceStore, question: Question) -> bool:
    verdict = judge(question, store.evidence(question), RevocationSettings(), datetime.now(UTC))
    return (verdict.status, verdict.reason) == (Status.GOOD, "rev.crl")


def belongs(process: Path, directory: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(directory).encode() in (process / "cmdline").read_bytes()
    return False


def peak(pid: int) -> int:
    """The most memory that a process ever had, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
