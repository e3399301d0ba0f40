"""Delta CRLs: which one may be laid over which base (RFC 5280 §5.2.4 and §6.3.3 (c)), and what the two say together.

A delta alone is never a reason for GOOD. What it lists is revoked all the same, whether its base is at hand or not.
"""

from __future__ import annotations

from collections.abc import Iterable

from postseal.core.crl import Crl, Entry

REMOVED = "removeFromCRL"
HOLD = "certificateHold"


def applies(base: Crl, delta: Crl) -> bool:
    """May ``delta`` be laid over ``base``? Both are signed with the same key, which the caller has seen to (§6.3.3 (h))."""
    # CRL-17: RFC 5280 §5.2.4 (a) to (d), and §5.2.3: a CRL without a number can't be put in an order.
    if base.number is None or delta.number is None or delta.delta_base is None or base.delta_base is not None:
        return False
    # (b), §6.3.3 (c)(2): the same scope, octet by octet; (c)(3): the same authority key identifier.
    if (base.idp or b"") != (delta.idp or b"") or base.authority_key != delta.authority_key:
        return False
    # (c) and (d): the base has all that the delta builds on, and the delta is the newer of the two.
    return delta.delta_base <= base.number < delta.number


def latest(base: Crl, deltas: Iterable[Crl]) -> Crl | None:
    """The newest delta that applies to ``base``."""
    found = [delta for delta in deltas if applies(base, delta)]
    return max(found, key=lambda delta: (delta.number or 0, delta.this_update), default=None)


def lifts(listed: Entry, change: Entry | None) -> bool:
    """Does the delta's entry ``change`` take ``listed`` off the base?"""
    # CRL-19, RFC 5280 §5.3.1: removeFromCRL ends a hold, and no other revocation.
    return change is not None and change.reason == REMOVED and listed.reason == HOLD
