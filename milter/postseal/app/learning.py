"""What is learnt from a signed message: the sender's certificate, and what its client reads (ALG-2, RFC 8551 §2.5.2, §2.7.1).

THR-19: only from a signature that holds, by a certificate for the address in From that has a valid path and is known not to be
revoked. No effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from postseal.app.cms_verify import SignatureReport, SignatureVerdict, SignerReport
from postseal.app.verify import Outcome, Report, Request, verify_with
from postseal.core.address import Mailbox
from postseal.core.capabilities import parse_capabilities
from postseal.core.certs import Certificate
from postseal.core.ciphers import Remembered
from postseal.core.der import BadDer, Cursor, context
from postseal.core.errors import BadData
from postseal.core.fitness import fitness
from postseal.core.path import Path
from postseal.core.reasons import reason
from postseal.core.revocation import Status
from postseal.core.verdict import OnNoneDeclared

_MOST_NAMESAKES = 4


@dataclass(frozen=True, slots=True)
class Lesson:
    """``certificate`` is to be used for ``mailbox``, None when nothing that came along is fit for that. ``word`` is what the
    client can read, None when it doesn't say. ``notes`` are sentences for the operator.
    """

    mailbox: Mailbox
    certificate: Certificate | None
    word: Remembered | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """``at`` is now, ``skew`` how wrong clocks may be, ``none_declared`` what becomes of certificates that name no source."""

    at: datetime
    skew: timedelta
    none_declared: OnNoneDeclared
    weak_keys: bool = False
    x25519: bool = False


def learn(reports: Sequence[SignatureReport], terms: Terms, request: Request) -> Lesson:
    """The lesson of the outermost signature that is good. Raises BadData with what is wrong when there is none.

    ``request`` says what paths are built from.
    """
    faults = []
    for report in reports:
        for signer in report.signers:
            fault = _fault(signer, terms)
            if not fault:
                return _lesson(report, signer, terms, request)
            faults.append(fault)
    raise BadData(faults[0] if faults else "nothing in the message is signed")


def _fault(signer: SignerReport, terms: Terms) -> str:
    """Why the signer isn't believed, empty when he is."""
    good = signer.verdict is SignatureVerdict.GOOD
    detail = f": {signer.detail}" if signer.detail else ""
    if not good and not (signer.verdict is SignatureVerdict.UNKNOWN and _no_source(signer, terms)):
        whose = f" for {signer.expected}" if signer.expected is not None else ""
        return f"the signature{whose} is {signer.verdict} ({signer.reason}{detail})"
    if signer.expected is None or signer.matched is None:
        return "nobody says who it is from, so it isn't clear whose certificate this is"
    return ""


def _no_source(signer: SignerReport, terms: Terms) -> bool:
    """Is all that is unknown the status of certificates that name no source, and does the administrator accept that?"""
    if signer.path is None or not isinstance(signer.path.path, Path):
        return False
    said = signer.path.path.anchor.settings.on_none_declared or terms.none_declared
    return said is OnNoneDeclared.ACCEPT and all(
        v.status is Status.GOOD or v.reason == "rev.none-declared" for v in signer.path.verdicts
    )


def _lesson(report: SignatureReport, signer: SignerReport, terms: Terms, request: Request) -> Lesson:
    mailbox, own = signer.expected, signer.account.certificate
    if mailbox is None or own is None:
        raise ValueError("a signature that is good has a signer")
    candidates = (*_preferred(report, signer.account.claims.key_preference), own)
    request = replace(request, intermediates=(*report.signed.certificates, *request.intermediates))
    certificate, why = _for_encryption(candidates, mailbox, terms, request)
    word, silence = _word(signer, own, terms)
    return Lesson(mailbox, certificate, word, tuple(note for note in (why, silence) if note))


def _word(signer: SignerReport, own: Certificate, terms: Terms) -> tuple[Remembered | None, str]:
    claims = signer.account.claims
    if not claims.capabilities:
        return None, "the message doesn't say what its sender can read"
    # RFC 8551 §2.7.1: the newest counts. Without a time, or with one to come, nobody could ever say something newer.
    if claims.signing_time is None:
        return None, "the message doesn't say when it was signed, so its list of capabilities isn't used"
    if claims.signing_time > terms.at + terms.skew:
        return None, f"the message says that it was signed on {claims.signing_time:%Y-%m-%d}, so its list isn't used"
    try:
        capabilities = parse_capabilities(claims.capabilities)
    except BadData as exc:
        return None, str(exc)
    return Remembered(capabilities, claims.signing_time, own.fingerprint, terms.at), ""


def _preferred(report: SignatureReport, preference: bytes) -> tuple[Certificate, ...]:
    """RFC 8551 §2.5.3: the certificates that the signer may mean, among those that came along.

    These aren't covered by the signature: whoever passes a message on can add one that bears the same name.
    """
    named = (c for c in report.signed.certificates if preference and prefers(preference, c))
    return tuple(islice(named, _MOST_NAMESAKES))


def _for_encryption(
    candidates: Sequence[Certificate], mailbox: Mailbox, terms: Terms, request: Request
) -> tuple[Certificate | None, str]:
    """The first that may be used for ``mailbox``; or why none may."""
    faults = []
    for certificate in dict.fromkeys(candidates):
        found = fitness(certificate, mailbox, terms.at, weak_keys=terms.weak_keys, x25519=terms.x25519)
        report = verify_with(certificate, request, found, terms.at)
        # THR-19: without a path it is anybody's. Its status is judged again whenever mail is sealed for it.
        if report.outcome in (Outcome.GOOD, Outcome.UNKNOWN):
            return certificate, ""
        faults.append(f"certificate sha256:{certificate.fingerprint[:16]} can't be used to seal: {_words(report)}")
    return None, faults[0]


def _words(report: Report) -> str:
    return report.detail or reason(report.reason).sentence


def prefers(preference: bytes, certificate: Certificate) -> bool:
    """RFC 8551 §2.5.3: does SMIMEEncryptionKeyPreference name this certificate? What can't be read names none."""
    try:
        outer = Cursor(preference)
        tag = outer.peek()
        if tag == context(0):
            name = outer.enter(tag)
            issuer, serial = name.raw(), name.integer(64)
            return issuer == certificate.issuer and serial == certificate.serial
        if tag == context(1):
            return outer.enter(tag).octets() == _key_id(certificate)
        return tag == context(2, False) and outer.content(tag) == _key_id(certificate)
    except BadDer:
        return False


def _key_id(certificate: Certificate) -> bytes | None:
    found = certificate.raw_extensions.get("2.5.29.14")
    return None if found is None else Cursor(found.value).octets()
