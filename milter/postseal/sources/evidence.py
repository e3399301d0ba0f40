"""The evidence store: CRLs, OCSP answers, and what is known about URLs that gave none. Shared by all processes of a node.

Rows are in ``evidence.sqlite``; the bytes of a CRL are in ``crl/<sha256>.crl``, written to a temporary file, synced and renamed
before the row that names it is committed, so that a crash at any point leaves the old evidence or the new (CACHE-7). A CRL is
filed under the key that signed it and the bytes of its issuingDistributionPoint, never under a URL or a name alone; URLs are
aliases (CACHE-8). Failures are rows of their own and never touch evidence (CACHE-4).

``postseal lookup`` is the one steady writer; ``postseal evidence`` writes now and then. The milter reads under its own uid:
directories 0750, files 0640, group shared (see ``sources.store`` for how that works with a log that it can't write). The file
``generation`` holds a counter that every commit raises; readers map it, so to see that nothing changed costs a microsecond.
Reading verifies each CRL against its name; a damaged file counts as absent. A damaged database makes readers say Unavailable;
the writer moves it aside and starts anew, because all evidence can be fetched again. What can't be is in ``marks.sqlite``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cachetools import LRUCache
from sqlalchemy import Connection, Row, delete, select

from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl import Crl, signed_hash
from postseal.core.crl_entries import RawEntries
from postseal.core.errors import BadData, Unavailable
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question, RevokedBefore, issuer_urls
from postseal.sources import evidence_marks as m
from postseal.sources import evidence_tables as t
from postseal.sources.clock import SystemClock
from postseal.sources.counter import Counter
from postseal.sources.crl_files import CrlFiles, Incoming
from postseal.sources.evidence_db import Database
from postseal.sources.evidence_upkeep import Limits, Upkeep, boot_id, make_room
from postseal.sources.evidence_urls import UrlMemory, forget_urls
from postseal.sources.leases import Leases
from postseal.sources.store import create_directory

_DUE_AT_ONCE = 64
_ROOM_EVERY = 100
_MARKS_LOST = "the memory of newest CRLs and of revocations is lost, older CRLs will be believed until newer ones come"


class Clock(Protocol):
    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class EvidenceStore(UrlMemory, Upkeep):
    """Reads (and unless ``readonly``, writes) the store in ``directory``. Safe for threads; made anew or lazily after a fork.

    ``report`` hears one sentence about damage that was found. ``crls`` makes the keeper of the files with the bytes of CRLs.
    All methods raise Unavailable when the store can't be used.
    """

    def __init__(
        self, directory: Path, *, readonly: bool, report: Callable[[str], None] = lambda text: None,
        crls: Callable[[Path], CrlFiles] = CrlFiles, limits: Limits | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._directory = Path(directory)
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self._boot = boot_id()
        self._leases = Leases(self._directory / "lease")
        self._helpers: tuple[int, tuple[Certificate, ...]] = (0, ())
        self._newest: tuple[int, datetime | None] = (0, None)
        self._stored = 0
        self._readonly = readonly
        self._report = report
        self._counter = Counter(self._directory / "generation", readonly)
        self._lock = threading.Lock()
        self._awaited: set[str] = set()
        self._answers: LRUCache[tuple[object, ...], tuple[int, tuple[Evidence, ...]]] = LRUCache(20_000)
        self._files = crls(self._directory / "crl")
        self._db = Database(
            self._directory / "evidence.sqlite", t.metadata, t.VERSION, self._counter, readonly=readonly,
            report=report, lost=self._answers.clear, on_write=self._note_time,
        )  # fmt: skip
        # CACHE-7: what can't be fetched again is synced at each commit.
        self._marks_db = Database(
            self._directory / "marks.sqlite", m.metadata, m.VERSION, self._counter, readonly=readonly, report=report,
            synchronous="FULL", lost=self._answers.clear, words=_MARKS_LOST,
        )  # fmt: skip
        self.marks = m.Marks(self._marks_db)
        if not readonly:
            self._prepare()

    # ---- reading ----------------------------------------------------------------------------------------------------

    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        """All that may answer ``question``: CRLs of the issuer's key, and of others in the name of who may sign for it;
        OCSP answers; failures of the question's URLs; and that it was revoked before (CRL-27)."""
        key = (
            question.certificate.fingerprint, question.issuer.key_id, question.crl_urls, question.ocsp_urls,
            question.crl_issuers, question.delta_urls, question.ldap_urls,
        )  # fmt: skip
        for last in (False, False, True):
            generation = self.generation()
            with self._lock:
                kept = self._answers.get(key)
            if kept is not None and kept[0] == generation != 0:
                return kept[1]
            with self._db.reading() as connection:
                rows = t.rows_for(connection, question)
            found = self._found(question, *rows)
            # A CRL that was replaced between reading its row and its file isn't damaged: look again.
            if last or self.generation() == generation or not any(isinstance(e, str) for e in found):
                break
        answer = self._remembered(question)
        answer += tuple(
            self._damaged(row, e) if isinstance(e, str) else e for row, e in zip(rows[0], found, strict=False)
        )
        answer += tuple(e for e in found[len(rows[0]) :] if not isinstance(e, str))
        with self._lock:
            self._answers[key] = (generation, answer)
        return answer

    def _found(
        self, question: Question, crls: list[Row[Any]], answers: list[Row[Any]], failures: list[Row[Any]]
    ) -> list[Evidence | str]:
        """Rows as evidence, in order; in place of a CRL that can't be read, the cause."""
        found: list[Evidence | str] = []
        for row in crls:
            crl = self._files.read(row.sha256)
            if isinstance(crl, Crl):
                if isinstance(crl.entries, RawEntries) and not self._readonly:
                    self._index(row.sha256)
                own = row.issuer_key == question.issuer.key_id
                signer = () if own else t.certificates(row.chain)
                found.append(CrlEvidence(crl, row.url, t.moment(row.fetched_at), signer, self._outdated(row)))
            else:
                found.append(crl)
        found += [OcspEvidence(row.der, row.url, t.moment(row.fetched_at)) for row in answers]
        # RPL-6
        alarming = self._alarming(question, failures[0]) if failures and self._marked() else ()
        found += [t.no_answer(row, row.url.startswith(alarming)) for row in failures]
        return found

    def _alarming(self, question: Question, failure: Row[Any]) -> tuple[str, ...]:
        """The URLs of which it is strange that they fail."""
        at = t.moment(failure.at)
        lists = question.crl_urls if self.marks.reliable(question.issuer, at) else ()
        return (*lists, *(question.ocsp_urls if self.marks.reliable(question.issuer, at, ocsp=True) else ()))

    def _remembered(self, question: Question) -> tuple[Evidence, ...]:
        before = self.marks.revoked_before(question) if self._marked() else None
        return () if before is None else (before,)

    def _outdated(self, row: Row[Any]) -> bool:
        """CRL-25: was there a newer one of this scope once? (The database may come from a backup.)"""
        mark = self.marks.of({k: getattr(row, k) for k in m.SCOPE}) if self._marked() else None
        if mark is None or mark.sha256 == row.sha256:
            return False
        older = mark.number is not None and row.number is not None and int(row.number) < mark.number
        return older or t.moment(row.this_update) < mark.this_update

    def _marked(self) -> bool:
        """Is there a database of marks? A reader may come before the first writer of this version."""
        return not self._readonly or self._marks_db.file.exists()

    def _damaged(self, row: Row[Any], why: str) -> NoAnswer:
        self._report(f"stored CRL {self._files.path(row.sha256)}: {why}; it counts as absent")
        self._drop(row.sha256)
        return NoAnswer(row.url, "rev.malformed", "the stored CRL is damaged", t.moment(row.fetched_at))

    def exists(self) -> bool:
        """Is there a store at all yet?"""
        return self._db.file.exists()

    def generation(self) -> int:
        """Changes with every commit that could change an answer; 0 while there is no store."""
        return self._counter.value()

    def newest(self) -> datetime | None:
        """CACHE-9: the newest thisUpdate of an accepted CRL: the present can't be before it."""
        generation = self.generation()
        kept, moment = self._newest
        if kept != generation or not generation:
            moment = self.marks.newest() if self._marked() else None
            self._newest = (generation, moment)
        return moment

    def all_marks(self) -> tuple[m.Mark, ...]:
        """CRL-25: the highest CRL of each scope; none while no writer of this version has been here."""
        return self.marks.all() if self._marked() else ()

    def entries(self) -> tuple[t.Entry, ...]:
        """All evidence, CRLs first, ordered by issuer."""
        with self._db.reading() as connection:
            rows = list(connection.execute(select(t.crl, t.issuer.c.chain).join_from(t.crl, t.issuer)))
            answers = list(connection.execute(select(t.ocsp, t.issuer.c.chain).join_from(t.ocsp, t.issuer)))
            aliases: dict[tuple[str, str, bytes], list[str]] = {}
            for row in connection.execute(select(t.alias)):
                aliases.setdefault((row.issuer_key, row.issuer_name, row.idp), []).append(row.url)
        found = [t.crl_entry(row, aliases.get((row.issuer_key, row.issuer_name, row.idp), [])) for row in rows]
        found += [t.ocsp_entry(row) for row in answers]
        return tuple(
            t.Entry(**values) for values in sorted(found, key=lambda v: (v["kind"], v["issuer"].name, v["name"]))
        )

    def due(self, at: datetime, used_since: datetime) -> tuple[t.Entry, ...]:
        """CACHE-2: evidence whose time to be fetched again has come, and whose URL isn't left alone; some at a time."""
        with self._db.reading() as connection:
            return tuple(t.due(connection, at, used_since, _DUE_AT_ONCE))

    def crl_of(self, chain: tuple[Certificate, ...], like: Crl) -> CrlEvidence | None:
        """The CRL that is stored for this signer and the scope of ``like``, if it can be read."""
        keys = t.crl_keys(chain, like)
        with self._db.reading() as connection:
            row = connection.execute(select(t.crl).where(t.matches(t.crl, keys))).first()
        crl = self.crl(row.sha256) if row is not None else None
        return CrlEvidence(crl, row.url, t.moment(row.fetched_at)) if row is not None and crl is not None else None

    def mark_of(self, chain: tuple[Certificate, ...], like: Crl) -> m.Mark | None:
        """CRL-25: the highest CRL of this signer and the scope of ``like`` that ever was here."""
        return self.marks.of(t.crl_keys(chain, like))

    def reliable_for(self, issuer: Certificate, at: datetime, *, ocsp: bool = False) -> timedelta | None:
        """RPL-6: for how long ``issuer`` always had a current CRL, or answers, if that was long and is over now."""
        mark = self.marks.reliable(issuer, at, ocsp=ocsp)
        if mark is None or mark.next_update is None or mark.next_update >= at:
            return None
        return mark.next_update - mark.fresh_since

    def intermediates(self) -> tuple[Certificate, ...]:
        """CA certificates that were fetched because a path lacked them; they help to build paths, and nothing else."""
        generation = self.generation()
        kept, found = self._helpers
        if kept != generation or not generation:
            with self._db.reading() as connection:
                ders = connection.scalars(select(t.intermediate.c.der).order_by(t.intermediate.c.fingerprint)).all()
            found = tuple(map(load_certificate, ders))
            self._helpers = (generation, found)
        return found

    def wants_issuer(self, certificate: Certificate, at: datetime) -> bool:
        """Does ``certificate`` say where its issuer's is, and is any of these URLs not left alone now?"""
        urls = issuer_urls(certificate)
        keys = {t.failure_key(url, about): url for url in urls for about in ("", certificate.fingerprint)}
        blocking = select(t.failure.c.url).where(t.failure.c.url.in_(keys), t.failure.c.retry_at > at.timestamp())
        with self._db.reading() as connection:
            blocked = {keys[key] for key in connection.scalars(blocking)}
        return bool(set(urls) - blocked)

    def crl(self, sha256: str) -> Crl | None:
        """The CRL of this name, if it can be read."""
        crl = self._files.read(sha256)
        return crl if isinstance(crl, Crl) else None

    def ocsp(self, name: str) -> bytes | None:
        """The OCSP answer of this name."""
        with self._db.reading() as connection:
            return connection.scalar(select(t.ocsp.c.der).where(t.ocsp.c.name == name))

    # ---- writing ----------------------------------------------------------------------------------------------------

    def incoming(self) -> Incoming:
        """For a CRL that comes in pieces: ``take`` them, then ask for the ``crl``, and store that."""
        return self._files.incoming()

    def store_crl(
        self, crl: Crl, chain: tuple[Certificate, ...], url: str, at: datetime, refresh_at: datetime | None, *,
        etag: str = "", last_modified: str = "",
    ) -> None:  # fmt: skip
        """File a CRL whose signature by ``chain[0]`` was verified; it replaces the one of the same signer and scope.

        CACHE-4: unless that is newer. The caller has compared too, but two flights may land at the same moment. A large one
        is indexed first as long as another answers; BadData is raised when that finds that it isn't well formed.
        """
        keys = t.crl_keys(chain, crl)
        # CACHE-7: the bytes are on disk before a row names them.
        self._files.write(crl)
        if isinstance(crl.entries, RawEntries) and self._answered_by_another(keys, at):
            crl = self._indexed_first(crl)
        # CRL-25: the mark first. A crash after it costs one fetch, a crash before it would leave the door open.
        self.marks.raise_to(crl, chain[0], keys, at)

        def write(connection: Connection) -> list[str]:
            t.put_issuer(connection, chain, keys)
            kept = connection.execute(select(t.crl).where(t.matches(t.crl, keys))).first()
            old = kept.sha256 if kept is not None else None
            if kept is not None and kept.this_update > crl.this_update.timestamp():
                return [crl.sha256]
            t.put(connection, t.crl, tuple(keys), {
                **keys, "sha256": crl.sha256, "size": len(crl.der),
                "number": None if crl.number is None else str(crl.number), "entries": crl.entry_count,
                "this_update": t.stamp(crl.this_update), "next_update": t.stamp(crl.next_update),
                "url": url, "fetched_at": t.stamp(at), "refresh_at": t.stamp(refresh_at),
                "used_at": kept.used_at if kept is not None else t.stamp(at),
            })  # fmt: skip
            scope = {k: keys[k] for k in ("issuer_key", "issuer_name", "idp")}
            t.put(connection, t.alias, ("url", *scope), {"url": url, **scope})
            t.answered(connection, url, at, etag, last_modified)
            # What the URL gave before, of another key or scope, isn't to be had there any more: nothing to hurry for.
            before = t.crl.update().where(t.crl.c.url == url, t.crl.c.issuer_name == keys["issuer_name"])
            connection.execute(before.values(refresh_at=t.stamp(refresh_at)))
            return [*([old] if old is not None else []), *make_room(connection, self._limits, crl.sha256)]

        superseded = self._db.write(write)
        self._files.keep(crl)
        self._unlink(superseded)
        if crl.sha256 not in superseded and self._files.wants_index(crl.sha256):
            self._index(crl.sha256, _known_hash(crl))

    def _answered_by_another(self, keys: Mapping[str, Any], at: datetime) -> bool:
        with self._db.reading() as connection:
            kept = connection.execute(select(t.crl).where(t.matches(t.crl, keys))).first()
        return kept is not None and kept.next_update is not None and kept.next_update > at.timestamp()

    def _indexed_first(self, crl: Crl) -> Crl:
        try:
            made = self._files.index(crl.sha256, tbs_digest=_known_hash(crl)).result()
        except Unavailable:
            # A helper that fails mustn't keep a CRL out; it is tried again in a moment, and that is told.
            return crl
        if isinstance(made, str):
            self._files.drop(crl.sha256)
            raise BadData(made)
        found = self._files.read(crl.sha256)
        return crl if isinstance(found, str) else found

    def _index(self, sha256: str, tbs_digest: bytes = b"") -> None:
        """Have a large CRL indexed at leisure; its octets are searched meanwhile."""
        with self._lock:
            if sha256 in self._awaited:
                return
            self._awaited.add(sha256)
        self._files.index(sha256, tbs_digest=tbs_digest).add_done_callback(lambda made: self._was_indexed(sha256, made))

    def _was_indexed(self, sha256: str, future: Future[int | str]) -> None:
        try:
            made = future.result()
            if isinstance(made, str):
                self._report(f"stored CRL {self._files.path(sha256)}: {made}; it counts as absent")
                self._drop(sha256)
            else:
                # This raises the counter too, so readers open it anew.
                self._db.write(lambda c: c.execute(t.crl.update().where(t.crl.c.sha256 == sha256).values(entries=made)))
            with self._lock:
                self._awaited.discard(sha256)
        except Unavailable as exc:
            # Not again before the next start: whoever asks would try it anew.
            self._report(f"stored CRL {self._files.path(sha256)} stays without an index, look-ups take longer: {exc}")

    def store_ocsp(
        self, question: Question, chain: tuple[Certificate, ...], der: bytes, url: str, at: datetime,
        refresh_at: datetime, this_update: datetime | None, next_update: datetime | None, *, asked: bool = True,
    ) -> None:  # fmt: skip
        """File an OCSP answer that was judged for ``question``. ``chain`` begins with the question's issuer.

        ``asked`` False means that it was fetched ahead, which doesn't count as use of it.
        """
        keys = t.ocsp_keys(question)

        def write(connection: Connection) -> None:
            t.put_issuer(connection, (question.issuer, *chain[1:]), keys)
            before = connection.scalar(select(t.ocsp.c.used_at).where(t.matches(t.ocsp, keys)))
            used_at = before if before is not None and not asked else t.stamp(at)
            t.put(connection, t.ocsp, tuple(keys), {
                **keys, "name": t.ocsp_name(keys), "der": der, "certificate": question.certificate.der,
                "this_update": t.stamp(this_update), "next_update": t.stamp(next_update), "url": url,
                "fetched_at": t.stamp(at), "refresh_at": t.stamp(refresh_at), "used_at": used_at,
            })  # fmt: skip
            t.answered(connection, url, at, "", "")
            self._stored += 1
            if self._stored % _ROOM_EVERY == 0:
                make_room(connection, self._limits)

        self._db.write(write)
        if this_update is not None and next_update is not None:
            self.marks.note_answer(question.issuer, this_update, next_update, at)

    def store_intermediates(self, certificates: Sequence[Certificate], url: str, at: datetime) -> None:
        """Keep CA certificates from ``url`` that complete a path to an anchor. Never an anchor themselves."""

        def write(connection: Connection) -> None:
            for certificate in certificates:
                t.put(connection, t.intermediate, ("fingerprint",), {
                    "fingerprint": certificate.fingerprint, "der": certificate.der, "url": url, "fetched_at": t.stamp(at),
                })  # fmt: skip

        if set(certificates) - set(self.intermediates()):
            self._db.write(write)

    def still_current(self, url: str, at: datetime, refresh_at: datetime) -> None:
        """The server says that what it gave for ``url`` is current (304): only the plan changes."""

        def write(connection: Connection) -> None:
            state = connection.execute(select(t.url).where(t.url.c.url == url)).first()
            etag, modified = (state.etag, state.last_modified) if state is not None else ("", "")
            t.answered(connection, url, at, etag, modified)
            connection.execute(t.crl.update().where(t.crl.c.url == url).values(refresh_at=t.stamp(refresh_at)))

        self._db.write(write)

    def postpone(self, plan: Mapping[str, datetime]) -> None:
        """Plan the next fetch of evidence by name."""

        def write(connection: Connection) -> None:
            for name, refresh_at in plan.items():
                for table, column in ((t.crl, t.crl.c.sha256), (t.ocsp, t.ocsp.c.name)):
                    connection.execute(table.update().where(column == name).values(refresh_at=t.stamp(refresh_at)))

        self._db.write(write, silent=True)

    def remember_revoked(self, question: Question, seen: RevokedBefore) -> None:
        """CRL-27: the certificate of ``question`` was judged revoked for good; that holds until it expires."""
        self.marks.remember(question, seen)

    def forget(self, names: Iterable[str]) -> int:
        """Drop evidence by name, and failures by URL (those about one certificate too); returns how many rows went.

        Marks stay: what was older then is older still (CRL-25). See ``reset_scope``.
        """
        wanted = list(names)

        def write(connection: Connection) -> tuple[int, list[str]]:
            count = 0
            for column in (t.crl.c.sha256, t.ocsp.c.name):
                count += connection.execute(delete(column.table).where(column.in_(wanted))).rowcount
            count += forget_urls(connection, wanted)
            named = set(connection.scalars(select(t.crl.c.sha256)).all())
            return count, [n for n in wanted if t.is_name(n) and n not in named]

        gone, files = self._db.write(write)
        for name in files:
            self._files.drop(name)
        return gone

    def reset_scope(self, name: str) -> bool:
        """CACHE-12: believe an older CRL of the scope ``name`` (see ``marks.all``) again, for a CA that came out of a backup.

        Its stored CRL goes too. Revocations that were seen stay. False if no scope has that name.
        """
        with self._db.reading() as connection:
            rows = connection.execute(select(t.crl)).all()
        self.forget([row.sha256 for row in rows if m.scope_name(row) == name])
        return self.marks.reset_scope(name)

    def close(self) -> None:
        """Let go of the databases; the next use opens them again."""
        self._db.engine.dispose()
        self._marks_db.engine.dispose()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make directory and tables, move a damaged database aside, drop files that no row names."""
        create_directory(self._directory)
        create_directory(self._files.folder)
        self._marks_db.prepare()
        self._db.prepare()
        with self._db.reading() as connection:
            named = set(connection.scalars(select(t.crl.c.sha256)).all())
        with suppress(OSError):
            # The counter was raised a moment ago.
            self._files.sweep(named, os.stat(self._directory / "generation").st_mtime - 60)
        # One that was damaged, made by an older version, or never made because of a crash.
        for sha256 in filter(self._files.wants_index, named):
            self._index(sha256)
        self._leases.sweep()

    def _note_time(self, connection: Connection) -> None:
        """CACHE-9: the latest time that was seen at a write; ``observe_clock`` compares."""
        now = t.stamp(self._clock.now())
        values = {"wall": now, "monotonic": self._monotonic(), "boot": self._boot}
        connection.execute(t.clock.update().where(t.clock.c.wall < now, t.clock.c.suspect == 0).values(**values))

    def _drop(self, sha256: str) -> None:
        if self._readonly:
            return
        self._files.drop(sha256)

        def write(connection: Connection) -> None:
            urls = select(t.crl.c.url).where(t.crl.c.sha256 == sha256)
            connection.execute(t.url.update().where(t.url.c.url.in_(urls)).values(**t.UNANSWERED))
            connection.execute(delete(t.crl).where(t.crl.c.sha256 == sha256))

        self._db.write(write)


def _known_hash(crl: Crl) -> bytes:
    """Its signature was verified a moment ago, in the file that is indexed now; what is in memory was never read from it."""
    return b"" if isinstance(crl.der, bytes) else signed_hash(crl)
