"""``postseal evidence export``, ``export-key``, and the bundles among what ``postseal evidence import`` is given."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from postseal.config import Config, load_config
from postseal.config.values import parse_duration, parse_size
from postseal.core.errors import BadData, TryAgain, Usage
from postseal.core.text import moment, one_line
from postseal.shell.cli.main import add_command

_LARGEST = "4 GiB"


def register(verbs: Any) -> None:
    """Add ``export`` and ``export-key``."""
    export = add_command(
        verbs, "export", run_export, "write all current evidence into one signed file, for other nodes"
    )
    export.add_argument("file", metavar="FILE", help='the bundle, replaced as a whole; "-" is standard output')
    signing = export.add_mutually_exclusive_group(required=True)
    signing.add_argument(
        "--sign-with", nargs=2, metavar=("KEY", "CERTIFICATE"), help="sign with this private key (PEM, RSA or EC)"
    )
    signing.add_argument("--unsigned", action="store_true", help="don't sign; the other node has to say --unsigned too")
    export.add_argument(
        "--since", metavar="TIME", help='only what was fetched since: RFC 3339, or "24 h" for so long ago'
    )
    export.add_argument(
        "--max-size", metavar="SIZE", default=_LARGEST, help=f"write no larger bundle (default {_LARGEST})"
    )
    export.add_argument("--node", metavar="NAME", help="name of this node in the bundle (default: the host name)")
    key = add_command(verbs, "export-key", run_key, "make a private key and a certificate to sign bundles with")
    key.add_argument("key", metavar="KEY", help="file for the private key, which mustn't exist")
    key.add_argument(
        "certificate", metavar="CERTIFICATE", help="file for the certificate, for the other nodes' bundle_signers"
    )
    key.add_argument("--node", metavar="NAME", help="name of this node (default: the host name)")


def add_import_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``import`` that are about bundles."""
    parser.add_argument("--unsigned", action="store_true", help="take bundles without a signature too")
    parser.add_argument(
        "--max-age",
        metavar="TIME",
        help='refuse bundles that were made longer ago, such as "2 d"',
    )
    parser.add_argument(
        "--max-size", metavar="SIZE", default=_LARGEST, help=f"read no larger bundle (default {_LARGEST})"
    )
    parser.add_argument("--quiet", action="store_true", help="print only what was refused")


def run_export(args: argparse.Namespace) -> int:
    """0 when the bundle was written, even an empty one; 1 when something stored could not be read."""
    from postseal.app.bundles import pack
    from postseal.core import bundle
    from postseal.core.cms.signed import sign
    from postseal.sources.bundles import load_signer, write_bundle
    from postseal.sources.clock import SystemClock
    from postseal.sources.evidence import EvidenceStore

    config, at = load_config(args.config), SystemClock().now()
    since, most = _since(args.since, at), _size(args.max_size)
    signer = load_signer(*args.sign_with) if args.sign_with else None
    store = EvidenceStore(config.evidence_directory, readonly=True)
    if not store.exists():
        raise BadData(f"there is no evidence in {config.evidence_directory} yet")
    parcel = pack(store, _node(args.node), at, since)
    manifest = bundle.encode(parcel.manifest)
    signature = sign(manifest, signer[1], signer[0], at) if signer is not None else b""
    size = len(manifest) + len(signature) + parcel.manifest.size
    if size > most:
        raise BadData(f"the bundle would have {size} octets, --max-size allows {most}; --since makes it smaller")
    write_bundle(args.file, manifest, signature, parcel.contents())
    kinds = [item.kind.value for item in parcel.manifest.items]
    values = {
        "file": args.file, "octets": size, "crls": kinds.count("crl"), "ocsp": kinds.count("ocsp"),
        "certificates": kinds.count("certificate"), "expired": parcel.expired, "unreadable": parcel.unreadable,
        "signed": signer is not None,
    }  # fmt: skip
    text = f"{values['crls']} CRLs, {values['ocsp']} OCSP answers; left out: {parcel.expired} expired"
    text += f", {parcel.unreadable} that can't be read" if parcel.unreadable else ""
    # Standard output may be the bundle itself.
    out = sys.stderr if args.file == "-" else sys.stdout
    print(json.dumps(values, indent=2) if args.json else f"{args.file}: {text}", file=out)
    return 1 if parcel.unreadable else 0


def run_key(args: argparse.Namespace) -> int:
    from postseal.sources.bundles import make_signer
    from postseal.sources.clock import SystemClock

    made = make_signer(args.key, args.certificate, _node(args.node), SystemClock().now())
    values = {"key": args.key, "certificate": args.certificate, "sha256": made.fingerprint}
    text = (
        f"{args.certificate}: sha256:{made.fingerprint}; copy it to bundle_signers of the nodes that shall take bundles"
    )
    print(json.dumps(values, indent=2) if args.json else text)
    return 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of one bundle. ``exit_code`` is 0 unless something was refused."""

    values: dict[str, Any]
    lines: tuple[str, ...]
    exit_code: int


def take_bundle(args: argparse.Namespace, config: Config, name: str, warn: Callable[[str], None]) -> Arrived | None:
    """Import one file if it is a bundle. Raises BadData or TryAgain when it is refused as a whole."""
    from postseal.app import bundles
    from postseal.sources.bundles import Ledger, open_bundle
    from postseal.sources.clock import SystemClock
    from postseal.wiring.evidence import build_bundle_signers, build_importer

    clock = SystemClock()
    at, skew = clock.now(), timedelta(seconds=config.revocation.skew)
    max_age = timedelta(seconds=_duration(args.max_age)) if args.max_age else None
    with open_bundle(name, _size(args.max_size)) as made:
        if made is None:
            return None
        signers = build_bundle_signers(config, warn)
        found = bundles.origin(made, signers, at, unsigned=args.unsigned)
        made.check_size(found.manifest)
        ledger = Ledger(config.evidence_directory)
        last = ledger.last(found.signer) if found.signer is not None else None
        fault = bundles.why_too_old(found.manifest, last, max_age, at, skew)
        if fault:
            raise BadData(fault)

        def importer(more: Sequence[Any]) -> Any:
            return build_importer(config, (), warn, more)

        taken = list(bundles.open_items(made, found, importer, config.lookup.crl_max_size))
        if found.signer is not None:
            ledger.took(found.signer, found.manifest.created)
    return _told(args, name, found, taken)


def _told(args: argparse.Namespace, name: str, found: Any, taken: Sequence[Any]) -> Arrived:
    counts = {outcome: sum(t.outcome == outcome for t in taken) for outcome in ("stored", "known", "older", "refused")}
    by = f"signed by {found.signer.name}" if found.signer is not None else "unsigned"
    values = {
        "file": name, "kind": "bundle", "stored": not counts["refused"], "refused": "", "node": found.manifest.node,
        "created": moment(found.manifest.created), "signer": found.signer.fingerprint if found.signer else None,
        "counts": counts,
        "items": [
            {"kind": t.item.kind.value, "sha256": t.item.sha256, "url": t.item.url, "outcome": t.outcome, "detail": t.detail}
            for t in taken
        ],
    }  # fmt: skip
    lines = [
        f"{name}: {t.outcome:7} {t.item.kind.value:4} {t.item.sha256[:16]} {one_line(t.item.url, 300)}"
        + (f": {one_line(t.detail, 300)}" if t.detail else "")
        for t in taken
        if t.outcome == "refused" or (not args.quiet and t.outcome in ("stored", "older"))
    ]
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    if not args.quiet or counts["refused"]:
        made = moment(found.manifest.created)
        lines.append(f"{name}: bundle of {found.manifest.node}, made {made}, {one_line(by, 200)}: {said}")
    return Arrived(values, tuple(lines), 1 if counts["refused"] else 0)


def refusal_code(exc: Exception) -> int:
    """A file that isn't whole yet is another matter than one that is wrong."""
    return TryAgain.exit_code if isinstance(exc, TryAgain) else 1


def _node(given: str | None) -> str:
    name = given or socket.gethostname()
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).lstrip("._-")[:253]
    if given and clean != given:
        raise Usage(f"evidence: --node {given!a}: letters, digits, '.', '_' and '-' are allowed")
    return clean or "unnamed"


def _since(text: str | None, at: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        return at - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f'evidence export: --since {text!a}: neither a time such as "24 h" nor a moment in RFC 3339'
        ) from None
    if found.tzinfo is None:
        raise Usage(f"evidence export: --since {text!a}: say the time zone, for example Z")
    return found


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise Usage(f'evidence import: --max-age {text!a}: not a time such as "2 d"') from None


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError:
        raise Usage(f'evidence: --max-size {text!a}: not a size such as "500 MiB"') from None
