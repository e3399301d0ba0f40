"""Sealing, opening and inspecting one message on the command line: the engine of the milter without its policy.

Octets in, octets out; files, standard streams and randomness are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.cms.envelope import ContentSealer, envelope
from postseal.core.cms.reader import (
    Enveloped,
    PrivateKey,
    check_built,
    classify,
    decode_body,
    open_enveloped,
    parse_enveloped,
    smime_body,
)
from postseal.core.cms.smime import LineCheck, base64_blocks, split
from postseal.core.errors import BadData
from postseal.core.message import HEADER_LIMIT, Field, HeaderFault, header_length, only, parse_header
from postseal.core.policy import Cleared
from postseal.core.reasons import reason
from postseal.core.suite import Suite
from postseal.core.text import escape

_DETAILS_SHOWN = 200


class Scratch(Protocol):
    """Where ciphertext waits until its length is known: append, then read once from the start."""

    def write(self, data: bytes, /) -> object: ...

    def chunks(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """``octets`` yields the sealed message, CRLF throughout; ``notes`` are sentences for the operator."""

    octets: Iterator[bytes]
    notes: tuple[str, ...]


def refuse(code: str, detail: str = "") -> BadData:
    """The catalogue's sentence for a ``mail.*`` code, as an error."""
    sentence = f"{reason(code).sentence} ({code})"
    return BadData(f"{sentence}: {escape(detail, _DETAILS_SHOWN)}" if detail else sentence)


# --- taking a message in ----------------------------------------------------------------------------------------------


def _take_header(chunks: Iterator[bytes]) -> tuple[bytes, bytes, bool]:
    """(header with its empty line in CRLF form, what of the body came with it, whether lines end with LF only)."""
    taken = bytearray()
    for chunk in chunks:
        taken += chunk
        found = _header_in(bytes(taken))
        if found is not None:
            return found
        if len(taken) > HEADER_LIMIT:
            raise refuse("mail.header-too-large", f"no empty line in the first {HEADER_LIMIT} octets")
    octets = bytes(taken)
    if not octets:
        raise BadData("there is no message: the input is empty")
    lf_only = _lf_only(octets)
    return octets.replace(b"\n", b"\r\n") if lf_only else octets, b"", lf_only


def _lf_only(octets: bytes) -> bool:
    """The first line end decides: text with LF as Unix keeps it, or CRLF as it travels."""
    end = octets.find(b"\n")
    return end >= 0 and octets[end - 1 : end] != b"\r"


def _header_in(octets: bytes) -> tuple[bytes, bytes, bool] | None:
    if not _lf_only(octets):
        length = header_length(octets)
        return None if length is None else (octets[:length], octets[length:], False)
    end = 1 if octets.startswith(b"\n") else octets.find(b"\n\n") + 2
    if end == 1 and not octets.startswith(b"\n"):
        return None
    return octets[:end].replace(b"\n", b"\r\n"), octets[end:], True


def _fields(header: bytes) -> tuple[Field, ...]:
    fields = parse_header(header)
    if isinstance(fields, HeaderFault):
        raise refuse(fields.code, fields.detail)
    return fields


def _canonical(chunks: Iterable[bytes], lf_only: bool) -> Iterator[bytes]:
    """The body with CRLF line ends. Raises BadData for a CR or LF that stands alone (RFC 8551 §3.1.1)."""
    check = LineCheck()
    for chunk in chunks:
        if lf_only:
            if b"\r" in chunk:
                raise refuse("mail.bare-cr", "lines end with LF, but there is a CR too")
            yield chunk.replace(b"\n", b"\r\n")
        else:
            check.update(chunk)
            yield chunk
    if fault := check.finish():
        raise refuse(fault)


# --- seal -------------------------------------------------------------------------------------------------------------


def seal(
    message: Iterable[bytes], cleared: Sequence[Cleared], suite: Suite, key: bytes, iv: bytes, scratch: Scratch
) -> Sealed:
    """Seal one message for ``cleared``. ``key`` and ``iv`` are fresh and used nowhere else. Raises BadData.

    All of ``message`` is read before this returns; nothing of it but ciphertext is kept, in ``scratch``.
    """
    chunks = iter(message)
    header, start, lf_only = _take_header(chunks)
    parts = split(_fields(header))
    if parts.fault:
        raise refuse(parts.fault, parts.fault_detail)
    notes = []
    if lf_only:
        notes.append("lines ended with LF; they were converted to CRLF before sealing")
    sealer = ContentSealer(suite, key, iv)
    length = 0

    def keep(ciphertext: bytes) -> int:
        scratch.write(ciphertext)
        return len(ciphertext)

    length += keep(sealer.update(parts.inner))
    for chunk in _canonical(_joined(start, chunks), lf_only):
        length += keep(sealer.update(chunk))
    length += keep(sealer.finish())
    head, tail = envelope(suite, key, cleared, iv, length, sealer.tag)
    check_built(head, tail, length, cleared)
    outer = b"".join(field.line for field in parts.outer(suite)) + b"\r\n"

    def octets() -> Iterator[bytes]:
        yield outer
        yield from base64_blocks(_around(head, scratch.chunks(), tail))

    return Sealed(octets(), tuple(notes))


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _around(head: bytes, middle: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from middle
    yield tail


# --- open -------------------------------------------------------------------------------------------------------------


def load_private_key(blob: bytes, passphrase: bytes | None) -> PrivateKey:
    """A private key in PEM or DER (PKCS#8, or the older forms of RSA and EC keys). Raises BadData."""
    load = load_der_private_key if blob[:1] == b"\x30" else load_pem_private_key
    try:
        key = load(blob, passphrase)
    except TypeError as exc:
        needs = (
            "is encrypted: give its passphrase" if passphrase is None else "isn't encrypted, but a passphrase was given"
        )
        raise BadData(f"the key {needs}") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        what = (
            "the passphrase is wrong or it is damaged" if passphrase is not None else "it is no PEM or DER private key"
        )
        raise BadData(f"the key can't be read: {what}") from exc
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise BadData("the key is neither RSA nor EC: it can't open mail")
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


def _cms_octets(message: bytes) -> tuple[tuple[Field, ...], bytes]:
    """(header fields, CMS octets) of an S/MIME message; no fields when ``message`` is a bare CMS object in DER or BER."""
    if not message:
        raise BadData("there is no message: the input is empty")
    # A SEQUENCE of 128 octets or more, or of indefinite length: no header begins so.
    if message[0] == 0x30 and message[1:2] >= b"\x80":
        return (), message
    header, body, _ = _take_header(iter((message,)))
    fields = _fields(header)
    if smime_body(fields) is None:
        raise BadData("the message isn't sealed: its Content-Type isn't application/pkcs7-mime")
    octets = decode_body(fields, body)
    if octets is None:
        raise BadData("the message can't be opened: its transfer encoding is damaged or unknown")
    return fields, octets


def open_sealed(message: bytes, key: PrivateKey, certificate: Certificate | None) -> Opened:
    """A sealed message, or a bare CMS object, opened with ``key``. Raises BadData.

    A message comes out with the outer fields in their order and the inner Content-* fields and body as they were sealed;
    of a bare CMS object the content comes out as it is.
    """
    fields, octets = _cms_octets(message)
    content = open_enveloped(octets, key, certificate)
    notes = []
    if not parse_enveloped(octets).authenticated:
        # ALG-7: CBC proves nothing about who wrote it, and parts of it may have been exchanged.
        notes.append("AES-CBC doesn't authenticate: without a signature inside, the content may have been changed")
    if not fields:
        return Opened(content, tuple(notes))
    if _lf_only(content) and b"\r" not in content:
        notes.append("the sealed content had lines that end with LF; they were converted to CRLF")
        content = content.replace(b"\n", b"\r\n")
    header, body, _ = _take_header(iter((content,))) if content else (b"", b"", False)
    inner = _fields(header)
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


# --- inspect ----------------------------------------------------------------------------------------------------------


def inspect(message: bytes) -> dict[str, Any]:
    """What a message or a bare CMS object is, as values for JSON. Raises BadData when it can't be taken apart.

    ``protection`` is none, signed, encrypted or claimed-only; ``cms`` is there when it is encrypted, and ``fault`` says
    why it isn't when it only claims to be.
    """
    if message[:1] == b"\x30" and message[1:2] >= b"\x80":
        return {"protection": "encrypted", "content_type": None, "cms": _describe(parse_enveloped(message))}
    header, body, _ = _take_header(iter((message,)))
    fields = _fields(header)
    content_type = only(fields, b"content-type")
    found: dict[str, Any] = {
        "protection": str(classify(fields, body)),
        "content_type": content_type.unfolded.decode("latin-1") if content_type else None,
        "cms": None,
    }
    if found["protection"] == "encrypted":
        found["cms"] = _describe(parse_enveloped(decode_body(fields, body) or b""))
    elif found["protection"] == "claimed-only":
        try:
            parse_enveloped(_cms_octets(message)[1])
        except BadData as exc:
            found["fault"] = str(exc)
    return found


def _describe(enveloped: Enveloped) -> dict[str, Any]:
    known = cms.CONTENT_CIPHERS.get(enveloped.cipher)
    return {
        "type": "auth-enveloped-data" if enveloped.authenticated else "enveloped-data",
        "cipher": known[0] if known else cms.FOREIGN_CIPHERS[enveloped.cipher],
        "content_length": len(enveloped.content),
        "tag_length": len(enveloped.mac) if enveloped.authenticated else None,
        "recipients": [each for info in enveloped.recipients for each in _describe_recipient(info)],
    }


def _describe_recipient(info: cms.RecipientInfo) -> list[dict[str, Any]]:
    if isinstance(info, cms.KeyTransRecipientInfo):
        oid, _ = cms.algorithm_of(info.key_encryption_algorithm)
        names = {cms.RSA_ENCRYPTION: "rsa-pkcs1v15", cms.RSAES_OAEP: "rsa-oaep"}
        return [{"kind": "key-transport", "algorithm": names.get(oid, oid.dotted_string), **_describe_rid(info.rid)}]
    if isinstance(info, cms.KeyAgreeRecipientInfo):
        oid, _ = cms.algorithm_of(info.key_encryption_algorithm)
        name = f"ecdh-{cms.STD_DH_KDF[oid]}kdf" if oid in cms.STD_DH_KDF else oid.dotted_string
        keys = info.recipient_encrypted_keys
        return [{"kind": "key-agreement", "algorithm": name, **_describe_rid(each.rid)} for each in keys]
    kind = "other"
    if isinstance(info, cms.KekRecipientInfo | cms.PasswordRecipientInfo):
        kind = "password" if isinstance(info, cms.PasswordRecipientInfo) else "key-encryption-key"
    return [{"kind": kind, "algorithm": None, "issuer": None, "serial": None}]


def _describe_rid(rid: object) -> dict[str, str | None]:
    """Issuer as RFC 4514 text and serial in hex, or the subject key identifier in hex."""
    if isinstance(rid, cms.IssuerAndSerialNumber):
        return {"issuer": cms.name_text(rid.issuer), "serial": f"{cms.integer(rid.serial):x}"}
    key_id = rid.subject_key_identifier if isinstance(rid, cms.RecipientKeyIdentifier) else rid
    return {"issuer": None, "serial": None, "subject_key_id": key_id.hex() if isinstance(key_id, bytes) else None}
