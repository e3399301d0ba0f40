"""``postseal explain``: the tree that answers "why wasn't this message sealed?"."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from postseal.core.assess import Finding
from postseal.core.explain import drawn, tree
from postseal.core.policy import MessageFacts, RecipientFacts, decide
from postseal.core.record import record_of
from postseal.shell.cli.main import main
from postseal.sources.decisions import DecisionStore
from support.facts import (
    ALICE,
    ALICE_EC,
    ALICE_OLD,
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


def lines(facts: RecipientFacts, message: MessageFacts = MESSAGE, **rule: str) -> list[str]:
    """The drawn tree of a decision about one recipient."""
    (decision,) = decide(message, [facts], rules(**rule), NOW).decisions
    record = record_of("4XyZ", "<boss@corp.example>", message, facts, decision, at=NOW, delay=0.1, note="")
    return list(drawn(tree(record)))


def test_the_tree_of_a_refused_recipient() -> None:
    """Rule, reason, each certificate with what was wrong, the path with its verdicts, and clauses to read on."""
    shown = lines(recipient(assessed(REVOKED)), seal="must")
    assert shown[:4] == [
        "2026-06-01 12:00:00 UTC  4XyZ: to=<alice@example.test>, from=<boss@corp.example>: refused",
        "|-- because: none of the recipient's certificates can be used: certificate "
        f"sha256:{ALICE.fingerprint[:16]} was revoked on 2026-06-01 (keyCompromise), says http://ca.example/x.crl "
        "[rcpt.no-usable-certificate]",
        "|-- by rule: r",
        f"|-- warning: certificate sha256:{ALICE.fingerprint[:16]} was revoked on 2026-06-01 (keyCompromise), says "
        "http://ca.example/x.crl; not used, refused (without_certificate=refuse)",
    ]
    text = "\n".join(shown)
    assert f"`-- certificate sha256:{ALICE.fingerprint[:16]}: not used\n" in text
    assert "    `-- path [RFC 5280 §6.1]\n        |-- CN=alice@example.test" in text
    assert "revoked: the certificate is listed on its issuer's CRL [rev.revoked-crl; RFC 5280 §6.3.3 (i)]" in text
    assert "why keyCompromise" in text
    assert "CN=Root (trust anchor)" in text


def test_the_tree_tells_losers_from_the_winner() -> None:
    shown = "\n".join(lines(recipient(assessed(GOOD), assessed(REVOKED, certificate=ALICE_OLD), without_path())))
    assert f"certificate sha256:{ALICE.fingerprint[:16]}: used\n" in shown
    assert f"certificate sha256:{ALICE_OLD.fingerprint[:16]}: not used\n" in shown
    assert "behind the best: revoked" in shown
    assert "no path: " in shown
    assert "cipher: aes256-cbc" in shown


def test_findings_notes_and_the_state_of_the_message_are_shown() -> None:
    remark = assessed(UNREACHABLE, certificate=ALICE_EC, findings=(Finding("cert.x", "it is odd", False),))
    shown = "\n".join(lines(recipient(remark), MessageFacts(SENDER, fault="mail.bare-cr", fault_detail="line 3")))
    assert "remark: unknown to this version: it is odd [cert.x]" in shown
    assert "line 3 [mail.bare-cr" in shown
    assert "Could not retrieve URL http://ca.example/x.crl" in shown


def test_hostile_names_cannot_leave_their_line() -> None:
    facts = RecipientFacts("<a\n|-- by rule: forged@x>", None, False)
    assert len(lines(facts)) == 3
    assert "\\x0a" in lines(facts)[0]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "postseal.toml"
    path.write_text(f'[general]\nstate_directory = "{tmp_path}/state"\n')
    return path


@pytest.fixture
def recorded(config: Path, tmp_path: Path) -> Path:
    """Three records: two messages, one of them a bounce."""
    store = DecisionStore(tmp_path / "state" / "decisions.sqlite")
    for queue_id, message, sender in (("4XyZ", MESSAGE, "<boss@corp.example>"), ("4Bnc", MessageFacts(None), "<>")):
        facts = recipient(assessed(GOOD))
        (decision,) = decide(message, [facts], rules(), NOW).decisions
        store.add([record_of(queue_id, sender, message, facts, decision, at=NOW, delay=0, note="")])
    store.close()
    return config


def explain(config: Path, *arguments: str) -> int:
    return main(["explain", "--config", str(config), *arguments])


def test_by_queue_id(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(recorded, "4XyZ") == 0
    assert capsys.readouterr().out.startswith("2026-06-01 12:00:00 UTC  4XyZ: to=<alice@example.test>")
    assert explain(recorded, "4XyZ", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["action"], entry["rule"], entry["candidates"][0]["used"]) == ("sealed", "r", True)


def test_by_addresses(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Addresses are compared as mail does; ``<>`` is the sender of bounces."""
    assert explain(recorded, "--from", "BOSS@CORP.example", "--to", "<Alice@EXAMPLE.test>", "--json") == 0
    assert [e["queue_id"] for e in json.loads(capsys.readouterr().out)] == ["4XyZ"]
    assert explain(recorded, "--from", "<>", "--json") == 0
    assert [e["queue_id"] for e in json.loads(capsys.readouterr().out)] == ["4Bnc"]
    assert explain(recorded, "--to", "alice@example.test", "--limit", "1", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_nothing_recorded_is_a_no(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(recorded, "4Nop") == 1
    assert capsys.readouterr().err == "postseal: nothing is recorded about 4Nop; records are kept for 30 days\n"
    assert explain(recorded, "--to", "bob@example.test", "--json") == 1
    assert json.loads(capsys.readouterr().out) == []


def test_mistakes_are_one_sentence(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(config) == 64
    assert explain(config, "4XyZ") == 69
    assert "nothing was recorded yet" in capsys.readouterr().err
    config.write_text(config.read_text() + '[decisions]\nkeep = "0 s"\n')
    assert explain(config, "4XyZ") == 69
    assert 'keep = "0 s"' in capsys.readouterr().err


def test_a_damaged_store_is_one_sentence(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "decisions.sqlite").write_bytes(b"no database at all" * 100)
    assert explain(config, "4XyZ") == 69
    error = capsys.readouterr().err
    assert "decisions.sqlite" in error
    assert error.count("\n") == 1
