"""How ``postseal evidence list`` and ``show`` put stored evidence, marks and failures into words and JSON (CACHE-12)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from postseal.core.distribution import ALL_REASONS, parse_issuing_point, reason_names
from postseal.core.errors import BadData
from postseal.core.text import moment, one_line


def values(entry: Any, store: Any, at: datetime) -> dict[str, Any]:
    """One entry as JSON values; times are RFC 3339, spans seconds."""
    about = (entry.certificate or entry.issuer).fingerprint
    states = [store.url_state(entry.url), store.url_state(entry.url, about)]
    worst = max(states, key=lambda s: s.failures)
    return {
        "name": entry.name, "kind": entry.kind, "issuer": entry.issuer.name, "issuer_key": entry.issuer.key_id,
        "certificate": entry.certificate.fingerprint if entry.certificate is not None else None, "url": entry.url,
        "urls": list(entry.urls), "size": entry.size, "number": entry.number, "entries": entry.entries,
        "this_update": moment(entry.this_update), "next_update": moment(entry.next_update),
        "fetched_at": moment(entry.fetched_at), "refresh_at": moment(entry.refresh_at),
        "scope": scope(entry), "age": _seconds(entry.this_update, at),
        "remains": None if entry.next_update is None else -_seconds(entry.next_update, at),
        "used_at": moment(entry.used_at), "answered_at": moment(states[0].answered_at),
        "failures": worst.failures, "retry_at": moment(worst.retry_at),
        "chain": [c.fingerprint for c in entry.chain],
    }  # fmt: skip


def _seconds(then: datetime | None, at: datetime) -> int:
    return 0 if then is None else int((at - then).total_seconds())


def scope(entry: Any) -> dict[str, Any]:
    """What a CRL is about: complete or delta, indirect, a part of its issuer's certificates, some reasons."""
    found: dict[str, Any] = {"delta": entry.delta, "indirect": False, "part": "", "only": "", "reasons": ""}
    if not entry.idp:
        return found
    try:
        point = parse_issuing_point(bytes(entry.idp))
    except BadData:
        return {**found, "part": "unreadable"}
    only = "users" if point.only_user else "CAs" if point.only_ca else "attributes" if point.only_attribute else ""
    part = "" if point.name is None else point.name.text() or "named otherwise"
    reasons = "" if point.reasons == ALL_REASONS else reason_names(point.reasons)
    return {**found, "indirect": point.indirect, "part": part, "only": only, "reasons": reasons}


def _kind(v: dict[str, Any]) -> str:
    """crl, delta, indirect, part or ocsp, whichever tells most."""
    said = v["scope"]
    if v["kind"] != "crl":
        return str(v["kind"])
    return "delta" if said["delta"] else "indirect" if said["indirect"] else "part" if _part(said) else "crl"


def _part(said: dict[str, Any]) -> bool:
    return bool(said["part"] or said["only"] or said["reasons"])


def lines(v: dict[str, Any]) -> Iterator[str]:
    """An entry for people."""
    ends = f"until {v['next_update'] or '(not said)'}"
    over = " ENDED" if v["remains"] is not None and v["remains"] < 0 else ""
    age = f"age {span(v['age'])}"
    yield f"{v['name'][:16]}  {_kind(v):8}  {ends:26}{over}  {age:9}  {one_line(v['issuer'], 300)}  {one_line(v['url'], 300)}"
    if v["failures"]:
        wait = f", left alone until {v['retry_at']}" if v["retry_at"] else ""
        yield f"{'':16}  {v['failures']} failures in a row{wait}; last answer {v['answered_at'] or 'unknown'}"


def shown(v: dict[str, Any], mark: dict[str, Any] | None, host: tuple[int, datetime | None]) -> Iterator[str]:
    """All about one entry, ``key: value`` by line."""
    said = v["scope"]
    facts = ["delta" if said["delta"] else "complete", "indirect" if said["indirect"] else ""]
    facts += [
        f"{name} {said[key]}" for name, key in (("part", "part"), ("only", "only"), ("reasons", "reasons")) if said[key]
    ]
    plain = {k: x for k, x in v.items() if k not in ("scope", "age", "remains", "chain", "urls")}
    for key, value in plain.items():
        yield f"{key}: {one_line(str(value), 300)}"
    yield f"urls: {one_line(' '.join(v['urls']), 2000)}"
    if v["kind"] == "crl":
        yield f"scope: {one_line(', '.join(f for f in facts if f), 500)}"
    yield f"age: {span(v['age'])}"
    if v["remains"] is not None:
        yield f"remains: {span(v['remains'])}" if v["remains"] >= 0 else f"ended: {span(-v['remains'])} ago"
    if host[0]:
        yield f"host: {host[0]} failures in a row, left alone until {moment(host[1]) if host[1] else '(not said)'}"
    if mark is not None:
        yield f"mark: {mark['name']}, number {mark['number']}, thisUpdate {mark['this_update']} (nothing older is taken)"
        yield f"history: {mark['updates']} updates, a current one at every moment since {mark['fresh_since']}"


def mark_values(mark: Any) -> dict[str, Any]:
    """The highest CRL of a scope that was ever stored (CRL-25)."""
    return {
        "name": mark.name, "issuer": mark.issuer.name, "issuer_key": mark.issuer.key_id, "delta": mark.delta,
        "number": mark.number, "this_update": moment(mark.this_update), "sha256": mark.sha256,
        "next_update": moment(mark.next_update), "fresh_since": moment(mark.fresh_since), "updates": mark.updates,
    }  # fmt: skip


def mark_line(v: dict[str, Any]) -> str:
    kind = "delta" if v["delta"] else "crl"
    return (
        f"{v['name']}  mark of {kind} number {v['number']}, thisUpdate {v['this_update']}, {v['updates']} updates"
        f"  {one_line(v['issuer'], 300)}"
    )


def failure_line(v: dict[str, Any]) -> str:
    row = f", failure {v['failures']} in a row" if v["failures"] else ""
    return f"no answer  {one_line(v['url'], 300)}: {one_line(v['detail'], 300)}{row}; not asked again before {v['retry_at']}"


def host_of(url: str) -> str:
    return urlsplit(url).netloc.lower()


def chosen_marks(marks: Any, name: str) -> list[Any]:
    """By name of the scope, name of its CRL or key of its issuer (8 digits at least), or the issuer's name as listed."""
    low = name.lower()

    def meant(mark: Any) -> bool:
        starts = len(low) >= 8 and any(text.startswith(low) for text in (mark.sha256, mark.issuer.key_id, mark.name))
        return bool(starts or mark.issuer.name == name)

    return [mark for mark in marks if meant(mark)]


def span(seconds: int) -> str:
    """90061 -> "1 d 1 h"."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    left = timedelta(seconds=seconds)
    days, hours, minutes = left.days, left.seconds // 3600, left.seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
