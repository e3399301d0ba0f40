"""Policy: facts in, ``Plan`` out. Total and pure; clear text needs a rule that allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from postseal.core.address import Mailbox, domain_to_ascii, parse_mailbox
from postseal.core.assess import Assessed
from postseal.core.certs import Certificate
from postseal.core.choice import ranked
from postseal.core.ciphers import USUAL, Choice, CipherRule, Known, NoFit, Remembered, choose, known_of
from postseal.core.der import later
from postseal.core.doubts import (
    NO_KNOBS,
    NONE_DECLARED,
    Answer,
    Done,
    DoubtKnobs,
    DoubtSettings,
    Situation,
    may_defer,
    resolve,
)
from postseal.core.path import PathFault
from postseal.core.plan import Action, Decision, Plan, Warn, deferred, group
from postseal.core.profile import profile
from postseal.core.revocation import Doubt, Status, Verdict
from postseal.core.suite import PLAIN_WRAP, KeyTransport, RecipientId, Wrap


class Seal(StrEnum):
    NEVER = "never"
    MAY = "may"
    MUST = "must"


class WithoutCertificate(StrEnum):
    CLEAR = "clear"
    REFUSE = "refuse"
    DEFER = "defer"
    HOLD = "hold"


class Strictness(StrEnum):
    SOFT = "soft"
    STRICT = "strict"


class Protection(StrEnum):
    """What the message already is. CLAIMED_ONLY says that it is encrypted but doesn't parse: treated as plain."""

    NONE = "none"
    SIGNED = "signed"
    ENCRYPTED = "encrypted"
    CLAIMED_ONLY = "claimed-only"


@dataclass(frozen=True, slots=True)
class PolicySettings(DoubtSettings):
    """Knobs that apply to all rules: what an unknown status means, and how recipients are put together and named."""

    join_families: bool = False
    recipient_id: RecipientId = RecipientId.ISSUER

    def by_key_id(self, certificate: Certificate) -> bool:
        """RFC 5652 §6.2.1: only a certificate that has a subjectKeyIdentifier can be named by it; the others as usual."""
        return self.recipient_id is RecipientId.KEY_ID and bool(profile(certificate).subject_key_id)


_DEFAULTS = PolicySettings()


@dataclass(frozen=True, slots=True)
class Pattern:
    """``any``, ``user@domain``, ``domain`` or ``.domain`` (any subdomain). Compared as RFC 8550 §3 says."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """A pattern as an administrator writes it, with the domain in A-labels and lower case. Raises BadData."""
        if text == "any":
            return cls(text)
        if "@" in text:
            return cls(str(parse_mailbox(text)))
        dot = "." if text.startswith(".") else ""
        return cls(dot + domain_to_ascii(text.removeprefix(".")))

    def matches(self, mailbox: Mailbox | None) -> bool:
        """``any`` matches all, the null sender included; nothing else matches None."""
        if self.text == "any":
            return True
        if mailbox is None:
            return False
        if "@" in self.text:
            return _mailbox(self.text).matches(mailbox)
        if self.text.startswith("."):
            return mailbox.domain.endswith(self.text)
        return mailbox.domain == self.text


@lru_cache(maxsize=4096)
def _mailbox(text: str) -> Mailbox:
    return parse_mailbox(text)


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[policy]]`` entry. First match decides; the last one is always a catch-all."""

    name: str
    recipients: tuple[Pattern, ...]
    senders: tuple[Pattern, ...]
    seal: Seal
    without_certificate: WithoutCertificate
    revocation: Strictness
    ciphers: CipherRule = USUAL
    certificate_policies: frozenset[str] = frozenset()
    doubt: DoubtKnobs = NO_KNOBS

    def may_defer(self, settings: PolicySettings) -> bool:
        """Can doubt about a certificate make mail wait under this rule?"""
        return may_defer(self.revocation is Strictness.STRICT, self.doubt, settings)

    @property
    def catch_all(self) -> bool:
        """Does the rule match every sender and recipient?"""
        return _ANY in self.recipients and _ANY in self.senders


_ANY = Pattern("any")


@dataclass(frozen=True, slots=True)
class Cleared:
    """A certificate that policy allows mail to be encrypted to. Only this module makes one; core.cms takes nothing else."""

    certificate: Certificate
    assessed: Assessed | None
    wrap: Wrap = PLAIN_WRAP


@dataclass(frozen=True, slots=True)
class RecipientFacts:
    """One envelope recipient. ``recipient`` is the string exactly as the MTA gave it (delrcpt compares it by octets).

    ``doubted`` are fingerprints of certificates for which mail to this recipient waits, and since when. ``remembered`` is what
    the recipient said in signed mail that it can read.
    """

    recipient: str
    mailbox: Mailbox | None
    internal: bool
    assessed: tuple[Assessed, ...] = ()
    directory_error: str = ""
    doubted: tuple[tuple[str, datetime], ...] = ()
    remembered: Remembered | None = None

    def doubted_since(self, certificate: Certificate) -> datetime | None:
        return next((since for fingerprint, since in self.doubted if fingerprint == certificate.fingerprint), None)


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """``fault`` is a ``mail.*`` code when the message can't be sealed as it is (duplicate Content-Type, bare CR …)."""

    sender: Mailbox | None
    protection: Protection = Protection.NONE
    fault: str = ""
    fault_detail: str = ""


def match_rule(rules: Sequence[Rule], sender: Mailbox | None, recipient: Mailbox | None) -> Rule:
    """The first rule that matches both. The last rule of a configuration always does; without one LookupError is raised.

    A recipient of None is an address that can't be read. It may be anybody's, so of the rules that hold for the sender one
    that seals comes before all that never seal.
    """
    possible = [rule for rule in rules if any(p.matches(sender) for p in rule.senders)]
    if recipient is None:
        # THR-15: what we can't read the MTA may still route to somebody for whom mail must be sealed.
        possible.sort(key=lambda rule: rule.seal is Seal.NEVER)
    else:
        possible = [rule for rule in possible if any(p.matches(recipient) for p in rule.recipients)]
    if not possible:
        raise LookupError("no rule matches: the last one must be a catch-all")
    return possible[0]


def decide(
    message: MessageFacts,
    recipients: Sequence[RecipientFacts],
    rules: Sequence[Rule],
    at: datetime,
    settings: PolicySettings = _DEFAULTS,
) -> Plan:
    """The plan for a message, from facts that were collected at ``at``. Total: never raises, any bug defers (4xx)."""
    try:
        decisions = tuple(_guarded(message, facts, rules, settings, at) for facts in recipients)
        return Plan(decisions, group(decisions, settings.join_families))
    except Exception as exc:
        return deferred([facts.recipient for facts in recipients], "sys.internal-error", f"{type(exc).__name__}: {exc}")


def rcpt_answer(
    facts: RecipientFacts,
    message: MessageFacts,
    rules: Sequence[Rule],
    at: datetime,
    settings: PolicySettings = _DEFAULTS,
) -> Decision | None:
    """The REFUSE or DEFER that is certain at RCPT already, whatever the message holds; None when it isn't.

    Revocation evidence may still be on its way, so nothing that rests on its absence is certain.
    """
    decision = _guarded(message, facts, rules, settings, at)
    if decision.action not in (Action.REFUSE, Action.DEFER):
        return None
    if decision.reason in _MAY_CHANGE and not _for_want_of_a_source(decision):
        return None
    return decision


def _for_want_of_a_source(decision: Decision) -> bool:
    """Is all doubt about certificates that name no source? Then no evidence can be on its way."""
    causes = {w.code for w in decision.warnings if w.code.startswith("rev.")}
    return decision.reason == "rcpt.revocation-refused" and causes == {NONE_DECLARED}


def _guarded(
    message: MessageFacts, facts: RecipientFacts, rules: Sequence[Rule], settings: PolicySettings, at: datetime
) -> Decision:
    try:
        decision = _decide_one(message, facts, rules, settings, at)
    except Exception as exc:
        return _internal_error(facts.recipient, exc)
    if decision.action is Action.SEAL and message.fault:
        return replace(
            decision, action=Action.REFUSE, reason=message.fault, detail=message.fault_detail, cleared=(), suite=None
        )
    return decision


def _internal_error(recipient: str, exc: Exception) -> Decision:
    return Decision(recipient, Action.DEFER, "sys.internal-error", "", f"{type(exc).__name__}: {exc}")


def _decide_one(
    message: MessageFacts, facts: RecipientFacts, rules: Sequence[Rule], settings: PolicySettings, at: datetime
) -> Decision:
    to = facts.recipient
    if facts.internal:
        return Decision(to, Action.CLEAR, "ok.internal", "")
    if message.protection is Protection.ENCRYPTED:
        return Decision(to, Action.CLEAR, "ok.already-encrypted", "")
    rule = match_rule(rules, message.sender, facts.mailbox)
    if rule.seal is Seal.NEVER:
        return Decision(to, Action.CLEAR, "ok.clear-rule", rule.name)
    if facts.mailbox is None:
        return Decision(to, Action.REFUSE, "rcpt.bad-address", rule.name)
    if facts.directory_error:
        return Decision(to, Action.DEFER, "sys.directory-unavailable", rule.name, facts.directory_error)
    # Best first (core.choice); policy takes the first that the rule accepts.
    judged = [
        (a, _with_cipher(_judge(a, rule, settings, facts, at), a, rule, facts))
        for a in ranked(facts.assessed, facts.mailbox)
    ]
    for assessed, judgement in judged:
        if isinstance(judgement, _Usable) and judgement.choice is not None:
            choice = judgement.choice
            certificate = assessed.candidate.certificate
            wrap = Wrap(choice.transport or KeyTransport.PKCS1, settings.by_key_id(certificate))
            cleared = Cleared(certificate, assessed, wrap)
            return Decision(
                to, Action.SEAL, "ok.sealed", rule.name, "", (cleared,), choice.suite, judgement.warnings, choice=choice
            )  # fmt: skip
    doubted = tuple(a.candidate.certificate.fingerprint for a, j in judged if isinstance(j, _Undecided) or j.given_up)
    for _, judgement in judged:
        if isinstance(judgement, _Undecided):
            return Decision(
                to, Action.DEFER, judgement.code, rule.name, judgement.detail, warnings=judgement.warnings,
                doubted=doubted,
            )  # fmt: skip
    rejected = [j for _, j in judged if isinstance(j, _Rejected)]
    return replace(_without_certificate(to, rule, rejected), doubted=doubted)


@dataclass(frozen=True, slots=True)
class _Usable:
    warnings: tuple[Warn, ...]
    given_up: bool = False
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class _Undecided:
    """Perhaps usable later: mail waits, it never leaves in clear because of revocation trouble."""

    code: str
    detail: str
    warnings: tuple[Warn, ...]
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class _Rejected:
    """Not usable. ``by`` names the knob where doubt alone is the reason: then mail never goes in clear for it; nor where only
    no cipher fits (``no_cipher``).
    """

    code: str
    detail: str
    by: str = ""
    given_up: bool = False
    error: bool = False
    no_cipher: bool = False


def _judge(
    assessed: Assessed, rule: Rule, settings: PolicySettings, facts: RecipientFacts, at: datetime
) -> _Usable | _Undecided | _Rejected:
    """May mail be sealed for this certificate under this rule?"""
    label = f"certificate sha256:{assessed.candidate.certificate.fingerprint[:16]}"
    if isinstance(assessed.path, PathFault):
        return _Rejected(assessed.path.code, f"{label}: {assessed.path.detail}")
    fatal = next((f for f in assessed.findings if f.fatal), None)
    if fatal:
        return _Rejected(fatal.code, f"{label}: {fatal.detail}")
    # CERT-17
    if not assessed.path.policies.permits(rule.certificate_policies):
        wanted = ", ".join(sorted(rule.certificate_policies))
        return _Rejected("path.policy", f"{label}: it isn't valid under a policy that the rule requires: {wanted}")
    # PRE-3: every certificate of the path but the anchor has its own verdict.
    verdicts = assessed.verdicts
    if len(verdicts) != len(assessed.path.certificates):
        raise ValueError(f"{len(assessed.path.certificates)} certificates, but {len(verdicts)} verdicts")
    whose = [label, *(f"CA certificate sha256:{c.fingerprint[:16]}" for c in assessed.path.certificates[1:])]
    for who, verdict in zip(whose, verdicts, strict=True):
        if verdict.forbids:
            return _Rejected(verdict.reason, _revoked_text(who, verdict))
    warnings = tuple(Warn(f.code, f"{label}: {f.detail}") for f in assessed.findings)
    outcome: _Usable | _Undecided = _Usable(warnings)
    since = facts.doubted_since(assessed.candidate.certificate)
    strict, anchor = rule.revocation is Strictness.STRICT, assessed.path.anchor.settings.on_none_declared
    situation = Situation(strict, rule.doubt, anchor, since, at)
    for index, (who, verdict) in enumerate(zip(whose, verdicts, strict=True)):
        if verdict.status is Status.GOOD:
            # Good, but with a remark: an OCSP responder without nocheck, evidence that doesn't say when it ends.
            if verdict.detail and isinstance(outcome, _Usable):
                outcome = _Usable((*outcome.warnings, Warn(verdict.reason, f"{who}: {verdict.detail}")))
            continue
        unknown = _unknown(who, verdict, resolve(verdict, index > 0, situation, settings), since or at, settings)
        if isinstance(unknown, _Rejected):
            return unknown
        if isinstance(unknown, _Undecided):
            outcome = outcome if isinstance(outcome, _Undecided) else unknown
        elif isinstance(outcome, _Usable):
            outcome = _Usable((*outcome.warnings, *unknown.warnings))
    return outcome


def known_for(assessed: Assessed, facts: RecipientFacts) -> Known:
    """What counts of the recipient's capabilities. ALG-2: the word of a signer whose certificate was revoked since doesn't."""
    remembered = facts.remembered
    if remembered is not None and any(
        a.candidate.certificate.fingerprint == remembered.signer and any(v.forbids for v in a.verdicts)
        for a in facts.assessed
    ):
        remembered = None
    return known_of(assessed.candidate.certificate, remembered)


def _with_cipher(
    judgement: _Usable | _Undecided | _Rejected, assessed: Assessed, rule: Rule, facts: RecipientFacts
) -> _Usable | _Undecided | _Rejected:
    """A certificate that may be used, with the cipher for it; rejected when none fits."""
    if not isinstance(judgement, _Usable):
        return judgement
    label = f"certificate sha256:{assessed.candidate.certificate.fingerprint[:16]}"
    choice = choose(rule.ciphers, assessed.candidate.certificate, known_for(assessed, facts))
    if isinstance(choice, NoFit):
        return _Rejected(choice.code, f"{label}: {choice.detail}", no_cipher=True)
    warnings = judgement.warnings
    if choice.fallen:
        # A correspondent who suddenly can do less has an old program again, or somebody wants us to believe that.
        warnings = (*warnings, Warn("cipher.downgrade", f"{label}: sealed with {choice.fallen}", error=True))
    return replace(judgement, warnings=warnings, choice=choice)


def _unknown(
    who: str, verdict: Verdict, answer: Answer, since: datetime, settings: PolicySettings
) -> _Usable | _Undecided | _Rejected:
    """What an unknown status comes to, in words."""
    text = f"revocation status unknown: {verdict.detail or verdict.reason}"
    url = f" ({verdict.source})" if verdict.source and verdict.source not in text else ""
    text = f"{text}{url}; {who}"
    if answer.done is Done.ACCEPT:
        return _Usable(())
    if answer.done is Done.WARN:
        return _Usable((Warn(verdict.reason, f"{text}; sealed anyway ({answer.by})", answer.error),))
    if answer.done is Done.DEFER:
        end = f"{later(since, settings.give_up):%Y-%m-%d %H:%M} UTC"
        warning = Warn(verdict.reason, f"{text}; deferred ({answer.by}), until {end} at the latest", answer.error)
        suspicious = verdict.doubt is Doubt.SUSPICION
        return _Undecided(
            "rcpt.revocation-suspicious" if suspicious else "rcpt.revocation-unknown", text, (warning,)
        )  # fmt: skip
    given_up = answer.done is Done.GIVE_UP
    if given_up:
        text = f"{text}; since {since:%Y-%m-%d %H:%M} UTC"
    return _Rejected(verdict.reason, text, answer.by, given_up, answer.error or given_up)


def _revoked_text(who: str, verdict: Verdict) -> str:
    if verdict.status is not Status.REVOKED:
        return f"{who} is listed as revoked by evidence that isn't fully understood: {verdict.detail or verdict.source}"
    when = f" on {verdict.revoked_at:%Y-%m-%d}" if verdict.revoked_at else ""
    why = f" ({verdict.revocation_reason})" if verdict.revocation_reason else ""
    source = f", says {verdict.source}" if verdict.source else ""
    return f"{who} was revoked{when}{why}{source}"


def _without_certificate(to: str, rule: Rule, rejected: Sequence[_Rejected]) -> Decision:
    """Nothing to seal for. Only here, and only by ``without_certificate``, does a rule let mail go in clear."""
    code = "rcpt.no-usable-certificate" if rejected else "rcpt.no-certificate"
    detail = "; ".join(r.detail for r in rejected[:_NAMED])
    done = rule.without_certificate
    if rule.seal is Seal.MUST and done is WithoutCertificate.CLEAR:
        done = WithoutCertificate.REFUSE
    # RPL-6: doubt can be made by who blocks or forges evidence, so it never opens the way to clear text.
    in_doubt = any(r.by for r in rejected)
    # ALG-3: a floor that clear text could pass under would be none.
    no_cipher = any(r.no_cipher for r in rejected)
    if any(r.given_up for r in rejected) or ((in_doubt or no_cipher) and done is WithoutCertificate.CLEAR):
        done = WithoutCertificate.REFUSE
    if no_cipher:
        code = "rcpt.no-cipher"
    if in_doubt and done is WithoutCertificate.REFUSE:
        given_up = any(r.given_up for r in rejected)
        code = "rcpt.revocation-given-up" if given_up else "rcpt.revocation-refused"
    outcome = _OUTCOME[done]
    warnings = tuple(
        Warn(r.code, f"{r.detail}; not used, {_DONE[done]} ({r.by or f'without_certificate={done.value}'})", r.error)
        for r in rejected[:_NAMED]
    )  # fmt: skip
    if done is WithoutCertificate.CLEAR:
        code = "ok.clear-no-certificate"
    if done is WithoutCertificate.HOLD:
        detail = detail or "no certificate for the recipient is known"
        code = "rcpt.held"
    return Decision(to, outcome, code, rule.name, detail, warnings=warnings)


_OUTCOME = {
    WithoutCertificate.CLEAR: Action.CLEAR,
    WithoutCertificate.REFUSE: Action.REFUSE,
    WithoutCertificate.DEFER: Action.DEFER,
    WithoutCertificate.HOLD: Action.HOLD,
}
_DONE = {
    WithoutCertificate.CLEAR: "sent in clear",
    WithoutCertificate.REFUSE: "refused",
    WithoutCertificate.DEFER: "deferred",
    WithoutCertificate.HOLD: "held",
}
# Certificates named in one decision's text; the decision record has all of them.
_NAMED = 5
# What evidence that arrives until the end of the message may turn.
_MAY_CHANGE = frozenset(
    {
        "rcpt.revocation-unknown",
        "rcpt.revocation-suspicious",
        "rcpt.revocation-refused",
        "rcpt.revocation-given-up",
    }
)


def clear_by_operator(certificate: Certificate, wrap: Wrap = PLAIN_WRAP) -> Cleared:
    """For ``postseal seal --to``: the operator's own act; fitness has been checked by the caller, path and revocation not."""
    return Cleared(certificate, None, wrap)
