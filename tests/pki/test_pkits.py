"""NIST PKITS, sections 4.1, 4.2, 4.3, 4.5, 4.6, 4.7 and 4.16, each case by its name.

The certificates and CRLs are those of the package cryptography_vectors, the table is tests/data/pkits.json. The builder is
given all certificates of the case in one heap and has to find the path itself.
"""

import json
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import cryptography_vectors
import pytest

from postseal.app.verify import Outcome, Request, verify
from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor, Path, PathFault, PathSettings, build_path

TABLE = json.loads((FilePath(__file__).parents[1] / "data" / "pkits.json").read_text())
CASES = {f"{t['number']} {t['name']}": t for t in TABLE["tests"]}
AT = datetime(2011, 4, 15, tzinfo=UTC)
# PKITS has no extended key usages; it is about signatures.
SETTINGS = PathSettings(email_protection=False)

# DSA isn't accepted, so these are refused, the valid ones too. The two of the last case can't even be read by the library.
DSA = {"4.1.4": "path.unsupported-signature", "4.1.5": "unreadable", "4.1.6": "path.unsupported-signature"}
# What the path can't see and the CRL must: these paths are valid as paths.
BY_CRL = {"4.5.2": "rev.revoked-crl", "4.5.5": "rev.revoked-crl", "4.5.7": "rev.revoked-crl",
          "4.7.4": "rev.no-crl-sign", "4.7.5": "rev.no-crl-sign"}  # fmt: skip
# PKITS says why in words; this is what postseal has to say.
CODES = {
    "signature": {"path.bad-signature"},
    "not yet valid": {"path.not-yet-valid"},
    "expired": {"path.expired"},
    "name chaining": {"path.no-issuer"},
    "missing basicConstraints": {"path.not-ca"},
    "basicConstraints cA false": {"path.not-ca"},
    "path length": {"path.too-long"},
    "key usage": {"path.no-cert-sign"},
    "unprocessed critical extension": {"path.unknown-extension"},
}


def read(folder: str, file: str) -> bytes:
    with cryptography_vectors.open_vector_file(f"x509/PKITS_data/{folder}/{file}", "rb") as vector:
        content: bytes = vector.read()
    return content


def certificates(case: dict[str, Any]) -> list[Certificate]:
    return [load_certificate(read("certs", file)) for file in case["chain"]]


def outcome(case: dict[str, Any]) -> Path | PathFault:
    anchor, *others = certificates(case)
    return build_path(
        others[-1], (Anchor(anchor),), tuple(sorted(others[:-1], key=lambda c: c.fingerprint)), SETTINGS, AT
    )


@pytest.mark.parametrize("name", [n for n, t in CASES.items() if t["number"] not in DSA])
def test_path(name: str) -> None:
    """The path is found and valid, or refused for the reason that PKITS gives."""
    case = CASES[name]
    found = outcome(case)
    if case["expected"] == "valid" or case["number"] in BY_CRL:
        assert isinstance(found, Path), found
        anchor, *others = certificates(case)
        assert found.anchor.certificate == anchor
        assert list(found.certificates) == expected_path(case, others)
    else:
        assert isinstance(found, PathFault)
        assert found.code in CODES[case["reason"]], found


def expected_path(case: dict[str, Any], others: list[Certificate]) -> list[Certificate]:
    # In these the third certificate holds the key that signs CRLs; it isn't part of the leaf's path.
    if case["number"] in ("4.5.4", "4.5.5", "4.5.6", "4.5.7"):
        others = [others[0], others[-1]]
    return others[::-1]


@pytest.mark.parametrize("name", [n for n, t in CASES.items() if t["number"] in DSA])
def test_dsa_is_refused_cleanly(name: str) -> None:
    """DSA isn't accepted: a fault of its own or a BadData in one sentence, and no exception of the library."""
    case = CASES[name]
    if DSA[case["number"]] == "unreadable":
        with pytest.raises(BadData, match=r"^not a certificate: [^\n]+$"):
            outcome(case)
    else:
        found = outcome(case)
        assert isinstance(found, PathFault)
        assert found.code == DSA[case["number"]], found
        assert "DSA" in found.detail


@pytest.mark.parametrize("name", [n for n, t in CASES.items() if t["number"] not in DSA])
def test_revocation(name: str) -> None:
    """The outcome of the whole case with its CRLs is the one that PKITS gives, for PKITS's reason."""
    case = CASES[name]
    anchor, *others = certificates(case)
    crls = tuple(CrlEvidence(parse_crl(read("crls", file)), f"file:{file}", AT) for file in case["crls"])
    report = verify(others[-1], Request((Anchor(anchor),), tuple(others[:-1]), crls, email=False), AT)
    if case["expected"] == "valid":
        assert report.outcome is Outcome.GOOD, (report.reason, report.detail)
    elif case["number"] in BY_CRL:
        assert report.reason == BY_CRL[case["number"]], report.detail
        assert report.outcome in (Outcome.REVOKED, Outcome.UNKNOWN)
    else:
        assert report.outcome is Outcome.UNTRUSTED
        assert report.reason in CODES[case["reason"]]
