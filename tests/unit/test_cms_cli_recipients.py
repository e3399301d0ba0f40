"""``postseal seal``: how keys are wrapped, how certificates are named, and which certificates are refused."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postseal.core.certs import load_certificate
from postseal.core.suite import KeyTransport, Suite
from support.cms import oaep_recipient, root
from support.command import postseal
from support.pki import NOW, Leaf

MESSAGE = b"From: a@example.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nhello\r\n"


def save(directory: Path, kind: str, leaf: Leaf | None = None) -> tuple[str, str]:
    """Paths of certificate and key."""
    leaf = leaf or root().issue("b@example.test", kind=kind, slot=("cli", kind), not_after=NOW + timedelta(days=3000))
    certificate, key = directory / f"{kind}.crt", directory / f"{kind}.key"
    certificate.write_bytes(leaf.pem)
    key.write_bytes(leaf.key_pem)
    return str(certificate), str(key)


def recipients_of(message: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(postseal("inspect", "--json", stdin=message).stdout)["cms"]["recipients"]
    return found


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("transport", list(KeyTransport))
def test_every_key_transport_with_every_cipher(transport: KeyTransport, suite: Suite, tmp_path: Path) -> None:
    certificate, key = save(tmp_path, "rsa2048")
    done = postseal("seal", "--to", certificate, "--key-transport", transport, "--cipher", suite, stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    (found,) = recipients_of(done.stdout)
    assert found["algorithm"] == ("rsa-pkcs1v15" if transport is KeyTransport.PKCS1 else "rsa-oaep")
    assert postseal("open", "--key", key, "--certificate", certificate, stdin=done.stdout).stdout == MESSAGE


def test_certificates_are_named_by_key_identifier_on_demand(tmp_path: Path) -> None:
    """RFC 5652 §6.2.1, §6.2.2"""
    for kind in ("rsa2048", "p256", "bp384"):
        certificate, key = save(tmp_path, kind)
        done = postseal("seal", "--to", certificate, "--recipient-id", "key-id", stdin=MESSAGE)
        (found,) = recipients_of(done.stdout)
        assert found["issuer"] is None
        assert len(found["subject_key_id"]) == 40
        assert postseal("open", "--key", key, "--certificate", certificate, stdin=done.stdout).stdout == MESSAGE
        (found,) = recipients_of(postseal("seal", "--to", certificate, stdin=MESSAGE).stdout)
        assert found["issuer"] == "CN=CMS test root"


def test_a_certificate_without_key_identifier_is_refused_by_name(tmp_path: Path) -> None:
    """RFC 5652 §6.2.1: the identifier is the value of the certificate's extension."""
    leaf = root().issue("b@example.test", slot=("cli", "bare"), not_after=NOW + timedelta(days=3000))
    # The OID of another extension, which nobody knows, stands in its place.
    bare = load_certificate(leaf.certificate.der.replace(bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d7e")))
    certificate, _ = save(tmp_path, "bare", Leaf(bare, leaf.key))
    done = postseal("seal", "--to", certificate, "--recipient-id", "key-id", stdin=MESSAGE)
    assert (done.returncode, done.stdout) == (65, b"")
    assert b"bare.crt: it has no subject key identifier" in done.stderr
    assert postseal("seal", "--to", certificate, stdin=MESSAGE).returncode == 0


def test_a_key_identifier_that_two_keys_bear_is_refused(tmp_path: Path) -> None:
    """RFC 5652 §6.2.1: the second of them would find the first one's part, and couldn't open it."""
    far, ids = NOW + timedelta(days=3000), bytes.fromhex("0603551d0e0416")
    leaves = [root().issue("b@example.test", slot=("cli", "twin", n), not_after=far) for n in range(2)]
    first, second = (leaf.certificate.der[leaf.certificate.der.index(ids) + len(ids) :][:22] for leaf in leaves)
    twin = Leaf(load_certificate(leaves[1].certificate.der.replace(second, first)), leaves[1].key)
    files = [save(tmp_path, name, leaf)[0] for name, leaf in (("one", leaves[0]), ("two", twin))]
    done = postseal("seal", "--to", *files, "--recipient-id", "key-id", stdin=MESSAGE)
    assert (done.returncode, done.stdout) == (65, b"")
    assert b"two keys have the same subject key identifier" in done.stderr
    assert postseal("seal", "--to", *files, stdin=MESSAGE).returncode == 0


def test_x25519_needs_the_switch(tmp_path: Path) -> None:
    """RFC 8418"""
    certificate, key = save(tmp_path, "x25519")
    done = postseal("seal", "--to", certificate, stdin=MESSAGE)
    assert (done.returncode, done.stdout) == (65, b"")
    assert b"(cert.no-reader); --allow-x25519 seals for it all the same" in done.stderr
    for suite in Suite:
        done = postseal("seal", "--to", certificate, "--allow-x25519", "--cipher", suite, stdin=MESSAGE)
        assert done.returncode == 0, done.stderr
        (found,) = recipients_of(done.stdout)
        assert (found["kind"], found["algorithm"]) == ("key-agreement", "ecdh-hkdf-sha256")
        assert postseal("open", "--key", key, stdin=done.stdout).stdout == MESSAGE


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("rsa2048", "p256"), "RSA and EC recipients in one message"),
        (("x25519", "p256", "rsa2048"), "RSA and EC and X25519 recipients in one message"),
        (("p256", "bp256"), ""),
    ],
)
def test_a_mix_of_families_is_sealed_and_said(kinds: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """P16"""
    files = [save(tmp_path, kind) for kind in kinds]
    done = postseal("seal", "--allow-x25519", "--to", *(certificate for certificate, _ in files), stdin=MESSAGE)
    assert words in done.stderr.decode()
    assert ("one message" in done.stderr.decode()) == bool(words)
    for _, key in files:
        assert postseal("open", "--key", key, stdin=done.stdout).stdout == MESSAGE


def test_a_key_for_oaep_only_gets_it(tmp_path: Path) -> None:
    """RFC 4055 §4"""
    certificate, key = save(tmp_path, "oaep", oaep_recipient(bytes.fromhex("300d06092a864886f70d0101073000")))
    done = postseal("seal", "--to", certificate, stdin=MESSAGE)
    assert done.returncode == 0, done.stderr
    assert b"its key is for RSA-OAEP only" in done.stderr
    (found,) = recipients_of(done.stdout)
    assert found["algorithm"] == "rsa-oaep"
    for more in ([], ["--certificate", certificate]):
        assert postseal("open", "--key", key, *more, stdin=done.stdout).stdout == MESSAGE
