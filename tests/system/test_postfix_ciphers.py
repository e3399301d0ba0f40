"""Ciphers through a real Postfix: GCM by capability, OAEP by pack, a correspondent that fell back, and no cipher at all."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from postseal.core.capabilities import EXTENSION, OURS, SUITE_OIDS, Capability, encode_capabilities
from postseal.core.cms.clearsign import Entity, clear_signed
from postseal.core.cms.signing import Signer, Signing
from postseal.core.message import Field
from postseal.core.suite import Suite
from support.mailsite import SENDER, Site, mail_site
from support.scratch import wait_for
from support.sink import Delivery

pytestmark = pytest.mark.root

MESSAGE = b"From: a@home.test\r\nSubject: hello\r\n\r\ncanary-77b2\r\n"
INNER = b"\r\ncanary-77b2\r\n"
POLICY = (
    {"name": "energy", "recipients": ["energy.test"], "seal": "must", "ciphers": "bsi-energy"},
    {"name": "gcm", "recipients": ["gcm.test"], "seal": "may", "floor": "aes128-gcm", "without_certificate": "clear"},
    {"name": "partners", "seal": "must"},
)
LISTED = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(EXTENSION), encode_capabilities(OURS)), False)]
OLD = (Capability(SUITE_OIDS[Suite.AES_256_CBC]),)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with mail_site(policy=POLICY) as site:
        for mailbox in ("plain@example.test", "fell@example.test", "market@energy.test", "nobody@gcm.test"):
            site.add(mailbox)
        for mailbox in ("lists@example.test", "lists@gcm.test"):
            site.add(mailbox, extra=LISTED)
        site.publish()
        yield site


def arrives(site: Site, mailbox: str) -> tuple[Delivery, str]:
    """The delivery, opened by openssl, and what openssl prints of its structure."""
    site.sink.clear()
    site.postfix.send(SENDER, [mailbox], MESSAGE)
    delivery = site.postfix.wait_delivered(site.sink, mailbox)
    assert site.opened(delivery).endswith(INNER)
    printed = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-noout"], input=delivery.data, capture_output=True, timeout=30
    )
    return delivery, printed.stdout.decode()


def say(site: Site, capabilities: tuple[Capability, ...], hours_ago: int) -> None:
    """fell@example.test signs a message that lists these, and the administrator learns from it."""
    leaf = site.leaves["fell@example.test"]
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours_ago)
    signing = Signing([Signer(leaf.certificate, leaf.key)], at, encode_capabilities(capabilities))
    made = clear_signed(Entity((Field(b"Content-Type", b" text/plain"),), b"hello\r\n"), signing, "cut-here")
    head = b"From: fell@example.test\r\nMIME-Version: 1.0\r\n" + b"".join(f.line for f in made.fields)
    path = site.directory / "signed.eml"
    path.write_bytes(head + b"\r\n" + b"".join(made.chunks))
    assert "fell@example.test: certificate " in site.command("cert", "learn", str(path))
    # Workers look for changes twice a second.
    time.sleep(0.7)


def logged(site: Site, pattern: str) -> None:
    wait_for(lambda: re.search(pattern, site.daemon.log()) is not None, f"{pattern!r} in the log")


def test_gcm_and_oaep_where_the_certificate_lists_them(site: Site) -> None:
    """ALG-2 to ALG-4: and neither for who lists nothing."""
    _, printed = arrives(site, "lists@example.test")
    assert "id-smime-ct-authEnvelopedData" in printed
    assert "aes-256-gcm" in printed
    assert "rsaesOaep" in printed
    logged(site, "to=<lists@example.test>, .*cipher=aes256-gcm, key=oaep-sha256, capabilities=certificate, ")
    _, printed = arrives(site, "plain@example.test")
    assert "aes-256-cbc" in printed
    assert "rsaesOaep" not in printed
    logged(site, "to=<plain@example.test>, .*cipher=aes256-cbc, key=pkcs1, revocation=")


def test_oaep_and_gcm_by_the_pack(site: Site) -> None:
    """ALG-4: bsi-energy says so, although nothing is known of the recipient."""
    _, printed = arrives(site, "market@energy.test")
    assert "aes-128-gcm" in printed
    assert "rsaesOaep" in printed
    assert printed.count("sha256") >= 2
    logged(site, "to=<market@energy.test>, .*cipher=aes128-gcm, key=oaep-sha256, revocation=")


def test_a_correspondent_that_fell_back_is_an_error_in_the_log(site: Site) -> None:
    """ALG-2: what cert learn remembers is seen by the running milter, its evidence fetched by the lookup service; check and
    explain say the same as the log."""
    say(site, OURS, hours_ago=9)
    _, printed = arrives(site, "fell@example.test")
    assert "aes-256-gcm" in printed
    say(site, OLD, hours_ago=2)
    _, printed = arrives(site, "fell@example.test")
    assert "aes-256-cbc" in printed
    words = "sealed with aes256-cbc, though the recipient once said that it reads aes256-gcm"
    logged(site, f"error: [0-9A-Za-z]+: to=<fell@example.test>: certificate sha256:[0-9a-f]+: {words}")
    shown = site.command("check", "fell@example.test")
    assert (
        f"error: certificate sha256:{site.leaves['fell@example.test'].certificate.fingerprint[:16]}: {words}" in shown
    )
    assert re.search(r"cipher: aes256-cbc, key pkcs1\n.*aes256-cbc because that is usual under ciphers=default", shown)
    assert "the recipient lists: aes256-cbc" in shown
    (found,) = json.loads(site.command("explain", "--json", "--to", "fell@example.test", "--limit", "1"))
    assert (found["capabilities_from"], found["warnings"][0]["code"]) == ("signed", "cipher.downgrade")


def test_where_no_cipher_fits_it_is_refused_at_rcpt(site: Site) -> None:
    """RFC 8551 §2.7.3: not even in clear, although the rule would let mail without a certificate go so."""
    assert site.send_code(["nobody@gcm.test"], MESSAGE) == 550
    logged(site, "to=<nobody@gcm.test>, .*action=refused, reason=rcpt.no-cipher")
    arrives(site, "lists@gcm.test")
