"""Re-injection by SMTP, against real servers: aiosmtpd, the byte-true sink, and a listener that says what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.errors import BadData, Unavailable
from postseal.sources.reinject import SmtpReinjector, dot_stuffed
from support.scratch import free_port
from support.sink import Sink

MESSAGE = b"Subject: x\r\n\r\n.dot\r\n..two\r\n\x00\xff\x80 8bit\r\n.\r\nend\r\n"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        yield server


def to(sink: Sink) -> SmtpReinjector:
    return SmtpReinjector("127.0.0.1", sink.port, 5)


@given(st.lists(st.sampled_from([b".", b"\r\n", b"\r", b"\n", b"a", b"..", b"\r\n.", b"x" * 70])))
def test_dot_stuffing_doesn_t_depend_on_where_chunks_are_cut(parts: list[bytes]) -> None:
    """RFC 5321 §4.5.2: what a server un-stuffs is the message, with a line end after it."""
    whole = b"".join(parts)
    sent = b"".join(dot_stuffed(parts))
    assert sent == b"".join(dot_stuffed([whole]))
    assert sent.endswith(b".\r\n")
    body = sent[:-3]
    assert b"\r\n.\r\n" not in body
    assert not body.startswith(b".\r\n")
    lines = [line[1:] if line.startswith(b".") else line for line in body.split(b"\r\n")]
    ended = whole if whole.endswith(b"\r\n") or not whole else whole + b"\r\n"
    assert b"\r\n".join(lines) == ended


def test_the_message_arrives_octet_for_octet(sink: Sink) -> None:
    """Dots, NUL, 8-bit octets; streamed in small pieces; brackets are optional."""
    pieces = [MESSAGE[i : i + 3] for i in range(0, len(MESSAGE), 3)]
    reply = to(sink).send("<a@x.test>", ["b@y.test", "<c@y.test>"], pieces, mail_options=["BODY=8BITMIME"])
    (kept,) = sink.deliveries
    assert kept.data == MESSAGE
    assert (kept.sender, kept.recipients) == ("a@x.test", ("b@y.test", "c@y.test"))
    assert kept.mail_parameters == "BODY=8BITMIME"
    assert reply.startswith("250")


def test_the_null_sender_stays_null(sink: Sink) -> None:
    """A bounce keeps its empty path."""
    to(sink).send("<>", ["b@y.test"], [MESSAGE])
    assert sink.deliveries[0].sender == ""


def test_smtputf8_addresses_go_out_in_utf_8(sink: Sink) -> None:
    """RFC 6531: the option is given because the address needs it, once."""
    to(sink).send("<ü@x.test>", ["<ö@y.test>"], [MESSAGE], mail_options=["SMTPUTF8"])
    (kept,) = sink.deliveries
    assert (kept.sender, kept.recipients, kept.mail_parameters) == ("ü@x.test", ("ö@y.test",), "SMTPUTF8")


def test_options_that_the_server_doesn_t_offer_are_left_out(sink: Sink) -> None:
    """The sink has no DSN: RET and NOTIFY would be syntax errors there."""
    options = {"b@y.test": ["NOTIFY=NEVER"]}
    to(sink).send("a@x.test", ["b@y.test"], [MESSAGE], mail_options=["RET=HDRS"], rcpt_options=options)
    assert sink.deliveries[0].mail_parameters == ""


@pytest.mark.parametrize(("reply", "error"), [("550 5.1.1 no", BadData), ("450 4.2.0 later", Unavailable)])
def test_one_refused_recipient_means_nobody_gets_it(sink: Sink, reply: str, error: type[Exception]) -> None:
    """All recipients or none; the sentence carries the address and what the server said."""
    sink.refuse = lambda address: reply if address == "c@y.test" else None
    with pytest.raises(error, match=rf"RCPT TO:<c@y.test> with {reply}"):
        to(sink).send("a@x.test", ["b@y.test", "c@y.test", "d@y.test"], [MESSAGE])
    assert sink.deliveries == ()


@pytest.mark.parametrize(("reply", "error"), [("554 5.6.0 no", BadData), ("452 4.3.1 full", Unavailable)])
def test_a_refusal_after_data_is_told_apart(sink: Sink, reply: str, error: type[Exception]) -> None:
    """5xx is for good, 4xx may be tried again."""
    sink.refuse_data = reply
    with pytest.raises(error, match=reply):
        to(sink).send("a@x.test", ["b@y.test"], [MESSAGE])


def test_a_message_that_breaks_in_the_middle_is_never_completed(sink: Sink) -> None:
    """If the ciphertext can't be read back the server must not see an end."""

    def broken() -> Iterator[bytes]:
        yield MESSAGE
        raise Unavailable("disk gone")

    with pytest.raises(Unavailable, match="disk gone"):
        to(sink).send("a@x.test", ["b@y.test"], broken())
    to(sink).send("a@x.test", ["z@y.test"], [MESSAGE])
    assert [d.recipients for d in sink.deliveries] == [("z@y.test",)]


def test_nobody_listens() -> None:
    """Refused connection: Unavailable, with the place and cause."""
    port = free_port()
    with pytest.raises(Unavailable, match=rf"127.0.0.1:{port}: Connection refused"):
        SmtpReinjector("127.0.0.1", port, 5).send("a@x.test", ["b@y.test"], [MESSAGE])


def test_the_message_is_not_read_before_the_envelope_is_accepted() -> None:
    """Connect first: a dead listener costs nothing but the time-out."""
    read = []

    def message() -> Iterator[bytes]:
        read.append(1)
        yield MESSAGE

    with pytest.raises(Unavailable):
        SmtpReinjector("127.0.0.1", free_port(), 5).send("a@x.test", ["b@y.test"], message())
    assert read == []


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ([], Unavailable, "timed out"),
        (["554 no service"], BadData, "554 no service"),
        (["421 busy"], Unavailable, "421 busy"),
        (["220 hi", "250 x", "250 ok", "250 ok", "354 go", None], Unavailable, "closed|reset|Connection"),
        (["220 hi", "500 what", "500 what"], BadData, "EHLO"),
        (["220 hi", "250 plain"], BadData, "SMTPUTF8"),
    ],
)
def test_servers_that_misbehave(script: Sequence[str | None], error: type[Exception], text: str) -> None:
    """Silence, refusal at the greeting, a cut connection, no EHLO, no SMTPUTF8: one sentence each, within the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_play, args=(listener, script), daemon=True)
        thread.start()
        reinjector = SmtpReinjector("127.0.0.1", listener.getsockname()[1], 0.4)
        sender = "ü@x.test" if text == "SMTPUTF8" else "a@x.test"
        with pytest.raises(error, match=text):
            reinjector.send(sender, ["b@y.test"], [MESSAGE])
        thread.join(5)


def _play(listener: socket.socket, script: Sequence[str | None]) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        for line in script:
            if line is None:
                connection.shutdown(socket.SHUT_RDWR)
                return
            connection.sendall(line.encode() + b"\r\n")
            if line != script[-1]:
                lines.readline()
        threading.Event().wait(0.8 if not script else 0.1)


def test_line_breaks_in_an_address_never_reach_the_server(sink: Sink) -> None:
    """No command can be smuggled in with an address."""
    with pytest.raises(BadData, match="line break"):
        to(sink).send("a@x.test", ["b@y.test>\r\nRCPT TO:<evil@z.test"], [MESSAGE])
    assert sink.deliveries == ()
