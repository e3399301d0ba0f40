"""The journal: lines exactly as documented, records complete, and no failure of either reaches mail."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from postseal.app.journal import Journal
from postseal.config import Config
from postseal.core.errors import Unavailable
from postseal.core.plan import Plan, deferred
from postseal.core.policy import MessageFacts, Protection, RecipientFacts, Rule, decide
from postseal.core.record import DecisionRecord, record_of
from postseal.sources.clock import SystemClock
from postseal.sources.decisions import DecisionStore
from support.facts import (
    ALICE,
    ALICE_OLD,
    FORGED,
    GOOD,
    MESSAGE,
    REVOKED,
    SENDER,
    UNREACHABLE,
    assessed,
    recipient,
    rules,
    without_path,
)
from support.pki import NOW

CERT = f"sha256:{ALICE.fingerprint[:16]}"


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Mapping[str, str]]] = []

    def info(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.lines.append(("info", text, fields or {}))

    def warning(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.lines.append(("warning", text, fields or {}))

    def error(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.lines.append(("error", text, fields or {}))

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(kind, text) for kind, text, _ in self.lines]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DecisionStore]:
    made = DecisionStore(tmp_path / "state" / "decisions.sqlite")
    yield made
    made.close()


def write(
    people: Sequence[RecipientFacts],
    rule: tuple[Rule, ...],
    *,
    store: DecisionStore | None = None,
    message: MessageFacts = MESSAGE,
    plan: Plan | None = None,
    sender: str = "<boss@corp.example>",
    note: str = "",
    queue_id: str = "4XyZ",
    at: datetime = NOW,
) -> Lines:
    log = Lines()
    journal = Journal(log, store, SystemClock())
    plan = plan or decide(message, people, rule, NOW)
    journal.record(queue_id, sender, message, people, plan, at=at, delay=0.0042, note=note)
    journal.close()
    return log


def test_the_line_of_a_sealed_recipient() -> None:
    log = write([recipient(assessed(GOOD))], rules())
    assert log.texts == [
        (
            "info",
            "4XyZ: to=<alice@example.test>, from=<boss@corp.example>, action=sealed, reason=ok.sealed, "
            f"cert={CERT}, cipher=aes256-cbc, key=pkcs1, revocation=crl/good, age=1200s, rule=r, delay=0.004",
        )
    ]


def test_the_warning_of_an_unknown_status() -> None:
    """Two lines: what was done, and the cause with certificate and URL at priority warning."""
    log = write([recipient(assessed(UNREACHABLE))], rules())
    (_, line, _), (kind, warning, fields) = log.lines
    assert "action=sealed" in line
    assert "revocation=unreachable/unknown, rule=r" in line
    assert kind == "warning"
    assert warning == (
        "4XyZ: to=<alice@example.test>: revocation status unknown: Could not retrieve URL http://ca.example/x.crl: "
        f"connection refused; certificate {CERT}; sealed anyway (revocation=soft)"
    )
    assert (fields["WARNING_CODE"], fields["RECIPIENT"]) == ("rev.unreachable", "alice@example.test")
    assert fields["CERTIFICATE"] == ALICE.fingerprint


def test_suspicious_evidence_is_an_error_line() -> None:
    assert [kind for kind, _ in write([recipient(assessed(FORGED))], rules()).texts] == ["info", "error"]


def test_a_status_of_a_ca_certificate_is_told_apart() -> None:
    log = write([recipient(assessed(GOOD, UNREACHABLE))], rules())
    assert "revocation=unreachable/unknown" in log.texts[0][1]
    assert "; CA certificate sha256:" in log.texts[1][1]


def test_refused_deferred_and_held_recipients_have_a_warning_with_the_cause() -> None:
    refused = write([recipient()], rules(seal="must")).texts
    assert refused == [
        ("info", "4XyZ: to=<alice@example.test>, from=<boss@corp.example>, action=refused, reason=rcpt.no-certificate, "
                 "rule=r, delay=0.004"),
        ("warning", "4XyZ: to=<alice@example.test>: no certificate for the recipient is known; refused"),
    ]  # fmt: skip
    down = write([recipient(directory_error="disk I/O error")], rules()).texts[1]
    assert down == (
        "error",
        "4XyZ: to=<alice@example.test>: the recipients' certificates can't be read now: disk I/O error; deferred",
    )
    held = write([recipient(assessed(REVOKED))], rules(seal="must", without_certificate="hold")).texts
    assert "action=held, reason=rcpt.held" in held[0][1]
    assert held[1][1].endswith("not used, held (without_certificate=hold)")


def test_nobody_is_said_to_be_sealed_in_a_message_that_was_refused() -> None:
    """The plan sealed for alice, but bob's refusal refused the message: the log says what happened."""
    people = [recipient(assessed(GOOD)), recipient(address="bob@must.example")]
    rule = Config.default(policy=[{"name": "m", "recipients": ["must.example"], "seal": "must"}]).rules
    kinds = write(people, rule).texts
    assert (
        "to=<alice@example.test>, from=<boss@corp.example>, action=refused, reason=rcpt.with-others, rule=default"
        in kinds[0][1]
    )
    assert len(kinds) == 3, "alice's line needs no warning of its own"


def test_mail_that_passes_says_why() -> None:
    log = write([recipient(internal=True)], rules())
    assert log.texts == [
        (
            "info",
            "4XyZ: to=<alice@example.test>, from=<boss@corp.example>, action=clear, reason=ok.internal, delay=0.004",
        )
    ]
    encrypted = write([recipient()], rules(), message=MessageFacts(SENDER, Protection.ENCRYPTED), note="by the sender")
    assert encrypted.texts[0][1].endswith('reason=ok.already-encrypted, delay=0.004, note="by the sender"')


def test_a_failure_of_the_system_is_an_error_line() -> None:
    log = write(
        [recipient()], rules(), plan=deferred(["<alice@example.test>"], "sys.internal-error", "OSError: disk\nfull")
    )
    assert log.texts[1] == (
        "error",
        "4XyZ: to=<alice@example.test>: an internal error; the mail log has more: OSError: disk\\x0afull; deferred",
    )


def test_hostile_addresses_and_queue_ids_are_escaped() -> None:
    evil = RecipientFacts("<a>, action=sealed\r\n@x\u202e>", None, False)
    log = write([evil], rules(), sender="<s\x1b@x>", queue_id="4X\nY")
    for _, text, fields in log.lines:
        assert text.isascii()
        assert text.isprintable()
        assert all(v.isascii() and v.isprintable() for v in fields.values())
    assert log.texts[0][1].startswith(
        "4X\\x0aY: to=<a\\x3e\\x2c\\x20action=sealed\\x0d\\x0a@x\\u202e>, from=<s\\x1b@x>, action=refused"
    )


# --- records


def test_a_record_holds_everything_for_the_tree(store: DecisionStore) -> None:
    """Every candidate with its fate, the path, the verdicts with sources and times, the rule."""
    people = [recipient(assessed(GOOD), assessed(REVOKED, certificate=ALICE_OLD), without_path())]
    write(people, rules(), store=store, note="n")
    (record,) = store.find(queue_id="4XyZ")
    assert (record.at, record.sender, record.recipient) == (NOW, "boss@corp.example", "alice@example.test")
    assert (record.action, record.reason, record.rule) == ("sealed", "ok.sealed", "r")
    used, pathless, revoked = record.details["candidates"]
    assert used["used"] is True
    assert used["path"][0]["sha256"] == ALICE.fingerprint
    assert len(used["path"]) == 3, "leaf, CA and anchor"
    assert used["verdicts"][0]["source"] == "http://ca.example/x.crl"
    assert used["verdicts"][0]["this_update"] == "2026-06-01T11:40:00+00:00"
    assert revoked["verdicts"][0]["revocation_reason"] == "keyCompromise"
    assert (revoked["used"], pathless["used"]) == (False, False)
    assert revoked["why_not"].startswith("revoked")
    assert pathless["fault"]["code"] == "path.no-anchor"
    assert record.details["note"] == "n"
    json.dumps(record.details)


def test_records_are_found_by_addresses_newest_first(store: DecisionStore) -> None:
    people = [recipient(address="Bob@X.example"), recipient(address="c@x.example")]
    for number in range(3):
        write(people, rules(), store=store, queue_id=f"Q{number}", at=NOW + timedelta(seconds=number))
    assert [r.queue_id for r in store.find(recipient="bob@x.example", sender="boss@corp.example")] == ["Q2", "Q1", "Q0"]
    assert store.find(recipient="nobody@x.example") == ()
    assert [r.recipient for r in store.find(queue_id="Q1")] == ["bob@x.example", "c@x.example"]
    assert len(store.find(limit=4)) == 4


def records(number: int, at: datetime = NOW) -> list[DecisionRecord]:
    (decision,) = decide(MESSAGE, [recipient()], rules(), NOW).decisions
    return [record_of(f"Q{n}", "<>", MESSAGE, None, decision, at=at, delay=0, note="") for n in range(number)]


def test_old_records_are_pruned_while_writing(tmp_path: Path) -> None:
    store = DecisionStore(tmp_path / "d.sqlite", timedelta(days=2))
    for day in range(4):
        store.add(records(1, NOW + timedelta(days=day)))
        store.close()
    assert [r.at for r in store.find()] == [NOW + timedelta(days=d) for d in (3, 2, 1)]
    assert store.prune(NOW + timedelta(days=3)) == 2


def test_keeping_nothing_makes_no_database(tmp_path: Path) -> None:
    store = DecisionStore(tmp_path / "d.sqlite", timedelta(0))
    store.add(records(1))
    store.close()
    assert not (tmp_path / "d.sqlite").exists()


def test_octets_that_are_not_utf8_can_be_stored(store: DecisionStore) -> None:
    """The MTA hands us whatever the client sent."""
    raw = b"<caf\xe9@x.example>".decode("utf-8", "surrogateescape")
    write([RecipientFacts(raw, None, False)], rules(), store=store)
    (record,) = store.find()
    assert record.recipient == "caf\\udce9@x.example"


def test_every_forked_worker_writes_its_own_records(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Threads don't survive a fork, and all make the database at the same moment; nothing is lost."""
    store = DecisionStore(tmp_path / "state" / "d.sqlite", on_error=lambda text: print(text, flush=True))
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            store.add(records(5))
            store.close()
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert capfd.readouterr().out == ""
    assert len(store.find(limit=1000)) == 20


def test_a_locked_database_does_not_hold_up_mail(tmp_path: Path) -> None:
    """Another process holds the write lock: adding returns at once, and the records arrive when it lets go."""
    path = tmp_path / "d.sqlite"
    store = DecisionStore(path)
    store.add(records(1))
    store.close()
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    began = SystemClock().monotonic()
    log = write([recipient(address=f"u{n}@x.example") for n in range(3)], rules(), store=None)
    store.add(records(3))
    assert SystemClock().monotonic() - began < 0.5
    assert [kind for kind, _ in log.texts] == ["info"] * 3
    lock.execute("COMMIT")
    lock.close()
    store.close()
    assert len(store.find()) == 4


def test_records_that_cannot_be_written_are_told_and_nothing_else_happens(tmp_path: Path) -> None:
    """The state directory is a file: the error is one sentence, the journal goes on."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    errors: list[str] = []
    store = DecisionStore(blocked / "d.sqlite", on_error=errors.append)
    log = write([recipient()], rules(), store=store)
    assert [kind for kind, _ in log.texts] == ["info"]
    assert len(errors) == 1
    assert errors[0].startswith("1 decision records are lost: ")
    assert "\n" not in errors[0]
    with pytest.raises(Unavailable):
        store.find()


def test_a_store_that_refuses_is_logged() -> None:
    class Full:
        def add(self, records: Sequence[DecisionRecord]) -> None:
            raise Unavailable("too slow")

        def close(self) -> None:
            return

    log = Lines()
    people = [recipient()]
    Journal(log, Full(), SystemClock()).record(
        "4XyZ", "<>", MESSAGE, people, decide(MESSAGE, people, rules(), NOW), at=NOW, delay=0
    )
    assert log.texts[-1] == ("error", "4XyZ: no decision record: too slow")


def test_facts_that_break_every_promise_never_reach_the_caller() -> None:
    broken = decide(MESSAGE, [recipient(assessed(GOOD))], rules(), NOW)
    log = Lines()
    Journal(log, None, SystemClock()).record(
        "4XyZ", "<>", MESSAGE, [], broken, at="yesterday", delay=0  # type: ignore[arg-type]
    )  # fmt: skip
    assert log.texts[-1][0] == "error"
    assert "can't write the log lines: TypeError" in log.texts[-1][1]


def test_times_survive_the_database(store: DecisionStore) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    store.add(records(1, at))
    store.close()
    assert store.find()[0].at == at
