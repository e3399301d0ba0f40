"""Revocation judgement: evidence in, one verdict per certificate out (RFC 5280 §6.3, RFC 6960).

Each piece of evidence is judged for itself (``crl_status``, ``ocsp_status``) and becomes a finding; findings are merged:

- an authentic REVOKED in scope wins over everything, whatever its source and age; only a hold that a newer CRL of the same
  scope no longer lists is over;
- evidence that lists the certificate and can't be interpreted in full forbids GOOD;
- GOOD needs current evidence that covers all reasons, from the sources that the order asks for;
- everything else is UNKNOWN, with the most useful cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from postseal.core.certificate_facts import CertificateFacts, certificate_facts
from postseal.core.crl import refresh_window as crl_refresh_window
from postseal.core.crl import signature_valid
from postseal.core.crl_status import (
    Finding,
    SignerOf,
    Spoken,
    Target,
    about_base,
    about_delta,
    hear,
    superseded,
)
from postseal.core.der import later
from postseal.core.distribution import ALL_REASONS, reason_names
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question, RevokedBefore, delta_urls
from postseal.core.names import same_name
from postseal.core.ocsp import refresh_window as ocsp_refresh_window
from postseal.core.ocsp_status import check_ocsp
from postseal.core.verdict import SUSPICIOUS
from postseal.core.verdict import Doubt as Doubt
from postseal.core.verdict import Nonce as Nonce
from postseal.core.verdict import Order as Order
from postseal.core.verdict import Responder as Responder
from postseal.core.verdict import RevocationSettings as RevocationSettings
from postseal.core.verdict import Status as Status
from postseal.core.verdict import UseDeltas as UseDeltas
from postseal.core.verdict import Verdict as Verdict

# PRE-6: pieces of evidence that one verdict looks at. Honest stores hold a handful.
_MAX_EVIDENCE = 64
_MAX_UNRELATED = 4096
_MAX_CAUSES = 3
_NO_REV_AVAIL, _FRESHEST = "2.5.29.56", "2.5.29.46"
_JUST_TRIED = timedelta(minutes=1)
_REUSE_UNKNOWN = timedelta(minutes=1)

# Which cause an administrator wants to read first: attacks, then evidence with a flaw, then the lack of evidence.
_RANK = {
    code: rank
    for rank, code in enumerate(
        (
            "rev.listed-unsupported",
            "rev.bad-signature",
            "rev.unauthorized-responder",
            "rev.wrong-issuer",
            "rev.rollback",
            "rev.wrong-nonce",
            "rev.clock",
            "rev.ocsp-unknown",
            "rev.stale",
            "rev.not-yet-valid",
            "rev.weak-algorithm",
            "rev.no-crl-sign",
            "rev.crl-signer",
            "rev.unsupported",
            "rev.reasons-incomplete",
            "rev.wrong-scope",
            "rev.ocsp-mismatch",
            "rev.no-nonce",
            "rev.responder-unchecked",
            "rev.malformed",
            "rev.ocsp-error",
            "rev.too-large",
            "rev.http-status",
            "rev.timeout",
            "rev.unreachable",
            "rev.blocked-by-guard",
            "rev.budget",
        )
    )
}


def judge(
    question: Question,
    evidence: Sequence[Evidence],
    settings: RevocationSettings,
    at: datetime,
    signer_of: SignerOf | None = None,
) -> Verdict:
    """One verdict from all evidence at hand. Total: any input gives a Verdict, never an exception (RPL-3).

    The detail of a GOOD verdict is empty, or a remark that is worth a warning. Without ``signer_of`` only CRLs count that are
    signed with the key of ``question.issuer``; see ``core.judgement`` for the whole.
    """
    try:
        return _Judgement(question, settings, at, signer_of).of(evidence)
    except Exception as exc:
        return Verdict(
            Status.UNKNOWN, "rev.malformed", f"the certificate or its evidence can't be judged: {_words(exc)}"
        )


def still_needed(
    question: Question,
    evidence: Sequence[Evidence],
    settings: RevocationSettings,
    at: datetime,
    verdict: Verdict | None = None,
) -> bool:
    """Would fetching help: is there no fresh decisive evidence, and a URL that isn't in back-off?

    ``verdict`` is the one on ``question`` where it is known already, with all that is known of signers.
    """
    try:
        # PRE-2: an expired certificate can't be used anyhow, and its responder may have forgotten it.
        if at > question.certificate.not_after:
            return False
        verdict = verdict or judge(question, evidence, settings, at)
        if verdict.status is Status.GOOD:
            return False
        # CRL-20: a hold may be over when newer evidence comes; every other revocation is for ever.
        lasting = not _is_hold(verdict) or (verdict.next_update is not None and at <= verdict.next_update)
        if verdict.status is Status.REVOKED and lasting:
            return False
        tried = {item.url for item in evidence if _in_back_off(item, at)}
        urls = _urls(question, settings)
        if settings.use_deltas is UseDeltas.REQUIRE:
            urls += delta_urls(question, evidence)
        return any(url not in tried for url in urls)
    except Exception:
        # Evidence that can't even be looked at is no reason to stop fetching better evidence.
        return True


def recheck_at(verdict: Verdict, at: datetime, most: timedelta = timedelta(minutes=10)) -> datetime:
    """CACHE-11: until when a verdict reached at ``at`` may be kept while its evidence stays the same."""
    if verdict.usable_until is None:
        return later(at, min(_REUSE_UNKNOWN, most))
    if verdict.usable_until <= at:
        # Inside the skew: still good, but not for long.
        return later(at, min(_REUSE_UNKNOWN, most))
    return min(verdict.usable_until, later(at, most))


def refresh_window(evidence: CrlEvidence | OcspEvidence) -> tuple[datetime, datetime] | None:
    """CACHE-2: the time in which newer evidence should be fetched; the caller picks a random moment in it.

    None when the evidence doesn't say when it ends, or can't be read.
    """
    if isinstance(evidence, OcspEvidence):
        return ocsp_refresh_window(evidence.der)
    return crl_refresh_window(evidence.crl)


class _Judgement:
    """One call of ``judge``: a single ``at`` for every comparison (PRE-5)."""

    def __init__(
        self, question: Question, settings: RevocationSettings, at: datetime, signer_of: SignerOf | None = None
    ) -> None:
        self.question, self.settings, self.at, self.signer_of = question, settings, at, signer_of
        self.target = Target(
            certificate_facts(question.certificate.der),
            certificate_facts(question.issuer.der),
            question.issuer.name,
            question.crl_urls + question.ldap_urls,
            question.ocsp_urls,
            question.delta_urls,
        )
        self.spoken: list[Spoken] = []
        self.crls: list[Finding] = []
        self.ocsps: list[Finding] = []
        self.absent: list[Finding] = []
        self.remembered: list[Finding] = []

    def of(self, evidence: Sequence[Evidence]) -> Verdict:
        exhausted = self._look_at_all(evidence)
        self._weigh_crls()
        found = [*self.crls, *self.ocsps, *self.remembered]
        revoked = [f for f in found if f.verdict.status is Status.REVOKED and not self._lifted(f)]
        if revoked:
            return self._revoked(revoked)
        blocking = [f for f in found if f.blocks]
        if blocking:
            return self._unknown(blocking)
        good = self._good() or self._short_lived()
        if good is None:
            return self._unknown(self._relevant())
        if exhausted:
            # PRE-6: what wasn't looked at might have said revoked.
            return Verdict(Status.UNKNOWN, "rev.budget", f"there are more than {_MAX_EVIDENCE} pieces of evidence")
        return good

    def _look_at_all(self, evidence: Sequence[Evidence]) -> bool:
        """Was there more than may be looked at? What has nothing to do with the certificate costs little and counts little."""
        for item in evidence[:_MAX_UNRELATED]:
            related = len(self.spoken) + len(self.crls) + len(self.ocsps) + len(self.absent) + len(self.remembered)
            if related >= _MAX_EVIDENCE:
                return True
            self._look_at(item, evidence)
        return len(evidence) > _MAX_UNRELATED

    def _look_at(self, item: Evidence, all_of_it: Sequence[Evidence]) -> None:
        """Judge one source for itself. Whatever goes wrong in it is UNKNOWN and spoils nothing else (RPL-3)."""
        try:
            if isinstance(item, CrlEvidence):
                heard = hear(self.target, item, self.settings, self.signer_of)
                if isinstance(heard, Spoken):
                    self.spoken.append(heard)
                elif heard is not None:
                    self.crls.append(heard)
            elif isinstance(item, OcspEvidence):
                finding = check_ocsp(
                    self.target, item, self.settings, self.at, lambda facts: self._delegate_status(facts, all_of_it)
                )
                if finding is not None:
                    self.ocsps.append(finding)
            elif isinstance(item, RevokedBefore):
                self.remembered.append(Finding(_revoked_before(item), None))
            else:
                self.absent.append(_no_answer(item))
        except Exception as exc:
            self._broken(item, exc)

    def _broken(self, item: Evidence, exc: Exception) -> None:
        """RPL-3: whatever goes wrong in a source makes that source UNKNOWN, and spoils no other."""
        url = str(getattr(item, "url", ""))
        words = f"{url or 'evidence'}: can't be judged: {_words(exc)}"
        found = Finding(Verdict(Status.UNKNOWN, "rev.malformed", words, url), None)
        (self.ocsps if isinstance(item, OcspEvidence) else self.crls).append(found)

    def _weigh_crls(self) -> None:
        """What each CRL that may speak says, together with the deltas and the CRLs that came after it."""
        deltas = [s for s in self.spoken if s.crl.delta_base is not None]
        bases = [s for s in self.spoken if s.crl.delta_base is None]
        for crl in (*deltas, *bases):
            try:
                if crl.crl.delta_base is not None:
                    said = about_delta(crl, bases)
                else:
                    said = about_base(self.target, crl, deltas, self.settings, self.at)
                    said = superseded(said, crl.evidence) if self._outdated(crl, bases) else said
                if said is not None:
                    self.crls.append(said)
            except Exception as exc:
                self._broken(crl.evidence, exc)

    def _outdated(self, base: Spoken, bases: Sequence[Spoken]) -> bool:
        """CRL-25: is a newer CRL of the same scope known? One from the future doesn't count, all honest ones come before it."""
        if len(bases) == 1:
            return base.evidence.outdated
        limit = later(self.at, self.settings.skew)
        newer = (b for b in bases if b.scope == base.scope and b.crl.this_update <= limit)
        return base.evidence.outdated or any(_age(b) > _age(base) for b in newer)

    def _delegate_status(self, responder: CertificateFacts, evidence: Sequence[Evidence]) -> Verdict:
        """OCSP-10: what the CRLs at hand say about the certificate of an OCSP responder. Revoked is what any of them lists."""
        issuer = self.target.issuer
        crls = [item for item in evidence if isinstance(item, CrlEvidence)]
        for item in crls:
            ours = same_name(item.crl.issuer, issuer.subject) and signature_valid(item.crl, issuer.spki)
            if ours and item.crl.find(responder.serial, responder.issuer) is not None:
                return Verdict(Status.REVOKED, "rev.revoked-crl", source=item.url)
        own = _Judgement(self.question, replace(self.settings, order=Order.CRL_ONLY), self.at, self.signer_of)
        own.target = replace(self.target, certificate=responder, crl_urls=(), ocsp_urls=(), delta_urls=())
        return own.of(crls)

    def _lifted(self, finding: Finding) -> bool:
        """CRL-20: is it a hold that newer evidence of the very same scope doesn't know any more?"""
        verdict = finding.verdict
        if not _is_hold(verdict) or verdict.this_update is None:
            return False
        return any(
            f.scope == finding.scope
            and f.verdict.status is Status.GOOD
            and f.verdict.this_update is not None
            and f.verdict.this_update > verdict.this_update
            for f in (*self.crls, *self.ocsps)
        )

    def _revoked(self, findings: Sequence[Finding]) -> Verdict:
        # RPL-4: no other source is asked. A final reason says more than a hold, newer evidence more than older.
        newest = datetime.min.replace(tzinfo=self.at.tzinfo)
        verdict = max(
            (f.verdict for f in findings), key=lambda v: (not _is_hold(v), v.this_update or newest)
        )  # fmt: skip
        until = verdict.next_update if _is_hold(verdict) else self.target.certificate.not_after
        return replace(verdict, usable_until=until)

    def _good(self) -> Verdict | None:
        """The GOOD verdict that the order of sources allows (RPL-1)."""
        order = self.settings.order
        crl, ocsp = self._good_by_crl(), self._good_by_ocsp()
        if order == Order.CRL_ONLY:
            return crl
        if order == Order.OCSP_ONLY:
            return ocsp
        if order == Order.BOTH:
            if not self._kind_exists(self.ocsps, self.question.ocsp_urls):
                return crl
            if not self._kind_exists(self.crls, crl_sources(self.question, self.settings)):
                return ocsp
            return _sooner(crl, ocsp) if crl and ocsp else None
        # RPL-2: where there is no CRL because it is too large, OCSP decides.
        return (ocsp or crl) if order == Order.OCSP_FIRST else (crl or ocsp)

    def _short_lived(self) -> Verdict | None:
        """RPL-7, RFC 9608 §5: a certificate that nobody will revoke, if the administrator believes in such certificates."""
        facts, extensions = self.target.certificate, self.target.certificate.extensions
        if _NO_REV_AVAIL not in extensions or facts.not_after - facts.not_before > self.settings.short_lived:
            return None
        # RFC 9608 §4: not for CAs, and not beside a pointer to revocation information.
        if facts.is_ca or facts.points or _FRESHEST in extensions or self._all_urls():
            return None
        return Verdict(Status.GOOD, "rev.short-lived", usable_until=facts.not_after)

    @staticmethod
    def _kind_exists(findings: Sequence[Finding], urls: Sequence[str]) -> bool:
        return bool(findings or urls)

    def _good_by_ocsp(self) -> Verdict | None:
        good = [f.verdict for f in self.ocsps if f.verdict.status is Status.GOOD]
        return max(good, key=_end) if good else None

    def _good_by_crl(self) -> Verdict | None:
        good = [f for f in self.crls if f.verdict.status is Status.GOOD]
        complete = [f.verdict for f in good if f.covers == ALL_REASONS]
        if complete:
            return max(complete, key=_end)
        # CRL-9, CRL-11, RFC 5280 §6.3.3 (l): several CRLs cover all reasons together, or none does.
        covered = 0
        for finding in good:
            covered |= finding.covers
        if covered == ALL_REASONS:
            return min((f.verdict for f in good), key=_end)
        if good:
            missing = reason_names(ALL_REASONS & ~covered)
            words = f"the CRL from {good[0].verdict.source} doesn't cover the reasons {missing}"
            verdict = Verdict(Status.UNKNOWN, "rev.reasons-incomplete", words, good[0].verdict.source)
            self.crls.append(Finding(verdict, None))
        return None

    def _relevant(self) -> list[Finding]:
        """The UNKNOWN findings of the sources that the order asks for."""
        order = self.settings.order
        wanted: list[Finding] = []
        if order != Order.OCSP_ONLY:
            wanted += self.crls
        if order != Order.CRL_ONLY:
            wanted += self.ocsps
        urls = _urls(self.question, self.settings)
        wanted += [f for f in self.absent if f.verdict.source in urls or f.verdict.source not in self._all_urls()]
        return [f for f in wanted if f.verdict.status is Status.UNKNOWN]

    def _all_urls(self) -> tuple[str, ...]:
        return crl_sources(self.question, self.settings) + self.question.ocsp_urls

    def _unknown(self, findings: Sequence[Finding]) -> Verdict:
        """The most useful UNKNOWN, with the other causes added to its words."""
        if not findings:
            return self._nothing_at_hand()
        never = datetime.min.replace(tzinfo=self.at.tzinfo)
        newest_first = sorted((f.verdict for f in findings), key=lambda v: v.expired_at or never, reverse=True)
        ranked = sorted(newest_first, key=lambda v: _RANK.get(v.reason, len(_RANK)))
        causes = list(dict.fromkeys(v.detail for v in ranked))[:_MAX_CAUSES]
        return replace(
            ranked[0],
            detail="; ".join(causes),
            suspicious=any(v.suspicious for v in ranked),
            alarming=any(v.alarming for v in ranked),
        )  # fmt: skip

    def _nothing_at_hand(self) -> Verdict:
        urls = _urls(self.question, self.settings)
        if urls:
            return Verdict(Status.UNKNOWN, "rev.no-evidence", f"nothing fetched yet from {urls[0]}", urls[0])
        # CRL-12, CRL-28: pointers that can't be followed aren't the same as none.
        if self.question.skipped and not self._all_urls():
            words = "; ".join(self.question.skipped[:_MAX_CAUSES])
            return Verdict(
                Status.UNKNOWN, "rev.unsupported", f"the certificate names no source that can be asked: {words}"
            )
        if self.target.certificate.points and not self._all_urls():
            words = "its CRL distribution points have no http or https URL"
            return Verdict(Status.UNKNOWN, "rev.unsupported", words)
        if self._all_urls():
            words = f"the certificate names no source that the order {self.settings.order} allows"
            return Verdict(Status.UNKNOWN, "rev.none-declared", words)
        return Verdict(Status.UNKNOWN, "rev.none-declared", "the certificate names neither a CRL nor an OCSP responder")


def _no_answer(item: NoAnswer) -> Finding:
    told = item.detail.startswith("Could not") or not item.url
    detail = item.detail if told else f"Could not retrieve URL {item.url}: {item.detail}"
    # What the fetcher refused to store for these reasons looks as forged as if it had been stored (CACHE-4).
    suspicious = item.why in SUSPICIOUS
    verdict = Verdict(
        Status.UNKNOWN, item.why, detail, item.url, suspicious=suspicious, alarming=item.alarming
    )  # fmt: skip
    return Finding(verdict, None)


def _revoked_before(item: RevokedBefore) -> Verdict:
    """CRL-27: CAs may take an expired certificate off their lists, and some forget others too; we don't."""
    when = f"{item.revoked_at:%Y-%m-%dT%H:%M:%SZ}" if item.revoked_at else "at an unknown date"
    words = f"revoked {when}, reason {item.reason}, as seen before from {item.url}"
    return Verdict(
        Status.REVOKED, "rev.revoked-before", words, item.url, item.this_update, None,
        revoked_at=item.revoked_at, revocation_reason=item.reason,
    )  # fmt: skip


def _sooner(one: Verdict, other: Verdict) -> Verdict:
    return min(one, other, key=_end)


def _end(verdict: Verdict) -> datetime:
    assert verdict.usable_until is not None
    return verdict.usable_until


def _age(spoken: Spoken) -> tuple[datetime, int]:
    return spoken.crl.this_update, spoken.crl.number or 0


def _is_hold(verdict: Verdict) -> bool:
    return verdict.revocation_reason == "certificateHold"


def crl_sources(question: Question, settings: RevocationSettings) -> tuple[str, ...]:
    """Where CRLs for the question are; directories last, and only when they may be asked (CRL-28)."""
    return question.crl_urls + (question.ldap_urls if settings.ldap else ())


def _urls(question: Question, settings: RevocationSettings) -> tuple[str, ...]:
    order = settings.order
    if order == Order.OCSP_ONLY:
        return question.ocsp_urls
    first, second = crl_sources(question, settings), question.ocsp_urls
    if order == Order.CRL_ONLY:
        return first
    return second + first if order == Order.OCSP_FIRST else first + second


def _in_back_off(item: Evidence, at: datetime) -> bool:
    if isinstance(item, NoAnswer):
        return item.retry_at is not None and at < item.retry_at
    # What was fetched a moment ago and doesn't decide won't be better now.
    return timedelta(0) <= at - item.fetched_at < _JUST_TRIED


def _words(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"[:200]
