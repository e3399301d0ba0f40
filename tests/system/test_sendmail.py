"""Real Sendmail 8.17 with the snippet of packaging/sendmail, and postseal behind it."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.pki import Leaf, authority
from support.responders import WebServer
from support.scratch import free_port
from support.scratch import scratch as scratch_directory
from support.sendmail import PrivateSendmail
from support.sink import Delivery, Sink

DAY = timedelta(days=1)
BODY = b"Hello \xc3\xbc,\r\n.\r\n..two dots\r\n" + b"x" * 900 + b"\r\n" + bytes(range(128, 256)) + b"\r\n"
MESSAGE = (
    b"From: a@home.test\r\nTo: b@example.test\r\nSubject: hi\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + BODY
)


@dataclass
class Site:
    directory: Path
    sink: Sink
    daemon: Daemon
    sendmail: PrivateSendmail
    leaf: Leaf

    def opened(self, delivery: Delivery) -> bytes:
        """The inner entity, by ``openssl cms``."""
        key = self.directory / "leaf.key"
        key.write_bytes(self.leaf.key_pem)
        command = ["openssl", "cms", "-decrypt", "-binary", "-inkey", str(key)]
        done = subprocess.run(command, input=delivery.data, capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    now = datetime.now(UTC).replace(microsecond=0)
    root = authority("Sendmail Root", not_before=now - 400 * DAY, not_after=now + 400 * DAY)
    policy = [
        {"name": "partners", "recipients": ["example.test"], "seal": "must", "without_certificate": "refuse"},
        {"name": "others", "recipients": ["any"], "seal": "may", "without_certificate": "clear"},
    ]
    with scratch_directory() as directory, WebServer() as web, Sink() as sink:
        settings = {
            "milter": {"socket": f"inet:{free_port()}@127.0.0.1"},
            "lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [web.port]},
        }
        daemon = Daemon(directory / "postseal", settings=settings, policy=policy)
        leaf = root.issue(
            "b@example.test", crl_urls=[web.url("/root.crl")], not_before=now - DAY, not_after=now + 90 * DAY
        )
        (daemon.anchors / "root.pem").write_bytes(root.pem)
        (daemon.certificates / "b.pem").write_bytes(leaf.pem)
        web.put("/root.crl", root.crl(this_update=now - timedelta(hours=1), next_update=now + DAY))
        sendmail = PrivateSendmail(directory / "sendmail", daemon.milter, sink.port)
        daemon.settings["milter"]["reinject"] = f"127.0.0.1:{sendmail.reinject_port}"
        daemon.write()
        with daemon, sendmail:
            yield Site(directory, sink, daemon, sendmail, leaf)


@pytest.fixture(autouse=True)
def fresh(site: Site) -> None:
    site.sink.clear()


def test_mail_is_sealed_byte_true(site: Site) -> None:
    """Header fields are edited and the body is replaced through Sendmail; what is inside is what was sent."""
    assert site.sendmail.send("a@home.test", ["b@example.test"], MESSAGE) == {}
    delivery = site.sink.wait_for("b@example.test")
    assert delivery.parsed.get_content_type() == "application/pkcs7-mime"
    assert delivery.parsed.get_all("MIME-Version") == ["1.0"]
    assert delivery["Subject"] == "hi"
    assert site.opened(delivery).partition(b"\r\n\r\n")[2] == BODY
    site.daemon.wait_log("to=<b@example.test>, from=<a@home.test>, action=sealed")


def test_five_megabytes_are_sealed_byte_true(site: Site) -> None:
    body = b"".join(b"line %d " % i + b"y" * 900 + b"\r\n" for i in range(5500))
    site.sendmail.send("a@home.test", ["b@example.test"], b"Subject: large\r\n\r\n" + body)
    delivery = site.sink.wait_for("b@example.test")
    assert site.opened(delivery).partition(b"\r\n\r\n")[2] == body


def test_a_recipient_without_certificate_is_refused_and_the_other_gets_the_mail(site: Site) -> None:
    """The answer to RCPT names the address and the reason."""
    refused = site.sendmail.send("a@home.test", ["b@example.test", "nobody@example.test"], MESSAGE)
    assert list(refused) == ["nobody@example.test"]
    code, text = refused["nobody@example.test"]
    assert code == 550
    assert b"5.7.1" in text
    assert b"nobody@example.test" in text
    assert b"certificate" in text
    assert site.sink.wait_for("b@example.test").recipients == ("b@example.test",)


def test_a_copy_in_clear_comes_back_through_the_second_listener(site: Site) -> None:
    """One sealed copy and one clear copy, each with its own recipients only."""
    assert site.sendmail.send("a@home.test", ["b@example.test", "Open@elsewhere.test"], MESSAGE) == {}
    sealed, clear = site.sink.wait_for("b@example.test"), site.sink.wait_for("Open@elsewhere.test")
    assert sealed.recipients == ("b@example.test",)
    assert clear.recipients == ("Open@elsewhere.test",)
    assert site.opened(sealed).partition(b"\r\n\r\n")[2] == BODY
    assert clear.body == BODY


def test_mail_that_is_not_outbound_passes_untouched(site: Site) -> None:
    """The sender isn't of an internal domain."""
    site.sendmail.send("a@foreign.test", ["b@example.test"], MESSAGE)
    delivery = site.sink.wait_for("b@example.test")
    assert delivery.parsed.get_content_type() == "text/plain"
    assert delivery.body == BODY


def test_mail_is_deferred_while_the_milter_is_down(site: Site) -> None:
    """F=T in the snippet: nothing leaves in clear. Afterwards mail flows again."""
    site.daemon.kill()
    try:
        with pytest.raises(smtplib.SMTPResponseException) as error:
            site.sendmail.send("a@home.test", ["b@example.test"], MESSAGE)
        assert error.value.smtp_code == 451
        assert site.sink.deliveries == ()
    finally:
        site.daemon.start()
    site.sendmail.send("a@home.test", ["b@example.test"], MESSAGE)
    assert site.opened(site.sink.wait_for("b@example.test")).endswith(BODY)
