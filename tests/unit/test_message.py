"""Taking a message apart: one strict rule, and a named refusal for what two readers could take apart in two ways (THR-11)."""

from __future__ import annotations

import pytest

from postseal.core.message import (
    HEADER_LIMIT,
    Field,
    HeaderFault,
    field_fault,
    header_length,
    only,
    parse_content_type,
    parse_disposition,
    parse_header,
    split_message,
)


def test_a_message_comes_apart_and_together_again() -> None:
    octets = b"From: a@example.test\r\nSubject:  two\r\n\tlines \r\nX-Empty:\r\n\r\nbody\r\n\r\nmore"
    parts = split_message(octets)
    assert not isinstance(parts, HeaderFault)
    fields, body = parts
    assert [field.name for field in fields] == [b"From", b"Subject", b"X-Empty"]
    assert fields[1].value == b"  two\r\n\tlines "
    assert body == b"body\r\n\r\nmore"
    assert b"".join(field.line for field in fields) + b"\r\n" + body == octets


def test_header_only_and_body_only_messages() -> None:
    assert split_message(b"Subject: x\r\n") == ((Field(b"Subject", b" x"),), b"")
    assert split_message(b"\r\nbody") == ((), b"body")
    assert split_message(b"") == ((), b"")


def test_8bit_octets_in_a_value_are_kept() -> None:
    assert parse_header(b"Subject: \xff\xfe\r\n") == (Field(b"Subject", b" \xff\xfe"),)


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (b" folded first\r\n", "first line is a continuation"),
        (b"Subject: a\r\nno colon here\r\n", "line 2 has no colon"),
        (b"From alice@example.test Mon Jan 1\r\n", "that of an mbox file"),
        (b"From alice@example.test Mon Jan 1 00:00:00 2026\r\nFrom: a@example.test\r\n", "that of an mbox file"),
        (b"From : a@example.test\r\n", "field name"),
        (b"Subject : x\r\n", "field name"),
        (b": x\r\n", "field name"),
        (b"Subj\xc3\xa9ct: x\r\n", "field name"),
        (b"Subject: a\rBcc: b@example.test\r\n", "bare CR"),
        (b"Subject: a\nBcc: b@example.test\r\n", "bare LF"),
        (b"Subject: a\x00b\r\n", "NUL"),
        (b"Subject: a\r\n \t\r\n b\r\n", "empty continuation line"),
        (b"Subject: a\r\n \r\n", "empty continuation line"),
        (b"Subject: cut", "doesn't end with CRLF"),
    ],
)
def test_a_malformed_header_is_refused_by_name(header: bytes, detail: str) -> None:
    fault = parse_header(header)
    assert isinstance(fault, HeaderFault)
    assert fault.code == "mail.bad-header"
    assert detail in fault.detail


def test_a_header_has_a_largest_size() -> None:
    fault = split_message(b"X: " + b"a" * HEADER_LIMIT + b"\r\n\r\n")
    assert isinstance(fault, HeaderFault)
    assert fault.code == "mail.header-too-large"


def test_a_header_of_folds_alone_takes_linear_time() -> None:
    """Half a megabyte in 170 000 folds: joining them one by one would copy 40 GB."""
    fields = parse_header(b"X: a\r\n" + b" b\r\n" * 130_000)
    assert not isinstance(fields, HeaderFault)
    assert len(fields) == 1


def test_header_length_waits_for_the_empty_line() -> None:
    assert header_length(b"A: b\r\n") is None
    assert header_length(b"A: b\r\n\r") is None
    assert header_length(b"A: b\r\n\r\nbody") == 8
    assert header_length(b"\r\nbody") == 2


def test_unfolding_drops_only_the_line_ends() -> None:
    assert Field(b"X", b" a\r\n\t b \r\n c").unfolded == b"a\t b  c"


def test_a_field_given_by_a_milter_is_checked_the_same_way() -> None:
    assert field_fault(Field(b"Subject", b" a\r\n b")) is None
    assert field_fault(Field(b"Subject", b" a\r\nb")) is not None
    assert field_fault(Field(b"Sub ject", b" a")) is not None


@pytest.mark.parametrize(
    ("value", "media", "parameters"),
    [
        (b" text/plain", "text/plain", {}),
        (b" Text/PLAIN; Charset=UTF-8", "text/plain", {"charset": "UTF-8"}),
        (b' application/pkcs7-mime;\r\n\tsmime-type="enveloped-data"; name=smime.p7m',
         "application/pkcs7-mime", {"smime-type": "enveloped-data", "name": "smime.p7m"}),
        (b" application/pkcs7-mime (sealed) ; name=a.p7m;", "application/pkcs7-mime", {"name": "a.p7m"}),
        (b' multipart/mixed; boundary="a;b\\"c"', "multipart/mixed", {"boundary": 'a;b"c'}),
        (b" text/plain; x=1; x=2", "text/plain", {"x": "1"}),
    ],
)  # fmt: skip
def test_content_type_is_read(value: bytes, media: str, parameters: dict[str, str]) -> None:
    parsed = parse_content_type(value)
    assert parsed is not None
    assert (parsed.media, parsed.parameters) == (media, parameters)


@pytest.mark.parametrize("value", [b"", b" text", b" ;name=x", b" /plain", b" \xff/\xfe"])
def test_what_is_no_content_type_is_none(value: bytes) -> None:
    assert parse_content_type(value) is None


def test_the_file_name_of_a_disposition() -> None:
    assert parse_disposition(b' attachment; filename="smime.p7m"') == {"filename": "smime.p7m"}
    assert parse_disposition(b" inline") == {}


def test_only_gives_nothing_when_there_are_two() -> None:
    one, two = Field(b"Content-Type", b" a/b"), Field(b"content-type", b" c/d")
    assert only((one,), b"content-type") is one
    assert only((one, two), b"content-type") is None
    assert only((), b"content-type") is None
