"""Asking an OCSP responder about one certificate: what is sent, what is tried when it refuses, and what is kept of the answer.

``ask_responder`` is the conversation alone; ``postseal verify`` uses it too. ``OcspFlights`` is that of the lookup process:
an answer is judged, compared with what is there and stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from postseal.app import freshness
from postseal.app.lookup_ports import Http, Store
from postseal.app.ports import Clock
from postseal.core import ocsp
from postseal.core.certs import Certificate
from postseal.core.evidence import OcspEvidence, Question
from postseal.core.revocation import Order, RevocationSettings, Status, judge
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer

CONTENT_TYPE = "application/ocsp-request"


@dataclass(frozen=True, slots=True)
class Habits:
    """What is known to work with a responder."""

    hash: str = "sha256"


def ask_responder(
    http: Http, url: str, question: Question, habits: Habits, *, max_size: int, deadline: float
) -> tuple[Transfer, Habits]:
    """What the responder at ``url`` says, and the habits by which it said so."""
    transfer = _request(http, url, question, habits, max_size, deadline)
    # OCSP-1: an old responder may know SHA-1 only, and says so in one of several ways.
    if habits.hash == "sha256" and _asks_for_sha1(transfer):
        old = replace(habits, hash="sha1")
        second = _request(http, url, question, old, max_size, deadline)
        if isinstance(second, Fetched) and not _asks_for_sha1(second):
            return second, old
    return transfer, habits


def _request(http: Http, url: str, question: Question, habits: Habits, max_size: int, deadline: float) -> Transfer:
    # OCSP-14: GET when the URL stays short, so that caches between here and there can answer.
    method, address, body = ocsp.http_request(url, ocsp.build_request(question, habits.hash))
    if method == "GET":
        return http.get(address, max_size=max_size, deadline=deadline)
    return http.post(address, body, content_type=CONTENT_TYPE, max_size=max_size, deadline=deadline)


def _asks_for_sha1(transfer: Transfer) -> bool:
    """Does the responder say so, or did it drop the connection?"""
    if isinstance(transfer, FetchFailed):
        return "closed the connection" in transfer.detail or "reset" in transfer.detail
    return isinstance(transfer, Fetched) and ocsp.retry_with_sha1(transfer.body)


@dataclass(frozen=True, slots=True)
class Landed:
    """The answer is stored; it needn't be fetched again for ``rest``."""

    rest: timedelta


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was stored; ``about`` is a fingerprint when only that certificate's answer is concerned."""

    why: str
    detail: str
    retry_after: float | None = None
    host_fault: bool = False
    about: str = ""


class OcspFlights:
    """Fetches answers for the lookup process. Safe for threads. Raises Unavailable when the store can't be used."""

    def __init__(
        self, store: Store, http: Http, clock: Clock, revocation: RevocationSettings, max_size: int,
        chance: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._http = http
        self._clock = clock
        self._only = replace(revocation, order=Order.OCSP_ONLY)
        self._max_size = max_size
        self._chance = chance

    def fetch(
        self, url: str, question: Question, chain: tuple[Certificate, ...], deadline: float, *, asked: bool
    ) -> Landed | Failed:
        """One answer. ``chain`` is the validated path of the issuer, issuer first; ``asked`` False: fetched ahead."""
        known = Habits(self._store.url_state(url).responder_hash)
        transfer, habits = ask_responder(
            self._http, url, question, known, max_size=self._max_size, deadline=deadline
        )  # fmt: skip
        if habits != known:
            self._store.remember_hash(url, habits.hash)
        if isinstance(transfer, FetchFailed):
            return Failed(transfer.why, transfer.detail, transfer.retry_after, transfer.host_fault)
        if isinstance(transfer, NotModified):
            return Failed("rev.http-status", "HTTP status 304 to a request without conditions")
        return self._accept(url, question, chain, transfer, asked)

    def _accept(
        self, url: str, question: Question, chain: tuple[Certificate, ...], transfer: Fetched, asked: bool
    ) -> Landed | Failed:
        """Store the answer if it decides and is no worse than what is there (CACHE-4)."""
        at = self._clock.now()
        verdict = judge(question, (OcspEvidence(transfer.body, url, at),), self._only, at)
        own = "" if ocsp.about_responder(transfer.body) else question.certificate.fingerprint
        if verdict.status is Status.UNKNOWN:
            return Failed(verdict.reason, verdict.detail, about=own)
        kept = [e for e in self._store.evidence(question) if isinstance(e, OcspEvidence)]
        worse = freshness.why_worse_answer(judge(question, kept, self._only, at), verdict)
        if worse:
            return Failed(*worse, about=own)
        this_update, next_update = verdict.this_update or at, verdict.next_update
        refresh_at = freshness.refresh_at(this_update, next_update, transfer.max_age, at, self._chance, latest=0.75)
        self._store.store_ocsp(
            question, chain, transfer.body, url, at, refresh_at, verdict.this_update, next_update, asked=asked
        )
        return Landed(freshness.rest(this_update, next_update))
