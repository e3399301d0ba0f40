"""What correspondents said in signed mail that they can read, in a table of the certificate store (ALG-2).

Only ``postseal cert learn`` writes it. The newest signing time counts (RFC 8551 §2.7.1); what was ever listed stays known,
so that less than that is noticed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
)

from postseal.core.capabilities import encode_capabilities, parse_capabilities, suites, transports
from postseal.core.ciphers import Remembered
from postseal.core.errors import BadData
from postseal.core.suite import Suite

_metadata = MetaData()
_words = Table(
    "capabilities", _metadata,
    Column("address", String, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("signed_at", Integer, nullable=False),
    Column("signer", String, nullable=False, index=True),
    Column("learnt_at", Integer, nullable=False),
    Column("best", String, nullable=False),
    Column("oaep", Integer, nullable=False),
)  # fmt: skip


def create(connection: Connection) -> None:
    """Make the table unless it is there: stores of earlier versions have none."""
    _metadata.create_all(connection)


def read(connection: Connection, address: str) -> Remembered | None:
    """The word of one address (folded); None without one, and in a store of an earlier version."""
    if not inspect(connection).has_table(_words.name):
        return None
    row = connection.execute(select(_words).where(_words.c.address == address)).one_or_none()
    return None if row is None else _remembered(row)


def read_all(connection: Connection) -> dict[str, Remembered]:
    """Every word that can be read, by address."""
    if not inspect(connection).has_table(_words.name):
        return {}
    found = ((row.address, _remembered(row)) for row in connection.execute(select(_words)))
    return {address: word for address, word in found if word is not None}


def write(connection: Connection, address: str, word: Remembered) -> bool:
    """Remember ``word`` unless a newer one is known; False then. What was ever listed is added up in either case."""
    old = read(connection, address)
    best, oaep = word.best | suites(word.capabilities), word.oaep or bool(transports(word.capabilities))
    if old is not None:
        best, oaep = best | old.best, oaep or old.oaep
    # RFC 8551 §2.7.1: by the time that the signer gives, and a message that is shown again changes nothing.
    news = old is None or word.signed_at > old.signed_at
    kept = replace(word if news or old is None else old, best=best, oaep=oaep)
    connection.execute(delete(_words).where(_words.c.address == address))
    connection.execute(
        insert(_words).values(
            address=address,
            der=encode_capabilities(kept.capabilities),
            signed_at=int(kept.signed_at.timestamp()),
            signer=kept.signer,
            learnt_at=int(kept.learnt_at.timestamp()),
            best=" ".join(sorted(kept.best)),
            oaep=int(kept.oaep),
        )
    )
    return news


def forget_signer(connection: Connection, fingerprint: str) -> None:
    """Forget all that rests on one certificate."""
    connection.execute(delete(_words).where(_words.c.signer == fingerprint))


def _remembered(row: Row[tuple[object, ...]]) -> Remembered | None:
    try:
        capabilities = parse_capabilities(row.der)
    except BadData:
        return None
    best = frozenset(suite for suite in Suite if suite.value in row.best.split())
    return Remembered(capabilities, _time(row.signed_at), row.signer, _time(row.learnt_at), best, bool(row.oaep))


def _time(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
