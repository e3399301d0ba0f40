"""CRLs: strict parsing, scope, look-up of an entry (RFC 5280 §5). Signatures and authority are judged in ``revocation``.

A CRL may hold a million entries, so these are walked over once, when it is parsed, and only what judging needs is kept:
where each entry begins, and whether any of them has an extension that isn't understood. One entry is decoded on a hit.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from postseal.core import signature
from postseal.core.der import (
    BIT_STRING,
    ENUMERATED,
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    BadDer,
    Cursor,
    Extension,
    canonical_integer,
    context,
    extensions,
    header,
)
from postseal.core.distribution import (
    REASONS,
    DistributionPoint,
    IssuingPoint,
    parse_distribution_points,
    parse_general_names,
    parse_issuing_point,
)
from postseal.core.errors import BadData
from postseal.core.names import same_name

_AKI, _NUMBER, _IDP, _DELTA, _FRESHEST = "2.5.29.35", "2.5.29.20", "2.5.29.28", "2.5.29.27", "2.5.29.46"
# CRL-18: a pointer to delta CRLs doesn't spoil the base, RFC 5280 §6.3.1 (b) makes their use an option.
_UNDERSTOOD = frozenset({_AKI, _NUMBER, _IDP, _DELTA, _FRESHEST, "2.5.29.18", "1.3.6.1.5.5.7.1.1"})
_REASON, _HOLD_INSTRUCTION, _INVALIDITY, _CERTIFICATE_ISSUER = "2.5.29.21", "2.5.29.23", "2.5.29.24", "2.5.29.29"
_ENTRY_UNDERSTOOD = frozenset({_REASON, _HOLD_INSTRUCTION, _INVALIDITY, _CERTIFICATE_ISSUER})
_MAX_ODD_SERIALS = 1000
# Entry extensions as nearly every CA writes them: reasonCode, then perhaps invalidityDate, nothing critical.
_PLAIN_EXTENSIONS = re.compile(
    rb"\x30.(?:\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x0a\x01.)?(?:\x30\x18\x06\x03\x55\x1d\x18\x04\x11\x18\x0f\d{14}Z)?",
    re.DOTALL,
)
_MAX_REMEMBERED = 4096
_MAX_ISSUERS = 65536


@dataclass(frozen=True, slots=True)
class Entry:
    """One revoked certificate. ``reason`` is a CRLReason name, "unspecified" when the CRL gives none.

    ``reason`` "removeFromCRL" says that a delta takes the certificate off its base (CRL-19).
    """

    revoked_at: datetime | None
    reason: str
    invalid_since: datetime | None


@dataclass(slots=True)
class IssuerGroups:
    """RFC 5280 §5.3.3: from offset ``starts[n]`` on, entries belong to the issuers ``names[which[n]]`` (DER Names)."""

    starts: array[int] = field(default_factory=lambda: array("I"))
    which: array[int] = field(default_factory=lambda: array("I"))
    names: list[tuple[bytes, ...]] = field(default_factory=list)
    not_critical: bool = False
    _known: dict[bytes, int] = field(default_factory=dict)

    def begin(self, at: int, value: bytes, critical: bool) -> None:
        """An entry at offset ``at`` has the certificateIssuer extension ``value``. Raises BadDer."""
        if value not in self._known:
            if len(self.names) >= _MAX_ISSUERS:
                raise BadDer(f"entries of more than {_MAX_ISSUERS} issuers")
            self._known[value] = len(self.names)
            self.names.append(parse_general_names(value))
        self.starts.append(at)
        self.which.append(self._known[value])
        self.not_critical |= not critical

    def of(self, at: int) -> tuple[bytes, ...] | None:
        """The issuers of the entry at offset ``at``; None: the CRL's own."""
        group = bisect_right(self.starts, at) - 1
        return None if group < 0 else self.names[self.which[group]]


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """A parsed CRL. Equal when the bytes are equal. Made by ``parse_crl`` only.

    ``issuer`` is the DER Name, ``idp`` the value of the issuing distribution point extension, ``number`` the CRLNumber.
    """

    der: bytes = field(repr=False)
    sha256: str
    issuer: bytes
    this_update: datetime
    next_update: datetime | None
    number: int | None
    authority_key_id: bytes | None
    idp: bytes | None
    entry_count: int
    tbs: tuple[int, int] = field(repr=False, default=(0, 0))
    algorithm: bytes = field(repr=False, default=b"")
    signature: bytes = field(repr=False, default=b"")
    scope: IssuingPoint | None = None
    delta_base: int | None = None
    unknown_critical: tuple[str, ...] = ()
    """Dotted OIDs of critical CRL extensions that aren't understood (CRL-13)."""
    unknown_critical_entry: str = ""
    """Dotted OID of a critical extension in any entry that isn't understood (CRL-14)."""
    _starts: array[int] = field(repr=False, default_factory=lambda: array("I"))
    _odd: tuple[int, ...] = field(repr=False, default=())
    freshest: tuple[DistributionPoint, ...] = ()
    """Where delta CRLs of it are (RFC 5280 §5.2.6); empty also when that can't be read (CRL-18)."""
    authority_key: bytes | None = None
    """The value of the authority key identifier extension as it is (RFC 5280 §5.2.4 (c) compares it)."""
    _groups: IssuerGroups = field(repr=False, default_factory=IssuerGroups)
    _located: dict[tuple[bytes, bytes | None], int] = field(repr=False, default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crl) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def indirect(self) -> bool:
        """Does it say that it may carry entries of other issuers (indirectCRL, RFC 5280 §5.2.5)?"""
        return self.scope is not None and self.scope.indirect

    @property
    def carries_others(self) -> bool:
        """Does any entry name an issuer (CRL-15)?"""
        return bool(self._groups.starts)

    @property
    def issuer_not_critical(self) -> bool:
        """CRL-15: is the issuer of an entry named in an extension that isn't critical, as RFC 5280 §5.3.3 demands?"""
        return self._groups.not_critical

    def find(self, serial: bytes, issuer: bytes | None = None) -> Entry | None:
        """The entry of a serial number, given as canonical content octets of its DER INTEGER (CRL-16).

        ``issuer`` is the DER Name of the certificate's issuer, None the CRL's own (CRL-15: both must match).
        """
        if issuer == self.issuer:
            issuer = None
        at = self._located.get((serial, issuer))
        if at is None:
            at = self._locate(serial, issuer)
            # A search through a million entries takes 10 ms; a gateway asks about the same certificates again and again.
            if len(self._located) >= _MAX_REMEMBERED:
                self._located.clear()
            self._located[serial, issuer] = at
        return None if at < 0 else _read_entry(self.der, at)

    def _locate(self, serial: bytes, issuer: bytes | None) -> int:
        """Offset of the entry, or -1."""
        own = issuer is None or same_name(issuer, self.issuer)
        if not own and not self._groups.starts:
            return -1
        for at in self._all_of(serial):
            # RFC 5280 §5.3.3: the first entries are the CRL issuer's; a named issuer holds until the next is named.
            names = self._groups.of(at)
            if own if names is None else any(same_name(n, issuer or self.issuer) for n in names):
                return at
        return -1

    def _all_of(self, serial: bytes) -> Iterator[int]:
        """Offsets of all entries of a number. The raw search is exact: a match counts only where an entry's serial is."""
        if not self._starts:
            return
        for at in self._odd:
            if canonical_integer(_serial_of(self.der, at)) == serial:
                yield at
        end = header(self.der, self._starts[-1], len(self.der)).end
        pattern = bytes((INTEGER, len(serial))) + serial
        found = self.der.find(pattern, self._starts[0], end)
        while found >= 0:
            start = self._starts[bisect_right(self._starts, found) - 1]
            if header(self.der, start, end).body == found:
                yield start
            found = self.der.find(pattern, found + 1, end)


def parse_crl(blob: bytes, max_size: int = 64 * 1024 * 1024) -> Crl:
    """DER, or PEM or base64 that holds exactly one DER object (CRL-1). Raises BadData with the cause."""
    if len(blob) > max_size:
        raise BadData(f"the CRL has {len(blob)} octets, more than the {max_size} that are allowed")
    der = _unarmour(bytes(blob))
    try:
        return _parse(der)
    except BadDer as exc:
        raise BadData(f"not a CRL that RFC 5280 allows: {exc}") from exc


def _unarmour(blob: bytes) -> bytes:
    """DER from what a server sent: some send PEM or bare base64 (CRL-1)."""
    if blob[:1] == b"\x30" and not re.fullmatch(rb"[A-Za-z0-9+/=\s]{8,}", blob[:256]):
        return blob
    text = blob.strip()
    if not text:
        raise BadData("empty instead of a CRL")
    if text[:1] == b"<":
        raise BadData("an HTML or XML page instead of a CRL")
    if text.startswith(b"-----BEGIN"):
        match = re.fullmatch(rb"-----BEGIN X509 CRL-----\s([A-Za-z0-9+/=\s]*)-----END X509 CRL-----", text)
        if match is None:
            raise BadData("PEM that doesn't hold exactly one X509 CRL")
        text = match[1]
    try:
        der = binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except binascii.Error:
        raise BadData("neither DER nor PEM nor base64, so not a CRL") from None
    if der[:1] != b"\x30":
        raise BadData("neither DER nor PEM nor base64 of DER, so not a CRL")
    return der


def _parse(der: bytes) -> Crl:
    outer = Cursor(der)
    certificate_list = outer.enter()
    outer.finish()
    tbs = certificate_list.take(SEQUENCE)
    algorithm = certificate_list.raw(SEQUENCE)
    bits = certificate_list.content(BIT_STRING)
    certificate_list.finish()
    body = certificate_list.inside(tbs)
    # CRL-1, RFC 5280 §5.1.2.1: version 2; a CRL without the field is version 1.
    if body.peek() != INTEGER or body.integer() != 1:
        raise BadDer("it is version 1, only version 2 is accepted (with openssl ca, set crlnumber)")
    # RFC 5280 §5.1.1.2: the signed algorithm is the algorithm of the signature.
    if body.raw(SEQUENCE) != algorithm:
        raise BadDer("the signature algorithms inside and outside of the signed part differ")
    signature.parse_algorithm(algorithm)
    issuer = body.raw(SEQUENCE)
    this_update = body.time()
    next_update = body.time() if body.peek() in (UTC_TIME, GENERALIZED_TIME) else None
    # CRL-22
    if next_update is not None and next_update < this_update:
        raise BadDer("nextUpdate is before thisUpdate")
    walked = _Walk()
    if body.peek() == SEQUENCE:
        listed = body.take(SEQUENCE)
        walked.walk(der, listed.body, listed.end)
    found: dict[str, Extension] = {}
    if body.peek() == context(0):
        wrapper = body.enter(context(0))
        found = extensions(wrapper.enter())
        wrapper.finish()
    body.finish()
    idp = found[_IDP].value if _IDP in found else None
    return Crl(
        der=der,
        sha256=hashlib.sha256(der).hexdigest(),
        issuer=issuer,
        this_update=this_update,
        next_update=next_update,
        number=_number(found.get(_NUMBER)),
        authority_key_id=_key_identifier(found.get(_AKI)),
        idp=idp,
        entry_count=len(walked.starts),
        tbs=(tbs.start, tbs.end),
        algorithm=algorithm,
        # A signature that isn't whole octets is a wrong signature, not a malformed CRL.
        signature=bits[1:] if bits[:1] == b"\x00" else b"",
        scope=None if idp is None else parse_issuing_point(idp),
        delta_base=_number(found.get(_DELTA)),
        unknown_critical=tuple(e.oid for e in found.values() if e.critical and e.oid not in _UNDERSTOOD),
        unknown_critical_entry=walked.unknown_critical,
        _starts=walked.starts,
        _odd=tuple(walked.odd),
        freshest=_freshest(found.get(_FRESHEST)),
        authority_key=found[_AKI].value if _AKI in found else None,
        _groups=walked.groups,
    )


def _freshest(extension: Extension | None) -> tuple[DistributionPoint, ...]:
    # CRL-18: deltas are an option; a pointer that can't be read takes nothing away from the base.
    try:
        return parse_distribution_points(extension.value) if extension is not None else ()
    except BadDer:
        return ()


def _number(extension: Extension | None) -> int | None:
    if extension is None:
        return None
    cursor = Cursor(extension.value)
    value = cursor.integer()
    cursor.finish()
    # RFC 5280 §5.2.3: at most 20 octets, never negative.
    if value < 0 or value.bit_length() > 160:
        raise BadDer("the CRL number is negative or has more than 20 octets")
    return value


def _key_identifier(extension: Extension | None) -> bytes | None:
    """keyIdentifier of an AuthorityKeyIdentifier (RFC 5280 §4.2.1.1)."""
    if extension is None:
        return None
    body = Cursor(extension.value).enter()
    return body.content(context(0, False)) if body.peek() == context(0, False) else None


class _Walk:
    """The one pass over all entries: checks their shape, remembers where they begin."""

    __slots__ = ("_seen", "groups", "odd", "starts", "unknown_critical")

    def __init__(self) -> None:
        self.starts: array[int] = array("I")
        self.odd: list[int] = []
        self.groups = IssuerGroups()
        self.unknown_critical = ""
        self._seen: set[bytes] = set()

    def walk(self, data: bytes, at: int, end: int) -> None:
        remember = self.starts.append
        seen = self._seen
        try:
            while at < end:
                # The usual shape, inlined because it runs once per entry: SEQUENCE with a short length, INTEGER, UTCTime.
                size = data[at + 1]
                if size > 0x7F or data[at] != SEQUENCE:
                    element = header(data, at, end)
                    if element.tag != SEQUENCE:
                        raise BadDer(f"an entry isn't a SEQUENCE at offset {at}")
                    body, stop = element.body, element.end
                else:
                    body, stop = at + 2, at + 2 + size
                length = data[body + 1]
                if data[body] != INTEGER or not 0 < length < 0x80 or stop > end:
                    raise BadDer(f"broken entry at offset {at}")
                first = data[body + 2]
                if not 0 < first < 0xFF:
                    self._check_serial(data, at, body)
                time_at = body + 2 + length
                kind = data[time_at]
                after = time_at + 2 + data[time_at + 1]
                if (kind != UTC_TIME and kind != GENERALIZED_TIME) or after > stop:
                    raise BadDer(f"an entry without a revocation date at offset {at}")
                if after != stop and data[after:stop] not in seen:
                    self._check_extensions(data, at, after, stop)
                remember(at)
                at = stop
        except IndexError:
            raise BadDer("the list of entries ends inside an entry") from None

    def _check_serial(self, data: bytes, at: int, body: int) -> None:
        # CRL-16: old CAs wrote superfluous leading octets; compare such serials in their canonical form.
        content = data[body + 2 : body + 2 + data[body + 1]]
        if canonical_integer(content) != content:
            self.odd.append(at)
            if len(self.odd) > _MAX_ODD_SERIALS:
                raise BadDer(f"more than {_MAX_ODD_SERIALS} serial numbers that aren't minimal")

    def _check_extensions(self, data: bytes, at: int, after: int, stop: int) -> None:
        if data[after + 1] == stop - after - 2 and _PLAIN_EXTENSIONS.fullmatch(data, after, stop):
            return
        wrapper = Cursor(data, after, stop)
        found = extensions(wrapper.enter(), 16)
        wrapper.finish()
        if _CERTIFICATE_ISSUER in found:
            self.groups.begin(at, found[_CERTIFICATE_ISSUER].value, found[_CERTIFICATE_ISSUER].critical)
        elif len(self._seen) < _MAX_REMEMBERED:
            self._seen.add(data[after:stop])
        # CRL-14, RFC 5280 §5.3: an unknown critical extension in any entry spoils the CRL for every certificate.
        if not self.unknown_critical:
            self.unknown_critical = next(
                (e.oid for e in found.values() if e.critical and e.oid not in _ENTRY_UNDERSTOOD), ""
            )


def _serial_of(data: bytes, at: int) -> bytes:
    entry = Cursor(data, at).enter()
    return entry.content(INTEGER)


def _read_entry(data: bytes, at: int) -> Entry:
    """Decode one entry. What can't be read in it never makes the certificate less revoked."""
    entry = Cursor(data, at).enter()
    entry.take(INTEGER)
    revoked_at = _moment(entry)
    reason, invalid_since = "unspecified", None
    if entry.peek() == SEQUENCE:
        found = extensions(entry.enter(), 16)
        if _REASON in found:
            reason = reason_code(found[_REASON].value)
        if _INVALIDITY in found:
            invalid_since = _moment(Cursor(found[_INVALIDITY].value))
    return Entry(revoked_at, reason, invalid_since)


def _moment(cursor: Cursor) -> datetime | None:
    try:
        return cursor.time()
    except BadDer:
        return None


def reason_code(value: bytes) -> str:
    """CRLReason ::= ENUMERATED, as its name (RFC 5280 §5.3.1)."""
    try:
        code = Cursor(value).enumerated() if value[:1] == bytes((ENUMERATED,)) else -1
    except BadDer:
        code = -1
    if code == 0:
        return "unspecified"
    # ReasonFlags and CRLReason number the reasons alike up to certificateHold, then the codes 7 and 8 differ.
    names = (*REASONS[:7], "", "removeFromCRL", "privilegeWithdrawn", "aACompromise")
    return names[code] if 0 < code < len(names) and names[code] else f"code {code}"


_verified: dict[tuple[str, bytes], bool] = {}


def signature_valid(crl: Crl, spki: bytes) -> bool:
    """Does the key in ``spki`` (DER SubjectPublicKeyInfo) verify the CRL's signature? Results are remembered by content."""
    key = (crl.sha256, hashlib.sha256(spki).digest())
    known = _verified.get(key)
    if known is None:
        # CRL-6: over the bytes as received. Any library that encodes the signed part anew needs a second per million entries.
        start, end = crl.tbs
        algorithm = signature.parse_algorithm(crl.algorithm)
        known = bool(crl.signature) and signature.verifies(
            algorithm, crl.signature, memoryview(crl.der)[start:end], spki
        )
        if len(_verified) >= _MAX_REMEMBERED:
            _verified.clear()
        _verified[key] = known
    return known


def refresh_window(crl: Crl) -> tuple[datetime, datetime] | None:
    """CACHE-2: when to fetch a newer CRL, between half and four fifths of the time from thisUpdate to nextUpdate.

    None when the CRL doesn't say when the next one comes. The caller picks a random moment in it.
    """
    if crl.next_update is None:
        return None
    span = crl.next_update - crl.this_update
    return crl.this_update + span * 0.5, crl.this_update + span * 0.8
