"""Certificate policies of a path: RFC 5280 §6.1 with the policy graph of RFC 9618 in place of the tree.

The graph has one node per policy and depth, so work grows with the sizes of the extensions and not with their product
(CERT-17, PRE-6). A level of the graph that is empty empties everything below it, so nodes without children needn't be cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from postseal.core.der import BadDer, Cursor

ANY_POLICY = "2.5.29.32.0"
_ANY = frozenset({ANY_POLICY})
_MAX_MAPPINGS = 512


@dataclass(frozen=True, slots=True, eq=False)
class PolicyFacts:
    """What one certificate says about policies. ``policies`` is None without the extension; limits are None when absent."""

    policies: frozenset[str] | None = None
    mappings: tuple[tuple[str, str], ...] = ()
    require_explicit: int | None = None
    inhibit_mapping: int | None = None
    inhibit_any: int | None = None


NO_POLICIES = PolicyFacts()


_OID = re.compile(r"[012](?:\.(?:0|[1-9][0-9]{0,38})){1,64}")


def valid_oid(text: str) -> bool:
    """Is the text an object identifier in dotted decimal (X.660: below 0 and 1 there are forty arcs)?"""
    first, _, rest = text.partition(".")
    return bool(_OID.fullmatch(text)) and (first == "2" or int(rest.partition(".")[0]) < 40)


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """The inputs of RFC 5280 §6.1.1 (c), (e), (f), (g)."""

    initial: frozenset[str] = _ANY
    explicit: bool = False
    inhibit_mapping: bool = False
    inhibit_any: bool = False


ANY_INPUTS = PolicyInputs()


@dataclass(frozen=True, slots=True)
class Policies:
    """The outcome of RFC 5280 §6.1.6: under which policies of the anchor's domain a path is valid.

    ``authority`` is what the CAs say, ``user`` what of it the caller asked for. ``anyPolicy`` in a set stands for all.
    """

    authority: frozenset[str] = frozenset()
    user: frozenset[str] = frozenset()

    def permits(self, required: frozenset[str]) -> bool:
        """Is the path valid under one of these policies? Without any required every path is."""
        return not required or ANY_POLICY in self.authority or not required.isdisjoint(self.authority)


NO_OUTCOME = Policies()


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """The path isn't valid under a policy that is needed; ``index`` counts certificates from the anchor, first is 0."""

    index: int
    detail: str


def parse_policies(extensions: x509.Extensions) -> PolicyFacts:
    """The facts of one certificate. Raises BadDer."""
    policies = _value(extensions, x509.CertificatePolicies)
    constraints = _value(extensions, x509.PolicyConstraints)
    inhibit = _value(extensions, x509.InhibitAnyPolicy)
    mappings = next((e.value for e in extensions if e.oid == ExtensionOID.POLICY_MAPPINGS), None)
    if policies is None and constraints is None and inhibit is None and mappings is None:
        return NO_POLICIES
    return PolicyFacts(
        policies=None if policies is None else frozenset(p.policy_identifier.dotted_string for p in policies),
        mappings=() if mappings is None else _mappings(mappings.public_bytes()),
        require_explicit=None if constraints is None else constraints.require_explicit_policy,
        inhibit_mapping=None if constraints is None else constraints.inhibit_policy_mapping,
        inhibit_any=None if inhibit is None else inhibit.skip_certs,
    )


_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def _value(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _mappings(der: bytes) -> tuple[tuple[str, str], ...]:
    """RFC 5280 §4.2.1.5: SEQUENCE OF SEQUENCE { issuerDomainPolicy, subjectDomainPolicy }."""
    outer = Cursor(der)
    pairs = outer.enter()
    outer.finish()
    found = []
    for element in pairs.children(limit=_MAX_MAPPINGS):
        pair = pairs.inside(element)
        found.append((pair.oid(), pair.oid()))
        pair.finish()
    if not found:
        raise BadDer("policyMappings is empty")
    return tuple(found)


@dataclass(slots=True, eq=False)
class _Node:
    """One policy at one depth. ``parents`` are nodes of the depth above; ``expected`` what the next certificate may say."""

    policy: str
    parents: tuple[_Node, ...] = ()
    expected: tuple[str, ...] = field(default=())


_Level = dict[str, _Node]


def evaluate(steps: Sequence[tuple[PolicyFacts, bool]], inputs: PolicyInputs) -> Policies | PolicyFault:
    """The policies of a path. ``steps`` are (facts, is self-issued) of its certificates, the one below the anchor first."""
    last = len(steps)
    # RFC 5280 §6.1.2 (d), (e), (f); RFC 9618 §5.2 (a): one node for anyPolicy.
    explicit = 0 if inputs.explicit else last + 1
    mapping = 0 if inputs.inhibit_mapping else last + 1
    inhibit_any = 0 if inputs.inhibit_any else last + 1
    level: _Level = {ANY_POLICY: _Node(ANY_POLICY, (), (ANY_POLICY,))}
    for depth, (said, self_issued) in enumerate(steps, 1):
        # RFC 5280 §6.1.3 (d), (e)
        level = _next_level(level, said.policies, inhibit_any > 0 or (depth < last and self_issued))
        # RFC 5280 §6.1.3 (f)
        if explicit == 0 and not level:
            return PolicyFault(depth - 1, "it isn't valid under any policy, and one is required")
        if depth == last:
            break
        # RFC 5280 §6.1.4 (a), (b)
        if said.mappings:
            if any(ANY_POLICY in pair for pair in said.mappings):
                return PolicyFault(depth - 1, "it maps anyPolicy, which isn't allowed")
            level = _mapped(level, said.mappings, mapping > 0)
        # RFC 5280 §6.1.4 (h): self-issued certificates don't count.
        if not self_issued:
            explicit, mapping, inhibit_any = max(explicit - 1, 0), max(mapping - 1, 0), max(inhibit_any - 1, 0)
        # RFC 5280 §6.1.4 (i), (j)
        explicit = _lower(explicit, said.require_explicit)
        mapping = _lower(mapping, said.inhibit_mapping)
        inhibit_any = _lower(inhibit_any, said.inhibit_any)
    # RFC 5280 §6.1.5 (a), (b)
    explicit = max(explicit - 1, 0)
    if last and steps[-1][0].require_explicit == 0:
        explicit = 0
    outcome = _outcome(level, inputs.initial)
    # RFC 5280 §6.1.5 (g): the path fails only if a policy is needed and none is left.
    if explicit == 0 and not outcome.user:
        wanted = "one of the policies that are asked for" if level else "any policy, and one is required"
        return PolicyFault(last - 1, f"it isn't valid under {wanted}")
    return outcome


def _lower(counter: int, limit: int | None) -> int:
    return counter if limit is None else min(counter, limit)


def _next_level(level: _Level, policies: frozenset[str] | None, any_counts: bool) -> _Level:
    """RFC 9618 §5.3 (d), (e): the nodes of the next depth; none without the extension."""
    if not policies or not level:
        return {}
    expecting: dict[str, list[_Node]] = {}
    for node in level.values():
        for policy in node.expected:
            expecting.setdefault(policy, []).append(node)
    made: _Level = {}
    any_node = level.get(ANY_POLICY)
    for policy in policies:
        if policy == ANY_POLICY:
            continue
        # (d)(1)(i), and (ii) where nobody expects the policy by name.
        parents = expecting.get(policy) or ([any_node] if any_node else [])
        if parents:
            made[policy] = _Node(policy, tuple(parents), (policy,))
    # (d)(2): anyPolicy says what is expected and not said by name.
    if any_counts and ANY_POLICY in policies:
        for policy, parents in expecting.items():
            if policy not in made:
                made[policy] = _Node(policy, tuple(parents), (policy,))
    return made


def _mapped(level: _Level, mappings: tuple[tuple[str, str], ...], allowed: bool) -> _Level:
    """RFC 9618 §5.4 (b): with mapping allowed the expected policies change, otherwise the mapped ones go."""
    targets: dict[str, dict[str, None]] = {}
    for issuer_policy, subject_policy in mappings:
        targets.setdefault(issuer_policy, {})[subject_policy] = None
    if not allowed:
        return {policy: node for policy, node in level.items() if policy not in targets}
    any_node = level.get(ANY_POLICY)
    for policy, expected in targets.items():
        if policy in level:
            level[policy].expected = tuple(expected)
        elif any_node is not None:
            level[policy] = _Node(policy, any_node.parents, tuple(expected))
    return level


def _outcome(level: _Level, initial: frozenset[str]) -> Policies:
    """RFC 9618 §5.5 (g): the policies whose parent is anyPolicy, of all nodes from which the last certificate is reached."""
    authority = {ANY_POLICY} if ANY_POLICY in level else set()
    reached = list(level.values())
    while reached:
        above: dict[_Node, None] = {}
        for node in reached:
            if node.policy != ANY_POLICY and any(parent.policy == ANY_POLICY for parent in node.parents):
                authority.add(node.policy)
            above.update(dict.fromkeys(node.parents))
        reached = list(above)
    found = frozenset(authority)
    if ANY_POLICY in initial:
        return Policies(found, found)
    return Policies(found, initial if ANY_POLICY in found else found & initial)
