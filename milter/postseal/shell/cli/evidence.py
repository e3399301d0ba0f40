"""``postseal evidence``: look at, fetch again, import and forget CRLs and OCSP answers (CACHE-12)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from postseal.core.errors import BadData, PostsealError, Usage
from postseal.core.text import moment, one_line
from postseal.shell.cli import bundle
from postseal.shell.cli.main import Parser, add_command


def register(commands: Any) -> None:
    """Add the subcommands."""
    text = "look at and manage the CRLs and OCSP answers at hand"
    parent = commands.add_parser("evidence", help=text, description=text)
    verbs = parent.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    add_command(verbs, "list", run_list, "list CRLs, OCSP answers, and URLs that gave none")
    show = add_command(verbs, "show", run_show, "show one piece of evidence")
    show.add_argument("name", metavar="NAME", help="its name or the beginning of it, or its URL")
    refresh = add_command(verbs, "refresh", run_refresh, "have the lookup service fetch evidence again, now")
    refresh.add_argument("names", metavar="NAME", nargs="*", help="names or URLs (default: all)")
    refresh.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to wait (default 30)")
    take = add_command(
        verbs, "import", run_import, "take CRLs, OCSP answers and bundles of them from files, verified as if fetched"
    )
    take.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help='a CRL (DER or PEM), an OCSP response (DER), or a bundle ("-": standard input)',
    )
    take.add_argument(
        "--certificate", metavar="FILE", action="append", default=[], help="certificates that OCSP answers are about"
    )
    bundle.add_import_options(take)
    bundle.register(verbs)
    forget = add_command(verbs, "forget", run_forget, "drop evidence, and the memory of failures")
    forget.add_argument("names", metavar="NAME", nargs="*", help="names or URLs")
    forget.add_argument("--all", action="store_true", help="everything")


def run_list(args: argparse.Namespace) -> int:
    """All evidence, then all failures."""
    store = _store(args, readonly=True)
    entries = [_values(e) for e in store.entries()] if store is not None else []
    failures = [_failure(f) for f in store.failures()] if store is not None else []
    if args.json:
        print(json.dumps({"evidence": entries, "failures": failures}, indent=2))
        return 0
    for e in entries:
        until = f"until {e['next_update'] or '(not said)'}"
        print(f"{e['name'][:16]}  {e['kind']:4}  {until:26}  {_shown(e['issuer'])}  {_shown(e['url'])}")
    for f in failures:
        print(f"no answer  {_shown(f['url'])}: {_shown(f['detail'])}; not asked again before {f['retry_at']}")
    if not entries and not failures:
        print("no evidence is stored")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """One entry, or exit code 1."""
    store = _store(args, readonly=True)
    chosen = _choose(store.entries() if store is not None else (), [args.name])
    if not chosen:
        _say(args, {}, f"no evidence named {args.name}")
        return 1
    values = _values(chosen[0])
    _say(args, values, "\n".join(f"{key}: {_shown(str(value))}" for key, value in values.items()))
    return 0


def run_refresh(args: argparse.Namespace) -> int:
    """Ask the lookup service; exit code 1 if any URL failed."""
    from postseal.config import load_config
    from postseal.sources.lookup_client import LookupClient

    config = load_config(args.config)
    store = _store(args, readonly=True)
    names = list(args.names)
    if names:
        found = _choose(store.entries(), names) if store is not None else []
        if not found:
            _say(args, {"results": []}, f"no evidence named {' '.join(map(_shown, names))}")
            return 1
        names = [e.name for e in found]
    results = LookupClient(config.lookup_socket).refresh(names, args.timeout)["results"]
    lines = [f"{_shown(r['url'])}: {_shown(r['detail']) if r['reason'] else 'fetched'}" for r in results]
    _say(args, {"results": results}, "\n".join(lines) or "nothing to fetch")
    return 1 if any(r["reason"] for r in results) else 0


def run_import(args: argparse.Namespace) -> int:
    """Each file on its own; exit code 1 if any was refused, 75 if one isn't whole yet."""
    from postseal.config import load_config
    from postseal.core.certs import load_certificates
    from postseal.wiring.evidence import build_importer

    def warn(text: str) -> None:
        print(f"postseal: warning: {_shown(text)}", file=sys.stderr)

    config = load_config(args.config)
    subjects = [c for name in args.certificate for c in load_certificates(_read(name))]
    importer: Any = None
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    code = 0
    for name in args.files:
        try:
            arrived = bundle.take_bundle(args, config, name, warn)
            if arrived is not None:
                results.append(arrived.values)
                lines += arrived.lines
                code = max(code, arrived.exit_code)
                continue
            importer = importer or build_importer(config, subjects, warn)
            kind = importer.take(Path(name).name, _read(name))
            results.append({"file": name, "stored": True, "kind": kind, "refused": ""})
            lines += [] if args.quiet else [f"{_shown(name)}: stored"]
        except PostsealError as exc:
            results.append({"file": name, "stored": False, "kind": "", "refused": str(exc)})
            lines.append(f"{_shown(name)}: {_shown(str(exc))}")
            code = max(code, bundle.refusal_code(exc))
    if lines or args.json:
        _say(args, {"files": results}, "\n".join(lines))
    return code


def run_forget(args: argparse.Namespace) -> int:
    """Drop what is named; exit code 1 if nothing was."""
    if bool(args.names) == args.all:
        raise Usage("evidence forget: give names or URLs, or --all")
    store = _store(args, readonly=False)
    if store is None:
        count = 0
    else:
        entries = store.entries()
        names = [e.name for e in (entries if args.all else _choose(entries, args.names))]
        urls = [f.url for f in store.failures() if args.all or f.url in args.names]
        count = store.forget([*names, *urls])
    _say(args, {"forgotten": count}, f"{count} forgotten")
    return 0 if count or args.all else 1


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise BadData(f"{name}: {exc.strerror}") from exc


def _store(args: argparse.Namespace, readonly: bool) -> Any:
    """The store, or None while there is none."""
    from postseal.config import load_config
    from postseal.sources.evidence import EvidenceStore

    directory = load_config(args.config).evidence_directory
    if not (directory / "evidence.sqlite").exists():
        return None
    return EvidenceStore(directory, readonly=readonly)


def _choose(entries: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Entries by name, beginning of a name (8 digits at least), or URL."""

    def meant(entry: Any, name: str) -> bool:
        return name in entry.urls or entry.url == name or (len(name) >= 8 and entry.name.startswith(name.lower()))

    return [e for e in entries if any(meant(e, name) for name in names)]


def _values(entry: Any) -> dict[str, Any]:
    """An entry as JSON values; times are RFC 3339."""
    return {
        "name": entry.name, "kind": entry.kind, "issuer": entry.issuer.name, "issuer_key": entry.issuer.key_id,
        "certificate": entry.certificate.fingerprint if entry.certificate is not None else None, "url": entry.url,
        "urls": list(entry.urls), "size": entry.size, "number": entry.number, "entries": entry.entries,
        "this_update": moment(entry.this_update), "next_update": moment(entry.next_update),
        "fetched_at": moment(entry.fetched_at), "refresh_at": moment(entry.refresh_at),
    }  # fmt: skip


def _failure(failure: Any) -> dict[str, Any]:
    return {
        "url": failure.url, "reason": failure.why, "detail": failure.detail, "at": moment(failure.at),
        "retry_at": moment(failure.retry_at),
    }  # fmt: skip


def _say(args: argparse.Namespace, values: Mapping[str, Any], text: str) -> None:
    print(json.dumps(values, indent=2) if args.json else text)


def _shown(text: str) -> str:
    """THR-10: names in certificates are hostile text."""
    return one_line(text, 300)
