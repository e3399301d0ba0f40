"""Who signed a message, and what that is worth: one verdict in a word for each signer, and all that led to it.

The signature itself is ``core.cms.verifying``'s to check. Here come the signer's address, purposes, path and revocation, by the
judge that recipients' certificates have. No effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from postseal.app.verify import Outcome, Report, Request, verify_with
from postseal.core.address import Mailbox
from postseal.core.assess import Finding
from postseal.core.certs import Certificate
from postseal.core.cms.multipart import ClearSigned
from postseal.core.cms.signed_reader import Signed
from postseal.core.cms.verifying import Covered, SignerAccount, State, check_signers, cover
from postseal.core.fitness import addresses, signing_fitness
from postseal.core.message import Field
from postseal.core.originator import originator
from postseal.core.text import moment


class SignatureVerdict(StrEnum):
    """The answer about one signer in one word; only GOOD is a yes. In the order in which one decides before another."""

    BAD = "bad"
    UNVERIFIED = "unverified"
    UNTRUSTED = "untrusted"
    REVOKED = "revoked"
    UNFIT = "unfit"
    NOT_THE_SENDER = "not-the-sender"
    WEAK = "weak"
    UNKNOWN = "unknown"
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class Expected:
    """Whose signature it should be: ``mailbox``, or with a ``fault`` nobody's; neither when there is nobody to compare with.

    ``sender`` is the mailbox of the field Sender, where there is one.
    """

    mailbox: Mailbox | None = None
    sender: Mailbox | None = None
    fault: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignerReport:
    """One signer. ``expected`` is who it should be and ``matched`` the name in the certificate that is he.

    ``path`` is the judge's report on the certificate; None when there was nothing to judge by, or nobody to judge.
    """

    account: SignerAccount
    verdict: SignatureVerdict
    reason: str
    detail: str
    expected: Mailbox | None
    matched: Mailbox | None
    findings: tuple[Finding, ...]
    path: Report | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignatureReport:
    """All signers of one SignedData. ``covered`` counts the octets that are signed, ``form`` tells in which line ends."""

    signed: Signed
    covered: int
    signers: tuple[SignerReport, ...]
    form: str = "as received"

    @property
    def good(self) -> bool:
        """Somebody signed, and every one who did is GOOD."""
        return bool(self.signers) and all(each.verdict is SignatureVerdict.GOOD for each in self.signers)


def expected_signer(fields: Sequence[Field], asked: Mailbox | None) -> Expected:
    """RFC 8550 §3: the mailbox in From; ``asked`` instead where the operator names one. Nobody for a bare CMS object."""
    if asked is not None:
        return Expected(asked)
    if not fields:
        return Expected()
    found = originator(fields)
    sender = originator(fields, b"sender").mailbox
    return Expected(found.mailbox, sender, found.fault, found.notes)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the signatures are over, in which ``form``, and an account of each signer; nobody is judged yet."""

    signed: Signed
    covered: Covered
    accounts: tuple[SignerAccount, ...]
    form: str = "as received"


def check_opaque(signed: Signed, certificates: Sequence[Certificate] = ()) -> Checked:
    """A SignedData with its content inside."""
    covered = cover(signed)
    return Checked(signed, covered, check_signers(signed, covered, certificates))


def check_clear(parts: ClearSigned, signed: Signed, certificates: Sequence[Certificate] = ()) -> Checked:
    """A multipart/signed message, lines ending with CRLF.

    RFC 8551 §3.1.1 has CRLF signed. Some sign text with LF as they keep it; what was signed is then the same text, if it has no
    other line ends, and this is told.
    """
    covered = cover(signed, (parts.covered,))
    accounts = check_signers(signed, covered, certificates)
    if any(each.state is State.BAD for each in accounts):
        octets = bytes(parts.covered)
        lines = octets.count(b"\r\n")
        if lines and octets.count(b"\n") == octets.count(b"\r") == lines:
            unix = cover(signed, (octets.replace(b"\r\n", b"\n"),))
            others = check_signers(signed, unix, certificates)
            if all(each.state is not State.BAD for each in others):
                return Checked(signed, unix, others, "with LF line ends")
    return Checked(signed, covered, accounts)


def judge_signers(checked: Checked, request: Request, expected: Expected, at: datetime) -> SignatureReport:
    """The verdict on each signer. Total."""
    # CRL-26: of what comes along only certificates are looked at, as possible parts of a path.
    request = replace(request, intermediates=(*checked.signed.certificates, *request.intermediates))
    signers = tuple(_judge(account, request, expected, at) for account in checked.accounts)
    return SignatureReport(checked.signed, checked.covered.length, signers, checked.form)


def _judge(account: SignerAccount, request: Request, expected: Expected, at: datetime) -> SignerReport:
    certificate = account.certificate
    notes = (*expected.notes, *_times(account, at))
    if certificate is None or account.state is not State.INTACT:
        verdict = SignatureVerdict.BAD if account.state is State.BAD else SignatureVerdict.UNVERIFIED
        return SignerReport(account, verdict, account.code, account.detail, expected.mailbox, None, (), None, notes)
    findings = signing_fitness(certificate, at, weak_keys=request.weak_keys)
    matched = None if expected.mailbox is None else addresses(certificate).match(expected.mailbox)
    path = verify_with(certificate, request, findings, at) if request.anchors else None
    verdict, reason, detail = _conclude(account, request, expected, matched, path, findings)
    return SignerReport(account, verdict, reason, detail, expected.mailbox, matched, findings, path, notes)


_OUTCOMES = {
    Outcome.UNTRUSTED: SignatureVerdict.UNTRUSTED,
    Outcome.REVOKED: SignatureVerdict.REVOKED,
    Outcome.UNFIT: SignatureVerdict.UNFIT,
    Outcome.UNKNOWN: SignatureVerdict.UNKNOWN,
    Outcome.GOOD: SignatureVerdict.GOOD,
}


def _conclude(
    account: SignerAccount,
    request: Request,
    expected: Expected,
    matched: Mailbox | None,
    path: Report | None,
    findings: Sequence[Finding],
) -> tuple[SignatureVerdict, str, str]:
    """(verdict, code, detail): the worst thing decides, in the order of ``SignatureVerdict``."""
    if path is not None and path.outcome in (Outcome.UNTRUSTED, Outcome.REVOKED, Outcome.UNFIT):
        return _OUTCOMES[path.outcome], path.reason, path.detail
    fatal = next((each for each in findings if each.fatal), None)
    if fatal is not None:
        return SignatureVerdict.UNFIT, fatal.code, fatal.detail
    stranger = _stranger(account.certificate, expected, matched)
    if stranger is not None:
        return SignatureVerdict.NOT_THE_SENDER, *stranger
    if account.weak and not request.weak_keys:
        return SignatureVerdict.WEAK, "sig.weak-algorithm", account.weak
    if path is None:
        return SignatureVerdict.UNVERIFIED, "sig.no-anchor", ""
    if path.outcome is not Outcome.GOOD:
        return SignatureVerdict.UNKNOWN, path.reason, path.detail
    return SignatureVerdict.GOOD, "sig.good", ""


def _stranger(certificate: Certificate | None, expected: Expected, matched: Mailbox | None) -> tuple[str, str] | None:
    """RFC 8550 §3, THR-28: (code, detail) when the signer isn't who it should be."""
    if expected.fault:
        return "sig.no-sender", expected.fault
    if expected.mailbox is None or matched is not None or certificate is None:
        return None
    names = addresses(certificate)
    listed = ", ".join(str(name) for name in names.mailboxes[:5]) or "no mail address"
    if expected.sender is not None and names.match(expected.sender) is not None:
        return "sig.only-sender", f"the certificate is for {listed}, and the message is from {expected.mailbox}"
    return "sig.not-the-sender", f"the certificate is for {listed}, not for {expected.mailbox}"


def _times(account: SignerAccount, at: datetime) -> tuple[str, ...]:
    """RFC 5652 §11.3: nobody but the signer vouches for the signing time, so nothing is checked for it."""
    claimed, certificate = account.claims.signing_time, account.certificate
    if claimed is None or certificate is None:
        return ()
    if claimed > at:
        return (f"the signer says {moment(claimed)}, which is later than the time of this check",)
    if not certificate.not_before <= claimed <= certificate.not_after:
        return (f"the signer says {moment(claimed)}, when the certificate wasn't valid",)
    if certificate.not_after < at:
        return (
            f"the signer says {moment(claimed)}, when the certificate was valid; it is checked for {moment(at)}, "
            "and another time has to be asked for",
        )
    return ()


def uncovered(parts: ClearSigned, fields: Sequence[Field]) -> tuple[str, ...]:
    """What stands in a clear-signed message, and nobody signed it."""
    found = [f"the header fields of the message ({len(fields)})"] if fields else []
    for name, octets in (("preamble", parts.preamble), ("epilogue", parts.epilogue)):
        blank = not bytes(octets[:4096]).strip(b" \t\r\n") and len(octets) <= 4096
        if len(octets):
            kind = "white space" if blank else bytes(octets[:60]).decode("latin-1").strip()
            found.append(f"the {name} ({len(octets)} octets: {kind})")
    return tuple(found)
