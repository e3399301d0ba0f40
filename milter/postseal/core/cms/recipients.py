"""RecipientInfos: the content key wrapped for each recipient (RFC 5652 §6.2), whatever the kind of its key.

What RSA padding and ephemeral keys need of randomness comes from the crypto library.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from cryptography.hazmat import asn1

from postseal.core.certs import Certificate
from postseal.core.cms import key_agreement, key_transport
from postseal.core.cms import structures as cms
from postseal.core.errors import BadData
from postseal.core.policy import Cleared
from postseal.core.profile import key_kind, profile
from postseal.core.suite import FAMILIES, KeyFamily, KeyTransport, Wrap


class Recipient(Protocol):
    """One recipient, ready for any number of messages."""

    @property
    def envelope_version(self) -> int:
        """The least version of an EnvelopedData that holds such a recipient (RFC 5652 §6.1; 3 for OtherRecipientInfo)."""

    def info(self, key: bytes) -> bytes:
        """DER of the RecipientInfo, with its tag in the CHOICE, that wraps a content key. Raises ValueError when it can't."""


# How each family wraps. A KEMRecipientInfo (RFC 9629) will be one more line here and one more kind in core.suite.FAMILIES.
_PREPARE: dict[KeyFamily, Callable[[Certificate, cms.RecipientIdentifier, Wrap], Recipient]] = {
    KeyFamily.RSA: key_transport.prepare,
    KeyFamily.EC: key_agreement.prepare,
    KeyFamily.X25519: key_agreement.prepare,
}


def recipient(cleared: Cleared) -> Recipient:
    """What wraps keys for a cleared certificate, kept for the next message to it. Raises BadData."""
    return _recipient(cleared.certificate, cleared.wrap.transport, cleared.wrap.by_key_id)


@lru_cache(maxsize=4096)
def _recipient(certificate: Certificate, transport: KeyTransport, by_key_id: bool) -> Recipient:
    kind = key_kind(certificate)
    if kind not in FAMILIES:
        raise BadData(f"certificate {certificate.fingerprint[:16]}: its key ({kind}) can't be used to encrypt")
    rid: cms.RecipientIdentifier
    if by_key_id:
        rid = subject_key_id(certificate)
    else:
        rid = asn1.decode_der(cms.IssuerAndSerialNumber, certificate.issuer_and_serial)
    return _PREPARE[FAMILIES[kind]](certificate, rid, Wrap(transport, by_key_id))


def subject_key_id(certificate: Certificate) -> bytes:
    """Raises BadData for a certificate without it.

    RFC 5652 §6.2.1: the identifier matches the extension's value. What RFC 5280 §4.2.1.2 would compute isn't in the
    certificate, and no reader is bound to look for it.
    """
    key_id = profile(certificate).subject_key_id
    if not key_id:
        raise BadData(
            f"certificate {certificate.fingerprint[:16]} has no subjectKeyIdentifier, so it can't be named by it"
        )
    return key_id
