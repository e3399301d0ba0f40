"""Which of several certificates for one mailbox is the best, and why the others aren't (facts of the choice: see ``_ORDER``).

The order is total and depends on nothing but the values, so two workers and tomorrow's run choose the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from postseal.core.address import Mailbox
from postseal.core.assess import Assessed, Origin
from postseal.core.fitness import addresses, key_family
from postseal.core.path import PathFault
from postseal.core.profile import profile, rsa_modulus
from postseal.core.revocation import Status
from postseal.core.suite import KeyFamily

_ORIGINS = tuple(Origin)


def _usability(assessed: Assessed) -> int:
    """0 is usable. Whether an UNKNOWN revocation status is good enough, policy decides."""
    if any(verdict.forbids for verdict in assessed.verdicts):
        return 3
    if isinstance(assessed.path, PathFault):
        return 2
    return 1 if any(finding.fatal for finding in assessed.findings) else 0


def _unknowns(assessed: Assessed) -> int:
    return int(not assessed.verdicts or any(v.status is not Status.GOOD for v in assessed.verdicts))


def _dual_use(assessed: Assessed) -> int:
    usage = profile(assessed.candidate.certificate).key_usage
    return int(usage is None or usage.digital_signature or usage.content_commitment)


def _weakness(assessed: Assessed) -> int:
    """Minus the strength in bits, roughly as NIST SP 800-57 part 1 §5.6.1.1 compares RSA with EC."""
    certificate = assessed.candidate.certificate
    family = key_family(certificate)
    if family is KeyFamily.RSA:
        size = rsa_modulus(certificate).bit_length()
        return -(size * 80 // 1024 if size < 2048 else 112 + (size - 2048) // 64)
    if family is KeyFamily.X25519:
        return -128
    try:
        key = certificate.x509.public_key()
    except Exception:
        return 0
    return -key.curve.key_size // 2 if isinstance(key, ec.EllipticCurvePublicKey) else 0


Criterion = tuple[Callable[[Assessed, Mailbox], Any], str]

# Lower is better. The words say what the loser lacks.
_ORDER: tuple[Criterion, ...] = (
    (lambda a, _: _usability(a), "it can't be used"),
    (lambda a, _: a.candidate.origin is not Origin.PIN, "another certificate is pinned for the address"),
    (lambda a, _: _ORIGINS.index(a.candidate.origin), "another certificate comes from a more trusted source"),
    (lambda a, _: _unknowns(a), "the revocation status of another certificate is known"),
    (
        lambda a, m: m not in addresses(a.candidate.certificate).mailboxes,
        "another certificate has the address in the same case",
    ),
    (lambda a, _: _dual_use(a), "another certificate is for encryption only"),
    (lambda a, _: -a.candidate.certificate.not_before.timestamp(), "another certificate is newer"),
    (lambda a, _: _weakness(a), "another certificate has a stronger key"),
    (
        lambda a, _: a.candidate.certificate.fingerprint,
        "another certificate has a lower fingerprint, all else being equal",
    ),
)


def ranked(assessed: Sequence[Assessed], mailbox: Mailbox) -> tuple[Assessed, ...]:
    """Best first: usable ones in the order of ``_ORDER``, then unfit ones, then those without a path, revoked ones last.

    The order doesn't depend on the order of ``assessed``.
    """
    if len(assessed) < 2:
        return tuple(assessed)
    return tuple(sorted(assessed, key=lambda a: tuple(measure(a, mailbox) for measure, _ in _ORDER)))


def why_not(winner: Assessed, loser: Assessed, mailbox: Mailbox) -> str:
    """Why ``loser`` stands behind ``winner``, as a clause for the log; empty when it doesn't."""
    for measure, words in _ORDER:
        ours, theirs = measure(winner, mailbox), measure(loser, mailbox)
        if ours != theirs:
            if ours > theirs:
                return ""
            return _unusable(loser) or words
    return ""


def losers(order: Sequence[Assessed], mailbox: Mailbox) -> tuple[tuple[Assessed, str], ...]:
    """Each but the first of ``ranked`` with the reason why it isn't the first."""
    return tuple((loser, why_not(order[0], loser, mailbox)) for loser in order[1:])


def _unusable(assessed: Assessed) -> str:
    """Why a certificate can't be used, in the words of the part that found out; empty for a usable one."""
    for verdict in assessed.verdicts:
        if verdict.forbids:
            return f"revoked: {verdict.detail or verdict.reason}"
    if isinstance(assessed.path, PathFault):
        return f"{assessed.path.code}: {assessed.path.detail}"
    return next((f"{f.code}: {f.detail}" for f in assessed.findings if f.fatal), "")
