"""NSS (the library inside Thunderbird) and gpgsm open what they can of what we seal; what they can't is recorded as a refusal.

Debian 12's NSS 3.87 and gpgsm 2.2 read neither ECDH recipients nor AES-GCM; an entry here that begins to pass is news worth
having, and then moves to the list of what they read.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from postseal.core.cms.opening import open_enveloped
from postseal.core.suite import Suite
from support.cms import recipient, root, sealed
from support.pki import Leaf

SIZES = (0, 1, 15, 16, 17, 2048, 1024 * 1024 + 7)
CBC = (Suite.AES_128_CBC, Suite.AES_256_CBC)


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(arguments, capture_output=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def legacy_pkcs12(leaf: Leaf) -> bytes:
    """PKCS#12 with the old encryption: gpgsm 2.2 and NSS 3.87 both import it."""
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .build(b"x")
    )
    return pkcs12.serialize_key_and_certificates(b"r", leaf.key, leaf.certificate.x509, None, encryption)


@pytest.fixture(scope="module")
def nss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the RSA recipient, one EC recipient and their CA."""
    home = tmp_path_factory.mktemp("nss")
    database = f"sql:{home}"
    assert run(["certutil", "-N", "-d", database, "--empty-password"]).returncode == 0
    (home / "ca.der").write_bytes(root().certificate.der)
    done = run(["certutil", "-A", "-d", database, "-n", "ca", "-t", "C,C,C", "-i", str(home / "ca.der")])
    assert done.returncode == 0, done.stderr
    for kind in ("rsa2048", "p256"):
        (home / "key.p12").write_bytes(legacy_pkcs12(recipient(kind)))
        done = run(["pk12util", "-d", database, "-W", "x", "-i", str(home / "key.p12")])
        assert done.returncode == 0, done.stderr
    return home


def nss_opens(home: Path, der: bytes) -> bytes | None:
    (home / "in.der").write_bytes(der)
    (home / "out").unlink(missing_ok=True)
    done = run(["cmsutil", "-D", "-d", f"sql:{home}", "-i", str(home / "in.der"), "-o", str(home / "out")])
    return (home / "out").read_bytes() if done.returncode == 0 else None


@pytest.mark.parametrize("suite", CBC)
def test_nss_opens_rsa_with_cbc(suite: Suite, nss: Path) -> None:
    for size in SIZES:
        content = os.urandom(size)
        assert nss_opens(nss, sealed(suite, [recipient()], content)) == content, size


def test_nss_opens_one_of_five_rsa_recipients(nss: Path) -> None:
    leaves = [recipient("rsa2048", slot) for slot in (4, 3, 0, 2, 1)]
    assert nss_opens(nss, sealed(Suite.AES_256_CBC, leaves, b"hello")) == b"hello"


def test_nss_reads_ecdh_since_3_99_and_no_gcm(nss: Path) -> None:
    """Debian 12 has NSS 3.87, which opens neither EC recipients nor a message that has one; Debian 13 has a later one."""
    version = run(["dpkg-query", "-W", "-f", "${Version}", "libnss3-tools"]).stdout.decode().split(":")[-1]
    opens = b"hello" if tuple(map(int, re.findall(r"\d+", version)[:2])) >= (3, 99) else None
    assert nss_opens(nss, sealed(Suite.AES_256_CBC, [recipient("p256")], b"hello")) == opens
    assert nss_opens(nss, sealed(Suite.AES_256_CBC, [recipient(), recipient("p256")], b"hello")) == opens
    assert nss_opens(nss, sealed(Suite.AES_256_GCM, [recipient()], b"hello")) is None


@pytest.fixture(scope="module")
def gpgsm_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A GnuPG home with the RSA recipient. The path is short: gpg-agent's socket lives in it."""
    with tempfile.TemporaryDirectory(prefix="gs") as name:
        home = Path(name)
        fingerprint = root().certificate.x509.fingerprint(SHA1()).hex().upper()
        (home / "gpg-agent.conf").write_text("allow-loopback-pinentry\n")
        (home / "gpgsm.conf").write_text("disable-crl-checks\ndisable-dirmngr\n")
        (home / "trustlist.txt").write_text(f"{fingerprint} S relax\n")
        (home / "ca.der").write_bytes(root().certificate.der)
        (home / "key.p12").write_bytes(legacy_pkcs12(recipient()))
        try:
            for each in ("ca.der", "key.p12"):
                done = gpgsm(home, "--import", str(home / each))
                assert done.returncode == 0, done.stderr.decode()
            yield home
        finally:
            run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": str(home)})


def gpgsm(home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    read, write = os.pipe()
    os.write(write, b"x\n")
    os.close(write)
    try:
        return run(
            ["gpgsm", "--batch", "--pinentry-mode", "loopback", "--passphrase-fd", str(read), *arguments],
            env={**os.environ, "GNUPGHOME": str(home)}, pass_fds=(read,),
        )  # fmt: skip
    finally:
        os.close(read)


def gpgsm_opens(home: Path, der: bytes) -> bytes | None:
    (home / "in.der").write_bytes(der)
    (home / "out").unlink(missing_ok=True)
    done = gpgsm(home, "--decrypt", "-o", str(home / "out"), str(home / "in.der"))
    return (home / "out").read_bytes() if done.returncode == 0 else None


@pytest.mark.parametrize("suite", CBC)
def test_gpgsm_opens_rsa_with_cbc(suite: Suite, gpgsm_home: Path) -> None:
    for size in (0, 1, 15, 16, 17, 2048, 300_007):
        content = os.urandom(size)
        assert gpgsm_opens(gpgsm_home, sealed(suite, [recipient()], content)) == content, size


def test_gpgsm_opens_its_part_of_mixed_recipients(gpgsm_home: Path) -> None:
    leaves = [recipient("p256"), recipient("rsa2048", 1), recipient()]
    assert gpgsm_opens(gpgsm_home, sealed(Suite.AES_256_CBC, leaves, b"hello")) == b"hello"


def test_gpgsm_reads_no_gcm(gpgsm_home: Path) -> None:
    assert gpgsm_opens(gpgsm_home, sealed(Suite.AES_256_GCM, [recipient()], b"hello")) is None


def test_what_nss_refuses_opens_in_our_own_reader() -> None:
    """A guard for the refusals above: the messages themselves are good."""
    leaf = recipient("p256")
    for leaves, suite in (
        ([leaf], Suite.AES_256_CBC),
        ([recipient(), leaf], Suite.AES_256_CBC),
        ([leaf], Suite.AES_256_GCM),
    ):
        assert open_enveloped(sealed(suite, leaves, b"hello"), leaf.key, leaf.certificate) == b"hello"
