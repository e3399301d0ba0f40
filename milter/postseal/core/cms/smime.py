"""The S/MIME dress of a message (RFC 8551 §3): which header fields move inside, what stands outside, base64, line ends.

A message is opaque octets here. The inner entity is the original Content-* fields as received, an empty line and the body as
received; nothing is written again by a MIME library.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from postseal.core.message import Field, field_fault
from postseal.core.suite import Suite

# RFC 2045 §5.2: what a message without Content-Type is.
DEFAULT_TYPE = Field(b"Content-Type", b" text/plain; charset=us-ascii")

# RFC 2045 §3, §5, §6.1 and RFC 2183: each at most once. Two of them are read differently by different readers (THR-11).
_ONCE = (b"content-type", b"content-transfer-encoding", b"mime-version", b"content-disposition")

# RFC 8551 §3.2.2 and §3.3: the spelling of smime-type.
_SMIME_TYPE = {suite: b"authEnveloped-data" if suite.gcm else b"enveloped-data" for suite in Suite}
_COMMENT = re.compile(rb"\([^()\\]*\)")


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """One change of the original's header, for a milter that sees values with their leading space (SMFIP_HDR_LEADSPC).

    ``set``: chgheader(name, index, value); ``delete``: chgheader(name, index, None); ``add``: addheader(name, value), index 0.
    ``index`` counts fields of that name from 1. ``value`` begins with its space and folds with LF and a tab, never CRLF (P9).
    """

    kind: Literal["set", "delete", "add"]
    name: str
    index: int
    value: str


@dataclass(frozen=True, slots=True)
class Split:
    """A header taken apart for sealing. With a ``fault`` the message can't be sealed as it is and the rest is empty.

    ``inner`` is the header of the inner entity with its empty line, ``content`` are its fields. What stands outside names the
    kind of CMS, so ``outer`` and ``edits`` are functions of it. ``fault`` is a ``mail.*`` code or empty, ``fault_detail``
    names the field.
    """

    inner: bytes
    kept: tuple[Field, ...] = ()
    moved: tuple[tuple[Field, int], ...] = ()
    version: Field | None = None
    fault: str = ""
    fault_detail: str = ""
    content: tuple[Field, ...] = ()

    def outer(self, dress: Suite | tuple[Field, ...]) -> tuple[Field, ...]:
        """The header of a sealed copy: what didn't move inside, in order, then MIME-Version once and the new Content-*.

        ``dress`` is the suite that encrypts, or the Content-* fields of what was signed (``core.cms.clearsign``).
        """
        return (*self.kept, Field(b"MIME-Version", b" 1.0"), *dress_of(dress))

    def edits(self, dress: Suite | tuple[Field, ...]) -> tuple[HeaderEdit, ...]:
        """The edits that make ``outer`` of the original, in the order in which they must be done (last index first)."""
        edits = []
        new_fields = {field.name.lower(): field for field in dress_of(dress)}
        for field, index in reversed(self.moved):
            new = new_fields.pop(field.name.lower(), None)
            if new is None:
                edits.append(HeaderEdit("delete", field.name.decode("ascii"), index, ""))
            else:
                edits.append(_edit("set", new, index))
        if self.version is None:
            edits.append(HeaderEdit("add", "MIME-Version", 0, " 1.0"))
        elif _COMMENT.sub(b"", self.version.value).strip() != b"1.0":
            edits.append(HeaderEdit("set", "MIME-Version", 1, " 1.0"))
        edits.extend(_edit("add", field, 0) for field in new_fields.values())
        return tuple(edits)


def _edit(kind: Literal["set", "add"], field: Field, index: int) -> HeaderEdit:
    return HeaderEdit(kind, field.name.decode("ascii"), index, field.value.replace(b"\r\n", b"\n").decode("ascii"))


def dress_of(dress: Suite | tuple[Field, ...]) -> tuple[Field, ...]:
    """The Content-* fields of what a suite encrypts, or those given."""
    return opaque_dress(_SMIME_TYPE[dress]) if isinstance(dress, Suite) else dress


def opaque_dress(smime_type: bytes) -> tuple[Field, ...]:
    """THR-9, RFC 8551 §3.3: the Content-* fields of a message that is one application/pkcs7-mime entity."""
    value = b" application/pkcs7-mime; smime-type=" + smime_type + b";\r\n\tname=smime.p7m"
    return (
        Field(b"Content-Type", value),
        Field(b"Content-Transfer-Encoding", b" base64"),
        Field(b"Content-Disposition", b" attachment; filename=smime.p7m"),
    )


def split(fields: Sequence[Field]) -> Split:
    """Which fields move inside and which stay; or the ``mail.*`` fault for which the message can't be sealed as it is."""
    seen: dict[bytes, int] = {}
    kept: list[Field] = []
    moved: list[tuple[Field, int]] = []
    version: Field | None = None
    for field in fields:
        if fault := field_fault(field):
            return Split(b"", fault=fault[0], fault_detail=fault[1])
        name = field.name.lower()
        count = seen[name] = seen.get(name, 0) + 1
        if count > 1 and name in _ONCE:
            return Split(b"", fault="mail.duplicate-header", fault_detail=field.name.decode("ascii"))
        if name == b"mime-version":
            version = field
        elif name.startswith(b"content-"):
            moved.append((field, count))
        else:
            kept.append(field)
    inside = [field for field, _ in moved]
    if b"content-type" not in seen:
        inside.insert(0, DEFAULT_TYPE)
    inner = b"".join(field.line for field in inside) + b"\r\n"
    return Split(inner, tuple(kept), tuple(moved), version, content=tuple(inside))
