"""Dialogues with the real daemon over the milter protocol, octet by octet."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.milterclient import ACTIONS_ALL, P_ALL, P_HDR_LEADSPC, MilterClient
from support.milterdaemon import Setting
from support.scratch import wait_for

FIELDS = [
    (b"From", b" a@home.test"),
    (b"Subject", b" hello"),
    (b"MIME-Version", b" 1.0"),
    (b"Content-Type", b" text/plain;\n\tcharset=utf-8"),
    (b"Content-Transfer-Encoding", b" 8bit"),
]
INNER_HEADER = b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
A, ALICE, ERIN, BOB, CAROL = (
    "<a@home.test>", "<alice@partner.test>", "<erin@partner.test>", "<bob@partner.test>", "<carol@other.test>",
)  # fmt: skip
ID = {"i": "4XyZ1"}


@pytest.fixture
def mta(setting: Setting) -> Iterator[MilterClient]:
    setting.sink.clear()
    with setting.mta() as client:
        yield client


def test_what_is_negotiated(setting: Setting, mta: MilterClient) -> None:
    """Header space kept, answers only for RCPT, the end of the header and the end of the message, macros asked for."""
    assert mta.protocol & P_HDR_LEADSPC
    assert mta.command("H", b"helo.test\0") is None
    assert b"{auth_authen}" in mta.symbols
    assert b"{client_addr}" in mta.symbols


def test_header_and_body_are_replaced(setting: Setting, mta: MilterClient) -> None:
    """OpenSSL opens what the MTA would have; the inner entity is the original's, octet for octet."""
    body = b"\xc3\xbc\r\n.\r\n\0 no line end"
    answer = mta.send(A, [ALICE], FIELDS, body, macros=ID)
    assert answer.accepted
    message = answer.message(FIELDS, body)
    assert message.count(b"MIME-Version:") == 1
    assert message.startswith(b"From: a@home.test\r\nSubject: hello\r\n")
    assert setting.open("alice", message) == INNER_HEADER + body


@pytest.mark.parametrize("protocol", [P_ALL, 0x7F, P_ALL & ~P_HDR_LEADSPC])
def test_older_protocols(setting: Setting, protocol: int) -> None:
    """An MTA that waits for every answer, or strips the space after the colon (Sendmail before 8.14)."""
    stripped = not protocol & P_HDR_LEADSPC
    fields = [(n, v.removeprefix(b" ") if stripped else v) for n, v in FIELDS]
    with setting.mta(protocol=protocol) as mta:
        answer = mta.send(A, [ALICE], fields, b"x\r\n", macros=ID)
        assert answer.accepted
        header = [(n, b" " + v if stripped else v) for n, v in answer.header(fields)]
        message = b"".join(n + b":" + v.replace(b"\n", b"\r\n") + b"\r\n" for n, v in header)
        assert b":  " not in message
        assert setting.open("alice", message + b"\r\n" + (answer.body or b"")) == INNER_HEADER + b"x\r\n"


def test_an_mta_that_forbids_what_we_need_is_told_to_wait(setting: Setting) -> None:
    """Without the right to change the body plain text would leave: 451 for each recipient."""
    with MilterClient(setting.daemon.milter, actions=ACTIONS_ALL & ~0x2) as mta:
        mta.connect()
        mta.mail(A)
        assert mta.rcpt(ALICE).reply.startswith("451 4.3.0")


def test_a_recipient_is_refused_with_the_reason(setting: Setting, mta: MilterClient) -> None:
    """550 at RCPT for bob; alice gets the message."""
    answer = mta.send(A, [BOB, ALICE], FIELDS, b"x\r\n", macros=ID)
    assert answer.refused[BOB].startswith("550 5.7.1 <bob@partner.test>: no certificate")
    assert answer.accepted
    assert answer.changed


def test_percent_signs_in_replies_survive(setting: Setting, mta: MilterClient) -> None:
    """libmilter takes the text as a format string."""
    mta.mail(A)
    answer = mta.rcpt("<50%s%n@partner.test>")
    assert answer.reply.startswith("550 5.7.1 <50%s%n@partner.test>")


def test_several_messages_and_aborts_on_one_connection(setting: Setting, mta: MilterClient) -> None:
    """Nothing of one message reaches the next one, wherever the one before was broken off."""
    for stop in ("mail", "rcpt", "header", "eoh", "body"):
        mta.mail(A, macros=ID)
        if stop != "mail":
            mta.rcpt(CAROL)
            mta.rcpt(ALICE)
        if stop in ("header", "eoh", "body"):
            mta.command("L", b"X-Left\0 over\0")
        if stop in ("eoh", "body"):
            assert mta.command("N") is not None
        if stop == "body":
            mta.command("B", b"left over")
        mta.abort()
        answer = mta.send(A, [ALICE], FIELDS, stop.encode(), macros=ID)
        assert setting.open("alice", answer.message(FIELDS, b"")) == INNER_HEADER + stop.encode()
        assert answer.deleted == []
    assert setting.sink.deliveries == ()


def test_a_connection_cut_in_the_middle_gives_its_place_back(setting: Setting) -> None:
    """More broken connections than max_messages; the next message is served."""
    for _ in range(210):
        client = setting.mta()
        client.mail(A)
        client.close()
    with setting.mta() as mta:
        wait_for(lambda: mta.send(A, [ALICE], FIELDS, b"x\r\n", macros=ID).changed, "a free place", 5)


def test_not_outbound_mail_is_accepted_at_the_end_of_the_header(setting: Setting, mta: MilterClient) -> None:
    """The body isn't sent to us."""
    answer = mta.send("<x@elsewhere.test>", [ALICE], FIELDS, b"x\r\n", macros=ID)
    assert (answer.kind, answer.early, answer.changed) == ("a", True, False)


def test_a_login_makes_mail_outbound(setting: Setting) -> None:
    """From an outside address: with {auth_authen} sealed, without it untouched; and the login ends with its message."""
    with MilterClient(setting.daemon.milter) as mta:
        mta.connect(address="192.0.2.7")
        assert not mta.send(A, [ALICE], FIELDS, b"x\r\n", macros=ID).changed
        assert mta.send(A, [ALICE], FIELDS, b"x\r\n", macros={**ID, "auth_authen": "joe"}).changed


def test_ipv6_clients_and_local_submission(setting: Setting) -> None:
    """::1 is inside by default; Postfix's local submission has port 0."""
    for address, port in (("::1", 999), ("127.0.0.1", 0)):
        with MilterClient(setting.daemon.milter) as mta:
            mta.connect("localhost", address, port)
            assert mta.send("a@home.test", ["alice@partner.test"], FIELDS, b"x\r\n", macros=ID).changed


def test_a_rule_that_never_seals_is_accepted_early(setting: Setting, mta: MilterClient) -> None:
    """Nobody to seal for."""
    answer = mta.send(A, ["<x@never.test>"], FIELDS, b"x\r\n", macros=ID)
    assert (answer.kind, answer.early) == ("a", True)


def test_several_outcomes_in_one_message(setting: Setting, mta: MilterClient) -> None:
    """RSA recipient in place or by copy, EC recipient by another copy, carol in clear; deleted exactly as given."""
    carol = "<Carol@Other.TEST>"
    body = b"\xff\0plain\r\n..\r\n"
    answer = mta.send(A, [ALICE, ERIN, carol], FIELDS, body, macros=ID, mail_options=["BODY=8BITMIME"])
    assert answer.accepted
    copies = {d.recipients[0]: d for d in setting.sink.deliveries}
    assert set(answer.deleted) == {f"<{r}>" for r in copies}
    assert carol in answer.deleted
    kept = ({ALICE, ERIN} - set(answer.deleted)).pop()
    moved = ({ALICE, ERIN} - {kept}).pop()
    names = {ALICE: "alice", ERIN: "erin"}
    assert setting.open(names[kept], answer.message(FIELDS, b"")) == INNER_HEADER + body
    assert setting.open(names[moved], copies[moved[1:-1]].data) == INNER_HEADER + body
    plain = b"".join(n + b":" + v.replace(b"\n", b"\r\n") + b"\r\n" for n, v in FIELDS) + b"\r\n" + body
    assert copies["Carol@Other.TEST"].data == plain
    assert copies["Carol@Other.TEST"].mail_parameters == "BODY=8BITMIME"


def test_a_refused_copy_changes_nothing(setting: Setting, mta: MilterClient) -> None:
    """The second listener says no: 4xx for the whole message, the original untouched."""
    setting.sink.refuse = lambda address: "452 4.2.2 full"
    try:
        answer = mta.send(A, [ALICE, CAROL], FIELDS, b"x\r\n", macros=ID)
    finally:
        setting.sink.refuse = lambda address: None
    assert (answer.kind, answer.changed) == ("y", False)
    assert answer.reply.startswith("451")
    assert setting.sink.deliveries == ()


def test_held_mail_is_quarantined_with_the_reason(setting: Setting, mta: MilterClient) -> None:
    """P13: Postfix forgets the reason, Sendmail shows it."""
    answer = mta.send(A, ["<x@held.test>"], FIELDS, b"x\r\n", macros=ID)
    assert answer.accepted
    assert "x@held.test" in (answer.quarantine or "")


def test_mail_that_is_encrypted_already_passes(setting: Setting, mta: MilterClient) -> None:
    """What we sealed ourselves comes back unchanged."""
    first = mta.send(A, [ALICE], FIELDS, b"x\r\n", macros=ID)
    header, body = first.header(FIELDS), first.body or b""
    again = mta.send(A, [ALICE], header, body, macros=ID)
    assert again.accepted
    assert not again.changed


def test_mail_that_only_claims_to_be_encrypted_is_sealed(setting: Setting, mta: MilterClient) -> None:
    """Content type without CMS."""
    fields = [(b"Content-Type", b" application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m")]
    answer = mta.send(A, [ALICE], fields, b"secret\r\n", macros=ID)
    assert setting.open("alice", answer.message(fields, b"")).endswith(b"\r\n\r\nsecret\r\n")


@pytest.mark.parametrize(
    ("fields", "body", "words"),
    [
        ([*FIELDS, (b"Content-type", b" text/html")], b"x\r\n", "Content-type"),
        (FIELDS, b"bare\rcr\r\n", "CR without LF"),
        (FIELDS, b"bare\nlf\r\n", "LF without CR"),
        ([*FIELDS, (b"Bad Name", b" x")], b"x\r\n", "malformed"),
    ],
)
def test_malformed_messages_are_refused_by_name(
    setting: Setting, mta: MilterClient, fields: list[tuple[bytes, bytes]], body: bytes, words: str
) -> None:
    """554 with the rule, unchanged."""
    answer = mta.send(A, [ALICE], fields, body, macros=ID)
    assert (answer.kind, answer.changed) == ("y", False)
    assert answer.reply.startswith("554 5.6.0 <alice@partner.test>: ")
    assert words in answer.reply


def test_header_octets_beyond_utf_8_in_fields_that_stay(setting: Setting, mta: MilterClient) -> None:
    """Only Content fields are rewritten; a raw Latin-1 subject is none of them."""
    fields = [(b"Subject", b" \xfcber"), (b"X-Long", b" " + b"y" * 3000)]
    answer = mta.send(A, [ALICE], fields, b"x\r\n", macros=ID)
    assert answer.header(fields)[:2] == fields
    assert setting.open("alice", answer.message(fields, b"")).endswith(b"\r\n\r\nx\r\n")


@pytest.mark.parametrize("size", [0, 1, 47_880, 65_535, 3_000_000])
def test_sizes_and_chunks(setting: Setting, mta: MilterClient, size: int) -> None:
    """From an empty body to one far above memory_limit; every block fits the protocol."""
    body = os.urandom(size).replace(b"\r", b"r").replace(b"\n", b"n")
    answer = mta.send(A, [ALICE], FIELDS, body, macros=ID, chunk=60_001)
    assert setting.open("alice", answer.message(FIELDS, b"")) == INNER_HEADER + body
    assert max(len(data) for kind, data in answer.edits if kind == "b") <= 65535


@pytest.mark.parametrize("protocol", [P_ALL, 0x7F])
def test_header_names_that_aren_t_text_never_pass_in_clear(setting: Setting, protocol: int) -> None:
    """P8: pymilter can't hand them to us; the message doesn't get an answer that would let it pass.

    Postfix takes such a line for the start of the body, so it doesn't come from there.
    """
    with MilterClient(setting.daemon.milter, protocol=protocol, timeout=0.5) as mta:
        mta.connect()
        with pytest.raises((TimeoutError, ConnectionError)):
            mta.send(A, [ALICE], [(b"X-\xff", b" x"), *FIELDS], b"x\r\n", macros=ID)


def test_macros_and_addresses_that_aren_t_utf_8(setting: Setting, mta: MilterClient) -> None:
    """P7, P8: no exception; a recipient that can't be written back is answered by name."""
    raw = b"<\xfc@other.test>".decode("utf-8", "surrogateescape")
    answer = mta.send(A, [ALICE, raw], FIELDS, b"x\r\n", macros={"i": b"\xff\xfe"})
    reply = answer.refused.get(raw) or answer.reply
    assert reply[:3] in ("451", "553")
    assert "xfc@other.test" in reply


def test_odd_dialogues(setting: Setting) -> None:
    """Steps out of order and packets that make no sense: refused or cut, and the daemon lives on."""
    for kind, data in (("R", b"<alice@partner.test>\0"), ("E", b""), ("B", b"x"), ("?", b"x"), ("M", b"")):
        with setting.mta() as mta:
            try:
                mta.write(kind, data)
                mta.write("Q")
                mta.read()
            except (ConnectionError, TimeoutError):
                pass
    with setting.mta() as mta:
        assert mta.send(A, [ALICE], FIELDS, b"x\r\n", macros=ID).changed


def test_many_messages_at_the_same_time(setting: Setting) -> None:
    """P1: callbacks of one connection change threads; each message keeps its own content."""
    stop = threading.Event()

    def one(number: int) -> bool:
        with setting.mta() as mta:
            for turn in range(3):
                body = b"%d-%d " % (number, turn) * 20_000
                answer = mta.send(A, [ALICE], FIELDS, body, macros=ID)
                if setting.open("alice", answer.message(FIELDS, b"")) != INNER_HEADER + body:
                    stop.set()
        return not stop.is_set()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(16)))


def test_the_log_says_what_happened(setting: Setting, mta: MilterClient) -> None:
    """One line per recipient, with the queue id, and no plain text anywhere."""
    mta.send(A, [ALICE, CAROL], FIELDS, b"CANARY-55\r\n", macros={"i": "4LogLine"})
    setting.daemon.wait_log("4LogLine: to=<alice@partner.test>, from=<a@home.test>, action=sealed, reason=ok.sealed")
    setting.daemon.wait_log("4LogLine: to=<carol@other.test>, from=<a@home.test>, action=clear")
    assert "CANARY-55" not in setting.daemon.log()
    for path in setting.daemon.state.rglob("*"):
        assert path.is_dir() or b"CANARY-55" not in path.read_bytes()
