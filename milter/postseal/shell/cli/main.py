"""``postseal``: parse the command line, run one subcommand, turn errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from postseal import __version__
from postseal.core.errors import CannotCreate, NotPermitted, PostsealError, Usage
from postseal.core.text import escape

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


# What writing to a standard stream fails with; what reads one tells of its errors itself.
_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is a Usage error (exit 64) of one sentence, and options are written out.

    An abbreviation would become another option's as soon as there is one, and a passphrase that follows what was taken
    for an option would be taken for the name of a file.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("postseal").strip()
        raise Usage(f"{command}: {message}" if command else message)


def add_command(commands: Any, name: str, run: Run, help_text: str, **options: Any) -> argparse.ArgumentParser:
    """A subcommand with the options that all have: ``--config`` and ``--json``."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text, **options)
    parser.add_argument(
        "--config", metavar="FILE", default=os.environ.get("POSTSEAL_CONFIG", DEFAULT_CONFIG),
        help=f"configuration file (default {DEFAULT_CONFIG}, or $POSTSEAL_CONFIG)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=run, parser=parser)
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
    _open_closed_streams()
    try:
        words = sys.argv[1:] if argv is None else argv
        args, unknown = build_parser(words[0] if words else "").parse_known_args(words)
        if unknown:
            raise _unknown(args.parser, unknown)
        run: Run = args.run
        code = run(args)
        _flush()
        return code
    except PostsealError as exc:
        return _failed(str(exc), exc.exit_code)
    except BrokenPipeError:
        _drop(sys.stdout)
        return 0
    except KeyboardInterrupt:
        return 130
    except PermissionError as exc:
        name = exc.filename or "a file"
        return _failed(
            f"{name}: permission denied; run this as root, or as a member of group postseal", NotPermitted.exit_code
        )
    except Exception as exc:
        if isinstance(exc, OSError) and exc.filename is None and exc.errno in _CANNOT_WRITE:
            return _failed(f"an output can't be written: {exc.strerror}", CannotCreate.exit_code)
        if os.environ.get("POSTSEAL_DEBUG"):
            raise
        return _failed(f"internal error: {type(exc).__name__}: {exc} (POSTSEAL_DEBUG=1 shows more)", 70)


def _unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> Usage:
    """For words that a command doesn't take. What may be the value of an option isn't repeated: it may be a secret."""
    option = next((word.split("=", 1)[0] for word in words if word.startswith("-")), None)
    command = parser.prog.removeprefix("postseal ")
    if option is None:
        return Usage(f"{command}: unexpected argument: {escape(words[0])}")
    close = difflib.get_close_matches(option, parser._option_string_actions, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return Usage(f"{command}: there is no option {escape(option)}{hint}")


def _open_closed_streams() -> None:
    """Give streams that the caller has closed a descriptor that can't be used.

    Otherwise the next file that is opened gets their number, and what print() would write to standard error goes to
    standard output, into a message.
    """
    for name, flags, mode in (
        ("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")
    ):  # fmt: skip
        if getattr(sys, name) is None:
            # Python keeps the name of a stream, and closes it at the end.
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8"))  # noqa: SIM115


def _failed(sentence: str, code: int) -> int:
    """Say it on standard error, where that can be; what can't be written must not spoil the exit code."""
    try:
        print(f"postseal: {sentence}", file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)
    return code


def _flush() -> None:
    """Write out what is left while an error can still be told."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CannotCreate(f"standard output: {exc.strerror}") from exc
    sys.stderr.flush()


def _drop(stream: TextIO) -> None:
    """Let go of what a stream still holds and can't get rid of; Python would try again at the end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
