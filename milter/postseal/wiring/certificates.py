"""The store of recipients' certificates, for ``postseal cert``."""

from __future__ import annotations

from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.sources.directory.store import CertificateStore


def certificate_store(config: Config) -> tuple[CertificateStore, SystemClock]:
    """The configured store, and the clock that says at which time its certificates are judged."""
    clock = SystemClock()
    return CertificateStore(config.certificate_store, clock), clock
