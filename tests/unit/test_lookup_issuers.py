"""Missing intermediates: fetched by the lookup process from where the certificate says (AIA), and by nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AuthorityInformationAccessOID

from postseal.core.evidence import Orphan
from postseal.core.path import Path, PathSettings, build_path
from support.lookups import CRL, NOW, ROOT, Bench, authority, issue
from support.pki import DAY, Authority, Leaf

SUB, UPPER = "http://aia.test/sub.cer", "http://aia.test/upper.cer"
WINDOW = {"not_before": NOW - 30 * DAY, "not_after": NOW + 335 * DAY}
Extensions = list[tuple[x509.ExtensionType, bool]]


def issuer_at(*urls: str) -> Extensions:
    method = AuthorityInformationAccessOID.CA_ISSUERS
    entries = [x509.AccessDescription(method, x509.UniformResourceIdentifier(u)) for u in urls]
    return [(x509.AuthorityInformationAccess(entries), False)]


UPPER_CA = ROOT.sub("Issuers upper", **WINDOW)
SUB_CA = UPPER_CA.sub("Issuers sub", extra=issuer_at(UPPER), **WINDOW)
LEAF = issue(SUB_CA, "aia", crl_urls=[CRL], extra=issuer_at(SUB))


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.lookups.close()


def has_path(bench: Bench, leaf: Leaf = LEAF) -> bool:
    path = build_path(
        leaf.certificate, bench.trust.anchors(), bench.store.intermediates(), PathSettings(), bench.clock.now()
    )
    return isinstance(path, Path)


def bundle(*authorities: Authority) -> bytes:
    return pkcs7.serialize_certificates([a.certificate.x509 for a in authorities], Encoding.DER)


def test_chain_is_followed_to_an_anchor(bench: Bench) -> None:
    """RFC 5280 §4.2.2.1: from the leaf upwards, one certificate in DER, the next in a PKCS#7 bundle; both are kept."""
    bench.web.answers = {SUB: SUB_CA.certificate.der, UPPER: bundle(authority("Issuers other"), UPPER_CA)}
    assert not has_path(bench)
    assert bench.ask(Orphan(LEAF.certificate)) == 0
    assert set(bench.store.intermediates()) == {SUB_CA.certificate, UPPER_CA.certificate}
    assert has_path(bench)
    bench.ask(Orphan(LEAF.certificate))
    assert bench.web.count() == 2


def test_known_issuer_causes_no_request(bench: Bench) -> None:
    """PRE-1: only a certificate whose issuer is really unknown is an exception, whatever the asker says."""
    bench.trust.helpers += [SUB_CA.certificate, UPPER_CA.certificate]
    bench.ask(Orphan(LEAF.certificate), Orphan(issue(ROOT, "x", extra=issuer_at(SUB)).certificate))
    assert bench.web.asked == []


def test_it_can_be_switched_off(tmp_path: FilePath) -> None:
    """THR-1: fetch_issuers off means that no URL of an untrusted certificate is ever used."""
    bench = Bench(tmp_path, fetch_issuers=False)
    bench.ask(Orphan(LEAF.certificate))
    assert bench.web.asked == []


@pytest.mark.parametrize("answer", ["stranger", "self-signed", "HTML", "not a CA"])
def test_what_completes_no_path_is_not_kept(answer: str, bench: Bench) -> None:
    """THR-1: nothing becomes an anchor, nothing useless is stored, and the URL is left alone for a while."""
    false_root = authority("Issuers false root")
    served = {
        "stranger": authority("Issuers stranger").certificate.der,
        "self-signed": false_root.certificate.der,
        "HTML": b"<html>log in</html>",
        "not a CA": issue(ROOT, "no ca").certificate.der,
    }[answer]
    leaf = issue(false_root, "aia", extra=issuer_at(SUB)) if answer == "self-signed" else LEAF
    bench.web.answers[SUB] = served
    bench.ask(Orphan(leaf.certificate))
    assert bench.store.intermediates() == ()
    assert not has_path(bench, leaf)
    bench.ask(Orphan(leaf.certificate))
    assert bench.web.count() == 1


def test_endless_chain_ends_after_three_requests(bench: Bench) -> None:
    """THR-1, THR-6: a certificate whose issuers point ever further up costs three requests."""
    chain = [authority("Issuers endless 0")]
    for number in range(1, 6):
        more = issuer_at(f"http://aia.test/{number - 1}.cer")
        chain.append(chain[-1].sub(f"Issuers endless {number}", extra=more, **WINDOW))
    for number, one in enumerate(chain):
        bench.web.answers[f"http://aia.test/{number}.cer"] = one.certificate.der
    leaf = issue(chain[-1], "endless", extra=issuer_at("http://aia.test/5.cer"))
    bench.ask(Orphan(leaf.certificate))
    assert bench.web.count() == 3
    assert bench.store.intermediates() == ()


def test_intermediates_outlive_a_restart_and_serve_questions(bench: Bench) -> None:
    """What was fetched is there for the next process, and completes the path of questions (PRE-1)."""
    bench.web.answers = {SUB: SUB_CA.certificate.der, UPPER: UPPER_CA.certificate.der}
    bench.ask(Orphan(LEAF.certificate))
    bench.store.close()
    bench.lookups = bench.make()
    from postseal.core.evidence import question_for

    assert bench.ask(question_for(LEAF.certificate, SUB_CA.certificate)) == 0
    assert bench.web.count(CRL) == 1
