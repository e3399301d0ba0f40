"""core.ciphers: which cipher and key transport a recipient gets, and why (ALG-1 to ALG-4)."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509

from postseal.core.capabilities import EXTENSION, Capability, encode_capabilities, oaep_capability
from postseal.core.certs import Certificate, load_certificate
from postseal.core.ciphers import (
    Choice,
    CipherRule,
    Known,
    NoFit,
    Pack,
    Remembered,
    Source,
    WeakOnly,
    choose,
    common,
    known_of,
)
from postseal.core.cms.structures import SUITE_OID
from postseal.core.der import SEQUENCE, Cursor, tlv
from postseal.core.suite import KeyTransport, Suite
from support.pki import NOW, Authority, authority

CBC128, CBC192, CBC256 = Suite.AES_128_CBC, Suite.AES_192_CBC, Suite.AES_256_CBC
GCM128, GCM256 = Suite.AES_128_GCM, Suite.AES_256_GCM
PKCS1, OAEP = KeyTransport.PKCS1, KeyTransport.OAEP_SHA256
TRIPLE_DES, RC2 = Capability("1.2.840.113549.3.7"), Capability("1.2.840.113549.3.2", b"\x02\x01\x28")


def can(*what: Suite | str | Capability) -> tuple[Capability, ...]:
    """Capabilities: suites, names of OAEP hashes, or as they are."""
    found = []
    for each in what:
        if isinstance(each, Suite):
            found.append(Capability(SUITE_OID[each].dotted_string))
        else:
            found.append(oaep_capability(each) if isinstance(each, str) else each)
    return tuple(found)


@cache
def root() -> Authority:
    return authority("Cipher Root")


@cache
def leaf(kind: str = "rsa2048", listed: tuple[Capability, ...] | None = None) -> Certificate:
    extra = []
    if listed is not None:
        value = encode_capabilities(listed)
        extra = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(EXTENSION), value), False)]
    return root().issue("b@example.test", kind=kind, extra=extra).certificate


def signed(*what: Suite | str | Capability, best: frozenset[Suite] = frozenset(), oaep: bool = False) -> Remembered:
    return Remembered(can(*what), NOW - timedelta(days=3), "ab" * 32, NOW, best, oaep)


def chosen(rule: CipherRule, *what: Suite | str | Capability, kind: str = "rsa2048") -> Choice | NoFit:
    known = known_of(leaf(kind), signed(*what)) if what else Known()
    return choose(rule, leaf(kind), known)


def pair(choice: Choice | NoFit) -> tuple[Suite, KeyTransport | None]:
    assert isinstance(choice, Choice), choice
    return choice.suite, choice.transport


@pytest.mark.parametrize(
    ("pack", "listed", "expected"),
    [
        # nothing known, only old things known, everything known
        (Pack.DEFAULT, (), (CBC256, PKCS1)),
        (Pack.DEFAULT, (CBC128,), (CBC256, PKCS1)),
        (Pack.DEFAULT, (CBC256, CBC128, "sha256"), (CBC256, OAEP)),
        (Pack.DEFAULT, (GCM256, GCM128, CBC256), (GCM256, PKCS1)),
        (Pack.DEFAULT, (GCM128, CBC256, CBC128), (GCM128, PKCS1)),
        (Pack.DEFAULT, (GCM256, "sha384"), (GCM256, KeyTransport.OAEP_SHA384)),
        (Pack.DEFAULT, ("sha512", "sha256"), (CBC256, OAEP)),
        (Pack.DEFAULT, ("sha1",), (CBC256, PKCS1)),
        (Pack.LEGACY, (), (CBC128, PKCS1)),
        (Pack.LEGACY, (GCM256, GCM128, CBC256, "sha256"), (CBC256, PKCS1)),
        (Pack.LEGACY, (GCM256, GCM128), (CBC128, PKCS1)),
        (Pack.BSI_ENERGY, (), (GCM128, OAEP)),
        (Pack.BSI_ENERGY, (CBC128,), (GCM128, OAEP)),
        (Pack.BSI_ENERGY, (GCM256, GCM128, "sha512"), (GCM128, KeyTransport.OAEP_SHA512)),
        (Pack.FIPS, (), (CBC256, OAEP)),
        (Pack.FIPS, (GCM256,), (GCM256, OAEP)),
        (Pack.FIPS, (CBC128,), (CBC256, OAEP)),
    ],
)
def test_packs(pack: Pack, listed: tuple[Suite | str, ...], expected: tuple[Suite, KeyTransport]) -> None:
    """ALG-1, ALG-3, ALG-4: what is listed raises, and never lowers; packs name what they want."""
    assert pair(chosen(CipherRule(pack), *listed)) == expected


@pytest.mark.parametrize(
    ("rule", "listed", "expected"),
    [
        (CipherRule(floor=CBC256), (GCM128, CBC256), CBC256),  # GCM doesn't make up for the shorter key
        (CipherRule(floor=CBC256), (GCM256,), GCM256),
        (CipherRule(ceiling=CBC256), (GCM256,), CBC256),
        (CipherRule(ceiling=CBC128), (), CBC128),
        (CipherRule(ceiling=GCM128), (GCM256, GCM128), GCM128),
        (CipherRule(ceiling=GCM128), (), CBC128),
        (CipherRule(Pack.LEGACY, floor=CBC192), (), CBC192),
        (CipherRule(Pack.BSI_ENERGY, CBC256), (), CBC256),
        (CipherRule(Pack.BSI_ENERGY, CBC256), (GCM128,), GCM128),
        (CipherRule(Pack.BSI_ENERGY, ceiling=CBC256), (), CBC128),
        (CipherRule(suite=GCM256), (), GCM256),
        (CipherRule(suite=GCM256), (CBC256,), GCM256),
        (CipherRule(suite=CBC128), (CBC192, GCM128), GCM128),
        (CipherRule(suite=CBC128), (CBC192,), CBC192),
        (CipherRule(floor=GCM128), (GCM128, CBC256), GCM128),
    ],
)
def test_floor_ceiling_and_a_named_cipher(rule: CipherRule, listed: tuple[Suite, ...], expected: Suite) -> None:
    """ALG-3: GCM only where it is listed or named."""
    assert rule.contradiction() == ""
    assert pair(chosen(rule, *listed))[0] is expected


def test_none_fits_is_an_answer() -> None:
    """A floor of GCM is for who says that he reads it."""
    found = chosen(CipherRule(floor=GCM128))
    assert isinstance(found, NoFit)
    assert found.code == "cipher.none-fits"
    assert "aes128-gcm, aes256-gcm" in found.detail


def test_3des_is_never_written() -> None:
    """ALG-1: who lists only what is broken gets AES-128, or nothing."""
    assert pair(chosen(CipherRule(), TRIPLE_DES, RC2))[0] is CBC128
    assert pair(chosen(CipherRule(floor=CBC256), TRIPLE_DES))[0] is CBC256
    assert pair(chosen(CipherRule(suite=CBC256), TRIPLE_DES))[0] is CBC256
    assert pair(chosen(CipherRule(), TRIPLE_DES, CBC256))[0] is CBC256
    assert pair(chosen(CipherRule(), Capability("2.16.840.1.101.3.4.2.1")))[0] is CBC256
    refused = chosen(CipherRule(weak_only=WeakOnly.REFUSE), TRIPLE_DES)
    assert isinstance(refused, NoFit)
    assert refused.code == "cipher.weak-only"


@pytest.mark.parametrize(
    ("kind", "pack", "expected"),
    [
        ("p256", Pack.DEFAULT, "ecdh"),
        ("p384", Pack.FIPS, "ecdh"),
        ("p521", Pack.BSI_ENERGY, "ecdh"),
        ("rsa2048", Pack.FIPS, "oaep-sha256"),
    ],
)
def test_key_kinds(kind: str, pack: Pack, expected: str) -> None:
    """An EC key has no key transport; its word in the log is ecdh."""
    found = chosen(CipherRule(pack), kind=kind)
    assert isinstance(found, Choice)
    assert found.key == expected


def test_curves_of_a_pack() -> None:
    """SP 800-56A doesn't list Brainpool curves, EDI@Energy does."""
    assert isinstance(chosen(CipherRule(Pack.BSI_ENERGY), kind="bp256"), Choice)
    found = chosen(CipherRule(Pack.FIPS), kind="bp256")
    assert isinstance(found, NoFit)
    assert found.code == "cipher.key-excluded"


def _oaep_only(parameters: bytes) -> Certificate:
    """The RSA certificate with id-RSAES-OAEP as the algorithm of its key; nobody looks at the signature here."""
    der = leaf().der
    old = bytes.fromhex("300d06092a864886f70d0101010500")
    new = bytes.fromhex("06092a864886f70d010107") + parameters
    assert der.count(old) == 1
    outer = Cursor(der).enter()
    tbs, rest = outer.enter(), []
    while outer.peek() >= 0:
        rest.append(outer.raw())
    fields = []
    while tbs.peek() >= 0:
        field = tbs.raw()
        if old in field and field[0] == SEQUENCE:
            key = Cursor(field).enter()
            key.raw()
            field = tlv(SEQUENCE, tlv(SEQUENCE, new), key.raw())
        fields.append(field)
    return load_certificate(tlv(SEQUENCE, tlv(SEQUENCE, *fields), *rest))


@pytest.mark.parametrize("pack", Pack)
def test_a_key_for_oaep_only_is_used_with_oaep(pack: Pack) -> None:
    """ALG-4, RFC 4055 §4.1: whatever rule and capabilities say; with the parameters that the key names."""
    for parameters, expected in ((b"", OAEP), (oaep_capability("sha512").parameters, KeyTransport.OAEP_SHA512)):
        certificate = _oaep_only(parameters)
        assert pair(choose(CipherRule(pack), certificate, Known()))[1] is expected
    refused = choose(CipherRule(pack), _oaep_only(b"\x30\x00"), Known())
    assert isinstance(refused, NoFit), "SHA-1 isn't written"
    assert refused.code == "cipher.key-excluded"


def test_what_was_signed_comes_before_the_certificate() -> None:
    """ALG-2, RFC 4262 §1: the CA's list is old; the signed one counts alone, even when it says less."""
    certificate = leaf(listed=can(GCM256))
    by_extension = choose(CipherRule(), certificate, known_of(certificate))
    assert isinstance(by_extension, Choice)
    assert (by_extension.suite, by_extension.source) == (GCM256, Source.CERTIFICATE)
    assert "extension of the certificate" in by_extension.why
    by_word = choose(CipherRule(), certificate, known_of(certificate, signed(CBC256)))
    assert isinstance(by_word, Choice)
    assert (by_word.suite, by_word.source) == (CBC256, Source.SIGNED)
    assert known_of(leaf()) == Known()


def test_the_reason_names_the_message_that_said_so() -> None:
    found = chosen(CipherRule(), GCM256, "sha256")
    assert isinstance(found, Choice)
    day = f"{NOW - timedelta(days=3):%Y-%m-%d %H:%M} UTC"
    assert found.why == (
        f"aes256-gcm because the recipient reads it (signed message of {day}); "
        f"oaep-sha256 because the recipient reads it (signed message of {day})"
    )
    assert found.listed == ("aes256-gcm", "oaep-sha256")


@pytest.mark.parametrize(
    ("rule", "now", "best", "oaep", "fallen"),
    [
        (CipherRule(), (CBC256,), {GCM256, CBC256}, False, "aes256-cbc, though the recipient once said"),
        (CipherRule(), (GCM128,), {GCM256, GCM128}, False, "aes128-gcm, though"),
        (CipherRule(), (CBC256,), {CBC256}, True, "pkcs1, though"),
        (CipherRule(), (GCM256,), {GCM256}, False, ""),
        (CipherRule(), (GCM256, "sha256"), {GCM256}, True, ""),
        # The administrator's doing, not the recipient's.
        (CipherRule(ceiling=CBC256), (CBC256,), {GCM256}, False, ""),
        (CipherRule(ceiling=CBC256), (GCM256,), {GCM256}, False, ""),
        (CipherRule(Pack.LEGACY), (CBC256,), {CBC256, GCM256}, True, ""),
        (CipherRule(transport=PKCS1), (GCM256,), {GCM256}, True, ""),
        (CipherRule(Pack.FIPS), (CBC256,), {CBC256}, True, ""),
        (CipherRule(suite=GCM256), (CBC256,), {GCM256}, False, ""),
    ],
)
def test_less_than_once_is_noticed(
    rule: CipherRule, now: tuple[Suite | str, ...], best: set[Suite], oaep: bool, fallen: str
) -> None:
    known = known_of(leaf(), signed(*now, best=frozenset(best), oaep=oaep))
    found = choose(rule, leaf(), known)
    assert isinstance(found, Choice)
    assert found.fallen.startswith(fallen)
    assert bool(found.fallen) == bool(fallen)


def test_one_suite_for_several() -> None:
    """ALG-3: the intersection, the best of it; none when there is none."""
    gcm, cbc = chosen(CipherRule(), GCM256), chosen(CipherRule())
    assert isinstance(gcm, Choice)
    assert isinstance(cbc, Choice)
    assert common([gcm.others, cbc.others]) is CBC256
    assert common([gcm.others, gcm.others]) is GCM256
    assert common([(GCM256,), (CBC256,)]) is None
    assert common([]) is None


def test_a_hash_that_the_key_has_no_room_for_is_not_chosen() -> None:
    """RFC 8017 §7.1.1: with [revocation] weak_keys short keys are let through; what can't be done must not be promised."""
    short = leaf("rsa1024")
    for hashes, expected in ((("sha512", "sha384"), PKCS1), (("sha512", "sha256"), OAEP), ((), PKCS1)):
        assert pair(choose(CipherRule(), short, known_of(short, signed(CBC256, *hashes))))[1] is expected
    assert pair(choose(CipherRule(Pack.FIPS), short, known_of(short, signed("sha512"))))[1] is OAEP
    refused = choose(CipherRule(transport=KeyTransport.OAEP_SHA512), short, Known())
    assert isinstance(refused, NoFit)
    assert refused.detail == "its RSA key of 1024 bits is too short for oaep-sha512, but the rule says so"
    assert pair(choose(CipherRule(transport=KeyTransport.OAEP_SHA512), leaf("rsa2048"), Known()))[1] == "oaep-sha512"


def test_the_rule_names_the_hash_where_a_key_for_oaep_only_names_none() -> None:
    """RFC 4055 §1.2: without parameters the choice is the sender's: the rule's, else by what the recipient reads."""
    longest = KeyTransport.OAEP_SHA512
    for parameters in (b"", b"\x05\x00"):
        free = _oaep_only(parameters)
        assert pair(choose(CipherRule(transport=longest), free, Known()))[1] is longest
        assert pair(choose(CipherRule(transport=PKCS1), free, Known()))[1] is OAEP
        assert pair(choose(CipherRule(Pack.LEGACY), free, Known()))[1] is OAEP
        assert pair(choose(CipherRule(), free, known_of(free, signed("sha512"))))[1] is longest


def test_the_choice_is_ascribed_to_who_made_it() -> None:
    """A bound of the rule may leave out what is usual, and a pack PKCS #1 v1.5 to who reads OAEP."""
    cases = (
        (
            CipherRule(Pack.LEGACY, floor=CBC256),
            "aes256-cbc because floor=aes256-cbc excludes aes128-cbc, which is usual",
        ),
        (CipherRule(Pack.BSI_ENERGY, ceiling=CBC256), "aes128-cbc because ceiling=aes256-cbc excludes aes128-gcm"),
        (CipherRule(Pack.LEGACY), "aes128-cbc because that is usual under ciphers=legacy; pkcs1 because that is usual"),
        (CipherRule(), "aes256-cbc because that is usual under ciphers=default; pkcs1 because nothing says"),
    )
    for rule, words in cases:
        found = chosen(rule)
        assert isinstance(found, Choice)
        assert found.why.startswith(words)
    found = chosen(CipherRule(Pack.LEGACY), "sha256")
    assert isinstance(found, Choice)
    assert found.why.endswith("; pkcs1 because that is usual under ciphers=legacy")
