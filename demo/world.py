"""The demo's little world: a PKI with CRL and OCSP services, postseal, a private Postfix, and the recipients' mail server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from support.daemon import Daemon
from support.pki import Leaf, authority
from support.postfix import PrivatePostfix
from support.responders import OCSP_TYPE, OpensslResponder, WebServer
from support.scratch import free_port
from support.sink import Delivery, Sink

DAY = timedelta(days=1)
LOGIN = ("joe@home.test", "secret")
SENDER = "joe@home.test"

POLICY: tuple[dict[str, Any], ...] = (
    {
        "name": "partners", "recipients": ["partner.test"], "seal": "must", "without_certificate": "refuse",
        "revocation": "soft",
    },
    {
        "name": "strict", "recipients": ["strict.test"], "seal": "must", "without_certificate": "refuse",
        "revocation": "strict",
    },
    {"name": "everyone", "recipients": ["any"], "seal": "may", "without_certificate": "clear", "revocation": "soft"},
)  # fmt: skip


@dataclass
class Site:
    """All that runs, and where its files are."""

    directory: Path
    web: WebServer
    sink: Sink
    daemon: Daemon
    postfix: PrivatePostfix

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def arrived(self) -> Path:
        return self.directory / "arrived"

    def key_of(self, address: str) -> Path:
        return self.keys / f"{address}.key"


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Start everything below ``directory``; all of it is stopped at the end."""
    with ExitStack() as stack:
        web, sink = stack.enter_context(WebServer()), stack.enter_context(Sink())
        closed_port = free_port()
        daemon = Daemon(
            directory, "run", policy=POLICY,
            settings={"lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [web.port, closed_port]}},
        )  # fmt: skip
        postfix = PrivatePostfix(directory / "postfix", daemon.milter, sink.port, users=dict([LOGIN]))
        daemon.settings["milter"]["reinject"] = f"127.0.0.1:{postfix.reinject_port}"
        daemon.write()
        here = Site(directory, web, sink, daemon, postfix)
        _make_pki(here, closed_port)
        here.arrived.mkdir()
        sink.notify = lambda delivery: _keep(here.arrived, delivery)
        stack.enter_context(daemon)
        stack.enter_context(postfix)
        yield here


def _make_pki(here: Site, closed_port: int) -> None:
    """Root and issuing CA, their CRLs, an ``openssl ocsp`` responder, and one certificate for each kind of recipient."""
    now = datetime.now(UTC).replace(microsecond=0)
    valid = {"not_before": now - 30 * DAY, "not_after": now + 365 * DAY}
    web = here.web
    root = authority("Demo Root CA", not_before=now - 400 * DAY, not_after=now + 3000 * DAY)
    stranger = authority("Stranger CA", not_before=now - 400 * DAY, not_after=now + 3000 * DAY)
    dates = {"not_before": now - 300 * DAY, "not_after": now + 2000 * DAY}
    crl, responder, dead = [web.url("/issuing.crl")], [web.url("/ocsp")], f"http://127.0.0.1:{closed_port}"
    # A CRL speaks for all certificates of its issuer, so each kind of trouble has an issuing CA of its own.
    ca, ocsp_ca, dead_ca = (
        root.sub(f"Demo {what} CA", crl_urls=[web.url("/root.crl")], **dates) for what in ("Issuing", "OCSP", "Dead")
    )
    both: dict[str, Any] = {"crl_urls": crl, "ocsp_urls": [web.url("/issuing-ocsp")], **valid}
    unreachable: dict[str, Any] = {"crl_urls": [f"{dead}/dead.crl"], "ocsp_urls": [f"{dead}/ocsp"], **valid}

    good = ca.issue("rsa@partner.test", slot="rsa", **both)
    curve = ca.issue("ec@partner.test", kind="p256", slot="ec", **both)
    by_crl = ca.issue("revoked@partner.test", slot="crl", crl_urls=crl, **valid)
    by_ocsp = ocsp_ca.issue("revoked-ocsp@partner.test", slot="ocsp", ocsp_urls=responder, **valid)
    soft = dead_ca.issue("unreachable@partner.test", slot="soft", **unreachable)
    strict = dead_ca.issue("unreachable@strict.test", slot="strict", **unreachable)
    old = ca.issue("expired@open.test", slot="old", crl_urls=crl, not_before=now - 400 * DAY, not_after=now - 2 * DAY)
    unknown = stranger.issue("untrusted@partner.test", slot="unknown", crl_urls=[web.url("/stranger.crl")], **valid)
    for leaf in (good, curve, by_crl, by_ocsp, soft, strict, old, unknown):
        _publish(here, leaf)
    (here.daemon.anchors / "root.pem").write_bytes(root.pem)
    (here.daemon.intermediates / "issuing.pem").write_bytes(ca.pem + ocsp_ca.pem + dead_ca.pem)

    lists = {"this_update": now - timedelta(hours=1), "next_update": now + 7 * DAY}
    web.put("/root.crl", root.crl(**lists))
    web.put("/issuing.crl", ca.crl(revoked=[by_crl], revoked_at=now - DAY, **lists))
    web.put("/stranger.crl", stranger.crl(**lists))
    ocsp = OpensslResponder(here.directory / "ocsp", ocsp_ca)
    ocsp.revoke(by_ocsp)
    web.put("/ocsp", ocsp.answer, OCSP_TYPE)
    issuing_ocsp = OpensslResponder(here.directory / "issuing-ocsp", ca)
    issuing_ocsp.good(good, curve)
    web.put("/issuing-ocsp", issuing_ocsp.answer, OCSP_TYPE)


def _publish(here: Site, leaf: Leaf) -> None:
    address = parseaddr(leaf.certificate.name.removeprefix("CN="))[1]
    (here.daemon.certificates / f"{address}.pem").write_bytes(leaf.pem)
    here.keys.mkdir(mode=0o700, exist_ok=True)
    here.key_of(address).write_bytes(leaf.key_pem)


def _keep(folder: Path, delivery: Delivery) -> None:
    name = f"{len(list(folder.iterdir())) + 1:03}-{'+'.join(delivery.recipients)}.eml"
    (folder / name[:200]).write_bytes(delivery.data)
