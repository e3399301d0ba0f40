"""Sealing in one call, and recipients of every kind, for tests of CMS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.policy import Cleared, clear_by_operator
from postseal.core.suite import Suite
from support.pki import Authority, Leaf, authority

KINDS = ("rsa2048", "p256", "p384", "p521")


@cache
def root() -> Authority:
    """One issuer for all recipients, so that each has a serial number of its own."""
    made = authority("CMS test root")
    # The root has a serial number itself; NSS imports no second certificate with the same issuer and serial.
    made.serials = 5000
    return made


def recipient(kind: str = "rsa2048", slot: int = 0) -> Leaf:
    """A recipient whose key is made once per run."""
    return _recipient(kind, slot)


@cache
def _recipient(kind: str, slot: int) -> Leaf:
    return root().issue(f"{kind}-{slot}@example.test", kind=kind, slot=("cms", slot))


def cleared(leaves: Sequence[Leaf]) -> list[Cleared]:
    return [clear_by_operator(leaf.certificate) for leaf in leaves]


def sealed_parts(
    suite: Suite, leaves: Sequence[Leaf], content: bytes, chunk: int = 65535
) -> tuple[bytes, bytes, bytes]:
    """(head, ciphertext, tail) of ``content`` given to the sealer in pieces of ``chunk`` octets."""
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    sealer = ContentSealer(suite, key, iv)
    pieces = [sealer.update(content[start : start + chunk]) for start in range(0, len(content), chunk)]
    ciphertext = b"".join((*pieces, sealer.finish()))
    head, tail = envelope(suite, key, cleared(leaves), iv, len(ciphertext), sealer.tag)
    return head, ciphertext, tail


def sealed(suite: Suite, leaves: Sequence[Leaf], content: bytes) -> bytes:
    """DER of a ContentInfo."""
    return b"".join(sealed_parts(suite, leaves, content))
