"""docs/rfc.txt tells the truth: every RFC and rule that is cited is listed there, and what it calls done is cited."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ROOT / "milter" / "postseal"
TEXT = (ROOT / "docs" / "rfc.txt").read_text()
_FAMILIES = "PRE|CRL|OCSP|RPL|CACHE|PUB|CERT|ALG|THR"
_RULE = re.compile(rf"\b({_FAMILIES})-(\d+)(?: to (?:\1-)?(\d+))?\b")


def rules_in(text: str) -> set[str]:
    """Rule ids in a text; "CRL-22 to CRL-24" names three."""
    found = set()
    for family, first, last in _RULE.findall(text):
        found |= {f"{family}-{n}" for n in range(int(first), int(last or first) + 1)}
    return found


@dataclass
class Rule:
    """One rule of the table. ``left`` says what isn't done; with ``code`` the rest is."""

    name: str
    left: str = ""
    not_done: str = ""
    code: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)


def _table() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for block in re.split(r"\n(?=[A-Z])", TEXT[TEXT.index("Rules\n=====") :]):
        head = re.match(rf"((?:{_FAMILIES})-\d+)  ", block)
        if head:
            parts = dict(re.findall(r"^ +(code|test|partly|not done): ((?:.|\n(?! +\w[\w ]*: ))*)", block, re.M))
            listed = {key: parts.get(key, "").replace(",", " ").split() for key in ("code", "test")}
            left = parts.get("partly", "") + parts.get("not done", "")
            assert head[1] not in rules, f"{head[1]} is there twice"
            rules[head[1]] = Rule(head[1], left, parts.get("not done", ""), listed["code"], listed["test"])
    return rules


RULES = _table()


def _index() -> dict[str, list[str]]:
    """RFC number -> modules."""
    part = TEXT[: TEXT.index("Rules\n=====")]
    blocks = re.findall(r"^RFC (\d+)  .*\n((?: +.*\n)+)", part, re.M)
    return {number: re.sub(r"(?s).*in: ", "", body).replace(",", " ").split() for number, body in blocks}


INDEX = _index()


@cache
def _code() -> dict[str, str]:
    return {str(p.relative_to(CODE)): p.read_text() for p in sorted(CODE.rglob("*.py"))}


def _cited(node: ast.AST, outer: set[str]) -> Iterator[tuple[str, set[str]]]:
    """(name, rules) of each test below ``node``: its own docstring and name, and those of its class or module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _cited(child, outer | rules_in(ast.get_docstring(child) or ""))
        elif isinstance(child, ast.FunctionDef) and child.name.startswith("test"):
            yield child.name, outer | rules_in(ast.get_docstring(child) or "")


_SCENARIO = re.compile(r"\bT-(\d+)\b|_t(\d\d)_")


@cache
def _scenarios() -> dict[int, list[str]]:
    """Number of each T scenario -> tests that carry it in their name or docstring."""
    found: dict[int, list[str]] = {}
    for path in sorted(p for p in (ROOT / "tests").rglob("test_*.py") if p != Path(__file__)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                for numbers in set(_SCENARIO.findall(f"{node.name} {ast.get_docstring(node) or ''}")):
                    named = found.setdefault(int("".join(numbers)), [])
                    named += {f"{path.relative_to(ROOT)}::{node.name}"} - set(named)
    return found


@cache
def _tests() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        for name, rules in _cited(tree, rules_in(ast.get_docstring(tree) or "")):
            found.setdefault(f"{path.relative_to(ROOT)}::{name}", set()).update(rules)
    return found


def test_every_rfc_of_the_code_is_in_the_index_and_back() -> None:
    """An RFC that nobody cites any more goes from the index too."""
    cited = {number for text in _code().values() for number in re.findall(r"\bRFC (\d+)", text)}
    assert cited == set(INDEX)


@pytest.mark.parametrize("number", INDEX)
def test_modules_of_the_index_cite_the_rfc(number: str) -> None:
    """Where an RFC is said to be obeyed, it is named: all places, and no others."""
    assert INDEX[number] == [name for name, text in _code().items() if re.search(rf"\bRFC {number}\b", text)]


def test_every_rule_that_is_cited_is_in_the_table() -> None:
    """Code and tests name no rule that the table doesn't explain."""
    texts = [*_code().values(), *(p.read_text() for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__))]
    assert {rule for text in texts for rule in rules_in(text)} <= set(RULES)


def test_the_table_is_complete() -> None:
    """Somebody who shortens the table or breaks its layout hears of it."""
    assert len(RULES) > 110
    assert sum(not rule.left for rule in RULES.values()) > 70


@pytest.mark.parametrize("name", RULES)
def test_rules_are_obeyed_and_tested_where_the_table_says(name: str) -> None:
    """A done rule names a module that cites it and a test that cites it; one that isn't done says so and names neither."""
    rule = RULES[name]
    if not rule.code and not rule.tests:
        assert rule.left, f"{name}: neither done nor a reason why not"
        return
    assert rule.code, f"{name}: no module"
    assert rule.tests, f"{name}: no test"
    for module in rule.code:
        assert name in rules_in(_code().get(module, "")), f"{module} doesn't name {name}"
    for test in rule.tests:
        assert test in _tests(), f"{name}: there is no {test}"
        assert name in _tests()[test], f"{test} doesn't name {name}"


JUDGEMENT = {"PRE": range(1, 8), "CRL": range(1, 31), "OCSP": (*range(1, 15), *range(18, 21)), "RPL": range(1, 8),
             "CACHE": range(1, 15), "CERT": (*range(1, 8), *range(10, 20))}  # fmt: skip
"""The rules by which certificates are judged, as far as they are numbered."""


def test_rules_of_the_judgement_without_a_test() -> None:
    """Prints them. There is none: a rule is obeyed and tested, or the table says that it isn't done, and why."""
    wanted = [f"{family}-{n}" for family, numbers in JUDGEMENT.items() for n in numbers]
    assert [rule for rule in wanted if rule not in RULES] == []
    tested = {rule for rules in _tests().values() for rule in rules}
    without = [rule for rule in wanted if rule not in tested]
    not_done = [rule for rule in wanted if RULES[rule].not_done]
    print(f"rules without a test: {', '.join(without) or 'none'}")
    for rule in not_done:
        print(f"  not done: {rule}: {' '.join(RULES[rule].not_done.split())}")
    assert [rule for rule in without if rule not in not_done] == []


# Scenarios that a sceptic would try on the judgement of certificates.
SCENARIOS = (1, *range(4, 12), *range(14, 34))


def test_scenarios_without_a_test() -> None:
    """Prints which test proves which. There is none without: T-1, T-4 to T-11, T-14 to T-33."""
    for number in SCENARIOS:
        print(f"T-{number}: {', '.join(_scenarios().get(number, ['none']))}")
    assert [f"T-{number}" for number in SCENARIOS if number not in _scenarios()] == []


def test_every_trap_of_mtas_that_is_named_is_explained() -> None:
    """docs/mta.md: the P numbers of comments and tests."""
    explained = set(re.findall(r"(?m)^\| (P\d+) \|", (ROOT / "docs" / "mta.md").read_text()))
    files = [*(ROOT / "milter").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    named = {found for file in files for found in re.findall(r"\b(P\d{1,2})\b", file.read_text())}
    assert named == explained
