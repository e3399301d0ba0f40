"""What a CRL says about a certificate: one table per rule, judged through the public ``judge``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, Question, RevokedBefore, question_for
from postseal.core.revocation import RevocationSettings, Status, Verdict, judge, still_needed
from support.evidence import (
    CRITICAL_UNKNOWN,
    CRL_URL,
    OCSP_URL,
    UNKNOWN_OID,
    authority_key,
    certificate_issuer,
    crl,
    delta_of,
    directory_name,
    entry,
    full_name,
    generalized,
    invalidity,
    name_of,
    node,
    number,
    reason,
    scope,
    seq,
    uri,
    utc,
)
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority, key, name, usage

CA = authority("Issuing CA", kind="p256")
OTHER = authority("Other CA", kind="p256")
ALICE = CA.issue("alice@example.test", crl_urls=[CRL_URL])
BOB = CA.issue("bob@example.test", slot="bob", crl_urls=[CRL_URL])
SUB = CA.sub("Sub CA", kind="p256", crl_urls=[CRL_URL])
MINUTE = timedelta(minutes=1)


def ask(
    *ders: bytes,
    about: Leaf = ALICE,
    issuer: Leaf = CA,
    at: datetime = NOW,
    url: str = CRL_URL,
    urls: Sequence[str] = (CRL_URL,),
    fetched_at: datetime = NOW,
    **settings: Any,
) -> Verdict:
    question = Question(about.certificate, issuer.certificate, tuple(urls), ())
    evidence = [CrlEvidence(parse_crl(der), url, fetched_at) for der in ders]
    return judge(question, evidence, RevocationSettings(**settings), at)


def points(*point: bytes) -> tuple[x509.ExtensionType, bool]:
    """A CRLDistributionPoints extension from hand-made DistributionPoints."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), seq(*point)), False


def holder(*point: bytes) -> Leaf:
    return CA.issue("scope@example.test", slot="scope", extra=[points(*point)])


def test_not_listed_is_good_and_listed_is_revoked() -> None:
    """RFC 5280 §6.3.3: the two plain cases, with the facts that the log wants."""
    good = ask(crl(CA, [entry(BOB)]))
    assert (good.status, good.reason, good.source, good.detail) == (Status.GOOD, "rev.crl", CRL_URL, "")
    assert (good.this_update, good.next_update) == (NOW - HOUR, NOW + 7 * DAY)
    bad = ask(crl(CA, [entry(ALICE, reason(1), invalidity(NOW - 3 * DAY))]))
    assert (bad.status, bad.reason, bad.source) == (Status.REVOKED, "rev.revoked-crl", CRL_URL)
    assert (bad.revoked_at, bad.revocation_reason) == (NOW - DAY, "keyCompromise")
    assert bad.detail == (
        f"revoked 2026-05-31T12:00:00Z, reason keyCompromise, by the CRL from {CRL_URL}, invalid since 2026-05-29T12:00:00Z"
    )
    assert bad.forbids
    assert not good.forbids


def test_every_non_anchor_certificate_can_be_asked_about() -> None:
    """PRE-3: a CA certificate is judged by its issuer's CRL like a leaf."""
    assert ask(crl(CA), about=SUB).status is Status.GOOD
    assert ask(crl(CA, [entry(SUB)]), about=SUB).status is Status.REVOKED


def sibling() -> Authority:
    """An end entity that signs a CRL in its own name."""
    leaf = CA.issue("mallory@example.test", slot="mallory", key_usage=None)
    return Authority(leaf.certificate, leaf.key, name("mallory@example.test"))


@pytest.mark.parametrize(
    "der",
    [crl(OTHER, [entry(ALICE)]), crl(sibling()), crl(OTHER, issuer=node(0x30))],
    ids=["other-ca", "sibling", "empty-name"],
)
def test_crl_of_another_issuer(der: bytes) -> None:
    """CRL-2, T-4: without cRLIssuer only the certificate's issuer counts; at the declared URL another one is suspicious."""
    verdict = ask(der)
    assert (verdict.status, verdict.reason, verdict.suspicious) == (Status.UNKNOWN, "rev.wrong-issuer", True)
    assert "CN=Issuing CA" in verdict.detail
    assert CRL_URL in verdict.detail


def test_unrelated_crls_are_no_alarm() -> None:
    """CRL-2: a CRL that came from elsewhere (a file, another CA's URL) and is of another issuer says nothing at all."""
    verdict = ask(crl(OTHER, [entry(ALICE)]), url="file:other.crl")
    assert (verdict.status, verdict.reason, verdict.suspicious) == (Status.UNKNOWN, "rev.no-evidence", False)


def test_issuer_names_are_compared_by_the_rules_of_names() -> None:
    """CRL-2, RFC 5280 §7.1: another string type, case or spacing is the same name."""
    other_form = seq(node(0x31, seq(node(6, b"\x55\x04\x03"), node(0x13, b"ISSUING  ca"))))
    assert ask(crl(CA, [entry(ALICE)], issuer=other_form)).status is Status.REVOKED
    assert ask(crl(CA, issuer=other_form)).status is Status.GOOD


def test_crl_issuer_in_the_distribution_point() -> None:
    """CRL-2: a point that names another CRL issuer asks for an indirect CRL; without its certificate nobody can check it."""
    who = holder(seq(node(0xA0, full_name(uri(CRL_URL))), node(0xA2, directory_name(name_of(OTHER)))))
    verdict = ask(crl(OTHER, extensions=[scope(indirect=True)]), about=who)
    assert (verdict.status, verdict.reason, verdict.suspicious) == (Status.UNKNOWN, "rev.crl-signer", False)
    complete = ask(crl(OTHER), about=who)
    assert (complete.reason, complete.suspicious) == ("rev.wrong-issuer", True)
    assert "doesn't say that it is an indirect CRL" in complete.detail


def common_name(text: bytes) -> bytes:
    """One AttributeTypeAndValue."""
    return seq(node(6, b"\x55\x04\x03"), node(0x13, text))


PART_1, PART_2 = common_name(b"part 1"), common_name(b"part 2")
PART_1_OF_CA, PART_1_OF_OTHER = (
    seq(node(0x31, common_name(text)), node(0x31, PART_1)) for text in (b"Issuing CA", b"Other CA")
)
POINT = node(0xA0, full_name(uri(CRL_URL)))
SCOPES = [
    ("same URI", full_name(uri(CRL_URL)), POINT, "rev.crl"),
    ("one of several", full_name(uri("http://x.test/"), uri(CRL_URL)), POINT, "rev.crl"),
    ("host and scheme without case", full_name(uri("HTTP://CRL.example.TEST/ca.crl")), POINT, "rev.crl"),
    ("path with case", full_name(uri("http://crl.example.test/CA.crl")), POINT, "rev.wrong-scope"),
    ("another URI", full_name(uri("http://crl.example.test/part2.crl")), POINT, "rev.wrong-scope"),
    ("second point", full_name(uri(CRL_URL)), node(0xA0, full_name(uri("http://a.test/"))) + b"|" + POINT, "rev.crl"),
    ("directory name", full_name(directory_name(name_of(OTHER))), node(0xA0, full_name(directory_name(name_of(OTHER)))),
     "rev.crl"),
    ("the issuer's own name", full_name(directory_name(name_of(CA))), POINT, "rev.crl"),
    ("a stranger's name", full_name(directory_name(name_of(OTHER))), POINT, "rev.wrong-scope"),
    ("relative in the CRL", node(0xA1, PART_1), POINT, "rev.wrong-scope"),
    ("relative in both", node(0xA1, PART_1), node(0xA0, node(0xA1, PART_1)), "rev.crl"),
    ("another relative name", node(0xA1, PART_1), node(0xA0, node(0xA1, PART_2)), "rev.wrong-scope"),
    ("relative in the CRL, in full in the certificate", node(0xA1, PART_1), node(0xA0, full_name(directory_name(PART_1_OF_CA))),
     "rev.crl"),
    ("in full in the CRL, relative in the certificate", full_name(directory_name(PART_1_OF_CA)), node(0xA0, node(0xA1, PART_1)),
     "rev.crl"),
    ("relative to another issuer", full_name(directory_name(PART_1_OF_OTHER)), node(0xA0, node(0xA1, PART_1)),
     "rev.wrong-scope"),
    ("only relative in the certificate", full_name(uri(CRL_URL)), node(0xA0, node(0xA1, seq())), "rev.wrong-scope"),
]  # fmt: skip


@pytest.mark.parametrize(("label", "crl_name", "point", "code"), SCOPES, ids=[s[0] for s in SCOPES])
def test_t17_distribution_point_names_must_match(label: str, crl_name: bytes, point: bytes, code: str) -> None:
    """CRL-3, CRL-12, T-17, RFC 5280 §6.3.3 (b)(2)(i): a partition is believed only for certificates that point to it."""
    who = holder(*(seq(p) for p in point.split(b"|")))
    assert ask(crl(CA, extensions=[scope(crl_name)]), about=who).reason == code


def test_the_words_of_a_wrong_scope() -> None:
    """CRL-3: the words name the URL of the scope where it has one."""
    with_url = ask(crl(CA, extensions=[scope(full_name(uri("http://x.test/2.crl")))]))
    assert with_url.detail.endswith("its distribution point http://x.test/2.crl isn't one of the certificate's")
    without = ask(crl(CA, extensions=[scope(full_name(directory_name(name_of(OTHER))))]))
    assert without.detail.endswith("it is of another scope")


def test_listed_out_of_scope_says_nothing() -> None:
    """CRL-3, CRL-7: an entry on a CRL that isn't meant for the certificate isn't about it."""
    who = holder(seq(POINT))
    part = scope(full_name(uri("http://crl.example.test/part2.crl")))
    assert ask(crl(CA, [entry(who)], extensions=[part]), about=who).reason == "rev.wrong-scope"


def test_authority_key_identifier() -> None:
    """CRL-4: another key identifier is another key, whether the signature fits or not; listed is never GOOD."""
    own = CA.certificate.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert ask(crl(CA, extensions=[authority_key(own)])).status is Status.GOOD
    foreign = ask(crl(CA, extensions=[authority_key(b"x" * 20)]))
    assert (foreign.reason, foreign.suspicious) == ("rev.wrong-issuer", True)
    listed = ask(crl(CA, [entry(ALICE)], extensions=[authority_key(b"x" * 20)]))
    assert (listed.reason, listed.forbids) == ("rev.listed-unsupported", True)
    stranger = ask(crl(CA, key=key("p256", "stranger"), extensions=[authority_key(b"x" * 20)]))
    assert (stranger.reason, stranger.suspicious) == ("rev.wrong-issuer", True)
    elsewhere = ask(crl(CA, key=key("p256", "stranger"), extensions=[authority_key(b"x" * 20)]), url="file:a.crl")
    assert (elsewhere.reason, elsewhere.suspicious) == ("rev.wrong-issuer", False)


@pytest.mark.parametrize(("bits", "code"), [(("key_cert_sign",), "rev.no-crl-sign"), (("crl_sign",), "rev.crl")])
def test_issuer_must_be_allowed_to_sign_crls(bits: tuple[str, ...], code: str) -> None:
    """CRL-5, RFC 5280 §6.3.3 (f): keyUsage, where there is one, has cRLSign."""
    private = key("p256", "usage ca")
    certificate = CA._sign(
        name("Usage CA"), private.public_key(), [(usage(*bits), True)], not_before=NOW - DAY, not_after=NOW + DAY
    )
    ca = Authority(certificate, private, name("Usage CA"))
    who = ca.issue("u@example.test", kind="p256")
    assert ask(crl(ca), about=who, issuer=ca).reason == code
    listed = ask(crl(ca, [entry(who)]), about=who, issuer=ca)
    assert listed.forbids
    assert listed.status is not Status.GOOD


def test_issuer_without_key_usage() -> None:
    """CRL-5: no keyUsage at all allows everything."""
    private = key("p256", "no usage ca")
    certificate = CA._sign(name("Old CA"), private.public_key(), [], not_before=NOW - DAY, not_after=NOW + DAY)
    ca = Authority(certificate, private, name("Old CA"))
    assert ask(crl(ca), about=ca.issue("u@example.test", kind="p256"), issuer=ca).reason == "rev.crl"


def test_wrong_signature() -> None:
    """CRL-6: a spoilt signature is UNKNOWN and suspicious, and what the CRL lists doesn't count."""
    for entries in ([], [entry(ALICE)]):
        verdict = ask(crl(CA, entries, spoil=True))
        assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.bad-signature")
        assert verdict.suspicious
        assert not verdict.forbids
        assert "doesn't verify with the key of CN=Issuing CA" in verdict.detail


@pytest.mark.parametrize(
    ("kind", "weak_keys", "code"),
    [("sha256", False, "rev.crl"), ("pss", False, "rev.crl"), ("sha1", False, "rev.weak-algorithm"),
     ("sha1", True, "rev.crl"), ("md5", False, "rev.weak-algorithm"), ("md5", True, "rev.weak-algorithm")],
)  # fmt: skip
def test_algorithm_floor(kind: str, weak_keys: bool, code: str) -> None:
    """CRL-6: SHA-2; SHA-1 only with weak_keys; never MD5. A SHA-1 CRL that lists the certificate still forbids GOOD."""
    ca = authority("RSA CA")
    who = ca.issue("r@example.test")
    assert ask(crl(ca, kind=kind), about=who, issuer=ca, weak_keys=weak_keys).reason == code
    listed = ask(crl(ca, [entry(who)], kind=kind), about=who, issuer=ca, weak_keys=weak_keys)
    assert listed.forbids == (kind != "md5")


@pytest.mark.parametrize("entries", [[], [entry(ALICE)]])
def test_unknown_algorithm(entries: list[bytes]) -> None:
    """CRL-6: an algorithm that isn't known (here DSA) is unsupported, neither GOOD nor an attack."""
    verdict = ask(crl(CA, entries, kind="dsa"))
    assert (verdict.status, verdict.reason, verdict.suspicious) == (Status.UNKNOWN, "rev.unsupported", False)
    assert "unknown algorithm 2.16.840.1.101.3.4.3.2" in verdict.detail


def test_weak_issuer_key() -> None:
    """CRL-6: a CA key of 1024 bits signs no CRL that is believed, unless weak keys are allowed."""
    ca = authority("Weak CA", kind="rsa1024")
    who = ca.issue("w@example.test", kind="p256")
    assert ask(crl(ca), about=who, issuer=ca).reason == "rev.weak-algorithm"
    assert ask(crl(ca), about=who, issuer=ca, weak_keys=True).reason == "rev.crl"


@pytest.mark.parametrize(
    ("limits", "about", "code"),
    [
        ({"user": True}, ALICE, "rev.crl"),
        ({"user": True}, SUB, "rev.wrong-scope"),
        ({"ca": True}, ALICE, "rev.wrong-scope"),
        ({"ca": True}, SUB, "rev.crl"),
        ({"attribute": True}, ALICE, "rev.wrong-scope"),
        ({"attribute": True}, SUB, "rev.wrong-scope"),
        ({}, ALICE, "rev.crl"),
    ],
)
def test_t17_kinds_of_certificates(limits: dict[str, bool], about: Leaf, code: str) -> None:
    """CRL-8, T-17: onlyContainsUserCerts, CACerts and AttributeCerts."""
    assert ask(crl(CA, extensions=[scope(**limits)]), about=about).reason == code


@pytest.mark.parametrize("url", ["file:imported.crl", "http://mirror.example.test/all.crl"])
def test_t17_crl_without_scope_counts_wherever_it_came_from(url: str) -> None:
    """CRL-10, T-17: a complete CRL of the issuer is good for every point, also when the certificate declares none."""
    undeclared = CA.issue("n@example.test", slot="n")
    assert ask(crl(CA), url=url).status is Status.GOOD
    assert ask(crl(CA), about=undeclared, urls=(), url=url).status is Status.GOOD
    assert ask(crl(CA, [entry(undeclared)]), about=undeclared, urls=(), url=url).status is Status.REVOKED


# ReasonFlags: unused bits, then bit 0 first. 1 keyCompromise, 2 cACompromise … 8 aACompromise.
KEY_COMPROMISE, THE_REST, EVERYTHING = b"\x06\x40", b"\x07\x3f\x80", b"\x07\x7f\x80"


def test_t18_partial_reasons() -> None:
    """CRL-9, CRL-11, T-18: GOOD only when all reasons are covered together; listed on any part is REVOKED."""
    some, rest = (crl(CA, extensions=[scope(reasons=r)]) for r in (KEY_COMPROMISE, THE_REST))
    verdict = ask(some)
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.reasons-incomplete")
    assert "cACompromise, affiliationChanged" in verdict.detail
    assert ask(rest).reason == "rev.reasons-incomplete"
    assert ask(some, rest).status is Status.GOOD
    assert ask(crl(CA, extensions=[scope(reasons=EVERYTHING)])).status is Status.GOOD
    assert ask(crl(CA, [entry(ALICE)], extensions=[scope(reasons=KEY_COMPROMISE)]), rest).status is Status.REVOKED


def test_t18_partial_reasons_of_the_certificate() -> None:
    """CRL-9, T-18: the reasons of the distribution point limit what the CRL that it names can say."""
    who = holder(seq(POINT, node(0x81, KEY_COMPROMISE)))
    named = scope(full_name(uri(CRL_URL)))
    assert ask(crl(CA, extensions=[named]), about=who).reason == "rev.reasons-incomplete"
    assert ask(crl(CA), about=who).status is Status.GOOD


@pytest.mark.parametrize(
    ("extensions", "entries", "words"),
    [
        ([CRITICAL_UNKNOWN], [], f"unknown critical extension {UNKNOWN_OID}"),
        ([number(1)], [entry(77, CRITICAL_UNKNOWN)], f"an entry has the unknown critical extension {UNKNOWN_OID}"),
        ([number(1)], [entry(77, certificate_issuer(name_of(OTHER)))], "indirect CRL"),
    ],
    ids=["critical", "critical-entry", "certificate-issuer"],
)
def test_t20_what_is_not_supported_is_never_good(extensions: Any, entries: list[bytes], words: str) -> None:
    """CRL-13, CRL-14, CRL-15, CRL-17, T-20: UNKNOWN without our serial; with it GOOD is ruled out, whatever else there is."""
    verdict = ask(crl(CA, entries, extensions=extensions))
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.unsupported")
    assert words in verdict.detail
    assert ask(crl(CA, entries, extensions=extensions), crl(CA)).status is Status.GOOD
    listing = crl(CA, [entry(ALICE), *entries], extensions=extensions)
    for verdict in (ask(listing), ask(listing, crl(CA)), ask(crl(CA), listing)):
        assert (verdict.status, verdict.reason, verdict.forbids) == (Status.UNKNOWN, "rev.listed-unsupported", True)
        assert "it lists the certificate, but" in verdict.detail


def test_t19_an_indirect_crl_of_the_issuer_itself() -> None:
    """CRL-15, T-19: number and issuer must match; our number behind another issuer's name is another certificate."""
    indirect = [number(1), scope(indirect=True)]
    other = entry(7, certificate_issuer(name_of(OTHER)))
    assert ask(crl(CA, [other, entry(ALICE)], extensions=indirect)).status is Status.GOOD
    assert ask(crl(CA, [entry(ALICE), other], extensions=indirect)).status is Status.REVOKED
    back = entry(8, certificate_issuer(name_of(CA)))
    assert ask(crl(CA, [other, back, entry(ALICE)], extensions=indirect)).status is Status.REVOKED


def test_t19_the_issuer_of_an_entry_must_be_critical() -> None:
    """CRL-15: who may overlook whose entry it is, takes one certificate for another; such a CRL makes nothing GOOD."""
    loose = ("2.5.29.29", False, certificate_issuer(name_of(OTHER))[2])
    verdict = ask(crl(CA, [entry(7, loose)], extensions=[number(1), scope(indirect=True)]))
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.unsupported")
    assert "isn't critical" in verdict.detail


def test_remove_from_crl() -> None:
    """CRL-19: on a delta it isn't a revocation; on a complete CRL it lifts nothing."""
    assert ask(crl(CA, [entry(ALICE, reason(8))], extensions=[delta_of(1)]), crl(CA)).status is Status.GOOD
    assert ask(crl(CA, [entry(ALICE, reason(8))])).status is Status.REVOKED


def test_freshest_crl_does_not_spoil_the_base() -> None:
    """CRL-18: deltas are optional for clients; a base that announces one is used as it is."""
    freshest = ("2.5.29.46", False, seq(seq(node(0xA0, full_name(uri("http://crl.example.test/delta.crl"))))))
    assert ask(crl(CA, extensions=[number(1), freshest])).status is Status.GOOD


def test_t27_hold_is_revoked() -> None:
    """CRL-20, T-27: certificateHold is a revocation until a newer CRL of the same scope no longer lists the certificate."""
    held = crl(CA, [entry(ALICE, reason(6))])
    verdict = ask(held)
    assert (verdict.status, verdict.revocation_reason) == (Status.REVOKED, "certificateHold")
    assert verdict.usable_until == NOW + 7 * DAY
    newer = crl(CA, this_update=utc(NOW - MINUTE), extensions=[number(2)])
    older = crl(CA, this_update=utc(NOW - 2 * HOUR), extensions=[number(0)])
    other_scope = crl(CA, this_update=utc(NOW - MINUTE), extensions=[scope(user=True)])
    assert ask(held, newer).status is Status.GOOD
    assert ask(newer, held).status is Status.GOOD
    assert ask(held, older).status is Status.REVOKED
    assert ask(held, other_scope).status is Status.REVOKED


def test_t27_a_final_revocation_is_never_lifted() -> None:
    """RPL-4, CRL-27, T-27: only a hold is lifted; everything else stays, whatever a newer CRL says."""
    newer = crl(CA, this_update=utc(NOW - MINUTE))
    assert ask(crl(CA, [entry(ALICE, reason(1))]), newer).status is Status.REVOKED
    assert ask(crl(CA, [entry(ALICE)]), newer).status is Status.REVOKED
    verdict = ask(crl(CA, [entry(ALICE, reason(1))]))
    assert verdict.usable_until == ALICE.certificate.not_after


def test_t27_what_was_seen_revoked_stays_revoked() -> None:
    """CRL-27, T-27: the memory of a revocation outlives the CRL that held it, and no newer CRL takes it back."""
    before = RevokedBefore("http://gone.test/ca.crl", NOW - DAY, NOW - 2 * DAY, "keyCompromise", NOW - 2 * DAY)
    question = Question(ALICE.certificate, CA.certificate, (CRL_URL,), ())
    fresh = CrlEvidence(parse_crl(crl(CA, this_update=utc(NOW - MINUTE))), CRL_URL, NOW)
    for evidence in ([before], [fresh, before], [before, fresh]):
        verdict = judge(question, evidence, RevocationSettings(), NOW)
        assert (verdict.status, verdict.reason, verdict.source) == (Status.REVOKED, "rev.revoked-before", before.url)
        assert (verdict.revoked_at, verdict.revocation_reason) == (NOW - 2 * DAY, "keyCompromise")
        assert verdict.usable_until == ALICE.certificate.not_after
        assert not still_needed(question, evidence, RevocationSettings(), NOW)


def test_an_older_crl_makes_nothing_good() -> None:
    """CRL-25: beside a newer one of its scope, or when the store has seen one, it can revoke and not clear."""
    older = crl(CA, extensions=[number(1)], this_update=utc(NOW - 2 * HOUR))
    newer_but_ended = crl(CA, extensions=[number(2)], next_update=utc(NOW - 10 * MINUTE))
    for ders in ((older, newer_but_ended), (newer_but_ended, older)):
        verdict = ask(*ders)
        assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.rollback")
    assert ask(older, crl(CA, extensions=[number(2)])).status is Status.GOOD
    listing = crl(CA, [entry(ALICE)], extensions=[number(1)], this_update=utc(NOW - 2 * HOUR))
    assert ask(listing, crl(CA, extensions=[number(2)])).status is Status.REVOKED
    future = crl(CA, extensions=[number(3)], this_update=utc(NOW + HOUR))
    assert ask(older, future).status is Status.GOOD, "one from the future doesn't make all others old"
    other_scope = crl(CA, extensions=[number(9), scope(user=True)], next_update=utc(NOW - 10 * MINUTE))
    assert ask(older, other_scope).status is Status.GOOD
    question = Question(ALICE.certificate, CA.certificate, (CRL_URL,), ())
    for der, status in ((older, Status.UNKNOWN), (listing, Status.REVOKED)):
        marked = CrlEvidence(parse_crl(der), CRL_URL, NOW, outdated=True)
        assert judge(question, [marked], RevocationSettings(), NOW).status is status


@pytest.mark.parametrize("when", [NOW - 9000 * DAY, NOW + 400 * DAY])
def test_any_date_is_revoked_now(when: datetime) -> None:
    """CRL-21: for encryption an entry counts whatever its revocation date, also one in the future."""
    assert ask(crl(CA, [entry(ALICE, when=when)])).status is Status.REVOKED


@pytest.mark.parametrize(
    ("this_update", "next_update", "code"),
    [
        (NOW + 2 * MINUTE, NOW + DAY, "rev.crl"),
        (NOW + 5 * MINUTE, NOW + DAY, "rev.crl"),
        (NOW + 6 * MINUTE, NOW + DAY, "rev.not-yet-valid"),
        (NOW - DAY, NOW, "rev.crl"),
        (NOW - DAY, NOW - timedelta(seconds=1), "rev.crl"),
        (NOW - DAY, NOW - 5 * MINUTE, "rev.crl"),
        (NOW - DAY, NOW - 5 * MINUTE - timedelta(seconds=1), "rev.stale"),
        (NOW - DAY, NOW - 10 * MINUTE, "rev.stale"),
    ],
)
def test_t22_times(this_update: datetime, next_update: datetime, code: str) -> None:
    """CRL-22, PRE-5, T-22: thisUpdate and nextUpdate with a skew of 5 minutes, both ends included."""
    assert ask(crl(CA, this_update=utc(this_update), next_update=utc(next_update))).reason == code


def test_skew_is_a_setting() -> None:
    """CRL-22: a skew of none leaves none."""
    der = crl(CA, this_update=utc(NOW - DAY), next_update=utc(NOW - timedelta(seconds=1)))
    assert ask(der, skew=timedelta(0)).reason == "rev.stale"


@pytest.mark.parametrize(("this_update", "next_update"), [(NOW - 9 * DAY, NOW - 2 * DAY), (NOW + DAY, NOW + 2 * DAY)])
def test_a_revocation_does_not_go_stale(this_update: datetime, next_update: datetime) -> None:
    """CRL-27: an authentic CRL that lists the certificate counts although it is out of date, or dated in the future."""
    dates = {"this_update": utc(this_update), "next_update": utc(next_update)}
    assert ask(crl(CA, [entry(ALICE)], **dates)).status is Status.REVOKED
    assert ask(crl(CA, [entry(ALICE)], **dates), crl(CA)).status is Status.REVOKED


def test_t22_missing_next_update() -> None:
    """CRL-23, T-22: believed for 24 hours from the fetch, with a remark for the log."""
    der = crl(CA, next_update=b"", this_update=utc(NOW - 100 * DAY))
    verdict = ask(der, fetched_at=NOW - 23 * HOUR)
    assert (verdict.status, verdict.usable_until) == (Status.GOOD, NOW + HOUR)
    assert "has no nextUpdate" in verdict.detail
    assert ask(der, fetched_at=NOW - 25 * HOUR).reason == "rev.stale"
    longer = timedelta(hours=48)
    assert ask(der, fetched_at=NOW - 25 * HOUR, max_age_without_next_update=longer).status is Status.GOOD


@pytest.mark.parametrize(
    ("about", "age", "code"),
    [(ALICE, 34, "rev.crl"), (ALICE, 36, "rev.stale"), (SUB, 36, "rev.crl"), (SUB, 401, "rev.stale")],
)
def test_t22_upper_bound_on_trust(about: Leaf, age: int, code: str) -> None:
    """CRL-24, T-22: 35 days for end entities, 400 days for CAs, even if nextUpdate is the year 9999."""
    forever = generalized(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    verdict = ask(crl(CA, this_update=utc(NOW - age * DAY), next_update=forever), about=about)
    assert verdict.reason == code
    assert ("until 9999-12-31" in verdict.detail) == (code == "rev.crl")


def test_usable_until_is_the_sooner_end() -> None:
    """CACHE-1: nextUpdate, or thisUpdate and the longest age."""
    assert ask(crl(CA)).usable_until == NOW + 7 * DAY
    late = crl(CA, next_update=utc(NOW + 300 * DAY))
    assert ask(late).usable_until == NOW - HOUR + 35 * DAY


def test_only_ldap_points_are_unsupported() -> None:
    """CRL-12, CRL-28: a certificate whose points have no http URL isn't the same as one that declares nothing."""
    ldap = holder(seq(node(0xA0, full_name(uri("ldap://directory.example.test/cn=ca")))))
    verdict = ask(about=ldap, urls=())
    assert (verdict.reason, verdict.status) == ("rev.unsupported", Status.UNKNOWN)
    skipped = judge(question_for(ldap.certificate, CA.certificate), (), RevocationSettings(), NOW)
    assert skipped.reason == "rev.unsupported"
    assert "ldap://directory.example.test/cn=ca" in skipped.detail
    assert ask(about=CA.issue("none@example.test", slot="n"), urls=()).reason == "rev.none-declared"


def test_ocsp_url_is_no_crl_url() -> None:
    """CRL-2: a stranger's CRL served at the OCSP URL isn't served where a CRL is declared."""
    assert not ask(crl(OTHER), url=OCSP_URL).suspicious
