"""OpenSSL opens every kind of recipient that it knows, with every cipher; X25519 it refuses, and our own reader opens it."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from postseal.core.cms.opening import open_enveloped
from postseal.core.oaep import oaep
from postseal.core.suite import KeyTransport, Suite, Wrap
from support.cms import BRAINPOOL, KINDS, oaep_recipient, recipient, sealed
from support.pki import Leaf

WAYS = tuple(itertools.starmap(Wrap, itertools.product(KeyTransport, (False, True))))
SHA1_OAEP = bytes.fromhex("300d06092a864886f70d0101073000")


def opens(der: bytes, leaf: Leaf, directory: Path) -> bytes | None:
    """What ``openssl cms -decrypt`` makes of it; None when it refuses."""
    (directory / "reader.crt").write_bytes(leaf.pem)
    (directory / "reader.key").write_bytes(leaf.key_pem)
    (directory / "in.der").write_bytes(der)
    command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(directory / "in.der")]
    key = ["-recip", str(directory / "reader.crt"), "-inkey", str(directory / "reader.key")]
    done = subprocess.run([*command, *key], capture_output=True, check=False, timeout=30)
    return done.stdout if done.returncode == 0 else None


@pytest.mark.parametrize("suite", list(Suite))
def test_rsa_in_every_way(suite: Suite, tmp_path: Path) -> None:
    """RFC 3370 §4.2.1, RFC 4055 §4.1, RFC 5652 §6.2.1: PKCS #1 v1.5 and OAEP, by issuer and by key identifier."""
    leaf, content = recipient(), os.urandom(1000)
    for wrap in WAYS:
        assert opens(sealed(suite, [leaf], content, wrap), leaf, tmp_path) == content, wrap


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("kind", [*KINDS[1:], *BRAINPOOL])
def test_every_curve(kind: str, suite: Suite, tmp_path: Path) -> None:
    """RFC 5753 §3.1.1: NIST and Brainpool curves, by issuer and by key identifier."""
    leaf, content = recipient(kind), os.urandom(1000)
    for wrap in (Wrap(), Wrap(by_key_id=True)):
        assert opens(sealed(suite, [leaf], content, wrap), leaf, tmp_path) == content, wrap


@pytest.mark.parametrize("identifier", [SHA1_OAEP, oaep(KeyTransport.OAEP_SHA384).identifier], ids=["sha1", "sha384"])
def test_keys_that_demand_oaep(identifier: bytes, tmp_path: Path) -> None:
    """RFC 4055 §4: what the certificate demands is what the key decrypts."""
    leaf = oaep_recipient(identifier)
    assert opens(sealed(Suite.AES_256_CBC, [leaf], b"hello"), leaf, tmp_path) == b"hello"


@pytest.mark.parametrize("suite", list(Suite))
def test_each_of_a_mix_opens_it(suite: Suite, tmp_path: Path) -> None:
    leaves = [recipient(kind) for kind in (*KINDS, *BRAINPOOL)]
    for wrap in (Wrap(), Wrap(KeyTransport.OAEP_SHA256, by_key_id=True)):
        der = sealed(suite, [*leaves, recipient("rsa2048", 1)], b"hello", wrap)
        for leaf in leaves:
            assert opens(der, leaf, tmp_path) == b"hello"


def test_x25519_opens_in_our_own_reader_only(tmp_path: Path) -> None:
    """RFC 8418. OpenSSL up to 3.5 doesn't know it; when this fails, x25519 may become the default."""
    leaf, other = recipient("x25519"), recipient("p256")
    der = sealed(Suite.AES_256_CBC, [leaf, other], b"hello")
    assert opens(der, leaf, tmp_path) is None
    assert opens(der, other, tmp_path) == b"hello"
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"
