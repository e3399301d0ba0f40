"""What correspondents said that they can read, in the certificate store (ALG-2): real SQLite."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from postseal.core.address import parse_mailbox
from postseal.core.capabilities import OURS, SUITE_OIDS, Capability, oaep_capability
from postseal.core.ciphers import Remembered
from postseal.core.errors import Unavailable
from postseal.core.suite import Suite
from postseal.sources.directory.store import CertificateStore
from support.pki import NOW, authority

ALICE = parse_mailbox("Alice@example.test")
CBC = (Capability(SUITE_OIDS[Suite.AES_256_CBC]),)
GCM = (Capability(SUITE_OIDS[Suite.AES_256_GCM]), oaep_capability("sha256"), *CBC)


class Clock:
    """Each look is a second later, so that the store looks again."""

    seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "certificates.sqlite"


def word(capabilities: tuple[Capability, ...], days_ago: int, signer: str = "ab" * 32) -> Remembered:
    return Remembered(capabilities, NOW - timedelta(days=days_ago), signer, NOW)


def test_the_newest_signing_time_wins_and_the_best_stays_known(path: Path) -> None:
    """RFC 8551 §2.7.1: whatever the order in which messages are shown; what was ever listed is added up."""
    store, reader = CertificateStore(path, Clock()), CertificateStore(path, Clock())
    assert reader.remembered(ALICE) is None
    assert store.learn(ALICE, word(CBC, 5))
    assert reader.remembered(ALICE) == replace(word(CBC, 5), best=frozenset({Suite.AES_256_CBC}))
    assert not store.learn(ALICE, word(GCM, 9, "cd" * 32)), "an older message tells what once was, and no more"
    kept = reader.remembered(parse_mailbox("alice@EXAMPLE.test"))
    assert kept is not None
    assert (kept.capabilities, kept.signer) == (CBC, "ab" * 32)
    assert (kept.best, kept.oaep) == ({Suite.AES_256_CBC, Suite.AES_256_GCM}, True)
    assert not store.learn(ALICE, word(OURS, 5)), "the same second isn't newer"
    assert store.learn(ALICE, word(OURS, 1))
    kept = reader.remembered(ALICE)
    assert kept is not None
    assert (kept.capabilities, kept.best) == (OURS, set(Suite))
    assert reader.remembered(parse_mailbox("bob@example.test")) is None


def test_without_the_signer_s_certificate_its_word_is_forgotten(path: Path) -> None:
    store = CertificateStore(path, Clock())
    leaf = authority("Memory Root").issue("alice@example.test")
    store.add([(leaf.certificate, "test")], NOW)
    store.learn(ALICE, word(CBC, 1, leaf.certificate.fingerprint))
    assert store.remembered(ALICE) is not None
    assert store.remove(leaf.certificate.fingerprint)
    assert store.remembered(ALICE) is None


def test_a_store_of_an_earlier_version_has_nothing_to_say(path: Path) -> None:
    """The milter only reads; it must not fail because nobody has learnt anything yet."""
    store = CertificateStore(path, Clock())
    leaf = authority("Memory Root").issue("alice@example.test")
    store.add([(leaf.certificate, "test")], NOW)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE capabilities")
    reader = CertificateStore(path, Clock())
    assert reader.remembered(ALICE) is None
    assert len(reader.candidates(ALICE)) == 1
    later = CertificateStore(path, Clock())
    assert later.learn(ALICE, word(CBC, 1))
    assert reader.remembered(ALICE) is not None


def test_damage_of_one_entry_costs_that_entry(path: Path) -> None:
    store = CertificateStore(path, Clock())
    store.learn(ALICE, word(CBC, 1))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE capabilities SET der = x'3005'")
    assert CertificateStore(path, Clock()).remembered(ALICE) is None


def test_a_store_that_is_rubbish_is_unavailable(path: Path) -> None:
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(Unavailable, match="certificate store"):
        CertificateStore(path, Clock()).remembered(ALICE)
