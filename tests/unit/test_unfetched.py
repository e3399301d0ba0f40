"""A node that fetches nothing: what is stored counts, what isn't has one reason, and the store is looked after all the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from postseal.app.unfetched import REASON, Unfetched
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, NoAnswer
from postseal.core.revocation import Order, RevocationSettings, Status, judge, still_needed
from postseal.core.verdict import Doubt
from support.lookups import CRL, OCSP, ROOT, Bench, crl, question
from support.pki import Leaf


def test_what_is_missing_has_one_reason_and_nobody_waits(tmp_path: Path) -> None:
    """Several URLs, one sentence; availability is in doubt; fetching wouldn't help, so nothing is asked for."""
    bench = Bench(tmp_path)
    reader = Unfetched(bench.store, bench.clock)
    asked = question(CRL, "http://ca.test/2.crl", ocsp=(OCSP,))
    evidence = reader.evidence(asked)
    verdict = judge(asked, evidence, RevocationSettings(), bench.clock.now())
    assert (verdict.status, verdict.reason, verdict.doubt) == (Status.UNKNOWN, REASON, Doubt.AVAILABILITY)
    assert verdict.detail.count("[lookup] fetch = false") == 1
    for order in Order:
        assert not still_needed(asked, evidence, RevocationSettings(order=order), bench.clock.now())


def test_what_is_stored_counts_and_old_failures_do_not(tmp_path: Path) -> None:
    """The node fetched once: its CRL is judged as anywhere, and a failure of those days is no news."""
    bench = Bench(tmp_path)
    asked = question(CRL, "http://gone.test/2.crl")
    bench.web.answers[CRL] = crl(ROOT)
    bench.ask(question("http://gone.test/2.crl", slot=2))
    bench.ask(asked)
    assert bench.failures(question("http://gone.test/2.crl", slot=2))
    evidence = Unfetched(bench.store, bench.clock).evidence(asked)
    assert judge(asked, evidence, RevocationSettings(), bench.clock.now()).status is Status.GOOD
    assert [e.why for e in evidence if isinstance(e, NoAnswer)] == [REASON, REASON]
    assert any(isinstance(e, CrlEvidence) for e in evidence)
    bench.clock.advance(timedelta(days=9))
    late = Unfetched(bench.store, bench.clock).evidence(asked)
    assert judge(asked, late, RevocationSettings(), bench.clock.now()).reason == "rev.stale"


@pytest.mark.parametrize("verb", ["upkeep", "prefetch"])
def test_upkeep_is_done_whether_anything_is_fetched_or_not(tmp_path: Path, verb: str) -> None:
    """CACHE-9, CACHE-10: failures that are long over go; upkeep alone makes no request."""
    bench = Bench(tmp_path)
    bench.ask(question("http://gone.test/1.crl"))
    assert bench.store.failures()
    bench.clock.advance(timedelta(days=9))
    asked = bench.web.count()
    getattr(bench.lookups, verb)()
    assert not bench.store.failures()
    assert bench.web.count() == asked


def test_what_was_seen_revoked_is_remembered_where_nothing_is_fetched(tmp_path: Path) -> None:
    """CRL-27: an imported CRL says revoked, and the next one has forgotten it: the node hasn't."""
    bench = Bench(tmp_path)
    asked = question(CRL, slot="remembered")
    chain = (ROOT.certificate,)
    leaf = Leaf(asked.certificate, None)
    bench.store.store_crl(parse_crl(crl(ROOT, leaf, number=1)), chain, "file:1.crl", bench.clock.now(), None)
    bench.lookups.note([asked])
    later = bench.clock.now() + timedelta(minutes=1)
    bench.store.store_crl(parse_crl(crl(ROOT, number=2, this_update=later)), chain, "file:2.crl", later, None)
    evidence = Unfetched(bench.store, bench.clock).evidence(asked)
    assert judge(asked, evidence, RevocationSettings(), later).status is Status.REVOKED
    assert bench.web.count() == 0
