"""What an HTTP exchange with a CRL server or OCSP responder ended in: values between fetching and the lookup use case."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete answer with status 200. ``max_age`` is what Cache-Control or Expires say, in seconds; None if nothing.

    ``streamed`` is the number of octets that went to the caller's sink; ``body`` is empty then.
    """

    url: str
    body: bytes = field(repr=False)
    etag: str = ""
    last_modified: str = ""
    max_age: float | None = None
    streamed: int | None = None


@dataclass(frozen=True, slots=True)
class NotModified:
    """Status 304: what we have is still current (RFC 9110 §15.4.5)."""

    url: str
    max_age: float | None = None


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """No answer. ``why`` is a ``rev.*`` code, ``detail`` the cause in words, ``retry_after`` seconds the server asked for.

    ``host_fault`` marks what speaks against the host as a whole (refused, silent, status 5xx), not only this URL.
    ``status`` is the HTTP status behind rev.http-status, else 0.
    """

    url: str
    why: str
    detail: str
    retry_after: float | None = None
    host_fault: bool = False
    status: int = 0


Transfer = Fetched | NotModified | FetchFailed
