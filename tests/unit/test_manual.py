"""postseal(1) says what the command line takes, and every command is in the README."""

from __future__ import annotations

import subprocess

from postseal.shell.cli.main import build_parser
from postseal.shell.cli.manual import _below, page
from support.scratch import ROOT

MANUAL = ROOT / "docs" / "man" / "postseal.1"


def test_the_manual_page_is_that_of_the_parser() -> None:
    assert MANUAL.read_text() == page(), "run: python -m postseal.shell.cli.manual > docs/man/postseal.1"


def test_values_and_sentences_are_written_as_a_person_would() -> None:
    """An option with two values, and a description that is a question."""
    assert "\\-\\-sign\\-with KEY CERTIFICATE" in page()
    assert "('" not in page()
    assert "?." not in page()


def test_what_help_says_below_the_options_is_in_the_page() -> None:
    """Exit codes of single commands stand there."""
    assert "Exit status 1 when a signature isn't good: it must hold" in page()


def test_groff_reads_it_without_a_complaint() -> None:
    done = subprocess.run(
        ["groff", "-t", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u", MANUAL], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "EXIT STATUS" in done.stdout


def test_every_command_is_in_the_readme_and_the_manual() -> None:
    readme, manual = (ROOT / "README.md").read_text(), MANUAL.read_text()
    for command in _below(build_parser()):
        assert f"`postseal {command}" in readme or f"`{command}`" in readme, command
        assert f".SS postseal {command}" in manual
