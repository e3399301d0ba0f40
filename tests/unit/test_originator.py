"""Who a message is from: one answer or none."""

from __future__ import annotations

import pytest

from postseal.core.message import Field
from postseal.core.originator import originator


def of(*values: str) -> tuple[str, str]:
    found = originator([Field(b"From", b" " + value.encode("utf-8", "surrogateescape")) for value in values])
    assert (found.mailbox is None) == bool(found.fault)
    return str(found.mailbox or ""), found.fault


@pytest.mark.parametrize(
    "value",
    [
        "alice@example.test",
        "<alice@example.test>",
        "Alice <alice@example.test>",
        '"Alice, of Example" <alice@example.test>',
        "Alice (at home (really)) <alice@example.test> (yes)",
        "alice@example.test (Alice <evil@example.test>)",
        "=?utf-8?q?Alice?= <alice@example.test>",
        "Alice\r\n\t<alice@example.test>",
        "alice@EXAMPLE.test",
    ],
)
def test_one_address_is_read(value: str) -> None:
    """RFC 5322 §3.4."""
    assert of(value) == ("alice@example.test", "")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ((), "there is no field From"),
        (("alice@example.test", "evil@example.test"), "there are 2 fields From"),
        (("alice@example.test, evil@example.test",), "more than one address"),
        (("<alice@example.test>, <evil@example.test>",), "more than one address"),
        (("friends: alice@example.test;",), "more than one address"),
        (("alice@example.test <evil@example.test>",), "can't be read"),
        (("<alice@example.test> <evil@example.test>",), "can't be read"),
        (("<alice@example.test> evil",), "can't be read"),
        (("Alice <alice@example.test",), "can't be read"),
        (("alice@example.test>",), "can't be read"),
        (("alice smith@example.test",), "can't be read"),
        (("Alice (unfinished <alice@example.test>",), "can't be read"),
        (("Alice) <alice@example.test>",), "can't be read"),
        (('"Alice <alice@example.test>',), "can't be read"),
        (("<@relay.test,@b.test:alice@example.test>",), "more than one address"),
        (("alice@[192.0.2.1]",), "can't be read"),
        (("alice\x00@example.test",), "can't be read"),
        (("al\udcffice@example.test",), "can't be read"),
        (("",), "can't be read"),
        (("<>",), "can't be read"),
        (("x" * 5000 + "@example.test",), "is too long"),
    ],
)
def test_no_clear_answer_is_none(values: tuple[str, ...], fault: str) -> None:
    """THR-28: nobody is the sender when two could be meant."""
    address, said = of(*values)
    assert address == ""
    assert fault in said


def test_a_name_that_looks_like_an_address_is_told() -> None:
    """THR-28: mail programs show the name, and hide the address."""
    names = (
        '"boss@example.test"', "=?utf-8?q?boss=40example.test?=", "=?utf-8?b?Ym9zc0BleGFtcGxlLnRlc3Q=?=",
        "=?utf-8?q?boss=?= =?utf-8?q?=40example.test?=", "boss\uff20example.test",
    )  # fmt: skip
    for name in names:
        found = originator([Field(b"From", f" {name} <evil@example.test>".encode())])
        assert str(found.mailbox) == "evil@example.test"
        assert "looks like an address" in found.notes[0]
    for name in ("Boss", "=?utf-8?q?B=C3=B6ss?=", "=?x-none?q?=40?=", "=?utf-8?b?*?=", "=?utf-8?q?=FF?="):
        assert originator([Field(b"From", f" {name} <evil@example.test>".encode())]).fault == ""


def test_another_field_is_read_alike() -> None:
    fields = [Field(b"From", b" a@example.test, b@example.test"), Field(b"SENDER", b" b@example.test")]
    assert str(originator(fields, b"sender").mailbox) == "b@example.test"
    assert originator(fields[:1], b"sender").fault == "there is no field Sender"
