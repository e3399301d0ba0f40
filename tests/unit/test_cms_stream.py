"""Sealing as a stream: whole lines out, nothing held, and the same message however the content was cut."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.lines import BLOCK, base64_blocks
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.stream import held_lines, sealed_lines
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from support.cms import cleared, recipient

# RFC 2045 §6.8 and the largest SMFIR_REPLBODY.
LINE, LARGEST = 76, 65520


def cut(content: bytes, chunk: int) -> Iterator[bytes]:
    return (content[start : start + chunk] for start in range(0, len(content), chunk))


def seal(content: bytes, chunk: int, suite: Suite = Suite.AES_256_CBC, recipients: int = 1) -> list[bytes]:
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    people = cleared([recipient()] * recipients)
    return list(sealed_lines(cut(content, chunk), len(content), suite, key, iv, people))


def der_of(blocks: list[bytes]) -> bytes:
    for block in blocks:
        assert block.endswith(b"\r\n")
        assert len(block) <= LARGEST
    lines = b"".join(blocks).split(b"\r\n")
    assert lines.pop() == b""
    assert {len(line) for line in lines[:-1]} <= {LINE}
    assert 1 <= len(lines[-1]) <= LINE
    return base64.b64decode(b"".join(lines), validate=True)


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 2000, BLOCK - 400, BLOCK, 2 * BLOCK, 200_003])
def test_what_was_streamed_opens(suite: Suite, length: int) -> None:
    """RFC 5652 §6.3 and RFC 5084 §3.2: the length that was computed ahead is that of the ciphertext."""
    content = os.urandom(length)
    for chunk in (1000, 65536, 100_000):
        der = der_of(seal(content, chunk, suite))
        assert open_enveloped(der, recipient().key, recipient().certificate) == content


def test_every_length_around_the_end_of_a_block_fits() -> None:
    """Head, content and tag meet the end of a block, of a line and of a group of three octets in every way."""
    overhead = len(der_of(seal(b"x" * BLOCK, BLOCK, Suite.AES_256_GCM))) - BLOCK
    for length in range(BLOCK - overhead - 20, BLOCK - overhead + 60):
        content = bytes(length)
        der = der_of(seal(content, 40_000, Suite.AES_256_GCM))
        assert open_enveloped(der, recipient().key) == content


def test_many_recipients_make_a_head_longer_than_a_block() -> None:
    blocks = seal(b"hello", 5, recipients=400)
    assert len(der_of(blocks)) > 2 * BLOCK
    assert open_enveloped(der_of(blocks), recipient().key) == b"hello"


@pytest.mark.parametrize("suite", [Suite.AES_128_CBC, Suite.AES_256_GCM])
def test_kept_ciphertext_gives_the_same_lines(suite: Suite) -> None:
    content = os.urandom(150_000)
    key, iv, people = os.urandom(suite.key_length), os.urandom(suite.iv_length), cleared([recipient()])
    sealer = ContentSealer(suite, key, iv)
    kept = [sealer.update(content), sealer.finish()]
    head, tail = envelope(suite, key, people, iv, sum(map(len, kept)), sealer.tag)
    streamed = der_of(list(sealed_lines(cut(content, 999), len(content), suite, key, iv, people)))
    assert der_of(list(held_lines(head, kept, tail))) == head + b"".join(kept) + tail
    # What RSA adds is random and of one length; all behind it is the same.
    assert streamed[len(head) :] == b"".join(kept) + tail


@pytest.mark.parametrize("chunk", [1, 56, 57, 58, 100, BLOCK - 1, BLOCK, BLOCK + 1, 150_000])
def test_lines_do_not_depend_on_the_chunks(chunk: int) -> None:
    for length in (0, 1, 57, 5000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 29):
        if length > 3000 * chunk:
            continue
        data = os.urandom(length)
        blocks = list(base64_blocks(cut(data, chunk)))
        assert b"".join(blocks) == b"".join(
            base64.b64encode(data[start : start + 57]) + b"\r\n" for start in range(0, length, 57)
        )
        assert {len(block) for block in blocks[:-1]} <= {LARGEST}


def test_two_messages_in_preparation_do_not_share_a_buffer() -> None:
    data = os.urandom(30_000), os.urandom(30_000)
    pairs = zip(*(base64_blocks(cut(each * 4, 7_000)) for each in data), strict=True)
    first, second = zip(*pairs, strict=True)
    assert (b"".join(first), b"".join(second)) == tuple(b"".join(base64_blocks((each * 4,))) for each in data)


@pytest.mark.parametrize("said", [0, 99_999, 100_001])
def test_a_content_of_another_length_is_no_message(said: int) -> None:
    suite = Suite.AES_256_CBC
    lines = sealed_lines(cut(bytes(100_000), 9_999), said, suite, bytes(32), bytes(16), cleared([recipient()]))
    with pytest.raises(BadData, match="not as long as it was said"):
        list(lines)


def test_recipients_that_cannot_be_used_are_refused_before_the_first_line() -> None:
    with pytest.raises(BadData, match="can't be used to encrypt"):
        sealed_lines(iter(()), 0, Suite.AES_256_CBC, bytes(32), bytes(16), cleared([recipient("ed25519")]))


_CHILD = """
import sys
from postseal.core.certs import load_certificates
from postseal.core.cms.stream import sealed_lines
from postseal.core.policy import clear_by_operator
from postseal.core.suite import Suite

def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

suite = Suite(sys.argv[2])
people = [clear_by_operator(load_certificates(open(sys.argv[1], "rb").read())[0])]
open("/proc/self/clear_refs", "w").write("5")
before, size, out = memory("VmRSS:"), 0, 0
chunk = b"x" * 65534 + b"\\r\\n"
for block in sealed_lines((chunk for _ in range(2000)), 2000 * len(chunk), suite, bytes(suite.key_length),
                          bytes(suite.iv_length), people):
    out += len(block)
print(memory("VmHWM:") - before, out)
"""


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
def test_the_memory_for_131_megabytes_is_that_for_one(suite: Suite, tmp_path: os.PathLike[str]) -> None:
    certificate = os.path.join(tmp_path, "bob.pem")
    with open(certificate, "wb") as file:
        file.write(recipient().pem)
    command = [sys.executable, "-c", _CHILD, certificate, str(suite)]
    grown, out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(out) > 131_000_000 * 78 / 57
    assert int(grown) < 4 * 1024
