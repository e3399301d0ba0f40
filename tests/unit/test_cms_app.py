"""The use cases behind ``seal``, ``open`` and ``inspect``, without a process around them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postseal.app.cms_inspect import inspect
from postseal.app.cms_intake import Made
from postseal.app.cms_open import load_private_key
from postseal.app.cms_seal import seal
from postseal.core.cms.opening import CANNOT_OPEN
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from support.cms import KINDS, cleared, open_sealed, recipient, root, sealed


class Memory:
    """A scratch that remembers what was written to it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes, /) -> None:
        self.pieces.append(data)

    def chunks(self) -> Iterator[bytes]:
        return iter(self.pieces)


def seal_all(
    message: bytes, chunk: int, suite: Suite = Suite.AES_256_CBC, kind: str = "rsa2048"
) -> tuple[Made, Memory]:
    scratch = Memory()
    chunks = (message[start : start + chunk] for start in range(0, len(message), chunk))
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    return seal(chunks, cleared([recipient(kind)]), suite, key, iv, scratch), scratch


MESSAGES = [
    b"Content-Type: text/plain\r\n\r\nbody\r\n",
    b"Content-Type: text/plain\r\n\r\n",
    b"Content-Type: text/plain\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\nContent-Language: de\r\n\r\n--b\r\n\r\n\r\n--b--\r\n\r\n\r\n",
    b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    + bytes(range(14, 256)) * 300,
    b"Content-Type: text/plain\r\n\r\n" + b"x" * 70_000,
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("chunk", [1, 7, 65536])
def test_however_the_input_is_cut_the_same_content_comes_back(message: bytes, chunk: int) -> None:
    if chunk == 1 and len(message) > 10_000:
        message = message[:3000]
    result, _ = seal_all(message, chunk)
    opened = open_sealed(b"".join(result.octets), recipient().key, recipient().certificate)
    entity = opened.octets.removeprefix(b"MIME-Version: 1.0\r\n")
    assert entity == (message if b"\r\n\r\n" in message else message + b"\r\n")


@pytest.mark.parametrize("message", MESSAGES[:4])
@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_unix_line_ends_become_crlf_however_they_are_cut(message: bytes, chunk: int) -> None:
    result, _ = seal_all(message.replace(b"\r\n", b"\n"), chunk)
    assert any("converted" in note for note in result.notes)
    opened = open_sealed(b"".join(result.octets), recipient().key, recipient().certificate)
    assert opened.octets.removeprefix(b"MIME-Version: 1.0\r\n") == (
        message if b"\r\n\r\n" in message else message + b"\r\n"
    )


def test_nothing_but_ciphertext_reaches_the_scratch() -> None:
    canary = b"the secret is 42, and nobody may read it"
    result, scratch = seal_all(b"Subject: x\r\n\r\n" + canary * 3000, 10_000)
    kept = b"".join(scratch.pieces)
    assert len(kept) > 3000 * len(canary)
    assert canary not in kept
    assert canary[:16] not in kept
    assert canary not in b"".join(result.octets)


def seal_file(message: bytes, later: bytes, chunk: int, suite: Suite = Suite.AES_256_GCM) -> tuple[Made, Memory]:
    """Seal what can be read twice and is ``later`` the second time."""
    scratch = Memory()
    first, again = ([each[start : start + chunk] for start in range(0, len(each), chunk)] for each in (message, later))
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    return seal(first, cleared([recipient()]), suite, key, iv, scratch, lambda: iter(again)), scratch


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("chunk", [3, 65536])
def test_what_can_be_read_twice_is_kept_nowhere(suite: Suite, end: bytes, chunk: int) -> None:
    for message in MESSAGES[:5]:
        text = message[:2000].replace(b"\r\n", end)
        result, scratch = seal_file(text, text, chunk, suite)
        assert scratch.pieces == []
        opened = open_sealed(b"".join(result.octets), recipient().key, recipient().certificate)
        expected = text.replace(end, b"\r\n")
        if b"\r\n\r\n" not in expected:
            expected += b"\r\n"
        assert opened.octets.removeprefix(b"MIME-Version: 1.0\r\n") == expected


def test_a_file_that_changes_while_it_is_sealed_gives_no_message() -> None:
    message = b"Subject: x\r\n\r\n" + b"line\r\n" * 30_000
    for later in (message[:-1], message + b"x"):
        result, _ = seal_file(message, later, 65536)
        with pytest.raises(BadData, match="not as long as it was said"):
            list(result.octets)


@pytest.mark.parametrize("fault", [b"\r", b"x\n"])
def test_a_fault_is_found_before_anything_is_sealed(fault: bytes) -> None:
    """RFC 8551 §3.1.1: a CR or LF that stands alone, wherever it is: no half of a message comes out before it."""
    message = b"Subject: x\r\n\r\n" + b"line\r\n" * 30_000 + fault
    with pytest.raises(BadData, match=r"mail\.bare-"):
        seal_file(message, message, 65536)


def test_a_fault_in_the_body_is_found_at_its_very_end() -> None:
    with pytest.raises(BadData, match=r"mail\.bare-cr"):
        seal_all(b"Subject: x\r\n\r\n" + b"line\r\n" * 30_000 + b"\r", 65536)


def test_the_outer_fields_keep_their_order_and_the_inner_ones_theirs() -> None:
    message = (
        b"A: 1\r\nContent-Type: text/plain\r\nB: 2\r\n\tfolded\r\nContent-ID: <x>\r\nMIME-Version: 1.0\r\n"
        b"C: 3\r\n\r\nbody"
    )
    result, _ = seal_all(message, 1000)
    octets = b"".join(result.octets)
    assert octets.startswith(
        b"A: 1\r\nB: 2\r\n\tfolded\r\nC: 3\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime;"
    )
    opened = open_sealed(octets, recipient().key, None).octets
    assert opened == (
        b"A: 1\r\nB: 2\r\n\tfolded\r\nC: 3\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-ID: <x>\r\n\r\nbody"
    )


def test_what_was_decrypted_must_be_a_mime_entity() -> None:
    header = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    for content in (b"just words, no header", b" x: y\r\n\r\n", b"a: b\r\rc: d\r\n\r\n"):
        with pytest.raises(BadData, match=r"mail\.bad-header"):
            open_sealed(header + sealed(Suite.AES_256_GCM, [recipient()], content), recipient().key, None)
    empty = open_sealed(header + sealed(Suite.AES_256_GCM, [recipient()], b""), recipient().key, None)
    assert empty.octets == b"MIME-Version: 1.0\r\n\r\n"


def test_a_damaged_transfer_encoding_is_named() -> None:
    header = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    with pytest.raises(BadData, match="transfer encoding"):
        open_sealed(header + b"MIIB*", recipient().key, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_keys_are_read_in_all_their_forms(kind: str, form: PrivateFormat, encoding: Encoding) -> None:
    blob = recipient(kind).key.private_bytes(encoding, form, NoEncryption())
    assert load_private_key(blob, None).public_key() == recipient(kind).key.public_key()


def test_a_signing_key_cannot_open_mail() -> None:
    blob = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(BadData, match="neither RSA nor EC"):
        load_private_key(blob, None)


def test_inspect_of_bare_cms_and_of_subject_key_identifiers() -> None:
    found = inspect(sealed(Suite.AES_128_CBC, [recipient("p521")], b"x"))
    assert found["cms"]["cipher"] == "aes128-cbc"
    assert found["cms"]["tag_length"] is None
    assert found["cms"]["recipients"][0]["algorithm"] == "ecdh-sha512kdf"
    with pytest.raises(BadData, match="not a CMS message"):
        inspect(b"\x30\x82\x00\x00")


def test_only_so_many_recipients_are_tried_without_a_certificate() -> None:
    """A long list costs its author nothing, and the reader an RSA operation and a decryption for each."""
    # The longest serial number sorts last in the SET OF.
    late = root().issue("late@example.test", slot="late", serial=2**60)
    strangers = [recipient("rsa2048", 1)] * 100
    long = sealed(Suite.AES_256_GCM, [*strangers, late], b"hello" * 40)
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_sealed(long, late.key, None)
    assert open_sealed(long, late.key, late.certificate).octets == b"hello" * 40
    shorter = sealed(Suite.AES_256_GCM, [*strangers[1:], late], b"hello" * 40)
    assert open_sealed(shorter, late.key, None).octets == b"hello" * 40
