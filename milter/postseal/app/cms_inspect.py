"""What a message or a bare CMS object is, as values for JSON."""

from __future__ import annotations

from typing import Any

from postseal.app.cms_intake import cms_octets, header_fields, take_header
from postseal.core.cms import structures as cms
from postseal.core.cms.classify import classify, decode_body
from postseal.core.cms.parse import Enveloped, parse_enveloped
from postseal.core.errors import BadData
from postseal.core.message import only


def inspect(message: bytes) -> dict[str, Any]:
    """What a message or a bare CMS object is, as values for JSON. Raises BadData when it can't be taken apart.

    ``protection`` is none, signed, encrypted or claimed-only; ``cms`` is there when it is encrypted, and ``fault`` says
    why it isn't when it only claims to be.
    """
    if message[:1] == b"\x30" and message[1:2] >= b"\x80":
        return {"protection": "encrypted", "content_type": None, "cms": _describe(parse_enveloped(message))}
    header, body, _ = take_header(iter((message,)))
    fields = header_fields(header)
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
            parse_enveloped(cms_octets(message)[1])
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
        name = f"ecdh-{cms.STD_DH[oid].name}" if oid in cms.STD_DH else oid.dotted_string
        keys = info.recipient_encrypted_keys
        return [{"kind": "key-agreement", "algorithm": name, **_describe_rid(each.rid)} for each in keys]
    if isinstance(info, cms.OtherRecipientInfo) and info.ori_type == cms.ORI_KEM:
        return _describe_kem(info)
    kind = "other"
    if isinstance(info, cms.KekRecipientInfo | cms.PasswordRecipientInfo):
        kind = "password" if isinstance(info, cms.PasswordRecipientInfo) else "key-encryption-key"
    return [{"kind": kind, "algorithm": None, "issuer": None, "serial": None}]


def _describe_kem(info: cms.OtherRecipientInfo) -> list[dict[str, Any]]:
    """RFC 9629 §3"""
    kind = {"kind": "key-encapsulation"}
    try:
        kem = info.ori_value.parse(cms.KemRecipientInfo)
        oid, _ = cms.algorithm_of(kem.kem)
    except ValueError:
        return [{**kind, "algorithm": None, "issuer": None, "serial": None}]
    return [{**kind, "algorithm": cms.KEMS.get(oid, oid.dotted_string), **_describe_rid(kem.rid)}]


def _describe_rid(rid: object) -> dict[str, str | None]:
    """Issuer as RFC 4514 text and serial in hex, or the subject key identifier in hex."""
    if isinstance(rid, cms.IssuerAndSerialNumber):
        return {"issuer": cms.name_text(rid.issuer), "serial": f"{cms.integer(rid.serial):x}"}
    key_id = rid.subject_key_identifier if isinstance(rid, cms.RecipientKeyIdentifier) else rid
    return {"issuer": None, "serial": None, "subject_key_id": key_id.hex() if isinstance(key_id, bytes) else None}
