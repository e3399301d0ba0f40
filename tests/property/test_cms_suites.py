"""CMS over all suites, kinds of keys, ways to wrap and signers: round trips, chunks of any size, octets changed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.cms.clearsign import ClearSigned
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.cms.signed_reader import joined, parse_signed
from postseal.core.cms.signing import Signer, Signing
from postseal.core.cms.stream import sealed_lines
from postseal.core.cms.verifying import State, check_signers, cover
from postseal.core.errors import BadData
from postseal.core.message import Field
from postseal.core.suite import KeyTransport, Suite, Wrap
from support import signers
from support.cms import BRAINPOOL, KINDS, cleared, recipient, sealed_parts
from support.property_runs import examples

ALL_KINDS = (*KINDS, *BRAINPOOL, "x25519")
CONTENT = b"Content-Type: text/plain\r\n\r\nattack at dawn\r\n"
suites = st.sampled_from(list(Suite))
wraps = st.builds(Wrap, transport=st.sampled_from(list(KeyTransport)), by_key_id=st.booleans())


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    """Content cut anywhere, also to nothing; sizes around blocks, lines and pieces come often."""
    size = draw(
        st.one_of(st.integers(0, 100), st.sampled_from((47880, 65535, 65536, 65537, 131072)), st.integers(0, 9000))
    )
    content = (draw(st.binary(min_size=1, max_size=48)) * (size + 1))[:size]
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=8)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, size], strict=True)]


@examples(120)
@given(
    suite=suites, kinds=st.lists(st.sampled_from(ALL_KINDS), min_size=1, max_size=5, unique=True), wrap=wraps,
    chunks=chunked(), data=st.data(),
)  # fmt: skip
def test_every_recipient_opens_what_was_streamed(
    suite: Suite, kinds: list[str], wrap: Wrap, chunks: list[bytes], data: st.DataObject
) -> None:
    """Any mix of keys in one message, however the content came: each opens it, by its certificate and without."""
    key = data.draw(st.binary(min_size=suite.key_length, max_size=suite.key_length))
    iv = data.draw(st.binary(min_size=suite.iv_length, max_size=suite.iv_length))
    people = [recipient(kind) for kind in kinds]
    content = b"".join(chunks)
    lines = b"".join(sealed_lines(chunks, len(content), suite, key, iv, cleared(people, wrap)))
    assert all(len(line) == 76 for line in lines.split(b"\r\n")[:-2])
    der = base64.b64decode(lines)
    sealer = ContentSealer(suite, key, iv)
    ciphertext = sealer.update(content) + sealer.finish()
    parsed = parse_enveloped(der)
    assert b"".join(map(bytes, parsed.content)) == ciphertext
    assert parsed.mac == sealer.tag
    assert len(parsed.recipients) == len(people)
    for person in people:
        assert open_enveloped(der, person.key, person.certificate) == content


@cache
def signer(kind: str, slot: int = 0) -> Signer:
    leaf = signers.leaf(kind, slot)
    return Signer(leaf.certificate, leaf.key, None, ())


def signing(kinds: Sequence[str]) -> Signing:
    return Signing([signer(kind) for kind in kinds], signers.AT, signers.CAPABILITIES)


def intact(octets: bytes, content: Sequence[bytes] | None) -> bytes | None:
    """The content when all signers' signatures hold, else None. BadData for what can't be read."""
    found = parse_signed(octets)
    accounts = check_signers(found, cover(found, content))
    if not accounts or any(each.state is not State.INTACT for each in accounts):
        return None
    return joined(found.content) if found.content is not None else b"".join(content or ())


kinds_of_signers = st.lists(st.sampled_from(signers.KINDS), min_size=1, max_size=3, unique=True)


@examples(60)
@given(kinds=kinds_of_signers, chunks=chunked())
def test_every_signature_holds_however_the_content_came(kinds: list[str], chunks: list[bytes]) -> None:
    """Detached and opaque, by one signer or several; what isn't random in it is the same for other chunks."""
    content = b"".join(chunks)
    detached, opaque = signing(kinds), signing(kinds)
    head = opaque.head(len(content))
    for chunk in chunks:
        detached.update(chunk)
        opaque.update(chunk)
    assert intact(detached.finish(), chunks) == content
    assert intact(head + content + opaque.tail(), None) == content
    if set(kinds) <= {"rsa2048", "ed25519"}:
        whole = signing(kinds)
        whole.update(content)
        again = signing(kinds)
        for chunk in chunks:
            again.update(chunk)
        assert whole.finish() == again.finish()


@examples(60)
@given(kinds=kinds_of_signers, chunks=chunked())
def test_what_is_clear_signed_comes_apart_to_the_octet(kinds: list[str], chunks: list[bytes]) -> None:
    made = ClearSigned((Field(b"Content-Type", b" text/plain"),), signing(kinds), "=_0123456789abcdefghij")
    body = made.head + b"".join(map(made.update, chunks)) + made.finish()
    parts = split_signed(made.dress, body)
    assert bytes(parts.covered) == b"Content-Type: text/plain\r\n\r\n" + b"".join(chunks)
    assert (bytes(parts.preamble), bytes(parts.epilogue), parts.notes) == (b"", b"", ())
    assert intact(parts.signature, [parts.covered]) == parts.covered


@pytest.mark.parametrize("kind", signers.KINDS)
def test_no_octet_of_a_signed_message_changes_its_content(kind: str) -> None:
    """Each octet changed: unreadable, not intact, or intact over the same content (certificates that nobody needs)."""
    made = signing([kind])
    head = made.head(len(CONTENT))
    made.update(CONTENT)
    octets = head + CONTENT + made.tail()
    assert intact(octets, None) == CONTENT
    for place in range(len(octets)):
        spoilt = octets[:place] + bytes((octets[place] ^ (1 << place % 8),)) + octets[place + 1 :]
        try:
            found = intact(spoilt, None)
        except BadData:
            continue
        assert found in (None, CONTENT), place
        assert found is None or not len(head) <= place < len(head) + len(CONTENT)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("suite", list(Suite))
def test_no_octet_of_a_sealed_message_does_harm(suite: Suite, kind: str) -> None:
    """Each octet changed: BadData, or content; with a tag never another one, with CBC another only by what was encrypted."""
    person = recipient(kind)
    head, ciphertext, tail = sealed_parts(suite, [person], CONTENT)
    octets = head + ciphertext + tail
    step = 1 if kind in ("rsa2048", "p256", "x25519") else 7
    for place in range(0, len(octets), step):
        spoilt = octets[:place] + bytes((octets[place] ^ (1 << place % 8),)) + octets[place + 1 :]
        try:
            found = open_enveloped(spoilt, person.key)
        except BadData:
            continue
        assert found == CONTENT or not suite.gcm, place
