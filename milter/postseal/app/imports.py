"""Evidence from files, for nodes without the Internet and for administrators who don't want to wait: verified as if fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from postseal.app import freshness
from postseal.app.lookup_ports import Mark
from postseal.app.ports import Clock, TrustStore
from postseal.core import ocsp
from postseal.core.certs import Certificate
from postseal.core.crl import Crl, parse_crl, signature_valid
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, Evidence, OcspEvidence, Question, question_for
from postseal.core.names import same_name
from postseal.core.path import Path, PathSettings, build_path
from postseal.core.revocation import Order, RevocationSettings, Status, judge


class Store(Protocol):
    """``sources.evidence.EvidenceStore`` opened for writing."""

    def evidence(self, question: Question) -> tuple[Evidence, ...]: ...

    def crl_of(self, chain: tuple[Certificate, ...], like: Crl) -> CrlEvidence | None: ...

    def mark_of(self, chain: tuple[Certificate, ...], like: Crl) -> Mark | None: ...

    def store_crl(
        self, crl: Crl, chain: tuple[Certificate, ...], url: str, at: datetime, refresh_at: datetime | None
    ) -> None: ...

    def store_ocsp(
        self, question: Question, chain: tuple[Certificate, ...], der: bytes, url: str, at: datetime,
        refresh_at: datetime, this_update: datetime | None, next_update: datetime | None,
    ) -> None: ...  # fmt: skip


class Importer:
    """``known`` are CA certificates besides those of the trust store; each counts only with a valid path to an anchor."""

    def __init__(
        self, store: Store, trust: TrustStore, known: Sequence[Certificate], subjects: Sequence[Certificate],
        clock: Clock, path_settings: PathSettings, revocation: RevocationSettings, crl_max_size: int,
    ) -> None:  # fmt: skip
        self._store = store
        self._anchors = trust.anchors()
        self._others = tuple(dict.fromkeys((*trust.intermediates(), *known)))
        self._subjects = tuple(subjects)
        self._clock = clock
        self._path_settings = path_settings
        self._revocation = revocation
        self._crl_max_size = crl_max_size

    def take(self, name: str, blob: bytes) -> str:
        """Store what ``blob`` holds as ``file:name``; "crl" or "ocsp". Raises BadData with the cause when it is refused."""
        if ocsp.response_status(blob) != "malformed":
            self._take_ocsp(f"file:{name}", blob)
            return "ocsp"
        try:
            crl = parse_crl(blob, self._crl_max_size)
        except BadData as exc:
            raise BadData(f"{name}: neither a CRL ({exc}) nor an OCSP answer") from exc
        self._take_crl(name, crl)
        return "crl"

    def _take_crl(self, name: str, crl: Crl) -> None:
        at = self._clock.now()
        chains = [c for c in self._authorities(at) if same_name(c[0].subject, crl.issuer)]
        if not chains:
            raise BadData(f"{name}: no CA certificate of its issuer is known that leads to an anchor")
        chain = next((c for c in chains if signature_valid(crl, c[0].spki)), None)
        if chain is None:
            raise BadData(f"{name}: its signature is not that of {chains[0][0].name}")
        worse = freshness.rolls_back(self._store.mark_of(chain, crl), crl)
        if worse is None:
            old = self._store.crl_of(chain, crl)
            worse = freshness.why_worse(old.crl if old is not None else None, crl, at, self._revocation.skew)
        if worse is not None:
            raise BadData(f"{name}: {worse[1]}")
        self._store.store_crl(crl, chain, f"file:{name}", at, None)

    def _take_ocsp(self, url: str, blob: bytes) -> None:
        at = self._clock.now()
        if not self._subjects:
            raise BadData(f"{url[5:]}: an OCSP answer is taken with its certificate only; name it with --certificate")
        only = replace(self._revocation, order=Order.OCSP_ONLY)
        cause = "no certificate given has a valid path to an anchor"
        for subject in self._subjects:
            path = build_path(subject, self._anchors, self._others, self._path_settings, at)
            if not isinstance(path, Path):
                continue
            question = question_for(subject, path.issuer_of(0))
            verdict = judge(question, (OcspEvidence(blob, url, at),), only, at)
            if verdict.status is not Status.UNKNOWN:
                kept = [e for e in self._store.evidence(question) if isinstance(e, OcspEvidence)]
                worse = freshness.why_worse_answer(judge(question, kept, only, at), verdict)
                if worse is not None:
                    raise BadData(f"{url[5:]}: {worse[1]}")
                chain = path.certificates[1:] or (path.anchor.certificate,)
                self._store.store_ocsp(question, chain, blob, url, at, verdict.next_update or at, verdict.this_update,
                                       verdict.next_update)  # fmt: skip
                return
            cause = verdict.detail or verdict.reason
        raise BadData(f"{url[5:]}: {cause}")

    def _authorities(self, at: datetime) -> list[tuple[Certificate, ...]]:
        """The path of every CA that is trusted now, the CA first."""
        found: list[tuple[Certificate, ...]] = [(a.certificate,) for a in self._anchors]
        for certificate in self._others:
            path = build_path(certificate, self._anchors, self._others, self._path_settings, at)
            if isinstance(path, Path):
                found.append(path.certificates)
        return found
