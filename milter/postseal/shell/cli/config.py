"""``postseal config check`` and ``postseal config describe``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Any

from postseal.config import ConfigProblems, load_config
from postseal.config.advice import warnings
from postseal.config.manual import as_json, as_man, as_markdown, as_text, find
from postseal.core.errors import ConfigError, Usage
from postseal.shell.cli.main import Parser, add_command


def register(commands: Any) -> None:
    parser = commands.add_parser("config", help="check or describe the configuration")
    inner = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    check = add_command(inner, "check", run_check, "say whether the configuration is right (exit 78 if not)")
    check.add_argument("file", nargs="?", metavar="FILE", help="the file to check instead of --config")
    describe = add_command(inner, "describe", run_describe, "the manual of all options, or of one")
    describe.add_argument(
        "key", nargs="?", default="", metavar="KEY", help="a section or option, such as milter.workers"
    )
    form = describe.add_mutually_exclusive_group()
    form.add_argument("--man", action="store_true", help="the whole manual as a man page")
    form.add_argument("--markdown", action="store_true", help="the whole manual as Markdown")


def run_check(args: argparse.Namespace) -> int:
    """0 when the file can be used, warnings included; 78 with one sentence per mistake otherwise."""
    from postseal.wiring.doctor import named_files

    path = args.file or args.config
    problems: list[str] = []
    notes: tuple[str, ...] = ()
    try:
        config = load_config(path)
        problems, unused = named_files(config)
        problems = [f"{path}: {problem}" for problem in problems]
        notes = (*warnings(config), *unused)
    except ConfigProblems as exc:
        problems = [str(problem) for problem in exc.problems]
    if args.json:
        print(json.dumps({"file": path, "ok": not problems, "problems": problems, "warnings": notes}, indent=2))
    else:
        for problem in problems:
            print(f"postseal: {problem}", file=sys.stderr)
        for note in notes:
            print(f"warning: {path}: {note}")
        if not problems:
            print(f"{path}: ok")
    return ConfigError.exit_code if problems else 0


def run_describe(args: argparse.Namespace) -> int:
    """Print the manual."""
    if (args.man or args.markdown) and (args.key or args.json):
        raise Usage("postseal config describe: --man and --markdown are the whole manual, without KEY or --json")
    if args.man:
        sys.stdout.write(as_man())
    elif args.markdown:
        sys.stdout.write(as_markdown())
    elif args.json:
        print(as_json(find(args.key)))
    else:
        width = min(shutil.get_terminal_size().columns, 100)
        print(as_text(find(args.key), width))
    return 0
