"""postseal(1), made from the command line's own parser: ``python -m postseal.shell.cli.manual > docs/man/postseal.1``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from postseal.shell.cli.main import build_parser

_HEAD = r"""'\" t
.TH POSTSEAL 1 "" postseal "postseal manual"
.SH NAME
postseal \- S/MIME for Postfix and Sendmail
.SH SYNOPSIS
.B postseal
.I COMMAND
[options]
.SH DESCRIPTION
A milter that seals outbound mail for its recipients' certificates, a service that fetches CRLs and OCSP answers, and the
commands to look after them. The configuration is described in
.BR postseal.toml (5).
"""
_TAIL = r"""
.SH EXIT STATUS
.TS
l l.
0	yes, or done
1	the answer is no
64	the command line is wrong
65	bad data
69	a service, file or database can't be reached
70	internal error
73	an output can't be written
75	try again later
77	not permitted
78	the configuration is wrong
.TE
.SH SIGNALS
SIGTERM ends a service; the milter finishes the messages that it is working on first. SIGHUP reads the configuration again;
if it is wrong, the old one stays in force.
.SH ENVIRONMENT
.TP
.B POSTSEAL_CONFIG
Configuration file, where \-\-config isn't given.
.TP
.B POSTSEAL_DEBUG
If set, an internal error shows where it happened.
.SH FILES
.TP
.I /etc/postseal/postseal.toml
Configuration.
.TP
.I /etc/postseal/anchors, intermediates, certificates
Trusted roots, intermediate CAs, recipients' certificates.
.TP
.I /var/lib/postseal
Stored evidence, imported certificates, decision records, ciphertext of large messages.
.SH SEE ALSO
.BR postseal.toml (5),
.BR postconf (5),
.BR openssl\-cms (1)
"""

_COMMON = r""".SH OPTIONS
Every command takes these:
.TP
.B \-\-config FILE
Configuration file (default /etc/postseal/postseal.toml, or $POSTSEAL_CONFIG).
.TP
.B \-\-json
Machine\-readable output.
.TP
.B \-\-help
A summary.
"""

Commands = dict[str, argparse.ArgumentParser]


def page() -> str:
    """The whole manual page in roff."""
    return _HEAD + _COMMON + ".SH COMMANDS\n" + "".join(_commands(build_parser(), "")) + _TAIL.lstrip("\n")


def _commands(parser: argparse.ArgumentParser, prefix: str) -> Iterator[str]:
    for name, command in sorted(_below(parser).items()):
        full = f"{prefix} {name}".strip()
        if _below(command):
            yield from _commands(command, full)
        else:
            yield from _command(full, command)


def _below(parser: argparse.ArgumentParser) -> Commands:
    """The subcommands of a parser; argparse has no public way to them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    positional = [a for a in parser._actions if not a.option_strings]
    words = " ".join(_positional(a) for a in positional)
    yield f".SS {_roff(f'postseal {name} {words}'.rstrip())}\n{_roff(_sentence(parser.description or ''))}\n"
    if parser.epilog:
        yield f"{_roff(parser.epilog)}\n"
    for action in parser._actions:
        # What every command takes is told once; an argument without words of its own is in the synopsis.
        if isinstance(action, argparse._HelpAction) or {"--config", "--json"} & {*action.option_strings}:
            continue
        if not action.help and not action.option_strings:
            continue
        tag = ", ".join(action.option_strings) or _metavar(action)
        if action.option_strings and action.nargs != 0:
            tag += f" {_metavar(action)}"
        yield f".TP\n.B {_roff(tag)}\n{_roff(_sentence(action.help or ''))}\n"


def _positional(action: argparse.Action) -> str:
    name = _metavar(action)
    several = {"+": f"{name}...", "*": f"[{name}...]", "?": f"[{name}]"}
    return several.get(str(action.nargs), name)


def _metavar(action: argparse.Action) -> str:
    if action.choices and not action.metavar:
        return "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return str(action.metavar or action.dest.upper())


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}{'' if text.endswith('?') else '.'}" if text else ""


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.stdout.write(page())
