"""Fetching a CRL: who signed it, whether it may replace what is there, and where its deltas are.

The signer is the issuer of the certificates in question, another key of that CA, or whom a distribution point names as the
CRL issuer (CRL-2). Whoever it is needs a valid path to an anchor of its own before anything is stored (RFC 5280 §6.3.3 (f)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from postseal.app import freshness
from postseal.app.flights import Errand
from postseal.app.issuer_flight import MAX_CERTIFICATES, MAX_OCTETS
from postseal.app.landing import Failed, Landed
from postseal.app.lookup_ports import Http, Incoming, Store
from postseal.app.ports import Clock, TrustStore
from postseal.core.certificate_facts import certificate_facts
from postseal.core.certs import Certificate, load_certificates
from postseal.core.crl import Crl, signature_valid
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, crl_issuer_urls
from postseal.core.names import same_name
from postseal.core.path import PathFault, PathSettings, build_path
from postseal.core.revocation import RevocationSettings
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer

# PRE-7: certificates of one name that are tried as the signer of a CRL.
_MAX_SIGNERS = 8
_REST = timedelta(minutes=5)
LONGEST_DOWNLOAD = 1800.0
# Appointed signers of CRLs sign small ones; the library that reads the pointer wants all of it in memory.
_MAX_TO_ASK = 4 * 1024 * 1024


class CrlFlights:
    """Fetches CRLs for the lookup process. Safe for threads. Raises Unavailable when the store can't be used.

    ``then`` is told of every CRL that was stored, with the errand that brought it; ``once_more`` tells whether the host of a
    URL may be asked now, and counts it.
    """

    def __init__(
        self, store: Store, http: Http, trust: TrustStore, clock: Clock, path_settings: PathSettings,
        revocation: RevocationSettings, max_size: int, chance: Callable[[], float], warn: Callable[[str], None],
        then: Callable[[Errand, Crl], None] = lambda errand, crl: None, fetch_issuers: bool = False,
        once_more: Callable[[str], bool] = lambda url: True,
    ) -> None:  # fmt: skip
        self._store = store
        self._http = http
        self._trust = trust
        self._clock = clock
        # RFC 5280 §6.3.3 (f): who signs CRLs isn't asked whether it is for mail.
        self.path_settings = replace(path_settings, email_protection=False)
        self._skew = revocation.skew
        self._max_size = max_size
        self._chance = chance
        self._warn = warn
        self._then = then
        self._fetch_issuers = fetch_issuers
        self._once_more = once_more

    def fetch(self, errand: Errand, deadline: float) -> Landed | Failed:
        """One CRL, conditionally if it is here already. A large one may take longer as long as it keeps coming."""
        with self._store.incoming() as incoming:
            transfer = self._http.get_to(
                errand.url, incoming.take, max_size=self._max_size, deadline=deadline, until=deadline + LONGEST_DOWNLOAD,
                headers=self._conditions(errand),
            )  # fmt: skip
            return self._received(errand, transfer, incoming, deadline)

    def _received(self, errand: Errand, transfer: Transfer, incoming: Incoming, deadline: float) -> Landed | Failed:
        at = self._clock.now()
        if isinstance(transfer, FetchFailed):
            return Failed(transfer.why, transfer.detail, transfer.retry_after, transfer.host_fault)
        if isinstance(transfer, NotModified):
            # CACHE-1: the server's word only plans when to ask again.
            self._store.still_current(errand.url, at, at + freshness.after_304(transfer.max_age))
            return Landed(_REST)
        crl = incoming.crl(self._max_size)
        if isinstance(crl, tuple):
            return Failed(*crl)
        try:
            return self._accept(errand, crl, transfer, at, deadline)
        except BadData as exc:
            return Failed("rev.malformed", str(exc))

    def _conditions(self, errand: Errand) -> Mapping[str, str]:
        """Headers that save the body of a CRL that we have; none when we don't have it (any more)."""
        state = self._store.url_state(errand.url)
        if errand.question is not None:
            evidence = self._store.evidence(errand.question)
            if not any(isinstance(e, CrlEvidence) and e.url == errand.url for e in evidence):
                return {}
        headers = {"If-None-Match": state.etag, "If-Modified-Since": state.last_modified}
        return {name: value for name, value in headers.items() if value}

    def _accept(self, errand: Errand, crl: Crl, transfer: Fetched, at: datetime, deadline: float) -> Landed | Failed:
        """Store the CRL if its signer may sign it and it is better than what is there (CACHE-4)."""
        signer = self._signer(errand, crl, at, deadline)
        if isinstance(signer, Failed):
            return signer
        mark = self._store.mark_of(signer, crl)
        if freshness.number_used_twice(mark, crl):
            self._warn(f"{signer[0].name} used the CRL number {crl.number} twice, see {errand.url}")
        worse = freshness.rolls_back(mark, crl)
        if worse is None:
            old = self._store.crl_of(signer, crl)
            worse = freshness.why_worse(old.crl if old is not None else None, crl, at, self._skew)
        if worse:
            return Failed(*worse)
        refresh_at = freshness.refresh_at(crl.this_update, crl.next_update, transfer.max_age, at, self._chance)
        self._store.store_crl(
            crl, signer, errand.url, at, refresh_at, etag=transfer.etag, last_modified=transfer.last_modified
        )
        self._then(errand, crl)
        return Landed(freshness.rest(crl.this_update, crl.next_update))

    # ---- whose is it? -----------------------------------------------------------------------------------------------

    def _signer(self, errand: Errand, crl: Crl, at: datetime, deadline: float) -> tuple[Certificate, ...] | Failed:
        """The validated path of who signed the CRL, the signer first."""
        issuer = errand.chain[0]
        named = errand.question.crl_issuers if errand.question is not None else ()
        # CRL-2: also when the key fits. A CA that was renamed keeps its key, and the CRL of one name isn't that of the other.
        if not any(same_name(crl.issuer, name) for name in (issuer.subject, *named)):
            return Failed("rev.wrong-issuer", "the CRL is another issuer's", about=errand.subject)
        if same_name(crl.issuer, issuer.subject) and signature_valid(crl, issuer.spki):
            return errand.chain
        known = self._known(errand)
        chain = self._chain_of(crl, known, at)
        if chain is None and self._fetch_issuers and _of_another_key(crl, issuer):
            known = (*known, *self._signers_from(crl, deadline))
            chain = self._chain_of(crl, known, at)
        if chain is not None:
            return chain
        if same_name(crl.issuer, issuer.subject):
            return Failed("rev.bad-signature", "the CRL isn't signed by the issuer's key", about=errand.subject)
        if any(self._candidates(crl, known)):
            words = "the CRL isn't signed by a key of its issuer that is trusted"
            return Failed("rev.bad-signature", words, about=errand.subject)
        return Failed("rev.wrong-issuer", "the certificate of the CRL's issuer isn't known", about=errand.subject)

    def _chain_of(self, crl: Crl, known: Sequence[Certificate], at: datetime) -> tuple[Certificate, ...] | None:
        """PRE-7: the signer's own path to an anchor; whether anybody in it is revoked is judged with the CRL."""
        anchors = self._trust.anchors()
        for candidate in self._candidates(crl, known):
            if not signature_valid(crl, candidate.spki):
                continue
            if any(a.certificate == candidate for a in anchors):
                return (candidate,)
            path = build_path(candidate, anchors, known, self.path_settings, at)
            if not isinstance(path, PathFault):
                return path.certificates
        return None

    def _candidates(self, crl: Crl, known: Sequence[Certificate]) -> Iterator[Certificate]:
        """Known certificates in the CRL issuer's name whose keyUsage allows the signature (CRL-5)."""
        found = 0
        for certificate in dict.fromkeys(known):
            if not same_name(certificate.subject, crl.issuer):
                continue
            if not may_sign_crls(certificate):
                continue
            yield certificate
            found += 1
            if found == _MAX_SIGNERS:
                return

    def _known(self, errand: Errand) -> Sequence[Certificate]:
        anchors = (a.certificate for a in self._trust.anchors())
        asked = errand.question.chain if errand.question is not None else ()
        return (*errand.chain, *asked, *anchors, *self._trust.intermediates(), *self._store.intermediates())

    def _signers_from(self, crl: Crl, deadline: float) -> tuple[Certificate, ...]:
        """RFC 5280 §5.2.7: certificates from where the CRL says that of its signer is; hints like all others."""
        found: tuple[Certificate, ...] = ()
        for url in crl_issuer_urls(bytes(crl.der)) if len(crl.der) <= _MAX_TO_ASK else ():
            # THR-6: anybody on the way may have written these URLs, so they get no more than their host's share.
            if not self._once_more(url):
                continue
            transfer = self._http.get(url, max_size=MAX_OCTETS, deadline=deadline)
            if isinstance(transfer, Fetched):
                with suppress(BadData):
                    found += load_certificates(transfer.body, limit=MAX_CERTIFICATES)
        return found


def may_sign_crls(certificate: Certificate) -> bool:
    """T-4: a certificate that isn't for CRLs signs none, whatever name it has; who isn't a CA needs the explicit word."""
    facts = certificate_facts(certificate.der)
    return facts.may_sign_crls and (facts.key_usage is not None or facts.is_ca)


def _of_another_key(crl: Crl, issuer: Certificate) -> bool:
    """Does the CRL claim another key than the issuer's? One that merely looks forged must not have us fetch what it likes."""
    own = certificate_facts(issuer.der).key_id
    return not same_name(crl.issuer, issuer.subject) or (
        crl.authority_key_id is not None and own is not None and crl.authority_key_id != own
    )
