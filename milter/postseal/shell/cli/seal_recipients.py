"""For whom ``postseal seal`` seals, and how the content key is wrapped for them."""

from __future__ import annotations

import argparse

from postseal.core.certs import Certificate
from postseal.core.errors import BadData
from postseal.core.fitness import fitness, key_family
from postseal.core.plan import shared_key_ids
from postseal.core.policy import Cleared, clear_by_operator
from postseal.core.profile import key_kind, profile
from postseal.core.suite import KeyFamily, KeyTransport, RecipientId, Wrap
from postseal.core.text import escape
from postseal.shell.cli.files import read_certificate
from postseal.sources.clock import SystemClock

_WORDS = {KeyFamily.RSA: "RSA", KeyFamily.EC: "EC", KeyFamily.X25519: "X25519"}


def add_recipient_options(parser: argparse.ArgumentParser) -> None:
    """``--to`` and what goes with it."""
    parser.add_argument(
        "--to", metavar="CERT", nargs="+", action="extend", required=True,
        help="files with one certificate each, DER or PEM; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--key-transport", choices=[str(transport) for transport in KeyTransport], default=str(KeyTransport.PKCS1),
        help="how RSA keys wrap the content key (default pkcs1; a key that demands OAEP gets what it demands)",
    )  # fmt: skip
    parser.add_argument(
        "--recipient-id", choices=[str(form) for form in RecipientId], default=str(RecipientId.ISSUER),
        help="name certificates by issuer and serial number (default) or by subject key identifier",
    )  # fmt: skip
    parser.add_argument(
        "--allow-x25519", action="store_true", help="also seal for X25519 keys, which hardly any mail program can use"
    )


def recipients(args: argparse.Namespace) -> tuple[list[Cleared], list[str]]:
    """The certificates of ``--to``, each once, and remarks for the operator. Raises BadData when one can't be used."""
    wrap = Wrap(KeyTransport(args.key_transport), args.recipient_id == RecipientId.KEY_ID)
    notes: list[str] = []
    found: dict[Certificate, Cleared] = {}
    for path in args.to:
        certificate = read_certificate(path)
        notes += _fit(path, certificate, wrap, args.allow_x25519)
        found.setdefault(certificate, clear_by_operator(certificate, wrap))
    if shared_key_ids(list(found.values())):
        raise BadData(
            f"two keys have the same subject key identifier, so --recipient-id {RecipientId.KEY_ID} can't tell them apart"
        )
    notes.append("the certificates' path and revocation were not checked")
    families = {key_family(certificate) for certificate in found}
    if len(families) > 1:
        # The command makes one message, so it is said and not done: whoever wants two calls it twice.
        mix = " and ".join(_WORDS[family] for family in KeyFamily if family in families)
        notes.append(f"{mix} recipients in one message: older mail programs can't open it")
    return list(found.values()), notes


def _fit(path: str, certificate: Certificate, wrap: Wrap, x25519: bool) -> list[str]:
    """Remarks on a certificate; raises BadData when mail must not be sealed to it."""
    notes = []
    for finding in fitness(certificate, None, SystemClock().now(), x25519=x25519):
        sentence = f"{path}: {escape(finding.detail)} ({finding.code})"
        if finding.fatal and key_kind(certificate) == "X25519" and not x25519:
            sentence += "; --allow-x25519 seals for it all the same"
        if finding.fatal:
            raise BadData(sentence)
        notes.append(sentence)
    # RFC 5652 §6.2.1: only what the certificate itself says can name it.
    if wrap.by_key_id and not profile(certificate).subject_key_id:
        raise BadData(f"{path}: it has no subject key identifier, so --recipient-id {RecipientId.KEY_ID} can't name it")
    if key_kind(certificate) == "RSA-OAEP" and wrap.transport is KeyTransport.PKCS1:
        notes.append(f"{path}: its key is for RSA-OAEP only, which is used for it")
    return notes
