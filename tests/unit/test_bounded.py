"""What an adversary could make quadratic or worse ends soon: PRE-6, THR-7, CVE-2023-0464 and its kind.

No stopwatch: the interpreter counts how many lines of our code run, and twice the input may not take four times as many.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from postseal.app.verify import Outcome, Report, Request, verify
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor
from support.generated import ANY_POLICY, CA_USAGE, LEAF_USAGE, Cert, Entry, Listing, Point, World
from support.pki import NOW

R, S, A = "Acme/Root", "Acme/Sub", "Acme/Alice"
TOP = Cert(R, R, 0, 0, ca=True, usage=CA_USAGE)
MID = Cert(S, R, 1, 0, serial=61, ca=True, usage=CA_USAGE)
EE = Cert(A, S, 2, 1, serial=62, usage=LEAF_USAGE, names=("email:alice@example.test",))


def report(world: World, *, revocation: bool = False) -> Report:
    crls = tuple(CrlEvidence(parse_crl(c.der), f"file:{n}", NOW) for n, c in enumerate(world.listings))
    anchors = tuple(Anchor(c.loaded) for c in world.anchors)
    pool = tuple(c.loaded for c in world.pool)
    request = Request(anchors, pool, crls, email=False, revocation=revocation)
    return verify(world.leaf.loaded, request, NOW)


def lines_of(call: Callable[[], object]) -> int:
    """Lines of this package that run during ``call``."""
    count = 0

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return line if "postseal" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def names_and_constraints(size: int) -> World:
    """As many names as constraints, none of which matches."""
    trees = tuple(f"email:h{n}.other.test" for n in range(size))
    names = tuple(f"email:u{n}@example.test" for n in range(size))
    return World(replace(EE, names=names), (TOP,), (replace(MID, excluded=trees),))


def permitted_names(size: int) -> World:
    """Each name is looked for among all, and the last one fits."""
    trees = (*(f"email:h{n}.other.test" for n in range(size)), "email:example.test")
    names = tuple(f"email:u{n}@example.test" for n in range(size))
    return World(replace(EE, names=names), (TOP,), (replace(MID, permitted=trees),))


def policies_and_mappings(size: int) -> World:
    """Every level maps every policy to all others: the tree of RFC 5280 grows by a power, the graph of RFC 9618 doesn't."""
    some = tuple(f"1.3.6.1.4.1.99999.{n}" for n in range(1, 9))
    mappings = tuple((one, other) for one in some for other in some)
    pool, above = [], (R, 0)
    for level in range(size):
        name = f"Acme/Level {level}"
        pool.append(
            Cert(name, *_issued(above, level), ca=True, usage=CA_USAGE, policies=(*some, ANY_POLICY), mappings=mappings)
        )
        above = (name, 20 + level)
    leaf = Cert(A, above[0], 2, above[1], policies=some, explicit_after=0)
    return World(leaf, (TOP,), tuple(pool))


def _issued(above: tuple[str, int], level: int) -> tuple[str, int, int]:
    return above[0], 20 + level, above[1]


def mesh(size: int) -> World:
    """Every CA has cross-certified every other, and none of them leads to the anchor."""
    ring = [
        Cert(f"Acme/{one}", f"Acme/{other}", 20 + one, 20 + other, ca=True, usage=CA_USAGE)
        for one in range(size) for other in range(size) if one != other
    ]  # fmt: skip
    return World(Cert(A, "Acme/0", 2, 20, usage=LEAF_USAGE), (TOP,), tuple(ring))


def namesakes(size: int) -> World:
    """As many issuers of the right name as there are, all with the wrong key."""
    pool = tuple(replace(MID, key=9, serial=1000 + n) for n in range(size))
    return World(EE, (TOP,), pool)


def points_and_crls(size: int) -> World:
    """As many distribution points as CRLs, each with as many names, and none for the other."""
    urls = [f"http://ca.test/{n}" for n in range(size)]
    points = tuple(Point(tuple(urls[:8])) for _ in range(min(size, 32)))
    crls = tuple(Listing(S, 1, n + 1, point=tuple(f"http://other.test/{n}/{m}" for m in range(8))) for n in range(size))
    return World(replace(EE, points=points), (TOP,), (MID,), (Listing(R, 0), *crls))


def deltas_and_bases(size: int) -> World:
    """Bases and deltas of one scope, each of which may belong to each."""
    bases = tuple(Listing(S, 1, n + 1, from_day=-9 + n / 100) for n in range(size))
    deltas = tuple(Listing(S, 1, n + 500, delta_of=1, from_day=-5 + n / 100) for n in range(size))
    return World(EE, (TOP,), (MID,), (Listing(R, 0), *bases, *deltas))


def signers_and_crls(size: int) -> World:
    """Indirect CRLs by as many appointed signers of one name, each with a key of its own; only the last is a signer's."""
    signers = tuple(Cert("Acme/Signer", R, 20 + n % 8, 0, serial=2000 + n, usage=("crl_sign",)) for n in range(size))
    crls = tuple(Listing("Acme/Signer", 30, n + 1, indirect=True, no_aki=True) for n in range(size))
    leaf = replace(EE, points=(Point(("http://ca.test/1",), issuer="Acme/Signer"),))
    return World(leaf, (TOP,), (MID, *signers), (Listing(R, 0), *crls))


def entries_of_many_issuers(size: int) -> World:
    """An indirect CRL in which every entry changes the issuer."""
    entries = tuple(Entry(62, 1, f"Other/{n}") for n in range(size))
    crl = Listing(S, 1, entries=entries, indirect=True)
    return World(EE, (TOP,), (MID,), (Listing(R, 0), crl))


# What grows, from which size, and the status in the end.
GROWING = {
    "names and excluded names": (names_and_constraints, 100, Outcome.GOOD),
    "names and permitted names": (permitted_names, 100, Outcome.GOOD),
    "levels of mapped policies": (policies_and_mappings, 4, Outcome.GOOD),
    "a mesh of CAs": (mesh, 8, Outcome.UNTRUSTED),
    "issuers of one name": (namesakes, 100, Outcome.UNTRUSTED),
    "points and CRLs": (points_and_crls, 30, Outcome.UNKNOWN),
    "deltas and bases": (deltas_and_bases, 12, Outcome.GOOD),
    "signers and CRLs": (signers_and_crls, 12, Outcome.UNKNOWN),
    "issuers in one CRL": (entries_of_many_issuers, 200, Outcome.GOOD),
}
# Nobody waits for this many lines: about a second.
MOST = 2_000_000


@pytest.mark.parametrize("name", GROWING)
def test_growth(name: str) -> None:
    """PRE-6, THR-7, T-14: twice as much of it is at most about twice as much work, or the budget ends it."""
    make, size, status = GROWING[name]
    revocation = bool(make(2).listings)
    small, large = (make(size * factor) for factor in (1, 2))
    for world in (small, large):
        # Reading certificates and names is linear, and done before anything is judged.
        report(world, revocation=revocation)
    assert report(small, revocation=revocation).outcome is status
    works = [lines_of(lambda w=w: report(w, revocation=revocation)) for w in (small, large)]
    print(name, works)
    assert works[1] < max(2.8 * works[0], works[0] + 20_000)
    assert works[1] < MOST


def test_a_thousand_names_and_a_thousand_constraints() -> None:
    """PRE-6, CERT-16: refused or decided, within what a message may cost."""
    found = lines_of(lambda: report(names_and_constraints(1000)))
    assert found < MOST
