"""``postseal open`` and ``inspect`` of signed mail as a user runs them: sentences, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates
from cryptography.x509 import load_pem_x509_certificate

from support.command import postseal
from support.pki import DAY, NOW, authority
from support.signed import openssl_cms

AT = "2026-06-01T12:00:00Z"
MAIL = b"From: alice@example.test\r\nMIME-Version: 1.0\r\n\r\nhello\r\n"
ENTITY = b"Content-Type: text/plain\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A root, its CRL with nobody and with Alice on it, Alice, and a message that she signed."""
    folder = tmp_path_factory.mktemp("open")
    root = authority("Open root")
    alice = root.issue("alice@example.test", slot="open", not_after=NOW + 3000 * DAY)
    other = authority("Other root")
    (folder / "root.pem").write_bytes(root.pem)
    (folder / "other.pem").write_bytes(other.certificate.x509.public_bytes(Encoding.PEM))
    (folder / "good.crl").write_bytes(root.crl())
    (folder / "bad.crl").write_bytes(root.crl([alice]))
    (folder / "alice.pem").write_bytes(alice.pem)
    (folder / "alice.key").write_bytes(alice.key_pem)
    signature = openssl_cms(ENTITY, signers=(alice,), form="PEM").split(b"-----")[2].strip().replace(b"\n", b"\r\n")
    (folder / "mail").write_bytes(
        b'From: alice@example.test\r\nContent-Type: multipart/signed; protocol="application/pkcs7-signature"; '
        b"boundary=b\r\n\r\npreamble\r\n--b\r\n" + ENTITY + b"\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + signature + b"\r\n--b--\r\n"
    )  # fmt: skip
    return {path.name: path for path in folder.iterdir()}


def run(world: dict[str, Path], *options: str, mail: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    words = [str(world[option]) if option in world else option for option in options]
    return postseal("open", "--at", AT, *words, stdin=world["mail"].read_bytes() if mail is None else mail)


def test_a_good_signature_is_told_with_all_that_led_to_it(world: dict[str, Path]) -> None:
    done = run(world, "--anchor", "root.pem", "--crl", "good.crl")
    assert done.returncode == 0, done.stderr
    assert done.stdout == world["mail"].read_bytes()
    text = done.stderr.decode()
    assert f"layer 1: clear-signed, {len(ENTITY)} octets are covered" in text
    assert "signer CN=alice@example.test: good: the signature holds" in text
    assert "(sig.good)" in text
    assert f"RSA, sha256; checked for {AT}; the signer says that it was at" in text
    assert "which nobody else vouches for" in text
    assert "not signed: the header fields of the message (2)" in text
    assert "not signed: the preamble (8 octets: preamble)" in text


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--anchor", "root.pem", "--crl", "bad.crl"), 1, "revoked: the certificate is listed"),
        (("--anchor", "root.pem"), 1, "unknown: "),
        (("--anchor", "root.pem", "--no-revocation"), 0, "good: "),
        (("--anchor", "other.pem"), 1, "untrusted: "),
        (("--anchor", "root.pem", "--no-revocation", "--address", "bob@example.test"), 1, "not-the-sender: "),
        (("--anchor", "root.pem", "--no-revocation", "--at", "2036-01-01T00:00:00Z"), 1, "(path.expired)"),
        (("--key", "alice.key"), 0, "unverified: no trust anchors were given"),
    ],
)
def test_the_exit_code_is_the_answer(
    world: dict[str, Path], options: tuple[str, ...], code: int, sentence: str
) -> None:
    done = run(world, *options)
    assert (done.returncode, done.stdout) == (code, world["mail"].read_bytes()), done.stderr
    assert sentence in done.stderr.decode()


def test_changed_content_is_refused_without_anchors_too(world: dict[str, Path]) -> None:
    changed = world["mail"].read_bytes().replace(b"hello", b"hullo")
    for options in (("--key", "alice.key"), ("--anchor", "root.pem", "--no-revocation")):
        done = run(world, *options, mail=changed)
        assert (done.returncode, done.stdout) == (1, changed)
        assert "bad: the content isn't what was signed (sig.wrong-content): the signature itself is by that key" in (
            done.stderr.decode()
        )


def test_the_account_is_json_too(world: dict[str, Path]) -> None:
    done = run(world, "--anchor", "root.pem", "--crl", "good.crl", "--json")
    found = json.loads(done.stderr)
    assert (found["protection"], [layer["type"] for layer in found["layers"]]) == ("signed", ["clear-signed"])
    signature = found["layers"][0]["signature"]
    assert (signature["covered_octets"], signature["covered_form"]) == (len(ENTITY), "as received")
    assert len(signature["uncovered"]) == 2
    (signer,) = signature["signers"]
    assert (signer["verdict"], signer["reason"], signer["signature"]) == ("good", "sig.good", "intact")
    assert (signer["scheme"], signer["digest"], signer["checked_at"]) == ("RSA", "sha256", AT)
    assert signer["expected_address"] == signer["matched_address"] == "alice@example.test"
    assert signer["anchor"] == "CN=Open root"
    assert [each["reason"] for each in signer["revocation"]] == ["rev.crl"]
    assert "aes256-cbc" in signer["capabilities"]
    assert len(set(signer["capabilities"])) == len(signer["capabilities"])
    assert signer["signed_attributes"][0] == "contentType"


def test_signed_and_sealed_for_oneself_comes_back(world: dict[str, Path]) -> None:
    sealed = postseal("seal", "--to", str(world["alice.pem"]), stdin=world["mail"].read_bytes())
    assert sealed.returncode == 0, sealed.stderr
    done = run(world, "--key", "alice.key", "--certificate", "alice.pem", "--anchor", "root.pem", "--no-revocation",
               mail=sealed.stdout)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"preamble\r\n--b\r\n" + ENTITY in done.stdout
    assert b"decrypted-unauthenticated" not in done.stderr
    unsigned = postseal("seal", "--to", str(world["alice.pem"]), stdin=b"From: alice@example.test\r\n\r\nx\r\n")
    done = run(world, "--key", "alice.key", mail=unsigned.stdout)
    assert done.returncode == 0
    assert b"decrypted-unauthenticated" in done.stderr


def test_neither_key_nor_anchor_is_usage(world: dict[str, Path]) -> None:
    done = run(world)
    assert (done.returncode, done.stderr.count(b"\n")) == (64, 1)
    done = run(world, "--certificate", "alice.pem", "--anchor", "root.pem")
    assert done.returncode == 65
    assert b"there is no key for the certificate" in done.stderr
    done = run(world, "--anchor", "root.pem", "--address", "nobody")
    assert done.returncode == 64


def test_inspect_shows_signers_without_a_key(world: dict[str, Path]) -> None:
    mail = world["mail"].read_bytes()
    found = json.loads(postseal("inspect", "--json", stdin=mail).stdout)
    assert (found["protection"], found["cms"]["type"], found["cms"]["detached"]) == ("signed", "signed-data", True)
    (signer,) = found["cms"]["signers"]
    assert (signer["signature"], signer["reason"]) == ("intact", "sig.intact")
    text = postseal("inspect", stdin=mail).stdout.decode()
    assert "structure: signed-data, detached" in text
    assert "intact: the signature holds; who signed wasn't asked (sig.intact)" in text
    assert "can read: aes256-cbc" in text
    assert "certificate: CN=alice@example.test, serial " in text
    assert "not signed: the preamble" in text
    broken = postseal("inspect", stdin=mail.replace(b"--b--", b"--b\r\n\r\nx\r\n--b--")).stdout.decode()
    assert "more than two parts" in broken


def test_inspect_goes_through_opaque_layers(world: dict[str, Path]) -> None:
    inner = postseal("seal", "--to", str(world["alice.pem"]), stdin=b"Subject: x\r\n\r\nhi\r\n").stdout
    der = openssl_cms(inner, "-nodetach")
    found = json.loads(postseal("inspect", "--json", stdin=der).stdout)
    assert [layer["type"] for layer in found["layers"]] == ["signed-data", "enveloped-data"]
    assert (found["protection"], found["cms"]["content_length"]) == ("signed", len(inner))
    text = postseal("inspect", stdin=der).stdout.decode()
    assert "recipient: key-transport, rsa-pkcs1v15" in text


def test_inspect_names_what_it_knows_and_leaves_out_what_it_does_not(world: dict[str, Path]) -> None:
    command = ["openssl", "cms", "-encrypt", "-aes256", "-pwri_password", "secret", "-outform", "DER"]
    sealed = subprocess.run(command, input=b"hello", capture_output=True, check=True).stdout
    assert b"\nrecipient: password\n" in postseal("inspect", stdin=sealed).stdout
    signed = postseal("sign", "--key", str(world["alice.key"]), "--certificate", str(world["alice.pem"]), stdin=MAIL)
    assert signed.returncode == 0, signed.stderr
    text = postseal("inspect", stdin=signed.stdout).stdout
    assert b"can read: aes256-gcm, aes128-gcm, aes256-cbc, aes192-cbc, aes128-cbc, oaep-sha" in text
    assert b", ecdh-" in text
    assert b"1.2.840" not in text


def test_a_sentence_is_said_once(world: dict[str, Path]) -> None:
    """Where the detail is no more than the reason's own sentence."""
    done = run(world, "--anchor", "root.pem")
    assert done.returncode == 1
    assert done.stderr.count(b"names neither a CRL nor an OCSP responder") == 1


def test_inspect_of_a_signature_alone_names_its_signer(world: dict[str, Path]) -> None:
    """A file smime.p7s: it was said to be signed by nobody."""
    signature = world["mail"].read_bytes().split(b"base64\r\n\r\n")[1].split(b"\r\n--b--")[0]
    text = postseal("inspect", stdin=b64decode(signature)).stdout
    assert b"\nsigner: issuer CN=Open root, serial " in text
    assert b"\n  not checked: what was signed isn't in it\n" in text
    assert b"nobody" not in text
    certificates = serialize_certificates([load_pem_x509_certificate(world["alice.pem"].read_bytes())], Encoding.DER)
    assert b"structure: signed-data, detached, signed by nobody\n" in postseal("inspect", stdin=certificates).stdout
