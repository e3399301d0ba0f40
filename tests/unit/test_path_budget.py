"""PRE-6, T-14: the search for a path is bounded, whatever certificates it is given."""

import time

from cryptography.hazmat.primitives.asymmetric import ec

from postseal.core.path import Path, PathFault
from support.paths import ALICE, CA, ROOT, SIGNS, SUB, build, code, odd_ca
from support.pki import DAY, NOW, Authority, Leaf, key, name


def mesh(size: int) -> list[Leaf]:
    """``size`` CAs, each certified by every other one."""
    keys = [key("p256", ("mesh", i)) for i in range(size)]
    return [
        Leaf(Authority(SUB.certificate, keys[i], name(f"Mesh {i}"))._sign(
            name(f"Mesh {j}"), keys[j].public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY), keys[j])
        for i in range(size) for j in range(size) if i != j
    ]  # fmt: skip


def test_a_mesh_without_a_way_out_ends_within_a_second() -> None:
    """PRE-6, T-14: thirty certificates that certify each other in all ways have more paths than there are atoms."""
    others = mesh(6)
    assert len(others) == 30
    leaf = Authority(SUB.certificate, key("p256", ("mesh", 0)), name("Mesh 0")).issue("a@b.test")
    started = time.perf_counter()
    found = build(leaf, *others)
    assert time.perf_counter() - started < 1
    assert isinstance(found, PathFault)
    assert found.code == "path.budget"


def test_t14_a_mesh_with_a_way_out_is_left_by_it() -> None:
    """PRE-6, T-14: of more paths than can be tried the short ones come first, so the good one is found."""
    keys = [key("p256", ("mesh", i)) for i in range(6)]
    way_out = [
        Leaf(ROOT._sign(name("Mesh 3"), keys[3].public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY), None)
    ]  # fmt: skip
    leaf = Authority(SUB.certificate, keys[0], name("Mesh 0")).issue("a@b.test")
    found = build(leaf, *mesh(6), *way_out)
    assert isinstance(found, Path)
    assert len(found.certificates) == 3


def test_t14_two_hundred_certificates_in_loops_are_given_up() -> None:
    """PRE-6, T-14: self-loops and cross-signed circles; the search ends and nothing is trusted."""
    others = mesh(14)
    loops = [
        Leaf(Authority(SUB.certificate, k, name(f"Mesh {i}"))._sign(
            name(f"Mesh {i}"), k.public_key(), [CA, SIGNS], not_before=NOW - DAY, not_after=NOW + DAY), k)
        for i, k in ((n, key("p256", ("mesh", n))) for n in range(14))
    ]  # fmt: skip
    assert len(others) + len(loops) >= 196
    leaf = Authority(SUB.certificate, key("p256", ("mesh", 0)), name("Mesh 0")).issue("a@b.test")
    found = build(leaf, *others, *loops)
    assert isinstance(found, PathFault)
    assert found.code == "path.budget"


def test_the_budget_of_signatures_ends_the_search() -> None:
    """Many certificates of one name, none with the right key."""
    twins = [
        odd_ca(ROOT, "Issuing", CA, SIGNS, private=ec.generate_private_key(ec.SECP256R1())) for _ in range(12)
    ]  # fmt: skip
    assert code(ALICE, *twins, max_signatures=10) == "path.budget"
    assert code(ALICE, *twins, max_candidates=10) == "path.budget"
    assert code(ALICE, *twins) == "path.bad-signature"
    assert code(ALICE, *twins, SUB) == "valid"
