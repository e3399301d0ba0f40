"""Properties of CMS: whatever goes in comes out again, and whatever a stranger sends raises nothing but BadData."""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from postseal.app.cms_inspect import inspect
from postseal.core.cms.ber import to_der
from postseal.core.cms.built import check_built
from postseal.core.cms.classify import classify
from postseal.core.cms.content import ContentOpener, ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.lines import LineCheck, base64_blocks
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.cms.smime import split
from postseal.core.errors import BadData
from postseal.core.message import Field, HeaderFault, parse_content_type, split_message
from postseal.core.policy import Protection
from postseal.core.suite import Suite
from support.cms import KINDS, cleared, recipient, sealed_parts
from support.property_runs import examples

SMIME = (Field(b"Content-Type", b" application/pkcs7-mime"), Field(b"Content-Transfer-Encoding", b" binary"))
suites = st.sampled_from(list(Suite))


@st.composite
def chunked(draw: st.DrawFn, largest: int = 5000) -> list[bytes]:
    """Content cut anywhere, empty chunks included; sizes near the block and piece limits come often."""
    size = draw(
        st.one_of(st.integers(0, 70), st.sampled_from((2047, 2048, 65535, 65536, 65552)), st.integers(0, largest))
    )
    content = (draw(st.binary(min_size=1, max_size=64)) * (size // 1 + 1))[:size]
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=6)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, size], strict=True)]


@examples(150)
@given(
    suite=suites,
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique=True),
    chunks=chunked(),
    data=st.data(),
)
def test_what_is_sealed_opens_again(suite: Suite, kinds: list[str], chunks: list[bytes], data: st.DataObject) -> None:
    key = data.draw(st.binary(min_size=suite.key_length, max_size=suite.key_length))
    iv = data.draw(st.binary(min_size=suite.iv_length, max_size=suite.iv_length))
    people = [recipient(kind) for kind in kinds]
    sealer = ContentSealer(suite, key, iv)
    pieces = [sealer.update(chunk) for chunk in chunks]
    pieces.append(sealer.finish())
    length = sum(map(len, pieces))
    head, tail = envelope(suite, key, cleared(people), iv, length, sealer.tag)
    check_built(head, tail, length, cleared(people))
    encoded = b"".join(base64_blocks([head, *pieces, tail]))
    der = base64.b64decode(encoded, validate=False)
    assert classify((SMIME[0], Field(b"Content-Transfer-Encoding", b" base64")), encoded) is Protection.ENCRYPTED
    reader = data.draw(st.sampled_from(people))
    assert open_enveloped(der, reader.key, reader.certificate) == b"".join(chunks)
    opener = ContentOpener(suite, key, iv, sealer.tag)
    assert b"".join([*(opener.update(piece) for piece in pieces), opener.finish()]) == b"".join(chunks)


@cache
def sample(suite: Suite) -> tuple[bytes, bytes, bytes]:
    return sealed_parts(suite, [recipient(kind) for kind in KINDS], b"attack at dawn")


Edits = list[tuple[int, int]]
edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)


def mutated(octets: bytes, changes: Edits, cut: int) -> bytes:
    spoilt = bytearray(octets)
    for place, octet in changes:
        spoilt[place % len(spoilt)] = octet
    return bytes(spoilt[: len(spoilt) - cut] if cut else spoilt)


@examples(600)
@given(
    suite=suites,
    changes=edits,
    cut=st.one_of(st.just(0), st.integers(0, 300)),
    kind=st.sampled_from(KINDS),
    which=st.booleans(),
)
def test_damaged_cms_is_bad_data_or_opens(suite: Suite, changes: Edits, cut: int, kind: str, which: bool) -> None:
    head, ciphertext, tail = sample(suite)
    spoilt = mutated(head + ciphertext + tail, changes, cut)
    reader = recipient(kind)
    for call in (
        lambda: open_enveloped(spoilt, reader.key, reader.certificate if which else None),
        lambda: parse_enveloped(to_der(spoilt)),
        lambda: inspect(spoilt),
        lambda: check_built(spoilt[: len(head)], tail, len(ciphertext), cleared([reader])),
    ):
        with suppress(BadData):
            call()
    classify(SMIME, spoilt)


@examples(300)
@given(changes=edits, place=st.sampled_from(["recipients", "ciphertext", "tail"]), kind=st.sampled_from(KINDS))
def test_authenticated_content_never_opens_changed(changes: Edits, place: str, kind: str) -> None:
    """Whatever is changed in an AuthEnvelopedData: it opens to what was sealed, or not at all."""
    parts = dict(zip(("recipients", "ciphertext", "tail"), sample(Suite.AES_256_GCM), strict=True))
    parts[place] = mutated(parts[place], changes, 0)
    with suppress(BadData):
        assert open_enveloped(b"".join(parts.values()), recipient(kind).key) == b"attack at dawn"


@examples(300)
@given(octets=st.binary(max_size=300))
def test_any_octets_are_bad_data_or_der_that_stays_as_it_is(octets: bytes) -> None:
    """What ``to_der`` gives is a fixed point: a second pass changes nothing."""
    for blob in (octets, b"\x30\x80" + octets + b"\0\0", b"\x24\x80" + octets + b"\0\0"):
        try:
            der = to_der(blob)
        except BadData:
            continue
        assert to_der(der) == der


@examples(300)
@given(chunks=st.lists(st.text(alphabet="\r\na", max_size=8), max_size=8))
def test_the_line_check_agrees_with_a_plain_search(chunks: list[str]) -> None:
    octets = "".join(chunks).encode()
    check = LineCheck()
    for chunk in chunks:
        check.update(chunk.encode())
    rest = octets.replace(b"\r\n", b"")
    assert bool(check.finish()) == (b"\r" in rest or b"\n" in rest)


header_text = st.text(alphabet="ab:; \t\r\n-=/\x00é", max_size=60).map(lambda text: text.encode())


@examples(500)
@given(octets=header_text, prefix=st.sampled_from([b"", b"Content-Type: ", b"Subject: a\r\n"]))
def test_a_message_comes_apart_octet_for_octet_or_is_refused(octets: bytes, prefix: bytes) -> None:
    message = prefix + octets
    parts = split_message(message)
    if isinstance(parts, HeaderFault):
        assert parts.code.startswith("mail.")
        assert parts.detail
        return
    fields, body = parts
    header = b"".join(field.line for field in fields)
    assert message in (header, header + b"\r\n" + body)
    inner = split(fields)
    kept = [field for field in fields if not field.name.lower().startswith((b"content-", b"mime-version"))]
    if not inner.fault:
        assert [field for field in inner.outer(Suite.AES_256_CBC) if field in kept] == kept


@given(value=header_text)
def test_any_content_type_is_read_or_none(value: bytes) -> None:
    parsed = parse_content_type(value)
    assert parsed is None or parsed.media == parsed.media.lower()
