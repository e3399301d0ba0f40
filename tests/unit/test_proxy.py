"""Fetching through a forward proxy: what the proxy is asked, and whose fault a failure is."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard, Proxy
from support.pki import DAY, authority
from support.rawserver import Behaviour, RawServer, answer
from support.scratch import answers, free_port, wait_for

OK = "HTTP/1.1 200 OK\nContent-Length: 2"


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], RawServer]]:
    servers: list[RawServer] = []

    def start(behaviour: Behaviour) -> RawServer:
        servers.append(RawServer(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def get(url: str, proxy_port: int, *, except_for: tuple[str, ...] = (), budget: float = 2.0, ca: str = "") -> Transfer:
    ports = [80, 443, *([int(url.split(":")[2].split("/")[0])] if url.count(":") > 1 else [])]
    guard = Guard(ports=ports, allow_networks=["127.0.0.0/8"], proxy=Proxy("127.0.0.1", proxy_port, except_for))
    trust = {"tls": lambda: ssl.create_default_context(cafile=ca)} if ca else {}
    return Fetcher(guard, user_agent="postseal/test", **trust).get(
        url, max_size=1000, deadline=time.monotonic() + budget
    )


def test_http_asks_the_proxy_for_the_whole_url(serve: Callable[[Behaviour], RawServer]) -> None:
    """RFC 9112 §3.2.2: absolute form; Host is the server's; our own User-Agent; the name is never resolved here."""
    proxy = serve(answer(OK, b"ok"))
    outcome = get("http://ca.nowhere.test/a/b.crl?x=%2F", proxy.port)
    assert isinstance(outcome, Fetched), outcome
    assert outcome.body == b"ok"
    head = proxy.requests[0].decode().split("\r\n")
    assert head[0] == "GET http://ca.nowhere.test/a/b.crl?x=%2F HTTP/1.1"
    assert "Host: ca.nowhere.test" in head
    assert "User-Agent: postseal/test" in head
    assert not any(line.lower().startswith(("proxy-authorization", "cookie", "authorization")) for line in head)


def test_post_goes_through_too(serve: Callable[[Behaviour], RawServer]) -> None:
    proxy = serve(answer(OK, b"ok"))
    guard = Guard(proxy=Proxy("127.0.0.1", proxy.port))
    outcome = Fetcher(guard, user_agent="x").post(
        "http://ocsp.nowhere.test/", b"abc", content_type="a/b", max_size=9, deadline=time.monotonic() + 2
    )
    assert isinstance(outcome, Fetched), outcome
    assert proxy.requests[0].startswith(b"POST http://ocsp.nowhere.test/ HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/", "http://localhost/", "http://0x0a000001/"])
def test_t11_the_proxy_hears_nothing_of_what_is_blocked(url: str, serve: Callable[[Behaviour], RawServer]) -> None:
    """T-11, THR-1: the guard speaks first."""
    proxy = serve(answer(OK, b"ok"))
    outcome = Fetcher(Guard(proxy=Proxy("127.0.0.1", proxy.port)), user_agent="x").get(
        url, max_size=9, deadline=time.monotonic() + 2
    )
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.blocked-by-guard"
    assert proxy.requests == []


def test_the_environment_names_no_proxy(
    serve: Callable[[Behaviour], RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another proxy nor an exception from ours comes from variables."""
    proxy = serve(answer(OK, b"ok"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "*")
    assert isinstance(get("http://ca.nowhere.test/", proxy.port), Fetched)


def test_hosts_without_proxy_are_asked_themselves(serve: Callable[[Behaviour], RawServer]) -> None:
    """no_proxy."""
    proxy, server = serve(answer(OK, b"no")), serve(answer(OK, b"ok"))
    outcome = get(f"http://127.0.0.1:{server.port}/x", proxy.port, except_for=("127.0.0.1",))
    assert isinstance(outcome, Fetched)
    assert outcome.body == b"ok"
    assert server.requests[0].startswith(b"GET /x HTTP/1.1\r\n")
    assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down_is_named(scheme: str) -> None:
    """And no host is blamed for it."""
    outcome = get(f"{scheme}://ca.nowhere.test/", free_port())
    assert isinstance(outcome, FetchFailed)
    assert (outcome.why, outcome.detail) == ("rev.unreachable", "the proxy can't be reached: connection refused")
    assert not outcome.host_fault


@pytest.mark.parametrize(
    ("status", "detail", "host_fault"),
    [
        ("403 Filtered", "the proxy refuses to connect: 403 Filtered", False),
        ("502 Bad\tGateway", "the proxy refuses to connect: 502 Bad?Gateway", True),
    ],
)
def test_connect_that_is_refused(
    status: str, detail: str, host_fault: bool, serve: Callable[[Behaviour], RawServer]
) -> None:
    """RFC 9110 §9.3.6: whatever isn't 2xx."""
    proxy = serve(answer(f"HTTP/1.1 {status}\nContent-Length: 0"))
    outcome = get("https://ca.nowhere.test/", proxy.port)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.why, outcome.detail, outcome.host_fault) == ("rev.unreachable", detail, host_fault)
    assert proxy.requests[0].startswith(b"CONNECT ca.nowhere.test:443 HTTP/1.")


def test_t05_a_proxy_that_is_silent_ends_at_the_deadline(serve: Callable[[Behaviour], RawServer]) -> None:
    """T-5, THR-5: CONNECT too; also when it drips."""

    def drip(channel: socket.socket, _: bytes) -> None:
        for _ in range(40):
            channel.sendall(b"H")
            time.sleep(0.05)

    for behaviour in (drip, lambda channel, _: time.sleep(2)):
        outcome = get("https://ca.nowhere.test/", serve(behaviour).port, budget=0.4)
        assert isinstance(outcome, FetchFailed)
        assert outcome.why == "rev.timeout"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """File of a CA, and what a server named ca.nowhere.test or localhost needs."""
    now = datetime.now(UTC)
    root = authority("TLS root", not_before=now - DAY, not_after=now + DAY)
    names = x509.SubjectAlternativeName([x509.DNSName("ca.nowhere.test"), x509.DNSName("localhost")])
    server = root.issue(
        None, common_name="x", eku=(ExtendedKeyUsageOID.SERVER_AUTH,), not_before=now - DAY, not_after=now + DAY,
        extra=[(names, False)],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(root.pem)
    (folder / "server.pem").write_bytes(server.pem + server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return str(folder / "ca.pem"), context


def over_tls(context: ssl.SSLContext, body: bytes) -> Behaviour:
    def behave(channel: socket.socket, _: bytes) -> None:
        with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(channel, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    return behave


def tunnel(to: int) -> Behaviour:
    """Whatever name is asked for: the server at port ``to``."""

    def behave(channel: socket.socket, _: bytes) -> None:
        channel.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", to)) as other:
            ends = {channel: other, other: channel}
            while True:
                for one in select.select(list(ends), [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    ends[one].sendall(data)

    return behave


def raw_tls(context: ssl.SSLContext, body: bytes) -> RawServer:
    return RawServer(over_tls(context, body), read_request=False)


@pytest.mark.parametrize(("host", "good"), [("ca.nowhere.test", True), ("other.nowhere.test", False)])
def test_https_through_connect_checks_the_servers_name(
    host: str, good: bool, serve: Callable[[Behaviour], RawServer], tls: tuple[str, ssl.SSLContext]
) -> None:
    """CRL-29: the proxy carries octets; the certificate is that of the host which was asked for."""
    server = raw_tls(tls[1], b"ok")
    proxy = serve(tunnel(server.port))
    outcome = get(f"https://{host}/x", proxy.port, ca=tls[0])
    server.close()
    if good:
        assert isinstance(outcome, Fetched), outcome
        assert outcome.body == b"ok"
    else:
        assert isinstance(outcome, FetchFailed)
        assert "TLS certificate" in outcome.detail
    assert proxy.requests[0].startswith(f"CONNECT {host}:443 HTTP/1.".encode())


@pytest.fixture(scope="module")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real proxy on loopback, which refuses /etc/filtered of any host by its filter."""
    program, port = shutil.which("tinyproxy"), free_port()
    assert program is not None
    folder = tmp_path_factory.mktemp("tinyproxy")
    (folder / "filter").write_text("filtered\n")
    (folder / "conf").write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 5\nAllow 127.0.0.1\nFilter "{folder}/filter"\nFilterURLs On\n'
        "LogLevel Error\nDisableViaHeader Yes\n"
    )
    with subprocess.Popen([program, "-d", "-c", str(folder / "conf")], stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: answers(f"127.0.0.1:{port}"), "tinyproxy")
        yield port
        process.terminate()


def test_tinyproxy_http(tinyproxy: int, serve: Callable[[Behaviour], RawServer]) -> None:
    """A real proxy fetches what was asked; an error that the server or the proxy answers is an HTTP status."""
    server = serve(answer(OK, b"ok"))
    outcome = get(f"http://127.0.0.1:{server.port}/x.crl", tinyproxy)
    assert isinstance(outcome, Fetched), outcome
    assert outcome.body == b"ok"
    refused = get(f"http://127.0.0.1:{server.port}/filtered", tinyproxy)
    assert isinstance(refused, FetchFailed)
    assert (refused.why, refused.host_fault) == ("rev.http-status", False)
    dead = get(f"http://127.0.0.1:{free_port()}/x", tinyproxy)
    assert isinstance(dead, FetchFailed)
    assert (dead.why, dead.host_fault) == ("rev.http-status", True)


def test_tinyproxy_https(tinyproxy: int, tls: tuple[str, ssl.SSLContext]) -> None:
    """A real tunnel. The address is written out, so the certificate of the name doesn't fit: TLS got as far as that."""
    server = raw_tls(tls[1], b"ok")
    outcome = get(f"https://127.0.0.1:{server.port}/x", tinyproxy, ca=tls[0])
    server.close()
    assert isinstance(outcome, FetchFailed)
    assert "TLS certificate is not valid" in outcome.detail
