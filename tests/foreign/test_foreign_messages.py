"""Messages that no one here made verify, open or fail as their source says (``data/foreign/README.md``)."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postseal.core.cms.opening import CANNOT_OPEN, Reading, open_enveloped
from postseal.core.cms.signed_reader import parse_signed
from postseal.core.cms.unwrapping import Holder
from support.foreign import FOREIGN, holders, story

CONTENT = (FOREIGN / "rfc4134" / "ExContent.bin").read_bytes()
_NO_MESSAGE = {".key", ".cer", ".crt", ".txt", ".md"}


@cache
def expected() -> dict[str, str]:
    """File to story, as told in ``expected.txt``; the reason behind it is for people."""
    lines = (FOREIGN / "expected.txt").read_text().splitlines()
    found = {}
    for line in lines:
        name, told, why = line.split(" | ")
        assert why
        found[name] = told
    return found


def messages(folder: str) -> list[str]:
    return [
        f"{folder}/{path.name}"
        for path in sorted((FOREIGN / folder).iterdir())
        if path.suffix not in _NO_MESSAGE and path.name not in ("ExContent.bin", "TestCA.pem")
    ]


def test_every_message_has_an_expectation() -> None:
    kept = [name for folder in ("asn1crypto", "openssl", "pyasn1", "rfc4134") for name in messages(folder)]
    assert sorted(kept) == sorted(expected())
    assert len(kept) + len(messages("nss")) >= 120


@pytest.mark.parametrize("name", expected())
def test_a_message_is_what_its_source_says(name: str) -> None:
    """RFC 4134 and samples of OpenSSL, asn1crypto and pyasn1-modules."""
    path = FOREIGN / name
    assert story(path.read_bytes(), holders(path.parent), CONTENT) == expected()[name]


def nss_story(name: str) -> str:
    """What the name of one of NSS's mails says, from the inside out (see the README)."""
    parts = re.sub(r"\.eml$", "", name).split(".")
    hash_name = ""
    told = "text/plain"
    at = 1
    while at < len(parts):
        word = parts[at]
        if word == "env":
            told = f"aes128-cbc > {told}"
        elif word in ("sig", "dsig"):
            hash_name = parts[at + 1].lower()
            form = "clear-signed" if word == "dsig" else "signed"
            state = "intact"
            # Signed with LF line ends, which RFC 8551 §3.1.1 doesn't allow.
            if word == "dsig" and told.startswith("aes128-cbc"):
                state = "wrong-content"
            told = f"{form}(RSA {hash_name} {state}) > {told}"
        elif word in ("bad", "mismatch-econtent"):
            told = told.replace("intact", "wrong-content")
        at += 1
    return told


@pytest.mark.parametrize("name", messages("nss"))
def test_mail_of_nss_is_what_its_name_says(name: str) -> None:
    """Signed, sealed and both, in layers, by NSS 3.x: intact, changed afterwards, or with two contents."""
    told = story((FOREIGN / name).read_bytes(), holders(FOREIGN / "nss"))
    wanted = nss_story(name.removeprefix("nss/"))
    assert told.replace("text/html", "text/plain") == wanted
    if "SHA1" not in name:
        assert "sha1" not in told


def openssl_verifies(path: Path) -> bool:
    """The mathematics only, as ``check_signers`` does."""
    form = "PEM" if path.suffix == ".pem" else "DER"
    command = ["openssl", "cms", "-verify", "-noverify", "-inform", form, "-in", str(path), "-out", "/dev/null"]
    if path.name == "4.3.bin":
        command += ["-content", str(FOREIGN / "rfc4134" / "ExContent.bin")]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0


@pytest.mark.parametrize(
    "name", [name for name, told in expected().items() if "signed(" in told or "detached(" in told]
)
def test_openssl_agrees(name: str) -> None:
    """Nothing is intact here that openssl finds bad, nor the other way; but DSA and more we don't verify at all."""
    told = expected()[name]
    if "unknown-algorithm" in told or "no-certificate" in told:
        assert "bad" not in told
        return
    assert openssl_verifies(FOREIGN / name) == ("intact" in told)


def test_content_of_rfc_4134_comes_out() -> None:
    """§5.1: the text of §2.1; §5.3: a text of its own."""
    bob = holders(FOREIGN / "rfc4134")[0].key
    octets = (FOREIGN / "rfc4134" / "5.1.bin").read_bytes()
    assert open_enveloped(octets, bob, None, Reading(allow_3des=True)) == CONTENT  # type: ignore[arg-type]
    assert CONTENT == b"This is some sample content."


def test_indefinite_lengths_of_others_verify_without_what_follows() -> None:
    """Octets after the object are refused; the object itself is read: it is damaged, by openssl's account too."""
    octets = (FOREIGN / "asn1crypto" / "cms-signed-indefinite-length.der").read_bytes()
    assert octets.endswith(b"\0\0\n")
    assert story(octets[:-1]) == "signed(RSA sha256 wrong-content) > text"
    assert not openssl_verifies(FOREIGN / "asn1crypto" / "cms-signed-indefinite-length.der")


@cache
def vectors() -> Path:
    return Path(cryptography_vectors.__file__).parent


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("enveloped.pem", f"refused: {CANNOT_OPEN}"),
        ("enveloped-triple-des.pem", "des-ede3-cbc > text"),
        ("enveloped-rsa-oaep.pem", "aes128-cbc > text"),
        ("enveloped-no-content.der", "refused: not an encrypted CMS message: the content isn't in it"),
        ("isrg.pem", "certificates(1)"),
        ("amazon-roots.p7b", "certificates(2)"),
        ("amazon-roots.der", "certificates(2)"),
    ],
)
def test_vectors_of_cryptography_are_read(name: str, told: str) -> None:
    """The folder pkcs7, with the key x509/custom/ca/rsa_key.pem; the first is for somebody else's."""
    key = load_pem_private_key((vectors() / "x509" / "custom" / "ca" / "rsa_key.pem").read_bytes(), None)
    keys = (Holder(key),)  # type: ignore[arg-type]
    assert story((vectors() / "pkcs7" / name).read_bytes(), keys) == told


def test_certificates_only_are_certificates() -> None:
    octets = (FOREIGN / "rfc4134" / "4.11.bin").read_bytes()
    assert [each.x509.subject.rfc4514_string() for each in parse_signed(octets).certificates] != []
