"""The index file of a CRL: it says what the scan said, and nothing that isn't exactly so is believed."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core import crl_index
from postseal.core.crl import open_crl, parse_crl, signature_valid
from postseal.core.crl_entries import indexed
from postseal.core.crl_index import HEAD_SIZE, Index, index_octets, make_index, read_index
from postseal.core.errors import BadData
from support.evidence import CRITICAL_UNKNOWN, certificate_issuer, crl, entry, integer, name_of, reason, scope
from support.pki import authority

CA = authority("Indexed CA", kind="p256")
OTHER = authority("Other CA of the index", kind="p256")
STAMP = b"12:34:56"


@lru_cache
def made(kind: str = "plain") -> tuple[bytes, bytes]:
    """A CRL and its index."""
    entries = [entry((1 << 126) + n * 7919, reason(n % 3)) for n in range(3000)]
    extensions = [scope(indirect=True)] if kind == "indirect" else []
    if kind == "indirect":
        entries.insert(1000, entry(5, certificate_issuer(name_of(OTHER))))
    if kind == "odd":
        entries += [entry(b"\x00\x00\x05"), entry(-3), entry(0), entry(9, CRITICAL_UNKNOWN)]
    der = crl(CA, [] if kind == "empty" else entries, extensions=extensions)
    name = hashlib.sha256(der).hexdigest()
    return der, b"".join(index_octets(make_index(der, name, STAMP)))


def opened(der: bytes, index: bytes) -> Index | None:
    return read_index(index, hashlib.sha256(der).hexdigest(), len(der))


@pytest.mark.parametrize("kind", ["plain", "indirect", "odd", "empty"])
def test_says_what_the_scan_said(kind: str) -> None:
    """A CRL opened with its index is the CRL that was parsed, in all that judging asks for."""
    der, octets = made(kind)
    index = opened(der, octets)
    assert index is not None
    assert index.scanned is not None
    whole, mapped = parse_crl(der), open_crl(der, index.sha256, indexed(index.scanned), index.tbs_digest)
    assert mapped == whole
    for name in ("entry_count", "unknown_critical_entry", "carries_others", "issuer_not_critical", "indirect"):
        assert getattr(mapped, name) == getattr(whole, name), name
    serials = [integer((1 << 126) + n * 7919)[2:] for n in (0, 1, 1500, 2999, 3000)]
    for serial in [*serials, b"\x05", b"\x00", b"\xfd", b"\x09", b"\x06"]:
        for issuer in (None, name_of(CA), name_of(OTHER)):
            assert mapped.find(serial, issuer) == whole.find(serial, issuer)
    assert index.stamp == STAMP
    assert signature_valid(mapped, CA.certificate.spki)
    assert not signature_valid(mapped, OTHER.certificate.spki)


def test_index_before_the_scan() -> None:
    """Until a large CRL is scanned its index only vouches for the file, and damage to it is noticed as well."""
    der, _ = made()
    name = hashlib.sha256(der).hexdigest()
    octets = b"".join(index_octets(Index(name, len(der), STAMP, b"d" * 32, None)))
    assert opened(der, octets) == Index(name, len(der), STAMP, b"d" * 32, None)
    for place in range(0, len(octets), 7):
        assert opened(der, octets[:place] + bytes((octets[place] ^ 1,)) + octets[place + 1 :]) is None


def test_signature_is_checked_over_the_hash_in_the_index() -> None:
    """CRL-6: the hash of the signed part is that of the index, so a wrong one verifies nothing."""
    entries = [entry((1 << 100) + n) for n in range(10)]
    der = crl(CA, entries)
    index = make_index(der, hashlib.sha256(der).hexdigest(), STAMP)
    assert index.scanned is not None
    wrong = open_crl(der, index.sha256, indexed(index.scanned), hashlib.sha256(b"something else").digest())
    assert not signature_valid(wrong, CA.certificate.spki)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damage_is_absence(data: st.DataObject) -> None:
    """CACHE-7: an index with any octet changed, cut off or added is none."""
    der, octets = made(data.draw(st.sampled_from(["plain", "indirect", "odd", "empty"])))
    damaged = bytearray(octets)
    way = data.draw(st.sampled_from(["change", "cut", "grow", "swap"]))
    # The head is small, and the most worth damaging.
    place = data.draw(st.one_of(st.integers(0, HEAD_SIZE - 1), st.integers(0, len(octets) - 1)))
    if way == "change":
        damaged[place] ^= data.draw(st.integers(1, 255))
    elif way == "cut":
        del damaged[place:]
    elif way == "grow":
        damaged[place:place] = data.draw(st.binary(min_size=1, max_size=8))
    else:
        damaged[place], damaged[-1] = damaged[-1], damaged[place]
        if damaged == octets:
            return
    assert opened(der, bytes(damaged)) is None


def test_foreign_index_is_absence() -> None:
    """An index of another CRL, of another size, version or machine is none."""
    der, octets = made()
    other, _ = made("odd")
    assert opened(other, octets) is None
    assert read_index(octets, hashlib.sha256(der).hexdigest(), len(der) + 1) is None
    for at, value in ((16, 0x04030201), (20, crl_index.VERSION - 1), (20, crl_index.VERSION + 1)):
        head = bytearray(octets[: HEAD_SIZE - 32])
        struct.pack_into("=I", head, at, value)
        forged = bytes(head) + hashlib.sha256(head).digest() + octets[HEAD_SIZE:]
        assert opened(der, forged) is None
    assert opened(der, b"") is None


def test_index_of_another_list_is_refused() -> None:
    """Offsets that aren't those of the CRL's list are noticed when it is opened."""
    der, octets = made()
    index = opened(der, octets)
    shorter = crl(CA, [entry(1)])
    assert index is not None
    assert index.scanned is not None
    with pytest.raises(BadData, match="the index is that of another CRL"):
        open_crl(shorter, hashlib.sha256(shorter).hexdigest(), indexed(index.scanned))


@pytest.mark.parametrize("block", [0xFFFF, 0xFFFE])
def test_block_that_leads_nowhere_hides_nothing(block: int) -> None:
    """An index whose hashes fit but whose blocks don't exist doesn't raise, and the entry is found all the same."""
    der, octets = made()
    index = opened(der, octets)
    assert index is not None
    assert index.scanned is not None
    wrong = replace(index.scanned, blocks=[block] * index.scanned.count)
    assert open_crl(der, index.sha256, indexed(wrong)).find(integer((1 << 126) + 7919)[2:]) is not None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=4 * HEAD_SIZE))
def test_any_octets_are_read_without_an_exception(blob: bytes) -> None:
    """RPL-3: whatever a file holds, it is an index or none."""
    assert read_index(blob, "0" * 64, 5) is None
