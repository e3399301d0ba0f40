"""Detached CMS signatures by one signer over content that stands beside them, for bundles of evidence: made, and checked.

Which key may sign is the caller's to know: nothing in the signature is believed but what that key vouches for.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postseal.core.certs import Certificate
from postseal.core.cms.signed_reader import Signed, parse_signed
from postseal.core.cms.signed_structures import DATA, HASHES
from postseal.core.cms.signing import Signer, Signing
from postseal.core.cms.verifying import State, check_signers, cover
from postseal.core.errors import BadData
from postseal.core.reasons import reason


def sign(content: bytes, certificate: Certificate, key_pem: bytes, at: datetime) -> bytes:
    """A detached SignedData in DER. Raises BadData for a key that can't sign or isn't the certificate's."""
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as exc:
        raise BadData(f"not a private key in PEM without a passphrase: {exc}") from exc
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise BadData("the private key is neither RSA nor EC nor Ed25519")
    # Evidence isn't mail: nobody answers it, so it says nothing of S/MIME capabilities.
    signing = Signing((Signer(certificate, key),), at)
    signing.update(content)
    return signing.finish()


def check(signature: bytes, content: bytes, signer: Certificate) -> str:
    """Why ``signature`` isn't one by the key of ``signer`` over ``content``, in words; empty when it is. Never raises."""
    try:
        return _check(parse_signed(signature), content, signer)
    except BadData as exc:
        return f"the signature isn't CMS SignedData: {exc}"


def _check(signed: Signed, content: bytes, signer: Certificate) -> str:
    # RFC 5652 §5.2: a detached signature has no eContent, and ours are over plain data.
    if signed.content_type != DATA or signed.content is not None:
        return "the signature isn't a detached one over data"
    if len(signed.signers) != 1:
        return "the signature isn't by exactly one signer"
    digest = signed.signers[0].digest
    if digest not in HASHES.values():
        return f"the signature uses the hash {digest}; SHA-256, SHA-384 and SHA-512 are taken"
    # CRL-26: certificates and CRLs that come along are never looked at.
    signed = replace(signed, certificates=(), crls=())
    (account,) = check_signers(signed, cover(signed, (content,)), (signer,))
    if account.state is not State.INTACT:
        return f"{reason(account.code).sentence}{f' ({account.detail})' if account.detail else ''}"
    return account.weak
