"""What an administrator sees: stored evidence, its failures and marks, what lookup would do, and why a verdict is as it is."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from postseal.core.evidence import question_for
from postseal.shell.cli.main import main
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from support.daemon import Daemon
from support.pki import DAY, HOUR, Leaf, authority
from support.responders import OCSP_TYPE, OpensslResponder, WebServer
from support.scratch import scratch

NOW = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": NOW - DAY, "not_after": NOW + 30 * DAY}
RULES = [{"name": "all", "seal": "must", "without_certificate": "refuse"}]


class Site:
    """One node, a CA with a web server, and commands run in this process."""

    def __init__(self, directory: Path, web: WebServer) -> None:
        self.directory, self.web = directory, web
        self.root = authority("Seen root", not_before=NOW - DAY, not_after=NOW + 60 * DAY)
        lookup = {"allow_networks": ["127.0.0.0/8"], "ports": [80, web.port], "request_timeout": "2 s"}
        self.daemon = Daemon(directory, "lookup", settings={"lookup": lookup}, policy=RULES)
        (self.daemon.anchors / "root.pem").write_bytes(self.root.pem)

    def leaf(self, name: str, *crls: str, ocsp: str = "") -> Leaf:
        leaf = self.root.issue(
            f"{name}@partner.test", slot=name, crl_urls=crls, ocsp_urls=[self.web.url(ocsp)] if ocsp else [], **WINDOW
        )
        (self.daemon.certificates / f"{name}.pem").write_bytes(leaf.pem)
        return leaf

    def crl(self, number: int = 7, **more: Any) -> bytes:
        return self.root.crl(**{"this_update": NOW - 2 * HOUR, "next_update": NOW + DAY, "number": number, **more})

    def fetch(self, *leaves: Leaf) -> None:
        self.daemon.start()
        try:
            questions = [question_for(leaf.certificate, self.root.certificate) for leaf in leaves]
            LookupClient(self.daemon.run / "lookup.sock").ask(questions, 8.0).result()
        finally:
            self.daemon.stop()

    def say(self, *arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        command, *rest = arguments
        words = [command, rest.pop(0)] if command == "evidence" else [command]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main([*words, "--config", str(self.daemon.config_file), *rest])
        return code, out.getvalue()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.say(*arguments, "--json")[1])


def part_of(url: str) -> x509.IssuingDistributionPoint:
    """The scope of a CRL that is a part."""
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url)], relative_name=None, only_contains_user_certs=False,
        only_contains_ca_certs=False, only_some_reasons=None, indirect_crl=False, only_contains_attribute_certs=False,
    )  # fmt: skip


@pytest.fixture
def site() -> Iterator[Site]:
    with scratch() as directory, WebServer() as web:
        made = Site(directory, web)
        try:
            yield made
        finally:
            made.daemon.kill()


def test_list_and_show_tell_age_plan_failures_and_history(site: Site) -> None:
    """CACHE-12: age, next update, source, failures in a row, back-off, last answer, plan, signer, scope, mark and history."""
    leaf = site.leaf("bob", site.web.url("/ca.crl"))
    site.web.put("/ca.crl", site.crl())
    site.fetch(leaf)
    site.web.put("/ca.crl", b"", status=503)
    site.daemon.start()
    assert site.say("evidence", "refresh")[0] == 1
    site.daemon.stop()
    listed = site.json("evidence", "list")
    (entry,) = listed["evidence"]
    assert len(entry["name"]) == 64
    assert (entry["age"] >= 7200, 0 < entry["remains"] <= 86400) == (True, True)
    assert (entry["failures"], entry["kind"], entry["number"]) == (1, "crl", 7)
    assert entry["retry_at"] > entry["answered_at"] > entry["this_update"]
    assert entry["fetched_at"] < entry["refresh_at"] < entry["next_update"]
    assert entry["scope"] == {"delta": False, "indirect": False, "part": "", "only": "", "reasons": ""}
    assert entry["chain"] == [site.root.certificate.fingerprint]
    assert [f["reason"] for f in listed["failures"]] == ["rev.http-status"]
    assert [(m["number"], m["sha256"]) for m in listed["marks"]] == [(7, entry["name"])]
    assert [(h["host"], h["failures"]) for h in listed["hosts"]] == [(f"127.0.0.1:{site.web.port}", 1)]
    _, text = site.say("evidence", "list", "--marks")
    assert "1 failures in a row, left alone until" in text
    assert "mark of crl number 7" in text
    code, text = site.say("evidence", "show", entry["name"][:10])
    assert code == 0
    for words in ("scope: complete", "age: 2 h", "remains: 2", "host: 1 failures", "mark: ", "history: 1 updates"):
        assert words in text, words
    assert site.json("evidence", "show", site.web.url("/ca.crl"))["mark"]["number"] == 7
    assert site.say("evidence", "show", "nothing")[0] == 1


def test_partitions_deltas_and_answers_are_told_apart(site: Site) -> None:
    """CACHE-8: what a CRL is about stands beside it; an OCSP answer names its certificate."""
    responder = OpensslResponder(site.directory / "ocsp", site.root)
    bob, olga = site.leaf("bob", site.web.url("/part.crl")), site.leaf("olga", ocsp="/ocsp")
    responder.good(olga)
    site.web.put("/ocsp", responder.answer, OCSP_TYPE)
    site.web.put("/part.crl", site.crl(extra=[(part_of(site.web.url("/part.crl")), True)]))
    site.fetch(bob, olga)
    part, answer = sorted(site.json("evidence", "list")["evidence"], key=lambda e: str(e["kind"]))
    assert part["scope"]["part"] == site.web.url("/part.crl")
    assert (answer["kind"], answer["certificate"]) == ("ocsp", olga.certificate.fingerprint)
    _, text = site.say("evidence", "list")
    assert f"{part['name'][:16]}  part " in text
    assert f"{answer['name'][:16]}  ocsp " in text


def test_reset_scope_lets_a_restored_ca_begin_again(site: Site) -> None:
    """CACHE-12, CRL-25: forgetting the CRL isn't enough to take an older one; resetting its scope is, by any of its names."""
    leaf = site.leaf("bob", site.web.url("/ca.crl"))
    site.web.put("/ca.crl", site.crl(number=9))
    site.fetch(leaf)
    older = site.directory / "older.crl"
    older.write_bytes(site.crl(number=3, this_update=NOW - 5 * HOUR))
    name = site.json("evidence", "list")["evidence"][0]["name"]
    assert site.say("evidence", "forget", name)[0] == 0
    code, text = site.say("evidence", "import", str(older))
    assert (code, "older than" in text) == (1, True)
    assert site.say("evidence", "reset-scope", "no-such-scope")[0] == 1
    told = site.json("evidence", "reset-scope", site.root.certificate.key_id[:8])
    assert [m["number"] for m in told["reset"]] == [9]
    assert site.json("evidence", "list")["marks"] == []
    assert site.say("evidence", "import", str(older))[0] == 0
    assert site.json("evidence", "reset-scope", "CN=Seen root")["reset"][0]["number"] == 3
    assert site.json("evidence", "list")["evidence"] == []


def test_check_says_what_lookup_would_do_without_doing_it(site: Site) -> None:
    """CACHE-3, THR-1, THR-6: URLs in order, what is known of each, back-off, guard and budget; not one request."""
    urls = ["http://10.1.2.3/a.crl", "http://x.test:8443/b.crl", *(site.web.url(f"/{n}.crl") for n in range(4))]
    site.leaf("bob", *urls, ocsp="/ocsp")
    steps = site.json("check", "--offline", "bob@partner.test")[0]["why"][0]["evidence"][0]["steps"]
    assert [s["url"] for s in steps] == [*urls, site.web.url("/ocsp")]
    assert "not a public address" in steps[0]["why_not"]
    assert "port 8443 is not allowed" in steps[1]["why_not"]
    assert [s["would_ask"] for s in steps] == [False, False, True, True, True, True, True]
    assert {s["known"] for s in steps} == {"never asked"}
    assert not any(site.web.count(f"/{n}.crl") for n in range(4))
    site.daemon.settings["lookup"]["requests_per_message"] = 2
    site.daemon.write()
    steps = site.json("check", "--offline", "bob@partner.test")[0]["why"][0]["evidence"][0]["steps"]
    assert [s["would_ask"] for s in steps] == [False, False, True, True, False, False, False]
    assert steps[-1]["why_not"] == "one message may start 2 requests at most"
    site.daemon.settings["revocation"]["order"] = "ocsp-only"
    site.daemon.write()
    code, text = site.say("check", "--offline", "bob@partner.test")
    assert (code, f"1. ocsp {site.web.url('/ocsp')} (never asked)\n" in text) == (0, True)


def test_check_explain_shows_each_check_and_each_piece_of_evidence(site: Site) -> None:
    """CACHE-12, "why": from stored evidence alone, a good CRL beside a revocation by OCSP, and a URL in back-off."""
    responder = OpensslResponder(site.directory / "ocsp", site.root)
    leaf = site.leaf("bob", site.web.url("/ca.crl"), site.web.url("/gone.crl"), ocsp="/ocsp")
    responder.revoke(leaf, at=NOW - HOUR)
    site.web.put("/ca.crl", site.crl())
    site.web.put("/ocsp", responder.answer, OCSP_TYPE)
    site.fetch(leaf)
    site.daemon.settings["revocation"]["order"] = "ocsp-only"
    site.daemon.write()
    site.fetch(leaf)
    why = site.json("check", "--explain", "--offline", "bob@partner.test")[0]["why"][0]
    assert all({"passed", "text", "clause"} == set(c) for c in why["checks"])
    assert any(c["clause"] == "RFC 5280 §6.1.1 (d)" and c["passed"] for c in why["checks"])
    (one,) = why["evidence"]
    assert (one["verdict"], one["fetch"]) == ("revoked", False)
    assert {(p["kind"], p["verdict"]) for p in one["pieces"]} >= {("ocsp", "revoked")}
    code, text = site.say("check", "--explain", "--offline", "bob@partner.test")
    assert code == 1
    assert "ok: " in text
    assert "NO: revocation of " in text
    assert "postseal lookup would fetch nothing: what is stored decides" in text


def test_a_missing_issuer_is_looked_for_where_the_certificate_says(site: Site) -> None:
    """PRE-1: without a path no evidence would be fetched, only the issuer, and only where that is wanted."""
    sub = site.root.sub("Seen issuing", **WINDOW)
    place = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://10.9.9.9/s")
    )
    leaf = sub.issue(
        "iris@partner.test", slot="iris", extra=[(x509.AuthorityInformationAccess([place]), False)], **WINDOW
    )
    (site.daemon.certificates / "iris.pem").write_bytes(leaf.pem)
    why = site.json("check", "--offline", "iris@partner.test")[0]["why"][0]
    assert why["evidence"] == []
    assert [(s["kind"], s["url"], s["would_ask"]) for s in why["issuer"]] == [("issuer", "http://10.9.9.9/s", False)]
    assert (
        "1. issuer http://10.9.9.9/s (never asked): not now, refused"
        in site.say("check", "--offline", "iris@partner.test")[1]
    )
    site.daemon.settings["lookup"]["fetch_issuers"] = False
    site.daemon.write()
    assert site.json("check", "--offline", "iris@partner.test")[0]["why"][0]["issuer"] == []


def test_back_off_is_told(site: Site) -> None:
    leaf = site.leaf("bob", site.web.url("/gone.crl"))
    site.web.put("/gone.crl", b"", status=404)
    site.fetch(leaf)
    _, text = site.say("check", "--offline", "bob@partner.test")
    assert "1 failure in a row): not now, left alone until " in text


def test_nothing_of_this_writes(site: Site) -> None:
    """Looking makes no store and changes none: members of the group may look, who can't write."""
    site.leaf("bob", site.web.url("/ca.crl"))
    assert site.say("evidence", "list")[1] == "no evidence is stored\n"
    site.say("check", "--explain", "--offline", "bob@partner.test")
    assert not EvidenceStore(site.daemon.state / "evidence", readonly=True).exists()
