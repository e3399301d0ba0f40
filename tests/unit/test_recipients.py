"""T-31 and T-32 as whole certificates: whom mail may be sealed for, asked of path, fitness and revocation together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.app.verify import Request, verify
from postseal.core.address import parse_mailbox
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor
from support.evidence import node, seq, signed_again
from support.pki import NOW, Authority, Leaf, authority, key, name, usage

ROOT = authority("Root")
SUB = ROOT.sub("Issuing")
WEB_CA = ROOT.sub("Web CA", extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)])
EMAIL = (ExtendedKeyUsageOID.EMAIL_PROTECTION,)
A = "alice@example.test"


def outcome(leaf: Leaf, mailbox: str = A, ca: Authority = SUB) -> tuple[str, str]:
    crls = tuple(CrlEvidence(parse_crl(c.crl()), "file:x", NOW) for c in (ROOT, ca))
    request = Request((Anchor(ROOT.certificate),), (ca.certificate,), crls, mailbox=parse_mailbox(mailbox))
    report = verify(leaf.certificate, request, NOW)
    return str(report.outcome), report.reason


def san(*names: x509.GeneralName, **more: object) -> Leaf:
    return SUB.issue(None, extra=[(x509.SubjectAlternativeName(list(names)), False)] if names else [], **more)


def mail_only(text: str) -> Leaf:
    """A certificate with the address in its subject alone."""
    private = key("rsa2048", ("leaf", 0))
    window = {"not_before": SUB.certificate.not_before, "not_after": SUB.certificate.not_after}
    return Leaf(
        SUB._sign(name("Alice", email=text), private.public_key(), [(usage("key_encipherment"), True)], **window),
        private,
    )


def raw(text: str) -> Leaf:
    """An rfc822Name that honest builders refuse."""
    value = seq(node(0x81, text.encode()))
    return SUB.issue(None, extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), value), False)])


def utf8(text: str) -> x509.GeneralName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), node(0x0C, text.encode()))


def a_ca() -> Leaf:
    extra = [(x509.BasicConstraints(ca=True, path_length=None), True)]
    return SUB.issue(A, extra=extra)


SUITABLE: dict[str, tuple[Callable[[], Leaf], str]] = {
    "usual": (lambda: SUB.issue(A), "good"),
    "RSA that signs only": (lambda: SUB.issue(A, key_usage=usage("digital_signature")), "unfit"),
    "RSA with dataEncipherment": (lambda: SUB.issue(A, key_usage=usage("data_encipherment")), "unfit"),
    "no keyUsage": (lambda: SUB.issue(A, key_usage=None), "good"),
    "EC with keyAgreement": (lambda: SUB.issue(A, kind="p256"), "good"),
    "EC that signs only": (lambda: SUB.issue(A, kind="p256", key_usage=usage("digital_signature")), "unfit"),
    "EC with keyEncipherment": (lambda: SUB.issue(A, kind="p256", key_usage=usage("key_encipherment")), "unfit"),
    "Ed25519": (lambda: SUB.issue(A, kind="ed25519", key_usage=usage("digital_signature")), "unfit"),
    "for clients of web servers": (lambda: SUB.issue(A, eku=[ExtendedKeyUsageOID.CLIENT_AUTH]), "unfit"),
    "for everything": (lambda: SUB.issue(A, eku=[x509.ObjectIdentifier("2.5.29.37.0")]), "good"),
    "no purpose": (lambda: SUB.issue(A, eku=None), "good"),
    "a CA": (a_ca, "unfit"),
    "RSA-1024": (lambda: SUB.issue(A, kind="rsa1024"), "untrusted"),
    "RSA-4096": (lambda: SUB.issue(A, kind="rsa4096"), "good"),
    "signed with SHA-1": (lambda: signed_again(SUB.issue(A), SUB, "sha256", "sha1"), "untrusted"),
    "signed with SHA-512": (lambda: SUB.issue(A, hash_algorithm=hashes.SHA512()), "good"),
}


@pytest.mark.parametrize("name", SUITABLE)
def test_t31_suitable(name: str) -> None:
    """T-31, CERT-10 to CERT-14: what a certificate must be for mail to be sealed with it."""
    make, expected = SUITABLE[name]
    found = outcome(make())
    assert found[0] == expected, found


def test_t31_purposes_are_nested() -> None:
    """T-31, CERT-11: below a CA for web servers nobody gets mail."""
    assert outcome(WEB_CA.issue(A, eku=EMAIL), ca=WEB_CA) == ("untrusted", "path.wrong-purpose")


ADDRESSES: dict[str, tuple[Callable[[], Leaf], str, str]] = {
    "the same": (lambda: SUB.issue(A), A, "good"),
    "another case": (lambda: SUB.issue("Alice@Example.TEST"), "aLICE@eXample.test", "good"),
    "one of several": (lambda: san(x509.RFC822Name("x@example.test"), x509.RFC822Name(A)), A, "good"),
    "A-label": (lambda: SUB.issue("a@xn--bcher-kva.example"), "a@bücher.example", "good"),
    "UTF-8 local part": (lambda: san(utf8("jürgen@example.test")), "jürgen@example.test", "good"),
    "UTF-8 name for an ASCII local part": (lambda: san(utf8(A)), A, "unfit"),
    "in the subject alone": (lambda: mail_only(A), A, "good"),
    "in the subject, with another beside": (lambda: SUB.issue("bob@example.test", common_name=A), A, "unfit"),
    "with a detail": (lambda: SUB.issue(A), "alice+list@example.test", "unfit"),
    "without the dots": (lambda: SUB.issue("a.lice@example.test"), A, "unfit"),
    "quoted": (lambda: SUB.issue('"a b"@example.test'), '"a b"@example.test', "good"),
    "the whole domain": (lambda: SUB.issue("*@example.test"), A, "unfit"),
    "a subdomain": (lambda: SUB.issue("alice@mail.example.test"), A, "unfit"),
    "none": (lambda: SUB.issue(None), A, "unfit"),
    "with white space": (lambda: raw(" alice@example.test"), A, "unfit"),
    "with an end in the middle": (lambda: raw("alice@example.test\0.evil.test"), A, "unfit"),
    "with brackets": (lambda: raw("alice@example.test <b@evil.test>"), A, "unfit"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_t32_addresses(name: str) -> None:
    """T-32, CERT-1 to CERT-5: whose certificate it is."""
    make, mailbox, expected = ADDRESSES[name]
    found = outcome(make(), mailbox)
    assert found[0] == expected, found
