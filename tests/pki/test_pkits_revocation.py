"""NIST PKITS sections 4.4 (basic revocation), 4.14 (distribution points) and 4.15 (delta CRLs), judged CRL by CRL.

Everybody asks ``core.judgement``, and so does this: the leaf, the anchor, the certificates and the CRLs of the case.
"""

from __future__ import annotations

import json
import pathlib
from datetime import UTC, datetime, timedelta
from typing import Any

import cryptography_vectors
import pytest

from postseal.core.certs import load_certificate
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.judgement import JudgementSettings, judge_certificate
from postseal.core.path import Anchor, Path, PathSettings
from postseal.core.revocation import RevocationSettings, Status, Verdict

DATA = pathlib.Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
CASES = json.loads((pathlib.Path(__file__).parents[1] / "data" / "pkits-revocation.json").read_text())["tests"]
AT = datetime(2011, 4, 15, tzinfo=UTC)
# The CRLs of the suite live for twenty years.
SETTINGS = RevocationSettings(max_crl_age=timedelta(days=9999), max_ca_crl_age=timedelta(days=9999))


def verdicts(case: dict[str, Any]) -> list[Verdict]:
    chain = [load_certificate((DATA / "certs" / name).read_bytes()) for name in case["chain"]]
    evidence = [
        CrlEvidence(parse_crl((DATA / "crls" / name).read_bytes()), f"file:{name}", AT) for name in case["crls"]
    ]
    settings = JudgementSettings(PathSettings(email_protection=False), SETTINGS)
    found = judge_certificate(chain[-1], (Anchor(chain[0]),), chain[1:-1], lambda _: evidence, settings, AT)
    assert isinstance(found.path, Path)
    return list(found.verdicts)


@pytest.mark.parametrize("case", CASES, ids=[f"{c['number']} {c['name']}" for c in CASES])
def test_pkits(case: dict[str, Any]) -> None:
    """RFC 5280 §6.3: every certificate of a valid path is GOOD; in an invalid one at least one isn't."""
    found = verdicts(case)
    good = all(v.status is Status.GOOD for v in found)
    assert good == (case["expected"] == "valid"), [v.detail for v in found]


@pytest.mark.parametrize("case", [c for c in CASES if "Revoked" in c["name"]], ids=lambda c: c["number"])
def test_revoked_is_revoked(case: dict[str, Any]) -> None:
    """RFC 5280 §6.3.3 (i): where the suite revokes a certificate by a usable CRL, the verdict is REVOKED, not UNKNOWN."""
    assert any(v.status is Status.REVOKED for v in verdicts(case))
