"""What the lookup process can still do: as root, as the service's user, and under the service's system call filter."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postseal.core.evidence import CrlEvidence, OcspEvidence, question_for
from postseal.sources.evidence import EvidenceStore
from postseal.sources.lookup_client import LookupClient
from support.daemon import Daemon, postseal_as
from support.pki import DAY, HOUR, authority
from support.responders import OCSP_TYPE, Responder, WebServer
from support.scratch import ROOT, wait_for

NOBODY = 65534
START = datetime.now(UTC).replace(microsecond=0)
UNIT = ROOT / "systemd/postseal-lookup.service"


def fetch_something(daemon: Daemon, web: WebServer) -> None:
    """A large CRL and an OCSP answer, through the whole service: name, guard, HTTP, helpers, store."""
    ca = authority("Sandbox root", not_before=START - DAY, not_after=START + 60 * DAY)
    window = {"not_before": START - DAY, "not_after": START + 30 * DAY}
    (daemon.anchors / "root.pem").write_bytes(ca.pem)
    web.put("/ca.crl", ca.crl(range(10**6, 10**6 + 9000), this_update=START - HOUR, next_update=START + DAY))
    web.put("/ocsp", Responder(ca).answer, OCSP_TYPE)
    by_crl = ca.issue("a@home.test", crl_urls=[web.url("/ca.crl")], **window)
    by_ocsp = ca.issue("b@home.test", slot=1, ocsp_urls=[web.url("/ocsp")], **window)
    questions = [question_for(leaf.certificate, ca.certificate) for leaf in (by_crl, by_ocsp)]
    store = EvidenceStore(daemon.state / "evidence", readonly=True)
    wanted = (CrlEvidence, OcspEvidence)

    def there() -> bool:
        LookupClient(daemon.run / "lookup.sock").ask(questions, 5.0).result(15)
        found = [store.evidence(question) for question in questions]
        return all(any(isinstance(e, kind) for e in some) for some, kind in zip(found, wanted, strict=True))

    wait_for(there, f"the evidence; the log says:\n{daemon.log()}", timeout=40, pause=0.5)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


def settings(web: WebServer) -> dict[str, dict[str, object]]:
    return {"lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [web.port]}}


@pytest.mark.root
def test_root_gives_up_what_it_does_not_need(scratch: Path) -> None:
    """Of root's capabilities only those over files stay, the helpers that parse have none; and it works all the same."""
    with WebServer() as web, Daemon(scratch, "lookup", settings=settings(web)) as daemon:
        fetch_something(daemon, web)
        assert daemon.process is not None
        own = status(daemon.process.pid)
        # One that was just started for the large CRL may still be on its way.
        helpers = children(daemon.process.pid)
        wait_for(lambda: all(powerless(status(helper)) for helper in helpers), "the helpers to give up all rights")
    # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER
    assert {int(own[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0b1011}
    assert own["NoNewPrivs"] == "1"
    assert helpers


def powerless(facts: dict[str, str]) -> bool:
    return {int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0} and facts[
        "NoNewPrivs"
    ] == "1"


def as_nobody(directory: Path, web: WebServer, *before: str) -> Daemon:
    """The service as a user without rights; ``before`` is put before its command."""
    launcher = postseal_as(directory, NOBODY, NOBODY)
    at = launcher.index("env")
    daemon = Daemon(directory, "lookup", settings=settings(web), launcher=[*launcher[:at], *before, *launcher[at:]])
    for path in [directory, *directory.rglob("*")]:
        if "tree-" not in str(path):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return daemon


@pytest.mark.root
def test_processes_of_the_same_user_can_not_look_into_it(scratch: Path) -> None:
    """THR-17: not dumpable, so its memory and environment are root's alone."""
    with WebServer() as web, as_nobody(scratch, web) as daemon:
        fetch_something(daemon, web)
        assert daemon.process is not None
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "cat"]
        found = [
            subprocess.run([*command, f"/proc/{daemon.process.pid}/{name}"], capture_output=True, text=True)
            for name in ("environ", "maps")
        ]
    assert [done.returncode for done in found] == [1, 1]
    assert all("Permission denied" in done.stderr for done in found)


def allowed_calls() -> set[str]:
    """System calls that the unit's SystemCallFilter lets through, with systemd's own groups."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, set[str]] = {}
    name = ""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", listed).splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = set()
        elif line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].add(line.strip())

    def expand(word: str) -> set[str]:
        if not word.startswith("@"):
            return {word}
        return set().union(*(expand(w) for w in groups[word])) if groups[word] else set()

    # systemd.exec(5): what @default names is always let through.
    found = expand("@default")
    for value in re.findall(r"(?m)^SystemCallFilter=(.*)$", UNIT.read_text()):
        words = value.removeprefix("~").split()
        calls = set().union(*(expand(word) for word in words))
        found = found - calls if value.startswith("~") else found | calls
    return found | expand("@default")


@pytest.mark.root
def test_the_service_file_lets_through_what_the_service_does(scratch: Path) -> None:
    """Fetching, helpers and all: no system call that the filter refuses, no memory that is both written and executed."""
    trace = scratch / "trace"
    with WebServer() as web, as_nobody(scratch, web, "strace", "-D", "-f", "-qq", "-o", str(trace)) as daemon:
        fetch_something(daemon, web)
    lines = trace.read_text(errors="replace").splitlines()
    used = {m[1] for line in lines if (m := re.match(r"\d+ +([a-z0-9_]+)\(", line))}
    assert {"clone", "clone3", "vfork", "fork"} & used
    assert {"connect", "prctl", "memfd_create", "prlimit64"} <= used
    assert used - allowed_calls() == set()
    executable = [line for line in lines if "PROT_WRITE|PROT_EXEC" in line or re.search(r"mprotect\(.*PROT_EXEC", line)]
    assert executable == []
    families = {m[1] for line in lines if (m := re.search(r"\bsocket\((AF_\w+)", line))}
    permitted = set(re.findall(r"AF_\w+", re.findall(r"(?m)^RestrictAddressFamilies=(.*)$", UNIT.read_text())[0]))
    # The C library asks for the routes by netlink, and does without when it is refused.
    assert families - permitted <= {"AF_NETLINK"}
    # SocketBindDeny=any. urllib3 finds out whether there is IPv6 by a bind, and takes a refusal for an answer.
    bound = [line for line in lines if re.search(r"\bbind\(.*AF_INET", line)]
    assert all('sin6_port=htons(0), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1"' in line for line in bound)


def test_the_filter_is_read_right() -> None:
    """Else the test above would prove nothing."""
    calls = allowed_calls()
    assert {"read", "openat", "execve", "connect", "futex"} <= calls
    assert not {"sched_setscheduler", "mount", "ptrace", "reboot", "chroot", "init_module"} & calls
