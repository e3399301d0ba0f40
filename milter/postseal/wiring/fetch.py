"""The object graph of fetching, for ``postseal lookup`` and ``postseal verify --online``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from postseal.config import Config
from postseal.config.model import Lookup
from postseal.core.errors import ConfigError
from postseal.sources.exchange import Http
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard, Proxy


def build_fetcher(
    config: Config, *, networks: Sequence[str] = (), ports: Sequence[int] = (),
    counted: Callable[[int], object] = lambda octets: None,
) -> Http:  # fmt: skip
    """With the limits of ``[lookup]``; ``networks`` and ``ports`` are admitted besides. Raises ConfigError."""
    guard = build_guard(config, networks, ports)
    fetcher = Fetcher(guard, user_agent=config.lookup.user_agent, counted=counted)
    return _with_directories(fetcher, guard, config.lookup) if config.lookup.ldap else fetcher


def build_guard(config: Config, networks: Sequence[str] = (), ports: Sequence[int] = ()) -> Guard:
    """What may be connected to."""
    lookup = config.lookup
    proxy = None if lookup.proxy is None else Proxy(lookup.proxy.host, lookup.proxy.port, lookup.no_proxy)
    return Guard(
        ports=[*lookup.ports, *ports],
        allow_networks=[*map(str, lookup.allow_networks), *networks],
        nat64=[str(prefix) for prefix in lookup.nat64_prefixes],
        proxy=proxy,
    )


def _with_directories(fetcher: Fetcher, guard: Guard, lookup: Lookup) -> Http:
    try:
        # An extra: a library in C that most don't need.
        from postseal.sources.ldap import Directories, Server, WithDirectories
    except ImportError as exc:
        raise ConfigError(f"LDAP in [lookup] needs python-ldap (pip install postseal[ldap]): {exc}") from exc
    servers = [Server(server.host, server.port) for server in lookup.ldap_servers]
    nearest = None if lookup.ldap_default is None else Server(lookup.ldap_default.host, lookup.ldap_default.port)
    return WithDirectories(fetcher, Directories(guard, servers, nearest))
