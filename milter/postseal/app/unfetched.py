"""Judging on a node that fetches nothing: what isn't stored won't come by itself, so nobody waits for it."""

from __future__ import annotations

from datetime import datetime, timedelta

from postseal.app.ports import Clock, EvidenceReader
from postseal.core.certs import Certificate
from postseal.core.evidence import Evidence, NoAnswer, Question

REASON = "rev.not-fetched"
# The same words for every URL, so that they are said once.
WORDS = "Could not fetch evidence, since [lookup] fetch = false here; import some that is current"
_NOT_BEFORE = timedelta(days=1)


class Unfetched:
    """An EvidenceReader on another one: every URL of a question has given no answer, and isn't going to."""

    def __init__(self, reader: EvidenceReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        at = self._clock.now()
        stored = tuple(e for e in self._reader.evidence(question) if not isinstance(e, NoAnswer))
        urls = (*question.crl_urls, *question.delta_urls, *question.ldap_urls, *question.ocsp_urls)
        return (*stored, *(NoAnswer(url, REASON, WORDS, at, at + _NOT_BEFORE) for url in urls))

    def generation(self) -> int:
        return self._reader.generation()

    def intermediates(self) -> tuple[Certificate, ...]:
        return self._reader.intermediates()

    def wants_issuer(self, certificate: Certificate, at: datetime) -> bool:
        return False

    def newest(self) -> datetime | None:
        return self._reader.newest()
