"""Opening one message with a private key."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from postseal.app.cms_intake import cms_octets, header_fields, take_header, uses_lf
from postseal.app.private_keys import load_key
from postseal.core.certs import Certificate
from postseal.core.cms.opening import unseal
from postseal.core.cms.unwrapping import Holder, PrivateKey
from postseal.core.errors import BadData
from postseal.core.message import Field, only
from postseal.core.text import escape


def load_private_key(blob: bytes, passphrase: bytes | None) -> PrivateKey:
    """A private key in PEM or DER (PKCS#8, or the older forms of RSA and EC keys). Raises BadData."""
    key = load_key(blob, passphrase)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey):
        raise BadData("the key is neither RSA nor EC nor X25519: it can't open mail")
    return key


def check_pair(certificate: Certificate, key: PrivateKey) -> None:
    """Raises BadData when the certificate isn't for the key."""
    try:
        same = certificate.x509.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise BadData(f"the certificate's key can't be read: {exc}") from exc
    if not same:
        raise BadData("the certificate isn't for this key")


@dataclass(frozen=True, slots=True)
class Opened:
    """``octets`` is the message in clear; ``notes`` are sentences for the operator."""

    octets: bytes
    notes: tuple[str, ...]


def open_sealed(message: bytes, key: PrivateKey, certificate: Certificate | None) -> Opened:
    """A sealed message, or a bare CMS object, opened with ``key``. Raises BadData.

    A message comes out with the outer fields in their order and the inner Content-* fields and body as they were sealed;
    of a bare CMS object the content comes out as it is.
    """
    fields, octets = cms_octets(message)
    unsealed = unseal(octets, (Holder(key, certificate),))
    content = b"".join(unsealed.chunks())
    notes = list(unsealed.notes)
    if not fields:
        return Opened(content, tuple(notes))
    if uses_lf(content) and b"\r" not in content:
        notes.append("the sealed content had lines that end with LF; they were converted to CRLF")
        content = content.replace(b"\n", b"\r\n")
    header, body, _ = take_header(iter((content,))) if content else (b"", b"", False)
    inner = header_fields(header)
    outside = [field for field in fields if not field.name.lower().startswith(b"content-")]
    inside = [field for field in inner if field.name.lower().startswith(b"content-")]
    if only(fields, b"mime-version") is None:
        outside.append(Field(b"MIME-Version", b" 1.0"))
    for field in inner:
        # ALG-8: what stands inside must not set fields of the message outside.
        if field not in inside and not field.named(b"mime-version"):
            notes.append(f"the field {escape(field.name.decode('latin-1'), 60)} inside the sealed content was left out")
    lines = b"".join(field.line for field in (*outside, *inside))
    return Opened(lines + b"\r\n" + body, tuple(notes))
