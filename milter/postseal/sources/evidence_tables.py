"""Tables of the evidence store, and how values become rows. Times are Unix seconds, keys are lower-case hex SHA-256."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    delete,
    or_,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from postseal.core.certs import Certificate, load_certificate
from postseal.core.evidence import NoAnswer, Question
from postseal.sources.store import create_private

VERSION = 1
MAX_CRLS_PER_QUESTION = 16
metadata = MetaData()

issuer = Table(
    "issuer", metadata,
    Column("issuer_key", String, primary_key=True),
    Column("chain", LargeBinary, nullable=False),
)  # fmt: skip
crl = Table(
    "crl", metadata,
    Column("issuer_key", String, ForeignKey("issuer.issuer_key"), primary_key=True),
    Column("idp", LargeBinary, primary_key=True),
    Column("sha256", String, nullable=False, index=True),
    Column("size", Integer, nullable=False),
    Column("number", String),
    Column("entries", Integer, nullable=False),
    Column("this_update", Float),
    Column("next_update", Float),
    Column("url", String, nullable=False, index=True),
    Column("fetched_at", Float, nullable=False),
    Column("refresh_at", Float, index=True),
)  # fmt: skip
alias = Table(
    "alias", metadata,
    Column("url", String, primary_key=True),
    Column("issuer_key", String, primary_key=True),
    Column("idp", LargeBinary, primary_key=True),
)  # fmt: skip
ocsp = Table(
    "ocsp", metadata,
    Column("issuer_key", String, ForeignKey("issuer.issuer_key"), primary_key=True),
    Column("issuer_name", String, primary_key=True),
    Column("serial", LargeBinary, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("der", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("this_update", Float),
    Column("next_update", Float),
    Column("url", String, nullable=False),
    Column("fetched_at", Float, nullable=False),
    Column("refresh_at", Float, index=True),
    Column("used_at", Float, nullable=False),
)  # fmt: skip
url = Table(
    "url", metadata,
    Column("url", String, primary_key=True),
    Column("etag", String, nullable=False, server_default=""),
    Column("last_modified", String, nullable=False, server_default=""),
    Column("answered_at", Float),
    Column("responder_hash", String, nullable=False, server_default="sha256"),
)  # fmt: skip
failure = Table(
    "failure", metadata,
    Column("url", String, primary_key=True),
    Column("why", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("tries", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
)  # fmt: skip
host = Table(
    "host", metadata,
    Column("host", String, primary_key=True),
    Column("tries", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
)  # fmt: skip

# The state of a URL whose evidence is gone: a conditional request would leave us without any.
UNANSWERED = {"etag": "", "last_modified": "", "answered_at": None}


def is_name(text: str) -> bool:
    """Could ``text`` name a piece of evidence (64 lower-case hex digits)? It becomes part of a file name."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class UrlState:
    """What is known about a URL: validators for a conditional request, when it last answered, and its failures in a row."""

    etag: str = ""
    last_modified: str = ""
    answered_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None
    responder_hash: str = "sha256"


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of evidence as listed: ``kind`` is crl or ocsp, ``name`` is what ``show`` and ``forget`` take.

    ``chain`` is the path of the issuer, issuer first; ``certificate`` the subject of an OCSP answer.
    """

    kind: str
    name: str
    issuer: Certificate
    chain: tuple[Certificate, ...]
    certificate: Certificate | None
    url: str
    urls: tuple[str, ...]
    size: int
    number: int | None
    entries: int
    this_update: datetime | None
    next_update: datetime | None
    fetched_at: datetime
    refresh_at: datetime | None


@overload
def moment(seconds: float) -> datetime: ...
@overload
def moment(seconds: None) -> None: ...
def moment(seconds: float | None) -> datetime | None:
    """Unix seconds as an aware UTC datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@overload
def stamp(at: datetime) -> float: ...
@overload
def stamp(at: None) -> None: ...
def stamp(at: datetime | None) -> float | None:
    """The inverse of ``moment``."""
    return None if at is None else at.timestamp()


def put(connection: Connection, table: Table, keys: Sequence[str], values: Mapping[str, Any]) -> None:
    """Insert a row, or update the columns given of the row that has the same key."""
    statement = insert(table).values(**values)
    changed = {k: v for k, v in values.items() if k not in keys}
    if changed:
        connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=changed))
    else:
        connection.execute(statement.on_conflict_do_nothing(index_elements=list(keys)))


def put_issuer(connection: Connection, chain: Sequence[Certificate]) -> None:
    """Keep the path of an issuer, issuer first: to fetch again later means to validate again first (PRE-1)."""
    blob = b"".join(c.der for c in chain)
    put(connection, issuer, ("issuer_key",), {"issuer_key": chain[0].key_id, "chain": blob})


def answered(connection: Connection, address: str, at: datetime, etag: str, last_modified: str) -> None:
    """A URL gave evidence: note its validators, and forget its failures."""
    values = {"url": address, "etag": etag, "last_modified": last_modified, "answered_at": stamp(at)}
    put(connection, url, ("url",), values)
    connection.execute(delete(failure).where(failure.c.url == address))


def failure_key(address: str, about: str) -> str:
    """The key of a failure. What a responder says about one certificate doesn't stand against the others it serves, nor what
    is wrong with a CRL as that of one issuer against other issuers behind the same URL.

    ``about`` is a fingerprint or empty. A URL has no space in it.
    """
    return f"{address} {about}" if about else address


def no_answer(row: Row[Any]) -> NoAnswer:
    """A row of ``failure``, of whichever kind."""
    address, _, about = row.url.partition(" ")
    detail = f"{row.detail} (certificate sha256:{about[:16]})" if about else row.detail
    return NoAnswer(address, row.why, detail, moment(row.at), moment(row.retry_at))


def ocsp_keys(question: Question) -> dict[str, Any]:
    """CACHE-8: an OCSP answer is filed under the issuer's key, the issuer's name, and the serial number."""
    serial = question.certificate.serial
    return {
        "issuer_key": question.issuer.key_id,
        "issuer_name": hashlib.sha256(question.issuer.subject).hexdigest(),
        # CRL-16: serial numbers don't fit SQLite's integers.
        "serial": serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True),
    }


def ocsp_name(keys: Mapping[str, Any]) -> str:
    """The name of an OCSP answer, stable over refreshes: 64 hex digits like that of a CRL."""
    parts = f"{keys['issuer_key']}{keys['issuer_name']}".encode() + keys["serial"]
    return hashlib.sha256(parts).hexdigest()


def certificates(chain: bytes) -> tuple[Certificate, ...]:
    """Concatenated DER certificates."""
    found = []
    while chain:
        # All certificates are longer than 127 octets, so the length is in the long form (X.690 §8.1.3.5).
        count = chain[1] & 0x7F
        size = 2 + count + int.from_bytes(chain[2 : 2 + count], "big")
        found.append(load_certificate(chain[:size]))
        chain = chain[size:]
    return tuple(found)


def crl_entry(row: Row[Any], urls: Sequence[str]) -> dict[str, Any]:
    """A row of ``crl`` joined with its issuer as fields of an Entry."""
    number = None if row.number is None else int(row.number)
    return {**_common(row), "kind": "crl", "name": row.sha256, "certificate": None, "urls": tuple(sorted(urls)),
            "size": row.size, "number": number, "entries": row.entries}  # fmt: skip


def ocsp_entry(row: Row[Any]) -> dict[str, Any]:
    """A row of ``ocsp`` joined with its issuer as fields of an Entry."""
    certificate = load_certificate(row.certificate)
    return {**_common(row), "kind": "ocsp", "name": row.name, "certificate": certificate, "urls": (row.url,),
            "size": len(row.der), "number": None, "entries": 1}  # fmt: skip


def _common(row: Row[Any]) -> dict[str, Any]:
    chain = certificates(row.chain)
    times = {name: moment(getattr(row, name)) for name in ("this_update", "next_update", "fetched_at", "refresh_at")}
    return {"issuer": chain[0], "chain": chain, "url": row.url, **times}


def scope(authority: Certificate, idp: bytes | None) -> ColumnElement[bool]:
    """CACHE-8: the row of a CRL is that of the key which signed it, and of its issuingDistributionPoint."""
    return (crl.c.issuer_key == authority.key_id) & (crl.c.idp == (idp or b""))


def rows_for(connection: Connection, question: Question) -> tuple[list[Row[Any]], list[Row[Any]], list[Row[Any]]]:
    """What may answer a question: rows of crl (newest first), ocsp and failure."""
    own = [failure_key(address, question.certificate.fingerprint) for address in question.ocsp_urls]
    own += [failure_key(address, question.issuer.fingerprint) for address in question.crl_urls]
    urls = (*question.crl_urls, *question.ocsp_urls, *own)
    mine = select(alias.c.idp).where(alias.c.issuer_key == question.issuer.key_id, alias.c.url.in_(question.crl_urls))
    # CACHE-8: of a partitioned CRL only the parts that the certificate's URLs lead to, and what was imported.
    crls = (
        select(crl)
        .where(crl.c.issuer_key == question.issuer.key_id)
        .where(or_(crl.c.idp == b"", crl.c.idp.in_(mine), crl.c.url.startswith("file:")))
        .order_by(crl.c.this_update.desc())
        .limit(MAX_CRLS_PER_QUESTION)
    )
    answers = select(ocsp).where(*(ocsp.c[k] == v for k, v in ocsp_keys(question).items()))
    failures = select(failure).where(failure.c.url.in_(urls))
    return list(connection.execute(crls)), list(connection.execute(answers)), list(connection.execute(failures))


class Counter:
    """A number in a file that all processes map: raised by writers after each commit, read without a system call."""

    def __init__(self, path: Path, readonly: bool) -> None:
        self._path = path
        self._readonly = readonly
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._identity: tuple[int, int] = (0, 0)

    def value(self) -> int:
        """The number; 0 while there is no file."""
        try:
            status = os.stat(self._path)
        except OSError:
            return 0
        if self._map is None or (status.st_dev, status.st_ino) != self._identity:
            with self._lock:
                self._open()
        return struct.unpack_from("=Q", self._map)[0] if self._map is not None else 0

    def _open(self) -> None:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._map = None
            return
        try:
            status = os.fstat(handle)
            self._map = mmap.mmap(handle, 8, prot=mmap.PROT_READ) if status.st_size >= 8 else None
            self._identity = (status.st_dev, status.st_ino)
        finally:
            os.close(handle)

    def bump(self) -> None:
        """Raise the number. Raises OSError."""
        create_private(self._path)
        handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Several processes may write (lookup and the command line).
            fcntl.flock(handle, fcntl.LOCK_EX)
            old = os.pread(handle, 8, 0)
            number = struct.unpack("=Q", old)[0] if len(old) == 8 else 0
            os.pwrite(handle, struct.pack("=Q", number + 1), 0)
        finally:
            os.close(handle)
