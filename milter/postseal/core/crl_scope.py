"""Whether a CRL is meant for a certificate, and for which revocation reasons: RFC 5280 §6.3.3 (b) and (d).

A certificate says where its CRLs are (distribution points), a CRL what it is about (issuing distribution point). Both may name
a place relative to the CRL's issuer, and a certificate may leave its CRLs to another issuer than its own.
"""

from __future__ import annotations

from enum import Enum

from postseal.core.certificate_facts import CertificateFacts
from postseal.core.crl import Crl
from postseal.core.distribution import ALL_REASONS, DistributionPoint, PointName
from postseal.core.names import same_name, with_rdn


class Relation(Enum):
    """How a CRL comes to speak about a certificate."""

    NONE = 0
    ISSUER = 1
    """It is from the certificate's issuer."""
    APPOINTED = 2
    """A distribution point of the certificate names its issuer in cRLIssuer, and it says that it is indirect."""


def relation(certificate: CertificateFacts, crl: Crl) -> Relation:
    """CRL-2, RFC 5280 §6.3.3 (b)(1), by names alone: whose key signed it is another question."""
    if same_name(crl.issuer, certificate.issuer):
        return Relation.ISSUER
    if crl.indirect and any(_appoints(point, crl) for point in certificate.points or ()):
        return Relation.APPOINTED
    return Relation.NONE


def covered_reasons(certificate: CertificateFacts, crl: Crl) -> int | str:
    """The revocation reasons that the CRL covers for this certificate, or why it isn't meant for it."""
    scope = crl.scope
    if scope is None:
        # CRL-10, RFC 5280 §6.3.3 last paragraph: complete for every certificate of its issuer, wherever it came from.
        return ALL_REASONS
    # CRL-8, RFC 5280 §6.3.3 (b)(2)(ii) to (iv)
    if scope.only_attribute:
        return "it covers attribute certificates only"
    if scope.only_user and certificate.is_ca:
        return "it covers end entity certificates only"
    if scope.only_ca and not certificate.is_ca:
        return "it covers CA certificates only"
    issued = same_name(crl.issuer, certificate.issuer)
    mask = 0
    for point in certificate.points or ():
        # CRL-2: a point with a cRLIssuer is for this issuer's indirect CRLs, one without for those of the certificate's issuer.
        if not (_appoints(point, crl) and scope.indirect if point.elsewhere else issued):
            continue
        if scope.name is None or _same_place(certificate, crl, scope.name, point):
            mask |= point.reasons
    # The last paragraph of §6.3.3 adds a point with the name of the certificate's issuer and all reasons.
    if issued and (scope.name is None or _is_among(certificate.issuer, _directory_names(scope.name, (crl.issuer,)))):
        mask = ALL_REASONS
    if not mask:
        where = scope.name.text() if scope.name is not None else ""
        return f"its distribution point {where} isn't one of the certificate's" if where else "it is of another scope"
    # CRL-9, RFC 5280 §6.3.3 (d)
    return mask & scope.reasons


def names_the_place(certificate: CertificateFacts, crl: Crl) -> bool:
    """Does the CRL name one of the certificate's distribution points as its own?"""
    if crl.scope is None or crl.scope.name is None:
        return False
    return any(_same_place(certificate, crl, crl.scope.name, point) for point in certificate.points or ())


def _appoints(point: DistributionPoint, crl: Crl) -> bool:
    return _is_among(crl.issuer, point.crl_issuers)


def _same_place(certificate: CertificateFacts, crl: Crl, name: PointName, point: DistributionPoint) -> bool:
    """CRL-3, RFC 5280 §6.3.3 (b)(2)(i): one name is in both; without a name in the point, its cRLIssuer counts as one."""
    directory = _directory_names(name, (crl.issuer,))
    if point.name is None:
        return any(_is_among(issuer, directory) for issuer in point.crl_issuers)
    if set(name.uris()) & set(point.name.uris()) or set(name.others()) & set(point.name.others()):
        return True
    # CRL-12, RFC 5280 §4.2.1.13: a relative name continues that of the CRL issuer: the certificate's, unless another is named.
    theirs = _directory_names(point.name, point.crl_issuers or (certificate.issuer,))
    return any(_is_among(one, theirs) for one in directory)


def _directory_names(name: PointName, issuers: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if name.relative:
        return tuple(with_rdn(issuer, name.relative) for issuer in issuers)
    return name.directory_names()


def _is_among(name: bytes, names: tuple[bytes, ...]) -> bool:
    return any(same_name(name, other) for other in names)
