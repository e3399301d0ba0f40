"""The lookup use case: what is fetched for whom, in which order, how often, and what is stored of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path as FilePath
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as x509_ocsp

from postseal.app import freshness
from postseal.app.lookup import LookupSettings
from postseal.core.crl import parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import CrlEvidence, OcspEvidence, question_for
from postseal.core.revocation import Order, Status
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer
from support.lookups import CRL, NOW, OCSP, ROOT, Bench, authority, crl, issue, question, responder
from support.pki import DAY, HOUR, Authority, Leaf
from support.responders import Responder


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.lookups.close()


def test_crl_first_then_nothing_more(bench: Bench) -> None:
    """A CRL that decides is enough: the second distribution point and OCSP aren't asked, nor is anything twice."""
    asked = question(CRL, "http://ca.test/2.crl", ocsp=(OCSP,))
    bench.web.answers[CRL] = crl(ROOT)
    assert bench.ask(asked) == 0
    assert bench.status(asked) == (Status.GOOD, "rev.crl")
    bench.ask(asked)
    assert [url for _, url, _ in bench.web.asked] == [CRL]


def test_every_source_is_tried_in_order(bench: Bench) -> None:
    """CRL-11, RPL-3: one after the other until one decides; failures stay beside the evidence."""
    asked = question(CRL, "http://ca.test/2.crl", ocsp=(OCSP,))
    bench.web.answers[CRL] = b"<html>please log in</html>"
    bench.web.answers[OCSP] = responder(Responder(ROOT))
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.ocsp")
    assert {f.url: f.why for f in bench.failures(asked)} == {
        CRL: "rev.malformed", "http://ca.test/2.crl": "rev.unreachable",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("order", "expected"),
    [(Order.CRL_FIRST, ["crl", "ocsp"]), (Order.OCSP_FIRST, ["ocsp", "crl"]), (Order.CRL_ONLY, ["crl"]),
     (Order.OCSP_ONLY, ["ocsp"]), (Order.BOTH, ["crl", "ocsp"])],
)  # fmt: skip
def test_order_is_the_configured_one(order: Order, expected: list[str], tmp_path: FilePath) -> None:
    """RPL-1: who is asked first, and who not at all."""
    bench = Bench(tmp_path, order)
    bench.ask(question(CRL, ocsp=(OCSP,)))
    assert ["crl" if url == CRL else "ocsp" for _, url, _ in bench.web.asked] == expected


def test_revoked_stops_the_search(bench: Bench) -> None:
    """RPL-4: nobody is asked for a second opinion on a revocation."""
    leaf = issue(ROOT, crl_urls=[CRL], ocsp_urls=[OCSP])
    asked = question_for(leaf.certificate, ROOT.certificate)
    bench.web.answers[CRL] = crl(ROOT, leaf)
    bench.ask(asked)
    assert bench.status(asked) == (Status.REVOKED, "rev.revoked-crl")
    assert bench.web.count(OCSP) == 0


def test_one_ask_makes_few_requests(bench: Bench) -> None:
    """THR-6: an ask with 20 certificates of 20 URLs each makes no more requests than allowed."""
    many = [question(*(f"http://h{n}.test/{m}.crl" for m in range(8)), slot=n) for n in range(20)]
    bench.ask(*many)
    assert bench.web.count() == LookupSettings().requests_per_message == 6


def test_unvalidated_certificates_cause_no_request(bench: Bench) -> None:
    """PRE-1, THR-23: a stranger's certificate, one that only claims our issuer, and an expired one."""
    stranger = authority("Use case stranger")
    impostor = Authority(ROOT.certificate, stranger.key, ROOT.subject)
    past = NOW - 10 * DAY
    asked = [
        question_for(issue(stranger, crl_urls=[CRL]).certificate, stranger.certificate),
        question_for(issue(stranger, crl_urls=[CRL]).certificate, ROOT.certificate),
        question_for(issue(impostor, crl_urls=[CRL]).certificate, ROOT.certificate),
        question_for(issue(ROOT, crl_urls=[CRL], not_after=past).certificate, ROOT.certificate),
    ]
    assert bench.ask(*asked) == 4
    assert bench.web.asked == []
    assert len(bench.heard) == 4


def test_anchor_that_is_gone_ends_fetching(bench: Bench) -> None:
    """Without its anchor a CA's URLs are used no more, neither for asks nor ahead of time."""
    asked = question(CRL)
    bench.web.answers[CRL] = crl(ROOT, next_update=NOW + DAY)
    bench.ask(asked)
    bench.trust.roots.clear()
    bench.trust.number += 1
    bench.clock.advance(timedelta(hours=30))
    assert bench.ask(asked) == 1
    assert bench.prefetch() == 0
    assert bench.web.count() == 1


def test_unreadable_trust_store_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When anchors can't be read nothing is fetched, and the cause is said."""

    def fail() -> int:
        raise Unavailable("anchors: permission denied")

    monkeypatch.setattr(bench.trust, "generation", fail)
    assert bench.ask(question(CRL)) == 1
    assert "permission denied" in bench.heard[0]


BAD_CRLS: dict[str, tuple[Callable[[], bytes], str]] = {
    "HTML": (lambda: b"<html>captive portal</html>", "rev.malformed"),
    "truncated": (lambda: crl(ROOT, number=2)[:-1], "rev.malformed"),
    "another issuer's": (lambda: crl(authority("Use case stranger"), number=2), "rev.wrong-issuer"),
    "forged": (
        lambda: crl(Authority(ROOT.certificate, authority("Use case stranger").key, ROOT.subject), number=2),
        "rev.bad-signature"),
    "lower number": (lambda: crl(ROOT, number=1), "rev.rollback"),
    "older": (lambda: crl(ROOT, number=5, this_update=NOW - 3 * HOUR), "rev.rollback"),
    "expired": (lambda: crl(ROOT, number=5, this_update=NOW - HOUR / 2, next_update=NOW - HOUR / 3), "rev.stale"),
    "from the future": (lambda: crl(ROOT, number=5, this_update=NOW + DAY), "rev.not-yet-valid"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CRLS)
def test_bad_crl_never_replaces_a_good_one(name: str, bench: Bench) -> None:
    """CACHE-4, CRL-25, THR-25: whatever comes after, the good CRL stays and decides; the failure is noted and said."""
    make, why = BAD_CRLS[name]
    asked = question(CRL)
    bench.web.answers[CRL] = crl(ROOT, number=2)
    bench.ask(asked)
    bench.web.answers[CRL] = make()
    (outcome,) = bench.lookups.refresh(bench.store.entries(), 10.0)
    assert (outcome.url, outcome.why) == (CRL, why)
    assert [f.why for f in bench.failures(asked)] == [why]
    assert bench.status(asked) == (Status.GOOD, "rev.crl")
    (kept,) = bench.store.entries()
    assert kept.number == 2
    assert any(f"could not retrieve URL {CRL}" in text for text in bench.heard)


@pytest.mark.parametrize("name", ["HTML", "another issuer's", "forged"])
def test_bad_crl_is_not_stored_even_when_there_is_none(name: str, bench: Bench) -> None:
    """What the issuer didn't sign never enters the store."""
    make, why = BAD_CRLS[name]
    asked = question(CRL)
    bench.web.answers[CRL] = make()
    bench.ask(asked)
    assert bench.store.entries() == ()
    assert bench.status(asked) == (Status.UNKNOWN, why)


OCSP_FAULTS = {
    "bad signature": ({"break_signature": True}, "rev.bad-signature"),
    "another serial": ({"other_serial": True}, "rev.ocsp-mismatch"),
    "unknown": ({"unknown": True}, "rev.ocsp-unknown"),
    "try later": ({"error": x509_ocsp.OCSPResponseStatus.TRY_LATER}, "rev.ocsp-error"),
}


@pytest.mark.parametrize("name", OCSP_FAULTS)
def test_bad_ocsp_is_not_stored(name: str, bench: Bench) -> None:
    """An answer that doesn't decide is a failure of its URL, left alone for a while."""
    faults, why = OCSP_FAULTS[name]
    answer = Responder(ROOT)
    for attribute, value in faults.items():
        setattr(answer, attribute, value)
    asked = question(ocsp=(OCSP,))
    bench.web.answers[OCSP] = responder(answer)
    bench.ask(asked)
    assert not any(isinstance(e, OcspEvidence) for e in bench.store.evidence(asked))
    assert [f.why for f in bench.failures(asked)] == [why]
    bench.ask(asked)
    assert answer.asked == 1


@pytest.mark.parametrize("error", ["MALFORMED_REQUEST", "INTERNAL_ERROR", "UNAUTHORIZED"])
def test_sha1_is_tried_and_remembered(error: str, bench: Bench) -> None:
    """OCSP-1: a responder that knows SHA-1 only is asked so at once the next time, also by another process."""
    old = Responder(ROOT)
    hashes: list[str] = []

    def respond(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        transfer = responder(old)(url, body, headers)
        asked = x509_ocsp.load_der_ocsp_request(body or base64.b64decode(unquote(url.rsplit("/", 1)[1])))
        hashes.append(asked.hash_algorithm.name)
        if asked.hash_algorithm.name == "sha256":
            status = getattr(x509_ocsp.OCSPResponseStatus, error)
            return Fetched(url, x509_ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER))
        return transfer

    bench.web.answers[OCSP] = respond
    first, second = question(ocsp=(OCSP,), slot=1), question(ocsp=(OCSP,), slot=2)
    bench.ask(first)
    bench.lookups = bench.make()
    bench.ask(second)
    assert hashes == ["sha256", "sha1", "sha1"]
    assert bench.status(first) == bench.status(second) == (Status.GOOD, "rev.ocsp")


def test_failures_back_off_and_a_success_resets(bench: Bench) -> None:
    """CACHE-3, T-26: 503, 503, OK. One request per period, longer each time, in every process; then all is forgotten."""
    asked = question(CRL)
    bench.web.answers[CRL] = FetchFailed(CRL, "rev.http-status", "HTTP status 503", host_fault=True)
    waits = []
    for expected in (1, 2, 3):
        bench.ask(asked)
        bench.lookups = bench.make()
        bench.ask(asked)
        assert bench.web.count() == expected
        (failure,) = bench.failures(asked)
        assert failure.retry_at is not None
        waits.append((failure.retry_at - failure.at).total_seconds())
        bench.clock.advance(failure.retry_at - bench.clock.now())
    assert waits == [60.0, 120.0, 240.0]
    bench.web.answers[CRL] = crl(ROOT)
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.crl")
    assert bench.failures(asked) == []
    assert bench.store.host_state("ca.test") == (0, None)


def test_retry_after_is_honoured_up_to_an_hour(bench: Bench) -> None:
    """The server may ask for more patience than ours, not for a day of it."""
    for number, (asked_for, expected) in enumerate([(300.0, 300.0), (86400.0, 3600.0), (1.0, 60.0)]):
        asked = question(f"http://r{number}.test/x.crl", slot=number)
        bench.web.answers[f"http://r{number}.test/"] = FetchFailed("", "rev.http-status", "HTTP status 503", asked_for)
        bench.ask(asked)
        (failure,) = bench.failures(asked)
        assert failure.retry_at == NOW + timedelta(seconds=expected)


def test_dead_host_is_left_alone_as_a_whole(bench: Bench) -> None:
    """CACHE-3, T-26: after five failures in a row no further URL of the host is tried, until its time has come."""
    for number in range(8):
        bench.ask(question(f"http://dead.test/{number}.crl", slot=number))
    assert bench.web.count("http://dead.test/") == 5
    bench.clock.advance(timedelta(seconds=61))
    bench.web.answers["http://dead.test/"] = crl(ROOT)
    last = question("http://dead.test/7.crl", slot=7)
    bench.ask(last)
    assert bench.status(last) == (Status.GOOD, "rev.crl")


def test_evidence_that_does_not_decide_is_not_fetched_again_at_once(bench: Bench) -> None:
    """CACHE-1: a CRL that came but has expired is asked for again after minutes, not with every message."""
    asked = question(CRL)
    bench.web.answers[CRL] = crl(ROOT, this_update=NOW - 8 * DAY, next_update=NOW - DAY)
    for _ in range(5):
        bench.ask(asked)
    assert bench.web.count() == 1
    bench.clock.advance(timedelta(minutes=6))
    bench.ask(asked)
    assert bench.web.count() == 2


def test_month_of_prefetching(bench: Bench) -> None:
    """CACHE-2: over 30 days a CRL of 7 days is fetched ahead some ten times, and is never stale."""
    asked = question(CRL)

    def current(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        at = bench.clock.now()
        days = (at - NOW) // DAY
        return Fetched(
            url, crl(ROOT, number=1 + days, this_update=NOW + days * DAY - HOUR, next_update=NOW + (days + 7) * DAY)
        )

    bench.web.answers[CRL] = current
    bench.ask(asked)
    for _ in range(30 * 4):
        bench.clock.advance(timedelta(hours=6))
        bench.prefetch()
        assert bench.status(asked) == (Status.GOOD, "rev.crl")
    assert 5 <= bench.web.count() <= 12


def test_directories_are_asked_last_and_again_before_expiry(bench: Bench) -> None:
    """CRL-28, CACHE-2: only when they may be; a CRL from one is fetched ahead like any other."""
    at = "ldap://dir.test/CN=x?certificateRevocationList"
    bench.web.answers = {CRL: FetchFailed(CRL, "rev.http-status", "404"), at: crl(ROOT)}
    asked = question(CRL, at)
    bench.ask(asked)
    assert (bench.web.count("http"), bench.web.count("ldap")) == (1, 0)
    assert bench.status(asked) == (Status.UNKNOWN, "rev.http-status")
    bench.revocation = replace(bench.revocation, ldap=True)
    bench.lookups = bench.make()
    bench.ask(asked)
    assert bench.web.count("ldap") == 1
    assert bench.status(asked) == (Status.GOOD, "rev.crl")
    bench.clock.advance(6.9 * DAY)
    assert bench.prefetch() == 1
    assert bench.web.count("ldap") == 2


def test_prefetch_survives_an_outage_within_the_window(bench: Bench) -> None:
    """A CA that is down for two days is asked with growing patience; the old CRL decides meanwhile."""
    asked = question(CRL)
    bench.web.answers[CRL] = crl(ROOT)
    bench.ask(asked)
    bench.clock.advance(timedelta(days=5))
    del bench.web.answers[CRL]
    for _ in range(48):
        bench.prefetch()
        bench.clock.advance(timedelta(minutes=30))
        assert bench.status(asked) == (Status.GOOD, "rev.crl")
    outage = bench.web.count() - 1
    assert 15 <= outage <= 48
    bench.web.answers[CRL] = crl(ROOT, number=2, this_update=bench.clock.now(), next_update=bench.clock.now() + 7 * DAY)
    bench.clock.advance(timedelta(hours=2))
    assert bench.prefetch() == 1
    assert bench.failures(asked) == []


def test_ocsp_is_fetched_ahead_while_it_is_used(bench: Bench) -> None:
    """CACHE-2: for two weeks after the last question, not for ever; then the answer is dropped."""
    asked = question(ocsp=(OCSP,))
    answer = Responder(ROOT)
    bench.web.answers[OCSP] = responder(answer)
    bench.ask(asked)
    (entry,) = bench.store.entries()
    for day in (1, 2):
        bench.clock.advance(timedelta(minutes=10))
        bench.store.postpone({entry.name: bench.clock.now()})
        assert bench.prefetch() == 1
        assert answer.asked == 1 + day
    bench.clock.advance(timedelta(days=15))
    bench.store.postpone({entry.name: bench.clock.now()})
    assert bench.prefetch() == 0
    # CACHE-9: only what was signed later proves that so much time has passed.
    assert bench.store.entries() != ()
    bench.time_is_proven()
    bench.store.prune(bench.clock.now())
    assert [e.kind for e in bench.store.entries()] == ["crl"]


def test_prefetch_is_conditional(bench: Bench) -> None:
    """A refresh sends the validators; 304 keeps the CRL and plans the next fetch. A CRL that is lost is fetched whole."""
    asked = question(CRL)
    body = crl(ROOT)

    def respond(url: str, posted: bytes | None, headers: Mapping[str, str]) -> Transfer:
        return NotModified(url) if headers.get("If-None-Match") == '"v"' else Fetched(url, body, etag='"v"')

    bench.web.answers[CRL] = respond
    bench.ask(asked)
    bench.clock.advance(timedelta(days=6))
    assert bench.prefetch() == 1
    assert bench.prefetch() == 0
    assert [dict(h) for _, _, h in bench.web.asked] == [{}, {"If-None-Match": '"v"'}]
    assert bench.status(asked) == (Status.GOOD, "rev.crl")
    (entry,) = bench.store.entries()
    bench.store.forget([entry.name])
    bench.ask(asked)
    assert dict(bench.web.asked[-1][2]) == {}
    assert any(isinstance(e, CrlEvidence) for e in bench.store.evidence(asked))


def test_store_that_fails_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the ask ends, the cause is said, the next one works."""
    asked = question(CRL)
    bench.web.answers[CRL] = crl(ROOT)
    with monkeypatch.context() as patch:

        def full(*args: object, **options: object) -> None:
            raise Unavailable("can't write: No space left on device")

        patch.setattr(bench.store, "store_crl", full)
        bench.ask(asked)
        assert "No space left" in bench.heard[-1]
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.crl")


def test_fetcher_that_raises_is_a_failure(bench: Bench) -> None:
    """RPL-3: an exception in a library is a malformed answer of that URL; the next source is asked."""

    def explode(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        raise RecursionError("deep")

    asked = question(CRL, ocsp=(OCSP,))
    bench.web.answers = {CRL: explode, OCSP: responder(Responder(ROOT))}
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.ocsp")
    assert [f.why for f in bench.failures(asked)] == ["rev.malformed"]


def test_same_serial_of_two_authorities_is_two_flights(bench: Bench) -> None:
    """Two CAs behind one URL are asked for, verified and filed apart."""
    other = authority("Use case other")
    bench.trust.roots.append(other)
    bench.web.answers[CRL] = crl(ROOT)
    mine = question(CRL)
    theirs_leaf: Leaf = issue(other, crl_urls=[CRL])
    theirs = question_for(theirs_leaf.certificate, other.certificate)
    bench.ask(mine, theirs)
    assert bench.status(mine) == (Status.GOOD, "rev.crl")
    assert bench.status(theirs)[0] is Status.UNKNOWN


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_plan_stays_in_the_second_half_of_the_window(chance: float) -> None:
    """CACHE-2: between 0.5 and 0.8 of the window; max-age may make it earlier, within bounds (CACHE-1)."""
    begin, end = NOW, NOW + 10 * DAY
    planned = freshness.refresh_at(begin, end, None, NOW, lambda: chance)
    assert NOW + 5 * DAY <= planned <= NOW + 8 * DAY
    year = freshness.refresh_at(begin, NOW + DAY, 31_536_000.0, NOW, lambda: chance)
    assert NOW + DAY / 2 <= year <= NOW + DAY * 0.8
    assert freshness.refresh_at(begin, end, 0.0, NOW, lambda: chance) == NOW + timedelta(minutes=5)
    late = freshness.refresh_at(begin, end, None, NOW + 9 * DAY, lambda: chance)
    assert NOW + 9 * DAY < late < end
    stale = freshness.refresh_at(begin, end, None, NOW + 20 * DAY, lambda: chance)
    assert stale > NOW + 20 * DAY


def test_back_off_doubles_to_an_hour() -> None:
    """CACHE-3: 1, 2, 4 … minutes, at most an hour, a fifth to either side."""
    steady = [freshness.back_off(n, None, lambda: 0.5).total_seconds() for n in range(1, 9)]
    assert steady == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert freshness.back_off(1, None, lambda: 0.0).total_seconds() == pytest.approx(48)
    assert freshness.back_off(10_000, None, lambda: 1.0).total_seconds() == pytest.approx(4320)


def test_unsupported_kind_does_not_replace_but_a_newer_good_one_replaces_an_expired_one() -> None:
    """CACHE-4 compares what the CRLs are worth now, not only their numbers."""
    skew = timedelta(minutes=5)
    old, new = parse_crl(crl(ROOT, number=1)), parse_crl(crl(ROOT, number=2))
    expired = parse_crl(crl(ROOT, number=1, this_update=NOW - 9 * DAY, next_update=NOW - DAY))
    newly_expired = parse_crl(crl(ROOT, number=2, this_update=NOW - 8 * DAY, next_update=NOW - DAY))
    assert freshness.why_worse(old, new, NOW, skew) is None
    assert freshness.why_worse(expired, new, NOW, skew) is None
    assert freshness.why_worse(expired, newly_expired, NOW, skew) is None
    assert freshness.why_worse(new, old, NOW, skew) == (
        "rev.rollback", "the CRL is older than the one that was fetched before",
    )  # fmt: skip
