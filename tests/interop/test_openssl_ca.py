"""CRLs of ``openssl ca`` with every extension that it can write: deltas, parts, reasons, indirect ones; RSA and EC."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from postseal.app.verify import Request, verify
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor
from support.evidence import CRL_URL
from support.pki import DAY, HOUR, NOW, Authority, Leaf, authority

CONFIG = """
[ca]
default_ca = demo
[demo]
database = index.txt
default_md = sha256
default_crl_days = 7
crlnumber = crlnumber
crl_extensions = crl_ext
[crl_ext]
authorityKeyIdentifier = keyid:always
{extensions}
[idp]
{scope}
"""
OTHER_URL = "http://crl.example.test/other.crl"


@dataclass
class Ca:
    """A CA that OpenSSL's tools run in ``folder``, with two certificates."""

    folder: Path
    ca: Authority
    alice: Leaf
    bob: Leaf

    def run(self, *arguments: str) -> bytes:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=True, timeout=30).stdout

    def crl(
        self, number: int, *revoked: tuple[Leaf, str], extensions: str = "", scope: str = "", hours: int = 1
    ) -> CrlEvidence:
        """A CRL of ``openssl ca -gencrl`` with this number, ``hours`` old."""
        lines = [
            f"R\t480101000000Z\t260531120000Z,{why}\t{_digits(leaf)}\tunknown\t/CN={_digits(leaf)}\n"
            for leaf, why in revoked
        ]
        (self.folder / "index.txt").write_text("".join(lines))
        (self.folder / "crlnumber").write_text(f"{number:04X}\n")
        if scope:
            extensions += "\nissuingDistributionPoint = critical,@idp"
        (self.folder / "ca.conf").write_text(CONFIG.format(extensions=extensions, scope=scope))
        last, following = ((NOW + by).strftime("%Y%m%d%H%M%SZ") for by in (-hours * HOUR, 7 * DAY))
        self.run("ca", "-config", "ca.conf", "-gencrl", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "made.pem",
                 "-crl_lastupdate", last, "-crl_nextupdate", following)  # fmt: skip
        der = self.run("crl", "-in", "made.pem", "-outform", "DER")
        return CrlEvidence(parse_crl(der), CRL_URL, NOW)

    def status(self, leaf: Leaf, *crls: CrlEvidence) -> str:
        report = verify(leaf.certificate, Request((Anchor(self.ca.certificate),), crls=crls, email=False), NOW)
        return str(report.outcome)

    def openssl(self, leaf: Leaf, *crls: CrlEvidence) -> bool:
        """What ``openssl verify`` says about them."""
        (self.folder / "leaf.pem").write_bytes(leaf.pem)
        files = []
        for number, evidence in enumerate(crls):
            (self.folder / f"{number}.crl").write_bytes(bytes(evidence.crl.der))
            files += ["-CRLfile", f"{number}.crl"]
        command = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-crl_check", "-extended_crl", "-use_deltas",
                   "-CAfile", "ca.pem", *files, "leaf.pem"]  # fmt: skip
        return subprocess.run(command, cwd=self.folder, capture_output=True, timeout=30).returncode == 0


def _digits(leaf: Leaf) -> str:
    digits = f"{leaf.certificate.serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


@pytest.fixture(scope="module", params=["rsa2048", "p256"])
def ca(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ca:
    folder = tmp_path_factory.mktemp("ca")
    root = authority(f"OpenSSL parts {request.param}", kind=request.param)
    pointer = [x509.UniformResourceIdentifier(OTHER_URL)]
    freshest = x509.FreshestCRL([x509.DistributionPoint(pointer, None, None, None)])
    alice, bob = (
        root.issue(f"{who}@example.test", kind=request.param, slot=who, crl_urls=[CRL_URL], extra=[(freshest, False)])
        for who in ("alice", "bob")
    )
    (folder / "ca.pem").write_bytes(root.pem)
    (folder / "ca.key").write_bytes(root.key_pem)
    return Ca(folder, root, alice, bob)


def delta(base: int) -> str:
    return f"2.5.29.27 = critical,ASN1:INTEGER:{base}"


def test_deltas(ca: Ca) -> None:
    """CRL-17, CRL-19: a delta revokes, lifts a hold, lifts nothing else, and is nothing without its base."""
    base = ca.crl(16, (ca.bob, "certificateHold"), hours=3)
    revokes = ca.crl(17, (ca.alice, "keyCompromise"), extensions=delta(16))
    assert revokes.crl.delta_base == 16
    assert ca.status(ca.alice, base) == "good"
    assert ca.status(ca.alice, base, revokes) == "revoked"
    assert not ca.openssl(ca.alice, base, revokes)
    assert ca.status(ca.bob, base) == "revoked"
    lifts = ca.crl(18, (ca.bob, "removeFromCRL"), extensions=delta(16))
    assert ca.status(ca.bob, base, lifts) == "good"
    assert ca.openssl(ca.bob, base, lifts)
    assert ca.status(ca.alice, lifts) == "unknown"
    final = ca.crl(16, (ca.bob, "keyCompromise"), hours=3)
    assert ca.status(ca.bob, final, lifts) == "revoked"
    too_new = ca.crl(40, (ca.bob, "removeFromCRL"), extensions=delta(30))
    assert ca.status(ca.bob, base, too_new) == "revoked"


def test_parts(ca: Ca) -> None:
    """CRL-7, CRL-8: parts by distribution point and by kind of certificate."""
    ours = ca.crl(20, (ca.bob, "superseded"), scope=f"fullname = URI:{CRL_URL}\nonlyuser = TRUE")
    assert (ca.status(ca.alice, ours), ca.status(ca.bob, ours)) == ("good", "revoked")
    assert (ca.openssl(ca.alice, ours), ca.openssl(ca.bob, ours)) == (True, False)
    for scope in ("onlyCA = TRUE", "onlyAA = TRUE", f"fullname = URI:{OTHER_URL}"):
        theirs = ca.crl(21, scope=scope)
        assert ca.status(ca.alice, theirs) == "unknown"
        assert not ca.openssl(ca.alice, theirs)


def test_reasons(ca: Ca) -> None:
    """CRL-9: some reasons aren't all; two CRLs together may be."""
    some = ca.crl(30, scope="onlysomereasons = keyCompromise, CACompromise")
    rest = ca.crl(31, scope="onlysomereasons = affiliationChanged, superseded, cessationOfOperation, certificateHold, "
                            "privilegeWithdrawn, AACompromise")  # fmt: skip
    assert (ca.status(ca.alice, some), ca.status(ca.alice, some, rest)) == ("unknown", "good")
    assert (ca.openssl(ca.alice, some), ca.openssl(ca.alice, some, rest)) == (False, True)


def test_indirect(ca: Ca) -> None:
    """CRL-15: OpenSSL writes no certificateIssuer, so all entries of an indirect CRL are the CA's own."""
    crl = ca.crl(50, (ca.bob, "keyCompromise"), scope=f"fullname = URI:{CRL_URL}\nindirectCRL = TRUE")
    assert crl.crl.indirect
    assert (ca.status(ca.alice, crl), ca.status(ca.bob, crl)) == ("good", "revoked")
    assert (ca.openssl(ca.alice, crl), ca.openssl(ca.bob, crl)) == (True, False)
