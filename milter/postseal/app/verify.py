"""``postseal verify``: path, fitness and revocation of one certificate, from what the caller has at hand.

No effects: what is fetched for ``--online`` is fetched by ``Request.find``, which the caller hands in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from postseal.core.address import Mailbox
from postseal.core.assess import Finding
from postseal.core.baseline import baseline_remarks
from postseal.core.certs import Certificate, load_certificates
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, Evidence, OcspEvidence, Question
from postseal.core.fitness import fitness
from postseal.core.judgement import JudgementSettings, judge_certificate
from postseal.core.path import SKEW, Anchor, Path, PathFault, PathSettings
from postseal.core.path_explain import Check, explain_fault, explain_path
from postseal.core.pem import pem_blocks
from postseal.core.policies import ANY_INPUTS, PolicyInputs
from postseal.core.reasons import CATALOGUE
from postseal.core.revocation import RevocationSettings, Status, Verdict


class Outcome(StrEnum):
    """The answer in one word; only GOOD is a yes."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    UNTRUSTED = "untrusted"
    UNFIT = "unfit"


@dataclass(frozen=True, slots=True)
class Request:
    """What is verified against what. ``find`` gives further evidence for a question, knowing what is
    at hand; it may go to the network.

    ``email`` asks whether mail can be encrypted with it (purposes, key usage, key); otherwise only the address counts, if
    one is given. ``revocation`` False leaves revocation out.
    ``policies`` are the inputs of policy processing, ``skew`` the patience with certificates that aren't valid yet.
    ``clock`` is what the clock says when the moment asked about is another.
    """

    anchors: tuple[Anchor, ...]
    intermediates: tuple[Certificate, ...] = ()
    crls: tuple[CrlEvidence, ...] = ()
    ocsp: tuple[OcspEvidence, ...] = ()
    mailbox: Mailbox | None = None
    email: bool = True
    weak_keys: bool = False
    revocation: bool = True
    policies: PolicyInputs = ANY_INPUTS
    skew: timedelta = SKEW
    clock: datetime | None = None
    find: Callable[[Question, Sequence[Evidence]], Sequence[Evidence]] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The answer and all that led to it. ``verdicts`` belong to the first certificates of the path, leaf first."""

    certificate: Certificate
    outcome: Outcome
    reason: str
    detail: str
    path: Path | PathFault
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    at: datetime
    email: bool = True


def verify(certificate: Certificate, request: Request, at: datetime) -> Report:
    """The report on one certificate at one moment. Total, as the parts that it calls are."""
    return verify_with(certificate, request, _findings(certificate, request, at), at)


def verify_with(certificate: Certificate, request: Request, findings: tuple[Finding, ...], at: datetime) -> Report:
    """``verify`` where ``findings`` tell what the certificate is fit for. Total."""
    settings = PathSettings(request.email, request.weak_keys, skew=request.skew, policies=request.policies)
    judged = judge_certificate(
        certificate,
        request.anchors,
        request.intermediates,
        lambda question: _evidence(question, request),
        JudgementSettings(settings, revocation_settings(request), request.revocation),
        at,
    )
    path = judged.path
    # An anchor in its own path was asked nothing, so there is nothing to report about it.
    verdicts = tuple(v for v in judged.verdicts if v.reason != "rev.anchor")
    outcome, reason, detail = _conclude(path, findings, verdicts)
    return Report(certificate, outcome, reason, detail, path, findings, verdicts, at, request.email)


# With --purpose any only these matter, and only when an address is asked for.
_ADDRESS_CODES = ("cert.no-address", "cert.wrong-address", "cert.odd-address", "cert.address-in-subject")


def _findings(certificate: Certificate, request: Request, at: datetime) -> tuple[Finding, ...]:
    found = fitness(certificate, request.mailbox, at, weak_keys=request.weak_keys)
    return found if request.email else tuple(f for f in found if f.code in _ADDRESS_CODES)


# The operator names the files and the time, so a CRL counts until its nextUpdate. CRL-24 is for what a cache believes.
_NO_LIMIT = timedelta(days=36500)


def revocation_settings(request: Request) -> RevocationSettings:
    """How evidence is judged for a request."""
    return RevocationSettings(
        weak_keys=request.weak_keys, max_crl_age=_NO_LIMIT, max_ca_crl_age=_NO_LIMIT, clock=request.clock
    )


def _evidence(question: Question, request: Request) -> list[Evidence]:
    evidence: list[Evidence] = [*request.crls, *request.ocsp]
    if request.find is not None:
        evidence += request.find(question, tuple(evidence))
    return evidence


def _conclude(
    path: Path | PathFault, findings: Sequence[Finding], verdicts: Sequence[Verdict]
) -> tuple[Outcome, str, str]:
    """The worst thing first: no path, revoked, unfit, unknown."""
    if isinstance(path, PathFault):
        return Outcome.UNTRUSTED, path.code, path.detail
    for verdict in verdicts:
        if verdict.status is Status.REVOKED:
            return Outcome.REVOKED, verdict.reason, verdict.detail
    for finding in findings:
        if finding.fatal:
            return Outcome.UNFIT, finding.code, finding.detail
    for verdict in verdicts:
        if verdict.status is not Status.GOOD:
            return Outcome.UNKNOWN, verdict.reason, verdict.detail
    if verdicts:
        return Outcome.GOOD, verdicts[0].reason, verdicts[0].detail
    return Outcome.GOOD, "path.valid", ""


def explain(report: Report) -> Iterator[Check]:
    """Each check with the clause behind it, in the order in which they were made."""
    if isinstance(report.path, PathFault):
        yield from explain_fault(report.path, mail=report.email)
    else:
        yield from explain_path(report.path, report.at, mail=report.email)
    for finding in report.findings:
        yield Check(False if finding.fatal else None, f"{finding.code}: {finding.detail}", _clause(finding.code))
    for remark in baseline_remarks(report.certificate) if report.email else ():
        yield Check(None, f"Baseline Requirements: {remark.text}", remark.clause)
    if not any(f.fatal for f in report.findings):
        yield Check(True, "the certificate is fit for the purpose", "RFC 8550 §4.4")
    if isinstance(report.path, Path):
        for certificate, verdict in zip(report.path.certificates, report.verdicts, strict=False):
            yield Check(
                verdict.status is Status.GOOD,
                f"revocation of {certificate.name}: {verdict.status} ({verdict.reason})"
                + (f", {verdict.detail}" if verdict.detail else "")
                + (f", from {verdict.source}" if verdict.source else ""),
                _clause(verdict.reason),
            )


def _clause(code: str) -> str:
    entry = CATALOGUE.get(code)
    return entry.clause if entry else ""


def read_certificates(blob: bytes, name: str) -> tuple[Certificate, ...]:
    """All certificates of a file. Raises BadData that names the file."""
    return _named(name, lambda: load_certificates(blob))


def read_crls(blob: bytes, name: str, at: datetime) -> tuple[CrlEvidence, ...]:
    """All CRLs of a file, DER or PEM with several blocks. Raises BadData that names the file."""
    parsed = _named(name, lambda: tuple(parse_crl(der) for der in _objects(blob, ("X509 CRL",), "CRL")))
    return tuple(CrlEvidence(crl, f"file:{name}", at) for crl in parsed)


def read_ocsp(blob: bytes, name: str, at: datetime) -> tuple[OcspEvidence, ...]:
    """All OCSP responses of a file, DER or PEM with several blocks. Raises BadData that names the file."""
    found = _named(name, lambda: tuple(_objects(blob, ("OCSP RESPONSE",), "OCSP response")))
    return tuple(OcspEvidence(der, f"file:{name}", at) for der in found)


def _objects(blob: bytes, labels: tuple[str, ...], kind: str) -> list[bytes]:
    found = [blob] if blob[:1] == b"\x30" else [der for _, der in pem_blocks(blob, labels)] or _bare_base64(blob)
    if not found:
        raise BadData(f"no {kind} found (expected DER, or PEM with {labels[0]})")
    return found


def _bare_base64(blob: bytes) -> list[bytes]:
    """One object in base64 without the lines that PEM has around it, as some servers and collections keep them."""
    try:
        der = base64.b64decode(b"".join(blob.split()), validate=True)
    except ValueError:
        return []
    return [der] if der[:1] == b"\x30" else []


_T = TypeVar("_T")


def _named(name: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except BadData as exc:
        raise BadData(f"{name}: {exc}") from exc
