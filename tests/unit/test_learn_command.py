"""``postseal cert learn``: what is believed of signed mail, and what isn't (ALG-2, RFC 8551 §2.7.1), with a real store."""

from __future__ import annotations

import io
import json
import re
import subprocess
from base64 import b64decode, encodebytes
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from postseal.core.address import parse_mailbox
from postseal.core.assess import Origin
from postseal.core.capabilities import OURS, SUITE_OIDS, Capability, encode_capabilities
from postseal.core.cms.clearsign import Entity, clear_signed
from postseal.core.cms.signing import Signer, Signing
from postseal.core.der import SEQUENCE, Cursor, context, tlv
from postseal.core.message import Field
from postseal.core.suite import Suite
from postseal.shell.cli.main import main
from postseal.sources.directory.store import CertificateStore
from support.pki import Authority, Leaf, authority, usage

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
VALID: dict[str, Any] = {"not_before": NOW - 30 * DAY, "not_after": NOW + 300 * DAY}
ALICE = parse_mailbox("alice@example.test")
CBC = (Capability(SUITE_OIDS[Suite.AES_256_CBC]),)
ACCEPT = '[revocation]\non_none_declared = "accept"\n'
CRL = "http://ca.example.test/learn.crl"


@cache
def root() -> Authority:
    return authority("Learn Root", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY)


@cache
def alice(crl: bool = False) -> Leaf:
    return root().issue("alice@example.test", slot=("learn", crl), crl_urls=[CRL] if crl else [], **VALID)


def mail(
    signer: Leaf | None = None,
    capabilities: tuple[Capability, ...] | None = OURS,
    at: datetime = NOW - DAY,
    sender: str = "Alice <alice@example.test>",
    encryption: Leaf | None = None,
) -> bytes:
    """A clear-signed message."""
    who = signer or alice()
    preferred = None if encryption is None else encryption.certificate
    chain = [] if preferred is None else [preferred]
    sign = Signing(
        [Signer(who.certificate, who.key, chain=chain, encryption=preferred)], at,
        b"" if capabilities is None else encode_capabilities(capabilities),
    )  # fmt: skip
    made = clear_signed(Entity((Field(b"Content-Type", b" text/plain"),), b"hello\r\n"), sign, "cut-here")
    head = f"From: {sender}\r\nTo: us@home.test\r\nMIME-Version: 1.0\r\n".encode()
    return head + b"".join(f.line for f in made.fields) + b"\r\n" + b"".join(made.chunks)


class Shell:
    """``postseal`` in this process with folders of its own; the root is trusted."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.config = directory / "postseal.toml"
        for name in ("anchors", "intermediates", "certificates"):
            (directory / name).mkdir()
        (directory / "anchors" / "root.pem").write_bytes(root().pem)
        self.set("")
        self._capsys = capsys

    def set(self, more: str) -> None:
        d = self.directory
        self.config.write_text(
            f'[general]\nstate_directory = "{d}/state"\nruntime_directory = "{d}/run"\n[certificates]\n'
            f'directory = "{d}/certificates"\nanchors = "{d}/anchors"\nintermediates = "{d}/intermediates"\n'
            f"[milter]\nbudget = 0\n{more or ACCEPT}"
        )

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main([*arguments[:2], "--config", str(self.config), *arguments[2:]])
        captured = self._capsys.readouterr()
        assert found == code, captured.err + captured.out
        return captured.out + captured.err

    def learn(self, *messages: bytes, code: int = 0, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        paths = []
        for number, message in enumerate(messages):
            path = self.directory / f"{number}.eml"
            path.write_bytes(message)
            paths.append(str(path))
        found: list[dict[str, Any]] = json.loads(self("cert", "learn", "--json", *options, *paths, code=code))["learnt"]
        return found

    @property
    def store(self) -> CertificateStore:
        return CertificateStore(self.directory / "state" / "certificates.sqlite")


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_certificate_and_capabilities_of_a_signed_message(shell: Shell) -> None:
    """ALG-2: stored as harvested, with the signing time; cert list and show tell it."""
    (found,) = shell.learn(mail())
    fingerprint = alice().certificate.fingerprint
    assert (found["address"], found["sha256"]) == ("alice@example.test", fingerprint)
    assert (found["new_certificate"], found["new_capabilities"]) == (True, True)
    assert found["capabilities"][0] == "aes256-gcm"
    (entry,) = shell.store.entries("alice@example.test")
    assert entry.origin is Origin.HARVESTED
    word = shell.store.remembered(ALICE)
    assert word is not None
    assert (word.capabilities, word.signed_at, word.signer) == (OURS, NOW - DAY, fingerprint)
    assert "reads aes256-gcm, aes128-gcm, " in shell("cert", "list")
    assert f"(alice@example.test, signed {NOW - DAY:%Y-%m-%d})" in shell("cert", "show", "alice@example.test")
    (again,) = shell.learn(mail())
    assert (again["new_certificate"], again["new_capabilities"]) == (False, False)


def test_the_newest_wins_and_less_is_told(shell: Shell) -> None:
    """RFC 8551 §2.7.1; what was there once stays known for the downgrade."""
    shell.learn(mail(), mail(capabilities=CBC, at=NOW - timedelta(hours=1)), mail(at=NOW - 2 * DAY))
    shown = json.loads(shell("cert", "show", "--json", "alice@example.test"))["capabilities"]["signed"][0]
    assert shown["reads"] == ["aes256-cbc"]
    assert shown["once"][0] == "aes256-gcm"
    assert "once also aes256-gcm" in shell("cert", "show", "alice@example.test")


def test_openssl_s_own_mail(shell: Shell) -> None:
    """A multipart/signed message by ``openssl cms``, kept with LF, from standard input."""
    for name, octets in (("a.pem", alice().pem), ("a.key", alice().key_pem)):
        (shell.directory / name).write_bytes(octets)
    made = subprocess.run(
        ["openssl", "cms", "-sign", "-signer", f"{shell.directory}/a.pem", "-inkey", f"{shell.directory}/a.key",
         "-from", "alice@example.test"],
        input=b"hello\n", capture_output=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    (found,) = shell.learn(made)
    assert found["fault"] == ""
    assert found["capabilities"] == ["aes256-cbc", "aes192-cbc", "aes128-cbc"]


def test_from_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(mail())))
    assert "stdin: alice@example.test: certificate " in shell("cert", "learn")


@cache
def _mallory() -> Leaf:
    other = authority("Other Root", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY)
    return other.issue("alice@example.test", slot="mallory", **VALID)


def _tampered() -> bytes:
    return mail().replace(b"hello", b"jello")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (_tampered, "is bad (sig."),
        (lambda: mail(_mallory()), "untrusted"),
        (lambda: mail(sender="Bob <bob@example.test>"), "the certificate is for alice@example.test"),
        (lambda: mail(sender="alice@example.test, bob@example.test"), "sig.no-sender"),
        (lambda: mail().partition(b"\r\n")[2], "sig.no-sender"),
        (lambda: mail(alice(crl=True)), "unknown"),
        (lambda: mail(root().issue("alice@example.test", slot="old", not_before=NOW - 90 * DAY, not_after=NOW - DAY)),
         "expired"),
        (lambda: b"From: alice@example.test\r\nSubject: x\r\n\r\nhello\r\n", "isn't sealed"),
        (lambda: b"", "empty"),
    ],
)  # fmt: skip
def test_what_isn_t_proven_teaches_nothing(shell: Shell, message: Any, words: str) -> None:
    """ALG-2: a signature that doesn't hold, a stranger's CA, another sender, an unknown status: nothing is stored."""
    (found,) = shell.learn(message(), code=1)
    assert words in found["fault"], found
    assert "alice" not in str(shell.store.entries())
    assert shell.store.remembered(ALICE) is None


def test_the_status_comes_from_the_stored_evidence(shell: Shell) -> None:
    """With a CRL on hand the same message teaches, or tells that its signer was revoked."""
    times = {"this_update": NOW - timedelta(hours=1), "next_update": NOW + DAY, "revoked_at": NOW - DAY}
    path = shell.directory / "learn.crl"
    path.write_bytes(root().crl(number=1, **times))
    shell("evidence", "import", str(path))
    (found,) = shell.learn(mail(alice(crl=True)))
    assert found["fault"] == ""
    path.write_bytes(root().crl([alice(crl=True)], number=2, **times))
    shell("evidence", "import", str(path))
    (found,) = shell.learn(mail(alice(crl=True)), code=1)
    assert "revoked" in found["fault"]


def test_an_anchor_for_this_once(shell: Shell) -> None:
    other = authority("Other Root", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY)
    path = shell.directory / "other.pem"
    path.write_bytes(other.pem)
    (found,) = shell.learn(mail(_mallory()), options=("--anchor", str(path)))
    assert found["fault"] == ""


def test_certificates_without_a_source_only_where_that_is_accepted(shell: Shell) -> None:
    """THR-19: GOOD, not unknown; "warn" is good enough for sealing, and not for learning. An anchor's own word counts."""
    for word in ("refuse", "warn"):
        shell.set(f'[revocation]\non_none_declared = "{word}"\n')
        (found,) = shell.learn(mail(), code=1)
        assert "rev.none-declared" in found["fault"]
    shell.set('[[anchor]]\ncertificate = "root.pem"\non_none_declared = "accept"\n')
    assert shell.learn(mail())[0]["fault"] == ""


def test_t12_a_second_address_in_the_certificate_is_nobody_s(shell: Shell) -> None:
    """THR-19: it counts for the address in From alone, and what is there for the victim stays, as the better origin."""
    both = x509.SubjectAlternativeName([x509.RFC822Name("mallory@example.test"), x509.RFC822Name("alice@example.test")])
    leaf = root().issue(None, slot="both", extra=[(both, False)], **VALID)
    imported = alice(crl=True)
    shell.store.add([(imported.certificate, "by hand")], NOW)
    (found,) = shell.learn(mail(leaf, sender="mallory@example.test"))
    assert found["fault"] == ""
    assert [c.certificate for c in shell.store.candidates(ALICE)] == [imported.certificate]
    assert shell.store.remembered(ALICE) is None
    (found,) = shell.learn(mail(leaf, sender="alice@example.test"))
    origins = {c.origin: c.certificate for c in shell.store.candidates(ALICE)}
    assert origins == {Origin.IMPORTED: imported.certificate, Origin.HARVESTED: leaf.certificate}
    assert list(Origin).index(Origin.IMPORTED) < list(Origin).index(Origin.HARVESTED), "the choice goes by this order"


def test_t12_another_ca_is_told(shell: Shell) -> None:
    """THR-19: kept beside what is there, with a note."""
    shell.learn(mail())
    path = shell.directory / "other.pem"
    path.write_bytes(authority("Other Root", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY).pem)
    (found,) = shell.learn(mail(_mallory()), options=("--anchor", str(path)))
    assert "from another CA, CN=Learn Root" in found["notes"][0]


@pytest.mark.parametrize(
    ("message", "note"),
    [
        (lambda: mail(capabilities=None), "doesn't say what its sender can read"),
        (lambda: mail(at=NOW + 2 * DAY), "so its list isn't used"),
    ],
)
def test_without_a_usable_list_the_certificate_is_learnt_alone(shell: Shell, message: Any, note: str) -> None:
    """RFC 8551 §2.7.1: a signing time to come would make every later word too old."""
    (found,) = shell.learn(message())
    assert found["new_certificate"]
    assert found["capabilities"] is None
    assert note in found["notes"][0]
    assert shell.store.remembered(ALICE) is None


def test_the_certificate_that_the_signer_prefers(shell: Shell) -> None:
    """RFC 8551 §2.5.3: who signs with one certificate and decrypts with another says so."""
    signing = root().issue("alice@example.test", slot="s", key_usage=usage("digital_signature"), **VALID)
    sealing = root().issue("alice@example.test", slot="e", key_usage=usage("key_encipherment"), **VALID)
    (found,) = shell.learn(mail(signing, encryption=sealing))
    assert found["sha256"] == sealing.certificate.fingerprint
    word = shell.store.remembered(ALICE)
    assert word is not None
    assert word.signer == signing.certificate.fingerprint
    strange = root().issue("mallory@example.test", slot="m", key_usage=usage("key_encipherment"), **VALID)
    (found,) = shell.learn(mail(signing, encryption=strange, at=NOW - timedelta(hours=2)))
    assert found["sha256"] == ""
    assert "can't be used to seal" in found["notes"][0]


def _forged(real: Leaf, serial: int) -> Leaf:
    """The name that the real certificate has, and everything in it, by somebody else's hand."""
    forger = authority("Learn Root", kind="p256", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY)
    return forger.issue("alice@example.test", slot=("f", serial), serial=real.certificate.serial, **VALID)


def test_a_namesake_of_the_preferred_certificate_teaches_nothing(shell: Shell) -> None:
    """THR-19: certificates stand outside of the signature, so whoever has one signed message can put others into it. Twenty of
    these would have been all that the milter looks at, none of them usable: mail in clear, where a rule allows that.
    """
    signing = root().issue("alice@example.test", slot="s2", key_usage=usage("digital_signature"), **VALID)
    sealing = root().issue("alice@example.test", slot="e2", key_usage=usage("key_encipherment"), **VALID)
    message = mail(signing, encryption=sealing)
    (found,) = shell.learn(message)
    assert found["sha256"] == sealing.certificate.fingerprint
    for number in range(2):
        forged = _forged(sealing, number).certificate
        assert (forged.issuer, forged.serial) == (sealing.certificate.issuer, sealing.certificate.serial)
        spoilt = resigned(message, sealing.certificate.der, forged.der)
        (found,) = shell.learn(spoilt)
        assert found["sha256"] == ""
        assert "can't be used to seal" in found["notes"][0]
    both = resigned(message, sealing.certificate.der, forged.der + sealing.certificate.der)
    (found,) = shell.learn(both)
    assert found["sha256"] == sealing.certificate.fingerprint, "found among namesakes"
    assert {c.certificate for c in shell.store.candidates(ALICE)} == {sealing.certificate}


def resigned(message: bytes, old: bytes, new: bytes) -> bytes:
    """The message with other certificates in its SignedData; the signature itself stays."""
    head, middle, tail = re.split(rb"(?s)(?<=smime.p7s\r\n\r\n)(.*?)(?=\r\n--cut-here--)", message, maxsplit=1)
    top = Cursor(b64decode(middle)).enter()
    kind = top.raw()
    signed = top.enter(context(0)).enter()
    front = b"".join(signed.raw() for _ in range(3))
    certificates = signed.content(context(0)).replace(old, new)
    body = tlv(SEQUENCE, front, tlv(context(0), certificates), signed.raw())
    return head + encodebytes(tlv(SEQUENCE, kind, tlv(context(0), body))).replace(b"\n", b"\r\n").rstrip() + tail


def test_a_file_that_cannot_be_read_keeps_nobody_from_learning(shell: Shell) -> None:
    """What was learnt from the others is stored, so it is told too."""
    nowhere = str(shell.directory / "nowhere.eml")
    good = shell.directory / "good.eml"
    good.write_bytes(mail())
    found = json.loads(shell("cert", "learn", "--json", nowhere, str(good), code=1))["learnt"]
    assert found[0] == {"source": nowhere, "fault": "No such file or directory"}
    assert (found[1]["fault"], found[1]["new_certificate"]) == ("", True)
