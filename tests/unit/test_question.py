"""What is asked about a certificate: the URLs it declares, as far as they can be used (CRL-2, CRL-12, CRL-28, OCSP-20)."""

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from postseal.core.crl import parse_crl
from postseal.core.evidence import MAX_CRL_URLS, MAX_OCSP_URLS, CrlEvidence, Question, delta_urls, question_for
from postseal.core.revocation import RevocationSettings, crl_sources
from support.evidence import crl, full_name, node, number, seq, uri
from support.pki import NOW, authority

ROOT = authority("Root")
URL = x509.UniformResourceIdentifier


def ask(*extensions: x509.ExtensionType) -> Question:
    leaf = ROOT.issue("alice@example.test", extra=[(e, False) for e in extensions])
    return question_for(leaf.certificate, ROOT.certificate)


def points(*urls: str) -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints([x509.DistributionPoint([URL(u)], None, None, None) for u in urls])


def responders(*urls: str) -> x509.AuthorityInformationAccess:
    kinds = AuthorityInformationAccessOID
    found = [x509.AccessDescription(kinds.OCSP, URL(u)) for u in urls]
    return x509.AuthorityInformationAccess(
        [*found, x509.AccessDescription(kinds.CA_ISSUERS, URL("http://ca.test/ca.cer"))]
    )


def test_urls_in_their_order_each_once() -> None:
    found = ask(
        points("http://b.test/x", "https://a.test/x", "http://b.test/x"), responders("http://o.test/", "HTTP://p.test")
    )
    assert found.crl_urls == ("http://b.test/x", "https://a.test/x")
    assert found.ocsp_urls == ("http://o.test/", "HTTP://p.test")
    assert found.skipped == ()


def test_nothing_declared() -> None:
    found = ask()
    assert (found.crl_urls, found.ocsp_urls, found.skipped) == ((), (), ())


@pytest.mark.parametrize(
    "url",
    ["ldap:///CN=x", "ldap://d.test/CN=x?certificateRevocationList", "ftp://f.test/x", "file:///etc/passwd", "http://", "x.crl",
     "http:///x.crl", "http://[::bad/", "http://h.test:99999/", "http://h.test:port/", "http://u:p@h.test/",
     "http://h.test/a b", "http://h.test/\r\nX: y", "http://h.test/\x00", "http://" + "h" * 2100 + ".test/"],
)  # fmt: skip
def test_urls_that_cant_be_used_are_named(url: str) -> None:
    found = ask(points(url), responders(url, "http://good.test/"))
    assert found.crl_urls == ()
    assert found.ocsp_urls == ("http://good.test/",)
    assert len(found.skipped) == 2
    assert all("\n" not in words and "\x00" not in words and len(words) < 500 for words in found.skipped)


def test_alternatives_of_one_point_are_all_tried() -> None:
    """CRL-11"""
    names = [URL("ldap:///CN=x"), URL("http://a.test/1"), URL("http://b.test/1")]
    found = ask(x509.CRLDistributionPoints([x509.DistributionPoint(names, None, None, None)]))
    assert found.crl_urls == ("http://a.test/1", "http://b.test/1")
    assert len(found.skipped) == 1


def test_directories_stand_apart() -> None:
    """CRL-28: who may follow them finds them; nobody else takes them for a source."""
    names = [
        URL("ldap:///CN=x?y"),
        URL("http://a.test/1"),
        URL("LDAP://d.test/CN=x?y"),
        URL("ldap://d.test/" + "x" * 2048),
    ]
    found = ask(x509.CRLDistributionPoints([x509.DistributionPoint(names, None, None, None)]))
    assert found.ldap_urls == ("ldap:///CN=x?y", "LDAP://d.test/CN=x?y")
    assert crl_sources(found, RevocationSettings()) == ("http://a.test/1",)
    assert crl_sources(found, RevocationSettings(ldap=True)) == ("http://a.test/1", *found.ldap_urls)


def test_points_of_another_issuer_are_asked_and_relative_names_are_skipped() -> None:
    """CRL-2, CRL-12: who else may sign is part of the question; a name in a directory can't be fetched from."""
    issuer = [x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CRL issuer")]))]
    relative = x509.RelativeDistinguishedName([x509.NameAttribute(x509.NameOID.COMMON_NAME, "crl1")])
    found = ask(
        x509.CRLDistributionPoints(
            [
                x509.DistributionPoint([URL("http://i.test/1")], None, None, issuer),
                x509.DistributionPoint(None, relative, None, None),
                x509.DistributionPoint(issuer, None, None, None),
            ]
        )
    )
    assert found.crl_urls == ("http://i.test/1",)
    assert found.crl_issuers == (issuer[0].value.public_bytes(),)
    assert len(found.skipped) == 2


def test_where_deltas_are() -> None:
    """CRL-18: freshestCRL of the certificate."""
    found = ask(x509.FreshestCRL([x509.DistributionPoint([URL("http://d.test/1")], None, None, None)]))
    assert (found.crl_urls, found.delta_urls) == ((), ("http://d.test/1",))
    assert delta_urls(found, ()) == ()
    point = seq(node(0xA0, full_name(uri("http://d.test/2"), uri("ldap://d.test/3"))))
    base = crl(ROOT, extensions=[number(1), ("2.5.29.46", False, seq(point))])
    evidence = CrlEvidence(parse_crl(base), "http://a.test/", NOW)
    assert delta_urls(found, (evidence,)) == ("http://d.test/1", "http://d.test/2")


def test_there_are_limits() -> None:
    found = ask(
        points(*(f"http://h{i}.test/" for i in range(20))), responders(*(f"http://o{i}.test/" for i in range(9)))
    )
    assert len(found.crl_urls) == MAX_CRL_URLS
    assert found.ocsp_urls == tuple(f"http://o{i}.test/" for i in range(MAX_OCSP_URLS))
    assert len(found.skipped) == 2


def test_extensions_that_cant_be_read_ask_nothing() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), b"\x05\x00")
    found = ask(broken)
    assert (found.crl_urls, found.ocsp_urls) == ((), ())
