"""Ready-made facts for tests of policy, journal and records: real certificates, verdicts by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from postseal.config import Config
from postseal.core.address import parse_mailbox
from postseal.core.assess import Assessed, Candidate, Finding, Origin
from postseal.core.certs import Certificate
from postseal.core.path import Anchor, Path, PathFault
from postseal.core.policy import MessageFacts, RecipientFacts, Rule
from postseal.core.revocation import Status, Verdict
from support.pki import NOW, authority

ROOT = authority("Root")
SUB = ROOT.sub("Issuing")
ALICE = SUB.issue("alice@example.test").certificate
ALICE_OLD = SUB.issue("alice@example.test", not_before=NOW - timedelta(days=300)).certificate
ALICE_EC = SUB.issue("alice@example.test", kind="p256").certificate
SENDER = parse_mailbox("boss@corp.example")
MESSAGE = MessageFacts(SENDER)

GOOD = Verdict(
    Status.GOOD, "rev.crl", "", "http://ca.example/x.crl", NOW - timedelta(minutes=20), NOW + timedelta(days=6)
)
REVOKED = Verdict(Status.REVOKED, "rev.revoked-crl", "", "http://ca.example/x.crl", NOW, revoked_at=NOW,
                  revocation_reason="keyCompromise")  # fmt: skip
LISTED = Verdict(Status.UNKNOWN, "rev.listed-unsupported", "unknown critical extension", "http://ca.example/x.crl")
UNREACHABLE = Verdict(
    Status.UNKNOWN, "rev.unreachable", "Could not retrieve URL http://ca.example/x.crl: connection refused"
)
FORGED = Verdict(
    Status.UNKNOWN, "rev.bad-signature", "the signature is wrong", "http://ca.example/x.crl", suspicious=True
)
NONE_DECLARED = Verdict(Status.UNKNOWN, "rev.none-declared", "no CRL and no OCSP responder is named")
OCSP_UNKNOWN = Verdict(Status.UNKNOWN, "rev.ocsp-unknown", "the responder doesn't know it", "http://ca.example/ocsp")
STALE = Verdict(
    Status.UNKNOWN, "rev.stale", "it is out of date", "http://ca.example/x.crl", expired_at=NOW - timedelta(hours=1)
)
VERDICTS = {"good": GOOD, "revoked": REVOKED, "listed": LISTED, "unreachable": UNREACHABLE, "forged": FORGED,
            "none-declared": NONE_DECLARED, "ocsp-unknown": OCSP_UNKNOWN, "stale": STALE}  # fmt: skip


def assessed(
    *verdicts: Verdict, certificate: Certificate = ALICE, origin: Origin = Origin.FOLDER, **more: Any
) -> Assessed:
    """A certificate below one intermediate CA; a single verdict is the leaf's, the CA is good then."""
    path = Path((certificate, SUB.certificate), Anchor(ROOT.certificate))
    both = verdicts if len(verdicts) == 2 else (*verdicts, GOOD)
    return Assessed(Candidate(certificate, origin, "folder:alice.pem"), path, both, more.get("findings", ()))


def without_path(code: str = "path.no-anchor", certificate: Certificate = ALICE) -> Assessed:
    return Assessed(Candidate(certificate, Origin.FOLDER, "folder:x"), PathFault(code, "no trusted root"), (), ())


def unfit() -> Assessed:
    return replace(assessed(GOOD), findings=(Finding("cert.key-usage", "it is for signatures only", True),))


def recipient(*certificates: Assessed, address: str = "alice@example.test", **more: Any) -> RecipientFacts:
    return RecipientFacts(f"<{address}>", parse_mailbox(address), more.pop("internal", False), certificates, **more)


def rules(**options: Any) -> tuple[Rule, ...]:
    """One rule named ``r`` for all mail, with the options of ``[[policy]]``."""
    return Config.default(policy=[{"name": "r", **options}]).rules
