"""Opening: by whom, with which cipher and wrap, in which pieces; and every failure alike (ALG-6, ALG-7)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from cryptography.hazmat import asn1
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.cms import structures as cms
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.opening import CANNOT_OPEN, UNAUTHENTICATED, WEAK_CIPHER, Reading, open_enveloped, unseal
from postseal.core.cms.unwrapping import Holder
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from postseal.sources.file_octets import FileOctets
from support.bombs import tlv
from support.cms import KINDS, recipient, sealed
from support.pki import Leaf

TRIPLE_DES = bytes.fromhex("06082a864886f70d0307")
NULL = b"\x05\x00"


def key_trans(leaf: Leaf, encrypted_key: bytes, algorithm: bytes) -> bytes:
    rid = asn1.encode_der(cms.issuer_and_serial(leaf.certificate.der))
    return tlv(0x30, b"\x02\x01\x00" + rid + tlv(0x30, algorithm) + tlv(0x04, encrypted_key))


def enveloped(infos: bytes, algorithm: bytes, ciphertext: bytes) -> bytes:
    content = tlv(0x30, asn1.encode_der(cms.DATA) + tlv(0x30, algorithm) + tlv(0x80, ciphertext))
    body = tlv(0x30, b"\x02\x01\x00" + tlv(0x31, infos) + content)
    return tlv(0x30, asn1.encode_der(cms.ENVELOPED_DATA) + tlv(0xA0, body))


def aes_256_cbc(key: bytes, content: bytes) -> tuple[bytes, bytes]:
    """(AlgorithmIdentifier's parts, ciphertext)."""
    iv = os.urandom(16)
    sealer = ContentSealer(Suite.AES_256_CBC, key, iv)
    return asn1.encode_der(cms.SUITE_OID[Suite.AES_256_CBC]) + tlv(0x04, iv), sealer.update(content) + sealer.finish()


RSA = asn1.encode_der(cms.RSA_ENCRYPTION)


# --- wraps ---


def test_missing_null_parameters_are_read() -> None:
    """RFC 3370 §4.2.1 wants NULL; some writers leave it out, for rsaEncryption and inside the parameters of OAEP."""
    leaf, key = recipient(), os.urandom(32)
    algorithm, ciphertext = aes_256_cbc(key, b"hello")
    wrapped = leaf.key.public_key().encrypt(key, PKCS1v15())
    for parameters in (b"", NULL):
        der = enveloped(key_trans(leaf, wrapped, RSA + parameters), algorithm, ciphertext)
        assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


HASHES = {
    "sha1": ("1.3.14.3.2.26", hashes.SHA1()), "sha224": ("2.16.840.1.101.3.4.2.4", hashes.SHA224()),
    "sha256": ("2.16.840.1.101.3.4.2.1", hashes.SHA256()), "sha384": ("2.16.840.1.101.3.4.2.2", hashes.SHA384()),
    "sha512": ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
}  # fmt: skip
MGF = asn1.encode_der(Oid("1.2.840.113549.1.1.8"))


@pytest.mark.parametrize("null", [b"", NULL], ids=["without NULL", "with NULL"])
@pytest.mark.parametrize("mask", HASHES)
@pytest.mark.parametrize("main", HASHES)
def test_every_combination_of_oaep_hashes_opens(main: str, mask: str, null: bytes) -> None:
    """ALG-4, RFC 4055 §4.1: what is SHA-1 may be left out, and often the mask is SHA-1 where the hash is not."""
    leaf, key = recipient(), os.urandom(32)
    algorithm, ciphertext = aes_256_cbc(key, b"hello")
    ids = [tlv(0x30, asn1.encode_der(Oid(HASHES[name][0])) + null) for name in (main, mask)]
    explicit = tlv(0xA0, ids[0]) + tlv(0xA1, tlv(0x30, MGF + ids[1]))
    shortest = (tlv(0xA0, ids[0]) if main != "sha1" else b"") + (
        tlv(0xA1, tlv(0x30, MGF + ids[1])) if mask != "sha1" else b""
    )
    for label in (None, b"label"):
        padding = OAEP(MGF1(HASHES[mask][1]), HASHES[main][1], label)
        wrapped = leaf.key.public_key().encrypt(key, padding)
        source = tlv(0xA2, tlv(0x30, asn1.encode_der(Oid("1.2.840.113549.1.1.9")) + tlv(0x04, label))) if label else b""
        for parameters in (explicit, shortest):
            oaep = asn1.encode_der(cms.RSAES_OAEP) + tlv(0x30, parameters + source)
            der = enveloped(key_trans(leaf, wrapped, oaep), algorithm, ciphertext)
            assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


@pytest.mark.parametrize("parameters", [b"", NULL, tlv(0x30, b"")], ids=["absent", "null", "empty"])
def test_oaep_without_parameters_is_sha1(parameters: bytes) -> None:
    leaf, key = recipient(), os.urandom(32)
    algorithm, ciphertext = aes_256_cbc(key, b"hello")
    wrapped = leaf.key.public_key().encrypt(key, OAEP(MGF1(hashes.SHA1()), hashes.SHA1(), None))
    oaep = asn1.encode_der(cms.RSAES_OAEP) + parameters
    der = enveloped(key_trans(leaf, wrapped, oaep), algorithm, ciphertext)
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


@pytest.mark.parametrize(
    "algorithm", [asn1.encode_der(cms.RSAES_OAEP) + tlv(0x30, tlv(0xA1, tlv(0x30, b"\x06\x01\x2a" + tlv(0x30, MGF)))),
                  asn1.encode_der(cms.RSAES_OAEP) + b"\x02\x01\x00", b"\x06\x01\x2a", asn1.encode_der(cms.EC_PUBLIC_KEY)],
    ids=["mask function", "parameters", "unknown", "key agreement"],
)  # fmt: skip
def test_a_transport_that_nobody_knows_fails_like_all_else(algorithm: bytes) -> None:
    """ALG-6."""
    leaf, key = recipient(), os.urandom(32)
    content, ciphertext = aes_256_cbc(key, b"hello")
    der = enveloped(key_trans(leaf, leaf.key.public_key().encrypt(key, PKCS1v15()), algorithm), content, ciphertext)
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_enveloped(der, leaf.key, leaf.certificate)


# --- Triple-DES ---


def triple_des(leaf: Leaf, content: bytes) -> bytes:
    key, iv = os.urandom(24), os.urandom(8)
    pad = 8 - len(content) % 8
    encryptor = Cipher(TripleDES(key), CBC(iv)).encryptor()
    ciphertext = encryptor.update(content + bytes((pad,)) * pad) + encryptor.finalize()
    info = key_trans(leaf, leaf.key.public_key().encrypt(key, PKCS1v15()), RSA + NULL)
    return enveloped(info, TRIPLE_DES + tlv(0x04, iv), ciphertext)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100_000])
def test_triple_des_is_read_where_it_is_allowed_and_warned_of(size: int) -> None:
    """ALG-6: a knob and a warning."""
    leaf, content = recipient(), os.urandom(size)
    der = triple_des(leaf, content)
    with pytest.raises(BadData, match="des-ede3-cbc, which postseal doesn't open unless it is allowed"):
        open_enveloped(der, leaf.key)
    opened = unseal(der, (Holder(leaf.key),), Reading(allow_3des=True))
    assert b"".join(opened.chunks()) == content
    assert opened.notes == (WEAK_CIPHER, UNAUTHENTICATED)
    assert (opened.cipher, opened.authenticated, opened.length) == ("des-ede3-cbc", False, size)


def test_other_ciphers_are_not_opened_by_the_same_knob() -> None:
    leaf = recipient()
    der = triple_des(leaf, b"hello").replace(TRIPLE_DES, bytes.fromhex("06082a864886f70d0302"))
    with pytest.raises(BadData, match="rc2-cbc, which postseal doesn't open"):
        open_enveloped(der, leaf.key, None, Reading(allow_3des=True))


# --- who ---


def test_whoever_of_several_holders_is_named_opens() -> None:
    """After a roll-over old mail is for the old key; what is in To and Cc says nothing about it."""
    old, new, stranger = recipient("rsa2048", 1), recipient("p256", 1), recipient("rsa2048", 2)
    holders = tuple(Holder(leaf.key, leaf.certificate) for leaf in (stranger, new, old))
    for leaf in (old, new):
        for suite in Suite:
            opened = unseal(sealed(suite, [leaf], b"hello"), holders)
            assert b"".join(opened.chunks()) == b"hello"
            assert opened.authenticated is suite.gcm
            assert opened.notes == (() if suite.gcm else (UNAUTHENTICATED,))
    with pytest.raises(BadData, match=CANNOT_OPEN):
        unseal(sealed(Suite.AES_256_CBC, [recipient("rsa2048", 3)], b"hello"), holders)


def test_a_key_without_certificate_finds_its_recipient_among_many() -> None:
    """A wrong key gives good padding once in 256: with 99 of them the one that gives text is taken."""
    leaf, key = recipient(), os.urandom(32)
    content = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + os.urandom(500)
    algorithm, ciphertext = aes_256_cbc(key, content)
    right = key_trans(leaf, leaf.key.public_key().encrypt(key, PKCS1v15()), RSA)
    for _ in range(3):
        infos = [key_trans(leaf, b"\x00" + os.urandom(255), RSA) for _ in range(99)]
        der = enveloped(b"".join((*infos, right)), algorithm, ciphertext)
        assert open_enveloped(der, leaf.key) == content


# --- pieces ---


class Watched:
    """Octets that tell how much of them was asked for at once."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.largest = 0

    def __len__(self) -> int:
        return len(self._octets)

    def __getitem__(self, at: int | slice) -> int | bytes:
        found = self._octets[at]
        if isinstance(found, bytes):
            self.largest = max(self.largest, len(found))
        return found


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
def test_a_large_message_is_opened_in_pieces(suite: Suite) -> None:
    """Neither ciphertext nor plaintext is ever held in whole, wherever the octets are."""
    leaf, content = recipient(), os.urandom(1_000_000)
    der = sealed(suite, [leaf], content)
    watched = Watched(der)
    opened = unseal(watched, (Holder(leaf.key),))  # type: ignore[arg-type]
    pieces = list(opened.chunks())
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 65536 + 16
    assert watched.largest <= 65536
    with tempfile.TemporaryFile() as file:
        file.write(der)
        file.flush()
        opened = unseal(FileOctets(file.fileno()), (Holder(leaf.key),))
    assert opened.length == len(content)
    assert b"".join(opened.chunks()) == b"".join(opened.chunks()) == content


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_256_GCM])
def test_octets_that_change_after_they_were_checked_are_noticed(suite: Suite) -> None:
    """ALG-7: GCM's tag is checked again at the end of the second pass; what was given out by then isn't complete."""
    leaf, content = recipient(), os.urandom(1_000_000)
    head = sealed(suite, [leaf], content)
    changing = bytearray(head)
    opened = unseal(changing, (Holder(leaf.key),))  # type: ignore[arg-type]
    changing[500_000] ^= 1
    if suite.gcm:
        with pytest.raises(BadData, match=CANNOT_OPEN):
            list(opened.chunks())
    else:
        assert b"".join(opened.chunks()) != content


def released(chunks: Iterator[bytes]) -> int:
    return sum(map(len, chunks))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_damaged_content_is_released(kind: str) -> None:
    """ALG-7: not one octet comes before the tag of all was checked."""
    leaf = recipient(kind)
    der = bytearray(sealed(Suite.AES_256_GCM, [leaf], bytes(300_000)))
    der[-100] ^= 1
    with pytest.raises(BadData, match=CANNOT_OPEN):
        unseal(bytes(der), (Holder(leaf.key, leaf.certificate),))


@pytest.mark.parametrize("suite", list(Suite))
def test_empty_content_is_sealed_and_opened(suite: Suite) -> None:
    """RFC 5652 §6.3: CBC pads empty content to one block; GCM has no ciphertext then, only its tag."""
    leaf = recipient()
    der = sealed(suite, [leaf], b"")
    opened = unseal(der, (Holder(leaf.key),))
    assert (opened.length, released(opened.chunks())) == (0, 0)


def test_a_ciphertext_of_nothing_is_no_cbc() -> None:
    leaf, key = recipient(), os.urandom(32)
    algorithm, _ = aes_256_cbc(key, b"")
    info = key_trans(leaf, leaf.key.public_key().encrypt(key, PKCS1v15()), RSA)
    for ciphertext in (b"", bytes(15), bytes(17)):
        with pytest.raises(BadData, match=CANNOT_OPEN):
            open_enveloped(enveloped(info, algorithm, ciphertext), leaf.key)


def test_content_that_is_elsewhere_is_refused() -> None:
    """RFC 5652 §6.1: encryptedContent is optional, for content that is kept elsewhere."""
    leaf = recipient()
    algorithm, _ = aes_256_cbc(os.urandom(32), b"")
    content = tlv(0x30, asn1.encode_der(cms.DATA) + tlv(0x30, algorithm))
    body = tlv(0x30, b"\x02\x01\x00" + tlv(0x31, key_trans(leaf, bytes(256), RSA)) + content)
    with pytest.raises(BadData, match="the content isn't in it"):
        open_enveloped(tlv(0x30, asn1.encode_der(cms.ENVELOPED_DATA) + tlv(0xA0, body)), leaf.key)


# --- oracles ---


def test_two_recipient_infos_are_no_oracle() -> None:
    """ALG-6, CVE-2019-1563: a first info with a guess, a second with a known key; it doesn't show how the guess was padded.

    Either way the guess gives a key that doesn't open the content, and the second opens it.
    """
    leaf, key = recipient(), os.urandom(32)
    algorithm, ciphertext = aes_256_cbc(key, b"Content-Type: text/plain\r\n\r\nhello")
    known = key_trans(leaf, leaf.key.public_key().encrypt(key, PKCS1v15()), RSA)
    well_padded = leaf.key.public_key().encrypt(os.urandom(32), PKCS1v15())
    for guess in (well_padded, b"\x00" + os.urandom(255), bytes(256), leaf.key.public_key().encrypt(b"", PKCS1v15())):
        der = enveloped(key_trans(leaf, guess, RSA) + known, algorithm, ciphertext)
        for certificate in (leaf.certificate, None):
            assert open_enveloped(der, leaf.key, certificate) == b"Content-Type: text/plain\r\n\r\nhello"
