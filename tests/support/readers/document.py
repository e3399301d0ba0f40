"""docs/interoperability.md: its text, and its tables out of what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.readers.matrix import CASES, OPENS, Case

HERE = Path(__file__).resolve()
DATA = HERE.parents[2] / "data" / "interop"
DOCUMENT = HERE.parents[3] / "docs" / "interoperability.md"
TEXT = HERE.with_name("interoperability.md")

NAMES = ("postseal", "openssl", "nss", "thunderbird", "gpgsm", "bouncycastle")
TITLES = {
    "postseal": "postseal",
    "openssl": "OpenSSL",
    "nss": "NSS",
    "thunderbird": "Thunderbird's NSS",
    "gpgsm": "gpgsm",
    "bouncycastle": "Bouncy Castle",
}


def load(release: str) -> dict[str, Any]:
    """``{"versions": {name: version}, "cells": {writer: {case: {reader: verdict} or words}}}``."""
    found: dict[str, Any] = json.loads((DATA / f"{release}.json").read_text())
    return found


def save(release: str, versions: Mapping[str, str], cells: Mapping[str, Any]) -> None:
    """One line per case, so that a change shows as the lines that it is about."""
    writers = []
    for writer, rows in cells.items():
        lines = ",\n".join(f"   {json.dumps(case)}: {json.dumps(row)}" for case, row in rows.items())
        writers.append(f"  {json.dumps(writer)}: {{\n{lines}\n  }}")
    text = f'{{\n "versions": {json.dumps(dict(versions))},\n "cells": {{\n' + ",\n".join(writers) + "\n }\n}\n"
    DATA.mkdir(exist_ok=True)
    (DATA / f"{release}.json").write_text(text)


def releases() -> list[str]:
    """Those that were measured, oldest first."""
    return sorted((path.stem for path in DATA.glob("debian-*.json")), key=lambda name: int(name.rpartition("-")[2]))


def document() -> str:
    """The whole file."""
    parts = [TEXT.read_text()]
    for release in releases():
        parts.append("\n".join(_tables(release, load(release))))
    return "\n".join(parts)


class _Notes:
    """Numbers for sentences."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, verdict: str) -> str:
        if verdict == OPENS:
            return OPENS
        number = self._numbers.setdefault(verdict, len(self._numbers) + 1)
        return f"{verdict.partition(':')[0]} [{number}]"

    def lines(self) -> Iterator[str]:
        for verdict, number in self._numbers.items():
            yield f"{number}. {verdict.partition(': ')[2]}"


def _tables(release: str, found: Mapping[str, Any]) -> Iterator[str]:
    title = release.replace("-", " ").capitalize()
    versions, cells = found["versions"], found["cells"]
    notes = _Notes()
    yield f"## Measured on {title}\n"
    yield "Programs: " + ", ".join(f"{TITLES[name]} {versions[name]}" for name in NAMES if name != "postseal") + ".\n"
    yield "### postseal writes\n"
    yield from _table(NAMES, lambda case, name: _verdict(cells, "postseal", case, name), notes)
    yield "### postseal reads what … wrote\n"
    yield from _table(NAMES, lambda case, name: _verdict(cells, name, case, "postseal"), notes)
    for writer in NAMES[1:]:
        yield f"### {TITLES[writer]} writes\n"
        yield from _table(NAMES, lambda case, name, by=writer: _verdict(cells, by, case, name), notes)
    yield f"### Notes for {title}\n"
    yield "What the programs say, or what there is to say of them:\n"
    yield from notes.lines()
    yield ""


def _verdict(cells: Mapping[str, Any], writer: str, case: Case, reader: str) -> str:
    row = cells[writer][case.name]
    if isinstance(row, str):
        # Nothing to read: the writer's words stand in every column.
        return f"not written: {row.partition(': ')[2]}"
    return str(row[reader])


def _table(names: Sequence[str], verdict: Any, notes: _Notes) -> Iterator[str]:
    """One line for all messages of a kind that fare alike."""
    yield "| message | " + " | ".join(TITLES[name] for name in names) + " |"
    yield "|---|" + "---|" * len(names)
    lines: list[tuple[str, list[str], list[str]]] = []
    for case in CASES:
        kind, _, last = case.name.rpartition(", ")
        if case.envelope is None:
            kind = f"signed: {kind}"
        cells = [notes.cell(verdict(case, name)) for name in names]
        if lines and (lines[-1][0], lines[-1][2]) == (kind, cells):
            lines[-1][1].append(last)
        else:
            lines.append((kind, [last], cells))
    for kind, lasts, cells in lines:
        yield f"| {kind}, {', '.join(lasts)} | " + " | ".join(cells) + " |"
    yield ""
