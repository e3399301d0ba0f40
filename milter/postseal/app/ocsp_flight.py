"""Asking an OCSP responder about one certificate: what is sent, what is tried when it refuses, and what is kept of the answer.

``ask_responder`` is the conversation alone; ``postseal verify`` uses it too. ``OcspFlights`` is that of the lookup process:
an answer is judged, compared with what is there and stored.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from postseal.app import freshness
from postseal.app.landing import Failed, Landed
from postseal.app.lookup_ports import Http, Store
from postseal.app.ports import Clock
from postseal.core import ocsp
from postseal.core.certs import Certificate
from postseal.core.evidence import CrlEvidence, OcspEvidence, Question, question_for
from postseal.core.ocsp_status import delegate_to_check
from postseal.core.revocation import Nonce, Order, RevocationSettings, Status, judge, still_needed
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer

CONTENT_TYPE = "application/ocsp-request"
# A responder that refuses GET, a nonce and SHA-256 has been asked four times; next time it is asked once.
_MOST_REQUESTS = 4
NewNonce = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Habits:
    """What a responder understands, remembered per URL: the hash of the CertID, GET at all, and a nonce."""

    hash: str = "sha256"
    post: bool = False
    nonce: bool = True


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request should have; ``max_size`` in octets, ``deadline`` a moment of the monotonic clock.

    ``once_more`` is asked before each further request.
    """

    max_size: int
    deadline: float
    nonce: Nonce = Nonce.OFF
    once_more: Callable[[], bool] = lambda: True
    new_nonce: NewNonce = lambda: secrets.token_bytes(ocsp.NONCE_OCTETS)


@dataclass(frozen=True, slots=True)
class Heard:
    """How a conversation ended: the last word, the nonce of the request that it answers, and the habits worth remembering."""

    transfer: Transfer
    nonce: bytes
    habits: Habits


def ask_responder(http: Http, url: str, question: Question, habits: Habits, wishes: Wishes) -> Heard:
    """Ask in the way that is known to work, and when that is refused once in each other way, a few requests in all."""
    first: Heard | None = None
    tried = {habits}
    trying = habits
    for _ in range(_MOST_REQUESTS):
        # OCSP-13
        wanted = wishes.nonce is Nonce.REQUIRE or (wishes.nonce is Nonce.ON and trying.nonce)
        nonce = wishes.new_nonce() if wanted else b""
        method, transfer = _request(http, url, question, trying, nonce, wishes)
        if isinstance(transfer, Fetched) and ocsp.response_status(transfer.body) == "successful":
            return Heard(transfer, nonce, _learned(trying, transfer.body, nonce))
        first = first or Heard(transfer, nonce, _forgotten(habits, transfer))
        other = _another_way(trying, transfer, method, may_drop_nonce=bool(nonce) and wishes.nonce is Nonce.ON)
        # THR-6: what a responder refuses makes no traffic beyond the host's share.
        if other is None or other in tried or not wishes.once_more():
            break
        tried.add(other)
        trying = other
    assert first is not None
    return first


def _request(
    http: Http, url: str, question: Question, habits: Habits, nonce: bytes, wishes: Wishes
) -> tuple[str, Transfer]:
    request = ocsp.build_request(question, habits.hash, nonce)
    # OCSP-14: GET when the URL stays short, so that caches between here and there can answer. OCSP-13: none of them can
    # answer a request with a nonce.
    method, address, body = ocsp.http_request(url, request, post=habits.post or bool(nonce))
    if method == "GET":
        return method, http.get(address, max_size=wishes.max_size, deadline=wishes.deadline)
    size, deadline = wishes.max_size, wishes.deadline
    return method, http.post(address, body, content_type=CONTENT_TYPE, max_size=size, deadline=deadline)


def _another_way(habits: Habits, transfer: Transfer, method: str, *, may_drop_nonce: bool) -> Habits | None:
    """What else to try after this refusal; None when it is none, or nothing else is left."""
    status = ocsp.response_status(transfer.body) if isinstance(transfer, Fetched) else ""
    if method == "GET" and (_refuses_get(transfer) or status == "malformed"):
        return replace(habits, post=True)
    if status not in _RETRIED and not _connection_lost(transfer):
        return None
    if may_drop_nonce and status != "unauthorized":
        return replace(habits, nonce=False)
    # OCSP-1: an old responder may know SHA-1 only, and says so in one of several ways.
    if habits.hash == "sha256":
        return replace(habits, hash="sha1")
    # Some can't undo the escapes of a GET and call that malformed too.
    return replace(habits, hash="sha256", post=True) if method == "GET" and status == "malformedRequest" else None


_RETRIED = ("malformedRequest", "internalError", "unauthorized")


def _learned(habits: Habits, body: bytes, nonce: bytes) -> Habits:
    """OCSP-13: a responder that leaves out the nonce is asked without it, so that GET and caches are of use again."""
    return replace(habits, nonce=False) if nonce and not ocsp.has_nonce(body) else habits


def _forgotten(habits: Habits, transfer: Transfer) -> Habits:
    """What worked before doesn't work any more: begin anew next time. "unauthorized" is about the certificate (RFC 9919)."""
    if isinstance(transfer, Fetched):
        changed = ocsp.response_status(transfer.body) in ("malformed", "malformedRequest", "internalError")
    else:
        changed = _refused(transfer) or _connection_lost(transfer)
    return Habits() if changed else habits


def _refuses_get(transfer: Transfer) -> bool:
    """OCSP-14: 405 says it, but 400, 403, 404, 414, 500 and 501 are also seen where only POST works."""
    return _refused(transfer) or (isinstance(transfer, FetchFailed) and transfer.status in (500, 501))


def _refused(transfer: Transfer) -> bool:
    # 408 and 429 are about time, not about the request.
    return isinstance(transfer, FetchFailed) and 400 <= transfer.status < 500 and transfer.status not in (408, 429)


def _connection_lost(transfer: Transfer) -> bool:
    if not isinstance(transfer, FetchFailed):
        return False
    return "closed the connection" in transfer.detail or "reset" in transfer.detail


class OcspFlights:
    """Fetches answers for the lookup process. Safe for threads. Raises Unavailable when the store can't be used.

    ``fetch_crl`` starts to fetch a CRL, given its URL, the question that it helps to answer and the issuer's path;
    ``once_more`` tells whether the host of a URL may be asked again at once, and counts it.
    """

    def __init__(
        self, store: Store, http: Http, clock: Clock, revocation: RevocationSettings, max_size: int,
        chance: Callable[[], float], fetch_crl: Callable[[str, Question, tuple[Certificate, ...]], object],
        once_more: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._store = store
        self._http = http
        self._clock = clock
        self._settings = revocation
        self._max_size = max_size
        self._chance = chance
        self._fetch_crl = fetch_crl
        self._once_more = once_more

    def fetch(
        self, url: str, question: Question, chain: tuple[Certificate, ...], deadline: float, *, asked: bool,
        insist: bool = False,
    ) -> Landed | Failed:  # fmt: skip
        """One answer. ``chain`` is the validated path of the issuer, issuer first; ``asked`` False: fetched ahead.

        ``insist`` asks for an answer that was made just now (OCSP-13), whatever is configured.
        """
        state = self._store.url_state(url)
        known = Habits(state.responder_hash, state.responder_post, state.responder_nonce)
        mode = Nonce.ON if insist and self._settings.nonce is Nonce.OFF else self._settings.nonce
        wishes = Wishes(self._max_size, deadline, mode, lambda: self._once_more(url))
        heard = ask_responder(self._http, url, question, known, wishes)
        if heard.habits != known:
            hash_name, post, nonce = heard.habits.hash, heard.habits.post, heard.habits.nonce
            self._store.remember_responder(url, hash_name=hash_name, post=post, nonce=nonce)
        transfer = heard.transfer
        if isinstance(transfer, FetchFailed):
            return Failed(transfer.why, transfer.detail, transfer.retry_after, transfer.host_fault)
        if isinstance(transfer, NotModified):
            return Failed("rev.http-status", "HTTP status 304 to a request without conditions")
        return self._accept(url, question, chain, transfer, heard.nonce, asked)

    def _accept(
        self, url: str, question: Question, chain: tuple[Certificate, ...], transfer: Fetched, nonce: bytes, asked: bool
    ) -> Landed | Failed:
        """Store the answer if it decides and is no worse than what is there (CACHE-4)."""
        at = self._clock.now()
        only = replace(self._settings, order=Order.OCSP_ONLY)
        at_hand = self._store.evidence(question)
        crls = [e for e in at_hand if isinstance(e, CrlEvidence)]
        fetched = OcspEvidence(transfer.body, url, at, nonce)
        # OCSP-10: CRLs don't decide here, but may list the responder.
        verdict = judge(question, (fetched, *crls), only, at)
        if verdict.source != url:
            verdict = judge(question, (fetched,), only, at)
        own = "" if ocsp.about_responder(transfer.body) else question.certificate.fingerprint
        if verdict.status is Status.UNKNOWN:
            return Failed(verdict.reason, verdict.detail, about=own)
        if verdict.status is Status.GOOD and verdict.next_update is None:
            # OCSP-12: good for one decision, which somebody else makes; the nonce can't be kept with it.
            return Failed("rev.stale", "the OCSP answer has no nextUpdate, so it can't be kept", about=own)
        kept = [e for e in at_hand if isinstance(e, OcspEvidence)]
        worse = freshness.why_worse_answer(judge(question, kept, only, at), verdict)
        if worse:
            return Failed(*worse, about=own)
        this_update, next_update = verdict.this_update or at, verdict.next_update
        refresh_at = freshness.refresh_at(this_update, next_update, transfer.max_age, at, self._chance, latest=0.75)
        self._store.store_ocsp(
            question, chain, transfer.body, url, at, refresh_at, verdict.this_update, next_update, asked=asked
        )
        self._check_responder(transfer.body, question, chain)
        return Landed(freshness.rest(this_update, next_update))

    def _check_responder(self, der: bytes, question: Question, chain: tuple[Certificate, ...]) -> None:
        """OCSP-10: have the CRL fetched that says whether the responder's own certificate is revoked, if it must be asked."""
        at = self._clock.now()
        certificate = delegate_to_check(der, question.issuer, self._settings, at)
        if certificate is None:
            return
        about = question_for(certificate, question.issuer, question.chain)
        only = replace(self._settings, order=Order.CRL_ONLY)
        if about.crl_urls and still_needed(about, self._store.evidence(about), only, at):
            self._fetch_crl(about.crl_urls[0], about, chain)
