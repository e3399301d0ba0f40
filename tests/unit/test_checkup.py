"""The judgements of ``postseal doctor`` that need no machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postseal.core.checkup import Check, Health, PostfixFacts, milters, openssl_check, postfix_checks, same_socket

SOCKET = "/var/spool/postfix/postseal/milter.sock"
GOOD = PostfixFacts(
    {
        "smtpd_milters": "inet:127.0.0.1:8891, unix:postseal/milter.sock", "non_smtpd_milters": "unix:postseal/milter.sock",
        "milter_default_action": "tempfail", "message_size_limit": "50000000", "queue_directory": "/var/spool/postfix",
    },
    (("smtp", "inet", "smtpd"), ("127.0.0.1:10026", "inet", "smtpd -o smtpd_milters="), ("pickup", "unix", "pickup")),
    {"127.0.0.1:10026/inet/smtpd_milters": ""},
)  # fmt: skip


def judged(
    facts: PostfixFacts, size_limit: int = 50000000, reinject: tuple[str, int] | None = ("127.0.0.1", 10026)
) -> list[Check]:
    return list(postfix_checks(facts, unix=SOCKET, host="", port=0, reinject=reinject, size_limit=size_limit))


def bad(facts: PostfixFacts, **more: object) -> list[tuple[str, str]]:
    return [(c.name, c.health.value) for c in judged(facts, **more) if c.health is not Health.OK]  # type: ignore[arg-type]


def with_main(**changes: str) -> PostfixFacts:
    return replace(GOOD, main={**GOOD.main, **changes})


def test_the_settings_of_the_manual_pass() -> None:
    assert bad(GOOD) == []
    assert all(check.advice for check in judged(PostfixFacts({}, (), {})) if check.health is Health.FAIL)


@pytest.mark.parametrize("action", ["accept", "reject", "quarantine", "discard", ""])
def test_only_tempfail_is_safe(action: str) -> None:
    """With accept, mail leaves in clear when the milter is away and is lost when it dies half-way (P10)."""
    assert bad(with_main(milter_default_action=action)) == [("milter_default_action", "FAIL")]
    own = f"{{ unix:postseal/milter.sock, connect_timeout=10s, default_action={action or 'accept'} }}"
    assert bad(with_main(smtpd_milters=own)) == [("smtpd_milters", "FAIL")]


def test_postfix_must_ask_us_for_both_ways_in() -> None:
    assert bad(with_main(smtpd_milters="")) == [("smtpd_milters", "FAIL")]
    assert bad(with_main(non_smtpd_milters="unix:other.sock")) == [("non_smtpd_milters", "FAIL")]


def test_a_socket_that_a_chroot_hides() -> None:
    """Debian runs smtpd and cleanup in a chroot, from where only sockets below the queue directory can be reached."""
    caged = replace(GOOD, chrooted=frozenset({"smtpd", "cleanup", "qmgr"}))
    assert bad(caged) == []
    found = list(postfix_checks(caged, unix="/run/postseal/milter.sock", host="", port=0, reinject=None, size_limit=0))
    assert [(c.name, c.health) for c in found] == [("milter socket", Health.FAIL)]
    assert "cleanup and smtpd run in a chroot at /var/spool/postfix" in found[0].text
    assert "unix:/var/spool/postfix/postseal/milter.sock" in found[0].advice


def test_the_reinject_listener() -> None:
    """It must exist, be smtpd, and ask no milter."""
    assert bad(replace(GOOD, services=GOOD.services[:1])) == [("reinject", "FAIL")]
    assert bad(replace(GOOD, overrides={})) == [("reinject", "FAIL")]
    with_milter = {"127.0.0.1:10026/inet/smtpd_milters": "unix:postseal/milter.sock"}
    assert bad(replace(GOOD, overrides=with_milter)) == [("reinject", "FAIL")]
    other = (("10026", "inet", "qmqpd"),)
    assert bad(replace(GOOD, services=other)) == [("reinject", "FAIL")]
    assert bad(GOOD, reinject=None) == [("reinject", "warn"), ("master.cf 127.0.0.1:10026", "warn")]


def test_other_listeners_without_the_milter_are_named() -> None:
    services = (*GOOD.services, ("submission", "inet", "smtpd -o smtpd_milters=inet:localhost:11332"))
    overrides = {**GOOD.overrides, "submission/inet/smtpd_milters": "inet:localhost:11332"}
    facts = replace(GOOD, services=services, overrides=overrides)
    assert bad(facts) == [("master.cf submission", "warn")]


@pytest.mark.parametrize(("theirs", "ours", "warns"), [("50000000", 0, True), ("50000000", 60000000, True), ("0", 0, False),
                                                       ("50000000", 40000000, False)])  # fmt: skip
def test_the_size_after_sealing_counts(theirs: str, ours: int, warns: bool) -> None:
    """Postfix refuses for good what grows over its limit (P21)."""
    found = bad(with_main(message_size_limit=theirs), size_limit=ours)
    assert found == ([("message_size_limit", "warn")] if warns else [])


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("unix:postseal/milter.sock", True), ("unix:/postseal/milter.sock", True), (f"unix:{SOCKET}", True),
        (f"local:{SOCKET}", True), ("unix:milter.sock", False), (f"inet:{SOCKET}", False),
    ],
)  # fmt: skip
def test_unix_sockets_inside_and_outside_of_a_chroot(address: str, same: bool) -> None:
    assert same_socket(address, SOCKET, "", 0, "/var/spool/postfix") is same


@pytest.mark.parametrize(
    ("address", "same"),
    [("inet:127.0.0.1:8891", True), ("inet:localhost:8891", True), ("inet:[::1]:8891", True), ("inet:127.0.0.1:8892", False),
     ("inet:192.0.2.1:8891", False), ("unix:8891", False)],
)  # fmt: skip
def test_tcp_sockets(address: str, same: bool) -> None:
    assert same_socket(address, "", "127.0.0.1", 8891, "/q") is same


def test_lists_of_milters() -> None:
    assert milters("") == ()
    assert milters("inet:a:1,unix:b") == (("inet:a:1", {}), ("unix:b", {}))
    assert milters("{ inet:a:1, default_action = accept , x=y } unix:b") == (
        ("inet:a:1", {"default_action": "accept", "x": "y"}), ("unix:b", {}))  # fmt: skip


@pytest.mark.parametrize(
    ("version", "health"),
    [
        ("OpenSSL 4.0.1 9 Jun 2026", Health.OK), ("OpenSSL 4.0.0 1 Apr 2026", Health.FAIL),
        ("OpenSSL 3.5.7 9 Jun 2026", Health.OK), ("OpenSSL 3.5.6 1 Jan 2026", Health.FAIL),
        ("OpenSSL 3.0.21 9 Jun 2026", Health.OK), ("OpenSSL 3.3.9 1 Jan 2026", Health.FAIL),
        ("OpenSSL 1.1.1w 11 Sep 2023", Health.FAIL), ("OpenSSL 4.1.0 1 Oct 2026", Health.OK),
        ("OpenSSL 5.0.0 2028", Health.OK), ("LibreSSL 4.0.0", Health.WARN),
        ("BoringSSL", Health.WARN),
    ],
)  # fmt: skip
def test_the_floor_of_openssl(version: str, health: Health) -> None:
    """Per series: releases before it have holes in CMS, CRLs or OCSP."""
    assert openssl_check(version).health is health
