"""A recipient's certificate whose issuer nobody installed: fetched by the lookup process, used by the milter's judgement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from support.daemon import Daemon, run_postseal
from support.pki import DAY, HOUR, authority
from support.responders import WebServer

START = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": START - DAY, "not_after": START + 30 * DAY}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


@pytest.mark.parametrize("allowed", [True, False])
def test_missing_issuer_is_fetched_and_completes_the_path(allowed: bool, web: WebServer, scratch: Path) -> None:
    """RFC 5280 §4.2.2.1, PRE-1: AIA caIssuers through the lookup process, unless fetch_issuers is off."""
    root = authority("Missing root", not_before=START - DAY, not_after=START + 60 * DAY)
    sub = root.sub("Missing sub", crl_urls=[web.url("/root.crl")], **WINDOW)
    where = x509.UniformResourceIdentifier(web.url("/sub.cer"))
    access = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)])
    leaf = sub.issue("bob@partner.test", crl_urls=[web.url("/sub.crl")], extra=[(access, False)], **WINDOW)
    times: dict[str, Any] = {"this_update": START - HOUR, "next_update": START + DAY}
    web.put("/sub.cer", sub.certificate.der)
    web.put("/root.crl", root.crl(**times))
    web.put("/sub.crl", sub.crl(**times))
    settings = {"lookup": {"ports": [80, web.port], "fetch_issuers": allowed}}
    daemon = Daemon(scratch, "lookup", settings=settings, policy=[{"name": "all", "seal": "may"}])
    (daemon.anchors / "root.pem").write_bytes(root.pem)
    (daemon.certificates / "bob.pem").write_bytes(leaf.pem)
    try:
        daemon.start()
        # The first look finds the issuer, the next one the evidence about its path.
        answers = [
            run_postseal("check", "bob@partner.test", "--config", str(daemon.config_file), "--json") for _ in "12"
        ]
    finally:
        daemon.kill()
    last = json.loads(answers[-1].stdout)
    assert web.count("/sub.cer") == (1 if allowed else 0)
    assert ("ok.sealed" in json.dumps(last)) is allowed, last
    if allowed:
        assert web.count("/sub.crl") == web.count("/root.crl") == 1
