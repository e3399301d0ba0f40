"""A private key from a file that somebody gave us."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from postseal.core.certs import is_pkcs12
from postseal.core.cms.signing import SigningKey
from postseal.core.errors import BadData


def load_key(blob: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    """A private key in PEM or DER (PKCS#8, or the older forms of RSA and EC keys). Raises BadData."""
    if passphrase == b"":
        # The library takes an empty one for none.
        raise BadData("the passphrase is empty")
    if is_pkcs12(blob):
        raise BadData("a PKCS#12 file; take the key out of it: openssl pkcs12 -nocerts -in FILE -out KEY")
    load = load_der_private_key if blob[:1] == b"\x30" else load_pem_private_key
    try:
        return load(blob, passphrase)
    except TypeError as exc:
        needs = (
            "is encrypted: give its passphrase" if passphrase is None else "isn't encrypted, but a passphrase was given"
        )
        raise BadData(f"the key {needs}") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        what = (
            "the passphrase is wrong or it is damaged" if passphrase is not None else "it is no PEM or DER private key"
        )
        raise BadData(f"the key can't be read: {what}") from exc


def load_signing_key(blob: bytes, passphrase: bytes | None) -> SigningKey:
    """A private key that signs mail. Raises BadData."""
    key = load_key(blob, passphrase)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise BadData("the key is neither RSA nor EC nor Ed25519: it can't sign mail")
    return key
