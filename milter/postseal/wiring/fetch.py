"""The object graph of fetching, for ``postseal lookup`` and ``postseal verify --online``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from postseal.config import Config
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard, Proxy


def build_fetcher(
    config: Config, *, networks: Sequence[str] = (), ports: Sequence[int] = (),
    counted: Callable[[int], object] = lambda octets: None,
) -> Fetcher:  # fmt: skip
    """With the limits of ``[lookup]``; ``networks`` and ``ports`` are admitted besides."""
    lookup = config.lookup
    proxy = None if lookup.proxy is None else Proxy(lookup.proxy.host, lookup.proxy.port, lookup.no_proxy)
    guard = Guard(
        ports=[*lookup.ports, *ports],
        allow_networks=[*map(str, lookup.allow_networks), *networks],
        nat64=[str(prefix) for prefix in lookup.nat64_prefixes],
        proxy=proxy,
    )
    return Fetcher(guard, user_agent=lookup.user_agent, counted=counted)
