"""``postseal cert``: what an administrator types and reads, with a real store."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates

from postseal.app.intake import sort_out
from postseal.shell.cli.main import main
from support.daemon import POSTSEAL
from support.pki import Authority, Leaf, authority, usage

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
VALID: dict[str, Any] = {"not_before": NOW - 30 * DAY, "not_after": NOW + 300 * DAY}


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority("Command Root", not_before=NOW - 400 * DAY, not_after=NOW + 400 * DAY)


@pytest.fixture
def alice(ca: Authority) -> Leaf:
    return ca.issue("alice@example.test", **VALID)


class Shell:
    """Runs ``postseal cert …`` in this process with a configuration of its own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = directory / "postseal.toml"
        self.config.write_text(f'[general]\nstate_directory = "{directory}/state"\n')
        self._capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Standard output; the exit code must be ``code``."""
        self._capsys.readouterr()
        command, *rest = (str(a) for a in arguments)
        found = main(["cert", command, "--config", str(self.config), *rest])
        captured = self._capsys.readouterr()
        self.error = captured.err
        assert found == code, captured.err + captured.out
        return captured.out

    def json(self, *arguments: object, code: int = 0) -> Any:
        command, *rest = arguments
        return json.loads(self(command, "--json", *rest, code=code))


@pytest.fixture
def cert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_import_tells_what_was_taken_and_what_was_refused_and_why(
    cert: Shell, tmp_path: Path, ca: Authority, alice: Leaf
) -> None:
    """Expired, no address, a CA's, for signing only, weak, and what isn't a certificate: each with its reason."""
    leaves = {
        "good": alice,
        "expired": ca.issue("old@example.test", not_before=NOW - 90 * DAY, not_after=NOW - DAY),
        "nameless": ca.issue(None, **VALID),
        "ca": ca,
        "signing": ca.issue("sign@example.test", key_usage=usage("digital_signature"), **VALID),
        "short": ca.issue("short@example.test", kind="rsa1024", **VALID),
    }
    for name, leaf in leaves.items():
        (tmp_path / f"{name}.pem").write_bytes(leaf.pem)
    (tmp_path / "notes.txt").write_text("hello")
    files = [tmp_path / f"{name}.pem" for name in leaves] + [tmp_path / "notes.txt", tmp_path / "absent.pem"]
    told = cert.json("import", *files, code=1)
    assert told["imported"] == [{"sha256": alice.certificate.fingerprint, "addresses": ["alice@example.test"]}]
    assert {Path(r["source"]).stem: r["reason"] for r in told["refused"]} == {
        "expired": "cert.expired", "nameless": "cert.no-address", "ca": "cert.is-ca", "short": "cert.weak-key",
        "signing": "cert.no-key-encipherment", "notes": "cert.unreadable", "absent": "cert.unreadable",
    }  # fmt: skip
    out = cert("import", *files, code=1)
    assert out == "0 imported, 1 known already, 7 refused\n"
    assert f"refused: {tmp_path}/absent.pem: No such file or directory\n" in cert.error
    assert f"refused: {tmp_path}/ca.pem (CN=Command Root): it is a CA certificate\n" in cert.error
    assert len(cert.error.splitlines()) == 7


def test_a_bundle_is_taken_apart_and_one_bad_block_spoils_nothing(cert: Shell, tmp_path: Path, ca: Authority) -> None:
    leaves = [ca.issue(f"user{i}@example.test", **VALID) for i in range(20)]
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    cut = leaves[3].pem[:200]
    (tmp_path / "bundle.pem").write_bytes(
        b"".join(leaf.pem for leaf in leaves[:10]) + broken + cut + b"".join(leaf.pem for leaf in leaves[10:])
    )
    told = cert.json("import", tmp_path / "bundle.pem", code=1)
    assert len(told["imported"]) == 20
    assert [r["source"].rpartition("/")[2] for r in told["refused"]] == [
        "bundle.pem (block 11)",
        "bundle.pem (block 12)",
    ]
    assert len(cert.json("list")["certificates"]) == 20


def test_every_form_and_a_whole_folder(cert: Shell, tmp_path: Path, ca: Authority) -> None:
    """PEM, DER and PKCS#7 in a folder, and private keys beside certificates are not looked at."""
    leaves = [ca.issue(f"form{i}@example.test", **VALID) for i in range(4)]
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.der").write_bytes(leaves[0].certificate.der)
    (folder / "b.p7b").write_bytes(
        serialize_certificates([leaf.certificate.x509 for leaf in leaves[1:3]], Encoding.DER)
    )
    (folder / "c.pem").write_bytes(leaves[3].key_pem + leaves[3].pem)
    assert cert("import", tmp_path / "folder") == "4 imported, 0 refused\n"
    (tmp_path / "empty").mkdir()
    cert("import", tmp_path / "empty", code=1)
    assert "the folder is empty" in cert.error


def test_standard_input_is_a_file_too(tmp_path: Path, alice: Leaf) -> None:
    config = tmp_path / "postseal.toml"
    config.write_text(f'[general]\nstate_directory = "{tmp_path}/state"\n')
    command = [*POSTSEAL, "cert", "import", "--config", str(config), "-"]
    done = subprocess.run(command, input=alice.pem, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"1 imported, 0 refused\n")


def test_what_is_too_large_is_refused_whole(
    cert: Shell, alice: Leaf, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard input was cut there: behind the last whole certificate nobody would have noticed."""
    both = alice.pem + ca.issue("bob@example.test", slot="large").pem
    monkeypatch.setattr("postseal.shell.cli.cert._MAX_FILE", len(alice.pem))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(both)))
    found = cert.json("import", "-", code=1)
    assert (found["imported"], [each["source"] for each in found["refused"]]) == ([], ["stdin"])
    assert "larger than" in found["refused"][0]["detail"]


def test_an_empty_list_says_where_it_looked(cert: Shell, tmp_path: Path) -> None:
    """The store is one place, the folder another: who has filled the folder alone would see nothing."""
    assert cert("list", code=1) == ""
    assert cert.error.startswith("postseal: no certificate in the store; what is in /")
    cert("list", "nobody@example.test", code=1)
    assert cert.error.startswith("postseal: no certificate for nobody@example.test in the store; ")
    assert cert.json("list", code=1) == {"certificates": []}
    assert cert.error == ""


def test_a_certificate_for_next_month_is_taken_today(ca: Authority) -> None:
    """Renewed certificates come early."""
    leaf = ca.issue("early@example.test", not_before=NOW + 20 * DAY, not_after=NOW + 300 * DAY)
    good, bad = sort_out("x", leaf.pem, NOW)
    assert (good, bad) == ((leaf.certificate,), ())


def test_a_certificate_twice_in_a_file_is_one(alice: Leaf) -> None:
    good, bad = sort_out("x", alice.pem + alice.pem, NOW)
    assert (good, bad) == ((alice.certificate,), ())


def test_weak_keys_are_taken_where_the_configuration_says_so(cert: Shell, tmp_path: Path, ca: Authority) -> None:
    (tmp_path / "short.pem").write_bytes(ca.issue("short@example.test", kind="rsa1024", **VALID).pem)
    cert("import", tmp_path / "short.pem", code=1)
    cert.config.write_text(cert.config.read_text() + "[revocation]\nweak_keys = true\n")
    assert cert("import", tmp_path / "short.pem") == "1 imported, 0 refused\n"


def test_x25519_is_taken_where_the_configuration_says_so(cert: Shell, tmp_path: Path, ca: Authority) -> None:
    """RFC 8418: a certificate that no common mail program can use is refused until it is asked for."""
    (tmp_path / "x.pem").write_bytes(ca.issue("x@example.test", kind="x25519", **VALID).pem)
    cert("import", tmp_path / "x.pem", code=1)
    cert.config.write_text(cert.config.read_text() + "[sealing]\nx25519 = true\n")
    assert cert("import", tmp_path / "x.pem") == "1 imported, 0 refused\n"
    facts = cert.json("show", "x@example.test")
    assert (facts["key"], facts["findings"]) == ("x25519", [])


def test_list_and_show(cert: Shell, tmp_path: Path, alice: Leaf, ca: Authority) -> None:
    for name, leaf in (("a", alice), ("b", ca.issue("bob@example.test", kind="p256", **VALID))):
        (tmp_path / f"{name}.pem").write_bytes(leaf.pem)
    cert("list", code=1)
    cert("import", tmp_path / "a.pem", tmp_path / "b.pem")
    short, until = alice.certificate.fingerprint[:16], alice.certificate.not_after.strftime("%Y-%m-%d")
    assert cert("list", "Alice@example.test") == f"{short}  until {until}  alice@example.test\n"
    assert len(cert("list").splitlines()) == 2
    facts = cert.json("show", short)
    assert facts["sha256"] == alice.certificate.fingerprint
    assert facts["addresses"] == ["alice@example.test"]
    assert facts["key"] == "rsa"
    assert facts["source"] == str(tmp_path / "a.pem")
    assert facts["findings"] == []
    assert cert("show", short, "--pem") == alice.pem.decode()
    assert "CN=alice@example.test" in cert("show", "alice@example.test")


def test_hostile_names_can_not_write_to_the_terminal(cert: Shell, tmp_path: Path, ca: Authority) -> None:
    """THR-10: a subject with escape sequences is shown escaped."""
    leaf = ca.issue("evil@example.test", common_name="x\x1b[2Jy\nz", **VALID)
    (tmp_path / "evil.pem").write_bytes(leaf.pem)
    cert("import", tmp_path / "evil.pem")
    shown = cert("show", "evil@example.test")
    assert "\x1b" not in shown
    assert "\\x1b[2Jy" in shown


def test_remove(cert: Shell, tmp_path: Path, alice: Leaf) -> None:
    """All or nothing where a reference is wrong."""
    (tmp_path / "a.pem").write_bytes(alice.pem)
    cert("import", tmp_path / "a.pem")
    cert("remove", "alice@example.test", "nobody@example.test", code=65)
    assert cert.error == "postseal: nobody@example.test: no certificate in the store\n"
    assert cert.json("remove", "alice@example.test") == {"removed": [alice.certificate.fingerprint]}
    assert cert.json("list", code=1) == {"certificates": []}


def test_pin(cert: Shell, tmp_path: Path, alice: Leaf, ca: Authority) -> None:
    """A pin is shown, can be forgotten, and wrong use is told in one sentence."""
    (tmp_path / "a.pem").write_bytes(alice.pem)
    cert("import", tmp_path / "a.pem")
    fingerprint = alice.certificate.fingerprint
    assert cert("pin", "ALICE@example.test", fingerprint[:12]).endswith(f"is pinned to {fingerprint[:16]}\n")
    assert "pinned for alice@example.test" in cert("list")
    cert("pin", "bob@example.test", fingerprint, code=65)
    assert "is not for bob@example.test; it names alice@example.test" in cert.error
    cert("pin", "alice@example.test", code=64)
    cert("pin", "alice@example.test", "bob@example.test", code=65)
    cert("pin", "alice", fingerprint, code=65)
    cert("pin", "alice@example.test", "--remove")
    assert cert.json("pin", "alice@example.test", "--remove", code=1)["changed"] is False
    assert "pinned" not in cert("list")


def test_a_store_that_is_damaged_is_one_sentence(cert: Shell, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "certificates.sqlite").write_bytes(b"rubbish" * 1000)
    cert("list", code=69)
    assert cert.error == f"postseal: certificate store {tmp_path}/state/certificates.sqlite: file is not a database\n"


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, ca: Authority) -> None:
    leaves = [ca.issue(f"user{i}@example.test", kind="p256", **VALID) for i in range(120)]
    for index, leaf in enumerate(leaves):
        (tmp_path / f"{index}.pem").write_bytes(leaf.pem)
    config = tmp_path / "postseal.toml"
    config.write_text(f'[general]\nstate_directory = "{tmp_path}/state"\n')
    command = [*POSTSEAL, "cert", "import", "--config", str(config), *map(str, sorted(tmp_path.glob("*.pem")))]
    master, slave = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, timeout=60)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert done.stdout == b"120 imported, 0 refused\n"
    assert "51 certificates read, 0 refused" in shown
    quiet = subprocess.run(command, capture_output=True, timeout=60)
    assert (quiet.stdout, quiet.stderr) == (b"0 imported, 120 known already, 0 refused\n", b"")


def test_a_thousand_certificates_take_seconds(cert: Shell, tmp_path: Path, ca: Authority) -> None:
    """Batches, not a commit for each."""
    leaf = ca.issue("one@example.test", kind="p256", **VALID)
    bundle = b"".join(
        ca._sign(leaf.certificate.x509.subject, leaf.key.public_key(), _names(i), **VALID).x509.public_bytes(
            Encoding.PEM
        )
        for i in range(1000)
    )
    (tmp_path / "bundle.pem").write_bytes(bundle)
    began = time.monotonic()
    assert cert("import", tmp_path / "bundle.pem") == "1000 imported, 0 refused\n"
    assert time.monotonic() - began < 10


def _names(number: int) -> list[Any]:
    from cryptography import x509

    return [(x509.SubjectAlternativeName([x509.RFC822Name(f"user{number}@example.test")]), False)]


def test_a_report_that_can_not_be_written_is_one_sentence(tmp_path: Path, alice: Leaf) -> None:
    """Output is written at the end of the process, when nobody would hear of a full disk any more."""
    (tmp_path / "a.pem").write_bytes(alice.pem)
    config = tmp_path / "postseal.toml"
    config.write_text(f'[general]\nstate_directory = "{tmp_path}/state"\n')
    command = [*POSTSEAL, "cert", "import", "--config", str(config), str(tmp_path / "a.pem")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (73, b"postseal: standard output: No space left on device\n")
