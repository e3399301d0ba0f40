"""The catalogue of reasons: complete, consistent, documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from postseal.core.explain import catalogue_as_markdown
from postseal.core.reasons import CATALOGUE, reason
from postseal.shell.cli.main import main

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"(ok|rcpt|cipher|policy|path|cert|rev|sig|mail|sys)\.[a-z][a-z0-9-]*\Z")


def literals() -> Iterator[tuple[str, str]]:
    """Every string in the package's source that looks like a code, and the file."""
    for file in sorted((ROOT / "milter/postseal").rglob("*.py")):
        if file.name == "reasons.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.match(node.value):
                yield node.value, file.name


def test_every_code_in_the_source_is_in_the_catalogue() -> None:
    found = dict(literals())
    assert len(found) > 50, "the scan itself must find what is there"
    assert {code: file for code, file in found.items() if code not in CATALOGUE} == {}


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    """If this fails: postseal explain --reasons > docs/reasons.md"""
    text = (ROOT / "docs/reasons.md").read_text()
    assert text == catalogue_as_markdown()
    assert set(re.findall(r"^\| `(\S+)` \|", text, re.M)) == set(CATALOGUE)


def test_the_command_prints_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--reasons"]) == 0
    assert capsys.readouterr().out == catalogue_as_markdown()


def test_replies_and_enhanced_codes_agree() -> None:
    """RFC 3463 §2: the class of the enhanced code is that of the reply; only refusals and deferrals have one."""
    for entry in CATALOGUE.values():
        assert (entry.reply is None) == (entry.enhanced == ""), entry.code
        if entry.reply is not None:
            assert re.fullmatch(r"[45]\.[0-7]\.\d{1,2}", entry.enhanced), entry.code
            assert str(entry.reply)[0] == entry.enhanced[0], entry.code
            assert entry.reply in (450, 451, 452, 550, 552, 553, 554), entry.code


def test_sentences_are_for_administrators() -> None:
    """One clause without a full stop, in the middle of a longer line; codes are unique by construction of the table."""
    for entry in CATALOGUE.values():
        assert CODE.match(entry.code), entry.code
        assert entry.sentence.isascii(), entry.code
        assert 8 < len(entry.sentence) < 130, entry.code
        assert not entry.sentence.endswith("."), entry.code
        assert "|" not in entry.sentence + entry.clause, entry.code


def test_no_code_is_written_twice() -> None:
    source = (ROOT / "milter/postseal/core/reasons.py").read_text()
    names = [
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason"
        if isinstance(node.args[0], ast.Constant)
    ]
    assert len(names) == len(set(names)) == len(CATALOGUE)


def test_an_unknown_code_is_a_bug() -> None:
    assert reason("ok.sealed").code == "ok.sealed"
    with pytest.raises(KeyError):
        reason("ok.nothing")
