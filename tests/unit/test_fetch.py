"""Fetching from servers that mean harm: every exchange ends in time, within its limit, as a value."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.core.errors import BadData
from postseal.core.transfer import Fetched, FetchFailed, NotModified, Transfer
from postseal.sources.exchange import Sink
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard
from support.pki import DAY, authority
from support.rawserver import Behaviour, RawServer, answer

BUDGET = 0.5
TOLERANCE = 0.3


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    servers: list[RawServer] = []

    def start(behaviour: Behaviour, read_request: bool = True) -> RawServer:
        servers.append(RawServer(behaviour, read_request))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def fetcher(server: RawServer, **options: object) -> Fetcher:
    guard = Guard(ports=[server.port], allow_networks=["127.0.0.0/8"])
    return Fetcher(guard, user_agent="postseal/test", **options)  # type: ignore[arg-type]


def get(server: RawServer, *, max_size: int = 100_000, budget: float = BUDGET, scheme: str = "http", path: str = "/x",
        headers: dict[str, str] | None = None, **options: object) -> tuple[Transfer, float]:  # fmt: skip
    """The outcome and the seconds that it took."""
    started = time.monotonic()
    outcome = fetcher(server, **options).get(
        f"{scheme}://127.0.0.1:{server.port}{path}", max_size=max_size, deadline=started + budget, headers=headers
    )
    return outcome, time.monotonic() - started


def drip(data: bytes, pause: float = 0.05) -> Behaviour:
    def behave(channel: socket.socket, _: bytes) -> None:
        for byte in data:
            channel.sendall(bytes([byte]))
            time.sleep(pause)

    return behave


def then_drip(head: bytes, data: bytes) -> Behaviour:
    def behave(channel: socket.socket, request: bytes) -> None:
        channel.sendall(head)
        drip(data)(channel, request)

    return behave


def endless(head: bytes, part: bytes) -> Behaviour:
    def behave(channel: socket.socket, _: bytes) -> None:
        channel.sendall(head)
        while True:
            channel.sendall(part)

    return behave


def silence(channel: socket.socket, _: bytes) -> None:
    time.sleep(BUDGET + 2)


def reset(channel: socket.socket, _: bytes) -> None:
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


HOSTILE: dict[str, tuple[Behaviour, str]] = {
    "drip in status line": (drip(b"HTTP/1.1 200 OK\r\n" * 20), "rev.timeout"),
    "drip in header": (then_drip(b"HTTP/1.1 200 OK\r\n", b"X-Slow: " + b"a" * 500), "rev.timeout"),
    "drip in body": (then_drip(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"b" * 500), "rev.timeout"),
    "drip in chunked body": (
        then_drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nb\r\n" * 100), "rev.timeout"),
    "accepts, says nothing": (silence, "rev.timeout"),
    "endless interim answers": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "rev.timeout"),
    "endless header": (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "rev.malformed"),
    "endless header line": (endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000), "rev.malformed"),
    "endless body": (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 10_000), "rev.too-large"),
    "endless chunks": (
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nzzzzz\r\n" * 1000), "rev.too-large"),
    "one huge chunk": (
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", b"z" * 10_000), "rev.too-large"),
    "declares too much": (answer("HTTP/1.1 200 OK\nContent-Length: 100001"), "rev.too-large"),
    "declares absurdly much": (answer("HTTP/1.1 200 OK\nContent-Length: " + "9" * 300), "rev.too-large"),
    "body shorter than declared": (answer("HTTP/1.1 200 OK\nContent-Length: 50", b"a" * 49), "rev.malformed"),
    "incomplete chunk": (
        answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"a\r\n12345"), "rev.malformed"),
    "chunks without an end": (
        answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\n12345\r\n"), "rev.malformed"),
    "chunk length is no number": (
        answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n12345\r\n0\r\n\r\n"), "rev.malformed"),
    "two lengths": (answer("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 5", b"abcde"), "rev.malformed"),
    "gzip": (answer("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 3", b"\x1f\x8b\x08"), "rev.malformed"),
    "redirect": (answer("HTTP/1.1 302 Found\nLocation: http://127.0.0.1:1/\nContent-Length: 0"), "rev.http-status"),
    "permanent redirect": (answer("HTTP/1.1 308 No\nLocation: file:///etc/passwd"), "rev.http-status"),
    "not found": (answer("HTTP/1.1 404 Not Found\nContent-Length: 5", b"<htm>"), "rev.http-status"),
    "no content": (answer("HTTP/1.1 204 No Content"), "rev.http-status"),
    "partial content": (answer("HTTP/1.1 206 Partial\nContent-Length: 1", b"x"), "rev.http-status"),
    "server error": (answer("HTTP/1.1 503 Later\nRetry-After: 120\nContent-Length: 0"), "rev.http-status"),
    "not HTTP": (lambda c, _: c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 3), "rev.malformed"),
    "closes at once": (lambda c, _: None, "rev.unreachable"),
    "resets": (reset, "rev.unreachable"),
    "resets in the body": (
        lambda c, r: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nab"), reset(c, r))[1], "rev.unreachable"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_server(name: str, serve: Callable[..., RawServer]) -> None:
    """THR-5, T-16: Whatever the server does, the exchange ends within its deadline, as a named failure in words."""
    behaviour, why = HOSTILE[name]
    outcome, elapsed = get(serve(behaviour))
    assert elapsed < BUDGET + TOLERANCE
    assert isinstance(outcome, FetchFailed), outcome
    assert outcome.why == why, outcome
    assert outcome.detail
    assert outcome.detail.isprintable()


def test_what_is_too_large_is_not_read(serve: Callable[..., RawServer]) -> None:
    """THR-4, T-16: The limit counts while reading: an endless body is cut at once, long before the deadline."""
    outcome, elapsed = get(serve(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 10_000)), max_size=1_000_000, budget=10)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.too-large"
    assert elapsed < 2


def get_to(server: RawServer, sink: Sink, *, max_size: int = 100_000_000, budget: float = BUDGET, more: float = 0.0,
           ) -> Transfer:  # fmt: skip
    started = time.monotonic()
    return fetcher(server).get_to(
        f"http://127.0.0.1:{server.port}/x", sink, max_size=max_size, deadline=started + budget, until=started + more
    )


def test_sink_gets_the_body_in_pieces(serve: Callable[..., RawServer]) -> None:
    """A large body goes to the sink, and none of it is kept in memory."""
    body = bytes(range(256)) * 20_000
    server = serve(answer(f'HTTP/1.1 200 OK\nETag: "v"\nContent-Length: {len(body)}', body))
    pieces: list[bytes] = []
    assert get_to(server, pieces.append) == Fetched(f"http://127.0.0.1:{server.port}/x", b"", '"v"', streamed=len(body))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 64 * 1024


@pytest.mark.parametrize("name", ["endless body", "one huge chunk", "body shorter than declared", "resets in the body"])
def test_t16_sink_and_hostile_server(name: str, serve: Callable[..., RawServer]) -> None:
    """THR-4, T-16: the sink never gets more than the limit, and a body that isn't complete is a failure."""
    behaviour, why = HOSTILE[name]
    pieces: list[bytes] = []
    outcome = get_to(serve(behaviour), pieces.append, max_size=300_000, budget=5)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == why
    assert sum(map(len, pieces)) <= 300_000


@pytest.mark.parametrize(
    ("raised", "why", "detail"),
    [
        (OSError(28, "No space left on device"), "rev.store-unavailable", "can't be stored: No space left on device"),
        (BadData("not a CRL"), "rev.malformed", "not a CRL"),
    ],
)
def test_sink_that_refuses(raised: Exception, why: str, detail: str, serve: Callable[..., RawServer]) -> None:
    """A full disk isn't the server's fault, and what the sink recognises as rubbish isn't read to its end."""

    def sink(_: bytes) -> None:
        raise raised

    outcome = get_to(serve(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 10_000)), sink, budget=5)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.why, outcome.host_fault) == (why, False)
    assert detail in outcome.detail


def slowly(part: bytes, times: int) -> Behaviour:
    def behave(channel: socket.socket, _: bytes) -> None:
        channel.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(part) * times}\r\n\r\n".encode())
        for _ in range(times):
            channel.sendall(part)
            time.sleep(0.1)

    return behave


def test_long_download_goes_on_while_it_is_fast_enough(serve: Callable[..., RawServer]) -> None:
    """THR-5: more time than the deadline gives is for bodies that keep coming at the least rate."""
    taken: list[bytes] = []
    outcome = get_to(serve(slowly(bytes(200_000), 12)), taken.append, budget=0.8, more=20)
    assert isinstance(outcome, Fetched), outcome
    assert outcome.streamed == 2_400_000
    too_slow = get_to(serve(slowly(bytes(100), 12)), taken.append, budget=0.8, more=20)
    assert isinstance(too_slow, FetchFailed)
    assert too_slow.why == "rev.timeout"


def test_crumbs_earn_no_time(serve: Callable[..., RawServer]) -> None:
    """THR-5, T-16: chunks of one octet, however many, keep the reader busy no longer than a server that says nothing."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    outcome = get_to(serve(endless(head, b"1\r\nx\r\n" * 10_000)), lambda _: None, budget=0.5, more=5)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.timeout"


def test_length_that_is_too_short_gives_a_short_body(serve: Callable[..., RawServer]) -> None:
    """A length smaller than the body cuts the body there; the parser of CRLs then refuses it."""
    outcome, _ = get(serve(answer("HTTP/1.1 200 OK\nContent-Length: 3", b"abcdef")))
    assert isinstance(outcome, Fetched)
    assert outcome.body == b"abc"


def test_connection_refused_says_so(serve: Callable[..., RawServer]) -> None:
    """A closed port is told in the words of the system."""
    server = serve(silence)
    server.close()
    time.sleep(0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.port = taken.getsockname()[1]
    outcome, elapsed = get(server)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.why, outcome.detail) == ("rev.unreachable", "connection refused")
    assert outcome.host_fault
    assert elapsed < TOLERANCE


def test_blocked_url_opens_no_connection(serve: Callable[..., RawServer]) -> None:
    """The guard speaks before any socket is made."""
    server = serve(answer("HTTP/1.1 200 OK\nContent-Length: 0"))
    strict = Fetcher(Guard(ports=[server.port]), user_agent="x")
    outcome = strict.get(f"http://127.0.0.1:{server.port}/", max_size=10, deadline=time.monotonic() + 1)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.blocked-by-guard"
    assert server.requests == []


def test_redirect_is_not_followed(serve: Callable[..., RawServer]) -> None:
    """A redirect to a server of ours reaches it never, and the log line names the place."""
    second = serve(answer("HTTP/1.1 200 OK\nContent-Length: 0"))
    first = serve(answer(f"HTTP/1.1 302 Found\nLocation: http://127.0.0.1:{second.port}/in\r\tside\nContent-Length: 0"))
    outcome, _ = get(first)
    assert isinstance(outcome, FetchFailed)
    assert "redirect to http://127.0.0.1" in outcome.detail
    assert second.requests == []


def test_connects_to_the_vetted_address_with_the_name_in_the_request(serve: Callable[..., RawServer]) -> None:
    """THR-26: The Host header has the name; the connection goes to the address that the guard's own resolution gave."""
    server = serve(answer("HTTP/1.1 200 OK\nContent-Length: 2", b"ok"))
    guard = Guard(ports=[server.port], allow_networks=["127.0.0.0/8"], resolver=lambda host, port: ["127.0.0.1"])
    outcome = Fetcher(guard, user_agent="postseal/9 (+https://mail.example)").get(
        f"http://no-such-name.invalid:{server.port}/a/b?c=%2F", max_size=10, deadline=time.monotonic() + 1
    )
    assert isinstance(outcome, Fetched), outcome
    head = server.requests[0].decode().split("\r\n")
    assert head[0] == "GET /a/b?c=%2F HTTP/1.1"
    assert f"Host: no-such-name.invalid:{server.port}" in head
    assert "User-Agent: postseal/9 (+https://mail.example)" in head
    assert "Accept-Encoding: identity" in head


def test_second_address_is_tried(serve: Callable[..., RawServer]) -> None:
    """A name with a dead and a living address works."""
    server = serve(answer("HTTP/1.1 200 OK\nContent-Length: 2", b"ok"))
    guard = Guard(ports=[server.port], allow_networks=["127.0.0.0/8", "::1/128"],
                  resolver=lambda host, port: ["::1", "127.0.0.1"])  # fmt: skip
    outcome = Fetcher(guard, user_agent="x").get(
        f"http://two.invalid:{server.port}/", max_size=10, deadline=time.monotonic() + 1
    )
    assert isinstance(outcome, Fetched), outcome


def test_environment_is_ignored(
    serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxy variables and .netrc change nothing; cookies are not sent back."""
    server = serve(answer("HTTP/1.1 200 OK\nSet-Cookie: a=b\nContent-Length: 2", b"ok"))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    one = fetcher(server)
    for _ in range(2):
        outcome = one.get(f"http://127.0.0.1:{server.port}/", max_size=10, deadline=time.monotonic() + 1)
        assert isinstance(outcome, Fetched), outcome
    for request in server.requests:
        assert b"Cookie" not in request
        assert b"Authorization" not in request


def test_validators_make_a_conditional_request(serve: Callable[..., RawServer]) -> None:
    """ETag and Last-Modified come back to the caller, go out as asked, and 304 is its own outcome."""

    def behave(channel: socket.socket, request: bytes) -> None:
        if b"If-None-Match" in request:
            answer("HTTP/1.1 304 Not Modified\nCache-Control: max-age=60")(channel, request)
        else:
            head = 'HTTP/1.1 200 OK\nETag: "v1"\nLast-Modified: Mon, 01 Jun 2026 00:00:00 GMT\n'
            head += "Cache-Control: public, max-age=3600\nContent-Type: text/html\nContent-Length: 2"
            answer(head, b"ok")(channel, request)

    server = serve(behave)
    first, _ = get(server)
    assert first == Fetched(first.url, b"ok", '"v1"', "Mon, 01 Jun 2026 00:00:00 GMT", 3600.0)
    second, _ = get(server, headers={"If-None-Match": first.etag})
    assert second == NotModified(first.url, 60.0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("Cache-Control: no-store", 0.0),
        ("Cache-Control: MAX-AGE=99999999999999", 9999999999.0),
        ("Date: Mon, 01 Jun 2026 00:00:00 GMT\nExpires: Mon, 01 Jun 2026 01:00:00 GMT", 3600.0),
        ("Date: Mon, 01 Jun 2026 00:00:00 GMT\nExpires: 0", None),
        ("Expires: Mon, 01 Jun 2026 01:00:00 GMT", None),
        ("X: y", None),
    ],
)
def test_freshness_of_the_server(headers: str, expected: float | None, serve: Callable[..., RawServer]) -> None:
    """Cache-Control goes before Expires; nonsense counts as nothing."""
    outcome, _ = get(serve(answer(f"HTTP/1.1 200 OK\n{headers}\nContent-Length: 0")))
    assert isinstance(outcome, Fetched)
    assert outcome.max_age == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("120", 120.0), ("99999999999", 86400.0), ("Mon, 01 Jun 2026 00:02:00 GMT", 120.0), ("soon", None), ("-5", None)],
)
def test_retry_after(value: str, expected: float | None, serve: Callable[..., RawServer]) -> None:
    """Retry-After as seconds or date, bounded."""
    outcome, _ = get(serve(answer(f"HTTP/1.1 503 No\nDate: Mon, 01 Jun 2026 00:00:00 GMT\nRetry-After: {value}")))
    assert isinstance(outcome, FetchFailed)
    assert outcome.retry_after == expected


def test_hostile_validators_are_dropped(serve: Callable[..., RawServer]) -> None:
    """An ETag of kilobytes or control characters isn't kept, so it is never sent back."""
    outcome, _ = get(serve(answer(f"HTTP/1.1 200 OK\nETag: {'a' * 5000}\nLast-Modified: a\x7fb\nContent-Length: 0")))
    assert isinstance(outcome, Fetched)
    assert (outcome.etag, outcome.last_modified) == ("", "")


def test_post_sends_the_body(serve: Callable[..., RawServer]) -> None:
    """A POST carries its length, type and bytes."""
    server = serve(answer("HTTP/1.1 200 OK\nContent-Length: 2", b"ok"))
    outcome = fetcher(server).post(
        f"http://127.0.0.1:{server.port}/ocsp", b"0\x03\x0a\x01\x00", content_type="application/ocsp-request",
        max_size=10, deadline=time.monotonic() + 1,
    )  # fmt: skip
    assert isinstance(outcome, Fetched)
    assert b"Content-Length: 5" in server.requests[0]
    assert b"Content-Type: application/ocsp-request" in server.requests[0]


def test_server_that_never_reads(serve: Callable[..., RawServer]) -> None:
    """A large request to a server that doesn't read ends at the deadline too."""
    server = serve(silence, read_request=False)
    started = time.monotonic()
    outcome = fetcher(server).post(
        f"http://127.0.0.1:{server.port}/", b"x" * 30_000_000, content_type="a/b", max_size=10,
        deadline=started + BUDGET,
    )  # fmt: skip
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.timeout"
    assert time.monotonic() - started < BUDGET + TOLERANCE


def test_deadline_that_is_over_opens_no_connection(serve: Callable[..., RawServer]) -> None:
    """No time left is a timeout, without a request."""
    server = serve(answer("HTTP/1.1 200 OK\nContent-Length: 0"))
    outcome, _ = get(server, budget=-1)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.timeout"
    assert server.requests == []


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """CA file, server chain, server key; the server is localhost by name."""
    now = datetime.now(UTC)
    root = authority("TLS root", not_before=now - DAY, not_after=now + DAY)
    server = root.issue(
        None, common_name="localhost", eku=(ExtendedKeyUsageOID.SERVER_AUTH,), not_before=now - DAY, not_after=now + DAY,
        extra=[(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)],
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    for file, content in zip(files, (root.pem, server.pem, server.key_pem), strict=True):
        file.write_bytes(content)
    return files


def tls_get(server: RawServer, tls_files: tuple[Path, Path, Path], host: str = "localhost") -> tuple[Transfer, float]:
    started = time.monotonic()
    guard = Guard(ports=[server.port], allow_networks=["127.0.0.0/8"], resolver=lambda h, p: ["127.0.0.1"])
    one = Fetcher(guard, user_agent="x", tls=lambda: ssl.create_default_context(cafile=str(tls_files[0])))
    outcome = one.get(f"https://{host}:{server.port}/x", max_size=1000, deadline=started + BUDGET)
    return outcome, time.monotonic() - started


def over_tls(behaviour: Behaviour, tls_files: tuple[Path, Path, Path]) -> Behaviour:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files[1], tls_files[2])

    def behave(channel: socket.socket, _: bytes) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(channel, server_side=True) as secure:
            request = secure.recv(65536)
            behaviour(secure, request)

    return behave


def test_https_works_with_a_trusted_server(serve: Callable[..., RawServer], tls_files: tuple[Path, Path, Path]) -> None:
    """The good case, without which the TLS failures below would prove nothing."""
    server = serve(over_tls(answer("HTTP/1.1 200 OK\nContent-Length: 2", b"ok"), tls_files), read_request=False)
    outcome, _ = tls_get(server, tls_files)
    assert isinstance(outcome, Fetched), outcome
    assert outcome.body == b"ok"


def test_https_checks_the_name_and_the_issuer(
    serve: Callable[..., RawServer], tls_files: tuple[Path, Path, Path]
) -> None:
    """CRL-29: A certificate for another name, or of an unknown CA, is no answer."""
    server = serve(over_tls(answer("HTTP/1.1 200 OK\nContent-Length: 2", b"ok"), tls_files), read_request=False)
    outcome, _ = tls_get(server, tls_files, host="other.invalid")
    assert isinstance(outcome, FetchFailed)
    assert "TLS certificate is not valid" in outcome.detail
    outcome, _ = get(server, scheme="https")
    assert isinstance(outcome, FetchFailed)
    assert "TLS certificate is not valid" in outcome.detail


def test_tls_stall_and_drip_end_in_time(serve: Callable[..., RawServer], tls_files: tuple[Path, Path, Path]) -> None:
    """A handshake that stalls or drips, and a drip inside TLS, end at the deadline."""
    slow_head = then_drip(b"HTTP/1.1 200 OK\r\n", b"X-Slow: " + b"a" * 500)
    for behaviour in (silence, drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 500), over_tls(slow_head, tls_files)):
        outcome, elapsed = tls_get(serve(behaviour, read_request=False), tls_files)
        assert isinstance(outcome, FetchFailed)
        assert outcome.why == "rev.timeout", outcome
        assert elapsed < BUDGET + TOLERANCE


def test_parallel_exchanges_keep_their_own_deadlines(serve: Callable[..., RawServer]) -> None:
    """Deadlines belong to the exchange: a short one beside a long one on another thread ends on its own time."""
    server = serve(silence)
    took: dict[float, float] = {}

    def one(budget: float) -> None:
        took[budget] = get(server, budget=budget)[1]

    threads = [threading.Thread(target=one, args=(budget,)) for budget in (0.2, 0.9, 0.5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for budget, seconds in took.items():
        assert budget - 0.05 < seconds < budget + TOLERANCE
