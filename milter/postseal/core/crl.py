"""CRLs: strict parsing, scope, look-up of an entry (RFC 5280 §5). Signatures and authority are judged in ``revocation``.

A CRL may hold millions of entries. ``crl_scan`` walks over them once, ``crl_entries`` finds one, and only that one is decoded.
A large CRL is a file that is mapped to memory, with an index beside it (``crl_index``); then nothing is walked over here.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from postseal.core import signature
from postseal.core.crl_entries import INVALIDITY, MAX_EXTENSIONS, REASON, AnyEntries, Reader
from postseal.core.crl_scan import scanned_entries
from postseal.core.der import (
    BIT_STRING,
    ENUMERATED,
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    BadDer,
    Cursor,
    Element,
    Extension,
    Octets,
    context,
    extensions,
    time_value,
)
from postseal.core.distribution import (
    REASONS,
    DistributionPoint,
    IssuingPoint,
    parse_distribution_points,
    parse_issuing_point,
)
from postseal.core.errors import BadData
from postseal.core.names import same_name

_AKI, _NUMBER, _IDP, _DELTA, _FRESHEST = "2.5.29.35", "2.5.29.20", "2.5.29.28", "2.5.29.27", "2.5.29.46"
# CRL-18: a pointer to delta CRLs doesn't spoil the base, RFC 5280 §6.3.1 (b) makes their use an option.
_UNDERSTOOD = frozenset({_AKI, _NUMBER, _IDP, _DELTA, _FRESHEST, "2.5.29.18", "1.3.6.1.5.5.7.1.1"})
# A reasonCode that isn't critical as the only extension of an entry, up to its last octet.
_ONLY_REASON = bytes.fromhex("300c300a0603551d1504030a01")
_MAX_REMEMBERED = 4096


class Entry(NamedTuple):
    """One revoked certificate. ``reason`` is a CRLReason name, "unspecified" when the CRL gives none.

    ``reason`` "removeFromCRL" says that a delta takes the certificate off its base (CRL-19).
    """

    revoked_at: datetime | None
    reason: str
    invalid_since: datetime | None


class _Unsought:
    """In place of what wasn't looked for yet."""


_UNSOUGHT = _Unsought()


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """A parsed CRL. Equal when the bytes are equal. Made by ``parse_crl`` and ``open_crl`` only.

    ``issuer`` is the DER Name, ``idp`` the value of the issuing distribution point extension, ``number`` the CRLNumber.
    ``tbs_digest`` is the hash of the signed part by the signature's algorithm, if it is known already.
    """

    der: Octets = field(repr=False)
    sha256: str
    issuer: bytes
    this_update: datetime
    next_update: datetime | None
    number: int | None
    authority_key_id: bytes | None
    idp: bytes | None
    entries: AnyEntries = field(repr=False)
    tbs: tuple[int, int] = field(repr=False, default=(0, 0))
    algorithm: bytes = field(repr=False, default=b"")
    signature: bytes = field(repr=False, default=b"")
    tbs_digest: bytes = field(repr=False, default=b"")
    scope: IssuingPoint | None = None
    delta_base: int | None = None
    unknown_critical: tuple[str, ...] = ()
    """Dotted OIDs of critical CRL extensions that aren't understood (CRL-13)."""
    freshest: tuple[DistributionPoint, ...] = ()
    """Where delta CRLs of it are (RFC 5280 §5.2.6); empty also when that can't be read (CRL-18)."""
    authority_key: bytes | None = None
    """The value of the authority key identifier extension as it is (RFC 5280 §5.2.4 (c) compares it)."""
    _located: dict[tuple[bytes, bytes | None], Entry | None] = field(repr=False, default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crl) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def entry_count(self) -> int:
        """How many entries there are; 0 also while a large CRL isn't scanned yet."""
        return self.entries.count

    @property
    def unknown_critical_entry(self) -> str:
        """Dotted OID of a critical extension in any entry that isn't understood (CRL-14)."""
        return self.entries.unknown_critical

    @property
    def indirect(self) -> bool:
        """Does it say that it may carry entries of other issuers (indirectCRL, RFC 5280 §5.2.5)?"""
        return self.scope is not None and self.scope.indirect

    @property
    def carries_others(self) -> bool:
        """Does any entry name an issuer (CRL-15)?"""
        return self.entries.carries_others

    @property
    def issuer_not_critical(self) -> bool:
        """CRL-15: is the issuer of an entry named in an extension that isn't critical, as RFC 5280 §5.3.3 demands?"""
        return self.entries.issuer_not_critical

    def find(self, serial: bytes, issuer: bytes | None = None) -> Entry | None:
        """The entry of a serial number, given as canonical content octets of its DER INTEGER (CRL-16).

        ``issuer`` is the DER Name of the certificate's issuer, None the CRL's own (CRL-15: both must match).
        """
        if issuer == self.issuer:
            issuer = None
        known = self._located.get((serial, issuer), _UNSOUGHT)
        if not isinstance(known, _Unsought):
            return known
        at = self._locate(serial, issuer)
        found = None if at < 0 else _read_entry(self.der, at)
        # A gateway asks about the same certificates again and again.
        if len(self._located) >= _MAX_REMEMBERED:
            self._located.clear()
        self._located[serial, issuer] = found
        return found

    def _locate(self, serial: bytes, issuer: bytes | None) -> int:
        """Offset of the entry, or -1."""
        own = issuer is None or same_name(issuer, self.issuer)
        others = self.entries.carries_others
        if not own and not others:
            return -1
        found = self.entries.offsets(serial)
        if not others:
            return found[0] if found else -1
        for at in found:
            # RFC 5280 §5.3.3: the first entries are the CRL issuer's; a named issuer holds until the next is named.
            names = self.entries.issuers_of(at)
            if own if names is None else any(same_name(n, issuer or self.issuer) for n in names):
                return at
        return -1


def parse_crl(blob: bytes, max_size: int = 64 * 1024 * 1024) -> Crl:
    """DER, or PEM or base64 that holds exactly one DER object (CRL-1). Raises BadData with the cause."""
    if len(blob) > max_size:
        raise BadData(f"the CRL has {len(blob)} octets, more than the {max_size} that are allowed")
    der = _unarmour(bytes(blob))
    return open_crl(der, hashlib.sha256(der).hexdigest(), scanned_entries)


def open_crl(data: Octets, sha256: str, read: Reader, tbs_digest: bytes = b"") -> Crl:
    """A CRL in DER, its entries as ``read`` has them. Raises BadData.

    ``sha256`` and ``tbs_digest`` were computed by who compared them with the file.
    """
    try:
        return _parse(data, sha256, read, tbs_digest)
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


def _parse(der: Octets, sha256: str, read: Reader, tbs_digest: bytes) -> Crl:
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
    listed = body.take(SEQUENCE) if body.peek() == SEQUENCE else Element(SEQUENCE, 0, 0, 0)
    found: dict[str, Extension] = {}
    if body.peek() == context(0):
        wrapper = body.enter(context(0))
        found = extensions(wrapper.enter())
        wrapper.finish()
    body.finish()
    idp = found[_IDP].value if _IDP in found else None
    return Crl(
        der=der,
        sha256=sha256,
        issuer=issuer,
        this_update=this_update,
        next_update=next_update,
        number=_number(found.get(_NUMBER)),
        authority_key_id=_key_identifier(found.get(_AKI)),
        idp=idp,
        entries=read(der, listed.body, listed.end),
        tbs=(tbs.start, tbs.end),
        algorithm=algorithm,
        # A signature that isn't whole octets is a wrong signature, not a malformed CRL.
        signature=bits[1:] if bits[:1] == b"\x00" else b"",
        tbs_digest=tbs_digest,
        scope=None if idp is None else parse_issuing_point(idp),
        delta_base=_number(found.get(_DELTA)),
        unknown_critical=tuple(e.oid for e in found.values() if e.critical and e.oid not in _UNDERSTOOD),
        freshest=_freshest(found.get(_FRESHEST)),
        authority_key=found[_AKI].value if _AKI in found else None,
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


def _read_entry(data: Octets, at: int) -> Entry:
    """Decode one entry. What can't be read in it never makes the certificate less revoked."""
    start = data[at : at + 0x81]
    if start[1] < 0x80:
        # The usual form, at a third of the cost: UTCTime, then nothing or one reasonCode that isn't critical.
        dated = 4 + start[3]
        rest = start[dated + 15 : 2 + start[1]]
        if start[dated : dated + 2] == b"\x17\x0d" and (not rest or (len(rest) == 14 and rest[:13] == _ONLY_REASON)):
            try:
                revoked_at: datetime | None = time_value(UTC_TIME, start[dated + 2 : dated + 15])
            except BadDer:
                revoked_at = None
            return Entry(revoked_at, reason_code(rest[11:]) if rest else "unspecified", None)
    entry = Cursor(data, at).enter()
    entry.take(INTEGER)
    revoked_at = _moment(entry)
    reason, invalid_since = "unspecified", None
    if entry.peek() == SEQUENCE:
        found = extensions(entry.enter(), MAX_EXTENSIONS)
        if REASON in found:
            reason = reason_code(found[REASON].value)
        if INVALIDITY in found:
            invalid_since = _moment(Cursor(found[INVALIDITY].value))
    return Entry(revoked_at, reason, invalid_since)


def _moment(cursor: Cursor) -> datetime | None:
    try:
        return cursor.time()
    except BadDer:
        return None


@lru_cache(maxsize=256)
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
_hashed: dict[str, bytes] = {}


def signature_valid(crl: Crl, spki: bytes) -> bool:
    """Does the key in ``spki`` (DER SubjectPublicKeyInfo) verify the CRL's signature? Results are remembered by content."""
    key = (crl.sha256, spki)
    known = _verified.get(key)
    if known is None:
        # CRL-6: over the bytes as received. Any library that encodes the signed part anew needs a second per million entries.
        start, end = crl.tbs
        algorithm, digest = signature.parse_algorithm(crl.algorithm), signed_hash(crl)
        signed = b"" if digest else memoryview(crl.der)[start:end]
        known = bool(crl.signature) and signature.verifies(algorithm, crl.signature, signed, spki, digest)
        if len(_verified) >= _MAX_REMEMBERED:
            _verified.clear()
        _verified[key] = known
    return known


def signed_hash(crl: Crl) -> bytes:
    """The hash of the signed part by the signature's algorithm, made once; empty when that signs no hash (EdDSA)."""
    if crl.tbs_digest:
        return crl.tbs_digest
    known = _hashed.get(crl.sha256)
    if known is None:
        start, end = crl.tbs
        known = signature.digest_of(signature.parse_algorithm(crl.algorithm), memoryview(crl.der)[start:end])
        if len(_hashed) >= _MAX_REMEMBERED:
            _hashed.clear()
        _hashed[crl.sha256] = known
    return known


def refresh_window(crl: Crl) -> tuple[datetime, datetime] | None:
    """CACHE-2: when to fetch a newer CRL, between half and four fifths of the time from thisUpdate to nextUpdate.

    None when the CRL doesn't say when the next one comes. The caller picks a random moment in it.
    """
    if crl.next_update is None:
        return None
    span = crl.next_update - crl.this_update
    return crl.this_update + span * 0.5, crl.this_update + span * 0.8
