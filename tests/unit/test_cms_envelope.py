"""Envelopes: streams that don't depend on their chunks, one ciphertext for two envelopes, and a reader of what was built."""

from __future__ import annotations

import dataclasses
import os
import threading

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

from postseal.core.certs import load_certificate
from postseal.core.cms import built as built_reader
from postseal.core.cms import structures as cms
from postseal.core.cms.built import check_built
from postseal.core.cms.content import ContentOpener, ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.der import Cursor, tlv
from postseal.core.errors import BadData
from postseal.core.policy import clear_by_operator
from postseal.core.suite import Suite, Wrap
from support.cms import KINDS, cleared, recipient, sealed, sealed_parts
from support.pki import DAY, NOW, authority, hash_for, name


def seal_in(suite: Suite, key: bytes, iv: bytes, content: bytes, chunk: int) -> tuple[bytes, bytes]:
    sealer = ContentSealer(suite, key, iv)
    pieces = [sealer.update(content[start : start + chunk]) for start in range(0, len(content), chunk)]
    return b"".join((*pieces, sealer.finish())), sealer.tag


@pytest.mark.parametrize("suite", list(Suite))
def test_the_ciphertext_does_not_depend_on_the_chunks(suite: Suite) -> None:
    key, iv, content = os.urandom(suite.key_length), os.urandom(suite.iv_length), os.urandom(200_003)
    whole = seal_in(suite, key, iv, content, len(content))
    for chunk in (7, 16, 65535, 65536, 65537):
        assert seal_in(suite, key, iv, content, chunk) == whole
    for chunk in (7, 16, 65535, 65537):
        opener = ContentOpener(suite, key, iv, whole[1])
        pieces = [opener.update(whole[0][start : start + chunk]) for start in range(0, len(whole[0]), chunk)]
        assert b"".join((*pieces, opener.finish())) == content


def test_gcm_is_that_of_the_library() -> None:
    key, iv = os.urandom(32), os.urandom(12)
    ciphertext, tag = seal_in(Suite.AES_256_GCM, key, iv, b"hello", 5)
    assert ciphertext + tag == AESGCM(key).encrypt(iv, b"hello", None)


def test_streams_in_many_threads_do_not_share_their_buffers() -> None:
    """The cipher releases the interpreter lock in the middle of a chunk: a shared buffer would mix two messages."""
    suite, content = Suite.AES_256_CBC, [bytes([i]) * 60_000 for i in range(8)]
    key, iv = os.urandom(32), os.urandom(16)
    expected = [seal_in(suite, key, iv, each * 20, 60_000)[0] for each in content]
    results: list[bool] = []

    def work(number: int) -> None:
        for _ in range(5):
            results.append(seal_in(suite, key, iv, content[number] * 20, 60_000)[0] == expected[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 40


@pytest.mark.parametrize("suite", list(Suite))
def test_damaged_ciphertext_of_our_own_is_noticed(suite: Suite) -> None:
    """ALG-7: nothing is finished that was cut."""
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    ciphertext, tag = seal_in(suite, key, iv, b"x" * 40, 40)
    opener = ContentOpener(suite, key, iv, tag)
    opener.update(ciphertext[:-1])
    with pytest.raises(BadData, match="damaged"):
        opener.finish()


@pytest.mark.parametrize("suite", list(Suite))
def test_wrong_lengths_of_key_iv_and_tag_are_refused(suite: Suite) -> None:
    key, iv = os.urandom(suite.key_length), os.urandom(suite.iv_length)
    for wrong in ((key[1:], iv), (key, iv[1:]), (key + b"x", iv)):
        with pytest.raises(BadData, match="needs a key"):
            ContentSealer(suite, *wrong)
    with pytest.raises(BadData, match="at least one recipient"):
        envelope(suite, key, [], iv, 16, bytes(16) if suite.gcm else b"")
    with pytest.raises(BadData, match="tag exactly when"):
        envelope(suite, key, cleared([recipient()]), iv, 16, b"" if suite.gcm else bytes(16))
    if suite.gcm:
        with pytest.raises(BadData, match="tag of 16"):
            ContentOpener(suite, key, iv, bytes(12))


@pytest.mark.parametrize("suite", list(Suite))
def test_one_ciphertext_serves_two_envelopes(suite: Suite) -> None:
    """RSA and EC recipients get envelopes of their own (P16) around the same octets."""
    key, iv, content = os.urandom(suite.key_length), os.urandom(suite.iv_length), os.urandom(5000)
    ciphertext, tag = seal_in(suite, key, iv, content, 1000)
    for kinds in (("rsa2048",), ("p256", "p384", "p521")):
        leaves = [recipient(kind) for kind in kinds]
        head, tail = envelope(suite, key, cleared(leaves), iv, len(ciphertext), tag)
        check_built(head, tail, len(ciphertext), cleared(leaves))
        for leaf in leaves:
            assert open_enveloped(head + ciphertext + tail, leaf.key, leaf.certificate) == content


def test_versions_are_those_of_the_rfcs() -> None:
    """RFC 5652 §6.1: 0 with key transport by issuer alone, 2 with key agreement. RFC 5083 §2.1: always 0."""

    def version(suite: Suite, *kinds: str) -> int:
        info = asn1.decode_der(cms.ContentInfo, sealed(suite, [recipient(kind) for kind in kinds], b"x"))
        return cms.integer(cms.elements(info.content)[0])

    assert version(Suite.AES_256_CBC, "rsa2048") == 0
    assert version(Suite.AES_256_CBC, "rsa2048", "p256") == 2
    assert version(Suite.AES_256_GCM, "p256") == 0


def test_recipients_are_a_sorted_set_and_keys_are_wrapped_for_each() -> None:
    leaves = [recipient(kind, slot) for slot, kind in enumerate(("p256", "rsa2048", "p384", "rsa2048"))]
    head, ciphertext, tail = sealed_parts(Suite.AES_256_CBC, leaves, b"x")
    # The strict decoder refuses a SET OF that isn't in order.
    assert len(parse_enveloped(head + ciphertext + tail).recipients) == 4


@pytest.mark.parametrize(("kind", "kdf"), [("p256", "sha256"), ("p384", "sha384"), ("p521", "sha512")])
@pytest.mark.parametrize(
    ("suite", "length"), [(Suite.AES_128_CBC, 16), (Suite.AES_256_CBC, 32), (Suite.AES_256_GCM, 32)]
)
def test_key_agreement_follows_curve_and_content_key(kind: str, kdf: str, suite: Suite, length: int) -> None:
    (info,) = parse_enveloped(sealed(suite, [recipient(kind)], b"x")).recipients
    assert isinstance(info, cms.KeyAgreeRecipientInfo)
    scheme, wrap = cms.algorithm_of(info.key_encryption_algorithm)
    assert cms.STD_DH[scheme].hash == kdf
    assert wrap is not None
    assert cms.AES_WRAP[cms.algorithm_of(wrap)[0]] == length
    assert info.ukm is None


def test_the_issuer_stands_octet_for_octet_as_in_the_certificate() -> None:
    """A name in an old string type must not be written anew: readers compare octets."""
    private = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Büro", _type=x509.name._ASN1Type.T61String)])
    built = (
        x509.CertificateBuilder().subject_name(name("x")).issuer_name(issuer).public_key(private.public_key())
        .serial_number(2**158).not_valid_before(NOW).not_valid_after(NOW + DAY).sign(private, hash_for(private))
    )  # fmt: skip
    certificate = load_certificate(built.public_bytes(Encoding.DER))
    rid = cms.issuer_and_serial(certificate.der)
    assert asn1.encode_der(rid.issuer) == issuer.public_bytes()
    assert b"\x14" in asn1.encode_der(rid.issuer)
    assert rid.serial.data == (2**158).to_bytes(20, "big")


@pytest.mark.parametrize("kind", ["ed25519"])
def test_a_key_that_cannot_encrypt_is_refused(kind: str) -> None:
    with pytest.raises(BadData, match="can't be used to encrypt"):
        sealed(Suite.AES_256_CBC, [recipient(kind)], b"x")


# --- reading back what was built ---


@pytest.fixture(params=list(Suite))
def built(request: pytest.FixtureRequest) -> tuple[bytes, bytes, int]:
    head, ciphertext, tail = sealed_parts(request.param, [recipient(kind) for kind in KINDS], b"x" * 100)
    return head, tail, len(ciphertext)


def test_what_was_built_is_accepted(built: tuple[bytes, bytes, int]) -> None:
    head, tail, length = built
    check_built(head, tail, length, cleared([recipient(kind) for kind in reversed(KINDS)]))


def test_other_recipients_than_the_cleared_ones_are_noticed(built: tuple[bytes, bytes, int]) -> None:
    head, tail, length = built
    leaves = [recipient(kind) for kind in KINDS]
    wrong = [
        leaves[1:],
        [*leaves, recipient("rsa2048", 1)],
        [*leaves[1:], recipient("rsa2048", 1)],
        [*leaves, leaves[0]],
    ]
    for each in wrong:
        with pytest.raises(BadData, match="recipients that policy cleared"):
            check_built(head, tail, length, cleared(each))


def test_same_serial_number_of_another_issuer_is_noticed() -> None:
    head, ciphertext, tail = sealed_parts(Suite.AES_256_CBC, [recipient()], b"x")
    twin = dataclasses.replace(recipient().certificate)
    check_built(head, tail, len(ciphertext), [clear_by_operator(twin)])
    other = authority("Another root").issue("x@example.test", serial=recipient().certificate.serial)
    with pytest.raises(BadData, match="recipients that policy cleared"):
        check_built(head, tail, len(ciphertext), cleared([other]))


def test_lengths_that_do_not_fit_are_noticed(built: tuple[bytes, bytes, int]) -> None:
    head, tail, length = built
    people = cleared([recipient(kind) for kind in KINDS])
    cuts = [
        (head[1:], tail, length),
        (head[:40], tail, length),
        (b"", b"", 0),
        (head, tail[:-1] if tail else b"x", length),
    ]
    for wrong in ((head, tail, length + 1), (head + b"\0", tail, length), (head, tail + b"\0", length), *cuts):
        with pytest.raises(BadData, match="malformed"):
            check_built(*wrong, people)
    for place in range(12):
        spoilt = bytearray(head)
        spoilt[place] ^= 1
        with pytest.raises(BadData):
            check_built(bytes(spoilt), tail, length, people)


@pytest.mark.parametrize("wrap", [Wrap(), Wrap(by_key_id=True)], ids=["issuer", "key identifier"])
def test_the_short_way_through_recipients_finds_what_the_library_finds(wrap: Wrap) -> None:
    """Or it finds nothing and leaves them to the library: whatever octet is wrong, in whatever order they come."""
    leaves = [recipient("rsa2048", slot) for slot in range(3)]
    head, _, _ = sealed_parts(Suite.AES_256_CBC, leaves, b"x", wrap=wrap)
    recipients = Cursor(head, head.index(b"\x31\x82")).raw(0x31)
    infos = Cursor(recipients).enter(0x31)
    first, second, third = (recipients[each.start : each.end] for each in infos.children())

    def by_library(octets: bytes) -> list[tuple[bytes, bytes, int]] | None:
        try:
            found = asn1.decode_der(built_reader._Recipients, tlv(0x30, octets)).infos.as_list()
            return [each for info in found for each in built_reader._found(info, 32)]
        except ValueError:
            return None

    assert built_reader._transported(recipients) == by_library(recipients) != []
    others = [third + second + first, first + third + second, second, first[:280], b""]
    for place in range(len(second) - 256):
        others += [first + second + third[:place], first + second + third + bytes(place)]
        for bit in range(8):
            spoilt = bytearray(second)
            spoilt[place] ^= 1 << bit
            others.append(first + bytes(spoilt) + third)
    found = 0
    for other in others:
        read = built_reader._transported(tlv(0x31, other))
        assert read is None or read == by_library(tlv(0x31, other))
        found += read is not None
    # A name or an algorithm that is another one is read as such: whose name it is, is compared afterwards.
    assert found > 100
