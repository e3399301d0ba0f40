"""Hostile text made safe (THR-10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.text import FIELD_MAX, address, escape, one_line, value


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text", "plain text"),
        ("a\n<0>kernel: panic", "a\\x0a<0>kernel: panic"),
        ("\x1b[31mred\x7f", "\\x1b[31mred\\x7f"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("bücher", "b\\u00fccher"),
        ("\U0001f600", "\\U0001f600"),
        ('say "hi" \\n', '\\"hi\\"'.join(["say ", " \\\\n"])),
        (b"raw\xff".decode("utf-8", "surrogateescape"), "raw\\xff"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_escapes(text: str, safe: str) -> None:
    assert escape(text) == safe


def test_a_huge_name_is_cut_between_characters() -> None:
    cut = escape("\u202e" * 10**6)
    assert len(cut) <= FIELD_MAX
    assert cut.endswith("\\u202e...")


@given(st.text(st.characters(), max_size=60), st.integers(10, 40))
def test_the_result_is_always_printable_ascii_on_one_line_and_bounded(text: str, limit: int) -> None:
    """T-37: whatever it was."""
    for safe in (escape(text, limit), one_line(text, limit), address(text), value(text)):
        assert safe.isascii()
        assert safe == "" or safe.isprintable()
    assert len(escape(text, limit)) <= limit
    assert len(one_line(text, limit)) <= limit


@given(st.text(st.characters(), max_size=20), st.text(st.characters(), max_size=20))
def test_different_texts_stay_different(one: str, other: str) -> None:
    """An escaped text can be told apart from one that merely looks so."""
    assert one == other or escape(one) != escape(other)


def test_an_address_cannot_end_its_brackets_or_begin_another_key() -> None:
    assert address("<a@b.example>") == address("a@b.example") == "<a@b.example>"
    assert address("<a>, action=sealed <b@c>") == "<a\\x3e\\x2c\\x20action=sealed\\x20\\x3cb@c>"
    assert address("") == "<>"


def test_values_are_quoted_when_they_could_be_misread() -> None:
    assert [value(t) for t in ("partners", "a b", "a=b", 'q"', "", "ü")] == [
        "partners", '"a b"', '"a=b"', '"q\\""', '""', '"\\u00fc"']  # fmt: skip
