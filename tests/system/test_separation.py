"""Milter and lookup as two users, with the directories of systemd/tmpfiles.conf: mail is sealed, and neither can do more."""

from __future__ import annotations

import grp
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.daemon import Daemon, postseal_as, run_postseal
from support.pki import Leaf, authority
from support.postfix import PrivatePostfix
from support.responders import WebServer
from support.scratch import ROOT, free_port, wait_for
from support.scratch import scratch as scratch_directory
from support.sink import Sink

DAY = timedelta(days=1)
GROUP = 64000
USERS = {"postseal-milter": 64001, "postseal-lookup": 64002, "postseal-metrics": 64003, "root": 0}
STRICT = {"name": "all", "seal": "must", "without_certificate": "refuse", "revocation": "strict"}
MESSAGE = b"From: a@home.test\r\nSubject: hi\r\n\r\nhello\r\n"


def _as(user: str) -> list[str]:
    return ["setpriv", f"--reuid={USERS[user]}", f"--regid={GROUP}", "--clear-groups", "--inh-caps=-all"]


def _make_directories(directory: Path, daemon: Daemon) -> None:
    """What systemd-tmpfiles would make of systemd/tmpfiles.conf and packaging/postfix/tmpfiles.conf."""
    places = {
        "/run/postseal": daemon.run,
        "/var/lib/postseal": daemon.state,
        "/var/spool/postfix/postseal": directory / "postfix-socket",
        "/etc/postseal": daemon.directory,
    }
    groups = {"postseal": GROUP, "root": 0, "postfix": _postfix_group()}
    for file in (ROOT / "systemd/tmpfiles.conf", ROOT / "packaging/postfix/tmpfiles.conf"):
        for line in file.read_text().splitlines():
            if not line.startswith("#"):
                kind, path, mode, user, group, _ = line.split()
                assert kind == "d"
                place = next(
                    there / path[len(here) :].lstrip("/") for here, there in places.items() if path.startswith(here)
                )
                place.mkdir(parents=True, exist_ok=True)
                os.chown(place, USERS[user], groups[group])
                place.chmod(int(mode, 8))


def _postfix_group() -> int:
    return grp.getgrnam("postfix").gr_gid


@dataclass
class Site:
    directory: Path
    sink: Sink
    milter: Daemon
    postfix: PrivatePostfix
    leaf: Leaf


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    now = datetime.now(UTC).replace(microsecond=0)
    root = authority("Separation Root", not_before=now - 400 * DAY, not_after=now + 400 * DAY)
    with scratch_directory() as directory, WebServer() as web, Sink() as sink:
        settings = {
            # As packaging/postseal.toml: group and mode come from the directory that hands its group on.
            "milter": {"socket": f"unix:{directory}/postfix-socket/milter.sock", "socket_mode": "0660"},
            "lookup": {"allow_networks": ["127.0.0.0/8"], "ports": [web.port]},
            "metrics": {"listen": f"127.0.0.1:{free_port()}"},
        }
        home, policy = (
            directory / "postseal",
            [STRICT],
        )
        milter, lookup = (
            Daemon(
                home,
                name,
                settings=settings,
                policy=policy,
                launcher=postseal_as(directory, USERS[f"postseal-{name}"], GROUP),
            )
            for name in ("milter", "lookup")
        )
        _make_directories(directory, milter)
        lookup.log_file = home / "lookup.log"
        leaf = root.issue(
            "b@example.test", crl_urls=[web.url("/r.crl")], not_before=now - DAY, not_after=now + 90 * DAY
        )
        (milter.anchors / "root.pem").write_bytes(root.pem)
        (milter.certificates / "b.pem").write_bytes(leaf.pem)
        web.put("/r.crl", root.crl(this_update=now - timedelta(hours=1), next_update=now + DAY))
        with lookup, milter, PrivatePostfix(directory / "postfix", milter.milter, sink.port) as postfix:
            yield Site(directory, sink, milter, postfix, leaf)


def test_mail_is_sealed_although_neither_service_is_root(site: Site) -> None:
    """Postfix's user reaches the milter's socket, the milter the lookup's, and each its own files. The rule is strict."""
    assert site.postfix.send("a@home.test", ["b@example.test"], MESSAGE) == {}
    delivery = site.sink.wait_for("b@example.test")
    assert delivery.parsed.get_content_type() == "application/pkcs7-mime"
    site.milter.wait_log("action=sealed")
    assert "revocation=crl/good" in site.milter.log()
    assert "record" not in site.milter.log(), "the decision must be stored without a complaint"
    wait_for((site.milter.state / "decisions.sqlite").exists, "the decision record")
    assert (site.milter.state / "decisions.sqlite").stat().st_uid == USERS["postseal-milter"]
    assert (site.milter.state / "evidence" / "evidence.sqlite").stat().st_uid == USERS["postseal-lookup"]


def test_a_third_user_reads_the_numbers_of_both_and_a_stranger_none(site: Site) -> None:
    """CACHE-14: ``postseal metrics`` has the group and nothing else; the files are for the group only."""
    read = [*postseal_as(site.directory, USERS["postseal-metrics"], GROUP), "metrics", "--print"]
    done = subprocess.run([*read, "--config", str(site.milter.config_file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for line in (
        'postseal_up{service="milter"} 1.0',
        'postseal_up{service="lookup"} 1.0',
        "postseal_evidence_readable 1.0",
    ):
        assert f"{line}\n" in done.stdout
    assert 'postseal_decisions_total{action="sealed",reason="ok.sealed"}' in done.stdout
    for service in ("milter", "lookup"):
        for path in (site.milter.run / f"metrics-{service}").iterdir():
            status = path.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (
                USERS[f"postseal-{service}"],
                GROUP,
                0o640,
            )


def test_certificates_that_root_imports_are_seen_by_the_milter(site: Site) -> None:
    """``postseal cert import`` is typed by root."""
    path = site.milter.certificates / "b.pem"
    imported = run_postseal("cert", "import", "--config", str(site.milter.config_file), str(path))
    assert imported.returncode == 0, imported.stderr
    path.unlink()
    site.sink.clear()
    time.sleep(2)
    site.postfix.send("a@home.test", ["b@example.test"], MESSAGE)
    assert site.sink.wait_for("b@example.test").parsed.get_content_type() == "application/pkcs7-mime"


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("postseal-milter", "state/evidence/new"),
        ("postseal-lookup", "state/new"),
        ("postseal-lookup", "state/spool/new"),
        ("postseal-lookup", "certificates/new"),
        ("postseal-milter", "anchors/new"),
    ],
)
def test_neither_writes_what_is_the_others_or_the_administrators(site: Site, user: str, path: str) -> None:
    command = [*_as(user), "touch", str(site.milter.directory / path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_strangers_can_not_talk_to_either_service(site: Site) -> None:
    """Another user of the host is neither Postfix nor the milter."""
    for path in (site.directory / "postfix-socket/milter.sock", site.milter.run / "lookup.sock"):
        program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        command = [
            "setpriv",
            "--reuid=64009",
            "--regid=64009",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            program,
            str(path),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "PermissionError" in done.stderr, path
