"""Signed mail in tests: what OpenSSL signs in all its ways, and the reader's account of a mail in one value."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from postseal.core.certs import Certificate
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.signed_reader import parse_signed
from postseal.core.cms.verifying import SignerAccount, State, check_signers, cover
from postseal.core.message import HeaderFault, split_message
from support.pki import Authority, Leaf, authority


@dataclass(frozen=True)
class Signed:
    """``signer`` is the certificate that the signature names; ``intact`` tells whether content and signature fit its key."""

    certificates: tuple[Certificate, ...]
    crls: tuple[bytes, ...]
    signer: Certificate
    intact: bool


def read_signed(mail: bytes) -> Signed:
    """A clear-signed mail with one signer, read by the reader itself, in whichever line ends it is kept."""
    taken = split_message(mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert not isinstance(taken, HeaderFault)
    parts = split_signed(*taken)
    signed = parse_signed(parts.signature)
    (account,) = check_signers(signed, cover(signed, (parts.covered,)))
    assert account.certificate is not None
    return Signed(signed.certificates, signed.crls, account.certificate, account.state is State.INTACT)


@cache
def root() -> Authority:
    return authority("Signing root")


@cache
def signer(kind: str = "rsa2048", slot: int = 0) -> Leaf:
    return root().issue("alice@example.test", kind=kind, slot=("signer", slot))


def openssl_cms(content: bytes, *options: str, signers: tuple[Leaf, ...] = (), form: str = "DER") -> bytes:
    """What ``openssl cms -sign`` makes of ``content``; ``options`` come behind each signer."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["openssl", "cms", "-sign", "-binary", "-outform", form]
        for number, leaf in enumerate(signers or (signer(),)):
            certificate, key = Path(folder) / f"{number}.crt", Path(folder) / f"{number}.key"
            certificate.write_bytes(leaf.pem)
            key.write_bytes(leaf.key_pem)
            command += ["-signer", str(certificate), "-inkey", str(key)]
            if number == 0 or "-keyopt" in options:
                command += options
        done = subprocess.run(command, input=content, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def accounts(
    octets: bytes, content: bytes | None = None, certificates: tuple[Certificate, ...] = ()
) -> tuple[SignerAccount, ...]:
    """The accounts of all signers; ``content`` when it isn't inside."""
    signed = parse_signed(octets)
    return check_signers(signed, cover(signed, None if content is None else (content,)), certificates)
