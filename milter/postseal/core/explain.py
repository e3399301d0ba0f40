"""A decision record as a tree for people: what happened, by which rule, and why for every certificate, with the clauses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postseal.core.reasons import CATALOGUE
from postseal.core.record import DecisionRecord
from postseal.core.text import address, escape


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree and what hangs below it."""

    text: str
    below: tuple[Node, ...] = ()


def tree(record: DecisionRecord) -> Node:
    """The record of one recipient. What came from outside is in printable ASCII."""
    details = record.details
    title = f"{record.at:%Y-%m-%d %H:%M:%S} UTC  {escape(record.queue_id)}: to={address(record.recipient)}, "
    return Node(
        f"{title}from={address(record.sender)}: {record.action}",
        (
            Node(f"because: {_reason(record.reason, details.get('detail', ''))}"),
            *((Node(f"by rule: {escape(record.rule)}"),) if record.rule else ()),
            *_cipher(details),
            *_remarks(details),
            *(_candidate(candidate) for candidate in details.get("candidates", ())),
            *_left_out(details),
        ),
    )


def _cipher(details: Mapping[str, Any]) -> Iterator[Node]:
    """The cipher, how the key is wrapped, and why. Records of earlier versions don't say why."""
    if not details.get("cipher"):
        return
    key = f", key {escape(details['key_transport'])}" if details.get("key_transport") else ""
    why = details.get("cipher_why", "")
    listed = details.get("capabilities", "")
    below = [Node(escape(why, 400))] if why else []
    below += [Node(f"the recipient lists: {escape(listed, 400)}")] if listed else []
    yield Node(f"cipher: {escape(details['cipher'])}{key}", tuple(below))


def _remarks(details: Mapping[str, Any]) -> Iterator[Node]:
    if details.get("protection", "none") != "none":
        yield Node(f"the message came as: {escape(details['protection'])}")
    if details.get("note"):
        yield Node(f"note: {escape(details['note'])}")
    for warning in details.get("warnings", ()):
        yield Node(f"{'error' if warning['error'] else 'warning'}: {escape(warning['detail'])}")


def _left_out(details: Mapping[str, Any]) -> Iterator[Node]:
    number = details.get("candidates_left_out", 0)
    if number:
        yield Node(f"and {number} more certificates")


def _reason(code: str, detail: str = "") -> str:
    """``sentence: detail [code; clause]``"""
    entry = CATALOGUE.get(code)
    sentence = entry.sentence if entry else "unknown to this version"
    clause = f"; {entry.clause}" if entry and entry.clause else ""
    return f"{sentence}{f': {escape(detail)}' if detail not in ('', sentence) else ''} [{escape(code)}{clause}]"


def _candidate(candidate: Mapping[str, Any]) -> Node:
    certificate = candidate["certificate"]
    used = "used" if candidate["used"] else "not used"
    below: list[Node] = [
        Node(f"subject {escape(certificate['subject'], 300)}"),
        Node(f"valid from {certificate['not_before'][:10]} to {certificate['not_after'][:10]}"),
        Node(f"from {escape(candidate['origin'])} ({escape(candidate['source'], 300)})"),
    ]
    if candidate.get("why_not"):
        below.append(Node(f"behind the best: {escape(candidate['why_not'])}"))
    for finding in candidate["findings"]:
        below.append(
            Node(f"{'unfit' if finding['fatal'] else 'remark'}: {_reason(finding['code'], finding['detail'])}")
        )
    if candidate["fault"]:
        below.append(Node(f"no path: {_reason(candidate['fault']['code'], candidate['fault']['detail'])}"))
    else:
        below.append(_path(candidate["path"], candidate["verdicts"]))
    return Node(f"certificate sha256:{certificate['sha256'][:16]}: {used}", tuple(below))


def _path(path: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]) -> Node:
    links = [
        Node(f"{escape(link['subject'], 300)}", (_verdict(verdicts[i]),) if i < len(verdicts) else ())
        for i, link in enumerate(path)
    ]
    if links:
        links[-1] = Node(f"{links[-1].text} (trust anchor)", links[-1].below)
    return Node("path [RFC 5280 §6.1]", tuple(links))


def _verdict(verdict: Mapping[str, Any]) -> Node:
    facts = [
        f"{name} {verdict[key]}"
        for name, key in (("source", "source"), ("from", "this_update"), ("until", "next_update"),
                          ("revoked", "revoked_at"), ("why", "revocation_reason"))
        if verdict.get(key)
    ]  # fmt: skip
    doubt = verdict.get("doubt") or ("suspicion" if verdict["suspicious"] else "")
    text = (
        f"{verdict['verdict']}{f' (doubt: {doubt})' if doubt else ''}: {_reason(verdict['reason'], verdict['detail'])}"
    )
    return Node(text, tuple(Node(escape(fact)) for fact in facts))


def drawn(node: Node, indent: str = "") -> Iterator[str]:
    """The lines of a tree, in ASCII."""
    yield node.text
    for index, child in enumerate(node.below):
        last = index == len(node.below) - 1
        lines = drawn(child)
        yield f"{indent}{'`-- ' if last else '|-- '}{next(lines)}"
        for line in lines:
            yield f"{indent}{'    ' if last else '|   '}{line}"


_SECTIONS = {
    "ok": "Sealed, or passed as it came",
    "rcpt": "A recipient whose mail isn't sealed",
    "cipher": "Why no cipher suits a certificate, or a remark on the one that was chosen",
    "policy": "A message that can't be delivered as decided",
    "mail": "A message that can't be sealed as it is",
    "sys": "The system",
    "path": "A certificate without a valid path",
    "cert": "A certificate that isn't fit, or a remark on it",
    "rev": "Revocation",
    "sig": "The signature of a message",
}


def catalogue_as_markdown() -> str:
    """docs/reasons.md: every code with its sentence, clause and SMTP reply."""
    lines = ["# Reasons", "", "<!-- Made by: postseal explain --reasons -->", ""]
    lines += [
        "Codes in the log (`reason=`), in the journal (`REASON=`, `WARNING_CODE=`) and in `postseal explain`. A code never",
        "changes its meaning. The reply is what an SMTP client hears when the reason refuses or defers; a rule may turn a",
        "refusal into a deferral, and then the reply is 451 with the same detail.",
        "",
    ]
    for prefix, title in _SECTIONS.items():
        lines += [f"## {prefix}: {title}", "", "| code | meaning | clause | reply |", "|---|---|---|---|"]
        for entry in CATALOGUE.values():
            if entry.code.startswith(f"{prefix}."):
                reply = f"{entry.reply} {entry.enhanced}" if entry.reply else ""
                lines.append(f"| `{entry.code}` | {entry.sentence} | {entry.clause} | {reply} |")
        lines.append("")
    return "\n".join(lines)
