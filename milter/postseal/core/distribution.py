"""Distribution points: what a certificate says about its CRLs, and what a CRL says about its certificates.

RFC 5280 §4.2.1.13 (CRLDistributionPoints) and §5.2.5 (IssuingDistributionPoint). Names are kept as DER so that they can
be compared without being understood.
"""

from __future__ import annotations

from dataclasses import dataclass

from postseal.core.der import SEQUENCE, SET, BadDer, Cursor, context, tlv

_URI, _DIRECTORY = context(6, False), context(4)
_MAX_POINTS, _MAX_NAMES = 32, 32

REASONS = (
    "unused",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
)
ALL_REASONS = 0b1_1111_1110
"""Bit n stands for bit n of ReasonFlags; bit 0 is unused there (RFC 5280 §4.2.1.13)."""


def reason_names(mask: int) -> str:
    return ", ".join(name for bit, name in enumerate(REASONS) if mask >> bit & 1)


@dataclass(frozen=True, slots=True)
class PointName:
    """DistributionPointName: full names (DER of each GeneralName), or a name relative to the CRL issuer.

    ``relative`` is the DER of a RelativeDistinguishedName (a SET), empty for a full name.
    """

    full: tuple[bytes, ...] = ()
    relative: bytes = b""

    def uris(self) -> tuple[bytes, ...]:
        return tuple(_comparable_uri(n) for n in self.full if n[0] == _URI)

    def directory_names(self) -> tuple[bytes, ...]:
        """DER Names of the directoryName alternatives."""
        return tuple(Cursor(n).enter(_DIRECTORY).raw(SEQUENCE) for n in self.full if n[0] == _DIRECTORY)

    def others(self) -> tuple[bytes, ...]:
        return tuple(n for n in self.full if n[0] not in (_URI, _DIRECTORY))

    def urls(self) -> tuple[str, ...]:
        """The URIs as they are written; what isn't ASCII is left out."""
        found = (Cursor(n).content(_URI) for n in self.full if n[0] == _URI)
        return tuple(uri.decode("ascii") for uri in found if uri.isascii())

    def text(self) -> str:
        """The URIs, for people. Hostile text."""
        return ", ".join(Cursor(n).content(_URI).decode("ascii", "replace") for n in self.full if n[0] == _URI)


@dataclass(frozen=True, slots=True)
class IssuingPoint:
    """IssuingDistributionPoint: the scope of a CRL."""

    name: PointName | None = None
    only_user: bool = False
    only_ca: bool = False
    only_attribute: bool = False
    indirect: bool = False
    reasons: int = ALL_REASONS


@dataclass(frozen=True, slots=True)
class DistributionPoint:
    """One DistributionPoint of a certificate. ``crl_issuers`` are the DER Names of its cRLIssuer (RFC 5280 §4.2.1.13).

    ``elsewhere`` tells that there is a cRLIssuer field, also when no directory name is in it.
    """

    name: PointName | None
    reasons: int
    crl_issuers: tuple[bytes, ...] = ()
    elsewhere: bool = False


def _comparable_uri(name: bytes) -> bytes:
    # RFC 5280 §7.4: scheme and host are compared without case.
    uri = Cursor(name).content(_URI)
    scheme, mark, rest = uri.partition(b"://")
    host, slash, path = rest.partition(b"/")
    return scheme.lower() + mark + host.lower() + slash + path if mark else uri


def _point_name(cursor: Cursor) -> PointName:
    tag = cursor.peek()
    if tag == context(1):
        relative = tlv(SET, cursor.content(context(1)))
        cursor.finish()
        return PointName(relative=relative)
    names = cursor.enter(context(0))
    cursor.finish()
    full = tuple(bytes(names.data[e.start : e.end]) for e in names.children(limit=_MAX_NAMES))
    if not full:
        raise BadDer("a distribution point name is empty")
    return PointName(full)


def _reason_mask(content: bytes) -> int:
    if len(content) < 2 or content[0] > 7 or len(content) > 5:
        raise BadDer("broken ReasonFlags")
    mask = 0
    for bit in range((len(content) - 1) * 8 - content[0]):
        if content[1 + bit // 8] >> (7 - bit % 8) & 1:
            mask |= 1 << bit
    return mask & ALL_REASONS


def _implicit_boolean(cursor: Cursor, number: int) -> bool:
    if cursor.peek() != context(number, False):
        return False
    content = cursor.content(context(number, False))
    if content not in (b"\x00", b"\xff"):
        raise BadDer("a BOOLEAN is neither 00 nor FF")
    return content == b"\xff"


def _directory_names(names: Cursor) -> tuple[bytes, ...]:
    """The DER Names among GeneralNames, ``names`` being inside of the SEQUENCE."""
    found = names.children(limit=_MAX_NAMES)
    return tuple(names.inside(e).raw(SEQUENCE) for e in found if e.tag == _DIRECTORY)


def parse_general_names(value: bytes) -> tuple[bytes, ...]:
    """The DER Names among the GeneralNames of an extension (certificateIssuer, RFC 5280 §5.3.3). Raises BadDer."""
    outer = Cursor(value)
    names = outer.enter()
    outer.finish()
    return _directory_names(names)


def parse_issuing_point(value: bytes) -> IssuingPoint:
    """The value of an IssuingDistributionPoint extension. Raises BadDer."""
    outer = Cursor(value)
    body = outer.enter()
    outer.finish()
    name = _point_name(body.enter(context(0))) if body.peek() == context(0) else None
    only_user = _implicit_boolean(body, 1)
    only_ca = _implicit_boolean(body, 2)
    reasons = _reason_mask(body.content(context(3, False))) if body.peek() == context(3, False) else ALL_REASONS
    indirect = _implicit_boolean(body, 4)
    only_attribute = _implicit_boolean(body, 5)
    body.finish()
    # RFC 5280 §5.2.5: at most one of the three may be TRUE.
    if only_user + only_ca + only_attribute > 1:
        raise BadDer("the issuing distribution point limits the CRL to several kinds of certificates at once")
    return IssuingPoint(name, only_user, only_ca, only_attribute, indirect, reasons)


def parse_distribution_points(value: bytes) -> tuple[DistributionPoint, ...]:
    """The value of a CRLDistributionPoints (or FreshestCRL) extension. Raises BadDer."""
    outer = Cursor(value)
    body = outer.enter()
    outer.finish()
    points: list[DistributionPoint] = []
    for element in body.children(SEQUENCE, _MAX_POINTS):
        point = body.inside(element)
        name = _point_name(point.enter(context(0))) if point.peek() == context(0) else None
        reasons = _reason_mask(point.content(context(1, False))) if point.peek() == context(1, False) else ALL_REASONS
        elsewhere = point.peek() == context(2)
        issuers = _directory_names(point.enter(context(2))) if elsewhere else ()
        point.finish()
        points.append(DistributionPoint(name, reasons, issuers, elsewhere))
    return tuple(points)
