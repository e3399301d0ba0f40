"""CRLs that the issuer of the certificate didn't sign itself, and deltas: fetched, verified, filed with their signer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path as FilePath

import pytest
from cryptography import x509

from postseal.app.imports import Importer
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, question_for
from postseal.core.judgement import Judgement, JudgementSettings, judge_certificate
from postseal.core.path import PathSettings
from postseal.core.revocation import Status
from support import evidence as odd
from support import pki
from support.lookups import CRL, NOW, ROOT, Bench, authority, crl, issue
from support.pki import DAY, HOUR, Authority, Leaf, usage

INDIRECT = "http://service.test/all.crl"
DELTA = "http://ca.test/delta.crl"
WINDOW = {"not_before": NOW - 30 * DAY, "not_after": NOW + 335 * DAY}


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.lookups.close()


def service(by: Authority = ROOT, name: str = "CRL service", **more: object) -> Leaf:
    """Somebody whom the CA appointed to sign CRLs."""
    options = {"key_usage": usage("crl_sign"), "eku": None, "crl_urls": [CRL], **WINDOW, **more}
    return by.issue(None, slot=name, common_name=name, **options)  # type: ignore[arg-type]


SERVICE = service()


def appointing(signer: Leaf = SERVICE, slot: object = 0) -> Leaf:
    """A certificate of the root whose CRL is somebody else's."""
    name = x509.DirectoryName(signer.certificate.x509.subject)
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(INDIRECT)], None, None, [name])
    return issue(ROOT, slot, extra=[(x509.CRLDistributionPoints([point]), False)])


def indirect(*revoked: Leaf, signer: Leaf = SERVICE, number: int = 1, **more: object) -> bytes:
    entries = [odd.entry(leaf, odd.certificate_issuer(odd.name_of(ROOT)), when=NOW - DAY) for leaf in revoked]
    point = odd.scope(odd.full_name(odd.uri(INDIRECT)), indirect=True)
    values = {"this_update": odd.utc(NOW - HOUR), "next_update": odd.utc(NOW + 7 * DAY), **more}
    return odd.crl(signer, entries, extensions=(odd.number(number), point), **values)  # type: ignore[arg-type]


def judged(bench: Bench, leaf: Leaf) -> Judgement:
    settings = JudgementSettings(PathSettings(), bench.revocation)
    return judge_certificate(
        leaf.certificate, bench.trust.anchors(), bench.trust.intermediates(), bench.store.evidence, settings,
        bench.clock.now(),
    )  # fmt: skip


def look(bench: Bench, leaf: Leaf) -> tuple[Status, str]:
    """As the milter does: ask for what is missing until nothing is, then judge."""
    for _ in range(3):
        missing = judged(bench, leaf).missing
        if missing:
            bench.ask(*missing)
    (verdict,) = judged(bench, leaf).verdicts
    return verdict.status, verdict.reason


@pytest.mark.parametrize("revoked", [False, True])
def test_t19_indirect_crl_of_an_appointed_signer(revoked: bool, bench: Bench) -> None:
    """CRL-2, CRL-15, PRE-7: it is fetched, verified with the signer's key, and filed with the signer's path."""
    bench.trust.helpers.append(SERVICE.certificate)
    leaf = appointing()
    bench.web.answers = {INDIRECT: indirect(*([leaf] if revoked else [])), CRL: crl(ROOT)}
    assert look(bench, leaf) == ((Status.REVOKED, "rev.revoked-crl") if revoked else (Status.GOOD, "rev.crl"))
    evidence = bench.store.evidence(question_for(leaf.certificate, ROOT.certificate))
    stored = [e for e in evidence if isinstance(e, CrlEvidence) and e.url == INDIRECT]
    assert [e.signer for e in stored] == [(SERVICE.certificate,)]


def test_t04_signer_without_leave_is_refused(bench: Bench) -> None:
    """CRL-5, T-4: a certificate of the CA that isn't for CRLs signs none, also where it is named as the CRL issuer."""
    rogue = service(name="Rogue", key_usage=usage("digital_signature"))
    bench.trust.helpers.append(rogue.certificate)
    leaf = appointing(rogue)
    bench.web.answers = {INDIRECT: indirect(signer=rogue), CRL: crl(ROOT)}
    assert look(bench, leaf)[0] is Status.UNKNOWN
    assert [e.url for e in bench.store.entries()] == []


def test_signer_without_a_path_is_refused(bench: Bench) -> None:
    """RFC 5280 §6.3.3 (f): the signer of a stranger's CA isn't believed, and nothing of it is stored."""
    stranger = service(authority("Signers stranger"), "CRL service")
    bench.trust.helpers.append(stranger.certificate)
    leaf = appointing()
    bench.web.answers = {INDIRECT: indirect(signer=stranger)}
    assert look(bench, leaf) == (Status.UNKNOWN, "rev.bad-signature")
    assert bench.store.entries() == ()


def test_crl_of_nobody_that_was_named_is_refused(bench: Bench) -> None:
    """CRL-2: who is neither the issuer nor named by the certificate is the wrong issuer, with a good path or without."""
    other = service(name="Other service")
    bench.trust.helpers += [SERVICE.certificate, other.certificate]
    leaf = appointing()
    bench.web.answers = {INDIRECT: indirect(signer=other)}
    assert look(bench, leaf) == (Status.UNKNOWN, "rev.wrong-issuer")


def test_crl_of_another_key_of_the_same_ca(bench: Bench) -> None:
    """RFC 5280 §6.3.3 (f): after a key change the new key signs the CRL for certificates of the old one."""
    key = pki.key("rsa2048", ("ca", "Use case root, next key"))
    link = ROOT._sign(
        ROOT.subject, key.public_key(),
        [(x509.BasicConstraints(ca=True, path_length=None), True), (usage("key_cert_sign", "crl_sign"), True),
         *pki.pointers([CRL], [])],
        **WINDOW,
    )  # fmt: skip
    bench.trust.helpers.append(link)
    leaf = issue(ROOT, "old key", crl_urls=[CRL])
    bench.web.answers[CRL] = crl(Authority(link, key, ROOT.subject), leaf)
    assert look(bench, leaf)[0] is Status.REVOKED
    (entry,) = bench.store.entries()
    assert entry.chain[0] == link


def test_two_signers_of_one_name_stand_beside_each_other(bench: Bench) -> None:
    """CACHE-8: CRLs of two keys with one name and scope don't overwrite each other."""
    again = service(name="CRL service, next")
    twin = Leaf(again.certificate, again.key)
    same_name = ROOT._sign(
        SERVICE.certificate.x509.subject, twin.key.public_key(), [(usage("crl_sign"), True)], **WINDOW
    )
    bench.trust.helpers += [SERVICE.certificate, same_name]
    leaf = appointing()
    bench.web.answers = {INDIRECT: indirect(), CRL: crl(ROOT)}
    look(bench, leaf)
    bench.web.answers[INDIRECT] = indirect(signer=Leaf(same_name, twin.key), number=9)
    bench.lookups.refresh([e for e in bench.store.entries() if e.url == INDIRECT], 5.0)
    evidence = bench.store.evidence(question_for(leaf.certificate, ROOT.certificate))
    assert {e.signer[0] for e in evidence if isinstance(e, CrlEvidence) and e.signer} == {
        SERVICE.certificate, same_name,
    }  # fmt: skip


def test_anchor_that_is_gone_takes_its_evidence_along(bench: Bench) -> None:
    """CACHE-7: without its anchor nobody's CRL decides, at once, and it isn't fetched again."""
    other = authority("Signers second root")
    bench.trust.roots.append(other)
    signer = service(other, "CRL service")
    bench.trust.helpers.append(signer.certificate)
    leaf = issue(other, "second", crl_urls=[CRL])
    bench.web.answers[CRL] = crl(other)
    assert look(bench, leaf) == (Status.GOOD, "rev.crl")
    bench.trust.roots.remove(other)
    bench.trust.number += 1
    assert judged(bench, leaf).verdicts == ()
    bench.clock.advance(timedelta(days=6))
    assert bench.prefetch() == 0


def with_deltas(**more: object) -> bytes:
    freshest = x509.FreshestCRL(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(DELTA)], None, None, None)]
    )  # fmt: skip
    return crl(ROOT, extra=[(freshest, False)], **more)


def delta(*revoked: Leaf, base: int, number: int) -> bytes:
    return crl(ROOT, *revoked, number=number, extra=[(x509.DeltaCRLIndicator(base), True)])


def test_t07_delta_is_fetched_after_its_base(bench: Bench) -> None:
    """CRL-17, CRL-18: freshestCRL of the base leads to the delta, which stands beside it and revokes."""
    leaf = issue(ROOT, "delta", crl_urls=[CRL])
    bench.web.answers = {CRL: with_deltas(number=5), DELTA: delta(leaf, base=5, number=6)}
    assert look(bench, leaf) == (Status.REVOKED, "rev.revoked-crl")
    assert [(e.delta, e.number) for e in bench.store.entries()].count((True, 6)) == 1
    assert {e.number for e in bench.store.entries()} == {5, 6}


def test_t07_old_delta_never_replaces_a_newer_one(bench: Bench) -> None:
    """CRL-25, T-7: deltas have a mark of their own."""
    leaf = issue(ROOT, "delta", crl_urls=[CRL])
    bench.web.answers = {CRL: with_deltas(number=5), DELTA: delta(leaf, base=5, number=8)}
    look(bench, leaf)
    bench.web.answers[DELTA] = delta(base=5, number=7)
    outcomes = bench.lookups.refresh([e for e in bench.store.entries() if e.delta], 5.0)
    assert [o.why for o in outcomes] == ["rev.rollback"]
    assert look(bench, leaf)[0] is Status.REVOKED


def test_t28_unreachable_delta_leaves_the_base_alone(bench: Bench) -> None:
    """CRL-18, T-28: a base whose delta can't be had decides; the delta is left alone for a while."""
    leaf = issue(ROOT, "delta", crl_urls=[CRL])
    bench.web.answers[CRL] = with_deltas(number=5)
    assert look(bench, leaf) == (Status.GOOD, "rev.crl")
    assert bench.web.count(DELTA) == 1
    look(bench, leaf)
    assert bench.web.count(DELTA) == 1


def test_delta_is_fetched_ahead_too(bench: Bench) -> None:
    """CACHE-2: a delta has a plan of its own."""
    leaf = issue(ROOT, "delta", crl_urls=[CRL])
    bench.web.answers = {CRL: with_deltas(number=5), DELTA: delta(base=5, number=6)}
    look(bench, leaf)
    bench.clock.advance(timedelta(days=6))
    assert bench.prefetch() == 2
    assert bench.web.count(DELTA) >= 2


def test_marks_of_base_and_delta_are_two(bench: Bench) -> None:
    """CRL-17: base and delta of one moment share a number (RFC 5280 §5.2.4); neither is a rollback of the other."""
    leaf = issue(ROOT, "delta", crl_urls=[CRL])
    bench.web.answers = {CRL: with_deltas(number=5), DELTA: delta(base=4, number=5)}
    look(bench, leaf)
    base = parse_crl(with_deltas(number=5))
    change = parse_crl(delta(base=4, number=5))
    marks = [bench.store.mark_of((ROOT.certificate,), c) for c in (base, change)]
    assert [m.sha256 if m else "" for m in marks] == [base.sha256, change.sha256]


def test_signer_is_fetched_from_where_the_crl_says(bench: Bench) -> None:
    """RFC 5280 §5.2.7: an appointed signer that nobody knows is looked for at the CRL's caIssuers, if that is allowed."""
    where = "http://aia.test/service.cer"
    location = odd.seq(odd.oid("1.3.6.1.5.5.7.48.2"), odd.uri(where))
    access = ("1.3.6.1.5.5.7.1.1", False, odd.seq(location))
    point = odd.scope(odd.full_name(odd.uri(INDIRECT)), indirect=True)
    times = {"this_update": odd.utc(NOW - HOUR), "next_update": odd.utc(NOW + 7 * DAY)}
    der = odd.crl(SERVICE, [], extensions=(odd.number(1), point, access), **times)  # type: ignore[arg-type]
    leaf = appointing()
    bench.web.answers = {INDIRECT: der, where: SERVICE.certificate.der, CRL: crl(ROOT)}
    assert look(bench, leaf) == (Status.GOOD, "rev.crl")
    assert bench.web.count(where) == 1


def test_forged_crl_has_nothing_fetched(bench: Bench) -> None:
    """THR-1: a CRL in the issuer's own name that its key didn't sign doesn't get to name further URLs."""
    where = x509.UniformResourceIdentifier("http://aia.test/evil.cer")
    access = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.oid.AuthorityInformationAccessOID.CA_ISSUERS, where)]
    )  # fmt: skip
    forged = Authority(ROOT.certificate, authority("Signers stranger").key, ROOT.subject)
    blob = crl(forged, extra=[(access, False)])
    key = x509.load_der_x509_crl(blob).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = x509.SubjectKeyIdentifier.from_public_key(ROOT.key.public_key()).digest
    assert key.key_identifier is not None
    bench.web.answers[CRL] = blob.replace(key.key_identifier, own)
    leaf = issue(ROOT, "forged", crl_urls=[CRL])
    assert look(bench, leaf)[0] is Status.UNKNOWN
    assert bench.web.count("http://aia.test/") == 0


def test_what_a_crl_names_has_its_hosts_share_only(bench: Bench) -> None:
    """THR-6: somebody on the way to many CRLs makes us flood nobody by caIssuers that he writes into them."""
    places = [x509.UniformResourceIdentifier(f"http://victim.test/{n}.cer") for n in range(3)]
    access = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.oid.AuthorityInformationAccessOID.CA_ISSUERS, place) for place in places]
    )  # fmt: skip
    forged = Authority(ROOT.certificate, authority("Signers stranger").key, ROOT.subject)
    bench.web.answers["http://h"] = crl(forged, extra=[(access, False)])
    for number in range(8):
        leaf = issue(ROOT, f"flood {number}", crl_urls=[f"http://h{number}.test/x.crl"])
        assert look(bench, leaf)[0] is Status.UNKNOWN
    assert bench.web.count("http://h") == 8
    assert bench.web.count("http://victim.test/") == 10


def test_import_takes_an_appointed_signer_and_refuses_a_rogue(bench: Bench) -> None:
    """CRL-5, T-4: a CRL from a file is held to the same rules as a fetched one."""
    rogue = service(name="Rogue", key_usage=usage("digital_signature"))
    bench.trust.helpers += [SERVICE.certificate, rogue.certificate]
    importer = Importer(
        bench.store, bench.trust, (), (), bench.clock, PathSettings(), bench.revocation, 1 << 20
    )  # fmt: skip
    assert importer.take("good.crl", indirect()) == "crl"
    with pytest.raises(BadData, match="no CA certificate of its issuer is known"):
        importer.take("rogue.crl", indirect(signer=rogue))
    (entry,) = bench.store.entries()
    assert entry.chain == (SERVICE.certificate,)


def test_key_change_behind_a_url_causes_no_hurry(bench: Bench) -> None:
    """CACHE-2: when a URL gives the CRL of another key, the old one isn't asked for again every few minutes."""
    leaf = issue(ROOT, "old key", crl_urls=[CRL])
    bench.web.answers[CRL] = crl(ROOT)
    assert look(bench, leaf) == (Status.GOOD, "rev.crl")
    key = pki.key("rsa2048", ("ca", "Use case root, next key"))
    usual = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage("key_cert_sign", "crl_sign"), True)]
    link = ROOT._sign(ROOT.subject, key.public_key(), usual, **WINDOW)
    bench.trust.helpers.append(link)
    bench.clock.advance(timedelta(days=5))
    at = bench.clock.now()
    bench.web.answers[CRL] = crl(
        Authority(link, key, ROOT.subject), number=2, this_update=at - HOUR, next_update=at + 7 * DAY
    )  # fmt: skip
    assert bench.prefetch() == 1
    for _ in range(12):
        bench.clock.advance(timedelta(minutes=30))
        bench.prefetch()
    assert bench.web.count(CRL) == 2


def test_signer_that_is_not_for_mail_is_asked_about(bench: Bench) -> None:
    """RFC 5280 §6.3.3 (f): a signer of CRLs whose extendedKeyUsage names something else is still looked up."""
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer = service(name="Not for mail", eku=[ExtendedKeyUsageOID.OCSP_SIGNING])
    bench.web.answers[CRL] = crl(ROOT)
    assert bench.ask(question_for(signer.certificate, ROOT.certificate)) == 0
    assert bench.web.count(CRL) == 1
