"""Things that break while a message is in the milter's hands: nothing is lost, nothing leaves in clear, nothing comes twice."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from support.mailsite import CRL, Site, mail_site
from support.scratch import answers, wait_for

pytestmark = pytest.mark.root

CANARY = b"canary-5d20b"
MESSAGE = b"Subject: hello\r\n\r\n" + CANARY + b"\r\n"
INNER = b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + CANARY + b"\r\n"
STRICT, SOFT = "x@strict.test", "x@example.test"


@pytest.fixture
def site() -> Iterator[Site]:
    """Nobody answers for the CRL, so a message waits in the milter until the budget of 3 seconds is over."""
    with mail_site({"milter": {"budget": "3 s"}, "lookup": {"request_timeout": "4 s"}}) as made:
        made.add(STRICT)
        made.add(SOFT, "p256")
        made.publish(fault="silent")
        yield made


class Sending:
    """A message on its way in a thread; ``code`` is the client's answer."""

    def __init__(self, site: Site, recipient: str) -> None:
        self.code = 0
        self._site = site
        self._recipient = recipient
        self._thread = threading.Thread(target=self._send)
        asked = site.web.count(CRL)
        self._thread.start()
        wait_for(lambda: site.web.count(CRL) > asked, "the request for the CRL", 10)
        # The request was made at RCPT; a moment later the message waits at its end.
        time.sleep(0.4)

    def _send(self) -> None:
        self.code = self._site.send_code([self._recipient], MESSAGE)

    def result(self) -> int:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.code


def heal(site: Site, recipient: str) -> None:
    """The CRL comes, all services answer, the client tries again: exactly one sealed copy arrives."""
    site.publish()
    wait_for(lambda: answers(site.daemon.milter) and answers(site.daemon.lookup), "the services")
    assert site.sink.deliveries == ()
    wait_for(lambda: _tried_again(site, recipient), "the second try", 30, 0.3)
    delivery = site.postfix.wait_delivered(site.sink, recipient)
    site.postfix.wait_empty()
    assert len(site.sink.deliveries) == 1
    assert site.opened(delivery) == INNER
    assert CANARY not in delivery.data
    assert site.plain_on_disk(CANARY) == []


def _tried_again(site: Site, recipient: str) -> bool:
    # The request that nobody answered may still be under way; afterwards its URL is left alone for a while.
    site.command("evidence", "forget", "--all")
    site.command("evidence", "refresh")
    return site.send_code([recipient], MESSAGE) == 250


def test_kill_9_of_the_workers(site: Site) -> None:
    """In the middle of a message: the client hears 451, new workers take over."""
    sending = Sending(site, STRICT)
    for pid in site.workers():
        os.kill(pid, signal.SIGKILL)
    assert sending.result() == 451
    heal(site, STRICT)


def test_kill_9_of_the_milter(site: Site) -> None:
    """Supervisor and workers; postseal run starts them again."""
    sending = Sending(site, STRICT)
    pids = [site.service("milter"), *site.workers()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert sending.result() == 451
    site.daemon.wait_log("milter ended (killed by signal 9)")
    heal(site, STRICT)


def test_kill_9_of_lookup_under_a_strict_rule(site: Site) -> None:
    """Evidence can't come: deferred, not sealed for an unknown status, not clear."""
    sending = Sending(site, STRICT)
    os.kill(site.service("lookup"), signal.SIGKILL)
    assert sending.result() == 451
    site.daemon.wait_log("lookup ended (killed by signal 9)")
    heal(site, STRICT)


def test_kill_9_of_lookup_under_a_soft_rule(site: Site) -> None:
    """Sealed with a warning, at once and not after the budget: the milter sees that lookup is gone."""
    sending = Sending(site, SOFT)
    os.kill(site.service("lookup"), signal.SIGKILL)
    assert sending.result() == 250
    delivery = site.postfix.wait_delivered(site.sink, SOFT)
    assert site.opened(delivery) == INNER
    site.daemon.wait_log("sealed anyway (revocation=soft)")


def test_sigterm_lets_the_message_finish(site: Site) -> None:
    """Stopped while it waits: it is answered, and the next one is deferred by Postfix because nobody listens."""
    sending = Sending(site, SOFT)
    stopping = threading.Thread(target=site.daemon.stop)
    stopping.start()
    assert sending.result() == 250
    stopping.join(30)
    assert site.opened(site.postfix.wait_delivered(site.sink, SOFT)) == INNER
    assert site.send_code([SOFT], MESSAGE) == 451
    assert len(site.sink.deliveries) == 1


def test_sighup_while_a_message_waits(site: Site) -> None:
    """A wrong configuration changes nothing, a right one rolls the workers; the message is answered by the old ones."""
    sending = Sending(site, SOFT)
    good = site.daemon.config_file.read_text()
    site.daemon.config_file.write_text("[milter]\nwurkers = 1\n")
    os.kill(site.service("milter"), signal.SIGHUP)
    site.daemon.wait_log("not reloaded, the old configuration stays")
    site.daemon.config_file.write_text(good)
    os.kill(site.service("milter"), signal.SIGHUP)
    site.daemon.wait_log("reloaded ")
    assert sending.result() == 250
    assert site.opened(site.postfix.wait_delivered(site.sink, SOFT)) == INNER


def test_a_full_disk() -> None:
    """State and spool without room: large mail gets 4xx and nothing is sent; small mail is sealed although no record fits."""
    with mail_site(state_size="8m") as site:
        site.add(SOFT)
        site.publish()
        assert site.send_code([SOFT], MESSAGE) == 250
        site.postfix.wait_delivered(site.sink, SOFT)
        site.sink.clear()
        with open(site.daemon.state / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        big = b"Subject: x\r\n\r\n" + (CANARY + b"x" * 800 + b"\r\n") * 500
        assert site.send_code([SOFT], big) == 451
        assert site.send_code([SOFT, "clear@other.test"], big) == 451
        site.daemon.wait_log("can't write the spool file")
        site.daemon.wait_log("No space left on device")
        assert site.sink.deliveries == ()
        assert site.send_code([SOFT], MESSAGE) == 250
        assert site.opened(site.postfix.wait_delivered(site.sink, SOFT)) == INNER
        (site.daemon.state / "filler").unlink()
        site.sink.clear()
        assert site.send_code([SOFT], big) == 250
        site.postfix.wait_delivered(site.sink, SOFT)
        assert site.plain_on_disk(CANARY) == []


def test_too_large_after_sealing_is_told_in_our_words() -> None:
    """P21: permanent, with both numbers, before any copy is sent."""
    with mail_site({"milter": {"message_size_limit": 100_000}}) as site:
        site.add(SOFT)
        site.publish()
        assert site.send_code([SOFT, "clear@other.test"], b"Subject: x\r\n\r\n" + b"x" * 70 * 1200 + b"\r\n") == 552
        site.postfix.wait_log("the message is too large when it is sealed: .* the limit is 100000")
        assert site.sink.deliveries == ()


def test_the_second_listener_is_gone(site: Site) -> None:
    """A copy can't be delivered: the whole message waits, nobody has got anything."""
    site.publish()
    site.daemon.settings["milter"]["reinject"] = "127.0.0.1:1"
    site.daemon.reload()
    site.daemon.wait_log("reloaded ")
    assert site.send_code([SOFT, "clear@other.test"], MESSAGE) == 451
    assert site.sink.deliveries == ()
    site.daemon.wait_log("127.0.0.1:1: Connection refused")
