"""What an OCSP response says about a certificate, and who may say it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, OcspEvidence, Question
from postseal.core.revocation import Responder as LocalResponder
from postseal.core.revocation import RevocationSettings, Status, Verdict, judge
from support.evidence import (
    CRITICAL_UNKNOWN,
    CRL_URL,
    OCSP_URL,
    Answer,
    Ocsp,
    crl,
    entry,
    name_of,
    node,
    number,
    octets,
    scope,
    seq,
    signed_again,
    utc,
)
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority, key, name, usage

CA = authority("Issuing CA", kind="p256")
OTHER = authority("Other CA", kind="p256")
ALICE = CA.issue("alice@example.test", kind="p256", ocsp_urls=[OCSP_URL])
MINUTE = timedelta(minutes=1)
OCSP_SIGNING, ANY = ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
NO_CHECK = (x509.OCSPNoCheck(), False)


def responder(ca: Authority = CA, **changes: Any) -> Leaf:
    """A delegated responder; ``changes`` are arguments of issue()."""
    arguments = {
        "kind": "p256", "slot": "responder", "common_name": "Responder", "eku": [OCSP_SIGNING],
        "key_usage": usage("digital_signature"), "extra": [NO_CHECK], "not_before": NOW - 10 * DAY,
        "not_after": NOW + 80 * DAY, **changes,
    }  # fmt: skip
    return ca.issue(None, **arguments)


def ask(
    *ders: bytes, about: Leaf = ALICE, issuer: Leaf = CA, at: datetime = NOW, url: str = OCSP_URL,
    crls: Sequence[bytes] = (), sent: bytes = b"", **settings: Any,
) -> Verdict:  # fmt: skip
    question = Question(about.certificate, issuer.certificate, (), (OCSP_URL,))
    evidence = [OcspEvidence(der, url, NOW, sent) for der in ders]
    lists = [CrlEvidence(parse_crl(der), CRL_URL, NOW) for der in crls]
    return judge(question, [*evidence, *lists], RevocationSettings(**settings), at)


def direct(**changes: Any) -> bytes:
    """An answer about Alice, signed by the CA itself."""
    return Ocsp([Answer(ALICE, CA, **changes)], CA).der()


def delegated(signer: Leaf, *certificates: Leaf, **changes: Any) -> bytes:
    """An answer about Alice, signed by ``signer`` whose certificate is included unless others are given."""
    return Ocsp([Answer(ALICE, CA)], signer, certificates=certificates or [signer], **changes).der()


def test_the_three_statuses() -> None:
    """RFC 6960 §2.2: good is GOOD; revoked is REVOKED with its facts; unknown is never GOOD."""
    good = ask(direct())
    assert (good.status, good.reason, good.source, good.detail) == (Status.GOOD, "rev.ocsp", OCSP_URL, "")
    assert (good.this_update, good.next_update, good.usable_until) == (NOW - HOUR, NOW + DAY, NOW + DAY)
    bad = ask(direct(status="revoked", reason=1))
    assert (bad.status, bad.reason, bad.revocation_reason) == (Status.REVOKED, "rev.revoked-ocsp", "keyCompromise")
    assert bad.detail == f"revoked 2026-05-31T12:00:00Z, reason keyCompromise, by the OCSP answer from {OCSP_URL}"
    unknown = ask(direct(status="unknown"))
    assert (unknown.status, unknown.reason) == (Status.UNKNOWN, "rev.ocsp-unknown")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hash": "sha1"}, "rev.ocsp"),
        ({"hash": "sha256"}, "rev.ocsp"),
        ({"hash": "md5"}, "rev.ocsp-mismatch"),
        ({"serial": 7}, "rev.ocsp-mismatch"),
        ({"issuer": OTHER}, "rev.ocsp-mismatch"),
        ({"issuer_key": b"another key of the same name"}, "rev.ocsp-mismatch"),
    ],
)
def test_the_answer_must_be_about_the_certificate(changes: dict[str, Any], code: str) -> None:
    """OCSP-2, T-10: hashes are computed anew with the answer's algorithm (SHA-1, SHA-256), the serial number is compared."""
    der = Ocsp([Answer(**{"about": ALICE, "issuer": CA, **changes})], CA).der()
    assert ask(der).reason == code


def test_all_single_responses_are_looked_at() -> None:
    """OCSP-2: ours may be the last one; SHA-1 and SHA-256 side by side are one answer."""
    others = [Answer(ALICE, CA, serial=n) for n in range(1, 9)]
    assert ask(Ocsp([*others, Answer(ALICE, CA)], CA).der()).status is Status.GOOD
    assert ask(Ocsp([*others, Answer(ALICE, CA, "revoked")], CA).der()).status is Status.REVOKED
    pair = [Answer(ALICE, CA, hash="sha1"), Answer(ALICE, CA)]
    assert ask(Ocsp(pair, CA).der()).status is Status.GOOD


def test_an_answer_about_another_certificate_from_elsewhere_is_nothing() -> None:
    """OCSP-2: only at the declared URL is it worth a word."""
    assert ask(direct(serial=7), url="file:other.ocsp").reason == "rev.no-evidence"


def test_several_answers_about_the_certificate() -> None:
    """OCSP-3, T-10: revoked wins wherever it stands; else the newest thisUpdate decides."""
    good, bad = Answer(ALICE, CA), Answer(ALICE, CA, "revoked", this_update=NOW - 2 * DAY)
    for answers in ([good, bad], [bad, good]):
        assert ask(Ocsp(answers, CA).der()).status is Status.REVOKED
    older = Answer(ALICE, CA, "unknown", this_update=NOW - 2 * HOUR)
    newer = Answer(ALICE, CA, "unknown", this_update=NOW - MINUTE)
    assert ask(Ocsp([good, older], CA).der()).status is Status.GOOD
    assert ask(Ocsp([newer, good], CA, produced_at=NOW).der()).reason == "rev.ocsp-unknown"


@pytest.mark.parametrize("code", [1, 2, 3, 5, 6, 9])
def test_error_statuses(code: int) -> None:
    """OCSP-4: errors aren't signed: UNKNOWN, never REVOKED, and a CRL still decides."""
    der = seq(node(0x0A, bytes((code,))))
    assert ask(der).reason == "rev.ocsp-error"
    assert not ask(der).suspicious
    assert ask(der, crls=[crl(CA)]).status is Status.GOOD
    assert ask(der, crls=[crl(CA, [entry(ALICE)])]).status is Status.REVOKED


@pytest.mark.parametrize(
    "der", [bytes.fromhex("30030a0100"), b"", b"<html></html>", direct()[:-3], b"\x30\x80\x00\x00"]
)
def test_malformed_answers(der: bytes) -> None:
    """OCSP-4, RPL-3: what can't be parsed is UNKNOWN, and a CRL still decides."""
    verdict = ask(der)
    assert (verdict.status, verdict.reason, verdict.source) == (Status.UNKNOWN, "rev.malformed", OCSP_URL)
    assert ask(der, crls=[crl(CA)]).status is Status.GOOD


def test_unknown_critical_extensions() -> None:
    """OCSP-5, T-20: of the response or of our SingleResponse; with revoked in it, GOOD from elsewhere is ruled out."""
    in_single = Ocsp([Answer(ALICE, CA, extensions=[CRITICAL_UNKNOWN])], CA).der()
    in_response = Ocsp([Answer(ALICE, CA)], CA, extensions=[CRITICAL_UNKNOWN]).der()
    for der in (in_single, in_response):
        assert ask(der).reason == "rev.unsupported"
        assert ask(der, crls=[crl(CA)]).status is Status.GOOD
    bad = Ocsp([Answer(ALICE, CA, "revoked", extensions=[CRITICAL_UNKNOWN])], CA).der()
    assert ask(bad, crls=[crl(CA)]).reason == "rev.listed-unsupported"
    elsewhere = Ocsp([Answer(ALICE, CA), Answer(ALICE, CA, serial=7, extensions=[CRITICAL_UNKNOWN])], CA).der()
    assert ask(elsewhere).status is Status.GOOD


@pytest.mark.parametrize(
    ("kind", "weak_keys", "code"),
    [("sha256", False, "rev.ocsp"), ("pss", False, "rev.ocsp"), ("sha1", False, "rev.weak-algorithm"),
     ("sha1", True, "rev.ocsp"), ("md5", True, "rev.weak-algorithm")],
)  # fmt: skip
def test_algorithm_floor(kind: str, weak_keys: bool, code: str) -> None:
    """OCSP-6: the same floor as for CRLs."""
    ca = authority("RSA CA")
    who = ca.issue("r@example.test")
    der = Ocsp([Answer(who, ca)], ca, kind=kind).der()
    assert ask(der, about=who, issuer=ca, weak_keys=weak_keys).reason == code


def test_unknown_algorithm() -> None:
    """OCSP-6: an algorithm that isn't known (here DSA) is unsupported, and no attack."""
    verdict = ask(Ocsp([Answer(ALICE, CA)], CA, kind="dsa").der())
    assert (verdict.reason, verdict.suspicious) == ("rev.unsupported", False)


def test_weak_keys_and_appointments() -> None:
    """OCSP-6: a CA key of 1024 bits and a responder certificate signed with SHA-1 count only with weak_keys."""
    weak = authority("Weak CA", kind="rsa1024")
    who = weak.issue("w@example.test", kind="p256")
    der = Ocsp([Answer(who, weak)], weak).der()
    assert ask(der, about=who, issuer=weak).reason == "rev.weak-algorithm"
    assert ask(der, about=who, issuer=weak, weak_keys=True).reason == "rev.ocsp"
    ca = authority("RSA CA")
    who, old = ca.issue("r@example.test"), signed_again(responder(ca), ca, "sha256", "sha1")
    der = Ocsp([Answer(who, ca)], old, certificates=[old]).der()
    refused = ask(der, about=who, issuer=ca)
    assert refused.reason == "rev.unauthorized-responder"
    assert "responder's certificate is signed with SHA-1" in refused.detail
    assert ask(der, about=who, issuer=ca, weak_keys=True).reason == "rev.ocsp"


@pytest.mark.parametrize("status", ["good", "revoked"])
def test_wrong_signature(status: str) -> None:
    """OCSP-6: neither good nor revoked counts without a signature that verifies."""
    for signer, certificates in ((CA, ()), (responder(), (responder(),))):
        der = Ocsp([Answer(ALICE, CA, status)], signer, certificates=certificates, spoil=True).der()
        verdict = ask(der)
        assert (verdict.status, verdict.reason, verdict.suspicious) == (Status.UNKNOWN, "rev.bad-signature", True)


@pytest.mark.parametrize("by_key", [False, True])
def test_signed_by_the_ca(by_key: bool) -> None:
    """OCSP-7 (b), OCSP-8: the CA's own key, named by subject or by key hash, without any certificate."""
    assert ask(Ocsp([Answer(ALICE, CA)], CA, by_key=by_key).der()).status is Status.GOOD


@pytest.mark.parametrize("by_key", [False, True])
def test_signed_by_a_delegate(by_key: bool) -> None:
    """OCSP-7 (c), OCSP-8: a responder certificate of the same CA with id-kp-OCSPSigning."""
    verdict = ask(delegated(responder(), by_key=by_key))
    assert (verdict.status, verdict.detail) == (Status.GOOD, "")
    revoked = Ocsp([Answer(ALICE, CA, "revoked")], responder(), certificates=[responder()], by_key=by_key).der()
    assert ask(revoked).status is Status.REVOKED


def same_name_other_key() -> Authority:
    """A CA with the name of ours and another key."""
    private = key("p256", "impostor")
    blank = Authority(CA.certificate, private, name("Issuing CA"))
    certificate = blank._sign(
        name("Issuing CA"), private.public_key(), [], not_before=NOW - DAY, not_after=NOW + 900 * DAY
    )
    return Authority(certificate, private, name("Issuing CA"))


SELF_SIGNED = authority("Self-made responder", kind="p256")
BAD_RESPONDERS = [
    ("no extended key usage", responder(eku=None), "id-kp-OCSPSigning"),
    ("other purpose", responder(eku=[ExtendedKeyUsageOID.EMAIL_PROTECTION]), "id-kp-OCSPSigning"),
    ("any purpose", responder(eku=[ANY]), "id-kp-OCSPSigning"),
    ("sibling CA", responder(OTHER), "from another CA"),
    ("sub CA", responder(CA.sub("Sub", kind="p256")), "from another CA"),
    ("same name, other key", responder(same_name_other_key()), "isn't signed with the key of the CA"),
    ("self-signed", SELF_SIGNED, "from another CA"),
    ("another anchor", OTHER, "from another CA"),
    ("the end entity itself", ALICE, "id-kp-OCSPSigning"),
    ("expired", responder(not_after=NOW - MINUTE), "has expired"),
    ("not yet valid", responder(not_before=NOW + HOUR), "isn't valid yet"),
    ("no signatures allowed", responder(key_usage=usage("key_encipherment")), "doesn't allow signatures"),
    ("weak key", responder(kind="rsa1024"), "RSA key of 1024 bits"),
    (
        "unknown critical extension",
        responder(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]),
        "unknown critical extension 1.2.3.4",
    ),
]


@pytest.mark.parametrize(("label", "signer", "words"), BAD_RESPONDERS, ids=[b[0] for b in BAD_RESPONDERS])
@pytest.mark.parametrize("status", ["good", "revoked"])
def test_responders_nobody_appointed(label: str, signer: Leaf, words: str, status: str) -> None:
    """OCSP-7, OCSP-11, T-9: whoever else signs is unauthorised and suspicious; the CRL decides instead."""
    der = Ocsp([Answer(ALICE, CA, status)], signer, certificates=[signer]).der()
    verdict = ask(der)
    assert (verdict.status, verdict.reason, verdict.suspicious) == (
        Status.UNKNOWN, "rev.unauthorized-responder", True,
    )  # fmt: skip
    assert words in verdict.detail
    assert ask(der, crls=[crl(CA)]).status is Status.GOOD
    assert ask(der, crls=[crl(CA, [entry(ALICE)])]).status is Status.REVOKED


def test_several_certificates_of_one_name() -> None:
    """OCSP-8: each is tried, but no more than four."""
    signer = responder()
    decoys = [responder(slot=f"decoy {n}") for n in range(4)]
    assert ask(delegated(signer, *decoys[:3], signer)).status is Status.GOOD
    assert ask(delegated(signer, *decoys, signer)).reason == "rev.bad-signature"


def test_delegate_without_its_certificate() -> None:
    """OCSP-9: a delegated responder must send its certificate; others in the bag don't help."""
    alone = Ocsp([Answer(ALICE, CA)], responder()).der()
    assert ask(alone).reason == "rev.unauthorized-responder"
    assert ask(delegated(responder(), CA, ALICE)).reason == "rev.unauthorized-responder"
    assert ask(delegated(responder(), ALICE, CA, responder())).status is Status.GOOD


def test_garbage_among_the_certificates() -> None:
    """OCSP-9: a certificate that can't be read is passed over."""

    class Garbage:
        certificate = type("C", (), {"der": seq(b"\x05\x00")})

    assert ask(delegated(responder(), Garbage, responder())).status is Status.GOOD  # type: ignore[arg-type]


def test_responder_without_nocheck() -> None:
    """OCSP-10: accepted with a remark; not at all when a CRL of the CA lists the responder."""
    plain = responder(extra=[])
    verdict = ask(delegated(plain))
    assert (verdict.status, verdict.reason) == (Status.GOOD, "rev.ocsp")
    assert "lacks id-pkix-ocsp-nocheck" in verdict.detail
    listing = crl(CA, [entry(plain)])
    refused = ask(delegated(plain), crls=[listing], order="ocsp-only")
    assert (refused.status, refused.reason) == (Status.UNKNOWN, "rev.unauthorized-responder")
    assert f"revoked by the CRL from {CRL_URL}" in refused.detail
    revoked = Ocsp([Answer(ALICE, CA, "revoked")], plain, certificates=[plain]).der()
    assert ask(revoked, crls=[listing]).status is not Status.REVOKED
    forged = crl(CA, [entry(plain)], spoil=True)
    assert ask(delegated(plain), crls=[forged]).status is Status.GOOD


def test_responder_with_nocheck() -> None:
    """OCSP-10: id-pkix-ocsp-nocheck means that the CA vouches for the certificate's whole life."""
    trusted = responder()
    for public in (False, True):
        verdict = ask(delegated(trusted), crls=[crl(CA, [entry(trusted)])], order="ocsp-only", public=public)
        assert (verdict.status, verdict.detail) == (Status.GOOD, "")


@pytest.mark.parametrize(("days", "remarked"), [(90, False), (91, True)])
def test_long_life_with_nocheck_is_remarked(days: int, remarked: bool) -> None:
    """OCSP-10: what can't be revoked should be short-lived; more than 90 days are worth a warning."""
    verdict = ask(delegated(responder(not_before=NOW - DAY, not_after=NOW + (days - 1) * DAY)))
    assert verdict.status is Status.GOOD
    assert (f"lives {days} days" in verdict.detail) is remarked


def test_responder_without_nocheck_of_a_public_ca() -> None:
    """OCSP-10: under a public anchor the responder's certificate must be on no current CRL of the CA, provably."""
    plain = responder(extra=[])
    refused = ask(delegated(plain), public=True)
    assert (refused.status, refused.reason, refused.suspicious) == (Status.UNKNOWN, "rev.responder-unchecked", False)
    stale = crl(CA, next_update=utc(NOW - HOUR))
    assert ask(delegated(plain), crls=[stale], order="ocsp-only", public=True).reason == "rev.responder-unchecked"
    only_users = crl(CA, extensions=[number(1), scope(reasons=b"\x06\x40")])
    assert ask(delegated(plain), crls=[only_users], order="ocsp-only", public=True).reason == "rev.responder-unchecked"


def test_responder_without_nocheck_by_a_current_crl() -> None:
    """OCSP-10: a current CRL of the CA that doesn't list the responder does for nocheck, as long as it lasts."""
    plain = responder(extra=[])
    for public in (False, True):
        verdict = ask(
            Ocsp([Answer(ALICE, CA, next_update=NOW + 9 * DAY)], plain, certificates=[plain]).der(),
            crls=[crl(CA)], order="ocsp-only", public=public,
        )  # fmt: skip
        assert (verdict.status, verdict.detail, verdict.usable_until) == (Status.GOOD, "", NOW + 7 * DAY)


def appointed(who: Leaf, ca: Leaf = CA) -> tuple[LocalResponder, ...]:
    return (LocalResponder(ca.certificate.key_id, who.certificate),)


@pytest.mark.parametrize("by_key", [False, True])
def test_responder_by_local_configuration(by_key: bool) -> None:
    """OCSP-7 (a): a certificate that the administrator names for the CA, whoever issued it; it needn't come along."""
    stranger = responder(OTHER, eku=None, extra=[])
    good = Ocsp([Answer(ALICE, CA)], stranger, by_key=by_key).der()
    assert ask(good).reason == "rev.unauthorized-responder"
    verdict = ask(good, responders=appointed(stranger), public=True)
    assert (verdict.status, verdict.detail, verdict.usable_until) == (Status.GOOD, "", NOW + DAY)
    bad = Ocsp([Answer(ALICE, CA, "revoked")], stranger, by_key=by_key).der()
    assert ask(bad, responders=appointed(stranger)).status is Status.REVOKED


def test_limits_of_a_responder_by_local_configuration() -> None:
    """OCSP-7 (a), OCSP-6, OCSP-11: for its CA's key only, by its own key only, while it is valid, and not with a weak key."""
    stranger = responder(OTHER)
    good = Ocsp([Answer(ALICE, CA)], stranger).der()
    assert ask(good, responders=appointed(stranger, OTHER)).reason == "rev.unauthorized-responder"
    impostor = responder(OTHER, slot="another key")
    assert ask(good, responders=appointed(impostor)).reason == "rev.bad-signature"
    old = responder(OTHER, not_after=NOW - MINUTE)
    assert "has expired" in ask(Ocsp([Answer(ALICE, CA)], old).der(), responders=appointed(old)).detail
    weak = responder(OTHER, kind="rsa1024")
    assert ask(Ocsp([Answer(ALICE, CA)], weak).der(), responders=appointed(weak)).reason == "rev.weak-algorithm"
    # The CA itself and its delegates may answer beside it.
    assert ask(direct(), responders=appointed(stranger)).status is Status.GOOD
    assert ask(delegated(responder()), responders=appointed(stranger)).status is Status.GOOD


def test_an_answer_does_not_outlive_its_signer() -> None:
    """OCSP-11, CACHE-1: usable until the responder's certificate ends."""
    soon = responder(not_after=NOW + HOUR)
    assert ask(delegated(soon)).usable_until == NOW + HOUR
    assert ask(delegated(soon), at=NOW + 2 * HOUR).reason == "rev.unauthorized-responder"


@pytest.mark.parametrize(
    ("this_update", "next_update", "produced_at", "code"),
    [
        (NOW + 4 * MINUTE, NOW + DAY, NOW + 4 * MINUTE, "rev.ocsp"),
        (NOW + 6 * MINUTE, NOW + DAY, NOW, "rev.not-yet-valid"),
        (NOW - HOUR, NOW + DAY, NOW + 6 * MINUTE, "rev.not-yet-valid"),
        (NOW - HOUR, NOW - 4 * MINUTE, NOW - HOUR, "rev.ocsp"),
        (NOW - HOUR, NOW - 6 * MINUTE, NOW - HOUR, "rev.stale"),
        (NOW - HOUR, NOW + DAY, NOW - 2 * HOUR, "rev.malformed"),
        (NOW - HOUR, NOW - 2 * HOUR, NOW - HOUR, "rev.malformed"),
        (NOW - HOUR, None, NOW - HOUR, "rev.stale"),
        (NOW - 9 * DAY, NOW + DAY, NOW - MINUTE, "rev.ocsp"),
    ],
)
def test_times(this_update: datetime, next_update: datetime | None, produced_at: datetime, code: str) -> None:
    """OCSP-12, T-22: thisUpdate, nextUpdate and producedAt with the skew; an answer without nextUpdate isn't believed."""
    answer = Answer(ALICE, CA, this_update=this_update, next_update=next_update)
    assert ask(Ocsp([answer], CA, produced_at=produced_at).der()).reason == code


def test_the_clock_bounds_when_an_answer_was_signed() -> None:
    """OCSP-12, RFC 6960 §2.4: not the earlier moment that is asked about; thisUpdate is still bound by that."""
    late = Ocsp([Answer(ALICE, CA, this_update=NOW - HOUR, next_update=NOW + DAY)], CA, produced_at=NOW + HOUR).der()
    assert ask(late, clock=NOW + HOUR).reason == "rev.ocsp"
    assert ask(late, clock=NOW + 50 * MINUTE).reason == "rev.not-yet-valid"
    assert ask(late, clock=NOW - DAY).reason == "rev.not-yet-valid"
    news = Ocsp([Answer(ALICE, CA, this_update=NOW + HOUR, next_update=NOW + DAY)], CA, produced_at=NOW + HOUR).der()
    assert ask(news, clock=NOW + DAY).reason == "rev.not-yet-valid"


NONCE = b"n" * 32


def nonced(nonce: bytes | None, *, status: str = "good", **changes: Any) -> bytes:
    """An answer by the CA with this nonce in it."""
    found = [("1.3.6.1.5.5.7.48.1.2", False, octets(nonce))] if nonce is not None else []
    return Ocsp([Answer(ALICE, CA, status, **changes)], CA, extensions=found, produced_at=NOW).der()


@pytest.mark.parametrize(
    ("sent", "back", "mode", "code"),
    [
        (b"", None, "off", "rev.ocsp"),
        (b"", NONCE, "off", "rev.ocsp"),
        (b"", b"x" * 129, "off", "rev.ocsp"),
        (b"", NONCE, "require", "rev.ocsp"),
        (NONCE, NONCE, "on", "rev.ocsp"),
        (NONCE, None, "on", "rev.ocsp"),
        (NONCE, b"w" * 32, "on", "rev.wrong-nonce"),
        (NONCE, NONCE, "require", "rev.ocsp"),
        (NONCE, None, "require", "rev.no-nonce"),
        (NONCE, b"w" * 32, "require", "rev.wrong-nonce"),
        (NONCE, b"", "on", "rev.wrong-nonce"),
        (NONCE, b"n", "on", "rev.wrong-nonce"),
        (NONCE, b"n" * 128, "on", "rev.wrong-nonce"),
        (NONCE, b"n" * 129, "on", "rev.wrong-nonce"),
        (b"n", b"n", "on", "rev.ocsp"),
        (b"n" * 128, b"n" * 128, "require", "rev.ocsp"),
        (b"n" * 128, b"n" * 127, "require", "rev.wrong-nonce"),
    ],
)
def test_t29_nonces(sent: bytes, back: bytes | None, mode: str, code: str) -> None:
    """OCSP-13, RFC 9654 §2.1, T-29: right, wrong, absent; 1, 32, 128 and 129 octets; nothing sent, nothing compared."""
    verdict = ask(nonced(back), sent=sent, nonce=mode)
    assert verdict.reason == code
    assert verdict.suspicious is (code == "rev.wrong-nonce")


def test_t29_a_nonce_that_is_not_wrapped_is_understood() -> None:
    """OCSP-13: some responders leave out the inner OCTET STRING."""
    bare = Ocsp([Answer(ALICE, CA)], CA, extensions=[("1.3.6.1.5.5.7.48.1.2", False, NONCE)]).der()
    assert ask(bare, sent=NONCE, nonce="require").reason == "rev.ocsp"


def test_t29_revoked_counts_whatever_the_nonce() -> None:
    """OCSP-13, RPL-4: a revocation that somebody recorded is one."""
    for back in (None, b"w" * 32):
        assert ask(nonced(back, status="revoked"), sent=NONCE, nonce="require").status is Status.REVOKED


@pytest.mark.parametrize(
    ("sent", "back", "age", "code"),
    [
        (NONCE, NONCE, HOUR, "rev.ocsp"),
        (NONCE, NONCE, HOUR + timedelta(seconds=1), "rev.stale"),
        (NONCE, None, MINUTE, "rev.stale"),
        (b"", NONCE, MINUTE, "rev.stale"),
        (b"", None, MINUTE, "rev.stale"),
        (NONCE, b"w" * 32, MINUTE, "rev.wrong-nonce"),
    ],
)
def test_t22_answers_without_next_update(sent: bytes, back: bytes | None, age: timedelta, code: str) -> None:
    """OCSP-12, T-22: good for this one decision with our nonce in it and at most an hour old; else it may be of any age."""
    verdict = ask(nonced(back, next_update=None, this_update=NOW - age), sent=sent, nonce="on")
    assert verdict.reason == code
    assert verdict.usable_until == (NOW if code == "rev.ocsp" else None)


def test_stale_answers_keep_their_dates() -> None:
    """OCSP-12: the verdict on an answer that is out of date says of when it is."""
    verdict = ask(direct(this_update=NOW - 3 * DAY, next_update=NOW - DAY))
    assert (verdict.this_update, verdict.next_update) == (NOW - 3 * DAY, NOW - DAY)
    assert verdict.detail == f"OCSP answer from {OCSP_URL}: it is out of date since 2026-05-31T12:00:00Z"


def test_stale_revocation_counts() -> None:
    """RPL-4: an authentic "revoked" doesn't go out of date, with or without nextUpdate."""
    assert ask(direct(status="revoked", next_update=NOW - DAY, this_update=NOW - 2 * DAY)).status is Status.REVOKED
    assert ask(direct(status="revoked", next_update=None)).status is Status.REVOKED


def test_hold_by_ocsp() -> None:
    """CRL-20: a hold is lifted by a newer answer of the same responder's kind, not by an older one."""
    held = direct(status="revoked", reason=6)
    newer = Ocsp([Answer(ALICE, CA, this_update=NOW - MINUTE)], CA, produced_at=NOW).der()
    older = direct(this_update=NOW - 3 * HOUR)
    assert ask(held).revocation_reason == "certificateHold"
    assert ask(held, newer).status is Status.GOOD
    assert ask(held, older).status is Status.REVOKED
    assert ask(held, crls=[crl(CA)]).status is Status.REVOKED


def test_never_issued() -> None:
    """OCSP-18: revoked since 1970 with a hold means that the certificate was never issued: REVOKED, no parse error."""
    verdict = ask(direct(status="revoked", reason=6, revoked_at=datetime(1970, 1, 1, tzinfo=UTC)))
    assert (verdict.status, verdict.revoked_at) == (Status.REVOKED, datetime(1970, 1, 1, tzinfo=UTC))


def test_ignorable_extensions() -> None:
    """OCSP-13, OCSP-19: archive cutoff, CRL references and a nonce that we didn't send change nothing."""
    extras = [(f"1.3.6.1.5.5.7.48.1.{n}", True, b"\x05\x00") for n in (2, 3, 6, 7)]
    assert ask(Ocsp([Answer(ALICE, CA, extensions=extras)], CA, extensions=extras).der()).status is Status.GOOD


def test_responder_name_in_another_form() -> None:
    """OCSP-8, RFC 5280 §7.1: the responder's name may be written with another string type."""
    written = seq(node(0x31, seq(node(6, b"\x55\x04\x03"), node(0x13, b"issuing CA"))))
    assert name_of(CA) != written
    assert ask(Ocsp([Answer(ALICE, CA)], CA, responder=node(0xA1, written)).der()).status is Status.GOOD
