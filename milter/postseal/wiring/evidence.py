"""The object graph of ``postseal evidence``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from postseal.app.imports import Importer
from postseal.config import Config
from postseal.core.certs import Certificate
from postseal.sources.clock import SystemClock
from postseal.sources.folder import WatchedFolder
from postseal.wiring.lookup import build_store, build_trust
from postseal.wiring.revocation import build_revocation


def build_bundle_signers(config: Config, warn: Callable[[str], None]) -> tuple[Certificate, ...]:
    """The certificates of those whose bundles are taken; none while there is no such folder."""
    folder = WatchedFolder(config.certificates.bundle_signers, SystemClock(), warn, optional=True)
    folder.refresh()
    return tuple(dict.fromkeys(c for some in folder.certificates().values() for c in some))


def build_importer(
    config: Config, subjects: Sequence[Certificate], warn: Callable[[str], None], more: Sequence[Certificate] = ()
) -> Importer:
    """An importer that knows the configured anchors and intermediates, every CA of which there is evidence, and ``more``."""
    store = build_store(config, warn)
    return Importer(
        store=store,
        trust=build_trust(config, warn),
        known=(*more, *store.intermediates(), *(c for entry in store.entries() for c in entry.chain)),
        subjects=subjects,
        clock=SystemClock(),
        path_settings=config.path_settings,
        revocation=build_revocation(config),
        crl_max_size=config.lookup.crl_max_size,
    )
