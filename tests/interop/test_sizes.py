"""What the matrix shows for one size holds for others, and for one recipient among several: octet for octet in every reader."""

from __future__ import annotations

import os

import pytest

from postseal.core.suite import Suite
from support.cms import recipient, sealed
from support.readers.base import Decrypt, Program
from support.readers.correspondents import Correspondents
from support.readers.document import NAMES

SIZES = (0, 1, 15, 16, 17, 2048, 300_007, 1024 * 1024 + 7)


@pytest.mark.parametrize("suite", [Suite.AES_128_CBC, Suite.AES_256_CBC])
@pytest.mark.parametrize("name", NAMES)
def test_every_size_opens(name: str, suite: Suite, programs: dict[str, Program], world: Correspondents) -> None:
    contents = [os.urandom(size) for size in SIZES]
    jobs = [Decrypt(sealed(suite, [world.leaf("rsa")], content), "rsa") for content in contents]
    assert programs[name].decrypt(jobs) == contents


@pytest.mark.parametrize("name", NAMES)
def test_one_of_five_rsa_recipients_opens(name: str, programs: dict[str, Program], world: Correspondents) -> None:
    leaves = [recipient("rsa2048", slot) for slot in (4, 3, 0, 2)]
    der = sealed(Suite.AES_256_CBC, [*leaves[:2], world.leaf("rsa"), *leaves[2:]], b"hello")
    assert programs[name].decrypt([Decrypt(der, "rsa")]) == [b"hello"]
