"""Whose mail is sealed: which messages are outbound, and who counts as inside, whatever the spelling of the envelope."""

from __future__ import annotations

import pytest

from postseal.app.outbound import Boundary, Client, Sender
from postseal.app.seal import Accept, Edits
from support.mailworld import INSIDE, World

MESSAGE = b"From: a@home.test\r\nSubject: hello\r\n\r\nhello\r\n"
B = "<b@example.test>"
MAY = {"name": "all", "seal": "may", "without_certificate": "clear"}


@pytest.fixture
def world() -> World:
    """b has a certificate and a fresh CRL; who has none is refused."""
    made = World()
    made.add("b@example.test")
    made.publish()
    return made


@pytest.mark.parametrize(
    ("sender", "client", "note"),
    [
        ("<x@elsewhere.test>", INSIDE, "sender is not in internal_domains"),
        ("<>", INSIDE, "sender is not in internal_domains"),
        ("<a@home.test>", Client("mx.test", "192.0.2.1", 25), "neither authenticated nor in internal_networks"),
        ("<a@sub.home.test>", INSIDE, "sender is not in internal_domains"),
    ],
)
def test_mail_that_isn_t_outbound_passes_untouched(world: World, sender: str, client: Client, note: str) -> None:
    """Accepted at the end of the header; the log says why."""
    job = world.job(sender, client)
    assert job.recipient(B) is None
    job.queue_id = "4XyZ"
    assert job.end_of_headers() == Accept()
    job.sent()
    job.close()
    assert "action=clear, reason=ok.not-outbound" in world.log.text
    assert note in world.log.text


@pytest.mark.parametrize(
    "client",
    [
        Client("mx.test", "192.0.2.1", 25, login="joe"),
        Client("localhost", "127.0.0.1", 0),
        Client("localhost", "", 0),
        Client("x", "::1", 9),
        Client("x", "::ffff:127.0.0.5", 9),
        Client("x", "IPv6:::1", 9),
    ],
)
def test_who_counts_as_inside(world: World, client: Client) -> None:
    """A login, sendmail(1) on this host, or an address in internal_networks."""
    outcome, _ = world.send([B], MESSAGE, client=client)
    assert isinstance(outcome, Edits)


def test_local_submission_counts_without_the_loopback_network() -> None:
    """Postfix says localhost, 127.0.0.1 and port 0 for non_smtpd_milters; TCP can't have that port."""
    boundary = Boundary(frozenset({"home.test"}), ())
    sender = Sender.parse("a@home.test")
    assert boundary.why_not_outbound(sender, Client("localhost", "127.0.0.1", 0)) == ""
    assert boundary.why_not_outbound(sender, Client("localhost", "127.0.0.1", 2525))
    assert boundary.why_not_outbound(sender, Client("evil.test", "127.0.0.1", 0))


def test_a_sender_that_can_t_be_parsed_can_t_slip_through(world: World) -> None:
    """THR-15: an odd local part must not turn outbound mail into mail that isn't."""
    _, refused = world.send([B], MESSAGE, sender="<a..b@HOME.test>")
    assert (refused[B].code, refused[B].enhanced) == (553, "5.1.7")


def test_a_broken_sender_from_elsewhere_passes(world: World) -> None:
    """Not our mail: nothing to refuse."""
    outcome, refused = world.send([B], MESSAGE, sender="<a..b@elsewhere.test>")
    assert (outcome, refused) == (Accept(), {})


@pytest.mark.parametrize("recipient", ["<i@home.test>", "<I@HOME.TEST>", "<postmaster>", "root"])
def test_internal_recipients_are_not_sealed(world: World, recipient: str) -> None:
    """Accepted early: the body isn't looked at."""
    outcome, refused = world.send([recipient], MESSAGE)
    assert (outcome, refused) == (Accept(), {})
    assert "reason=ok.internal" in world.log.text


@pytest.mark.parametrize(
    "recipient", ["<b%example.test@home.test>", "<example.test!b@home.test>", "<b%example.test>", "<example.test!b>"]
)
def test_an_inside_address_that_leads_outside_is_not_internal(world: World, recipient: str) -> None:
    """THR-15: the MTA may rewrite these to an outside address, so they are refused like any that can't be parsed."""
    _, refused = world.send([recipient], MESSAGE)
    assert refused[recipient].code == 553


NEVER = {"name": "rest", "seal": "never"}
MUST = {"name": "partners", "recipients": ["example.test"], "seal": "must", "without_certificate": "refuse"}


@pytest.mark.parametrize(
    "recipient", ["<c@example.test.>", '<"c"@example.test>', "<@mx.test:c@example.test>", "<c%example.test>"]
)
def test_an_odd_spelling_leads_around_no_rule(recipient: str) -> None:
    """THR-15: the MTA may deliver these to c@example.test, so the last rule, which never seals, doesn't let them go."""
    world = World(policy=[MUST, NEVER])
    _, refused = world.send([recipient], MESSAGE)
    assert refused[recipient].code in (550, 553)


def test_a_dot_behind_the_domain_is_still_outbound(world: World) -> None:
    """THR-15: nor may the sender's spelling make outbound mail of ours pass as mail that isn't."""
    outcome, refused = world.send([B], MESSAGE, sender="<a@home.test.>")
    assert refused == {}
    assert isinstance(outcome, Edits)


def test_a_rule_that_never_seals_is_accepted_early() -> None:
    """No certificate is looked for and no body is wanted."""
    world = World(policy=[{"name": "none", "seal": "never"}])
    world.broken = "must not be asked"
    outcome, _ = world.send([B], MESSAGE)
    assert outcome == Accept()
    assert "reason=ok.clear-rule" in world.log.text


def test_nobody_with_a_certificate_is_accepted_early() -> None:
    """All may go in clear and nothing is missing: the end of the header is early enough."""
    world = World(policy=[MAY])
    job = world.job()
    job.recipient(B)
    assert job.end_of_headers() == Accept()
