"""CRLs from directories: a real slapd, and servers that mean harm (CRL-28)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postseal.core.transfer import Fetched, FetchFailed, Transfer
from postseal.sources.fetch import Fetcher
from postseal.sources.guard import Guard
from postseal.sources.ldap import Directories, Place, Server, WithDirectories, parse_url
from support.daemon import run_postseal
from support.directory import SUFFIX, Slapd
from support.evidence import node, seq
from support.pki import DAY, HOUR, Leaf, authority
from support.rawserver import RawServer
from support.scratch import free_port

CA = authority("Directory CA", kind="p256")
CRL = CA.crl([CA.issue("a@home.test", kind="p256")])
DN = f"cn=Directory CA,{SUFFIX}"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[RawServer]:
    """Where referrals point to. Nobody ever comes."""
    server = RawServer(lambda channel, _: None, read_request=False)
    yield server
    server.close()


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, elsewhere: RawServer) -> Iterator[Slapd]:
    with Slapd(tmp_path_factory.mktemp("slapd") / "s", elsewhere.port) as directory:
        directory.add(DN, "certificateRevocationList;binary", CRL)
        directory.add(f"cn=Müller\\, CA,{SUFFIX}", "authorityRevocationList;binary", CRL)
        directory.add(f"cn=delta,{SUFFIX}", "deltaRevocationList;binary", CRL)
        directory.refer(f"cn=moved,{SUFFIX}", f"ldap://127.0.0.1:{elsewhere.port}/{DN}")
        yield directory


def get(url: str, *ports: int, budget: float = 3.0, max_size: int = 100_000, nearest: int | None = None,
        networks: tuple[str, ...] = ("127.0.0.0/8",)) -> Transfer:  # fmt: skip
    servers = [Server("127.0.0.1", port) for port in ports]
    guard = Guard(allow_networks=networks)
    directories = Directories(guard, servers, Server("127.0.0.1", nearest) if nearest else None)
    return directories.get(url, max_size=max_size, deadline=time.monotonic() + budget)


def failed(outcome: Transfer, why: str, word: str = "") -> FetchFailed:
    assert isinstance(outcome, FetchFailed), outcome
    assert outcome.why == why, outcome
    assert word in outcome.detail
    assert outcome.detail.isprintable()
    return outcome


@pytest.mark.parametrize(
    ("dn", "attribute", "tail"),
    [
        (DN, "certificateRevocationList;binary", "?base"),
        (DN, "certificateRevocationList", ""),
        (DN, "CERTIFICATEREVOCATIONLIST;BINARY", "?BASE?(objectClass=cRLDistributionPoint)"),
        (DN, "certificateRevocationList;binary", "?base?objectClass=cRLDistributionPoint"),
        (f"cn=Müller\\, CA,{SUFFIX}", "authorityRevocationList;binary", ""),
        (f"cn=delta,{SUFFIX}", "deltaRevocationList;binary", ""),
    ],
)
def test_a_crl_from_a_real_directory(dn: str, attribute: str, tail: str, slapd: Slapd) -> None:
    """CRL-28, RFC 4516 §2, RFC 4523 §2: with and without ;binary, base scope, escaped names; the filter changes nothing."""
    url = slapd.url(dn, attribute, tail)
    assert get(url, slapd.port) == Fetched(url, CRL)


def test_a_filter_of_the_certificate_is_not_used(slapd: Slapd) -> None:
    """CRL-28: one that would match nothing, and one that would be an injection."""
    for text in ("(objectClass=person)", "(|(cn=*)(userPassword=*))", "(("):
        url = slapd.url(DN, tail=f"?base?{text}")
        assert get(url, slapd.port) == Fetched(url, CRL)


def test_urls_without_a_host(slapd: Slapd) -> None:
    """CRL-28: unsupported, unless a directory for them is configured."""
    url = f"ldap:///{DN.replace(' ', '%20')}?certificateRevocationList?base?objectClass=cRLDistributionPoint"
    failed(get(url, slapd.port), "rev.unsupported", "ldap_default")
    assert get(url, slapd.port, nearest=slapd.port) == Fetched(url, CRL)


def test_only_listed_servers_are_asked(slapd: Slapd, elsewhere: RawServer) -> None:
    """CRL-28, THR-1: the list first, then the guard on the addresses of who is listed."""
    url = f"ldap://127.0.0.1:{elsewhere.port}/{DN.replace(' ', '%20')}?certificateRevocationList"
    failed(get(url, slapd.port), "rev.blocked-by-guard", "ldap_servers")
    failed(get(slapd.url(DN), slapd.port, networks=()), "rev.blocked-by-guard", "loopback")
    assert elsewhere.requests == []


def test_referrals_are_not_followed(slapd: Slapd, elsewhere: RawServer) -> None:
    """CRL-28: neither of an entry nor of the whole directory."""
    for dn in (f"cn=moved,{SUFFIX}", "cn=x,dc=elsewhere"):
        failed(get(slapd.url(dn), slapd.port), "rev.directory-error", "refers to another one")
    assert elsewhere.requests == []


def test_what_the_directory_refuses(slapd: Slapd) -> None:
    """No such entry, an entry without a CRL, one that anonymous users may not see: each in the directory's words."""
    failed(get(slapd.url(f"cn=none,{SUFFIX}"), slapd.port), "rev.directory-error", "No such object")
    failed(get(slapd.url(SUFFIX), slapd.port), "rev.directory-error", "no certificateRevocationList")
    outcome = failed(get(slapd.url(f"ou=secret,{SUFFIX}"), slapd.port), "rev.directory-error")
    assert not outcome.host_fault


def test_too_large(slapd: Slapd) -> None:
    """THR-4: the limit is that of CRLs."""
    failed(get(slapd.url(DN), slapd.port, max_size=len(CRL) - 1), "rev.too-large")


def test_nobody_there() -> None:
    port = free_port()
    outcome = failed(
        get(f"ldap://127.0.0.1:{port}/{SUFFIX}?certificateRevocationList", port),
        "rev.unreachable",
        "connection refused",
    )
    assert outcome.host_fault


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("ldap://dir.test/cn=a,o=b?certificateRevocationList;binary",
         Place(Server("dir.test"), "cn=a,o=b", "certificateRevocationList;binary")),
        ("LDAP://DIR.test.:1389/cn=a%2Co=b?authorityrevocationlist?base",
         Place(Server("dir.test", 1389), "cn=a,o=b", "authorityRevocationList;binary")),
        ("ldap:///cn=a?deltaRevocationList?base?x?ext", Place(None, "cn=a", "deltaRevocationList;binary")),
    ],
)  # fmt: skip
def test_urls_that_are_followed(url: str, place: Place) -> None:
    assert parse_url(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "ldap://dir.test/cn=a", "ldap://dir.test/cn=a?", "ldap://dir.test/?certificateRevocationList", "ldap://dir.test",
        "ldap://dir.test/cn=a?userPassword", "ldap://dir.test/cn=a?certificateRevocationList,userPassword",
        "ldap://dir.test/cn=a?*", "ldap://dir.test/cn=a?certificateRevocationList?sub",
        "ldap://dir.test/cn=a?certificateRevocationList?one", "ldap://dir.test/cn=a?certificateRevocationList;range=0-1",
        "ldap://dir.test/cn=a?certificateRevocationList?base??!bindname=cn=x", "ldaps://dir.test/cn=a?certificateRevocationList",
        "ldap://u:p@dir.test/cn=a?certificateRevocationList", "ldap://dir.test:x/cn=a?certificateRevocationList",
        "ldap://dir.test/nodn?certificateRevocationList", "ldap://dir.test/cn=a%00b?certificateRevocationList",
        "ldap://dir.test/cn=a%0Ab?certificateRevocationList", "ldap://dir.test/cn=%ff?certificateRevocationList",
        "ldap://dir.test/cn=a b?certificateRevocationList", "ldap://dir.test/cn=a#x?certificateRevocationList",
        "ldap://dir.test/cn=" + "a" * 2048 + "?certificateRevocationList", "http://dir.test/", "ldapi://%2Frun/",
    ],
)  # fmt: skip
def test_t11_urls_that_are_not_followed(url: str) -> None:
    """CRL-28, THR-3, T-11: another attribute, more than one entry, critical extensions, credentials, other schemes."""
    assert isinstance(parse_url(url), str)
    failed(get(url, 389), "rev.blocked-by-guard")


# ---- servers that mean harm ------------------------------------------------------------------------------------------

BIND_OK = seq(b"\x02\x01\x01", node(0x61, b"\x0a\x01\x00\x04\x00\x04\x00"))


def entry(value: bytes, dn: bytes = b"cn=a") -> bytes:
    attribute = seq(node(0x04, b"certificateRevocationList;binary"), node(0x31, node(0x04, value)))
    return seq(b"\x02\x01\x02", node(0x64, node(0x04, dn), seq(attribute)))


def done(code: int = 0, *more: bytes) -> bytes:
    return seq(b"\x02\x01\x02", node(0x65, bytes((0x0A, 1, code)), b"\x04\x00\x04\x00", *more))


def reference(url: str) -> bytes:
    return seq(b"\x02\x01\x02", node(0x73, node(0x04, url.encode())))


Talk = Callable[[socket.socket], None]


def drip(data: bytes) -> Talk:
    def talk(channel: socket.socket) -> None:
        for octet in data:
            channel.sendall(bytes((octet,)))
            time.sleep(0.05)

    return talk


def endless(part: bytes) -> Talk:
    def talk(channel: socket.socket) -> None:
        while True:
            channel.sendall(part)

    return talk


def then(data: bytes, pause: float = 0.0) -> Talk:
    def talk(channel: socket.socket) -> None:
        channel.sendall(data)
        time.sleep(pause)

    return talk


HOSTILE: dict[str, tuple[Talk, Talk, str]] = {
    # after the bind request; after the search request; the reason
    "hangs at once": (then(b"", 3), then(b""), "rev.timeout"),
    "hangs after the bind": (then(BIND_OK), then(b"", 3), "rev.timeout"),
    "half a message": (then(BIND_OK[:5], 3), then(b""), "rev.timeout"),
    "half an entry": (then(BIND_OK), then(entry(CRL)[:40], 3), "rev.timeout"),
    "drips": (drip(BIND_OK * 20), then(b""), "rev.timeout"),
    "drips the entry": (then(BIND_OK), drip(entry(CRL)), "rev.timeout"),
    "closes at once": (socket.socket.close, then(b""), "rev.unreachable"),
    "closes after the bind": (then(BIND_OK), then(b""), "rev.unreachable"),
    "no LDAP": (then(b"HTTP/1.1 400 Bad\r\n\r\n" * 10), then(b""), ""),
    "huge length": (then(b"\x30\x84\x7f\xff\xff\xff" + b"\x02\x01\x01", 3), then(b""), ""),
    "endless rubbish": (endless(b"\x30\x84\x00\xff\xff\xff" + bytes(5000)), then(b""), ""),
    "endless entries": (then(BIND_OK), endless(entry(CRL)), "rev.too-large"),
    "endless references": (then(BIND_OK), endless(reference("ldap://127.0.0.1:1/")), "rev.too-large"),
    "a large value": (then(BIND_OK), then(entry(bytes(200_000)) + done()), "rev.too-large"),
    "refuses the bind": (then(seq(b"\x02\x01\x01", node(0x61, b"\x0a\x01\x31\x04\x00\x04\x03no\n"))), then(b""),
                         "rev.directory-error"),
    "is busy": (then(BIND_OK), then(done(51)), "rev.directory-error"),
    "refers in the end": (then(BIND_OK), then(done(10, node(0xA3, node(0x04, b"ldap://127.0.0.1:1/")))),
                          "rev.directory-error"),
    "references only": (then(BIND_OK), then(reference("ldap://127.0.0.1:1/x") + done()), "rev.directory-error"),
    "no entry": (then(BIND_OK), then(done()), "rev.directory-error"),
}  # fmt: skip


class Hostile:
    """Answers one bind and one search as told."""

    def __init__(self, bind: Talk, search: Talk) -> None:
        self._talks = (bind, search)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            channel, _ = self._listener.accept()
            with channel:
                for talk in self._talks:
                    self.asked.append(channel.recv(65536))
                    talk(channel)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_t05_hostile_directory(name: str) -> None:
    """T-5, THR-4, THR-5: whatever it does, the conversation ends within its deadline and limit, as a named failure."""
    bind, search, why = HOSTILE[name]
    server = Hostile(bind, search)
    started = time.monotonic()
    budget = 0.6 if why in ("", "rev.timeout") else 5.0
    outcome = get(f"ldap://127.0.0.1:{server.port}/cn=a?certificateRevocationList", server.port, budget=budget)
    server.close()
    assert isinstance(outcome, FetchFailed), outcome
    assert why in ("", outcome.why), outcome
    assert outcome.detail.isprintable()
    assert time.monotonic() - started < budget + 1.5


def test_t05_a_directory_is_given_no_more_time_for_a_sink() -> None:
    """THR-5, T-5: what a large CRL may be given over HTTP, where its progress is seen, a silent directory doesn't get."""
    server = Hostile(then(BIND_OK), then(entry(CRL)[:40], 5))
    guard = Guard(allow_networks=["127.0.0.0/8"])
    both = WithDirectories(Fetcher(guard, user_agent="x"), Directories(guard, [Server("127.0.0.1", server.port)]))
    now = time.monotonic()
    outcome = both.get_to(
        f"ldap://127.0.0.1:{server.port}/cn=a?certificateRevocationList", lambda _: None, max_size=9999,
        deadline=now + 0.5, until=now + 600,
    )  # fmt: skip
    server.close()
    failed(outcome, "rev.timeout")
    assert time.monotonic() - now < 3


def test_what_is_asked() -> None:
    """An anonymous simple bind, version 3; base scope, one entry, the fixed filter, one attribute; nothing else."""
    server = Hostile(then(BIND_OK), then(entry(CRL) + done()))
    outcome = get(f"ldap://127.0.0.1:{server.port}/cn=a?certificateRevocationList?base?(cn=*)", server.port)
    server.close()
    assert isinstance(outcome, Fetched), outcome
    assert outcome.body == CRL
    bind, search = server.asked
    assert bind == bytes.fromhex("300c020101600702010304008000")
    assert b"\x04\x04cn=a\x0a\x01\x00\x0a\x01\x00\x02\x01\x01" in search
    assert search.endswith(b"\x87\x0bobjectClass" + seq(node(0x04, b"certificateRevocationList;binary")))


def test_http_and_directories_together(slapd: Slapd, tmp_path: Path) -> None:
    """ldap: URLs go to the directory, all others to HTTP; a sink gets what it would get from HTTP."""
    guard = Guard(allow_networks=["127.0.0.0/8"])
    both = WithDirectories(Fetcher(guard, user_agent="x"), Directories(guard, [Server("127.0.0.1", slapd.port)]))
    url, end = slapd.url(DN), time.monotonic() + 3
    assert both.get(url, max_size=9999, deadline=end) == Fetched(url, CRL)
    pieces: list[bytes] = []
    assert both.get_to(url, pieces.append, max_size=9999, deadline=end) == Fetched(url, b"", streamed=len(CRL))
    assert pieces == [CRL]
    full = OSError(28, "No space left on device")

    def sink(_: bytes) -> None:
        raise full

    failed(both.get_to(url, sink, max_size=9999, deadline=end), "rev.store-unavailable", "No space left")
    failed(both.get("http://127.0.0.1:9/", max_size=9, deadline=end), "rev.blocked-by-guard", "port 9")


def test_a_certificate_whose_crl_is_in_a_directory_only(slapd: Slapd, tmp_path: Path) -> None:
    """CRL-28: unsupported by default; good or revoked when the directory is listed."""
    now = datetime.now(UTC).replace(microsecond=0)
    window = {"not_before": now - DAY, "not_after": now + 30 * DAY}
    ca = authority("Corporate CA", **window)
    url = slapd.url(f"cn=Corporate CA,{SUFFIX}")
    good, gone = (ca.issue(f"{n}@home.test", slot=n, crl_urls=[url], **window) for n in (1, 2))
    crl = ca.crl([gone], this_update=now - HOUR, next_update=now + DAY, revoked_at=now - HOUR)
    slapd.add(f"cn=Corporate CA,{SUFFIX}", "certificateRevocationList;binary", crl)
    (tmp_path / "root.pem").write_bytes(ca.pem)
    config = tmp_path / "ldap.toml"
    config.write_text(f'[lookup]\nallow_networks = ["127.0.0.1"]\nldap_servers = ["127.0.0.1:{slapd.port}"]\n')
    nearest = tmp_path / "nearest.toml"
    nearest.write_text(f'[lookup]\nallow_networks = ["127.0.0.1"]\nldap_default = "127.0.0.1:{slapd.port}"\n')

    def verify(leaf: Leaf, file: str) -> tuple[int, str, str]:
        (tmp_path / "leaf.pem").write_bytes(leaf.pem)
        said = run_postseal("verify", "--online", "--json", "--config", file, "--anchor", str(tmp_path / "root.pem"),
                            str(tmp_path / "leaf.pem"))  # fmt: skip
        found = json.loads(said.stdout)
        return said.returncode, found["reason"], found["revocation"][0]["source"]

    assert verify(good, "/dev/null")[:2] == (1, "rev.unsupported")
    assert verify(good, str(config)) == (0, "rev.crl", url)
    assert verify(gone, str(config)) == (1, "rev.revoked-crl", url)
    # As the CA of a Windows domain writes it.
    bare = url.replace(f"127.0.0.1:{slapd.port}", "").replace("?base", "?base?objectClass=cRLDistributionPoint")
    domain = ca.issue("3@home.test", slot=3, crl_urls=[bare], **window)
    assert verify(domain, str(nearest)) == (0, "rev.crl", bare)
