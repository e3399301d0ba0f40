"""What the lookup use case needs from the outside, as protocols; only ``app.lookup`` needs these, so they stand here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol

from postseal.core.certs import Certificate
from postseal.core.crl import Crl
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, Question, RevokedBefore
from postseal.core.transfer import Transfer


class Http(Protocol):
    """``sources.fetch.Fetcher``."""

    def get(
        self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None
    ) -> Transfer: ...

    def get_to(
        self, url: str, sink: Callable[[bytes], object], *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer: ...  # fmt: skip

    def post(self, url: str, body: bytes, *, content_type: str, max_size: int, deadline: float) -> Transfer: ...


class UrlState(Protocol):
    @property
    def etag(self) -> str: ...
    @property
    def last_modified(self) -> str: ...
    @property
    def answered_at(self) -> datetime | None: ...
    @property
    def failures(self) -> int: ...
    @property
    def retry_at(self) -> datetime | None: ...
    @property
    def responder_hash(self) -> str: ...
    @property
    def responder_post(self) -> bool: ...
    @property
    def responder_nonce(self) -> bool: ...


class Entry(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def chain(self) -> tuple[Certificate, ...]: ...
    @property
    def certificate(self) -> Certificate | None: ...
    @property
    def url(self) -> str: ...
    @property
    def next_update(self) -> datetime | None: ...


class Mark(Protocol):
    """The highest CRL of a scope that was ever stored (CRL-25)."""

    @property
    def number(self) -> int | None: ...
    @property
    def this_update(self) -> datetime: ...
    @property
    def sha256(self) -> str: ...


class Incoming(Protocol):
    """A CRL that comes in pieces: a context. ``crl`` is what came, or a reason code and what is wrong with it."""

    def __enter__(self) -> Incoming: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def take(self, part: bytes) -> None: ...

    def crl(self, max_size: int) -> Crl | tuple[str, str]: ...


class Store(Protocol):
    """``sources.evidence.EvidenceStore`` opened for writing."""

    def incoming(self) -> Incoming: ...

    def evidence(self, question: Question) -> tuple[Evidence, ...]: ...

    def url_state(self, url: str, about: str = "") -> UrlState: ...

    def host_state(self, host: str) -> tuple[int, datetime | None]: ...

    def crl_of(self, chain: tuple[Certificate, ...], like: Crl) -> CrlEvidence | None: ...

    def mark_of(self, chain: tuple[Certificate, ...], like: Crl) -> Mark | None: ...

    def remember_revoked(self, question: Question, seen: RevokedBefore) -> None: ...

    def due(self, at: datetime, used_since: datetime) -> Sequence[Entry]: ...

    def store_crl(
        self, crl: Crl, chain: tuple[Certificate, ...], url: str, at: datetime, refresh_at: datetime | None, *,
        etag: str = "", last_modified: str = "",
    ) -> None: ...  # fmt: skip

    def store_ocsp(
        self, question: Question, chain: tuple[Certificate, ...], der: bytes, url: str, at: datetime,
        refresh_at: datetime, this_update: datetime | None, next_update: datetime | None, *, asked: bool = True,
    ) -> None: ...  # fmt: skip

    def prune(self, at: datetime) -> None: ...

    def still_current(self, url: str, at: datetime, refresh_at: datetime) -> None: ...

    def postpone(self, name: str, refresh_at: datetime) -> None: ...

    def record_failure(
        self, failure: NoAnswer, count: int, host: str, host_count: int, host_until: datetime, *, about: str = ""
    ) -> None: ...

    def record_success(self, url: str, host: str, *, about: str = "") -> None: ...

    def remember_responder(self, url: str, *, hash_name: str, post: bool, nonce: bool) -> None: ...
