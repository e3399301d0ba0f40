"""A protected message, layer by layer: decrypted, verified, decompressed, each with an account (RFC 8551 §3.7, RFC 2634 §1.1).

What is opened is always all of a message: its root is one CMS object, or is clear-signed and all that is signed is one that is
encrypted. It takes the place of the root. An encrypted part among others stays as it is, so that nothing that was encrypted is
ever shown between what anybody may have written (ALG-7, EFAIL).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from postseal.app.cms_entity import Entity, Kind, cms_kind, looks_like_entity, sealed_as_a_whole, take_entity
from postseal.app.cms_intake import uses_lf
from postseal.app.cms_verify import (
    Expected,
    SignatureReport,
    SignatureVerdict,
    SignerReport,
    check_clear,
    check_opaque,
    expected_signer,
    judge_signers,
    uncovered,
)
from postseal.app.verify import Request
from postseal.core.cms.compressed import InflationLimits, decompress
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.opening import CANNOT_OPEN, Reading, unseal
from postseal.core.cms.signed_reader import DATA, joined, parse_detached, parse_signed
from postseal.core.cms.unwrapping import Holder
from postseal.core.errors import BadData
from postseal.core.message import Field, only
from postseal.core.text import escape

MAX_LAYERS = 8
_GLANCE = 16 * 1024
# A header of a megabyte has room for 200,000 fields, and nobody reads so many notes.
_FIELDS_TOLD = 20
_OUTSIDE = "this signature is outside of what is encrypted: it says nothing of who wrote what is inside"
_AS_EVER = Reading()
_LIMITS = InflationLimits()


class Protection(StrEnum):
    """What may be said of the message that came out. ALG-7: DECRYPTED only when nobody can have changed it on the way."""

    NONE = "none"
    SIGNED = "signed"
    DECRYPTED = "decrypted"
    UNAUTHENTICATED = "decrypted-unauthenticated"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, outermost first. ``fault`` says why a signature that should be there can't be read."""

    kind: Kind
    cipher: str = ""
    authenticated: bool = True
    signature: SignatureReport | None = None
    uncovered: tuple[str, ...] = ()
    fault: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """What a message is opened with: keys for what is encrypted, and by what its signers are judged, for which time."""

    request: Request
    at: datetime
    holders: tuple[Holder, ...] = ()
    reading: Reading = _AS_EVER
    limits: InflationLimits = _LIMITS


@dataclass(frozen=True, slots=True)
class Opened:
    """``octets`` is the message in clear; ``notes`` are sentences for the operator."""

    octets: bytes = field(repr=False)
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]

    @property
    def protection(self) -> Protection:
        """ALG-7: CBC is as good as a signature inside it whose signers are all known and good."""
        doubtful = encrypted = signed = False
        for layer in self.layers:
            if layer.kind is Kind.ENCRYPTED:
                encrypted = True
                doubtful = doubtful or not layer.authenticated
            elif layer.signature is not None:
                signed = True
                doubtful = doubtful and not layer.signature.good
        if doubtful:
            return Protection.UNAUTHENTICATED
        return Protection.DECRYPTED if encrypted else Protection.SIGNED if signed else Protection.NONE

    @property
    def refused(self) -> bool:
        """Is there a signature that isn't good? Without trust anchors it need only hold, and be the sender's."""
        if any(layer.fault for layer in self.layers):
            return True
        signers = [each for layer in self.layers if layer.signature for each in layer.signature.signers]
        return not all(map(_acceptable, signers))


def _acceptable(signer: SignerReport) -> bool:
    return signer.verdict is SignatureVerdict.GOOD or signer.reason == "sig.no-anchor"


@dataclass(frozen=True, slots=True)
class _Peeled:
    """What was under a layer. ``content`` is None when the message stays as it is."""

    layer: Layer
    content: bytes | None = field(default=None, repr=False)


def open_message(message: bytes, opening: Opening, entity: Entity | None = None) -> Opened:
    """A message, or a bare CMS object, with all its layers taken off. Raises BadData.

    A message comes out with the outer fields in their order and the inner Content-* fields and body as they were protected;
    of a bare CMS object the content comes out as it is. What is clear-signed is readable as it is, and stays so, unless it is
    triple wrapped. ``entity`` is the message taken apart, where that was done already.
    """
    if not message:
        raise BadData("there is no message: the input is empty")
    # THR-4: what all layers together may make of the message.
    opening = replace(opening, limits=opening.limits.within(len(message)))
    outer = current = take_entity(message) if entity is None else entity
    expected = expected_signer(outer.fields or (), opening.request.mailbox)
    layers: list[Layer] = []
    notes: list[str] = []
    content = message
    while _is_layer(current, layers):
        if len(layers) == MAX_LAYERS:
            raise BadData(f"the message has more than {MAX_LAYERS} layers of encryption, signatures and compression")
        peeled = _peel(current, opening, expected, first=not layers)
        layers.append(peeled.layer)
        if peeled.content is None:
            break
        content = peeled.content
        if outer.fields is None and not looks_like_entity(content):
            break
        content = content if outer.fields is None else _with_crlf(content, notes)
        current = _taken(content, layers) if content else Entity((), b"")
        notes += left_out(current, outer)
    if outer.fields is not None and content is not message:
        content = opened_header(outer.fields, current.fields or ()) + current.body
    return Opened(content, tuple(_told_apart(layers)), tuple(notes))


def _taken(content: bytes, layers: Sequence[Layer]) -> Entity:
    try:
        return take_entity(content, secret=True)
    except BadData as exc:
        # ALG-6, RFC 8551 §6: with CBC, whether the padding was right must not be told by another sentence, since that is what
        # somebody asks for who changes messages to learn what is in them.
        if all(layer.authenticated for layer in layers):
            raise
        raise BadData(CANNOT_OPEN) from exc


def _told_apart(layers: Sequence[Layer]) -> Iterator[Layer]:
    """RFC 2634 §1.1: the signature outside is over what is encrypted, and may be of somebody who couldn't read it."""
    sealed = max((n for n, layer in enumerate(layers) if layer.kind is Kind.ENCRYPTED), default=0)
    for number, layer in enumerate(layers):
        outside = number < sealed and layer.signature is not None
        yield replace(layer, notes=(*layer.notes, _OUTSIDE)) if outside else layer


def _is_layer(entity: Entity, layers: Sequence[Layer]) -> bool:
    if entity.is_multipart_signed or entity.is_cms:
        return True
    if layers:
        return False
    field = only(entity.fields or (), b"content-type")
    if field is not None and field.unfolded.lower().startswith(b"multipart/"):
        # ALG-7: a part that was put between others isn't opened, whoever it was encrypted for.
        raise BadData(
            "the message is neither sealed nor signed as a whole by its Content-Type, and parts of a message aren't opened"
        )
    raise BadData(
        "the message isn't sealed or signed: its Content-Type is neither application/pkcs7-mime nor multipart/signed"
    )


def _peel(entity: Entity, opening: Opening, expected: Expected, *, first: bool) -> _Peeled:
    if entity.is_multipart_signed:
        return _clear_signed(entity, opening, expected)
    octets = entity.cms_octets()
    kind = cms_kind(octets)
    if kind is Kind.SIGNED:
        return _signed(octets, opening, expected)
    if kind is Kind.COMPRESSED:
        return _Peeled(Layer(Kind.COMPRESSED), decompress(octets, opening.limits))
    if kind is Kind.ENCRYPTED and not opening.holders:
        if first:
            raise BadData("the message is encrypted: give the key")
        return _Peeled(Layer(Kind.ENCRYPTED, authenticated=False, notes=("it isn't decrypted: no key was given",)))
    return _encrypted(octets, opening)


def _encrypted(octets: bytes, opening: Opening) -> _Peeled:
    unsealed = unseal(octets, opening.holders, opening.reading)
    layer = Layer(Kind.ENCRYPTED, unsealed.cipher, unsealed.authenticated, notes=unsealed.notes)
    return _Peeled(layer, b"".join(unsealed.chunks()))


def _signed(octets: bytes, opening: Opening, expected: Expected) -> _Peeled:
    signed = parse_signed(octets)
    if signed.certs_only:
        # RFC 8551 §3.8: nothing to read, and nobody who signed.
        return _Peeled(Layer(Kind.CERTIFICATES, signature=None, notes=(_brought(len(signed.certificates)),)))
    if signed.content is None:
        raise BadData("the message is signed, but the content isn't in it")
    checked = check_opaque(signed, opening.request.intermediates)
    report = judge_signers(checked, opening.request, expected, opening.at)
    if signed.content_type != DATA:
        note = f"the signed content is of type {signed.content_type} and stays as it is"
        return _Peeled(Layer(Kind.SIGNED, signature=report, notes=(note,)))
    return _Peeled(Layer(Kind.SIGNED, signature=report), joined(signed.content))


def _brought(count: int) -> str:
    return f"it only brings certificates ({count}), and nobody signed it"


def _clear_signed(entity: Entity, opening: Opening, expected: Expected) -> _Peeled:
    """A signature that can't be read is none, but never a reason to lose the message."""
    fields = entity.fields or ()
    try:
        parts = split_signed(fields, entity.crlf_body())
        signed = parse_detached(parts.signature)
        if signed.certs_only:
            raise BadData("nobody signed it: the signature has no signer")
    except BadData as exc:
        return _Peeled(Layer(Kind.CLEAR_SIGNED, fault=str(exc)))
    checked = check_clear(parts, signed, opening.request.intermediates)
    report = judge_signers(checked, opening.request, expected, opening.at)
    notes = parts.notes
    if signed.content is not None:
        # RFC 8551 §3.5.3.1: the signature of clear-signed mail is detached. Other readers might show that content.
        notes += ("the signature brings content of its own, which isn't what is signed here",)
    content = None
    if looks_like_entity(bytes(parts.covered[:_GLANCE])):
        covered = bytes(parts.covered)
        # RFC 2634 §1.1, ALG-7: of the two parts one is the signature, and the other is encrypted as a whole: nothing that
        # anybody wrote is left to be shown beside it.
        if not sealed_as_a_whole(covered):
            notes += ("what is signed is protected itself, and stays so: parts of a message aren't opened",)
        elif not opening.holders:
            notes += ("what is signed is encrypted, and stays so: no key was given",)
        else:
            content = covered
    layer = Layer(Kind.CLEAR_SIGNED, signature=report, uncovered=uncovered(parts, fields), notes=notes)
    return _Peeled(layer, content)


def _with_crlf(content: bytes, notes: list[str]) -> bytes:
    if not uses_lf(content) or b"\r" in content:
        return content
    notes.append("the sealed content had lines that end with LF; they were converted to CRLF")
    return content.replace(b"\n", b"\r\n")


def left_out(entity: Entity, outer: Entity) -> list[str]:
    if outer.fields is None:
        return []
    # ALG-8: what stands inside must not set fields of the message outside.
    names = [
        escape(field.name.decode("latin-1"), 60)
        for field in entity.fields or ()
        if not field.name.lower().startswith(b"content-") and not field.named(b"mime-version")
    ]
    notes = [f"the field {name} inside the sealed content was left out" for name in names[:_FIELDS_TOLD]]
    if len(names) > _FIELDS_TOLD:
        notes.append(f"{len(names) - _FIELDS_TOLD} more fields inside the sealed content were left out")
    return notes


def opened_header(outer: Sequence[Field], inner: Sequence[Field]) -> bytes:
    """The header of a message in clear: the fields from outside, and the Content-* fields of what was protected."""
    outside = [field for field in outer if not field.name.lower().startswith(b"content-")]
    inside = [field for field in inner if field.name.lower().startswith(b"content-")]
    if only(outer, b"mime-version") is None:
        outside.append(Field(b"MIME-Version", b" 1.0"))
    return b"".join(field.line for field in (*outside, *inside)) + b"\r\n"
