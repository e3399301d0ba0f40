"""The DER head and tail that make an envelope of a ciphertext (RFC 5652 §6, RFC 5083).

The key is wrapped for the recipients when they are known, so one ciphertext can serve several envelopes (RSA recipients apart
from EC recipients).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.cms import structures as cms
from postseal.core.cms.content import TAG_LENGTH, check_lengths
from postseal.core.cms.recipients import Recipient, recipient
from postseal.core.errors import BadData
from postseal.core.policy import Cleared
from postseal.core.suite import Suite


def _content_algorithm(suite: Suite, iv: bytes) -> bytes:
    oid = cms.SUITE_OID[suite]
    if suite.gcm:
        parameters = cms.GcmParameters(nonce=iv, icv_length=TAG_LENGTH)
        return asn1.encode_der(cms.GcmAlgorithm(algorithm=oid, parameters=parameters))
    return asn1.encode_der(cms.CbcAlgorithm(algorithm=oid, iv=iv))


@lru_cache(maxsize=8)
def _oid(oid: Oid) -> bytes:
    return asn1.encode_der(cms.PlainAlgorithm(algorithm=oid))[2:]


def _info(ready: Recipient, key: bytes, who: Cleared) -> bytes:
    try:
        return ready.info(key)
    except (ValueError, UnsupportedAlgorithm) as exc:
        # A modulus that is too short for the padding, a point with which nothing can be agreed upon (RFC 7748 §6.1).
        raise BadData(f"certificate {who.certificate.fingerprint[:16]}: nothing can be encrypted for its key") from exc


def envelope(
    suite: Suite, key: bytes, cleared: Sequence[Cleared], iv: bytes, content_length: int, tag: bytes
) -> tuple[bytes, bytes]:
    """DER head and tail around ``content_length`` octets of ciphertext: ``head + ciphertext + tail`` is a ContentInfo.

    EnvelopedData for CBC (``tag`` empty), AuthEnvelopedData for GCM. Raises BadData for a key that can't be used.
    """
    check_lengths(suite, key, iv)
    gcm = suite.gcm
    if not cleared or len(tag) != (TAG_LENGTH if gcm else 0):
        raise BadData("an envelope needs at least one recipient, and a tag exactly when the suite is GCM")
    ready = [recipient(each) for each in cleared]
    # DER wants a SET OF in order (X.690 §11.6).
    infos = sorted([_info(each, key, who) for each, who in zip(ready, cleared, strict=True)])
    recipients_length = sum(map(len, infos))
    tail = asn1.encode_der(tag) if gcm else b""
    content = _oid(cms.DATA) + _content_algorithm(suite, iv) + cms.header(0x80, content_length)
    content = cms.header(0x30, len(content) + content_length) + content
    # RFC 5652 §6.1: the highest version that a recipient asks for. RFC 5083 §2.1: AuthEnvelopedData is always 0.
    version = asn1.encode_der(0 if gcm else max([each.envelope_version for each in ready]))
    before = version + cms.header(0x31, recipients_length)
    # The lengths are added up from the inside, and a hundred recipients put together once.
    rest = recipients_length + len(content) + content_length + len(tail)
    before = cms.header(0x30, len(before) + rest) + before
    before = cms.header(0xA0, len(before) + rest) + before
    before = _oid(cms.AUTH_ENVELOPED_DATA if gcm else cms.ENVELOPED_DATA) + before
    before = cms.header(0x30, len(before) + rest) + before
    return b"".join([before, *infos, content]), tail
