"""Declared CMS structures against octets written by hand from the RFCs, not by the code under test."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.cms import structures as cms
from postseal.core.cms.key_agreement import key_encryption_key
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from support.cms import recipient


@pytest.mark.parametrize(
    ("length", "octets"),
    [(0, "3000"), (127, "307f"), (128, "308180"), (255, "3081ff"), (256, "30820100"), (65536, "3083010000"),
     (2**32, "30850100000000")],
)  # fmt: skip
def test_headers_have_the_shortest_length(length: int, octets: str) -> None:
    assert cms.header(0x30, length) == bytes.fromhex(octets)


def test_algorithms_with_and_without_parameters() -> None:
    plain = cms.tlv(bytes.fromhex("300b0609608648016503040105"))
    assert cms.algorithm_of(plain) == (Oid("2.16.840.1.101.3.4.1.5"), None)
    oid, parameters = cms.algorithm_of(cms.tlv(bytes.fromhex("300d06092a864886f70d0101010500")))
    assert oid == cms.RSA_ENCRYPTION
    assert parameters is not None
    assert parameters.tag_bytes == b"\x05"


@pytest.mark.parametrize(
    "octets", ["3000", "310b0609608648016503040105", "3003020101", "300f06092a864886f70d01010105000500"]
)
def test_what_is_no_algorithm_identifier_is_refused(octets: str) -> None:
    with pytest.raises(ValueError):
        cms.algorithm_of(cms.tlv(bytes.fromhex(octets)))


def test_gcm_parameters_are_written_as_rfc_5084_has_them() -> None:
    """SEQUENCE { nonce OCTET STRING, icvLen INTEGER }: 16 is written, 12 is what an absent one means."""
    written = asn1.encode_der(cms.GcmParameters(nonce=bytes(12), icv_length=16))
    assert written == bytes.fromhex("3011040c" + "00" * 12 + "020110")
    read = asn1.decode_der(cms.GcmParameters, bytes.fromhex("300e040c" + "00" * 12))
    assert read.icv_length is None


def test_shared_info_is_that_of_rfc_5753() -> None:
    """§7.2: keyInfo with absent parameters, no entityUInfo without ukm, suppPubInfo [2] the KEK's bits in 4 octets."""
    wrap = cms.tlv(bytes.fromhex("300b060960864801650304012d"))
    info = asn1.encode_der(cms.EccCmsSharedInfo(key_info=wrap, supp_pub_info=(256).to_bytes(4, "big")))
    assert info == bytes.fromhex("3015300b060960864801650304012da206040400000100")
    with_ukm = asn1.encode_der(cms.EccCmsSharedInfo(key_info=wrap, entity_u_info=b"u", supp_pub_info=bytes(4)))
    assert with_ukm == bytes.fromhex("301a300b060960864801650304012da003040175a206040400000000")


def test_the_key_derivation_is_x963_over_that_info() -> None:
    """SHA-256(Z || counter || SharedInfo) for a key of one hash length (SEC 1 §3.6.1), computed with hashlib alone."""
    wrap = cms.tlv(bytes.fromhex("300b060960864801650304012d"))
    info = bytes.fromhex("3015300b060960864801650304012da206040400000100")
    expected = hashlib.sha256(b"shared secret" + b"\0\0\0\1" + info).digest()
    assert key_encryption_key(b"shared secret", wrap, 32, cms.Scheme("sha256"), None) == expected
    assert key_encryption_key(b"shared secret", wrap, 32, cms.Scheme("sha256"), b"ukm") != expected


def test_every_suite_has_its_cipher_with_the_same_key_length() -> None:
    for suite in Suite:
        assert cms.CONTENT_CIPHERS[cms.SUITE_OID[suite]] == (str(suite), suite.key_length, suite.gcm)


def test_issuer_and_serial_of_what_is_no_certificate() -> None:
    for octets in (
        b"",
        b"\x30\x00",
        b"hello",
        recipient().certificate.der[:-1],
        bytes.fromhex("3009300030000303000102"),
    ):
        with pytest.raises(BadData, match="not a certificate"):
            cms.issuer_and_serial(octets)


def test_names_and_numbers_for_people() -> None:
    assert cms.name_text(cms.tlv(recipient().certificate.issuer)) == "CN=CMS test root"
    assert cms.name_text(cms.tlv(bytes.fromhex("0500"))) == "#0500"
    assert cms.integer(cms.tlv(bytes.fromhex("020200ff"))) == 255
    assert cms.integer(cms.tlv(bytes.fromhex("0201ff"))) == -1


@pytest.mark.parametrize("octets", [b"", b"\x30", b"\x30\x80\0\0", b"\x02\x01\x01\x00"])
def test_what_is_not_one_der_value_is_bad_data(octets: bytes) -> None:
    with pytest.raises(BadData, match="not DER"):
        cms.tlv(octets)
