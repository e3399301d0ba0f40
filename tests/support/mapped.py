"""For tests/system/test_internet.py, in a namespace: a PKI whose hosts are names of loopback, verified over the network.

Prints a JSON object: what each way to call ``postseal verify`` gave for each certificate, and its exit code.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from support.daemon import run_postseal
from support.internet import run
from support.pki import DAY, HOUR, authority
from support.responders import OCSP_TYPE, Responder, WebServer
from support.scratch import answers, wait_for

NOW = datetime.now(UTC).replace(microsecond=0)
WINDOW = {"not_before": NOW - DAY, "not_after": NOW + 30 * DAY}
FRESH = {"this_update": NOW - HOUR, "next_update": NOW + DAY, "revoked_at": NOW - HOUR}
HOSTS = "127.0.0.1 localhost\n" + "".join(
    f"127.0.0.{number} {name}.pki.test\n" for number, name in enumerate(("aia", "crl", "ocsp", "other"), 1)
)


def access(issuer: str, responder: str) -> tuple[x509.AuthorityInformationAccess, bool]:
    methods = ((AuthorityInformationAccessOID.CA_ISSUERS, issuer), (AuthorityInformationAccessOID.OCSP, responder))
    named = [x509.AccessDescription(oid, x509.UniformResourceIdentifier(url)) for oid, url in methods if url]
    return x509.AuthorityInformationAccess(named), False


def publish(folder: Path, web80: WebServer, web8080: WebServer) -> None:
    """Root, a CA that must be fetched, and certificates: good by CRL, good by OCSP, revoked."""
    root = authority("Mapped root", **WINDOW)
    sub = root.sub("Mapped CA", crl_urls=["http://crl.pki.test:8080/root.crl"], **WINDOW)
    issuer = "http://aia.pki.test/sub.cer"
    by_crl = sub.issue(
        "a@home.test", crl_urls=["http://crl.pki.test:8080/sub.crl"], extra=[access(issuer, "")], **WINDOW
    )
    gone = sub.issue("b@home.test", slot=1, crl_urls=["http://crl.pki.test:8080/sub.crl"], extra=[access(issuer, "")],
                     **WINDOW)  # fmt: skip
    by_ocsp = sub.issue("c@home.test", slot=2, extra=[access(issuer, "http://ocsp.pki.test/ocsp")], **WINDOW)
    web80.put("/sub.cer", sub.certificate.der, "application/pkix-cert")
    web80.put("/ocsp", Responder(sub).answer, OCSP_TYPE)
    web8080.put("/root.crl", root.crl(**FRESH))
    web8080.put("/sub.crl", sub.crl([gone], **FRESH))
    for name, pem in {"root": root.pem, "crl": by_crl.pem, "gone": gone.pem, "ocsp": by_ocsp.pem}.items():
        (folder / f"{name}.pem").write_bytes(pem)


@contextlib.contextmanager
def tinyproxy(folder: Path) -> Iterator[None]:
    """A proxy that resolves names as this namespace does, and notes each request."""
    config = folder / "tinyproxy.conf"
    config.write_text(
        f'Port 3128\nListen 127.0.0.9\nAllow 127.0.0.0/8\nLogFile "{folder}/proxy.log"\nLogLevel Connect\n'
    )
    program = shutil.which("tinyproxy")
    assert program is not None
    with subprocess.Popen([program, "-d", "-c", str(config)]) as process:
        wait_for(lambda: answers("127.0.0.9:3128"), "tinyproxy")
        yield
        process.terminate()


def main() -> None:
    folder = Path(sys.argv[1])
    run("ip link set lo up")
    (folder / "hosts").write_text(HOSTS)
    (folder / "nsswitch.conf").write_text("hosts: files\n")
    run(f"mount --bind {folder}/hosts /etc/hosts")
    run(f"mount --bind {folder}/nsswitch.conf /etc/nsswitch.conf")
    (folder / "test.toml").write_text('[lookup]\nallow_networks = ["127.0.0.0/8"]\nports = [80, 8080]\n')
    (folder / "proxy.toml").write_text('[lookup]\nproxy = "http://127.0.0.9:3128"\nports = [80, 8080]\n')
    ways = {
        "through a proxy": ["--config", str(folder / "proxy.toml")],
        "configured": ["--config", str(folder / "test.toml")],
        "by option": ["--config", "/dev/null", "--allow-network", "127.0.0.0/8", "--allow-port", "8080"],
        "guarded": ["--config", "/dev/null"],
        "port closed": ["--config", "/dev/null", "--allow-network", "127.0.0.0/8"],
        "one host": ["--config", "/dev/null", "--allow-network", "127.0.0.1", "--allow-port", "8080"],
    }
    found: dict[str, dict[str, object]] = {}
    names = ("crl", "gone", "ocsp")
    with tinyproxy(folder), WebServer(80, "") as web80, WebServer(8080, "") as web8080:
        publish(folder, web80, web8080)
        for way, options in ways.items():
            done = run_postseal(
                "verify", "--online", "--json", *options, "--anchor", str(folder / "root.pem"),
                *(str(folder / f"{name}.pem") for name in names),
            )  # fmt: skip
            said = [json.loads(line) for line in done.stdout.splitlines()]
            found[way] = {"code": done.returncode, **dict(zip(names, said, strict=True))}
    asked = re.findall(r"Request \(file descriptor \d+\): (?:GET|POST) (http\S+)", (folder / "proxy.log").read_text())
    print(json.dumps({"found": found, "proxied": sorted({url[:25] for url in asked})}))


main()
