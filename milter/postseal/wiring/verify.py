"""The object graph of ``postseal verify --online``."""

from __future__ import annotations

from datetime import datetime

from postseal.app.online import Online
from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard


def build_online(config: Config, at: datetime) -> Online:
    """Fetching with the limits, ports and networks of ``[lookup]``."""
    lookup = config.lookup
    guard = Guard(ports=lookup.ports, allow_networks=[str(network) for network in lookup.allow_networks])
    return Online(
        http=Fetcher(guard, user_agent=lookup.user_agent),
        monotonic=SystemClock().monotonic,
        at=at,
        request_seconds=lookup.request_timeout,
        crl_max_size=lookup.crl_max_size,
        ocsp_max_size=lookup.ocsp_max_size,
    )
