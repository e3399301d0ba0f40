"""The shape of the tree: what no other tool checks."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("milter", "demo", "bench", "tests")
_LEFT_OUT = {"__pycache__", "build", "dist", "results"}


def _files(*tops: str) -> Iterator[Path]:
    for top in tops or (".",):
        for path in sorted((ROOT / top).rglob("*")):
            parts = path.relative_to(ROOT).parts
            made = any(
                p in _LEFT_OUT or p.endswith(".egg-info") or (p.startswith(".") and p != ".ci") for p in parts[:-1]
            )
            # In a second worktree .git is a file that names the first.
            if path.is_file() and not made and path.name != ".git":
                yield path


def _python(*tops: str) -> list[Path]:
    return [path for path in _files(*tops) if path.suffix == ".py"]


def test_there_is_something_to_check() -> None:
    assert len(_python("milter")) > 30
    assert len(_python("tests")) > 20


@pytest.mark.parametrize("folder", ["milter", "packaging", "systemd", "tests"])
def test_these_folders_are_no_packages(folder: str) -> None:
    """pymilter owns the import names milter, Milter and mime; systemd and packaging are packages of others."""
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(("tops", "limit"), [(("milter", "demo", "bench"), 500), (("tests",), 600)])
def test_modules_stay_short(tops: tuple[str, ...], limit: int) -> None:
    """Split by meaning before it grows longer; a test module may be a little longer than what it tests."""
    long = {str(p.relative_to(ROOT)): n for p in _python(*tops) if (n := len(p.read_text().splitlines())) > limit}
    assert long == {}


def test_functions_stay_within_60_lines() -> None:
    long = {}
    for path in _python(*CODE):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_every_module_says_what_it_promises() -> None:
    bare = [
        str(p.relative_to(ROOT))
        for p in _python(*CODE)
        if p.stat().st_size and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert bare == []


def test_nothing_is_left_unfinished() -> None:
    words = re.compile(
        r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise NotImplemented" + r"Error|pytest\.(mark\.)?(skip|xfail)"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _python(*CODE)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert found == []


def test_the_tree_speaks_of_the_project_alone() -> None:
    """No path of somebody's machine, in no file."""
    machine = re.compile(rb"/(work|farm|home/\w+)/|/[r]oot/(?!\.)|/tmp/[p]ostseal/|\.libr" + rb"ary\b")
    found = [str(path.relative_to(ROOT)) for path in _files() if machine.search(path.read_bytes())]
    assert found == []


def test_scripts_are_posix_sh_and_may_be_run() -> None:
    for name in ("dev", ".ci/run"):
        script = ROOT / name
        assert script.stat().st_mode & 0o111, name
        assert script.read_text().startswith("#!/bin/sh\n")
        done = subprocess.run(["dash", "-n", str(script)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), name


def test_dev_help_lists_every_command() -> None:
    text = (ROOT / "dev").read_text()
    commands = re.findall(r"(?m)^    ([a-z]+)\)$", text)
    told = subprocess.run([str(ROOT / "dev")], cwd="/", capture_output=True, text=True, check=True).stdout
    assert commands == ["demo", "test", "fuzz", "lint", "bench"]
    for command in commands:
        assert f"./dev {command}" in told


def test_dev_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([str(ROOT / "dev"), "dance"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("dev: no such command: dance\n")


def test_pins_name_versions_and_no_addresses() -> None:
    """Everything that setup.cfg asks for is pinned, exactly, and from nowhere in particular."""
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    pinned = {_normal(line.partition("==")[0]) for line in lines}
    wanted = re.findall(r"(?m)^    ([A-Za-z0-9_-]+)(?: [<>=].*|; .*)?$", _requirements())
    assert len(wanted) == len(re.findall(r"(?m)^    ", _requirements())) > 15
    assert {_normal(name) for name in wanted} <= pinned


def _requirements() -> str:
    text = (ROOT / "setup.cfg").read_text()
    sections = re.findall(r"(?ms)^(?:install_requires|test|bench) =\n(.*?)^\S", text)
    return "".join(part.split("\n\n")[0] + "\n" for part in sections)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
