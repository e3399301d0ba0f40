"""CERT-17: certificate policies by RFC 5280 §6.1 with the graph of RFC 9618."""

from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.der import SEQUENCE, oid_content, tlv
from postseal.core.path import Anchor, AnchorSettings, Path, PathFault, PathSettings, build_path
from postseal.core.policies import ANY_POLICY, Policies, PolicyFacts, PolicyFault, PolicyInputs, evaluate, valid_oid
from support.pki import Authority, Leaf, authority

ROOT = authority("Root")
A, B, C = "1.2.3.1", "1.2.3.2", "1.2.3.3"


def says(*policies: str, mappings: tuple[tuple[str, str], ...] = (), self_issued: bool = False, **limits: int) -> Any:
    return PolicyFacts(frozenset(policies) if policies else None, mappings, **limits), self_issued


def found(*steps: Any, initial: tuple[str, ...] = (ANY_POLICY,), **inputs: bool) -> set[str] | str:
    """The user-constrained set, or why the path fails."""
    result = evaluate(steps, PolicyInputs(frozenset(initial), **inputs))
    return set(result.user) if isinstance(result, Policies) else "fails"


CASES: dict[str, tuple[set[str] | str, set[str] | str]] = {
    "one policy all the way": (found(says(A), says(A)), {A}),
    "no policy in common": (found(says(A), says(B)), set()),
    "no policy in common, one required": (found(says(A), says(B), explicit=True), "fails"),
    "no extension in the leaf": (found(says(A), says()), set()),
    "no extension in a CA": (found(says(), says(A)), set()),
    "no extension, one required": (found(says(), says(A), explicit=True), "fails"),
    "anyPolicy of the CA": (found(says(ANY_POLICY), says(A)), {A}),
    "anyPolicy of the leaf": (found(says(A, B), says(ANY_POLICY)), {A, B}),
    "anyPolicy everywhere": (found(says(ANY_POLICY), says(ANY_POLICY)), {ANY_POLICY}),
    "anyPolicy everywhere, asked for A": (found(says(ANY_POLICY), says(ANY_POLICY), initial=(A,)), {A}),
    "asked for another": (found(says(A), says(A), initial=(B,)), set()),
    "asked for another, required": (found(says(A), says(A), initial=(B,), explicit=True), "fails"),
    "anyPolicy inhibited": (found(says(ANY_POLICY), says(A), inhibit_any=True, explicit=True), "fails"),
    "inhibitAnyPolicy 0": (found(says(A, inhibit_any=0), says(ANY_POLICY), explicit=True), "fails"),
    "inhibitAnyPolicy 1": (found(says(A, inhibit_any=1), says(ANY_POLICY), explicit=True), {A}),
    "anyPolicy in self-issued": (
        found(says(A, inhibit_any=0), says(ANY_POLICY, self_issued=True), says(A), explicit=True),
        {A},
    ),
    "self-issued doesn't count": (
        found(says(A, inhibit_any=1), says(A, self_issued=True), says(ANY_POLICY), explicit=True),
        {A},
    ),
    "requireExplicitPolicy 0": (found(says(A, require_explicit=0), says(B)), "fails"),
    "requireExplicitPolicy 1": (found(says(A, require_explicit=1), says(B)), "fails"),
    "requireExplicitPolicy 2": (found(says(A, require_explicit=2), says(B)), set()),
    "requireExplicitPolicy 0 of the leaf": (found(says(A), says(B, require_explicit=0)), "fails"),
    "requireExplicitPolicy 1 of the leaf": (found(says(A), says(B, require_explicit=1)), set()),
    "mapped": (found(says(A, mappings=((A, B),)), says(B)), {A}),
    "mapped, the old name": (found(says(A, mappings=((A, B),)), says(A)), set()),
    "mapped to two": (found(says(A, mappings=((A, B), (A, C))), says(C)), {A}),
    "two mapped to one": (found(says(A, B, mappings=((A, C), (B, C))), says(C)), {A, B}),
    "mapped from anyPolicy": (found(says(ANY_POLICY, mappings=((A, B),)), says(B)), {A}),
    "mapping inhibited": (found(says(A, mappings=((A, B),)), says(B), inhibit_mapping=True), set()),
    "inhibitPolicyMapping 0 below": (
        found(says(A, inhibit_mapping=0), says(A, mappings=((A, B),)), says(B), explicit=True),
        "fails",
    ),
    "mapping anyPolicy": (found(says(A, mappings=((ANY_POLICY, B),)), says(B)), "fails"),
    "mapping to anyPolicy": (found(says(A, mappings=((A, ANY_POLICY),)), says(B)), "fails"),
    "mapping of the last is nobody's business": (found(says(A), says(A, mappings=((ANY_POLICY, B),))), {A}),
}


@pytest.mark.parametrize("title", CASES)
def test_rules(title: str) -> None:
    """RFC 5280 §6.1.3 (d) to (f), §6.1.4 (a), (b), (h) to (j), §6.1.5 (a), (b), (g)."""
    got, expected = CASES[title]
    assert got == expected


def test_the_graph_is_no_tree() -> None:
    """CERT-17, PRE-6: CVE-2023-0464: with a tree this has more nodes than memory holds (16 to the power of 40)."""
    names = tuple(f"1.2.3.{n}" for n in range(16))
    all_to_all = tuple((a, b) for a in names for b in names)
    steps = [says(*names, mappings=all_to_all) for _ in range(40)]
    assert found(*steps, says(*names), explicit=True) == set(names)
    assert found(*steps, says("1.9"), explicit=True) == "fails"
    assert found(*steps, says(ANY_POLICY), initial=(names[3],), explicit=True) == {names[3]}


def test_anypolicy_times_mappings_is_linear_too() -> None:
    """CERT-17: anyPolicy repeats what is expected, each once."""
    names = tuple(f"1.2.3.{n}" for n in range(500))
    steps = [says(ANY_POLICY, mappings=tuple(pairwise(names))) for _ in range(40)]
    assert found(*steps, says(names[-1])) == set(names[-41:-1])


_POLICIES = st.sampled_from([A, B, C, ANY_POLICY])
_FACTS = st.builds(
    PolicyFacts,
    st.none() | st.frozensets(_POLICIES, min_size=1),
    st.lists(st.tuples(_POLICIES, _POLICIES), max_size=3).map(tuple),
    *[st.none() | st.integers(0, 3)] * 3,
)


@given(st.lists(st.tuples(_FACTS, st.booleans()), min_size=1, max_size=5), st.frozensets(_POLICIES, min_size=1))
def test_asking_for_more_never_helps(steps: list[tuple[PolicyFacts, bool]], initial: frozenset[str]) -> None:
    """Whatever the CAs say: what is valid when a policy is required is valid when none is, with the same policies."""
    strict = evaluate(steps, PolicyInputs(initial, explicit=True))
    lax = evaluate(steps, PolicyInputs(initial))
    if isinstance(strict, Policies):
        assert lax == strict
        assert strict.user
        assert strict.user <= initial or ANY_POLICY in initial
        assert strict.permits(initial) or ANY_POLICY in initial
    if isinstance(lax, PolicyFault):
        assert isinstance(strict, PolicyFault)
        assert 0 <= lax.index < len(steps)


# --- in certificates --------------------------------------------------------------------------------------------------


def policies(*oids: str) -> tuple[x509.ExtensionType, bool]:
    return x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids]), False


def mappings(*pairs: tuple[str, str], der: bytes | None = None) -> tuple[x509.ExtensionType, bool]:
    body = tlv(SEQUENCE, *(tlv(SEQUENCE, *(tlv(6, oid_content(oid)) for oid in pair)) for pair in pairs))
    return x509.UnrecognizedExtension(ExtensionOID.POLICY_MAPPINGS, body if der is None else der), True


def path(leaf: Leaf, *others: Leaf, required: frozenset[str] = frozenset(), **inputs: Any) -> Path | PathFault:
    anchor = Anchor(ROOT.certificate, "", AnchorSettings(required_policies=required))
    pool = tuple(other.certificate for other in others)
    return build_path(leaf.certificate, (anchor,), pool, PathSettings(policies=PolicyInputs(**inputs)), ROOT_TIME)


ROOT_TIME = ROOT.certificate.not_before + (ROOT.certificate.not_after - ROOT.certificate.not_before) / 8


def mapped() -> tuple[Authority, Leaf]:
    ca = ROOT.sub("Mapping", extra=[policies(A), mappings((A, B))])
    return ca, ca.issue("a@b.test", extra=[policies(B)], not_before=ca.certificate.not_before)


def test_a_mapping_in_a_path() -> None:
    ca, leaf = mapped()
    valid = path(leaf, ca, initial=frozenset({A}), explicit=True)
    assert isinstance(valid, Path)
    assert valid.policies == Policies(frozenset({A}), frozenset({A}))
    assert isinstance(path(leaf, ca, required=frozenset({A})), Path)
    for refused in (path(leaf, ca, required=frozenset({B})), path(leaf, ca, explicit=True, inhibit_mapping=True)):
        assert isinstance(refused, PathFault)
        assert refused.code == "path.policy"
        assert refused.certificate == leaf.certificate


def test_an_anchor_and_the_caller_both_narrow() -> None:
    """What both permit is permitted."""
    ca = ROOT.sub("Three", extra=[policies(A, B, C)])
    leaf = ca.issue("a@b.test", extra=[policies(A, B)], not_before=ca.certificate.not_before)
    assert isinstance(path(leaf, ca, required=frozenset({A, C}), initial=frozenset({A})), Path)
    assert isinstance(path(leaf, ca, required=frozenset({C}), initial=frozenset({A})), PathFault)


@pytest.mark.parametrize("der", [b"\x30\x00", b"\x30\x02\x30\x00", b"\x05\x00", b""])
def test_broken_mappings_refuse_the_certificate(der: bytes) -> None:
    ca = ROOT.sub("Broken mapping", extra=[mappings(der=der)])
    refused = path(ca.issue("a@b.test", not_before=ca.certificate.not_before), ca)
    assert isinstance(refused, PathFault)
    assert refused.code == "path.bad-extension"


def test_another_path_with_the_policy_is_found() -> None:
    first = ROOT.sub("Twice", extra=[policies(B)])
    second = ROOT.sub("Twice", extra=[policies(A)])
    leaf = second.issue("a@b.test", extra=[policies(A)], not_before=first.certificate.not_before)
    good = path(leaf, first, second, required=frozenset({A}))
    assert isinstance(good, Path)
    assert good.certificates[1] == second.certificate


OIDS = {"2.5.29.32.0": True, "1.39.1": True, "2.999.1": True}
NO_OIDS = ("1.40", "2", "", "1.2.", "3.1", "1.2.\u0663", "1.02", "1.2." + "9" * 40)


@pytest.mark.parametrize(("text", "valid"), [*OIDS.items(), *((text, False) for text in NO_OIDS)])
def test_object_identifiers(text: str, valid: bool) -> None:
    assert valid_oid(text) == valid
