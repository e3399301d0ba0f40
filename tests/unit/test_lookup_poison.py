"""What an attacker on the way, or a CA in disorder, may try to put into the evidence store: replays, mix-ups, false issuers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path as FilePath

import pytest
from cryptography import x509

from postseal.app.imports import Importer
from postseal.core.certs import Certificate
from postseal.core.clock import clock_fault
from postseal.core.crl import Crl, parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, OcspEvidence, RevokedBefore, question_for
from postseal.core.path import PathSettings
from postseal.core.revocation import Status
from postseal.core.transfer import Fetched, Transfer
from support import pki
from support.evidence import Answer, Ocsp
from support.lookups import CRL, NOW, OCSP, ROOT, Bench, authority, crl, issue, question, responder
from support.pki import DAY, HOUR, Authority, Leaf
from support.responders import Responder

URL_2 = "http://ca.test/2.crl"


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.lookups.close()


def answer(leaf: Leaf, status: str, hours: int, **more: object) -> bytes:
    """An authentic OCSP answer that was made ``hours`` ago and is good for two days."""
    made = NOW - hours * HOUR
    single = Answer(leaf, ROOT, status, this_update=made, next_update=made + 2 * DAY, **more)  # type: ignore[arg-type]
    return Ocsp([single], ROOT, produced_at=made).der()


REPLAYS = {
    "older good over revoked": (("revoked", 1, 1), ("good", 5, None), "rev.rollback"),
    "newer good over revoked": (("revoked", 5, 1), ("good", 1, None), "rev.rollback"),
    "older good over a hold": (("revoked", 1, 6), ("good", 5, None), "rev.rollback"),
    "newer good over a hold": (("revoked", 5, 6), ("good", 1, None), ""),
    "newer revoked over good": (("good", 5, None), ("revoked", 1, 1), ""),
    "older good over good": (("good", 1, None), ("good", 5, None), "rev.rollback"),
}


@pytest.mark.parametrize("name", REPLAYS)
def test_recorded_ocsp_answer_undoes_nothing(name: str, bench: Bench) -> None:
    """CACHE-4, RPL-4: an authentic answer of yesterday, still valid, replaces no newer one; only a hold is ever over."""
    before, after, why = REPLAYS[name]
    leaf = issue(ROOT, ocsp_urls=[OCSP])
    asked = question_for(leaf.certificate, ROOT.certificate)
    bench.web.answers[OCSP] = answer(leaf, before[0], before[1], reason=before[2])
    bench.ask(asked)
    bench.web.answers[OCSP] = answer(leaf, after[0], after[1], reason=after[2])
    (outcome,) = bench.lookups.refresh(bench.store.entries(), 10.0)
    assert outcome.why == why
    decides = before if why else after
    assert bench.status(asked)[0] is (Status.REVOKED if decides[0] == "revoked" else Status.GOOD)


def test_recorded_ocsp_answer_is_not_imported(bench: Bench) -> None:
    """CACHE-4, RPL-4: nor does it come in from a file."""
    leaf = issue(ROOT, ocsp_urls=[OCSP])
    importer = Importer(
        bench.store, bench.trust, (), (leaf.certificate,), bench.clock, PathSettings(), bench.revocation, 1 << 20
    )
    assert importer.take("new.ocsp", answer(leaf, "revoked", 1, reason=1)) == "ocsp"
    with pytest.raises(BadData, match="older than the one"):
        importer.take("old.ocsp", answer(leaf, "good", 5))
    assert bench.status(question_for(leaf.certificate, ROOT.certificate)) == (Status.REVOKED, "rev.revoked-ocsp")


def test_revoked_answer_outlives_its_end(bench: Bench) -> None:
    """RPL-4, CRL-27: to wait for a month and then to block the responder doesn't make a revoked certificate usable again."""
    revoked, good = issue(ROOT, 1, ocsp_urls=[OCSP]), issue(ROOT, 2, ocsp_urls=[OCSP])
    for leaf, status, reason in ((revoked, "revoked", 1), (good, "good", None)):
        bench.web.answers[OCSP] = answer(leaf, status, 1, reason=reason)
        bench.ask(question_for(leaf.certificate, ROOT.certificate))
    del bench.web.answers[OCSP]
    bench.clock.advance(30 * DAY)
    bench.time_is_proven()
    bench.prefetch()
    (kept,) = (e for e in bench.store.entries() if e.kind == "ocsp")
    assert kept.certificate == revoked.certificate
    assert bench.status(question_for(revoked.certificate, ROOT.certificate))[0] is Status.REVOKED
    bench.clock.advance(400 * DAY)
    bench.time_is_proven()
    bench.prefetch()
    assert [e for e in bench.store.entries() if e.kind == "ocsp"] == []


def test_of_two_flights_the_newer_crl_stays(bench: Bench) -> None:
    """CACHE-4, T-8: a replay that lands at the same moment as the current CRL, from another URL, doesn't replace it."""
    leaf = issue(ROOT, 3, crl_urls=[CRL, URL_2])
    asked = question_for(leaf.certificate, ROOT.certificate)
    older, newer = crl(ROOT, this_update=NOW - 5 * HOUR), crl(ROOT, leaf, number=2)
    # Both have compared with an empty store before either wrote; so the store itself must look again.
    bench.store.store_crl(parse_crl(newer), (ROOT.certificate,), CRL, NOW, None)
    bench.store.store_crl(parse_crl(older), (ROOT.certificate,), URL_2, NOW, None)
    (entry,) = bench.store.entries()
    assert entry.name == parse_crl(newer).sha256
    assert bench.store.crl(parse_crl(older).sha256) in (None, parse_crl(older))
    assert bench.status(asked)[0] is Status.REVOKED


def test_many_flights_at_once_end_with_the_newest(bench: Bench) -> None:
    """CACHE-4: twenty threads store twenty CRLs in any order."""
    made = [parse_crl(crl(ROOT, number=n, this_update=NOW - (30 - n) * HOUR)) for n in range(1, 21)]
    start = threading.Barrier(len(made))

    def store(one: Crl, url: str) -> None:
        start.wait()
        bench.store.store_crl(one, (ROOT.certificate,), url, NOW, None)

    threads = [threading.Thread(target=store, args=(c, f"http://ca.test/{n}.crl")) for n, c in enumerate(made)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.number for e in bench.store.entries()] == [20]


def test_crl_of_another_name_with_the_same_key_is_refused(bench: Bench) -> None:
    """CRL-2, CACHE-4: a renamed CA keeps its key; the CRL of its other name must not take the place of the right one."""
    leaf = issue(ROOT, 4, crl_urls=[CRL])
    asked = question_for(leaf.certificate, ROOT.certificate)
    bench.web.answers[CRL] = crl(ROOT, leaf)
    bench.ask(asked)
    renamed = Authority(ROOT.certificate, ROOT.key, pki.name("Use case root, renamed"))
    bench.web.answers[CRL] = crl(renamed, number=9, this_update=NOW)
    (outcome,) = bench.lookups.refresh(bench.store.entries(), 10.0)
    assert outcome.why == "rev.wrong-issuer"
    assert bench.status(asked) == (Status.REVOKED, "rev.revoked-crl")


def test_crl_from_the_future_does_not_shut_out_honest_ones(bench: Bench) -> None:
    """CRL-22, CACHE-4: stored once, it would make every CRL of the next year look like a rollback."""
    asked = question(CRL, slot=5)
    bench.web.answers[CRL] = crl(ROOT, number=1, this_update=NOW + 300 * DAY, next_update=NOW + 307 * DAY)
    bench.ask(asked)
    assert bench.status(asked) == (Status.UNKNOWN, "rev.not-yet-valid")
    bench.web.answers[CRL] = crl(ROOT, number=1)
    bench.clock.advance(timedelta(minutes=10))
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.crl")


def test_crl_from_the_future_takes_no_place_of_an_old_one(bench: Bench) -> None:
    """CRL-22, CACHE-9: nor where the one at hand has ended; one CA with a wrong clock makes nobody's clock look wrong."""
    asked = question(CRL, slot=5)
    bench.web.answers[CRL] = crl(ROOT, number=1)
    bench.ask(asked)
    bench.clock.advance(20 * DAY)
    bench.web.answers[CRL] = crl(ROOT, number=2, this_update=NOW + 300 * DAY, next_update=NOW + 307 * DAY)
    bench.ask(asked)
    assert bench.status(asked)[0] is Status.UNKNOWN
    assert clock_fault(bench.clock.now(), bench.store.newest(), bench.revocation.skew) == ""
    bench.web.answers[CRL] = crl(ROOT, number=2, this_update=NOW + 20 * DAY, next_update=NOW + 27 * DAY)
    bench.clock.advance(timedelta(minutes=10))
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.crl")


def test_revoked_answer_from_the_future_proves_no_time(bench: Bench) -> None:
    """RPL-4, CACHE-9: it revokes, whatever its date; but no responder makes everybody's clock look wrong, or things old."""
    leaf = issue(ROOT, ocsp_urls=[OCSP])
    asked = question_for(leaf.certificate, ROOT.certificate)
    bench.web.answers = {OCSP: answer(leaf, "revoked", -24 * 3000, reason=1), CRL: crl(ROOT)}
    # One after the other: a CRL that came first would answer both, and the responder wouldn't be asked.
    bench.ask(asked)
    bench.ask(question(CRL, slot=5))
    assert bench.status(asked)[0] is Status.REVOKED
    assert clock_fault(bench.clock.now(), bench.store.newest(), bench.revocation.skew) == ""
    bench.clock.advance(400 * DAY)
    bench.store.prune(bench.clock.now())
    assert [e.kind for e in bench.store.entries()] == ["crl", "ocsp"]


def test_t23_forward_jump_forgets_no_revocation(bench: Bench) -> None:
    """CACHE-9, CRL-27, T-23: only evidence of a time ends what is remembered until then, not a clock that shows it."""
    asked = question(CRL)
    bench.store.remember_revoked(asked, RevokedBefore(CRL, NOW))
    bench.clock.advance(5000 * DAY)
    bench.prefetch()
    bench.clock.advance(-5000 * DAY)
    assert bench.status(asked) == (Status.REVOKED, "rev.revoked-before")


def false_issuer() -> tuple[Leaf, Authority]:
    """An end entity without basicConstraints and keyUsage, and what it issues as if it were a CA."""
    person = ROOT.issue("mallory@home.test", slot=6, key_usage=None, not_before=NOW - DAY, not_after=NOW + DAY)
    issuer = Authority(person.certificate, person.key, person.certificate.x509.subject)
    return issue(issuer, 7, crl_urls=[CRL]), issuer


def test_a_person_is_no_issuer_whatever_the_asker_says(bench: Bench) -> None:
    """PRE-1: lookup validates the whole path itself; a certificate without basicConstraints stands above nobody."""
    leaf, issuer = false_issuer()
    assert bench.ask(question_for(leaf.certificate, issuer.certificate)) == 1
    assert bench.web.asked == []


def test_an_anchor_that_is_a_person_stays_one(bench: Bench) -> None:
    """PRE-1: the anchor's own certificate decides what it may do, not another one with its name and key."""
    person = authority("Use case person")
    denied = [(x509.BasicConstraints(ca=False, path_length=None), True)]
    own = person._sign(
        person.subject, person.key.public_key(), denied, not_before=NOW - DAY, not_after=NOW + DAY
    )  # fmt: skip
    bench.trust.roots.append(Authority(own, person.key, person.subject))
    leaf = issue(person, 8, crl_urls=[CRL])
    assert bench.ask(question_for(leaf.certificate, person.certificate)) == 1
    assert bench.web.asked == []


@pytest.mark.parametrize("fault", ["unknown", "other_serial", "unauthorized"])
def test_an_answer_about_one_certificate_shuts_out_no_other(fault: str, bench: Bench) -> None:
    """CACHE-3: what a responder doesn't know of one certificate is no reason to leave it alone about all others."""
    good = responder(Responder(ROOT))
    odd = Responder(ROOT)
    if fault == "unauthorized":
        odd.error = x509.ocsp.OCSPResponseStatus.UNAUTHORIZED
    else:
        setattr(odd, fault, True)
    bench.web.answers[OCSP] = responder(odd)
    first, second = question(ocsp=(OCSP,), slot=10), question(ocsp=(OCSP,), slot=11)
    bench.ask(first)
    bench.web.answers[OCSP] = good
    before = bench.web.count()
    bench.ask(first)
    assert bench.web.count() == before, "the certificate itself is left alone for a while"
    bench.ask(second)
    assert bench.status(second) == (Status.GOOD, "rev.ocsp")
    (failure,) = bench.failures(first)
    assert failure.url == OCSP
    assert first.certificate.fingerprint[:16] in failure.detail
    assert bench.failures(second) == []
    bench.clock.advance(timedelta(minutes=3))
    bench.ask(first)
    assert bench.status(first) == (Status.GOOD, "rev.ocsp")
    assert bench.failures(first) == []


def test_listed_by_an_answer_that_is_not_understood_concerns_one_certificate(bench: Bench) -> None:
    """CRL-13's policy for OCSP, and its bounds: that certificate is out, others of the same responder aren't."""
    leaf, other = issue(ROOT, 12, ocsp_urls=[OCSP]), issue(ROOT, 13, ocsp_urls=[OCSP])
    critical = ("1.2.3.4", True, b"\x05\x00")
    bench.web.answers[OCSP] = answer(leaf, "revoked", 1, extensions=[critical])
    asked = question_for(leaf.certificate, ROOT.certificate)
    bench.ask(asked)
    assert bench.status(asked) == (Status.UNKNOWN, "rev.listed-unsupported")
    del bench.web.answers[OCSP]
    neighbour = question_for(other.certificate, ROOT.certificate)
    assert bench.status(neighbour) == (Status.UNKNOWN, "rev.no-evidence")
    assert bench.store.forget([OCSP]) == 1
    assert bench.failures(asked) == []


def test_a_responder_that_is_out_of_order_is_left_alone_as_a_whole(bench: Bench) -> None:
    """CACHE-3, OCSP-4: tryLater is about the responder, so it is asked about nobody for a while."""
    odd = Responder(ROOT)
    odd.error = x509.ocsp.OCSPResponseStatus.TRY_LATER
    bench.web.answers[OCSP] = responder(odd)
    bench.ask(question(ocsp=(OCSP,), slot=14))
    bench.ask(question(ocsp=(OCSP,), slot=15))
    assert odd.asked == 1


def test_answer_for_another_issuer_is_of_no_use(bench: Bench) -> None:
    """OCSP-2, CACHE-8, T-10: good for the same serial number of another CA, by its own responder, says nothing here."""
    other = authority("Use case other issuer")
    bench.trust.roots.append(other)
    mine, theirs = issue(ROOT, 16, serial=777, ocsp_urls=[OCSP]), issue(other, 16, serial=777, ocsp_urls=[OCSP])
    made = Answer(theirs, other, this_update=NOW - HOUR, next_update=NOW + DAY)
    bench.web.answers[OCSP] = Ocsp([made], other, produced_at=NOW - HOUR).der()
    asked = [question_for(mine.certificate, ROOT.certificate), question_for(theirs.certificate, other.certificate)]
    bench.ask(asked[0])
    bench.ask(asked[1])
    assert [bench.status(q)[0] for q in asked] == [Status.UNKNOWN, Status.GOOD]
    assert not any(isinstance(e, OcspEvidence | CrlEvidence) for e in bench.store.evidence(asked[0]))


def test_five_hundred_asks_are_one_request(bench: Bench) -> None:
    """CACHE-5, T-25: all recipients of one CA, cold, at the same moment: one flight."""
    gate = threading.Event()

    def respond(url: str, body: bytes | None, headers: Mapping[str, str]) -> Transfer:
        gate.wait(10)
        return Fetched(url, crl(ROOT))

    bench.web.answers[CRL] = respond
    leaf = issue(ROOT, 17, crl_urls=[CRL])
    others: list[Certificate] = [issue(ROOT, 17, crl_urls=[CRL]).certificate for _ in range(9)]
    asked = [question_for(c, ROOT.certificate) for c in (leaf.certificate, *others)]
    threads = [threading.Thread(target=bench.ask, args=(asked[n % 10],)) for n in range(500)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(30)
    assert bench.web.count() == 1
    assert {bench.status(q) for q in asked} == {(Status.GOOD, "rev.crl")}


def test_t08_rollback_is_refused_after_restart_and_forgetting(bench: Bench) -> None:
    """CRL-25, T-8: an older CRL isn't taken in place of a newer one that was forgotten, also by another process."""
    leaf = issue(ROOT, crl_urls=[CRL])
    asked = question_for(leaf.certificate, ROOT.certificate)
    older, newer = crl(ROOT, number=4), crl(ROOT, leaf, number=5)
    bench.web.answers[CRL] = newer
    bench.ask(asked)
    bench.store.forget([e.name for e in bench.store.entries()])
    bench.store.close()
    bench.lookups = bench.make()
    bench.web.answers[CRL] = older
    bench.ask(asked)
    # Who was seen revoked stays so (CRL-27); a stranger to that memory gets nothing good from the old CRL either.
    assert bench.status(asked) == (Status.REVOKED, "rev.revoked-before")
    other = question(CRL, slot="another")
    bench.ask(other)
    assert bench.status(other) == (Status.UNKNOWN, "rev.rollback")
    assert bench.store.entries() == ()
    bench.web.answers[CRL] = newer
    bench.clock.advance(timedelta(minutes=2))
    bench.ask(other)
    assert bench.status(other) == (Status.GOOD, "rev.crl")


def test_t08_same_number_and_date_with_another_content_is_a_rollback(bench: Bench) -> None:
    """CRL-25, RFC 5280 §5.2.3: two CRLs of one scope never have one number; a later one is taken, and told of."""
    leaf = issue(ROOT, crl_urls=[CRL])
    asked = question_for(leaf.certificate, ROOT.certificate)
    bench.web.answers[CRL] = crl(ROOT, leaf, number=5)
    bench.ask(asked)
    bench.web.answers[CRL] = crl(ROOT, number=5)
    (outcome,) = bench.lookups.refresh(bench.store.entries(), 10.0)
    assert outcome.why == "rev.rollback"
    assert bench.status(asked)[0] is Status.REVOKED
    bench.web.answers[CRL] = crl(ROOT, leaf, number=5, this_update=NOW)
    (outcome,) = bench.lookups.refresh(bench.store.entries(), 10.0)
    assert outcome.why == ""
    assert any("used the CRL number 5 twice" in text for text in bench.heard)
