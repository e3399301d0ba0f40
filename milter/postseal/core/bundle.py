"""Bundles of evidence: what moves from a node that fetches to one that doesn't.

A bundle is one file: a line of ASCII, a manifest in JSON, a detached CMS signature over the manifest (RFC 5652), then the
octets of all items in the order of the manifest, nothing between and nothing behind::

    postseal-evidence 1 MANIFEST-OCTETS SIGNATURE-OCTETS

The manifest names each item by its SHA-256 and length, so the signature covers everything, is checked before any item is
looked at, and items can be read one at a time. There are no file names and no compression in it, so nothing to climb out of a
directory with and nothing that grows. A signature vouches for origin and date, never for evidence: each item is verified as
if it had been fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from postseal.core.errors import BadData

MAGIC = b"postseal-evidence "
MOST_ITEMS = 200_000
MOST_MANIFEST = 64 * 1024 * 1024
MOST_SIGNATURE = 64 * 1024
LONGEST_HEAD = 64
_HEAD = re.compile(rb"postseal-evidence 1 ([1-9][0-9]{0,9}) (0|[1-9][0-9]{0,5})\n")
_NAME = re.compile(r"[0-9a-f]{64}")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_LARGEST_ITEM = 1 << 40


class ItemKind(StrEnum):
    """What an item is. Certificates are for the paths of the others."""

    CERTIFICATE = "certificate"
    CRL = "crl"
    OCSP = "ocsp"


@dataclass(frozen=True, slots=True)
class Item:
    """One piece, by its SHA-256. ``url`` and ``fetched_at`` are where and when the exporting node got it.

    ``chain`` names the certificates of the signer's path, signer first; ``subject`` the certificate of an OCSP answer.
    """

    kind: ItemKind
    sha256: str
    size: int
    url: str = ""
    fetched_at: datetime | None = None
    chain: tuple[str, ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a bundle says about itself. ``since`` is set when only what was fetched after it is inside."""

    node: str
    created: datetime
    items: tuple[Item, ...]
    since: datetime | None = None

    @property
    def size(self) -> int:
        """Octets of all items."""
        return sum(item.size for item in self.items)


def encode(manifest: Manifest) -> bytes:
    """The manifest as it is signed."""
    values = {
        "node": manifest.node,
        "created": _said(manifest.created),
        "since": _said(manifest.since),
        "items": [_item_values(item) for item in manifest.items],
    }
    return json.dumps(values, indent=0, ensure_ascii=True).encode() + b"\n"


def head(manifest: bytes, signature: bytes) -> bytes:
    """The first line."""
    return MAGIC + f"1 {len(manifest)} {len(signature)}\n".encode()


def parse_head(line: bytes) -> tuple[int, int]:
    """Octets of manifest and signature. Raises BadData."""
    match = _HEAD.fullmatch(line)
    if match is None:
        version = line.removeprefix(MAGIC).split(b" ")[0]
        if line.startswith(MAGIC) and version.isdigit() and version != b"1":
            raise BadData(f"a bundle of version {version.decode()[:10]}, which this postseal doesn't know")
        raise BadData("not a bundle of evidence")
    manifest, signature = int(match[1]), int(match[2])
    if manifest > MOST_MANIFEST or signature > MOST_SIGNATURE:
        raise BadData("its manifest or signature is larger than any honest one")
    return manifest, signature


def decode(data: bytes) -> Manifest:
    """Read a manifest, strictly: what isn't understood is refused. Raises BadData."""
    try:
        values = json.loads(data)
        _keys(values, {"node", "created", "since", "items"}, set())
        if not isinstance(values["node"], str) or not _NODE.fullmatch(values["node"]):
            raise ValueError("the name of the node")
        created = _time(values["created"])
        if created is None:
            raise ValueError("no date")
        listed = values["items"]
        if not isinstance(listed, list) or len(listed) > MOST_ITEMS:
            raise ValueError("the list of items")
        items = tuple(_item(entry) for entry in listed)
        _whole(items)
        return Manifest(values["node"], created, items, _time(values["since"]))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise BadData(f"its manifest can't be read: {exc}") from exc


def why_refused(manifest: Manifest, last: datetime | None, at: datetime, skew: timedelta) -> str:
    """What speaks against a signed bundle as a whole, in words; empty when nothing does.

    ``last`` is when the newest bundle of the same signer that was taken here had been made. An older one is a replay, which
    could only keep news from us.
    """
    if manifest.created > at + skew:
        return f"it was made {_said(manifest.created)}, in the future; is a clock wrong?"
    if last is not None and manifest.created < last:
        return f"it was made {_said(manifest.created)}, before one of {_said(last)} that was taken from the same node already"
    return ""


def _whole(items: Sequence[Item]) -> None:
    """Nothing twice, and every certificate that is named is there."""
    names = [item.sha256 for item in items]
    if len(set(names)) != len(names):
        raise ValueError("an item is listed twice")
    certificates = {item.sha256 for item in items if item.kind is ItemKind.CERTIFICATE}
    for item in items:
        named = {*item.chain, *([item.subject] if item.subject else [])}
        if not named <= certificates:
            raise ValueError(f"the {item.kind.value} {item.sha256[:16]} names a certificate that isn't there")


def _item_values(item: Item) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": item.kind.value, "sha256": item.sha256, "size": item.size}
    if item.kind is not ItemKind.CERTIFICATE:
        values |= {"url": item.url, "fetched_at": _said(item.fetched_at), "chain": list(item.chain)}
    if item.kind is ItemKind.OCSP:
        values["certificate"] = item.subject
    return values


def _item(values: Any) -> Item:
    kind = ItemKind(values["kind"])
    extra = set() if kind is ItemKind.CERTIFICATE else {"url", "fetched_at", "chain"}
    _keys(values, {"kind", "sha256", "size"} | extra, {"certificate"} if kind is ItemKind.OCSP else set())
    size = values["size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= _LARGEST_ITEM:
        raise ValueError("the size of an item")
    if kind is ItemKind.CERTIFICATE:
        return Item(kind, _sha256(values["sha256"]), size)
    chain = values["chain"]
    if not isinstance(chain, list) or not 1 <= len(chain) <= 16:
        raise ValueError("the chain of an item")
    subject = _sha256(values["certificate"]) if kind is ItemKind.OCSP else ""
    return Item(
        kind, _sha256(values["sha256"]), size, _url(values["url"]), _time(values["fetched_at"]),
        tuple(_sha256(name) for name in chain), subject,
    )  # fmt: skip


def _keys(values: Any, needed: set[str], more: set[str]) -> None:
    if not isinstance(values, Mapping) or set(values) != needed | more:
        raise ValueError("other keys than those of this version")


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a SHA-256")
    return value


def _url(value: Any) -> str:
    # It is shown, and becomes an alias of the evidence; nobody connects to it here.
    if not isinstance(value, str) or len(value) > 4096 or not value.isprintable() or not value.isascii():
        raise ValueError("a URL")
    return value


def _said(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime(_TIME)


def _time(value: Any) -> datetime | None:
    return None if value is None else datetime.strptime(str(value), _TIME).replace(tzinfo=UTC)
