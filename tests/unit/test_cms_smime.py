"""The S/MIME dress: what moves inside, what stands outside, and that no octet of it changes on the way."""

from __future__ import annotations

import base64
import itertools
import os
import random

import pytest

from postseal.core.cms.lines import LineCheck, base64_blocks
from postseal.core.cms.smime import HeaderEdit, split
from postseal.core.message import Field, parse_header
from postseal.core.suite import Suite

CBC, GCM = Suite.AES_256_CBC, Suite.AES_256_GCM


def fields_of(*lines: bytes) -> tuple[Field, ...]:
    fields = parse_header(b"".join(line + b"\r\n" for line in lines))
    assert isinstance(fields, tuple)
    return fields


def apply(fields: tuple[Field, ...], edits: tuple[HeaderEdit, ...]) -> tuple[Field, ...]:
    """What an MTA makes of the edits, one after another (smfi_chgheader and smfi_addheader)."""
    result = list(fields)
    for edit in edits:
        value = edit.value.replace("\n", "\r\n").encode("ascii")
        places = [i for i, field in enumerate(result) if field.named(edit.name.lower().encode())]
        if edit.kind == "add":
            result.append(Field(edit.name.encode(), value))
        elif edit.kind == "set":
            result[places[edit.index - 1]] = Field(edit.name.encode(), value)
        else:
            del result[places[edit.index - 1]]
    return tuple(result)


def canonical(fields: tuple[Field, ...]) -> list[tuple[bytes, bytes]]:
    return sorted((field.name.lower(), field.value) for field in fields)


FULL = (
    b"Received: from x", b"From: a@example.test", b"MIME-Version: 1.0 (made by hand)", b"Content-ID: <1@x>",
    b"Subject: folded\r\n\tsubject", b"content-type: multipart/mixed;\r\n boundary=xyz", b"Content-Id: <2@x>",
    b"Content-Transfer-Encoding: 8bit", b"Content-Language: de", b"X-After: 1",
)  # fmt: skip


def test_content_fields_move_inside_in_order_as_received() -> None:
    parts = split(fields_of(*FULL))
    assert parts.fault == ""
    assert parts.inner == (
        b"Content-ID: <1@x>\r\ncontent-type: multipart/mixed;\r\n boundary=xyz\r\nContent-Id: <2@x>\r\n"
        b"Content-Transfer-Encoding: 8bit\r\nContent-Language: de\r\n\r\n"
    )


def test_the_default_of_rfc_2045_is_written_where_there_is_no_content_type() -> None:
    assert split(fields_of(b"Subject: x")).inner == b"Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    assert split(fields_of(b"Content-Transfer-Encoding: 8bit")).inner == (
        b"Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )


@pytest.mark.parametrize(
    "lines",
    [FULL, (b"Subject: x",), (b"MIME-Version: 1.0",), (b"MIME-Version: 0.9", b"Content-Type: text/html"), ()],
    ids=["full", "plain", "version", "odd-version", "empty"],
)
@pytest.mark.parametrize("suite", list(Suite))
def test_the_edits_make_the_outer_header_of_the_original(lines: tuple[bytes, ...], suite: Suite) -> None:
    fields = fields_of(*lines)
    parts = split(fields)
    edited = apply(fields, parts.edits(suite))
    without_version = [pair for pair in canonical(edited) if pair[0] != b"mime-version"]
    assert without_version == [pair for pair in canonical(parts.outer(suite)) if pair[0] != b"mime-version"]
    versions = [field for field in edited if field.named(b"mime-version")]
    assert len(versions) == 1
    assert versions[0].unfolded.startswith(b"1.0")


def test_the_outer_header_is_that_of_rfc_8551() -> None:
    outer = split(fields_of(*FULL)).outer(CBC)
    lines = b"".join(field.line for field in outer)
    assert lines == (
        b"Received: from x\r\nFrom: a@example.test\r\nSubject: folded\r\n\tsubject\r\nX-After: 1\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data;\r\n\tname=smime.p7m\r\n"
        b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7m\r\n"
    )


def test_gcm_says_auth_enveloped_data() -> None:
    assert b"smime-type=authEnveloped-data;" in b"".join(field.line for field in split(()).outer(GCM))


def test_edits_fold_with_lf_and_delete_the_last_first() -> None:
    """P9: Postfix turns CRLF in a milter's value into CR CR LF. Deleting the first would move the index of the second."""
    edits = split(fields_of(*FULL)).edits(CBC)
    assert all("\r" not in edit.value for edit in edits)
    deleted = [(edit.name.lower(), edit.index) for edit in edits if edit.kind == "delete"]
    assert deleted == [("content-language", 1), ("content-id", 2), ("content-id", 1)]
    assert (
        HeaderEdit("set", "Content-Type", 1, " application/pkcs7-mime; smime-type=enveloped-data;\n\tname=smime.p7m")
        in edits
    )


@pytest.mark.parametrize(
    "name", [b"Content-Type", b"Content-Transfer-Encoding", b"MIME-Version", b"Content-Disposition"]
)
def test_a_field_that_comes_twice_is_refused_by_name(name: bytes) -> None:
    parts = split(fields_of(name + b": text/plain", b"Subject: x", name.upper() + b": text/html"))
    assert (parts.fault, parts.fault_detail) == ("mail.duplicate-header", name.upper().decode())
    assert parts.inner == b""


def test_a_malformed_field_of_a_milter_is_refused() -> None:
    parts = split((Field(b"Content-Type", b" text/plain\rBcc: x"),))
    assert parts.fault == "mail.bad-header"
    assert "Content-Type" in parts.fault_detail


# --- line ends ---


def check(octets: bytes, *cuts: int) -> str:
    line_check = LineCheck()
    edges = [0, *cuts, len(octets)]
    for start, end in itertools.pairwise(edges):
        line_check.update(octets[start:end])
    return line_check.finish()


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        (b"", ""),
        (b"no end", ""),
        (b"a\r\nb\r\n", ""),
        (b"\r\n\r\n", ""),
        (b"a\x00\xff" + b"x" * 5000 + b"\r\n", ""),
        (b"a\nb\r\n", "mail.bare-lf"),
        (b"\n", "mail.bare-lf"),
        (b"a\rb\r\n", "mail.bare-cr"),
        (b"a\r", "mail.bare-cr"),
        (b"a\r\r\n", "mail.bare-cr"),
        (b"a\rb\n", "mail.bare-cr"),
        (b"\n\r", "mail.bare-lf"),
        (b"a\r\n\n", "mail.bare-lf"),
    ],
)
def test_bare_line_ends_are_found_however_the_body_is_cut(octets: bytes, fault: str) -> None:
    assert check(octets) == fault
    if len(octets) < 100:
        for first in range(len(octets) + 1):
            for second in range(first, len(octets) + 1):
                found = check(octets, first, second)
                assert bool(found) == bool(fault), (first, second)


def test_the_first_fault_stays() -> None:
    line_check = LineCheck()
    line_check.update(b"a\nb")
    line_check.update(b"a\rb")
    assert line_check.finish() == "mail.bare-lf"


# --- base64 ---


@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 113, 114, 47879, 47880, 47881, 2 * 47880, 300_001])
def test_base64_is_that_of_the_standard_library_with_crlf(size: int) -> None:
    octets = os.urandom(size)
    expected = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    dice = random.Random(size)
    for largest in (1, 100, 47880, 65535, 10**6):
        if size // largest > 5000:
            continue
        chunks, position = [], 0
        while position < size:
            step = dice.randint(1, largest)
            chunks.append(octets[position : position + step])
            position += step
        blocks = list(base64_blocks(chunks))
        assert b"".join(blocks) == expected
        assert all(len(block) <= 65520 and block.endswith(b"\r\n") for block in blocks)


def test_base64_blocks_are_full_so_that_one_reply_carries_each() -> None:
    blocks = list(base64_blocks([os.urandom(64 * 1024)] * 10))
    assert {len(block) for block in blocks[:-1]} == {65520}


def test_buffers_are_shared_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look whether there is one and taking it another thread may have taken the last."""

    class Taken(list[bytearray]):
        def __len__(self) -> int:
            return 1

    monkeypatch.setattr("postseal.core.cms.lines._buffers", Taken())
    assert b"".join(base64_blocks([b"x"])) == b"eA==\r\n"
