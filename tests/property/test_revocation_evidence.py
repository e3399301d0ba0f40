"""What more or less evidence does to a verdict, for CRLs of every kind, deltas, indirect CRLs, OCSP answers and memories.

"Taking evidence away never makes a certificate good" can't be said without care: who takes away the one CRL that lists it
may have an older one left that doesn't, and a base without its delta is what it was before. This is what holds instead:

- a final revocation, once in the evidence, is there whatever else comes along;
- evidence that doesn't object can come and go: only what lists somebody, or is newer than other evidence of its scope, can
  turn GOOD into something else, and so only its absence can bring GOOD back;
- where one CA spoke at one moment, and deltas are required, no part of what it said makes a certificate GOOD that isn't;
- GOOD needs at least one current, authentic word that clears the certificate.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from cryptography import x509
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question, RevokedBefore
from postseal.core.judgement import JudgementSettings
from postseal.core.path import Anchor, Path, PathSettings, build_path
from postseal.core.revocation import Order, RevocationSettings, Status, UseDeltas, Verdict
from support.evidence import (
    CRITICAL_UNKNOWN,
    CRL_URL,
    OCSP_URL,
    Answer,
    Extension,
    Ocsp,
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
from support.judging import judge_question
from support.pki import DAY, HOUR, NOW, Authority, authority, name, usage

ROOT = authority("Root", kind="p256")
CA = ROOT.sub("Issuing CA", kind="p256")
_SIGNER = ROOT.issue(None, kind="p256", common_name="CRL issuer", slot="signer", eku=None, key_usage=usage("crl_sign"))
SIGNER = Authority(_SIGNER.certificate, _SIGNER.key, name("CRL issuer"))
DELTA_URL = "http://crl.example.test/delta.crl"
POINTS = seq(
    seq(node(0xA0, full_name(uri(CRL_URL)))),
    seq(node(0xA0, full_name(uri(CRL_URL))), node(0xA2, node(0xA4, name_of(SIGNER)))),
)
ALICE = CA.issue("alice@example.test", kind="p256", extra=[])
QUESTION = Question(ALICE.certificate, CA.certificate, (CRL_URL,), (OCSP_URL,), delta_urls=(DELTA_URL,))
SOME, REST = b"\x06\x40", b"\x07\x3f\x80"
SCOPES: dict[str, tuple[Extension, ...]] = {
    "all": (),
    "users": (scope(user=True),),
    "some": (scope(reasons=SOME),),
    "rest": (scope(reasons=REST),),
    "elsewhere": (scope(full_name(uri("http://crl.example.test/part2.crl"))),),
    "strange": (CRITICAL_UNKNOWN,),
}
LISTED = {"no": None, "hold": 6, "final": 1, "removed": 8}


@dataclass(frozen=True)
class Crls:
    """A CRL of the CA, or with ``base`` a delta, as one line of a history: the number is also its hour."""

    number: int
    scope: str = "all"
    listed: str = "no"
    base: int | None = None
    ended: bool = False
    forged: bool = False


@dataclass(frozen=True)
class Indirect:
    """A CRL of the appointed signer, and what the root says of the signer."""

    listed: str = "no"


@dataclass(frozen=True)
class Root:
    revoked: bool = False


@dataclass(frozen=True)
class Reply:
    status: str = "good"
    ended: bool = False


@dataclass(frozen=True)
class Silence:
    why: str = "rev.unreachable"


@dataclass(frozen=True)
class Memory:
    pass


Item = Crls | Indirect | Root | Reply | Silence | Memory


def _entries(listed: str, *more: Extension) -> list[bytes]:
    code = LISTED[listed]
    return [entry(ALICE, reason(code), *more)] if code is not None else []


@cache
def made(item: Item) -> Evidence:
    if isinstance(item, Crls):
        made_at = NOW - 20 * HOUR + item.number * HOUR
        extensions = (
            number(item.number),
            *((delta_of(item.base),) if item.base is not None else ()),
            *SCOPES[item.scope],
        )
        end = NOW - HOUR if item.ended else NOW + 3 * DAY
        der = crl(
            CA,
            _entries(item.listed),
            extensions=extensions,
            this_update=utc(made_at),
            next_update=utc(end),
            spoil=item.forged,
        )
        return CrlEvidence(parse_crl(der), CRL_URL if item.base is None else DELTA_URL, NOW)
    if isinstance(item, Indirect):
        mine = certificate_issuer(name_of(CA))
        der = crl(SIGNER, _entries(item.listed, mine), extensions=[number(1), scope(indirect=True)])
        return CrlEvidence(parse_crl(der), CRL_URL, NOW, (SIGNER.certificate,))
    if isinstance(item, Root):
        return CrlEvidence(parse_crl(crl(ROOT, [entry(SIGNER, reason(1))] if item.revoked else [])), "file:root", NOW)
    if isinstance(item, Reply):
        end = NOW - HOUR if item.ended else NOW + DAY
        answer = Answer(ALICE, CA, item.status, reason=1 if item.status == "revoked" else None, next_update=end,
                        this_update=NOW - 2 * HOUR)  # fmt: skip
        return OcspEvidence(Ocsp([answer], CA, produced_at=NOW - 2 * HOUR).der(), OCSP_URL, NOW)
    if isinstance(item, Silence):
        return NoAnswer(CRL_URL, item.why, "no answer", NOW)
    return RevokedBefore("http://gone.test/", NOW - DAY, NOW - 2 * DAY, "keyCompromise", NOW - 2 * DAY)


def appointed() -> tuple[Question, Path]:
    """Alice's certificate with both kinds of points; the path that it has."""
    extra = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), POINTS), False)]
    found = CA.issue("alice@example.test", kind="p256", serial=ALICE.certificate.serial, extra=extra)
    path = build_path(found.certificate, (Anchor(ROOT.certificate),), (CA.certificate,), PathSettings(), NOW)
    assert isinstance(path, Path)
    return Question(found.certificate, CA.certificate, (CRL_URL,), (OCSP_URL,), delta_urls=(DELTA_URL,)), path


ASKED, PATH = appointed()


def verdict(items: Sequence[Item], order: Order = Order.CRL_FIRST, use_deltas: UseDeltas = UseDeltas.YES) -> Verdict:
    evidence = [made(item) for item in items]
    both = JudgementSettings(PathSettings(), RevocationSettings(order=order, use_deltas=use_deltas))
    return judge_question(ASKED, PATH, (SIGNER.certificate,), lambda _: evidence, both, NOW)


# Few numbers and mostly one scope, so that one CRL often follows another.
crls = st.builds(
    Crls,
    number=st.integers(1, 4),
    scope=st.sampled_from((*SCOPES, *["users"] * 6)),
    listed=st.sampled_from(sorted(LISTED)),
    base=st.one_of(st.none(), st.integers(1, 3)),
    ended=st.sampled_from((False, False, False, True)),
    forged=st.sampled_from((*[False] * 7, True)),
)
items = st.one_of(
    crls,
    crls,
    st.builds(Indirect, st.sampled_from(("no", "no", "hold", "final"))),
    st.builds(Root, st.booleans()),
    st.builds(Reply, st.sampled_from(("good", "revoked", "unknown")), st.booleans()),
    st.builds(Silence, st.sampled_from(("rev.unreachable", "rev.bad-signature"))),
    st.sampled_from((Memory(),)),
)
histories = st.lists(items, max_size=6, unique=True)
orders, uses = st.sampled_from(list(Order)), st.sampled_from(list(UseDeltas))
QUICK = settings(max_examples=300, deadline=timedelta(seconds=5))


@QUICK
@given(histories, orders, uses, st.randoms(use_true_random=False))
def test_the_order_of_evidence_does_not_matter(
    history: list[Item], order: Order, use: UseDeltas, random: object
) -> None:
    """RPL-3: a store may hand out its evidence in any order."""
    shuffled = list(history)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = verdict(history, order, use), verdict(shuffled, order, use)
    assert (one.status, one.forbids, one.suspicious) == (other.status, other.forbids, other.suspicious)


def final(found: Verdict) -> bool:
    return found.status is Status.REVOKED and found.revocation_reason != "certificateHold"


@QUICK
@given(histories, histories, orders, uses)
@example([Crls(2, "users", "final")], [Crls(3, "users", "removed", base=1)], Order.CRL_FIRST, UseDeltas.YES)
@example([Crls(3, "users", "final", base=1)], [Crls(4, "users")], Order.CRL_FIRST, UseDeltas.YES)
def test_a_final_revocation_stays(less: list[Item], more: list[Item], order: Order, use: UseDeltas) -> None:
    """RPL-4, CRL-27: whatever comes to the evidence, nothing is sealed for a certificate that was revoked for good."""
    if final(verdict(less, order, use)):
        assert verdict([*less, *more], order, use).forbids


def objects(item: Item, history: Sequence[Item]) -> bool:
    """Can this item be the reason why a certificate isn't GOOD? It lists somebody, or puts other evidence out of date."""
    if isinstance(item, Memory) or (isinstance(item, Reply) and item.status == "revoked"):
        return True
    if isinstance(item, Indirect | Crls) and item.listed != "no":
        return True
    if isinstance(item, Root):
        return item.revoked
    if isinstance(item, Crls):
        peers = (i for i in history if isinstance(i, Crls) and i.scope == item.scope and i != item)
        return any(peer.number <= item.number for peer in peers)
    return False


@QUICK
@given(histories, orders, uses, st.data())
def test_what_does_not_object_takes_nothing_away(
    history: list[Item], order: Order, use: UseDeltas, data: st.DataObject
) -> None:
    """RPL-3, RPL-4: if a verdict isn't GOOD and becomes so by taking one piece of evidence away, that piece objected."""
    if not history or verdict(history, order, use).status is Status.GOOD:
        return
    gone = data.draw(st.sampled_from(history))
    left = [item for item in history if item != gone]
    if verdict(left, order, use).status is Status.GOOD:
        assert objects(gone, history)


def clears(item: Item) -> bool:
    """Is it a current, authentic word that the certificate isn't revoked?"""
    if isinstance(item, Crls):
        return not item.forged and item.scope not in ("elsewhere", "strange")
    return isinstance(item, Indirect) or item == Reply("good")


@QUICK
@given(histories, orders, uses)
def test_good_has_a_reason(history: list[Item], order: Order, use: UseDeltas) -> None:
    """CRL-6, CRL-17, PRE-7: no GOOD without an authentic word in scope; a delta, a signer or a part isn't enough."""
    if verdict(history, order, use).status is not Status.GOOD:
        return
    words = [item for item in history if clears(item)]
    complete = [i for i in words if isinstance(i, Crls) and i.base is None and i.scope in ("all", "users")]
    parts = {i.scope for i in words if isinstance(i, Crls) and i.base is None}
    signed = Root(revoked=False) in history and any(isinstance(i, Indirect) for i in words)
    assert complete or {"some", "rest"} <= parts or signed or Reply("good") in words


NOW_OR_BEFORE = {
    "good": ("no", "no"),
    "held": ("no", "hold"),
    "revoked": ("no", "final"),
    "lifted": ("hold", "removed"),
}


def said(truth: str) -> list[Item]:
    """All that an honest CA says at one moment; the base is older, and the delta brings it up to date."""
    before, now = NOW_OR_BEFORE[truth]
    status = "good" if truth in ("good", "lifted") else "revoked"
    today = "no" if status == "good" else now
    return [
        Crls(5, "users", before),
        Crls(7, "users", now, base=5),
        Crls(8, "some", today if truth == "revoked" else "no"),
        Crls(8, "rest", today if truth == "held" else "no"),
        Indirect(today),
        Root(),
        Reply(status),
        Silence(),
    ]


def test_no_part_of_the_truth_is_good_news_about_the_revoked() -> None:
    """CRL-9, CRL-17, CRL-18, PRE-7: with use_deltas = require, whatever is lost of what an honest CA said, a certificate that
    is revoked is never GOOD; one that is good is REVOKED only while a delta that lifts its hold is lost."""
    for truth in NOW_OR_BEFORE:
        whole = said(truth)
        for size in range(len(whole) + 1):
            for part in itertools.combinations(whole, size):
                found = verdict(part, use_deltas=UseDeltas.REQUIRE).status
                if truth in ("held", "revoked"):
                    assert found is not Status.GOOD, part
                elif truth == "good":
                    assert found is not Status.REVOKED, part
