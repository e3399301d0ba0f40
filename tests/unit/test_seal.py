"""One message from MAIL to its end, with everything outside held in memory (support.mailworld)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import Future
from email import message_from_bytes
from pathlib import Path

import pytest

from postseal.app.seal import Accept, Edits, Outcome, Reply
from postseal.core.errors import BadData, Unavailable
from support.mailworld import World, edited

CANARY = b"canary-7f3a"
MESSAGE = (
    b"From: a@home.test\r\nTo: b@example.test\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + CANARY
    + b" \xc3\xbc\r\n.\r\nlast line"
)
INNER = (
    b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + MESSAGE.partition(b"\r\n\r\n")[2]
)
B, C, D = "<b@example.test>", "<c@example.test>", "<d@example.test>"
MAY = {"name": "all", "seal": "may", "without_certificate": "clear"}


@pytest.fixture
def world() -> World:
    """b has a certificate and a fresh CRL; who has none is refused."""
    made = World()
    made.add("b@example.test")
    made.publish()
    return made


def sealed(outcome: Outcome) -> Edits:
    assert isinstance(outcome, Edits), outcome
    return outcome


# --- sealing in place


@pytest.mark.parametrize("chunk", [1, 7, 65535])
def test_the_original_becomes_a_sealed_message(world: World, chunk: int) -> None:
    """ALG-1, THR-9.

    Outer header kept, MIME-Version once, the inner entity is the original's Content fields and body, octet for octet."""
    outcome, refused = world.send([B], MESSAGE, chunk=chunk)
    whole = edited(MESSAGE, sealed(outcome))
    head, _, body = whole.partition(b"\r\n\r\n")
    parsed = message_from_bytes(whole)
    assert refused == {}
    assert parsed.get_content_type() == "application/pkcs7-mime"
    assert parsed.get_param("smime-type") == "enveloped-data"
    assert parsed.get_all("MIME-Version") == ["1.0"]
    assert parsed.get_all("Content-Transfer-Encoding") == ["base64"]
    assert head.startswith(b"From: a@home.test\r\nTo: b@example.test\r\nSubject: hello\r\n")
    assert world.open("b@example.test", body) == INNER
    assert CANARY not in whole
    assert world.listener.sent == []


@pytest.mark.parametrize(
    ("kind", "cipher"), [("rsa2048", "aes128-cbc"), ("p256", "aes256-cbc"), ("rsa2048", "aes256-gcm")]
)
def test_the_rule_s_cipher_is_used(kind: str, cipher: str) -> None:
    """ALG-3: CBC and GCM, RSA and EC."""
    world = World(policy=[{"name": "all", "seal": "must", "without_certificate": "refuse", "cipher": cipher}])
    world.add("b@example.test", kind)
    world.publish()
    outcome, _ = world.send([B], MESSAGE)
    whole = edited(MESSAGE, sealed(outcome))
    kind_outside = "authEnveloped-data" if cipher.endswith("gcm") else "enveloped-data"
    assert message_from_bytes(whole).get_param("smime-type") == kind_outside
    assert world.open("b@example.test", whole.partition(b"\r\n\r\n")[2]) == INNER


def test_large_content_goes_to_the_spool_as_ciphertext(tmp_path: Path) -> None:
    """Above the memory limit the same message comes out, every block fits one reply of the protocol."""
    world = World(tmp_path)
    world.memory = 1000
    world.add("b@example.test")
    world.publish()
    big = MESSAGE + b"\r\n" + b64encode(os.urandom(300_000)) + b"\r\n"
    job = world.job()
    job.recipient(B)
    job.header(b"Subject", b" x")
    assert job.end_of_headers() is None
    body = big.partition(b"\r\n\r\n")[2]
    for start in range(0, len(body), 65535):
        job.body(body[start : start + 65535])
    edits = sealed(job.finish(lambda: None))
    blocks = list(edits.blocks)
    assert max(map(len, blocks)) < 65536
    assert world.open("b@example.test", b"".join(blocks)).endswith(body)
    job.close()
    assert world.workload.active == 0


def test_odd_octets_are_sealed_as_they_are(world: World) -> None:
    """NUL, 8-bit octets, 70 000-octet lines and a missing last line end (issue: byte-true)."""
    body = b"\0\xff\x80" + b"x" * 70_000 + b"\r\n..\r\n \r\n\0"
    message = b"Subject: x\r\nContent-Type: application/octet-stream\r\n\r\n" + body
    outcome, _ = world.send([B], message)
    inner = world.open("b@example.test", b"".join(sealed(outcome).blocks))
    assert inner == b"Content-Type: application/octet-stream\r\n\r\n" + body


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (MESSAGE.replace(b"Subject", b"Content-Type: text/html\r\nSubject"), 554, "comes twice: Content-Type"),
        (MESSAGE + b"\rbare", 554, "CR without LF"),
        (MESSAGE + b"\nbare", 554, "LF without CR"),
        (MESSAGE + b"\r", 554, "CR without LF"),
    ],
)
def test_what_can_t_be_sealed_true_is_refused_by_name(world: World, message: bytes, code: int, words: str) -> None:
    """Never altered in silence (THR-11); the reply names the recipient and the rule."""
    outcome, _ = world.send([B], message)
    assert isinstance(outcome, Reply)
    assert outcome.code == code
    assert "b@example.test" in outcome.text
    assert words in outcome.text


def test_a_faulty_message_in_clear_is_none_of_our_business() -> None:
    """Who gets it unsealed by rule gets it as it is."""
    world = World(policy=[MAY])
    outcome, _ = world.send([B], MESSAGE + b"\nbare")
    assert outcome == Accept()


# --- answers at RCPT


def test_a_recipient_without_certificate_is_refused_at_rcpt(world: World) -> None:
    """The other one still gets the message; the log has NOQUEUE because Postfix gives no id yet."""
    outcome, refused = world.send([C, B], MESSAGE)
    sealed(outcome)
    assert list(refused) == [C]
    assert (refused[C].code, refused[C].enhanced) == (550, "5.7.1")
    assert (
        "NOQUEUE: to=<c@example.test>, from=<a@home.test>, action=refused, reason=rcpt.no-certificate" in world.log.text
    )


def test_an_unreadable_directory_defers(world: World) -> None:
    """Not knowing is no reason to send in clear."""
    world.broken = "certificates: Input/output error"
    _, refused = world.send([B], MESSAGE)
    assert refused[B].code == 451


def test_a_revoked_certificate_is_refused_at_rcpt(world: World) -> None:
    """Never sealed for, and the sender hears it at once."""
    world.publish("b@example.test")
    _, refused = world.send([B], MESSAGE)
    assert refused[B].code == 550
    assert "revoked" in refused[B].text


# --- evidence that has to be fetched


def test_missing_evidence_is_fetched_while_data_arrives(world: World) -> None:
    """Asked at RCPT, in the background; what arrived by the end of the message decides."""
    world.stored = ()
    world.changes += 1

    def arrive(future: Future[None]) -> None:
        world.publish("b@example.test")
        future.set_result(None)

    world.on_ask = arrive
    outcome, refused = world.send([B], MESSAGE)
    assert refused == {}
    assert isinstance(outcome, Reply)
    assert outcome.code == 550
    ((questions, budget),) = world.asked
    assert [q.crl_urls for q in questions] == [("http://ca.example.test/root.crl",)]
    assert budget == 0.3


def test_waiting_ends_with_the_budget_and_says_progress(world: World) -> None:
    """T-6: Soft rule: sealed with a warning when nobody answers; the MTA hears that we live."""
    world.stored = ()
    world.changes += 1
    world.on_ask = lambda future: None
    job = world.job()
    job.recipient(B)
    job.header(b"Subject", b" x")
    job.end_of_headers()
    job.body(b"x\r\n")
    heard: list[int] = []
    before = world.sealing().clock.monotonic()
    outcome = job.finish(lambda: heard.append(1))
    waited = world.sealing().clock.monotonic() - before
    sealed(outcome)
    job.sent()
    job.close()
    assert 0.1 < waited < 2
    assert heard
    assert "sealed anyway (revocation=soft)" in world.log.text


def test_a_strict_rule_defers_at_the_end_not_at_rcpt() -> None:
    """T-6: At RCPT the evidence may still come."""
    world = World(
        policy=[{"name": "s", "seal": "must", "without_certificate": "refuse", "revocation": "strict"}], budget=0.05
    )
    world.add("b@example.test")
    outcome, refused = world.send([B], MESSAGE)
    assert refused == {}
    assert isinstance(outcome, Reply)
    assert (outcome.code, outcome.enhanced) == (451, "4.7.5")


def test_no_budget_asks_nobody() -> None:
    """budget = 0: only what is stored counts."""
    world = World(budget=0)
    world.add("b@example.test")
    world.send([B], MESSAGE)
    assert world.asked == []


# --- several outcomes


@pytest.fixture
def mixed() -> World:
    """b: RSA certificate, c: none, d: EC certificate; without one mail may go in clear."""
    world = World(policy=[MAY])
    world.add("b@example.test")
    world.add("d@example.test", "p256")
    world.publish()
    return world


def test_a_clear_copy_is_re_injected_and_taken_out_of_the_original(mixed: World) -> None:
    """The clear copy is the original, octet for octet, decrypted back from our ciphertext."""
    outcome, _ = mixed.send([B, C], MESSAGE, options=["SIZE=100", "BODY=8BITMIME", "RET=HDRS"])
    edits = sealed(outcome)
    assert edits.delete_recipients == (C,)
    assert mixed.listener.sent == [("<a@home.test>", (C,), MESSAGE, ("BODY=8BITMIME", "RET=HDRS"), {C: ()})]
    assert mixed.open("b@example.test", b"".join(edits.blocks)) == INNER


def test_rsa_and_ec_recipients_get_copies_of_their_own(mixed: World) -> None:
    """P16: older readers can't open a message for both; each copy opens with its own key only."""
    outcome, _ = mixed.send([B, D], MESSAGE)
    edits = sealed(outcome)
    ((_, recipients, copy, _, _),) = mixed.listener.sent
    assert {*edits.delete_recipients, *recipients} == {*recipients}
    bodies = {recipients[0]: copy.partition(b"\r\n\r\n")[2]}
    bodies[B if recipients[0] == D else D] = b"".join(edits.blocks)
    assert mixed.open("b@example.test", bodies[B]) == INNER
    assert mixed.open("d@example.test", bodies[D]) == INNER
    with pytest.raises(BadData):
        mixed.open("d@example.test", bodies[B])
    parsed = message_from_bytes(copy)
    assert parsed.get_all("MIME-Version") == ["1.0"]
    assert parsed["Subject"] == "hello"
    assert parsed.get_content_type() == "application/pkcs7-mime"
    assert CANARY not in copy


def test_each_recipient_is_in_exactly_one_copy(mixed: World) -> None:
    """CERT-7: Sealed, clear and EC together."""
    outcome, _ = mixed.send([B, C, D], MESSAGE)
    edits = sealed(outcome)
    copies = [r for _, recipients, *_ in mixed.listener.sent for r in recipients]
    assert sorted(copies) == sorted(edits.delete_recipients)
    assert sorted([*copies, *({B, C, D} - set(copies))]) == sorted([B, C, D])


def test_recipients_keep_their_notification_options(mixed: World) -> None:
    """RFC 3461: NOTIFY and ORCPT go with the copy, other parameters don't."""
    job = mixed.job()
    job.recipient(B)
    job.recipient(C, ["NOTIFY=NEVER", "ORCPT=rfc822;c@example.test", "X=1"])
    job.header(b"Subject", b" x")
    job.end_of_headers()
    job.finish(lambda: None)
    assert mixed.listener.sent[0][4] == {C: ("NOTIFY=NEVER", "ORCPT=rfc822;c@example.test")}


def test_without_a_second_listener_the_whole_message_waits(mixed: World) -> None:
    """Nothing is sent to anybody; the text names the option and each recipient."""
    mixed.reinject = False
    outcome, _ = mixed.send([B, C], MESSAGE)
    assert isinstance(outcome, Reply)
    assert (outcome.code, outcome.enhanced) == (451, "4.3.5")
    assert "reinject" in outcome.text
    assert all(r in outcome.text for r in (B, C))
    assert world_actions(mixed) == {"deferred"}


def world_actions(world: World) -> set[str]:
    return {record.action for record in world.records.kept}


@pytest.mark.parametrize(
    ("failure", "code"), [(Unavailable("no listener"), 451), (BadData("550 5.1.1 no such user"), 550)]
)
def test_a_copy_that_isn_t_taken_stops_the_message(mixed: World, failure: Exception, code: int) -> None:
    """THR-12: The original isn't touched, nobody is told that it was sealed."""
    mixed.listener.failure = failure
    outcome, _ = mixed.send([B, C], MESSAGE)
    assert isinstance(outcome, Reply)
    assert outcome.code == code
    assert "action=sealed" not in mixed.log.text


def test_copies_that_were_delivered_before_a_failure_are_named(mixed: World) -> None:
    """The administrator must know who will get it twice."""
    mixed.listener.failure, mixed.listener.fail_at = Unavailable("gone"), 2
    outcome, _ = mixed.send([B, C, D], MESSAGE)
    assert isinstance(outcome, Reply)
    already = mixed.listener.sent[0][1][0]
    assert f"error: 4XyZ: copies were delivered already to {already}" in mixed.log.text


def test_a_recipient_that_can_t_be_named_to_the_mta_defers(mixed: World) -> None:
    """P7: octets that aren't UTF-8 can't be taken out of the original; the reply is by name."""
    raw = b"<\xfc@example.test>".decode("utf-8", "surrogateescape")
    outcome, refused = mixed.send([B, raw], MESSAGE)
    answer = refused.get(raw) or outcome
    assert isinstance(answer, Reply)
    assert answer.code in (451, 553)
    assert "xfc" in answer.text
    assert mixed.listener.sent == []


def test_held_mail_is_held_whole() -> None:
    """HOLD is the MTA's quarantine, unchanged."""
    world = World(policy=[{"name": "h", "seal": "may", "without_certificate": "hold"}])
    outcome, _ = world.send([B], MESSAGE)
    assert isinstance(outcome, Accept)
    assert "b@example.test" in outcome.hold
    assert "action=held" in world.log.text


def test_held_and_sealed_don_t_mix() -> None:
    """Held mail leaves as it came when it is released, so nobody who must get it sealed may be with it."""
    world = World(policy=[{"name": "h", "seal": "may", "without_certificate": "hold"}])
    world.add("b@example.test")
    world.publish()
    outcome, _ = world.send([B, C], MESSAGE)
    assert isinstance(outcome, Reply)
    assert outcome.code == 451
    assert "send to each apart" in outcome.text


# --- mail that is encrypted already


def encrypted(world: World) -> bytes:
    outcome, _ = world.send([B], MESSAGE)
    return edited(MESSAGE, sealed(outcome))


def test_encrypted_mail_passes_with_a_note(world: World) -> None:
    """Structurally: content type and a CMS object that parses."""
    message = encrypted(world)
    world.log.lines.clear()
    outcome, _ = world.send([B], message)
    assert outcome == Accept()
    assert "reason=ok.already-encrypted" in world.log.text


def test_mail_that_only_claims_to_be_encrypted_is_sealed(world: World) -> None:
    """A content type is no protection."""
    claim = MESSAGE.replace(b"text/plain;\r\n\tcharset=utf-8", b"application/pkcs7-mime; smime-type=enveloped-data")
    claim = claim.replace(b": 8bit", b": base64").replace(b" \xc3\xbc\r\n.\r\nlast line", b"")
    outcome, _ = world.send([B], claim)
    assert CANARY in world.open("b@example.test", b"".join(sealed(outcome).blocks))
    assert "claimed-only" in world.log.text


# --- limits and failures


def test_the_size_after_sealing_is_checked_before_anything_is_sent(mixed: World) -> None:
    """P21: Postfix would answer 552 after the copies have left."""
    limited = World(policy=[MAY], message_size_limit=5000)
    limited.add("b@example.test")
    limited.publish()
    outcome, _ = limited.send([B, C], MESSAGE + b"x" * 4000)
    assert isinstance(outcome, Reply)
    assert (outcome.code, outcome.enhanced) == (552, "5.3.4")
    assert "the limit is 5000" in outcome.text
    assert limited.listener.sent == []
    outcome, _ = limited.send([B, C], MESSAGE)
    sealed(outcome)


def test_the_size_that_is_checked_is_the_size_that_is_sent(world: World) -> None:
    """One octet less than the sealed message is too little, the size itself is enough."""
    whole = edited(MESSAGE, sealed(world.send([B], MESSAGE)[0]))
    for limit, fits in ((len(whole) - 1, False), (len(whole), True)):
        small = World(message_size_limit=limit)
        small.add("b@example.test")
        small.publish()
        outcome, _ = small.send([B], MESSAGE)
        assert isinstance(outcome, Edits) is fits


def test_too_many_messages_at_once_are_deferred() -> None:
    """THR-32: the place is free again when a message ends."""
    world = World(max_messages=2, policy=[MAY])
    first, second, third = world.job(), world.job(), world.job()
    assert first.recipient(B) is None
    busy = third.recipient(B)
    assert busy is not None
    assert (busy.code, busy.enhanced) == (451, "4.3.2")
    third.close()
    second.close()
    second.close()
    assert world.job().recipient(B) is None
    assert "max_messages" in world.log.text


def test_strangers_don_t_take_the_places() -> None:
    """Inbound mail isn't counted against max_messages, but a drain waits for it."""
    world = World(max_messages=1, policy=[MAY])
    strangers = [world.job("<x@elsewhere.test>") for _ in range(5)]
    assert [job.recipient(B) for job in strangers] == [None] * 5
    assert world.workload.active == 5
    assert world.job().recipient(B) is None
    busy = world.job().recipient(B)
    assert busy is not None
    for job in strangers:
        job.close()
    assert world.workload.active == 1


def test_a_full_spool_defers(tmp_path: Path) -> None:
    """Ciphertext that can't be kept: 4xx at the end, nothing sent."""
    world = World(tmp_path / "missing", policy=[MAY])
    world.memory = 10
    world.add("b@example.test")
    world.publish()
    job = world.job()
    job.recipient(B)
    job.recipient(C)
    job.header(b"Subject", b" x")
    with pytest.raises(Unavailable) as caught:
        job.end_of_headers()
    reply = job.fail(caught.value)
    job.body(b"more\r\n")
    assert job.finish(lambda: None) is reply
    assert (reply.code, reply.enhanced) == (451, "4.3.1")
    assert world.listener.sent == []
    assert "No such file" in world.log.text


def test_an_exception_is_logged_without_the_message(world: World) -> None:
    """Type and place for the administrator, nothing of it for the client, no message data anywhere."""
    job = world.job()
    job.recipient(B)

    def explode() -> Iterator[bytes]:
        raise ValueError(CANARY.decode())

    try:
        next(explode())
    except ValueError as exc:
        reply = job.fail(exc)
    job.sent()
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    assert "ValueError at test_seal.py" in world.log.text
    assert CANARY.decode() not in world.log.text + reply.text
    assert world.records.kept == []


def test_a_plan_that_can_t_be_built_never_becomes_clear_text(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """THR-14: the egress assertion looks at what was built, whoever built it."""
    from postseal.app import content

    monkeypatch.setattr(content, "base64_blocks", lambda chunks: iter([b64encode(MESSAGE)]))
    job = world.job()
    job.recipient(B)
    job.header(b"Subject", b" x")
    job.end_of_headers()
    job.body(b"x\r\n")
    with pytest.raises(BadData, match="isn't a CMS envelope"):
        job.finish(lambda: None)


def test_the_log_speaks_only_after_the_mta_has_taken_it(world: World) -> None:
    """A connection that breaks during the edits must not leave a line that says sealed."""
    job = world.job()
    job.recipient(B)
    job.header(b"Subject", b" x")
    job.end_of_headers()
    sealed(job.finish(lambda: None))
    assert world.log.lines == []
    job.fail(OSError(32, "Broken pipe"))
    job.sent()
    assert "action=sealed" not in world.log.text
    assert "Broken pipe" in world.log.text
