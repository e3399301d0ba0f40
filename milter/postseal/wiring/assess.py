"""The part of the object graph that judges recipients; the milter and ``postseal check`` share it."""

from __future__ import annotations

from collections.abc import Callable

from postseal.app.assess import Assessor
from postseal.app.doubting import Doubting
from postseal.app.unfetched import Unfetched
from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.sources.directory import Directories
from postseal.sources.directory.folder import FolderDirectory
from postseal.sources.directory.store import CertificateStore
from postseal.sources.doubts import DoubtStore
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from postseal.sources.trust import FolderTrust
from postseal.wiring.revocation import build_revocation


def build_assessor(config: Config, clock: SystemClock, report: Callable[[str], None]) -> Assessor:
    """An assessor on the configured folders and stores. Opens databases: call it after a fork, not before.

    ``report`` is told once of each file that can't be used.
    """
    certificates = config.certificates
    store = CertificateStore(config.certificate_store)
    directories = Directories((FolderDirectory(certificates.directory, clock, report), store))
    evidence = EvidenceStore(config.evidence_directory, readonly=True, report=report)
    return Assessor(
        directory=directories,
        trust=FolderTrust(certificates.anchors, certificates.intermediates, clock, report, config.anchor_settings),
        evidence=evidence if config.lookup.fetch else Unfetched(evidence, clock),
        lookup=LookupClient(config.lookup_socket),
        path_settings=config.path_settings,
        revocation_settings=build_revocation(config),
        fetch_issuers=config.lookup.fetch_issuers,
        memory=store,
        x25519=config.sealing.x25519,
    )


def build_doubting(config: Config, tell: Callable[[str], None]) -> Doubting:
    """The memory of doubt as ``postseal check`` sees it: to read only."""
    settings = config.policy_settings
    return Doubting(DoubtStore(config.doubt_store, settings.give_up, readonly=True), settings, tell)
