"""Generated PKIs: what postseal says about a path and its revocation is what ``openssl verify`` says.

Where the two differ by design, the difference has a name, a reason and a rewriting in ``REWRITINGS``: what the PKI would
have to look like for OpenSSL to judge what postseal judges. A disagreement counts as understood only if OpenSSL, shown the
rewritten PKI, agrees. docs/openssl.md explains each of them; a test compares the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

import pytest
from hypothesis import given

from postseal.app.verify import Outcome, Report, Request, verify
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor, Path
from support.generated import ANY_EKU, ANY_POLICY, CA_USAGE, LEAF_USAGE, Cert, Entry, Listing, Point, World
from support.openssl_verify import Opinion, openssl_verify, opinions_by_part
from support.pki import NOW
from support.property_runs import examples
from support.strategies import POLICIES, REST, ROOT, SOME, SUB, URL_1, path_worlds, revocation_worlds


def report(world: World, *, revocation: bool) -> Report:
    """Through the code behind ``postseal verify``, which the milter shares."""
    crls = [CrlEvidence(parse_crl(c.der), f"file:{n}", NOW) for n, c in enumerate(world.listings)]
    request = Request(
        tuple(Anchor(c.loaded) for c in world.anchors),
        tuple(c.loaded for c in world.pool),
        tuple(crls),
        email=False,
        revocation=revocation,
    )
    return verify(world.leaf.loaded, request, NOW)


@dataclass(frozen=True)
class Rewriting:
    """One difference: its name in docs/openssl.md, and the PKI in which it doesn't show.

    ``only`` is the verdict of ours that it can explain; empty: any.
    """

    name: str
    of: Callable[[World], World]
    only: str = ""


def _certificates(change: Callable[[Cert], Cert]) -> Callable[[World], World]:
    def of(world: World) -> World:
        return World(
            change(world.leaf),
            tuple(change(c) for c in world.anchors),
            tuple(change(c) for c in world.pool),
            world.listings,
        )

    return of


def _below(anchor: Cert) -> Cert:
    """The anchor's certificate as an ordinary CA's, so that all its limits hold."""
    return replace(anchor, issuer="Above/Root", signer=70, spoil=False)


def _anchors_below(world: World) -> World:
    above = Cert("Above/Root", "Above/Root", 70, 70, ca=True, usage=CA_USAGE)
    return replace(world, anchors=(above,), pool=(*world.pool, *(_below(c) for c in world.anchors)))


def _mapped_without_any(cert: Cert) -> Cert:
    if ANY_POLICY not in cert.policies:
        return cert
    return replace(cert, mappings=tuple(m for m in cert.mappings if m[0] in cert.policies))


# The order matters: anchors first, because the rest then concerns the path alone.
PATHS = (
    Rewriting("limits-of-anchors", _anchors_below),
    Rewriting("key-identifiers-are-hints", _certificates(lambda c: replace(c, aki=None, no_aki=False))),
    Rewriting(
        "subject-email-beside-names", _certificates(lambda c: replace(c, email="" if c.names else c.email)), "valid"
    ),
    Rewriting("mapping-of-an-inhibited-any-policy", _certificates(_mapped_without_any), "invalid"),
)


def understood(
    world: World, mine: str, theirs: Callable[[World], str], rewritings: tuple[Rewriting, ...]
) -> list[str] | None:
    """The names of the differences that explain why OpenSSL doesn't say ``mine``; None if they don't."""
    able = [r for r in rewritings if r.only in ("", mine)]
    for rewriting in able:
        other = rewriting.of(world)
        if other != world and theirs(other) == mine:
            return [rewriting.name]
    names: list[str] = []
    for rewriting in able:
        other = rewriting.of(world)
        if other == world:
            continue
        world = other
        names.append(rewriting.name)
        if theirs(world) == mine:
            return names
    return None


def openssl_path(folder: FilePath, world: World) -> str:
    """valid if OpenSSL accepts one of the possible paths when it is given nothing else: it doesn't try all by itself."""
    chains = list(world.chains())
    if not chains:
        return _word(openssl_verify(folder, world.leaf, world.anchors, world.pool))
    found = (openssl_verify(folder, world.leaf, chain[-1:], chain[1:-1]) for chain in chains)
    return "valid" if any(opinion.ok for opinion in found) else "invalid"


def _word(opinion: Opinion) -> str:
    return "valid" if opinion.ok else "invalid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    return tmp_path_factory.mktemp("openssl")


@examples(250)
@given(world=path_worlds())
def test_paths(folder: FilePath, world: World) -> None:
    """RFC 5280 §6.1: whether there is a valid path: shapes, names and policies, cross-certificates, key rollover."""
    found = report(world, revocation=False)
    mine = "valid" if isinstance(found.path, Path) else "invalid"
    if openssl_path(folder, world) != mine:
        why = understood(world, mine, lambda w: openssl_path(folder, w), PATHS)
        assert why, f"{mine}: {found.reason}: {found.detail}"


# --- purposes ---


def _without_any_purpose(cert: Cert) -> Cert:
    return replace(cert, eku=() if ANY_EKU in cert.eku else cert.eku)


PURPOSES = (*PATHS, Rewriting("any-purpose", _certificates(_without_any_purpose), "valid"))


def openssl_purpose(folder: FilePath, world: World) -> str:
    found = (
        openssl_verify(folder, world.leaf, chain[-1:], chain[1:-1], None, "-purpose", "smimesign")
        for chain in world.chains()
    )
    return "valid" if any(opinion.ok for opinion in found) else "invalid"


@examples(150)
@given(world=path_worlds().filter(lambda w: not w.leaf.ca))
def test_purposes(folder: FilePath, world: World) -> None:
    """CERT-11: whether the certificate is for mail, with every CA above it."""
    anchors, pool = (tuple(Anchor(c.loaded) for c in world.anchors), tuple(c.loaded for c in world.pool))
    found = verify(world.leaf.loaded, Request(anchors, pool, revocation=False), NOW)
    mine = "valid" if found.outcome is Outcome.GOOD else "invalid"
    if openssl_purpose(folder, world) != mine:
        why = understood(world, mine, lambda w: openssl_purpose(folder, w), PURPOSES)
        assert why, f"{mine}: {found.reason}: {found.detail}"


# --- revocation ---


def _listings(change: Callable[[Listing, World], Listing]) -> Callable[[World], World]:
    return lambda world: replace(world, listings=tuple(change(c, world) for c in world.listings))


def _removal_is_revocation(crl: Listing, _: World) -> Listing:
    if crl.delta_of is not None:
        return crl
    return replace(crl, entries=tuple(replace(e, reason=1) if e.reason == 8 else e for e in crl.entries))


EVERYWHERE = "http://ca.test/everything.crl"


def _whole_scope(world: World) -> World:
    """RFC 5280 §6.3.3, last paragraph, written out: a point with all reasons for CRLs that name no point."""
    listings = tuple(
        replace(c, point=(EVERYWHERE,)) if c.issuer == world.leaf.issuer and not c.point else c for c in world.listings
    )
    return replace(
        world, listings=listings, leaf=replace(world.leaf, points=(Point((EVERYWHERE,)), *world.leaf.points))
    )


def _lists(crl: Listing, target: Cert) -> bool:
    return any(e.serial == target.number and e.issuer in ("", target.issuer) for e in crl.entries)


def _unusable(crl: Listing) -> bool:
    return crl.unknown or any(e.critical for e in crl.entries)


def _issuer_in_direct_crl(crl: Listing, _: World) -> Listing:
    if crl.indirect or not any(e.issuer for e in crl.entries):
        return crl
    return replace(crl, unknown=True)


def _without_partial_deltas(world: World) -> World:
    return replace(world, listings=tuple(c for c in world.listings if c.delta_of is None or not c.reasons))


def _only_unusable(world: World) -> World:
    if not any(_unusable(c) and _lists(c, world.leaf) for c in world.listings):
        return world
    return replace(world, listings=tuple(c for c in world.listings if _unusable(c) or c.issuer != world.leaf.issuer))


def _one_point_per_name(world: World) -> World:
    merged: dict[tuple[str, str], set[int]] = {}
    for point in world.leaf.points:
        for uri in point.uris:
            merged.setdefault((uri, point.issuer), set()).update(point.reasons or range(1, 9))
    points = tuple(
        Point((uri,), () if len(reasons) == 8 else tuple(sorted(reasons)), issuer)
        for (uri, issuer), reasons in merged.items()
    )
    return replace(world, leaf=replace(world.leaf, points=points))


def _listing_delta_is_complete(crl: Listing, world: World) -> Listing:
    return replace(crl, delta_of=None) if crl.delta_of is not None and _lists(crl, world.leaf) else crl


def _listing_for_all_reasons(crl: Listing, world: World) -> Listing:
    return replace(crl, reasons=()) if _lists(crl, world.leaf) else crl


def _updated_base(crl: Listing, world: World) -> Listing:
    """RFC 5280 §6.3.3 (a): a base that is out of date and a current delta make a current CRL."""
    able = any(
        d.delta_of is not None and (d.issuer, d.key) == (crl.issuer, crl.key) and d.delta_of <= (crl.number or 0)
        for d in world.listings
    )
    return replace(crl, to_day=7.0) if able and crl.delta_of is None else crl


def _scope(crl: Listing) -> tuple[object, ...]:
    return crl.issuer, crl.key, crl.point, crl.user, crl.ca, crl.attribute, crl.indirect, crl.reasons


def _without_older(world: World) -> World:
    """CRL-25: of each scope what the newest by number or by date leaves."""

    def older(crl: Listing) -> bool:
        others = [c for c in world.listings if _scope(c) == _scope(crl) and c.delta_of is None and not c.spoil]
        return any(c.from_day > crl.from_day or (c.number or 0) > (crl.number or 0) for c in others)

    return replace(world, listings=tuple(c for c in world.listings if c.delta_of is not None or not older(c)))


def _signers_are_good(world: World) -> World:
    return replace(
        world, listings=(*world.listings, *(Listing(*who, number=90, ca=True) for who in ((ROOT, 0), (SUB, 1))))
    )


REVOCATION = (
    Rewriting("removal-outside-of-a-delta", _listings(_removal_is_revocation), "revoked"),
    Rewriting("listed-on-a-delta", _listings(_listing_delta_is_complete), "revoked"),
    Rewriting("listed-by-a-crl-for-other-reasons", _listings(_listing_for_all_reasons), "revoked"),
    Rewriting("outdated-base-with-a-delta", _listings(_updated_base), "good"),
    Rewriting("crl-without-key-identifier", _listings(lambda c, _: replace(c, aki=None, no_aki=False))),
    Rewriting("several-points-with-one-name", _one_point_per_name),
    Rewriting("crl-without-a-point-name", _whole_scope),
    Rewriting("older-than-another", _without_older, "unknown"),
    Rewriting("delta-for-some-reasons", _without_partial_deltas),
    Rewriting("certificate-issuer-in-a-direct-crl", _listings(_issuer_in_direct_crl), "unknown"),
    Rewriting("listed-on-an-unusable-crl", _only_unusable, "unknown"),
    Rewriting("revoked-by-a-signer-in-doubt", _signers_are_good, "revoked"),
)


def openssl_status(folder: FilePath, world: World) -> str:
    """good, revoked or unknown from all sets of CRLs: REVOKED from one wins (unless it was lifted), then GOOD from one."""
    good = False
    for some, status in opinions_by_part(folder, world):
        if status == "revoked" and not _lifted(some, world):
            return "revoked"
        good |= status == "good"
    return "good" if good else "unknown"


def _lifted(some: tuple[Listing, ...], world: World) -> bool:
    """CRL-20: is it but a hold that a newer CRL of the same scope doesn't know, or that a delta takes away?"""
    held = [c for c in some if _lists(c, world.leaf)]
    reasons = {e.reason for c in held for e in c.entries if e.serial == world.leaf.number}
    if reasons != {6}:
        return False
    return all(any(_takes_away(newer, crl, world.leaf) for newer in world.listings) for crl in held)


def _takes_away(newer: Listing, crl: Listing, target: Cert) -> bool:
    if _scope(newer) != _scope(crl) or not crl.from_day < newer.from_day <= 0 or (newer.to_day or 1) < 0:
        return False
    if newer.delta_of is None:
        return not _lists(newer, target)
    return any(e.serial == target.number and e.reason == 8 for e in newer.entries)


@examples(200)
@given(world=revocation_worlds())
def test_revocation(folder: FilePath, world: World) -> None:
    """RFC 5280 §6.3, CRL-2 to CRL-22: what CRLs say about each certificate of a path, for as far as OpenSSL comes."""
    found = report(world, revocation=True)
    assert isinstance(found.path, Path)
    (chain,) = world.chains()
    plain = openssl_verify(folder, world.leaf, world.anchors, world.pool, world.listings)
    for depth, verdict in enumerate(found.verdicts):
        mine, theirs = str(verdict.status), plain.status(depth)
        if not theirs:
            break
        about = replace(world, leaf=chain[depth])
        if mine != theirs and mine != openssl_status(folder, about):
            why = understood(about, mine, lambda w: openssl_status(folder, w), REVOCATION)
            assert why, f"{mine} ({verdict.reason}: {verdict.detail}) at {depth}; openssl: {plain.text}"


# --- each difference in its shortest form ---

ALICE = Cert("Acme/Alice", SUB, 2, 1, serial=5002, usage=LEAF_USAGE, points=(Point((URL_1,)),))
TOP = Cert(ROOT, ROOT, 0, 0, ca=True, usage=CA_USAGE)
MIDDLE = Cert(SUB, ROOT, 1, 0, serial=5001, ca=True, usage=CA_USAGE)
NEW_KEY = replace(MIDDLE, key=4, serial=5004)
HERS = Entry(5002, 1)
P1, P2 = POLICIES[:2]


def crls(*listings: Listing, alice: Cert = ALICE, pool: tuple[Cert, ...] = ()) -> World:
    return World(alice, (TOP,), (MIDDLE, *pool), (Listing(ROOT, 0), *listings))


FORMS = {
    "limits-of-anchors": World(ALICE, (replace(TOP, ca=None),), (MIDDLE,)),
    "key-identifiers-are-hints": World(replace(ALICE, aki=9), (TOP,), (MIDDLE,)),
    "subject-email-beside-names": World(
        replace(ALICE, email="a@other.test", names=("email:a@example.test",)), (TOP,),
        (replace(MIDDLE, permitted=("email:example.test",)),),
    ),
    "mapping-of-an-inhibited-any-policy": World(
        Cert("Acme/Alice", "Acme/Low", 2, 3, policies=(P2,), explicit_after=0), (TOP,),
        (
            replace(MIDDLE, policies=(P1,), any_after=0),
            Cert("Acme/Low", SUB, 3, 1, ca=True, usage=CA_USAGE, policies=(ANY_POLICY,), mappings=((P1, P2),)),
        ),
    ),
    "removal-outside-of-a-delta": crls(Listing(SUB, 1, entries=(Entry(5002, 8),))),
    "listed-on-a-delta": crls(Listing(SUB, 1), Listing(SUB, 1, 2, (HERS,), delta_of=1)),
    "outdated-base-with-a-delta": crls(Listing(SUB, 1, to_day=-0.5), Listing(SUB, 1, 2, delta_of=1)),
    "listed-by-a-crl-for-other-reasons": crls(
        Listing(SUB, 1, entries=(HERS,), point=(URL_1,), reasons=REST), alice=replace(ALICE, points=(Point((URL_1,), SOME),))
    ),
    "crl-without-a-point-name": crls(Listing(SUB, 1), alice=replace(ALICE, points=(Point((URL_1,), SOME),))),
    "several-points-with-one-name": crls(
        Listing(SUB, 1, point=(URL_1,)), alice=replace(ALICE, points=(Point((URL_1,), SOME), Point((URL_1,), REST)))
    ),
    "crl-without-key-identifier": crls(Listing(SUB, 4, no_aki=True), pool=(NEW_KEY,)),
    "older-than-another": crls(Listing(SUB, 1, 5), Listing(SUB, 1, 6, from_day=-0.75, to_day=-0.5)),
    "delta-for-some-reasons": crls(
        Listing(SUB, 1, 5, point=(URL_1,), reasons=REST), Listing(SUB, 1, 6, point=(URL_1,), reasons=SOME, delta_of=5)
    ),
    "certificate-issuer-in-a-direct-crl": crls(Listing(SUB, 1, entries=(Entry(5002, 1, SUB),))),
    "listed-on-an-unusable-crl": crls(Listing(SUB, 1), Listing(SUB, 1, 2, (HERS,), from_day=-2.0, unknown=True)),
    "revoked-by-a-signer-in-doubt": crls(
        Listing(SUB, 4, entries=(HERS,)), pool=(replace(NEW_KEY, issuer=SUB, signer=1),)
    ),
}  # fmt: skip


# Differences that releases of OpenSSL which Debian had in the meantime don't have any more; an older one may be installed.
MENDED = frozenset({"delta-for-some-reasons"})


@pytest.mark.parametrize("name", FORMS)
def test_difference(folder: FilePath, name: str) -> None:
    """The difference is there, and its rewriting explains it: an OpenSSL that changes its mind is noticed here."""
    world = FORMS[name]
    rewriting = next(r for r in (*PATHS, *REVOCATION) if r.name == name)
    found = report(world, revocation=bool(world.listings))
    if world.listings:
        mine = str(found.verdicts[0].status)
        theirs = openssl_verify(folder, world.leaf, world.anchors, world.pool, world.listings).status(0)
        assert theirs != mine or name in MENDED
        assert openssl_status(folder, rewriting.of(world)) == mine
    else:
        mine = "valid" if isinstance(found.path, Path) else "invalid"
        assert openssl_path(folder, world) != mine
        assert openssl_path(folder, rewriting.of(world)) == mine
    assert rewriting.only in ("", mine)


def test_difference_any_purpose(folder: FilePath) -> None:
    """CERT-11: a CA for every purpose is one for mail."""
    world = World(ALICE, (TOP,), (replace(MIDDLE, eku=(ANY_EKU,)),))
    found = verify(ALICE.loaded, Request((Anchor(TOP.loaded),), (world.pool[0].loaded,), revocation=False), NOW)
    assert (found.outcome, openssl_purpose(folder, world)) == (Outcome.GOOD, "invalid")
    assert openssl_purpose(folder, PURPOSES[-1].of(world)) == "valid"


def test_every_difference_is_explained() -> None:
    """docs/openssl.md has a paragraph for each, and no others."""
    text = (FilePath(__file__).parents[2] / "docs" / "openssl.md").read_text()
    paths = [name for name in FORMS if name in {r.name for r in PATHS}]
    forms = [*paths, "any-purpose", *(name for name in FORMS if name not in paths)]
    names = [r.name for r in (*PURPOSES, *REVOCATION)]
    assert re.findall(r"(?m)^- \*\*([a-z-]+)\*\*:", text) == list(forms)
    assert set(names) == set(forms)
