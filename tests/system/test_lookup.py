"""The real lookup process on its real socket, with CRLs over HTTP and answers of ``openssl ocsp``."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from postseal.core.evidence import CrlEvidence, NoAnswer, OcspEvidence, Question, question_for
from postseal.core.revocation import RevocationSettings, Status, Verdict, judge
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from support.daemon import POSTSEAL, Daemon, run_postseal
from support.pki import DAY, HOUR, Authority, Leaf, authority
from support.responders import OCSP_TYPE, OpensslResponder, WebServer
from support.scratch import wait_for

START = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": START - DAY, "not_after": START + 30 * DAY}
SETTINGS = RevocationSettings()


class Site:
    """A CA with its web server, and a lookup service that trusts it."""

    def __init__(self, directory: Path, web: WebServer) -> None:
        self.web = web
        self.root: Authority = authority("Lookup root", not_before=START - DAY, not_after=START + 60 * DAY)
        settings = {"lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [80, web.port], "request_timeout": "2 s"}}
        self.daemon = Daemon(directory, "lookup", settings=settings)
        (self.daemon.anchors / "root.pem").write_bytes(self.root.pem)
        self.client = LookupClient(self.daemon.run / "lookup.sock")
        self.reader = EvidenceStore(self.daemon.state / "evidence", readonly=True)

    def leaf(self, *, crl: str = "", ocsp: str = "", slot: object = 0) -> Leaf:
        return self.root.issue(
            f"{slot}@home.test", crl_urls=[self.web.url(crl)] if crl else [], ocsp_urls=[self.web.url(ocsp)] if ocsp else [],
            **WINDOW,
        )  # fmt: skip

    def crl(self, *revoked: Leaf, number: int = 1) -> bytes:
        return self.root.crl(revoked, this_update=START - HOUR, next_update=START + DAY, number=number,
                             revoked_at=START - HOUR)  # fmt: skip

    def ask(self, *questions: Question, budget: float = 5.0) -> float:
        """Ask and wait; the seconds that it took."""
        started = time.monotonic()
        self.client.ask(questions, budget).result(budget + 5)
        return time.monotonic() - started

    def verdict(self, question: Question) -> Verdict:
        return judge(question, self.reader.evidence(question), SETTINGS, datetime.now(UTC))

    def question(self, leaf: Leaf) -> Question:
        return question_for(leaf.certificate, self.root.certificate)


@pytest.fixture
def site(scratch: Path) -> Iterator[Site]:
    with WebServer() as web:
        site = Site(scratch, web)
        try:
            yield site
        finally:
            site.daemon.kill()


def test_cold_then_warm_then_offline_after_kill(site: Site) -> None:
    """T-24: A cold ask fetches once; a warm one not at all; after kill -9 and without the CA the evidence still answers."""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", site.crl(leaf))
    question = site.question(leaf)
    site.daemon.start()
    assert site.ask(question) < 3
    verdict = site.verdict(question)
    assert (verdict.status, verdict.source) == (Status.REVOKED, site.web.url("/ca.crl"))
    site.ask(question)
    assert site.web.count("/ca.crl") == 1
    site.daemon.kill()
    site.web.close()
    assert site.verdict(question).status is Status.REVOKED
    site.daemon.start()
    site.ask(question)
    fresh = EvidenceStore(site.daemon.state / "evidence", readonly=True)
    assert any(isinstance(e, CrlEvidence) for e in fresh.evidence(question))
    assert site.verdict(question).status is Status.REVOKED


def test_ocsp_of_openssl(site: Site, scratch: Path) -> None:
    """Answers of ``openssl ocsp`` for a good and a revoked certificate, by GET, once each."""
    responder = OpensslResponder(scratch / "ocsp", site.root)
    good, bad = site.leaf(ocsp="/ocsp", slot="good"), site.leaf(ocsp="/ocsp", slot="bad")
    responder.good(good)
    responder.revoke(bad, at=START - HOUR)
    site.web.put("/ocsp", responder.answer, OCSP_TYPE)
    site.daemon.start()
    site.ask(site.question(good), site.question(bad))
    assert site.verdict(site.question(good)).status is Status.GOOD
    assert site.verdict(site.question(bad)).status is Status.REVOKED
    site.ask(site.question(good), site.question(bad))
    assert site.web.count("/ocsp") == 2


def test_falls_back_to_ocsp_while_the_crl_hangs(site: Site, scratch: Path) -> None:
    """RPL-5: a CRL server that never answers leaves time for OCSP within one budget."""
    responder = OpensslResponder(scratch / "ocsp", site.root)
    leaf = site.leaf(crl="/hangs.crl", ocsp="/ocsp")
    responder.good(leaf)
    site.web.put("/hangs.crl", b"", fault="silent")
    site.web.put("/ocsp", responder.answer, OCSP_TYPE)
    site.daemon.start()
    assert site.ask(site.question(leaf), budget=1.6) < 1.9
    verdict = site.verdict(site.question(leaf))
    assert (verdict.status, verdict.reason) == (Status.GOOD, "rev.ocsp")


def test_200_asks_are_one_request(site: Site) -> None:
    """CACHE-5: 200 parallel asks from several threads of several clients make one request."""
    leaf = site.leaf(crl="/ca.crl")

    def slow(_: bytes) -> bytes:
        time.sleep(0.5)
        return site.crl()

    site.web.put("/ca.crl", slow)
    site.daemon.start()
    clients = [LookupClient(site.daemon.run / "lookup.sock") for _ in range(8)]
    futures = [clients[n % 8].ask([site.question(leaf)], 10.0) for n in range(200)]
    assert not wait(futures, 15).not_done
    assert site.web.count("/ca.crl") == 1
    assert site.verdict(site.question(leaf)).status is Status.GOOD


def test_503_is_left_alone_then_refreshed(site: Site) -> None:
    """CACHE-3: after a 503 the URL is left alone, also by a restarted process; the answer to a refresh lifts that."""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", b"", status=503)
    site.daemon.start()
    site.ask(site.question(leaf))
    verdict = site.verdict(site.question(leaf))
    assert (verdict.status, verdict.reason) == (Status.UNKNOWN, "rev.http-status")
    site.web.put("/ca.crl", site.crl())
    site.ask(site.question(leaf))
    site.daemon.kill()
    site.daemon.start()
    site.ask(site.question(leaf))
    assert site.web.count("/ca.crl") == 1
    (failure,) = (e for e in site.reader.evidence(site.question(leaf)) if isinstance(e, NoAnswer))
    assert failure.retry_at is not None
    assert timedelta(seconds=40) < failure.retry_at - failure.at < timedelta(seconds=80)
    site.daemon.wait_log(f"could not retrieve URL {site.web.url('/ca.crl')}: HTTP status 503")


def test_untrusted_certificate_causes_no_request(site: Site) -> None:
    """PRE-1: the lookup process validates for itself; a client can't make it fetch for a stranger's certificate."""
    stranger = authority("Stranger", not_before=START - DAY, not_after=START + DAY)
    leaf = stranger.issue("x@home.test", crl_urls=[site.web.url("/strange.crl")], **WINDOW)
    impostor = Leaf(leaf.certificate, leaf.key)
    site.web.put("/strange.crl", stranger.crl())
    site.daemon.start()
    site.ask(question_for(leaf.certificate, stranger.certificate))
    site.ask(question_for(impostor.certificate, site.root.certificate))
    assert site.web.requests == []
    site.daemon.wait_log("not fetching for certificate")


def test_intermediates_sent_by_the_client_are_enough(site: Site) -> None:
    """A chain of three whose middle is known to the client only is validated and served."""
    sub = site.root.sub("Lookup sub", crl_urls=[site.web.url("/root.crl")], **WINDOW)
    leaf = sub.issue("x@home.test", crl_urls=[site.web.url("/sub.crl")], **WINDOW)
    site.web.put("/root.crl", site.crl())
    site.web.put("/sub.crl", sub.crl(this_update=START - HOUR, next_update=START + DAY))
    site.daemon.start()
    questions = question_for(leaf.certificate, sub.certificate), site.question(sub)
    site.ask(*questions)
    assert [site.verdict(q).status for q in questions] == [Status.GOOD, Status.GOOD]


def test_dead_service_costs_nothing(site: Site) -> None:
    """Without a lookup process, or with a dead socket, an ask is done at once and never raises."""
    leaf = site.leaf(crl="/ca.crl")
    assert site.ask(site.question(leaf)) < 0.5
    site.daemon.start()
    site.daemon.kill()
    assert (site.daemon.run / "lookup.sock").exists()
    assert site.ask(site.question(leaf)) < 0.5
    site.daemon.start()
    with socket.socket(socket.AF_UNIX) as silent:
        path = str(site.daemon.run / "silent.sock")
        silent.bind(path)
        silent.listen()
        started = time.monotonic()
        LookupClient(path).ask([site.question(leaf)], 0.5).result(5)
        assert time.monotonic() - started < 1.2


def test_second_instance_is_refused(site: Site) -> None:
    """One process per socket: the second says so and goes, the first keeps serving."""
    site.daemon.start()
    second = run_postseal("lookup", "--config", str(site.daemon.config_file))
    assert second.returncode == 75
    assert "another postseal lookup already serves" in second.stderr
    assert site.daemon.process is not None
    assert site.daemon.process.poll() is None


def test_socket_is_for_the_group_only(site: Site) -> None:
    """Mode 0660, and no leftovers after a proper end."""
    site.daemon.start()
    path = site.daemon.run / "lookup.sock"
    assert path.stat().st_mode & 0o7777 == 0o660
    assert site.daemon.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"\x00", b"\xff\xff\xff\xff", struct.pack(">I", 4) + b"nope", struct.pack(">I", 2) + b"[]",
     struct.pack(">I", 40) + b'{"op":"ask","budget":1e400,"questions":1}'[:40], b"GET / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_nonsense_on_the_socket(site: Site, request_bytes: bytes) -> None:
    """What isn't a request gets an error or a closed connection; the service goes on."""
    site.daemon.start()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(8)
        channel.connect(str(site.daemon.run / "lookup.sock"))
        channel.sendall(request_bytes)
        channel.shutdown(socket.SHUT_WR)
        reply = channel.recv(4096)
    assert b"error" in reply or reply == b""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", site.crl())
    site.ask(site.question(leaf))
    assert site.verdict(site.question(leaf)).status is Status.GOOD


def test_hup_reads_the_configuration_again(site: Site) -> None:
    """A wrong configuration keeps the old one; a right one takes effect."""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", site.crl())
    site.daemon.settings["lookup"]["ports"] = [80]
    site.daemon.write()
    site.daemon.start()
    site.ask(site.question(leaf))
    assert site.verdict(site.question(leaf)).reason == "rev.blocked-by-guard"
    good = site.daemon.config_file.read_text()
    site.daemon.config_file.write_text(good.replace("request_timeout", "request_timeoutt"))
    site.daemon.signal(signal.SIGHUP)
    site.daemon.wait_log("the old one stays")
    site.daemon.settings["lookup"]["ports"] = [80, site.web.port]
    site.daemon.reload()
    site.daemon.wait_log("configuration read again")
    # What the old configuration forbade is not left alone for long: the new one may allow it.
    site.ask(site.question(leaf))
    assert site.verdict(site.question(leaf)).status is Status.GOOD
    second = site.leaf(crl="/other.crl", slot="second")
    site.web.put("/other.crl", site.crl(number=2))
    site.ask(site.question(second))
    assert site.verdict(site.question(second)).status is Status.GOOD


def test_term_lets_a_running_ask_end(site: Site) -> None:
    """SIGTERM while a download runs: the download ends, is stored, and the process goes with 0."""
    leaf = site.leaf(crl="/ca.crl")

    def slow(_: bytes) -> bytes:
        time.sleep(1.0)
        return site.crl()

    site.web.put("/ca.crl", slow)
    site.daemon.start()
    future = site.client.ask([site.question(leaf)], 5.0)
    wait_for(lambda: site.web.count("/ca.crl") == 1, "the request")
    assert site.daemon.stop() == 0
    future.result(5)
    assert site.verdict(site.question(leaf)).status is Status.GOOD


def test_readiness_is_told(site: Site, scratch: Path) -> None:
    """READY when the socket serves, WATCHDOG in time, STOPPING at the end."""
    path = str(scratch / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        process = subprocess.Popen(
            [*POSTSEAL, "lookup", "--config", str(site.daemon.config_file)], stderr=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"},
        )  # fmt: skip
        try:
            assert manager.recv(200).startswith(b"READY=1")
            assert (site.daemon.run / "lookup.sock").is_socket()
            assert manager.recv(200) == b"WATCHDOG=1"
            process.terminate()
            while manager.recv(200) != b"STOPPING=1":
                pass
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_damaged_store_is_replaced_at_the_start(site: Site) -> None:
    """A database that isn't one is moved aside, said in the log, and fetching goes on."""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", site.crl())
    directory = site.daemon.state / "evidence"
    directory.mkdir()
    (directory / "evidence.sqlite").write_bytes(b"not a database at all" * 1000)
    site.daemon.start()
    site.daemon.wait_log("starting with an empty one")
    site.ask(site.question(leaf))
    assert site.verdict(site.question(leaf)).status is Status.GOOD


def test_evidence_commands_know_a_url_without_an_answer(site: Site, scratch: Path) -> None:
    """``list`` shows it, so ``show`` and ``refresh`` say more of it than that nothing has that name."""
    leaf = site.leaf(crl="/gone.crl")
    site.daemon.start()
    site.ask(site.question(leaf))
    for command in ("show", "refresh"):
        done = run_postseal("evidence", command, site.web.url("/gone.crl"), "--config", str(site.daemon.config_file))
        assert done.returncode == 1
        assert done.stdout.startswith(f"no answer  {site.web.url('/gone.crl')}: ")
        assert "postseal evidence forget URL" in done.stdout


def test_evidence_commands(site: Site, scratch: Path) -> None:
    """CACHE-12: ``evidence list``, ``show``, ``refresh``, ``forget`` and ``import``, as an administrator meets them."""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", site.crl())
    config = ("--config", str(site.daemon.config_file), "--json")
    site.daemon.start()
    site.ask(site.question(leaf))
    (listed,) = json.loads(run_postseal("evidence", "list", *config).stdout)["evidence"]
    assert (listed["kind"], listed["url"], listed["number"]) == ("crl", site.web.url("/ca.crl"), 1)
    line = run_postseal("evidence", "list", *config[:2]).stdout
    assert listed["name"][:16] in line
    assert line.rstrip().endswith(site.web.url("/ca.crl"))
    done = run_postseal("evidence", "refresh", "http://nobody.test/x.crl", *config[:2])
    assert (done.returncode, done.stdout) == (1, "no evidence named http://nobody.test/x.crl\n")
    # What was forgotten is fetched again at the next message, not some minutes later.
    assert run_postseal("evidence", "forget", listed["name"], *config).returncode == 0
    site.ask(site.question(leaf))
    assert site.verdict(site.question(leaf)).status is Status.GOOD
    # The CA revokes and publishes; the administrator doesn't wait.
    site.web.put("/ca.crl", site.crl(leaf, number=2))
    done = run_postseal("evidence", "refresh", site.web.url("/ca.crl"), *config)
    assert (done.returncode, json.loads(done.stdout)["results"][0]["reason"]) == (0, "")
    assert site.verdict(site.question(leaf)).status is Status.REVOKED
    (listed,) = json.loads(run_postseal("evidence", "list", *config).stdout)["evidence"]
    shown = json.loads(run_postseal("evidence", "show", listed["name"][:12], *config).stdout)
    assert shown["number"] == 2
    assert shown["urls"] == [site.web.url("/ca.crl")]
    site.daemon.stop()
    done = run_postseal("evidence", "refresh", *config)
    assert done.returncode == 69
    assert done.stderr == f"postseal: postseal lookup isn't running: no socket {site.daemon.run}/lookup.sock\n"
    assert run_postseal("evidence", "forget", listed["name"], *config).returncode == 0
    assert json.loads(run_postseal("evidence", "list", *config).stdout)["evidence"] == []
    assert run_postseal("evidence", "show", listed["name"], *config).returncode == 1
    file = scratch / "new.crl"
    file.write_bytes(site.crl(leaf, number=3))
    done = run_postseal("evidence", "import", str(file), *config)
    assert done.returncode == 0, done.stderr
    assert site.verdict(site.question(leaf)).status is Status.REVOKED
    assert site.verdict(site.question(leaf)).source == "file:new.crl"


def test_evidence_import_refuses_with_the_cause(site: Site, scratch: Path, tmp_path: Path) -> None:
    """Files of strangers, older CRLs and things that aren't evidence are refused, each with its sentence."""
    config = ("--config", str(site.daemon.config_file), "--json")
    stranger = authority("Stranger", not_before=START - DAY, not_after=START + DAY)
    files = {
        "good.crl": site.crl(number=5), "older.crl": site.crl(number=4), "strange.crl": stranger.crl(),
        "text.crl": b"<html>", "forged.crl": site.crl(number=9)[:-4] + b"abcd",
    }  # fmt: skip
    for name, content in files.items():
        (scratch / name).write_bytes(content)
    done = run_postseal("evidence", "import", *(str(scratch / name) for name in files), *config)
    assert done.returncode == 1
    results = {Path(r["file"]).name: r for r in json.loads(done.stdout)["files"]}
    assert results["good.crl"]["stored"] is True
    assert "older than" in results["older.crl"]["refused"]
    assert "no CA certificate" in results["strange.crl"]["refused"]
    assert "neither a CRL" in results["text.crl"]["refused"]
    assert "signature" in results["forged.crl"]["refused"]
    absent = run_postseal("evidence", "import", str(scratch / "absent"), *config)
    assert absent.returncode == 1
    assert "No such file" in absent.stdout


def test_evidence_import_of_ocsp(site: Site, scratch: Path) -> None:
    """An OCSP answer in a file is taken together with the certificate that it is about."""
    leaf = site.leaf(ocsp="/ocsp")
    responder = OpensslResponder(scratch / "ocsp", site.root)
    responder.revoke(leaf, at=START - HOUR)
    from postseal.core.ocsp import build_request

    (scratch / "answer.der").write_bytes(responder.answer(build_request(site.question(leaf))))
    (scratch / "leaf.pem").write_bytes(leaf.pem)
    config = ("--config", str(site.daemon.config_file), "--json")
    refused = run_postseal("evidence", "import", str(scratch / "answer.der"), *config)
    assert refused.returncode == 1
    assert "--certificate" in refused.stdout
    done = run_postseal(
        "evidence", "import", str(scratch / "answer.der"), "--certificate", str(scratch / "leaf.pem"), *config
    )
    assert done.returncode == 0, done.stdout
    assert site.verdict(site.question(leaf)).status is Status.REVOKED
    assert any(isinstance(e, OcspEvidence) for e in site.reader.evidence(site.question(leaf)))


def test_full_disk_answers_without_storing(site: Site, scratch: Path) -> None:
    """On a full disk the service answers, says why nothing is kept, and goes on when there is room again."""
    leaf = site.leaf(crl="/ca.crl")
    site.web.put("/ca.crl", site.root.crl(list(range(1000, 6000)), this_update=START - HOUR, next_update=START + DAY))
    small = scratch / "state"
    command = (
        f"mount -t tmpfs -o size=448k none {small} && head -c 200k /dev/zero > {small}/filler;"
        f'exec "$0" -m postseal.shell.cli.main lookup --config {site.daemon.config_file}'
    )
    with open(scratch / "full.log", "wb") as log:
        process = subprocess.Popen(["unshare", "--mount", "sh", "-c", command, sys.executable], stderr=log)
    try:
        wait_for((site.daemon.run / "lookup.sock").exists, "the socket")
        assert site.ask(site.question(leaf)) < 3
        text = (scratch / "full.log").read_text
        wait_for(lambda: "can't be kept" in text() and "No space left" in text(), "the cause in the log")
        (Path(f"/proc/{process.pid}/root") / str(small).lstrip("/") / "filler").unlink()
        assert process.poll() is None
        assert site.web.count("/ca.crl") == 1
    finally:
        process.kill()
        process.wait()
