"""Signed mail through a real Postfix to a host without 8BITMIME: what it changes on the way, and what it leaves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import postseal
from support.postfix import PrivatePostfix
from support.scratch import scratch
from support.signers import issuing, leaf, signing_root
from support.sink import Sink

pytestmark = pytest.mark.root

TYPED = b"From: a@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
MESSAGES = {
    "8-bit text": TYPED + b"Content-Transfer-Encoding: 8bit\r\n\r\nd\xc3\xbcnn wie Papier\r\n",
    "ASCII that says 8bit": TYPED + b"Content-Transfer-Encoding: 8bit\r\n\r\nduenn\r\n",
    "long lines": TYPED + b"\r\n" + b"x" * 3000 + b"\r\n.\r\nFrom me \r\n",
    "parts": b'From: a@example.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="in"\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n--in\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\nd\xc3\xbcnn wie Papier\r\n--in\r\n\r\nmore\r\n--in--\r\nepilogue\r\n",
}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[PrivatePostfix, Sink]]:
    # Postfix then takes the next host for one that knows neither, which is when it converts (P15).
    extra = {"smtp_discard_ehlo_keywords": "8bitmime, smtputf8"}
    with (
        scratch() as directory,
        Sink() as sink,
        PrivatePostfix(directory / "pf", "", sink.port, extra=extra) as postfix,
    ):
        yield postfix, sink


def relayed(running: tuple[PrivatePostfix, Sink], message: bytes) -> bytes:
    postfix, sink = running
    sink.clear()
    postfix.send("a@home.test", ["b@example.test"], message, options=("BODY=8BITMIME",))
    delivery = postfix.wait_delivered(sink, "b@example.test")
    return bytes(delivery.data)  # type: ignore[attr-defined]


def verified(folder: Path, message: bytes) -> bool:
    (folder / "root.crt").write_bytes(signing_root().pem)
    command = ["openssl", "cms", "-verify", "-CAfile", "root.crt"]
    return subprocess.run(command, cwd=folder, input=message, capture_output=True, timeout=30).returncode == 0


@pytest.mark.parametrize("name", MESSAGES)
def test_p15_a_signature_survives_a_relay_without_8bitmime(
    running: tuple[PrivatePostfix, Sink], tmp_path: Path, name: str
) -> None:
    """P15: clear-signed and opaque, from the command to the next host."""
    (tmp_path / "a.pem").write_bytes(leaf("p256").key_pem + leaf("p256").pem + issuing().pem)
    for more in ([], ["--opaque"]):
        signed = postseal("sign", "--key", str(tmp_path / "a.pem"), *more, stdin=MESSAGES[name]).stdout
        arrived = relayed(running, signed)
        assert (b"multipart/signed" in arrived) == (not more)
        assert verified(tmp_path, arrived)


def test_p15_a_signature_over_8_bit_text_does_not_survive(running: tuple[PrivatePostfix, Sink], tmp_path: Path) -> None:
    """What OpenSSL signs as it stands arrives broken: this is what the encoding before signing is for."""
    (tmp_path / "a.pem").write_bytes(leaf("p256").key_pem + leaf("p256").pem + issuing().pem)
    (tmp_path / "entity").write_bytes(MESSAGES["8-bit text"].partition(b"MIME-Version: 1.0\r\n")[2])
    (tmp_path / "issuer.crt").write_bytes(issuing().pem)
    signer = ["-signer", "a.pem", "-certfile", "issuer.crt"]
    command = ["openssl", "cms", "-sign", "-binary", "-crlfeol", "-in", "entity", *signer]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=True).stdout
    assert verified(tmp_path, made)
    arrived = relayed(running, b"From: a@example.test\r\n" + made)
    assert not verified(tmp_path, arrived)
