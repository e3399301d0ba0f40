"""Verdicts on one certificate, and the settings by which they are reached. ``revocation`` offers these names too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from postseal.core.certs import Certificate


class Status(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Order(StrEnum):
    """Which source decides first (RPL-1)."""

    CRL_FIRST = "crl-first"
    OCSP_FIRST = "ocsp-first"
    CRL_ONLY = "crl-only"
    OCSP_ONLY = "ocsp-only"
    BOTH = "both"


class UseDeltas(StrEnum):
    """CRL-18, RFC 5280 §6.3.1 (b): are delta CRLs looked at, and must there be a current one where one is announced?"""

    NO = "no"
    YES = "yes"
    REQUIRE = "require"


class Nonce(StrEnum):
    """OCSP-13: does a request carry a nonce, and must the answer?"""

    OFF = "off"
    ON = "on"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class Responder:
    """OCSP-7 (a): a certificate that signs OCSP answers for the CA whose key is ``issuer_key``, says the administrator."""

    issuer_key: str
    certificate: Certificate


class Doubt(StrEnum):
    """Why a status is unknown, in groups that an administrator decides about: each has its own knob.

    AVAILABILITY: there is no evidence that can be used now; tomorrow there may be. SUSPICION: what is there looks forged.
    ABSENCE: nobody offers to say anything about the certificate.
    """

    AVAILABILITY = "availability"
    SUSPICION = "suspicion"
    ABSENCE = "absence"


SUSPICIOUS = frozenset(
    {"rev.bad-signature", "rev.wrong-issuer", "rev.rollback", "rev.unauthorized-responder", "rev.wrong-nonce"}
)
_ABSENCE = frozenset({"rev.none-declared", "rev.ocsp-unknown"})


class OnNoneDeclared(StrEnum):
    """What ``soft`` does with a certificate that names no revocation source."""

    ACCEPT = "accept"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about one certificate at one moment.

    ``reason`` is a ``rev.*`` code (rev.crl, rev.ocsp for GOOD; rev.unreachable, rev.timeout, rev.stale, rev.bad-signature …
    for UNKNOWN). ``source`` is the URL or ``file:NAME`` of the deciding evidence. ``suspicious`` marks what looks like an
    attack (bad signature, wrong issuer, unauthorised responder). ``detail`` is one clause in words, for the log.
    ``usable_until`` is the moment at which the evidence ends to be good for this verdict; None for UNKNOWN.
    ``expired_at`` is set for rev.stale alone, when a CRL would have said GOOD until then (CACHE-6: never for OCSP).
    ``alarming`` marks an unknown status of a CA that always had fresh evidence until now (RPL-6).
    """

    status: Status
    reason: str
    detail: str = ""
    source: str = ""
    this_update: datetime | None = None
    next_update: datetime | None = None
    revoked_at: datetime | None = None
    revocation_reason: str = ""
    suspicious: bool = False
    usable_until: datetime | None = None
    expired_at: datetime | None = None
    alarming: bool = False

    @property
    def doubt(self) -> Doubt | None:
        """The group of an unknown status; None when it isn't unknown."""
        if self.status is not Status.UNKNOWN:
            return None
        if self.suspicious or self.reason in SUSPICIOUS:
            return Doubt.SUSPICION
        return Doubt.ABSENCE if self.reason in _ABSENCE else Doubt.AVAILABILITY

    @property
    def forbids(self) -> bool:
        """Must nothing be sealed for the certificate, whatever the rule says? Revoked, or listed as CRL-13 means it."""
        return self.status is Status.REVOKED or self.reason == "rev.listed-unsupported"


@dataclass(frozen=True, slots=True)
class RevocationSettings:
    """How evidence is judged; one instance per configuration."""

    order: Order = Order.CRL_FIRST
    skew: timedelta = timedelta(minutes=5)
    max_age_without_next_update: timedelta = timedelta(hours=24)
    weak_keys: bool = False
    max_crl_age: timedelta = timedelta(days=35)
    """A CRL isn't believed longer than this after thisUpdate when it decides about an end entity (CRL-24)."""
    max_ca_crl_age: timedelta = timedelta(days=400)
    """The same when it decides about a CA certificate."""
    use_deltas: UseDeltas = UseDeltas.YES
    short_lived: timedelta = timedelta(0)
    """End entities with noRevAvail (RFC 9608) that live no longer need no evidence (RPL-7); zero: none."""
    nonce: Nonce = Nonce.OFF
    responders: tuple[Responder, ...] = ()
    public: bool = False
    """The anchor is a public CA: its OCSP responders must be exempt from revocation or provably not revoked (OCSP-10)."""
    ldap: bool = False
    """Distribution points in directories are sources too (CRL-28)."""
    clock: datetime | None = None
    """What the clock says when evidence is judged for an earlier moment; None: that is now."""
