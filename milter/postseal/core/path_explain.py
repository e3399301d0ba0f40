"""The checks behind a path or a fault, one by one with their clauses, for people (``postseal verify --explain``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from postseal.core.certs import Certificate
from postseal.core.path import Path, PathFault
from postseal.core.path_checks import constrained, names_of
from postseal.core.profile import key_kind, profile
from postseal.core.reasons import CATALOGUE


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was checked, by which clause, and whether it held (None: a remark)."""

    passed: bool | None
    text: str
    clause: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """A check that passes unless ``codes`` has the fault's code and ``about`` is the certificate that is blamed."""

    about: Certificate
    codes: tuple[str, ...]
    text: str
    clause: str


def explain_path(path: Path, at: datetime, *, mail: bool) -> Iterator[Check]:
    """All checks of a valid path, from the anchor down. ``mail`` tells whether purposes were asked for."""
    root = path.anchor.certificate
    yield Check(True, f"{root.name} is a trust anchor", "RFC 5280 §6.1.1 (d)")
    yield from _explain_anchor(path, at)
    for index in reversed(range(len(path.certificates))):
        trusted = path.certificates[index] == root
        for rule in _rules(path.certificates, index, None if trusted else path.issuer_of(index), mail):
            yield Check(True, f"{rule.about.name}: {rule.text}", rule.clause)
    said = ", ".join(sorted(path.policies.user)) or "none"
    yield Check(True, f"valid under the policies: {said}", "RFC 5280 §6.1.5 (g), RFC 9618 §5.5")


def _explain_anchor(path: Path, at: datetime) -> Iterator[Check]:
    root, settings = path.anchor.certificate, path.anchor.settings
    if path.certificates[-1] != root:
        if root.not_after < at:
            detail = f"{root.name} is outside of its validity, which its settings permit"
            yield Check(None, detail, "RFC 5280 §6.1.1 (d)")
        limits = profile(root).name_constraints
        if limits is not None:
            yield Check(
                True, f"{root.name}: its {limits.size} name constraints are kept", "RFC 5937, RFC 5280 §4.2.1.10"
            )
    if settings.domains or settings.excluded_domains:
        yield Check(True, f"{root.name}: may speak for the addresses of the certificate", "RFC 5280 §6.1.1 (h), (i)")
    if settings.distrust_after is not None:
        yield Check(True, f"{root.name}: trusted for certificates of that age", "RFC 5280 §6.2")


def explain_fault(fault: PathFault, *, mail: bool) -> Iterator[Check]:
    """What held on the way up, as far as the search came, and what did not."""
    chain = fault.tried
    for certificate in chain:
        yield Check(None, f"tried {certificate.name}", "")
    failed = Check(False, f"{fault.code}: {fault.detail}", CATALOGUE[fault.code].clause)
    for index in range(len(chain)):
        issuer = chain[index + 1] if index + 1 < len(chain) else None
        for rule in _rules(chain[: index + 1], index, issuer, mail):
            if rule.about == fault.certificate and fault.code in rule.codes:
                yield failed
                return
            yield Check(True, f"{rule.about.name}: {rule.text}", rule.clause)
    yield failed


def _rules(chain: Sequence[Certificate], index: int, issuer: Certificate | None, mail: bool) -> Iterator[_Rule]:
    """The checks of ``chain[index]`` (leaf first), and of the link to ``issuer`` above it."""
    certificate = chain[index]
    about = profile(certificate)

    def rule(codes: str, text: str, clause: str) -> _Rule:
        return _Rule(certificate, tuple(f"path.{code}" for code in codes.split()), text, clause)

    yield rule("bad-extension", "its extensions can be read, and none is there twice", "RFC 5280 §4.2")
    signed = "broken-signature weak-signature unsupported-signature"
    yield rule(signed, "signed with an algorithm that is accepted", "RFC 8550 §4.3")
    period = f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
    yield rule("not-yet-valid expired", f"valid from {period}", "RFC 5280 §6.1.3 (a)(2)")
    clause = "RFC 5280 §6.1.4 (o)" if index else "RFC 5280 §6.1.5 (f)"
    yield rule("unknown-extension unsupported-extension", "no critical extension left unprocessed", clause)
    yield rule("weak-key unsupported-key", f"its key is of the kind {key_kind(certificate)}", "RFC 8550 §4.3")
    if index:
        yield rule("not-ca", "is a CA", "RFC 5280 §6.1.4 (k)")
        yield rule("no-cert-sign", "may sign certificates", "RFC 5280 §6.1.4 (n)")
        yield rule("too-long", "no more CAs below it than it allows", "RFC 5280 §6.1.4 (l), (m)")
        if mail:
            yield rule("wrong-purpose", "may vouch for mail", "RFC 5280 §4.2.1.12, RFC 8550 §4.4.4")
        if about.name_constraints is not None:
            yield from _constraint_rules(chain, index)
    if issuer is not None:
        yield rule("", "its issuer is the subject above it", "RFC 5280 §6.1.3 (a)(4)")
        yield rule("bad-signature", f"signature by {issuer.name}", "RFC 5280 §6.1.3 (a)(1)")


def _constraint_rules(chain: Sequence[Certificate], index: int) -> Iterator[_Rule]:
    """One for each certificate whose names the CA may limit."""
    name = chain[index].name
    for below in constrained(chain[:index]):
        codes = ("path.name-constraints", "path.unsupported-extension")
        text = f"its {len(names_of(below))} names are what {name} may vouch for"
        yield _Rule(below, codes, text, "RFC 5280 §6.1.3 (b), (c)")
