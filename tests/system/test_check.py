"""``postseal check`` says what the milter would do, with real evidence fetched by a real ``postseal lookup``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.daemon import Daemon, run_postseal
from support.pki import Authority, Leaf, authority
from support.responders import WebServer
from support.scratch import scratch

NOW = datetime.now(UTC)
RULES = (
    {"name": "partners", "recipients": ["partner.test"], "seal": "must", "without_certificate": "refuse"},
    {"name": "rest", "recipients": ["any"], "seal": "may", "without_certificate": "clear"},
)


class Setup:
    """A CA whose CRL is served, and a lookup process that may fetch it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.web = stack.enter_context(WebServer())
        self.ca: Authority = authority(
            "Check root", not_before=NOW - timedelta(days=5), not_after=NOW + timedelta(days=400)
        )
        self.url = self.web.url("/check.crl")
        self.daemon = Daemon(
            directory,
            "lookup",
            policy=RULES,
            settings={"lookup": {"ports": [int(self.url.split(":")[2].split("/")[0])]}},
        )
        (self.daemon.anchors / "root.pem").write_bytes(self.ca.pem)
        self.bob = self._leaf("bob@partner.test", 1)
        self.eve = self._leaf("eve@partner.test", 2)
        window = {"this_update": NOW - timedelta(hours=1), "next_update": NOW + timedelta(days=7)}
        self.web.put("/check.crl", self.ca.crl([self.eve], **window))
        stack.enter_context(self.daemon)

    def _leaf(self, address: str, slot: int) -> Leaf:
        leaf = self.ca.issue(
            address,
            slot=slot,
            crl_urls=[self.url],
            not_before=NOW - timedelta(days=1),
            not_after=NOW + timedelta(days=90),
        )
        (self.daemon.certificates / f"{address}.pem").write_bytes(leaf.pem)
        return leaf

    def check(self, *arguments: str) -> CompletedProcess[str]:
        return run_postseal("check", "--config", str(self.daemon.config_file), *arguments)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with scratch() as directory, ExitStack() as stack:
        yield Setup(directory, stack)


def test_fetches_what_is_missing_and_says_sealed(setup: Setup) -> None:
    done = setup.check("bob@partner.test", "--from", "ann@home.test")
    assert done.returncode == 0, done.stderr
    assert "<bob@partner.test>: would be sealed" in done.stdout
    assert f"source {setup.url}" in done.stdout


def test_a_revoked_certificate_is_an_answer_of_no(setup: Setup) -> None:
    done = setup.check("--json", "bob@partner.test", "eve@partner.test")
    assert done.returncode == 1
    bob, eve = json.loads(done.stdout)
    assert (bob["action"], bob["reason"]) == ("sealed", "ok.sealed")
    assert (eve["action"], eve["reason"]) == ("refused", "rcpt.no-usable-certificate")
    assert eve["candidates"][0]["verdicts"][0]["verdict"] == "revoked"


def test_offline_asks_nobody(setup: Setup) -> None:
    before = setup.web.count("/check.crl")
    setup._leaf("dora@partner.test", 3)
    done = setup.check("--offline", "dora@partner.test")
    assert setup.web.count("/check.crl") == before
    assert "postseal lookup would " in done.stdout


def test_says_which_rule_lets_it_go_in_clear(setup: Setup) -> None:
    done = setup.check("zoe@elsewhere.test")
    assert done.returncode == 1
    assert "would be sent in clear" in done.stdout
    assert "by rule: rest" in done.stdout


def test_a_sender_outside_is_not_outbound(setup: Setup) -> None:
    done = setup.check("bob@partner.test", "--from", "ann@elsewhere.test")
    assert "not outbound" in done.stdout


@pytest.mark.parametrize("text", ["bob", "bob@example@test", "<bob@partner.test>", ""])
def test_refuses_what_is_not_an_address(setup: Setup, text: str) -> None:
    done = setup.check(text)
    assert done.returncode == 64
    assert done.stderr == f"postseal: check: {text!a} is not a mail address\n"


def test_files_that_cannot_be_used_are_named(setup: Setup) -> None:
    """The commonest mistake: a private key in place of a certificate."""
    wrong = setup.daemon.certificates / "key.pem"
    wrong.write_bytes(setup.bob.key_pem)
    try:
        # For two seconds it may still be written.
        time.sleep(2.1)
        done = setup.check("bob@partner.test")
    finally:
        wrong.unlink()
    assert done.returncode == 0
    assert done.stderr.startswith("postseal: warning: ")
    assert str(wrong) in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_node_that_fetches_nothing_says_so_and_nobody_waits() -> None:
    """[lookup] fetch = false: no request, one reason in mail's judgement, one sentence for each order to fetch."""
    with scratch() as directory, ExitStack() as stack:
        setup = Setup(directory, stack)
        setup.daemon.settings["lookup"]["fetch"] = False
        setup.daemon.reload()
        setup.daemon.wait_log("configuration read again; nothing is fetched ([lookup] fetch = false)")
        done = setup.check("bob@partner.test", "--json")
        verdict = json.loads(done.stdout)[0]["candidates"][0]["verdicts"][0]
        assert (done.returncode, verdict["verdict"], verdict["reason"]) == (0, "unknown", "rev.not-fetched")
        assert "import some that is current" in verdict["detail"]
        order = run_postseal("evidence", "refresh", "--config", str(setup.daemon.config_file))
        assert (order.returncode, "nothing is fetched here" in order.stderr) == (69, True)
        crl = directory / "by-hand.crl"
        crl.write_bytes(setup.ca.crl([setup.eve], this_update=NOW - timedelta(hours=1), next_update=NOW + timedelta(1)))
        assert run_postseal("evidence", "import", "--config", str(setup.daemon.config_file), str(crl)).returncode == 0
        assert setup.check("bob@partner.test", "--json").returncode == 0
        assert json.loads(setup.check("eve@partner.test", "--json").stdout)[0]["action"] == "refused"
        assert setup.web.count("/check.crl") == 0
