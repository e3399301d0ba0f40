"""Which cipher a message gets in the milter: by capabilities, by pack, by what was foreseen (ALG-2 to ALG-5)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
from cryptography import x509

from postseal.app.content import Content
from postseal.app.seal import Accept, Edits, Outcome, Reply
from postseal.core.assess import Candidate, Origin
from postseal.core.capabilities import EXTENSION, Capability, encode_capabilities
from postseal.core.ciphers import Remembered
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.cms.structures import SUITE_OID
from postseal.core.crl import parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import CrlEvidence
from postseal.core.policy import clear_by_operator
from postseal.core.suite import Suite
from postseal.sources.spool import Spool
from support.mailworld import CRL_URL, World, edited
from support.pki import NOW, authority

MESSAGE = b"From: a@home.test\r\nTo: b@example.test\r\nSubject: hello\r\n\r\nbody\r\n"
B, C = "<b@example.test>", "<c@example.test>"
GCM = (Capability(SUITE_OID[Suite.AES_256_GCM].dotted_string), Capability(SUITE_OID[Suite.AES_256_CBC].dotted_string))
LISTED = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(EXTENSION), encode_capabilities(GCM)), False)]


def made(*rule: dict[str, Any], people: Sequence[str] = ("b@example.test", "c@example.test")) -> World:
    """b's certificate lists AES-GCM, c's lists nothing."""
    world = World(policy=list(rule)) if rule else World()
    for mailbox in people:
        world.add(mailbox, extra=LISTED if mailbox.startswith("b@") else [])
    world.publish()
    return world


def word(*capabilities: Capability, signer: str = "ab" * 32, best: Sequence[Suite] = ()) -> Remembered:
    return Remembered(capabilities, NOW - timedelta(days=2), signer, NOW - timedelta(days=1), frozenset(best))


def kind(outcome: Outcome) -> str:
    """enveloped-data is CBC, authEnveloped-data is GCM."""
    assert isinstance(outcome, Edits), outcome
    return str(message_from_bytes(edited(MESSAGE, outcome)).get_param("smime-type"))


def test_gcm_by_the_certificate_s_extension() -> None:
    """ALG-2, ALG-3: the line says so, and the record from whose word."""
    world = made()
    outcome, _ = world.send([B], MESSAGE)
    assert isinstance(outcome, Edits)
    whole = edited(MESSAGE, outcome)
    assert message_from_bytes(whole).get_param("smime-type") == "authEnveloped-data"
    assert world.open("b@example.test", whole.partition(b"\r\n\r\n")[2]).endswith(b"body\r\n")
    assert "cipher=aes256-gcm, key=pkcs1, capabilities=certificate, revocation=" in world.log.text
    details = world.records.kept[0].details
    assert (details["cipher"], details["key_transport"], details["capabilities_from"]) == (
        "aes256-gcm", "pkcs1", "certificate",
    )  # fmt: skip
    assert details["cipher_why"].startswith("aes256-gcm because the recipient reads it (extension of the certificate)")
    assert kind(world.send([C], MESSAGE)[0]) == "enveloped-data"


def test_a_signed_word_is_remembered_and_can_fall() -> None:
    """ALG-2: it comes before the extension; what is less than once is an error in the log, and mail is sealed all the same."""
    world = made()
    world.words["c@example.test"] = word(*GCM, best=(Suite.AES_256_GCM,))
    assert kind(world.send([C], MESSAGE)[0]) == "authEnveloped-data"
    assert "capabilities=signed" in world.log.text
    world.words["c@example.test"] = word(GCM[1], signer="cd" * 32, best=(Suite.AES_256_GCM,))
    assert kind(world.send([C], MESSAGE)[0]) == "enveloped-data"
    errors = [line for line in world.log.lines if "once said" in line]
    assert len(errors) == 1
    assert "sealed with aes256-cbc, though the recipient once said that it reads aes256-gcm" in errors[0]
    assert world.records.kept[-1].details["warnings"][0]["code"] == "cipher.downgrade"
    assert world.records.kept[-1].details["warnings"][0]["error"] is True


def test_the_word_of_a_revoked_signer_is_nothing() -> None:
    """ALG-2: the certificate that signed it has been revoked since."""
    world = made(people=["b@example.test", "c@example.test"])
    old = world.leaves["c@example.test"]
    world.add("c@example.test")
    world.words["c@example.test"] = word(*GCM, signer=old.certificate.fingerprint)
    assert kind(world.send([C], MESSAGE)[0]) == "authEnveloped-data"
    der = world.root.crl([old.certificate.serial])
    world.stored = (CrlEvidence(parse_crl(der), CRL_URL, NOW),)
    world.changes += 1
    assert kind(world.send([C], MESSAGE)[0]) == "enveloped-data"


def test_each_gets_his_own_where_there_can_be_copies() -> None:
    """ALG-3: GCM for b, CBC for c; without a listener for copies one suite that suits both."""
    world = made()
    outcome, _ = world.send([B, C], MESSAGE)
    assert isinstance(outcome, Edits)
    assert len(world.listener.sent) == 1
    assert {kind(outcome), message_from_bytes(world.listener.sent[0][2]).get_param("smime-type")} == {
        "enveloped-data", "authEnveloped-data",
    }  # fmt: skip
    alone = made()
    alone.reinject = False
    outcome, _ = alone.send([B, C], MESSAGE)
    assert kind(outcome) == "enveloped-data"
    assert alone.log.text.count("cipher=aes256-cbc") == 2
    why = [r.details["cipher_why"] for r in alone.records.kept]
    assert why[0].startswith("aes256-cbc instead of aes256-gcm, so that one copy suits all recipients; ")


def test_no_cipher_in_common_is_what_several_outcomes_are() -> None:
    """ALG-3: a rule of GCM alone for one and CBC alone for the other can't share a copy."""
    world = made(
        {"name": "one", "recipients": ["b@example.test"], "floor": "aes128-gcm"},
        {"name": "other", "ceiling": "aes256-cbc"},
    )
    world.reinject = False
    outcome, _ = world.send([B, C], MESSAGE)
    assert isinstance(outcome, Reply)
    assert "no listener" in outcome.text


@pytest.mark.parametrize(
    ("rule", "code", "action"),
    [
        ({"seal": "may"}, 550, "refused"),
        ({"seal": "may", "without_certificate": "clear"}, 550, "refused"),
        ({"seal": "may", "without_certificate": "defer"}, 451, "deferred"),
        ({"seal": "must"}, 550, "refused"),
        ({"seal": "must", "without_certificate": "defer"}, 451, "deferred"),
    ],
)
def test_where_no_cipher_fits_nothing_goes_in_clear(rule: dict[str, str], code: int, action: str) -> None:
    """RFC 8551 §2.7.3: the floor holds for clear text too, whatever without_certificate says; answered at RCPT already."""
    world = made({"name": "all", "floor": "aes128-gcm", **rule})
    _, refused = world.send([C], MESSAGE)
    assert refused[C].code == code
    assert "no cipher that the rule allows suits the recipient" in refused[C].text
    assert f"action={action}, reason=rcpt.no-cipher" in world.log.text
    assert "isn't known to read that" in world.log.text
    assert kind(world.send([B], MESSAGE)[0]) == "authEnveloped-data"


def test_where_no_cipher_fits_mail_can_be_held_or_never_sealed() -> None:
    held = made({"name": "all", "floor": "aes128-gcm", "seal": "must", "without_certificate": "hold"})
    outcome, _ = held.send([C], MESSAGE)
    assert isinstance(outcome, Accept)
    assert "isn't known to read" in outcome.hold
    never = made({"name": "all", "floor": "aes128-gcm", "seal": "never"})
    assert never.send([C], MESSAGE)[0] == Accept()


def test_another_certificate_may_fit() -> None:
    """The best certificate has no word for it, the next one has: policy takes the first that fits."""
    world = made({"name": "all", "floor": "aes128-gcm"}, people=[])
    world.add("b@example.test", not_before=NOW - timedelta(days=1))
    fitting = world.add("b@example.test", extra=LISTED, not_before=NOW - timedelta(days=20))
    world.publish()
    assert kind(world.send([B], MESSAGE)[0]) == "authEnveloped-data"
    assert f"cert=sha256:{fitting.certificate.fingerprint[:16]}" in world.log.text


def test_a_suite_that_was_not_foreseen_is_made_from_our_own_ciphertext(monkeypatch: pytest.MonkeyPatch) -> None:
    """ALG-5: a fresh key and nonce; what is opened is the same to the octet."""
    made_for: list[Sequence[Suite]] = []
    begin = Content.__init__

    def spy(self: Content, suites: Sequence[Suite], *rest: Any) -> None:
        made_for.append(tuple(suites))
        begin(self, suites, *rest)

    monkeypatch.setattr(Content, "__init__", spy)
    world = made({"name": "all", "revocation": "strict", "without_certificate": "refuse"})
    world.stored = ()
    world.changes += 1

    def arrive(future: Future[None]) -> None:
        world.publish()
        future.set_result(None)

    world.on_ask = arrive
    world.words["c@example.test"] = word()
    job = world.job()
    assert job.recipient(C) is None
    job.header(b"Subject", b" x")
    assert job.end_of_headers() is None
    body = bytes(octet for octet in range(256) if octet not in b"\r\n") * 700
    job.body(body)
    # Between the header and the end the correspondent's word arrives.
    world.words["c@example.test"] = word(*GCM, signer="cd" * 32)
    outcome = job.finish(lambda: None)
    assert isinstance(outcome, Edits)
    assert world.open("c@example.test", b"".join(outcome.blocks)).endswith(body)
    job.sent()
    job.close()
    assert made_for == [(Suite.AES_256_CBC,)]
    assert "cipher=aes256-gcm" in world.log.text


def test_only_what_is_needed_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One recipient, one stream: also when the rule's usual suite is another."""
    seen: list[Sequence[Suite]] = []
    begin = Content.__init__

    def spy(self: Content, suites: Sequence[Suite], *rest: Any) -> None:
        seen.append(tuple(suites))
        begin(self, suites, *rest)

    monkeypatch.setattr(Content, "__init__", spy)
    world = made()
    world.send([B], MESSAGE)
    world.send([B, C], MESSAGE)
    assert seen == [(Suite.AES_256_GCM,), (Suite.AES_256_GCM, Suite.AES_256_CBC)]


def test_what_could_not_be_encrypted_again_is_never_taken_for_the_whole() -> None:
    """ALG-5, THR-14: the disk was full on the way; asked once more, it begins anew."""
    spools: list[Spool] = []

    class Full(Spool):
        """The second one takes nothing but the first octets."""

        def append(self, data: bytes) -> None:
            if spools.index(self) == 1 and self.size:
                raise Unavailable("disk full")
            super().append(data)

    def new() -> Spool:
        spools.append(Full(100, Path(gettempdir())))
        return spools[-1]

    content = Content([Suite.AES_256_CBC], new, b"\r\n")
    for _ in range(4):
        content.update(b"x" * 5000)
    content.finish()
    leaf = authority("Root").issue("b@example.test")
    people = [clear_by_operator(leaf.certificate)]
    with pytest.raises(Unavailable):
        content.sealed(Suite.AES_128_CBC, people)
    assert spools[1].size == 0, "closed"
    form = content.sealed(Suite.AES_128_CBC, people)
    der = b64decode(b"".join(form.body()))
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"\r\n" + b"x" * 20_000
    content.close()


def test_one_certificate_for_two_addresses_is_one_recipient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is pinned for one of them: the key isn't encrypted twice for the same owner."""
    world = made(people=[])
    both = x509.SubjectAlternativeName([x509.RFC822Name("b@example.test"), x509.RFC822Name("c@example.test")])
    leaf = world.root.issue(None, slot="both", crl_urls=[CRL_URL], extra=[(both, False)])
    world.leaves["b@example.test"] = leaf
    world.publish()
    pinned = {"b@example.test": Origin.PIN, "c@example.test": Origin.IMPORTED}
    monkeypatch.setattr(
        world, "candidates", lambda mailbox: (Candidate(leaf.certificate, pinned[str(mailbox)], "memory"),)
    )
    outcome, _ = world.send([B, C], MESSAGE)
    assert isinstance(outcome, Edits)
    body = b"".join(outcome.blocks)
    assert world.open("b@example.test", body).endswith(b"body\r\n")
    assert len(parse_enveloped(b64decode(body)).recipients) == 1


def test_a_disk_that_is_full_from_the_start_costs_no_file(tmp_path: Path) -> None:
    """A header that can't be kept: what was opened for it is closed, or the process would run out of files."""
    made: list[Spool] = []

    class Full(Spool):
        def _write(self, data: bytes) -> None:
            raise Unavailable("disk full")

    def new() -> Spool:
        made.append(Full(0, tmp_path))
        return made[-1]

    with pytest.raises(Unavailable):
        Content([Suite.AES_256_CBC, Suite.AES_256_GCM], new, b"Content-Type: text/plain\r\n\r\n")
    assert [spool.in_file for spool in made] == [False, False]
