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
    Reason("rcpt.bad-address", "the recipient address can't be parsed", "RFC 5321 §4.1.2", 553, "5.1.3"),
    Reason("rcpt.held", "held for the administrator"),
)

# core.path: why a certificate has no valid path. One code per failed check, most useful one reported.
_PATH: tuple[Reason, ...] = ()

# core.fitness: why a certificate with a good path isn't fit to encrypt mail for the recipient, or a remark on it.
_CERT: tuple[Reason, ...] = ()

# core.revocation: what the evidence says, or why it says nothing.
_REV: tuple[Reason, ...] = ()

# The message itself: why it can't be sealed as it is.
_MAIL: tuple[Reason, ...] = ()

# The system: full disk, dead process, exception.
_SYS: tuple[Reason, ...] = ()

CATALOGUE: dict[str, Reason] = {r.code: r for r in (*_OUTCOMES, *_PATH, *_CERT, *_REV, *_MAIL, *_SYS)}


def reason(code: str) -> Reason:
    """The catalogue's entry for ``code``. An unknown code is a bug and raises KeyError."""
    return CATALOGUE[code]
