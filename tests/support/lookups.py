"""The lookup use case on a real store, with a web and a clock that do as they are told."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import unquote

from postseal.app.lookup import Lookups, LookupSettings
from postseal.core.certs import Certificate
from postseal.core.crl import parse_crl
from postseal.core.evidence import NoAnswer, Orphan, Question, question_for
from postseal.core.path import Anchor, PathSettings
from postseal.core.revocation import Order, RevocationSettings, Status, judge
from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.evidence import EvidenceStore
from support import pki
from support.pki import DAY, HOUR, Authority, Leaf
from support.responders import Responder

# OCSP answers made with cryptography are always produced now, so everything else has to be of today too. Some minutes ahead:
# the tests that come late in a long run must not find answers from the future.
NOW = (datetime.now(UTC) + timedelta(minutes=25)).replace(microsecond=0)


def authority(name: str) -> Authority:
    return pki.authority(name, not_before=NOW - 100 * DAY, not_after=NOW + 400 * DAY)


def issue(ca: Authority, slot: object = 0, **more: Any) -> Leaf:
    window = {"not_before": NOW - 30 * DAY, "not_after": NOW + 335 * DAY}
    return ca.issue(f"{slot}@home.test", **{**window, **more})


def crl(ca: Authority, *revoked: Leaf, **more: Any) -> bytes:
    window = {"this_update": NOW - HOUR, "next_update": NOW + 7 * DAY, "revoked_at": NOW - HOUR}
    return ca.crl(revoked, **{**window, **more})


ROOT = authority("Use case root")
WITNESS = authority("Use case witness")
CRL = "http://ca.test/1.crl"
OCSP = "http://ca.test/ocsp"
Answer = Callable[[str, bytes | None, Mapping[str, str]], Transfer]


class FixedClock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.at = NOW
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, by: timedelta) -> None:
        self.at += by
        self.seconds += by.total_seconds()


class Trust:
    def __init__(self, *roots: Authority) -> None:
        self.roots = list(roots)
        self.helpers: list[Certificate] = []
        self.number = 1

    def anchors(self) -> tuple[Anchor, ...]:
        return tuple(Anchor(r.certificate) for r in self.roots)

    def intermediates(self) -> tuple[Certificate, ...]:
        return tuple(self.helpers)

    def generation(self) -> int:
        return self.number


@dataclass
class Web:
    """Answers by URL prefix; remembers what it was asked."""

    answers: dict[str, Answer | bytes | Transfer] = field(default_factory=dict)
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    def get(self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None) -> Transfer:
        return self._answer("GET", url, None, headers or {})

    def get_to(
        self, url: str, sink: Callable[[bytes], object], *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer:  # fmt: skip
        answer = self._answer("GET", url, None, headers or {})
        if not isinstance(answer, Fetched):
            return answer
        sink(answer.body)
        return replace(answer, body=b"", streamed=len(answer.body))

    def post(self, url: str, body: bytes, *, content_type: str, max_size: int, deadline: float) -> Transfer:
        return self._answer("POST", url, body, {})

    def _answer(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        self.asked.append((method, url, headers))
        for prefix, answer in self.answers.items():
            if url.startswith(prefix):
                if isinstance(answer, bytes):
                    return Fetched(url, answer, etag='"v"')
                return answer(url, body, headers) if callable(answer) else answer
        return FetchFailed(url, "rev.unreachable", "connection refused", host_fault=True)

    def count(self, prefix: str = "") -> int:
        return sum(url.startswith(prefix) for _, url, _ in self.asked)


class Bench:
    """The use case on a real store, with a web and a clock that do as they are told."""

    def __init__(
        self, directory: FilePath, order: Order = Order.CRL_FIRST, *, chance: Callable[[], float] = lambda: 0.5,
        **limits: Any,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.clock, self.trust, self.web = FixedClock(), Trust(ROOT), Web()
        self.heard: list[str] = []
        self.alarms: list[str] = []
        self.chance = chance
        self.settings = LookupSettings(request_timeout=5.0, **limits)
        self.revocation = RevocationSettings(order=order)
        self.store = EvidenceStore(directory / "evidence", readonly=False, report=self.heard.append)
        self.lookups = self.make()

    def make(self) -> Lookups:
        """Another process on the same store."""
        return Lookups(self.store, self.web, self.trust, self.clock, PathSettings(), self.revocation,
                       self.settings, self.heard.append, chance=self.chance, alarm=self.alarms.append)  # fmt: skip

    def ask(self, *questions: Question | Orphan) -> int:
        return self.lookups.ask(questions, 10.0)

    def status(self, question: Question) -> tuple[Status, str]:
        verdict = judge(question, self.store.evidence(question), self.revocation, self.clock.now())
        return verdict.status, verdict.reason

    def failures(self, question: Question) -> list[NoAnswer]:
        return [e for e in self.store.evidence(question) if isinstance(e, NoAnswer)]

    def time_is_proven(self) -> None:
        """A CRL of this moment lands: signed evidence of the time that the clock tells."""
        at = self.clock.now()
        witness = parse_crl(crl(WITNESS, this_update=at, next_update=at + DAY))
        self.store.store_crl(witness, (WITNESS.certificate,), "http://witness.test/", at, None)

    def prefetch(self) -> int:
        started = self.lookups.prefetch()
        waiting = threading.Event()
        while not self.lookups.idle():
            waiting.wait(0.005)
        return started


def question(*crls: str, ocsp: tuple[str, ...] = (), slot: object = 0) -> Question:
    leaf = issue(ROOT, slot, crl_urls=crls, ocsp_urls=ocsp)
    return question_for(leaf.certificate, ROOT.certificate)


def responder(answer: Responder) -> Answer:
    def respond(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        asked = body if body is not None else base64.b64decode(unquote(url.rsplit("/", 1)[1]))
        return Fetched(url, answer.answer(asked))

    return respond
