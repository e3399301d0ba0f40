"""Who signs: options of the commands that sign, and what the files are that they name."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import rsa

from postseal.app.cms_sign import SignOrder
from postseal.app.private_keys import load_signing_key
from postseal.core.certs import Certificate, load_certificates
from postseal.core.cms.signing import SignatureScheme, Signer, SigningKey
from postseal.core.errors import BadData, Usage
from postseal.core.fitness import signing_fitness
from postseal.core.text import escape
from postseal.shell.cli.files import read_certificate, read_file
from postseal.sources.clock import SystemClock

_SCHEMES = (str(SignatureScheme.PKCS1), str(SignatureScheme.PSS))


def add_signer_options(parser: argparse.ArgumentParser, prefix: str = "", *, required: bool) -> None:
    """``--key``, ``--certificate``, ``--chain`` (or ``--sign-key`` …), ``--scheme``, ``--opaque``, ``--passphrase-file``."""
    parser.add_argument(
        f"--{prefix}key", metavar="F", dest="signer_keys", action="append", required=required, default=None,
        help="the signer's private key, PEM or DER; again for another signer",
    )  # fmt: skip
    parser.add_argument(
        f"--{prefix}certificate", metavar="F", dest="signer_certificates", action="append", default=None,
        help="the signer's certificate, as often as keys; without it the certificate is taken from the key's file. Further "
        "certificates in the file go along",
    )  # fmt: skip
    parser.add_argument(
        f"--{prefix}chain", metavar="F", dest="signer_chain", nargs="+", action="extend", default=[],
        help="certificates of issuers that go along; roots are left out",
    )  # fmt: skip
    parser.add_argument("--passphrase-file", metavar="F", help="file whose first line is the passphrase of the keys")
    parser.add_argument(
        "--scheme", choices=_SCHEMES, help="how RSA keys sign (default pkcs1; keys that are for RSASSA-PSS only: pss)"
    )
    parser.add_argument(
        "--opaque", action="store_true",
        help="sign as application/pkcs7-mime, not as multipart/signed: programs without S/MIME can't show it",
    )  # fmt: skip
    parser.add_argument(
        "--answers-to",
        metavar="CERT",
        help="tell in the signature that answers should be encrypted to this certificate",
    )


def signers_of(args: argparse.Namespace) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    """The signers that the options name, and remarks on their certificates. Raises BadData and Usage."""
    keys, certificates = args.signer_keys or [], args.signer_certificates or []
    if certificates and len(certificates) != len(keys):
        raise Usage(f"{len(keys)} keys of signers and {len(certificates)} certificates: give one for each")
    if not keys:
        if args.signer_chain or args.scheme or args.opaque or args.answers_to or args.passphrase_file:
            raise Usage("there are options for a signature, but no key that signs")
        return (), ()
    passphrase = None
    if args.passphrase_file:
        passphrase = read_file(args.passphrase_file).split(b"\n", 1)[0].rstrip(b"\r")
    chain = [certificate for path in args.signer_chain for certificate in _certificates(path)]
    answers = None if args.answers_to is None else read_certificate(args.answers_to)
    signers, notes = [], []
    for key_path, path in zip(keys, certificates or keys, strict=True):
        key = _key(key_path, passphrase)
        certificate, others = _own(path, key)
        notes += _fit(path, certificate)
        scheme = SignatureScheme(args.scheme) if args.scheme and isinstance(key, rsa.RSAPrivateKey) else None
        try:
            signers.append(Signer(certificate, key, scheme, (*others, *chain), encryption=answers))
        except BadData as exc:
            raise BadData(f"{path}: {exc}") from exc
    if args.scheme and not any(each.scheme == args.scheme for each in signers):
        raise Usage("--scheme is for RSA keys, and there is none")
    return tuple(signers), tuple(notes)


def order_of(args: argparse.Namespace, signers: Sequence[Signer]) -> SignOrder:
    """How to sign, with a boundary that nobody could foresee."""
    boundary = f"=-postseal-{secrets.token_hex(16)}"
    return SignOrder(tuple(signers), SystemClock().now(), boundary, args.opaque)


def _key(path: str, passphrase: bytes | None) -> SigningKey:
    try:
        return load_signing_key(read_file(path), passphrase)
    except BadData as exc:
        raise BadData(f"{path}: {exc}") from exc


def _certificates(path: str) -> tuple[Certificate, ...]:
    try:
        return load_certificates(read_file(path))
    except BadData as exc:
        raise BadData(f"{path}: {exc}") from exc


def _own(path: str, key: SigningKey) -> tuple[Certificate, tuple[Certificate, ...]]:
    """The certificate of the key in a file, and the others in it."""
    found = _certificates(path)
    own = [certificate for certificate in found if _same_key(certificate, key)]
    if len(own) != 1:
        raise BadData(f"{path} holds {len(own) or 'no'} certificate{'s' * (len(own) > 1)} of that private key")
    return own[0], tuple(certificate for certificate in found if certificate != own[0])


def _same_key(certificate: Certificate, key: SigningKey) -> bool:
    try:
        return certificate.x509.public_key() == key.public_key()
    except Exception:
        # A key of a kind that the library doesn't know isn't this one.
        return False


def _fit(path: str, certificate: Certificate) -> list[str]:
    """Remarks on a signer's certificate; raises BadData when mail must not be signed with it."""
    notes = []
    for finding in signing_fitness(certificate, SystemClock().now()):
        sentence = f"{path}: {escape(finding.detail)} ({finding.code})"
        if finding.fatal:
            raise BadData(sentence)
        notes.append(sentence)
    return notes
