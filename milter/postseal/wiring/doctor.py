"""The checks of ``postseal doctor``, joined from the configuration, the machine and our own stores. Changes nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

import postseal
from postseal.config import Config, ConfigProblems, InetSocket, UnixSocket, load_config
from postseal.config.advice import warnings
from postseal.core.checkup import Check, Health, openssl_check, postfix_checks
from postseal.core.errors import CannotCreate, PostsealError, Unavailable
from postseal.core.path_checks import anchor_doubt
from postseal.core.text import one_line
from postseal.sources.clock import SystemClock
from postseal.sources.decisions import DecisionStore
from postseal.sources.directory.folder import FolderDirectory
from postseal.sources.evidence import EvidenceStore
from postseal.sources.folder import ignored
from postseal.sources.lookup_client import LookupClient
from postseal.sources.machine import clock_is_synchronised, connects, may_read, may_write, read_postfix, user_name
from postseal.sources.trust import FolderTrust
from postseal.wiring.evidence import build_bundle_signers
from postseal.wiring.revocation import build_revocation


def examine(config_path: str, postfix_directory: str) -> Iterator[Check]:
    """Every check, one after the other; one that fails in an unforeseen way is a FAIL of its own, never an exception."""
    try:
        config = load_config(config_path)
    except ConfigProblems as exc:
        yield from (Check("configuration", Health.FAIL, str(p), "edit the file") for p in exc.problems)
        return
    yield Check("configuration", Health.OK, f"{config_path} is valid")
    yield from (Check("configuration", Health.WARN, text, "edit the file") for text in warnings(config))
    parts: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("openssl", lambda: iter((openssl_check(backend.openssl_version_text()),))),
        ("clock", lambda: _clock(config)),
        ("directories", lambda: _directories(config)),
        ("anchors", lambda: _anchors(config)),
        ("certificates", lambda: _certificates(config)),
        ("responders", lambda: _responders(config)),
        ("files", lambda: _readable(config)),
        ("milter", lambda: _milter(config)),
        ("lookup", lambda: _lookup(config)),
        ("metrics", lambda: _metrics(config)),
        ("stores", lambda: _stores(config)),
        ("postfix", lambda: _postfix(config, postfix_directory)),
    )
    for name, part in parts:
        try:
            yield from part()
        except PermissionError as exc:
            yield Check(name, Health.WARN, f"{exc.filename}: permission denied", _AS_ROOT)
        except PostsealError as exc:
            yield Check(name, Health.FAIL, str(exc))
        except Exception as exc:
            yield Check(name, Health.FAIL, f"could not be examined: {type(exc).__name__}: {exc}")


_SOON = timedelta(days=30)
_SHOWN = 3
_NAMED = "copy the file there, or edit the configuration"
_AS_ROOT = "run postseal doctor as root"


def _clock(config: Config) -> Iterator[Check]:
    """A wrong clock makes every certificate and CRL look expired, or revives old ones."""
    now = SystemClock().now()
    built = datetime.fromtimestamp(Path(postseal.__file__).stat().st_mtime, now.tzinfo)
    advice = "timedatectl set-ntp true"
    if now < built:
        yield Check("clock", Health.FAIL, f"the clock says {now:%Y-%m-%d}, before postseal was installed", advice)
    elif clock_is_synchronised() is False:
        yield Check(
            "clock",
            Health.WARN,
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, and the kernel says it isn't synchronised",
            advice,
        )
    else:
        yield Check("clock", Health.OK, f"the clock says {now:%Y-%m-%d %H:%M} UTC")


def _directories(config: Config) -> Iterator[Check]:
    certificates = config.certificates
    for label, path, private in (
        ("state_directory", config.general.state_directory, True),
        ("runtime_directory", config.general.runtime_directory, False),
        ("certificates.directory", certificates.directory, False),
        ("anchors", certificates.anchors, False),
        ("intermediates", certificates.intermediates, False),
    ):
        yield _directory(label, path, private)


def _directory(label: str, path: Path, private: bool) -> Check:
    try:
        status = path.stat()
    except OSError as exc:
        return Check(label, Health.FAIL, f"{path}: {exc.strerror}", f"install -d -m 0750 {path}")
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        return Check(label, Health.FAIL, f"{path} is not a directory", f"mv {path} {path}.old")
    if mode & 0o002:
        return Check(label, Health.FAIL, f"{path} can be written by everybody (mode {mode:04o})", f"chmod o-w {path}")
    if private and mode & 0o004:
        text = f"{path} can be read by everybody (mode {mode:04o}); it holds addresses"
        return Check(label, Health.WARN, text, f"chmod o-rx {path}")
    return Check(label, Health.OK, f"{path} belongs to {user_name(status.st_uid)}, mode {mode:04o}")


def _anchors(config: Config) -> Iterator[Check]:
    certificates = config.certificates
    trust = FolderTrust(
        certificates.anchors, certificates.intermediates, SystemClock(), settings=config.anchor_settings
    )
    found = trust.anchors()
    if found:
        yield Check("anchors", Health.OK, f"trusted root certificates: {len(found)}")
    else:
        text = f"{config.certificates.anchors} holds no root certificate, so no recipient's certificate is trusted"
        yield Check(
            "anchors", Health.FAIL, text, f"copy the root certificates (PEM or DER) to {config.certificates.anchors}"
        )
    for anchor in found:
        doubt = anchor_doubt(anchor, config.path_settings, SystemClock().now())
        # Who isn't a CA is trusted for itself, as one person's certificate among the anchors is meant to be.
        if doubt is not None and doubt.code != "path.not-ca":
            yield Check("anchors", Health.WARN, f"{anchor.label}: {doubt.detail}", "replace or remove the file")
    for problem in trust.problems():
        yield Check("anchors", Health.WARN, problem, "replace or remove the file")
    for problem in trust.unused():
        yield Check("anchors", Health.WARN, problem, _NAMED)


def _certificates(config: Config) -> Iterator[Check]:
    folder = FolderDirectory(config.certificates.directory, SystemClock())
    folder.refresh()
    found = len(folder)
    text = f"addresses with a certificate in {config.certificates.directory}: {found}"
    yield Check("certificates", Health.OK, text)
    for problem in folder.problems():
        yield Check("certificates", Health.WARN, problem, "replace or remove the file")


def named_files(config: Config) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with files that the configuration names: what keeps services from starting, and what is a warning."""
    problems: list[str] = []
    try:
        build_revocation(config)
    except CannotCreate as exc:
        problems.append(str(exc))
    certificates = config.certificates
    trust = FolderTrust(
        certificates.anchors, certificates.intermediates, SystemClock(), settings=config.anchor_settings
    )
    try:
        trust.anchors()
    except Unavailable:
        # doctor says what is wrong with the folders; that of another machine needn't be here.
        return problems, ()
    return problems, trust.unused()


def _responders(config: Config) -> Iterator[Check]:
    """Without one of these files no service starts."""
    try:
        found = build_revocation(config).responders
    except CannotCreate as exc:
        yield Check("responders", Health.FAIL, str(exc), _NAMED)
        return
    if found:
        yield Check("responders", Health.OK, f"OCSP responders that are trusted by configuration: {len(found)}")


def _readable(config: Config) -> Iterator[Check]:
    """What root reads, the services may not: they run as the users to whom their directories belong."""
    users = {user_name(d.stat().st_uid): None for d in _own_directories(config) if d.exists()}
    certificates = config.certificates
    for folder in (certificates.anchors, certificates.intermediates, certificates.directory):
        closed = _closed(folder, tuple(users)) if folder.is_dir() else []
        for path, cause in closed[:_SHOWN]:
            advice = f"chmod a+rX {path}"
            yield Check("files", Health.FAIL, f"a service can't read {path}: {cause}", advice)
        if closed[_SHOWN:]:
            text = f"{len(closed) - _SHOWN} more files in {folder} can't be read by a service"
            yield Check("files", Health.FAIL, text, f"chmod -R a+rX {folder}")


def _own_directories(config: Config) -> tuple[Path, Path]:
    return config.general.state_directory, config.evidence_directory


def _closed(folder: Path, users: tuple[str, ...]) -> list[tuple[Path, str]]:
    """What one of ``users`` can't read, with the cause: the folder alone, or files in it."""
    for user in users:
        if cause := may_read(user, folder):
            return [(folder, cause)]
    files = sorted(path for path in folder.iterdir() if path.is_file() and not ignored(path.name))
    causes = ((path, next(filter(None, (may_read(user, path) for user in users)), "")) for path in files)
    return [(path, cause) for path, cause in causes if cause]


def _milter(config: Config) -> Iterator[Check]:
    start = "systemctl start postseal-milter"
    place = config.milter.socket
    target = place.path if isinstance(place, UnixSocket) else (place.host, place.port)
    shown = str(place.path) if isinstance(place, UnixSocket) else f"{place.host}:{place.port}"
    cause = connects(target)
    if cause == os.strerror(errno.EACCES):
        yield Check("milter", Health.WARN, f"{shown}: permission denied", _AS_ROOT)
    elif cause:
        yield Check("milter", Health.FAIL, f"the milter doesn't listen on {shown}: {cause}", start)
    else:
        yield Check("milter", Health.OK, f"the milter listens on {shown}")


def _lookup(config: Config) -> Iterator[Check]:
    try:
        # No evidence has this name, so nothing is fetched.
        LookupClient(config.lookup_socket).refresh(["postseal-doctor"], 2.0)
    except Unavailable as exc:
        if "only root" not in str(exc) and config.lookup.fetch:
            yield Check("lookup", Health.FAIL, str(exc), "systemctl start postseal-lookup")
            return
    if config.lookup.fetch:
        yield Check("lookup", Health.OK, f"postseal lookup answers on {config.lookup_socket}")
    else:
        yield Check("lookup", Health.OK, "nothing is fetched ([lookup] fetch = false)")
        yield from _imports(config)


def _imports(config: Config) -> Iterator[Check]:
    """What a node that fetches nothing lives on: bundles whose signers are known, and CRLs that haven't ended."""
    at = SystemClock().now()
    problems: list[str] = []
    signers = build_bundle_signers(config, problems.append)
    for problem in problems:
        yield Check("bundle_signers", Health.WARN, problem, "replace or remove the file")
    for signer in signers:
        if signer.not_after < at + _SOON:
            text = f"the certificate of the bundle signer {one_line(signer.name, 100)} ends {signer.not_after:%Y-%m-%d}"
            yield Check("bundle_signers", Health.WARN, text, "postseal evidence export-key on the other node")
    store = EvidenceStore(config.evidence_directory, readonly=True)
    crls = [e for e in store.entries() if e.kind == "crl" and e.next_update] if store.exists() else []
    ended = [e for e in crls if e.next_update and e.next_update < at]
    if ended or not crls:
        text = f"{len(ended)} of {len(crls)} imported CRLs have ended" if crls else "no CRL was imported yet"
        yield Check("imports", Health.WARN, text, "postseal evidence import")
    else:
        yield Check("imports", Health.OK, f"imported CRLs: {len(crls)}, signers of bundles: {len(signers)}")


def _metrics(config: Config) -> Iterator[Check]:
    listen = config.metrics.listen
    if listen is None:
        yield Check("metrics", Health.OK, "nothing is counted ([metrics] listen is empty)")
        return
    cause = connects((listen.host, listen.port))
    if cause:
        text = f"nobody serves metrics on {listen.host}:{listen.port}: {cause}"
        yield Check("metrics", Health.WARN, text, "systemctl enable --now postseal-metrics")
    else:
        yield Check("metrics", Health.OK, f"metrics are served on {listen.host}:{listen.port}")


def _stores(config: Config) -> Iterator[Check]:
    try:
        store = EvidenceStore(config.evidence_directory, readonly=True)
        yield Check("evidence", Health.OK, f"the evidence store holds {len(store.entries())} CRLs and OCSP answers")
        clock = store.clock_state()
        if clock is not None and clock.suspect:
            text = f"the clock went back: it showed {clock.latest:%Y-%m-%d %H:%M} UTC before"
            yield Check("evidence", Health.WARN, text, "timedatectl; certificates and CRLs are judged by the new time")
    except PostsealError as exc:
        yield Check("evidence", Health.FAIL, str(exc), "systemctl restart postseal-lookup")
    if not config.decisions.keep:
        yield Check("decisions", Health.OK, "decisions aren't recorded ([decisions] keep = 0)")
    elif not config.decision_store.exists():
        yield Check("decisions", Health.OK, "no decision was recorded yet")
    else:
        try:
            newest = DecisionStore(config.decision_store, readonly=True).find(limit=1)
            yield Check(
                "decisions",
                Health.OK,
                f"the newest decision is of {newest[0].at:%Y-%m-%d %H:%M} UTC" if newest else "no decisions",
            )
        except PostsealError as exc:
            yield Check(
                "decisions", Health.FAIL, str(exc), f"mv {config.decision_store} {config.decision_store}.damaged"
            )


def _postfix(config: Config, directory: str) -> Iterator[Check]:
    try:
        facts = read_postfix(directory)
    except Unavailable as exc:
        yield Check(
            "postfix", Health.FAIL if directory else Health.WARN, str(exc), "postseal doctor --postfix-config DIR"
        )
        return
    place, reinject = config.milter.socket, config.milter.reinject
    if isinstance(place, UnixSocket) and place.path.exists():
        user = facts.main.get("mail_owner") or "postfix"
        cause = may_write(user, place.path)
        advice = 'write [milter] socket_group = "postfix" in postseal.toml, then: systemctl restart postseal-milter'
        if cause:
            yield Check("milter socket", Health.FAIL, f"Postfix can't reach {place.path}: {cause}", advice)
        else:
            yield Check("milter socket", Health.OK, f"user {user} may use {place.path}")
    yield from postfix_checks(
        facts,
        unix=str(place.path) if isinstance(place, UnixSocket) else "",
        host=place.host if isinstance(place, InetSocket) else "",
        port=place.port if isinstance(place, InetSocket) else 0,
        reinject=(reinject.host, reinject.port) if reinject else None,
        size_limit=config.milter.message_size_limit,
    )
    if reinject and connects((reinject.host, reinject.port)):
        text = f"nothing listens on {reinject.host}:{reinject.port}, where second copies go"
        yield Check("reinject", Health.FAIL, text, "postfix reload")
