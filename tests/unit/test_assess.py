"""Assessing a mailbox with what is on hand: what is asked, what is kept, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from postseal.app.assess import Assessor
from postseal.core.address import Mailbox, parse_mailbox
from postseal.core.assess import Candidate, Origin
from postseal.core.certs import Certificate
from postseal.core.ciphers import Remembered
from postseal.core.clock import clock_fault
from postseal.core.crl import parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, Orphan, Question
from postseal.core.path import Anchor, Path, PathFault, PathSettings
from postseal.core.revocation import RevocationSettings, Status
from postseal.core.suite import Suite
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority, name, pointers, usage

URL = "http://ca.example.test/sub.crl"
ROOT_URL = "http://ca.example.test/root.crl"
ALICE = parse_mailbox("alice@example.test")


class World:
    """Certificates, trust and evidence held in memory, with counters for what was asked."""

    def __init__(self) -> None:
        self.root = authority("Root")
        self.sub = self.root.sub("Issuing", crl_urls=[ROOT_URL])
        self.known: list[Certificate] = []
        self.trust_generation = 0
        self.evidence_generation = 0
        self.stored: dict[str, tuple[Evidence, ...]] = {}
        self.origin = Origin.FOLDER
        self.broken_directory = ""
        self.broken_store = ""
        self.reads = 0
        self.asked: list[Question | Orphan] = []
        self.told: list[Question] = []
        self.wants = True
        self.newest_crl: datetime | None = None
        self.fetch_issuers = False

    def anchors(self) -> tuple[Anchor, ...]:
        return (Anchor(self.root.certificate),)

    def intermediates(self) -> tuple[Certificate, ...]:
        return (self.sub.certificate,)

    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        if self.broken_directory:
            raise Unavailable(self.broken_directory)
        return tuple(Candidate(c, self.origin, "memory") for c in self.known)

    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        self.reads += 1
        if self.broken_store:
            raise Unavailable(self.broken_store)
        return self.stored.get(question.certificate.fingerprint, ())

    def generation(self) -> int:
        return self.evidence_generation

    def wants_issuer(self, certificate: Certificate, at: datetime) -> bool:
        return self.wants

    def newest(self) -> datetime | None:
        return self.newest_crl

    def tell(self, questions: Sequence[Question]) -> None:
        self.told.extend(questions)

    def ask(self, questions: Sequence[Question | Orphan], budget: float, message: str = "") -> Future[None]:
        self.asked.extend(questions)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def publish(self, *, revoked: Sequence[Leaf] = (), number: int = 1) -> None:
        """New CRLs of both CAs arrive in the store."""
        crl = CrlEvidence(parse_crl(self.sub.crl(revoked, number=number)), URL, NOW)
        for certificate in self.known:
            self.stored[certificate.fingerprint] = (crl,)
        root_crl = CrlEvidence(parse_crl(self.root.crl(number=number)), ROOT_URL, NOW)
        self.stored[self.sub.certificate.fingerprint] = (root_crl,)
        self.evidence_generation += 1

    def assessor(self) -> Assessor:
        return Assessor(self, Trust(self), self, self, PathSettings(), RevocationSettings(), self.fetch_issuers)


class Trust:
    """The trust store's face of the world: its generation is another than that of the evidence."""

    def __init__(self, world: World) -> None:
        self._world = world

    def anchors(self) -> tuple[Anchor, ...]:
        return self._world.anchors()

    def intermediates(self) -> tuple[Certificate, ...]:
        return self._world.intermediates()

    def generation(self) -> int:
        return self._world.trust_generation


def with_alice(**more: object) -> tuple[World, Leaf]:
    world = World()
    alice = world.sub.issue("alice@example.test", crl_urls=[URL], **more)  # type: ignore[arg-type]
    world.known.append(alice.certificate)
    return world, alice


def test_good_when_both_crls_are_on_hand() -> None:
    world, _ = with_alice()
    world.publish()
    found = world.assessor().assess(ALICE, NOW)
    assert [v.status for v in found.assessed[0].verdicts] == [Status.GOOD, Status.GOOD]
    assert not found.missing


def test_x25519_is_fit_where_that_is_configured() -> None:
    """RFC 8418"""
    world, _ = with_alice(kind="x25519")
    world.publish()
    assert [f.code for f in world.assessor().assess(ALICE, NOW).assessed[0].findings] == ["cert.no-reader"]
    assessor = Assessor(world, Trust(world), world, world, PathSettings(), RevocationSettings(), x25519=True)
    assert assessor.assess(ALICE, NOW).assessed[0].findings == ()


def test_asks_for_every_certificate_of_the_path_but_the_anchor() -> None:
    """PRE-3, PRE-4: the leaf and the intermediate are asked about, the anchor is not."""
    world, alice = with_alice()
    found = world.assessor().assess(ALICE, NOW)
    assert [q.certificate for q in found.missing] == [alice.certificate, world.sub.certificate]
    assert all(v.status is Status.UNKNOWN for v in found.assessed[0].verdicts)


def test_asks_nothing_about_an_untrusted_certificate() -> None:
    """PRE-1: the URLs of a certificate without a path to an anchor are never used."""
    world, _ = with_alice()
    stranger = authority("Stranger").issue("alice@example.test", crl_urls=["http://tracker.example/x"], slot=9)
    world.known[:] = [stranger.certificate]
    found = world.assessor().assess(ALICE, NOW)
    assert isinstance(found.assessed[0].path, PathFault)
    assert not found.missing
    assert world.reads == 0


def test_asks_nothing_about_a_certificate_that_is_an_anchor_itself() -> None:
    """PRE-4: a pinned self-signed certificate is revoked by taking it away, not by a CRL."""
    world, _ = with_alice()
    maker = authority("alice@example.test")
    address = (x509.SubjectAlternativeName([x509.RFC822Name("alice@example.test")]), False)
    pinned = maker._sign(
        maker.subject,
        maker.key.public_key(),
        [address, *pointers([URL], [])],
        not_before=NOW - DAY,
        not_after=NOW + DAY,
    )
    world.known[:] = [pinned]
    world.anchors = lambda: (Anchor(pinned),)  # type: ignore[method-assign]
    found = world.assessor().assess(ALICE, NOW)
    assert not isinstance(found.assessed[0].path, PathFault)
    assert not found.missing
    assert [v.reason for v in found.assessed[0].verdicts] == ["rev.anchor"]
    assert world.reads == 0


def test_asks_nothing_about_an_expired_certificate() -> None:
    """PRE-2: an expired certificate is unusable for encryption anyhow."""
    world, _ = with_alice(not_before=NOW - 30 * DAY, not_after=NOW - DAY)
    assert not world.assessor().assess(ALICE, NOW).missing


def test_second_look_reads_nothing() -> None:
    """CACHE-11: within ten minutes and without news, the answer is the one that was kept."""
    world, _ = with_alice()
    world.publish()
    assessor = world.assessor()
    first = assessor.assess(ALICE, NOW)
    reads = world.reads
    assert assessor.assess(ALICE, NOW + timedelta(minutes=9)) is first
    assert world.reads == reads
    assert assessor.assess(ALICE, NOW + timedelta(minutes=11)) is not first


def test_revocation_is_seen_at_the_next_message() -> None:
    """CACHE-11: new evidence ends what was kept at once."""
    world, alice = with_alice()
    world.publish()
    assessor = world.assessor()
    assert assessor.assess(ALICE, NOW).assessed[0].verdicts[0].status is Status.GOOD
    world.publish(revoked=[alice], number=2)
    assert assessor.assess(ALICE, NOW).assessed[0].verdicts[0].status is Status.REVOKED


def test_nothing_is_kept_beyond_next_update() -> None:
    """CACHE-1: a verdict made a minute before its CRL ends is not used two minutes later."""
    world, _ = with_alice()
    world.publish()
    assessor = world.assessor()
    late = NOW + 7 * DAY - timedelta(minutes=1)
    assert assessor.assess(ALICE, late).assessed[0].verdicts[0].status is Status.GOOD
    after = assessor.assess(ALICE, NOW + 7 * DAY + HOUR)
    assert after.assessed[0].verdicts[0].status is Status.UNKNOWN


def test_nothing_is_kept_beyond_expiry() -> None:
    world, alice = with_alice(not_after=NOW + timedelta(minutes=5))
    world.publish()
    assessor = world.assessor()
    assert not isinstance(assessor.assess(ALICE, NOW).assessed[0].path, PathFault)
    later = assessor.assess(ALICE, alice.certificate.not_after + timedelta(seconds=1))
    assert isinstance(later.assessed[0].path, PathFault)


def test_a_distrusted_anchor_ends_what_was_kept() -> None:
    world, _ = with_alice()
    world.publish()
    assessor = world.assessor()
    assessor.assess(ALICE, NOW)
    world.root = authority("Another root")
    world.trust_generation += 1
    assert isinstance(assessor.assess(ALICE, NOW).assessed[0].path, PathFault)


def test_unreadable_certificate_store_is_an_error_not_an_absence() -> None:
    world, _ = with_alice()
    world.broken_directory = "certificates.sqlite: disk I/O error"
    assert world.assessor().assess(ALICE, NOW).error == "certificates.sqlite: disk I/O error"


def test_unreadable_evidence_is_unknown_never_good() -> None:
    world, _ = with_alice()
    world.publish()
    world.broken_store = "evidence.sqlite: database is locked"
    verdict = world.assessor().assess(ALICE, NOW).assessed[0].verdicts[0]
    assert verdict.status is Status.UNKNOWN
    assert "database is locked" in verdict.detail


def test_a_clock_that_goes_back_keeps_nothing() -> None:
    world, _ = with_alice()
    world.publish()
    assessor = world.assessor()
    first = assessor.assess(ALICE, NOW)
    assert assessor.assess(ALICE, NOW - timedelta(seconds=1)) is not first


def test_fetch_hands_the_questions_to_the_lookup_process() -> None:
    world, _ = with_alice()
    assessor = world.assessor()
    missing = assessor.assess(ALICE, NOW).missing
    assert assessor.fetch(missing, 1.0).result() is None
    assert world.asked == list(missing)


def test_an_unknown_verdict_is_looked_at_again_when_its_back_off_ends() -> None:
    """CACHE-11, CACHE-3: nothing is missing while the URL is left alone; that must not last ten minutes more."""
    world, alice = with_alice()
    retry_at = NOW + timedelta(seconds=50)
    for certificate, url in ((alice.certificate, URL), (world.sub.certificate, ROOT_URL)):
        world.stored[certificate.fingerprint] = (NoAnswer(url, "rev.timeout", "no answer in time", NOW, retry_at),)
    assessor = world.assessor()
    assert not assessor.assess(ALICE, NOW).missing
    assert len(assessor.assess(ALICE, NOW + timedelta(seconds=61)).missing) == 2


def test_a_pin_is_seen_at_once() -> None:
    """The same certificate from another origin isn't the same candidate: the choice among several may change."""
    world, alice = with_alice()
    world.publish()
    assessor = world.assessor()
    assert assessor.assess(ALICE, NOW).assessed[0].candidate.origin is Origin.FOLDER
    world.origin = Origin.PIN
    assert assessor.assess(ALICE, NOW).assessed[0].candidate.origin is Origin.PIN
    assert alice.certificate in world.known


def test_crls_of_other_signers_count_for_mail_too() -> None:
    """CRL-2, PRE-7: an appointed CRL issuer decides, its certificate comes from the store, and it is asked about as well."""
    world = World()
    found = world.root.issue(
        None, common_name="CRL issuer", slot="signer", eku=None, key_usage=usage("crl_sign"), crl_urls=[ROOT_URL]
    )
    signer = Authority(found.certificate, found.key, name("CRL issuer"))
    point = x509.DistributionPoint(
        [x509.UniformResourceIdentifier(URL)], None, None, [x509.DirectoryName(signer.subject)]
    )
    alice = world.sub.issue("alice@example.test", extra=[(x509.CRLDistributionPoints([point]), False)])
    world.known.append(alice.certificate)
    indirect = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
    crl = parse_crl(signer.crl(extra=[(indirect, True)]))
    root_crl = CrlEvidence(parse_crl(world.root.crl()), ROOT_URL, NOW)
    world.stored[alice.certificate.fingerprint] = (CrlEvidence(crl, URL, NOW, (signer.certificate,)),)
    world.stored[world.sub.certificate.fingerprint] = (root_crl,)
    first = world.assessor().assess(ALICE, NOW)
    assert [v.status for v in first.assessed[0].verdicts] == [Status.UNKNOWN, Status.GOOD]
    assert [q.certificate for q in first.missing] == [signer.certificate], "its own CRL was fetched a moment ago"
    world.stored[signer.certificate.fingerprint] = (root_crl,)
    second = world.assessor().assess(ALICE, NOW)
    assert [v.status for v in second.assessed[0].verdicts] == [Status.GOOD, Status.GOOD]
    assert not second.missing


def test_another_path_is_taken_when_a_ca_of_the_first_is_revoked() -> None:
    """RFC 5280 §6.1: the paths are kept, the choice among them is made anew with new evidence."""
    world, _ = with_alice()
    world.publish()
    other = authority("Second root")
    extensions = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage("key_cert_sign", "crl_sign"), True)]
    cross = other._sign(
        world.sub.subject, world.sub.key.public_key(), extensions, not_before=NOW - DAY, not_after=NOW + DAY
    )
    roots = (Anchor(world.root.certificate), Anchor(other.certificate))
    trust = Trust(world)
    trust.anchors = lambda: roots  # type: ignore[method-assign]
    trust.intermediates = lambda: (world.sub.certificate, cross)  # type: ignore[method-assign]
    world.stored[cross.fingerprint] = (CrlEvidence(parse_crl(other.crl()), "file:other", NOW),)
    assessor = Assessor(world, trust, world, world, PathSettings(), RevocationSettings())
    first = assessor.assess(ALICE, NOW).assessed[0]
    assert isinstance(first.path, Path)
    for revoked, by in ((world.sub.certificate, world.root), (cross, other)):
        world.stored[world.sub.certificate.fingerprint] = (CrlEvidence(parse_crl(world.root.crl()), ROOT_URL, NOW),)
        world.stored[cross.fingerprint] = (CrlEvidence(parse_crl(other.crl()), "file:other", NOW),)
        der = by.crl([Leaf(revoked, None)], number=2)
        world.stored[revoked.fingerprint] = (CrlEvidence(parse_crl(der), ROOT_URL, NOW),)
        world.evidence_generation += 1
        second = assessor.assess(ALICE, NOW).assessed[0]
        assert isinstance(second.path, Path)
        assert revoked not in second.path.certificates
        assert all(v.status is Status.GOOD for v in second.verdicts)


def test_orphan_is_asked_for_when_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5280 §4.2.2.1, THR-1: a missing issuer is a question too, unless that is off, in back-off, or of no use."""
    world, alice = with_alice()
    world.fetch_issuers = True
    monkeypatch.setattr(World, "intermediates", lambda self: ())
    assessment = world.assessor().assess(ALICE, NOW)
    assert assessment.missing == (Orphan(alice.certificate),)
    world.assessor().fetch(assessment.missing, 1.0, "message")
    assert world.asked == [Orphan(alice.certificate)]
    world.wants = False
    assert world.assessor().assess(ALICE, NOW).missing == ()
    world.wants, world.fetch_issuers = True, False
    assert world.assessor().assess(ALICE, NOW).missing == ()
    world.fetch_issuers = True
    assert world.assessor().assess(ALICE, alice.certificate.not_after + DAY).missing == ()


def test_t23_wrong_clock_makes_nothing_good() -> None:
    """CACHE-9, THR-27, T-23: before the newest CRL or before this version was made every verdict is unknown; revoked stays."""
    world, alice = with_alice()
    world.publish()
    world.newest_crl = NOW + 10 * timedelta(minutes=1)
    (one,) = world.assessor().assess(ALICE, NOW).assessed
    assert {v.reason for v in one.verdicts} == {"rev.clock"}
    world.newest_crl = NOW + timedelta(minutes=4)
    (one,) = world.assessor().assess(ALICE, NOW).assessed
    assert {v.status for v in one.verdicts} == {Status.GOOD}
    world.publish(revoked=[alice], number=2)
    world.newest_crl = NOW + DAY
    (one,) = world.assessor().assess(ALICE, NOW).assessed
    assert [v.reason for v in one.verdicts] == ["rev.revoked-crl", "rev.clock"]
    assert clock_fault(datetime(1970, 1, 1, tzinfo=UTC), None, timedelta(minutes=5)).endswith(
        "before postseal was made"
    )
    assert clock_fault(NOW, None, timedelta(minutes=5)) == ""


def test_a_clock_that_went_back_makes_no_certificate_unusable() -> None:
    """CACHE-9, THR-27: what isn't valid yet by a wrong clock is no reason to send in clear: the store counts as unreadable."""
    world, _ = with_alice()
    world.publish()
    world.newest_crl = NOW
    past = NOW - 3 * 366 * DAY
    found = world.assessor().assess(ALICE, past)
    assert isinstance(found.assessed[0].path, PathFault)
    assert "clock" in found.error
    world.newest_crl = None
    assert world.assessor().assess(ALICE, NOW + 3000 * DAY).error == ""


def test_lookup_hears_now_and_then_of_what_is_in_use() -> None:
    """CACHE-2, CRL-27: warm evidence is told of twice a day, and a revocation at once; what is missing is asked anyhow."""
    world, alice = with_alice()
    assessor = world.assessor()
    assessor.assess(ALICE, NOW)
    assert world.told == []
    world.publish()
    for hours in (0, 1, 11):
        assessor.assess(ALICE, NOW + timedelta(hours=hours))
    assert [q.certificate for q in world.told] == [alice.certificate, world.sub.certificate]
    assessor.assess(ALICE, NOW + timedelta(hours=13))
    assert len(world.told) == 4
    world.publish(revoked=[alice], number=2)
    assessor.assess(ALICE, NOW + timedelta(hours=14))
    assert world.told[4].certificate == alice.certificate


def test_a_word_that_is_learnt_counts_at_once() -> None:
    """ALG-2: also when it came in the same second, from the same signer, as one that was used a moment ago."""
    world, _ = with_alice()
    world.publish()
    words = iter([Remembered((), NOW, "ab" * 32, NOW, frozenset(best)) for best in ((), Suite)])

    class Memory:
        def remembered(self, mailbox: Mailbox) -> Remembered | None:
            return next(words, None)

    assessor = Assessor(world, Trust(world), world, world, PathSettings(), RevocationSettings(), memory=Memory())
    found = [assessor.assess(ALICE, NOW) for _ in range(3)]
    assert [f.remembered and f.remembered.best for f in found] == [frozenset(), frozenset(Suite), None]
    assert found[0].assessed is found[1].assessed is found[2].assessed


def test_many_that_cannot_be_used_do_not_hide_the_one_that_can() -> None:
    """THR-19: expired ones are looked at last; where there are too many others, mail waits, and doesn't go in clear."""
    world, alice = with_alice()
    world.publish()
    old = [
        world.sub.issue(
            "alice@example.test", crl_urls=[URL], not_before=NOW - 90 * DAY, not_after=NOW - DAY
        ).certificate
        for _ in range(25)
    ]
    world.known = [*old, alice.certificate]
    found = world.assessor().assess(ALICE, NOW)
    assert found.error == ""
    assert found.assessed[0].candidate.certificate == alice.certificate
    stranger = authority("Stranger")
    strange = [stranger.issue("alice@example.test").certificate for _ in range(20)]
    assessor = world.assessor()
    world.known = strange
    assert assessor.assess(ALICE, NOW).error == ""
    world.known = [*strange, alice.certificate]
    found = assessor.assess(ALICE, NOW)
    assert found.error == "alice@example.test has 1 valid certificates more than are looked at (20)"
    world.known = [alice.certificate, *strange]
    assert assessor.assess(ALICE, NOW).error == ""
