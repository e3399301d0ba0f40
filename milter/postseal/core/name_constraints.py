"""Name constraints: which names a CA may vouch for (RFC 5280 §4.2.1.10, §6.1.3 (b), (c), §6.1.4 (g); RFC 9598 §6; CERT-16).

Constraints are kept indexed, so a name is looked up and not compared with each of them. Each CA's constraints are applied
to the names of every certificate below it, which comes to the same as the intersections and unions of RFC 5280 §6.1.4 (g).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from postseal.core.der import SEQUENCE, BadDer, Cursor, context
from postseal.core.names import NameKey, name_key

OID_NAME_CONSTRAINTS = "2.5.29.30"
OID_SUBJECT_ALT_NAME = "2.5.29.17"
SMTP_UTF8_MAILBOX = "1.3.6.1.5.5.7.8.9"
_UTF8_STRING = 0x0C
_MAX_SUBTREES = 4096
_MAX_NAMES = 65536

MAIL, DNS, URI, ADDRESS, DIRECTORY = "rfc822Name", "dNSName", "URI", "iPAddress", "directoryName"
# RFC 5280 §4.2.1.6: the forms by their tags. Constraints on the others have no meaning that anybody defined.
_FORMS = {1: MAIL, 2: DNS, 3: "x400Address", 4: DIRECTORY, 5: "ediPartyName", 6: URI, 7: ADDRESS, 8: "registeredID"}
_PROCESSED = frozenset({MAIL, DNS, URI, ADDRESS, DIRECTORY})

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_URI_HOST = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^@/?#]*@)?([a-z0-9._-]+)(?::[0-9]*)?(?:[/?#]|\Z)")
_ALL_DIGITS = re.compile(r"[0-9.]+")


class Name(NamedTuple):
    """One name of a certificate: its form, how people write it, and what is compared; None if it can't be read.

    Compared are (local part, host) of a mailbox and (empty, host) of a DNS name or URI, (number, octets) of an IP address, and
    the key of a directory name.
    """

    form: str
    text: str
    value: object


class Violation(NamedTuple):
    """Why a certificate may not stand below a CA; ``code`` is a ``path.*`` reason."""

    code: str
    detail: str


@dataclass(slots=True, eq=False)
class Subtrees:
    """Subtrees of one form, indexed.

    ``whole`` are mailboxes (``folded``: without case), ``hosts`` single hosts, ``below`` domains without themselves.
    """

    everything: bool = False
    whole: set[str] = field(default_factory=set)
    folded: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)
    networks: list[tuple[int, int, int]] = field(default_factory=list)
    directories: set[NameKey] = field(default_factory=set)
    depths: set[int] = field(default_factory=set)
    unreadable: str = ""

    def hold(self, name: Name, *, generous: bool) -> bool:
        """Is the name in one of the subtrees? ``generous`` counts what may be meant too, as is right for excluded ones."""
        if self.everything:
            return True
        if name.form == DIRECTORY:
            return self._hold_directory(name.value)
        if name.form == ADDRESS:
            return self._hold_address(name.value)
        assert isinstance(name.value, tuple)
        local, host = name.value
        if self._hold_host(host) or f"{local}@{host}" in self.whole:
            return True
        if not generous:
            return False
        # CERT-2: mail for Alice@ reaches alice@, so to exclude one is to exclude the other.
        if f"{_fold(local)}@{host}" in self.folded:
            return True
        # A wildcard stands for names that may be excluded one by one.
        return host.startswith("*.") and any(h.partition(".")[2] == host[2:] for h in (*self.hosts, *self.below))

    def _hold_host(self, host: str) -> bool:
        if host in self.hosts:
            return True
        if self.below:
            while host:
                host = host.partition(".")[2]
                if host in self.below:
                    return True
        return False

    def _hold_address(self, value: object) -> bool:
        assert isinstance(value, tuple)
        number, octets = value
        return any(size == octets and number & mask == base for base, mask, size in self.networks)

    def _hold_directory(self, key: object) -> bool:
        """RFC 5280 §7.1: a subtree holds every name that begins with its RDNs."""
        assert isinstance(key, tuple)
        return any(len(key) >= depth and key[:depth] in self.directories for depth in self.depths)


def _fold(local: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in local)


@dataclass(frozen=True, slots=True, eq=False)
class NameConstraints:
    """One nameConstraints extension. ``unsupported`` tells what of it can't be processed; ``size`` counts its subtrees."""

    permitted: Mapping[str, Subtrees]
    excluded: Mapping[str, Subtrees]
    size: int
    unsupported: str = ""


def parse_constraints(der: bytes) -> NameConstraints:
    """The content of a nameConstraints extension. Raises BadDer."""
    outer = Cursor(der)
    fields = outer.enter(SEQUENCE)
    outer.finish()
    found: dict[int, dict[str, Subtrees]] = {0: {}, 1: {}}
    size, unsupported = 0, ""
    for number in (0, 1):
        if fields.peek() != context(number):
            continue
        subtrees = fields.enter(context(number))
        for element in subtrees.children(SEQUENCE, _MAX_SUBTREES):
            size += 1
            subtree = subtrees.inside(element)
            _add(found[number], *_general_name(subtree))
            unsupported = unsupported or _distances(subtree)
    fields.finish()
    # RFC 5280 §4.2.1.10: the extension must not be empty.
    if not size:
        raise BadDer("nameConstraints is empty")
    return NameConstraints(found[0], found[1], size, unsupported)


def _distances(subtree: Cursor) -> str:
    """RFC 5280 §4.2.1.10: minimum is always zero and maximum absent; other values must be processed or refused."""
    said = ""
    for number, word in ((0, "minimum"), (1, "maximum")):
        if subtree.peek() == context(number, False):
            content = subtree.content(context(number, False))
            if number or content != b"\x00":
                said = f"nameConstraints with {word}"
    subtree.finish()
    return said


def _general_name(cursor: Cursor) -> tuple[str, bytes]:
    """Form and content of a GeneralName. An otherName's form has its type in it."""
    element = cursor.take()
    content = bytes(cursor.data[element.body : element.end])
    number = element.tag & 0x1F
    if element.tag & 0xC0 != 0x80 or number > 8:
        raise BadDer(f"tag 0x{element.tag:02x} is no GeneralName")
    if number:
        return _FORMS[number], content
    other = cursor.inside(element)
    form = f"otherName {other.oid()}"
    value = other.enter(context(0))
    return form, bytes(value.data[value.at : value.end])


def _add(found: dict[str, Subtrees], form: str, content: bytes) -> None:
    """One subtree. What can't be read is remembered: it refuses every name of its form."""
    trees = found.setdefault(form, Subtrees())
    try:
        if form == DIRECTORY:
            key = _directory(content)
            trees.directories.add(key)
            trees.depths.add(len(key))
        elif form == ADDRESS:
            trees.networks.append(_network(content))
        elif form in _PROCESSED:
            _add_text(trees, form, content.decode("ascii").lower() if form != MAIL else content.decode("ascii"))
    except (BadDer, UnicodeDecodeError):
        trees.unreadable = trees.unreadable or ascii(content[:60].decode("latin-1"))


def _add_text(trees: Subtrees, form: str, text: str) -> None:
    local, at, host = text.rpartition("@") if form == MAIL else ("", "", text)
    host = host.lower()
    if not text:
        trees.everything = True
        return
    bare = host if local else host.removeprefix(".")
    # Some write *@domain. What they mean is clear, and what it holds for nobody has said.
    if not _HOST.fullmatch(bare) or local == "*" or (local and not _is_local(local)):
        raise BadDer("no host or domain")
    if local:
        trees.whole.add(f"{local}@{host}")
        trees.folded.add(f"{_fold(local)}@{host}")
    elif not host.startswith("."):
        trees.hosts.add(host)
        # RFC 5280 §4.2.1.10: a DNS constraint holds for the name and all below it, that of a mailbox or URI for the host.
        if form == DNS:
            trees.below.add(host)
    elif at:
        raise BadDer("a mailbox at a domain")
    else:
        trees.below.add(bare)


def _directory(content: bytes) -> NameKey:
    key = name_key(content)
    if key[:1] == ("broken",):
        raise BadDer("no Name")
    return key


def _network(content: bytes) -> tuple[int, int, int]:
    """RFC 5280 §4.2.1.10: address and mask, in the style of RFC 4632: the mask's ones come first."""
    half = len(content) // 2
    if len(content) not in (8, 32):
        raise BadDer("no network")
    address, mask = int.from_bytes(content[:half], "big"), int.from_bytes(content[half:], "big")
    gap = ~mask & ((1 << 8 * half) - 1)
    if gap & (gap + 1):
        raise BadDer("a mask with holes")
    return address & mask, mask, half


def presented_names(subject: bytes, mail_in_subject: Iterable[str], alt_names: bytes | None) -> tuple[Name, ...]:
    """All names of a certificate that constraints may be about. Total: what can't be read is a Name with the value None.

    ``subject`` is the DER of its Name, ``mail_in_subject`` its emailAddress attributes, ``alt_names`` the content of
    subjectAltName.
    """
    found = list(_alternative(alt_names))
    # RFC 5280 §4.2.1.10: the subject counts when it isn't empty, and its mail addresses where no other is given (CERT-1).
    key = name_key(subject)
    if key:
        found.append(Name(DIRECTORY, "the subject", None if key[:1] == ("broken",) else key))
    if not any(name.form == MAIL for name in found):
        found += [_mailbox(text) for text in mail_in_subject]
    return tuple(found)


def _alternative(der: bytes | None) -> Iterator[Name]:
    if der is None:
        return
    try:
        outer = Cursor(der)
        names = outer.enter(SEQUENCE)
        outer.finish()
        elements = names.children(limit=_MAX_NAMES)
        for element in elements:
            form, content = _general_name(Cursor(der, element.start, element.end))
            yield from _name(form, content)
    except BadDer as exc:
        # The form isn't known then, so it may be any.
        yield from (Name(form, f"subjectAltName ({exc})", None) for form in sorted(_PROCESSED))


def _name(form: str, content: bytes) -> Iterator[Name]:
    text = content.decode("utf-8", "replace")
    if form == MAIL:
        yield _mailbox(text)
    elif form == DNS:
        host = text.lower()
        yield Name(form, text, ("", host) if _HOST.fullmatch(host.removeprefix("*.")) else None)
    elif form == URI:
        yield Name(form, text, _uri_host(text.lower()))
    elif form == ADDRESS:
        fits = len(content) in (4, 16)
        yield Name(form, content.hex(), (int.from_bytes(content, "big"), len(content)) if fits else None)
    elif form == DIRECTORY:
        key = name_key(content)
        yield Name(form, "a directory name", None if key[:1] == ("broken",) else key)
    else:
        yield Name(form, form, None)
        # RFC 9598 §6: constraints on rfc822Name are constraints on this form too.
        if form == f"otherName {SMTP_UTF8_MAILBOX}":
            yield _utf8_mailbox(content)


def _mailbox(text: str) -> Name:
    local, _, host = text.rpartition("@")
    host = host.lower()
    literal = host.startswith("[") and host.endswith("]")
    readable = _is_local(local) and text.isascii() and (literal or _HOST.fullmatch(host))
    return Name(MAIL, text, (local, host) if readable else None)


def _is_local(local: str) -> bool:
    """RFC 5321 §4.1.2: only a quoted local part has an @ in it; otherwise it can't be told which domain is meant."""
    return bool(local) and ("@" not in local or (len(local) > 2 and local[0] == local[-1] == '"'))


def _utf8_mailbox(content: bytes) -> Name:
    """RFC 9598 §3: the local part in UTF-8, the domain in A-labels."""
    try:
        value = Cursor(content)
        text = value.content(_UTF8_STRING).decode("utf-8")
        value.finish()
    except (BadDer, UnicodeDecodeError):
        return Name(MAIL, "a SmtpUTF8Mailbox", None)
    local, _, host = text.rpartition("@")
    host = host.lower()
    return Name(MAIL, text, (local, host) if _is_local(local) and _HOST.fullmatch(host) else None)


def _uri_host(text: str) -> object:
    """RFC 5280 §4.2.1.10: a URI without a host name must be refused where URIs are constrained."""
    match = _URI_HOST.match(text)
    if match is None or not _HOST.fullmatch(match[1]) or _ALL_DIGITS.fullmatch(match[1]):
        return None
    return "", match[1]


def violation(constraints: NameConstraints, names: Iterable[Name], whose: str) -> Violation | None:
    """The first name that the constraints of ``whose`` don't allow, or None."""
    for name in names:
        permitted, excluded = constraints.permitted.get(name.form), constraints.excluded.get(name.form)
        if permitted is None and excluded is None:
            continue
        # RFC 5280 §4.2.1.10: a form that is constrained must be processed, or a certificate that has it refused.
        if name.form not in _PROCESSED:
            detail = f"it has a name of the form {name.form}, which {whose} constrains and which isn't processed"
            return Violation("path.unsupported-extension", detail)
        for trees in (permitted, excluded):
            if trees is not None and trees.unreadable:
                detail = (
                    f"it has a {name.form}, which {whose} constrains in a way that can't be read: {trees.unreadable}"
                )
                return Violation("path.unsupported-extension", detail)
        if name.value is None:
            detail = f"{name.text!a} can't be read as {name.form}, which {whose} constrains"
            return Violation("path.name-constraints", detail)
        # RFC 5280 §6.1.3 (b)
        if permitted is not None and not permitted.hold(name, generous=False):
            return Violation("path.name-constraints", f"{name.text!a} is outside of what {whose} permits")
        # RFC 5280 §6.1.3 (c)
        if excluded is not None and excluded.hold(name, generous=True):
            return Violation("path.name-constraints", f"{name.text!a} is among what {whose} excludes")
    return None


@lru_cache(maxsize=256)
def mail_constraints(permitted: tuple[str, ...], excluded: tuple[str, ...]) -> NameConstraints:
    """Constraints on mail domains as an administrator writes them: ``example.org``, or ``.example.org`` for those below it."""
    sides: list[dict[str, Subtrees]] = []
    for domains in (permitted, excluded):
        side: dict[str, Subtrees] = {}
        for domain in domains:
            _add_text(side.setdefault(MAIL, Subtrees()), MAIL, domain)
        sides.append(side)
    return NameConstraints(sides[0], sides[1], len(permitted) + len(excluded))
