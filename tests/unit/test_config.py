"""The configuration: every mistake gets a sentence, every option is in the manual."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.config import Config, ConfigProblems, InetSocket, UnixSocket, load_config, load_text
from postseal.config.advice import warnings
from postseal.config.load import line_numbers
from postseal.config.manual import as_man, as_markdown, entries, find
from postseal.config.model import ARRAYS, SECTIONS
from postseal.config.values import parse_duration, parse_size
from postseal.core.address import parse_mailbox
from postseal.core.ciphers import CipherRule, Pack, WeakOnly
from postseal.core.doubts import NO_KNOBS, DoubtKnobs, OnDoubt
from postseal.core.path import AnchorSettings
from postseal.core.policy import Pattern, PolicySettings, Seal, Strictness, WithoutCertificate
from postseal.core.revocation import Order, UseDeltas
from postseal.core.suite import KeyTransport, RecipientId, Suite
from postseal.core.verdict import Nonce, OnNoneDeclared
from postseal.shell.cli.main import main

ROOT = Path(__file__).parents[2]
BAD = sorted((ROOT / "tests/data/bad-config").glob("*.toml"))

FULL = """
[general]
state_directory = "/srv/postseal"
runtime_directory = "/run/x"
[milter]
socket = "inet:8891@[::1]"
socket_mode = "0600"
socket_group = "postfix"
workers = 3
pin_workers = false
max_messages = 7
memory_limit = "1 MiB"
spool_directory = "/srv/spool"
message_size_limit = "50 MiB"
drain_timeout = "1 min"
internal_domains = ["Corp.Example", "bücher.example", "corp.example"]
internal_networks = ["192.0.2.0/24"]
reinject = "[::1]:10026"
reinject_timeout = 5
budget = "1500 ms"
[lookup]
socket = "/run/x/l.sock"
socket_group = "postseal"
request_timeout = "2 s"
crl_max_size = "1 MiB"
ocsp_max_size = "10 KiB"
allow_networks = ["10.0.0.0/8"]
ports = [80, 8080]
nat64_prefixes = ["2001:db8:64::/96"]
proxy = "http://proxy.corp.example:3128"
ldap_servers = ["dc.corp.example", "dir.example:1389", "::1"]
ldap_default = "dc.corp.example"
no_proxy = ["pki.corp.example", ".inside.example"]
user_agent = "corp (postmaster@corp.example)"
fetch = false
prefetch = false
concurrency = 2
fetch_issuers = false
requests_per_message = 20
requests_per_host = 1
requests_per_minute = 600
traffic_per_day = "1 GiB"
store_max_size = "512 MiB"
[certificates]
directory = "/c"
anchors = "/a"
intermediates = "/i"
bundle_signers = "/b"
[[anchor]]
certificate = "Root CA.pem"
domains = ["Bücher.example", ".bank.example"]
excluded_domains = ["own.example"]
required_policies = ["2.23.140.1.5.3.2"]
distrust_after = "2026-06-30"
expired = true
public = true
order = "ocsp-first"
on_none_declared = "refuse"
[[anchor]]
certificate = "SHA256:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF"
distrust_after = 2026-06-30T12:00:00+02:00
[revocation]
order = "both"
skew = "1 min"
on_suspicious = "defer"
on_none_declared = "accept"
on_unavailable = "refuse"
on_ocsp_unknown = "warn"
give_up = "36 h"
stale_grace = "1 h"
ca_stale_grace = "2 d"
ocsp_nonce = "require"
max_age_without_next_update = "2 h"
use_deltas = "require"
short_lived = "7 d"
weak_keys = true
[sealing]
recipient_id = "key-id"
join_families = true
x25519 = true
[log]
facility = "local3"
socket = "/var/spool/postfix/dev/log"
level = "warning"
[decisions]
keep = "90 d"
[metrics]
listen = "[::]:9463"
allow_remote = true
[[policy]]
name = "partners"
recipients = ["Bank.example", ".bank.example", "Notary@law.example"]
senders = ["corp.example"]
seal = "must"
without_certificate = "hold"
revocation = "strict"
certificate_policies = ["1.2.3"]
ciphers = "fips"
cipher = "aes256-gcm"
floor = "aes256-cbc"
ceiling = "aes256-gcm"
key_transport = "oaep-sha512"
weak_only = "refuse"
on_unavailable = "defer"
on_suspicious = "refuse"
on_none_declared = "refuse"
on_ocsp_unknown = "defer"
"""
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_configurations_get_exactly_their_sentences(file: Path) -> None:
    """Each file of the folder has its expected text beside it: what an administrator will see."""
    with pytest.raises(ConfigProblems) as caught:
        load_text(file.read_text(), file.name)
    assert "".join(f"{problem}\n" for problem in caught.value.problems) == file.with_suffix(".expected").read_text()
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


def test_settings_of_anchors() -> None:
    """Each by file name or fingerprint; a day of distrust ends with that day."""
    config = load_text(FULL, "full.toml")
    assert config.rules[0].certificate_policies == {"1.2.3"}
    by_name = config.anchor_settings
    fingerprint = "00112233445566778899aabbccddeeff" * 2
    assert list(by_name) == ["Root CA.pem", fingerprint]
    assert by_name["Root CA.pem"] == AnchorSettings(
        domains=("xn--bcher-kva.example", ".bank.example"),
        excluded_domains=("own.example",),
        order=Order.OCSP_FIRST,
        distrust_after=datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC),
        required_policies=frozenset({"2.23.140.1.5.3.2"}),
        expired=True,
        public=True,
        on_none_declared=OnNoneDeclared.REFUSE,
    )
    assert by_name[fingerprint] == AnchorSettings(distrust_after=datetime(2026, 6, 30, 10, 0, tzinfo=UTC))
    # No option stays at its default above.
    assert all(getattr(by_name["Root CA.pem"], f.name) != f.default for f in fields(AnchorSettings))


def test_the_folder_of_bad_configurations_is_complete() -> None:
    assert len(BAD) >= 20
    assert {f.stem for f in BAD} == {f.stem for f in (ROOT / "tests/data/bad-config").glob("*.expected")}


def test_every_option_can_be_set() -> None:
    """A file with all options, none at its default; a new option without a line here fails."""
    config = load_text(FULL, "full.toml")
    default = Config.default()
    for section, model in SECTIONS.items():
        if section not in ARRAYS:
            unchanged = [
                f.name
                for f in fields(model)
                if getattr(getattr(config, section), f.name) == getattr(getattr(default, section), f.name)
            ]
            assert unchanged == [], section
    assert config.milter.socket == InetSocket("::1", 8891)
    assert config.milter.reinject == InetSocket("::1", 10026)
    assert (config.milter.socket_mode, config.milter.budget, config.milter.memory_limit) == (0o600, 1.5, 1048576)
    assert config.milter.internal_domains == ("corp.example", "xn--bcher-kva.example")
    assert config.lookup.allow_networks == (ip_network("10.0.0.0/8"),)
    assert config.spool_directory == Path("/srv/spool")
    assert config.lookup_socket == Path("/run/x/l.sock")
    assert config.evidence_directory == Path("/srv/postseal/evidence")
    assert config.decisions.keep == 90 * 86400
    assert config.revocation_settings.order is Order.BOTH
    assert config.revocation_settings.use_deltas is UseDeltas.REQUIRE
    assert config.revocation_settings.short_lived.days == 7
    assert config.revocation_settings.skew.total_seconds() == 60
    assert config.path_settings.weak_keys is True
    assert config.policy_settings == PolicySettings(
        OnDoubt.DEFER,
        OnNoneDeclared.ACCEPT,
        OnDoubt.REFUSE,
        OnDoubt.WARN,
        36 * HOUR,
        HOUR,
        48 * HOUR,
        True,
        RecipientId.KEY_ID,
    )
    assert config.revocation_settings.nonce is Nonce.REQUIRE
    rule, last = config.rules
    assert (rule.name, rule.seal, rule.without_certificate) == ("partners", Seal.MUST, WithoutCertificate.HOLD)
    assert (rule.revocation, rule.ciphers.unasked) == (Strictness.STRICT, Suite.AES_256_GCM)
    assert rule.ciphers == CipherRule(
        Pack.FIPS, Suite.AES_256_GCM, Suite.AES_256_CBC, Suite.AES_256_GCM, KeyTransport.OAEP_SHA512, WeakOnly.REFUSE
    )
    assert rule.doubt == DoubtKnobs(OnDoubt.DEFER, OnDoubt.REFUSE, OnNoneDeclared.REFUSE, OnDoubt.DEFER)
    assert last.doubt == NO_KNOBS
    assert rule.recipients == (Pattern("bank.example"), Pattern(".bank.example"), Pattern("Notary@law.example"))
    assert (last.name, last.catch_all) == ("default", True)
    assert config.is_internal(parse_mailbox("a@CORP.example"))
    assert not config.is_internal(parse_mailbox("a@sub.corp.example"))
    assert not config.is_internal(None)


def test_an_empty_file_is_valid_and_opportunistic() -> None:
    """Sealed when possible, in clear without a certificate, unknown revocation status warns."""
    config = load_text("", "empty.toml")
    assert config.milter.socket == UnixSocket(Path("/run/postseal/milter.sock"))
    assert config.spool_directory == Path("/var/lib/postseal/spool")
    assert config.lookup_socket == Path("/run/postseal/lookup.sock")
    (rule,) = config.rules
    assert (rule.name, rule.seal, rule.without_certificate) == ("default", Seal.MAY, WithoutCertificate.CLEAR)
    assert rule.revocation is Strictness.SOFT


def test_must_without_a_word_about_missing_certificates_refuses() -> None:
    config = Config.default(policy=[{"name": "all", "seal": "must"}])
    assert config.rules[0].without_certificate is WithoutCertificate.REFUSE
    assert len(config.rules) == 1, "it is a catch-all already"


def test_overrides_for_tools_are_checked_too(tmp_path: Path) -> None:
    assert Config.default(general={"state_directory": tmp_path}).general.state_directory == tmp_path
    with pytest.raises(ConfigProblems, match=r"\(built in\): \[milter\] workers = \"x\": must be a whole number"):
        Config.default(milter={"workers": "x"})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory, octets that aren't text, and a file that is too large are one sentence each."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"[log]\n\xff\xfe\n")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    for path, sentence in [
        (tmp_path / "none.toml", "can't read the configuration: No such file or directory"),
        (tmp_path, "can't read the configuration: Is a directory"),
        (binary, "2: the configuration is not UTF-8 text"),
        (large, "the configuration is larger than 1 MiB"),
    ]:
        with pytest.raises(ConfigProblems) as caught:
            load_config(str(path))
        assert str(caught.value).endswith(sentence)
        assert caught.value.exit_code == 78


def test_lines_are_found_behind_values_that_look_like_headers() -> None:
    text = 'a = """\n[milter]\nworkers = 1\n"""\n[milter]\nx = [\n  ["workers"],\n]\nworkers = 9\n[[policy]]\n'
    lines = line_numbers(text + '[[policy]]\nname="b"\n')
    assert lines["a",] == 1
    assert lines["milter",] == 5
    assert lines["milter", "x"] == 6
    assert lines["milter", "workers"] == 9
    assert lines["policy", 0] == 10
    assert lines["policy", 1, "name"] == 12


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="[]milter=\"\n#.{}'policy 0,", max_size=60))
def test_any_text_gives_a_configuration_or_a_sentence(text: str) -> None:
    problems: tuple[object, ...] = ()
    try:
        load_text(text, "x.toml")
    except ConfigProblems as exc:
        problems = exc.problems
    assert all(str(problem).startswith("x.toml") and str(problem).isprintable() for problem in problems)


@pytest.mark.parametrize(
    ("text", "seconds"), [("3s", 3), ("30 min", 1800), ("1.5 h", 5400), ("7 d", 604800), (2, 2), (0.5, 0.5)]
)
def test_times(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-3 s", "3 s 4", "1e3 s", "NaN", None, True, [3]])
def test_wrong_times(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_sizes() -> None:
    assert [parse_size(t) for t in ("64 KiB", "16MiB", 5, "2 kB")] == [65536, 16777216, 5, 2000]


def test_advice_names_what_was_probably_not_meant() -> None:
    """Valid, but nothing would be sealed, or everybody could connect."""
    assert len(warnings(Config.default())) == 2
    good = {"internal_domains": ["corp.example"], "reinject": "127.0.0.1:10026"}
    assert warnings(Config.default(milter=good)) == ()
    for options, word in [
        ({"milter": {**good, "socket": "inet:8891@192.0.2.1"}}, "192.0.2.1"),
        ({"milter": {**good, "socket_mode": "0666"}}, "every user"),
        ({"milter": {**good, "internal_domains": ["example.org", "corp.example"]}}, "names example.org"),
        ({"milter": {**good, "internal_networks": ["0.0.0.0/0"]}}, "whole Internet"),
        ({"milter": good, "revocation": {"weak_keys": True}}, "weak_keys"),
        ({"milter": good, "sealing": {"x25519": True}}, "[sealing] x25519"),
        ({"milter": good, "sealing": {"join_families": True}}, "[sealing] join_families"),
        ({"milter": good, "revocation": {"order": "ocsp-only"}}, "who writes to whom"),
        ({"milter": good, "lookup": {"allow_networks": ["10.0.0.0/8"]}}, "private networks"),
        ({"milter": good, "lookup": {"request_timeout": "1 s"}}, "budget"),
        ({"milter": good, "policy": [{"name": "a", "cipher": "aes256-gcm"}]}, "Outlook"),
        (
            {"milter": good, "policy": [{"name": "a", "floor": "aes128-gcm"}]},
            "seals only for who says that he reads it; who has no certificate still gets mail in clear",
        ),
        ({"milter": good, "policy": [{"name": "a", "seal": "never"}]}, "nothing will be sealed"),
    ]:
        (warning,) = warnings(Config.default(**options))
        assert word in warning


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"floor": "aes256-cbc", "ceiling": "aes128-gcm"}, 'floor = "aes256-cbc" is above ceiling = "aes128-gcm"'),
        ({"floor": "aes128-gcm", "ceiling": "aes256-cbc"}, 'floor = "aes128-gcm" is above ceiling = "aes256-cbc"'),
        ({"cipher": "aes128-cbc", "floor": "aes256-cbc"}, 'cipher = "aes128-cbc" is below floor = "aes256-cbc"'),
        ({"cipher": "aes256-gcm", "ceiling": "aes256-cbc"}, 'cipher = "aes256-gcm" is above ceiling = "aes256-cbc"'),
        ({"ciphers": "legacy", "cipher": "aes256-gcm"}, 'cipher = "aes256-gcm" isn\'t one of ciphers = "legacy"'),
        ({"ciphers": "legacy", "floor": "aes128-gcm"}, 'ciphers = "legacy" has no cipher from floor'),
        ({"ciphers": "bsi-energy", "cipher": "aes256-gcm"}, 'isn\'t one of ciphers = "bsi-energy"'),
        ({"ciphers": "fips", "key_transport": "pkcs1"}, 'key_transport = "pkcs1" isn\'t allowed by ciphers = "fips"'),
        ({"ciphers": "bsi"}, 'must be "default" or "legacy" or "bsi-energy" or "fips"'),
        ({"cipher": "des-ede3-cbc"}, "must be"),
    ],
)
def test_ciphers_that_contradict_each_other(options: dict[str, str], words: str) -> None:
    """One sentence that names the rule; ALG-1: 3DES can't even be written."""
    with pytest.raises(ConfigProblems, match=re.escape(words)) as caught:
        Config.default(policy=[{"name": "a", **options}])
    assert len(caught.value.problems) == 1


# --- the manual


def test_the_manual_pages_in_docs_are_up_to_date() -> None:
    """If this fails: postseal config describe --man > docs/man/postseal.toml.5, --markdown > docs/configuration.md"""
    assert (ROOT / "docs/man/postseal.toml.5").read_text() == as_man()
    assert (ROOT / "docs/configuration.md").read_text() == as_markdown()


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    options = {f"{section}.{f.name}" for section, model in SECTIONS.items() for f in fields(model)}
    assert {e.name for e in entries()} == options
    markdown = (ROOT / "docs/configuration.md").read_text()
    assert set(re.findall(r"^### (\S+)$", markdown, re.M)) == options
    man = (ROOT / "docs/man/postseal.toml.5").read_text()
    assert re.findall(r"^\.BR (\w+) \"", man, re.M) == [e.key for e in entries()]
    assert all(len(e.doc) > 10 and e.doc.endswith(".") for e in entries())


def test_the_defaults_in_the_manual_are_the_defaults_in_the_code() -> None:
    sections: dict[str, dict[str, object]] = {}
    for e in entries():
        if e.section not in ARRAYS:
            sections.setdefault(e.section, {})[e.key] = json.loads(e.default)
    assert Config.default(**sections) == Config.default()


def test_the_example_in_the_manual_is_valid() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", as_markdown(), re.S)
    config = load_text(example, "example")
    assert [r.name for r in config.rules] == ["partners", "everybody-else"]
    assert warnings(config) == ()


def test_the_man_page_is_clean_roff() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=as_man(), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "state_directory" in done.stdout


def test_check_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.toml"
    good.write_text('[milter]\ninternal_domains = ["a.example"]\n')
    assert main(["config", "check", str(good)]) == 0
    assert capsys.readouterr().out.endswith("good.toml: ok\n")
    assert main(["config", "check", "--config", str(BAD[33])]) == 78
    assert capsys.readouterr().err.count("\n") == 3
    assert main(["config", "check", "--json", str(BAD[33])]) == 78
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] is False
    assert len(out["problems"]) == 3
    assert main(["config", "check", str(tmp_path / "none")]) == 78
    assert "Traceback" not in capsys.readouterr().err


def test_describe_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "describe", "milter.budget"]) == 0
    out = capsys.readouterr().out
    assert 'budget = "3 s"' in out
    assert "workers" not in out
    assert main(["config", "describe", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(entries())
    assert main(["config", "describe", "nothing"]) == 64
    assert main(["config", "describe", "--man", "milter"]) == 64
    assert {e.section for e in find("socket")} == {"milter", "lookup", "log"}
    assert main(["config", "describe", "--man"]) == 0
    assert capsys.readouterr().out == as_man()
