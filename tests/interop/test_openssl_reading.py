"""Every form in which OpenSSL writes encrypted mail is opened: encodings, ciphers and wraps that it has and others use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from postseal.core.cms.armour import cms_octets
from postseal.core.cms.classify import classify
from postseal.core.cms.opening import WEAK_CIPHER, Reading, open_enveloped, unseal
from postseal.core.cms.unwrapping import Holder
from postseal.core.message import HeaderFault, split_message
from postseal.core.policy import Protection
from support.cms import recipient
from support.pki import Leaf


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
