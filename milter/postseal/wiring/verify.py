"""The object graph of ``postseal verify --online``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from postseal.app.online import Online
from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.wiring.fetch import build_fetcher


def build_online(config: Config, at: datetime, *, networks: Sequence[str] = (), ports: Sequence[int] = ()) -> Online:
    """Fetching with the limits, ports and networks of ``[lookup]``; ``networks`` and ``ports`` are admitted besides."""
    lookup = config.lookup
    return Online(
        http=build_fetcher(config, networks=networks, ports=ports),
        monotonic=SystemClock().monotonic,
        at=at,
        request_seconds=lookup.request_timeout,
        crl_max_size=lookup.crl_max_size,
        ocsp_max_size=lookup.ocsp_max_size,
        ldap=lookup.ldap,
    )
