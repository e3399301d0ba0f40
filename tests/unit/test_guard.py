"""URLs in certificates are written by strangers: what the guard admits and what it refuses (THR-1, THR-2, THR-3)."""

from __future__ import annotations

import ipaddress
import subprocess
import threading
import time
from collections.abc import Iterable

import pytest

from postseal.core.transfer import FetchFailed
from postseal.sources.guard import Guard, Proxy, Resolver, Target, is_own_address, system_resolver

PUBLIC = "93.184.215.14"
NAMES = {
    "ca.example": [PUBLIC],
    "six.example": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "both.example": [PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "inside.example": ["10.1.2.3"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "mixed6.example": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::1"],
    "meta.example": ["169.254.169.254"],
    "empty.example": [],
    "odd.example": ["not-an-address"],
    "nat64good.example": ["64:ff9b::5db8:d70e"],
    "own64good.example": ["2001:67c:64::5db8:d70e"],
    "own64bad.example": ["2001:67c:64::a01:203"],
    "xn--bcher-kva.example": [PUBLIC],
    "xn--inside-4ya.example": ["10.1.2.3"],
    "many.example": [f"93.184.215.{n}" for n in range(1, 40)] + ["192.168.0.1"],
    "ula.example": ["fd12:3456::1"],
    "linklocal.example": ["fe80::1%lo"],
}


def resolve(host: str, port: int) -> Iterable[str]:
    """Names from the table above; everything else (numbers in any writing) by the C library, without DNS."""
    if host.rstrip(".") in NAMES:
        return NAMES[host.rstrip(".")]
    if host.endswith(".example") or host == "localhost.localdomain":
        raise OSError(-2, "Name or service not known")
    return system_resolver(host, port)


def guard(**options: object) -> Guard:
    return Guard(resolver=resolve, own_address=lambda _: False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://ca.example/x.crl", 80),
        ("HTTP://CA.example/x.crl", 80),
        ("https://ca.example/x.crl", 443),
        ("http://ca.example:443/x", 443),
        ("http://six.example/x.crl", 80),
        ("http://both.example/", 80),
        ("http://93.184.215.14/x.crl", 80),
        ("http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/x.crl", 80),
        ("http://nat64good.example/", 80),
        ("http://ca.example./x.crl", 80),
        ("http://xn--bcher-kva.example/x.crl", 80),
        ("http://ca.example/ocsp?a=%2F", 80),
        ("http://ca.example/%0d%0aX:y", 80),  # stays escaped in the request line, so it is harmless
    ],
)
def test_t11_admitted(url: str, port: int) -> None:
    """Ordinary URLs of CAs get a target whose addresses were vetted."""
    target = guard().vet(url, 2)
    assert isinstance(target, Target), target
    assert target.port == port
    assert target.addresses


BLOCKED = [
    # text: THR-3
    "file:///etc/passwd", "ldap://ca.example/cn=x", "ldap:///cn=x", "gopher://ca.example/", "ftp://ca.example/x.crl",
    "data:,x", "javascript:x", "//ca.example/x", "ca.example/x", "", "http://", "http:///x", "http://ca.example:22/",
    "http://ca.example:0/", "http://ca.example:99999/", "http://ca.example:x/", "http://user@ca.example/",
    "http://user:pw@ca.example/", "http://ca.example@127.0.0.1/", "http://ca.example\\@127.0.0.1/",
    "http://ca.example/\r\nX: y", "http://ca.example/a b", "http://ca.example/\x00", "http://c\u00e4.example/",
    "http://ca.example/" + "a" * 2048, "http://[::bad/", "http://[v1.x]/", "http://[fe80::1%25eth0]/",
    "http://ca.example%00.evil/", "http://ca.example,evil/",
    # addresses: THR-1
    "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
    "http://0177.0.0.1/", "http://017700000001/", "http://0/", "http://0.0.0.0/", "http://10.0.0.1/",
    "http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/", "http://169.254.169.254/latest/meta-data/",
    "http://224.0.0.1/", "http://240.0.0.1/", "http://255.255.255.255/", "http://192.0.2.1/", "http://198.18.0.1/",
    "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:10.0.0.1]/", "http://[::127.0.0.1]/",
    "http://[::93.184.215.14]/", "http://[64:ff9b::127.0.0.1]/", "http://[64:ff9b::a00:1]/", "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/", "http://[2002:a00:1::1]/", "http://[2001:0:7f00:1::1]/", "http://[2001:db8::1]/",
    "http://[fe80::1]/", "http://[fc00::1]/", "http://[fd12:3456::1]/", "http://[ff02::1]/", "http://[fec0::1]/",
    "http://inside.example/", "http://mixed.example/", "http://mixed6.example/", "http://meta.example/",
    "http://odd.example/", "http://inside.example./", "http://xn--inside-4ya.example/", "http://many.example/",
    "http://ula.example/", "http://linklocal.example/", "http://[::ffff:0:127.0.0.1]/", "http://[2002:c0a8:101::]/",
    "http://0300.0250.1.1/", "http://[64:ff9b::c0a8:101]/", "http://[64:ff9b::a9fe:a9fe]/", "http://ca.example:8080/",
    "http://ca.example:443:80/", "https://127.0.0.1/", "HTTP://LOCALHOST/", "http://ca.example/%\n", "http:/ca.example/",
    "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:7f00:1]/", "http://\uff11\uff12\uff17.0.0.1/", "ldaps://ca.example/cn=x",
]  # fmt: skip


@pytest.mark.parametrize("url", BLOCKED)
def test_t11_blocked(url: str) -> None:
    """What leads inside, anywhere but to ports 80 and 443, or can be read in two ways is blocked, with the cause."""
    outcome = guard().vet(url, 2)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.blocked-by-guard"
    assert outcome.detail


def test_the_table_is_long_enough() -> None:
    """The table of blocked URLs may grow, not shrink."""
    assert len(BLOCKED) >= 90
    assert len(set(BLOCKED)) == len(BLOCKED)


def test_configured_network_is_admitted_in_every_writing() -> None:
    """allow_networks admits a test network, also in mapped form; the neighbours stay blocked."""
    vetter = guard(allow_networks=["127.0.0.0/8", "fd00::/8"], ports=[80, 8080])
    for url in ("http://127.0.0.1/", "http://2130706433/", "http://[::ffff:127.0.0.1]:8080/", "http://[fd00::1]/"):
        assert isinstance(vetter.vet(url, 2), Target), url
    for url in ("http://[::1]/", "http://10.0.0.1/", "http://mixed6.example/", "http://127.0.0.1:8081/"):
        assert isinstance(vetter.vet(url, 2), FetchFailed), url
    assert isinstance(vetter.vet("http://mixed.example/", 2), Target)


def test_t11_a_name_is_resolved_once_and_its_answer_is_kept() -> None:
    """Rebinding: a name whose second answer is 127.0.0.1 is asked once, and only the first answer is in the target."""
    answers = [[PUBLIC], ["127.0.0.1"]]
    vetter = Guard(resolver=lambda host, port: answers.pop(0), own_address=lambda _: False)
    target = vetter.vet("http://rebind.example/", 2)
    assert isinstance(target, Target)
    assert target.addresses == (PUBLIC,)
    assert answers == [["127.0.0.1"]]
    assert isinstance(vetter.vet("http://rebind.example/", 2), FetchFailed)


def test_t11_nat64_of_the_network() -> None:
    """T-11, RFC 6052: below a prefix that is configured, the IPv4 address inside counts; else the address is public."""
    plain, told = guard(), guard(nat64=["2001:67c:64::/96"])
    for name, before, after in (("own64good", Target, Target), ("own64bad", Target, FetchFailed)):
        assert isinstance(plain.vet(f"http://{name}.example/", 2), before)
        assert isinstance(told.vet(f"http://{name}.example/", 2), after)


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2a00:db8::/32", "2a00:db8:c000:221::"),
        ("2a00:db8:100::/40", "2a00:db8:1c0:2:21::"),
        ("2a00:db8:122::/48", "2a00:db8:122:c000:2:2100::"),
        ("2a00:db8:122:300::/56", "2a00:db8:122:3c0:0:221::"),
        ("2a00:db8:122:344::/64", "2a00:db8:122:344:c0:2:2100::"),
        ("2a00:db8:122:344::/96", "2a00:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ],
)
def test_nat64_addresses_of_every_prefix_length(prefix: str, address: str) -> None:
    """RFC 6052 §2.4, its own examples (below a prefix that is public): all of them mean 192.0.2.33."""
    assert "not a public address" in Guard(nat64=[prefix]).refusal(address)
    assert Guard(nat64=[prefix], allow_networks=["192.0.2.33"]).refusal(address) == ""


PROXY = Proxy("proxy.inside", 3128, ("pki.corp.local", ".direct.example"))


def through(resolver: Resolver = lambda host, port: ["10.0.0.7"]) -> Guard:
    """A guard with a proxy, whose own address is private and allowed all the same; no other name can be resolved."""
    return Guard(proxy=PROXY, resolver=resolver, own_address=lambda _: False)


@pytest.mark.parametrize(
    "url",
    ["http://ca.example/x.crl", "https://ca.example./x", "http://93.184.215.14/", "http://1572394766/", "http://a1.b2/",
     "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/"],
)  # fmt: skip
def test_with_a_proxy_names_are_not_resolved(url: str) -> None:
    """The target is the proxy's address and port; who resolves the name is the proxy."""
    asked: list[str] = []
    target = through(lambda host, port: asked.append(host) or ["10.0.0.7"]).vet(url, 2)  # type: ignore[func-returns-value]
    assert isinstance(target, Target), target
    assert (target.addresses, target.connect_port, target.proxy) == (("10.0.0.7",), 3128, PROXY)
    assert asked == ["proxy.inside"]


LITERALS = [url for url in BLOCKED if ".example" not in url] + [
    "http://localhost/", "http://a.localhost/", "http://localhost./", "http://intranet/", "http://pki.local/",
    "http://printer.home.arpa/", "http://meta.internal/", "http://127.0.0.1./", "http://127.1./", "http://0x7f000001./",
    "http://a.0x7f/", "http://1.2.3.4.5/", "http://4294967297/", "http://256.1.1.1/", "http://ca.example:22/",
    "http://u@ca.example/", "ftp://ca.example/",
]  # fmt: skip


@pytest.mark.parametrize("url", LITERALS)
def test_t11_with_a_proxy(url: str) -> None:
    """T-11: a proxy isn't asked for an address that is written out, in whatever way, nor for a name of the network."""
    outcome = through().vet(url, 2)
    assert isinstance(outcome, FetchFailed), outcome
    assert outcome.why == "rev.blocked-by-guard"


def test_hosts_without_proxy_are_vetted_as_ever() -> None:
    """no_proxy: a host or a domain; its addresses are checked, since we connect to them."""
    addresses = {"pki.corp.local": "10.9.9.9", "a.direct.example": PUBLIC}
    vetter = through(lambda host, port: [addresses[host]])
    outcome = vetter.vet("http://PKI.corp.local/x", 2)
    assert isinstance(outcome, FetchFailed)
    assert "10.9.9.9" in outcome.detail
    target = vetter.vet("http://a.direct.example/x", 2)
    assert isinstance(target, Target)
    assert (target.addresses, target.proxy) == ((PUBLIC,), None)


def test_a_proxy_that_is_not_there_is_no_fault_of_the_host() -> None:
    """Else every host would rest when the proxy is back."""

    def gone(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    outcome = through(gone).vet("http://ca.example/", 2)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.why, outcome.host_fault) == ("rev.unreachable", False)
    assert "proxy.inside" in outcome.detail


def test_own_addresses_are_blocked() -> None:
    """A public address that is our own leads back to us."""
    vetter = Guard(resolver=resolve, own_address=lambda a: a == ipaddress.ip_address(PUBLIC))
    outcome = vetter.vet("http://ca.example/", 2)
    assert isinstance(outcome, FetchFailed)
    assert "this machine's own" in outcome.detail


def test_own_address_is_known_by_its_route() -> None:
    """127.0.0.1 and every address of an interface are ours, a documentation address isn't."""
    assert is_own_address(ipaddress.ip_address("127.0.0.1"))
    listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    for text in listed:
        assert is_own_address(ipaddress.ip_address(text)), text
    assert not is_own_address(ipaddress.ip_address("192.0.2.7"))


@pytest.mark.parametrize("host", ["gone.example", "empty.example"])
def test_name_without_address_is_unreachable(host: str) -> None:
    """A name that doesn't exist is a failure of the network, not of the guard."""
    outcome = guard().vet(f"http://{host}/x", 2)
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.unreachable"
    assert host in outcome.detail


def test_slow_name_service_ends_at_the_deadline() -> None:
    """getaddrinfo has no timeout; ours ends in time all the same."""
    release = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        release.wait(10)
        return [PUBLIC]

    started = time.monotonic()
    outcome = Guard(resolver=slow).vet("http://ca.example/", 0.3)
    elapsed = time.monotonic() - started
    release.set()
    assert isinstance(outcome, FetchFailed)
    assert outcome.why == "rev.timeout"
    assert elapsed < 0.6


def test_machine_without_threads_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """THR-2: when no thread can be started names can't be resolved, which is told; afterwards they can again."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    guard = Guard(resolver=lambda host, port: ["93.184.216.34"])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(40):
            found = guard.vet("http://ca.test/", 0.01)
            assert isinstance(found, FetchFailed)
            assert found.detail.endswith("can't start new thread")
    assert isinstance(guard.vet("http://ca.test/", 5.0), Target)
