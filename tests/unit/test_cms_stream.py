"""A sealed message opened as a stream gives what opening it in whole gives, and holds little."""

from __future__ import annotations

import base64
import os
import tracemalloc
from datetime import UTC, datetime

import pytest

from postseal.app.cms_layers import Opening, open_message
from postseal.app.cms_stream import open_stream
from postseal.app.verify import Request
from postseal.core.cms.opening import CANNOT_OPEN
from postseal.core.cms.unwrapping import Holder
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from support.cms import recipient, sealed

HEADER = (
    b"From: a@example.test\r\nContent-Type: application/pkcs7-mime; name=smime.p7m\r\n"
    b"Content-Transfer-Encoding: base64\r\nSubject: x\r\n\r\n"
)
INNER = b"Content-Type: text/plain\r\nX-Inner: y\r\n\r\n"


def in_base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


def opening() -> Opening:
    return Opening(Request(()), datetime.now(UTC), (Holder(recipient().key),))


def streamed(message: bytes, step: int) -> tuple[bytes, tuple[object, ...], tuple[str, ...]]:
    opened, blocks = open_stream((message[at : at + step] for at in range(0, len(message), step)), opening())
    return b"".join(blocks), opened.layers, opened.notes


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
@pytest.mark.parametrize("step", [7, 1000, 10**7])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_stream_gives_what_opening_in_whole_gives(size: int, step: int, suite: Suite) -> None:
    body = os.urandom(size).replace(b"\n", b"")
    for content in (INNER + body, HEADER + in_base64(sealed(suite, [recipient()], INNER + body)), b"A: b\n\n" + body):
        if b"\r" in content and content.startswith(b"A: b\n"):
            content = content.replace(b"\r", b"")
        message = HEADER + in_base64(sealed(suite, [recipient()], content))
        for form in (message, message + b"\r\n-- \r\nfooter!\r\n", message.replace(b"\r\n", b"\n")):
            whole = open_message(form, opening())
            assert streamed(form, step) == (whole.octets, whole.layers, whole.notes)


@pytest.mark.parametrize("damage", [0, 300, 5000])
def test_what_does_not_open_is_refused_before_anything_comes(damage: int) -> None:
    """ALG-7: the tag of the whole is checked first."""
    octets = bytearray(sealed(Suite.AES_256_GCM, [recipient()], INNER + bytes(200_000)))
    octets[len(octets) - 1 - damage] ^= 1
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_stream((HEADER + in_base64(bytes(octets)),), opening())


@pytest.mark.parametrize("message", [b"", b"Subject: x\r\n\r\nhello", HEADER, HEADER + b"MIIB*", b"no header"])
def test_other_messages_are_left_to_opening_in_whole(message: bytes) -> None:
    with pytest.raises(BadData) as stream:
        open_stream((message,), opening())
    with pytest.raises(BadData) as whole:
        open_message(message, opening())
    assert str(stream.value) == str(whole.value)


def test_neither_the_text_nor_the_content_is_held() -> None:
    """Of a message of 6.8 MB the 5 MB that it decodes to are held, and a few pieces."""
    message = HEADER + in_base64(sealed(Suite.AES_256_CBC, [recipient()], INNER + bytes(5_000_000)))
    view = memoryview(message)
    tracemalloc.start()
    try:
        _, blocks = open_stream((bytes(view[at : at + 65536]) for at in range(0, len(view), 65536)), opening())
        assert sum(map(len, blocks)) > 5_000_000
        assert tracemalloc.get_traced_memory()[1] < 1.4 * 5_000_000
    finally:
        tracemalloc.stop()
