"""T-1 through Postfix: a certificate that any source revokes gets no mail, softly or strictly, and the log says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from support.mailsite import DAY, POLICY, Site, mail_site
from support.responders import OCSP_TYPE, Responder
from support.scratch import wait_for

pytestmark = pytest.mark.root

MESSAGE = b"From: a@home.test\r\nSubject: hello\r\n\r\ncanary-1b7d\r\n"


@dataclass(frozen=True)
class Sources:
    """What the CRL and the responder say; None: the certificate names none."""

    crl: bool | None
    ocsp: bool | None

    @property
    def name(self) -> str:
        words = {True: "revoked", False: "good", None: "none"}
        return f"crl-{words[self.crl]}-ocsp-{words[self.ocsp]}"

    @property
    def revoked(self) -> bool:
        return bool(self.crl or self.ocsp)


SOURCES = (Sources(True, None), Sources(None, True), Sources(False, True), Sources(True, False), Sources(False, False))
DOMAINS = ("example.test", "strict.test")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Both sources are asked, and have to agree."""
    with mail_site({"revocation": {"order": "both"}}, POLICY) as site:
        responder = Responder(site.ca)
        site.web.put("/ocsp", responder.answer, OCSP_TYPE)
        now = datetime.now(UTC).replace(microsecond=0)
        for domain in DOMAINS:
            for sources in SOURCES:
                mailbox = f"{sources.name}@{domain}"
                leaf = site.ca.issue(
                    mailbox,
                    slot=mailbox,
                    crl_urls=[] if sources.crl is None else [site.web.url("/ca.crl")],
                    ocsp_urls=[] if sources.ocsp is None else [site.web.url("/ocsp")],
                    not_before=now - DAY,
                    not_after=now + 90 * DAY,
                )
                site.leaves[mailbox] = leaf
                (site.directory / f"{mailbox}.key").write_bytes(leaf.key_pem)
                (site.daemon.certificates / f"{mailbox}.pem").write_bytes(leaf.pem)
                if sources.ocsp:
                    responder.revoked[leaf.certificate.serial] = now - timedelta(days=1)
        site.publish(*(m for m in site.leaves if m.startswith("crl-revoked")))
        yield site


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("sources", SOURCES, ids=lambda s: s.name)
def test_t01_revoked_recipient(site: Site, sources: Sources, domain: str) -> None:
    """T-1, RPL-4: never sealed for, whichever source says it and whatever the other says; source, reason and date are told."""
    site.sink.clear()
    mailbox = f"{sources.name}@{domain}"
    if not sources.revoked:
        wait_for(lambda: site.send_code([mailbox], MESSAGE) == 250, "the certificate that both call good", pause=0.3)
        delivery = site.postfix.wait_delivered(site.sink, mailbox)
        assert b"canary-1b7d" in site.opened(delivery)
        return

    def told() -> re.Match[str] | None:
        assert site.send_code([mailbox], MESSAGE) in (450, 451, 550)
        return re.search(rf"{re.escape(mailbox)}.* was revoked .*", site.daemon.log())

    wait_for(lambda: told() is not None, "the revocation in the log", pause=0.3)
    found = told()
    assert found is not None
    line = found[0]
    assert "keyCompromise" in line
    assert re.search(r"revoked on \d{4}-\d\d-\d\d", line), line
    assert site.web.url("/ca.crl" if sources.crl else "/ocsp") in line
    assert site.send_code([mailbox], MESSAGE) == 550
    assert site.sink.deliveries == ()
