"""``postseal doctor`` against a real Postfix and real services, right and broken in the ways that happen."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from postseal.sources.evidence import EvidenceStore
from support.daemon import Daemon, run_postseal
from support.pki import DAY, NOW, authority
from support.postfix import PrivatePostfix

pytestmark = pytest.mark.root


def doctor(daemon: Daemon, postfix: PrivatePostfix, *more: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """Exit code, and name -> result, text, advice of what isn't ok."""
    done = run_postseal(
        "doctor", "--json", "--config", str(daemon.config_file), "--postfix-config", str(postfix.etc), *more
    )
    assert done.stderr == ""
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, {c["check"]: (c["result"], c["text"], c["advice"]) for c in checks if c["result"] != "ok"}


@pytest.fixture
def house(scratch: Path) -> Iterator[tuple[Daemon, PrivatePostfix]]:
    """Services and a Postfix that fit together."""
    daemon = Daemon(scratch / "d", "run", settings={"milter": {"message_size_limit": 10_000_000}})
    (daemon.anchors / "root.pem").write_bytes(authority("Root").pem)
    daemon.state.chmod(0o750)
    postfix = PrivatePostfix(scratch / "pf", daemon.milter, 1, message_size_limit=10_000_000)
    daemon.settings["milter"]["reinject"] = f"127.0.0.1:{postfix.reinject_port}"
    daemon.write()
    with daemon, postfix:
        yield daemon, postfix


def test_a_good_set_up_passes_and_each_broken_part_is_named(house: tuple[Daemon, PrivatePostfix]) -> None:
    """One start of everything, then one mistake after the other, as an administrator would make them."""
    daemon, postfix = house
    code, found = doctor(daemon, postfix)
    assert {name for name, (result, _, _) in found.items() if result == "fail"} == set()
    assert code == 0
    assert set(found) <= {"clock", "configuration"}, (
        "a machine without time service and a socket for all are only warned about"
    )

    wrong = daemon.certificates / "key.pem"
    wrong.write_bytes(authority("Root").key_pem)
    # For two seconds it may still be written.
    time.sleep(2.1)
    result, text, _ = doctor(daemon, postfix)[1]["certificates"]
    assert (result, text) == ("warn", f"certificate file {wrong}: no certificate found (expected DER, PEM or PKCS#7): it "
                              "holds a private key")  # fmt: skip
    wrong.unlink()

    main = postfix.etc / "main.cf"
    text = main.read_text()
    main.write_text(text.replace("milter_default_action = tempfail", "milter_default_action = accept"))
    code, found = doctor(daemon, postfix)
    assert code == 1
    assert found["milter_default_action"][2] == "postconf -e 'milter_default_action = tempfail'"

    main.write_text(text.replace("smtpd_milters = unix", "smtpd_milters = inet:localhost:1 #", 1))
    assert doctor(daemon, postfix)[1]["smtpd_milters"][0] == "fail"
    main.write_text(text)

    master = postfix.etc / "master.cf"
    services = master.read_text()
    master.write_text(services.replace("-o smtpd_milters=\n", "-o smtpd_proxy_filter=\n"))
    assert "asks milters itself" in doctor(daemon, postfix)[1]["reinject"][1]
    master.write_text(services)

    os.chmod(daemon.run / "milter.sock", 0o600)
    assert "postfix may not write to it (mode 0600" in doctor(daemon, postfix)[1]["milter socket"][1]
    os.chmod(daemon.run / "milter.sock", 0o666)
    daemon.run.chmod(0o700)
    assert f"postfix may not enter {daemon.run} (mode 0700" in doctor(daemon, postfix)[1]["milter socket"][1]
    daemon.run.chmod(0o755)

    daemon.certificates.chmod(0o777)
    assert doctor(daemon, postfix)[1]["certificates.directory"][2] == f"chmod o-w {daemon.certificates}"
    daemon.certificates.chmod(0o755)

    late = authority("Late root", not_before=NOW - 900 * DAY, not_after=NOW - DAY)
    (daemon.anchors / "root.pem").write_bytes(late.pem)
    assert "the trust anchor CN=Late root expired on 2026-05-31" in doctor(daemon, postfix)[1]["anchors"][1]
    (daemon.anchors / "root.pem").unlink()
    assert "no root certificate" in doctor(daemon, postfix)[1]["anchors"][1]

    daemon.stop()
    _, found = doctor(daemon, postfix)
    assert found["milter"][2] == "systemctl start postseal-milter"
    assert found["lookup"][2] == "systemctl start postseal-lookup"


def test_what_root_can_read_and_the_services_cannot(house: tuple[Daemon, PrivatePostfix]) -> None:
    """A root certificate with mode 0600 is none to the milter: mail would leave in clear while doctor sees no fault."""
    daemon, postfix = house
    (daemon.anchors / "root.pem").chmod(0o600)
    shutil.chown(daemon.state, "nobody")
    _, text, advice = doctor(daemon, postfix)[1]["files"]
    assert text.startswith(f"a service can't read {daemon.anchors / 'root.pem'}: nobody may not read it (mode 0600")
    assert advice == f"chmod a+rX {daemon.anchors / 'root.pem'}"
    (daemon.anchors / "root.pem").chmod(0o644)
    assert "files" not in doctor(daemon, postfix)[1]
    daemon.anchors.chmod(0o700)
    assert doctor(daemon, postfix)[1]["files"][2] == f"chmod a+rX {daemon.anchors}"
    daemon.anchors.chmod(0o755)


def test_without_postfix_and_with_a_wrong_configuration(tmp_path: Path) -> None:
    config = tmp_path / "postseal.toml"
    config.write_text("[milter]\nworkers = -1\n[log]\nx = 1\n")
    done = run_postseal("doctor", "--config", str(config))
    assert done.returncode == 1
    assert done.stdout.count("FAIL  configuration: ") == 2
    assert done.stdout.endswith("2 checks: 2 failed, 0 warnings\n")
    config.write_text("")
    done = run_postseal("doctor", "--config", str(config), "--postfix-config", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "FAIL  postfix: postconf -c" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_files_that_the_configuration_names_are_looked_for(tmp_path: Path) -> None:
    """A missing [[responder]] keeps services from starting; an [[anchor]] about nothing leaves an anchor without its limits."""
    anchors = tmp_path / "anchors"
    anchors.mkdir()
    (anchors / "root.pem").write_bytes(authority("Root").pem)
    config = tmp_path / "postseal.toml"
    folder = f'[certificates]\nanchors = "{anchors}"\n'
    config.write_text(f'{folder}[[anchor]]\ncertificate = "rot.pem"\n')
    done = run_postseal("config", "check", str(config))
    assert done.returncode == 0
    assert f'[[anchor]] certificate = "rot.pem": there is no such file or certificate in {anchors}' in done.stdout
    pair = f'certificate = "{tmp_path}/none.pem"\nissuer = "{anchors}/root.pem"\n'
    config.write_text(f"{folder}[[responder]]\n{pair}")
    done = run_postseal("config", "check", str(config))
    text = f"[[responder]] {tmp_path}/none.pem: can't be read: No such file or directory"
    assert (done.returncode, done.stderr) == (78, f"postseal: {config}: {text}\n")
    assert f"FAIL  responders: {text}" in run_postseal("doctor", "--config", str(config)).stdout


def test_a_clock_that_went_back_is_told(scratch: Path) -> None:
    """CACHE-9: the log said so once; doctor says so until time has caught up."""
    state = scratch / "state"
    store = EvidenceStore(state / "evidence", readonly=False)
    config = scratch / "postseal.toml"
    config.write_text(f'[general]\nstate_directory = "{state}"\nruntime_directory = "{scratch}"\n')
    now = datetime.now(UTC)
    for moment, suspect in ((now + DAY, False), (now, True), (now + 2 * DAY, False)):
        store.observe_clock(moment, timedelta(minutes=5))
        told = run_postseal("doctor", "--config", str(config)).stdout
        assert ("the clock went back: it showed" in told) is suspect
