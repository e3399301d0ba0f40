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
from postseal.shell.cli import evidence_view as view
from postseal.shell.cli.main import Parser, add_command
from postseal.sources.clock import SystemClock


def register(commands: Any) -> None:
    """Add the subcommands."""
    text = "look at and manage the CRLs and OCSP answers at hand"
    parent = commands.add_parser("evidence", help=text, description=text)
    verbs = parent.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    listing = add_command(verbs, "list", run_list, "list CRLs, OCSP answers, and URLs that gave none")
    listing.add_argument("--marks", action="store_true", help="list rollback marks too (--json always does)")
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
    text = "believe older CRLs of a CA again, which came out of a backup with lower numbers; the stored CRL goes too"
    reset = add_command(verbs, "reset-scope", run_reset_scope, text)
    reset.add_argument(
        "name", metavar="NAME", help="a mark, its CRL or its issuer's key (8 digits or more), or its issuer"
    )


def run_list(args: argparse.Namespace) -> int:
    """All evidence, then all failures."""
    store, at = _store(args, readonly=True), SystemClock().now()
    entries = [view.values(e, store, at) for e in store.entries()] if store is not None else []
    failures = [_failure(f, store) for f in store.failures()] if store is not None else []
    marks = [view.mark_values(m) for m in _marks(store)]
    if args.json:
        hosts = [
            {"host": host, "failures": count, "retry_at": moment(until)}
            for host, count, until in (store.hosts() if store is not None else ())
        ]
        print(json.dumps({"evidence": entries, "failures": failures, "marks": marks, "hosts": hosts}, indent=2))
        return 0
    for e in entries:
        print("\n".join(view.lines(e)))
    for f in failures:
        print(view.failure_line(f))
    for m in marks if args.marks else ():
        print(view.mark_line(m))
    if not entries and not failures:
        print("no evidence is stored")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """One entry, or exit code 1."""
    store, at = _store(args, readonly=True), SystemClock().now()
    chosen = _choose(store.entries() if store is not None else (), [args.name])
    if not chosen:
        _say(args, {}, _absent(store, [args.name]))
        return 1
    entry = chosen[0]
    values = view.values(entry, store, at)
    # By its CRL: the mark of a scope is that of the newest one, which is the one that is stored.
    mark = next((view.mark_values(m) for m in _marks(store) if m.sha256 == entry.name), None)
    host = store.host_state(view.host_of(entry.url))
    told = {**values, "mark": mark, "host_failures": host[0], "host_retry_at": moment(host[1])}
    _say(args, told, "\n".join(view.shown(values, mark, host)))
    return 0


def _absent(store: Any, names: Sequence[str]) -> str:
    """Nothing that is stored has one of these names; a URL that gave no answer is known all the same."""
    failed = [f for f in (store.failures() if store is not None else ()) if f.url in names]
    if not failed:
        return f"no evidence named {' '.join(map(_shown, names))}"
    lines = [view.failure_line(_failure(f, store)) for f in failed]
    return "\n".join([*lines, "to ask at once: postseal evidence forget URL, then postseal check ADDRESS"])


def run_reset_scope(args: argparse.Namespace) -> int:
    """Forget marks, and the CRLs under them; exit code 1 if none is named so."""
    store = _store(args, readonly=False)
    chosen = view.chosen_marks(_marks(store), args.name)
    for mark in chosen:
        store.reset_scope(mark.name)
    marks = [view.mark_values(m) for m in chosen]
    lines = [f"reset: {view.mark_line(m)}" for m in marks] or [f"no mark named {_shown(args.name)}"]
    _say(args, {"reset": marks}, "\n".join(lines))
    return 0 if chosen else 1


def _marks(store: Any) -> Sequence[Any]:
    """None while no writer of this version has been here."""
    return store.all_marks() if store is not None else ()


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
            _say(args, {"results": []}, _absent(store, names))
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


def _failure(failure: Any, store: Any) -> dict[str, Any]:
    return {
        "failures": store.url_state(failure.url).failures,
        "url": failure.url, "reason": failure.why, "detail": failure.detail, "at": moment(failure.at),
        "retry_at": moment(failure.retry_at),
    }  # fmt: skip


def _say(args: argparse.Namespace, values: Mapping[str, Any], text: str) -> None:
    print(json.dumps(values, indent=2) if args.json else text)


def _shown(text: str) -> str:
    """THR-10: names in certificates are hostile text."""
    return one_line(text, 300)
