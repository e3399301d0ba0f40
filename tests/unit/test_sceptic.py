"""What somebody who does not believe us would try: ways through several parts, by their numbers in the plan of attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from postseal.app.seal import Edits, Reply
from postseal.core.assess import Assessed, Candidate, Origin
from postseal.core.certs import Certificate
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, NoAnswer, question_for
from postseal.core.path import Path
from postseal.core.plan import Action
from postseal.core.policy import decide
from postseal.core.revocation import Order, RevocationSettings, Status, judge
from postseal.core.transfer import FetchFailed, Transfer
from support import facts
from support.facts import ALICE, MESSAGE, ROOT, SUB
from support.lookups import CRL, OCSP, Bench, crl, question, responder
from support.lookups import ROOT as LOOKUP_ROOT
from support.mailworld import World
from support.pki import NOW
from support.responders import Responder

MAIL = b"From: a@home.test\r\nSubject: hello\r\n\r\ncanary-9d1c\r\n"


@pytest.fixture
def bench(tmp_path: FilePath) -> Iterator[Bench]:
    made = Bench(tmp_path, Order.OCSP_FIRST)
    yield made
    made.lookups.close()


BROKEN: dict[str, bytes | Transfer] = {
    "hangs": FetchFailed(OCSP, "rev.timeout", "no complete answer in time", host_fault=True),
    "reset": FetchFailed(OCSP, "rev.unreachable", "connection reset by peer", host_fault=True),
    "empty": b"",
    "HTML": b"<html>log in</html>",
    "successful without an answer": bytes.fromhex("30030a0100"),
    "cut": bytes.fromhex("3003"),
    "length of 4 GiB": bytes.fromhex("3084ffffffff0a0100"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_responder_leaves_the_decision_to_the_crl(name: str, bench: Bench) -> None:
    """T-5, RPL-3: asked first, it fails in every way; the CRL makes the certificate good, nothing is raised."""
    bench.web.answers = {OCSP: BROKEN[name], CRL: crl(LOOKUP_ROOT)}
    asked = question(CRL, ocsp=(OCSP,))
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.crl")
    assert [f.url for f in bench.failures(asked)] == [OCSP]


def test_a_bad_url_spoils_only_itself(bench: Bench) -> None:
    """T-5, OCSP-20: a URL that no parser likes is named and left out."""
    bench.web.answers = {OCSP: responder(Responder(LOOKUP_ROOT))}
    asked = question(ocsp=("http://[::bad/", OCSP))
    assert asked.ocsp_urls == (OCSP,)
    assert "malformed OCSP responder URL" in asked.skipped[0]
    bench.ask(asked)
    assert bench.status(asked) == (Status.GOOD, "rev.ocsp")


@pytest.mark.parametrize("strict", ["soft", "strict"])
@pytest.mark.parametrize("without", ["clear", "refuse", "defer", "hold"])
def test_revoked_is_never_sealed_for_and_the_log_says_why(strict: str, without: str) -> None:
    """T-1, PRE-3: whatever the rule; the line has source, reason and date."""
    world = World(
        policy=[{"name": "all", "seal": "may", "without_certificate": without, "revocation": strict}], budget=0
    )
    world.add("b@example.test")
    world.publish("b@example.test")
    outcome, refused = world.send(["<b@example.test>"], MAIL)
    assert not isinstance(outcome, Edits)
    assert world.listener.sent == []
    if without in ("refuse", "defer"):
        assert refused
    lines = [line for line in world.log.lines if line.startswith("warning")]
    assert any("revoked on 2" in line and "keyCompromise" in line and "http://" in line for line in lines), lines


def chain_of(*evidence: object) -> Assessed:
    """ALICE below SUB below ROOT, judged by ``evidence`` in the soft order."""
    path = facts.assessed(facts.GOOD).path
    assert isinstance(path, Path)
    verdicts = tuple(
        judge(question_for(c, path.issuer_of(n)), evidence, RevocationSettings(), NOW)  # type: ignore[arg-type]
        for n, c in enumerate(path.certificates)
    )
    return replace(facts.assessed(facts.GOOD), verdicts=verdicts)


def from_file(der: bytes) -> CrlEvidence:
    return CrlEvidence(parse_crl(der), "file:x.crl", NOW)


def test_the_worst_of_the_chain_counts() -> None:
    """T-21, PRE-3: a revoked CA above a good certificate; and one whose CRL can't be had."""
    leaf_good = from_file(SUB.crl())
    revoked = chain_of(leaf_good, from_file(ROOT.crl([SUB])))
    assert [v.status for v in revoked.verdicts] == [Status.GOOD, Status.REVOKED]
    unknown = chain_of(leaf_good, NoAnswer("http://root.test/x.crl", "rev.timeout", "no answer", NOW))
    assert unknown.verdicts[1].status is Status.UNKNOWN
    for rule, one, action in (
        ("soft", revoked, Action.REFUSE), ("strict", revoked, Action.REFUSE),
        ("soft", unknown, Action.SEAL), ("strict", unknown, Action.DEFER),
    ):  # fmt: skip
        rules = facts.rules(seal="must", without_certificate="refuse", revocation=rule)
        plan = decide(MESSAGE, [facts.recipient(one)], rules, NOW)
        assert plan.worst is action


HOSTILE = 'x\r\nBcc: victim@example.test\r\n\r\n<0>kernel: \x1b[2J\u202etxt"]\\ reason=ok' + "A" * 4000


def hostile_certificate(world: World) -> Certificate:
    """A certificate from our CA with a name made to be read by other programs than ours."""
    leaf = world.root.issue("b@example.test", slot="hostile")
    subject = x509.Name([x509.NameAttribute(NameOID.PSEUDONYM, HOSTILE[:3000], _validate=False)])
    extensions = [(e.value, e.critical) for e in leaf.certificate.x509.extensions]
    return world.root._sign(
        subject, leaf.key.public_key(), extensions,
        not_before=leaf.certificate.not_before, not_after=leaf.certificate.not_after,
    )  # fmt: skip


@pytest.mark.parametrize("without", ["refuse", "hold"])
def test_hostile_names_stay_on_their_line(without: str) -> None:
    """T-37, THR-9, THR-10: no line, reply or header field of ours is begun or ended by a certificate."""
    world = World(policy=[{"name": "all", "seal": "must", "without_certificate": without, "revocation": "soft"}])
    certificate = hostile_certificate(world)
    assert "\r\nBcc:" in certificate.x509.subject.get_attributes_for_oid(NameOID.PSEUDONYM)[0].value
    world.known["b@example.test"] = [certificate]
    der = world.root.crl([certificate.serial])
    world.stored = (CrlEvidence(parse_crl(der), f"http://ca.test/{HOSTILE}", NOW),)
    outcome, refused = world.send(["<b@example.test>"], MAIL)
    replies = [line for reply in refused.values() for line in reply.lines]
    if isinstance(outcome, Reply):
        replies += outcome.lines
    hold = getattr(outcome, "hold", "")
    assert replies or hold
    assert world.log.lines
    for text in (*replies, hold, *world.log.lines):
        assert text.isascii()
        assert text == "" or text.isprintable()
        assert len(text) < 4000


def test_hostile_names_change_no_header() -> None:
    """T-37, THR-9: what is added to a sealed message is the same for everybody."""
    world = World()
    certificate = hostile_certificate(world)
    world.known["b@example.test"] = [certificate]
    world.stored = (CrlEvidence(parse_crl(world.root.crl()), "http://ca.test/x", NOW),)
    outcome, _ = world.send(["<b@example.test>"], MAIL)
    assert isinstance(outcome, Edits)
    assert {e.name for e in outcome.header} <= {
        "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition",
    }  # fmt: skip
    assert not any("victim" in e.value for e in outcome.header)


def test_the_candidates_origin_is_no_excuse() -> None:
    """T-1: a certificate that an administrator pinned is refused like any other when it is revoked."""
    pinned = replace(
        facts.assessed(facts.REVOKED), candidate=Candidate(ALICE, Origin.PIN, "pin")
    )  # fmt: skip
    rules = facts.rules(seal="must", without_certificate="refuse")
    assert decide(MESSAGE, [facts.recipient(pinned)], rules, NOW).worst is Action.REFUSE
