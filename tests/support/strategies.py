"""Hypothesis strategies for generated PKIs: mostly sound, with one or another thing that a CA may get wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st

from support.generated import (
    ANY_EKU,
    ANY_POLICY,
    CA_USAGE,
    EMAIL_PROTECTION,
    LEAF_USAGE,
    SERVER_AUTH,
    Cert,
    Entry,
    Listing,
    Point,
    World,
)

T = TypeVar("T")
URL_1, URL_2 = "http://ca.test/1.crl", "http://ca.test/2.crl"
DELTA = Point(("http://ca.test/delta.crl",))
ROOT, SUB, ALICE, SIGNER = "Acme/Root", "Acme/Sub", "Acme/Alice", "Acme/Signer"
# Reasons that together are all, and two halves.
SOME, REST = (1, 6), (2, 3, 4, 5, 7, 8)
POLICIES = ("1.3.6.1.4.1.99999.1", "1.3.6.1.4.1.99999.2", "1.3.6.1.4.1.99999.3")


def mostly(usual: T, *others: T) -> st.SearchStrategy[T]:
    """``usual`` three times out of four."""
    return st.sampled_from([usual] * 3 * max(1, len(others)) + list(others))


seldom = st.sampled_from([False] * 19 + [True])
points = st.lists(
    st.builds(
        Point,
        st.sampled_from([(URL_1,), (URL_2,), (URL_1, URL_2)]),
        st.sampled_from([()] * 7 + [SOME, SOME, REST]),
        st.sampled_from([""] * 7 + [SIGNER]),
    ),
    min_size=1,
    max_size=2,
).map(tuple)


@st.composite
def entries(draw: st.DrawFn, target: Cert, issuer: str) -> tuple[Entry, ...]:
    """Perhaps the target's number, perhaps in the name of its issuer, among others'."""
    found = [Entry(7, 1)] if draw(mostly(False, True)) else []
    if draw(st.booleans()):
        whose = issuer if draw(mostly(False, True)) else ""
        found.append(Entry(target.number, draw(st.sampled_from([None, 0, 1, 4, 6, 8])), whose))
    if draw(seldom):
        found.append(Entry(9, critical=True))
    return tuple(draw(st.permutations(found)))


@st.composite
def listings(draw: st.DrawFn, target: Cert, *, deltas: bool = True) -> Listing:
    """A CRL that may have to do with the target."""
    issuer, key = draw(
        st.sampled_from([(target.issuer, target.signer)] * 6 + [(SIGNER, 3), (target.issuer, 4), (ROOT, 0)])
    )
    base = Listing(
        issuer,
        key,
        draw(st.sampled_from([1, 5, 5, 6, None])),
        draw(entries(target, target.issuer)),
        from_day=draw(st.sampled_from([-1.0] * 6 + [-2.0, -3.0, -4.0, 1.0])),
        to_day=draw(st.sampled_from([7.0] * 9 + [-0.5])),
        freshest=draw(mostly(False, True)),
        no_aki=draw(mostly(False, True)),
        unknown=draw(seldom),
        spoil=draw(seldom),
    )
    if base.to_day is not None and base.to_day < base.from_day:
        base = replace(base, to_day=base.from_day + 1)
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["user", "user", "ca", "attribute", "", "", "", "", ""]))
        base = replace(
            base,
            point=draw(st.sampled_from([(), (), (), (URL_1,), (URL_1,), (URL_2,), (URL_1, URL_2)])),
            reasons=draw(st.sampled_from([(), (), (), (), SOME, REST])),
            indirect=issuer != target.issuer or draw(seldom),
            **({kind: True} if kind else {}),
        )
    if deltas and draw(mostly(False, True)):
        base = replace(base, delta_of=draw(st.sampled_from([1, 4, 5, 6])), number=draw(st.sampled_from([5, 6, 7])))
    return base


@st.composite
def pairs(draw: st.DrawFn, target: Cert) -> list[Listing]:
    """A base and a delta that fits it, or nearly."""
    base = replace(draw(listings(target)), number=5, delta_of=None, freshest=True)
    delta = replace(
        base,
        number=draw(st.sampled_from([6, 6, 6, 4, 5])),
        delta_of=draw(st.sampled_from([5, 5, 4, 6])),
        entries=draw(entries(target, target.issuer)),
        from_day=base.from_day + 0.25,
        freshest=False,
        point=draw(mostly(base.point, (URL_1,))),
    )
    return [base, delta]


@st.composite
def revocation_worlds(draw: st.DrawFn, *, deltas: bool = True) -> World:
    """A sound path of two certificates below the anchor, and CRLs of every kind about them."""
    root = Cert(ROOT, ROOT, 0, 0, ca=True, usage=CA_USAGE)
    usage = ("key_cert_sign",) if draw(seldom) else CA_USAGE
    sub = Cert(SUB, ROOT, 1, 0, serial=5001, ca=True, usage=usage, points=(Point((URL_1,)),))
    leaf = Cert(
        ALICE, SUB, 2, 1, serial=5002, ca=draw(mostly(None, False)), usage=LEAF_USAGE, names=("email:alice@example.test",),
        points=draw(points), freshest=(DELTA,) if draw(st.booleans()) else (),
    )  # fmt: skip
    pool = [sub]
    if draw(st.booleans()):
        signs = draw(mostly(("crl_sign",), ("digital_signature",)))
        pool.append(Cert(SIGNER, draw(mostly(ROOT, SUB)), 3, 0, serial=5003, usage=signs, points=(Point((URL_1,)),)))
        pool[-1] = replace(pool[-1], signer=0 if pool[-1].issuer == ROOT else 1)
    if draw(mostly(False, True)):
        other = draw(st.sampled_from([(ROOT, 0), (SUB, 1)]))
        pool.append(replace(sub, issuer=other[0], signer=other[1], key=4, serial=5004))
    found: list[Listing] = [] if draw(seldom) else [Listing(ROOT, 0)]
    if draw(seldom):
        found.append(draw(listings(sub, deltas=deltas)))
    if deltas and draw(mostly(False, True)):
        found += draw(pairs(leaf))
    found += draw(st.lists(listings(leaf, deltas=deltas), min_size=0 if found[1:] else 1, max_size=3))
    # A CA doesn't number two CRLs alike (RFC 5280 §5.2.3); whom to believe then isn't for OpenSSL to say.
    different = {
        replace(c, entries=(), from_day=0.0, to_day=0.0, freshest=False, unknown=False, spoil=False): c for c in found
    }
    return World(leaf, (root,), tuple(pool), tuple(draw(st.permutations(list(different.values())))))


_EMAILS = ("alice@example.test", "alice@mail.example.test", "bob@example.test", "alice@other.test")
_NAMES = st.sampled_from([
    *(f"email:{a}" for a in (*_EMAILS, *_EMAILS)), "dns:www.example.test", "dns:example.test", "dns:other.test",
    "uri:http://www.example.test/x", "uri:http://other.test/", "ip:10.1.2.3", "ip:192.0.2.1", "dir:Acme/Alice",
    "dir:Other/Alice",
])  # fmt: skip
_TREES = st.sampled_from([
    "email:example.test", "email:.example.test", "email:alice@example.test", "email:other.test", "dns:example.test",
    "email:example.test", "dir:Acme/", "dir:Acme/",
    "dns:other.test", "uri:www.example.test", "uri:.example.test", "ip:10.0.0.0/8", "ip:192.0.2.0/24", "dir:Acme/",
    "dir:Acme/Alice", "dir:Other/",
])  # fmt: skip
_policy_sets = st.sampled_from([(), (POLICIES[0],), POLICIES[:2], (ANY_POLICY,), (POLICIES[0], ANY_POLICY)])
_skips = st.sampled_from([None] * 8 + [0, 0, 1, 2])


@st.composite
def authorities(draw: st.DrawFn, subject: str, key: int, issuer: str, signer: int, flavour: str) -> Cert:
    """A CA certificate. ``flavour`` says what is varied much: shape, names or policies."""
    shape, names, policies = (flavour == f for f in ("shape", "names", "policies"))
    cert = Cert(
        subject, issuer, key, signer,
        ca=draw(st.sampled_from([True] * 38 + [None, False])),
        usage=draw(st.sampled_from([CA_USAGE] * 36 + [None, ("key_cert_sign",), ("crl_sign",)])),
        path_length=draw(st.sampled_from([None, None, 0, 1, 2] if shape else [None])),
        from_day=draw(st.sampled_from([-100.0] * 59 + [1.0])),
        to_day=draw(st.sampled_from([1000.0] * 59 + [-1.0])),
        unknown=draw(seldom) and shape,
        spoil=draw(seldom) and shape,
        no_aki=draw(mostly(False, True)),
        aki=draw(st.sampled_from([None] * 39 + [9])),
        eku=draw(st.sampled_from([()] * 4 + [(EMAIL_PROTECTION,), (SERVER_AUTH,), (ANY_EKU,)])) if shape else (),
    )  # fmt: skip
    if cert.ca is not True:
        cert = replace(cert, path_length=None)
    if names:
        some = st.lists(_TREES, max_size=2, unique=True).map(tuple)
        nothing: st.SearchStrategy[tuple[str, ...]] = st.just(())
        cert = replace(cert, permitted=draw(st.one_of(nothing, some)), excluded=draw(st.one_of(nothing, nothing, some)))
    if policies:
        one, two, three = POLICIES
        mapped = draw(
            st.sampled_from([(), (), (), ((one, three),), ((two, one), (one, two)), ((two, three), (two, one))])
        )
        cert = replace(
            cert, policies=draw(_policy_sets), mappings=mapped, explicit_after=draw(_skips),
            mapping_after=draw(_skips), any_after=draw(_skips),
        )  # fmt: skip
    return cert


@st.composite
def path_worlds(draw: st.DrawFn) -> World:
    """One to four certificates below an anchor, some cross-certified by another; no CRLs."""
    flavour = draw(st.sampled_from(["shape", "names", "policies"]))
    anchors = [draw(authorities(ROOT, 0, ROOT, 0, flavour))]
    other = draw(authorities("Other/Root", 5, "Other/Root", 5, flavour))
    if draw(mostly(False, True)):
        anchors.append(other)
    pool: list[Cert] = []
    above = (ROOT, 0)
    for step in range(draw(st.integers(0, 3))):
        key = 10 + step
        subject = above[0] if draw(seldom) else f"Acme/CA {step}"
        pool.append(draw(authorities(subject, key, *above, flavour)))
        if draw(mostly(False, False, True)):
            pool.append(
                draw(authorities(subject, key, *draw(st.sampled_from([(ROOT, 0), ("Other/Root", 5)])), flavour))
            )
        above = (subject, key)
    leaf = draw(authorities(draw(st.sampled_from([ALICE, ALICE, "Other/Alice"])), 2, *above, flavour))
    leaf = replace(
        leaf, permitted=(), excluded=(), mappings=(), ca=draw(st.sampled_from([None, None, False, True])), path_length=None,
        usage=LEAF_USAGE, names=tuple(draw(st.lists(_NAMES, max_size=3, unique=True))),
        email=draw(st.sampled_from(["", "", "", *_EMAILS])),
    )  # fmt: skip
    return World(leaf, tuple(anchors), tuple(draw(st.permutations(pool))))
