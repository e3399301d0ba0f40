"""The object graph of ``postseal lookup``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from postseal.app.lookup import Lookups, LookupSettings
from postseal.app.metering import NO_METER, LookupMeter
from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.sources.confine import ConfinedHttp, Confinement
from postseal.sources.crl_confined import ConfinedCrls
from postseal.sources.crl_files import CrlFiles
from postseal.sources.evidence import EvidenceStore
from postseal.sources.evidence_upkeep import Limits
from postseal.sources.trust import FolderTrust
from postseal.wiring.fetch import build_fetcher
from postseal.wiring.revocation import build_revocation

Warn = Callable[[str], None]


def build_store(config: Config, warn: Warn, crls: Callable[[Path], CrlFiles] = CrlFiles) -> EvidenceStore:
    """The evidence store, for writing. Raises Unavailable or CannotCreate."""
    limits = Limits(octets=config.lookup.store_max_size)
    return EvidenceStore(config.evidence_directory, readonly=False, report=warn, crls=crls, limits=limits)


def build_trust(config: Config, warn: Warn) -> FolderTrust:
    """Anchors and intermediates as configured."""
    certificates, settings = config.certificates, config.anchor_settings
    return FolderTrust(certificates.anchors, certificates.intermediates, SystemClock(), warn, settings)


def build_confinement() -> Confinement:
    """The helper processes that read what was fetched; they outlive a change of configuration."""
    return Confinement()


def build_crls(confinement: Confinement) -> ConfinedCrls:
    """What keeps the files with CRLs: strangers' octets are read and indexed by helpers."""
    return ConfinedCrls(confinement, Confinement(helpers=1))


def build_lookups(
    config: Config, store: EvidenceStore, confinement: Confinement, warn: Warn, meter: LookupMeter = NO_METER,
    alarm: Warn | None = None,
) -> Lookups:  # fmt: skip
    """The fetching use case on ``store``. ``alarm`` hears what is an error rather than a warning."""
    lookup = config.lookup
    return Lookups(
        store=store,
        http=ConfinedHttp(build_fetcher(config, counted=meter.received), confinement),
        trust=build_trust(config, warn),
        clock=SystemClock(),
        path_settings=config.path_settings,
        revocation=build_revocation(config),
        settings=LookupSettings(
            request_timeout=lookup.request_timeout,
            crl_max_size=lookup.crl_max_size,
            ocsp_max_size=lookup.ocsp_max_size,
            concurrency=lookup.concurrency,
            requests_per_message=lookup.requests_per_message,
            host_concurrency=lookup.requests_per_host,
            host_requests_per_minute=lookup.requests_per_minute,
            octets_per_day=lookup.traffic_per_day,
            fetch_issuers=lookup.fetch_issuers,
        ),
        warn=warn,
        meter=meter,
        alarm=alarm,
    )
