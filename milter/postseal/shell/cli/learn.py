"""``postseal cert learn``: certificates and capabilities of correspondents, from mail that they signed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from postseal.app.cms_layers import Opening, open_message
from postseal.app.learning import Lesson, Terms, learn
from postseal.app.verify import read_certificates
from postseal.config import Config, load_config
from postseal.core.address import Mailbox
from postseal.core.assess import Origin
from postseal.core.certs import Certificate
from postseal.core.ciphers import listed
from postseal.core.errors import BadData, NotPermitted, Unavailable
from postseal.core.path import Anchor
from postseal.core.text import escape
from postseal.shell.cli.files import read_file, whole_message
from postseal.sources.directory.store import CertificateStore
from postseal.wiring.certificates import certificate_store
from postseal.wiring.learning import Judge, build_judge

_MAX_MESSAGE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What became of one message; ``fault`` says why nothing did."""

    source: str
    lesson: Lesson | None = None
    new_certificate: bool = False
    new_word: bool = False
    fault: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="signed messages; - or none is standard input")
    parser.add_argument(
        "--anchor", metavar="FILE", action="append", default=[],
        help="trust these root certificates too, besides the configured ones; may be repeated",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0 when something was learnt from every message, 1 otherwise."""
    config = load_config(args.config)
    anchors = [Anchor(c, name) for name in args.anchor for c in read_certificates(read_file(name), name)]
    judge = build_judge(config, _warn, anchors)
    found = [_from(config, judge, name) for name in args.files or ["-"]]
    if args.json:
        print(json.dumps({"learnt": [_as_json(each) for each in found]}, indent=2))
    else:
        for each in found:
            for line in _as_text(each):
                print(line, file=sys.stderr if each.fault else sys.stdout)
    return 1 if any(each.fault for each in found) else 0


def _from(config: Config, judge: Judge, name: str) -> _Learnt:
    """One file; where it can't be read, the others are learnt from all the same."""
    source = "stdin" if name == "-" else name
    try:
        message = whole_message() if name == "-" else read_file(name)
    except (NotPermitted, Unavailable) as exc:
        return _Learnt(source, fault=str(exc).removeprefix(f"{name}: "))
    return _one(config, judge, source, message)


def _one(config: Config, judge: Judge, name: str, message: bytes) -> _Learnt:
    store, clock = certificate_store(config)
    at = clock.now()
    try:
        if len(message) > _MAX_MESSAGE:
            raise BadData(f"larger than {_MAX_MESSAGE // 1024 // 1024} MiB")
        terms = Terms(
            at,
            timedelta(seconds=config.revocation.skew),
            config.revocation.on_none_declared,
            config.revocation.weak_keys,
            config.sealing.x25519,
        )
        lesson = judge.twice(
            lambda request: learn(
                [layer.signature for layer in open_message(message, Opening(request, at)).layers if layer.signature],
                terms,
                request,
            )
        )
    except BadData as exc:
        return _Learnt(name, fault=str(exc))
    new: tuple[Certificate, ...] = ()
    certificate = lesson.certificate
    if certificate is not None:
        lesson = replace(lesson, notes=(*lesson.notes, *_changed(store, lesson.mailbox, certificate)))
        new = store.add([(certificate, name)], at, Origin.HARVESTED, lesson.mailbox)
    news = store.learn(lesson.mailbox, lesson.word) if lesson.word else False
    return _Learnt(name, lesson, bool(new), news)


def _changed(store: CertificateStore, mailbox: Mailbox, certificate: Certificate) -> Iterator[str]:
    """THR-19: what was there stays, and comes first when it was imported; a new CA is worth a second look."""
    known = [e.certificate for e in store.entries(str(mailbox))]
    if known and certificate not in known and all(e.issuer != certificate.issuer for e in known):
        yield f"all other certificates for {mailbox} are from another CA, {known[0].x509.issuer.rfc4514_string()}"


def _as_json(each: _Learnt) -> dict[str, Any]:
    lesson = each.lesson
    if lesson is None:
        return {"source": each.source, "fault": each.fault}
    return {
        "source": each.source,
        "fault": "",
        "address": str(lesson.mailbox),
        "sha256": lesson.certificate.fingerprint if lesson.certificate else "",
        "new_certificate": each.new_certificate,
        "capabilities": list(listed(lesson.word.capabilities)) if lesson.word else None,
        "signed_at": lesson.word.signed_at.isoformat() if lesson.word else None,
        "new_capabilities": each.new_word,
        "notes": list(lesson.notes),
    }


def _as_text(each: _Learnt) -> Iterator[str]:
    lesson = each.lesson
    if lesson is None:
        yield f"{escape(each.source)}: nothing learnt: {escape(each.fault, 500)}"
        return
    parts = []
    if lesson.certificate is not None:
        parts.append(
            f"certificate {lesson.certificate.fingerprint[:16]}{'' if each.new_certificate else ' (known already)'}"
        )
    if lesson.word is not None:
        reads = ", ".join(listed(lesson.word.capabilities)) or "nothing that postseal writes"
        parts.append(f"reads {reads}{'' if each.new_word else ' (a newer message is known)'}")
    yield f"{escape(each.source)}: {escape(str(lesson.mailbox))}: {'; '.join(parts) or 'nothing new'}"
    for note in lesson.notes:
        yield f"  note: {escape(note, 500)}"


def _warn(problem: str) -> None:
    print(f"postseal: warning: {escape(problem)}", file=sys.stderr)
