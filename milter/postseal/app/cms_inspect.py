"""What a message or a bare CMS object is, layer by layer as far as no key is needed, as values for JSON."""

from __future__ import annotations

from typing import Any

from postseal.app.cms_account import brought_as_json, checked_as_json, identifier_as_json
from postseal.app.cms_entity import Entity, Kind, cms_kind, looks_like_entity, sealed_as_a_whole, take_entity
from postseal.app.cms_layers import MAX_LAYERS
from postseal.app.cms_verify import check_clear, check_opaque, uncovered
from postseal.core.cms import structures as cms
from postseal.core.cms.classify import classify
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.parse import Enveloped, parse_enveloped, well_formed_type
from postseal.core.cms.signed_reader import joined, parse_detached, parse_signed
from postseal.core.errors import BadData
from postseal.core.message import only


def inspect(message: bytes) -> dict[str, Any]:
    """What a message or a bare CMS object is, as values for JSON. Raises BadData when it can't be taken apart.

    ``protection`` is none, signed, encrypted or claimed-only; ``cms`` is the outermost layer and ``layers`` are those that can
    be seen without a key, and ``fault`` says why there isn't what the message claims to be.
    """
    if not message:
        raise BadData("there is no message: the input is empty")
    entity = take_entity(message)
    content_type = only(entity.fields or (), b"content-type")
    found: dict[str, Any] = {
        "protection": _bare_protection(entity) if entity.fields is None else str(classify(entity.fields, entity.body)),
        "content_type": content_type.unfolded.decode("latin-1") if content_type else None,
        "cms": None,
        "layers": [],
    }
    for _ in range(MAX_LAYERS):
        if not (entity.is_cms or entity.is_multipart_signed):
            break
        try:
            layer, content = _layer(entity)
        except BadData as exc:
            if entity.fields is None and not found["layers"]:
                raise
            found["fault"] = str(exc)
            break
        found["layers"].append(layer)
        if content is None or not looks_like_entity(content):
            break
        entity = take_entity(content)
    found["cms"] = found["layers"][0] if found["layers"] else None
    return found


def _bare_protection(entity: Entity) -> str:
    octets = entity.cms_octets()
    kind = cms_kind(octets)
    if kind in (Kind.SIGNED, Kind.COMPRESSED):
        return "signed" if kind is Kind.SIGNED else "none"
    return "encrypted" if well_formed_type(octets) is not None else "claimed-only"


def _layer(entity: Entity) -> tuple[dict[str, Any], bytes | None]:
    """(description, what is inside as far as it can be seen). Raises BadData."""
    if entity.is_multipart_signed:
        return _clear_signed(entity)
    octets = entity.cms_octets()
    kind = cms_kind(octets)
    if kind is Kind.SIGNED:
        return _signed(octets)
    if kind is Kind.COMPRESSED:
        return {"type": "compressed-data", "content_length": len(octets)}, None
    return _describe(parse_enveloped(octets)), None


def _clear_signed(entity: Entity) -> tuple[dict[str, Any], bytes | None]:
    fields = entity.fields or ()
    parts = split_signed(fields, entity.crlf_body())
    checked = check_clear(parts, parse_detached(parts.signature))
    covered = bytes(parts.covered)
    found = {
        "type": "signed-data",
        "detached": True,
        "content_type": checked.signed.content_type,
        "micalg": parts.micalg or None,
        **checked_as_json(checked, uncovered(parts, fields)),
        "notes": list(parts.notes),
    }
    return found, covered if sealed_as_a_whole(covered) else None


def _signed(octets: bytes) -> tuple[dict[str, Any], bytes | None]:
    signed = parse_signed(octets)
    found = {
        "type": "signed-data",
        "detached": signed.content is None,
        "content_type": signed.content_type,
        "content_length": signed.length,
    }
    if signed.content is None:
        # Without what was signed nothing can be said of the signatures; certs-only messages have none.
        unchecked = [identifier_as_json(each.sid) for each in signed.signers]
        return {**found, "signers": [], "unchecked_signers": unchecked, **brought_as_json(signed)}, None
    return {**found, **checked_as_json(check_opaque(signed))}, joined(signed.content)


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
