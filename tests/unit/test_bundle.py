"""Bundles that were made to do harm: what isn't understood to the last octet is refused, and nothing is half taken."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import bundle
from postseal.core.bundle import Item, ItemKind, Manifest
from postseal.core.errors import BadData, PostsealError, TryAgain
from postseal.sources.bundles import BundleFile

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
SKEW = timedelta(minutes=5)
CERTIFICATE, CRL = b"certificate", b"a CRL"


def named(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


GOOD = Manifest(
    "node-1.example",
    AT,
    (
        Item(ItemKind.CERTIFICATE, named(CERTIFICATE), len(CERTIFICATE)),
        Item(ItemKind.CRL, named(CRL), len(CRL), "http://ca.example/1.crl", AT, (named(CERTIFICATE),)),
        Item(ItemKind.OCSP, named(b"ocsp"), 4, "http://ca.example/", AT, (named(CERTIFICATE),), named(CERTIFICATE)),
    ),
)


def values() -> Any:
    return json.loads(bundle.encode(GOOD))


def whole(manifest: bytes, signature: bytes = b"", rest: bytes = CERTIFICATE + CRL + b"ocsp") -> bytes:
    return bundle.head(manifest, signature) + manifest + signature + rest


def test_a_manifest_comes_back_as_it_was() -> None:
    assert bundle.decode(bundle.encode(GOOD)) == GOOD


def test_items_are_read_by_their_place_and_compared_with_their_hash() -> None:
    made = BundleFile(io.BytesIO(whole(bundle.encode(GOOD), b"sig")))
    manifest = bundle.decode(made.manifest)
    made.check_size(manifest)
    assert (made.signature, made.item(1, manifest), made.item(0, manifest)) == (b"sig", CRL, CERTIFICATE)
    wrong = BundleFile(io.BytesIO(whole(bundle.encode(GOOD), rest=CERTIFICATE + b"a crl" + b"ocsp")))
    wrong.check_size(manifest)
    with pytest.raises(BadData, match="aren't those of the manifest"):
        wrong.item(1, manifest)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(node="../../etc"),
        lambda v: v.update(node="a\nb"),
        lambda v: v.update(more=1),
        lambda v: v.pop("created"),
        lambda v: v.update(created=None),
        lambda v: v.update(created="2026-06-01"),
        lambda v: v.update(items={}),
        lambda v: v["items"].append(v["items"][1]),
        lambda v: v["items"].pop(0),
        lambda v: v["items"][1].update(sha256="../" + "a" * 61),
        lambda v: v["items"][1].update(sha256="A" * 64),
        lambda v: v["items"][1].update(size=-5),
        lambda v: v["items"][1].update(size=True),
        lambda v: v["items"][1].update(size=1.5),
        lambda v: v["items"][1].update(size=10**18),
        lambda v: v["items"][1].update(kind="key"),
        lambda v: v["items"][1].update(url="http://x/\n<0>kernel"),
        lambda v: v["items"][1].update(url="x" * 5000),
        lambda v: v["items"][1].update(chain=[]),
        lambda v: v["items"][1].update(chain=[named(CRL)]),
        lambda v: v["items"][1].update(path="/etc/passwd"),
        lambda v: v["items"][2].pop("certificate"),
        lambda v: v["items"][2].update(certificate=named(b"nobody")),
        lambda v: v["items"].insert(0, "x"),
    ],
)
def test_a_manifest_that_says_anything_odd_is_refused(change: Callable[[Any], object]) -> None:
    """Names that climb, sizes that lie, things twice, things that are missing, keys of another version."""
    changed = values()
    change(changed)
    with pytest.raises(BadData, match="its manifest can't be read"):
        bundle.decode(json.dumps(changed).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b"{}" * 2])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BadData):
        bundle.decode(data)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"postseal-evidence 2 10 10\n", "version 2"),
        (b"postseal-evidence 1 010 10\n", "not a bundle"),
        (b"postseal-evidence 1 10 10 \n", "not a bundle"),
        (b"postseal-evidence 1 -1 10\n", "not a bundle"),
        (b"postseal-evidence 1 9999999999 10\n", "larger than any honest one"),
        (b"postseal-evidence 1 10 999999\n", "larger than any honest one"),
        (b"postseal-evidence 1 0 0\n", "not a bundle"),
    ],
)
def test_a_first_line_that_lies_is_refused_before_anything_is_read(line: bytes, words: str) -> None:
    with pytest.raises(BadData, match=words):
        BundleFile(io.BytesIO(line + b"x" * 100))


def test_data_behind_the_end_is_refused_and_a_half_copy_is_another_matter() -> None:
    """What hides behind the last item isn't signed; what isn't there yet may still come."""
    good = whole(bundle.encode(GOOD), b"s")
    more = BundleFile(io.BytesIO(good + b"\n"))
    with pytest.raises(BadData, match="1 octets follow behind its last item"):
        more.check_size(GOOD)
    for end in range(len(good)):
        with pytest.raises(TryAgain, match="still being copied"):
            BundleFile(io.BytesIO(good[:end])).check_size(GOOD)


def test_replays_and_bundles_from_the_future_are_refused() -> None:
    assert bundle.why_refused(GOOD, None, AT, SKEW) == ""
    assert bundle.why_refused(GOOD, AT, AT, SKEW) == ""
    assert "taken from the same node already" in bundle.why_refused(GOOD, AT + timedelta(seconds=1), AT, SKEW)
    assert "in the future" in bundle.why_refused(GOOD, None, AT - timedelta(minutes=6), SKEW)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_input_makes_another_exception(data: bytes, cut: int) -> None:
    """Whatever is in the file, it is a refusal of one sentence."""
    good, refused = whole(bundle.encode(GOOD)), list[str]()
    for candidate in (data, bundle.MAGIC + data, good[:cut] + data + good[cut:], good[:cut] + data):
        try:
            made = BundleFile(io.BytesIO(candidate))
            manifest = bundle.decode(made.manifest)
            made.check_size(manifest)
            for number in range(len(manifest.items)):
                made.item(number, manifest)
        except PostsealError as exc:
            refused.append(str(exc))
    assert not any("\n" in text for text in refused)
