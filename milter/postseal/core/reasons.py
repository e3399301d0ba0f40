"""The catalogue of reasons: stable codes used by the log, decision records, ``explain``, metrics and the manual.

A code never changes its meaning. ``reply`` and ``enhanced`` are what an SMTP client hears when the reason refuses or
defers a recipient (RFC 5321 §4.2, RFC 3463); None where the reason never does. ``clause`` is the rule behind it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One entry of the catalogue; ``sentence`` says it to an administrator, without a final full stop."""

    code: str
    sentence: str
    clause: str = ""
    reply: int | None = None
    enhanced: str = ""


_OUTCOMES = (
    Reason("ok.sealed", "sealed for the recipient's certificate"),
    Reason("ok.clear-rule", "a rule says that this mail is never sealed"),
    Reason("ok.clear-no-certificate", "no usable certificate, and the rule lets it go in clear"),
    Reason("ok.internal", "recipient is internal"),
    Reason("ok.not-outbound", "not outbound mail"),
    Reason("ok.already-encrypted", "the message is S/MIME encrypted already"),
    Reason("rcpt.no-certificate", "no certificate for the recipient is known", "", 550, "5.7.1"),
    Reason("rcpt.no-usable-certificate", "none of the recipient's certificates can be used", "", 550, "5.7.1"),
    Reason(
        "rcpt.revocation-unknown", "the revocation status can't be checked, and the rule is strict", "", 451, "4.7.5"
    ),
    Reason(
        "rcpt.revocation-suspicious",
        "the revocation evidence looks forged, and on_suspicious is defer",
        "",
        451,
        "4.7.5",
    ),
    Reason("rcpt.bad-address", "the recipient address can't be parsed", "RFC 5321 §4.1.2", 553, "5.1.3"),
    Reason("rcpt.held", "held for the administrator"),
)

# core.path: why a certificate has no valid path. One code per failed check, most useful one reported.
_PATH: tuple[Reason, ...] = ()

# core.fitness: why a certificate with a good path isn't fit to encrypt mail for the recipient, or a remark on it.
_CERT: tuple[Reason, ...] = ()

# core.revocation: what the evidence says, or why it says nothing.
_REV: tuple[Reason, ...] = (
    Reason("rev.crl", "a current CRL doesn't list the certificate", "RFC 5280 §6.3.3"),
    Reason("rev.ocsp", "the OCSP responder says that the certificate is good", "RFC 6960 §2.2"),
    Reason("rev.revoked-crl", "the certificate is listed on its issuer's CRL", "RFC 5280 §6.3.3 (i)"),
    Reason("rev.revoked-ocsp", "the OCSP responder says that the certificate is revoked", "RFC 6960 §2.2"),
    Reason(
        "rev.listed-unsupported",
        "a signed CRL or OCSP answer lists the certificate, but has parts that must not be ignored and aren't understood",
        "RFC 5280 §5.2",
    ),
    Reason("rev.bad-signature", "the signature of the evidence is wrong", "RFC 5280 §6.3.3 (g), RFC 6960 §3.2"),
    Reason("rev.wrong-issuer", "the CRL isn't from the issuer of the certificate", "RFC 5280 §6.3.3 (b)(1)"),
    Reason("rev.unauthorized-responder", "nobody allowed the signer of the OCSP answer to sign it", "RFC 6960 §4.2.2.2"),
    Reason("rev.ocsp-unknown", "the OCSP responder doesn't know the certificate", "RFC 6960 §2.2"),
    Reason("rev.disagree", "CRL and OCSP don't both say good, and the rule asks for both", ""),
    Reason("rev.stale", "the evidence is out of date", "RFC 5280 §5.1.2.5, RFC 6960 §3.2"),
    Reason("rev.not-yet-valid", "the evidence is dated in the future; is a clock wrong?", "RFC 5280 §5.1.2.4"),
    Reason("rev.weak-algorithm", "the evidence is signed with an algorithm that is too weak", "RFC 8550 §4.3"),
    Reason("rev.no-crl-sign", "the issuer's certificate doesn't allow it to sign CRLs", "RFC 5280 §6.3.3 (f)"),
    Reason("rev.wrong-scope", "the CRL isn't meant for this certificate", "RFC 5280 §6.3.3 (b)(2)"),
    Reason("rev.reasons-incomplete", "the CRLs at hand don't cover all revocation reasons", "RFC 5280 §6.3.3 (l)"),
    Reason("rev.unsupported", "the evidence is of a kind that this version doesn't understand", "RFC 5280 §5.2"),
    Reason("rev.ocsp-mismatch", "the OCSP answer is about another certificate", "RFC 6960 §3.2"),
    Reason("rev.ocsp-error", "the OCSP responder answered with an error", "RFC 6960 §2.3"),
    Reason("rev.malformed", "what came back is neither a CRL nor an OCSP answer", "RFC 5280 §5.1, RFC 6960 §4.2"),
    Reason("rev.too-large", "the answer is larger than allowed"),
    Reason("rev.http-status", "the server answered with an HTTP error"),
    Reason("rev.timeout", "the server didn't answer in time"),
    Reason("rev.unreachable", "the server can't be reached"),
    Reason("rev.blocked-by-guard", "the URL or its address isn't one that may be asked"),
    Reason("rev.budget", "there was more to do than one check may do"),
    Reason("rev.no-evidence", "no CRL and no OCSP answer is at hand yet"),
    Reason("rev.none-declared", "the certificate names neither a CRL nor an OCSP responder"),
)

# The message itself: why it can't be sealed as it is.
_MAIL: tuple[Reason, ...] = (
    Reason(
        "mail.duplicate-header", "a header field that must come once comes twice", "RFC 2045 §3, RFC 5322 §3.6", 554, "5.6.0"
    ),
    Reason("mail.bad-header", "the header of the message is malformed", "RFC 5322 §2.2", 554, "5.6.0"),
    Reason("mail.header-too-large", "the header of the message is too large", "RFC 5322 §2.2", 554, "5.6.0"),
    Reason("mail.bare-cr", "the message has a CR without LF", "RFC 5321 §2.3.8", 554, "5.6.0"),
    Reason("mail.bare-lf", "the message has an LF without CR", "RFC 5321 §2.3.8", 554, "5.6.0"),
)

# The system: full disk, dead process, exception.
_SYS: tuple[Reason, ...] = (
    Reason("sys.internal-error", "an internal error; the mail log has more", "", 451, "4.3.0"),
    Reason("sys.directory-unavailable", "the recipients' certificates can't be read now", "", 451, "4.3.0"),
)

CATALOGUE: dict[str, Reason] = {r.code: r for r in (*_OUTCOMES, *_PATH, *_CERT, *_REV, *_MAIL, *_SYS)}


def reason(code: str) -> Reason:
    """The catalogue's entry for ``code``. An unknown code is a bug and raises KeyError."""
    return CATALOGUE[code]
