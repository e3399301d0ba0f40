"""Everything a ``MessageJob`` needs, held in memory: certificates, trust, evidence, log, decisions and a mail listener.

world = World()
world.add("b@example.test")
job = world.job("<a@home.test>")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from postseal.app.assess import Assessor
from postseal.app.journal import Journal
from postseal.app.outbound import Boundary, Client
from postseal.app.ports import DoubtMemory
from postseal.app.seal import Edits, MessageJob, Outcome, Reply, Sealing, SealSettings, Workload
from postseal.config import Config
from postseal.core.address import Mailbox
from postseal.core.assess import Candidate, Origin
from postseal.core.certs import Certificate
from postseal.core.ciphers import Remembered
from postseal.core.cms.opening import open_enveloped
from postseal.core.crl import parse_crl
from postseal.core.errors import Unavailable
from postseal.core.evidence import CrlEvidence, Evidence, Orphan, Question
from postseal.core.message import Field
from postseal.core.path import Anchor, PathSettings
from postseal.core.record import DecisionRecord
from postseal.core.revocation import RevocationSettings
from postseal.sources.clock import SystemClock
from postseal.sources.spool import Spool
from support.pki import NOW, Leaf, authority

CRL_URL = "http://ca.example.test/root.crl"
INSIDE = Client("client.test", "127.0.0.1", 4321)
SENDER = "<a@home.test>"


class Clock:
    """The moment at which the test certificates are valid, and ``later`` than that; deadlines are real."""

    def __init__(self) -> None:
        self.later = timedelta(0)

    def now(self) -> datetime:
        return NOW + self.later

    def monotonic(self) -> float:
        return SystemClock().monotonic()


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.lines.append(f"info: {text}")

    def warning(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.lines.append(f"warning: {text}")

    def error(self, text: str, fields: Mapping[str, str] | None = None) -> None:
        self.lines.append(f"error: {text}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Records:
    def __init__(self) -> None:
        self.kept: list[DecisionRecord] = []

    def add(self, records: Sequence[DecisionRecord]) -> None:
        self.kept += records

    def close(self) -> None:
        return


@dataclass
class Listener:
    """The second listener; ``failure`` is raised for the ``fail_at``-th copy."""

    failure: Exception | None = None
    fail_at: int = 1
    sent: list[tuple[str, tuple[str, ...], bytes, tuple[str, ...], Mapping[str, Sequence[str]]]] = field(
        default_factory=list
    )

    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        message: Iterable[bytes],
        *,
        mail_options: Sequence[str] = (),
        rcpt_options: Mapping[str, Sequence[str]] | None = None,
    ) -> str:
        if self.failure is not None and len(self.sent) + 1 == self.fail_at:
            raise self.failure
        self.sent.append((sender, tuple(recipients), b"".join(message), tuple(mail_options), rcpt_options or {}))
        return "250 2.0.0 Ok"


class World:
    """Fulfils Directory, EvidenceReader and Lookup; ``trust`` the trust store."""

    def __init__(self, tmp: Path | None = None, **options: Any) -> None:
        """``options``: policy (rules as TOML would say them) and fields of SealSettings."""
        self.root = authority("Root")
        self.leaves: dict[str, Leaf] = {}
        self.known: dict[str, list[Certificate]] = {}
        self.stored: tuple[Evidence, ...] = ()
        self.changes = 0
        self.broken = ""
        self.on_ask: Callable[[Future[None]], None] = lambda future: future.set_result(None)
        self.asked: list[tuple[tuple[Question, ...], float]] = []
        self.log, self.records, self.listener = Log(), Records(), Listener()
        self.tmp = tmp
        self.memory = 1 << 20
        policy = options.pop("policy", [{"name": "all", "seal": "may", "without_certificate": "refuse"}])
        rules = Config.default(policy=policy).rules
        boundary = Boundary(frozenset({"home.test"}), (ip_network("127.0.0.0/8"), ip_network("::1/128")))
        self.settings = SealSettings(rules, boundary, **{"budget": 0.3, **options})
        self.workload = Workload(self.settings.max_messages)
        self.reinject = True
        self.clock = Clock()
        self.doubts: DoubtMemory | None = None
        self.words: dict[str, Remembered] = {}

    def add(self, mailbox: str, kind: str = "rsa2048", **options: Any) -> Leaf:
        """A certificate for the mailbox, with a CRL URL."""
        leaf = self.root.issue(mailbox, kind=kind, slot=mailbox, crl_urls=[CRL_URL], **options)
        self.leaves[mailbox] = leaf
        self.known.setdefault(mailbox, []).append(leaf.certificate)
        return leaf

    def publish(self, *revoked: str) -> None:
        """A fresh CRL arrives in the evidence store."""
        der = self.root.crl([self.leaves[mailbox] for mailbox in revoked])
        self.stored = (CrlEvidence(parse_crl(der), CRL_URL, NOW),)
        self.changes += 1

    # Directory, EvidenceReader, Lookup
    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        if self.broken:
            raise Unavailable(self.broken)
        return tuple(Candidate(c, Origin.FOLDER, "memory") for c in self.known.get(str(mailbox), []))

    def remembered(self, mailbox: Mailbox) -> Remembered | None:
        return self.words.get(str(mailbox))

    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        return self.stored

    def generation(self) -> int:
        return self.changes

    def intermediates(self) -> tuple[Certificate, ...]:
        return ()

    def wants_issuer(self, certificate: Certificate, at: datetime) -> bool:
        return False

    def newest(self) -> datetime | None:
        return None

    def tell(self, questions: Sequence[Question]) -> None: ...

    def ask(self, questions: Sequence[Question | Orphan], budget: float, message: str = "") -> Future[None]:
        self.asked.append((tuple(questions), budget))
        future: Future[None] = Future()
        self.on_ask(future)
        return future

    def sealing(self) -> Sealing:
        return Sealing(
            settings=self.settings,
            assessor=Assessor(self, _Trust(self), self, self, PathSettings(), RevocationSettings(), memory=self),
            journal=Journal(self.log, self.records, self.clock),
            log=self.log,
            clock=self.clock,
            new_spool=lambda: Spool(self.memory, self.tmp or Path("/nonexistent")),
            reinjector=self.listener if self.reinject else None,
            workload=self.workload,
            doubts=self.doubts,
        )

    def job(self, sender: str = SENDER, client: Client = INSIDE, options: Sequence[str] = ()) -> MessageJob:
        return self.sealing().begin(sender, client, options)

    def send(
        self,
        recipients: Sequence[str],
        message: bytes,
        *,
        sender: str = SENDER,
        client: Client = INSIDE,
        options: Sequence[str] = (),
        chunk: int = 65535,
    ) -> tuple[Outcome, dict[str, Reply]]:
        """A whole message: its outcome, and the replies to refused recipients."""
        job = self.job(sender, client, options)
        refused = {r: reply for r in recipients if (reply := job.recipient(r)) is not None}
        job.queue_id = "4XyZ"
        head, _, body = message.partition(b"\r\n\r\n")
        for line in head.replace(b"\r\n\t", b"\n\t").replace(b"\r\n ", b"\n ").split(b"\r\n"):
            name, _, value = line.partition(b":")
            job.header(name, value)
        outcome = job.end_of_headers()
        if outcome is None:
            for start in range(0, len(body), chunk):
                job.body(body[start : start + chunk])
            outcome = job.finish(lambda: None)
        if isinstance(outcome, Edits):
            # Before the job's keys and ciphertext are gone, as the milter does.
            outcome = Edits(outcome.header, outcome.delete_recipients, iter(list(outcome.blocks)))
        job.sent()
        job.close()
        return outcome, refused

    def open(self, mailbox: str, body: bytes) -> bytes:
        """The inner entity of a sealed body, opened with the mailbox's key."""
        from base64 import b64decode

        leaf = self.leaves[mailbox]
        return open_enveloped(b64decode(body), leaf.key, leaf.certificate)


class _Trust:
    def __init__(self, world: World) -> None:
        self._world = world

    def anchors(self) -> tuple[Anchor, ...]:
        return (Anchor(self._world.root.certificate),)

    def intermediates(self) -> tuple[Certificate, ...]:
        return ()

    def generation(self) -> int:
        return 0


def edited(message: bytes, edits: Edits) -> bytes:
    """What the MTA makes of a message: the header after the edits, and the new body."""
    head = message.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b"\n\t").replace(b"\r\n ", b"\n ")
    fields = [Field(*line.split(b":", 1)) for line in head.split(b"\r\n")]
    for edit in edits.header:
        name, value = edit.name.encode(), edit.value.encode()
        if edit.kind == "add":
            fields.append(Field(name, value))
            continue
        place = [n for n, f in enumerate(fields) if f.name.lower() == name.lower()][edit.index - 1]
        if edit.kind == "delete":
            del fields[place]
        else:
            fields[place] = Field(name, value)
    return b"".join(f.line for f in fields).replace(b"\n\t", b"\r\n\t") + b"\r\n" + b"".join(edits.blocks)
