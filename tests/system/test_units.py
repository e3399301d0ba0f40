"""The service files as systemd reads them: nothing to complain about, hardened enough, and users and directories that fit."""

from __future__ import annotations

import configparser
import os
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from support.daemon import run_postseal
from support.scratch import ROOT

UNITS = ROOT / "systemd"
SERVICES = ("postseal-milter.service", "postseal-lookup.service", "postseal-metrics.service")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "cat"}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists here in the place of the installed one."""
    for file in UNITS.glob("postseal*"):
        (tmp_path / file.name).write_text(file.read_text().replace("/usr/bin/postseal", "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("unit", [*SERVICES, "postseal.target"])
def test_systemd_has_nothing_to_complain_about(units: Path, unit: str) -> None:
    """``systemd-analyze verify`` ends with 0 even for an unknown key, so any output is a failure (P18)."""
    done = run("systemd-analyze", "verify", "--man=no", units / unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_key_that_is_misspelt_would_be_seen(units: Path) -> None:
    unit = units / SERVICES[0]
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    assert "NoNewPrivilege" in run("systemd-analyze", "verify", "--man=no", unit).stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_two_or_better(units: Path, unit: str) -> None:
    """The threshold is in tenths."""
    done = run("systemd-analyze", "security", "--offline=yes", "--threshold=20", units / unit)
    assert done.returncode == 0, done.stdout
    assert run("systemd-analyze", "security", "--offline=yes", "--threshold=1", units / unit).returncode == 1


def test_exposure_of_the_service_with_the_internet(units: Path) -> None:
    """1.4: what is left are the network and the sockets that it is there for, and setpriority, to index in the background."""
    unit = units / "postseal-lookup.service"
    assert run("systemd-analyze", "security", "--offline=yes", "--threshold=14", unit).returncode == 0


def _service(unit: str) -> dict[str, list[str]]:
    """Key -> its values in order: systemd's files repeat keys."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_milter_has_no_way_to_the_internet() -> None:
    """Only this host, for an ``inet:`` socket and for re-injection."""
    service = _service("postseal-milter.service")
    assert service["IPAddressDeny"] == ["any"]
    assert service["IPAddressAllow"] == ["localhost"]
    assert service["ReadOnlyPaths"] == ["-/var/lib/postseal/evidence"]


def test_the_metrics_service_talks_to_this_host_and_writes_nothing() -> None:
    service = _service("postseal-metrics.service")
    assert (service["IPAddressDeny"], service["IPAddressAllow"]) == (["any"], ["localhost"])
    assert service["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in service
    assert "postseal-metrics.service" not in (UNITS / "postseal.target").read_text()


def test_the_lookup_service_sees_no_mail() -> None:
    hidden = _service("postseal-lookup.service")["InaccessiblePaths"][0].split()
    assert {"-/var/spool", "-/var/mail", "-/var/lib/postseal/spool", "-/var/lib/postseal/decisions.sqlite"} <= set(
        hidden
    )


@pytest.mark.parametrize("unit", SERVICES)
def test_services_report_readiness_reload_and_give_up_on_a_wrong_configuration(unit: str) -> None:
    service = _service(unit)
    assert service["Type"] == ["notify"]
    assert int(service["WatchdogSec"][0]) > 0
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["RestartPreventExitStatus"] == ["78"]
    assert service["ExecStart"] == [f"/usr/bin/postseal {unit.removeprefix('postseal-').removesuffix('.service')}"]


def test_the_stop_time_is_longer_than_the_drain_time() -> None:
    """Else systemd kills messages that the milter promised to finish."""
    from postseal.config import Config

    assert int(_service("postseal-milter.service")["TimeoutStopSec"][0]) > Config.default().milter.drain_timeout + 5


def test_exit_code_78_is_what_a_wrong_configuration_gives(tmp_path: Path) -> None:
    (tmp_path / "postseal.toml").write_text("[milter]\nno_such_key = 1\n")
    for command in ("milter", "lookup", "run"):
        done = run_postseal(command, "--config", str(tmp_path / "postseal.toml"))
        assert (command, done.returncode) == (command, 78), done.stderr


def test_users_and_directories_are_made_as_the_units_need_them(tmp_path: Path) -> None:
    """Real systemd-sysusers and systemd-tmpfiles, below another root."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\npostfix:x:110:118::/var/spool/postfix:/bin/false\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\npostfix:x:118:\n")
    files = (UNITS / "sysusers.conf", UNITS / "tmpfiles.conf", ROOT / "packaging/postfix/tmpfiles.conf")
    sysusers, *tmpfiles = files
    made = run("systemd-sysusers", f"--root={tmp_path}", sysusers)
    assert made.returncode == 0, made.stderr
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert set(groups["postseal"][3].split(",")) == {"postseal-milter", "postseal-lookup", "postseal-metrics"}
    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", *tmpfiles)
    assert done.returncode == 0, done.stderr

    def seen(path: str) -> tuple[int, int, int]:
        status = os.stat(tmp_path / path)
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    milter, lookup, group = (
        int(users["postseal-milter"][2]),
        int(users["postseal-lookup"][2]),
        int(groups["postseal"][2]),
    )
    assert seen("var/lib/postseal") == (0o2750, milter, group)
    assert seen("var/lib/postseal/evidence") == (0o2750, lookup, group)
    assert seen("var/lib/postseal/spool") == (0o700, milter, group)
    assert seen("run/postseal") == (0o2771, 0, group)
    assert seen("var/spool/postfix/postseal") == (0o2750, milter, 118)
    for name in ("certificates", "anchors", "intermediates"):
        assert (tmp_path / "etc/postseal" / name).is_dir()


def test_the_sample_configuration_is_right_and_fits_the_postfix_snippets() -> None:
    """packaging/postseal.toml is accepted, and its socket, listener and size limit are those of the snippets."""
    sample = ROOT / "packaging/postseal.toml"
    done = run_postseal("config", "check", "--config", str(sample))
    assert done.returncode == 0, done.stderr
    milter = tomllib.loads(sample.read_text())["milter"]
    main, master = ((ROOT / "packaging/postfix" / name).read_text() for name in ("main.cf", "master.cf"))
    settings = configparser.ConfigParser()
    settings.read_string("[main]\n" + main)
    assert milter["socket"] == "unix:/var/spool/postfix/" + settings["main"]["smtpd_milters"].removeprefix("unix:")
    assert settings["main"]["non_smtpd_milters"] == settings["main"]["smtpd_milters"]
    assert settings["main"]["milter_default_action"] == "tempfail"
    assert milter["message_size_limit"] == settings["main"]["message_size_limit"]
    assert f"\n{milter['reinject']} inet n - y - 20 smtpd\n" in master
