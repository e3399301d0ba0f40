"""The manual of the configuration, made from the docs of the fields: for a terminal, as JSON, Markdown and a man page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields

from postseal.config.model import ARRAYS, SECTIONS
from postseal.config.values import Kind
from postseal.core.errors import Usage


@dataclass(frozen=True, slots=True)
class Entry:
    """One option. ``default`` is as TOML writes it, empty when the option must be given."""

    section: str
    key: str
    kind: str
    allowed: str
    default: str
    doc: str

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def header(section: str) -> str:
    """How the section begins in a file."""
    return f"[[{section}]]" if section in ARRAYS else f"[{section}]"


def section_doc(section: str) -> str:
    return " ".join((SECTIONS[section].__doc__ or "").split())


def entries() -> tuple[Entry, ...]:
    """All options, in the order of the manual."""
    out = []
    for section, model in SECTIONS.items():
        for option in fields(model):
            kind: Kind = option.metadata["kind"]
            must_be_given = option.default is MISSING
            default = "" if must_be_given else json.dumps(option.metadata["default"])
            out.append(Entry(section, option.name, kind.name, kind.allowed, default, option.metadata["doc"]))
    return tuple(out)


def find(key: str) -> tuple[Entry, ...]:
    """``section``, ``section.option`` or just ``option``; everything for an empty key. Raises Usage."""
    found = tuple(e for e in entries() if key in ("", e.section, e.name, e.key))
    if not found:
        raise Usage(f"there is no section or option {key!a}; 'postseal config describe' lists all")
    return found


def as_text(chosen: Sequence[Entry], width: int = 80) -> str:
    """For a terminal."""
    lines: list[str] = []
    section = ""
    for entry in chosen:
        if entry.section != section:
            section = entry.section
            lines += [header(section), *_filled(section_doc(section), width, ""), ""]
        lines.append(f"  {entry.key} = {entry.default}" if entry.default else f"  {entry.key}   (must be given)")
        lines += _filled(f"{entry.doc} Allowed: {entry.allowed}.", width, "      ")
        lines.append("")
    return "\n".join(lines)


def _filled(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def as_json(chosen: Iterable[Entry]) -> str:
    return json.dumps(
        [
            {
                "section": e.section,
                "key": e.key,
                "kind": e.kind,
                "allowed": e.allowed,
                "default": json.loads(e.default) if e.default else None,
                "required": not e.default,
                "doc": e.doc,
            }
            for e in chosen
        ],
        indent=2,
    )


_INTRODUCTION = (
    "postseal reads one file, /etc/postseal/postseal.toml, in the TOML format. Every option has a default; an empty file is "
    "valid. Times are numbers of seconds or texts with a unit (s, min, h, d), sizes are numbers of octets or texts with a unit "
    "(KiB, MiB, GiB). An unknown option, a wrong value or a contradiction is refused with file, line and what is allowed, and "
    "a running service keeps its old configuration."
)
_EXAMPLE = """\
[milter]
socket = "inet:8891@127.0.0.1"
internal_domains = ["corp.example"]
reinject = "127.0.0.1:10026"

[[policy]]
name = "partners"
recipients = ["bank.example", ".bank.example", "notary@law.example"]
seal = "must"
revocation = "strict"

[[policy]]
name = "everybody-else"
seal = "may"
without_certificate = "clear"
"""


def as_markdown() -> str:
    """docs/configuration.md."""
    lines = ["# Configuration", "", "<!-- Made by: postseal config describe --markdown -->", "", _INTRODUCTION, ""]
    lines += [
        "Check a file with `postseal config check`, read about an option with `postseal config describe OPTION`.",
        "",
    ]
    lines += ["```toml", *_EXAMPLE.splitlines(), "```", ""]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            lines += [f"## {header(section)}", "", section_doc(section), ""]
        default = f"default `{entry.default}`" if entry.default else "must be given"
        lines += [f"### {section}.{entry.key}", "", f"*{entry.kind}, {default}*", "", entry.doc, ""]
        lines += [f"Allowed: {entry.allowed}.", ""]
    return "\n".join(lines)


def as_man() -> str:
    """docs/man/postseal.toml.5, in the man(7) language."""
    lines = [
        '.\\" Made by: postseal config describe --man',
        '.TH POSTSEAL.TOML 5 "" "postseal" "postseal manual"',
        ".SH NAME",
    ]
    lines += ["postseal.toml \\- configuration of postseal, S/MIME for Postfix and Sendmail", ".SH SYNOPSIS"]
    lines += [".I /etc/postseal/postseal.toml", ".SH DESCRIPTION", _roff(_INTRODUCTION)]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            lines += [f'.SH "{header(section)}"', _roff(section_doc(section))]
        default = f"default: {entry.default}" if entry.default else "must be given"
        lines += [
            ".TP",
            f'.BR {entry.key} " ({_quoted(default)})"',
            _roff(entry.doc),
            ".br",
        ]
        lines += [_roff(f"Allowed: {entry.allowed}.")]
    lines += [".SH EXAMPLE", ".nf", *(_roff(line) for line in _EXAMPLE.splitlines()), ".fi", ".SH FILES"]
    lines += [".I /etc/postseal/postseal.toml", ".SH SEE ALSO", ".BR postconf (5),", ".BR journalctl (1)"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Inside the double quotes of a macro's argument."""
    return _roff(text).replace('"', "\\(dq")


def _roff(text: str) -> str:
    """Text that the man(7) language prints as it stands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
