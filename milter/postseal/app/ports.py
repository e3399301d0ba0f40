"""What the use cases need from the outside, as protocols; ``sources`` fulfils them, ``wiring`` joins the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol

from postseal.core.address import Mailbox
from postseal.core.assess import Candidate
from postseal.core.certs import Certificate
from postseal.core.ciphers import Remembered
from postseal.core.evidence import Evidence, Orphan, Question
from postseal.core.path import Anchor
from postseal.core.record import DecisionRecord


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC wall time."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines."""
        ...


class Directory(Protocol):
    def candidates(self, mailbox: Mailbox) -> tuple[Candidate, ...]:
        """All certificates that may be the mailbox's, unjudged. Raises Unavailable when the source can't be read."""
        ...


class CapabilityMemory(Protocol):
    def remembered(self, mailbox: Mailbox) -> Remembered | None:
        """What signed mail of the mailbox said that it can read (ALG-2). Raises Unavailable."""
        ...


class TrustStore(Protocol):
    def anchors(self) -> tuple[Anchor, ...]: ...

    def intermediates(self) -> tuple[Certificate, ...]: ...

    def generation(self) -> int:
        """Changes whenever anchors or intermediates change, so that caches can be dropped."""
        ...


class EvidenceReader(Protocol):
    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        """All stored evidence that may answer the question, NoAnswer entries included. Never touches the network.

        Raises Unavailable when the store can't be read.
        """
        ...

    def generation(self) -> int:
        """Changes whenever stored evidence changes (cheap: a few microseconds)."""
        ...

    def intermediates(self) -> tuple[Certificate, ...]:
        """CA certificates that were fetched because paths lacked them; the same tuple until they change."""
        ...

    def wants_issuer(self, certificate: Certificate, at: datetime) -> bool:
        """Does ``certificate`` say where its issuer's is, and may that be asked now?"""
        ...

    def newest(self) -> datetime | None:
        """CACHE-9: the newest thisUpdate of all CRLs that were ever accepted."""
        ...


class Lookup(Protocol):
    def ask(self, questions: Sequence[Question | Orphan], budget: float, message: str = "") -> Future[None]:
        """Have the lookup process fetch what these questions need; done when it is stored or ``budget`` seconds are over.

        Asks for one ``message`` share a budget of requests (THR-6); it is any name that no other message has.

        The future never raises: a dead lookup process is seen as evidence that is still missing.
        """
        ...

    def tell(self, questions: Sequence[Question]) -> None:
        """Let the lookup process know that these are in use (CACHE-2) and may be revoked (CRL-27). Returns at once."""
        ...


class DoubtMemory(Protocol):
    """Since when mail to a recipient waits because of a certificate's unknown status; shared by all workers, and lasting.

    All methods raise Unavailable.
    """

    def since(self, recipient: str, fingerprints: Sequence[str], at: datetime) -> tuple[tuple[str, datetime], ...]:
        """Those of the certificates that are in doubt, and since when. Doubt that wasn't noted for long is over."""
        ...

    def note(self, recipient: str, fingerprints: Sequence[str], at: datetime) -> None:
        """Mail waits because of these certificates, from now on or still."""
        ...

    def clear(self, recipient: str, fingerprints: Sequence[str]) -> None:
        """The status of these certificates is known again."""
        ...


class MailLog(Protocol):
    """The mail log; nothing here ever raises. ``fields`` reach the journal beside the line."""

    def info(self, text: str, fields: Mapping[str, str] | None = None) -> None: ...

    def warning(self, text: str, fields: Mapping[str, str] | None = None) -> None: ...

    def error(self, text: str, fields: Mapping[str, str] | None = None) -> None: ...


class DecisionWriter(Protocol):
    def add(self, records: Sequence[DecisionRecord]) -> None:
        """Store the records of one message together. Raises Unavailable."""
        ...

    def close(self) -> None:
        """Wait a moment until what was added is stored."""
        ...


class Reinjector(Protocol):
    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        message: Iterable[bytes],
        *,
        mail_options: Sequence[str] = (),
        rcpt_options: Mapping[str, Sequence[str]] | None = None,
    ) -> str:
        """Deliver one message by SMTP; returns the server's reply to DATA. All recipients are accepted or none.

        Raises Unavailable (try again) or BadData (the server refuses for good).
        """
        ...


class Spool(Protocol):
    """Ciphertext of one message. Never plaintext."""

    size: int

    def append(self, data: bytes) -> None:
        """Raises Unavailable when it can't be kept (full disk)."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...
