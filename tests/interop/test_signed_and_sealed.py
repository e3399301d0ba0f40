"""``postseal seal`` that signs too, as one command: every program decrypts it, then verifies what was inside, and outside."""

from __future__ import annotations

import base64

import pytest

from support.readers.base import Decrypt, Program, Refusal, Verify
from support.readers.correspondents import Correspondents
from support.readers.document import NAMES
from support.readers.matrix import TEXT
from support.readers.mime import signature_of
from support.readers.postseal import command

_HEADER = b"From: rsa@example.test\r\nTo: rsa@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"


def verified(program: Program, entity: bytes) -> bytes:
    """The content of a signed entity, which the program has found good."""
    found = signature_of(entity)
    assert found is not None
    [answer] = program.verify([Verify(*found)])
    assert not isinstance(answer, Refusal), answer.text
    return answer


@pytest.mark.parametrize("scheme", ["pkcs1", "pss"])
@pytest.mark.parametrize("options", [[], ["--opaque"], ["--triple"]], ids=["detached", "opaque", "triple"])
@pytest.mark.parametrize("name", NAMES)
def test_each_layer_opens(
    name: str, options: list[str], scheme: str, programs: dict[str, Program], world: Correspondents
) -> None:
    """RFC 8551 §3.7 and RFC 2634 §1.1: signed, then encrypted, then signed again."""
    program = programs[name]
    keys = ["--sign-key", world.path("rsa", "key"), "--sign-certificate", world.path("rsa", "pem"), "--scheme", scheme]
    message = command("seal", "--to", world.path("rsa", "pem"), *keys, *options, stdin=_HEADER + TEXT)
    assert not isinstance(message, Refusal), message.text
    if "--triple" in options:
        message = verified(program, message)
    [inside] = program.decrypt([Decrypt(base64.b64decode(message.partition(b"\r\n\r\n")[2]), "rsa")])
    assert not isinstance(inside, Refusal), inside.text
    peeled = inside == TEXT and getattr(program, "peels", False)
    assert peeled or verified(program, inside) == TEXT
