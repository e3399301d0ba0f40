"""A cached decision for one recipient, in microseconds: certificate, path, revocation and policy with everything warm."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future
from pathlib import Path

from common import median, save, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postseal.app.assess import Assessor
from postseal.core.address import parse_mailbox
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, question_for
from postseal.core.path import Anchor, PathSettings, build_path
from postseal.core.policy import MessageFacts, RecipientFacts, decide
from postseal.core.revocation import RevocationSettings, judge
from postseal.sources.clock import SystemClock
from postseal.sources.directory import Directories
from postseal.sources.directory.folder import FolderDirectory
from postseal.sources.metrics import Recorder
from postseal.sources.trust import FolderTrust
from support.daemon import Daemon
from support.pki import DAY, HOUR, NOW, authority
from support.scratch import scratch

LOOPS = 5000


class Warm:
    """Evidence that is on hand already, and a lookup process that is never asked."""

    def __init__(self, *crls: CrlEvidence) -> None:
        self._crls = crls

    def evidence(self, question: object) -> tuple[CrlEvidence, ...]:
        return self._crls

    def generation(self) -> int:
        return 0

    def intermediates(self) -> tuple[()]:
        return ()

    def wants_issuer(self, certificate: object, at: object) -> bool:
        return False

    def newest(self) -> None:
        return None

    def tell(self, questions: object) -> None: ...

    def ask(self, questions: object, budget: float, message: str = "") -> Future[None]:
        raise SystemExit("the cache is not warm")


def main() -> None:
    from postseal.config import load_config

    with scratch("ps-bench-") as directory:
        root = authority("Bench root")
        sub = root.sub("Bench issuing", crl_urls=["http://ca.example/root.crl"])
        bob = sub.issue("bob@partner.example", crl_urls=["http://ca.example/sub.crl"])
        daemon = Daemon(directory, policy=[{"name": "all", "seal": "must", "without_certificate": "refuse"}])
        (daemon.anchors / "root.pem").write_bytes(root.pem)
        (daemon.intermediates / "sub.pem").write_bytes(sub.pem)
        (daemon.certificates / "bob.pem").write_bytes(bob.pem)
        window = {"this_update": NOW - HOUR, "next_update": NOW + 7 * DAY}
        crls = [CrlEvidence(parse_crl(ca.crl(**window)), "http://ca.example/", NOW) for ca in (sub, root)]
        warm, clock = Warm(*crls), SystemClock()
        trust = FolderTrust(daemon.anchors, daemon.intermediates, clock)
        folder = Directories((FolderDirectory(daemon.certificates, clock),))
        assessor = Assessor(folder, trust, warm, warm, PathSettings(), RevocationSettings())
        rules = load_config(str(daemon.config_file)).rules
        mailbox, sender = parse_mailbox("bob@partner.example"), parse_mailbox("ann@home.test")
        message = MessageFacts(sender)

        def decision() -> None:
            found = assessor.assess(mailbox, NOW)
            facts = RecipientFacts("<bob@partner.example>", mailbox, False, found.assessed)
            plan = decide(message, (facts,), rules, NOW)
            assert plan.deliveries

        (directory / "metrics").mkdir()
        meter = Recorder(directory / "metrics", 0)

        def counting() -> None:
            meter.decided("sealed", "ok.sealed")
            meter.took(0.002)

        question = question_for(bob.certificate, sub.certificate)
        anchors = (Anchor(root.certificate),)
        figures = {
            "assess and decide": _microseconds(decision),
            "counting one message for metrics": _microseconds(counting),
            "assess only": _microseconds(lambda: assessor.assess(mailbox, NOW)),
            "path of three certificates": _microseconds(
                lambda: build_path(bob.certificate, anchors, (sub.certificate,), PathSettings(), NOW)
            ),
            "revocation verdict from a parsed CRL": _microseconds(
                lambda: judge(question, crls[:1], RevocationSettings(), NOW)
            ),
        }
    table("A decision with everything warm", ["what", "microseconds"], list(figures.items()))
    print(f"\nwritten: {save('decision', figures)}")


def _microseconds(call: object) -> float:
    assert callable(call)
    call()
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(LOOPS):
            call()
        rounds.append((time.perf_counter() - start) / LOOPS * 1e6)
    return median(rounds)


if __name__ == "__main__":
    main()
