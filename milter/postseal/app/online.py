"""Fetching for ``postseal verify --online``: what one verification needs, straight from the network, nothing kept.

This is the operator's own act on a certificate that he names, so issuers are fetched from it before it is trusted (AIA
caIssuers), which the mail path never does (PRE-1). Addresses are vetted by the fetcher all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from postseal.app.lookup_ports import Http
from postseal.app.ocsp_flight import Habits, Wishes, ask_responder
from postseal.app.verify import Report, Request, verify
from postseal.core.certs import Certificate, load_certificates
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, Evidence, NoAnswer, OcspEvidence, Question, issuer_urls
from postseal.core.path import PathFault
from postseal.core.revocation import Nonce, RevocationSettings, crl_sources, still_needed
from postseal.core.transfer import Fetched, Transfer

MAX_ISSUERS = 4
_MAX_CERTIFICATES = 64 * 1024


@dataclass
class Online:
    """One run: ``seconds`` for all of its requests together, sizes in octets, each URL asked once."""

    http: Http
    monotonic: Callable[[], float]
    at: datetime
    seconds: float = 30.0
    request_seconds: float = 10.0
    crl_max_size: int = 64 * 1024 * 1024
    ocsp_max_size: int = 64 * 1024
    ldap: bool = False
    _end: float = field(init=False)
    _crls: dict[str, Evidence] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._end = self.monotonic() + self.seconds

    def verify(self, certificate: Certificate, request: Request) -> Report:
        """``verify`` with issuers and evidence from the network where the files don't have them."""
        request = replace(request, find=lambda question, known: self.find(question, known))
        asked: set[str] = set()
        for _ in range(MAX_ISSUERS):
            report = verify(certificate, request, self.at)
            if not isinstance(report.path, PathFault) or report.path.code != "path.no-issuer":
                return report
            failures: list[str] = []
            more = self._issuers(report.path.certificate or certificate, asked, failures)
            if not more:
                return replace(report, detail="; ".join([report.detail, *failures]).removeprefix("; "))
            request = replace(request, intermediates=(*request.intermediates, *more))
        return verify(certificate, request, self.at)

    def _issuers(self, certificate: Certificate, asked: set[str], failures: list[str]) -> tuple[Certificate, ...]:
        """RFC 5280 §4.2.2.1: certificates from the first caIssuers URL that has some; why the others have none."""
        for url in issuer_urls(certificate):
            if url in asked:
                continue
            asked.add(url)
            answer = self.http.get(url, max_size=_MAX_CERTIFICATES, deadline=self._deadline())
            if isinstance(answer, Fetched):
                try:
                    return load_certificates(answer.body, limit=20)
                except BadData as exc:
                    failures.append(f"{url}: {exc}")
            else:
                failures.append(f"{url}: {getattr(answer, 'detail', 'unexpected status 304')}")
        return ()

    def find(self, question: Question, known: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """CRLs first, then OCSP, until nothing more is needed (RPL-1). A failure is a NoAnswer, never an exception."""
        settings = RevocationSettings(ldap=self.ldap)
        found: list[Evidence] = []
        lists, responders = crl_sources(question, settings), question.ocsp_urls
        sources = [(self._crl, url) for url in lists] + [(self._ocsp, url) for url in responders]
        for fetch, url in sources:
            if not still_needed(question, [*known, *found], settings, self.at):
                break
            found.append(fetch(url, question))
        return tuple(found)

    def _crl(self, url: str, _: Question) -> Evidence:
        if url not in self._crls:
            answer = self.http.get(url, max_size=self.crl_max_size, deadline=self._deadline())
            self._crls[url] = self._read_crl(url, answer)
        return self._crls[url]

    def _read_crl(self, url: str, answer: Transfer) -> Evidence:
        if not isinstance(answer, Fetched):
            return self._no_answer(url, answer)
        try:
            return CrlEvidence(parse_crl(answer.body, self.crl_max_size), url, self.at)
        except BadData as exc:
            return NoAnswer(url, "rev.malformed", str(exc), self.at)

    def _ocsp(self, url: str, question: Question) -> Evidence:
        # OCSP-13: who checks now wants to hear what is true now.
        wishes = Wishes(self.ocsp_max_size, self._deadline(), Nonce.ON)
        heard = ask_responder(self.http, url, question, Habits(), wishes)
        if not isinstance(heard.transfer, Fetched):
            return self._no_answer(url, heard.transfer)
        return OcspEvidence(heard.transfer.body, url, self.at, heard.nonce)

    def _no_answer(self, url: str, answer: Transfer) -> NoAnswer:
        why, detail = getattr(answer, "why", "rev.http-status"), getattr(answer, "detail", "unexpected status 304")
        return NoAnswer(url, why, detail, self.at)

    def _deadline(self) -> float:
        return min(self._end, self.monotonic() + self.request_seconds)
