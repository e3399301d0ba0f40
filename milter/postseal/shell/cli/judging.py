"""The options of commands that judge certificates by files: anchors, CRLs, OCSP answers, the time that is asked about."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from postseal.app.verify import Request, read_certificates, read_crls, read_ocsp
from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.certs import Certificate
from postseal.core.errors import BadData, NotPermitted, Usage
from postseal.core.evidence import CrlEvidence, OcspEvidence
from postseal.core.path import SKEW, Anchor
from postseal.sources.clock import SystemClock

_MAX_FILE = 512 * 1024 * 1024
_T = TypeVar("_T")


def judging_options(parser: argparse.ArgumentParser, *, address: str) -> None:
    """``address`` is the help text of ``--address``."""
    for option, text in (
        ("anchor", "file with trusted CA certificates; without any nothing is trusted"),
        ("intermediate", "file with CA certificates that may be between"),
        ("crl", "file with CRLs (DER or PEM)"),
        ("ocsp", "file with OCSP responses (DER or PEM)"),
    ):
        parser.add_argument(f"--{option}", metavar="F", action="append", default=[], help=f"{text}; may be repeated")
    parser.add_argument("--at", metavar="TIME", help="verify for this time (RFC 3339 or Unix seconds)")
    parser.add_argument("--address", metavar="A", help=address)
    parser.add_argument(
        "--allow-weak-keys", action="store_true",
        help="admit RSA from 1024 bits, SHA-1 and SHA-224; shorter keys and MD5 never",
    )  # fmt: skip
    parser.add_argument("--no-revocation", action="store_true", help="don't ask whether anything is revoked")


def judging_time(args: argparse.Namespace) -> datetime:
    """The moment that is asked about: now unless ``--at`` says another. Raises Usage."""
    return SystemClock().now() if args.at is None else parse_time(args.at)


def judging_request(args: argparse.Namespace, at: datetime) -> Request:
    """What the options ask for. Raises Usage or BadData."""
    anchors: tuple[Anchor, ...] = each_file(
        args.anchor, lambda blob, name: tuple(Anchor(c, name) for c in read_certificates(blob, name))
    )
    intermediates: tuple[Certificate, ...] = each_file(args.intermediate, read_certificates)
    crls: tuple[CrlEvidence, ...] = each_file(args.crl, lambda blob, name: read_crls(blob, name, at))
    answers: tuple[OcspEvidence, ...] = each_file(args.ocsp, lambda blob, name: read_ocsp(blob, name, at))
    return Request(
        anchors=anchors,
        intermediates=intermediates,
        crls=crls,
        ocsp=answers,
        mailbox=_mailbox(args.address),
        weak_keys=args.allow_weak_keys,
        revocation=not args.no_revocation,
        # CERT-15: patience is for clocks that go wrong; a time that is given is meant.
        skew=SKEW if args.at is None else timedelta(0),
        clock=None if args.at is None else SystemClock().now(),
    )


def _mailbox(text: str | None) -> Mailbox | None:
    """An empty one is a mistake, such as a variable that isn't set, and mustn't mean: anybody."""
    try:
        return None if text is None else parse_mailbox(text)
    except BadData as exc:
        raise Usage(f"--address: {exc}") from exc


def each_file(names: Sequence[str], read: Callable[[bytes, str], tuple[_T, ...]]) -> tuple[_T, ...]:
    return tuple(item for name in names for item in read(read_whole(name), name))


def read_whole(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            blob = file.read(_MAX_FILE + 1)
    except PermissionError as exc:
        raise NotPermitted(f"{name}: {exc.strerror}") from exc
    except (OSError, ValueError) as exc:
        raise BadData(f"{name}: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(blob) > _MAX_FILE:
        raise BadData(f"{name}: larger than {_MAX_FILE} octets")
    return blob


def parse_time(text: str) -> datetime:
    """RFC 3339 (with a zone) or Unix seconds -> aware UTC, the second that it is in. Raises Usage.

    RFC 5280 §4.1.2.5: validity is told in whole seconds and includes the last one.
    """
    try:
        if text.lstrip("-").replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC).replace(microsecond=0)
        # RFC 3339 §5.6: T and Z may be small.
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError, OSError):
        pass
    raise Usage(f"--at {text!a}: expected a time like 2026-06-01T12:00:00Z, or Unix seconds")
