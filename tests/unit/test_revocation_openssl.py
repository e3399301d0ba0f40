"""Evidence made by OpenSSL's own tools, judged by ours; requests of ours, read by OpenSSL."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.core import ocsp
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, OcspEvidence, Question
from postseal.core.revocation import Nonce, RevocationSettings, Status, Verdict, judge
from support.evidence import CRL_URL, OCSP_URL
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority, usage

LONG_AGO, LONG_AFTER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC)
CONFIG = """
[ca]
default_ca = demo
[demo]
database = {database}
default_md = sha256
default_crl_days = 7
{extensions}
[crl_ext]
authorityKeyIdentifier = keyid:always
"""


@dataclass
class OpenSsl:
    """A CA that OpenSSL's tools run in ``folder``: Alice is valid, Bob is revoked, Carol is on hold."""

    folder: Path
    ca: Authority
    responder: Leaf
    alice: Leaf
    bob: Leaf
    carol: Leaf

    def run(self, *arguments: str) -> bytes:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=True, timeout=30).stdout

    def crl(
        self,
        form: str = "DER",
        extensions: str = "crlnumber = crlnumber\ncrl_extensions = crl_ext",
        database: str = "index.txt",
    ) -> bytes:
        """A CRL of ``openssl ca -gencrl``, dated by our clock."""
        (self.folder / "ca.conf").write_text(CONFIG.format(extensions=extensions, database=database))
        last, following = ((NOW + delta).strftime("%Y%m%d%H%M%SZ") for delta in (-HOUR, 7 * DAY))
        self.run("ca", "-config", "ca.conf", "-gencrl", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "made.pem",
                 "-crl_lastupdate", last, "-crl_nextupdate", following)  # fmt: skip
        return self.run("crl", "-in", "made.pem", "-outform", form)

    def answer(self, request: bytes, *more: str, days: bool = True) -> bytes:
        """The answer of ``openssl ocsp`` to a request, dated by the machine's clock."""
        (self.folder / "request.der").write_bytes(request)
        signer = () if "-rsigner" in more else ("-rsigner", "responder.pem", "-rkey", "responder.key")
        self.run("ocsp", "-index", "index.txt", "-CA", "ca.pem", *signer, "-reqin", "request.der",
                 "-respout", "answer.der", *(("-ndays", "3") if days else ()), *more)  # fmt: skip
        return (self.folder / "answer.der").read_bytes()

    def question(self, about: Leaf) -> Question:
        return Question(about.certificate, self.ca.certificate, (CRL_URL,), (OCSP_URL,))

    def by_ocsp(self, about: Leaf, *more: str, hash_name: str = "sha256") -> Verdict:
        now = datetime.now(UTC)
        question = self.question(about)
        evidence = OcspEvidence(self.answer(ocsp.build_request(question, hash_name), *more), OCSP_URL, now)
        return judge(question, [evidence], RevocationSettings(), now)

    def by_crl(self, about: Leaf, der: bytes) -> Verdict:
        evidence = CrlEvidence(parse_crl(der), CRL_URL, NOW)
        return judge(self.question(about), [evidence], RevocationSettings(), NOW)


@pytest.fixture(scope="module", params=["rsa2048", "p256"])
def openssl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenSsl:
    kind = request.param
    folder = tmp_path_factory.mktemp("openssl")
    ca = authority(f"OpenSSL CA {kind}", kind=kind, not_before=LONG_AGO, not_after=LONG_AFTER)
    responder = ca.issue(
        None, kind=kind, slot="responder", common_name="Responder", eku=[ExtendedKeyUsageOID.OCSP_SIGNING],
        key_usage=usage("digital_signature"), not_before=datetime.now(UTC).replace(microsecond=0) - DAY,
        not_after=datetime.now(UTC).replace(microsecond=0) + 30 * DAY,
        extra=[(x509.OCSPNoCheck(), False)],
    )  # fmt: skip
    alice, bob, carol = (ca.issue(f"{who}@example.test", kind=kind, serial=serial) for who, serial in
                         (("alice", 0x65), ("bob", (1 << 159) - 0x66), ("carol", 0x80)))  # fmt: skip
    states = [
        (alice, "V", ""),
        (bob, "R", "260531120000Z,keyCompromise"),
        (carol, "R", "260531120000Z,certificateHold"),
    ]
    lines = []
    for who, state, when in states:
        digits = f"{who.certificate.serial:X}"
        digits = digits if len(digits) % 2 == 0 else "0" + digits
        lines.append(f"{state}\t480101000000Z\t{when}\t{digits}\tunknown\t/CN={digits}\n")
    (folder / "index.txt").write_text("".join(lines))
    (folder / "empty.txt").write_text("")
    (folder / "crlnumber").write_text("1000\n")
    for label, who in (("ca", ca), ("responder", responder)):
        (folder / f"{label}.pem").write_bytes(who.pem)
        (folder / f"{label}.key").write_bytes(
            who.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return OpenSsl(folder, ca, responder, alice, bob, carol)


@pytest.mark.parametrize("form", ["DER", "PEM"])
def test_crl_made_by_openssl(openssl: OpenSsl, form: str) -> None:
    """CRL-1 to CRL-6, CRL-16, CRL-20: valid, revoked and held certificates on a CRL of "openssl ca -gencrl"."""
    der = openssl.crl(form)
    assert openssl.by_crl(openssl.alice, der).reason == "rev.crl"
    bob, carol = openssl.by_crl(openssl.bob, der), openssl.by_crl(openssl.carol, der)
    assert (bob.status, bob.revocation_reason) == (Status.REVOKED, "keyCompromise")
    assert bob.revoked_at == datetime(2026, 5, 31, 12, tzinfo=UTC)
    assert (carol.status, carol.revocation_reason) == (Status.REVOKED, "certificateHold")
    assert parse_crl(der).number is not None


def test_version_1_crl_of_openssl(openssl: OpenSsl) -> None:
    """CRL-1: what "openssl ca" makes without crlnumber and crl_extensions is refused, and the sentence says how to mend it."""
    with pytest.raises(BadData, match=r"version 1, only version 2 is accepted \(with openssl ca, set crlnumber\)"):
        parse_crl(openssl.crl(extensions="", database="empty.txt"))


@pytest.mark.parametrize("hash_name", ["sha256", "sha1"])
@pytest.mark.parametrize("more", [(), ("-resp_key_id",)], ids=["by name", "by key"])
def test_answers_of_openssl(openssl: OpenSsl, hash_name: str, more: tuple[str, ...]) -> None:
    """OCSP-1, OCSP-2, OCSP-7, OCSP-8: OpenSSL understands our requests, and we its answers by a delegated responder."""
    alice, bob, carol = (
        openssl.by_ocsp(who, *more, hash_name=hash_name) for who in (openssl.alice, openssl.bob, openssl.carol)
    )
    assert (alice.status, alice.reason, alice.detail) == (Status.GOOD, "rev.ocsp", "")
    assert (bob.status, bob.revocation_reason) == (Status.REVOKED, "keyCompromise")
    assert (carol.status, carol.revocation_reason) == (Status.REVOKED, "certificateHold")


def test_answers_signed_by_the_ca(openssl: OpenSsl) -> None:
    """OCSP-7 (b), OCSP-9: the CA answers itself, with no certificate in the answer."""
    signer = ("-rsigner", "ca.pem", "-rkey", "ca.key", "-resp_no_certs")
    assert openssl.by_ocsp(openssl.alice, *signer).status is Status.GOOD
    assert openssl.by_ocsp(openssl.bob, *signer).status is Status.REVOKED


def test_answer_without_the_responder_certificate(openssl: OpenSsl) -> None:
    """OCSP-9: a delegated answer without its certificate isn't believed."""
    assert openssl.by_ocsp(openssl.alice, "-resp_no_certs").reason == "rev.unauthorized-responder"


def test_certificate_unknown_to_openssl(openssl: OpenSsl) -> None:
    """RFC 6960 §2.2: a serial number that isn't in the index is "unknown", which is never GOOD."""
    stranger = openssl.ca.issue("dave@example.test", kind="p256", serial=0x7777)
    assert openssl.by_ocsp(stranger).reason == "rev.ocsp-unknown"


def test_answer_without_next_update(openssl: OpenSsl) -> None:
    """OCSP-12: with "-ndays" left out OpenSSL gives no nextUpdate; such an answer can't be kept and isn't believed."""
    now = datetime.now(UTC)
    der = openssl.answer(ocsp.build_request(openssl.question(openssl.alice)), days=False)
    evidence = OcspEvidence(der, OCSP_URL, now)
    verdict = judge(openssl.question(openssl.alice), [evidence], RevocationSettings(), now)
    assert (verdict.reason, verdict.status) == ("rev.stale", Status.UNKNOWN)
    assert "no nextUpdate" in verdict.detail


def test_t29_nonce_comes_back(openssl: OpenSsl) -> None:
    """OCSP-13, T-29: OpenSSL returns the nonce of our request, and then also an answer without nextUpdate is of use."""
    question, nonce = openssl.question(openssl.alice), b"n" * 32
    request = ocsp.build_request(question, nonce=nonce)
    der, now = openssl.answer(request), datetime.now(UTC)
    settings = RevocationSettings(nonce=Nonce.REQUIRE)
    assert ocsp.parse_response(der).nonce == nonce
    assert judge(question, [OcspEvidence(der, OCSP_URL, now, nonce)], settings, now).reason == "rev.ocsp"
    assert judge(question, [OcspEvidence(der, OCSP_URL, now, b"o" * 32)], settings, now).reason == "rev.wrong-nonce"
    plain = openssl.answer(ocsp.build_request(question))
    assert judge(question, [OcspEvidence(plain, OCSP_URL, now, nonce)], settings, now).reason == "rev.no-nonce"
    endless = openssl.answer(request, days=False)
    assert judge(question, [OcspEvidence(endless, OCSP_URL, now, nonce)], settings, now).reason == "rev.ocsp"
    assert judge(question, [OcspEvidence(endless, OCSP_URL, now)], settings, now).reason == "rev.stale"
