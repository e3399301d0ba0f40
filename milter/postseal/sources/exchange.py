"""What fetches: the protocol of ``sources.fetch.Fetcher`` and of what is put around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from postseal.core.transfer import Transfer

Sink = Callable[[bytes], object]


class Http(Protocol):
    """Failures are values; nothing is raised."""

    def get(
        self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None
    ) -> Transfer: ...

    def get_to(
        self, url: str, sink: Sink, *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer: ...  # fmt: skip

    def post(self, url: str, body: bytes, *, content_type: str, max_size: int, deadline: float) -> Transfer: ...
