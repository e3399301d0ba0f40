"""How long mail has been waiting for a certificate's status: the store behind it, and what a message does with it."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from postseal.app.seal import Accept, Edits, Reply
from postseal.core.errors import Unavailable
from postseal.sources.doubts import DoubtStore
from support.mailworld import World
from support.pki import NOW

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GIVE_UP = 24 * HOUR
A, B = "a" * 64, "b" * 64
ALICE, BOB = "alice@example.test", "bob@example.test"


@pytest.fixture
def store(tmp_path: Path) -> DoubtStore:
    return DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP)


def test_the_first_moment_counts(store: DoubtStore) -> None:
    """Per recipient and certificate, however often the client tries again."""
    assert store.since(ALICE, [A, B], NOW) == ()
    for hours in (0, 1, 20):
        store.note(ALICE, [A], NOW + hours * HOUR)
    store.note(ALICE, [B], NOW + 2 * HOUR)
    assert dict(store.since(ALICE, [A, B], NOW + 21 * HOUR)) == {A: NOW, B: NOW + 2 * HOUR}
    assert store.since(BOB, [A, B], NOW + 21 * HOUR) == ()


def test_it_survives_a_restart_and_is_shared(store: DoubtStore, tmp_path: Path) -> None:
    """Other workers see it at once, whether they have looked before or not, and so does the next process."""
    other = DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP)
    reader = DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP, readonly=True)
    assert other.since(ALICE, [A], NOW) == reader.since(ALICE, [A], NOW) == ()
    store.note(ALICE, [A], NOW)
    for each in (store, other, reader, DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP)):
        assert each.since(ALICE, [A], NOW + HOUR) == ((A, NOW),)
    other.clear(ALICE, [A])
    for each in (store, other, reader):
        assert each.since(ALICE, [A], NOW + HOUR) == ()
    with pytest.raises(Unavailable, match="reading only"):
        reader.note(ALICE, [A], NOW)


@pytest.mark.parametrize(("give_up", "remembered"), [(HOUR, DAY), (3 * DAY, 3 * DAY)])
def test_old_doubt_is_over(give_up: timedelta, remembered: timedelta, tmp_path: Path) -> None:
    """A client that stays away for longer has given up itself; the next doubt is another one, and begins anew."""
    store = DoubtStore(tmp_path / "doubts.sqlite", give_up)
    store.note(ALICE, [A], NOW)
    assert store.since(ALICE, [A], NOW + remembered) == ((A, NOW),)
    after = NOW + remembered + HOUR
    assert store.since(ALICE, [A], after) == ()
    store.note(ALICE, [A], after)
    assert store.since(ALICE, [A], after) == ((A, after),)


def test_a_clock_that_was_ahead_does_no_harm(store: DoubtStore) -> None:
    """What was noted in the future is as if it had never been."""
    store.note(ALICE, [A], NOW + 300 * DAY)
    store.note(ALICE, [B], NOW)
    store.note(ALICE, [A], NOW)
    assert dict(store.since(ALICE, [A, B], NOW)) == {A: NOW, B: NOW}


def test_many_workers_at_once(tmp_path: Path) -> None:
    """The first note wins, none is lost."""

    def work(number: int) -> None:
        mine = DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP)
        for turn in range(5):
            mine.note(f"user{turn}@example.test", [A], NOW + number * timedelta(seconds=1))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP)
    assert all(store.since(f"user{n}@example.test", [A], NOW + HOUR) for n in range(5))


def test_damage_is_one_sentence_and_the_next_note_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "doubts.sqlite"
    first = DoubtStore(file, GIVE_UP)
    first.note(ALICE, [A], NOW)
    first.close()
    file.write_bytes(b"no database" * 1000)
    store = DoubtStore(file, GIVE_UP)
    with pytest.raises(Unavailable, match=f"the store of doubts {file}: file is not a database"):
        store.since(ALICE, [A], NOW)
    store.note(ALICE, [B], NOW)
    assert store.since(ALICE, [A, B], NOW) == ((B, NOW),)


# --- through a message

MESSAGE = b"From: a@home.test\r\nSubject: hello\r\n\r\nplain words\r\n"
TO = "<b@example.test>"
STRICT = {"name": "all", "seal": "may", "without_certificate": "clear", "revocation": "strict"}


@pytest.fixture
def world(store: DoubtStore) -> World:
    """b has a certificate whose CRL nobody can fetch; the rule is strict, and would let mail without certificate pass."""
    made = World(policy=[STRICT], budget=0.0)
    made.add("b@example.test")
    made.doubts = store
    return made


def reply(world: World) -> Reply:
    outcome, _ = world.send([TO], MESSAGE)
    assert isinstance(outcome, Reply), outcome
    return outcome


def test_t06_a_message_in_doubt(world: World, tmp_path: Path) -> None:
    """T-6, RPL-6: 451 for a day, over a restart, then 550; never clear. A CRL ends it, and the next doubt begins anew."""
    for hours in (0, 1, 13, 23.9):
        world.clock.later = hours * HOUR
        assert (reply(world).code, reply(world).enhanced) == (451, "4.7.5")
    world.doubts = DoubtStore(tmp_path / "doubts.sqlite", GIVE_UP)
    world.clock.later = 24 * HOUR
    refused = reply(world)
    assert (refused.code, refused.enhanced) == (550, "5.7.5")
    assert "for as long as give_up allows" in refused.text
    assert "refused (revocation=strict, give_up)" in world.log.text
    assert "2026-06-01 12:00 UTC" in world.log.text
    world.publish()
    assert isinstance(world.send([TO], MESSAGE)[0], Edits)
    world.stored = ()
    world.changes += 1
    assert reply(world).code == 451
    assert world.listener.sent == []


def test_t06_soft_seals_and_warns(world: World) -> None:
    """T-6: with certificate, URL and cause; the memory isn't touched."""
    world.settings = World(policy=[{**STRICT, "revocation": "soft"}], budget=0.0).settings
    world.clock.later = 300 * DAY - 1 * DAY
    outcome, _ = world.send([TO], MESSAGE)
    assert isinstance(outcome, Edits)
    assert "nothing fetched yet from http://" in world.log.text
    assert "; certificate sha256:" in world.log.text
    assert world.doubts is not None
    assert world.doubts.since("b@example.test", list(fingerprints(world)), world.clock.now()) == ()


def fingerprints(world: World) -> set[str]:
    return {c.fingerprint for c in world.known["b@example.test"]}


def test_the_other_recipients_wait_too_but_are_in_no_doubt(world: World) -> None:
    """A message is accepted for all or for none; only who is in doubt is noted."""
    outcome, _ = world.send([TO, "<nobody@example.test>"], MESSAGE)
    assert isinstance(outcome, Reply)
    assert world.doubts is not None
    assert world.doubts.since("b@example.test", list(fingerprints(world)), world.clock.now()) != ()
    assert world.doubts.since("nobody@example.test", list(fingerprints(world)), world.clock.now()) == ()


def test_without_memory_mail_waits_all_the_same(world: World, tmp_path: Path) -> None:
    """A broken store is an error in the log; it neither loses mail nor lets it pass."""
    world.doubts = DoubtStore(tmp_path, GIVE_UP)
    for hours in (0, 48):
        world.clock.later = hours * HOUR
        assert reply(world).code == 451
    assert "error: can't note since when mail waits: the store of doubts" in world.log.text
    world.publish()
    assert isinstance(world.send([TO], MESSAGE)[0], Edits | Accept | Reply)


def test_looking_leaves_no_trace(store: DoubtStore) -> None:
    """Where nothing was ever in doubt there is no file."""
    assert store.since(ALICE, [A], NOW) == ()
    assert list(store._path.parent.iterdir()) == []
