"""The command itself: errors that nobody foresaw are one sentence too."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postseal.core.errors import Unavailable
from postseal.shell.cli import main as command


def test_a_command_loads_its_own_module_only() -> None:
    """Who verifies one certificate needn't wait for the database of evidence, nor for a mail directory."""
    for module, names in command.MODULES.items():
        assert _names(command.build_parser(names[0])) == set(names), module
    assert (
        _names(command.build_parser("what")) == _names(command.build_parser()) == set(sum(command.MODULES.values(), ()))
    )
    code = "import sys; from postseal.shell.cli.main import main; main(['verify', 'x']); sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def _names(parser: argparse.ArgumentParser) -> set[str]:
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return set(commands.choices)


def test_a_wrong_command_line_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["explain"]) == 64
    assert capsys.readouterr().err == "postseal: explain: give a queue id, or --from and --to\n"


def test_permission_denied_names_the_file(scratch: Path) -> None:
    """Exit 77, and who may do it; as a user who may not enter the state directory."""
    scratch.chmod(0o755)
    state = scratch / "state"
    state.mkdir(mode=0o700)
    config = scratch / "postseal.toml"
    config.write_text(f'[general]\nstate_directory = "{state}"\n')
    # All is imported before: the clone may be where nobody else can read.
    code = (
        "import os, sys; from postseal.shell.cli.main import build_parser, main; build_parser(); "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "explain", "X", "--config", str(config)],
        capture_output=True, text=True, cwd="/", env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 77, done.stderr
    assert done.stderr.startswith(f"postseal: {state}")
    assert "permission denied" in done.stderr.lower()
    assert done.stderr.count("\n") == 1


def test_an_error_of_ours_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise Unavailable("the store is away")

    monkeypatch.setattr("postseal.shell.cli.explain.run", fails)
    assert command.main(["explain", "X"]) == 69
    assert capsys.readouterr().err == "postseal: the store is away\n"


def test_a_bug_is_one_sentence_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise ZeroDivisionError("ouch")

    monkeypatch.delenv("POSTSEAL_DEBUG", raising=False)
    monkeypatch.setattr("postseal.shell.cli.explain.run", fails)
    assert command.main(["explain", "X"]) == 70
    assert capsys.readouterr().err.count("\n") == 1
