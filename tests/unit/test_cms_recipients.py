"""RecipientInfos of every kind: what is written, who is named and how, and that our own reader opens it."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat import asn1

from postseal.app.cms_inspect import inspect
from postseal.core.certs import load_certificate
from postseal.core.cms import key_transport, recipients
from postseal.core.cms import structures as cms
from postseal.core.cms.built import check_built
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.opening import CANNOT_OPEN, open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.der import Cursor, tlv
from postseal.core.errors import BadData
from postseal.core.oaep import demanded, oaep
from postseal.core.suite import KeyTransport, Suite, Wrap
from support.cms import (
    BRAINPOOL,
    KINDS,
    cleared,
    oaep_recipient,
    recipient,
    root,
    sealed,
    sealed_parts,
    with_spki,
)
from support.pki import Leaf

ALL = (*KINDS, *BRAINPOOL, "x25519")
OAEP = tuple(transport for transport in KeyTransport if transport is not KeyTransport.PKCS1)
BY_KEY_ID = Wrap(by_key_id=True)
SHA1_OAEP = bytes.fromhex("300d06092a864886f70d0101073000")


def only_info(der: bytes) -> Any:
    (info,) = parse_enveloped(der).recipients
    return info


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("kind", ALL)
def test_our_own_reader_opens_every_kind(kind: str, suite: Suite) -> None:
    leaf, other = recipient(kind), recipient(kind, 1)
    for wrap in (Wrap(), BY_KEY_ID):
        head, ciphertext, tail = sealed_parts(suite, [leaf], b"hello", wrap=wrap)
        check_built(head, tail, len(ciphertext), cleared([leaf], wrap))
        der = head + ciphertext + tail
        assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"
        assert open_enveloped(der, leaf.key) == b"hello"
        if suite.gcm or not kind.startswith("rsa"):
            with pytest.raises(BadData, match=CANNOT_OPEN):
                open_enveloped(der, other.key)
        else:
            # ALG-6: PKCS #1 v1.5 never says that it failed, and one wrong key in 256 gives padding that looks right.
            with suppress(BadData):
                assert open_enveloped(der, other.key) != b"hello"


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("transport", OAEP)
def test_oaep_is_written_with_explicit_parameters(transport: KeyTransport, suite: Suite) -> None:
    """ALG-4, RFC 4055 §4.1: hash and MGF1 with the same hash explicit, with NULL; the empty label is the default."""
    leaf = recipient()
    der = sealed(suite, [leaf], b"hello", Wrap(transport))
    oid, parameters = cms.algorithm_of(only_info(der).key_encryption_algorithm)
    assert oid == cms.RSAES_OAEP
    assert parameters is not None
    chosen = parameters.parse(cms.OaepParameters)
    assert chosen.hash_algorithm is not None
    assert chosen.mask_gen_algorithm is not None
    name = transport.removeprefix("oaep-")
    for used in (chosen.hash_algorithm, chosen.mask_gen_algorithm.hash):
        assert cms.OAEP_HASHES[used.algorithm] == name
        assert used.parameters is not None
    assert chosen.label_source is None
    assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


class TestOaepKeys:
    """RFC 4055 §4: a key that says id-RSAES-OAEP is used with nothing else."""

    @pytest.mark.parametrize("parameters", [b"", b"\x05\x00"], ids=["absent", "null"])
    def test_without_parameters_the_sender_chooses(self, parameters: bytes) -> None:
        leaf = oaep_recipient(tlv(0x30, bytes.fromhex("06092a864886f70d010107"), parameters))
        for asked, expected in ((KeyTransport.PKCS1, KeyTransport.OAEP_SHA256), *zip(OAEP, OAEP, strict=True)):
            der = sealed(Suite.AES_256_CBC, [leaf], b"hello", Wrap(asked))
            assert asn1.encode_der(only_info(der).key_encryption_algorithm) == oaep(expected).identifier
            assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"

    @pytest.mark.parametrize(
        "identifier", [SHA1_OAEP, oaep(KeyTransport.OAEP_SHA512).identifier], ids=["sha1", "sha512"]
    )
    def test_its_parameters_are_kept_whatever_is_asked_for(self, identifier: bytes) -> None:
        leaf = oaep_recipient(identifier)
        for asked in KeyTransport:
            der = sealed(Suite.AES_256_GCM, [leaf], b"hello", Wrap(asked))
            assert asn1.encode_der(only_info(der).key_encryption_algorithm) == identifier
            assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"

    def test_a_label_and_another_mask_are_kept_too(self) -> None:
        digest = cms.HashAlgorithm(algorithm=next(oid for oid, name in cms.OAEP_HASHES.items() if name == "sha384"))
        mask = cms.MaskGenAlgorithm(
            algorithm=asn1.decode_der(cms.Oid, bytes.fromhex("06092a864886f70d010108")),
            hash=cms.HashAlgorithm(algorithm=next(oid for oid, name in cms.OAEP_HASHES.items() if name == "sha1")),
        )
        label = cms.LabelSource(
            algorithm=asn1.decode_der(cms.Oid, bytes.fromhex("06092a864886f70d010109")), label=b"postseal"
        )
        parameters = cms.OaepParameters(hash_algorithm=digest, mask_gen_algorithm=mask, label_source=label)
        identifier = tlv(0x30, bytes.fromhex("06092a864886f70d010107"), asn1.encode_der(parameters))
        leaf = oaep_recipient(identifier)
        found = demanded(leaf.certificate.spki)
        assert found is not None
        assert (found.hash, found.mask_hash, found.label) == ("sha384", "sha1", b"postseal")
        der = sealed(Suite.AES_256_CBC, [leaf], b"hello")
        assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"

    @pytest.mark.parametrize(
        "parameters",
        ["30 02 0500", "30 0d a00b 3009 0605 2b0e030205 0500", "30 0f a10d 300b 0609 2a864886f70d010109", "0201 01"],
        ids=["null inside", "unknown hash", "unknown mask", "integer"],
    )
    def test_parameters_that_nobody_knows_are_refused(self, parameters: str) -> None:
        leaf = oaep_recipient(tlv(0x30, bytes.fromhex("06092a864886f70d010107"), bytes.fromhex(parameters)))
        with pytest.raises(BadData):
            sealed(Suite.AES_256_CBC, [leaf], b"hello")


@pytest.mark.parametrize(
    ("kind", "kdf"), [("bp256", "sha256kdf"), ("bp384", "sha384kdf"), ("bp512", "sha512kdf"), ("x25519", "hkdf-sha256")]
)
@pytest.mark.parametrize("suite", list(Suite))
def test_key_agreement_of_every_suite(kind: str, kdf: str, suite: Suite) -> None:
    """RFC 8551 §2.3: key wrap and content key have the same size. RFC 5753 §7.1.4, RFC 8418 §2.2: the scheme."""
    info = only_info(sealed(suite, [recipient(kind)], b"x"))
    assert isinstance(info, cms.KeyAgreeRecipientInfo)
    scheme, wrap = cms.algorithm_of(info.key_encryption_algorithm)
    assert cms.STD_DH[scheme].name == kdf
    assert wrap is not None
    assert cms.AES_WRAP[cms.algorithm_of(wrap)[0]] == suite.key_length
    assert len(info.recipient_encrypted_keys[0].encrypted_key) == suite.key_length + 8
    # RFC 8418 §3.1: id-X25519 without parameters, 32 octets as they are; RFC 5753 §3.1.1: parameters absent.
    originator = info.originator
    assert isinstance(originator, cms.OriginatorPublicKey)
    assert cms.algorithm_of(originator.algorithm) == (cms.X25519 if kind == "x25519" else cms.EC_PUBLIC_KEY, None)
    if kind == "x25519":
        assert len(originator.public_key.as_bytes()) == 32


class TestNames:
    """RFC 5652 §6.2.1, §6.2.2: issuerAndSerialNumber, or subjectKeyIdentifier where that is asked for."""

    @pytest.mark.parametrize("kind", ["rsa2048", "p256"])
    def test_by_key_identifier(self, kind: str) -> None:
        leaf = recipient(kind)
        info = only_info(sealed(Suite.AES_256_CBC, [leaf], b"x", BY_KEY_ID))
        key_id = Cursor(leaf.certificate.raw_extensions["2.5.29.14"].value).octets()
        if kind == "rsa2048":
            assert (info.version, info.rid) == (2, key_id)
        else:
            assert (info.version, info.recipient_encrypted_keys[0].rid.subject_key_identifier) == (3, key_id)

    @pytest.mark.parametrize(
        ("suite", "kinds", "wrap", "expected"),
        [
            (Suite.AES_256_CBC, ("rsa2048",), Wrap(), 0),
            (Suite.AES_256_CBC, ("rsa2048",), BY_KEY_ID, 2),
            (Suite.AES_256_CBC, ("rsa2048", "p256"), Wrap(), 2),
            (Suite.AES_256_CBC, ("x25519",), BY_KEY_ID, 2),
            (Suite.AES_256_GCM, ("rsa2048", "p256"), BY_KEY_ID, 0),
        ],
    )
    def test_versions(self, suite: Suite, kinds: tuple[str, ...], wrap: Wrap, expected: int) -> None:
        """RFC 5652 §6.1, RFC 5083 §2.1"""
        der = sealed(suite, [recipient(kind) for kind in kinds], b"x", wrap)
        info = asn1.decode_der(cms.ContentInfo, der)
        assert cms.integer(cms.elements(info.content)[0]) == expected

    def test_a_certificate_without_the_extension_is_refused(self) -> None:
        """RFC 5652 §6.2.1: the identifier is the value of the extension; nothing is computed in its place."""
        leaf = recipient()
        # The OID of another extension, which nobody knows, stands in its place.
        der = leaf.certificate.der.replace(bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d7e"))
        bare = Leaf(load_certificate(der), leaf.key)
        with pytest.raises(BadData, match="has no subjectKeyIdentifier"):
            sealed(Suite.AES_256_CBC, [bare], b"x", BY_KEY_ID)
        sealed(Suite.AES_256_CBC, [bare], b"x")

    def test_what_was_built_is_compared_by_the_name_that_was_asked_for(self) -> None:
        leaves = [recipient(kind) for kind in ALL]
        ways = [cleared(leaves, wrap) for wrap in (Wrap(), BY_KEY_ID)]
        mixed = [each for pair in zip(*ways, strict=True) for each in pair][::3]
        for people in (*ways, mixed):
            head, ciphertext, tail = sealed_parts_for(people)
            check_built(head, tail, len(ciphertext), people)
            for wrong in (*ways, mixed, people[1:], [*people, people[0]]):
                if wrong is not people:
                    with pytest.raises(BadData, match="recipients that policy cleared"):
                        check_built(head, tail, len(ciphertext), wrong)

    def test_the_same_recipient_twice_is_noticed(self) -> None:
        """Whether the key is encrypted for him in the same way or in two: once cleared is once."""
        for kind, second in itertools.product(("rsa2048", "p256"), (Wrap(), Wrap(KeyTransport.OAEP_SHA256))):
            once = cleared([recipient(kind)])
            head, ciphertext, tail = sealed_parts_for([*once, *cleared([recipient(kind)], second)])
            with pytest.raises(BadData, match="recipients that policy cleared"):
                check_built(head, tail, len(ciphertext), once)

    def test_another_way_to_encrypt_the_key_than_the_chosen_one_is_noticed(self) -> None:
        """ALG-4: PKCS #1 v1.5 where OAEP was chosen, another hash, and the content key of a shorter cipher."""
        for asked, done in itertools.permutations(KeyTransport, 2):
            head, ciphertext, tail = sealed_parts_for(cleared([recipient()], Wrap(done)))
            check_built(head, tail, len(ciphertext), cleared([recipient()], Wrap(done)))
            with pytest.raises(BadData, match="recipients that policy cleared"):
                check_built(head, tail, len(ciphertext), cleared([recipient()], Wrap(asked)))
        for kind in ALL:
            people = cleared([recipient(kind)])
            head, ciphertext, tail = sealed_parts_for(people)
            # Another cipher of the same mode: its key has another length than what was wrapped by key agreement.
            other = head.replace(bytes.fromhex("60864801650304012a"), bytes.fromhex("608648016503040102"))
            assert other != head
            if kind != "rsa2048":
                with pytest.raises(BadData, match="malformed"):
                    check_built(other, tail, len(ciphertext), people)

    def test_a_content_key_in_clear_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """THR-14: whatever went wrong when it should have been encrypted."""
        people = cleared([recipient()])
        right = key_transport.KeyTransRecipient.info

        def wrong(self: key_transport.KeyTransRecipient, key: bytes) -> bytes:
            info = asn1.decode_der(cms.KeyTransRecipientInfo, right(self, key))
            info.encrypted_key = key
            return asn1.encode_der(info)

        monkeypatch.setattr(key_transport.KeyTransRecipient, "info", wrong)
        head, ciphertext, tail = sealed_parts_for(people)
        with pytest.raises(BadData, match="recipients that policy cleared"):
            check_built(head, tail, len(ciphertext), people)

    def test_a_key_identifier_of_somebody_else_is_noticed(self) -> None:
        leaf, other = recipient(), recipient("rsa2048", 1)
        head, ciphertext, tail = sealed_parts(Suite.AES_256_CBC, [leaf], b"x", wrap=BY_KEY_ID)
        with pytest.raises(BadData, match="recipients that policy cleared"):
            check_built(head, tail, len(ciphertext), cleared([other], BY_KEY_ID))

    def test_a_version_that_does_not_fit_the_name_is_noticed(self) -> None:
        for wrap, version in ((Wrap(), b"\x02\x01\x00"), (BY_KEY_ID, b"\x02\x01\x02")):
            head, ciphertext, tail = sealed_parts(Suite.AES_256_GCM, [recipient()], b"x", wrap=wrap)
            place = head.index(version, head.index(b"\x31\x82"))
            spoilt = head[:place] + b"\x02\x01\x01" + head[place + 3 :]
            with pytest.raises(BadData, match="malformed"):
                check_built(spoilt, tail, len(ciphertext), cleared([recipient()], wrap))


def sealed_parts_for(people: Any) -> tuple[bytes, bytes, bytes]:
    """A message without content for cleared certificates, each with a wrap of its own."""
    suite, key, iv = Suite.AES_256_CBC, bytes(range(32)), bytes(16)
    ciphertext = ContentSealer(suite, key, iv).finish()
    head, tail = envelope(suite, key, people, iv, len(ciphertext), b"")
    return head, ciphertext, tail


def test_any_mix_in_one_message_opens_for_everybody() -> None:
    leaves = [*(recipient(kind, slot) for kind, slot in itertools.product(ALL, (0, 1))), oaep_recipient(SHA1_OAEP, 3)]
    for suite in Suite:
        der = sealed(suite, leaves, b"hello", Wrap(KeyTransport.OAEP_SHA256))
        for leaf in leaves:
            assert open_enveloped(der, leaf.key, leaf.certificate) == b"hello"


def test_prepared_recipients_are_kept_and_bounded() -> None:
    people = cleared([recipient()])
    assert recipients.recipient(people[0]) is recipients.recipient(people[0])
    assert recipients._recipient.cache_info().maxsize == 4096


def kem_message(kem: cms.KemRecipientInfo | None) -> bytes:
    """A message for a recipient with a KEM, and for one that can be opened."""
    other = cms.OtherRecipientInfo(
        ori_type=cms.ORI_KEM, ori_value=cms.tlv(asn1.encode_der(kem) if kem else b"\x05\x00")
    )
    info = asn1.decode_der(cms.ContentInfo, sealed(Suite.AES_256_GCM, [recipient()], b"hello"))
    version, infos, *rest = (asn1.encode_der(part) for part in cms.elements(info.content))
    ours = asn1.decode_der(cms.RecipientsHead, cms.header(0x30, len(infos)) + infos).infos.as_list()
    both = asn1.encode_der(cms.RecipientsHead(infos=asn1.SetOf([*ours, other])))
    content = b"".join((version, asn1.encode_der(cms.elements(cms.tlv(both))[0]), *rest))
    info.content = cms.tlv(cms.header(0x30, len(content)) + content)
    return asn1.encode_der(info)


def test_a_kem_recipient_is_recognised_and_named() -> None:
    """RFC 9629 §3: another recipient's KEMRecipientInfo doesn't keep ours from opening; inspect says what it is."""
    wrap = cms.tlv(asn1.encode_der(cms.PlainAlgorithm(algorithm=next(iter(cms.AES_WRAP)))))
    for oid, name in cms.KEMS.items():
        algorithm = cms.tlv(asn1.encode_der(cms.PlainAlgorithm(algorithm=oid)))
        kem = cms.KemRecipientInfo(
            version=0, rid=b"\x01\x02", kem=algorithm, kemct=bytes(1088), kdf=algorithm, kek_length=32, ukm=b"x",
            wrap=wrap, encrypted_key=bytes(40),
        )  # fmt: skip
        der = kem_message(kem)
        assert open_enveloped(der, recipient().key, recipient().certificate) == b"hello"
        found = [each for each in inspect(der)["cms"]["recipients"] if each["kind"] == "key-encapsulation"]
        assert [(each["algorithm"], each["subject_key_id"]) for each in found] == [(name, "0102")]
    (broken,) = [each for each in inspect(kem_message(None))["cms"]["recipients"] if "enc" in each["kind"]]
    assert broken["algorithm"] is None


def test_a_key_that_nothing_can_be_encrypted_for_is_bad_data() -> None:
    """RFC 8017 §7.1.1, RFC 7748 §6.1: no room for the padding; a point of small order, with which the secret is zero."""
    short = root().issue("short@example.test", kind="rsa1024")
    with pytest.raises(BadData, match=r"certificate [0-9a-f]{16}: nothing can be encrypted for its key"):
        sealed(Suite.AES_256_GCM, [short], b"x", Wrap(KeyTransport.OAEP_SHA512))
    good = recipient("x25519")
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(BadData, match="nothing can be encrypted for its key"):
            sealed(Suite.AES_256_CBC, [with_spki(good, good.certificate.spki[:-32] + point)], b"x")
