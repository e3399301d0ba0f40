"""Mail addresses as values: parsed once at the edge, compared by the rules of RFC 8550 §3 and RFC 9598."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import idna

from postseal.core.errors import BadData

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"\Z')
_QUOTED_PAIR = re.compile(r"\\(.)")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox. ``local`` keeps the octets as given (NFC), ``domain`` is in A-labels and lower case."""

    local: str
    domain: str

    @property
    def folded(self) -> str:
        """Key for look-ups: the local part with ASCII letters in lower case, never folded beyond ASCII (CERT-2)."""
        return f"{_ascii_lower(self.local)}@{self.domain}"

    def matches(self, other: Mailbox) -> bool:
        """Same mailbox: domain without regard to case, local part with ASCII case folded (RFC 8550 §3)."""
        return self.folded == other.folded

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def _ascii_lower(text: str) -> str:
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def domain_to_ascii(domain: str) -> str:
    """A-label form in lower case (IDNA 2008, no transitional mapping, CERT-4). Raises BadData."""
    text = unicodedata.normalize("NFC", domain)
    if text.isascii():
        ascii_domain = text.lower()
    else:
        try:
            # RFC 5895 §2: upper case in U-labels is mapped to lower before IDNA 2008 looks at it.
            ascii_domain = idna.encode(text.lower()).decode("ascii")
        except (idna.IDNAError, UnicodeError) as exc:
            raise BadData(f"domain {domain!a} is not valid: {exc}") from exc
    if len(ascii_domain) > 253 or not all(_LABEL.match(label) for label in ascii_domain.split(".")):
        raise BadData(f"domain {domain!a} is not a valid mail domain")
    return ascii_domain


def parse_mailbox(text: str) -> Mailbox:
    """``local@domain`` without brackets, comments or white space -> Mailbox. Raises BadData for anything else (CERT-3)."""
    local, at, domain = text.rpartition("@")
    local = unicodedata.normalize("NFC", local)
    if not at or not (_DOT_STRING.match(local) or _QUOTED.match(local)):
        raise BadData(f"{text!a} is not a mail address")
    return Mailbox(local, domain_to_ascii(domain))


def parse_path(text: str) -> Mailbox | None:
    """An envelope path as an MTA gives it, ``<local@domain>`` or bare; ``<>`` and an empty text are None (null sender)."""
    inner = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if not inner:
        return None
    # THR-15: two spellings that an MTA delivers to the same person must not meet different rules: example.com. is example.com.
    local, at, domain = inner.rpartition("@")
    # RFC 5321 §4.1.2: quotes that aren't needed mean nothing, "bob"@example.com is bob@example.com.
    if _QUOTED.match(local) and _DOT_STRING.match(bare := _QUOTED_PAIR.sub(r"\1", local[1:-1])):
        local = bare
    return parse_mailbox(f"{local}{at}{domain.removesuffix('.')}")
