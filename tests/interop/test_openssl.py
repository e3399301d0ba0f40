"""OpenSSL opens what we seal, and we open what OpenSSL seals: octet for octet, for every kind of key, cipher and size."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from postseal.app.cms_inspect import inspect
from postseal.core.cms.classify import classify
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.errors import BadData
from postseal.core.message import Field, HeaderFault, split_message
from postseal.core.policy import Protection
from postseal.core.suite import Suite
from support.cms import KINDS, recipient, sealed
from support.pki import Leaf

SIZES = (0, 1, 15, 16, 17, 2048, 1024 * 1024 + 7)


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def save(leaf: Leaf, directory: Path, name: str) -> tuple[str, str]:
    """Paths of certificate and key."""
    (directory / f"{name}.crt").write_bytes(leaf.pem)
    (directory / f"{name}.key").write_bytes(leaf.key_pem)
    return str(directory / f"{name}.crt"), str(directory / f"{name}.key")


def openssl_opens(der: bytes, leaf: Leaf, directory: Path) -> bytes:
    certificate, key = save(leaf, directory, "reader")
    (directory / "in.der").write_bytes(der)
    return openssl(
        "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(directory / "in.der"), "-recip", certificate, "-inkey", key
    )  # fmt: skip


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_opens_what_is_sealed_to_one_recipient(kind: str, suite: Suite, tmp_path: Path) -> None:
    leaf = recipient(kind)
    for size in SIZES:
        content = os.urandom(size)
        assert openssl_opens(sealed(suite, [leaf], content), leaf, tmp_path) == content, size


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize(
    "kinds",
    [("rsa2048",) * 5, ("p256", "p384", "p521", "p256", "p256"), (*KINDS, "rsa2048")],
    ids=["rsa", "ec", "mixed"],
)
def test_each_of_five_recipients_opens_with_openssl(kinds: tuple[str, ...], suite: Suite, tmp_path: Path) -> None:
    leaves = [recipient(kind, slot) for slot, kind in enumerate(kinds)]
    content = os.urandom(5000)
    der = sealed(suite, leaves, content)
    for leaf in leaves:
        assert openssl_opens(der, leaf, tmp_path) == content


@pytest.mark.parametrize("stream", [False, True], ids=["der", "ber-stream"])
@pytest.mark.parametrize("cipher", ["-aes128", "-aes192", "-aes256", "-aes-128-gcm", "-aes-256-gcm"])
@pytest.mark.parametrize("kind", KINDS)
def test_we_open_what_openssl_seals(kind: str, cipher: str, stream: bool, tmp_path: Path) -> None:
    leaf = recipient(kind)
    certificate, _ = save(leaf, tmp_path, "to")
    for size in (1, 16, 100_000):
        content = os.urandom(size)
        arguments = ["cms", "-encrypt", "-binary", cipher, *(["-stream"] if stream else []), "-outform", "DER"]
        der = openssl(*arguments, "-recip", certificate, stdin=content)
        assert open_enveloped(der, leaf.key, leaf.certificate) == content
        assert open_enveloped(der, leaf.key) == content


def test_openssl_stream_is_ber_with_pieces(tmp_path: Path) -> None:
    """The streamed form is what the test above believes it to be: indefinite lengths, content in several OCTET STRINGs."""
    certificate, _ = save(recipient(), tmp_path, "to")
    arguments = ("cms", "-encrypt", "-binary", "-aes256", "-stream", "-outform", "DER", "-recip", certificate)
    der = openssl(*arguments, stdin=os.urandom(100_000))
    assert der[:2] == b"\x30\x80"
    assert der.count(b"\x04\x82\x10\x00") > 1
    assert len(parse_enveloped(der).content) == 100_000 + 16 - 100_000 % 16


def test_we_open_oaep_with_the_parameters_that_nobody_wrote(tmp_path: Path) -> None:
    """ALG-4: SHA-1, which RFC 4055 §4.1 has as default. Other hashes and key identifiers are rows of the matrix."""
    leaf = recipient()
    certificate, _ = save(leaf, tmp_path, "to")
    options = ("-recip", certificate, "-keyopt", "rsa_padding_mode:oaep")
    der = openssl("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", *options, stdin=b"hello")
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


@pytest.mark.parametrize("digest", ["sha1", "sha224", "sha256", "sha384", "sha512"])
def test_we_open_ecdh_with_every_kdf_hash(digest: str, tmp_path: Path) -> None:
    leaf = recipient("p384")
    certificate, _ = save(leaf, tmp_path, "to")
    options = ("-recip", certificate, "-keyopt", f"ecdh_kdf_md:{digest}", "-keyid")
    der = openssl("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", *options, stdin=b"hello")
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


def test_mixed_recipients_of_openssl_open_with_each_key(tmp_path: Path) -> None:
    leaves = [recipient(kind) for kind in KINDS]
    paths = [save(leaf, tmp_path, leaf.certificate.fingerprint[:8])[0] for leaf in leaves]
    der = openssl("cms", "-encrypt", "-binary", "-aes256", "-stream", "-outform", "DER", *paths, stdin=b"hello")
    for leaf in leaves:
        assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"
    with pytest.raises(BadData, match="can't be decrypted"):
        open_enveloped(der, recipient("rsa2048", 9).key, recipient("rsa2048", 9).certificate)


@pytest.mark.parametrize("suite", [suite for suite in Suite if suite.gcm])
def test_openssl_reads_our_recipient_list_and_tag_length(suite: Suite, tmp_path: Path) -> None:
    """``aes-ICVlen`` is written although RFC 5084 gives it a default, and OpenSSL sees 16 (ALG-5)."""
    (tmp_path / "in.der").write_bytes(sealed(suite, [recipient()], b"hello"))
    printed = openssl("cms", "-cmsout", "-print", "-inform", "DER", "-in", str(tmp_path / "in.der")).decode()
    assert "id-smime-ct-authEnvelopedData" in printed
    assert "INTEGER           :10" in printed
    assert "CN=CMS test root" in printed.replace(" = ", "=")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["-secretkey", "00" * 32, "-secretkeyid", "0102"], "key-encryption-key"),
        (["-pwri_password", "secret"], "password"),
    ],
)
def test_other_kinds_of_recipients_are_recognised_and_passed_over(
    options: list[str], kind: str, tmp_path: Path
) -> None:
    """RFC 5652 §6.2.3 and §6.2.4 beside a certificate: shown by inspect, and no hindrance to the one who has a key."""
    leaf = recipient("p256")
    certificate, _ = save(leaf, tmp_path, "to")
    der = openssl("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", *options, certificate, stdin=b"hello")
    assert {each["kind"] for each in inspect(der)["cms"]["recipients"]} == {kind, "key-agreement"}
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"
    assert open_enveloped(der, leaf.key) == b"hello"


@pytest.mark.parametrize("cipher", ["-des3", "-camellia256"])
def test_ciphers_that_we_do_not_open_are_encryption_all_the_same(cipher: str, tmp_path: Path) -> None:
    leaf = recipient()
    certificate, _ = save(leaf, tmp_path, "to")
    der = openssl("cms", "-encrypt", "-binary", cipher, "-outform", "DER", certificate, stdin=b"hello")
    with pytest.raises(BadData, match="which postseal doesn't open"):
        open_enveloped(der, leaf.key, leaf.certificate)
    smime = Field(b"Content-Type", b" application/pkcs7-mime"), Field(b"Content-Transfer-Encoding", b" binary")
    assert classify(smime, der) is Protection.ENCRYPTED


def test_signed_and_compressed_messages_of_openssl_are_not_encrypted(tmp_path: Path) -> None:
    certificate, key = save(recipient(), tmp_path, "by")
    signed = openssl("cms", "-sign", "-nodetach", "-signer", certificate, "-inkey", key, stdin=b"hello")
    fields, body = smime_parts(signed)
    assert classify(fields, body) is Protection.SIGNED
    clear = openssl("cms", "-sign", "-signer", certificate, "-inkey", key, stdin=b"hello")
    assert classify(*smime_parts(clear)) is Protection.SIGNED
    sealed_too = openssl("cms", "-encrypt", "-aes256", certificate, stdin=signed)
    assert classify(*smime_parts(sealed_too)) is Protection.ENCRYPTED


def smime_parts(message: bytes) -> tuple[tuple[Field, ...], bytes]:
    parts = split_message(message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert not isinstance(parts, HeaderFault)
    return parts
