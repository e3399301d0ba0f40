"""``postseal``: parse the command line, run one subcommand, turn errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from postseal import __version__
from postseal.core.errors import CannotCreate, NotPermitted, PostsealError, Usage

DEFAULT_CONFIG = "/etc/postseal/postseal.toml"

# Each module has ``register(commands)``, which adds the parsers of these commands with ``add_command`` and sets ``run`` on
# each.
MODULES: dict[str, tuple[str, ...]] = {
    "cert": ("cert",),
    "check": ("check",),
    "seal": ("seal",),
    "sign": ("sign",),
    "open": ("open",),
    "inspect": ("inspect",),
    "config": ("config",),
    "doctor": ("doctor",),
    "evidence": ("evidence",),
    "explain": ("explain",),
    "lookup": ("lookup",),
    "metrics": ("metrics",),
    "run": ("milter", "run"),
    "verify": ("verify",),
}

# Commands that have mail in clear or keys in their hands.
_HOLD_SECRETS = ("seal", "open", "inspect")

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is a Usage error (exit 64) of one sentence."""

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{self.prog.removeprefix('postseal ')}: {message}")


def add_command(commands: Any, name: str, run: Run, help_text: str, **options: Any) -> argparse.ArgumentParser:
    """A subcommand with the options that all have: ``--config`` and ``--json``."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text, **options)
    parser.add_argument(
        "--config", metavar="FILE", default=os.environ.get("POSTSEAL_CONFIG", DEFAULT_CONFIG),
        help=f"configuration file (default {DEFAULT_CONFIG}, or $POSTSEAL_CONFIG)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable output on stdout")
    parser.set_defaults(run=run)
    return parser


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The whole command line; also the source of the manual page. With the name of a ``command`` only that one.

    Each module brings its libraries along, and who verifies one certificate needn't wait for the database of evidence.
    """
    parser = Parser(prog="postseal", description="S/MIME for Postfix and Sendmail.")
    parser.add_argument("--version", action="version", version=f"postseal {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    wanted = [module for module, names in MODULES.items() if command in names]
    for module in wanted or MODULES:
        importlib.import_module(f"postseal.shell.cli.{module}").register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``postseal`` command; returns the exit code."""
    # What the library finds odd in a stranger's certificate is neither the operator's doing nor a sentence.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"postseal\.")
    words = sys.argv[1:] if argv is None else argv
    try:
        args = build_parser(words[0] if words else "").parse_args(words)
        run: Run = args.run
        code = run(args)
        _flush()
        return code
    except PostsealError as exc:
        print(f"postseal: {exc}", file=sys.stderr)
        with contextlib.suppress(CannotCreate, BrokenPipeError):
            _flush()
        return exc.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except PermissionError as exc:
        print(
            f"postseal: {exc.filename or 'a file'}: permission denied; run this as root, or as a member of group postseal",
            file=sys.stderr,
        )
        return NotPermitted.exit_code
    except Exception as exc:
        if os.environ.get("POSTSEAL_DEBUG"):
            raise
        # Its text may quote what was worked on: mail in clear, say, or a key.
        text = "" if words[:1] and words[0] in _HOLD_SECRETS else f": {exc}"
        print(f"postseal: internal error: {type(exc).__name__}{text} (POSTSEAL_DEBUG=1 shows more)", file=sys.stderr)
        return 70


def _flush() -> None:
    """Write out what is left while an error can still be told; what can't be written must not spoil the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CannotCreate(f"standard output: {exc.strerror}") from exc


if __name__ == "__main__":
    sys.exit(main())
