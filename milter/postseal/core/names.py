"""Comparison of distinguished names by RFC 5280 §7.1, on the DER of a Name.

``same_name`` is what path building, CRL matching and responder matching use; ``name_key`` is for dictionaries.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from postseal.core.der import SEQUENCE, SET, BadDer, Cursor, tlv

_UTF8, _PRINTABLE, _IA5 = 0x0C, 0x13, 0x16

NameKey = tuple[object, ...]
"""Equal for names that RFC 5280 §7.1 calls equal; hashable, otherwise without meaning."""

# RFC 4518 §2.2: these become a space …
_TO_SPACE = dict.fromkeys(map(ord, "\t\n\v\f\r\x85"), " ")
# … and these vanish.
_TO_NOTHING: dict[int, None] = dict.fromkeys(
    (0x00AD, 0x034F, 0x1806, 0x180B, 0x180C, 0x180D, 0x200B, 0xFFFC, *range(0xFE00, 0xFE10)), None
)


@lru_cache(maxsize=8192)
def name_key(der: bytes) -> NameKey:
    """The comparison key of a Name in DER. Bytes that aren't a Name are a key of their own: equal to themselves only."""
    try:
        outer = Cursor(der)
        rdns = outer.enter(SEQUENCE)
        outer.finish()
        return tuple(_rdn_key(rdns.inside(e)) for e in rdns.children(SET, 128))
    except BadDer:
        return ("broken", der)


def same_name(a: bytes, b: bytes) -> bool:
    """Are two Names (DER) equal by RFC 5280 §7.1? Order of RDNs counts; case, inner white space, string type don't."""
    return a == b or name_key(a) == name_key(b)


def with_rdn(name: bytes, rdn: bytes) -> bytes:
    """``name`` (DER) with ``rdn`` (DER of a RelativeDistinguishedName) appended. Raises BadDer."""
    return tlv(SEQUENCE, Cursor(name).content(SEQUENCE), rdn)


def _rdn_key(cursor: Cursor) -> frozenset[tuple[bytes, object, object]]:
    """RFC 5280 §7.1: two RDNs match if they have the same number of attributes and each matches one of the other."""
    attributes = []
    for element in cursor.children(SEQUENCE, 32):
        item = cursor.inside(element)
        oid = item.raw(0x06)
        value = item.take()
        item.finish()
        attributes.append((oid, *_value_key(value.tag, bytes(item.data[value.body : value.end]))))
    return frozenset(attributes)


def _value_key(tag: int, content: bytes) -> tuple[object, object]:
    try:
        # RFC 5280 §7.1: PrintableString and UTF8String are compared as strings, whichever of the two they are.
        if tag in (_UTF8, _PRINTABLE):
            return "text", prepared(content.decode("utf-8" if tag == _UTF8 else "ascii"))
        # RFC 5280 §7.3 (domainComponent) and RFC 2985 §5.2.1 (emailAddress): case-insensitive IA5String.
        if tag == _IA5:
            return "ia5", prepared(content.decode("ascii"))
    except UnicodeDecodeError:
        pass
    # RFC 5280 §7.1: other types need only be compared in binary.
    return tag, content


def prepared(text: str) -> str:
    """RFC 4518 string preparation as RFC 5280 §7.1 asks for: mapped, case folded, NFKC, insignificant spaces out."""
    if not text.isascii():
        text = text.translate(_TO_NOTHING)
        # RFC 4518 §2.2 (B.2): case folding is for use with NFKC, so normalise before and after it.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = "".join(" " if unicodedata.category(c) in ("Zs", "Zl", "Zp") else c for c in text)
    else:
        text = text.casefold()
    text = text.translate(_TO_SPACE)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf"))
    # RFC 4518 §2.6.1, RFC 5280 §7.1: leading and trailing white space goes, inner white space is one space.
    return " ".join(text.split())
