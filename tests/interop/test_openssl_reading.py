"""Every form in which OpenSSL writes encrypted mail is opened: encodings, ciphers and wraps that it has and others use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from postseal.app.cms_layers import Opening, open_message
from postseal.app.cms_layers import Protection as Layered
from postseal.app.verify import Request
from postseal.core.cms.armour import cms_octets
from postseal.core.cms.classify import classify
from postseal.core.cms.opening import WEAK_CIPHER, Reading, open_enveloped, unseal
from postseal.core.cms.unwrapping import Holder
from postseal.core.message import HeaderFault, split_message
from postseal.core.path import Anchor
from postseal.core.policy import Protection
from support.cms import recipient
from support.pki import NOW, Leaf
from support.signed import openssl_cms, root


def encrypted(leaf: Leaf, directory: Path, content: bytes, *options: str) -> bytes:
    (directory / "to.crt").write_bytes(leaf.pem)
    done = subprocess.run(
        ["openssl", "cms", "-encrypt", "-binary", *options, "-recip", str(directory / "to.crt")],
        input=content, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("stream", [(), ("-stream",)], ids=["der", "ber"])
@pytest.mark.parametrize("cipher", ["-aes256", "-aes-256-gcm"])
@pytest.mark.parametrize("size", [1, 200_000])
def test_mail_and_pem_of_openssl_are_opened(size: int, cipher: str, stream: tuple[str, ...], tmp_path: Path) -> None:
    leaf, content = recipient(), os.urandom(size)
    pem = encrypted(leaf, tmp_path, content, cipher, "-outform", "PEM", *stream)
    octets = cms_octets((), pem)
    assert octets is not None
    assert open_enveloped(octets, leaf.key) == content
    mail = encrypted(leaf, tmp_path, content, cipher, "-outform", "SMIME", *stream)
    for form in (mail, mail.rstrip(b"\n"), mail + b"\n\n"):
        parts = split_message(form.replace(b"\n", b"\r\n"))
        assert not isinstance(parts, HeaderFault)
        assert classify(*parts) is Protection.ENCRYPTED
        octets = cms_octets(*parts)
        assert octets is not None
        assert open_enveloped(octets, leaf.key, leaf.certificate) == content


@pytest.mark.parametrize("stream", [(), ("-stream",)], ids=["der", "ber"])
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_triple_des_of_openssl_is_opened_where_it_is_allowed(
    kind: str, stream: tuple[str, ...], tmp_path: Path
) -> None:
    """ALG-6; for EC keys the content key is wrapped with Triple-DES too (RFC 3217)."""
    leaf = recipient(kind)
    for size in (0, 1, 8, 100_000):
        content = os.urandom(size)
        der = encrypted(leaf, tmp_path, content, "-des3", "-outform", "DER", *stream)
        opened = unseal(der, (Holder(leaf.key, leaf.certificate),), Reading(allow_3des=True))
        assert b"".join(opened.chunks()) == content
        assert WEAK_CIPHER in opened.notes


@pytest.mark.parametrize("cipher", ["-aes128", "-aes192", "-aes256", "-aes-128-gcm", "-aes-192-gcm", "-aes-256-gcm"])
def test_wraps_of_another_length_than_the_content_key_are_read(cipher: str, tmp_path: Path) -> None:
    """RFC 5753 §8 lets the key-encryption key be longer than the content key."""
    leaf = recipient("p256")
    for wrap in ("-aes128-wrap", "-aes192-wrap", "-aes256-wrap"):
        der = encrypted(leaf, tmp_path, b"hello", cipher, wrap, "-outform", "DER", "-keyid")
        assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


def crlf(text: bytes) -> bytes:
    """OpenSSL ends its own lines with LF in some forms."""
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("outer", [(), ("-nodetach",)], ids=["clear", "opaque"])
@pytest.mark.parametrize("inner", [(), ("-nodetach",)], ids=["clear", "opaque"])
@pytest.mark.parametrize("cipher", ["-aes256", "-aes-256-gcm"])
def test_triple_wraps_of_openssl_are_opened(
    cipher: str, inner: tuple[str, ...], outer: tuple[str, ...], tmp_path: Path
) -> None:
    """RFC 2634 §1.1, in all forms that OpenSSL gives the signatures, with CRLF and with its own LF."""
    signed = openssl_cms(b"Content-Type: text/plain\r\n\r\nhello\r\n", *inner, form="SMIME")
    sealed = encrypted(recipient(), tmp_path, crlf(signed), cipher, "-outform", "SMIME")
    wrapped = b"From: alice@example.test\r\n" + openssl_cms(crlf(sealed), *outer, form="SMIME")
    for message in (crlf(wrapped), crlf(wrapped).replace(b"\r\n", b"\n")):
        request = Request((Anchor(root().certificate),), revocation=False)
        opened = open_message(message, Opening(request, NOW, (Holder(recipient().key),)))
        assert [str(each.kind) for each in opened.layers] == [
            "signed" if outer else "clear-signed", "encrypted", "signed" if inner else "clear-signed",
        ]  # fmt: skip
        assert (opened.protection, opened.refused) == (Layered.DECRYPTED, False)
        assert b"hello" in opened.octets
        assert b"pkcs7-mime" not in opened.octets
