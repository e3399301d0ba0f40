"""The account of a message's layers: as values for JSON, and as lines for people, where everything hostile is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from postseal.app.cms_layers import Layer, Opened
from postseal.app.cms_verify import Checked, SignatureReport, SignerReport
from postseal.core.capabilities import Capability, parse_capabilities, transports
from postseal.core.certs import Certificate
from postseal.core.cms.signed_reader import Signed, SignerIdentifier
from postseal.core.cms.structures import CONTENT_CIPHERS, FOREIGN_CIPHERS, STD_DH, name_text, tlv
from postseal.core.cms.verifying import SignerAccount
from postseal.core.errors import BadData
from postseal.core.path import Path
from postseal.core.reasons import reason
from postseal.core.text import escape, moment

_CIPHERS = {oid.dotted_string: name for oid, (name, *_) in CONTENT_CIPHERS.items()} | {
    oid.dotted_string: name for oid, name in FOREIGN_CIPHERS.items()
}
_AGREEMENTS = {oid.dotted_string: scheme.name for oid, scheme in STD_DH.items()}


def opened_as_json(opened: Opened) -> dict[str, Any]:
    """The public JSON of ``postseal open``; keys are stable."""
    return {
        "protection": str(opened.protection),
        "layers": [layer_as_json(layer) for layer in opened.layers],
        "notes": list(opened.notes),
    }


def layer_as_json(layer: Layer) -> dict[str, Any]:
    return {
        "type": str(layer.kind),
        "cipher": layer.cipher or None,
        "authenticated": layer.authenticated if layer.cipher else None,
        "signature": None if layer.signature is None else signature_as_json(layer.signature, layer.uncovered),
        "fault": layer.fault or None,
        "notes": list(layer.notes),
    }


def signature_as_json(report: SignatureReport, uncovered: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "covered_octets": report.covered,
        "covered_form": report.form,
        "uncovered": list(uncovered),
        "signers": [signer_as_json(each) for each in report.signers],
        **brought_as_json(report.signed),
    }


def checked_as_json(checked: Checked, uncovered: Sequence[str] = ()) -> dict[str, Any]:
    """Of signatures that are checked, but whose signers nobody judged."""
    return {
        "covered_octets": checked.covered.length,
        "covered_form": checked.form,
        "uncovered": list(uncovered),
        "signers": [{"reason": each.code, "detail": each.detail, **account_as_json(each)} for each in checked.accounts],
        **brought_as_json(checked.signed),
    }


def brought_as_json(signed: Signed) -> dict[str, Any]:
    """What a SignedData brings along."""
    return {
        "certificates": [_certificate(each) for each in signed.certificates],
        "unreadable_certificates": list(signed.unreadable),
        "ignored_certificates": signed.ignored,
        "crls": len(signed.crls),
    }


def signer_as_json(signer: SignerReport) -> dict[str, Any]:
    path = signer.path
    good = path.path if path is not None and isinstance(path.path, Path) else None
    chain = good.certificates if good is not None else ()
    return {
        "verdict": str(signer.verdict),
        "reason": signer.reason,
        "detail": signer.detail,
        **account_as_json(signer.account),
        "expected_address": None if signer.expected is None else str(signer.expected),
        "matched_address": None if signer.matched is None else str(signer.matched),
        "checked_at": None if path is None else moment(path.at),
        "path": [each.name for each in chain],
        "anchor": None if good is None else good.anchor.certificate.name,
        "revocation": [
            {"certificate": each.name, "verdict": str(v.status), "reason": v.reason, "source": v.source}
            for each, v in zip(chain, path.verdicts if path is not None else (), strict=False)
        ],
        "findings": [{"code": f.code, "detail": f.detail, "fatal": f.fatal} for f in signer.findings],
        "notes": list(signer.notes),
    }


def account_as_json(account: SignerAccount) -> dict[str, Any]:
    said = account.claims
    return {
        "signature": str(account.state),
        "signer": identifier_as_json(account.sid),
        "certificate": None if account.certificate is None else _certificate(account.certificate),
        "scheme": account.scheme or None,
        "digest": account.digest,
        "weak": account.weak or None,
        "signing_time": moment(said.signing_time),
        "signed_attributes": list(said.names) if said.present else None,
        "unsigned_attributes": list(account.unsigned),
        "capabilities": capability_names(said.capabilities),
        "names_its_certificate": bool(said.ess),
        "encryption_key_preference": said.key_preference.hex() or None,
    }


def capability_names(der: bytes) -> list[str] | None:
    """SMIMECapabilities for people, each name once, the OID of what has none here; None when there are none to read."""
    if not der:
        return None
    try:
        return list(dict.fromkeys(map(_capability_name, parse_capabilities(der))))
    except BadData:
        return None


def _capability_name(capability: Capability) -> str:
    transport = next(iter(transports((capability,))), None)
    if transport is not None:
        return str(transport)
    if capability.oid in _AGREEMENTS:
        return f"ecdh-{_AGREEMENTS[capability.oid]}"
    return _CIPHERS.get(capability.oid, capability.oid)


def _certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.name,
        "issuer": certificate.x509.issuer.rfc4514_string(),
        "serial": f"{certificate.serial:x}",
        "sha256": certificate.fingerprint,
        "not_before": moment(certificate.not_before),
        "not_after": moment(certificate.not_after),
    }


def identifier_as_json(sid: SignerIdentifier) -> dict[str, str | None]:
    if sid.subject_key_id:
        return {"issuer": None, "serial": None, "subject_key_id": sid.subject_key_id.hex()}
    serial = int.from_bytes(sid.serial, "big", signed=True)
    return {"issuer": _name(sid.issuer), "serial": f"{serial:x}", "subject_key_id": None}


def _name(der: bytes) -> str:
    try:
        return name_text(tlv(der))
    except BadData:
        return "#" + der.hex()


def opened_as_text(opened: Opened) -> Iterator[str]:
    """One line for each layer and signer, then the notes."""
    for number, layer in enumerate(opened.layers, 1):
        yield from layer_as_text(number, layer)
    yield from map(escape, opened.notes)
    if opened.protection == "decrypted-unauthenticated":
        yield "decrypted-unauthenticated: no good signature is inside, so the content may have been changed on the way"


def layer_as_text(number: int, layer: Layer) -> Iterator[str]:
    what = f"layer {number}: {layer.kind}"
    if layer.cipher:
        what += f", {layer.cipher}"
    if layer.fault:
        yield f"{what}: bad: {reason('sig.malformed').sentence} (sig.malformed): {escape(layer.fault)}"
    elif layer.signature is not None:
        form = "" if layer.signature.form == "as received" else f" {layer.signature.form}"
        yield f"{what}, {layer.signature.covered} octets{form} are covered"
        for signer in layer.signature.signers:
            yield from signer_as_text(signer)
        for each in layer.uncovered:
            yield f"not signed: {escape(each)}"
    else:
        yield what
    yield from map(escape, layer.notes)


def signer_as_text(signer: SignerReport) -> Iterator[str]:
    account = signer.account
    sentence = reason(signer.reason).sentence
    detail = f": {escape(signer.detail)}" if signer.detail not in ("", sentence) else ""
    yield f"signer {escape(_who(account))}: {signer.verdict}: {sentence} ({signer.reason}){detail}"
    how = ", ".join(each for each in (account.scheme, account.digest, account.weak) if each)
    checked = f"; checked for {moment(signer.path.at)}" if signer.path is not None else ""
    time = account.claims.signing_time
    says = f"; the signer says that it was at {moment(time)}, which nobody else vouches for" if time else ""
    yield f"  {how}{checked}{says}"
    for finding in signer.findings:
        yield f"  {'error' if finding.fatal else 'note'}: {escape(finding.detail)} ({finding.code})"
    for note in signer.notes:
        yield f"  note: {escape(note)}"


def _who(account: SignerAccount) -> str:
    if account.certificate is not None:
        return account.certificate.name
    sid = identifier_as_json(account.sid)
    return (
        f"with subject key identifier {sid['subject_key_id']}"
        if sid["subject_key_id"]
        else f"of serial {sid['serial']}"
    )
