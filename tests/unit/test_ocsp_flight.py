"""The conversation with an OCSP responder: what is tried when it refuses, what is remembered, what is stored."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path as FilePath
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as peer
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.app.lookup import Lookups, LookupSettings
from postseal.app.ocsp_flight import Habits, Wishes, ask_responder
from postseal.core.evidence import OcspEvidence, Question, question_for
from postseal.core.ocsp import response_status
from postseal.core.path import PathSettings
from postseal.core.revocation import Nonce, Order, RevocationSettings, Status, judge
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard
from support.lookups import CRL, NOW, OCSP, ROOT, Bench, Web, crl, issue, question
from support.pki import DAY, HOUR, Leaf, usage
from support.responders import OCSP_TYPE, OpensslResponder, Responder, WebServer

NEW = Habits()
ASKED = question(ocsp=(OCSP,))
NOT_OCSP = b"<html>Welcome to our proxy</html>"


def error(name: str) -> bytes:
    status = getattr(peer.OCSPResponseStatus, name)
    return peer.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


@dataclass
class Picky:
    """A responder with opinions; ``seen`` are (method, hash, nonce?) of all that it was asked."""

    answer: Responder = field(default_factory=lambda: Responder(ROOT))
    get: Transfer | bytes | None = None
    sha256: Transfer | bytes | None = None
    sha1: Transfer | bytes | None = None
    nonce: Transfer | bytes | None = None
    seen: list[tuple[str, str, bool]] = field(default_factory=list)

    def __call__(self, url: str, body: bytes | None, headers: object) -> Transfer:
        der = body if body is not None else base64.b64decode(unquote(url.rsplit("/", 1)[1]))
        request = peer.load_der_ocsp_request(der)
        method, hash_name, nonce = (
            "GET" if body is None else "POST",
            request.hash_algorithm.name,
            bool(request.extensions),
        )
        self.seen.append((method, hash_name, nonce))
        refusals = (self.get if method == "GET" else None, self.nonce if nonce else None, getattr(self, hash_name))
        for refusal in refusals:
            if refusal is not None:
                return Fetched(url, refusal) if isinstance(refusal, bytes) else refusal
        return Fetched(url, self.answer.answer(der))


def status(code: int) -> FetchFailed:
    return FetchFailed(OCSP, "rev.http-status", f"HTTP status {code}", host_fault=code >= 500, status=code)


LOST = FetchFailed(OCSP, "rev.unreachable", "the server closed the connection without an answer", host_fault=True)


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.lookups.close()


def asked_twice(bench: Bench, picky: Picky, nonce: Nonce = Nonce.OFF) -> list[tuple[str, str, bool]]:
    """Two questions, the second by another process on the same store; what the second needed."""
    bench.revocation = replace(bench.revocation, nonce=nonce)
    bench.lookups.close()
    bench.web.answers[OCSP] = picky
    for slot in (1, 2):
        bench.lookups = bench.make()
        first = len(picky.seen)
        asked = question(ocsp=(OCSP,), slot=slot)
        bench.ask(asked)
        assert bench.status(asked) == (Status.GOOD, "rev.ocsp")
        bench.lookups.close()
    return picky.seen[first:]


@pytest.mark.parametrize("refusal", [status(n) for n in (400, 403, 404, 405, 414, 500, 501)] + [NOT_OCSP])
def test_t30_get_refused(refusal: Transfer | bytes, bench: Bench) -> None:
    """OCSP-14, T-30: 405 and its like: POST once, and POST at once the next time, also by another process."""
    picky = Picky(get=refusal)
    assert asked_twice(bench, picky) == [("POST", "sha256", False)]
    assert picky.seen[:2] == [("GET", "sha256", False), ("POST", "sha256", False)]


@pytest.mark.parametrize(
    "refusal", [status(n) for n in (408, 429, 502, 503)] + [error("TRY_LATER"), error("SIG_REQUIRED")]
)
def test_t30_no_refusal_of_the_way(refusal: Transfer | bytes, bench: Bench) -> None:
    """OCSP-1, OCSP-14, CACHE-3: who is busy, or never answers us, isn't asked again in another way."""
    picky = Picky(get=refusal)
    bench.web.answers[OCSP] = picky
    bench.ask(question(ocsp=(OCSP,)))
    assert picky.seen == [("GET", "sha256", False)]


@pytest.mark.parametrize("refusal", [error("MALFORMED_REQUEST"), error("INTERNAL_ERROR"), error("UNAUTHORIZED"), LOST])
def test_t30_sha256_refused(refusal: Transfer | bytes, bench: Bench) -> None:
    """OCSP-1, T-30: SHA-1 once, and at once the next time."""
    picky = Picky(sha256=refusal)
    assert asked_twice(bench, picky) == [("GET", "sha1", False)]
    assert picky.seen[:2] == [("GET", "sha256", False), ("GET", "sha1", False)]


@pytest.mark.parametrize(("refusal", "most"), [(error("UNAUTHORIZED"), 2), (LOST, 2), (error("MALFORMED_REQUEST"), 4)])
def test_t30_one_retry_each(refusal: Transfer | bytes, most: int, bench: Bench) -> None:
    """OCSP-1, T-30: a responder that refuses everything hears each way once, and nothing is learned from it."""
    picky = Picky(sha256=refusal, sha1=refusal)
    bench.web.answers[OCSP] = picky
    asked = question(ocsp=(OCSP,))
    bench.ask(asked)
    assert len(picky.seen) == len(set(picky.seen)) == most
    state = bench.store.url_state(OCSP)
    assert (state.responder_hash, state.responder_post, state.responder_nonce) == ("sha256", False, True)
    assert len(bench.failures(asked)) == 1


def test_t30_everything_at_once(bench: Bench) -> None:
    """OCSP-1, OCSP-13, OCSP-14: POST, SHA-1 and no nonce are found out in four requests; then one does."""
    picky = Picky(get=status(405), sha256=error("UNAUTHORIZED"), nonce=error("MALFORMED_REQUEST"))
    assert asked_twice(bench, picky, Nonce.ON) == [("POST", "sha1", False)]
    assert len(picky.seen) == 5


def test_t30_retries_count_against_the_host(bench: Bench) -> None:
    """THR-6: a responder that refuses every way gets no more than the host's share of requests within a minute."""
    refusal = error("MALFORMED_REQUEST")
    picky = Picky(sha256=refusal, sha1=refusal)
    bench.web.answers[OCSP] = picky
    limited = LookupSettings(request_timeout=5.0, host_requests_per_minute=6)
    lookups = Lookups(bench.store, bench.web, bench.trust, bench.clock, PathSettings(), bench.revocation, limited,
                      bench.heard.append, chance=lambda: 0.5)  # fmt: skip
    for slot in range(5):
        lookups.ask([question(ocsp=(OCSP,), slot=slot)], 10.0)
    lookups.close()
    assert len(picky.seen) == 6


def test_what_worked_and_does_not_any_more_is_forgotten(bench: Bench) -> None:
    """OCSP-1: a responder that has learned SHA-256, and forgotten SHA-1 over it, is found again."""
    picky = Picky(sha256=error("UNAUTHORIZED"))
    asked_twice(bench, picky)
    picky.sha256, picky.sha1 = None, error("MALFORMED_REQUEST")
    bench.lookups = bench.make()
    asked = question(ocsp=(OCSP,), slot=3)
    bench.ask(asked)
    bench.clock.advance(HOUR)
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.ocsp")
    assert bench.store.url_state(OCSP).responder_hash == "sha256"


def test_t29_without_nonces_caches_are_of_use(bench: Bench) -> None:
    """OCSP-13: off is the default: nothing is sent, and GET is used."""
    picky = Picky()
    assert asked_twice(bench, picky) == [("GET", "sha256", False)]


@pytest.mark.parametrize("mode", [Nonce.ON, Nonce.REQUIRE])
def test_t29_a_nonce_goes_by_post(mode: Nonce, bench: Bench) -> None:
    """OCSP-13, T-29: 32 octets, different each time, by POST; the answer with it is stored and later judged without it."""
    nonces: list[bytes] = []
    answer = Responder(ROOT)
    answer.nonce_back = lambda nonce: nonces.append(nonce) or nonce  # type: ignore[func-returns-value]
    picky = Picky(answer)
    asked_twice(bench, picky, mode)
    assert picky.seen == [("POST", "sha256", True)] * 2
    assert [len(n) for n in nonces] == [32, 32]
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("refusal", [error("MALFORMED_REQUEST"), error("INTERNAL_ERROR"), LOST])
def test_t29_nonce_refused(refusal: Transfer | bytes, bench: Bench) -> None:
    """OCSP-13, T-29: with "on" a responder that can't bear a nonce is asked without, and so at once the next time."""
    picky = Picky(nonce=refusal)
    assert asked_twice(bench, picky, Nonce.ON) == [("GET", "sha256", False)]
    assert picky.seen[:2] == [("POST", "sha256", True), ("GET", "sha256", False)]


def test_t29_nonce_ignored(bench: Bench) -> None:
    """OCSP-13, T-29: with "on" an answer without nonce counts, and the responder isn't bothered with one again."""
    answer = Responder(ROOT)
    answer.nonce_back = lambda nonce: None
    picky = Picky(answer)
    assert asked_twice(bench, picky, Nonce.ON) == [("GET", "sha256", False)]
    assert picky.seen == [("POST", "sha256", True), ("GET", "sha256", False)]


@pytest.mark.parametrize(
    ("back", "mode", "why"),
    [
        (lambda nonce: None, Nonce.REQUIRE, "rev.no-nonce"),
        (lambda nonce: b"w" * 32, Nonce.REQUIRE, "rev.wrong-nonce"),
        (lambda nonce: b"w" * 32, Nonce.ON, "rev.wrong-nonce"),
        (lambda nonce: nonce[:1], Nonce.ON, "rev.wrong-nonce"),
        (lambda nonce: nonce + bytes(96), Nonce.ON, "rev.wrong-nonce"),
        (lambda nonce: nonce + bytes(97), Nonce.ON, "rev.wrong-nonce"),
    ],
)
def test_t29_answers_to_another_request(
    back: Callable[[bytes], bytes | None], mode: Nonce, why: str, bench: Bench
) -> None:
    """OCSP-13, T-29, CACHE-4: another nonce (1, 32, 128, 129 octets), or none where one is required: nothing is stored."""
    bench.revocation = replace(bench.revocation, nonce=mode)
    bench.lookups = bench.make()
    answer = Responder(ROOT)
    answer.nonce_back = back
    bench.web.answers[OCSP] = Picky(answer)
    asked = question(ocsp=(OCSP,))
    for _ in (1, 2):
        bench.ask(asked)
        assert [f.why for f in bench.failures(asked)] == [why]
        assert bench.status(asked) == (Status.UNKNOWN, why)
        bench.clock.advance(HOUR)
    assert {nonce for _, _, nonce in bench.web.answers[OCSP].seen} == {True}  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", [Nonce.OFF, Nonce.ON])
def test_t22_an_answer_without_next_update_is_not_kept(mode: Nonce, bench: Bench) -> None:
    """OCSP-12, T-22: TTL 0. Another decision would have to believe it without the nonce."""
    bench.revocation = replace(bench.revocation, nonce=mode)
    bench.lookups = bench.make()
    answer = Responder(ROOT)
    answer.lifetime = None
    bench.web.answers[OCSP] = Picky(answer)
    asked = question(ocsp=(OCSP,))
    bench.ask(asked)
    assert not any(isinstance(e, OcspEvidence) for e in bench.store.evidence(asked))
    assert [f.why for f in bench.failures(asked)] == ["rev.stale"]


def test_an_administrator_hears_what_is_true_now(bench: Bench) -> None:
    """OCSP-13: "evidence refresh" asks with a nonce, whatever is configured; the plan's refreshes don't."""
    picky = Picky()
    asked_twice(bench, picky)
    bench.lookups = bench.make()
    entries = bench.store.entries()
    outcomes = bench.lookups.refresh(entries, 10.0)
    assert [o.why for o in outcomes] == ["", ""]
    assert picky.seen[-2:] == [("POST", "sha256", True)] * 2
    bench.clock.advance(timedelta(hours=3, minutes=30))
    assert bench.prefetch() == 2
    assert picky.seen[-2:] == [("GET", "sha256", False)] * 2


def delegate(*extra: tuple[x509.ExtensionType, bool]) -> Leaf:
    return ROOT.issue(
        None, slot="responder", common_name="Responder", eku=[ExtendedKeyUsageOID.OCSP_SIGNING], crl_urls=[CRL],
        key_usage=usage("digital_signature"), extra=list(extra), not_before=NOW - DAY, not_after=NOW + 30 * DAY,
    )  # fmt: skip


def test_the_crl_of_the_responder_is_fetched(bench: Bench) -> None:
    """OCSP-10: without nocheck the CRL that its certificate names says whether it is revoked; with it nobody asks."""
    bench.web.answers[CRL] = crl(ROOT)
    bench.web.answers[OCSP] = Picky(Responder(ROOT, delegate((x509.OCSPNoCheck(), False))))
    bench.ask(question(ocsp=(OCSP,), slot="nocheck"))
    assert bench.web.count(CRL) == 0
    plain = delegate()
    bench.web.answers[OCSP] = Picky(Responder(ROOT, plain))
    asked = question(ocsp=(OCSP,), slot="plain")
    bench.ask(asked)
    bench.prefetch()
    assert bench.web.count(CRL) == 1
    public = RevocationSettings(order=Order.OCSP_ONLY, public=True)
    assert judge(asked, bench.store.evidence(asked), public, NOW).status is Status.GOOD
    bench.clock.advance(HOUR)
    bench.web.answers[CRL] = crl(ROOT, plain, this_update=NOW)
    bench.lookups.refresh([e for e in bench.store.entries() if e.kind == "crl"], 10.0)
    verdict = judge(asked, bench.store.evidence(asked), public, bench.clock.now())
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.unauthorized-responder")


REPLIES = st.one_of(
    st.binary(max_size=40).filter(lambda b: response_status(b) != "successful").map(lambda body: Fetched(OCSP, body)),
    st.sampled_from([error(n) for n in ("MALFORMED_REQUEST", "INTERNAL_ERROR", "TRY_LATER", "SIG_REQUIRED",
                                        "UNAUTHORIZED")]).map(lambda body: Fetched(OCSP, body)),
    st.integers(100, 599).map(status),
    st.just(LOST),
    st.just(NotModified(OCSP)),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(REPLIES, min_size=4, max_size=4), st.sampled_from(Nonce), st.booleans(), st.booleans(), st.booleans())
def test_every_conversation_ends(replies: list[Transfer], nonce: Nonce, old: bool, post: bool, bare: bool) -> None:
    """OCSP-1, OCSP-4, RPL-3: whatever comes back: at most four requests, no two alike, no exception, no good answer made up."""
    known = Habits("sha1" if old else "sha256", post, not bare)
    web, left, seen = Web(), iter(replies), []

    def respond(url: str, body: bytes | None, headers: object) -> Transfer:
        seen.append((url, body))
        return next(left)

    web.answers[OCSP] = respond
    heard = ask_responder(web, OCSP, ASKED, known, Wishes(65536, 0.0, nonce, new_nonce=lambda: b"n" * 32))
    assert 1 <= len(seen) == len(set(seen)) <= 4
    assert heard.transfer == replies[0]
    assert heard.habits in (known, Habits())
    if nonce is Nonce.REQUIRE:
        assert all(b"n" * 32 in (body or b"") for _, body in seen)


class Loopback:
    """Real HTTP to a server of the test."""

    def __init__(self, web: WebServer) -> None:
        self.http = Fetcher(Guard(ports=[web.port], allow_networks=["127.0.0.0/8"]), user_agent="postseal/test")
        self.web = web

    def ask(self, path: str, asked: Question, habits: Habits = NEW, nonce: Nonce = Nonce.OFF) -> tuple[str, Habits]:
        """Reason of the verdict on what ``openssl ocsp`` says, and the habits learned."""
        wishes = Wishes(65536, time.monotonic() + 10.0, nonce)
        heard = ask_responder(self.http, self.web.url(path), asked, habits, wishes)
        assert isinstance(heard.transfer, Fetched), heard.transfer
        evidence = OcspEvidence(heard.transfer.body, self.web.url(path), NOW, heard.nonce)
        return judge(asked, [evidence], RevocationSettings(nonce=nonce), NOW).reason, heard.habits


def test_t30_t29_openssl_over_http(tmp_path: FilePath) -> None:
    """OCSP-1, OCSP-13, OCSP-14, T-29, T-30: openssl ocsp behind real HTTP, whole, without GET, and with SHA-1 only."""
    good, bad = issue(ROOT, "good"), issue(ROOT, "bad")
    openssl = OpensslResponder(tmp_path / "ca", ROOT)
    openssl.good(good)
    openssl.revoke(bad)

    def old(der: bytes) -> bytes:
        known = peer.load_der_ocsp_request(der).hash_algorithm.name == "sha1"
        return openssl.answer(der) if known else error("UNAUTHORIZED")

    with WebServer() as web:
        for path, body, get_status in (("/whole", openssl.answer, 0), ("/post", openssl.answer, 405), ("/old", old, 0)):
            web.put(path, body, OCSP_TYPE, get_status=get_status)
        loopback = Loopback(web)
        asked = question_for(good.certificate, ROOT.certificate)
        assert loopback.ask("/whole", asked) == ("rev.ocsp", NEW)
        assert loopback.ask("/whole", asked, nonce=Nonce.REQUIRE) == ("rev.ocsp", NEW)
        assert loopback.ask("/post", asked) == ("rev.ocsp", Habits(post=True))
        assert loopback.ask("/old", asked) == ("rev.ocsp", Habits("sha1"))
        before = web.count("/old")
        assert loopback.ask("/old", asked, Habits("sha1")) == ("rev.ocsp", Habits("sha1"))
        assert web.count("/old") == before + 1
        revoked = question_for(bad.certificate, ROOT.certificate)
        assert loopback.ask("/old", revoked, nonce=Nonce.ON)[0] == "rev.revoked-ocsp"
        unknown = question_for(issue(ROOT, "unknown").certificate, ROOT.certificate)
        assert loopback.ask("/whole", unknown)[0] == "rev.ocsp-unknown"
