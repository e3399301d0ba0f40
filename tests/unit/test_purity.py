"""core touches nothing outside: an audit hook sees every file, socket and process that Python opens."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import postseal.core
from postseal.core import ocsp
from postseal.core.address import parse_mailbox
from postseal.core.assess import Assessed, Candidate, Origin
from postseal.core.certs import load_certificates
from postseal.core.choice import ranked
from postseal.core.cms.built import check_built
from postseal.core.cms.classify import classify
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.lines import LineCheck, base64_blocks
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.smime import split
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, NoAnswer, OcspEvidence, question_for
from postseal.core.fitness import fitness
from postseal.core.message import split_message
from postseal.core.path import Anchor, PathSettings, build_path
from postseal.core.path import Path as CertificatePath
from postseal.core.plan import Action
from postseal.core.policy import (
    Cleared,
    MessageFacts,
    Pattern,
    Protection,
    RecipientFacts,
    Rule,
    Seal,
    Strictness,
    WithoutCertificate,
    decide,
)
from postseal.core.revocation import Order, RevocationSettings, Status, judge, still_needed
from postseal.core.suite import Suite
from support.evidence import CRL_URL, OCSP_URL, Answer, Ocsp, crl, entry, reason
from support.pki import NOW, Authority, Leaf, authority

_FORBIDDEN = (
    "open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "sqlite3.", "http.", "urllib.", "ftplib.", "smtplib.",
    "syslog.", "ctypes.", "pty.", "fcntl.", "mmap.", "signal.", "webbrowser.", "glob.", "pathlib.", "resource.", "import",
    "_thread.start",
)  # fmt: skip
_watched: list[str] | None = None
_thread = 0


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and threading.get_ident() == _thread and event.startswith(_FORBIDDEN):
        _watched.append(f"{event} {arguments!r:.100}")


# A hook can't be taken away again, so there is one for all tests and it sleeps outside of forbidden_outside().
sys.addaudithook(_hook)


@contextmanager
def forbidden_outside() -> Iterator[list[str]]:
    """Collect what this thread does to the outside world in the block."""
    global _watched, _thread
    _watched, _thread = [], threading.get_ident()
    try:
        yield _watched
    finally:
        _watched = None


Job = Callable[[], object]


def revocation_jobs(ca: Authority, alice: Leaf) -> Iterator[Job]:
    """Parsing and judging: listed, not listed, forged, every order, requests, and errors on the way."""
    lists = [crl(ca), crl(ca, [entry(alice, reason(1))]), crl(ca, spoil=True)]
    answers = [Ocsp([Answer(alice, ca, s)], ca).der() for s in ("good", "revoked", "unknown")] + [
        b"\x30\x00",
        b"<html>",
    ]
    question = question_for(alice.certificate, ca.certificate)
    absent = NoAnswer(CRL_URL, "rev.unreachable", "connection refused", NOW)

    def run(der: bytes, answer: bytes, order: Order) -> object:
        evidence = [CrlEvidence(parse_crl(der), CRL_URL, NOW), OcspEvidence(answer, OCSP_URL, NOW), absent]
        settings = RevocationSettings(order=order)
        return (
            judge(question, evidence, settings, NOW),
            still_needed(question, evidence, settings, NOW),
        )

    for der in lists:
        for answer in answers:
            for order in Order:
                yield lambda d=der, a=answer, o=order: run(d, a, o)
    yield lambda: ocsp.http_request(OCSP_URL, ocsp.build_request(question, "sha1", b"n" * 32))


def certificate_jobs(ca: Authority, alice: Leaf) -> Iterator[Job]:
    """Loading, path building, fitness, choice and policy."""
    mailbox = parse_mailbox("alice@example.test")
    rule = Rule(
        "all", (Pattern("any"),), (Pattern("any"),), Seal.MUST, WithoutCertificate.REFUSE, Strictness.STRICT,
    )  # fmt: skip

    def run() -> object:
        [certificate] = load_certificates(alice.pem)
        path = build_path(certificate, (Anchor(ca.certificate),), (), PathSettings(), NOW)
        assert isinstance(path, CertificatePath)
        verdict = judge(
            question_for(certificate, ca.certificate),
            [CrlEvidence(parse_crl(crl(ca)), CRL_URL, NOW)], RevocationSettings(), NOW,
        )  # fmt: skip
        assert verdict.status is Status.GOOD
        assessed = Assessed(
            Candidate(certificate, Origin.FOLDER, "alice.pem"), path, (verdict,), fitness(certificate, mailbox, NOW)
        )
        order = ranked([assessed], mailbox)
        message = MessageFacts(parse_mailbox("bob@example.org"), Protection.NONE)
        plan = decide(message, [RecipientFacts("alice@example.test", mailbox, False, order)], [rule], NOW)
        assert plan.worst is Action.SEAL
        return plan

    yield run


def mail_jobs(ca: Authority, alice: Leaf) -> Iterator[Job]:
    """Splitting, sealing, reading back and opening a message."""
    message = b"Subject: x\r\nContent-Type: text/plain\r\n\r\nHello\r\n"

    def run(suite: Suite) -> object:
        parts = split_message(message)
        assert isinstance(parts, tuple)
        fields, body = parts
        check = LineCheck()
        check.update(body)
        check.finish()
        classify(fields, body)
        key, iv = b"k" * suite.key_length, b"i" * suite.iv_length
        sealer = ContentSealer(suite, key, iv)
        content = sealer.update(split(fields).inner + body) + sealer.finish()
        cleared = [Cleared(alice.certificate, ())]
        head, tail = envelope(suite, key, cleared, iv, len(content), getattr(sealer, "tag", b""))
        check_built(head, tail, len(content), cleared)
        list(base64_blocks([head, content, tail]))
        return open_enveloped(head + content + tail, alice.key, alice.certificate)

    for suite in Suite:
        yield lambda s=suite: run(s)


@pytest.mark.parametrize("jobs", [revocation_jobs, certificate_jobs, mail_jobs])
def test_core_does_no_input_or_output(jobs: Callable[[Authority, Leaf], Iterator[Job]]) -> None:
    """Judging, choosing and sealing open no file, socket or process, and import nothing while they work.

    A first run with other certificates lets libraries load what they load once; the second, with fresh ones that no cache
    knows, is watched.
    """
    for label in ("warm", "watched"):
        ca = authority(f"Pure {label} {jobs.__name__}")
        alice = ca.issue(
            "alice@example.test", slot=("pure", label, jobs.__name__), crl_urls=[CRL_URL], ocsp_urls=[OCSP_URL]
        )
        work = list(jobs(ca, alice))
        if label == "warm":
            for job in work:
                job()
            continue
        with forbidden_outside() as seen:
            for job in work:
                job()
        assert seen == []


def test_the_watch_can_see(tmp_path: Path) -> None:
    """The hook would notice: a file opened, a socket made, a process started."""
    import socket
    import subprocess

    with forbidden_outside() as seen:
        (tmp_path / "x").write_text("x")
        socket.socket().close()
        subprocess.run(["true"], check=True)
    events = {line.split(" ", 1)[0] for line in seen}
    assert {"open", "socket.__new__", "subprocess.Popen"} <= events


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages(postseal.core.__path__, "postseal.core.")])
def test_core_modules_import_nothing_that_reaches_outside(name: str) -> None:
    """What a core module has in its namespace is no module for files, sockets, processes, threads or clocks."""
    module = importlib.import_module(name)
    banned = {
        "os", "io", "pathlib", "socket", "ssl", "time", "threading", "subprocess", "tempfile", "shutil", "logging", "syslog",
        "sqlite3", "random", "secrets", "asyncio", "multiprocessing", "requests", "urllib3", "cachetools", "sqlalchemy",
    }  # fmt: skip
    reached = {value.__name__.partition(".")[0] for value in vars(module).values() if isinstance(value, type(sys))} | {
        str(getattr(value, "__module__", "")).partition(".")[0] for value in vars(module).values()
    }
    assert not reached & banned


def test_time_is_an_argument() -> None:
    """PRE-5: the same evidence gives another verdict at another time, and only because of the argument."""
    ca = authority("Pure time", kind="p256")
    alice = ca.issue("alice@example.test", kind="p256", crl_urls=[CRL_URL])
    question = question_for(alice.certificate, ca.certificate)
    evidence = [CrlEvidence(parse_crl(crl(ca)), CRL_URL, NOW)]
    reasons = [judge(question, evidence, RevocationSettings(), NOW + timedelta(days=d)).reason for d in (0, 30, 0, -30)]
    assert reasons == ["rev.crl", "rev.stale", "rev.crl", "rev.not-yet-valid"]
