"""NIST PKITS, all cases by name, through ``app.verify``: path, name constraints, policies and revocation together.

The certificates and CRLs are those of the package cryptography_vectors, the table is tests/data/pkits.json. The engine is
given all certificates of the case in one heap and has to find the path itself.
"""

import json
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import cryptography_vectors
import pytest

from postseal.app.verify import Outcome, Report, Request, verify
from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor, Path
from postseal.core.policies import ANY_POLICY, PolicyInputs
from postseal.shell.cli.main import main
from support.signed import Signed, read_signed

TABLE = json.loads((FilePath(__file__).parents[1] / "data" / "pkits.json").read_text())
CASES = {f"{t['case']} {t['name']}": t for t in TABLE["tests"]}
AT = datetime(2011, 4, 15, tzinfo=UTC)

# DSA isn't accepted, so these are refused, the valid ones too. 4.1.5 can't even be read by the library.
DSA = {"4.1.4": "path.unsupported-signature", "4.1.5": "unreadable", "4.1.6": "path.unsupported-signature"}
OTHERS = [name for name, t in CASES.items() if t["case"] not in DSA]
# PKITS says why in words; this is what postseal has to say. Where it says nothing about a path, the CRL decides.
CODES = {
    "signature": "path.bad-signature",
    "not yet valid": "path.not-yet-valid",
    "expired": "path.expired",
    "name chaining": "path.no-issuer",
    "missing basicConstraints": "path.not-ca",
    "basicConstraints cA false": "path.not-ca",
    "path length": "path.too-long",
    "unprocessed critical extension": "path.unknown-extension",
    "policy (null policy set)": "path.policy",
    "name constraints": "path.name-constraints",
    "revoked": "rev.revoked-crl",
    "revocation status not determined (not all reasons / on hold)": "rev.revoked-crl",
}
# The same reason for keyCertSign, which the path shows, and for cRLSign, which only the CRL does.
KEY_USAGE = {
    "4.7.1": "path.no-cert-sign",
    "4.7.2": "path.no-cert-sign",
    "4.7.4": "rev.no-crl-sign",
    "4.7.5": "rev.no-crl-sign",
}


def read(folder: str, file: str) -> bytes:
    with cryptography_vectors.open_vector_file(f"x509/PKITS_data/{folder}/{file}", "rb") as vector:
        content: bytes = vector.read()
    return content


def certificates(case: dict[str, Any]) -> list[Certificate]:
    return [load_certificate(read("certs", file)) for file in case["chain"]]


def outcome(case: dict[str, Any]) -> Report:
    """PKITS has no extended key usages; it is about signatures."""
    anchor, *others = certificates(case)
    crls = tuple(CrlEvidence(parse_crl(read("crls", file)), f"file:{file}", AT) for file in case["crls"])
    request = Request(
        anchors=(Anchor(anchor),),
        intermediates=tuple(sorted(others[:-1], key=lambda c: c.fingerprint)),
        crls=crls,
        email=False,
        policies=inputs(case),
    )
    return verify(others[-1], request, AT)


def inputs(case: dict[str, Any]) -> PolicyInputs:
    wanted = frozenset(case.get("policies", [ANY_POLICY]))
    return PolicyInputs(wanted, case.get("explicit", False), case.get("no_mapping", False), case.get("no_any", False))


def test_the_suite_is_complete() -> None:
    """CERT-17: some cases of section 4.8 and 4.10 are there several times, with other inputs."""
    assert len(CASES) == 249
    assert {t["case"].split(".")[1] for t in CASES.values()} == set(map(str, range(1, 17)))


def as_the_suite_says(case: dict[str, Any], report: Report) -> bool:
    """A valid case is GOOD, under the policies that the suite gives; any other is not, for the suite's reason."""
    if case["expected"] == "valid":
        policies = report.path.policies.user if isinstance(report.path, Path) else None
        return report.outcome is Outcome.GOOD and policies == frozenset(case["user_policies"])
    expected = KEY_USAGE.get(case["case"]) or CODES.get(case["reason"])
    if expected is None:
        # The CRL can't be used, or isn't there: the suite leaves open why.
        return report.outcome is Outcome.UNKNOWN
    return report.outcome is not Outcome.GOOD and report.reason == expected


@pytest.mark.parametrize("name", OTHERS)
def test_pkits(name: str) -> None:
    """CERT-16, CERT-17: each case by itself."""
    case = CASES[name]
    report = outcome(case)
    assert as_the_suite_says(case, report), (report.outcome, report.reason, report.detail)


@pytest.mark.parametrize("name", [n for n, t in CASES.items() if t["case"] in DSA])
def test_dsa_is_refused_cleanly(name: str) -> None:
    """DSA isn't accepted: a fault of its own or a BadData in one sentence, and no exception of the library."""
    case = CASES[name]
    if DSA[case["case"]] == "unreadable":
        with pytest.raises(BadData, match=r"^not a certificate: [^\n]+$"):
            outcome(case)
    else:
        report = outcome(case)
        assert report.reason == DSA[case["case"]], report.detail
        assert "DSA" in report.detail


MAILS = [(name, mail) for name in OTHERS for mail in CASES[name].get("eml", ())]


@pytest.mark.parametrize(("name", "mail"), MAILS, ids=[f"{n} {m}" for n, m in MAILS])
def test_signed_mail(name: str, mail: str) -> None:
    """CERT-16, CERT-17: the signer of the suite's mail is judged as its certificate is, from what the mail brings along."""
    case = CASES[name]
    signed: Signed = read_signed(read("smime", mail))
    assert signed.intact
    report = outcome(case)
    assert signed.signer == report.certificate
    anchor = load_certificate(read("certs", case["chain"][0]))
    crls = tuple(CrlEvidence(parse_crl(der), "mail", AT) for der in signed.crls)
    request = Request((Anchor(anchor),), signed.certificates, crls, email=False, policies=inputs(case))
    found = verify(signed.signer, request, AT)
    assert (found.outcome, found.reason) == (report.outcome, report.reason)


@pytest.mark.parametrize("name", CASES)
def test_by_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """CERT-17: ``postseal verify`` takes every input of the suite and says what the engine says; DSA is one sentence."""
    case = CASES[name]
    folder = FilePath(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
    anchor, *others, leaf = (str(folder / "certs" / file) for file in case["chain"])
    arguments = [
        "verify",
        "--json",
        "--explain",
        "--purpose",
        "any",
        "--at",
        "2011-04-15T00:00:00Z",
        leaf,
        "--anchor",
        anchor,
    ]
    for option, values in (
        ("--intermediate", others),
        ("--crl", [str(folder / "crls" / file) for file in case["crls"]]),
        ("--policy", case.get("policies", [])),
    ):
        arguments += [word for value in values for word in (option, value)]
    flags = {
        "explicit": "--require-explicit-policy",
        "no_mapping": "--inhibit-policy-mapping",
        "no_any": "--inhibit-any-policy",
    }
    arguments += [flag for key, flag in flags.items() if case.get(key)]
    code = main(arguments)
    told = capsys.readouterr()
    if case["case"] in DSA:
        assert code == (65 if DSA[case["case"]] == "unreadable" else 1)
        assert told.err.count("\n") == (code == 65)
        return
    assert code == (0 if case["expected"] == "valid" else 1)
    found = json.loads(told.out)
    report = outcome(case)
    assert (found["status"], found["reason"]) == (report.outcome, report.reason)
    failed = [check for check in found["checks"] if check["passed"] is False]
    assert bool(failed) == (code == 1)
    assert all(check["clause"] for check in failed if check["text"].startswith("path."))
    if code == 0:
        assert found["policies"] == sorted(case["user_policies"])
