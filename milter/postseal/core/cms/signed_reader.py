"""SignedData taken apart (RFC 5652 §5): bytes from strangers -> ``Signed``, bounded, nothing raised but BadData.

Content, certificates and CRLs are what was received, octet for octet; only what somebody signed in DER is written in DER anew.
What any of it is worth is for ``core.cms.verifying``.
"""

from __future__ import annotations

from dataclasses import dataclass

from postseal.core.certs import Certificate, load_certificate
from postseal.core.cms.ber import to_der
from postseal.core.cms.ber_cursor import BerCursor, Part
from postseal.core.der import INTEGER, OCTET_STRING, OID, SEQUENCE, SET, BadDer, Cursor, context, oid_text, tlv
from postseal.core.errors import BadData

SIGNED_DATA = "1.2.840.113549.1.7.2"
DATA = "1.2.840.113549.1.7.1"

MAX_SIGNERS = 16
MAX_CERTIFICATES = 256
MAX_CRLS = 200
MAX_ATTRIBUTES = 64
_MAX_VALUES = 16
# A time stamp among the unsigned attributes brings certificates of its own along.
_MAX_SIGNER_INFO = 256 * 1024
_MAX_CERTIFICATE = 64 * 1024
_MAX_DIGEST_ALGORITHMS = 64


@dataclass(frozen=True, slots=True)
class SignerIdentifier:
    """RFC 5652 §5.3: issuer (DER of the Name) and serial number (content octets), or the subject key identifier."""

    issuer: bytes = b""
    serial: bytes = b""
    subject_key_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Attribute:
    """``values`` in DER, as many as there are; ``oid`` dotted."""

    oid: str
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """RFC 5652 §5.3. ``attributes`` is None when there are no signed ones.

    ``signed_forms`` are the encodings of the signed attributes that a signature may be over, the right one first.
    """

    sid: SignerIdentifier
    digest: str
    attributes: tuple[Attribute, ...] | None
    algorithm: bytes
    signature: bytes
    unsigned: tuple[str, ...]
    signed_forms: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """A parsed SignedData. ``content`` is None when it stands elsewhere (detached), else its octets in pieces.

    ``unreadable`` are certificates that can't be read, in words; ``ignored`` counts those of kinds that mail doesn't use.
    """

    content_type: str
    content: tuple[memoryview, ...] | None
    certificates: tuple[Certificate, ...]
    unreadable: tuple[str, ...]
    ignored: int
    crls: tuple[bytes, ...]
    signers: tuple[SignerInfo, ...]

    @property
    def certs_only(self) -> bool:
        """RFC 8551 §3.8: a message that only brings certificates or CRLs, signed by nobody."""
        return not self.signers

    @property
    def length(self) -> int | None:
        """Octets of the content that is inside."""
        return None if self.content is None else sum(map(len, self.content))


def object_type(octets: bytes | memoryview) -> str:
    """The type that a CMS object says it has, dotted; empty when it is no CMS object. Never raises."""
    try:
        info = BerCursor.over(octets).enter(SEQUENCE)
        return oid_text(bytes(info.content(info.take(OID))))
    except BadData:
        return ""


def parse_signed(octets: bytes | memoryview) -> Signed:
    """One CMS object in DER or BER, nothing after it. Raises BadData when it is no SignedData."""
    try:
        return _parse(octets)
    except BadDer as exc:
        raise BadData(f"not a signed CMS message: {exc}") from exc


def _parse(octets: bytes | memoryview) -> Signed:
    outer = BerCursor.over(octets)
    info = outer.enter(SEQUENCE)
    outer.finish()
    kind = _oid(info)
    if kind != SIGNED_DATA:
        raise BadData(f"not a signed CMS message: it is of type {kind}")
    explicit = info.enter(context(0))
    info.finish()
    data = explicit.enter(SEQUENCE)
    explicit.finish()
    # RFC 5652 §5.1: the version follows from the rest; many write another one.
    data.take(INTEGER)
    data.enter(SET).children(_MAX_DIGEST_ALGORITHMS, "digest algorithms")
    content_type, content = _encapsulated(data.enter(SEQUENCE))
    certificates: list[Certificate] = []
    unreadable: list[str] = []
    ignored = 0
    if data.peek() == context(0):
        certificates, unreadable, ignored = _certificates(data.enter(context(0)))
    crls: tuple[bytes, ...] = ()
    if data.peek() == context(1):
        inner = data.enter(context(1))
        # RFC 5652 §10.2.1: other revocation information has a tag of its own.
        crls = tuple(bytes(inner.raw(part)) for part in inner.children(MAX_CRLS, "CRLs") if part.tag == SEQUENCE)
    infos = data.enter(SET)
    data.finish()
    signers = tuple(_signer(infos, part) for part in infos.children(MAX_SIGNERS, "signers"))
    return Signed(content_type, content, tuple(certificates), tuple(unreadable), ignored, crls, signers)


def _oid(cursor: BerCursor) -> str:
    return oid_text(bytes(cursor.content(cursor.take(OID))))


def _encapsulated(cursor: BerCursor) -> tuple[str, tuple[memoryview, ...] | None]:
    content_type = _oid(cursor)
    if cursor.peek() == -1:
        return content_type, None
    explicit = cursor.enter(context(0))
    cursor.finish()
    content = explicit.octets(explicit.take())
    explicit.finish()
    return content_type, content


def _certificates(cursor: BerCursor) -> tuple[list[Certificate], list[str], int]:
    """RFC 5652 §10.2.2: of the choices only Certificate has no tag of its own; the others are left alone."""
    found: dict[bytes, Certificate] = {}
    unreadable: list[str] = []
    ignored = 0
    for part in cursor.children(MAX_CERTIFICATES, "certificates"):
        if part.tag != SEQUENCE:
            ignored += 1
            continue
        der = bytes(cursor.raw(part))
        try:
            if len(der) > _MAX_CERTIFICATE:
                raise BadData(f"a certificate of {len(der)} octets")
            found.setdefault(der, load_certificate(der))
        except BadData as exc:
            unreadable.append(str(exc))
    return list(found.values()), unreadable, ignored


def _signer(infos: BerCursor, part: Part) -> SignerInfo:
    if part.stop - part.start > _MAX_SIGNER_INFO:
        raise BadData(f"not a signed CMS message: a signer of more than {_MAX_SIGNER_INFO} octets")
    received = bytes(infos.raw(part))
    try:
        return _signer_info(received, received)
    except BadDer:
        return _signer_info(to_der(received), received)


def _signer_info(der: bytes, received: bytes) -> SignerInfo:
    outer = Cursor(der)
    info = outer.enter(SEQUENCE)
    outer.finish()
    info.integer()
    sid = _identifier(info)
    digest = _algorithm_oid(info)
    attributes: tuple[Attribute, ...] | None = None
    forms: tuple[bytes, ...] = ()
    if info.peek() == context(0):
        element = info.take(context(0))
        attributes = _attributes(info.inside(element))
        forms = _forms(bytes(info.data[element.body : element.end]), der is received)
    algorithm = info.raw(SEQUENCE)
    signature = info.octets()
    unsigned: tuple[str, ...] = ()
    if info.peek() == context(1):
        unsigned = tuple(each.oid for each in _attributes(info.enter(context(1))))
    info.finish()
    return SignerInfo(sid, digest, attributes, algorithm, signature, unsigned, forms)


def _identifier(info: Cursor) -> SignerIdentifier:
    if info.peek() == SEQUENCE:
        pair = info.enter(SEQUENCE)
        issuer, serial = pair.raw(SEQUENCE), pair.content(INTEGER)
        pair.finish()
        return SignerIdentifier(issuer=issuer, serial=serial)
    if info.peek() == context(0):
        # X.690 §8.14: an implicit tag of an OCTET STRING that is in pieces.
        inner = info.enter(context(0))
        pieces = [inner.inside(each) for each in inner.children(OCTET_STRING, 16)]
        return SignerIdentifier(subject_key_id=b"".join(bytes(p.data[p.at : p.end]) for p in pieces))
    return SignerIdentifier(subject_key_id=info.content(context(0, constructed=False)))


def _algorithm_oid(info: Cursor) -> str:
    """RFC 5754 §2: parameters of a hash are absent or NULL; whatever they are, they change nothing."""
    return info.enter(SEQUENCE).oid()


def _attributes(cursor: Cursor) -> tuple[Attribute, ...]:
    found = []
    for element in cursor.children(SEQUENCE, MAX_ATTRIBUTES):
        attribute = cursor.inside(element)
        oid = attribute.oid()
        values = attribute.enter(SET)
        found.append(Attribute(oid, tuple(_raw(values, each) for each in values.children(None, _MAX_VALUES))))
        attribute.finish()
    return tuple(found)


def _raw(cursor: Cursor, element: tuple[int, int, int, int]) -> bytes:
    return bytes(cursor.data[element[1] : element[3]])


def _forms(body: bytes, as_received: bool) -> tuple[bytes, ...]:
    """RFC 5652 §5.4: signed is the DER of the SET OF Attribute, not the [0] that stands in its place.

    Some writers sign their attributes in the order in which they send them, which isn't always that of DER; it is the same set
    of the same attributes, so this is let through too.
    """
    cursor = Cursor(body)
    each = [_raw(cursor, element) for element in cursor.children(SEQUENCE, MAX_ATTRIBUTES)]
    # X.690 §11.6: the elements of a SET OF come in the order of their octets.
    der = tlv(SET, *sorted(map(to_der, each)))
    sent = tlv(SET, body)
    return (der, sent) if as_received and sent != der else (der,)


def parse_detached(octets: bytes | memoryview) -> Signed:
    """The signature of a clear-signed message. Raises BadData, also when it isn't over mail."""
    signed = parse_signed(octets)
    # RFC 8551 §2.4.1: MIME content is id-data. What was signed as something else, a time stamp for one, isn't anybody's mail.
    if signed.content_type != DATA:
        raise BadData(f"the signature is over content of type {signed.content_type}, which isn't mail")
    return signed


def joined(pieces: tuple[memoryview, ...]) -> bytes:
    """Content as one value; a copy."""
    return b"".join(pieces)
