"""Mail through a real Postfix: what arrives, opened by OpenSSL."""

from __future__ import annotations

import os
import smtplib
from collections.abc import Iterator

import pytest

from support.mailsite import CRL, SENDER, Site, mail_site
from support.scratch import wait_for

pytestmark = pytest.mark.root

CANARY = b"canary-91c4e"
BODY = CANARY + b" \xc3\xbc\r\n.\r\n..dots\r\n\0 nul\r\n" + b"x" * 990 + b"\r\n" + bytes(range(128, 256)) + b"\r\n"
HEADER = (
    b"From: a@home.test\r\nTo: x@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
)
MESSAGE = HEADER + BODY
INNER = b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + BODY
BIT8 = ("BODY=8BITMIME",)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with mail_site(users={"joe": "secret"}) as site:
        for mailbox, kind in (
            ("rsa@example.test", "rsa2048"),
            ("two@example.test", "rsa2048"),
            ("ec@example.test", "p256"),
        ):
            site.add(mailbox, kind)
        site.publish()
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    running.sink.clear()
    return running


def test_sealed_mail_arrives_and_opens(site: Site) -> None:
    """Every octet of the body, the outer header in order, MIME-Version once; the log has the line with the queue id."""
    site.postfix.send(SENDER, ["rsa@example.test"], MESSAGE, options=BIT8)
    delivery = site.postfix.wait_delivered(site.sink, "rsa@example.test")
    assert site.opened(delivery) == INNER
    assert CANARY not in delivery.data
    assert delivery["Subject"] == "hello"
    assert delivery.parsed.get_all("MIME-Version") == ["1.0"]
    assert delivery.parsed.get_all("Content-Type") == [
        "application/pkcs7-mime; smime-type=enveloped-data;\r\n\tname=smime.p7m"
    ]
    queue_id = site.postfix.wait_log(r"postfix/cleanup\[\d+\]: ([0-9A-Za-z]+): message-id=").group(1)
    site.daemon.wait_log(f"{queue_id}: to=<rsa@example.test>, from=<a@home.test>, action=sealed, reason=ok.sealed")
    site.daemon.wait_log("revocation=crl/good")


def test_two_recipients_share_one_sealed_message(site: Site) -> None:
    """Both open the same octets."""
    site.postfix.send(SENDER, ["rsa@example.test", "two@example.test"], MESSAGE, options=BIT8)
    delivery = site.postfix.wait_delivered(site.sink, "two@example.test")
    assert sorted(delivery.recipients) == ["rsa@example.test", "two@example.test"]
    assert site.opened(delivery) == INNER


def test_a_mixed_message_gives_each_recipient_exactly_one_copy(site: Site) -> None:
    """THR-13: RSA and EC sealed apart, one in clear through the second listener; nobody gets two, nobody the wrong one."""
    everyone = ["rsa@example.test", "Clear@Other.test", "ec@example.test"]
    site.postfix.send(SENDER, everyone, MESSAGE, options=BIT8)
    for mailbox in everyone:
        site.postfix.wait_delivered(site.sink, mailbox)
    site.postfix.wait_empty()
    got = sorted(r for delivery in site.sink.deliveries for r in delivery.recipients)
    assert got == sorted(everyone)
    assert site.opened(site.sink.to("rsa@example.test")[0]) == INNER
    assert site.opened(site.sink.to("ec@example.test")[0]) == INNER
    clear = site.sink.to("Clear@Other.test")[0]
    assert clear.body == BODY
    assert clear["Content-Type"] == "text/plain;\r\n\tcharset=utf-8"


def test_a_recipient_without_certificate_is_refused_at_rcpt(site: Site) -> None:
    """The client hears who and why; the other recipient is served."""
    refused = site.postfix.send(SENDER, ["none@example.test", "rsa@example.test"], MESSAGE, options=BIT8)
    assert list(refused) == ["none@example.test"]
    assert refused["none@example.test"][0] == 550
    assert b"5.7.1 <none@example.test>: no certificate for the recipient is known" in refused["none@example.test"][1]
    site.postfix.wait_delivered(site.sink, "rsa@example.test")


def test_local_submission_is_sealed(site: Site) -> None:
    """sendmail(1) through non_smtpd_milters; the queue id is known at once."""
    site.postfix.sendmail(SENDER, ["rsa@example.test"], b"Subject: local\n\nhello\n")
    delivery = site.postfix.wait_delivered(site.sink, "rsa@example.test")
    assert site.opened(delivery) == b"Content-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n"


def test_inbound_and_internal_mail_pass_untouched(site: Site) -> None:
    """A foreign sender, and a recipient of our own."""
    site.postfix.send("x@elsewhere.test", ["rsa@example.test"], MESSAGE, options=BIT8)
    assert site.postfix.wait_delivered(site.sink, "rsa@example.test").body == BODY
    site.postfix.send(SENDER, ["i@home.test"], MESSAGE, options=BIT8)
    assert site.postfix.wait_delivered(site.sink, "i@home.test").body == BODY


def test_authenticated_mail_is_sealed_without_internal_networks(site: Site) -> None:
    """{auth_authen} alone makes it outbound."""
    site.daemon.settings["milter"]["internal_networks"] = []
    site.daemon.reload()
    wait_for(lambda: site.daemon.log().count("reloaded") >= 1, "the reload")
    try:
        site.postfix.send(SENDER, ["rsa@example.test"], MESSAGE, login=("joe", "secret"), options=BIT8)
        assert site.opened(site.postfix.wait_delivered(site.sink, "rsa@example.test")) == INNER
        site.sink.clear()
        site.postfix.send(SENDER, ["rsa@example.test"], MESSAGE, options=BIT8)
        assert site.postfix.wait_delivered(site.sink, "rsa@example.test").body == BODY
    finally:
        del site.daemon.settings["milter"]["internal_networks"]
        before = site.daemon.log().count("reloaded")
        site.daemon.reload()
        wait_for(lambda: site.daemon.log().count("reloaded") > before, "the reload")


def test_several_messages_on_one_connection(site: Site) -> None:
    """RSET in the middle, then two messages: each sealed with its own body."""
    with smtplib.SMTP("127.0.0.1", site.postfix.port) as client:
        client.ehlo()
        client.mail(SENDER)
        client.rcpt("clear@other.test")
        client.rset()
        for text in (b"one", b"two"):
            client.sendmail(SENDER, ["rsa@example.test"], HEADER + text + b"\r\n")
    for count in (1, 2):
        site.sink.wait_for("rsa@example.test", count)
    bodies = sorted(site.opened(d).partition(b"\r\n\r\n")[2] for d in site.sink.deliveries)
    assert bodies == [b"one\r\n", b"two\r\n"]


def test_an_odd_header_name_is_no_way_round(site: Site) -> None:
    """Postfix takes the line for the start of the body: sealed all the same."""
    site.postfix.send(SENDER, ["rsa@example.test"], b"Subject: x\r\nX-\xff: y\r\n\r\n" + CANARY + b"\r\n", options=BIT8)
    delivery = site.postfix.wait_delivered(site.sink, "rsa@example.test")
    assert CANARY in site.opened(delivery)
    assert CANARY not in delivery.data


def test_a_large_message_goes_through_the_spool(site: Site) -> None:
    """5 MB, far above memory_limit: octet for octet, no plain text on postseal's disk."""
    body = CANARY + os.urandom(5_000_000).replace(b"\r", b"r").replace(b"\n", b"n") + b"\r\n"
    lines = b"\r\n".join(body[i : i + 900] for i in range(0, len(body), 900))
    site.postfix.send(SENDER, ["rsa@example.test"], HEADER + lines, options=BIT8)
    delivery = site.postfix.wait_delivered(site.sink, "rsa@example.test")
    assert site.opened(delivery).partition(b"\r\n\r\n")[2].rstrip(b"\r\n") == lines.rstrip(b"\r\n")


def test_mail_that_is_sealed_already_passes(site: Site) -> None:
    """What left once comes back unchanged."""
    site.postfix.send(SENDER, ["rsa@example.test"], MESSAGE, options=BIT8)
    first = site.postfix.wait_delivered(site.sink, "rsa@example.test")
    site.sink.clear()
    site.postfix.send(SENDER, ["rsa@example.test"], first.data)
    assert site.postfix.wait_delivered(site.sink, "rsa@example.test").body == first.body
    site.daemon.wait_log("reason=ok.already-encrypted")


def test_revoked_between_two_messages(site: Site) -> None:
    """Sealed before, refused after; the sender is told."""
    site.add("gone@example.test")
    wait_for(lambda: site.send_code(["gone@example.test"], MESSAGE, options=BIT8) == 250, "the new certificate")
    site.postfix.wait_delivered(site.sink, "gone@example.test")
    site.publish("gone@example.test")
    site.command("evidence", "refresh", site.web.url(CRL))
    site.sink.clear()

    def told() -> bool:
        # A worker that hasn't seen the new file yet refuses too, for want of a certificate.
        assert site.send_code(["gone@example.test"], MESSAGE, options=BIT8) == 550
        return "was revoked" in site.daemon.log()

    wait_for(told, "the revocation in the log", pause=0.3)
    assert site.sink.deliveries == ()


def test_no_plain_text_on_our_disk(site: Site) -> None:
    """THR-16: After all of the above: state, spool, log and decision records know nothing of the content."""
    site.postfix.send(SENDER, ["rsa@example.test", "clear@other.test"], MESSAGE, options=BIT8)
    site.postfix.wait_delivered(site.sink, "clear@other.test")
    assert site.plain_on_disk(CANARY) == []
    assert list((site.daemon.state / "spool").iterdir()) == []
