"""Addresses: parsed once, compared as RFC 8550 §3 says (CERT-2 to CERT-4)."""

import pytest

from postseal.core.address import Mailbox, parse_mailbox, parse_path
from postseal.core.errors import BadData


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alice@Example.TEST", Mailbox("Alice", "example.test")),
        ("a+b@example.test", Mailbox("a+b", "example.test")),
        ("jürgen@bücher.example", Mailbox("jürgen", "xn--bcher-kva.example")),
        ("x@STRASSE.example", Mailbox("x", "strasse.example")),
        ("x@straße.example", Mailbox("x", "xn--strae-oqa.example")),
        ('"a b"@example.test', Mailbox('"a b"', "example.test")),
    ],
)
def test_parses(text: str, expected: Mailbox) -> None:
    assert parse_mailbox(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "alice", "@example.test", "alice@", " alice@example.test", "alice@example.test ", "a@b@c", "alice@example.test.",
     "alice@[192.0.2.1]", "alice@*.example", "a\x00@example.test", "a\r\n@example.test", "<a@b.example>", "a..b@example.test",
     "alice@example.com <b@evil.example>", "a,b@example.test", "a(b)@example.test"],
)  # fmt: skip
def test_refuses_what_is_not_a_plain_mailbox(text: str) -> None:
    with pytest.raises(BadData, match="not a"):
        parse_mailbox(text)


def test_case_is_folded_in_ascii_only() -> None:
    assert parse_mailbox("ALICE@example.test").matches(parse_mailbox("alice@EXAMPLE.test"))
    assert not parse_mailbox("JÜRGEN@example.test").matches(parse_mailbox("jürgen@example.test"))


def test_envelope_paths() -> None:
    assert parse_path("<>") is None
    assert parse_path("") is None
    assert parse_path("<a@b.example>") == parse_path("a@b.example") == Mailbox("a", "b.example")


@pytest.mark.parametrize(
    "text", ["<Bob.X@example.test.>", '<"Bob.X"@example.test>', '<"B\\ob.X"@EXAMPLE.test.>', "Bob.X@example.test."]
)
def test_spellings_that_an_mta_takes_for_the_same(text: str) -> None:
    """THR-15: a dot behind the domain and quotes without need change nothing, so they can't lead around a rule."""
    assert parse_path(text) == Mailbox("Bob.X", "example.test")


@pytest.mark.parametrize(
    "text", ["<bob@example.test..>", "<bob@.>", "<@>", '<"b@example.test">', "<@mx.test:b@c.test>"]
)
def test_paths_that_are_no_mailbox(text: str) -> None:
    with pytest.raises(BadData):
        parse_path(text)


def test_quotes_that_are_needed_stay() -> None:
    assert parse_path('<"a b"@example.test>') == Mailbox('"a b"', "example.test")
    assert parse_path('<"a..b"@example.test>') == Mailbox('"a..b"', "example.test")
