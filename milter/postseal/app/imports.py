"""Evidence from files, for nodes without the Internet and for administrators who don't want to wait: verified as if fetched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from postseal.app import freshness
from postseal.app.crl_flight import may_sign_crls
from postseal.app.lookup_ports import Mark
from postseal.app.ports import Clock, TrustStore
from postseal.core import ocsp
from postseal.core.certificate_facts import certificate_facts
from postseal.core.certs import Certificate
from postseal.core.crl import Crl, parse_crl, signature_valid
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, Evidence, OcspEvidence, Question, question_for
from postseal.core.names import NameKey, name_key
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

    def store_intermediates(self, certificates: Sequence[Certificate], url: str, at: datetime) -> None: ...


class Refused(BadData):
    """Evidence that isn't taken; ``code`` is a ``rev.*`` reason, rev.rollback when ours is newer."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Importer:
    """``known`` are CA certificates besides those of the trust store; each counts only with a valid path to an anchor."""

    def __init__(
        self, store: Store, trust: TrustStore, known: Sequence[Certificate], subjects: Sequence[Certificate],
        clock: Clock, path_settings: PathSettings, revocation: RevocationSettings, crl_max_size: int,
    ) -> None:  # fmt: skip
        self._store = store
        self._anchors = trust.anchors()
        self._configured = trust.intermediates()
        self._others = tuple(dict.fromkeys((*self._configured, *known)))
        self._subjects = tuple(subjects)
        self._clock = clock
        self._path_settings = path_settings
        self._revocation = revocation
        self._crl_max_size = crl_max_size
        self._chains: dict[NameKey, list[tuple[Certificate, ...]]] | None = None

    def take(self, name: str, blob: bytes) -> str:
        """Store what ``blob`` holds as ``file:name``; "crl" or "ocsp". Raises BadData with the cause when it is refused."""
        if ocsp.response_status(blob) != "malformed":
            if not self._subjects:
                raise BadData(f"{name}: an OCSP answer is taken with its certificate only; name it with --certificate")
            self.take_ocsp(name, blob, self._subjects, f"file:{name}")
            return "ocsp"
        try:
            crl = parse_crl(blob, self._crl_max_size)
        except BadData as exc:
            raise BadData(f"{name}: neither a CRL ({exc}) nor an OCSP answer") from exc
        self.take_crl(name, crl, f"file:{name}")
        return "crl"

    def take_crl(self, name: str, crl: Crl, url: str) -> bool:
        """Store ``crl`` as if it had been fetched from ``url``; False if it was here already. Raises BadData if refused."""
        at = self._clock.now()
        chains = self._authorities(at).get(name_key(crl.issuer), [])
        if not chains:
            raise BadData(f"{name}: no CA certificate of its issuer is known that leads to an anchor")
        chain = next((c for c in chains if signature_valid(crl, c[0].spki)), None)
        if chain is None:
            raise Refused("rev.bad-signature", f"{name}: its signature is not that of {chains[0][0].name}")
        old = self._store.crl_of(chain, crl)
        worse = freshness.rolls_back(self._store.mark_of(chain, crl), crl)
        if worse is None:
            worse = freshness.why_worse(old.crl if old is not None else None, crl, at, self._revocation.skew)
        if worse is not None:
            raise Refused(worse[0], f"{name}: {worse[1]}")
        self._store.store_crl(crl, chain, url, at, self._refresh_at(url, crl.this_update, crl.next_update, at))
        return old is None or old.crl.sha256 != crl.sha256

    def take_ocsp(self, name: str, blob: bytes, subjects: Sequence[Certificate], url: str) -> bool:
        """Store an OCSP answer about one of ``subjects`` as if it had been fetched from ``url``; otherwise as ``take_crl``."""
        at = self._clock.now()
        only = replace(self._revocation, order=Order.OCSP_ONLY)
        code, cause = "rev.no-evidence", "its certificate has no valid path to an anchor"
        for subject in subjects:
            path = build_path(subject, self._anchors, self._others, self._path_settings, at)
            if not isinstance(path, Path):
                continue
            question = question_for(subject, path.issuer_of(0))
            verdict = judge(question, (OcspEvidence(blob, url, at),), only, at)
            if verdict.status is not Status.UNKNOWN:
                kept = [e for e in self._store.evidence(question) if isinstance(e, OcspEvidence)]
                worse = freshness.why_worse_answer(judge(question, kept, only, at), verdict)
                if worse is not None:
                    raise Refused(worse[0], f"{name}: {worse[1]}")
                chain = path.certificates[1:] or (path.anchor.certificate,)
                planned = self._refresh_at(url, verdict.this_update or at, verdict.next_update, at)
                self._store.store_ocsp(question, chain, blob, url, at, planned or verdict.next_update or at,
                                       verdict.this_update, verdict.next_update)  # fmt: skip
                return all(e.der != blob for e in kept)
            code, cause = verdict.reason, verdict.detail or verdict.reason
        raise Refused(code, f"{name}: {cause}")

    def take_issuers(self, certificates: Sequence[Certificate], url: str) -> None:
        """Keep the CAs among ``certificates`` that lead to an anchor: without them a leaf may have no path here."""
        at = self._clock.now()
        known = {a.certificate for a in self._anchors} | set(self._configured)
        cas = [c for c in certificates if c not in known and certificate_facts(c.der).is_ca]
        found = [c for c in cas if self._chain_of(c, at)]
        if found:
            self._store.store_intermediates(found, url, at)

    def _refresh_at(
        self, url: str, this_update: datetime, next_update: datetime | None, at: datetime
    ) -> datetime | None:
        """CACHE-2: what has a URL is fetched again in time, by a node that fetches."""
        if not url.startswith(("http://", "https://")):
            return None
        return freshness.refresh_at(this_update, next_update, None, at, random.random)

    def _authorities(self, at: datetime) -> dict[NameKey, list[tuple[Certificate, ...]]]:
        """The path of everybody who may sign CRLs now, that certificate first, by its name. Looked for once."""
        if self._chains is None:
            self._chains = {}
            for certificate in (*(a.certificate for a in self._anchors), *self._others):
                chain = self._chain_of(certificate, at)
                # T-4, as for CRLs that are fetched.
                if chain and may_sign_crls(certificate):
                    self._chains.setdefault(name_key(certificate.subject), []).append(chain)
        return self._chains

    def _chain_of(self, certificate: Certificate, at: datetime) -> tuple[Certificate, ...]:
        """Its path to an anchor, itself first; empty if there is none."""
        if any(a.certificate == certificate for a in self._anchors):
            return (certificate,)
        # RFC 5280 §6.3.3 (f): who signs CRLs isn't asked whether it is for mail.
        settings = replace(self._path_settings, email_protection=False)
        path = build_path(certificate, self._anchors, self._others, settings, at)
        return path.certificates if isinstance(path, Path) else ()
