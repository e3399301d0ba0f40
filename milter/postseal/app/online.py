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
from postseal.app.verify import Report, Request, revocation_settings, verify
from postseal.core.certs import Certificate, readable_certificates
from postseal.core.crl import Crl, parse_crl, signature_valid
from postseal.core.errors import BadData
from postseal.core.evidence import (
    CrlEvidence,
    Evidence,
    NoAnswer,
    OcspEvidence,
    Question,
    crl_issuer_urls,
    delta_urls,
    issuer_urls,
)
from postseal.core.names import same_name
from postseal.core.path import PathFault
from postseal.core.revocation import Nonce, RevocationSettings, UseDeltas, crl_sources, still_needed
from postseal.core.transfer import Fetched, Transfer

# PRE-6: URLs of issuers that are asked for one certificate, and certificates that are taken from one answer.
MAX_ISSUERS = 12
MAX_BUNDLE = 20
_DEFAULTS = RevocationSettings()
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
        self._end = self.monotonic() + self.seconds
        pool = request.intermediates
        asked: set[str] = set()
        failures: list[str] = []
        while True:
            report = verify(certificate, self._with_find(request, pool), self.at)
            if not isinstance(report.path, PathFault) or _hopeless(report.path, certificate):
                return report
            url = _unasked(report.path, certificate, pool, asked) if len(asked) < MAX_ISSUERS else ""
            if not url:
                return replace(report, detail="; ".join([report.detail, *failures]).removeprefix("; "))
            asked.add(url)
            pool = tuple(dict.fromkeys((*pool, *self._issuers(url, failures))))

    def _with_find(self, request: Request, pool: tuple[Certificate, ...]) -> Request:
        return replace(
            request,
            intermediates=pool,
            find=lambda question, known: self.find(question, known, revocation_settings(request)),
        )

    def _issuers(self, url: str, failures: list[str]) -> tuple[Certificate, ...]:
        """RFC 5280 §4.2.2.1: the certificates at a caIssuers URL, one or a bundle; why there are none goes to ``failures``."""
        answer = self.http.get(url, max_size=_MAX_CERTIFICATES, deadline=self._deadline())
        if not isinstance(answer, Fetched):
            failures.append(f"{url}: {getattr(answer, 'detail', 'unexpected status 304')}")
            return ()
        try:
            return readable_certificates(answer.body, limit=MAX_BUNDLE)
        except BadData as exc:
            failures.append(f"{url}: {exc}")
            return ()

    def find(
        self, question: Question, known: Sequence[Evidence], settings: RevocationSettings = _DEFAULTS
    ) -> tuple[Evidence, ...]:
        """CRLs first, then OCSP, until nothing more is needed (RPL-1). A failure is a NoAnswer, never an exception."""
        settings = replace(settings, ldap=self.ldap)
        found: list[Evidence] = []
        lists, responders = crl_sources(question, settings), question.ocsp_urls
        sources = [(self._crl, url) for url in lists] + [(self._ocsp, url) for url in responders]
        for fetch, url in sources:
            if not still_needed(question, [*known, *found], settings, self.at):
                break
            found.append(fetch(url, question))
        # CRL-17: the deltas of what is there now; the base may be good only until they say otherwise.
        if settings.use_deltas is not UseDeltas.NO:
            found += [self._crl(url, question) for url in delta_urls(question, [*known, *found])]
        return tuple(found)

    def _crl(self, url: str, question: Question) -> Evidence:
        if url not in self._crls:
            answer = self.http.get(url, max_size=self.crl_max_size, deadline=self._deadline())
            self._crls[url] = self._read_crl(url, answer, question)
        return self._crls[url]

    def _read_crl(self, url: str, answer: Transfer, question: Question) -> Evidence:
        if not isinstance(answer, Fetched):
            return self._no_answer(url, answer)
        try:
            crl = parse_crl(answer.body, self.crl_max_size)
            return CrlEvidence(crl, url, self.at, self._crl_signer(crl, answer.body, question))
        except BadData as exc:
            return NoAnswer(url, "rev.malformed", str(exc), self.at)

    def _crl_signer(self, crl: Crl, der: bytes, question: Question) -> tuple[Certificate, ...]:
        """RFC 5280 §5.2.7: the certificate of another signer, from where the CRL says that it is."""
        if signature_valid(crl, question.issuer.spki):
            return ()
        for url in crl_issuer_urls(der):
            signer = next((c for c in self._issuers(url, []) if signature_valid(crl, c.spki)), None)
            if signer is not None:
                return (signer,)
        return ()

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


# What no certificate of an issuer can mend.
_HOPELESS = frozenset(
    f"path.{word}"
    for word in (
        "bad-extension", "unsupported-signature", "broken-signature", "weak-key", "weak-signature", "unknown-extension",
        "unsupported-extension", "not-yet-valid", "expired",
    )
)  # fmt: skip


def _hopeless(fault: PathFault, leaf: Certificate) -> bool:
    """PRE-2: is it the certificate itself that can't be used?"""
    return fault.code in _HOPELESS and fault.certificate == leaf and fault.tried == (leaf,)


def _unasked(fault: PathFault, leaf: Certificate, pool: Sequence[Certificate], asked: set[str]) -> str:
    """The next caIssuers URL: where the path came to its end first, then of all certificates that may be on the way."""
    chain = [c for c in (fault.certificate, *reversed(fault.tried), leaf) if c is not None]
    for certificate in chain:
        chain += [c for c in pool if c not in chain and same_name(c.subject, certificate.issuer)]
    urls = (url for certificate in chain for url in issuer_urls(certificate))
    return next((url for url in urls if url not in asked), "")
