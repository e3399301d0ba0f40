"""Metrics of real services, scraped over real HTTP (CACHE-14)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from postseal.core.evidence import question_for
from postseal.sources.lookup_client import LookupClient
from support.daemon import Daemon, run_postseal
from support.milterclient import MilterClient
from support.pki import DAY, HOUR, authority
from support.responders import WebServer
from support.scratch import answers, free_port, scratch, wait_for

NOW = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": NOW - DAY, "not_after": NOW + 30 * DAY}
FIELDS = [(b"From", b" ann@home.test"), (b"Subject", b" hello")]
POLICY = [
    {"name": "partners", "recipients": ["partner.test"], "seal": "must", "without_certificate": "refuse"},
    {"name": "rest", "seal": "may", "without_certificate": "clear"},
]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Site:
    """A daemon whose metrics are served, a CA with its web server, and a recipient."""

    def __init__(self, directory: Path, web: WebServer) -> None:
        self.web, self.port = web, free_port()
        self.root = authority("Metrics root", not_before=NOW - DAY, not_after=NOW + 60 * DAY)
        self.bob = self.root.issue("bob@partner.test", crl_urls=[web.url("/ca.crl")], **WINDOW)
        settings = {
            "metrics": {"listen": f"127.0.0.1:{self.port}"},
            "lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [web.port], "request_timeout": "2 s"},
        }
        self.daemon = Daemon(directory, "run", settings=settings, policy=POLICY)
        (self.daemon.anchors / "root.pem").write_bytes(self.root.pem)
        (self.daemon.certificates / "bob.pem").write_bytes(self.bob.pem)
        web.put("/ca.crl", self.root.crl(this_update=NOW - HOUR, next_update=NOW + DAY))

    def start(self) -> None:
        self.daemon.start()
        self.daemon.wait_log("metrics and")
        self.daemon.wait_log("are running")

    def get(self, path: str = "/metrics", method: str = "GET") -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()

    def scrape(self) -> Samples:
        status, content_type, body = self.get()
        assert (status, content_type.partition(";")[0]) == (200, "text/plain")
        families = text_string_to_metric_families(body.decode())
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float:
        return self.scrape().get((name, tuple(sorted(labels.items()))), 0.0)

    def send(self, recipient: str, queue_id: str) -> None:
        with MilterClient(self.daemon.milter) as client:
            client.connect()
            client.send("<ann@home.test>", [f"<{recipient}>"], FIELDS, b"text\r\n", macros={"i": queue_id})


@pytest.fixture
def site() -> Iterator[Site]:
    with scratch() as directory, WebServer() as web:
        site = Site(directory, web)
        try:
            yield site
        finally:
            site.daemon.kill()


def test_mail_and_evidence_are_counted_and_a_killed_worker_takes_nothing_with_it(site: Site) -> None:
    """CACHE-14: decisions, times, fetches, age and end of evidence; kill -9 of each worker in turn loses no count."""
    site.start()
    for number in range(3):
        site.send("bob@partner.test", f"B{number}")
        site.send("carol@elsewhere.test", f"C{number}")
    site.send("dave@partner.test", "D0")
    sealed = {"action": "sealed", "reason": "ok.sealed"}
    wait_for(lambda: site.value("postseal_decisions_total", **sealed) == 3, "three sealed messages")
    before = site.scrape()
    assert before["postseal_decisions_total", (("action", "clear"), ("reason", "ok.clear-no-certificate"))] == 3
    assert before["postseal_decisions_total", (("action", "refused"), ("reason", "rcpt.no-certificate"))] == 1
    assert before["postseal_message_seconds_count", ()] == 6
    assert before["postseal_lookup_fetches_total", (("kind", "crl"), ("outcome", "ok"))] == 1
    assert before["postseal_lookup_received_bytes_total", ()] > 200
    assert before["postseal_up", (("service", "milter"),)] == 1
    key = site.root.certificate.key_id[:16]
    evidence = (("issuer", key), ("kind", "crl"))
    assert before["postseal_evidence_items", evidence] == 1
    assert 3600 <= before["postseal_evidence_age_seconds", evidence] < 3 * 3600
    assert 80000 < before["postseal_evidence_next_update_seconds", evidence] <= 86400
    assert not any("@" in value for _, labels in before for _, value in labels)
    milter = next(pid for pid in site.daemon.children() if _children(pid))
    for victim in _children(milter):
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(_children(milter)) == 2, "new workers")
    site.send("bob@partner.test", "B9")
    wait_for(lambda: site.value("postseal_decisions_total", **sealed) == 4, "the count going on")


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_failures_and_what_is_left_alone_are_counted(site: Site) -> None:
    """CACHE-14, CACHE-3: outcomes by reason, what isn't asked again, and questions that nobody may ask."""
    site.web.put("/ca.crl", b"gone", status=404)
    site.start()
    client = LookupClient(site.daemon.run / "lookup.sock")
    question = question_for(site.bob.certificate, site.root.certificate)
    client.ask([question], 5.0).result()
    second = site.root.issue("c@partner.test", crl_urls=[site.web.url(f"/{n}.crl") for n in ("ca", "b")], **WINDOW)
    client.ask([question_for(second.certificate, site.root.certificate)], 5.0).result()
    assert site.value("postseal_lookup_fetches_total", kind="crl", outcome="rev.http-status") == 2
    assert site.value("postseal_lookup_backoffs_total", kind="crl") == 1
    assert site.value("postseal_evidence_failing_urls", reason="rev.http-status") == 2
    assert site.value("postseal_lookup_questions_total", outcome="taken") == 2
    stranger = authority("Stranger", **WINDOW).issue("eve@partner.test", crl_urls=[site.web.url("/ca.crl")], **WINDOW)
    client.ask([question_for(stranger.certificate, site.root.certificate)], 5.0).result()
    assert site.value("postseal_lookup_questions_total", outcome="refused") == 1


def test_waiters_and_rollbacks_are_counted(site: Site) -> None:
    """CACHE-14, CACHE-5: many askers and one fetch; and an old CRL offered in place of a newer one."""

    def slow(_: bytes) -> bytes:
        time.sleep(0.5)
        return site.root.crl(this_update=NOW - HOUR, next_update=NOW + DAY)

    site.web.put("/ca.crl", slow)
    site.start()
    client = LookupClient(site.daemon.run / "lookup.sock")
    question = question_for(site.bob.certificate, site.root.certificate)
    wait([client.ask([question], 5.0) for _ in range(5)])
    assert site.value("postseal_lookup_joined_total", kind="crl") == 4
    assert site.value("postseal_lookup_fetch_seconds_count", kind="crl") == 1
    site.web.put("/ca.crl", site.root.crl(this_update=NOW - DAY, next_update=NOW + DAY))
    assert run_postseal("evidence", "refresh", "--config", str(site.daemon.config_file)).returncode == 1
    assert site.value("postseal_lookup_rollbacks_total") == 1
    assert site.value("postseal_lookup_fetches_total", kind="crl", outcome="rev.rollback") == 1


def test_the_server_says_only_what_it_must_and_stays_within_its_bounds(site: Site) -> None:
    """THR-22: other paths and methods are refused; clients that say nothing don't keep others out for long."""
    site.start()
    assert site.get("/")[0] == 200
    assert site.get("/../etc/passwd")[0] == 404
    assert site.get(method="POST")[0] == 501
    assert site.get(method="HEAD")[2] == b""
    silent = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(7)]
    assert site.get()[0] == 200
    for connection in silent:
        connection.close()
    assert not answers(f"inet:{site.port}@127.0.0.2")


def test_metrics_outlive_the_services_that_they_are_about(site: Site) -> None:
    """A scrape of dead services says that they are dead; evidence still ages."""
    site.daemon.command = "lookup"
    site.daemon.start()
    question = question_for(site.bob.certificate, site.root.certificate)
    LookupClient(site.daemon.run / "lookup.sock").ask([question], 5.0).result()
    site.daemon.kill()
    done = run_postseal("metrics", "--print", "--config", str(site.daemon.config_file))
    assert done.returncode == 0, done.stderr
    assert 'postseal_up{service="lookup"} 0.0\n' in done.stdout
    assert "postseal_evidence_readable 1.0\n" in done.stdout
    assert 'postseal_lookup_fetches_total{kind="crl",outcome="ok"} 1.0\n' in done.stdout


def test_without_listen_nothing_is_counted(site: Site) -> None:
    """Off by default: no files, and the command says why it serves nothing."""
    site.daemon.settings["metrics"] = {}
    site.daemon.write()
    with site.daemon:
        site.daemon.wait_log("milter and lookup are running")
        assert not list(site.daemon.run.glob("metrics-*"))
    done = run_postseal("metrics", "--config", str(site.daemon.config_file))
    assert (done.returncode, "[metrics] listen is empty" in done.stderr) == (78, True)


def test_counting_begins_with_a_reload(site: Site) -> None:
    """SIGHUP is enough for milter and lookup; the service that answers is started beside them."""
    site.daemon.settings["metrics"] = {}
    site.daemon.write()
    with site.daemon:
        site.daemon.settings["metrics"] = {"listen": f"127.0.0.1:{site.port}"}
        site.daemon.reload()
        site.daemon.wait_log("reloaded ")
        site.daemon.wait_log("configuration read again")
        site.send("carol@elsewhere.test", "C1")

        def printed() -> str:
            return run_postseal("metrics", "--print", "--config", str(site.daemon.config_file)).stdout

        wait_for(
            lambda: 'postseal_decisions_total{action="clear",reason="ok.clear-no-certificate"} 1.0' in printed(),
            "one decision",
        )
        assert 'postseal_up{service="lookup"} 1.0\n' in printed()


@pytest.mark.parametrize(("listen", "code", "words"), [
    ("192.0.2.1:9463", 73, "Cannot assign requested address"), ("127.0.0.1:1", 0, ""),
])  # fmt: skip
def test_a_wrong_start_is_one_sentence(site: Site, listen: str, code: int, words: str) -> None:
    """A foreign address only when it is asked for, and an address in use or not ours is named."""
    site.daemon.settings["metrics"] = {"listen": listen, "allow_remote": True}
    site.daemon.write()
    if code:
        done = run_postseal("metrics", "--config", str(site.daemon.config_file))
        assert (done.returncode, words in done.stderr) == (code, True)
        return
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site.daemon.settings["metrics"] = {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}
        site.daemon.write()
        done = run_postseal("metrics", "--config", str(site.daemon.config_file))
        assert (done.returncode, "another process listens there already" in done.stderr) == (69, True)
