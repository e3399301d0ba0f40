"""``postseal cert import | learn | list | show | remove | pin``: the store of recipients' certificates."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from postseal.app.intake import Refused, sort_out
from postseal.config import load_config
from postseal.core.address import parse_mailbox
from postseal.core.capabilities import Capability, certificate_capabilities
from postseal.core.certs import Certificate
from postseal.core.ciphers import Remembered, listed, rank
from postseal.core.errors import BadData, Usage
from postseal.core.fitness import addresses, fitness, key_family
from postseal.core.reasons import reason
from postseal.core.text import escape
from postseal.shell.cli import learn
from postseal.shell.cli.files import read_input
from postseal.shell.cli.main import Parser, add_command
from postseal.sources.directory.store import Entry
from postseal.wiring.certificates import certificate_store

_BATCH = 500
_MAX_FILE = 512 * 1024 * 1024
_TOO_LARGE = f"larger than {_MAX_FILE // 1024 // 1024} MiB"


def register(commands: Any) -> None:
    parser = commands.add_parser("cert", help="the store of recipients' certificates")
    inner = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    take = add_command(inner, "import", run_import, "put certificates into the store (exit 1 if any was refused)")
    take.add_argument(
        "files", nargs="+", metavar="FILE", help="PEM, DER or PKCS#7, a folder of such files, or - for stdin"
    )
    learn.arguments(
        add_command(
            inner,
            "learn",
            learn.run,
            "take certificate and capabilities from mail that is signed and verified (exit 1 if any wasn't)",
        )
    )
    listing = add_command(inner, "list", run_list, "list the store, or what it has for an address or fingerprint")
    listing.add_argument("reference", nargs="?", default="", metavar="ADDRESS|SHA256")
    show = add_command(inner, "show", run_show, "show one certificate (exit 1 if it can't be used now)")
    show.add_argument("reference", metavar="ADDRESS|SHA256")
    show.add_argument("--pem", action="store_true", help="print the certificate itself as PEM")
    remove = add_command(inner, "remove", run_remove, "remove certificates from the store")
    remove.add_argument("references", nargs="+", metavar="ADDRESS|SHA256")
    pin = add_command(inner, "pin", run_pin, "prefer one stored certificate for an address, or forget that (--remove)")
    pin.add_argument("address", metavar="ADDRESS")
    pin.add_argument("fingerprint", nargs="?", default="", metavar="SHA256", help="at least 8 hex digits")
    pin.add_argument("--remove", action="store_true", help="forget the preference")


def run_import(args: argparse.Namespace) -> int:
    """0 when all that was given is in the store now, 1 when something was refused."""
    config = load_config(args.config)
    store, clock = certificate_store(config)
    at = clock.now()
    progress = _Progress()
    new: list[Certificate] = []
    seen = 0
    refused: list[Refused] = []
    batch: list[tuple[Certificate, str]] = []
    for name, blob in _contents(args.files, refused):
        good, bad = sort_out(name, blob, at, weak_keys=config.revocation.weak_keys, x25519=config.sealing.x25519)
        refused += bad
        for certificate in good:
            batch.append((certificate, name))
            seen += 1
            if len(batch) >= _BATCH:
                new += store.add(batch, at)
                batch.clear()
                progress.show(seen, len(refused))
        progress.show(seen, len(refused))
    new += store.add(batch, at)
    progress.end()
    _summary(args, new, seen, refused)
    return 1 if refused else 0


def _contents(names: list[str], refused: list[Refused]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if name == "-":
            blob = read_input(_MAX_FILE + 1)
            if len(blob) > _MAX_FILE:
                refused.append(Refused("stdin", "cert.unreadable", _TOO_LARGE))
            else:
                yield "stdin", blob
            continue
        path = Path(name)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not files:
            refused.append(Refused(name, "cert.unreadable", "the folder is empty"))
        for file in files:
            try:
                if file.stat().st_size > _MAX_FILE:
                    raise OSError(0, _TOO_LARGE)
                yield str(file), file.read_bytes()
            except OSError as exc:
                refused.append(Refused(str(file), "cert.unreadable", exc.strerror or str(exc)))


def _summary(args: argparse.Namespace, new: list[Certificate], seen: int, refused: list[Refused]) -> None:
    if args.json:
        imported = [{"sha256": c.fingerprint, "addresses": [str(m) for m in addresses(c).mailboxes]} for c in new]
        print(
            json.dumps(
                {"imported": imported, "known": seen - len(new), "refused": [_refused(r) for r in refused]}, indent=2
            )
        )
        return
    for refusal in refused:
        about = f" ({escape(refusal.certificate.name, 200)})" if refusal.certificate else ""
        print(f"refused: {escape(refusal.source)}{about}: {escape(refusal.detail)}", file=sys.stderr)
    known = f", {seen - len(new)} known already" if seen > len(new) else ""
    print(f"{len(new)} imported{known}, {len(refused)} refused")


def _refused(refusal: Refused) -> dict[str, str]:
    certificate = refusal.certificate
    return {
        "source": refusal.source,
        "reason": refusal.code,
        "detail": refusal.detail,
        "sha256": certificate.fingerprint if certificate else "",
        "subject": certificate.name if certificate else "",
    }


class _Progress:
    """A line on the terminal that counts; nothing where stderr isn't one."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._shown = (-_BATCH, 0)

    def show(self, seen: int, refused: int) -> None:
        if self._on and seen + refused - sum(self._shown) >= 50:
            self._shown = (seen, refused)
            print(f"\r{seen} certificates read, {refused} refused", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._on:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run_list(args: argparse.Namespace) -> int:
    """0, or 1 when there is nothing to list."""
    config = load_config(args.config)
    store, clock = certificate_store(config)
    entries, words = store.entries(args.reference), store.words()
    if args.json:
        print(json.dumps({"certificates": [_entry(e, words) for e in entries]}, indent=2))
    else:
        at = clock.now()
        for entry in entries:
            print(_line(entry, words, at))
        if not entries:
            asked = f" for {escape(args.reference)}" if args.reference else ""
            folder = config.certificates.directory
            print(f"postseal: no certificate{asked} in the store; what is in {folder} isn't listed", file=sys.stderr)
    return 0 if entries else 1


def _line(entry: Entry, words: Mapping[str, Remembered], at: datetime) -> str:
    certificate = entry.certificate
    until = certificate.not_after.strftime("%Y-%m-%d")
    notes = ["expired"] if certificate.not_after < at else []
    if entry.pinned:
        notes.append(f"pinned for {', '.join(escape(a) for a in entry.pinned)}")
    notes += [f"reads {_reads(words[a].capabilities)}" for a in entry.addresses if a in words]
    tail = f"  [{'; '.join(notes)}]" if notes else ""
    return f"{certificate.fingerprint[:16]}  until {until}  {', '.join(escape(a) for a in entry.addresses)}{tail}"


def _reads(capabilities: Sequence[Capability]) -> str:
    return ", ".join(listed(capabilities)) or "nothing that postseal writes"


def _capabilities(entry: Entry, words: Mapping[str, Remembered]) -> dict[str, Any]:
    """What the CA wrote into the certificate (None without the extension), and what signed mail of its addresses said."""
    own = certificate_capabilities(entry.certificate)
    return {
        "certificate": None if own is None else list(listed(own)),
        "signed": [
            {
                "address": address,
                "reads": list(listed(word.capabilities)),
                "signed_at": word.signed_at.isoformat(),
                "signer": word.signer,
                "learnt_at": word.learnt_at.isoformat(),
                "once": sorted(word.best, key=rank, reverse=True) + (["oaep"] if word.oaep else []),
            }
            for address in entry.addresses
            if (word := words.get(address)) is not None
        ],
    }


def _entry(entry: Entry, words: Mapping[str, Remembered]) -> dict[str, Any]:
    certificate = entry.certificate
    family = key_family(certificate)
    return {
        "sha256": certificate.fingerprint,
        "subject": certificate.name,
        "issuer": certificate.x509.issuer.rfc4514_string(),
        "serial": f"{certificate.serial:x}",
        "addresses": list(entry.addresses),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "key": family.value if family else "",
        "origin": entry.origin.value,
        "source": entry.source,
        "imported_at": entry.imported_at.isoformat(),
        "pinned": list(entry.pinned),
        "capabilities": _capabilities(entry, words),
    }


def run_show(args: argparse.Namespace) -> int:
    """0, or 1 when the certificate can't be used now whatever its path and revocation status are."""
    config = load_config(args.config)
    store, clock = certificate_store(config)
    entry = store.find(args.reference)
    weak_keys, x25519 = config.revocation.weak_keys, config.sealing.x25519
    findings = fitness(entry.certificate, None, clock.now(), weak_keys=weak_keys, x25519=x25519)
    facts = _entry(entry, store.words())
    if args.pem:
        sys.stdout.write(entry.certificate.x509.public_bytes(Encoding.PEM).decode())
    elif args.json:
        facts["findings"] = [{"reason": f.code, "detail": f.detail, "fatal": f.fatal} for f in findings]
        print(json.dumps(facts, indent=2))
    else:
        known = facts.pop("capabilities")
        for key, value in facts.items():
            text = ", ".join(value) if isinstance(value, list) else str(value)
            print(f"{key.replace('_', ' '):12} {escape(text)}")
        for line in _capability_lines(known):
            print(line)
        for finding in findings:
            weight = "can't be used" if finding.fatal else "remark"
            print(f"{weight:12} {reason(finding.code).sentence} ({escape(finding.detail)})")
    return 1 if any(f.fatal for f in findings) else 0


def _capability_lines(known: dict[str, Any]) -> Iterator[str]:
    if known["certificate"] is not None:
        yield f"{'lists':12} {', '.join(known['certificate']) or 'nothing that postseal writes'} (certificate)"
    for word in known["signed"]:
        reads = ", ".join(word["reads"]) or "nothing that postseal writes"
        lost = [each for each in word["once"] if not any(r.startswith(each) for r in word["reads"])]
        once = f"; once also {', '.join(lost)}" if lost else ""
        yield f"{'reads':12} {reads}{once} ({escape(word['address'])}, signed {word['signed_at'][:10]})"


def run_remove(args: argparse.Namespace) -> int:
    """0 when all were removed. Nothing is removed if one reference is wrong."""
    store, _ = certificate_store(load_config(args.config))
    entries = [store.find(reference) for reference in args.references]
    removed = [e.certificate.fingerprint for e in entries if store.remove(e.certificate.fingerprint)]
    if args.json:
        print(json.dumps({"removed": removed}, indent=2))
    else:
        for fingerprint in removed:
            print(f"removed {fingerprint[:16]}")
    return 0


def run_pin(args: argparse.Namespace) -> int:
    """0 when it is done, 1 when there was nothing to forget."""
    if bool(args.fingerprint) == args.remove:
        raise Usage("postseal cert pin: give either a fingerprint or --remove")
    store, clock = certificate_store(load_config(args.config))
    mailbox = parse_mailbox(args.address)
    if args.remove:
        gone = store.unpin(mailbox)
        text = f"{escape(str(mailbox))} is no longer pinned" if gone else f"{escape(str(mailbox))} was not pinned"
        print(json.dumps({"address": str(mailbox), "pinned": None, "changed": gone}) if args.json else text)
        return 0 if gone else 1
    if "@" in args.fingerprint:
        raise BadData(f"{args.fingerprint!a} is not a SHA-256 fingerprint")
    certificate = store.find(args.fingerprint).certificate
    store.pin(mailbox, certificate.fingerprint, clock.now())
    text = f"{escape(str(mailbox))} is pinned to {certificate.fingerprint[:16]}"
    print(
        json.dumps({"address": str(mailbox), "pinned": certificate.fingerprint, "changed": True}) if args.json else text
    )
    return 0
