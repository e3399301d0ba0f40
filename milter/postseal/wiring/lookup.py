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
from postseal.sources.trust import FolderTrust
from postseal.wiring.fetch import build_fetcher

Warn = Callable[[str], None]


def build_store(config: Config, warn: Warn, crls: Callable[[Path], CrlFiles] = CrlFiles) -> EvidenceStore:
    """The evidence store, for writing. Raises Unavailable or CannotCreate."""
    return EvidenceStore(config.evidence_directory, readonly=False, report=warn, crls=crls)


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
    config: Config, store: EvidenceStore, confinement: Confinement, warn: Warn, meter: LookupMeter = NO_METER
) -> Lookups:
    """The fetching use case on ``store``."""
    lookup = config.lookup
    return Lookups(
        store=store,
        http=ConfinedHttp(build_fetcher(config, counted=meter.received), confinement),
        trust=build_trust(config, warn),
        clock=SystemClock(),
        path_settings=config.path_settings,
        revocation=config.revocation_settings,
        settings=LookupSettings(
            request_timeout=lookup.request_timeout,
            crl_max_size=lookup.crl_max_size,
            ocsp_max_size=lookup.ocsp_max_size,
            concurrency=lookup.concurrency,
        ),
        warn=warn,
        meter=meter,
    )
