"""``postseal verify --online`` finds what the files lack: issuers over several steps, bundles, deltas and signers of CRLs."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AuthorityInformationAccessOID

from postseal.core.certs import readable_certificates
from postseal.core.der import SEQUENCE, SET, context, tlv
from postseal.core.errors import BadData
from postseal.shell.cli.main import main
from support.pki import DAY, NOW, Authority, Leaf, authority, key, name, usage
from support.responders import WebServer

ROOT = authority("Root")
AT = "2026-06-01T12:00:00Z"


def aia(*urls: str) -> tuple[x509.ExtensionType, bool]:
    where = [x509.UniformResourceIdentifier(url) for url in urls]
    method = AuthorityInformationAccessOID.CA_ISSUERS
    return x509.AuthorityInformationAccess([x509.AccessDescription(method, url) for url in where]), False


class Site:
    """A web server, and the command with its network allowed."""

    def __init__(self, folder: Path, web: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.web, self._capsys = folder, web, capsys

    def verify(self, leaf: Leaf, *options: str, root: Leaf = ROOT) -> dict[str, Any]:
        (self.folder / "leaf.pem").write_bytes(leaf.pem)
        (self.folder / "root.pem").write_bytes(root.pem)
        main([
            "verify", "--json", str(self.folder / "leaf.pem"), "--anchor", str(self.folder / "root.pem"), "--at", AT,
            "--online", "--config", str(self.folder / "site.toml"), *(options or ("--no-revocation",)),
        ])  # fmt: skip
        found: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return found


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    with WebServer() as web:
        (tmp_path / "site.toml").write_text(
            f'[lookup]\nallow_networks = ["127.0.0.0/8"]\nports = [{web.port}]\nrequest_timeout = "2 s"\n'
        )
        yield Site(tmp_path, web, capsys)


def pem(*leaves: Leaf) -> bytes:
    return b"".join(leaf.pem for leaf in leaves)


def bundle(*ders: bytes) -> bytes:
    """A PKCS#7 bundle of these certificates, whatever they are."""
    data = tlv(SEQUENCE, bytes.fromhex("06092a864886f70d010701"))
    signed = tlv(SEQUENCE, b"\x02\x01\x01", tlv(SET), data, tlv(context(0), *ders), tlv(SET))
    return tlv(SEQUENCE, bytes.fromhex("06092a864886f70d010702"), tlv(context(0), signed))


BROKEN = tlv(SEQUENCE, tlv(SEQUENCE, b"\x02\x01\x05"), tlv(SEQUENCE), tlv(3, b"\x00"))


def test_issuers_over_several_steps_in_every_form(site: Site) -> None:
    """RFC 5280 §4.2.2.1: DER, PEM and PKCS#7, each with the next step in it."""
    high = ROOT.sub("High")
    site.web.put(
        "/high.p7c", pkcs7.serialize_certificates([high.certificate.x509, ROOT.certificate.x509], Encoding.DER)
    )
    middle = high.sub("Middle", extra=[aia(site.web.url("/high.p7c"))])
    site.web.put("/middle.pem", pem(middle))
    low = middle.sub("Low", extra=[aia(site.web.url("/middle.pem"))])
    site.web.put("/low.cer", low.certificate.der)
    leaf = low.issue("alice@example.test", extra=[aia(site.web.url("/low.cer"))])
    found = site.verify(leaf)
    assert found["status"] == "good", found["detail"]
    assert [c["subject"] for c in found["path"]] == ["CN=alice@example.test", "CN=Low", "CN=Middle", "CN=High"]


def test_wrong_certificates_dont_end_the_search(site: Site) -> None:
    """Another key of the same name, an expired one, something that can't be read: the next URL is asked."""
    good = ROOT.sub("Issuing")
    stranger = authority("Issuing", kind="p256")
    late = ROOT._sign(
        good.subject, good.key.public_key(), [(x509.BasicConstraints(ca=True, path_length=None), True)],
        not_before=NOW - 9 * DAY, not_after=NOW - DAY,
    )  # fmt: skip
    urls = [
        site.web.put("/stranger.cer", stranger.certificate.der),
        site.web.put("/late.p7c", bundle(BROKEN, late.der)),
        site.web.put("/good.p7c", bundle(BROKEN, authority("Nobody").certificate.der, good.certificate.der)),
    ]
    found = site.verify(good.issue("alice@example.test", extra=[aia(*urls)]))
    assert found["status"] == "good", found["detail"]


def test_a_wrong_intermediate_in_the_files_doesnt_keep_from_asking(site: Site) -> None:
    good, stranger = ROOT.sub("Issuing"), authority("Issuing", kind="p256")
    (site.folder / "stranger.pem").write_bytes(stranger.pem)
    url = site.web.put("/good.cer", good.certificate.der)
    leaf = good.issue("alice@example.test", extra=[aia(url)])
    assert site.verify(leaf, "--no-revocation", "--intermediate", str(site.folder / "stranger.pem"))["status"] == "good"


def test_a_cross_certificate_is_found_behind_a_root_that_isnt_trusted(site: Site) -> None:
    """The new root is self-signed and nobody's anchor; its own AIA names the cross certificate of the old root."""
    new_key = key("rsa2048", ("ca", "New root"))
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca=True, path_length=None), True)]
    period = {"not_before": NOW - DAY, "not_after": NOW + DAY}
    cross = ROOT._sign(name("New root"), new_key.public_key(), extensions, **period)
    maker = Authority(cross, new_key, name("New root"))
    self_signed = maker._sign(
        name("New root"), new_key.public_key(), [*extensions, aia(site.web.put("/cross.cer", cross.der))], **period
    )
    url = site.web.put("/root.cer", self_signed.der)
    found = site.verify(maker.issue("alice@example.test", extra=[aia(url)]))
    assert found["status"] == "good", found["detail"]
    assert found["path"][1]["sha256"] == cross.fingerprint


def test_a_circle_ends(site: Site) -> None:
    """PRE-6: each URL is asked once, and not more than a few."""
    url = site.web.url("/self.cer")
    circle = authority("Elsewhere").sub("Circle", extra=[aia(url)])
    site.web.put("/self.cer", circle.certificate.der)
    found = site.verify(circle.issue("alice@example.test", extra=[aia(url)]))
    assert (found["status"], found["reason"]) == ("untrusted", "path.no-issuer")
    assert site.web.count("/self.cer") == 1


def test_an_endless_chain_ends(site: Site) -> None:
    """PRE-6: every issuer names another one that it needs."""
    ca = authority("Far away")
    for number in range(30):
        url = site.web.put(f"/{number}.cer", ca.certificate.der)
        ca = ca.sub(f"Step {number}", kind="p256", extra=[aia(url)])
    url = site.web.put("/last.cer", ca.certificate.der)
    found = site.verify(ca.issue("alice@example.test", extra=[aia(url)]))
    assert found["status"] == "untrusted"
    assert sum(site.web.count(f"/{number}.cer") for number in range(30)) < 12


def test_nobody_is_asked_about_an_expired_certificate(site: Site) -> None:
    """PRE-2"""
    sub = ROOT.sub("Issuing")
    url = site.web.put("/sub.cer", sub.certificate.der)
    found = site.verify(sub.issue("alice@example.test", not_after=NOW - DAY, extra=[aia(url)]))
    assert found["reason"] == "path.expired"
    assert site.web.count("/sub.cer") == 0


def test_a_delta_crl_is_fetched_and_counts(site: Site) -> None:
    """CRL-17: the base says nothing yet, the delta of freshestCRL does."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(site.web.url("/delta.crl"))], None, None, None)
    leaf = ROOT.issue(
        "alice@example.test", crl_urls=[site.web.url("/base.crl")], extra=[(x509.FreshestCRL([point]), False)]
    )
    site.web.put("/base.crl", ROOT.crl(number=1))
    site.web.put("/delta.crl", ROOT.crl([leaf], number=2, extra=[(x509.DeltaCRLIndicator(1), True)]))
    found = site.verify(leaf, "--explain")
    assert found["status"] == "revoked", found["detail"]
    assert site.web.count("/delta.crl") == 1


def test_the_signer_of_a_crl_is_found_by_the_crl(site: Site) -> None:
    """RFC 5280 §5.2.7: the CA signs its CRLs with another key, whose certificate the CRL names."""
    second = key("rsa2048", "crl key")
    signer = ROOT._sign(
        ROOT.subject, second.public_key(), [(usage("crl_sign"), True), crl_point(site.web.url("/of-signers.crl"))],
        not_before=NOW - DAY, not_after=NOW + DAY,
    )  # fmt: skip
    url = site.web.put("/signer.cer", signer.der)
    leaf = ROOT.issue("alice@example.test", crl_urls=[site.web.url("/by-signer.crl")])
    site.web.put("/by-signer.crl", Authority(signer, second, ROOT.subject).crl(extra=[aia(url)]))
    site.web.put("/of-signers.crl", ROOT.crl())
    found = site.verify(leaf, "--explain")
    assert found["status"] == "good", found["detail"]
    assert site.web.count("/signer.cer") == 1


def crl_point(url: str) -> tuple[x509.ExtensionType, bool]:
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)]
    ), False


def test_readable_certificates() -> None:
    """One bad certificate doesn't spoil a bundle; nothing but bad ones does."""
    good = ROOT.certificate
    assert readable_certificates(bundle(BROKEN, good.der)) == (good,)
    assert readable_certificates(ROOT.pem + b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n") == (
        good,
    )
    assert readable_certificates(good.der) == (good,)
    for blob in (bundle(BROKEN), b"<html>", b"", b"\x30\x03\x02\x01\x00", bundle()):
        with pytest.raises(BadData):
            readable_certificates(blob)
