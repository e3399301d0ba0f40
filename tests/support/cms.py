"""Sealing in one call, and recipients of every kind, for tests of CMS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from postseal.app.cms_layers import Opened, Opening, open_message
from postseal.app.verify import Request
from postseal.core.certs import Certificate, load_certificate
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.unwrapping import Holder, PrivateKey
from postseal.core.der import BIT_STRING, SEQUENCE, Cursor, tlv
from postseal.core.policy import Cleared, clear_by_operator
from postseal.core.suite import PLAIN_WRAP, Suite, Wrap
from support.pki import DAY, NOW, Authority, Leaf, authority

KINDS = ("rsa2048", "p256", "p384", "p521")
BRAINPOOL = ("bp256", "bp384", "bp512")


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


def cleared(leaves: Sequence[Leaf], wrap: Wrap = PLAIN_WRAP) -> list[Cleared]:
    return [replace(clear_by_operator(leaf.certificate), wrap=wrap) for leaf in leaves]


def with_spki(leaf: Leaf, spki: bytes) -> Leaf:
    """The certificate of ``leaf`` again with another SubjectPublicKeyInfo; signed by ``root``."""
    parts = leaf.certificate.parts
    body = tlv(SEQUENCE, parts.tbs[Cursor(parts.tbs).enter().at :].replace(parts.spki, spki))
    signature = root().key.sign(body, PKCS1v15(), SHA256())
    return Leaf(
        load_certificate(tlv(SEQUENCE, body, parts.outer_algorithm, tlv(BIT_STRING, b"\0", signature))), leaf.key
    )


def oaep_recipient(identifier: bytes, slot: int = 0) -> Leaf:
    """A recipient whose RSA key says id-RSAES-OAEP by this AlgorithmIdentifier (RFC 4055 §4)."""
    # The key is that of ``recipient``; the command judges by today's date, so this one lasts.
    far = NOW + 3000 * DAY
    leaf = root().issue(f"oaep-{slot}@example.test", kind="rsa2048", slot=("cms", slot), not_after=far)
    key = Cursor(leaf.certificate.spki).enter()
    key.take()
    return with_spki(leaf, tlv(SEQUENCE, identifier, key.raw()))


def sealed_parts(
    suite: Suite, leaves: Sequence[Leaf], content: bytes, chunk: int = 65535, wrap: Wrap = PLAIN_WRAP
) -> tuple[bytes, bytes, bytes]:
    """(head, ciphertext, tail) of ``content`` given to the sealer in pieces of ``chunk`` octets."""
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    sealer = ContentSealer(suite, key, iv)
    pieces = [sealer.update(content[start : start + chunk]) for start in range(0, len(content), chunk)]
    ciphertext = b"".join((*pieces, sealer.finish()))
    head, tail = envelope(suite, key, cleared(leaves, wrap), iv, len(ciphertext), sealer.tag)
    return head, ciphertext, tail


def sealed(suite: Suite, leaves: Sequence[Leaf], content: bytes, wrap: Wrap = PLAIN_WRAP) -> bytes:
    """DER of a ContentInfo."""
    return b"".join(sealed_parts(suite, leaves, content, wrap=wrap))


def open_sealed(message: bytes, key: PrivateKey, certificate: Certificate | None = None) -> Opened:
    """A message with all its layers taken off; signers have nobody to vouch for them."""
    return open_message(message, Opening(Request(()), NOW, (Holder(key, certificate),)))
