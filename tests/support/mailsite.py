"""A whole mail site: Postfix, postseal, a web server for CRLs and a sink, with recipients whose keys the test has.

with mail_site() as site:
    site.postfix.send(SENDER, ["rsa@example.test"], message)
    site.opened(site.sink.wait_for("rsa@example.test"))
"""

from __future__ import annotations

import os
import smtplib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.daemon import Daemon, run_postseal
from support.pki import Authority, Leaf, authority
from support.postfix import PrivatePostfix
from support.responders import WebServer
from support.scratch import scratch
from support.sink import Delivery, Sink

SENDER = "a@home.test"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
CRL = "/ca.crl"
POLICY: Sequence[Mapping[str, Any]] = (
    {
        "name": "strict", "recipients": ["strict.test"], "seal": "must", "without_certificate": "refuse",
        "revocation": "strict",
    },
    {"name": "partners", "recipients": ["example.test"], "seal": "must", "without_certificate": "refuse"},
    {"name": "others", "seal": "may", "without_certificate": "clear"},
)  # fmt: skip


@dataclass
class Site:
    directory: Path
    web: WebServer
    sink: Sink
    daemon: Daemon
    postfix: PrivatePostfix
    ca: Authority
    leaves: dict[str, Leaf] = field(default_factory=dict)
    numbers: int = 0

    def add(self, mailbox: str, kind: str = "rsa2048", crl: str = CRL, **options: Any) -> Leaf:
        """A recipient with a certificate whose CRL is at ``crl`` of the web server; ``options`` as for ``issue``."""
        now = datetime.now(UTC).replace(microsecond=0)
        leaf = self.ca.issue(
            mailbox,
            kind=kind,
            slot=mailbox,
            crl_urls=[self.web.url(crl)],
            not_before=now - DAY,
            not_after=now + 90 * DAY,
            **options,
        )
        self.leaves[mailbox] = leaf
        (self.directory / f"{mailbox}.key").write_bytes(leaf.key_pem)
        (self.daemon.certificates / f"{mailbox}.pem").write_bytes(leaf.pem)
        return leaf

    def publish(self, *revoked: str, crl: str = CRL, fault: str = "") -> None:
        """A new CRL on the web server."""
        now = datetime.now(UTC).replace(microsecond=0)
        self.numbers += 1
        der = self.ca.crl(
            [self.leaves[mailbox] for mailbox in revoked], number=self.numbers,
            this_update=now - HOUR + timedelta(seconds=self.numbers), next_update=now + 7 * DAY, revoked_at=now - DAY,
        )  # fmt: skip
        self.web.put(crl, der, fault=fault)

    def command(self, *arguments: str) -> str:
        """A ``postseal`` command with this site's configuration."""
        done = run_postseal(*arguments, "--config", str(self.daemon.config_file))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def opened(self, delivery: Delivery) -> bytes:
        """The inner entity of a sealed delivery, by ``openssl cms`` with the key of its first recipient."""
        mailbox = delivery.recipients[0]
        certificate, key = self.daemon.certificates / f"{mailbox}.pem", self.directory / f"{mailbox}.key"
        done = subprocess.run(
            ["openssl", "cms", "-decrypt", "-binary", "-recip", str(certificate), "-inkey", str(key)],
            input=delivery.data, capture_output=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def service(self, name: str) -> int:
        """The process id of ``milter`` or ``lookup`` under ``postseal run``."""
        for pid in self.daemon.children():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if name.encode() in words:
                return pid
        raise AssertionError(f"no {name} among {self.daemon.children()}")

    def workers(self) -> list[int]:
        """The milter's worker processes."""
        pid = self.service("milter")
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def send_code(self, recipients: Sequence[str], message: bytes, **options: Any) -> int:
        """The code of the last answer: 250, or that of the refusal."""
        try:
            refused = self.postfix.send(SENDER, recipients, message, **options)
        except smtplib.SMTPRecipientsRefused as exc:
            return next(iter(exc.recipients.values()))[0]
        except smtplib.SMTPResponseException as exc:
            return exc.smtp_code
        return next(iter(refused.values()))[0] if refused else 250

    def plain_on_disk(self, canary: bytes) -> list[Path]:
        """Files of postseal that contain ``canary``: state, spool, log, sockets' directory."""
        places = [self.daemon.log_file, *self.daemon.state.rglob("*"), *self.daemon.run.rglob("*")]
        return [path for path in places if path.is_file() and canary in path.read_bytes()]


@contextmanager
def mail_site(
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    policy: Sequence[Mapping[str, Any]] = POLICY,
    *,
    state_size: str = "",
    **postfix: Any,
) -> Iterator[Site]:
    """Everything running; ``settings`` as for Daemon, ``postfix`` options of PrivatePostfix.

    ``state_size`` puts the state directory on a file system of its own of that size (a tmpfs; needs root).
    """
    now = datetime.now(UTC).replace(microsecond=0)
    ca = authority("Site Root", not_before=now - 400 * DAY, not_after=now + 400 * DAY)
    with ExitStack() as stack:
        directory = stack.enter_context(scratch())
        web, sink = stack.enter_context(WebServer()), stack.enter_context(Sink())
        run = directory / "ps" / "run"
        made = PrivatePostfix(directory / "pf", f"unix:{run}/milter.sock", sink.port, **postfix)
        tables: dict[str, dict[str, Any]] = {
            "milter": {
                "reinject": f"127.0.0.1:{made.reinject_port}",
                "memory_limit": "64 KiB",
                "drain_timeout": "10 s",
            },
            "lookup": {"ports": [web.port]},
        }
        for name, table in (settings or {}).items():
            tables.setdefault(name, {}).update(table)
        daemon = Daemon(directory / "ps", "run", settings=tables, policy=policy)
        os.chmod(directory / "ps", 0o755)
        os.chmod(run, 0o755)
        (daemon.anchors / "root.pem").write_bytes(ca.pem)
        if state_size:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={state_size}", "tmpfs", str(daemon.state)], check=True)
            stack.callback(subprocess.run, ["umount", str(daemon.state)], check=True)
        site = Site(directory, web, sink, daemon, made, ca)
        stack.enter_context(daemon)
        stack.enter_context(made)
        yield site
