"""Parsing CRLs and finding entries: strict about form, exact about serial numbers."""

from __future__ import annotations

import base64
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509

from postseal.core.certs import load_certificate
from postseal.core.crl import parse_crl, refresh_window, signature_valid
from postseal.core.errors import BadData
from support.evidence import (
    CRITICAL_UNKNOWN,
    UNKNOWN_OID,
    authority_key,
    certificate_issuer,
    crl,
    entry,
    full_name,
    generalized,
    integer,
    invalidity,
    name_of,
    node,
    number,
    reason,
    scope,
    seq,
    uri,
    utc,
)
from support.pki import DAY, HOUR, NOW, authority, key

CA = authority("CRL CA", kind="p256")
OTHER = authority("Other CA", kind="p256")
PLAIN = crl(CA, [entry(5, reason(1)), entry(200), entry(-3, general=True)])


VECTORS = Path(cryptography_vectors.__file__).parent / "x509"


def pem(der: bytes, label: bytes = b"X509 CRL") -> bytes:
    return b"-----BEGIN " + label + b"-----\n" + base64.encodebytes(der) + b"-----END " + label + b"-----\n"


def test_reads_the_header() -> None:
    """The fields that storing and judging need are taken from the CRL."""
    parsed = parse_crl(crl(CA, [entry(5)], extensions=[number(7), authority_key(b"k" * 20), scope(user=True)]))
    assert parsed.issuer == name_of(CA)
    assert (parsed.this_update, parsed.next_update) == (NOW - HOUR, NOW + 7 * DAY)
    assert (parsed.number, parsed.authority_key_id, parsed.entry_count) == (7, b"k" * 20, 1)
    assert parsed.idp == bytes.fromhex("30038101ff")
    assert parse_crl(parsed.der) == parsed


def test_agrees_with_another_reader() -> None:
    """What cryptography reads in a CRL that it wrote itself is what we read."""
    der = CA.crl([5, 300, 1 << 158], number=9)
    ours, theirs = parse_crl(der), x509.load_der_x509_crl(der)
    assert ours.this_update == theirs.last_update_utc
    assert ours.next_update == theirs.next_update_utc
    assert ours.entry_count == len(theirs)
    found = ours.find((1 << 158).to_bytes(20, "big"))
    assert found is not None
    assert (found.reason, found.revoked_at) == ("keyCompromise", NOW - DAY)


def test_agrees_with_another_reader_on_all_crls_of_pkits() -> None:
    """CRL-1, CRL-16: 173 CRLs of the NIST suite: the same times, and every serial number is found with its date."""
    files = sorted((VECTORS / "PKITS_data" / "crls").glob("*.crl"))
    assert len(files) > 150
    for file in files:
        ours, theirs = parse_crl(file.read_bytes()), x509.load_der_x509_crl(file.read_bytes())
        assert (ours.this_update, ours.next_update) == (theirs.last_update_utc, theirs.next_update_utc), file.name
        assert ours.entry_count == len(theirs), file.name
        issuer = None
        for revoked in theirs:
            serial = revoked.serial_number
            with suppress(x509.ExtensionNotFound):
                named = revoked.extensions.get_extension_for_class(x509.CertificateIssuer).value
                issuer = next(iter(named)).value.public_bytes()
            found = ours.find(serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True), issuer)
            assert found is not None, file.name
            assert found.revoked_at == revoked.revocation_date_utc, file.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crl_dup_entry_ext.pem", "extension 2.5.29.21 occurs twice"),
        ("crl_inval_date_fractional_seconds.der", "version 1"),
        ("crl_bad_version.pem", "version 1, only version 2"),
    ],
)
def test_refuses_odd_vectors(name: str, words: str) -> None:
    """CRL-1: odd CRLs of another project's collection."""
    with pytest.raises(BadData, match=words):
        parse_crl((VECTORS / "custom" / name).read_bytes())


@pytest.mark.parametrize(
    "blob",
    [PLAIN, pem(PLAIN), base64.b64encode(PLAIN), base64.encodebytes(PLAIN), b"\r\n" + pem(PLAIN) + b"\n"],
    ids=["der", "pem", "base64", "base64-lines", "pem-with-space"],
)
def test_accepts_der_pem_and_base64(blob: bytes) -> None:
    """CRL-1: some servers send PEM or base64; it counts when it decodes to one DER object."""
    assert parse_crl(blob).der == PLAIN


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "empty instead of a CRL"),
        (b"<!DOCTYPE html><title>Log in</title>", "an HTML or XML page instead of a CRL"),
        (b"404 not found", "neither DER nor PEM nor base64"),
        (pem(PLAIN) + pem(PLAIN), "exactly one X509 CRL"),
        (pem(PLAIN, b"CERTIFICATE"), "exactly one X509 CRL"),
        (base64.b64encode(b"hello world!"), "neither DER nor PEM nor base64 of DER"),
        (PLAIN + b"\x00", "unexpected data"),
        (pem(PLAIN + b"\x00"), "unexpected data"),
        (PLAIN[:-1], "longer than what holds it"),
        (crl(CA, version=b""), "version 1, only version 2"),
        (crl(CA, version=integer(2)), "version 1, only version 2"),
        (crl(CA, inner_kind="sha256"), "inside and outside of the signed part differ"),
        (crl(CA, this_update=utc(NOW), next_update=utc(NOW - DAY)), "nextUpdate is before thisUpdate"),
        (crl(CA, this_update=node(0x17, b"2606011200Z")), "a time isn't"),
        (crl(CA, extensions=[number(1), number(2)]), "occurs twice"),
        (crl(CA, extensions=[number(1 << 160)]), "more than 20 octets"),
        (crl(CA, extensions=[number(-1)]), "negative"),
        (crl(CA, extensions=[scope(user=True, ca=True)]), "several kinds of certificates at once"),
        (crl(CA, extensions=[scope(reasons=b"\x06")]), "broken ReasonFlags"),
        (crl(CA, extensions=[scope(reasons=b"\x09\x40")]), "broken ReasonFlags"),
        (crl(CA, extensions=[scope(node(0xA0))]), "distribution point name is empty"),
        (crl(CA, extensions=[("2.5.29.28", True, seq(node(0x81, b"\x01")))]), "BOOLEAN"),
        (crl(CA, [entry(b"\x00\x05")] * 1001), "more than 1000 serial numbers that aren't minimal"),
        (crl(CA, [seq(integer(5))]), "entry"),
        (crl(CA, [seq(integer(5), node(0x0C, b"yesterday"))]), "without a revocation date"),
        (crl(CA, [seq(node(2), utc(NOW))]), "broken entry"),
        (crl(CA, [node(0x31, integer(5), utc(NOW))]), "isn't a SEQUENCE"),
        (crl(CA, [seq(integer(5), utc(NOW), seq(b""), b"\x05\x00")]), "unexpected data"),
        (CA.certificate.der, "version 1, only version 2"),
    ],
)
def test_refuses_with_the_cause(blob: bytes, words: str) -> None:
    """CRL-1, CRL-30: what isn't exactly one version 2 CRL in strict DER is refused in one clear sentence."""
    with pytest.raises(BadData, match=words) as caught:
        parse_crl(blob)
    assert "\n" not in str(caught.value)


def test_size_is_limited_before_parsing() -> None:
    """CRL-1: the limit counts for the octets as received."""
    with pytest.raises(BadData, match=r"more than the 100 that are allowed"):
        parse_crl(PLAIN, max_size=100)
    assert parse_crl(PLAIN, max_size=len(PLAIN)).entry_count == 3


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        (b"\x05", b"\x05"),
        (b"\x00\x05", b"\x05"),
        (b"\x00\x00\xc8", b"\x00\xc8"),
        (b"\xfd", b"\xfd"),
        (b"\xff\xff\xfd", b"\xfd"),
        (b"\x00", b"\x00"),
        (b"\x7f" * 20, b"\x7f" * 20),
        (b"\x00" + b"\xff" * 20, b"\x00" + b"\xff" * 20),
        (b"\x11" * 40, b"\x11" * 40),
    ],
)
def test_finds_serials_as_canonical_integers(listed: bytes, asked: bytes) -> None:
    """CRL-16: negative, zero, padded, 20 octet and longer serial numbers are found by value."""
    parsed = parse_crl(crl(CA, [entry(1000), entry(listed), entry(1001)]))
    assert parsed.find(asked) is not None
    assert parsed.find(asked + b"\x01") is None
    assert parsed.find(b"\x33") is None


def test_a_serial_inside_other_data_is_no_hit() -> None:
    """CRL-16: the octets of an INTEGER with our serial inside a longer serial or an extension are not our entry."""
    inside_serial = entry(b"\x12\x02\x01\x05\x13")
    inside_extension = entry(77, (UNKNOWN_OID, False, integer(5) + utc(NOW)))
    parsed = parse_crl(crl(CA, [inside_serial, inside_extension]))
    assert parsed.find(b"\x05") is None
    listed = parse_crl(crl(CA, [inside_serial, inside_extension, entry(5)]))
    assert listed.find(b"\x05") is not None


@pytest.mark.parametrize("size", [0, 1, 20, 5000])
def test_finds_every_entry_and_only_these(size: int) -> None:
    """CRL-16: look-up agrees with a plain set over lists of any length."""
    serials = {(n * 7919 + 1) << (n % 90) for n in range(size)}
    parsed = parse_crl(crl(CA, [entry(s) for s in serials]))
    assert parsed.entry_count == len(serials)
    for serial in [*list(serials)[:200], 3, 1 << 100, 7919 * 3]:
        content = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
        assert (parsed.find(content) is not None) == (serial in serials)


@pytest.mark.parametrize(
    ("code", "name"),
    [(0, "unspecified"), (1, "keyCompromise"), (6, "certificateHold"), (7, "code 7"), (8, "removeFromCRL"),
     (9, "privilegeWithdrawn"), (10, "aACompromise"), (11, "code 11"), (127, "code 127")],
)  # fmt: skip
def test_reasons_by_name(code: int, name: str) -> None:
    """RFC 5280 §5.3.1: the codes of CRLReason, 7 not being used."""
    found = parse_crl(crl(CA, [entry(5, reason(code))])).find(b"\x05")
    assert found is not None
    assert found.reason == name


def test_entry_details() -> None:
    """RFC 5280 §5.3.2: invalidityDate and GeneralizedTime are read; a broken date or reason leaves the entry listed."""
    found = parse_crl(crl(CA, [entry(5, reason(4), invalidity(NOW - 9 * DAY), general=True)])).find(b"\x05")
    assert found is not None
    assert (found.invalid_since, found.revoked_at, found.reason) == (NOW - 9 * DAY, NOW - DAY, "superseded")
    broken = seq(integer(5), node(0x17, b"269901000000Z"), seq(seq(node(6, b"\x55\x1d\x15"), node(4, b"\x0a\x02"))))
    found = parse_crl(crl(CA, [broken])).find(b"\x05")
    assert found is not None
    assert (found.revoked_at, found.reason) == (None, "code -1")


def test_unknown_critical_extensions_are_recorded() -> None:
    """CRL-13: the OID of an unknown critical extension is kept; a non-critical one is nothing."""
    assert parse_crl(crl(CA, extensions=[number(1), CRITICAL_UNKNOWN])).unknown_critical == (UNKNOWN_OID,)
    assert parse_crl(crl(CA, extensions=[(UNKNOWN_OID, False, b"")])).unknown_critical == ()


@pytest.mark.parametrize("position", [0, 5, 9])
def test_unknown_critical_extension_of_any_entry_is_recorded(position: int) -> None:
    """CRL-14: wherever in the list the entry is."""
    entries = [entry(100 + n, reason(1)) for n in range(10)]
    entries[position] = entry(55, reason(1), CRITICAL_UNKNOWN)
    assert parse_crl(crl(CA, entries)).unknown_critical_entry == UNKNOWN_OID
    entries[position] = entry(55, reason(1), (UNKNOWN_OID, False, b""))
    assert parse_crl(crl(CA, entries)).unknown_critical_entry == ""


def test_entries_of_other_issuers_are_told_apart() -> None:
    """CRL-15: certificateIssuer holds for its entry and all after it, not for those before."""
    entries = [entry(5), entry(6, certificate_issuer(name_of(OTHER))), entry(7)]
    parsed = parse_crl(crl(CA, entries, extensions=[scope(indirect=True)]))
    assert parsed.indirect
    assert parsed.carries_others
    own, others = name_of(CA), name_of(OTHER)
    for issuer, theirs in ((None, {5}), (own, {5}), (others, {6, 7})):
        assert {s for s in (5, 6, 7) if parsed.find(bytes((s,)), issuer)} == theirs
    assert not parse_crl(PLAIN).indirect
    assert not parse_crl(PLAIN).carries_others
    assert parse_crl(PLAIN).find(b"\x05", others) is None


def test_t19_the_same_number_of_two_issuers() -> None:
    """CRL-15, T-19: each issuer has its own entry of a number, also when the CRL goes back and forth between issuers."""
    third = name_of(authority("Third", kind="p256"))
    entries = [
        entry(5, reason(1)),
        entry(5, reason(3), certificate_issuer(name_of(OTHER))),
        entry(5, reason(4), certificate_issuer(third)),
        entry(6, certificate_issuer(name_of(OTHER))),
        entry(7, certificate_issuer(name_of(CA))),
    ]
    parsed = parse_crl(crl(CA, entries, extensions=[scope(indirect=True)]))
    found = [parsed.find(b"\x05", issuer) for issuer in (None, name_of(OTHER), third)]
    assert [f.reason for f in found if f] == ["keyCompromise", "affiliationChanged", "superseded"]
    assert parsed.find(b"\x06", third) is None
    assert parsed.find(b"\x06", name_of(OTHER)) is not None
    assert parsed.find(b"\x07") is not None


def test_pointers_to_deltas_are_kept() -> None:
    """CRL-18: freshestCRL is read like distribution points; one that can't be read doesn't spoil the CRL."""
    point = seq(node(0xA0, full_name(uri("http://crl.example.test/delta.crl"))))
    parsed = parse_crl(crl(CA, extensions=[number(1), ("2.5.29.46", False, seq(point))]))
    assert [p.name.text() for p in parsed.freshest if p.name] == ["http://crl.example.test/delta.crl"]
    assert parse_crl(crl(CA, extensions=[("2.5.29.46", False, b"\x05\x00")])).freshest == ()


@pytest.mark.parametrize(
    ("key_kind", "kind"),
    [("rsa2048", "sha1"), ("rsa2048", "sha256"), ("rsa2048", "sha384"), ("rsa2048", "sha512"), ("rsa2048", "pss"),
     ("p256", "ecdsa-sha256"), ("p384", "ecdsa-sha256"), ("p256", "ecdsa-sha1"), ("ed25519", "ed25519")],
)  # fmt: skip
def test_signatures(key_kind: str, kind: str) -> None:
    """CRL-6: each algorithm verifies over the octets as received; another key, or one changed octet, doesn't."""
    ca = authority(f"Signing {key_kind}", kind=key_kind)
    good = crl(ca, [entry(5)], kind=kind)
    assert signature_valid(parse_crl(good), ca.certificate.spki)
    assert not signature_valid(parse_crl(good), authority("Stranger", kind=key_kind).certificate.spki)
    assert not signature_valid(parse_crl(good), authority("Stranger", kind="rsa3072").certificate.spki)
    changed = good.replace(utc(NOW - DAY), utc(NOW - 2 * DAY))
    assert changed != good
    assert not signature_valid(parse_crl(changed), ca.certificate.spki)


def test_signature_is_over_the_bytes_as_received() -> None:
    """CRL-6: a CRL that another encoder would write differently (GeneralizedTime before 2050) still verifies."""
    der = crl(CA, [entry(5, general=True)], this_update=generalized(NOW - HOUR))
    assert signature_valid(parse_crl(der), CA.certificate.spki)


def test_an_unusable_key_verifies_nothing() -> None:
    """CRL-6: garbage instead of a key is no exception, and a signature of no octets isn't one."""
    assert not signature_valid(parse_crl(PLAIN), b"\x30\x00")
    spoilt = parse_crl((VECTORS / "PKITS_data" / "crls" / "BadCRLSignatureCACRL.crl").read_bytes())
    bad_ca = load_certificate((VECTORS / "PKITS_data" / "certs" / "BadCRLSignatureCACert.crt").read_bytes())
    assert spoilt.signature == b""
    assert not signature_valid(spoilt, bad_ca.spki)


def test_md5_never_verifies() -> None:
    """CRL-6: not even with the right key."""
    ca = authority("MD5", kind="rsa2048")
    assert not signature_valid(parse_crl(crl(ca, kind="md5")), ca.certificate.spki)


def test_a_large_list_costs_little_memory() -> None:
    """CRL-14: the one pass over the entries keeps some octets per entry, not objects."""
    der = crl(CA, [entry((n << 64) + n, reason(n % 6)) for n in range(20_000)])
    tracemalloc.start()
    try:
        parsed = parse_crl(der)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parsed.entry_count == 20_000
    assert used < 8 * 20_000 + len(der)


def test_the_window_for_a_newer_one() -> None:
    """CACHE-2: between half and four fifths of the time from thisUpdate to nextUpdate."""
    parsed = parse_crl(crl(CA, this_update=utc(NOW), next_update=utc(NOW + 10 * DAY)))
    assert refresh_window(parsed) == (NOW + 5 * DAY, NOW + 8 * DAY)
    assert refresh_window(parse_crl(crl(CA, next_update=b""))) is None
    forever = parse_crl(crl(CA, next_update=generalized(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))))
    assert refresh_window(forever) is not None


def test_a_key_is_not_confused_by_curve() -> None:
    """CRL-6: an RSA signature doesn't verify with an EC key and the other way round."""
    rsa = authority("RSA CA")
    assert not signature_valid(parse_crl(crl(rsa)), CA.certificate.spki)
    assert not signature_valid(parse_crl(crl(CA, key=key("p384", "x"))), rsa.certificate.spki)
