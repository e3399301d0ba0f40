"""CRLs from directories (CRL-28): what a certificate names is asked of servers that the administrator listed, and no other.

One anonymous search in the scope of one entry for one attribute, over LDAP version 3 without TLS: a CRL is signed. Nothing of
the certificate's text becomes a filter, and referrals aren't followed. libldap has no deadline for a server that sends half
a message and no limit on what it sends, so it talks to a socket of ours; a thread carries the octets, counts them and looks
at the clock. Needs python-ldap (the extra ``ldap``).
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

# libldap would read the system's ldap.conf and the environment: URIs, TLS and referrals of somebody else.
os.environ["LDAPNOINIT"] = "1"

import ldap
import ldap.dn

from postseal.core.errors import BadData
from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.clock import SystemClock
from postseal.sources.exchange import Http, Sink
from postseal.sources.guard import MAX_URL, Guard, Target, open_connection

DEFAULT_PORT = 389
# RFC 4523 §2.8 to §2.10: CRLs, and those of CAs alone; values are only to be had with ;binary.
_ATTRIBUTES = {
    name.lower(): f"{name};binary"
    for name in ("certificateRevocationList", "authorityRevocationList", "deltaRevocationList")
}
# Around the value: entry name, attribute name, results.
_OVERHEAD = 16 * 1024
_PIECE = 64 * 1024


class Server(NamedTuple):
    """One that may be asked."""

    host: str
    port: int = DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Place:
    """Where a CRL is in a directory. ``server`` None: in the one that is nearest (RFC 4516 §2)."""

    server: Server | None
    dn: str
    attribute: str


def parse_url(url: str) -> Place | str:
    """RFC 4516 §2, or why the URL isn't followed."""
    if len(url) > MAX_URL or not all("!" <= c <= "~" for c in url) or "\\" in url or "#" in url:
        return "the URL is too long or contains a character that is not allowed"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or DEFAULT_PORT
        dn = unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError:
        return "the URL can't be parsed"
    if parts.scheme != "ldap" or "@" in parts.netloc:
        return "the URL isn't ldap://HOST/DN?ATTRIBUTE"
    attributes, scope, _, extensions = [*parts.query.split("?"), "", "", ""][:4]
    # RFC 5280 §4.2.1.13: a DN and a single attribute description. The filter that some CAs write changes nothing.
    if "!" in extensions or scope.lower() not in ("", "base"):
        return "the URL asks for more than one entry, or for an extension"
    name, _, option = attributes.lower().partition(";")
    if name not in _ATTRIBUTES or option not in ("", "binary"):
        return "the URL doesn't ask for one of certificateRevocationList, authorityRevocationList, deltaRevocationList"
    if not dn or not dn.isprintable() or not ldap.dn.is_dn(dn):
        return "the URL has no distinguished name"
    return Place(Server(host, port) if host else None, dn, _ATTRIBUTES[name])


class Directories:
    """Answers ldap: URLs; safe to use from several threads. ``nearest`` is asked for URLs without a host."""

    def __init__(
        self, guard: Guard, servers: Sequence[Server], nearest: Server | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self._guard = guard
        self._servers = frozenset(_plain(server) for server in servers)
        self._nearest = nearest
        self._monotonic = monotonic or SystemClock().monotonic

    def get(self, url: str, *, max_size: int, deadline: float) -> Transfer:
        """The first value of the attribute that ``url`` names. Never raises."""
        place = parse_url(url)
        if isinstance(place, str):
            return FetchFailed(url, "rev.blocked-by-guard", place)
        server = place.server or self._nearest
        if server is None:
            # CRL-28: in its own network the CA means the domain's directory; here there is none.
            return FetchFailed(url, "rev.unsupported", "the URL names no host (ldap_default in [lookup] can say which)")
        if place.server is not None and _plain(server) not in self._servers:
            words = f"{server.host}:{server.port} is not one of ldap_servers in [lookup]"
            return FetchFailed(url, "rev.blocked-by-guard", words)
        target = self._guard.resolve(url, "ldap", server.host, server.port, deadline - self._monotonic())
        if isinstance(target, FetchFailed):
            return target
        try:
            return self._ask(url, target, place, max_size, deadline)
        except Exception as exc:
            # RPL-3: whatever a hostile server provokes in the library is a failed fetch.
            return FetchFailed(url, "rev.malformed", f"not a proper LDAP answer ({type(exc).__name__})")

    def _ask(self, url: str, target: Target, place: Place, max_size: int, deadline: float) -> Transfer:
        def left() -> float:
            seconds = deadline - self._monotonic()
            if seconds <= 0:
                raise TimeoutError("deadline")
            return seconds

        try:
            outside = open_connection(target, left)
        except TimeoutError:
            return FetchFailed(url, "rev.timeout", "no connection in time", host_fault=True)
        except OSError as exc:
            return FetchFailed(url, "rev.unreachable", (exc.strerror or str(exc)).lower(), host_fault=True)
        inside, ours = socket.socketpair()
        carrier = _Carrier(outside, ours, max_size + _OVERHEAD, left)
        carrier.start()
        try:
            value = _search(inside, target, place, left)
        except ldap.LDAPError as exc:
            return carrier.failure(url, max_size) or _failure(url, exc)
        except TimeoutError:
            return FetchFailed(url, "rev.timeout", "no complete answer in time", host_fault=True)
        finally:
            carrier.stop()
        if value is None:
            return FetchFailed(url, "rev.directory-error", f"the entry has no {place.attribute}")
        if len(value) > max_size:
            return FetchFailed(url, "rev.too-large", f"the answer has more than {max_size} bytes")
        return Fetched(url, value)


class _Carrier(threading.Thread):
    """Carries octets between the server and libldap until either closes, the limit is reached, or time is over."""

    def __init__(self, outside: socket.socket, ours: socket.socket, limit: int, left: Callable[[], float]) -> None:
        super().__init__(name="ldap", daemon=True)
        self._outside, self._ours, self._limit, self._left = outside, ours, limit, left
        self._why = ""

    def run(self) -> None:
        with self._outside, self._ours, selectors.DefaultSelector() as ready:
            ready.register(self._outside, selectors.EVENT_READ, self._ours)
            ready.register(self._ours, selectors.EVENT_READ, self._outside)
            try:
                while self._carry(ready):
                    pass
            except TimeoutError:
                self._why = "rev.timeout"
            except OSError:
                self._why = "rev.unreachable"

    def _carry(self, ready: selectors.BaseSelector) -> bool:
        for key, _ in ready.select(self._left()):
            one: Any = key.fileobj
            data = one.recv(_PIECE)
            if not data:
                return False
            if one is self._outside:
                self._limit -= len(data)
                if self._limit < 0:
                    self._why = "rev.too-large"
                    return False
            key.data.settimeout(self._left())
            key.data.sendall(data)
        return True

    def failure(self, url: str, max_size: int) -> FetchFailed | None:
        """What broke the conversation, if it was this side."""
        words = {
            "rev.timeout": "no complete answer in time",
            "rev.too-large": f"the answer has more than {max_size} bytes",
            "rev.unreachable": "the connection broke",
        }
        if not self._why:
            return None
        return FetchFailed(url, self._why, words[self._why], host_fault=self._why != "rev.too-large")

    def stop(self) -> None:
        for end in (self._outside, self._ours):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.join()


def _search(inside: socket.socket, target: Target, place: Place, left: Callable[[], float]) -> bytes | None:
    # It owns the descriptor from here on. The address is a literal: libldap resolves nothing.
    connection = ldap.initialize(f"ldap://{_literal(target.addresses[0])}:{target.port}", fileno=inside.detach())
    try:
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
        connection.set_option(ldap.OPT_REFERRALS, ldap.OPT_OFF)
        connection.set_option(ldap.OPT_DEREF, ldap.DEREF_NEVER)
        connection.set_option(ldap.OPT_RESTART, ldap.OPT_OFF)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, left())
        # RFC 4513 §5.1.1: anonymous.
        _result(connection, connection.simple_bind("", ""), left)
        number = connection.search_ext(
            place.dn, ldap.SCOPE_BASE, "(objectClass=*)", [place.attribute], timeout=max(1, int(left())), sizelimit=1
        )
        return _value(_result(connection, number, left), place.attribute)
    finally:
        with contextlib.suppress(ldap.LDAPError):
            connection.unbind()


def _result(connection: Any, number: int, left: Callable[[], float]) -> Sequence[tuple[str | None, Any]]:
    _, data, _, _ = connection.result3(number, all=1, timeout=left())
    return data or ()


def _value(data: Sequence[tuple[str | None, Any]], attribute: str) -> bytes | None:
    for dn, attributes in data:
        # A reference to another directory has no name (RFC 4511 §4.5.3).
        if dn is not None and isinstance(attributes, Mapping):
            values = next((v for k, v in attributes.items() if k.lower() == attribute.lower()), ())
            if values:
                return bytes(values[0])
    return None


def _failure(url: str, exc: ldap.LDAPError) -> FetchFailed:
    if isinstance(exc, ldap.TIMEOUT | ldap.TIMELIMIT_EXCEEDED):
        return FetchFailed(url, "rev.timeout", "no complete answer in time", host_fault=True)
    if isinstance(exc, ldap.SERVER_DOWN | ldap.CONNECT_ERROR):
        return FetchFailed(url, "rev.unreachable", "the server closed the connection", host_fault=True)
    if isinstance(exc, ldap.DECODING_ERROR | ldap.PROTOCOL_ERROR):
        return FetchFailed(url, "rev.malformed", "not a proper LDAP answer")
    if isinstance(exc, ldap.REFERRAL | ldap.PARTIAL_RESULTS):
        return FetchFailed(url, "rev.directory-error", "the directory refers to another one, which isn't followed")
    told = exc.args[0].get("desc", "") if exc.args and isinstance(exc.args[0], Mapping) else ""
    words = re.sub(r"[^ -~]", "?", str(told))[:100] or type(exc).__name__
    busy = isinstance(exc, ldap.BUSY | ldap.UNAVAILABLE)
    return FetchFailed(url, "rev.directory-error", f"the directory says: {words}", host_fault=busy)


def _plain(server: Server) -> Server:
    return Server(server.host.lower().rstrip("."), server.port)


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class WithDirectories:
    """The HTTP client that it is given, which answers ldap: URLs too."""

    def __init__(self, http: Http, directories: Directories) -> None:
        self._http = http
        self._directories = directories
        self.post = http.post

    def get(self, url: str, *, max_size: int, deadline: float, headers: Mapping[str, str] | None = None) -> Transfer:
        if _is_ldap(url):
            return self._directories.get(url, max_size=max_size, deadline=deadline)
        return self._http.get(url, max_size=max_size, deadline=deadline, headers=headers)

    def get_to(
        self, url: str, sink: Sink, *, max_size: int, deadline: float, until: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Transfer:  # fmt: skip
        if not _is_ldap(url):
            return self._http.get_to(url, sink, max_size=max_size, deadline=deadline, until=until, headers=headers)
        # A directory gets no more time: its answer comes in one piece, and how fast it comes isn't seen here.
        answer = self._directories.get(url, max_size=max_size, deadline=deadline)
        if not isinstance(answer, Fetched):
            return answer
        try:
            sink(answer.body)
        except BadData as exc:
            return FetchFailed(url, "rev.malformed", str(exc))
        except OSError as exc:
            words = f"the answer can't be stored: {exc.strerror or exc}"
            return FetchFailed(url, "rev.store-unavailable", words)
        return replace(answer, body=b"", streamed=len(answer.body))


def _is_ldap(url: str) -> bool:
    return url[:5].lower() == "ldap:"
