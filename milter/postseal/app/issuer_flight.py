"""Fetching the certificate of an issuer that isn't known (AIA caIssuers, RFC 5280 §4.2.2.1).

The one exception to PRE-1: the URL is that of a certificate which isn't validated yet. So this is only for certificates that
an administrator or a directory gave us, and can be switched off. What comes back is kept only if it completes a valid path to
an anchor, and then only helps to build paths; it is never an anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from postseal.app.flights import Errand
from postseal.app.landing import Failed, Landed
from postseal.app.lookup_ports import Http, Store
from postseal.app.ports import Clock, TrustStore
from postseal.core.certs import Certificate, load_certificates
from postseal.core.errors import BadData
from postseal.core.evidence import issuer_urls
from postseal.core.path import PathFault, PathSettings, build_path
from postseal.core.transfer import FetchFailed, NotModified

# THR-1, THR-4: requests for one certificate, octets of one answer, certificates in it.
REQUESTS = 3
MAX_OCTETS = 256 * 1024
MAX_CERTIFICATES = 20
_REST = timedelta(hours=1)


class IssuerFlights:
    """Fetches issuers for the lookup process. Safe for threads. Raises Unavailable when the store can't be used."""

    def __init__(
        self, store: Store, http: Http, trust: TrustStore, clock: Clock, path_settings: PathSettings,
        once_more: Callable[[str], bool] = lambda url: True,
    ) -> None:  # fmt: skip
        self._store = store
        self._http = http
        self._trust = trust
        self._clock = clock
        self._path_settings = path_settings
        self._once_more = once_more

    def fault(self, certificate: Certificate, more: tuple[Certificate, ...] = ()) -> PathFault | None:
        """Why ``certificate`` has no valid path with what is known; None when it has one."""
        others = (*more, *self._trust.intermediates(), *self._store.intermediates())
        path = build_path(certificate, self._trust.anchors(), others, self._path_settings, self._clock.now())
        return path if isinstance(path, PathFault) else None

    def fetch(self, errand: Errand, deadline: float) -> Landed | Failed:
        """Follow the URLs upwards from one certificate until an anchor is reached; each URL once, three at the most."""
        lowest, url = errand.chain[0], errand.url
        found: tuple[Certificate, ...] = ()
        asked: set[str] = set()
        about = ""
        while url and len(asked) < REQUESTS:
            # THR-6: the first was counted when the flight started.
            if asked and not self._once_more(url):
                return Failed(
                    "rev.budget", "too many requests to the host of the next issuer", about=lowest.fingerprint
                )
            asked.add(url)
            more = self._get(url, deadline)
            if isinstance(more, Failed):
                return more
            found += more
            fault = self.fault(lowest, found)
            if fault is None:
                return self._keep(lowest, found, errand.url)
            missing = fault.certificate or lowest
            # What doesn't fit this one certificate may fit others; what fits and leads nowhere does so for all of them.
            about = lowest.fingerprint if missing == lowest else ""
            if fault.code != "path.no-issuer" or missing not in (lowest, *found):
                words = f"no valid path with the certificate from there: {fault.detail or fault.code}"
                return Failed("rev.malformed", words, about=about)
            url = next((u for u in issuer_urls(missing) if u not in asked), "")
        return Failed("rev.malformed", "the certificates from there lead to no trust anchor", about=about)

    def _get(self, url: str, deadline: float) -> tuple[Certificate, ...] | Failed:
        transfer = self._http.get(url, max_size=MAX_OCTETS, deadline=deadline)
        if isinstance(transfer, FetchFailed):
            return Failed(transfer.why, transfer.detail, transfer.retry_after, transfer.host_fault)
        if isinstance(transfer, NotModified):
            return Failed("rev.http-status", "HTTP status 304 to a request without conditions")
        try:
            return load_certificates(transfer.body, limit=MAX_CERTIFICATES)
        except BadData as exc:
            return Failed("rev.malformed", str(exc))

    def _keep(self, lowest: Certificate, found: tuple[Certificate, ...], url: str) -> Landed:
        """Store those that the path needs, no others."""
        others = (*found, *self._trust.intermediates(), *self._store.intermediates())
        path = build_path(lowest, self._trust.anchors(), others, self._path_settings, self._clock.now())
        needed = [] if isinstance(path, PathFault) else [c for c in path.certificates[1:] if c in found]
        anchors = {a.certificate for a in self._trust.anchors()}
        needed = [c for c in needed if c not in anchors]
        self._store.store_intermediates(needed, url, self._clock.now())
        return Landed(_REST)
