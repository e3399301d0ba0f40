"""NIST PKITS sections 4.4 (basic revocation), 4.14 (distribution points) and 4.15 (delta CRLs), judged CRL by CRL.

The path is given; each certificate below the anchor is judged by the CRLs of its case. What isn't supported yet (other CRL
keys, relative names, indirect CRLs, deltas) must be UNKNOWN or, for a hold that only a delta lifts, REVOKED: never GOOD.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest

from postseal.core.certs import load_certificate
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence, question_for
from postseal.core.revocation import RevocationSettings, Status, Verdict, judge

DATA = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
CASES = json.loads((Path(__file__).parents[1] / "data" / "pkits-revocation.json").read_text())["tests"]
AT = datetime(2011, 4, 15, tzinfo=UTC)
# The CRLs of the suite live for twenty years.
SETTINGS = RevocationSettings(max_crl_age=timedelta(days=9999), max_ca_crl_age=timedelta(days=9999))
# Valid by the suite, and not yet by us. A case that starts to pass must leave the list.
NOT_YET = {
    "4.4.19": "the CRL is signed with another key of the CA",
    "4.14.4": "the certificate's point has a relative name",
    "4.14.5": "the CRL's point has a relative name",
    "4.14.7": "the CRL's point has a relative name",
    "4.14.24": "indirect CRL",
    "4.14.25": "indirect CRL",
    "4.14.28": "cRLIssuer",
    "4.14.29": "cRLIssuer",
    "4.14.30": "cRLIssuer",
    "4.14.33": "cRLIssuer",
    "4.15.5": "a delta lifts a hold",
}


def verdicts(case: dict[str, Any]) -> list[Verdict]:
    chain = [load_certificate((DATA / "certs" / name).read_bytes()) for name in case["chain"]]
    evidence = [
        CrlEvidence(parse_crl((DATA / "crls" / name).read_bytes()), f"file:{name}", AT) for name in case["crls"]
    ]
    pairs = zip(chain[1:], chain[:-1], strict=True)
    return [judge(question_for(one, issuer), evidence, SETTINGS, AT) for one, issuer in pairs]


@pytest.mark.parametrize("case", CASES, ids=[f"{c['number']} {c['name']}" for c in CASES])
def test_pkits(case: dict[str, Any]) -> None:
    """RFC 5280 §6.3: every certificate of a valid path is GOOD; in an invalid one at least one isn't."""
    found = verdicts(case)
    good = all(v.status is Status.GOOD for v in found)
    assert good == (case["expected"] == "valid" and case["number"] not in NOT_YET), [v.detail for v in found]


@pytest.mark.parametrize("case", [c for c in CASES if "Revoked" in c["name"]], ids=lambda c: c["number"])
def test_revoked_is_revoked(case: dict[str, Any]) -> None:
    """RFC 5280 §6.3.3 (i): where the suite revokes a certificate by a usable CRL, the verdict is REVOKED, not UNKNOWN."""
    assert any(v.status is Status.REVOKED for v in verdicts(case))


def test_the_list_of_exceptions_is_exact() -> None:
    """Every exception is a valid case of the suite."""
    valid = {c["number"] for c in CASES if c["expected"] == "valid"}
    assert valid >= set(NOT_YET)
