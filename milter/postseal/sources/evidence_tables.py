"""Tables of the evidence store, and how values become rows. Times are Unix seconds, keys are lower-case hex SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, overload

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    and_,
    delete,
    or_,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl import Crl
from postseal.core.evidence import NoAnswer, Question
from postseal.core.names import name_key

# Evidence of another layout isn't converted: it can be fetched again.
VERSION = 2
MAX_CRLS_PER_QUESTION = 32
UNUSED = timedelta(days=90)
metadata = MetaData()


def _of_issuer() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["issuer_key", "issuer_name"], ["issuer.issuer_key", "issuer.issuer_name"])


issuer = Table(
    "issuer", metadata,
    Column("issuer_key", String, primary_key=True),
    Column("issuer_name", String, primary_key=True),
    Column("chain", LargeBinary, nullable=False),
)  # fmt: skip
crl = Table(
    "crl", metadata,
    Column("issuer_key", String, primary_key=True),
    Column("issuer_name", String, primary_key=True),
    Column("idp", LargeBinary, primary_key=True),
    Column("delta", Integer, primary_key=True),
    _of_issuer(),
    Column("sha256", String, nullable=False, index=True),
    Column("size", Integer, nullable=False),
    Column("number", String),
    Column("entries", Integer, nullable=False),
    Column("this_update", Float),
    Column("next_update", Float),
    Column("url", String, nullable=False, index=True),
    Column("fetched_at", Float, nullable=False),
    Column("refresh_at", Float, index=True),
    Column("used_at", Float, nullable=False, index=True),
)  # fmt: skip
alias = Table(
    "alias", metadata,
    Column("url", String, primary_key=True),
    Column("issuer_key", String, primary_key=True),
    Column("issuer_name", String, primary_key=True),
    Column("idp", LargeBinary, primary_key=True),
)  # fmt: skip
ocsp = Table(
    "ocsp", metadata,
    Column("issuer_key", String, primary_key=True),
    Column("issuer_name", String, primary_key=True),
    Column("serial", LargeBinary, primary_key=True),
    _of_issuer(),
    Column("name", String, nullable=False, index=True),
    Column("der", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("this_update", Float),
    Column("next_update", Float),
    Column("url", String, nullable=False),
    Column("fetched_at", Float, nullable=False),
    Column("refresh_at", Float, index=True),
    Column("used_at", Float, nullable=False, index=True),
)  # fmt: skip
intermediate = Table(
    "intermediate", metadata,
    Column("fingerprint", String, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("url", String, nullable=False),
    Column("fetched_at", Float, nullable=False),
)  # fmt: skip
spent = Table(
    "spent", metadata,
    Column("day", Integer, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("octets", Integer, nullable=False),
)  # fmt: skip
clock = Table(
    "clock", metadata,
    Column("id", Integer, primary_key=True),
    Column("wall", Float, nullable=False),
    Column("monotonic", Float, nullable=False),
    Column("boot", String, nullable=False),
    Column("suspect", Integer, nullable=False),
)  # fmt: skip
url = Table(
    "url", metadata,
    Column("url", String, primary_key=True),
    Column("etag", String, nullable=False, server_default=""),
    Column("last_modified", String, nullable=False, server_default=""),
    Column("answered_at", Float),
    Column("responder_hash", String, nullable=False, server_default="sha256"),
    Column("responder_post", Integer, nullable=False, server_default="0"),
    Column("responder_nonce", Integer, nullable=False, server_default="1"),
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
    responder_post: bool = False
    responder_nonce: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of evidence as listed: ``kind`` is crl or ocsp, ``name`` is what ``show`` and ``forget`` take.

    ``chain`` is the path of the issuer, issuer first (of a CRL: of who signed it); ``certificate`` the subject of an OCSP
    answer. ``used_at`` is when it was last asked for.
    """

    kind: str
    name: str
    issuer: Certificate
    chain: tuple[Certificate, ...]
    certificate: Certificate | None
    delta: bool
    idp: bytes
    url: str
    urls: tuple[str, ...]
    size: int
    number: int | None
    entries: int
    this_update: datetime | None
    next_update: datetime | None
    fetched_at: datetime
    refresh_at: datetime | None
    used_at: datetime


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


def digest(*parts: str) -> str:
    """One name for several strings."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def name_hash(name: bytes) -> str:
    """The hash of a DER Name: equal for names that RFC 5280 §7.1 calls equal."""
    # The order in a frozenset differs from process to process.
    parts = [sorted(map(repr, p)) if isinstance(p, frozenset) else repr(p) for p in name_key(name)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def put_issuer(connection: Connection, chain: Sequence[Certificate], keys: Mapping[str, Any]) -> None:
    """Keep the path of an issuer, issuer first: to fetch again later means to validate again first (PRE-1)."""
    names = ("issuer_key", "issuer_name")
    values = {name: keys[name] for name in names}
    put(connection, issuer, names, {**values, "chain": b"".join(c.der for c in chain)})


def crl_keys(chain: Sequence[Certificate], content: Crl) -> dict[str, Any]:
    """CACHE-8: a CRL is filed under the key and the name that signed it, and its issuingDistributionPoint.

    The name too, because a CA that was renamed keeps its key. A delta stands beside its base (CRL-17).
    """
    return {
        "issuer_key": chain[0].key_id, "issuer_name": name_hash(content.issuer), "idp": content.idp or b"",
        "delta": int(content.delta_base is not None),
    }  # fmt: skip


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


def no_answer(row: Row[Any], alarming: bool = False) -> NoAnswer:
    """A row of ``failure``, of whichever kind."""
    address, _, about = row.url.partition(" ")
    detail = f"{row.detail} (certificate sha256:{about[:16]})" if about else row.detail
    return NoAnswer(address, row.why, detail, moment(row.at), moment(row.retry_at), alarming)


def ocsp_keys(question: Question) -> dict[str, Any]:
    """CACHE-8: an OCSP answer is filed under the issuer's key, the issuer's name, and the serial number."""
    serial = question.certificate.serial
    return {
        "issuer_key": question.issuer.key_id,
        "issuer_name": name_hash(question.issuer.subject),
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
    return {**_common(row), "kind": "crl", "name": row.sha256, "certificate": None, "delta": bool(row.delta), "idp": row.idp,
            "urls": tuple(sorted(urls)),
            "size": row.size, "number": number, "entries": row.entries}  # fmt: skip


def ocsp_entry(row: Row[Any]) -> dict[str, Any]:
    """A row of ``ocsp`` joined with its issuer as fields of an Entry."""
    certificate = load_certificate(row.certificate)
    return {**_common(row), "kind": "ocsp", "name": row.name, "certificate": certificate, "delta": False, "idp": b"",
            "urls": (row.url,),
            "size": len(row.der), "number": None, "entries": 1}  # fmt: skip


_TIMES = ("this_update", "next_update", "fetched_at", "refresh_at", "used_at")


def _common(row: Row[Any]) -> dict[str, Any]:
    chain = certificates(row.chain)
    times = {name: moment(getattr(row, name)) for name in _TIMES}
    return {"issuer": chain[0], "chain": chain, "url": row.url, **times}


def matches(table: Table, keys: Mapping[str, Any]) -> ColumnElement[bool]:
    """The rows with these values."""
    return and_(*(table.c[name] == value for name, value in keys.items()))


def rows_for(connection: Connection, question: Question) -> tuple[list[Row[Any]], list[Row[Any]], list[Row[Any]]]:
    """What may answer a question: rows of crl (the issuer's own, then complete ones, then new ones first), ocsp, failure."""
    lists = (*question.crl_urls, *question.delta_urls, *question.ldap_urls)
    own = [failure_key(address, question.certificate.fingerprint) for address in question.ocsp_urls]
    own += [failure_key(address, question.issuer.fingerprint) for address in lists]
    urls = (*lists, *question.ocsp_urls, *own)
    # CRL-2: signed with the issuer's key, or in the name of one who may sign CRLs for it; which of them may is judged later.
    names = {name_hash(name) for name in (question.issuer.subject, *question.crl_issuers)}
    same = [alias.c[k] == crl.c[k] for k in ("issuer_key", "issuer_name", "idp")]
    served = select(alias.c.url).where(*same, alias.c.url.in_(lists)).exists()
    # CACHE-8: of a partitioned CRL only the parts that the certificate's URLs lead to, and what was imported.
    crls = (
        select(crl, issuer.c.chain)
        .join_from(crl, issuer)
        .where(or_(crl.c.issuer_key == question.issuer.key_id, crl.c.issuer_name.in_(names)))
        .where(or_(crl.c.idp == b"", served, crl.c.url.startswith("file:")))
        .order_by(crl.c.issuer_key != question.issuer.key_id, crl.c.delta, crl.c.this_update.desc())
        .limit(MAX_CRLS_PER_QUESTION)
    )
    answers = select(ocsp).where(matches(ocsp, ocsp_keys(question)))
    failures = select(failure).where(failure.c.url.in_(urls))
    return list(connection.execute(crls)), list(connection.execute(answers)), list(connection.execute(failures))


def due(connection: Connection, at: datetime, used_since: datetime, most: int) -> list[Entry]:
    """CACHE-2: evidence whose time to be fetched again has come, the most urgent first, and whose URL isn't left alone."""
    now = at.timestamp()
    blocked = set(connection.scalars(select(failure.c.url).where(failure.c.retry_at > now)).all())
    # What nobody asks about for a season isn't kept fresh; it ends, and goes.
    crls = select(crl, issuer.c.chain).join_from(crl, issuer)
    crls = crls.where(crl.c.refresh_at <= now, crl.c.used_at >= (at - UNUSED).timestamp())
    answers = select(ocsp, issuer.c.chain).join_from(ocsp, issuer)
    answers = answers.where(ocsp.c.refresh_at <= now, ocsp.c.used_at >= used_since.timestamp())
    found: list[Entry] = []
    for statement, convert in ((crls, lambda row: crl_entry(row, ())), (answers, ocsp_entry)):
        for row in connection.execute(statement.order_by(statement.selected_columns.refresh_at)):
            if len(found) >= most:
                break
            if row.url in blocked:
                continue
            entry = Entry(**convert(row))
            if failure_key(entry.url, (entry.certificate or entry.issuer).fingerprint) not in blocked:
                found.append(entry)
    return found
