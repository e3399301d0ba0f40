"""Those who write to each other in the matrix: a certificate of each kind below one root, valid when the test runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from support.pki import DAY, Authority, Leaf, authority
from support.readers.base import OAEP

KINDS = {
    "rsa": "rsa2048",
    "p256": "p256",
    "p384": "p384",
    "p521": "p521",
    "brainpool": "bp256",
    "brainpool512": "bp512",
    "x25519": "x25519",
    "ed25519": "ed25519",
}
# Recipients beside the one who reads: nobody has their keys.
OTHERS = {"other-rsa": "rsa2048", "other-p256": "p256"}
PASSWORD = "x"
# An address of each of them besides its own: signatures of all are signatures of this.
EVERYBODY = "everybody@example.test"


@dataclass(frozen=True)
class Correspondents:
    """Files in ``home``: NAME.pem, NAME.der, NAME.key (PKCS #8 in PEM), NAME.p8 (DER), NAME.p12, and root.pem, root.der."""

    home: Path
    root: Authority
    leaves: dict[str, Leaf] = field(default_factory=dict)

    def path(self, name: str, ending: str) -> str:
        return str(self.home / f"{_key_name(name)}.{ending}")

    def leaf(self, name: str) -> Leaf:
        return self.leaves[_key_name(name)]

    @property
    def root_fingerprint(self) -> str:
        return self.root.certificate.x509.fingerprint(SHA1()).hex().upper()


def address(name: str) -> str:
    return f"{_key_name(name)}@example.test"


def _key_name(name: str) -> str:
    """OAEP goes with the RSA key: the certificate says nothing of the padding."""
    return "rsa" if name in OAEP else name


def correspondents(home: Path) -> Correspondents:
    """Make all of them, with their files in ``home``."""
    now = datetime.now(UTC)
    root = authority("Interoperability test root", not_before=now - 2 * DAY, not_after=now + 3000 * DAY)
    # The root has a serial number itself; NSS imports no second certificate with the same issuer and serial.
    root.serials = 5000
    made = Correspondents(home, root)
    (home / "root.pem").write_bytes(root.pem)
    (home / "root.der").write_bytes(root.certificate.der)
    for name, kind in {**KINDS, **OTHERS}.items():
        addresses = x509.SubjectAlternativeName([x509.RFC822Name(each) for each in (address(name), EVERYBODY)])
        leaf = root.issue(
            None, kind=kind, slot=("interop", name), common_name=address(name), extra=[(addresses, False)],
            not_before=now - DAY, not_after=now + 300 * DAY,
        )  # fmt: skip
        made.leaves[name] = leaf
        (home / f"{name}.pem").write_bytes(leaf.pem)
        (home / f"{name}.der").write_bytes(leaf.certificate.der)
        (home / f"{name}.key").write_bytes(leaf.key_pem)
        (home / f"{name}.p8").write_bytes(leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        if name != "x25519" and name not in OTHERS:
            (home / f"{name}.p12").write_bytes(legacy_pkcs12(leaf, name))
    return made


def legacy_pkcs12(leaf: Leaf, name: str) -> bytes:
    """PKCS #12 with the old encryption, which every release of NSS imports."""
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .build(PASSWORD.encode())
    )
    return pkcs12.serialize_key_and_certificates(name.encode(), leaf.key, leaf.certificate.x509, None, encryption)
