"""Private keys that mail is opened with."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from postseal.app.private_keys import load_key
from postseal.core.certs import Certificate
from postseal.core.cms.unwrapping import PrivateKey
from postseal.core.errors import BadData
from postseal.core.profile import rsa_key


def load_private_key(blob: bytes, passphrase: bytes | None) -> PrivateKey:
    """A private key in PEM or DER (PKCS#8, or the older forms of RSA and EC keys). Raises BadData."""
    key = load_key(blob, passphrase)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey):
        raise BadData("the key is neither RSA nor EC nor X25519: it can't open mail")
    return key


def check_pair(certificate: Certificate, key: PrivateKey) -> None:
    """Raises BadData when the certificate isn't for the key."""
    try:
        same = (rsa_key(certificate) or certificate.x509.public_key()) == key.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise BadData(f"the certificate's key can't be read: {exc}") from exc
    if not same:
        raise BadData("the certificate isn't for this key")
