"""Detached CMS signatures: made and checked here, and the other half by OpenSSL."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postseal.core.certs import Certificate, load_certificate
from postseal.core.cms.signed import check, sign
from postseal.core.errors import BadData
from support.pki import NOW, Leaf, authority

CONTENT = b"what is signed\r\nwith two lines\n" * 10


@pytest.fixture(scope="module")
def signers() -> dict[str, Leaf]:
    root = authority("Signed root")
    return {kind: root.issue("node@home.test", slot=kind, kind=kind) for kind in ("rsa2048", "p256", "p384")}


def write(directory: Path, leaf: Leaf, content: bytes = CONTENT) -> list[str]:
    for name, data in (("c.pem", leaf.pem), ("k.pem", leaf.key_pem), ("content", content)):
        (directory / name).write_bytes(data)
    return [str(directory / name) for name in ("c.pem", "k.pem", "content", "signature")]


def openssl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", "cms", *arguments], capture_output=True, timeout=30)


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_openssl_verifies_what_is_signed_here(tmp_path: Path, signers: dict[str, Leaf], kind: str) -> None:
    leaf = signers[kind]
    certificate, _, content, signature = write(tmp_path, leaf)
    Path(signature).write_bytes(sign(CONTENT, leaf.certificate, leaf.key_pem, NOW))
    verify = ["-verify", "-binary", "-inform", "DER", "-in", signature, "-content", content]
    done = openssl(*verify, "-certfile", certificate, "-noverify", "-out", "/dev/null")
    assert done.returncode == 0, done.stderr
    assert check(Path(signature).read_bytes(), CONTENT, leaf.certificate) == ""


@pytest.mark.parametrize("more", [[], ["-noattr"], ["-md", "sha512"], ["-keyid"], ["-nocerts"]])
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_what_openssl_signs_is_verified_here(
    tmp_path: Path, signers: dict[str, Leaf], kind: str, more: list[str]
) -> None:
    """RFC 5652 §5.4: with signed attributes and without, by whichever name of the signer."""
    certificate, key, content, signature = write(tmp_path, signers[kind])
    made = openssl("-sign", "-binary", "-outform", "DER", "-in", content, "-out", signature, "-signer", certificate,
                   "-inkey", key, *more)  # fmt: skip
    assert made.returncode == 0, made.stderr
    blob = Path(signature).read_bytes()
    assert check(blob, CONTENT, signers[kind].certificate) == ""
    assert check(blob, CONTENT + b"x", signers[kind].certificate) != ""
    assert check(blob, CONTENT, signers["p384"].certificate) != ""


def test_pss_is_verified(tmp_path: Path, signers: dict[str, Leaf]) -> None:
    certificate, key, content, signature = write(tmp_path, signers["rsa2048"])
    openssl("-sign", "-binary", "-outform", "DER", "-in", content, "-out", signature, "-signer", certificate,
            "-inkey", key, "-keyopt", "rsa_padding_mode:pss")  # fmt: skip
    assert check(Path(signature).read_bytes(), CONTENT, signers["rsa2048"].certificate) == ""


def test_sha1_and_attached_content_are_refused(tmp_path: Path, signers: dict[str, Leaf]) -> None:
    certificate, key, content, signature = write(tmp_path, signers["rsa2048"])
    arguments = [
        "-sign",
        "-binary",
        "-outform",
        "DER",
        "-in",
        content,
        "-out",
        signature,
        "-signer",
        certificate,
        "-inkey",
        key,
    ]
    openssl(*arguments, "-md", "sha1")
    assert "the hash 1.3.14.3.2.26" in check(Path(signature).read_bytes(), CONTENT, signers["rsa2048"].certificate)
    openssl(*arguments, "-nodetach")
    assert "isn't a detached one" in check(Path(signature).read_bytes(), CONTENT, signers["rsa2048"].certificate)


def test_two_signers_are_refused(tmp_path: Path, signers: dict[str, Leaf]) -> None:
    """One of them would be left unchecked."""
    certificate, key, content, signature = write(tmp_path, signers["rsa2048"])
    (tmp_path / "c2").write_bytes(signers["p256"].pem)
    (tmp_path / "k2").write_bytes(signers["p256"].key_pem)
    done = openssl("-sign", "-binary", "-outform", "DER", "-in", content, "-out", signature, "-signer", certificate,
                   "-inkey", key, "-signer", str(tmp_path / "c2"), "-inkey", str(tmp_path / "k2"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "exactly one signer" in check(Path(signature).read_bytes(), CONTENT, signers["rsa2048"].certificate)


def test_every_changed_octet_is_noticed_and_nothing_raises(signers: dict[str, Leaf]) -> None:
    """Only octets that nobody signed may change: those of the certificates and of the signer's name."""
    leaf = signers["p256"]
    blob = sign(CONTENT, leaf.certificate, leaf.key_pem, NOW)
    unsigned = blob.index(leaf.certificate.der), blob.index(leaf.certificate.der) + len(leaf.certificate.der)
    unnoticed = []
    for place in range(len(blob)):
        if not unsigned[0] <= place < unsigned[1]:
            changed = bytearray(blob)
            changed[place] ^= 0x01
            if not check(bytes(changed), CONTENT, leaf.certificate):
                unnoticed.append(place)
    assert len(unnoticed) < 160
    for end in range(0, len(blob), 7):
        assert check(blob[:end], CONTENT, leaf.certificate)


def test_wrong_keys_are_one_sentence(signers: dict[str, Leaf]) -> None:
    rsa, ec = signers["rsa2048"], signers["p256"]
    with pytest.raises(BadData, match="isn't that of the certificate"):
        sign(b"", rsa.certificate, ec.key_pem, NOW)
    with pytest.raises(BadData, match="not a private key in PEM"):
        sign(b"", rsa.certificate, b"nonsense", NOW)
    other: Certificate = load_certificate(rsa.certificate.der)
    assert check(b"", b"", other) != ""
