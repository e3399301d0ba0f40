"""Bundles of evidence of every kind: packed on one node, taken on another that knows the root alone, judged there the same."""

from __future__ import annotations

from pathlib import Path as FilePath

import pytest
from cryptography import x509

from postseal.app.bundles import Origin, Taken, open_items, pack
from postseal.app.imports import Importer
from postseal.core.bundle import ItemKind, Manifest
from postseal.core.certs import Certificate
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, Question, question_for
from postseal.core.judgement import JudgementSettings, judge_certificate
from postseal.core.path import PathSettings
from postseal.core.revocation import Status
from support import evidence as odd
from support.lookups import CRL, NOW, ROOT, Bench, crl, issue
from support.pki import DAY, HOUR, Leaf, usage

INDIRECT, DELTA = "http://service.test/all.crl", "http://ca.test/delta.crl"
WINDOW = {"not_before": NOW - 30 * DAY, "not_after": NOW + 335 * DAY}
SUB = ROOT.sub("Bundle items issuing", crl_urls=[CRL], **WINDOW)


class Carried:
    """What a bundle file would be, in memory."""

    manifest = signature = b""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def item(self, number: int, manifest: Manifest) -> bytes:
        return self.contents[number]


@pytest.fixture
def nodes(tmp_path: FilePath) -> tuple[Bench, Bench]:
    return Bench(tmp_path / "a"), Bench(tmp_path / "b")


def carry(a: Bench, b: Bench) -> list[Taken]:
    """From one to the other."""
    parcel = pack(a.store, "a", a.clock.now(), None)
    assert (parcel.expired, parcel.unreadable) == (0, 0)

    def importer(more: object) -> Importer:
        assert isinstance(more, tuple)
        return Importer(b.store, b.trust, more, (), b.clock, PathSettings(), b.revocation, 1 << 20)

    carried = Carried([bytes(part) for part in parcel.contents()])
    return list(open_items(carried, Origin(parcel.manifest, None), importer, 1 << 20))


def status(bench: Bench, leaf: Leaf, *known: Certificate) -> Status:
    """As mail is judged."""
    found = judge_certificate(
        leaf.certificate, bench.trust.anchors(), (*known, *bench.store.intermediates()), bench.store.evidence,
        JudgementSettings(PathSettings(), bench.revocation), bench.clock.now(),
    )  # fmt: skip
    assert found.worst is not None
    return found.worst.status


def ask(bench: Bench, *questions: Question) -> None:
    bench.ask(*questions)
    bench.prefetch()


def test_indirect_crls_travel_with_their_signers(nodes: tuple[Bench, Bench]) -> None:
    """CRL-2, CACHE-13: the receiving node has never heard of the signer, and files the CRL with its path all the same."""
    a, b = nodes
    service = ROOT.issue(
        None, slot="items service", common_name="Items service", key_usage=usage("crl_sign"), eku=None, crl_urls=[CRL],
        **WINDOW,
    )  # fmt: skip
    name = x509.DirectoryName(service.certificate.x509.subject)
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(INDIRECT)], None, None, [name])
    leaf = issue(ROOT, "items", extra=[(x509.CRLDistributionPoints([point]), False)])
    scope = odd.scope(odd.full_name(odd.uri(INDIRECT)), indirect=True)
    listed = odd.entry(leaf, odd.certificate_issuer(odd.name_of(ROOT)), when=NOW - DAY)
    times = {"this_update": odd.utc(NOW - HOUR), "next_update": odd.utc(NOW + 7 * DAY)}
    a.trust.helpers.append(service.certificate)
    a.web.answers = {INDIRECT: odd.crl(service, [listed], extensions=(odd.number(1), scope), **times), CRL: crl(ROOT)}
    ask(a, question_for(leaf.certificate, ROOT.certificate), question_for(service.certificate, ROOT.certificate))
    assert status(a, leaf) is Status.REVOKED
    assert status(b, leaf) is Status.UNKNOWN
    assert [t.outcome for t in carry(a, b)] == ["stored", "stored"]
    assert status(b, leaf) is Status.REVOKED
    evidence = b.store.evidence(question_for(leaf.certificate, ROOT.certificate))
    assert [e.signer for e in evidence if isinstance(e, CrlEvidence) and e.url == INDIRECT] == [(service.certificate,)]
    assert [t.outcome for t in carry(a, b)] == ["known", "known"]


def test_deltas_travel_beside_their_bases(nodes: tuple[Bench, Bench]) -> None:
    """CRL-17: what only the delta revokes is revoked on the other node too."""
    a, b = nodes
    freshest = x509.FreshestCRL([x509.DistributionPoint([x509.UniformResourceIdentifier(DELTA)], None, None, None)])
    leaf = issue(ROOT, "delta items", crl_urls=[CRL], extra=[(freshest, False)])
    base = x509.DeltaCRLIndicator(5)
    a.web.answers = {CRL: crl(ROOT, number=5), DELTA: crl(ROOT, leaf, number=6, extra=[(base, True)])}
    ask(a, question_for(leaf.certificate, ROOT.certificate))
    assert status(a, leaf) is Status.REVOKED
    assert {t.outcome for t in carry(a, b)} == {"stored"}
    assert sorted(e.delta for e in b.store.entries()) == [False, True]
    assert status(b, leaf) is Status.REVOKED


def test_issuers_that_were_fetched_travel_and_strangers_do_not_stay(nodes: tuple[Bench, Bench]) -> None:
    """PRE-1: an issuer of a bundle is kept if it leads to an anchor of the node that takes it, and is no anchor then."""
    a, b = nodes
    stranger = Bench(FilePath(b.store._directory).parent / "c")
    stranger.trust.roots.clear()
    a.store.store_intermediates([SUB.certificate], "http://ca.test/sub.cer", NOW)
    leaf = SUB.issue("x@home.test", slot="items", **WINDOW)
    assert carry(a, b) == []
    assert b.store.intermediates() == (SUB.certificate,)
    assert status(b, leaf) is Status.UNKNOWN
    carry(a, stranger)
    assert stranger.store.intermediates() == ()


def test_a_signer_without_leave_signs_nothing_in_a_bundle(nodes: tuple[Bench, Bench]) -> None:
    """CRL-5, T-4: the receiving node verifies as it fetches; a certificate that isn't for CRLs signs none."""
    a, b = nodes
    rogue = ROOT.issue(
        None, slot="items rogue", common_name="Rogue", key_usage=usage("digital_signature"), eku=None, **WINDOW
    )
    times = {"this_update": odd.utc(NOW - HOUR), "next_update": odd.utc(NOW + 7 * DAY)}
    forged = parse_crl(odd.crl(rogue, [], extensions=(odd.number(1),), **times))
    a.store.store_crl(forged, (rogue.certificate,), CRL, NOW, None)
    (taken,) = carry(a, b)
    assert (taken.item.kind, taken.outcome) == (ItemKind.CRL, "refused")
    assert "no CA certificate of its issuer is known" in taken.detail
    assert b.store.entries() == ()
