"""Every writer and every reader: what opens, what is refused and what isn't supported is what docs/interoperability.md says."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from postseal.core.suite import Suite
from support.readers.base import Decrypt, Encrypt, Program, Refusal, Sign, Verify
from support.readers.document import DOCUMENT, NAMES, document, load, releases, save
from support.readers.matrix import CASES, OPENS, TEXT, Square, measure


@pytest.fixture(scope="module")
def square(programs: dict[str, Program], request: pytest.FixtureRequest) -> Square:
    found = measure(list(programs.values()))
    if request.config.getoption("--measure"):
        versions = {name: program.version() for name, program in programs.items()}
        save(release(), versions, found)
        DOCUMENT.write_text(document())
        expected.cache_clear()
    return found


@cache
def release() -> str:
    """The Debian release that this runs on."""
    fields = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return f"debian-{fields.get('VERSION_ID', '99').strip(chr(34))}"


@cache
def expected() -> dict[str, Any]:
    """What was measured on this release of Debian; on an unknown one, on the newest that is known."""
    known = releases()
    return load(release() if release() in known else known[-1])


def kind_of(cell: str) -> str:
    """``opens``, ``refuses`` or ``not supported``."""
    return cell.partition(":")[0]


@pytest.mark.parametrize("reader", NAMES)
@pytest.mark.parametrize("case", [case.name for case in CASES])
@pytest.mark.parametrize("writer", NAMES)
def test_cell(writer: str, case: str, reader: str, square: Square) -> None:
    """The cell is what the document says; a program's new release that changes it shows up here."""
    found, wanted = square[writer][case], expected()["cells"][writer][case]
    if isinstance(found, str) or isinstance(wanted, str):
        assert isinstance(found, str), f"{writer} writes it now: {found}"
        assert isinstance(wanted, str), f"{writer} doesn't write it any more: {found}"
        assert kind_of(found) == kind_of(wanted), found
    else:
        assert kind_of(found[reader]) == kind_of(wanted[reader]), found[reader]


def test_every_cell_is_tested_and_has_one_of_three_values() -> None:
    for name in releases():
        cells = load(name)["cells"]
        assert list(cells) == list(NAMES)
        for rows in cells.values():
            assert list(rows) == [case.name for case in CASES]
            for row in rows.values():
                values = [row] if isinstance(row, str) else [row[reader] for reader in NAMES]
                assert {kind_of(value) for value in values} <= {OPENS, "refuses", "not supported"}
                assert all(value == OPENS or len(value.partition(": ")[2]) > 3 for value in values)


def test_the_document_is_what_was_measured(square: Square) -> None:
    assert document() == DOCUMENT.read_text()


@pytest.mark.parametrize("reader", NAMES)
def test_the_default_suite_opens_everywhere(reader: str, square: Square) -> None:
    """AES-256-CBC with PKCS #1 v1.5 opens in all of them; with EC keys, in all but NSS before 3.99 and gpgsm before 2.4."""
    row = square["postseal"]["RSA PKCS#1 v1.5, AES-256-CBC"]
    assert isinstance(row, dict)
    assert row[reader] == OPENS
    old = release() == "debian-12" and reader in ("nss", "gpgsm")
    for curve in ("P-256", "P-384", "P-521"):
        row = square["postseal"][f"{curve}, AES-256-CBC"]
        assert isinstance(row, dict)
        assert (row[reader] == OPENS) is not old, curve


def test_postseal_opens_whatever_passes_between_others(square: Square) -> None:
    """What a reader opens that didn't write it, postseal opens too. (gpgsm 2.4 has a form for X25519 that it alone knows.)"""
    worse = [
        (writer, case, row["postseal"])
        for writer, rows in square.items()
        for case, row in rows.items()
        if isinstance(row, dict) and row["postseal"] != OPENS
        if OPENS in [verdict for reader, verdict in row.items() if reader != writer]
    ]
    assert worse == []


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_message_opens_nowhere(name: str, programs: dict[str, Program]) -> None:
    """A guard for the cells: a reader that says yes to everything would fill the tables too."""
    program, writer = programs[name], programs["openssl"]
    good = writer.sign([Sign("rsa", True, TEXT), Sign("rsa", False, TEXT)])
    assert all(isinstance(each, bytes) for each in good)
    detached, opaque = good
    assert isinstance(detached, bytes)
    assert isinstance(opaque, bytes)
    changed = opaque.replace(b"same line", b"same lime", 1)
    assert changed != opaque
    answers = program.verify(
        [Verify(detached, TEXT), Verify(opaque, None), Verify(detached, TEXT + b"\r\n"), Verify(changed, None)]
    )
    assert [isinstance(answer, Refusal) for answer in answers] == [False, False, True, True]
    sealed = writer.encrypt([Encrypt(("other-rsa",), Suite.AES_256_CBC, TEXT)])[0]
    assert isinstance(sealed, bytes)
    assert isinstance(program.decrypt([Decrypt(sealed, "rsa")])[0], Refusal)
