"""What ``postseal doctor`` finds, and the judgements in it that need no look at the machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, and what to type when it isn't right."""

    name: str
    health: Health
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class PostfixFacts:
    """``main`` has the values of main.cf with ``$name`` expanded, ``services`` the entries of master.cf as
    ``(service, type, command)``, ``overrides`` the ``-o`` options as ``service/type/parameter`` -> value, ``chrooted`` the
    programs that run below the queue directory."""

    main: Mapping[str, str]
    services: Sequence[tuple[str, str, str]]
    overrides: Mapping[str, str]
    chrooted: frozenset[str] = frozenset()


# The releases that repair CVE-2025-15467, CVE-2026-28388 to 28390, 34182, 35188 and 45447 (CMS and OCSP), per series.
_OPENSSL_FLOORS = ((4, 0, 1), (3, 6, 3), (3, 5, 7), (3, 4, 6), (3, 0, 21))


def openssl_check(version_text: str) -> Check:
    """Is the OpenSSL inside the cryptography package new enough for hostile CMS, CRLs and OCSP answers?"""
    advice = "pip install --upgrade cryptography"
    match = re.search(r"\b(\d+)\.(\d+)\.(\d+)", version_text)
    if "OpenSSL" not in version_text or match is None:
        return Check(
            "openssl", Health.WARN, f"cryptography uses {version_text}, about which nothing is known here", advice
        )
    version = (int(match[1]), int(match[2]), int(match[3]))
    floor = next((f for f in _OPENSSL_FLOORS if f[:2] == version[:2]), None)
    if floor is None and version > _OPENSSL_FLOORS[0]:
        floor = version
    if floor is None or version < floor:
        needed = ".".join(map(str, floor or _OPENSSL_FLOORS[-1]))
        text = f"cryptography uses {match[0]}, which has known holes in CMS and OCSP; {needed} or later is needed"
        return Check("openssl", Health.FAIL, text, advice)
    return Check("openssl", Health.OK, f"cryptography uses OpenSSL {match[0]}")


def milters(value: str) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """The entries of ``smtpd_milters``: address and its own options (postconf(5): ``{ inet:h:p, default_action=accept }``)."""
    out = []
    for grouped, bare in re.findall(r"\{([^}]*)\}|([^\s,{}]+)", value):
        words = [w for w in re.split(r"[\s,]+", re.sub(r"\s*=\s*", "=", grouped or bare)) if w]
        options = dict(w.split("=", 1) for w in words[1:] if "=" in w)
        if words:
            out.append((words[0], options))
    return tuple(out)


def same_socket(address: str, unix: str, host: str, port: int, queue: str) -> bool:
    """Does Postfix's ``address`` reach our socket: the one at path ``unix``, else ``host`` and ``port``?"""
    scheme, _, rest = address.partition(":")
    if unix:
        # postconf(5) smtpd_milters: in a chroot an absolute path is relative to the queue directory too.
        places = {f"{queue}/{rest.lstrip('/')}"} | ({rest} if rest.startswith("/") else set())
        return scheme in ("unix", "local") and unix in {re.sub(r"/+", "/", place) for place in places}
    their_host, _, their_port = rest.rpartition(":")
    return scheme == "inet" and their_port == str(port) and _host(their_host) == _host(host)


def _host(text: str) -> str:
    bare = text.strip("[]").lower()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return "loopback" if bare in ("localhost", "") else bare
    return "loopback" if address.is_loopback else str(address)


def postfix_checks(
    facts: PostfixFacts, *, unix: str, host: str, port: int, reinject: tuple[str, int] | None, size_limit: int
) -> Iterator[Check]:
    """Does Postfix ask us, does it fail safe, and is there the listener for second copies?"""
    queue = facts.main.get("queue_directory", "/var/spool/postfix")
    ours = f"unix:{unix.removeprefix(queue + '/')}" if unix else f"inet:{host}:{port}"
    caged = sorted(facts.chrooted & {"smtpd", "cleanup"})
    if unix and caged and not unix.startswith(f"{queue}/"):
        yield Check(
            "milter socket", Health.FAIL,
            f"{' and '.join(caged)} run in a chroot at {queue} (master.cf), from where {unix} can't be reached",
            f'write [milter] socket = "unix:{queue}/postseal/milter.sock" in postseal.toml and name unix:postseal/milter.sock'
            " in main.cf",
        )  # fmt: skip
        return
    for name, whose in (
        ("smtpd_milters", "mail that comes by SMTP"),
        ("non_smtpd_milters", "mail from local programs"),
    ):
        mine = [o for a, o in milters(facts.main.get(name, "")) if same_socket(a, unix, host, port, queue)]
        if not mine:
            yield Check(
                name, Health.FAIL, f"{whose} isn't sealed: {name} doesn't name {ours}", f"postconf -e '{name} = {ours}'"
            )
            continue
        own = mine[0].get("default_action", "tempfail")
        if own != "tempfail":
            text = f"{name} says default_action={own} for {ours}; only tempfail is safe"
            yield Check(name, Health.FAIL, text, f"postconf -e '{name} = {ours}'")
        else:
            yield Check(name, Health.OK, f"{name} names {ours}")
    yield _default_action(facts.main.get("milter_default_action", ""))
    yield _size(facts.main.get("message_size_limit", ""), size_limit)
    yield _reinject(facts, reinject)
    yield from _bypassed(facts, reinject, lambda a: same_socket(a, unix, host, port, queue))


def _default_action(value: str) -> Check:
    name = "milter_default_action"
    if value == "tempfail":
        return Check(name, Health.OK, f"{name} is tempfail")
    text = f"{name} is {value or 'not set'}: mail leaves in clear while the milter is down, or is lost when it dies half-way"
    return Check(name, Health.FAIL, text, f"postconf -e '{name} = tempfail'")


def _size(value: str, ours: int) -> Check:
    name = "message_size_limit"
    theirs = int(value) if value.isdecimal() else 0
    if theirs and (ours == 0 or ours > theirs):
        text = (
            f"Postfix refuses what is larger than {theirs} octets after sealing, so plain mail above about "
            f"{theirs * 10 // 14} octets, with a permanent error that doesn't say why"
        )
        return Check(name, Health.WARN, text, f"write [milter] message_size_limit = {theirs} in postseal.toml")
    return Check(name, Health.OK, f"the size limits fit: Postfix {theirs or 'none'}, postseal {ours or 'none'}")


def _is_listener(service: str, kind: str, host: str, port: int) -> bool:
    their_host, _, their_port = service.rpartition(":")
    return kind == "inet" and their_port == str(port) and (not their_host or _host(their_host) == _host(host))


def _reinject(facts: PostfixFacts, reinject: tuple[str, int] | None) -> Check:
    name = "reinject"
    if reinject is None:
        text = "[milter] reinject is empty: a message to recipients with several outcomes is deferred"
        return Check(name, Health.WARN, text, "add the listener of packaging/postfix/master.cf and name it there")
    host, port = reinject
    found = [(s, k, c) for s, k, c in facts.services if _is_listener(s, k, host, port)]
    if not found:
        text = f"master.cf has no listener {host}:{port} for second copies"
        return Check(name, Health.FAIL, text, "add the lines of packaging/postfix/master.cf, then: postfix reload")
    service, kind, command = found[0]
    if not command.split() or command.split()[0] != "smtpd":
        return Check(name, Health.FAIL, f"{service} in master.cf isn't smtpd", "see packaging/postfix/master.cf")
    if facts.overrides.get(f"{service}/{kind}/smtpd_milters") != "":
        text = f"the listener {service} asks milters itself: a copy in clear would be refused or go round in circles"
        return Check(name, Health.FAIL, text, f"postconf -P '{service}/{kind}/smtpd_milters=' && postfix reload")
    return Check(name, Health.OK, f"the listener {service} has no milter")


def _bypassed(facts: PostfixFacts, reinject: tuple[str, int] | None, is_ours: Callable[[str], bool]) -> Iterator[Check]:
    """Other listeners whose mail isn't sealed because they have milters of their own, or none."""
    for service, kind, command in facts.services:
        value = facts.overrides.get(f"{service}/{kind}/smtpd_milters")
        if value is None or not command.startswith("smtpd") or (reinject and _is_listener(service, kind, *reinject)):
            continue
        if not any(is_ours(address) for address, _ in milters(value)):
            text = f"mail that comes by {service} isn't sealed: it has smtpd_milters of its own without postseal"
            yield Check(f"master.cf {service}", Health.WARN, text, f"postconf -PX '{service}/{kind}/smtpd_milters'")
