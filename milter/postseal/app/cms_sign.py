"""Signing one message on the command line, and signing one before it is sealed, or before and after (RFC 2634 §1.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO

from postseal.app.cms_intake import Made, body_again, joined, take_message
from postseal.core.capabilities import OURS, encode_capabilities
from postseal.core.cms.clearsign import ClearSigned, Dressed, clear_signed, opaque_signed, prepared
from postseal.core.cms.signing import Signer, Signing
from postseal.core.cms.smime import Split, dress_of
from postseal.core.cms.stream import sealed_lines
from postseal.core.message import Field
from postseal.core.policy import Cleared
from postseal.core.suite import Suite

_CAPABILITIES = encode_capabilities(OURS)


@dataclass(frozen=True, slots=True)
class SignOrder:
    """How to sign: by whom, with which signing time, opaque or as multipart/signed. ``boundary`` is random and used once."""

    signers: tuple[Signer, ...]
    at: datetime
    boundary: str
    opaque: bool = False

    def signing(self) -> Signing:
        return Signing(self.signers, self.at, _CAPABILITIES)


@dataclass(frozen=True, slots=True)
class SealOrder:
    """How to seal: for whom, with what. ``key`` and ``iv`` are fresh and used nowhere else."""

    cleared: Sequence[Cleared]
    suite: Suite
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


Again = Callable[[], Iterator[bytes]]


def sign(message: Iterable[bytes], order: SignOrder, again: Again | None = None) -> Made:
    """Sign one message. Raises BadData.

    ``again`` gives the message's octets a second time: then the opaque form holds nothing of it. Otherwise the message is held
    in memory, once, since how it must be signed is known only when all of it has been seen.
    """
    parts, signed, notes = _signed(message, order, again)
    return Made(_message(parts, signed.fields, signed.chunks), notes)


def sign_and_seal(
    message: Iterable[bytes],
    order: SignOrder,
    seal: SealOrder,
    again: Again | None = None,
    outside: SignOrder | None = None,
) -> Made:
    """Sign one message and encrypt what comes of it (RFC 8551 §3.7); with ``outside`` sign that again. Raises BadData.

    The signature inside is the author's word to the reader; the one outside, RFC 2634's triple wrapping, can be checked by
    gateways that can't read the message.
    """
    parts, signed, notes = _signed(message, order, again)
    fields, body = dress_of(seal.suite), _sealed(signed, seal)
    if outside is not None:
        fields, body = _signed_outside(body, seal.suite, outside)
    return Made(_message(parts, fields, body), notes)


def _signed(message: Iterable[bytes], order: SignOrder, again: Again | None) -> tuple[Split, Dressed, tuple[str, ...]]:
    taken = take_message(message)
    parts, body, lf_only = taken.parts, taken.body, taken.lf_only
    notes = ["lines ended with LF; they were converted to CRLF before signing"] if lf_only else []
    if order.opaque and again is not None:
        length = sum(map(len, body))
        return parts, opaque_signed(parts.content, body_again(again(), lf_only), length, order.signing()), tuple(notes)
    # The buffer gives its octets away without a copy, and grows in place: a list of chunks would be the message twice.
    buffer = BytesIO()
    for chunk in body:
        buffer.write(chunk)
    whole = buffer.getvalue()
    if order.opaque:
        return parts, opaque_signed(parts.content, (whole,), len(whole), order.signing()), tuple(notes)
    made = prepared(parts, whole)
    notes += made.notes
    if made.only_opaque:
        notes.append(f"the message is signed opaque, because relays would break multipart/signed: {made.only_opaque}")
        return parts, opaque_signed(parts.content, (whole,), len(whole), order.signing()), tuple(notes)
    return parts, clear_signed(made.entity, order.signing(), order.boundary), tuple(notes)


def _lines(fields: Iterable[Field]) -> bytes:
    return b"".join(field.line for field in fields) + b"\r\n"


def _message(parts: Split, fields: tuple[Field, ...], body: Iterator[bytes]) -> Iterator[bytes]:
    return joined(_lines(parts.outer(fields)), body)


def _sealed(inner: Dressed, seal: SealOrder) -> Iterator[bytes]:
    """RFC 8551 §3.7: the entity inside begins with its own Content-* fields."""
    header = _lines(inner.fields)
    length = len(header) + inner.length
    return sealed_lines(joined(header, inner.chunks), length, seal.suite, seal.key, seal.iv, seal.cleared)


def _signed_outside(
    sealed: Iterator[bytes], suite: Suite, order: SignOrder
) -> tuple[tuple[Field, ...], Iterator[bytes]]:
    """RFC 2634 §1.1: what is sealed is base64 in short lines, so multipart/signed needs nothing encoded."""
    fields = dress_of(suite)
    if order.opaque:
        # The length stands before the content: the ciphertext waits for it in memory.
        whole = b"".join(sealed)
        made = opaque_signed(fields, (whole,), len(whole), order.signing())
        return made.fields, made.chunks
    clear = ClearSigned(fields, order.signing(), order.boundary)

    def octets() -> Iterator[bytes]:
        yield clear.head
        for chunk in sealed:
            yield clear.update(chunk)
        yield clear.finish()

    return clear.dress, octets()
