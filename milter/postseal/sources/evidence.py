"""The evidence store: CRLs, OCSP answers, and what is known about URLs that gave none. Shared by all processes of a node.

Rows are in ``evidence.sqlite``; the bytes of a CRL are in ``crl/<sha256>.crl``, written to a temporary file, synced and renamed
before the row that names it is committed, so that a crash at any point leaves the old evidence or the new (CACHE-7). A CRL is
filed under the key that signed it and the bytes of its issuingDistributionPoint, never under a URL or a name alone; URLs are
aliases (CACHE-8). Failures are rows of their own and never touch evidence (CACHE-4).

``postseal lookup`` is the one steady writer; ``postseal evidence`` writes now and then. The milter reads under its own uid:
directories 0750, files 0640, group shared (see ``sources.store`` for how that works with a log that it can't write). The file
``generation`` holds a counter that every commit raises; readers map it, so to see that nothing changed costs a microsecond.
Reading verifies each CRL against its name; a damaged file counts as absent. A damaged database makes readers say Unavailable;
the writer moves it aside and starts anew, because all evidence can be fetched again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cachetools import LRUCache
from sqlalchemy import Connection, Row, delete, select, text
from sqlalchemy.exc import SQLAlchemyError

from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl import Crl, parse_crl
from postseal.core.errors import BadData, Unavailable
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question
from postseal.core.ocsp import revokes_for_good
from postseal.sources import evidence_tables as t
from postseal.sources.store import adopt, cause, create_directory, create_private, is_damage, open_engine

_CRL_CACHE_BYTES = 256 * 1024 * 1024
# CACHE-10: negative entries are bounded too.
_REFUSALS = ("rev.blocked-by-guard", "rev.too-large")
_MAX_FAILURES = 10_000
R = TypeVar("R")


class EvidenceStore:
    """Reads (and unless ``readonly``, writes) the store in ``directory``. Safe for threads; made anew or lazily after a fork.

    ``report`` hears one sentence about damage that was found. All methods raise Unavailable when the store can't be used.
    """

    def __init__(self, directory: Path, *, readonly: bool, report: Callable[[str], None] = lambda text: None) -> None:
        self._directory = Path(directory)
        self._file = self._directory / "evidence.sqlite"
        self._crls = self._directory / "crl"
        self._readonly = readonly
        self._report = report
        self._engine = open_engine(self._file, readonly)
        self._counter = t.Counter(self._directory / "generation", readonly)
        self._lock = threading.Lock()
        self._parsed: LRUCache[str, Crl] = LRUCache(_CRL_CACHE_BYTES, getsizeof=lambda crl: len(crl.der) + 1000)
        self._answers: LRUCache[tuple[object, ...], tuple[int, tuple[Evidence, ...]]] = LRUCache(20_000)
        if not readonly:
            self._prepare()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        """All that may answer ``question``: CRLs of the issuer's key, OCSP answers, and failures of the question's URLs."""
        key = (question.certificate.fingerprint, question.issuer.key_id, question.crl_urls, question.ocsp_urls)
        for last in (False, False, True):
            generation = self.generation()
            with self._lock:
                kept = self._answers.get(key)
            if kept is not None and kept[0] == generation != 0:
                return kept[1]
            with self._reading() as connection:
                rows = t.rows_for(connection, question)
            found = self._found(*rows)
            # A CRL that was replaced between reading its row and its file isn't damaged: look again.
            if last or self.generation() == generation or not any(isinstance(e, str) for e in found):
                break
        answer = tuple(
            self._damaged(row, e) if isinstance(e, str) else e for row, e in zip(rows[0], found, strict=False)
        )
        answer += tuple(e for e in found[len(rows[0]) :] if not isinstance(e, str))
        with self._lock:
            self._answers[key] = (generation, answer)
        return answer

    def _found(self, crls: list[Row[Any]], answers: list[Row[Any]], failures: list[Row[Any]]) -> list[Evidence | str]:
        """Rows as evidence, in order; in place of a CRL that can't be read, the cause."""
        found: list[Evidence | str] = []
        for row in crls:
            crl = self._read(row.sha256)
            found.append(crl if isinstance(crl, str) else CrlEvidence(crl, row.url, t.moment(row.fetched_at)))
        found += [OcspEvidence(row.der, row.url, t.moment(row.fetched_at)) for row in answers]
        found += map(t.no_answer, failures)
        return found

    def _damaged(self, row: Row[Any], why: str) -> NoAnswer:
        self._report(f"stored CRL {self._path(row.sha256)}: {why}; it counts as absent")
        self._drop(row.sha256)
        return NoAnswer(row.url, "rev.malformed", "the stored CRL is damaged", t.moment(row.fetched_at))

    def exists(self) -> bool:
        """Is there a store at all yet?"""
        return self._file.exists()

    def generation(self) -> int:
        """Changes with every commit; 0 while there is no store."""
        return self._counter.value()

    def url_state(self, url: str, about: str = "") -> t.UrlState:
        """What is known about ``url``, or with a fingerprint its failures ``about`` that certificate; defaults if nothing."""
        key = t.failure_key(url, about)
        with self._reading() as connection:
            row = connection.execute(select(t.url).where(t.url.c.url == url)).first()
            failure = connection.execute(select(t.failure).where(t.failure.c.url == key)).first()
        state = t.UrlState()
        if row is not None:
            state = t.UrlState(
                row.etag, row.last_modified, t.moment(row.answered_at), responder_hash=row.responder_hash
            )
        if failure is not None:
            state = replace(state, failures=failure.tries, retry_at=t.moment(failure.retry_at))
        return state

    def host_state(self, host: str) -> tuple[int, datetime | None]:
        """Failures in a row of ``host``, and until when it is left alone."""
        with self._reading() as connection:
            row = connection.execute(select(t.host).where(t.host.c.host == host)).first()
        return (row.tries, t.moment(row.retry_at)) if row is not None else (0, None)

    def entries(self) -> tuple[t.Entry, ...]:
        """All evidence, CRLs first, ordered by issuer."""
        with self._reading() as connection:
            rows = list(connection.execute(select(t.crl, t.issuer.c.chain).join_from(t.crl, t.issuer)))
            answers = list(connection.execute(select(t.ocsp, t.issuer.c.chain).join_from(t.ocsp, t.issuer)))
            aliases: dict[tuple[str, bytes], list[str]] = {}
            for row in connection.execute(select(t.alias)):
                aliases.setdefault((row.issuer_key, row.idp), []).append(row.url)
        found = [t.crl_entry(row, aliases.get((row.issuer_key, row.idp), [])) for row in rows]
        found += [t.ocsp_entry(row) for row in answers]
        return tuple(
            t.Entry(**values) for values in sorted(found, key=lambda v: (v["kind"], v["issuer"].name, v["name"]))
        )

    def failures(self) -> tuple[NoAnswer, ...]:
        """All URLs that are being left alone after failures."""
        with self._reading() as connection:
            rows = list(connection.execute(select(t.failure).order_by(t.failure.c.url)))
        return tuple(map(t.no_answer, rows))

    def due(self, at: datetime, used_since: datetime) -> tuple[t.Entry, ...]:
        """CACHE-2: evidence whose time to be fetched again has come, and whose URL isn't left alone."""
        with self._reading() as connection:
            blocked = set(
                connection.scalars(select(t.failure.c.url).where(t.failure.c.retry_at > at.timestamp())).all()
            )
            stale = t.crl.c.refresh_at <= at.timestamp()
            names = set(connection.scalars(select(t.crl.c.sha256).where(stale)).all())
            recent = (t.ocsp.c.refresh_at <= at.timestamp()) & (t.ocsp.c.used_at >= used_since.timestamp())
            names |= set(connection.scalars(select(t.ocsp.c.name).where(recent)).all())
        if not names:
            return ()
        due = (e for e in self.entries() if e.name in names and e.url not in blocked)
        return tuple(e for e in due if t.failure_key(e.url, (e.certificate or e.issuer).fingerprint) not in blocked)

    def crl_of(self, issuer: Certificate, idp: bytes | None) -> CrlEvidence | None:
        """The CRL that is stored for this key and scope, if it can be read."""
        with self._reading() as connection:
            row = connection.execute(select(t.crl).where(t.scope(issuer, idp))).first()
        crl = self._load(row.sha256) if row is not None else None
        return CrlEvidence(crl, row.url, t.moment(row.fetched_at)) if row is not None and crl is not None else None

    def crl(self, sha256: str) -> Crl | None:
        """The CRL of this name, if it can be read."""
        return self._load(sha256)

    def ocsp(self, name: str) -> bytes | None:
        """The OCSP answer of this name."""
        with self._reading() as connection:
            return connection.scalar(select(t.ocsp.c.der).where(t.ocsp.c.name == name))

    # ---- writing ----------------------------------------------------------------------------------------------------

    def store_crl(
        self, crl: Crl, chain: tuple[Certificate, ...], url: str, at: datetime, refresh_at: datetime | None, *,
        etag: str = "", last_modified: str = "",
    ) -> None:  # fmt: skip
        """File a CRL whose signature by ``chain[0]`` was verified; it replaces the one of the same key and scope.

        CACHE-4: unless that is newer. The caller has compared too, but two flights may land at the same moment.
        """
        idp = crl.idp or b""
        issuer = chain[0]
        # CACHE-7: the bytes are on disk before a row names them.
        self._write_file(crl)

        def write(connection: Connection) -> str | None:
            t.put_issuer(connection, chain)
            kept = connection.execute(select(t.crl).where(t.scope(issuer, idp))).first()
            old = kept.sha256 if kept is not None else None
            if kept is not None and kept.this_update > crl.this_update.timestamp():
                named = connection.scalar(select(t.crl.c.sha256).where(t.crl.c.sha256 == crl.sha256))
                return crl.sha256 if named is None else None
            t.put(connection, t.crl, ("issuer_key", "idp"), {
                "issuer_key": issuer.key_id, "idp": idp, "sha256": crl.sha256, "size": len(crl.der),
                "number": None if crl.number is None else str(crl.number), "entries": crl.entry_count,
                "this_update": t.stamp(crl.this_update), "next_update": t.stamp(crl.next_update),
                "url": url, "fetched_at": t.stamp(at), "refresh_at": t.stamp(refresh_at),
            })  # fmt: skip
            t.put(
                connection, t.alias, ("url", "issuer_key", "idp"), {"url": url, "issuer_key": issuer.key_id, "idp": idp}
            )
            t.answered(connection, url, at, etag, last_modified)
            still_used = select(t.crl.c.sha256).where(t.crl.c.sha256 == old)
            return old if old is not None and connection.scalar(still_used) is None else None

        superseded = self._write(write)
        with self._lock:
            self._parsed[crl.sha256] = crl
        if superseded is not None:
            with suppress(OSError):
                self._path(superseded).unlink()

    def store_ocsp(
        self, question: Question, chain: tuple[Certificate, ...], der: bytes, url: str, at: datetime,
        refresh_at: datetime, this_update: datetime | None, next_update: datetime | None, *, asked: bool = True,
    ) -> None:  # fmt: skip
        """File an OCSP answer that was judged for ``question``. ``chain`` begins with the question's issuer.

        ``asked`` False means that it was fetched ahead, which doesn't count as use of it.
        """
        keys = t.ocsp_keys(question)

        def write(connection: Connection) -> None:
            t.put_issuer(connection, chain)
            before = connection.scalar(select(t.ocsp.c.used_at).where(*(t.ocsp.c[k] == v for k, v in keys.items())))
            used_at = before if before is not None and not asked else t.stamp(at)
            t.put(connection, t.ocsp, tuple(keys), {
                **keys, "name": t.ocsp_name(keys), "der": der, "certificate": question.certificate.der,
                "this_update": t.stamp(this_update), "next_update": t.stamp(next_update), "url": url,
                "fetched_at": t.stamp(at), "refresh_at": t.stamp(refresh_at), "used_at": used_at,
            })  # fmt: skip
            t.answered(connection, url, at, "", "")

        self._write(write)

    def still_current(self, url: str, at: datetime, refresh_at: datetime) -> None:
        """The server says that what it gave for ``url`` is current (304): only the plan changes."""

        def write(connection: Connection) -> None:
            state = connection.execute(select(t.url).where(t.url.c.url == url)).first()
            etag, modified = (state.etag, state.last_modified) if state is not None else ("", "")
            t.answered(connection, url, at, etag, modified)
            connection.execute(t.crl.update().where(t.crl.c.url == url).values(refresh_at=t.stamp(refresh_at)))

        self._write(write)

    def postpone(self, name: str, refresh_at: datetime) -> None:
        """Plan the next fetch of one piece of evidence."""

        def write(connection: Connection) -> None:
            for table, column in ((t.crl, t.crl.c.sha256), (t.ocsp, t.ocsp.c.name)):
                connection.execute(table.update().where(column == name).values(refresh_at=t.stamp(refresh_at)))

        self._write(write)

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
            newest = select(t.failure.c.url).order_by(t.failure.c.at.desc()).limit(_MAX_FAILURES)
            connection.execute(delete(t.failure).where(t.failure.c.url.not_in(newest)))

        self._write(write)

    def record_success(self, url: str, host: str, *, about: str = "") -> None:
        """The URL and its host work again."""

        def write(connection: Connection) -> None:
            connection.execute(delete(t.failure).where(t.failure.c.url.in_((url, t.failure_key(url, about)))))
            connection.execute(delete(t.host).where(t.host.c.host == host))

        self._write(write)

    def forget_refusals(self) -> None:
        """Forget what the configuration forbade: it may allow it now."""
        self._write(lambda c: c.execute(delete(t.failure).where(t.failure.c.why.in_(_REFUSALS))))

    def remember_hash(self, url: str, name: str) -> None:
        """OCSP-1: which hash of the CertID this responder understands."""
        self._write(lambda connection: t.put(connection, t.url, ("url",), {"url": url, "responder_hash": name}))

    def prune(self, at: datetime) -> None:
        """Drop OCSP answers a week after their end, and failures of URLs a week after their last.

        RPL-4: an answer that revokes for good stays as long as the certificate could be used; without it an attacker
        would only have to wait, and then to keep the responder out of reach.
        """
        week_ago = at.timestamp() - 7 * 86400

        def write(connection: Connection) -> None:
            old = connection.execute(select(t.ocsp).where(t.ocsp.c.next_update < week_ago))
            gone = [
                r.name for r in old if load_certificate(r.certificate).not_after < at or not revokes_for_good(r.der)
            ]
            connection.execute(delete(t.ocsp).where(t.ocsp.c.name.in_(gone)))
            connection.execute(delete(t.failure).where(t.failure.c.retry_at < week_ago))
            connection.execute(delete(t.host).where(t.host.c.retry_at < week_ago))

        self._write(write)

    def forget(self, names: Iterable[str]) -> int:
        """Drop evidence by name, and failures by URL (those about one certificate too); returns how many rows went."""
        wanted = list(names)

        def write(connection: Connection) -> tuple[int, list[str]]:
            count = 0
            for column in (t.crl.c.sha256, t.ocsp.c.name, t.failure.c.url):
                count += connection.execute(delete(column.table).where(column.in_(wanted))).rowcount
            for url in wanted:
                count += connection.execute(
                    delete(t.failure).where(t.failure.c.url.startswith(f"{url} ", autoescape=True))
                ).rowcount
            urls = select(t.crl.c.url).union(select(t.ocsp.c.url))
            connection.execute(t.url.update().where(t.url.c.url.not_in(urls)).values(**t.UNANSWERED))
            connection.execute(delete(t.host))
            named = set(connection.scalars(select(t.crl.c.sha256)).all())
            return count, [n for n in wanted if t.is_name(n) and n not in named]

        gone, files = self._write(write)
        for name in files:
            with suppress(OSError):
                self._path(name).unlink()
        return gone

    # ---- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as exc:
            if is_damage(exc) and not self._readonly:
                self._start_anew(exc)
            raise Unavailable(f"evidence store {self._file}: {cause(exc)}") from exc

    def _write(self, work: Callable[[Connection], R]) -> R:
        try:
            try:
                with self._engine.begin() as connection:
                    result = work(connection)
            except SQLAlchemyError as exc:
                if not is_damage(exc):
                    raise
                self._start_anew(exc)
                with self._engine.begin() as connection:
                    result = work(connection)
            self._counter.bump()
        except (SQLAlchemyError, OSError) as exc:
            raise Unavailable(f"evidence store {self._file}: {cause(exc)}") from exc
        return result

    def _prepare(self) -> None:
        """Make directory and tables, move a damaged database aside, drop files that no row names."""
        create_directory(self._directory)
        create_directory(self._crls)
        try:
            try:
                self._check()
            except SQLAlchemyError as exc:
                if not is_damage(exc):
                    raise
                self._start_anew(exc)
            self._counter.bump()
        except (SQLAlchemyError, OSError) as exc:
            raise Unavailable(f"evidence store {self._file}: {cause(exc)}") from exc
        self._sweep()

    def _check(self) -> None:
        with self._engine.begin() as connection:
            verdict = connection.scalar(text("PRAGMA quick_check(1)"))
            version = connection.scalar(text("PRAGMA user_version"))
            if verdict != "ok" or version not in (0, t.VERSION):
                raise SQLAlchemyDamage(f"database is malformed: {verdict}, version {version}")
            t.metadata.create_all(connection)
            connection.execute(text(f"PRAGMA user_version={t.VERSION}"))

    def _start_anew(self, exc: BaseException) -> None:
        with self._lock:
            self._engine.dispose()
            aside = self._file.with_name("evidence.sqlite.damaged")
            self._report(
                f"evidence store {self._file}: {cause(exc)}; moved to {aside.name}, starting with an empty one"
            )
            # The log belongs to the file that goes; left behind it would be applied to the new one.
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._file}{suffix}")
            with suppress(FileNotFoundError):
                os.replace(self._file, aside)
            self._answers.clear()
        create_private(self._file)
        self._check()

    def _path(self, sha256: str) -> Path:
        return self._crls / f"{sha256}.crl"

    def _write_file(self, crl: Crl) -> None:
        final = self._path(crl.sha256)
        temporary = self._crls / f".{crl.sha256}.{os.getpid()}.{threading.get_ident()}"
        try:
            try:
                with open(temporary, "wb") as out:
                    os.fchmod(out.fileno(), 0o640)
                    out.write(crl.der)
                    out.flush()
                    os.fsync(out.fileno())
                adopt(temporary)
                os.replace(temporary, final)
                handle = os.open(self._crls, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as exc:
            raise Unavailable(f"can't write {final}: {exc.strerror}") from exc

    def _load(self, sha256: str) -> Crl | None:
        crl = self._read(sha256)
        return None if isinstance(crl, str) else crl

    def _read(self, sha256: str) -> Crl | str:
        """The CRL of this name, parsed once per process; or why file and name don't agree."""
        with self._lock:
            crl = self._parsed.get(sha256)
        if crl is not None:
            return crl
        try:
            der = self._path(sha256).read_bytes()
            if hashlib.sha256(der).hexdigest() != sha256:
                return "its content is not what was stored"
            crl = parse_crl(der, max(len(der), 1))
        except (OSError, BadData) as exc:
            return cause(exc)
        with self._lock, suppress(ValueError):
            self._parsed[sha256] = crl
        return crl

    def _drop(self, sha256: str) -> None:
        if self._readonly:
            return
        with suppress(OSError):
            self._path(sha256).unlink()

        def write(connection: Connection) -> None:
            urls = select(t.crl.c.url).where(t.crl.c.sha256 == sha256)
            connection.execute(t.url.update().where(t.url.c.url.in_(urls)).values(**t.UNANSWERED))
            connection.execute(delete(t.crl).where(t.crl.c.sha256 == sha256))

        self._write(write)

    def _sweep(self) -> None:
        """Drop files that no row names: left by a crash between rename and commit, or between commit and unlink.

        Young ones stay: another process may be about to commit the row. (The counter was raised a moment ago.)
        """
        with self._reading() as connection:
            named = {f"{sha}.crl" for sha in connection.scalars(select(t.crl.c.sha256)).all()}
        with suppress(OSError):
            young = (self._directory / "generation").stat().st_mtime - 60
            for entry in os.scandir(self._crls):
                if entry.name not in named and entry.stat().st_mtime < young:
                    os.unlink(entry.path)


class SQLAlchemyDamage(SQLAlchemyError):
    """The database opens, but isn't what it should be."""
