"""The builder finds a path exactly when there is one: cross-certified CAs with all kinds of faults against a search by hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core.certs import Certificate
from postseal.core.path import Anchor, Path, PathSettings, build_path, build_paths
from support.pki import DAY, NOW, Authority, authority, key, name, usage

ROOT = authority("Search root", kind="p256")
NODES = 4
FAULTS = (
    "none",
    "none",
    "expired",
    "not-ca",
    "no-cert-sign",
    "length-0",
    "names",
    "policy",
    "extension",
    "purpose",
    "forged",
)
_ALWAYS = frozenset({"expired", "not-ca", "no-cert-sign", "names", "extension", "purpose", "forged"})
Edge = tuple[int, int, str]
"""(issuer, subject, fault); the issuer NODES is the anchor."""


def node(number: int) -> Authority:
    if number == NODES:
        return ROOT
    private = key("p256", ("node", number))
    return Authority(ROOT.certificate, private, name(f"Node {number}"))


@cache
def certificate(edge: Edge) -> Certificate:
    issuer, subject, fault = edge
    length = 0 if fault == "length-0" else None
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=fault != "not-ca", path_length=length), True),
        (usage("crl_sign" if fault == "no-cert-sign" else "key_cert_sign"), True),
    ]
    if fault == "names":
        extensions.append((x509.NameConstraints([x509.RFC822Name("elsewhere.test")], None), True))
    if fault == "policy":
        # Requires a policy, and nobody has one.
        extensions.append((x509.PolicyConstraints(0, None), True))
    if fault == "extension":
        extensions.append((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True))
    if fault == "purpose":
        extensions.append((x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False))
    parent = node(issuer)
    if fault == "forged":
        parent = Authority(ROOT.certificate, key("p256", "forger"), parent.subject)
    end = NOW - DAY if fault == "expired" else NOW + DAY
    public = node(subject).key.public_key()
    return parent._sign(node(subject).subject, public, extensions, not_before=NOW - 9 * DAY, not_after=end)


LEAF = node(0).issue("alice@example.test", kind="p256").certificate


def ways(edges: frozenset[Edge], at: int = 0, seen: tuple[int, ...] = (0,)) -> Iterator[tuple[Edge, ...]]:
    """All valid paths by hand, from the leaf's issuer up. ``len(seen) - 1`` CAs are below the certificate of ``at``."""
    for edge in edges:
        issuer, subject, fault = edge
        if subject != at or fault in _ALWAYS or fault == "policy" or (fault == "length-0" and len(seen) > 1):
            continue
        if issuer == NODES:
            yield (edge,)
        elif issuer not in seen:
            yield from ((edge, *rest) for rest in ways(edges, issuer, (*seen, issuer)))


PAIRS = [(issuer, subject) for issuer in range(NODES + 1) for subject in range(NODES) if issuer != subject]
# Two in three of the possible certificates exist, and two in three of those are good: then there are often several paths.
_WORDS = st.sampled_from(["absent"] * len(FAULTS) + ["none"] * len(FAULTS) + list(FAULTS))


@settings(max_examples=150, deadline=None)
@given(st.lists(_WORDS, min_size=len(PAIRS), max_size=len(PAIRS)))
def test_a_path_is_found_exactly_when_there_is_one(words: list[str]) -> None:
    """PRE-6, T-14: within its budget the search is complete, and every path that it yields is one by hand too."""
    edges = frozenset((*pair, word) for pair, word in zip(PAIRS, words, strict=True) if word != "absent")
    pool = tuple(certificate(edge) for edge in edges)
    expected = {(LEAF, *(certificate(edge) for edge in way)) for way in ways(edges)}
    found = list(build_paths(LEAF, (Anchor(ROOT.certificate),), pool, PathSettings(), NOW))
    paths = {path.certificates for path in found if isinstance(path, Path)}
    assert paths == expected
    assert isinstance(build_path(LEAF, (Anchor(ROOT.certificate),), pool, PathSettings(), NOW), Path) == bool(expected)
