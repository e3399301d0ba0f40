"""Delta CRLs over their bases: which one counts, and what both say together (RFC 5280 §5.2.4, §6.3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, NoAnswer, Question
from postseal.core.revocation import RevocationSettings, Status, UseDeltas, Verdict, judge, still_needed
from support.evidence import (
    CRITICAL_UNKNOWN,
    CRL_URL,
    Extension,
    authority_key,
    certificate_issuer,
    crl,
    delta_of,
    entry,
    full_name,
    name_of,
    node,
    number,
    reason,
    scope,
    seq,
    uri,
    utc,
)
from support.pki import DAY, HOUR, NOW, Leaf, authority, key

CA = authority("Issuing CA", kind="p256")
OTHER = authority("Other CA", kind="p256")
ALICE = CA.issue("alice@example.test", crl_urls=[CRL_URL])
BOB = CA.issue("bob@example.test", slot="bob", crl_urls=[CRL_URL])
DELTA_URL = "http://crl.example.test/delta.crl"
FRESHEST: Extension = ("2.5.29.46", False, seq(seq(node(0xA0, full_name(uri(DELTA_URL))))))
KEY_COMPROMISE, HOLD, REMOVE = reason(1), reason(6), reason(8)
QUESTION = Question(ALICE.certificate, CA.certificate, (CRL_URL,), ())
MINUTE = timedelta(minutes=1)
KEY_ID = CA.certificate.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def base(*entries: bytes, n: int = 5, **more: Any) -> bytes:
    extensions = (number(n), *more.pop("extensions", ()))
    return crl(CA, entries, extensions=extensions, this_update=utc(NOW - 2 * DAY), **more)


def delta(*entries: bytes, n: int = 6, of: int = 5, **more: Any) -> bytes:
    extensions = (number(n), delta_of(of), *more.pop("extensions", ()))
    return crl(CA, entries, extensions=extensions, **{"next_update": utc(NOW + DAY), **more})


def ask(*ders: bytes, question: Question = QUESTION, at: datetime = NOW, **settings: Any) -> Verdict:
    return judge(question, evidence(ders), RevocationSettings(**settings), at)


def evidence(ders: Sequence[bytes]) -> list[CrlEvidence]:
    parsed = [parse_crl(der) for der in ders]
    return [CrlEvidence(p, CRL_URL if p.delta_base is None else DELTA_URL, NOW) for p in parsed]


def listed(who: Leaf, *more: Extension) -> bytes:
    return entry(who, *more)


def test_a_delta_changes_what_its_base_says() -> None:
    """CRL-17: not listed in either is GOOD as of the delta, listed in the delta is revoked, a hold of the base is lifted."""
    quiet = ask(base(), delta())
    assert (quiet.status, quiet.this_update) == (Status.GOOD, NOW - HOUR)
    new = ask(base(), delta(listed(ALICE, KEY_COMPROMISE)))
    assert (new.status, new.source) == (Status.REVOKED, DELTA_URL)
    assert ask(base(listed(ALICE, HOLD))).status is Status.REVOKED
    assert ask(base(listed(ALICE, HOLD)), delta()).status is Status.REVOKED
    assert ask(base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE))).status is Status.GOOD
    assert ask(base(listed(ALICE, HOLD)), delta(listed(BOB, REMOVE))).status is Status.REVOKED


def test_a_delta_alone_is_never_good() -> None:
    """CRL-17, RPL-3: without its base it knows nothing of most certificates; what it lists is revoked all the same."""
    for der in (delta(), delta(listed(ALICE, REMOVE))):
        verdict = ask(der)
        assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.unsupported")
    assert ask(delta(listed(ALICE, KEY_COMPROMISE))).status is Status.REVOKED
    assert ask(delta(listed(ALICE, HOLD))).status is Status.REVOKED


NOT_OVER = [
    ("the base is newer than the delta", base(listed(ALICE, HOLD), n=7), delta(listed(ALICE, REMOVE), n=6, of=5)),
    ("the same number", base(listed(ALICE, HOLD), n=6), delta(listed(ALICE, REMOVE), n=6, of=5)),
    ("it builds on a newer base", base(listed(ALICE, HOLD), n=5), delta(listed(ALICE, REMOVE), n=100, of=99)),
    ("it is of another scope", base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE), extensions=[scope(user=True)])),
    ("the base is of another scope", base(listed(ALICE, HOLD), extensions=[scope(user=True)]), delta(listed(ALICE, REMOVE))),
    ("another key identifier", base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE), extensions=[authority_key(KEY_ID)])),
    ("the base has no number", crl(CA, [listed(ALICE, HOLD)], extensions=()), delta(listed(ALICE, REMOVE))),
    ("the delta has no number", base(listed(ALICE, HOLD)), crl(CA, [listed(ALICE, REMOVE)], extensions=[delta_of(5)])),
    ("another key signed it", base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE), key=key("p256", "stranger"))),
    ("it is out of date", base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE), next_update=utc(NOW - 10 * MINUTE))),
    ("it is from the future", base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE), this_update=utc(NOW + HOUR))),
    ("it isn't understood", base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE), extensions=[CRITICAL_UNKNOWN])),
]  # fmt: skip


@pytest.mark.parametrize(("base_der", "delta_der"), [n[1:] for n in NOT_OVER], ids=[n[0] for n in NOT_OVER])
def test_t07_a_delta_that_does_not_apply_lifts_nothing(base_der: bytes, delta_der: bytes) -> None:
    """CRL-17, T-7: BaseCRLNumber <= number of the base < number of the delta; same key, scope and key identifier; in time."""
    assert ask(base_der, delta_der).status is Status.REVOKED
    assert ask(delta_der, base_der).status is Status.REVOKED


def test_t07_old_delta_over_newer_base() -> None:
    """CRL-17, CRL-19, T-7: a recorded delta that once lifted a hold, served again after a later revocation."""
    replayed = delta(listed(ALICE, REMOVE), n=6, of=5)
    for code in (KEY_COMPROMISE, HOLD):
        assert ask(base(listed(ALICE, code), n=8), replayed).status is Status.REVOKED


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 9, 10])
def test_only_a_hold_is_lifted(code: int) -> None:
    """CRL-19: removeFromCRL ends certificateHold; over any other reason, or none, it is a mistake or a forgery."""
    entries = [listed(ALICE, reason(code))] if code else [listed(ALICE)]
    assert ask(base(*entries), delta(listed(ALICE, REMOVE))).status is Status.REVOKED
    assert ask(base(listed(BOB)), delta(listed(ALICE, REMOVE))).status is Status.GOOD


def test_the_latest_delta_counts() -> None:
    """CRL-17: of several deltas the one with the highest number, whatever the order in which they came."""
    lift, quiet = delta(listed(ALICE, REMOVE), n=6), delta(n=7, this_update=utc(NOW - MINUTE))
    held = base(listed(ALICE, HOLD))
    for ders in ((held, lift, quiet), (quiet, lift, held)):
        assert ask(*ders).status is Status.REVOKED
    again = delta(listed(ALICE, REMOVE), n=8, this_update=utc(NOW - MINUTE))
    for ders in ((held, lift, quiet, again), (again, quiet, lift, held)):
        assert ask(*ders).status is Status.GOOD


def test_an_outdated_delta_lifts_nothing() -> None:
    """CRL-25: there was a newer one, which may have taken that back; what it lists is revoked, and it is no current one."""
    held, lift = evidence([base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE))])
    quiet, adds = evidence([base(), delta(listed(ALICE, KEY_COMPROMISE))])
    required = RevocationSettings(use_deltas=UseDeltas.REQUIRE)
    asked = replace(QUESTION, delta_urls=(DELTA_URL,))
    assert judge(QUESTION, [held, replace(lift, outdated=True)], RevocationSettings(), NOW).status is Status.REVOKED
    assert judge(QUESTION, [quiet, replace(adds, outdated=True)], RevocationSettings(), NOW).status is Status.REVOKED
    assert judge(asked, [quiet, lift], required, NOW).status is Status.GOOD
    assert judge(asked, [quiet, replace(lift, outdated=True)], required, NOW).status is Status.UNKNOWN


def test_a_hold_that_began_in_a_delta() -> None:
    """CRL-20: it ends with a newer delta or a newer base of the same scope, not with an older one."""
    held = delta(listed(ALICE, HOLD), n=6, this_update=utc(NOW - 3 * HOUR))
    assert ask(base(), held).status is Status.REVOKED
    assert ask(base(), held, delta(n=7)).status is Status.GOOD
    assert ask(held, crl(CA, extensions=[number(8)])).status is Status.GOOD
    final = delta(listed(ALICE, KEY_COMPROMISE), n=6, this_update=utc(NOW - 3 * HOUR))
    assert ask(base(), final, delta(n=7)).status is Status.REVOKED


def test_a_delta_keeps_an_ended_base_current() -> None:
    """CRL-17, RFC 5280 §5.2.4: base and delta are as good as the complete CRL that could have been made with the delta."""
    ended = base(next_update=utc(NOW - HOUR))
    assert ask(ended).reason == "rev.stale"
    together = ask(ended, delta())
    assert (together.status, together.usable_until) == (Status.GOOD, NOW + DAY)
    assert ask(ended, delta(next_update=utc(NOW - 10 * MINUTE))).reason == "rev.stale"


def test_how_long_both_are_good() -> None:
    """CACHE-1: when the delta ends, the base alone still says the same; unless the delta lifted a hold, or is required."""
    end = NOW + 7 * DAY
    assert ask(base(), delta()).usable_until == end
    assert ask(base(), delta(), use_deltas=UseDeltas.REQUIRE).usable_until == NOW + DAY
    assert ask(base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE))).usable_until == NOW + DAY


def test_t28_an_unreachable_delta_does_not_spoil_the_base() -> None:
    """CRL-18, T-28: deltas are an option for relying parties; a base that announces one is believed without it."""
    lost = NoAnswer(DELTA_URL, "rev.unreachable", "connection refused", NOW)
    crls = evidence([base(extensions=[FRESHEST])])
    for more in ([], [lost], evidence([delta(next_update=utc(NOW - HOUR))])):
        verdict = judge(QUESTION, [*crls, *more], RevocationSettings(), NOW)
        assert (verdict.status, verdict.reason) == (Status.GOOD, "rev.crl")
        assert not still_needed(QUESTION, [*crls, *more], RevocationSettings(), NOW)


@pytest.mark.parametrize("announced", ["by the base", "by the certificate"])
def test_t28_a_required_delta(announced: str) -> None:
    """CRL-18, T-28: use_deltas = require doesn't believe a base that announces deltas without a current one."""
    question = QUESTION
    extensions: list[Extension] = [FRESHEST]
    if announced == "by the certificate":
        question, extensions = Question(ALICE.certificate, CA.certificate, (CRL_URL,), (), delta_urls=(DELTA_URL,)), []
    ders = [base(extensions=extensions)]
    required = {"use_deltas": UseDeltas.REQUIRE}
    verdict = ask(*ders, question=question, **required)
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.stale")
    assert "delta CRL is announced and required" in verdict.detail
    assert still_needed(question, evidence(ders), RevocationSettings(**required), NOW) is True  # type: ignore[arg-type]
    assert ask(*ders, delta(), question=question, **required).status is Status.GOOD
    assert ask(base(), **required).status is Status.GOOD


def test_deltas_that_are_not_used() -> None:
    """CRL-18: with use_deltas = no a delta lifts nothing and keeps nothing current; a revocation in it counts (RPL-4)."""
    off = {"use_deltas": UseDeltas.NO}
    assert ask(base(listed(ALICE, HOLD)), delta(listed(ALICE, REMOVE)), **off).status is Status.REVOKED
    assert ask(base(next_update=utc(NOW - HOUR)), delta(), **off).reason == "rev.stale"
    assert ask(base(), delta(listed(ALICE, KEY_COMPROMISE)), **off).status is Status.REVOKED


def test_a_delta_of_another_scope_does_not_revoke() -> None:
    """CRL-7, T-7: an entry on a delta that isn't meant for the certificate isn't about it."""
    part = scope(full_name(uri("http://crl.example.test/part2.crl")))
    assert ask(base(), delta(listed(ALICE, KEY_COMPROMISE), extensions=[part])).status is Status.GOOD


def test_deltas_of_indirect_crls() -> None:
    """CRL-15, CRL-17: number and issuer name the certificate in a delta too."""
    indirect = [scope(indirect=True)]
    other = entry(ALICE, certificate_issuer(name_of(OTHER)))
    assert ask(base(extensions=indirect), delta(other, extensions=indirect)).status is Status.GOOD
    assert ask(base(extensions=indirect), delta(listed(ALICE), other, extensions=indirect)).status is Status.REVOKED


def test_reasons_of_base_and_delta() -> None:
    """CRL-9, CRL-17: a delta over a CRL for some reasons leaves it a CRL for some reasons."""
    some = [scope(reasons=b"\x06\x40")]
    assert ask(base(extensions=some), delta(extensions=some)).reason == "rev.reasons-incomplete"
