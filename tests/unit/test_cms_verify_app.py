"""One verdict in a word for each signer: address, purposes, path, revocation and times, by the judge that recipients have."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.app.cms_verify import (
    SignatureReport,
    SignerReport,
    check_clear,
    check_opaque,
    expected_signer,
    judge_signers,
    uncovered,
)
from postseal.app.verify import Request
from postseal.core.address import parse_mailbox
from postseal.core.cms.multipart import ClearSigned
from postseal.core.cms.signed_reader import parse_signed
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.message import Field
from postseal.core.path import Anchor
from support.pki import DAY, NOW, Authority, Leaf, authority, usage
from support.signed import openssl_cms

CONTENT = b"Content-Type: text/plain\r\n\r\nhello\r\n"
FROM = (Field(b"From", b" Alice <alice@example.test>"),)


@cache
def root() -> Authority:
    return authority("Verdict root", not_after=NOW + 9000 * DAY)


@cache
def alice() -> Leaf:
    return root().issue("alice@example.test", slot="verdict", not_after=NOW + 3000 * DAY)


def request(*revoked: Leaf, anchors: bool = True, crl: bool = True) -> Request:
    evidence = (CrlEvidence(parse_crl(root().crl(revoked)), "file:crl", NOW),) if crl else ()
    return Request((Anchor(root().certificate),) if anchors else (), crls=evidence)


def report(
    asked: Request,
    fields: tuple[Field, ...] = FROM,
    *,
    leaf: Leaf | None = None,
    options: tuple[str, ...] = (),
    content: bytes = CONTENT,
) -> SignerReport:
    signed = parse_signed(openssl_cms(CONTENT, "-nodetach", *options, signers=(leaf or alice(),)))
    if content != CONTENT:
        signed = replace(signed, content=(memoryview(content),))
    found = judge_signers(check_opaque(signed), asked, expected_signer(fields, asked.mailbox), NOW)
    (signer,) = found.signers
    assert found.good == (signer.verdict == "good")
    assert found.covered == len(content)
    return signer


def words(signer: SignerReport) -> tuple[str, str]:
    return str(signer.verdict), signer.reason


def test_a_good_signature_is_good_for_a_reason() -> None:
    """RFC 8550 §3, §4."""
    signer = report(request())
    assert words(signer) == ("good", "sig.good")
    assert signer.matched == parse_mailbox("alice@example.test")
    assert signer.path is not None
    assert [v.reason for v in signer.path.verdicts] == ["rev.crl"]
    assert signer.account.claims.signing_time is not None


def test_without_anchors_nobody_is_known() -> None:
    signer = report(request(anchors=False))
    assert words(signer) == ("unverified", "sig.no-anchor")
    assert signer.path is None


def test_a_bad_signature_is_bad_whoever_signed() -> None:
    for asked in (request(), request(anchors=False), request(alice())):
        assert words(report(asked, content=CONTENT + b"x")) == ("bad", "sig.wrong-content")


def test_revocation_decides() -> None:
    """PRE-3: by the same judge."""
    assert words(report(request(alice()))) == ("revoked", "rev.revoked-crl")
    assert words(report(request(crl=False))) == ("unknown", "rev.none-declared")
    assert words(report(replace(request(crl=False), revocation=False))) == ("good", "sig.good")


def test_a_stranger_s_path_is_untrusted() -> None:
    stranger = authority("Nobody's root").issue("alice@example.test", slot="nobody")
    assert words(report(request(), leaf=stranger)) == ("untrusted", "path.no-issuer")


@pytest.mark.parametrize(
    ("header", "verdict", "reason"),
    [
        (b" ALICE@example.test", "good", "sig.good"),
        (b" bob@example.test", "not-the-sender", "sig.not-the-sender"),
        (b" alice@example.test, bob@example.test", "not-the-sender", "sig.no-sender"),
        (b' "alice@example.test" <bob@example.test>', "not-the-sender", "sig.not-the-sender"),
        (b" alice@example.test.evil.test", "not-the-sender", "sig.not-the-sender"),
    ],
)
def test_the_signer_is_who_the_message_is_from(header: bytes, verdict: str, reason: str) -> None:
    """RFC 8550 §3, THR-28."""
    assert words(report(request(), (Field(b"From", header),))) == (verdict, reason)


def test_two_senders_are_none_and_the_field_sender_is_not_from() -> None:
    """THR-28: mail programs show From."""
    bob = (Field(b"From", b" bob@example.test"), Field(b"Sender", b" alice@example.test"))
    assert words(report(request(), bob)) == ("not-the-sender", "sig.only-sender")
    assert words(report(request(), (*FROM, *FROM))) == ("not-the-sender", "sig.no-sender")
    assert words(report(request(), (Field(b"Subject", b" x"),))) == ("not-the-sender", "sig.no-sender")
    asked = replace(request(), mailbox=parse_mailbox("alice@example.test"))
    assert words(report(asked, bob)) == ("good", "sig.good")
    assert words(report(request(), ())) == ("good", "sig.good"), "a bare CMS object is from nobody"


def test_a_certificate_without_an_address_is_nobody_s() -> None:
    nameless = root().issue(None, slot="verdict-nameless", not_after=NOW + 3000 * DAY)
    signer = report(request(), leaf=nameless)
    assert words(signer) == ("not-the-sender", "sig.not-the-sender")
    assert "no mail address" in signer.detail


def test_purposes_are_those_of_signing() -> None:
    """RFC 8550 §4.4.2, §4.4.4: a key for encryption alone, or for servers, signs no mail; keyEncipherment isn't needed."""
    late = NOW + 3000 * DAY
    cases = (
        (usage("key_encipherment"), (ExtendedKeyUsageOID.EMAIL_PROTECTION,), ("unfit", "cert.no-digital-signature")),
        (usage("content_commitment"), (ExtendedKeyUsageOID.EMAIL_PROTECTION,), ("good", "sig.good")),
        (usage("digital_signature"), (ExtendedKeyUsageOID.EMAIL_PROTECTION,), ("good", "sig.good")),
        (usage("digital_signature"), None, ("good", "sig.good")),
        (usage("digital_signature"), (ExtendedKeyUsageOID.SERVER_AUTH,), ("unfit", "cert.wrong-purpose")),
    )
    for number, (bits, purposes, expected) in enumerate(cases):
        leaf = root().issue(
            "alice@example.test", slot=("verdict-use", number), key_usage=bits, eku=purposes, not_after=late
        )
        assert words(report(request(), leaf=leaf)) == expected


def test_sha1_is_weak_unless_it_is_let_through() -> None:
    """RFC 8551 §2.1."""
    assert words(report(request(), options=("-md", "sha1"))) == ("weak", "sig.weak-algorithm")
    assert words(report(replace(request(), weak_keys=True), options=("-md", "sha1"))) == ("good", "sig.good")
    assert words(report(replace(request(), weak_keys=True), options=("-md", "md5"))) == ("bad", "sig.broken-algorithm")


def test_the_signing_time_is_a_claim() -> None:
    """RFC 5652 §11.3: the certificate must be valid at the time of the check, whatever the signer says."""
    expired = root().issue("alice@example.test", slot="verdict-expired", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    signer = report(request(), leaf=expired)
    assert words(signer) == ("untrusted", "path.expired")
    # OpenSSL signs now, which is later than the check.
    assert "later than the time of this check" in signer.notes[0]


def clear(content: bytes, **more: bytes) -> ClearSigned:
    parts = {"preamble": b"", "epilogue": b""} | more
    return ClearSigned(memoryview(content), b"", memoryview(parts["preamble"]), memoryview(parts["epilogue"]), "", ())


def clear_report(signed_content: bytes, shown: bytes) -> SignatureReport:
    signed = parse_signed(openssl_cms(signed_content, signers=(alice(),)))
    return judge_signers(check_clear(clear(shown), signed), request(), expected_signer(FROM, None), NOW)


def test_text_that_was_signed_with_lf_is_told_so() -> None:
    """Peers 3.3 (10): signed as it was kept, sent with CRLF."""
    found = clear_report(CONTENT.replace(b"\r\n", b"\n"), CONTENT)
    assert (found.good, found.form, found.covered) == (True, "with LF line ends", len(CONTENT) - CONTENT.count(b"\r"))
    assert clear_report(CONTENT, CONTENT).form == "as received"
    mixed = CONTENT + b"one\ntwo\r\n"
    assert not clear_report(mixed.replace(b"\r\n", b"\n"), mixed).good


def test_what_nobody_signed_is_named() -> None:
    """THR-28. As it stands: who shows it escapes it, once."""
    parts = clear(CONTENT, preamble=b"see \x1b below", epilogue=b"\r\n")
    assert uncovered(parts, FROM) == (
        "the header fields of the message (1)",
        "the preamble (11 octets: see \x1b below)",
        "the epilogue (2 octets: white space)",
    )
    assert uncovered(clear(CONTENT), ()) == ()
