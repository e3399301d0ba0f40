"""Which addresses the fetcher may talk to: every URL in a certificate was written by a stranger (THR-1, THR-2, THR-3).

A URL is vetted in three steps: its text (scheme, port, characters, length), its host name (resolved once, within the
deadline), and every address that the name has. The caller connects only to an address that was vetted here, so a name
that resolves differently a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from postseal.core.transfer import FetchFailed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Iterable[str]]

MAX_URL = 2048
MAX_ADDRESSES = 16
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?\Z")
# RFC 6052 §2.1: the well-known prefix of NAT64.
_NAT64 = IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = IPv6Network("::/96")
# RFC 4291 §2.4: all global unicast addresses that have been given out.
_V6_UNICAST = IPv6Network("2000::/3")
# RFC 6761 §6.3, RFC 6762 §3, and what ICANN keeps for private use: names that mean something only where they are asked.
_LOCAL_DOMAINS = frozenset({"localhost", "local", "internal"})
_RESOLVING = threading.BoundedSemaphore(32)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy that the administrator named; ``except_for`` are hosts, or .domains, that are reached without it."""

    host: str
    port: int
    except_for: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def serves(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return not any(name == one or (one.startswith(".") and name.endswith(one)) for one in self.except_for)


@dataclass(frozen=True, slots=True)
class Target:
    """A vetted URL: connect to one of ``addresses`` only; Host header and TLS name are ``host``.

    With ``proxy`` the addresses are the proxy's, its port is the one to connect to, and it is asked for the URL.
    """

    url: str
    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]
    proxy: Proxy | None = None

    @property
    def connect_port(self) -> int:
        return self.port if self.proxy is None else self.proxy.port


def system_resolver(host: str, port: int) -> Iterable[str]:
    """All stream addresses of ``host`` by the C library, numeric forms such as 0x7f.1 included. Raises OSError."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_own_address(address: Address) -> bool:
    """Is this an address of the machine we run on? The kernel then sends from the same address; no packet is sent here."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # Not by bind: the service file forbids that (SocketBindDeny).
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except (OSError, ValueError):
        return False


class Guard:
    """Vets URLs. ``allow_networks`` admits addresses that are otherwise refused (test networks, an internal CA).

    ``nat64`` are the prefixes under which the network's own translators reach IPv4, besides the well-known one. With a
    ``proxy`` it is the proxy that resolves names, so only their text is vetted, and what is written as an address.
    """

    def __init__(
        self,
        *,
        ports: Sequence[int] = (80, 443),
        allow_networks: Sequence[str] = (),
        nat64: Sequence[str] = (),
        proxy: Proxy | None = None,
        resolver: Resolver = system_resolver,
        own_address: Callable[[Address], bool] = is_own_address,
    ) -> None:
        self._ports = frozenset(ports)
        self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(n, strict=False) for n in allow_networks)
        self._nat64 = (_NAT64, *(IPv6Network(prefix) for prefix in nat64))
        self._proxy = proxy
        self._resolver = resolver
        self._own_address = own_address

    def vet(self, url: str, timeout: float) -> Target | FetchFailed:
        """Check ``url`` and resolve its host within ``timeout`` seconds. Never raises."""
        parts = self._split(url)
        if isinstance(parts, str):
            return FetchFailed(url, "rev.blocked-by-guard", parts)
        scheme, host, port = parts
        if self._proxy is not None and self._proxy.serves(host):
            return self._through(self._proxy, url, scheme, host, port, timeout)
        return self.resolve(url, scheme, host, port, timeout)

    def foresee(self, url: str) -> str:
        """Why ``url`` is refused, as far as its text tells; empty when its name would have to be resolved. Sends nothing."""
        parts = self._split(url)
        if isinstance(parts, str):
            return parts
        host = parts[1]
        if self._proxy is not None and self._proxy.serves(host):
            return self._refused_by_name(host)
        numeric = _numeric(host)
        refusal = self.refusal(numeric) if numeric else ""
        return f"host {host} has the address {numeric}, {refusal}" if refusal else ""

    def resolve(self, url: str, scheme: str, host: str, port: int, timeout: float) -> Target | FetchFailed:
        """Resolve ``host``, whose name and port have been vetted, and check every address of it. Never raises."""
        texts = self._addresses(url, f"host name {host}", host, port, timeout)
        if isinstance(texts, FetchFailed):
            return texts
        for text in texts:
            # THR-1: one bad address among good ones blocks all; choosing the good one would help a rebinding attacker.
            refusal = self.refusal(text)
            if refusal:
                return FetchFailed(url, "rev.blocked-by-guard", f"host {host} has the address {text}, {refusal}")
        return Target(url, scheme, host, port, texts[:MAX_ADDRESSES])

    def _through(
        self, proxy: Proxy, url: str, scheme: str, host: str, port: int, timeout: float
    ) -> Target | FetchFailed:
        refusal = self._refused_by_name(host)
        if refusal:
            return FetchFailed(url, "rev.blocked-by-guard", f"host {host} {refusal}")
        texts = self._addresses(url, f"the proxy {proxy.host}", proxy.host, proxy.port, timeout)
        if isinstance(texts, FetchFailed):
            return replace(texts, host_fault=False)
        return Target(url, scheme, host, port, texts[:MAX_ADDRESSES], proxy)

    def _refused_by_name(self, host: str) -> str:
        """Why a proxy isn't asked for ``host``; empty when it is."""
        name = host.lower().rstrip(".")
        labels = name.split(".")
        # No top-level domain is a number: whatever ends in one is meant as an address, in one writing or another.
        if ":" in name or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
            numeric = _numeric(name)
            refusal = self.refusal(numeric) if numeric else "which is not an IP address"
            return f"has the address {numeric or name}, {refusal}" if refusal else ""
        if len(labels) == 1 or labels[-1] in _LOCAL_DOMAINS or name.endswith(".home.arpa"):
            return "is a name of a local network (no_proxy in [lookup] can admit it)"
        return ""

    def _addresses(self, url: str, who: str, host: str, port: int, timeout: float) -> tuple[str, ...] | FetchFailed:
        try:
            # THR-2: getaddrinfo has no timeout of its own.
            texts = _in_thread(lambda: tuple(self._resolver(host, port)), timeout)
        except FutureTimeout:
            return FetchFailed(url, "rev.timeout", f"{who} could not be resolved in time", host_fault=True)
        except (OSError, UnicodeError) as exc:
            cause = getattr(exc, "strerror", None) or str(exc)
            return FetchFailed(url, "rev.unreachable", f"{who} can't be resolved: {cause}", host_fault=True)
        if not texts:
            return FetchFailed(url, "rev.unreachable", f"{who} has no address", host_fault=True)
        return tuple(dict.fromkeys(texts))

    def _split(self, url: str) -> tuple[str, str, int] | str:
        """Scheme, host and port of ``url``, or why it is refused."""
        if len(url) > MAX_URL:
            return f"the URL is longer than {MAX_URL} characters"
        # THR-3: refused before any parser sees it, so that no two parsers can read it differently.
        if not all("!" <= c <= "~" for c in url) or "\\" in url:
            return "the URL contains a character that is not allowed"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return "the URL can't be parsed"
        if parts.scheme not in _DEFAULT_PORTS:
            return f"the scheme {parts.scheme[:20] or '(none)'} is not allowed, only http and https"
        if "@" in parts.netloc:
            return "the URL contains a user name"
        if parts.netloc.startswith("["):
            try:
                scoped = IPv6Address(host).scope_id is not None
            except ValueError:
                scoped = True
            if scoped:
                return "the URL's host is not an IPv6 address"
        elif not _HOST_NAME.match(host):
            return "the URL's host is not a host name"
        port = _DEFAULT_PORTS[parts.scheme] if port is None else port
        if port not in self._ports:
            return f"port {port} is not allowed (ports in [lookup] can admit it)"
        return parts.scheme, host, port

    def refusal(self, text: str) -> str:
        """Why the address ``text`` may not be connected to; empty when it may."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return "which is not an IP address"
        for form in _unwrapped(address, self._nat64):
            if any(form.version == n.version and form in n for n in self._allowed):
                continue
            kind = _forbidden_kind(form)
            if kind:
                return f"which is {kind} (allow_networks in [lookup] can admit it)"
            if self._own_address(form):
                return "which is this machine's own (allow_networks in [lookup] can admit it)"
        return ""


def _numeric(host: str) -> str:
    """The address that ``host`` is a writing of (0x7f.1, 2130706433), or "" when it isn't one; nothing is resolved."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4][0])
    except (OSError, UnicodeError):
        return ""


def _unwrapped(address: Address, nat64: Sequence[IPv6Network]) -> tuple[Address, ...]:
    """The addresses that a packet to ``address`` may reach: itself, or the IPv4 addresses that are embedded in it."""
    if isinstance(address, IPv4Address):
        return (address,)
    # ipaddress calls 64:ff9b::7f00:1 and 2002:7f00:1:: global, though they lead to 127.0.0.1.
    for prefix in nat64:
        if address in prefix:
            return (_translated(address, prefix.prefixlen),)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _V4_COMPATIBLE and int(address) > 0xFFFF:
        return (address, IPv4Address(int(address) & 0xFFFFFFFF))
    return (address,)


def _translated(address: IPv6Address, length: int) -> IPv4Address:
    """RFC 6052 §2.2: the IPv4 address follows the prefix, around the octet 64 to 71, which holds none of it."""
    octets = address.packed
    without = octets[:8] + octets[9:]
    return IPv4Address(without[length // 8 :][:4] if length < 96 else octets[12:])


def _forbidden_kind(address: Address) -> str:
    if address.is_loopback:
        return "a loopback address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_link_local:
        return "a link-local address"
    if not address.is_global or address.is_reserved:
        return "not a public address"
    if isinstance(address, IPv6Address) and address not in _V6_UNICAST:
        return "not a public address"
    return ""


def open_connection(
    target: Target, left: Callable[[], float], make: Callable[[int, int], socket.socket] = socket.socket
) -> socket.socket:
    """A TCP connection to one of the vetted addresses, each tried with a fair share of the time left. Raises OSError."""
    failure: OSError = OSError("no address")
    for index, address in enumerate(target.addresses):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        channel = make(family, socket.SOCK_STREAM)
        try:
            channel.settimeout(left() / (len(target.addresses) - index))
            channel.connect((address, target.connect_port))
        except OSError as exc:
            channel.close()
            failure = exc
            continue
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return channel
    raise failure


def _in_thread(work: Callable[[], tuple[str, ...]], timeout: float) -> tuple[str, ...]:
    """Run ``work`` on a thread that is abandoned after ``timeout`` seconds. Raises TimeoutError, or what work raises."""
    future: Future[tuple[str, ...]] = Future()
    if timeout <= 0 or not _RESOLVING.acquire(timeout=max(0.0, timeout)):
        raise FutureTimeout

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)
        finally:
            _RESOLVING.release()

    try:
        threading.Thread(target=run, name="resolve", daemon=True).start()
    except RuntimeError as exc:
        # No more threads for us now; the permit must come back, or some day no name would be resolved any more.
        _RESOLVING.release()
        raise OSError(str(exc)) from exc
    return future.result(timeout)
