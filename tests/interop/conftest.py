"""The programs of the matrix, set up once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.readers.base import Program
from support.readers.bouncycastle import BouncyCastle
from support.readers.correspondents import Correspondents, correspondents
from support.readers.gpgsm import Gpgsm
from support.readers.nss import Nss
from support.readers.openssl import OpenSsl
from support.readers.postseal import Postseal

THUNDERBIRD = Path(__file__).resolve().parents[2] / ".cache" / "thunderbird"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Correspondents:
    """Whose keys the programs have."""
    return correspondents(tmp_path_factory.mktemp("correspondents"))


@pytest.fixture(scope="session")
def programs(world: Correspondents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """All that read and write CMS here, by name, each with its keys."""

    def home(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    assert (THUNDERBIRD / "version").exists(), "Thunderbird's NSS is missing: ./dev test unpacks it"
    with tempfile.TemporaryDirectory(prefix="gs") as short:
        gpgsm = Gpgsm(Path(short), home("gpgsm"), world)
        bouncy_castle = BouncyCastle(home("bc"), world)
        made: list[Program] = [
            Postseal(home("postseal"), world),
            OpenSsl(home("openssl"), world),
            Nss(home("nss"), world),
            Nss(home("thunderbird"), world, THUNDERBIRD),
            gpgsm,
            bouncy_castle,
        ]
        try:
            yield {program.name: program for program in made}
        finally:
            bouncy_castle.close()
            gpgsm.close()
