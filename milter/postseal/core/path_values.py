"""Trust anchors, paths and the settings of path validation, as values. ``path`` offers these names too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from postseal.core.certs import Certificate
from postseal.core.policies import ANY_INPUTS, NO_OUTCOME, Policies, PolicyInputs
from postseal.core.verdict import OnNoneDeclared, Order

SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AnchorSettings:
    """What one anchor is trusted for in mail, and how certificates below it are asked about.

    ``domains`` are the mail domains that it may speak for, ``excluded_domains`` those that it may not: ``example.org`` is
    that domain, ``.example.org`` its subdomains; no ``domains`` are all. Certificates issued after ``distrust_after`` aren't
    trusted (PRE-4). A path needs one of ``required_policies``, if there are any (CERT-17). ``expired`` lets it vouch after
    its own certificate has ended. ``public`` tells a public CA, for which the rules of public CAs hold. ``order`` and
    ``on_none_declared`` take the place of the general settings where they aren't None.
    """

    domains: tuple[str, ...] = ()
    excluded_domains: tuple[str, ...] = ()
    order: Order | None = None
    distrust_after: datetime | None = None
    required_policies: frozenset[str] = frozenset()
    expired: bool = False
    public: bool = False
    on_none_declared: OnNoneDeclared | None = None


_DEFAULTS = AnchorSettings()


@dataclass(frozen=True, slots=True)
class Anchor:
    """A trust anchor: its name and key count, not its own signature (RFC 5280 §6.1.1 (d)).

    A certificate that is made an anchor has a path of one: itself, whoever issued it. Limits are added, as RFC 5280 §6.2
    permits: those that the anchor's certificate states of itself, as RFC 5937 tells, and those of ``settings``. A certificate
    that doesn't say that it is a CA vouches for itself only. Trusting one person's self-signed certificate must not make
    that person a CA.
    """

    certificate: Certificate
    label: str = ""
    settings: AnchorSettings = _DEFAULTS


@dataclass(frozen=True, slots=True)
class Path:
    """A validated path, leaf first; ``anchor`` is not part of ``certificates``. Made by ``build_paths`` only.

    ``policies`` is the outcome of RFC 5280 §6.1.6.
    """

    certificates: tuple[Certificate, ...]
    anchor: Anchor
    policies: Policies = NO_OUTCOME

    @property
    def leaf(self) -> Certificate:
        return self.certificates[0]

    def issuer_of(self, index: int) -> Certificate:
        """The certificate that issued ``certificates[index]``; the anchor's for the last."""
        return self.certificates[index + 1] if index + 1 < len(self.certificates) else self.anchor.certificate


@dataclass(frozen=True, slots=True)
class PathFault:
    """Why there is no valid path: the most useful fault of all paths tried. ``code`` is a ``path.*`` reason."""

    code: str
    detail: str
    certificate: Certificate | None = None
    tried: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class PathSettings:
    """``email_protection`` asks nested EKU emailProtection (CERT-11); ``weak_keys`` admits RSA under 2048 bits and SHA-1.

    ``skew`` is how far notBefore may lie ahead (CERT-15). ``max_length`` counts the certificates of a path without its
    anchor; ``max_signatures`` different signatures are verified and ``max_candidates`` issuers looked at, and
    ``max_comparisons`` is the product of names and name constraints that are compared (PRE-6).
    ``policies`` are the inputs of policy processing; an anchor's required policies narrow them.
    """

    email_protection: bool = True
    weak_keys: bool = False
    max_length: int = 10
    max_signatures: int = 100
    max_candidates: int = 300
    max_comparisons: int = 1 << 20
    skew: timedelta = SKEW
    policies: PolicyInputs = ANY_INPUTS
