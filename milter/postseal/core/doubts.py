"""What doubt comes to: an unknown revocation status, the knobs of the rule and of the installation, and how long it has lasted.

Each group of causes (``verdict.Doubt``) has its own knob, and so has the OCSP answer "unknown". A rule's own knob decides;
then, for certificates that declare no source, that of the trust anchor; then ``revocation = "strict"``, which lets nothing
pass that isn't known; then the general knob. Nothing here ever leads to clear text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from postseal.core.der import later
from postseal.core.verdict import Doubt, OnNoneDeclared, Verdict

NONE_DECLARED, OCSP_UNKNOWN = "rev.none-declared", "rev.ocsp-unknown"


class OnDoubt(StrEnum):
    """What to do with a certificate whose status is unknown: use it and warn, wait, or not use it."""

    WARN = "warn"
    DEFER = "defer"
    REFUSE = "refuse"


class Done(StrEnum):
    """What is done. ACCEPT and WARN use the certificate."""

    ACCEPT = "accept"
    WARN = "warn"
    DEFER = "defer"
    REFUSE = "refuse"
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True)
class DoubtKnobs:
    """The knobs of one rule; None leaves it to the next who has a say."""

    on_unavailable: OnDoubt | None = None
    on_suspicious: OnDoubt | None = None
    on_none_declared: OnNoneDeclared | None = None
    on_ocsp_unknown: OnDoubt | None = None


NO_KNOBS = DoubtKnobs()


@dataclass(frozen=True, slots=True)
class DoubtSettings:
    """The general knobs, and the limits in time."""

    on_suspicious: OnDoubt = OnDoubt.WARN
    on_none_declared: OnNoneDeclared = OnNoneDeclared.WARN
    on_unavailable: OnDoubt = OnDoubt.WARN
    on_ocsp_unknown: OnDoubt = OnDoubt.REFUSE
    give_up: timedelta = timedelta(hours=24)
    stale_grace: timedelta = timedelta(hours=24)
    ca_stale_grace: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Situation:
    """Who asks. ``strict`` is revocation = "strict"; ``anchor`` what the trust anchor says of certificates without a source.

    ``since`` is the moment at which mail for this certificate was first deferred in this doubt; None: now.
    """

    strict: bool
    knobs: DoubtKnobs
    anchor: OnNoneDeclared | None
    since: datetime | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """``by`` names what decided, as the administrator wrote it. ``error``: worth an error in the log, not only a warning."""

    done: Done
    by: str
    error: bool = False


def resolve(verdict: Verdict, for_ca: bool, situation: Situation, settings: DoubtSettings) -> Answer:
    """What an unknown status of a certificate comes to; ``for_ca`` tells that it is the certificate of a CA."""
    done, by = _knob(verdict, situation, settings)
    error = verdict.doubt is Doubt.SUSPICION or verdict.alarming
    if verdict.reason == "rev.stale" and verdict.doubt is Doubt.AVAILABILITY and not situation.strict:
        grace = settings.ca_stale_grace if for_ca else settings.stale_grace
        # CACHE-6: a CA that is late with its CRL must not stop mail at once. OCSP answers have no such grace.
        if verdict.expired_at is not None and situation.at <= later(verdict.expired_at, grace):
            return Answer(Done.WARN, "ca_stale_grace" if for_ca else "stale_grace", error)
        error = True
    if done is Done.DEFER and situation.since is not None and situation.at - situation.since >= settings.give_up:
        return Answer(Done.GIVE_UP, f"{by}, give_up", error)
    return Answer(done, by, error)


def _knob(verdict: Verdict, situation: Situation, settings: DoubtSettings) -> tuple[Done, str]:
    """The first who has a say, and how he is called."""
    knobs = situation.knobs
    own: OnDoubt | OnNoneDeclared | None
    general: OnDoubt | OnNoneDeclared
    name, own, general = "on_unavailable", knobs.on_unavailable, settings.on_unavailable
    strictly = OnDoubt.DEFER
    if verdict.doubt is Doubt.SUSPICION:
        name, own, general = "on_suspicious", knobs.on_suspicious, settings.on_suspicious
    elif verdict.reason == NONE_DECLARED:
        name, own, general = "on_none_declared", knobs.on_none_declared, settings.on_none_declared
        own = own or situation.anchor
        # To wait is of no use where nobody will ever say anything.
        strictly = OnDoubt.REFUSE
    elif verdict.reason == OCSP_UNKNOWN:
        name, own, general = "on_ocsp_unknown", knobs.on_ocsp_unknown, settings.on_ocsp_unknown
        strictly = OnDoubt.REFUSE
    if own is not None:
        return Done(own.value), f"{name}={own.value}"
    if situation.strict and general.value in (Done.ACCEPT, Done.WARN):
        return Done(strictly.value), "revocation=strict"
    by = "revocation=soft" if general.value == Done.WARN and name == "on_unavailable" else f"{name}={general.value}"
    return Done(general.value), by


def may_defer(strict: bool, knobs: DoubtKnobs, settings: DoubtSettings) -> bool:
    """Can doubt make mail wait under these knobs? Only then it must be known since when there is doubt."""
    own = (knobs.on_unavailable, knobs.on_suspicious, knobs.on_ocsp_unknown)
    general = (settings.on_unavailable, settings.on_suspicious, settings.on_ocsp_unknown)
    return strict or OnDoubt.DEFER in own or OnDoubt.DEFER in general
