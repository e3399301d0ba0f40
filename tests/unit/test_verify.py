"""``postseal verify``: the public contract of its exit codes, JSON and text; files and network."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from postseal.app.verify import Outcome, Report, Request, explain, verify
from postseal.core.certs import Certificate
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor, AnchorSettings
from postseal.shell.cli.main import main
from support.pki import DAY, HOUR, NOW, Leaf, authority, key, usage
from support.responders import OCSP_TYPE, Responder, WebServer

ROOT = authority("Root")
SUB = ROOT.sub("Issuing", crl_urls=["http://ca.test/root.crl"])
ALICE = SUB.issue("alice@example.test", crl_urls=["http://ca.test/sub.crl"])
BOB = SUB.issue("bob@example.test", slot=1)
AT = "2026-06-01T12:00:00Z"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for title, content in {
        "alice.pem": ALICE.pem, "bob.pem": BOB.pem, "sub.pem": SUB.pem, "root.pem": ROOT.pem,
        "sub.crl": SUB.crl(), "root.crl": ROOT.crl(), "revoked.crl": SUB.crl([ALICE]),
        "chain.pem": ALICE.pem + SUB.pem, "empty": b"", "junk": b"junk",
    }.items():  # fmt: skip
        (tmp_path / title).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRUST = ["--anchor", "root.pem", "--intermediate", "sub.pem", "--at", AT]
CRLS = ["--crl", "sub.crl", "--crl", "root.crl"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(["verify", "--json", *arguments])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        ([*TRUST, *CRLS], "good", "rev.crl"),
        ([*TRUST, *CRLS, "--offline", "--address", "ALICE@example.test"], "good", "rev.crl"),
        ([*TRUST, "--no-revocation"], "good", "path.valid"),
        ([*TRUST, "--crl", "revoked.crl", "--crl", "root.crl"], "revoked", "rev.revoked-crl"),
        ([*TRUST, *CRLS, "--crl", "revoked.crl"], "revoked", "rev.revoked-crl"),
        ([*TRUST], "unknown", "rev.no-evidence"),
        ([*TRUST, "--crl", "sub.crl"], "unknown", "rev.no-evidence"),
        ([*TRUST, *CRLS, "--address", "bob@example.test"], "unfit", "cert.wrong-address"),
        ([*TRUST[2:], *CRLS], "untrusted", "path.no-issuer"),
        (["--anchor", "root.pem", *CRLS, "--at", AT], "untrusted", "path.no-issuer"),
        ([*TRUST[:-1], "2031-01-01T00:00:00Z"], "untrusted", "path.expired"),
        ([*TRUST[:-1], str(int(NOW.timestamp())), *CRLS], "good", "rev.crl"),
        ([*TRUST[:-1], "2026-06-01T14:00:00+02:00", *CRLS], "good", "rev.crl"),
    ],
)
@pytest.mark.usefixtures("files")
def test_status(capsys: pytest.CaptureFixture[str], arguments: list[str], status: str, reason: str) -> None:
    code, (found,) = run(capsys, "alice.pem", *arguments)
    assert (found["status"], found["reason"]) == (status, reason), found["detail"]
    assert code == (0 if status == "good" else 1)


@pytest.mark.usefixtures("files")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The keys are a public contract."""
    _, (found,) = run(capsys, "alice.pem", *TRUST, *CRLS, "--explain")
    assert set(found) == {
        "file", "status", "reason", "detail", "at", "path", "anchor", "policies", "findings", "revocation", "checks",
    }  # fmt: skip
    assert [c["subject"] for c in found["path"]] == ["CN=alice@example.test", "CN=Issuing"]
    assert found["anchor"]["sha256"] == ROOT.certificate.fingerprint
    assert found["at"] == AT
    first = found["revocation"][0]
    assert first["certificate"] == ALICE.certificate.fingerprint
    assert (first["verdict"], first["reason"], first["source"]) == ("good", "rev.crl", "file:sub.crl")
    assert first["this_update"] == "2026-06-01T11:00:00Z"
    assert first["next_update"] == "2026-06-08T12:00:00Z"
    assert all(check["passed"] for check in found["checks"])
    assert any("§6.1.3 (a)(1)" in check["clause"] for check in found["checks"])


@pytest.mark.usefixtures("files")
def test_several_certificates_are_verified_each_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(capsys, "alice.pem", "bob.pem", *TRUST, "--crl", "revoked.crl", "--crl", "root.crl")
    assert code == 1
    assert [(f["file"], f["status"]) for f in found] == [("alice.pem", "revoked"), ("bob.pem", "good")]


@pytest.mark.usefixtures("files")
def test_further_certificates_in_the_file_are_intermediates(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(capsys, "chain.pem", "--anchor", "root.pem", "--at", AT, *CRLS)
    assert code == 0


@pytest.mark.usefixtures("files")
def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "alice.pem", *TRUST, *CRLS, "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("alice.pem: good: ")
    assert lines[1:4] == ["  CN=alice@example.test: good", "    CN=Issuing: good", "      CN=Root (trust anchor)"]
    assert "  [ok] CN=Issuing: is a CA [RFC 5280 §6.1.4 (k)]" in lines
    assert main(["verify", "alice.pem", "--at", AT, "--explain"]) == 1
    assert "[FAILED] path.no-issuer: no certificate of CN=Issuing" in capsys.readouterr().out


@pytest.mark.usefixtures("files")
def test_explain_a_fault_up_to_the_rule_that_failed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What held is told before what didn't; what comes after was never looked at."""
    names = x509.NameConstraints([x509.RFC822Name("b.test")], None)
    ca = ROOT.sub("Constrained", extra=[(names, True)])
    (files / "leaf.pem").write_bytes(ca.issue("alice@example.test").pem + ca.pem)
    assert main(["verify", "leaf.pem", "--anchor", "root.pem", "--at", AT, "--explain"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  [")]
    assert lines[:2] == ["  [note] tried CN=alice@example.test", "  [note] tried CN=Constrained"]
    assert "  [ok] CN=alice@example.test: signature by CN=Constrained [RFC 5280 §6.1.3 (a)(1)]" in lines
    failed = next(i for i, line in enumerate(lines) if "FAILED" in line)
    assert lines[failed].startswith(
        "  [FAILED] path.name-constraints: CN=alice@example.test: 'alice@example.test' is outside"
    )
    assert "  [ok] CN=Constrained: is a CA [RFC 5280 §6.1.4 (k)]" in lines[:failed]
    assert not any("CN=Constrained: signature" in line for line in lines)


@pytest.mark.usefixtures("files")
def test_explain_shows_names_purposes_and_policies(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = x509.NameConstraints([x509.RFC822Name("example.test")], None)
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])
    ca = ROOT.sub("Constrained", extra=[(names, True), (policies, False)])
    leaf = ca.issue("alice@example.test", extra=[(policies, False)])
    (files / "leaf.pem").write_bytes(leaf.pem + ca.pem)
    trust = ["leaf.pem", "--anchor", "root.pem", "--at", AT, "--no-revocation", "--explain"]
    assert main(["verify", *trust, "--policy", "1.2.3", "--require-explicit-policy"]) == 0
    told = capsys.readouterr().out
    for line in (
        "[ok] CN=alice@example.test: its 2 names are what CN=Constrained may vouch for [RFC 5280 §6.1.3 (b), (c)]",
        "[ok] CN=Constrained: may vouch for mail [RFC 5280 §4.2.1.12, RFC 8550 §4.4.4]",
        "[ok] valid under the policies: 1.2.3 [RFC 5280 §6.1.5 (g), RFC 9618 §5.5]",
    ):
        assert line in told
    assert main(["verify", *trust, "--policy", "1.2.4", "--require-explicit-policy"]) == 1
    assert (
        "[FAILED] path.policy: CN=alice@example.test: it isn't valid under one of the policies"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 64, "CERT"),
        (["alice.pem", "--at", "yesterday"], 64, "--at 'yesterday': expected a time"),
        (["alice.pem", "--at", "2026-06-01T12:00:00"], 64, "expected a time"),
        (["alice.pem", "--at", "1e400"], 64, "expected a time"),
        (["alice.pem", "--at", "0001-01-01T00:00:00+14:00"], 64, "expected a time"),
        (["alice.pem", "--at", "9999-12-31T23:59:59-10:00"], 64, "expected a time"),
        (["alice.pem", "--address", ""], 64, "--address: '' is not a mail address"),
        (["alice.pem", "--at", ""], 64, "--at '': expected a time"),
        (["alice.pem", "--address", "nobody"], 64, "--address: 'nobody' is not a mail address"),
        (["alice.pem", "--online", "--offline"], 64, "not allowed"),
        (["alice.pem", "--allow-port", "8080"], 64, "with --online only"),
        (["alice.pem", "--online", "--allow-port", "0"], 64, "not a port"),
        (["alice.pem", "--online", "--allow-network", "10.0.0.1/8"], 64, "not a network"),
        (["alice.pem", "--policy", "3.2.1"], 64, "--policy '3.2.1': expected an object identifier"),
        (["alice.pem", "--policy", "1.40"], 64, "expected an object identifier"),
        (["alice.pem", "--policy", "1.02"], 64, "expected an object identifier"),
        (["alice.pem", "--policies", "1.2.3"], 64, "no option --policies; did you mean --policy?"),
        (["missing.pem"], 65, "missing.pem: No such file"),
        (["."], 65, ".: Is a directory"),
        (["empty"], 65, "empty: the file is empty"),
        (["junk"], 65, "junk: no certificate found"),
        (["alice.pem", "--anchor", "junk"], 65, "junk: no certificate found"),
        (["alice.pem", "--crl", "junk"], 65, "junk: no CRL found"),
        (["alice.pem", "--crl", "chain.pem"], 65, "chain.pem: no CRL found"),
        (["alice.pem", "--ocsp", "junk"], 65, "junk: no OCSP response found"),
    ],
)
@pytest.mark.usefixtures("files")
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    """One sentence that names the thing and the cause."""
    assert main(["verify", *arguments]) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_time_that_is_given_is_meant(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CERT-15, RFC 5280 §4.1.2.5: patience with notBefore is for clocks that go wrong; notAfter includes all of its second."""
    leaf = ROOT.issue("alice@example.test", not_before=NOW, not_after=NOW + DAY)
    (files / "leaf.pem").write_bytes(leaf.pem)
    start, end = leaf.certificate.not_before.timestamp(), leaf.certificate.not_after.timestamp()
    for moment, reason in (
        (start - 1, "path.not-yet-valid"), (start - 0.5, "path.not-yet-valid"), (start, "path.valid"),
        (end, "path.valid"), (end + 0.5, "path.valid"), (end + 1, "path.expired"),
    ):  # fmt: skip
        found = run(capsys, "leaf.pem", "--anchor", "root.pem", "--no-revocation", "--at", str(moment))[1][0]
        assert found["reason"] == reason, moment


@pytest.mark.parametrize(
    ("moment", "at", "reason"),
    [
        ("2026-06-01t14:00:00.9+02:00", AT, "rev.crl"),
        ("2026-06-01t12:00:00z", AT, "rev.crl"),
        ("-1.5", "1969-12-31T23:59:58Z", "path.not-yet-valid"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "path.not-yet-valid"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "path.expired"),
    ],
)
@pytest.mark.usefixtures("files")
def test_any_time_can_be_asked_about(capsys: pytest.CaptureFixture[str], moment: str, at: str, reason: str) -> None:
    """RFC 3339 §5.6 with small letters, fractions and offsets; and both ends of the calendar."""
    found = run(capsys, "alice.pem", *TRUST[:-2], *CRLS, "--at", moment)[1][0]
    assert (found["at"], found["reason"]) == (at, reason)


def test_an_answer_that_was_signed_after_the_moment_asked_about(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OCSP-12, RFC 6960 §2.4: it counts for its whole period, of which --at is a part; CRLs say no more either."""
    answer = ocsp.OCSPResponseBuilder().add_response(
        ALICE.certificate.x509, SUB.certificate.x509, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, NOW - DAY, NOW + DAY,
        None, None,
    ).responder_id(ocsp.OCSPResponderEncoding.NAME, SUB.certificate.x509)  # fmt: skip
    (files / "ocsp.der").write_bytes(answer.sign(SUB.key, hashes.SHA256()).public_bytes(Encoding.DER))
    found = run(capsys, "alice.pem", *TRUST, "--crl", "root.crl", "--ocsp", "ocsp.der")[1][0]
    assert (found["status"], found["reason"]) == ("good", "rev.ocsp"), found


def test_several_crls_in_one_pem_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = b"".join(x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in (SUB.crl(), ROOT.crl()))
    (files / "both.pem").write_bytes(b"two CRLs\n" + pem)
    assert run(capsys, "alice.pem", *TRUST, "--crl", "both.pem")[0] == 0


def test_a_crl_in_bare_base64(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CRL-1: it decodes to one DER object, so it is one."""
    (files / "bare.crl").write_bytes(base64.encodebytes(SUB.crl()))
    assert run(capsys, "alice.pem", *TRUST, "--crl", "bare.crl", "--crl", "root.crl")[0] == 0
    (files / "text.crl").write_bytes(base64.encodebytes(b"no CRL"))
    assert main(["verify", "alice.pem", *TRUST, "--crl", "text.crl"]) == 65


def test_hostile_names_are_escaped(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = SUB.issue("alice@example.test", slot=2, common_name="x\x1b[2J\u202eevil")
    (files / "hostile.pem").write_bytes(hostile.pem)
    main(["verify", "hostile.pem", *TRUST, "--explain"])
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\u202e" not in told


def test_purpose_any_and_weak_keys(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web = SUB.issue(None, slot=3, key_usage=usage("digital_signature"), eku=[x509.ExtendedKeyUsageOID.SERVER_AUTH])
    (files / "web.pem").write_bytes(web.pem)
    assert run(capsys, "web.pem", *TRUST, *CRLS)[1][0]["status"] == "unfit"
    assert run(capsys, "web.pem", *TRUST, *CRLS, "--purpose", "any")[0] == 0
    found = run(capsys, "web.pem", *TRUST, *CRLS, "--purpose", "any", "--address", "a@b.test")[1][0]
    assert (found["status"], found["reason"]) == ("unfit", "cert.no-address")
    (files / "weak.pem").write_bytes(SUB.issue("alice@example.test", kind="rsa1024").pem)
    assert run(capsys, "weak.pem", *TRUST, *CRLS)[1][0]["reason"] == "path.weak-key"
    assert run(capsys, "weak.pem", *TRUST, *CRLS, "--allow-weak-keys")[0] == 0


def report(leaf: Leaf, *crls: bytes, pool: tuple[Certificate, ...] = (SUB.certificate,)) -> Report:
    evidence = tuple(CrlEvidence(parse_crl(der), f"file:{i}", NOW) for i, der in enumerate(crls))
    return verify(leaf.certificate, Request((Anchor(ROOT.certificate),), pool, evidence), NOW)


def test_a_trusted_self_signed_certificate_isnt_asked_about() -> None:
    """PRE-4: an anchor is revoked by taking it away."""
    found = verify(ROOT.certificate, Request((Anchor(ROOT.certificate),), email=False), NOW)
    assert (found.outcome, found.verdicts) == (Outcome.GOOD, ())


def test_an_old_crl_that_says_it_is_current_counts() -> None:
    """The operator named it; how long a cache believes a CRL is another question (CRL-24)."""
    old = SUB.crl(this_update=NOW - 300 * DAY, next_update=NOW + DAY)
    assert report(ALICE, old, ROOT.crl()).outcome is Outcome.GOOD


def test_an_expired_anchor_is_remarked() -> None:
    root = authority("Past", not_before=NOW - 900 * DAY, not_after=NOW - DAY)
    leaf = root.issue("alice@example.test")
    found = verify(leaf.certificate, Request((Anchor(root.certificate),), revocation=False), NOW)
    assert (found.outcome, found.reason) == (Outcome.UNTRUSTED, "path.expired")
    kept = Anchor(root.certificate, "", AnchorSettings(expired=True))
    found = verify(leaf.certificate, Request((kept,), revocation=False), NOW)
    assert found.outcome is Outcome.GOOD
    assert [c.text for c in explain(found) if c.passed is None] == [
        "CN=Past is outside of its validity, which its settings permit"
    ]


class TestKeyRollover:
    """RFC 5280 §6.3.3 (f): the CA signs its CRLs with a new key, which a self-issued certificate introduces."""

    NEW = key("rsa2048", "new CRL key")

    def introduced(self, *bits: str, serial: int = 900) -> Certificate:
        return SUB._sign(
            SUB.subject, self.NEW.public_key(), [(usage(*bits), True)], not_before=NOW - DAY, not_after=NOW + DAY, serial=serial
        )  # fmt: skip

    def crl(self, *revoked: Leaf) -> bytes:
        return type(SUB)(SUB.certificate, self.NEW, SUB.subject).crl(revoked, number=2)

    def test_the_new_key_counts_when_the_old_one_vouches_for_it(self) -> None:
        pool = (SUB.certificate, self.introduced("crl_sign"))
        assert report(ALICE, self.crl(), SUB.crl(), ROOT.crl(), pool=pool).verdicts[0].reason == "rev.crl"
        good = report(BOB, self.crl(), ROOT.crl(), SUB.crl([ALICE]), pool=pool)
        assert good.outcome is Outcome.GOOD

    def test_revoked_by_the_new_key(self) -> None:
        pool = (SUB.certificate, self.introduced("crl_sign"))
        assert report(ALICE, self.crl(ALICE), ROOT.crl(), pool=pool).outcome is Outcome.REVOKED

    def test_nobody_vouches_for_the_new_key(self) -> None:
        pool = (SUB.certificate, self.introduced("crl_sign"))
        assert report(ALICE, self.crl(), ROOT.crl(), pool=pool).outcome is Outcome.UNKNOWN
        assert report(ALICE, self.crl(), ROOT.crl()).outcome is Outcome.UNKNOWN

    def test_the_new_key_must_be_for_crls(self) -> None:
        pool = (SUB.certificate, self.introduced("digital_signature"))
        assert report(ALICE, self.crl(ALICE), ROOT.crl(), pool=pool).outcome is Outcome.UNKNOWN

    def test_a_stranger_of_the_same_name_is_no_such_key(self) -> None:
        other = authority("Issuing", kind="p256")
        pool = (SUB.certificate, other.certificate)
        assert report(ALICE, other.crl([ALICE]), ROOT.crl(), pool=pool).outcome is Outcome.UNKNOWN


def online(files: Path, web: WebServer) -> list[str]:
    config = files / "online.toml"
    config.write_text(f'[lookup]\nallow_networks = ["127.0.0.0/8"]\nports = [{web.port}]\nrequest_timeout = "2 s"\n')
    return ["--online", "--config", str(config), "--anchor", "root.pem", "--at", AT]


def aia(url: str) -> x509.AuthorityInformationAccess:
    where = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)])


def test_online_fetches_issuer_and_crls(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with WebServer() as web:
        sub = ROOT.sub("Online", crl_urls=[web.url("/root.crl")])
        issuer = web.put("/sub.cer", sub.certificate.der)
        web.put("/root.crl", ROOT.crl())
        leaf = sub.issue("alice@example.test", crl_urls=[web.url("/sub.crl")], extra=[(aia(issuer), False)])
        (files / "leaf.pem").write_bytes(leaf.pem)
        code, (found,) = run(capsys, "leaf.pem", *online(files, web))
        assert (code, found["status"]) == (1, "unknown")
        assert "404" in found["detail"]
        web.put("/sub.crl", sub.crl())
        code, (found,) = run(capsys, "leaf.pem", *online(files, web))
        assert (code, found["status"], found["reason"]) == (0, "good", "rev.crl"), found
        assert found["revocation"][0]["source"] == web.url("/sub.crl")
        before = web.count("/sub.cer")
        code, _ = run(capsys, "leaf.pem", *TRUST, *CRLS)
        assert code == 1
        assert web.count("/sub.cer") == before, "without --online nothing is fetched"


def test_online_asks_the_responder_when_there_is_no_crl(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The responder's answers are of this very moment, so everything else is too."""
    now = datetime.now(UTC).replace(microsecond=0)
    root = authority("Root of today", not_before=now - DAY, not_after=now + DAY)
    (files / "root.pem").write_bytes(root.pem)
    with WebServer() as web:
        responder = Responder(root)
        url = web.put("/ocsp", responder.answer, OCSP_TYPE)
        leaf = root.issue("alice@example.test", ocsp_urls=[url], not_before=now - DAY, not_after=now + DAY)
        (files / "leaf.pem").write_bytes(leaf.pem)
        options = online(files, web)[:-2]
        code, (found,) = run(capsys, "leaf.pem", *options)
        assert (code, found["reason"]) == (0, "rev.ocsp"), found
        responder.revoked[leaf.certificate.serial] = now - HOUR
        code, (found,) = run(capsys, "leaf.pem", *options)
        assert (code, found["reason"]) == (1, "rev.revoked-ocsp"), found


def test_online_with_nobody_there_is_unknown_and_says_why(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with WebServer() as web:
        options = online(files, web)
        leaf = ROOT.issue("alice@example.test", crl_urls=[web.url("/x.crl"), "http://192.168.1.1/x.crl"])
    (files / "leaf.pem").write_bytes(leaf.pem)
    code, (found,) = run(capsys, "leaf.pem", *options)
    assert (code, found["status"]) == (1, "unknown")
    assert "Could not retrieve URL" in found["detail"]
