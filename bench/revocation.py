"""Judging: paths, CRLs, OCSP answers with OpenSSL's tool beside, and five hundred messages for one CA that is cold.

CPU time wherever nobody waits, so that a busy machine gives the same figures. The size of CRLs has a benchmark of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from common import alternate, median, percentile, save, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.app.assess import Assessor
from postseal.config import load_config
from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, OcspEvidence, question_for
from postseal.core.judgement import JudgementSettings, judge_certificate
from postseal.core.path import Anchor, PathSettings, build_path
from postseal.core.path import Path as ValidPath
from postseal.core.policy import MessageFacts, RecipientFacts, decide
from postseal.core.revocation import RevocationSettings, Status, judge
from postseal.sources.clock import SystemClock
from postseal.sources.directory import Directories
from postseal.sources.directory.folder import FolderDirectory
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from postseal.sources.trust import FolderTrust
from support.daemon import Daemon
from support.evidence import Answer, Ocsp
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority, usage
from support.responders import WebServer
from support.scratch import scratch

ANSWERS = 200
STORM = 500
URL = "http://ca.example/sub.crl"


def main() -> None:
    results: dict[str, Any] = {"judging": judging(), "ocsp": ocsp()}
    results["storm"] = storm()
    print(f"\nwritten: {save('revocation', results)}")


# --- paths and CRLs ---


def judging() -> dict[str, float]:
    figures = {f"{what}, {kind}": value for kind in ("rsa2048", "p256") for what, value in _judged(kind).items()}
    table("Judging one certificate", ["what", "CPU microseconds"], list(figures.items()))
    return figures


def _judged(kind: str) -> dict[str, float]:
    root = authority(f"Bench root {kind}", kind=kind)
    sub = root.sub("Bench issuing", kind=kind, crl_urls=["http://ca.example/root.crl"])
    leaves = [sub.issue(f"u{n}@partner.example", kind=kind, slot=kind, crl_urls=[URL]) for n in range(ANSWERS)]
    crls = [CrlEvidence(parse_crl(ca.crl(range(9000, 9000 + n))), URL, NOW) for ca, n in ((sub, 10_000), (root, 10))]
    anchors, pool, path = (Anchor(root.certificate),), (sub.certificate,), PathSettings()
    both = JudgementSettings(path, RevocationSettings())
    start = time.process_time()
    for leaf in leaves:
        assert isinstance(build_path(leaf.certificate, anchors, pool, path, NOW), ValidPath)
    first = (time.process_time() - start) / ANSWERS * 1e6
    one = leaves[0].certificate
    assert judge_certificate(one, anchors, pool, lambda _: crls, both, NOW).good
    return {
        "path of three, leaf never seen": first,
        "path of three, seen before": _microseconds(lambda: build_path(one, anchors, pool, path, NOW)),
        "path and both verdicts by CRLs, seen before": _microseconds(
            lambda: judge_certificate(one, anchors, pool, lambda _: crls, both, NOW)
        ),
    }


def _microseconds(call: Callable[[], object], loops: int = 2000) -> float:
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(loops):
            call()
        rounds.append((time.process_time() - start) / loops * 1e6)
    return median(rounds)


# --- OCSP ---


def ocsp() -> dict[str, float]:
    rows, figures = [], {}
    for kind in ("rsa2048", "p256"):
        ca = authority(f"OCSP root {kind}", kind=kind)
        with scratch("ps-bench-") as folder:
            known = _Answers(ca, kind, [_responder(ca, kind, 0)] * ANSWERS)
            fresh = _Answers(ca, kind, [_responder(ca, kind, n + 1) for n in range(ANSWERS)])
            rates = alternate({"openssl": partial(known.openssl, folder), "known": known.judged}, 3)
        new = fresh.judged()
        figures[kind] = {"known": median(rates["known"]), "new": new, "openssl": median(rates["openssl"])}
        rows.append([kind, median(rates["known"]), new, median(rates["openssl"])])
    table(
        "OCSP answers checked per second of CPU",
        ["key", "postseal, responder known", "postseal, responder new", "openssl ocsp, a process each"],
        rows,
    )
    return figures


def _responder(ca: Authority, kind: str, number: int) -> Leaf:
    return ca.issue(
        None, kind=kind, slot=f"responder {kind}", common_name=f"Responder {number}", key_usage=usage("digital_signature"),
        eku=[ExtendedKeyUsageOID.OCSP_SIGNING], extra=[(x509.OCSPNoCheck(), False)],
    )  # fmt: skip


class _Answers:
    """Answers about as many certificates, each by its responder; nobody has seen any of them before."""

    def __init__(self, ca: Authority, kind: str, responders: Sequence[Leaf]) -> None:
        self.ca = ca
        self.leaves = [ca.issue(f"{n}@partner.example", kind=kind, slot=kind) for n in range(len(responders))]
        self.responders = responders
        self.rounds = 0

    def _made(self, count: int) -> list[tuple[Leaf, bytes]]:
        # A new time in each round, so that no signature is remembered from the round before.
        self.rounds += 1
        at = NOW - HOUR * self.rounds
        pairs = list(zip(self.leaves, self.responders, strict=True))[:count]
        return [
            (leaf, Ocsp([Answer(leaf, self.ca, this_update=at)], who, certificates=[who]).der()) for leaf, who in pairs
        ]

    def judged(self) -> float:
        """Per second of CPU, path of the responder and signature included."""
        questions = [(question_for(leaf.certificate, self.ca.certificate), der) for leaf, der in self._made(ANSWERS)]
        settings = RevocationSettings()
        start = time.process_time()
        for question, der in questions:
            verdict = judge(question, [OcspEvidence(der, "http://ocsp.example/", NOW)], settings, NOW)
            assert verdict.status is Status.GOOD, verdict.detail
        return len(questions) / (time.process_time() - start)

    def openssl(self, folder: Path) -> float:
        (folder / "ca.pem").write_bytes(self.ca.pem)
        made = self._made(20)
        for number, (leaf, der) in enumerate(made):
            (folder / f"{number}.der").write_bytes(der)
            (folder / f"{number}.pem").write_bytes(leaf.pem)
        base = ["openssl", "ocsp", "-issuer", "ca.pem", "-CAfile", "ca.pem", "-no_nonce", "-sha256",
                "-attime", str(int(NOW.timestamp())), "-validity_period", "999999999"]  # fmt: skip
        start = _cpu_of_children()
        for number in range(len(made)):
            done = subprocess.run([*base, "-cert", f"{number}.pem", "-respin", f"{number}.der"], cwd=folder,
                                  capture_output=True, text=True)  # fmt: skip
            assert "Response verify OK" in done.stderr, done.stderr
            assert f"{number}.pem: good" in done.stdout, done.stdout
        return len(made) / (_cpu_of_children() - start)


def _cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


# --- a storm ---


class _Worker:
    """What a milter worker does for one recipient: assess, have fetched what is missing, assess again, decide."""

    def __init__(self, daemon: Daemon) -> None:
        clock = SystemClock()
        self.lookup = LookupClient(daemon.run / "lookup.sock")
        reader = EvidenceStore(daemon.state / "evidence", readonly=True)
        trust = FolderTrust(daemon.anchors, daemon.intermediates, clock)
        folder = Directories((FolderDirectory(daemon.certificates, clock),))
        self.assessor = Assessor(folder, trust, reader, self.lookup, PathSettings(), RevocationSettings())
        self.rules = load_config(str(daemon.config_file)).rules
        self.message = MessageFacts(parse_mailbox("ann@home.test"))

    def decide(self, mailbox: Mailbox) -> str:
        at = datetime.now(UTC)
        found = self.assessor.assess(mailbox, at)
        if found.missing:
            self.assessor.fetch(found.missing, 10.0).result(15)
            found = self.assessor.assess(mailbox, datetime.now(UTC))
        plan = decide(self.message, (RecipientFacts(f"<{mailbox}>", mailbox, False, found.assessed),), self.rules, at)
        assert plan is not None
        return str(found.assessed[0].verdicts[0].status)


def _others(daemon: Daemon, mailbox: Mailbox, started: Event, stop: Event, answers: Any) -> None:
    """Another worker, with mail for a CA whose evidence is there: the seconds that each decision took."""
    worker, times = _Worker(daemon), []
    assert worker.decide(mailbox) == "good"
    started.set()
    while not stop.is_set():
        begin = time.perf_counter()
        worker.decide(mailbox)
        times.append(time.perf_counter() - begin)
        time.sleep(0.002)
    answers.put(times)


def storm() -> dict[str, float]:
    now = datetime.now(UTC).replace(microsecond=0)
    window = {"not_before": now - DAY, "not_after": now + 30 * DAY}
    with scratch("ps-bench-") as directory, WebServer() as web:
        policy = [{"name": "all", "seal": "must", "without_certificate": "refuse", "revocation": "strict"}]
        settings = {"lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [80, web.port]}}
        daemon = Daemon(directory, "lookup", settings=settings, policy=policy)
        warm, cold = (authority(f"{name} root", **window) for name in ("Warm", "Cold"))
        for name, ca, count in (("warm", warm, 1), ("cold", cold, STORM)):
            (daemon.anchors / f"{name}.pem").write_bytes(ca.pem)
            der = ca.crl(range(9000, 19_000), this_update=now - HOUR, next_update=now + DAY)
            web.put(f"/{name}.crl", partial(_slowly, der))
            for number in range(count):
                leaf = ca.issue(f"{number}@{name}.example", slot=name, crl_urls=[web.url(f"/{name}.crl")], **window)
                (daemon.certificates / f"{name}-{number}.pem").write_bytes(leaf.pem)
        daemon.start()
        try:
            quiet = _measured(daemon, lambda: time.sleep(3))
            taken: list[float] = []
            busy = _measured(daemon, partial(_send_all, daemon, taken))
        finally:
            daemon.kill()
        fetches = web.count("/cold.crl")
    figures = {
        "messages": STORM, "fetches": fetches, "storm_seconds": max(taken), "storm_p50_ms": percentile(taken, 50) * 1e3,
        "others_p99_ms_without": percentile(quiet, 99) * 1e3, "others_p99_ms_with": percentile(busy, 99) * 1e3,
        "others_p50_ms_without": percentile(quiet, 50) * 1e3, "others_p50_ms_with": percentile(busy, 50) * 1e3,
    }  # fmt: skip
    table(f"{STORM} parallel messages for one cold CA (its CRL takes 0.3 s)", ["what", "value"], list(figures.items()))
    assert fetches == 1
    return figures


def _slowly(der: bytes, _: bytes) -> bytes:
    time.sleep(0.3)
    return der


def _measured(daemon: Daemon, meanwhile: Callable[[], object]) -> list[float]:
    context = multiprocessing.get_context("fork")
    started, stop, answers = context.Event(), context.Event(), context.SimpleQueue()
    arguments = (daemon, parse_mailbox("0@warm.example"), started, stop, answers)
    other = context.Process(target=_others, args=arguments)
    other.start()
    assert started.wait(30)
    meanwhile()
    stop.set()
    times: list[float] = answers.get()
    other.join()
    return times


def _send_all(daemon: Daemon, taken: list[float]) -> None:
    worker = _Worker(daemon)
    gate = threading.Barrier(STORM + 1)

    def message(number: int) -> None:
        mailbox = parse_mailbox(f"{number}@cold.example")
        gate.wait()
        begin = time.perf_counter()
        assert worker.decide(mailbox) == "good"
        taken.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=message, args=(n,)) for n in range(STORM)]
    for thread in threads:
        thread.start()
    gate.wait()
    for thread in threads:
        thread.join()
    assert len(taken) == STORM


if __name__ == "__main__":
    main()
