"""The address guard in a network where every address answers and the name service lies: where did packets go?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.internet import HERE, NAMES, PUBLIC, in_namespaces

ADMITTED = {
    "http://good.test/": PUBLIC,
    "http://good.test./": PUBLIC,
    "http://93.184.215.14/": PUBLIC,
    "http://1572394766/": PUBLIC,
    "http://six.test/": "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
    # The first answer is public and is the one that is connected to, whatever the next one says.
    "http://rebind.test/": PUBLIC,
    "http://late.test/": PUBLIC,
}
# The same names again: now their second answers count.
SECOND = ["http://rebind.test/again", "http://late.test/again"]
BLOCKED = [
    *(f"http://{name}/" for name in NAMES if name.split(".")[0] in (
        "loop", "mixed", "both", "mapped", "nat64", "sixtofour", "teredo", "ula", "link", "cgnat", "meta", "multi", "zero",
        "broadcast", "own", "xn--bcher-kva")),
    "http://hosted.test/", "http://localhost/", "http://127.0.0.1/", "http://127.1/", "http://2130706433/",
    "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://0/", "http://10.0.0.1/", "http://172.31.0.1/",
    "http://192.168.1.1/", "http://100.127.0.1/", "http://169.254.169.254/", "http://224.0.0.1/", "http://240.0.0.1/",
    "http://255.255.255.255/", "http://198.18.0.1/", "http://93.184.215.99/", "http://198.51.100.2/", "http://[::1]/",
    "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:10.0.0.1]/", "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/", "http://[64:ff9b::10.0.0.1]/", "http://[2002:7f00:1::]/", "http://[2002:a00:1::1]/",
    "http://[2001:0:7f00:1::1]/", "http://[fd00::1]/", "http://[fe80::1]/", "http://[fec0::1]/", "http://[ff02::1]/",
    "http://[2001:db8::1]/", "http://u@10.0.0.1/", "ftp://10.0.0.1/", "http://10.0.0.1:8080/", "http://10.0.0.1/\r\nX: y",
]  # fmt: skip
OTHER = {
    "http://redirect.test/": "rev.http-status",
    "http://silent.test/": "rev.timeout",
    "http://no.test/": "rev.unreachable",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("internet")
    urls = [*ADMITTED, *SECOND, *BLOCKED, *OTHER]
    found: dict[str, Any] = json.loads(in_namespaces(HERE / "guarded.py", folder, json.dumps(urls)).splitlines()[-1])
    found["found"] = {url: tuple(outcome) for url, outcome in found["found"]}
    return found


@pytest.mark.root
def test_t11_nothing_reaches_a_denied_address(seen: dict[str, Any]) -> None:
    """T-11, THR-1: more than forty URLs that lead inside, in a network where all would be answered: not one packet."""
    assert len(BLOCKED) >= 50
    assert {url: seen["found"][url][0] for url in [*BLOCKED, *SECOND]} == dict.fromkeys(
        [*BLOCKED, *SECOND], "rev.blocked-by-guard"
    )
    assert seen["counted"]["denied"] == 0


@pytest.mark.root
def test_t11_public_addresses_are_connected_to_as_vetted(seen: dict[str, Any]) -> None:
    """T-11, THR-2: each at the address that was vetted; rebinding names at their first answer, and never again."""
    assert {url: seen["found"][url] for url in ADMITTED} == {url: ("fetched", at) for url, at in ADMITTED.items()}
    # The redirect's own connection is the last one; what it points to was not asked.
    assert seen["connected"] == [*ADMITTED.values(), PUBLIC]
    assert seen["counted"]["admitted"] > 0


@pytest.mark.root
def test_t11_redirect_silence_and_missing_names(seen: dict[str, Any]) -> None:
    """T-11, THR-2: a redirect inside isn't followed; a name service that doesn't answer costs no more than the deadline."""
    assert {url: seen["found"][url][0] for url in OTHER} == OTHER
    assert "10.1.2.3/inside" in seen["found"]["http://redirect.test/"][1]


@pytest.mark.root
def test_the_counter_would_have_seen_it(seen: dict[str, Any]) -> None:
    """Without the guard the same network answers, and the counter counts."""
    assert [outcome[0] for _, outcome in seen["opened"]][:2] == ["fetched", "fetched"]
    assert seen["after"]["denied"] > 0


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mapped")
    said = json.loads(in_namespaces(HERE / "mapped.py", folder).splitlines()[-1])
    found: dict[str, Any] = {**said["found"], "proxied": said["proxied"]}
    return found


@pytest.mark.root
@pytest.mark.parametrize("way", ["configured", "by option", "through a proxy"])
def test_hosts_that_map_to_loopback_can_be_admitted(way: str, verified: dict[str, Any]) -> None:
    """docs/operations.md: CRL, OCSP answer and issuer from several hosts of /etc/hosts on ports 80 and 8080, by the CLI."""
    code, said = verified[way]["code"], {name: verified[way][name] for name in ("crl", "gone", "ocsp")}
    assert {name: (found["status"], found["reason"]) for name, found in said.items()} == {
        "crl": ("good", "rev.crl"), "gone": ("revoked", "rev.revoked-crl"), "ocsp": ("good", "rev.ocsp"),
    }  # fmt: skip
    assert code == 1, "one of them is revoked"
    assert said["crl"]["revocation"][0]["source"] == "http://crl.pki.test:8080/sub.crl"


@pytest.mark.root
def test_without_leave_they_are_blocked_and_the_message_says_how(verified: dict[str, Any]) -> None:
    """THR-1: nothing was admitted, and only what was."""
    found = verified["guarded"]["crl"]
    assert found["status"] == "untrusted"
    assert "has the address 127.0.0.1, which is a loopback address (allow_networks in [lookup]" in found["detail"]
    found = verified["port closed"]["crl"]
    assert found["status"] == "unknown"
    assert "port 8080 is not allowed" in found["detail"]
    found = verified["one host"]["crl"]
    assert found["status"] == "unknown"
    assert "host crl.pki.test has the address 127.0.0.2" in found["detail"]


@pytest.mark.root
def test_a_proxy_is_asked_for_everything(verified: dict[str, Any]) -> None:
    """[lookup] proxy: issuer, CRLs and OCSP answer went through the real one, which resolved the names."""
    assert verified["proxied"] == ["http://aia.pki.test/sub.c", "http://crl.pki.test:8080/",
                                   "http://ocsp.pki.test/ocsp"]  # fmt: skip
