"""[[responder]]: OCSP responders that the administrator trusts for a CA."""

from __future__ import annotations

from pathlib import Path

import pytest

from postseal.config import Config, ConfigProblems
from postseal.core.errors import CannotCreate
from postseal.core.evidence import OcspEvidence, Question
from postseal.core.revocation import Status, judge
from postseal.wiring.revocation import build_revocation
from support.evidence import OCSP_URL, Answer, Ocsp
from support.pki import NOW, authority

CA, OTHER = authority("Issuing CA", kind="p256"), authority("Other CA", kind="p256")
ALICE = CA.issue("alice@example.test", kind="p256", ocsp_urls=[OCSP_URL])
STRANGER = authority("House responder", kind="p256")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, who in (("ca", CA), ("other", OTHER), ("house", STRANGER)):
        (tmp_path / f"{name}.pem").write_bytes(who.pem)
    (tmp_path / "house.der").write_bytes(STRANGER.certificate.der)
    return tmp_path


def configured(folder: Path, *pairs: tuple[str, str]) -> Config:
    return Config.default(responder=[{"certificate": folder / one, "issuer": folder / other} for one, other in pairs])


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        ((), Status.UNKNOWN),
        ((("house.pem", "ca.pem"),), Status.GOOD),
        ((("house.der", "ca.pem"),), Status.GOOD),
        ((("house.pem", "other.pem"),), Status.UNKNOWN),
        ((("house.pem", "other.pem"), ("house.pem", "ca.pem")), Status.GOOD),
    ],
)
def test_a_responder_is_trusted_for_its_ca_alone(
    pairs: tuple[tuple[str, str], ...], status: Status, folder: Path
) -> None:
    """OCSP-7 (a): from the configuration to the verdict."""
    settings = build_revocation(configured(folder, *pairs))
    evidence = OcspEvidence(Ocsp([Answer(ALICE, CA)], STRANGER).der(), OCSP_URL, NOW)
    question = Question(ALICE.certificate, CA.certificate, (), (OCSP_URL,))
    assert judge(question, [evidence], settings, NOW).status is status


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("gone.pem", None, "can't be read: No such file or directory"),
        ("empty.pem", b"", "the file is empty"),
        ("two.pem", CA.pem + OTHER.pem, "holds 2 certificates, must be one"),
        ("junk.pem", b"junk", "no certificate"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(file: str, content: bytes | None, words: str, folder: Path) -> None:
    if content is not None:
        (folder / file).write_bytes(content)
    for pair in ((file, "ca.pem"), ("house.pem", file)):
        with pytest.raises(CannotCreate) as caught:
            build_revocation(configured(folder, pair))
        assert str(caught.value).startswith(f"[[responder]] {folder / file}: ")
        assert words in str(caught.value)


def test_both_files_must_be_given() -> None:
    with pytest.raises(ConfigProblems, match=r"\[\[responder\]\] has no issuer: must be an absolute path"):
        Config.default(responder=[{"certificate": "/etc/postseal/house.pem"}])
