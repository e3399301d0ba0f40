"""CERT-19: the Baseline Requirements are remarks in ``postseal verify --explain``, and refuse nothing."""

from typing import Any

import pytest
from cryptography import x509

from postseal.app.verify import Outcome, Request, explain, verify
from postseal.core.baseline import baseline_remarks
from postseal.core.path import Anchor
from support.pki import DAY, NOW, Leaf, authority

ROOT = authority("Root")
MAILBOX, INDIVIDUAL = "mailbox-validated, multipurpose generation", "individual-validated, legacy generation"


def issued(*oids: str, **more: Any) -> Leaf:
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids])
    return ROOT.issue("a@b.test", extra=[(policies, False)], **more)


@pytest.mark.parametrize(
    ("oid", "start", "days", "remarks"),
    [
        ("2.23.140.1.5.3.3", -30, 825, ["sponsor-validated, strict generation"]),
        ("2.23.140.1.5.1.2", -30, 826, [MAILBOX, "it lives 826 days, and 825 are allowed"]),
        ("2.23.140.1.5.2.1", -800, 1185, ["organization-validated, legacy generation"]),
        ("2.23.140.1.5.4.1", -30, 365, [INDIVIDUAL, "the legacy generation ended on 2025-07-15, before it was issued"]),
        ("2.23.140.1.5.9.1", -30, 365, []),
        ("2.23.140.1.5.1.2.1", -30, 365, []),
        ("1.2.3", -30, 9000, []),
    ],
)  # fmt: skip
def test_remarks(oid: str, start: int, days: int, remarks: list[str]) -> None:
    begin = NOW + start * DAY
    leaf = issued("1.2.840.1", oid, not_before=begin, not_after=begin + days * DAY)
    assert [remark.text for remark in baseline_remarks(leaf.certificate)] == remarks
    assert all(remark.clause.startswith("S/MIME BR ") for remark in baseline_remarks(leaf.certificate))


def test_remarks_refuse_nothing() -> None:
    leaf = issued("2.23.140.1.5.4.1")
    report = verify(leaf.certificate, Request((Anchor(ROOT.certificate),), revocation=False), NOW)
    assert report.outcome is Outcome.GOOD
    told = [check.text for check in explain(report) if check.passed is None]
    assert told[0] == "Baseline Requirements: individual-validated, legacy generation"
    assert len(told) == 2
