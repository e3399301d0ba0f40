"""HTTP for CRLs and OCSP: one exchange, one total deadline, one byte limit, no trust in the server (THR-1, THR-4, THR-5).

``requests`` limits single socket operations only; a server that sends a byte a second would hold it for hours. Here the
sockets themselves know when the whole exchange must be over: name resolution, connection, TLS, headers and body. They
connect to an address that ``sources.guard`` vetted and to no other, or to the proxy that the administrator named. No
redirects, cookies, credentials or content encodings; one connection per exchange. Failures are values (FetchFailed), never
exceptions.
"""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from postseal.core.errors import BadData
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer
from postseal.sources.clock import SystemClock
from postseal.sources.exchange import Sink
from postseal.sources.guard import Guard, Target, open_connection

_CHUNK = 64 * 1024
_MAX_RETRY_AFTER = 24 * 3600.0
# THR-5: octets a second that a long download must bring to be given more time.
MIN_RATE = 64 * 1024
_CRUMB = 1024
_HEADER = re.compile(r"[ -~]{0,1024}\Z")


class _Exchange(threading.local):
    """What the sockets of the exchange that this thread runs need to know; urllib3 leaves no other way to tell them."""

    deadline: float = 0.0
    monotonic: Callable[[], float] = SystemClock().monotonic
    target: Target | None = None

    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError when it is over."""
        left = self.deadline - self.monotonic()
        if left <= 0:
            raise TimeoutError("deadline")
        return left


_exchange = _Exchange()


class _ProxyUnreachable(OSError):
    """No connection to the proxy: not the fault of the host that was asked for."""


class _Deadline:
    """For a class of sockets: every operation ends at the exchange's deadline."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        return self._in_time().recv_into(*args, **kwargs)  # type: ignore[no-any-return]

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        return self._in_time().recv(*args, **kwargs)  # type: ignore[no-any-return]

    def send(self, *args: Any, **kwargs: Any) -> int:
        return self._in_time().send(*args, **kwargs)  # type: ignore[no-any-return]

    def _in_time(self) -> Any:
        """The class below, with the time that is left as its time limit."""
        below: Any = super()
        self.settimeout(_exchange.left())  # type: ignore[attr-defined]
        return below


class _DeadlineSocket(_Deadline, socket.socket):
    """A plain socket that knows the deadline."""

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        # Python gives sendall one timeout for all of its parts, so this one needs no loop.
        self._in_time().sendall(*args, **kwargs)


class _DeadlineTLSSocket(_Deadline, ssl.SSLSocket):
    """The same for TLS, whose sendall calls send; the handshake is one operation for Python."""

    def do_handshake(self, block: bool = False) -> None:
        self._in_time().do_handshake(block)


def _connect() -> socket.socket:
    target = _exchange.target
    assert target is not None, "connections are made inside an exchange only"
    try:
        return open_connection(target, _exchange.left, _DeadlineSocket)
    except OSError as exc:
        if target.proxy is not None:
            raise _ProxyUnreachable(exc.errno, exc.strerror or str(exc)) from exc
        raise


class _VettedHTTP(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect()


class _VettedHTTPS(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect()


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _VettedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _VettedHTTPS


class _Adapter(HTTPAdapter):
    """An adapter for one exchange: its pool never hands an old connection to a newly vetted name."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._tls is not None and host.get("scheme") == "https":
            # CRL-29: the server is checked against the system's trust, without revocation, so nothing recurses.
            pool = {"ssl_context": self._tls, "cert_reqs": "CERT_REQUIRED"}
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """requests would load its own bundle of CAs into our context; the context is complete as it is."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One request and what becomes of its body: ``sink`` takes it piece by piece, at the latest until ``until``."""

    method: str
    url: str
    max_size: int
    deadline: float
    headers: Mapping[str, str]
    body: bytes | None = None
    sink: Sink | None = None
    until: float = 0.0


class _SinkError(Exception):
    """What a sink raised; not to be taken for a fault of the network."""


class Fetcher:
    """Makes exchanges; safe to use from several threads. ``tls`` replaces the system's trust (for an internal CA).

    ``counted`` hears of the octets of bodies as they come.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        user_agent: str,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        monotonic: Callable[[], float] | None = None,
        counted: Callable[[int], object] = lambda octets: None,
    ) -> None:
        self._counted = counted
        self._guard = guard
        self._user_agent = user_agent
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = threading.Lock()
        self._monotonic = monotonic or SystemClock().monotonic

    def get(self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None) -> Transfer:
        """GET ``url``. ``deadline`` is a point of the monotonic clock; ``headers`` may make the request conditional."""
        return self._run(_Request("GET", url, max_size, deadline, headers or {}))

    def get_to(
        self, url: str, sink: Sink, *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer:  # fmt: skip
        """GET ``url`` and give its body to ``sink`` in pieces, for what is too large to be held in memory.

        Name, connection and head of the answer are due at ``deadline``. A body that comes at MIN_RATE or faster may go on
        until ``until``. The sink may have got pieces when the outcome is a failure. It may refuse the rest by raising
        BadData (the failure is ``rev.malformed``) or OSError (``rev.store-unavailable``).
        """
        return self._run(_Request("GET", url, max_size, deadline, headers or {}, sink=sink, until=until))

    def post(self, url: str, body: bytes, *, content_type: str, max_size: int, deadline: float) -> Transfer:
        """POST ``body`` to ``url``."""
        return self._run(_Request("POST", url, max_size, deadline, {"Content-Type": content_type}, body))

    def _run(self, request: _Request) -> Transfer:
        target = self._guard.vet(request.url, request.deadline - self._monotonic())
        if isinstance(target, FetchFailed):
            return target
        _exchange.deadline, _exchange.monotonic, _exchange.target = request.deadline, self._monotonic, target
        try:
            with requests.Session() as session:
                return self._exchange(session, target, request)
        except Exception as exc:
            # RPL-3: whatever a hostile server provokes in the libraries below is a failed fetch.
            return _failure(request.url, exc)
        finally:
            _exchange.target = None

    def _exchange(self, session: requests.Session, target: Target, request: _Request) -> Transfer:
        # THR-1: no proxy, .netrc or CA bundle of the environment, no cookies kept, no credentials.
        session.trust_env = False
        session.mount(f"{target.scheme}://", _Adapter(self._shared_tls() if target.scheme == "https" else None))
        session.headers.clear()
        # THR-4: identity only, so that a few bytes can't become many. THR-26: our own name, not that of a library.
        session.headers.update(
            {"User-Agent": self._user_agent, "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
        )
        response = session.request(
            request.method, target.url, data=request.body, headers=dict(request.headers), stream=True,
            allow_redirects=False, timeout=_exchange.left(),
            proxies={target.scheme: target.proxy.url} if target.proxy is not None else {},
        )  # fmt: skip
        with response:
            refused = _refused(target.url, response, request.max_size)
            if refused is not None:
                return refused
            if response.status_code == 304:
                return NotModified(target.url, _max_age(response.headers))
            return _read(response, request, self._counted)

    def _shared_tls(self) -> ssl.SSLContext:
        # Measured: a context with the system's CAs takes 39 ms and 812 KB to make.
        with self._tls_lock:
            if self._tls is None:
                self._tls = self._make_tls()
                self._tls.sslsocket_class = _DeadlineTLSSocket
            return self._tls


def _refused(url: str, response: requests.Response, max_size: int) -> FetchFailed | None:
    """Why this answer isn't read at all. CRL-30: only status 200 carries evidence."""
    status = response.status_code
    if status not in (200, 304):
        where = response.headers.get("Location", "")
        detail = f"HTTP status {status}" + (f" (redirect to {_shown(where)} not followed)" if where else "")
        at_fault = status >= 500 or status == 429
        return FetchFailed(url, "rev.http-status", detail, _retry_after(response.headers), at_fault, status)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        return FetchFailed(url, "rev.malformed", f"the answer has the content encoding {_shown(encoding)}")
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared[:20]) > max_size:
        return FetchFailed(url, "rev.too-large", f"the answer has {_shown(declared)} bytes, the limit is {max_size}")
    return None


def _read(response: requests.Response, request: _Request, counted: Callable[[int], object]) -> Transfer:
    received = bytearray()
    sink = received.extend if request.sink is None else _guarded(request.sink)
    started, count, earned = _exchange.monotonic(), 0, 0
    for chunk in response.raw.stream(_CHUNK, decode_content=False):
        count += len(chunk)
        counted(len(chunk))
        if count > request.max_size:
            return FetchFailed(request.url, "rev.too-large", f"the answer has more than {request.max_size} bytes")
        sink(chunk)
        # A body that keeps coming earns its time: as much as it would have taken at the slowest rate. Crumbs earn none, since
        # a chunk of one octet takes as long to read as one of a thousand.
        earned += len(chunk) if len(chunk) >= _CRUMB else 0
        _exchange.deadline = max(request.deadline, min(request.until, started + earned / MIN_RATE))
    headers = response.headers
    return Fetched(
        request.url, bytes(received), _kept(headers, "ETag"), _kept(headers, "Last-Modified"), _max_age(headers),
        None if request.sink is None else count,
    )  # fmt: skip


def _guarded(sink: Sink) -> Sink:
    def guarded(chunk: bytes) -> None:
        try:
            sink(chunk)
        except Exception as exc:
            raise _SinkError from exc

    return guarded


def _failure(url: str, exc: BaseException) -> FetchFailed:
    """The reason behind what requests raised: its exceptions wrap those of urllib3, which wrap those of the socket."""
    if isinstance(exc, _SinkError):
        return _sink_failure(url, exc.__cause__)
    causes = list(_causes(exc))
    for cause in causes:
        if isinstance(cause, _ProxyUnreachable):
            return FetchFailed(url, "rev.unreachable", f"the proxy can't be reached: {(cause.strerror or '').lower()}")
        if isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed: "):
            # RFC 9110 §9.3.6: any answer to CONNECT but 2xx. Above 500 the proxy speaks of the host, below of itself.
            said = _shown(str(cause).removeprefix("Tunnel connection failed: ").replace(" ", "_")).replace("_", " ")
            return FetchFailed(
                url, "rev.unreachable", f"the proxy refuses to connect: {said}", host_fault=said.startswith("5")
            )
    for cause in causes:
        if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
            return FetchFailed(url, "rev.timeout", "no complete answer in time", host_fault=True)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            detail = f"the server's TLS certificate is not valid: {cause.verify_message}"
            return FetchFailed(url, "rev.unreachable", detail, host_fault=True)
        if isinstance(cause, ssl.SSLError):
            return FetchFailed(url, "rev.unreachable", f"TLS failed: {cause.reason or cause}", host_fault=True)
        if isinstance(cause, OSError) and cause.errno is not None:
            detail = (cause.strerror or str(cause)).lower()
            return FetchFailed(url, "rev.unreachable", detail, host_fault=True)
    if any(isinstance(c, http.client.RemoteDisconnected) for c in causes):
        return FetchFailed(
            url, "rev.unreachable", "the server closed the connection without an answer", host_fault=True
        )
    incomplete = (http.client.IncompleteRead, urllib3.exceptions.IncompleteRead, urllib3.exceptions.InvalidChunkLength)
    if any(isinstance(c, incomplete) or "InvalidChunkLength" in str(c) for c in causes):
        # CRL-30: what is cut short is no answer.
        return FetchFailed(url, "rev.malformed", "the answer is incomplete")
    return FetchFailed(url, "rev.malformed", f"not a proper HTTP answer ({type(causes[-1]).__name__})")


def _sink_failure(url: str, cause: BaseException | None) -> FetchFailed:
    if isinstance(cause, OSError):
        return FetchFailed(url, "rev.store-unavailable", f"the answer can't be stored: {cause.strerror or cause}")
    return FetchFailed(url, "rev.malformed", str(cause) if isinstance(cause, BadData) else type(cause).__name__)


def _causes(exc: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    queue: list[BaseException | None] = [exc]
    while queue and len(found) < 30:
        one = queue.pop(0)
        if one is None or one in found:
            continue
        found.append(one)
        queue += [one.__cause__, one.__context__, getattr(one, "reason", None)]
        queue += [a for a in one.args if isinstance(a, BaseException)]
        queue = [q for q in queue if isinstance(q, BaseException)]
    return found


def _kept(headers: Mapping[str, str], name: str) -> str:
    """A validator to send back later; dropped when it isn't a plain short line."""
    value = headers.get(name, "")
    return value if _HEADER.match(value) else ""


def _shown(text: str) -> str:
    """Hostile text for a sentence: printable ASCII, short."""
    return "".join(c if "!" <= c <= "~" else "?" for c in text[:120])


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds (RFC 9110 §10.2.3): a number, or a date that is compared with the answer's own Date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return min(float(value[:9]), _MAX_RETRY_AFTER)
    return _between(headers.get("Date", ""), value)


def _max_age(headers: Mapping[str, str]) -> float | None:
    """How long the server calls the answer fresh, in seconds (RFC 9111 §4.2.1); None when it doesn't say."""
    directives = headers.get("Cache-Control", "").lower()
    if re.search(r"\bno-(cache|store)\b", directives):
        return 0.0
    found = re.search(r"\bmax-age\s*=\s*\"?(\d{1,10})", directives)
    if found:
        return float(found[1])
    return _between(headers.get("Date", ""), headers.get("Expires", ""))


def _between(start: str, end: str) -> float | None:
    try:
        seconds = (email.utils.parsedate_to_datetime(end) - email.utils.parsedate_to_datetime(start)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, seconds), 400 * 24 * 3600.0)
