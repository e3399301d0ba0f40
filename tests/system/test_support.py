"""The fixtures themselves, against the real programs: a fixture that is wrong would make every other test lie."""

from __future__ import annotations

import os
import smtplib
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.daemon import Daemon, toml
from support.pki import authority
from support.postfix import PrivatePostfix, postfix_socket
from support.responders import OCSP_TYPE, OpensslResponder, Responder, WebServer
from support.scratch import answers, free_port, wait_for
from support.sink import Sink

MESSAGE = b"From: a@home.test\r\nSubject: hi\r\n\r\n.dot first\r\nsecond\r\n"
NOOP_MILTER = """
import sys, Milter
class Mark(Milter.Base):
    def eom(self):
        self.addheader("X-Seen", self.getsymval("{auth_authen}") or "nobody")
        return Milter.ACCEPT
Milter.factory = Mark
Milter.set_flags(Milter.ADDHDRS)
Milter.runmilter("noop", sys.argv[1], 30)
"""


def test_postfix_delivers_to_the_sink_without_a_milter(scratch: Path) -> None:
    """Both listeners and sendmail(1) reach the sink, which keeps the octets, dots un-stuffed."""
    with Sink() as sink, PrivatePostfix(scratch / "pf", "", sink.port, users={"joe@home.test": "pw"}) as postfix:
        assert postfix.send("a@home.test", ["b@example.test"], MESSAGE, login=("joe@home.test", "pw")) == {}
        delivery = sink.wait_for("b@example.test")
        assert delivery.sender == "a@home.test"
        assert delivery.body == b".dot first\r\nsecond\r\n"
        assert "sasl_username=joe@home.test" in postfix.log()
        with pytest.raises(smtplib.SMTPAuthenticationError):
            postfix.send("a@home.test", ["b@example.test"], MESSAGE, login=("joe@home.test", "wrong"))
        postfix.sendmail("a@home.test", ["local@example.test"], b"Subject: local\n\nbody\n")
        assert sink.wait_for("local@example.test").body == b"body\r\n"
        postfix.send("a@home.test", ["again@example.test"], MESSAGE, port=postfix.reinject_port)
        sink.wait_for("again@example.test")
        postfix.wait_log("postfix/reinject/smtpd.*client=")
        postfix.wait_empty()
        directory = str(postfix.directory)
    assert directory not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_a_milter_sees_submitted_and_local_mail_but_not_what_is_re_injected(scratch: Path) -> None:
    """The snippets of packaging/postfix do what their comments say, with a milter that only marks."""
    milter = f"inet:{free_port()}@127.0.0.1"
    with Sink() as sink, PrivatePostfix(scratch / "pf", milter, sink.port, users={"joe": "pw"}) as postfix:
        with pytest.raises(smtplib.SMTPResponseException) as error:
            postfix.send("a@home.test", ["b@example.test"], MESSAGE)
        assert error.value.smtp_code == 451, "a dead milter must defer: milter_default_action = tempfail"
        process = subprocess.Popen([sys.executable, "-c", NOOP_MILTER, milter])
        try:
            wait_for(lambda: answers(milter), "the marking milter")
            postfix.send("a@home.test", ["b@example.test"], MESSAGE, login=("joe", "pw"))
            postfix.send("a@home.test", ["c@example.test"], MESSAGE, port=postfix.reinject_port)
            postfix.sendmail("a@home.test", ["d@example.test"], MESSAGE)
            assert sink.wait_for("b@example.test")["X-Seen"] == "joe"
            assert sink.wait_for("c@example.test")["X-Seen"] is None
            assert sink.wait_for("d@example.test")["X-Seen"] == "nobody"
        finally:
            process.kill()
            process.wait()


def test_the_sink_refuses_when_told_and_postfix_bounces(scratch: Path) -> None:
    with Sink() as sink, PrivatePostfix(scratch / "pf", "", sink.port) as postfix:
        sink.refuse = lambda address: "550 5.1.1 nobody" if address.startswith("bad") else None
        postfix.send("a@home.test", ["bad@example.test", "good@example.test"], MESSAGE)
        assert sink.wait_for("good@example.test").recipients == ("good@example.test",)
        bounce = sink.wait_for("a@home.test")
        assert bounce.sender == ""
        assert b"550 5.1.1 nobody" in bounce.data


def test_postfix_settings_can_be_overridden_and_changed(scratch: Path) -> None:
    with Sink() as sink, PrivatePostfix(scratch / "pf", "", sink.port, message_size_limit=2000) as postfix:
        with pytest.raises(smtplib.SMTPResponseException) as error:
            postfix.send("a@home.test", ["b@example.test"], MESSAGE + b"x" * 3000)
        assert error.value.smtp_code == 552
        postfix.set("message_size_limit", "100000")
        wait_for(lambda: _accepts(postfix), "the new limit")
        sink.wait_for("b@example.test")


def _accepts(postfix: PrivatePostfix) -> bool:
    try:
        return postfix.send("a@home.test", ["b@example.test"], MESSAGE + b"x" * 3000) == {}
    except smtplib.SMTPException:
        return False


def test_held_mail_is_seen_and_released(scratch: Path) -> None:
    """``queue_ids`` marks a held message, ``release`` sends it on."""
    extra = {"smtpd_recipient_restrictions": "static:HOLD"}
    with Sink() as sink, PrivatePostfix(scratch / "pf", "", sink.port, extra=extra) as postfix:
        postfix.send("a@home.test", ["b@example.test"], MESSAGE)
        assert [queue_id[-1] for queue_id in postfix.queue_ids()] == ["!"]
        postfix.release()
        sink.wait_for("b@example.test")
        postfix.wait_empty()


def test_socket_notations() -> None:
    assert postfix_socket("inet:8891@127.0.0.1") == "inet:127.0.0.1:8891"
    assert postfix_socket("unix:/run/x.sock") == "unix:/run/x.sock"


def test_the_web_server_counts_and_serves() -> None:
    with WebServer() as web:
        url = web.put("/a.crl", b"crl")
        assert urllib.request.urlopen(url, timeout=5).read() == b"crl"
        assert web.count("/a.crl") == 1
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(web.url("/b.crl"), timeout=5)


@pytest.mark.parametrize("fault", ["silent", "reset", "drip", "drip-headers"])
def test_faults_hold_a_client_up(fault: str) -> None:
    """A client that waits half a second for the next octets gives up on each of these, after it has asked."""
    with WebServer() as web:
        url = web.put("/x", b"0123456789", fault=fault)
        with pytest.raises(OSError):
            urllib.request.urlopen(url, timeout=0.5).read()
        assert web.count("/x") == 1


def test_faults_that_lie_or_flood() -> None:
    with WebServer() as web:
        endless = urllib.request.urlopen(web.put("/endless", b"", fault="endless"), timeout=5)
        assert len(endless.read(1_000_000)) == 1_000_000
        endless.close()
        short = urllib.request.urlopen(web.put("/short", b"0123456789", fault="short-length"), timeout=5)
        assert short.read() == b"01234"
        page = urllib.request.urlopen(web.put("/page", b"crl", fault="wrong-type"), timeout=5)
        assert page.headers["Content-Type"] == "text/html"
        packed = urllib.request.urlopen(web.put("/packed", b"crl", fault="gzip"), timeout=5)
        assert packed.headers["Content-Encoding"] == "gzip"


def _ask(url: str, certificate: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPResponse:
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()
    posted = urllib.request.Request(
        url, request.public_bytes(Encoding.DER), {"Content-Type": "application/ocsp-request"}
    )
    return ocsp.load_der_ocsp_response(urllib.request.urlopen(posted, timeout=10).read())


def test_both_responders_agree_and_openssl_accepts_ours(tmp_path: Path) -> None:
    """Two responders, one of them ``openssl ocsp``, say the same; ``openssl ocsp -respin`` verifies the other's answer."""
    ca = authority("Responder Root")
    delegate = ca.issue(None, slot="delegate", eku=[ExtendedKeyUsageOID.OCSP_SIGNING], common_name="responder")
    good, bad = ca.issue("g@example.test"), ca.issue("b@example.test")
    ours, openssl = Responder(ca, delegate), OpensslResponder(tmp_path / "ocsp", ca, delegate)
    ours.revoked[bad.certificate.serial] = datetime.now(UTC) - timedelta(hours=1)
    openssl.good(good)
    openssl.revoke(bad)
    with WebServer() as web:
        for url in (web.put("/ours", ours.answer, OCSP_TYPE), web.put("/openssl", openssl.answer, OCSP_TYPE)):
            status = _ask(url, good.certificate.x509, ca.certificate.x509)
            assert status.certificate_status is ocsp.OCSPCertStatus.GOOD, url
            status = _ask(url, bad.certificate.x509, ca.certificate.x509)
            assert status.certificate_status is ocsp.OCSPCertStatus.REVOKED, url
        (tmp_path / "ca.pem").write_bytes(ca.pem)
        (tmp_path / "bad.pem").write_bytes(bad.pem)
        verdict = subprocess.run(
            ["openssl", "ocsp", "-issuer", "ca.pem", "-cert", "bad.pem", "-CAfile", "ca.pem", "-url", web.url("/ours")],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert "Response verify OK" in verdict.stderr
        assert "bad.pem: revoked" in verdict.stdout


def test_the_configuration_that_is_written_reads_back(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, settings={"milter": {"workers": 1}}, policy=[{"name": 'a "b"', "recipients": ["x", "y"]}])
    read = tomllib.loads(daemon.config_file.read_text())
    assert read["milter"]["workers"] == 1
    assert read["milter"]["internal_domains"] == ["home.test"]
    assert read["policy"] == [{"name": 'a "b"', "recipients": ["x", "y"]}]
    assert toml({"a": {"b": True, "c": 1.5}}) == "[a]\nb = true\nc = 1.5\n"


def test_a_daemon_that_ends_at_once_is_reported_with_its_log(scratch: Path) -> None:
    """A wrong configuration ends it; the error carries what it said."""
    daemon = Daemon(scratch, "milter", settings={"milter": {"no_such_key": 1}})
    with pytest.raises(AssertionError, match="postseal milter ended with"):
        daemon.start()
    assert os.path.getsize(daemon.log_file) > 0
