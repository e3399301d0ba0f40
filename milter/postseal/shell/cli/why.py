"""The long answer of ``postseal check``: each check of a certificate, what each piece of stored evidence says, what is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from postseal.app.check import Checked
from postseal.app.outlook import Memory, Outlook, Step, issuer_steps, outlook
from postseal.app.verify import Outcome, Report
from postseal.app.verify import explain as explain_report
from postseal.config import Config
from postseal.core.assess import Assessed
from postseal.core.evidence import Evidence, Question
from postseal.core.explain import Node
from postseal.core.path_explain import Check
from postseal.core.text import escape, moment
from postseal.sources.evidence import EvidenceStore
from postseal.sources.evidence_tables import UrlState
from postseal.wiring.fetch import build_guard


@dataclass(frozen=True, slots=True)
class Why:
    """About one certificate of a recipient. ``checks`` is empty unless they were asked for."""

    assessed: Assessed
    checks: tuple[Check, ...]
    outlooks: tuple[Outlook, ...]
    fetches: bool
    explain: bool
    issuer: tuple[Step, ...] = ()


class _Nothing:
    """What is known before anything was ever stored."""

    def evidence(self, question: Question) -> tuple[Evidence, ...]:
        return ()

    def url_state(self, url: str, about: str = "") -> UrlState:
        return UrlState()

    def host_state(self, host: str) -> tuple[int, datetime | None]:
        return 0, None


def why(config: Config, checked: Checked, *, explain: bool, plan: bool) -> tuple[Why, ...]:
    """The reasons for every candidate certificate; none unless a plan or an explanation is wanted."""
    if not plan:
        return ()
    store = EvidenceStore(config.evidence_directory, readonly=True)
    memory: Memory = store if store.exists() else _Nothing()
    guard = build_guard(config)

    def foresee(url: str) -> str:
        # Directories are listed one by one, and asked only when they are.
        return "" if url.lower().startswith("ldap:") else guard.foresee(url)

    found = []
    for assessed in checked.assessment.assessed:
        outlooks = outlook(
            assessed,
            memory,
            foresee,
            config.revocation_settings,
            checked.at,
            fetches=config.lookup.fetch,
            requests=config.lookup.requests_per_message,
        )
        checks = tuple(_checks(assessed, checked)) if explain else ()
        issuer = issuer_steps(assessed, memory, foresee, checked.at) if _asks_for_issuers(config) else ()
        found.append(Why(assessed, checks, outlooks, config.lookup.fetch, explain, issuer))
    return tuple(found)


def _asks_for_issuers(config: Config) -> bool:
    return config.lookup.fetch and config.lookup.fetch_issuers


def _checks(assessed: Assessed, checked: Checked) -> Sequence[Check]:
    verdicts = tuple(v for v in assessed.verdicts if v.reason != "rev.anchor")
    report = Report(
        assessed.candidate.certificate, Outcome.UNKNOWN, "", "", assessed.path, assessed.findings, verdicts, checked.at
    )
    return list(explain_report(report))


def as_nodes(reasons: Sequence[Why]) -> tuple[Node, ...]:
    """Branches for the tree of a decision. What came from outside is in printable ASCII."""
    return tuple(node for reason in reasons for node in _nodes(reason))


def _nodes(reason: Why) -> list[Node]:
    name = f"sha256:{reason.assessed.candidate.certificate.fingerprint[:16]}"
    nodes = []
    if reason.explain:
        lines = [
            Node(f"{_MARK[c.passed]} {escape(c.text)}" + (f" [{c.clause}]" if c.clause else "")) for c in reason.checks
        ]
        nodes.append(Node(f"checks of {name}", tuple(lines)))
    if reason.issuer:
        nodes.append(Node(f"postseal lookup would fetch the issuer that {name} lacks:", tuple(_steps(reason.issuer))))
    for one in reason.outlooks:
        below = [
            Node(f"{p.kind} {escape(p.url, 300)}, fetched {moment(p.fetched_at)}: {p.verdict.status.value} "
                 f"({p.verdict.reason}){': ' if p.verdict.detail else ''}{escape(p.verdict.detail)}")
            for p in (one.pieces if reason.explain else ())
        ]  # fmt: skip
        below.append(Node(_next(one, reason.fetches), tuple(_steps(one.steps))))
        below += [Node(f"can't be used: {escape(text)}") for text in one.skipped]
        nodes.append(
            Node(f"evidence about {escape(one.certificate.name, 300)}: {one.verdict.status.value}", tuple(below))
        )
    return nodes


_MARK = {True: "ok:", False: "NO:", None: "remark:"}


def _next(one: Outlook, fetches: bool) -> str:
    if not fetches:
        return "postseal lookup would fetch nothing here ([lookup] fetch = false)"
    if not one.needed:
        return "postseal lookup would fetch nothing: " + ("what is stored decides" if one.steps else "no URL is named")
    return "postseal lookup would ask, until one of them decides:"


def _steps(steps: Sequence[Step]) -> list[Node]:
    lines = []
    for number, step in enumerate(steps, 1):
        why_not = f": not now, {escape(step.why_not)}" if step.why_not else ""
        lines.append(Node(f"{number}. {step.kind} {escape(step.url, 300)} ({step.known}){why_not}"))
    return lines


def as_values(reasons: Sequence[Why]) -> list[dict[str, Any]]:
    """The stable JSON form."""
    return [
        {
            "certificate": reason.assessed.candidate.certificate.fingerprint,
            "checks": [{"passed": c.passed, "text": c.text, "clause": c.clause} for c in reason.checks],
            "evidence": [_values(one) for one in reason.outlooks],
            "issuer": [_step_values(step, True) for step in reason.issuer],
        }
        for reason in reasons
    ]


def _values(one: Outlook) -> dict[str, Any]:
    return {
        "certificate": one.certificate.fingerprint, "subject": one.certificate.name,
        "verdict": one.verdict.status.value, "reason": one.verdict.reason, "detail": one.verdict.detail,
        "pieces": [
            {"kind": p.kind, "url": p.url, "fetched_at": moment(p.fetched_at), "verdict": p.verdict.status.value,
             "reason": p.verdict.reason, "detail": p.verdict.detail}
            for p in one.pieces
        ],
        "fetch": one.needed,
        "steps": [_step_values(step, one.needed) for step in one.steps],
        "skipped": list(one.skipped),
    }  # fmt: skip


def _step_values(step: Step, needed: bool) -> dict[str, Any]:
    return {
        "kind": step.kind, "url": step.url, "would_ask": needed and not step.why_not, "why_not": step.why_not,
        "known": step.known,
    }  # fmt: skip
