"""Multipart/signed mail (RFC 8551 §3.5.3) in tests: the signature is checked here, the signer is the engine's to judge."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes

from postseal.core.certs import Certificate, load_certificate
from postseal.core.der import OCTET_STRING, SEQUENCE, SET, Cursor, context, tlv
from postseal.core.signature import parse_algorithm, verifies

_SIGNED_DATA, _MESSAGE_DIGEST = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.4"
_HASHES = {"2.16.840.1.101.3.4.2.1": hashes.SHA256(), "1.3.14.3.2.26": hashes.SHA1()}
_WITH_RSA = {"2.16.840.1.101.3.4.2.1": "2a864886f70d01010b", "1.3.14.3.2.26": "2a864886f70d010105"}


@dataclass(frozen=True)
class Signed:
    """``signer`` is the certificate that the signature names; ``intact`` tells whether content and signature fit its key."""

    certificates: tuple[Certificate, ...]
    crls: tuple[bytes, ...]
    signer: Certificate
    intact: bool


def read_signed(mail: bytes) -> Signed:
    """One signer, detached content, signed attributes: what the mails of the suites have."""
    mail = mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = re.search(rb'boundary="([^"]+)"', mail)
    assert found is not None
    _, content, signature, _ = mail.split(b"\r\n--" + found[1], 3)
    der = base64.b64decode(signature.partition(b"\r\n\r\n")[2])
    return _signed_data(Cursor(der).enter(SEQUENCE), content.removeprefix(b"\r\n"))


def _signed_data(info: Cursor, content: bytes) -> Signed:
    assert info.oid() == _SIGNED_DATA
    data = info.enter(context(0)).enter(SEQUENCE)
    data.take(2), data.take(SET), data.take(SEQUENCE)
    certificates: list[Certificate] = []
    crls: list[bytes] = []
    while data.peek() in (context(0), context(1)):
        is_crls = data.peek() == context(1)
        inner = data.enter(data.peek())
        for element in inner.children(SEQUENCE):
            item = bytes(inner.data[element.start : element.end])
            if is_crls:
                crls.append(item)
            else:
                certificates.append(load_certificate(item))
    signer = data.enter(SET).enter(SEQUENCE)
    signer.take(2)
    sid = signer.enter(SEQUENCE)
    issuer, serial = sid.raw(SEQUENCE), sid.integer(32)
    who = next(c for c in certificates if c.issuer == issuer and c.serial == serial)
    digest_oid = signer.enter(SEQUENCE).oid()
    attributes = signer.take(context(0))
    signer.take(SEQUENCE)
    value = signer.content(OCTET_STRING)
    signed = tlv(SET, bytes(signer.data[attributes.body : attributes.end]))
    algorithm = parse_algorithm(tlv(SEQUENCE, tlv(6, bytes.fromhex(_WITH_RSA[digest_oid])), b"\x05\x00"))
    digest = hashes.Hash(_HASHES[digest_oid])
    digest.update(content)
    intact = _message_digest(signer.inside(attributes)) == digest.finalize()
    return Signed(tuple(certificates), tuple(crls), who, intact and verifies(algorithm, value, signed, who.spki))


def _message_digest(attributes: Cursor) -> bytes:
    for element in attributes.children(SEQUENCE):
        attribute = attributes.inside(element)
        if attribute.oid() == _MESSAGE_DIGEST:
            return attribute.enter(SET).content(OCTET_STRING)
    raise AssertionError("no messageDigest")
