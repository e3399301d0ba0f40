"""A CA that changed its key: whose CRLs may decide about certificates of the old key (RFC 5280 §6.3.3 (f))."""

from __future__ import annotations

import pytest
from cryptography import x509

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.judgement import JudgementSettings, judge_certificate
from postseal.core.path import Anchor, PathSettings
from postseal.core.revocation import RevocationSettings, Status, Verdict
from support.pki import NOW, Authority, authority, key, name, usage

ROOT = authority("Root")
OLD = ROOT.sub("Issuing")
NAME = name("Issuing")


def other_key(parent: Authority, *, crl_sign: bool = True) -> Authority:
    """Another key of the same CA, certified by ``parent``."""
    private = key("rsa2048", "new key")
    purposes = ("key_cert_sign", "crl_sign") if crl_sign else ("key_cert_sign",)
    extensions = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage(*purposes), True)]
    window = {"not_before": OLD.certificate.not_before, "not_after": OLD.certificate.not_after}
    return Authority(parent._sign(NAME, private.public_key(), extensions, **window), private, NAME)


ALICE = OLD.issue("alice@example.test")
NEW = other_key(ROOT)


def judged(*crls: bytes, signer: Authority = NEW) -> Verdict:
    pool = (OLD.certificate, signer.certificate)
    evidence = [CrlEvidence(parse_crl(der), f"file:{n}", NOW) for n, der in enumerate(crls)]
    settings = JudgementSettings(PathSettings(), RevocationSettings())
    found = judge_certificate(ALICE.certificate, (Anchor(ROOT.certificate),), pool, lambda _: evidence, settings, NOW)
    return found.verdicts[0]


def test_the_new_key_decides_when_it_is_good_itself() -> None:
    """PRE-7: its CRL counts, once the root's CRL says that the new key's certificate isn't revoked."""
    assert judged(NEW.crl(), ROOT.crl()).status is Status.GOOD
    assert judged(NEW.crl([ALICE]), ROOT.crl()).status is Status.REVOKED


@pytest.mark.parametrize(
    "crls",
    [
        (NEW.crl(),),
        (NEW.crl(), ROOT.crl([NEW])),
        (ROOT.crl(),),
    ],
    ids=["nothing known of the signer", "signer revoked", "no CRL of the new key"],
)
def test_a_signer_that_is_not_known_good_makes_nothing_good(crls: tuple[bytes, ...]) -> None:
    """PRE-7, T-21: its own revocation must be known, and from another than itself."""
    assert judged(*crls).status is Status.UNKNOWN


def test_a_signer_does_not_vouch_for_itself() -> None:
    """PRE-7: a certificate that the signer issued for its own key leads to no anchor; a circle is unknown."""
    mine = other_key(NEW)
    assert judged(NEW.crl(), signer=mine).status is Status.UNKNOWN


def test_a_stranger_with_the_name_of_the_ca_is_no_signer() -> None:
    """PRE-7, T-9: the same name below another root, or a key that may not sign CRLs."""
    stranger = other_key(authority("Other root"))
    assert judged(stranger.crl(), ROOT.crl(), signer=stranger).status is Status.UNKNOWN
    silent = other_key(ROOT, crl_sign=False)
    assert judged(silent.crl(), ROOT.crl(), signer=silent).status is Status.UNKNOWN
