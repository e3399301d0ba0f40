"""Two nodes in two directories: one fetches and exports, one imports and judges; between them a file, as by cron and scp."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from postseal.core import bundle
from postseal.core.cms.signed import sign
from postseal.core.evidence import question_for
from postseal.shell.cli.main import main
from postseal.sources.bundles import BundleFile, load_signer
from postseal.sources.lookup_client import LookupClient
from support.daemon import POSTSEAL, Daemon, run_postseal
from support.pki import DAY, HOUR, authority
from support.responders import OCSP_TYPE, OpensslResponder, WebServer
from support.scratch import free_port, scratch, wait_for

NOW = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": NOW - DAY, "not_after": NOW + 30 * DAY}
RULES = [{"name": "all", "seal": "must", "without_certificate": "refuse", "revocation": "strict"}]


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, without the second that a process of its own takes to start."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


class Nodes:
    """``a`` fetches from a CA's web server, ``b`` may fetch nothing. Both trust the root, and ``b`` the key of ``a``."""

    def __init__(self, directory: Path, web: WebServer) -> None:
        self.directory, self.web = directory, web
        self.root = authority("Bundle root", not_before=NOW - DAY, not_after=NOW + 60 * DAY)
        self.sub = self.root.sub("Bundle issuing", crl_urls=[web.url("/root.crl")], **WINDOW)
        self.bob = self.sub.issue("bob@partner.test", slot=1, crl_urls=[web.url("/sub.crl")], **WINDOW)
        self.eve = self.sub.issue("eve@partner.test", slot=2, crl_urls=[web.url("/sub.crl")], **WINDOW)
        self.web.put("/root.crl", self.root.crl(this_update=NOW - HOUR, next_update=NOW + 20 * DAY))
        self.put_sub(1, HOUR)
        lookup = {"allow_networks": ["127.0.0.0/8"], "ports": [web.port]}
        signers = directory / "signers"
        signers.mkdir()
        self.a = Daemon(directory / "a", "lookup", settings={"lookup": lookup}, policy=RULES)
        self.b = Daemon(
            directory / "b", "lookup", policy=RULES,
            settings={"lookup": {"fetch": False}, "certificates": {"bundle_signers": signers}},
        )  # fmt: skip
        for node in (self.a, self.b):
            (node.anchors / "root.pem").write_bytes(self.root.pem)
            (node.intermediates / "sub.pem").write_bytes(self.sub.pem)
            for leaf in (self.bob, self.eve):
                (node.certificates / f"{leaf.certificate.serial}.pem").write_bytes(leaf.pem)
        self.key, self.signer = str(directory / "a.key"), str(signers / "a.pem")
        made = self.run(self.a, "export-key", self.key, self.signer, "--node", "node-a")
        assert made.returncode == 0, made.stderr
        self.bundle = directory / "evidence.bundle"

    def put_sub(self, number: int, age: Any, *revoked: Any) -> None:
        window = {"this_update": NOW - age, "next_update": NOW + 2 * DAY, "revoked_at": NOW - age}
        self.web.put("/sub.crl", self.sub.crl([self.eve, *revoked], number=number, **window))

    def run(self, node: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
        verb, *rest = arguments
        return in_process("evidence", verb, "--config", str(node.config_file), *rest)

    def fetch(self, *questions: Any) -> None:
        asked = questions or (
            question_for(self.bob.certificate, self.sub.certificate),
            question_for(self.sub.certificate, self.root.certificate),
        )
        self.a.start()
        try:
            LookupClient(self.a.run / "lookup.sock").ask(asked, 8.0).result()
        finally:
            self.a.stop()

    def export(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.a, "export", str(self.bundle), "--sign-with", self.key, self.signer, "--node", "node-a",
                        *more)  # fmt: skip

    def take(self, *more: str) -> tuple[int, dict[str, Any]]:
        done = self.run(self.b, "import", "--json", str(self.bundle), *more)
        return done.returncode, json.loads(done.stdout)["files"][0]

    def action(self, address: str) -> str:
        done = in_process("check", "--config", str(self.b.config_file), "--json", address)
        return str(json.loads(done.stdout)[0]["action"])


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with scratch() as directory, WebServer() as web:
        made = Nodes(directory, web)
        try:
            yield made
        finally:
            made.a.kill()


def test_a_relay_without_egress_seals_and_refuses_by_what_another_node_fetched(nodes: Nodes) -> None:
    """CRL-28, CACHE-13: before the bundle all is deferred; after it bob's mail is sealed and eve's certificate revoked."""
    assert nodes.action("bob@partner.test") == "deferred"
    nodes.fetch()
    done = nodes.export("--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["crls"], told["certificates"], told["signed"]) == (2, 2, True)
    asked = [nodes.web.count(path) for path in ("/root.crl", "/sub.crl")]
    code, taken = nodes.take()
    assert (code, taken["counts"]) == (0, {"stored": 2, "known": 0, "older": 0, "refused": 0})
    assert (taken["node"], len(taken["signer"])) == ("node-a", 64)
    assert nodes.action("bob@partner.test") == "sealed"
    assert nodes.action("eve@partner.test") == "refused"
    assert [nodes.web.count(path) for path in ("/root.crl", "/sub.crl")] == asked
    listed = json.loads(nodes.run(nodes.b, "list", "--json").stdout)["evidence"]
    assert {e["url"] for e in listed} == {nodes.web.url("/root.crl"), nodes.web.url("/sub.crl")}


def test_as_cron_would_day_after_day(nodes: Nodes) -> None:
    """The same bundle again is no error and no news; a new CRL is; an old bundle that comes back is refused."""
    nodes.fetch()
    nodes.export()
    first = nodes.bundle.read_bytes()
    assert nodes.take()[0] == 0
    code, again = nodes.take()
    assert (code, again["counts"]["known"]) == (0, 2)
    assert "2 known" in nodes.run(nodes.b, "import", str(nodes.bundle)).stdout
    assert nodes.run(nodes.b, "import", "--quiet", str(nodes.bundle)).stdout == ""
    nodes.put_sub(2, HOUR / 2, nodes.bob)
    nodes.a.start()
    assert nodes.run(nodes.a, "refresh").returncode == 0
    nodes.a.stop()
    wait_for(lambda: f'"created": "{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"'.encode() not in first, "another second")
    nodes.export()
    code, second = nodes.take()
    assert (code, second["counts"]["stored"], second["counts"]["known"]) == (0, 1, 1)
    assert nodes.action("bob@partner.test") == "refused"
    nodes.bundle.write_bytes(first)
    code, replay = nodes.take()
    assert (code, replay["stored"]) == (1, False)
    assert "taken from the same node already" in replay["refused"]
    assert nodes.action("bob@partner.test") == "refused"


def test_since_takes_only_what_is_new(nodes: Nodes) -> None:
    nodes.fetch()
    assert json.loads(nodes.export("--json", "--since", "1 h").stdout)["crls"] == 2
    assert json.loads(nodes.export("--json", "--since", (NOW + DAY).isoformat()).stdout)["crls"] == 0
    assert nodes.take()[0] == 0
    assert nodes.export("--since", "yesterday").returncode == 64
    assert nodes.export("--since", "2026-01-01T00:00:00").returncode == 64


def test_ocsp_answers_travel_with_their_certificates(nodes: Nodes) -> None:
    """Of openssl ocsp, signed by the CA; the importing node judges them for itself."""
    leaf = nodes.sub.issue("olga@partner.test", slot=3, ocsp_urls=[nodes.web.url("/ocsp")], **WINDOW)
    responder = OpensslResponder(nodes.directory / "ocsp", nodes.sub)
    responder.revoke(leaf, at=NOW - HOUR)
    nodes.web.put("/ocsp", responder.answer, OCSP_TYPE)
    nodes.fetch(question_for(leaf.certificate, nodes.sub.certificate))
    assert json.loads(nodes.export("--json").stdout)["ocsp"] == 1
    assert nodes.take()[1]["counts"]["stored"] == 1
    (nodes.b.certificates / "olga.pem").write_bytes(leaf.pem)
    assert nodes.action("olga@partner.test") == "refused"


def resigned(nodes: Nodes, items: dict[str, bytes], created: datetime = NOW) -> bytes:
    """A bundle by the key that node b trusts, with contents of somebody's choice in place of those of the same kind."""
    key, certificate = load_signer(nodes.key, nodes.signer)
    with nodes.bundle.open("rb") as file:
        made = BundleFile(file)
        manifest = bundle.decode(made.manifest)
        made.check_size(manifest)
        contents = [made.item(n, manifest) for n in range(len(manifest.items))]
    new, blobs = [], []
    for item, old in zip(manifest.items, contents, strict=True):
        blob = next((data for url, data in items.items() if item.url.endswith(url)), old) if item.url else old
        new.append(replace(item, sha256=hashlib.sha256(blob).hexdigest(), size=len(blob)))
        blobs.append(blob)
    text = bundle.encode(replace(manifest, items=tuple(new), created=created))
    signature = sign(text, certificate, key, created)
    return bundle.head(text, signature) + text + signature + b"".join(blobs)


def test_a_trusted_signer_can_t_make_anything_worse(nodes: Nodes) -> None:
    """CRL-25, CACHE-4: old, future, forged and foreign evidence is refused item by item, with a valid signature around it."""
    nodes.fetch()
    nodes.export()
    good = nodes.bundle.read_bytes()
    assert nodes.take()[0] == 0
    stranger = authority("Bundle issuing", kind="p256", **WINDOW)
    window = {"this_update": NOW - HOUR / 3, "next_update": NOW + DAY}
    cases: dict[str, tuple[bytes, str, str]] = {
        "older": (nodes.sub.crl(this_update=NOW - 5 * HOUR, next_update=NOW + DAY), "older", "older"),
        "future": (nodes.sub.crl(this_update=NOW + DAY, next_update=NOW + 2 * DAY), "refused", "future"),
        "forged": (stranger.crl(**window), "refused", "its signature is not that of"),
        "foreign": (authority("Nobody", **WINDOW).crl(**window), "refused", "no CA certificate of its issuer"),
        "nonsense": (b"no CRL at all", "refused", "not a CRL"),
    }
    for name, (blob, outcome, words) in cases.items():
        nodes.bundle.write_bytes(good)
        nodes.bundle.write_bytes(resigned(nodes, {"/sub.crl": blob}, datetime.now(UTC).replace(microsecond=0)))
        code, taken = nodes.take()
        item = next(i for i in taken["items"] if i["url"].endswith("/sub.crl"))
        assert (name, item["outcome"], code) == (name, outcome, 0 if outcome == "older" else 1)
        assert words in item["detail"], name
        assert (nodes.action("bob@partner.test"), nodes.action("eve@partner.test")) == ("sealed", "refused")


def test_who_may_sign_and_what_is_said_otherwise(nodes: Nodes) -> None:
    """Unsigned, signed by a stranger, changed after it was signed, too old, too large: refused as a whole, in one sentence."""
    nodes.fetch()
    nodes.export()
    good = nodes.bundle.read_bytes()
    assert "longer ago than --max-age allows" in nodes.take("--max-age", "0 s")[1]["refused"]
    assert "see --max-size" in nodes.take("--max-size", "1 KiB")[1]["refused"]
    nodes.bundle.write_bytes(good.replace(b"node-a", b"node-b"))
    assert "the content isn't what was signed" in nodes.take()[1]["refused"]
    nodes.bundle.write_bytes(good[:-10])
    code, taken = nodes.take()
    assert (code, "still being copied" in taken["refused"]) == (75, True)
    nodes.bundle.write_bytes(good + b"x")
    assert "octets follow behind its last item" in nodes.take()[1]["refused"]
    nodes.bundle.write_bytes(resigned_by_stranger(nodes, good))
    code, taken = nodes.take()
    assert (code, "nobody in [certificates] bundle_signers signed it" in taken["refused"]) == (1, True)
    assert nodes.run(nodes.a, "export", str(nodes.bundle), "--unsigned").returncode == 0
    assert "it isn't signed" in nodes.take()[1]["refused"]
    assert nodes.action("bob@partner.test") == "deferred"
    code, taken = nodes.take("--unsigned")
    assert (code, taken["signer"], taken["counts"]["stored"]) == (0, None, 2)
    assert nodes.action("bob@partner.test") == "sealed"


def resigned_by_stranger(nodes: Nodes, good: bytes) -> bytes:
    nodes.bundle.write_bytes(good)
    key, certificate = str(nodes.directory / "x.key"), str(nodes.directory / "x.pem")
    assert nodes.run(nodes.a, "export-key", key, certificate).returncode == 0
    nodes.run(nodes.a, "export", str(nodes.bundle), "--sign-with", key, certificate)
    return nodes.bundle.read_bytes()


def test_the_file_is_replaced_as_a_whole_and_may_be_a_pipe(nodes: Nodes) -> None:
    """What is there stays until the new one is complete; standard output and input serve a data diode."""
    nodes.fetch()
    nodes.bundle.write_bytes(b"the old one")
    assert nodes.export("--max-size", "1 KiB").returncode == 65
    assert nodes.bundle.read_bytes() == b"the old one"
    assert not [p for p in nodes.directory.iterdir() if p.name.startswith(".")]
    piped = subprocess.run(
        [*POSTSEAL, "evidence", "export", "--config", str(nodes.a.config_file), "-", "--sign-with", nodes.key, nodes.signer],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert piped.returncode == 0
    assert piped.stdout.startswith(b"postseal-evidence 1 ")
    done = run_postseal("evidence", "import", "--config", str(nodes.b.config_file), "-", stdin=piped.stdout)
    assert (done.returncode, "2 stored" in done.stdout) == (0, True)
    wrong = nodes.run(nodes.a, "export", str(nodes.directory / "no/where"), "--unsigned")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (73, 1)


def test_openssl_verifies_the_manifest(nodes: Nodes) -> None:
    """The format needs nobody's word: head, manifest and signature come apart with dd and are checked with openssl."""
    nodes.fetch()
    nodes.export()
    line, _, rest = nodes.bundle.read_bytes().partition(b"\n")
    octets, signature = (int(word) for word in line.split()[2:])
    (nodes.directory / "m").write_bytes(rest[:octets])
    (nodes.directory / "s").write_bytes(rest[octets : octets + signature])
    done = subprocess.run(
        ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(nodes.directory / "s"), "-content",
         str(nodes.directory / "m"), "-CAfile", nodes.signer, "-purpose", "any", "-out", "/dev/null"],
        capture_output=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {i["kind"] for i in json.loads(rest[:octets])["items"]} == {"certificate", "crl"}


def test_keys_are_private_and_never_overwritten(nodes: Nodes) -> None:
    assert os.stat(nodes.key).st_mode & 0o777 == 0o600
    before = Path(nodes.key).read_bytes()
    done = nodes.run(nodes.a, "export-key", nodes.key, str(nodes.directory / "new.pem"))
    assert (done.returncode, Path(nodes.key).read_bytes()) == (73, before)
    assert not (nodes.directory / "new.pem").exists()
    shutil.copy(nodes.signer, nodes.directory / "other.pem")
    wrong = nodes.run(nodes.a, "export", "x", "--sign-with", nodes.signer, nodes.signer)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (65, 1)


def test_doctor_says_what_a_relay_lives_on(nodes: Nodes) -> None:
    """No CRL yet, then current ones, then one that has ended; and metrics that nobody serves."""

    def seen() -> dict[str, tuple[str, str]]:
        done = in_process("doctor", "--json", "--config", str(nodes.b.config_file))
        return {c["check"]: (c["result"], c["text"]) for c in json.loads(done.stdout)["checks"]}

    assert seen()["imports"] == ("warn", "no CRL was imported yet")
    assert seen()["metrics"][0] == "ok"
    nodes.fetch()
    nodes.export()
    nodes.take()
    nodes.b.settings["metrics"] = {"listen": f"127.0.0.1:{free_port()}"}
    nodes.b.write()
    found = seen()
    assert found["imports"] == ("ok", "imported CRLs: 2, signers of bundles: 1")
    assert found["metrics"][0] == "warn"
    assert "nobody serves metrics on 127.0.0.1:" in found["metrics"][1]
    ended = nodes.directory / "ended.crl"
    other = authority("Ended root", not_before=NOW - DAY, not_after=NOW + 60 * DAY)
    (nodes.b.anchors / "ended.pem").write_bytes(other.pem)
    ended.write_bytes(other.crl(this_update=NOW - 5 * HOUR, next_update=NOW - HOUR))
    assert nodes.run(nodes.b, "import", str(ended)).returncode == 0
    assert seen()["imports"] == ("warn", "1 of 3 imported CRLs have ended")
