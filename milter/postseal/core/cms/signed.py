"""Detached CMS signatures (RFC 5652 §5) by one signer over content that stands beside them: made, and checked against a key.

Which key may sign is the caller's to know: nothing in the signature is believed but what that key vouches for.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs7
from cryptography.x509 import load_der_x509_certificate

from postseal.core.certs import Certificate
from postseal.core.der import OCTET_STRING, OID, SEQUENCE, SET, Cursor, context, tlv
from postseal.core.errors import BadData
from postseal.core.signature import Algorithm, Scheme, key_fault, parse_algorithm, verifies

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_DATA = "1.2.840.113549.1.7.1"
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
_EC_PUBLIC_KEY = "1.2.840.10045.2.1"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
_MOST_ATTRIBUTES = 32


def sign(content: bytes, certificate: Certificate, key_pem: bytes) -> bytes:
    """A detached SignedData in DER, with SHA-256. Raises BadData for a key that can't sign or isn't the certificate's."""
    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as exc:
        raise BadData(f"not a private key in PEM without a passphrase: {exc}") from exc
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise BadData("the private key is neither RSA nor EC")
    signer = load_der_x509_certificate(certificate.der)
    if signer.public_key() != key.public_key():
        raise BadData("the private key isn't that of the certificate")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(signer, key, hashes.SHA256())
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
    return builder.sign(Encoding.DER, options)


def check(signature: bytes, content: bytes, signer: Certificate) -> str:
    """Why ``signature`` isn't one by the key of ``signer`` over ``content``, in words; empty when it is. Never raises."""
    try:
        return _check(signature, content, signer)
    except BadData as exc:
        return f"the signature isn't CMS SignedData: {exc}"


def _check(signature: bytes, content: bytes, signer: Certificate) -> str:
    outer = Cursor(signature)
    info = outer.enter()
    outer.finish()
    if info.oid() != _SIGNED_DATA:
        return "the signature isn't CMS SignedData"
    data = info.enter(context(0)).enter()
    data.integer()
    data.take(SET)
    encapsulated = data.enter()
    # RFC 5652 §5.2: a detached signature has no eContent, and ours are over plain data.
    if encapsulated.oid() != _DATA or encapsulated.peek() != -1:
        return "the signature isn't a detached one over data"
    # CRL-26: certificates and CRLs that come along are never looked at.
    for optional in (context(0), context(1)):
        if data.peek() == optional:
            data.take(optional)
    infos = data.enter(SET).children(SEQUENCE, 2)
    data.finish()
    if len(infos) != 1:
        return "the signature isn't by exactly one signer"
    return _check_signer(data.inside(infos[0]), content, signer)


def _check_signer(info: Cursor, content: bytes, signer: Certificate) -> str:
    info.integer()
    # The sid names a certificate; the key that must verify is known already.
    info.take()
    digest_name = info.enter().oid()
    if digest_name not in _HASHES:
        return f"the signature uses the hash {digest_name}; SHA-256, SHA-384 and SHA-512 are taken"
    attributes = info.take(context(0)) if info.peek() == context(0) else None
    identifier = info.raw(SEQUENCE)
    value = info.octets()
    signed: bytes = content
    if attributes is not None:
        # RFC 5652 §5.4: signed is the SET OF, not the [0] that stands in its place, and it binds the content by its digest.
        body = bytes(info.data[attributes.body : attributes.end])
        fault = _attributes_fault(Cursor(body), _digest(digest_name, content))
        if fault:
            return fault
        signed = tlv(SET, body)
    algorithm = _algorithm(identifier, digest_name)
    fault = algorithm.fault(weak_keys=False) or key_fault(signer.spki, weak_keys=False)
    if fault:
        return fault
    return (
        ""
        if verifies(algorithm, value, signed, signer.spki)
        else "the signature isn't by that key, or over other content"
    )


def _attributes_fault(cursor: Cursor, digest: bytes) -> str:
    found: dict[str, bytes] = {}
    for element in cursor.children(SEQUENCE, _MOST_ATTRIBUTES):
        attribute = cursor.inside(element)
        name = attribute.oid()
        if name in found:
            return "a signed attribute occurs twice"
        found[name] = attribute.content(SET)
        attribute.finish()
    # RFC 5652 §11.1, §11.2: both must be there, with one value each.
    if _CONTENT_TYPE not in found or Cursor(found[_CONTENT_TYPE]).raw(OID) != found[_CONTENT_TYPE]:
        return "the signature lacks the content type"
    if Cursor(found[_CONTENT_TYPE]).oid() != _DATA:
        return "the signature isn't over data"
    if found.get(_MESSAGE_DIGEST) != tlv(OCTET_STRING, digest):
        return "the signature is over other content"
    return ""


def _algorithm(identifier: bytes, digest_name: str) -> Algorithm:
    """RFC 5652 §10.1.2, RFC 3370 §3.2: the key's algorithm may stand there alone; the hash is then that of the digest."""
    name = Cursor(identifier).enter().oid()
    if name == _RSA_ENCRYPTION:
        return Algorithm(Scheme.PKCS1, _HASHES[digest_name], name)
    if name == _EC_PUBLIC_KEY:
        return Algorithm(Scheme.ECDSA, _HASHES[digest_name], name)
    return parse_algorithm(identifier)


def _digest(name: str, content: bytes) -> bytes:
    state = hashes.Hash(_HASHES[name])
    state.update(content)
    return state.finalize()
