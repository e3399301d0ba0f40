"""The decision table: facts in, plan out (the RFCs leave this to local policy)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postseal.config import Config
from postseal.core.address import parse_mailbox
from postseal.core.assess import Assessed, Finding
from postseal.core.certs import load_certificate
from postseal.core.doubts import OnDoubt
from postseal.core.errors import BadData
from postseal.core.path import Anchor, AnchorSettings, Path
from postseal.core.plan import Action, deferred, outcomes, reply_for
from postseal.core.policies import Policies
from postseal.core.policy import (
    MessageFacts,
    Pattern,
    PolicySettings,
    Protection,
    RecipientFacts,
    Rule,
    decide,
    match_rule,
    rcpt_answer,
)
from postseal.core.suite import KeyFamily, RecipientId, Suite
from postseal.core.verdict import OnNoneDeclared, Verdict
from support.facts import (
    ALICE,
    ALICE_EC,
    ALICE_OLD,
    FORGED,
    GOOD,
    LISTED,
    MESSAGE,
    NONE_DECLARED,
    REVOKED,
    ROOT,
    SENDER,
    UNREACHABLE,
    assessed,
    recipient,
    rules,
    unfit,
    without_path,
)
from support.pki import NOW


def one(
    facts: RecipientFacts, rule: tuple[Rule, ...], message: MessageFacts = MESSAGE, **knobs: object
) -> tuple[str, str]:
    """Action and reason for a message to one recipient."""
    decision = decide(message, [facts], rule, NOW, PolicySettings(**knobs)).decisions[0]  # type: ignore[arg-type]
    return decision.action.value, decision.reason


SOFT, STRICT, MUST = rules(), rules(revocation="strict"), rules(seal="must")
MUST_STRICT = rules(seal="must", revocation="strict")
CLEAR = ("clear", "ok.clear-no-certificate")
SEALED = ("sealed", "ok.sealed")
WAITS = ("deferred", "rcpt.revocation-unknown")
SUSPICIOUS = ("deferred", "rcpt.revocation-suspicious")
UNUSABLE = ("refused", "rcpt.no-usable-certificate")
REFUSED = ("refused", "rcpt.revocation-refused")


@pytest.mark.parametrize(
    ("candidate", "soft", "strict", "must", "must_strict"),
    [
        (assessed(GOOD), SEALED, SEALED, SEALED, SEALED),
        (assessed(REVOKED), CLEAR, CLEAR, UNUSABLE, UNUSABLE),
        (assessed(GOOD, REVOKED), CLEAR, CLEAR, UNUSABLE, UNUSABLE),
        (assessed(LISTED), CLEAR, CLEAR, UNUSABLE, UNUSABLE),
        (assessed(UNREACHABLE), SEALED, WAITS, SEALED, WAITS),
        (assessed(GOOD, UNREACHABLE), SEALED, WAITS, SEALED, WAITS),
        (assessed(FORGED), SEALED, SUSPICIOUS, SEALED, SUSPICIOUS),
        (assessed(NONE_DECLARED), SEALED, REFUSED, SEALED, REFUSED),
        (assessed(UNREACHABLE, REVOKED), CLEAR, CLEAR, UNUSABLE, UNUSABLE),
        (without_path(), CLEAR, CLEAR, UNUSABLE, UNUSABLE),
        (unfit(), CLEAR, CLEAR, UNUSABLE, UNUSABLE),
    ],
)  # fmt: skip
def test_the_table_of_verdicts(
    candidate: Assessed,
    soft: tuple[str, str],
    strict: tuple[str, str],
    must: tuple[str, str],
    must_strict: tuple[str, str],
) -> None:
    """Revoked is never sealed, unknown is sealed when soft and waits when strict, and must never goes in clear."""
    facts = recipient(candidate)
    assert [one(facts, r) for r in (SOFT, STRICT, MUST, MUST_STRICT)] == [soft, strict, must, must_strict]


def test_without_any_certificate_the_rule_decides() -> None:
    facts = recipient()
    assert one(facts, SOFT) == CLEAR
    assert one(facts, MUST) == ("refused", "rcpt.no-certificate")
    for value, outcome in [("refuse", ("refused", "rcpt.no-certificate")), ("defer", ("deferred", "rcpt.no-certificate")),
                           ("hold", ("held", "rcpt.held"))]:  # fmt: skip
        assert one(facts, rules(without_certificate=value)) == outcome
        assert one(facts, rules(seal="must", without_certificate=value)) == outcome


def test_must_with_clear_refuses_even_if_such_a_rule_could_be_made() -> None:
    """The configuration refuses the contradiction; policy doesn't rely on that."""
    broken = (replace(MUST[0], without_certificate=SOFT[0].without_certificate),)
    assert one(recipient(), broken) == ("refused", "rcpt.no-certificate")


def test_never_looks_at_nothing() -> None:
    """Not even a revoked certificate, a broken directory or a bad address matter to seal = never."""
    never = rules(seal="never")
    bad = RecipientFacts("<@>", None, False)
    for facts in (recipient(assessed(REVOKED)), recipient(assessed(GOOD)), recipient(directory_error="gone"), bad):
        assert one(facts, never) == ("clear", "ok.clear-rule")


def test_internal_and_encrypted_mail_passes() -> None:
    assert one(recipient(assessed(GOOD), internal=True), MUST) == ("clear", "ok.internal")
    encrypted = MessageFacts(SENDER, Protection.ENCRYPTED)
    assert one(recipient(), MUST, encrypted) == ("clear", "ok.already-encrypted")
    claimed = MessageFacts(SENDER, Protection.CLAIMED_ONLY)
    assert one(recipient(), MUST, claimed) == ("refused", "rcpt.no-certificate"), "a claim alone is no protection"


def test_a_message_that_cannot_be_sealed_is_refused_only_when_there_is_something_to_seal() -> None:
    faulty = MessageFacts(SENDER, Protection.NONE, "mail.bare-cr", "line 3")
    assert one(recipient(assessed(GOOD)), SOFT, faulty) == ("refused", "mail.bare-cr")
    assert one(recipient(), SOFT, faulty) == CLEAR
    assert one(recipient(assessed(UNREACHABLE)), STRICT, faulty) == WAITS
    plan = decide(faulty, [recipient(assessed(GOOD))], SOFT, NOW)
    assert plan.deliveries == ()
    assert plan.decisions[0].cleared == ()


def test_bad_address_and_unreadable_directory() -> None:
    assert one(RecipientFacts("<a b@@>", None, False), SOFT) == ("refused", "rcpt.bad-address")
    assert one(recipient(directory_error="disk error"), SOFT) == ("deferred", "sys.directory-unavailable")


def test_a_good_certificate_is_preferred_to_others_of_the_same_origin() -> None:
    other = assessed(UNREACHABLE, certificate=ALICE)
    good = assessed(GOOD, certificate=ALICE_OLD)
    for order in ((other, good), (good, other), (assessed(REVOKED), good), (good, without_path())):
        decision = decide(MESSAGE, [recipient(*order)], STRICT, NOW).decisions[0]
        assert (decision.action, decision.cleared[0].certificate) == (Action.SEAL, ALICE_OLD)


def test_suspicious_evidence_warns_as_error_or_defers_by_its_own_knob() -> None:
    decision = decide(MESSAGE, [recipient(assessed(FORGED))], SOFT, NOW).decisions[0]
    assert [(w.code, w.error) for w in decision.warnings] == [("rev.bad-signature", True)]
    knob = {"on_suspicious": OnDoubt.DEFER}
    assert one(recipient(assessed(FORGED)), SOFT, **knob) == ("deferred", "rcpt.revocation-suspicious")
    assert one(recipient(assessed(UNREACHABLE)), SOFT, **knob) == SEALED
    assert one(recipient(assessed(FORGED), assessed(GOOD, certificate=ALICE_OLD)), SOFT, **knob) == SEALED


def test_certificates_that_declare_no_source_have_their_own_knob() -> None:
    facts = recipient(assessed(NONE_DECLARED))

    def warnings(knob: OnNoneDeclared) -> list[str]:
        plan = decide(MESSAGE, [facts], SOFT, NOW, PolicySettings(on_none_declared=knob))
        return [w.code for w in plan.decisions[0].warnings]

    assert warnings(OnNoneDeclared.ACCEPT) == []
    assert warnings(OnNoneDeclared.WARN) == ["rev.none-declared"]
    for rule in (SOFT, MUST):
        assert one(facts, rule, on_none_declared=OnNoneDeclared.REFUSE) == REFUSED, "doubt is no way to clear text"


def below(settings: AnchorSettings = AnchorSettings(), policies: Policies = Policies(), *verdicts: Verdict) -> Assessed:  # noqa: B008
    """A certificate below an anchor with settings of its own, valid under these policies."""
    made = assessed(*verdicts or (GOOD,))
    assert isinstance(made.path, Path)
    path = Path(made.path.certificates, Anchor(ROOT.certificate, "", settings), policies)
    return replace(made, path=path)


def test_an_anchor_knows_better_what_no_source_means() -> None:
    """The setting of the anchor takes the place of the general one."""
    refusing = AnchorSettings(on_none_declared=OnNoneDeclared.REFUSE)
    accepting = AnchorSettings(on_none_declared=OnNoneDeclared.ACCEPT)
    assert one(recipient(below(refusing, Policies(), NONE_DECLARED)), MUST) == REFUSED
    facts = recipient(below(accepting, Policies(), NONE_DECLARED))
    assert one(facts, MUST, on_none_declared=OnNoneDeclared.REFUSE) == SEALED


def test_a_rule_may_require_a_policy() -> None:
    """CERT-17: one of them is enough, and anyPolicy of all CAs is every policy."""
    strict = rules(seal="must", certificate_policies=["1.2.3", "1.2.4"])
    for held, expected in (({"1.2.3"}, SEALED), ({"2.5.29.32.0"}, SEALED), ({"1.2.5"}, UNUSABLE), (set(), UNUSABLE)):
        facts = recipient(below(AnchorSettings(), Policies(frozenset(held), frozenset(held))))
        assert one(facts, strict) == expected
        assert one(facts, MUST) == SEALED
    decision = decide(MESSAGE, [facts], strict, NOW).decisions[0]
    assert "it isn't valid under a policy that the rule requires: 1.2.3, 1.2.4" in decision.detail


def test_warnings_say_certificate_cause_and_what_was_done() -> None:
    warning = decide(MESSAGE, [recipient(assessed(UNREACHABLE))], SOFT, NOW).decisions[0].warnings[0]
    assert warning.detail == (
        "revocation status unknown: Could not retrieve URL http://ca.example/x.crl: connection refused; "
        f"certificate sha256:{ALICE.fingerprint[:16]}; sealed anyway (revocation=soft)"
    )
    warning = decide(MESSAGE, [recipient(assessed(REVOKED))], SOFT, NOW).decisions[0].warnings[0]
    assert warning.detail == (
        f"certificate sha256:{ALICE.fingerprint[:16]} was revoked on 2026-06-01 (keyCompromise), says "
        "http://ca.example/x.crl; not used, sent in clear (without_certificate=clear)"
    )
    assert warning.code == "rev.revoked-crl"


def test_findings_that_are_not_fatal_are_warnings() -> None:
    remark = assessed(GOOD, findings=(Finding("cert.no-key-usage", "it has no key usage", False),))
    decision = decide(MESSAGE, [recipient(remark)], SOFT, NOW).decisions[0]
    assert decision.action is Action.SEAL
    assert [w.code for w in decision.warnings] == ["cert.no-key-usage"]


def test_a_remark_on_good_evidence_is_a_warning() -> None:
    """Good, but an administrator should know: a responder without nocheck, a CRL that doesn't say when it ends."""
    remark = replace(GOOD, detail="the CRL has no nextUpdate")
    decision = decide(MESSAGE, [recipient(assessed(remark))], STRICT, NOW).decisions[0]
    assert decision.action is Action.SEAL
    assert [(w.code, w.error) for w in decision.warnings] == [("rev.crl", False)]
    assert decision.warnings[0].detail.endswith(": the CRL has no nextUpdate")


def test_the_number_of_verdicts_must_be_that_of_the_certificates() -> None:
    """A verdict too few would mean that a certificate was never asked about (PRE-3)."""
    short = replace(assessed(GOOD), verdicts=(GOOD,))
    assert one(recipient(short), SOFT) == ("deferred", "sys.internal-error")
    assert one(recipient(replace(assessed(GOOD), verdicts=())), SOFT) == ("deferred", "sys.internal-error")


def test_copies_are_grouped_by_cipher_and_key_family() -> None:
    """RSA and EC recipients never share a message, clear recipients come last (P16)."""
    rule = Config.default(policy=[{"name": "gcm", "recipients": ["gcm.example"], "cipher": "aes256-gcm"}]).rules
    people = [
        recipient(address="clear@x.example"),
        recipient(assessed(GOOD, certificate=ALICE_EC), address="ec@x.example"),
        recipient(assessed(GOOD), address="rsa@x.example"),
        recipient(assessed(GOOD), address="rsa@gcm.example"),
        recipient(assessed(GOOD, certificate=ALICE_OLD), address="rsa2@x.example"),
        recipient(internal=True, address="in@corp.example"),
    ]
    plan = decide(MESSAGE, people, rule, NOW)
    assert [(d.recipients, d.suite, d.family) for d in plan.deliveries] == [
        (("<rsa@x.example>", "<rsa2@x.example>"), Suite.AES_256_CBC, KeyFamily.RSA),
        (("<ec@x.example>",), Suite.AES_256_CBC, KeyFamily.EC),
        (("<rsa@gcm.example>",), Suite.AES_256_GCM, KeyFamily.RSA),
        (("<clear@x.example>", "<in@corp.example>"), None, None),
    ]
    assert [c.certificate for c in plan.deliveries[0].cleared] == [ALICE, ALICE_OLD]
    assert plan.worst is Action.SEAL


def test_families_are_joined_on_demand() -> None:
    """P16: one copy per cipher for those who know that everybody's mail program is new."""
    people = [
        recipient(assessed(GOOD, certificate=ALICE_EC), address="ec@x.example"),
        recipient(assessed(GOOD), address="rsa@x.example"),
    ]
    plan = decide(MESSAGE, people, SOFT, NOW, PolicySettings(join_families=True))
    assert [(d.recipients, d.suite, d.family) for d in plan.deliveries] == [
        (("<ec@x.example>", "<rsa@x.example>"), Suite.AES_256_CBC, None)
    ]
    assert [c.certificate for c in plan.deliveries[0].cleared] == [ALICE_EC, ALICE]
    assert len(decide(MESSAGE, people, SOFT, NOW).deliveries) == 2


def test_certificates_are_named_by_key_identifier_on_demand() -> None:
    """RFC 5652 §6.2.1: one that has none is named by its issuer, in a copy of its own, as gpgsm 2.2 reads no mix."""
    # The OID of another extension, which nobody knows, stands in its place.
    bare = load_certificate(ALICE.der.replace(bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d7e")))
    people = [
        recipient(assessed(GOOD), address="a@x.example"),
        recipient(assessed(GOOD, certificate=bare), address="b@x.example"),
    ]
    plan = decide(MESSAGE, people, SOFT, NOW, PolicySettings(recipient_id=RecipientId.KEY_ID))
    assert [(d.recipients, [c.wrap.by_key_id for c in d.cleared]) for d in plan.deliveries] == [
        (("<a@x.example>",), [True]), (("<b@x.example>",), [False])
    ]  # fmt: skip
    assert not any(c.wrap.by_key_id for d in decide(MESSAGE, people, SOFT, NOW).deliveries for c in d.cleared)


def test_a_key_identifier_that_two_keys_bear_names_neither() -> None:
    """RFC 5652 §6.2.1: whom it names must be able to find his part; the same key in two certificates is no trouble."""
    own = bytes.fromhex("0603551d0e0416")
    other = ROOT.issue("alice@example.test", slot="twin").certificate
    theirs, ours = (c.der[c.der.index(own) + len(own) :][:22] for c in (other, ALICE))
    twin = load_certificate(other.der.replace(theirs, ours))
    assert twin.spki != ALICE.spki
    people = [
        recipient(assessed(GOOD), address="a@x.example"),
        recipient(assessed(GOOD, certificate=twin), address="b@x.example"),
    ]
    by_key_id = PolicySettings(recipient_id=RecipientId.KEY_ID)
    (copy,) = decide(MESSAGE, people, SOFT, NOW, by_key_id).deliveries
    assert [(c.certificate, c.wrap.by_key_id) for c in copy.cleared] == [(ALICE, False), (twin, False)]
    (copy,) = decide(MESSAGE, people[:1], SOFT, NOW, by_key_id).deliveries
    assert [c.wrap.by_key_id for c in copy.cleared] == [True]
    renewed = load_certificate(ALICE.der[:-1] + bytes([ALICE.der[-1] ^ 1]))
    people[1] = recipient(assessed(GOOD, certificate=renewed), address="b@x.example")
    (copy,) = decide(MESSAGE, people, SOFT, NOW, by_key_id).deliveries
    assert [c.wrap.by_key_id for c in copy.cleared] == [True, True]


def test_one_bad_recipient_stops_all_copies() -> None:
    people = [recipient(assessed(GOOD)), recipient(address="b@must.example")]
    rule = Config.default(policy=[{"name": "m", "recipients": ["must.example"], "seal": "must"}]).rules
    plan = decide(MESSAGE, people, rule, NOW)
    assert plan.deliveries == ()
    assert plan.worst is Action.REFUSE
    assert [(d.action, d.reason) for d in outcomes(plan)] == [
        (Action.REFUSE, "rcpt.with-others"), (Action.REFUSE, "rcpt.no-certificate")]  # fmt: skip


def test_one_reply_names_each_recipient_worst_first() -> None:
    rule = Config.default(
        policy=[
            {"name": "d", "recipients": ["d.example"], "seal": "must", "without_certificate": "defer"},
            {"name": "h", "recipients": ["h.example"], "seal": "must", "without_certificate": "hold"},
            {"name": "m", "seal": "must"},
        ]
    ).rules
    late, held = recipient(address="a@d.example"), recipient(address="h@h.example")
    reply = reply_for(decide(MESSAGE, [late, held, recipient(address="b@m.example")], rule, NOW))
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    assert reply.text == (
        "<b@m.example>: no certificate for the recipient is known; <a@d.example>: no certificate for the recipient is known"
    )
    reply = reply_for(decide(MESSAGE, [late, held], rule, NOW))
    assert reply is not None
    assert (reply.code, reply.enhanced) == (451, "4.7.1"), "a deferral is never a 5xx, whatever the reason's own code"
    plan = decide(MESSAGE, [held, recipient(assessed(GOOD))], rule, NOW)
    assert plan.worst is Action.HOLD
    assert reply_for(plan) is None


def test_a_long_or_hostile_reply_stays_short_ascii_and_one_line() -> None:
    people = [RecipientFacts(f"<evil{n}\r\n250 ok \u202e\x1b@example.test>", None, False) for n in range(200)]
    reply = reply_for(decide(MESSAGE, people, MUST, NOW))
    assert reply is not None
    assert len(reply.text) <= 900
    assert reply.text.isascii()
    assert reply.text.isprintable()
    shown = len(reply.lines) - 1
    assert reply.lines[-1] == f"and {200 - shown} more"


def test_a_plan_that_defers_all() -> None:
    plan = deferred(["<a@b.example>", "<c@d.example>"], "sys.internal-error", "disk full")
    reply = reply_for(plan)
    assert reply is not None
    assert reply.code == 451
    assert "disk full" in reply.text
    assert plan.worst is Action.DEFER


def test_at_rcpt_only_what_is_certain_is_answered() -> None:
    answered = {
        "bad": RecipientFacts("<x@@y>", None, False), "none": recipient(), "revoked": recipient(assessed(REVOKED)),
        "directory": recipient(directory_error="gone"),
    }  # fmt: skip
    reasons = {k: rcpt_answer(f, MESSAGE, MUST_STRICT, NOW) for k, f in answered.items()}
    assert {k: d.reason if d else None for k, d in reasons.items()} == {
        "bad": "rcpt.bad-address", "none": "rcpt.no-certificate", "revoked": "rcpt.no-usable-certificate",
        "directory": "sys.directory-unavailable",
    }  # fmt: skip
    waits = [recipient(assessed(UNREACHABLE)), recipient(assessed(GOOD)), recipient(internal=True)]
    assert [rcpt_answer(f, MESSAGE, MUST_STRICT, NOW) for f in waits] == [None, None, None]
    knob = PolicySettings(on_suspicious=OnDoubt.DEFER)
    assert rcpt_answer(recipient(assessed(FORGED)), MESSAGE, MUST, NOW, knob) is None
    assert rcpt_answer(recipient(), MESSAGE, SOFT, NOW) is None
    assert rcpt_answer(recipient(), MESSAGE, rules(without_certificate="hold"), NOW) is None


def test_decide_never_raises() -> None:
    """No rules, and facts that break every promise: still a plan, and it defers."""
    for facts, rule in [(recipient(assessed(GOOD)), ()), (recipient("nonsense"), SOFT)]:  # type: ignore[arg-type]
        plan = decide(MESSAGE, [facts], rule, NOW)
        assert [(d.action, d.reason) for d in plan.decisions] == [(Action.DEFER, "sys.internal-error")]
        assert plan.deliveries == ()
    assert decide(MESSAGE, [], SOFT, NOW).worst is Action.CLEAR


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("any", "a@b.example", True), ("b.example", "a@B.Example", True), ("b.example", "a@c.b.example", False),
        (".b.example", "a@c.b.example", True), (".b.example", "a@b.example", False), (".b.example", "a@xb.example", False),
        ("A@b.example", "a@B.example", True), ("a@b.example", "a+x@b.example", False),
        ("a@bücher.example", "a@xn--bcher-kva.example", True), ("Ä@b.example", "ä@b.example", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, address: str, matches: bool) -> None:
    assert Pattern.parse(pattern).matches(parse_mailbox(address)) is matches


def test_only_any_matches_the_null_sender() -> None:
    assert Pattern.parse("any").matches(None)
    assert not Pattern.parse("b.example").matches(None)


@pytest.mark.parametrize("text", ["", "@", "a@", "*.example", "..example", ".", "any@", "a b@c.example", "exam ple"])
def test_wrong_patterns_are_refused(text: str) -> None:
    with pytest.raises(BadData):
        Pattern.parse(text)


def test_the_first_rule_that_matches_sender_and_recipient_decides() -> None:
    made = Config.default(
        policy=[
            {"name": "sales", "senders": ["sales.example"], "recipients": ["b.example"]},
            {"name": "partners", "recipients": [".b.example", "b.example"]},
        ]
    ).rules
    to = parse_mailbox("x@b.example")
    assert match_rule(made, parse_mailbox("a@sales.example"), to).name == "sales"
    assert match_rule(made, SENDER, to).name == "partners"
    assert match_rule(made, None, to).name == "partners"
    # An address that can't be read may be anybody's.
    assert match_rule(made, SENDER, None).name == "partners"
    with pytest.raises(LookupError):
        match_rule((), SENDER, to)
