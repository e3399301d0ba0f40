"""Generated PKIs: what becomes of a verdict when evidence is taken away. Written without looking at how it is reached."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from postseal.app.verify import Outcome, Report, Request, verify
from postseal.core.crl import parse_crl
from postseal.core.evidence import CrlEvidence
from postseal.core.path import Anchor, Path
from support.generated import Cert, Listing, World
from support.pki import NOW
from support.property_runs import examples
from support.strategies import path_worlds, revocation_worlds


def report(world: World, *, revocation: bool = True) -> Report:
    crls = tuple(CrlEvidence(parse_crl(c.der), f"file:{n}", NOW) for n, c in enumerate(world.listings))
    anchors = tuple(Anchor(c.loaded) for c in world.anchors)
    pool = tuple(c.loaded for c in world.pool)
    return verify(world.leaf.loaded, Request(anchors, pool, crls, email=False, revocation=revocation), NOW)


def _names(crl: Listing, target: Cert) -> bool:
    return any(entry.serial == target.number for entry in crl.entries)


@examples(250)
@given(world=revocation_worlds(), data=st.data())
def test_silence_never_makes_good(world: World, data: st.DataObject) -> None:
    """PRE-6, RPL-4: a CRL that names nobody in question, and isn't newer than any other, says nothing against anybody.

    So without some of these a verdict that wasn't GOOD isn't GOOD either.
    """
    before = report(world)
    if before.outcome is Outcome.GOOD:
        return
    oldest = min((c.from_day for c in world.listings), default=0.0)
    people = [world.leaf, *world.pool]
    silent = [
        n for n, c in enumerate(world.listings)
        if c.from_day <= oldest and not any(_names(c, p) for p in people) and not c.unknown and c.delta_of is None
    ]  # fmt: skip
    if silent:
        gone = data.draw(st.sets(st.sampled_from(silent), min_size=1))
        assert report(world.without(*gone)).outcome is not Outcome.GOOD


@examples(250)
@given(world=revocation_worlds())
def test_each_revocation_stands_by_itself(world: World) -> None:
    """RPL-4: what a single final entry revokes beside the CRLs of others is revoked by all evidence together."""
    together = report(world)
    chain = next(iter(world.chains()))
    for number, crl in enumerate(world.listings):
        if any(entry.reason in (6, 8) for entry in crl.entries):
            continue
        others = [n for n, c in enumerate(world.listings) if n != number and c.issuer == crl.issuer]
        alone = report(world.without(*others))
        assert isinstance(alone.path, Path)
        for one, all_of_them, certificate in zip(alone.verdicts, together.verdicts, chain, strict=False):
            if one.status == "revoked":
                assert all_of_them.status == "revoked", f"{certificate.subject}: {all_of_them.reason}"


@examples(200)
@given(world=revocation_worlds())
def test_nothing_gives_good(world: World) -> None:
    """Without any CRL nobody is GOOD, and with the CRLs of another CA neither."""
    assert report(replace(world, listings=())).outcome is Outcome.UNKNOWN
    foreign = tuple(replace(c, key=60, aki=None) for c in world.listings)
    assert report(replace(world, listings=foreign)).outcome is not Outcome.GOOD


@examples(250)
@given(world=path_worlds(), data=st.data())
def test_fewer_certificates_never_make_a_path(world: World, data: st.DataObject) -> None:
    """RFC 5280 §6.1: without some of the intermediates or anchors an untrusted certificate is untrusted."""
    if isinstance(report(world, revocation=False).path, Path):
        return
    pool = tuple(c for c in world.pool if data.draw(st.booleans()))
    anchors = world.anchors[: data.draw(st.integers(0, len(world.anchors)))]
    assert not isinstance(report(replace(world, pool=pool, anchors=anchors), revocation=False).path, Path)


@examples(200)
@given(world=path_worlds(), seed=st.randoms(use_true_random=False))
def test_order_does_not_matter(world: World, seed: Random) -> None:
    """RFC 4158 §2.2: whether there is a path doesn't depend on the order in which certificates were found."""
    pool = list(world.pool)
    seed.shuffle(pool)
    other = replace(world, pool=tuple(pool), anchors=world.anchors[::-1])
    assert isinstance(report(world, revocation=False).path, Path) == isinstance(
        report(other, revocation=False).path, Path
    )
