"""Over all rules and capabilities: total, never below the floor, never GCM or OAEP without a reason (ALG-1 to ALG-4)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core.capabilities import Capability, oaep_capability, suites, transports, weak_only
from postseal.core.certs import Certificate
from postseal.core.ciphers import (
    Choice,
    CipherRule,
    NoFit,
    Pack,
    Remembered,
    WeakOnly,
    at_least,
    choose,
    known_of,
    rank,
)
from postseal.core.cms.structures import FOREIGN_CIPHERS, SUITE_OID
from postseal.core.suite import KeyTransport, Suite
from support.facts import ALICE, ALICE_EC
from support.pki import NOW

one = st.one_of(
    st.sampled_from([Capability(oid.dotted_string) for oid in (*SUITE_OID.values(), *FOREIGN_CIPHERS)]),
    st.sampled_from(["sha1", "sha256", "sha384", "sha512"]).map(oaep_capability),
    st.builds(Capability, st.sampled_from(["1.2.3", "1.2.840.113549.1.1.7"]), st.binary(max_size=9)),
)
lists = st.lists(one, max_size=6).map(tuple)
rules = st.builds(
    CipherRule, st.sampled_from(Pack), st.none() | st.sampled_from(Suite), st.sampled_from(Suite), st.sampled_from(Suite),
    st.none() | st.sampled_from(KeyTransport), st.sampled_from(WeakOnly),
)  # fmt: skip
memories = st.none() | st.builds(
    Remembered,
    lists,
    st.just(NOW),
    st.just("ab" * 32),
    st.just(NOW),
    st.frozensets(st.sampled_from(Suite)),
    st.booleans(),
)


@settings(max_examples=3000, deadline=None)
@given(rules, st.sampled_from([ALICE, ALICE_EC]), memories)
def test_whatever_is_known(rule: CipherRule, own: Certificate, remembered: Remembered | None) -> None:
    """Also for rules that contradict themselves, which the configuration refuses."""
    known = known_of(own, remembered)
    found = choose(rule, own, known)
    assert found == choose(rule, own, known)
    listed = suites(known.capabilities)
    if isinstance(found, NoFit):
        assert found.code.startswith("cipher.")
        assert rule.contradiction() or rule.unasked is None or weak_only(known.capabilities)
        return
    assert isinstance(found, Choice)
    assert found.suite in rule.allowed
    assert at_least(found.suite, rule.floor)
    assert at_least(rule.ceiling, found.suite)
    assert found.suite is found.others[0]
    named = rule.suite is found.suite or (rule.suite is None and rule.terms.suite is found.suite)
    assert not found.suite.gcm or found.suite in listed or named
    if rule.unasked is not None and not weak_only(known.capabilities):
        assert rank(found.suite) >= rank(rule.unasked), "what is listed never lowers"
    if found.transport not in (None, KeyTransport.PKCS1):
        assert (
            rule.transport is found.transport
            or rule.terms.oaep_only
            or found.transport in transports(known.capabilities)
        )
    if rule.terms.oaep_only and not rule.contradiction() and own is ALICE:
        assert found.transport is not KeyTransport.PKCS1


@given(rules, memories)
def test_more_is_never_less(rule: CipherRule, remembered: Remembered | None) -> None:
    """Who lists one more cipher gets at least as much as before."""
    if remembered is None:
        return
    before = choose(rule, ALICE, known_of(ALICE, remembered))
    more = Remembered((*remembered.capabilities, Capability(SUITE_OID[Suite.AES_256_GCM].dotted_string)), NOW, "", NOW)
    after = choose(rule, ALICE, known_of(ALICE, more))
    if isinstance(before, Choice) and isinstance(after, Choice):
        assert rank(after.suite) >= rank(before.suite)
