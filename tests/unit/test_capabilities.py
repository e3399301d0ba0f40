"""core.capabilities: what mail clients say that they can read (RFC 8551 §2.5.2, RFC 4262, RFC 4055 §4.1, RFC 5753 §6)."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.capabilities import (
    EXTENSION,
    OURS,
    SUITE_OIDS,
    Capability,
    certificate_capabilities,
    encode_capabilities,
    oaep_capability,
    parse_capabilities,
    suites,
    transports,
)
from postseal.core.cms import structures
from postseal.core.der import SEQUENCE, tlv
from postseal.core.errors import BadData
from postseal.core.suite import KeyTransport, Suite
from support.pki import authority

# As Outlook lists them: AES-256, AES-192, AES-128, 3DES, RC2 with 128 bits (INTEGER), DES, SHA-1.
_OUTLOOK = tlv(
    SEQUENCE,
    bytes.fromhex(
        "300b060960864801650304012a300b0609608648016503040116300b0609608648016503040102300a06082a864886f70d0307"
        "300e06082a864886f70d030202020080300706052b0e030207300706052b0e03021a"
    ),
)


def test_a_list_from_the_world_is_read_in_order() -> None:
    """RFC 8551 §2.5.2"""
    found = parse_capabilities(_OUTLOOK)
    assert [c.oid for c in found][:3] == [f"2.16.840.1.101.3.4.1.{n}" for n in (42, 22, 2)]
    assert Capability("1.2.840.113549.3.2", bytes.fromhex("02020080")) in found
    assert suites(found) == {Suite.AES_256_CBC, Suite.AES_192_CBC, Suite.AES_128_CBC}
    assert transports(found) == frozenset()
    assert encode_capabilities(found) == _OUTLOOK


def test_known_encodings() -> None:
    """RFC 5753 §6 prints the octets of the first; the second is RFC 4055 §4.1 with its tags, by hand."""
    agreement = [c for c in OURS if c.oid == "1.3.132.1.11.1"][-1]
    assert encode_capabilities([agreement]).hex() == "3017301506062b8104010b01300b0609608648016503040105"
    digest = "300d06096086480165030402010500"
    expected = f"303c06092a864886f70d010107302fa00f{digest}a11c301a06092a864886f70d010108{digest}"
    assert encode_capabilities([oaep_capability("sha256")]).hex() == f"303e{expected}"
    without_null = bytes.fromhex(
        "3038" "06092a864886f70d010107" "302b"
        "a00d300b0609608648016503040201" "a11a301806092a864886f70d010108" "300b0609608648016503040201"
    )  # fmt: skip
    assert transports(parse_capabilities(tlv(SEQUENCE, without_null))) == {KeyTransport.OAEP_SHA256}


def test_ours_says_what_open_reads_strongest_first() -> None:
    assert parse_capabilities(encode_capabilities(OURS)) == OURS
    assert suites(OURS) == set(Suite)
    assert transports(OURS) == set(KeyTransport) - {KeyTransport.PKCS1}
    assert OURS[0] == Capability("2.16.840.1.101.3.4.1.46")


def test_the_identifiers_are_those_that_cms_uses() -> None:
    assert {suite: oid.dotted_string for suite, oid in structures.SUITE_OID.items()} == SUITE_OIDS
    assert {c.oid for c in OURS if c.oid.startswith(("1.3.132.", "1.2.840.113549.1.9.16.3."))} <= {
        o.dotted_string for o in structures.STD_DH
    }
    (oaep,) = {c.oid for c in OURS if len(c.parameters) > 20}
    assert oaep == structures.RSAES_OAEP.dotted_string


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (b"", {KeyTransport.OAEP_SHA256}),
        (b"\x05\x00", {KeyTransport.OAEP_SHA256}),
        (b"\x30\x00", set()),  # the defaults: SHA-1
        (oaep_capability("sha384").parameters, {KeyTransport.OAEP_SHA384}),
        (oaep_capability("sha512").parameters, {KeyTransport.OAEP_SHA512}),
        (oaep_capability("sha1").parameters, set()),
        (oaep_capability("sha512").parameters[:2] + b"\x00" * 8, set()),
        (bytes.fromhex("300fa00d300b0609608648016503040201"), set()),  # SHA-256, but MGF1 with SHA-1
        (b"\x02\x01\x01", set()),
    ],
)
def test_oaep_is_of_the_hash_that_its_parameters_name(parameters: bytes, expected: set[KeyTransport]) -> None:
    """ALG-4, RFC 4055 §4.1: without parameters it is SHA-256; the defaults written out are SHA-1, which we don't write."""
    assert transports([Capability("1.2.840.113549.1.1.7", parameters)]) == expected


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        _OUTLOOK + b"\x00",
        tlv(SEQUENCE, b"\x05\x00"),
        tlv(SEQUENCE, tlv(SEQUENCE)),
        tlv(SEQUENCE, tlv(SEQUENCE, b"\x06\x01\x2a\x05\x00\x05\x00")),
        tlv(SEQUENCE, tlv(SEQUENCE, b"\x06\x01\x2a") * 129),
        tlv(SEQUENCE, tlv(SEQUENCE, b"\x06\x01\x2a", tlv(4, bytes(20_000)))),
    ],
)
def test_what_is_broken_or_too_much_is_one_sentence(der: bytes) -> None:
    with pytest.raises(BadData, match="capabilities"):
        parse_capabilities(der)


_items = st.lists(st.binary(max_size=12).map(lambda octets: tlv(SEQUENCE, b"\x06\x02\x2a\x03", octets)), max_size=5)


@given(st.one_of(st.binary(max_size=400), _items.map(lambda items: tlv(SEQUENCE, *items))))
def test_whatever_comes_it_is_a_tuple_or_bad_data(der: bytes) -> None:
    try:
        found = parse_capabilities(der)
    except BadData:
        return
    assert suites(found) <= set(Suite)
    assert transports(found) <= set(KeyTransport)
    assert parse_capabilities(encode_capabilities(found)) == found


def test_deep_nesting_is_cheap() -> None:
    """T-15: 10,000 levels in the parameters are never walked."""
    deep = b"\x30\x80" * 10_000
    begin = time.process_time()
    with pytest.raises(BadData):
        parse_capabilities(deep)
    assert time.process_time() - begin < 0.5


def test_the_extension_of_a_certificate() -> None:
    """ALG-2, RFC 4262 §2: the extension holds the same list. One that can't be read is as good as none."""
    assert EXTENSION == "1.2.840.113549.1.9.15"
    root = authority("Root")
    for value, expected in ((_OUTLOOK, parse_capabilities(_OUTLOOK)), (b"\x30\x05junk!", None)):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(EXTENSION), value)
        leaf = root.issue("bob@example.org", extra=[(extension, False)])
        assert certificate_capabilities(leaf.certificate) == expected
    assert certificate_capabilities(root.issue("bob@example.org").certificate) is None
