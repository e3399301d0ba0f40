"""Signed messages: multipart/signed and opaque, read by OpenSSL and by our own reader; traps that others fell into."""

from __future__ import annotations

import email
import email.policy
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from postseal.app.cms_sign import SealOrder
from postseal.core.cms.clearsign import OPAQUE_DRESS, ClearSigned, Entity, clear_signed, opaque_signed, prepared
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.signing import Signing
from postseal.core.cms.smime import split
from postseal.core.errors import BadData
from postseal.core.message import Field, HeaderFault, split_message
from postseal.core.suite import Suite
from support.signers import AT, signer, signing_root

BOUNDARY = "b0und-1"
TYPED = b"From: a@example.test\r\nSubject: hello\r\nContent-Type: text/plain; charset=utf-8\r\n"


def taken(message: bytes) -> tuple[tuple[Field, ...], bytes]:
    found = split_message(message)
    assert not isinstance(found, HeaderFault)
    return found


def signed(message: bytes, kinds: Sequence[str] = ("rsa2048",), boundary: str = BOUNDARY) -> tuple[bytes, str]:
    """(the message clear-signed, or opaque where nothing else is possible; why opaque)."""
    fields, body = taken(message)
    parts = split(fields)
    assert not parts.fault
    made = prepared(parts, body)
    signing = Signing([signer(kind) for kind in kinds], AT)
    if made.only_opaque:
        new = opaque_signed(made.entity.fields, (made.entity.body,), len(made.entity.body), signing)
    else:
        new = clear_signed(made.entity, signing, boundary)
    octets = b"".join(new.chunks)
    assert len(octets) == new.length
    header = b"".join(field.line for field in parts.outer(new.fields))
    return header + b"\r\n" + octets, made.only_opaque


def covered(message: bytes) -> bytes:
    """The entity under the signature, by our own reader."""
    return bytes(split_signed(*taken(message)).covered)


def openssl(folder: Path, message: bytes) -> subprocess.CompletedProcess[bytes]:
    (folder / "root.crt").write_bytes(signing_root().pem)
    command = ["openssl", "cms", "-verify", "-CAfile", "root.crt"]
    return subprocess.run(command, cwd=folder, input=message, capture_output=True, timeout=30, check=False)


def text_of(message: bytes) -> bytes:
    """What a mail program gets of the first text part."""
    entity = email.message_from_bytes(message, policy=email.policy.default)
    part = entity.get_body(("plain",))
    assert part is not None
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


@pytest.mark.parametrize(
    "body", [b"", b"hello\r\n", b"no line end", b"\r\n\r\n", b".\r\n..\r\n" + b"x" * 998 + b"\r\n"]
)
def test_openssl_verifies_multipart_signed(tmp_path: Path, body: bytes) -> None:
    message, why = signed(TYPED + b"\r\n" + body)
    assert why == ""
    done = openssl(tmp_path, message)
    assert done.returncode == 0, done.stderr
    assert done.stdout == covered(message) == b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + body


def test_header_of_multipart_signed(tmp_path: Path) -> None:
    """RFC 8551 §3.5.3.2: protocol, micalg by their names; several algorithms as a quoted list. RFC 1847 §2.1."""
    message, _ = signed(TYPED + b"\r\nhello\r\n", ("rsa2048", "p384"))
    fields, body = taken(message)
    assert [field.name for field in fields] == [b"From", b"Subject", b"MIME-Version", b"Content-Type"]
    made = email.message_from_bytes(message, policy=email.policy.default)
    assert made.get_content_type() == "multipart/signed"
    assert made["content-type"].params["protocol"] == "application/pkcs7-signature"
    assert made["content-type"].params["micalg"] == "sha-256,sha-384"
    assert made["content-type"].params["boundary"] == BOUNDARY
    signature = made.get_payload(1)
    assert isinstance(signature, email.message.EmailMessage)
    assert (signature.get_content_type(), signature.get_filename()) == ("application/pkcs7-signature", "smime.p7s")
    assert body.startswith(b"--b0und-1\r\nContent-Type")
    assert body.endswith(b"\r\n--b0und-1--\r\n")
    assert all(len(line) <= 78 for line in message.split(b"\r\n"))
    assert openssl(tmp_path, message).returncode == 0


def test_opaque_message(tmp_path: Path) -> None:
    """RFC 8551 §3.5.2: application/pkcs7-mime with smime-type signed-data; any octets travel in it as they are."""
    body = b"\x00\xff \r\n" + b"y" * 2000 + b" \r\nFrom x"
    fields, _ = taken(TYPED + b"\r\n")
    parts = split(fields)
    signing = Signing([signer("p256")], AT)
    chunks = (body[:5], body[5:])
    lines = b"".join(opaque_signed(parts.content, chunks, len(body), signing).chunks)
    message = b"".join(field.line for field in parts.outer(OPAQUE_DRESS)) + b"\r\n" + lines
    assert b"smime-type=signed-data;" in message
    done = openssl(tmp_path, message)
    assert (done.returncode, done.stdout) == (0, parts.inner + body), done.stderr
    with pytest.raises(BadData, match="length"):
        b"".join(opaque_signed(parts.content, chunks, len(body) + 1, Signing([signer("p256")], AT)).chunks)


MIXED = (
    b'From: a@example.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="in"\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n\r\nThis is a multi-part message.\r\n--in\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nd\xc3\xbcnn und lang\r\n"
    b"--in\r\nContent-Type: application/octet-stream; name=x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n"
    b"--in--\r\nepilogue that nobody sees\r\n"
)


def test_trap_1_only_the_entity_is_signed_without_preamble_and_epilogue(tmp_path: Path) -> None:
    """Outlook calls a signature bad that covers a MIME epilogue; Thunderbird doesn't."""
    message, _ = signed(MIXED)
    entity = covered(message)
    assert b"epilogue" not in message
    assert b"This is a multi-part" not in message
    assert entity.endswith(b"--in--\r\n")
    assert b"\r\n\r\n--in\r\n" in entity
    parts = split_signed(*taken(message))
    assert (bytes(parts.preamble), bytes(parts.epilogue)) == (b"", b"")
    assert openssl(tmp_path, message).returncode == 0
    fields, body = taken(MIXED)
    assert "behind the last part" in prepared(split(fields), body).notes[0]


def test_trap_2_a_missing_content_type_is_put_in_before_signing(tmp_path: Path) -> None:
    """RFC 2045 §5.2, and MIME-Version for mail that had none; folds with a space, since tabs get lost in copies."""
    message, _ = signed(b"From: a@example.test\r\nSubject: plain\r\n\r\nhello\r\n")
    assert covered(message) == b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"
    assert message.count(b"MIME-Version: 1.0\r\n") == 1
    assert b"\t" not in message
    assert openssl(tmp_path, message).returncode == 0


def test_trap_3_folds_are_crlf_inside_and_lf_for_the_milter() -> None:
    """P9: what the MTA is given has LF; the signed part has CRLF, octet for octet as it was received."""
    folded = b"Content-Type: text/plain;\r\n charset=utf-8;\r\n\tformat=flowed\r\n"
    fields, body = taken(b"From: a@example.test\r\n" + folded + b"\r\nhello\r\n")
    parts = split(fields)
    made = clear_signed(prepared(parts, body).entity, Signing([signer("p256")], AT), BOUNDARY)
    octets = b"".join(made.chunks)
    assert octets.startswith(b"--b0und-1\r\n" + folded + b"\r\nhello\r\n\r\n--b0und-1\r\n")
    assert octets.count(b"\n") == octets.count(b"\r\n")
    values = [edit.value for edit in parts.edits(made.fields)]
    assert not any("\r" in value for value in values)
    assert any(value.startswith(" multipart/signed;") and "\n " in value for value in values)


def test_trap_6_a_part_that_is_signed_already_keeps_its_octets(tmp_path: Path) -> None:
    """A header put in below MIME headers, or a Content-Type written anew, breaks what is inside."""
    inner, _ = signed(TYPED + b"\r\nhello\r\nFrom here trailing \r\n", boundary="inner")
    again, why = signed(inner)
    assert why == ""
    assert covered(again) == inner[inner.index(b"Content-Type: multipart/signed") :]
    assert openssl(tmp_path, again).returncode == 0
    assert openssl(tmp_path, covered(again)).returncode == 0
    # 8-bit text that was signed can't be encoded, so only the opaque form keeps it.
    fields, _ = taken(TYPED + b"\r\n")
    made = ClearSigned(split(fields).content, Signing([signer("p256")], AT), "in")
    raw = made.head + made.update(b"\xfc\r\n") + made.finish()
    outer = b"".join(field.line for field in split(fields).outer(made.dress)) + b"\r\n" + raw
    for message in (outer, outer.replace(b"\xfc\r\n", b"y" * 999 + b"\r\n")):
        opaque, why = signed(message)
        assert "signed or encrypted already" in why
        done = openssl(tmp_path, opaque)
        assert done.returncode == 0
        assert done.stdout == message[message.index(b"Content-Type: multipart/signed") :]


def test_trap_16_mime_version_stands_there_once() -> None:
    """A second MIME-Version makes amavis bounce the mail."""
    for given in (b"", b"MIME-Version: 1.0\r\n", b"Mime-version: 1.0 (Mail 3.1)\r\n"):
        message, _ = signed(b"From: a@example.test\r\n" + given + b"Content-Type: text/plain\r\n\r\nhello\r\n")
        assert message.lower().count(b"mime-version") == 1
        fields, _ = taken(b"From: a@example.test\r\n" + given + b"\r\n")
        names = [edit.name.lower() for edit in split(fields).edits(OPAQUE_DRESS)]
        assert names.count("mime-version") == (given != b"MIME-Version: 1.0\r\n" and b"(" not in given)


def test_trap_17_the_entity_begins_with_the_mime_fields_as_they_were() -> None:
    header = b"content-TYPE:  text/plain\r\nContent-Language: de\r\nContent-Transfer-Encoding: 7BIT\r\n"
    message, _ = signed(b"From: a@example.test\r\n" + header + b"X-Other: 1\r\n\r\nhello\r\n")
    assert covered(message).startswith(header + b"\r\n")
    assert message.index(b"X-Other") < message.index(b"--b0und-1")


RELAYED = {
    "8-bit text": b"d\xc3\xbcnn\r\n",
    "much of it": "ひらがな\r\n".encode() * 20,
    "a long line": b"z" * 1200 + b"\r\n",
    "From_": b"x\r\nFrom nobody\r\n",
    "trailing blanks": b"-- \r\nsignature\t\r\n",
    "NUL": b"a\x00b\r\n",
    "no line end": b"d\xc3\xbcnn ",
}


@pytest.mark.parametrize("name", RELAYED)
def test_p15_what_relays_would_change_is_encoded_before(tmp_path: Path, name: str) -> None:
    """P15, RFC 8551 §3.1.3: 7-bit text in lines of 998 octets and less, no From_, no blanks at the end; shown is the same."""
    body = RELAYED[name]
    message, why = signed(TYPED + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + body)
    assert why == ""
    assert message.isascii()
    assert max(map(len, message.split(b"\r\n"))) <= 78
    assert not [each for each in (b"\0", b"\nFrom ", b" \r\n", b"\t\r\n", b"8bit") if each in message]
    assert openssl(tmp_path, message).returncode == 0
    assert text_of(message) == body


def test_p15_a_multipart_is_encoded_leaf_by_leaf(tmp_path: Path) -> None:
    message, _ = signed(MIXED)
    assert message.isascii()
    assert b"8bit" not in message
    assert b"Content-Transfer-Encoding: quoted-printable\r\n\r\nd=C3=BCnn und lang\r\n--in" in message
    assert b"Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--in--" in message
    assert openssl(tmp_path, message).returncode == 0
    assert text_of(message) == "dünn und lang".encode()


def test_messages_and_multiparts_inside_are_encoded_too(tmp_path: Path) -> None:
    """RFC 2046 §5.2.1: a message isn't encoded itself; its leaves are, and its other fields stay."""
    inside = b"From: c@example.test\r\nSubject: inside\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xfc\r\n"
    part = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inside
    digest = b'Content-Type: multipart/digest; boundary="d"\r\n\r\n--d\r\n\r\n' + inside + b"\r\n--d--\r\n"
    body = b"--o\r\n" + part + b"\r\n--o\r\n" + digest + b"\r\n--o--\r\n"
    message, why = signed(b"Content-Type: multipart/mixed; boundary=o\r\n\r\n" + body)
    assert why == ""
    assert message.count(b"Subject: inside\r\nContent-Transfer-Encoding: base64\r\n\r\n/A0K\r\n") == 2
    assert message.isascii()
    assert b"8bit" not in message
    assert openssl(tmp_path, message).returncode == 0


@pytest.mark.parametrize(
    ("header", "body", "why"),
    [
        (b"Content-Type: multipart/mixed\r\n", b"\xfc", "names no boundary"),
        (b"Content-Type: multipart/mixed; boundary=x\r\n", b"\xfc", "no parts"),
        (b"Content-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: base64\r\n", b"\xfc", "has a transfer"),
        (b"Content-Type: message/partial; id=1\r\n", b"\xfc", "message/partial can't be encoded"),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uue\r\n", b"\xfc", "damaged or unknown"),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n", b"\xfc", "damaged or unknown"),
        (b"Content-Type: /\r\n", b"\xfc", "Content-Type that can't be read"),
        (b"Content-Type: text/plain; name=\xfc\r\n", b"x", "header field inside"),
        (b"Content-Type: multipart/mixed; boundary=x\r\n", b"--x\r\nnot a header \xfc\r\n\r\n--x--", "malformed header"),
    ],
)  # fmt: skip
def test_what_cannot_be_encoded_is_signed_opaque(tmp_path: Path, header: bytes, body: bytes, why: str) -> None:
    message, said = signed(b"From: a@example.test\r\n" + header + b"\r\n" + body)
    assert why in said
    done = openssl(tmp_path, message)
    assert (done.returncode, done.stdout) == (0, header + b"\r\n" + body)


def test_parts_nested_too_deep_are_signed_opaque() -> None:
    body = b"\xfc\r\n"
    for level in range(40):
        name = b"n%d" % level
        body = b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n%s\r\n--%s--\r\n" % (name, name, body, name)
    assert "nested more than 16 deep" in signed(body)[1]


def test_text_without_a_type_gets_a_charset_when_it_is_encoded() -> None:
    """RFC 2045 §5.2 says US-ASCII, which 8-bit text isn't."""
    assert b"charset=utf-8" in covered(signed(b"From: a@example.test\r\n\r\nd\xc3\xbcnn\r\n")[0])
    assert b"charset=unknown-8bit" in covered(signed(b"From: a@example.test\r\n\r\nd\xfcnn\r\n")[0])


def test_a_boundary_that_occurs_or_cannot_be_is_refused() -> None:
    fields, _ = taken(TYPED + b"\r\n")
    for pieces in ((b"x--b0und-1y",), (b"x\r\n--b0u", b"nd-1"), (b"-", b"-b0u", b"nd", b"-1")):
        made = ClearSigned(fields, Signing([signer("p256")], AT), BOUNDARY)
        for piece in pieces[:-1]:
            made.update(piece)
        with pytest.raises(BadData, match="boundary occurs"):
            made.update(pieces[-1])
    for boundary in ("", "x" * 71, "a b", 'a"b', "a\r\nb", "ü"):
        with pytest.raises(BadData, match="1 to 70"):
            ClearSigned(fields, Signing([signer("p256")], AT), boundary)


def test_chunks_of_any_size_give_the_same_octets() -> None:
    fields, _ = taken(TYPED + b"\r\n")
    bodies = set()
    for size in (1, 3, 64, 10_000):
        made = ClearSigned(split(fields).content, Signing([signer("rsa2048")], AT), BOUNDARY)
        body = b"hello - -- \r\n" * 30
        pieces = [made.update(body[start : start + size]) for start in range(0, len(body), size)]
        bodies.add(made.head + b"".join(pieces) + made.finish())
    assert len(bodies) == 1


def test_neither_text_nor_content_key_shows_in_a_note_or_a_repr() -> None:
    """A line of the message that can't be a header is nobody's to read in a log."""
    secret = b"the canary sings"
    fields = (Field(b"Content-Type", b" multipart/mixed; boundary=x"),)
    body = b"--x\r\n" + secret + b"\xfc\r\n\r\n--x--"
    made = prepared(split(fields), body)
    assert made.only_opaque == "a part has a malformed header"
    order = SealOrder((), Suite.AES_256_CBC, secret * 2, bytes(16))
    for shown in (repr(made), repr(Entity(fields, body)), repr(order)):
        assert "canary" not in shown
