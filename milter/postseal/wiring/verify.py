"""The object graph of ``postseal verify --online``."""

from __future__ import annotations

from datetime import datetime

from postseal.app.online import Online
from postseal.config import Config
from postseal.sources.clock import SystemClock
from postseal.wiring.fetch import build_fetcher


def build_online(config: Config, at: datetime) -> Online:
    """Fetching with the limits, ports and networks of ``[lookup]``."""
    lookup = config.lookup
    return Online(
        http=build_fetcher(config),
        monotonic=SystemClock().monotonic,
        at=at,
        request_seconds=lookup.request_timeout,
        crl_max_size=lookup.crl_max_size,
        ocsp_max_size=lookup.ocsp_max_size,
    )
