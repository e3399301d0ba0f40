"""Who a message says it is from (RFC 5322 §3.6.2), read by one strict rule: what two readers could read in two ways is nobody.

THR-28: a second From, a second address in it, or an address that hides in a comment or a name, is how signed mail is made to
look like somebody else's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header

from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.errors import BadData
from postseal.core.message import Field

_MAX_VALUE = 4096
# RFC 5322 §3.2.2 to §3.2.5: white space, atoms with dots, quoted strings, and the specials that stand for themselves.
_TOKEN = re.compile(r'([ \t]+)|("(?:[^"\\]|\\.)*")|([^\x00-\x20\x7f()<>\[\]:;@\\,"]+)|([<>@,:;])')


@dataclass(frozen=True, slots=True)
class Originator:
    """``mailbox`` is None when there is no clear answer, and ``fault`` says why. ``notes`` are sentences about what is odd."""

    mailbox: Mailbox | None
    fault: str = ""
    notes: tuple[str, ...] = ()


def originator(fields: Sequence[Field], name: bytes = b"from") -> Originator:
    """The one mailbox of the field From, or of another that is written like it. Total."""
    word = name.decode("ascii").capitalize()
    found = [field for field in fields if field.named(name)]
    if len(found) != 1:
        return Originator(None, f"there are {len(found)} fields {word}" if found else f"there is no field {word}")
    if len(found[0].value) > _MAX_VALUE:
        return Originator(None, f"the field {word} is too long")
    try:
        return _mailbox(_without_comments(found[0].unfolded.decode("utf-8")), word)
    except (BadData, UnicodeDecodeError):
        return Originator(None, f"the field {word} can't be read")


def _without_comments(text: str) -> str:
    """RFC 5322 §3.2.2: comments nest, and count as white space. Raises BadData for one that has no end."""
    kept: list[str] = []
    depth, quoted, escaped = 0, False, False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and (quoted or depth):
            escaped = True
        elif char == '"' and not depth:
            quoted = not quoted
        elif char == "(" and not quoted:
            depth += 1
        elif char == ")" and not quoted:
            depth -= 1
            if depth < 0:
                raise BadData("a comment ends that didn't begin")
            kept.append(" ")
            continue
        if not depth:
            kept.append(char)
    if depth or quoted:
        raise BadData("a comment or a quoted string has no end")
    return "".join(kept)


def _mailbox(text: str, word: str) -> Originator:
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadData("an octet that doesn't belong there")
        tokens.append(match[0])
        at = match.end()
    # RFC 5322 §3.4: groups, and lists of more than one.
    if any(token in (",", ":", ";") for token in tokens):
        return Originator(None, f"the field {word} has more than one address, or a group")
    notes: tuple[str, ...] = ()
    if "<" in tokens or ">" in tokens:
        start = tokens.index("<") if "<" in tokens else -1
        phrase, rest = tokens[:start], "".join(tokens[start + 1 :]).strip(" \t")
        if start < 0 or not rest.endswith(">") or rest.count(">") != 1 or "<" in tokens[start + 1 :] or "@" in phrase:
            raise BadData("brackets that don't fit")
        if "@" in _shown("".join(phrase)):
            notes = (f"the name in the field {word} looks like an address, but isn't the one that counts",)
        tokens = [rest[:-1]]
    return Originator(parse_mailbox("".join(tokens).strip(" \t")), "", notes)


def _shown(phrase: str) -> str:
    """A name as readers show it: RFC 2047 undone, and signs that only look like others made these."""
    try:
        text = str(make_header(decode_header(phrase)))
    except (MessageError, LookupError, ValueError):
        text = phrase
    return unicodedata.normalize("NFKC", text)
