"""Signers of every kind, and OpenSSL's word on what they sign."""

from __future__ import annotations

import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postseal.core.capabilities import OURS, encode_capabilities
from postseal.core.certs import Certificate, load_certificate, load_certificates
from postseal.core.cms.signing import SignatureScheme, Signer, Signing
from support.pki import NOW, Authority, Leaf, authority, usage

CAPABILITIES = encode_capabilities(OURS)
AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
FAR = NOW + timedelta(days=3000)
# Kinds of signers: those of support.pki, three Brainpool curves, and a key that says id-RSASSA-PSS, bound to SHA-384 or free.
KINDS = ("rsa2048", "p256", "p384", "p521", "ed25519")
BRAINPOOL = ("brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1")
PSS_KEYS = ("rsa-pss", "rsa-pss-sha384")


@cache
def signing_root() -> Authority:
    made = authority("Signing test root")
    made.serials = 7000
    return made


@cache
def issuing() -> Authority:
    """Between the root and the signers, so that a path has something to include."""
    made = signing_root().sub("Signing test issuer")
    made.serials = 8000
    return made


def leaf(kind: str, slot: int = 0, address: str = "a@example.test") -> Leaf:
    """A signer's certificate and key, made once per run."""
    return _leaf(kind, slot, address)


@cache
def _leaf(kind: str, slot: int, address: str) -> Leaf:
    if kind in BRAINPOOL + PSS_KEYS:
        return _by_openssl(kind, address)
    return issuing().issue(
        address, kind=kind, slot=("signer", slot), key_usage=usage("digital_signature"), not_after=FAR
    )


def _by_openssl(kind: str, address: str) -> Leaf:
    """Keys and certificates that the Python library doesn't make."""
    options = {
        "rsa-pss": "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
        "rsa-pss-sha384": "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha384 "
        "-pkeyopt rsa_pss_keygen_mgf1_md:sha384 -pkeyopt rsa_pss_keygen_saltlen:48",
    }.get(kind, f"-algorithm EC -pkeyopt ec_paramgen_curve:{kind}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ca.crt").write_bytes(issuing().pem)
        (folder / "ca.key").write_bytes(issuing().key_pem)
        (folder / "ext").write_text(
            f"keyUsage=critical,digitalSignature\nsubjectAltName=email:{address}\nextendedKeyUsage=emailProtection\n"
        )
        for command in (
            f"genpkey {options} -out key",
            f"req -new -key key -subj /CN={kind} -out csr",
            "x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3000 -sha256 -extfile ext -out crt",
        ):
            subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
        certificate = load_certificates((folder / "crt").read_bytes())[0]
        return Leaf(certificate, load_pem_private_key((folder / "key").read_bytes(), None))


@cache
def signer(kind: str = "rsa2048", scheme: str = "", slot: int = 0) -> Signer:
    """A signer with its issuer's certificate."""
    of = leaf(kind, slot)
    chain = (issuing().certificate, signing_root().certificate)
    return Signer(of.certificate, of.key, SignatureScheme(scheme) if scheme else None, chain)


def detached(content: bytes, *signers: Signer, at: datetime = AT, chunk: int = 65536) -> bytes:
    signing = Signing(signers, at, CAPABILITIES)
    for start in range(0, len(content), chunk):
        signing.update(content[start : start + chunk])
    return signing.finish()


def opaque(content: bytes, *signers: Signer, at: datetime = AT) -> bytes:
    signing = Signing(signers, at, CAPABILITIES)
    head = signing.head(len(content))
    signing.update(content)
    return head + content + signing.tail()


def openssl_verify(folder: Path, der: bytes, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """``openssl cms -verify`` with the root as anchor; standard output is the content."""
    (folder / "root.crt").write_bytes(signing_root().pem)
    (folder / "signed.der").write_bytes(der)
    command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "signed.der", "-CAfile", "root.crt"]
    if content is not None:
        (folder / "content").write_bytes(content)
        command += ["-content", "content"]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False)


def other_curve() -> tuple[Certificate, ec.EllipticCurvePrivateKey]:
    """A key on a curve that no RFC names for mail, with a certificate of its own."""
    with tempfile.TemporaryDirectory() as name:
        command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -nodes -subj /CN=k1 -keyout key -out crt"
        subprocess.run(["openssl", *command.split()], cwd=name, check=True, capture_output=True)
        certificate = load_certificates((Path(name) / "crt").read_bytes())[0]
        key = load_pem_private_key((Path(name) / "key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return load_certificate(certificate.der), key
