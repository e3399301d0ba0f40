"""What is known about URLs and hosts apart from what they gave: validators, failures in a row, when to ask again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, delete, select

from postseal.core.evidence import NoAnswer
from postseal.sources import evidence_tables as t
from postseal.sources.evidence_db import Database

# CACHE-10: negative entries are bounded too.
_REFUSALS = ("rev.blocked-by-guard", "rev.too-large")
_MAX_FAILURES = 10_000


class UrlMemory:
    """Part of the evidence store. Methods raise Unavailable when the database can't be used."""

    _db: Database

    def url_state(self, url: str, about: str = "") -> t.UrlState:
        """What is known about ``url``, or with a fingerprint its failures ``about`` that certificate; defaults if nothing."""
        key = t.failure_key(url, about)
        with self._db.reading() as connection:
            row = connection.execute(select(t.url).where(t.url.c.url == url)).first()
            failure = connection.execute(select(t.failure).where(t.failure.c.url == key)).first()
        state = t.UrlState()
        if row is not None:
            state = t.UrlState(
                row.etag, row.last_modified, t.moment(row.answered_at), responder_hash=row.responder_hash,
                responder_post=bool(row.responder_post), responder_nonce=bool(row.responder_nonce),
            )  # fmt: skip
        if failure is not None:
            state = replace(state, failures=failure.tries, retry_at=t.moment(failure.retry_at))
        return state

    def host_state(self, host: str) -> tuple[int, datetime | None]:
        """Failures in a row of ``host``, and until when it is left alone."""
        with self._db.reading() as connection:
            row = connection.execute(select(t.host).where(t.host.c.host == host)).first()
        return (row.tries, t.moment(row.retry_at)) if row is not None else (0, None)

    def failures(self) -> tuple[NoAnswer, ...]:
        """All URLs that are being left alone after failures."""
        with self._db.reading() as connection:
            rows = list(connection.execute(select(t.failure).order_by(t.failure.c.url)))
        return tuple(map(t.no_answer, rows))

    def hosts(self) -> tuple[tuple[str, int, datetime], ...]:
        """Hosts with failures in a row: name, how many, until when."""
        with self._db.reading() as connection:
            rows = list(connection.execute(select(t.host).order_by(t.host.c.host)))
        return tuple((r.host, r.tries, t.moment(r.retry_at)) for r in rows)

    def record_failure(
        self, failure: NoAnswer, count: int, host: str, host_count: int, host_until: datetime, *, about: str = ""
    ) -> None:
        """CACHE-3: ``count`` failures in a row of a URL, or of its answers ``about`` the certificate of that fingerprint.

        ``host_count`` 0 leaves the host's record as it is.
        """

        def write(connection: Connection) -> None:
            t.put(connection, t.failure, ("url",), {
                "url": t.failure_key(failure.url, about), "why": failure.why, "detail": failure.detail,
                "at": t.stamp(failure.at), "tries": count, "retry_at": t.stamp(failure.retry_at or failure.at),
            })  # fmt: skip
            if host_count:
                t.put(
                    connection, t.host, ("host",), {"host": host, "tries": host_count, "retry_at": t.stamp(host_until)}
                )
            for table, column in ((t.failure, t.failure.c.at), (t.host, t.host.c.retry_at)):
                (key,) = table.primary_key
                newest = select(key).order_by(column.desc()).limit(_MAX_FAILURES)
                connection.execute(delete(table).where(key.not_in(newest)))

        self._db.write(write)

    def record_success(self, url: str, host: str, *, about: str = "") -> None:
        """The URL and its host work again."""
        gone = (t.failure.c.url.in_((url, t.failure_key(url, about))), t.host.c.host == host)
        with self._db.reading() as connection:
            known = [connection.execute(select(c.left.table).where(c)).first() for c in gone]
        if any(row is not None for row in known):
            self._db.write(lambda connection: [connection.execute(delete(c.left.table).where(c)) for c in gone])

    def forget_refusals(self) -> None:
        """Forget what the configuration forbade: it may allow it now."""
        self._db.write(lambda c: c.execute(delete(t.failure).where(t.failure.c.why.in_(_REFUSALS))))

    def remember_responder(self, url: str, *, hash_name: str, post: bool, nonce: bool) -> None:
        """OCSP-1, OCSP-13, OCSP-14: what this responder understands: the hash of the CertID, and whether GET and a nonce."""
        values = {"url": url, "responder_hash": hash_name, "responder_post": int(post), "responder_nonce": int(nonce)}
        self._db.write(lambda connection: t.put(connection, t.url, ("url",), values), silent=True)


def forget_urls(connection: Connection, wanted: Iterable[str]) -> int:
    """Drop failures by URL, those about one certificate too, and what is known about hosts; how many failures went."""
    count = 0
    for url in wanted:
        mine = (t.failure.c.url == url) | t.failure.c.url.startswith(f"{url} ", autoescape=True)
        count += connection.execute(delete(t.failure).where(mine)).rowcount
    urls = select(t.crl.c.url).union(select(t.ocsp.c.url))
    connection.execute(t.url.update().where(t.url.c.url.not_in(urls)).values(**t.UNANSWERED))
    connection.execute(delete(t.host))
    return count
