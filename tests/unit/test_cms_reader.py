"""Reading CMS of strangers: BER and its bounds, uniform failures, tag rules, and what a message really is."""

from __future__ import annotations

import base64
import os

import pytest
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ObjectIdentifier

from postseal.app.cms_inspect import inspect
from postseal.core.cms import structures as cms
from postseal.core.cms.ber import MAX_DEPTH, MAX_ELEMENTS, to_der
from postseal.core.cms.ber_cursor import BerCursor
from postseal.core.cms.classify import classify
from postseal.core.cms.content import ContentSealer
from postseal.core.cms.envelope import envelope
from postseal.core.cms.key_agreement import key_encryption_key
from postseal.core.cms.opening import CANNOT_OPEN, open_enveloped
from postseal.core.cms.parse import parse_enveloped, well_formed_type
from postseal.core.errors import BadData
from postseal.core.message import Field
from postseal.core.policy import Protection
from postseal.core.suite import Suite
from support.cms import cleared, recipient, sealed, sealed_parts

# --- BER ---


def indefinite(tag: int, *parts: bytes) -> bytes:
    return bytes((tag, 0x80)) + b"".join(parts) + b"\0\0"


def definite(tag: int, *parts: bytes) -> bytes:
    inner = b"".join(parts)
    return cms.header(tag, len(inner)) + inner


@pytest.mark.parametrize(
    ("ber", "der"),
    [
        ("300502010104 00", "300502010104 00"),
        ("3080 020101 0000", "3003020101"),
        ("3080 3080 0000 a080 020101 0000 0000", "30073000a003020101"),
        ("2480 0401aa 0402bbcc 0000", "0403aabbcc"),
        ("2408 2403 0401aa 0401bb", "0402aabb"),
        ("2480 0000", "0400"),
        ("3180 0000", "3100"),
        ("3106 020102 020101", "3106020101020102"),
        ("3180 0401bb 2480 0401aa 0000 0000", "31060401aa0401bb"),
        # Values of one octet of length are taken in a run: it ends where one isn't DER as it stands, and counts in a SET.
        ("3080 0500 2400 0500 3000 2480 0000 0500 0000", "300c 0500 0400 0500 3000 0400 0500"),
        ("3113 0500 0401bb 0481 01aa 3100 2403 0401ab 020101", "3110 020101 0401aa 0401ab 0401bb 0500 3100"),
        ("2480 0400 0401aa 0481 01bb 2403 0401cc 0401dd 0000", "0404aabbccdd"),
        ("3081 03 020101", "3003020101"),
        ("3084 00000003 020101", "3003020101"),
    ],
)
def test_ber_becomes_der(ber: str, der: str) -> None:
    assert to_der(bytes.fromhex(ber)) == bytes.fromhex(der)


@pytest.mark.parametrize(
    ("ber", "why"),
    [
        ("", "cut off"),
        ("30", "cut off"),
        ("3080", "cut off"),
        ("3080 020101", "cut off"),
        ("3003 0201", "cut off"),
        ("3003 020101 00", "after its end"),
        ("3080 020101 0000 0000", "after its end"),
        ("0480 0401aa 0000", "indefinite"),
        ("2403 020101", "something else"),
        ("1f8100", "tag number"),
        ("3089 010000000000000000", "can't be"),
        ("30ff", "can't be"),
        ("3084 ffffffff", "cut off"),
        ("3002 3080 0000", "cut off"),
        ("3005 020101 0401", "cut off"),
        ("2406 0401aa 0402bb", "cut off"),
        ("3080 3003 0402aa 0000", "cut off"),
        ("3004 3080 0000", ""),
    ],
)
def test_broken_ber_is_refused(ber: str, why: str) -> None:
    if not why:
        assert to_der(bytes.fromhex(ber)) == b"\x30\x02\x30\x00"
        return
    with pytest.raises(BadData, match=why):
        to_der(bytes.fromhex(ber))


def test_end_of_contents_does_not_close_a_definite_length() -> None:
    """Two zero octets inside a definite SEQUENCE are an element with tag 0, not its end."""
    assert to_der(bytes.fromhex("3002 0000")) == bytes.fromhex("30020000")


def test_depth_and_number_of_elements_are_bounded() -> None:
    deep = b"\x30\x80" * MAX_DEPTH + b"\0\0" * MAX_DEPTH
    assert to_der(deep)[:1] == b"\x30"
    with pytest.raises(BadData, match="deep"):
        to_der(b"\x30\x80" * (MAX_DEPTH + 1) + b"\0\0" * (MAX_DEPTH + 1))
    with pytest.raises(BadData, match="deep"):
        to_der(b"\x30\x80" * 1_000_000)
    with pytest.raises(BadData, match="elements"):
        to_der(indefinite(0x30, b"\x05\x00" * 600_000))
    for tag, value in ((0x30, b"\x05\0"), (0x31, b"\x05\0"), (0x24, b"\x04\0"), (0x30, b"\x30\0")):
        to_der(definite(tag, value * (MAX_ELEMENTS - 1)))
        with pytest.raises(BadData, match="elements"):
            to_der(definite(tag, value * MAX_ELEMENTS))


def test_pieces_of_signed_content_are_bounded() -> None:
    """T-15: as those of encrypted content are: 65,536 of any size, and beyond that one for each 256 octets."""

    def pieces(octets: bytes) -> int:
        cursor = BerCursor.over(octets)
        return len(cursor.octets(cursor.take()))

    for piece in (b"\x04\x01x", definite(0x04, bytes(130))):
        assert pieces(indefinite(0x24, piece * 65_536)) == 65_536
        with pytest.raises(BadData, match="too many pieces"):
            pieces(definite(0x24, piece * 150_000))
    assert pieces(indefinite(0x24, definite(0x04, bytes(300)) * 70_000)) == 70_000


def as_ber(der: bytes, pieces: int) -> bytes:
    """The EnvelopedData in ``der`` as a streaming writer would have written it."""
    info = asn1.decode_der(cms.ContentInfo, der)
    parts = cms.elements(info.content)
    at = next(i for i, part in enumerate(parts) if part.tag_bytes == b"\x30")
    inner = cms.elements(parts[at])
    content = bytes(inner[2].data)
    step = len(content) // pieces + 1
    segments = [definite(0x04, content[start : start + step]) for start in range(0, len(content), step)]
    eci = indefinite(0x30, asn1.encode_der(inner[0]), asn1.encode_der(inner[1]), indefinite(0xA0, *segments))
    outer = [eci if i == at else asn1.encode_der(part) for i, part in enumerate(parts)]
    return indefinite(0x30, definite(0x06, info_oid(info)), indefinite(0xA0, indefinite(0x30, *outer)))


def info_oid(info: cms.ContentInfo) -> bytes:
    return asn1.encode_der(info.content_type)[2:]


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_the_same_message_in_ber_opens(suite: Suite, kind: str) -> None:
    leaf, content = recipient(kind), os.urandom(10_000)
    der = sealed(suite, [leaf], content)
    for pieces in (1, 3, 2000):
        ber = as_ber(der, pieces)
        assert ber[:2] == b"\x30\x80"
        assert open_enveloped(ber, leaf.key, leaf.certificate) == content


def test_lengths_may_have_more_octets_than_they_need() -> None:
    """X.690 §8.1.3.5: in BER, also where an OBJECT IDENTIFIER stands."""
    leaf = recipient()
    der = sealed(Suite.AES_256_CBC, [leaf], b"hello")
    info = asn1.decode_der(cms.ContentInfo, der)
    version, recipients, eci = map(asn1.encode_der, cms.elements(info.content))
    data = bytes.fromhex("06092a864886f70d010701")
    longer = definite(
        0x30, eci[len(eci) - len(asn1.decode_der(asn1.TLV, eci).data) :].replace(data, b"\x06\x81" + data[1:])
    )
    for body in (eci, longer):
        inner = definite(0xA0, definite(0x30, version, recipients, body))
        octets = definite(0x30, b"\x06\x82\x00" + asn1.encode_der(info.content_type)[1:], inner)
        assert open_enveloped(octets, leaf.key) == b"hello"


def test_recipients_out_of_order_are_read() -> None:
    """Only DER sorts a SET OF; others write the recipients as they come."""
    leaves = [recipient("rsa2048", slot) for slot in range(3)]
    info = asn1.decode_der(cms.ContentInfo, sealed(Suite.AES_256_CBC, leaves, b"hello"))
    version, recipients, eci = cms.elements(info.content)
    wrapped = b"\x30" + asn1.encode_der(recipients)[1:]
    backwards = definite(0x31, *(asn1.encode_der(each) for each in reversed(cms.elements(cms.tlv(wrapped)))))
    body = definite(0x30, asn1.encode_der(version), backwards, asn1.encode_der(eci))
    shuffled = definite(0x30, definite(0x06, info_oid(info)), definite(0xA0, body))
    with pytest.raises(ValueError, match="SetOrdering"):
        asn1.decode_der(cms.RecipientsHead, cms.header(0x30, len(backwards)) + backwards)
    for leaf in leaves:
        assert open_enveloped(shuffled, leaf.key, leaf.certificate) == b"hello"


# --- failures ---


def rebuilt(der: bytes, place: int, change: object) -> bytes:
    """An AuthEnvelopedData with the part at ``place`` replaced by ``change(part)``."""
    info = asn1.decode_der(cms.ContentInfo, der)
    parts = [asn1.encode_der(part) for part in cms.elements(info.content)]
    parts[place] = change(parts[place])  # type: ignore[operator]
    return definite(0x30, definite(0x06, info_oid(info)), definite(0xA0, definite(0x30, *parts)))


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
@pytest.mark.parametrize("suite", list(Suite))
def test_every_failure_says_the_same(suite: Suite, kind: str) -> None:
    """ALG-6: wrong key, wrong recipient, damaged key, damaged content; one sentence for all."""
    leaf, stranger = recipient(kind), recipient(kind, 7)
    other_kind = recipient("p256" if kind == "rsa2048" else "rsa2048")
    content = b"hello" * 10
    head, ciphertext, tail = sealed_parts(suite, [leaf], content)
    der = head + ciphertext + tail
    cases = [
        (der, stranger.key, stranger.certificate),
        (der, stranger.key, leaf.certificate),
        (der, stranger.key, None),
        (der, other_kind.key, None),
        (head + bytes(len(ciphertext)) + tail, leaf.key, leaf.certificate),
    ]
    texts = set()
    for case in cases:
        try:
            # CBC has no integrity: one wrong key in 256 gives padding that looks right, and then rubbish comes out.
            assert open_enveloped(*case) != content
            assert suite is not Suite.AES_256_GCM
        except BadData as exc:
            texts.add(str(exc))
    assert texts == {CANNOT_OPEN}


def test_a_wrong_rsa_key_gives_no_clue_about_its_padding() -> None:
    """A damaged encrypted key and a good one of the wrong length fail alike, after decryption of the content (RFC 3218)."""
    leaf = recipient()
    der = sealed(Suite.AES_256_GCM, [leaf], b"hello")
    (info,) = parse_enveloped(der).recipients
    assert isinstance(info, cms.KeyTransRecipientInfo)
    at = der.index(info.encrypted_key)
    short = leaf.key.public_key().encrypt(b"k" * 16, PKCS1v15())
    for spoilt in (bytes(256), b"\x00" + os.urandom(255), short):
        with pytest.raises(BadData, match=CANNOT_OPEN):
            open_enveloped(der[:at] + spoilt + der[at + 256 :], leaf.key, leaf.certificate)


@pytest.mark.parametrize("length", [0, 1, 4, 8, 11, 12, 13, 15, 17, 32])
def test_a_tag_of_another_length_than_declared_is_refused(length: int) -> None:
    """ALG-5: CVE-2026-34182 and its kind accept a short tag, and then a forged one."""
    leaf = recipient()
    der = sealed(Suite.AES_256_GCM, [leaf], b"hello")
    spoilt = rebuilt(der, 3, lambda mac: definite(0x04, (mac[2:] + bytes(16))[:length]))
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_enveloped(spoilt, leaf.key, leaf.certificate)


@pytest.mark.parametrize(
    ("length", "accepted"), [(4, False), (8, False), (11, False), (12, True), (14, True), (16, True)]
)
def test_declared_tags_of_12_to_16_octets_are_read(length: int, accepted: bool) -> None:
    leaf = recipient()
    der = sealed(Suite.AES_256_GCM, [leaf], b"hello")
    shorter = rebuilt(der, 3, lambda mac: definite(0x04, mac[2 : 2 + length]))
    declared = rebuilt(shorter, 2, lambda eci: _with_icv_length(eci, length))
    if accepted:
        assert open_enveloped(declared, leaf.key, leaf.certificate) == b"hello"
    else:
        with pytest.raises(BadData, match=CANNOT_OPEN):
            open_enveloped(declared, leaf.key, leaf.certificate)


def test_an_absent_tag_length_means_twelve() -> None:
    """RFC 5084 §3.2: aes-ICVlen DEFAULT 12."""
    leaf = recipient()
    der = sealed(Suite.AES_256_GCM, [leaf], b"hello")
    without = rebuilt(der, 2, lambda eci: _with_icv_length(eci, None))
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_enveloped(without, leaf.key, leaf.certificate)
    twelve = rebuilt(without, 3, lambda mac: definite(0x04, mac[2:14]))
    assert open_enveloped(twelve, leaf.key, leaf.certificate) == b"hello"


def _with_icv_length(eci: bytes, length: int | None) -> bytes:
    content_type, algorithm, content = cms.elements(cms.tlv(eci))
    oid, parameters = cms.algorithm_of(algorithm)
    assert parameters is not None
    nonce = parameters.parse(cms.GcmParameters).nonce
    changed = cms.GcmAlgorithm(algorithm=oid, parameters=cms.GcmParameters(nonce=nonce, icv_length=length))
    return definite(0x30, asn1.encode_der(content_type), asn1.encode_der(changed), asn1.encode_der(content))


def test_authenticated_attributes_are_part_of_what_is_checked() -> None:
    """RFC 5083 §2.2: adding attributes to a message that had none breaks its tag."""
    leaf = recipient()
    info = asn1.decode_der(cms.ContentInfo, sealed(Suite.AES_256_GCM, [leaf], b"hello"))
    version, infos, eci, mac = (asn1.encode_der(part) for part in cms.elements(info.content))
    attribute = definite(0x30, bytes.fromhex("06032a0304"), definite(0x31, b"\x05\x00"))
    body = definite(0x30, version, infos, eci, definite(0xA1, attribute), mac)
    spoilt = definite(0x30, definite(0x06, info_oid(info)), definite(0xA0, body))
    assert parse_enveloped(spoilt).aad == definite(0x31, attribute)
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_enveloped(spoilt, leaf.key, leaf.certificate)


def test_authenticated_attributes_are_checked_as_a_sorted_set() -> None:
    """RFC 5083 §2.2: the AAD is DER, whatever the order in the message, and its tag is that of SET OF, not [1]."""
    leaf = recipient()
    first = definite(0x30, bytes.fromhex("06032a0304"), definite(0x31, b"\x05\x00"))
    second = definite(0x30, bytes.fromhex("06032a0305"), definite(0x31, b"\x05\x00"))
    key, iv = os.urandom(32), os.urandom(12)
    both = AESGCM(key).encrypt(iv, b"hello", definite(0x31, first, second))
    head, tail = envelope(Suite.AES_256_GCM, key, cleared([leaf]), iv, 5, both[5:])
    info = asn1.decode_der(cms.ContentInfo, head + both[:5] + tail)
    version, infos, eci, mac = (asn1.encode_der(part) for part in cms.elements(info.content))
    for attributes in (first + second, second + first):
        body = definite(0x30, version, infos, eci, definite(0xA1, attributes), mac)
        message = definite(0x30, definite(0x06, info_oid(info)), definite(0xA0, body))
        assert open_enveloped(message, leaf.key, leaf.certificate) == b"hello"


def test_key_agreement_with_user_keying_material_opens() -> None:
    """RFC 5753 §7.2: ukm goes into the key derivation as entityUInfo; we write none, others do."""
    leaf = recipient("p256")
    key, iv = os.urandom(32), os.urandom(16)
    sealer = ContentSealer(Suite.AES_256_CBC, key, iv)
    ciphertext = sealer.update(b"hello") + sealer.finish()
    head, _ = envelope(Suite.AES_256_CBC, key, cleared([leaf]), iv, len(ciphertext), b"")
    ((info,), ephemeral) = parse_enveloped(head + ciphertext).recipients, ec.generate_private_key(ec.SECP256R1())
    assert isinstance(info, cms.KeyAgreeRecipientInfo)
    _, wrap = cms.algorithm_of(info.key_encryption_algorithm)
    assert wrap is not None
    shared = ephemeral.exchange(ec.ECDH(), leaf.key.public_key())
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    algorithm = cms.tlv(asn1.encode_der(cms.PlainAlgorithm(algorithm=cms.EC_PUBLIC_KEY)))
    info.originator = cms.OriginatorPublicKey(algorithm=algorithm, public_key=asn1.BitString(point, 0))
    for ukm, good in ((b"ukm", True), (b"other", False)):
        wrapped = keywrap.aes_key_wrap(key_encryption_key(shared, wrap, 32, cms.Scheme("sha256"), ukm), key)
        info.recipient_encrypted_keys[0].encrypted_key = wrapped
        info.ukm = b"ukm"
        (infos,) = cms.elements(cms.tlv(asn1.encode_der(cms.RecipientsHead(infos=asn1.SetOf([info])))))
        message = rebuilt(head + ciphertext, 1, lambda _, infos=infos: asn1.encode_der(infos))
        if good:
            assert open_enveloped(message, leaf.key, leaf.certificate) == b"hello"
        else:
            with pytest.raises(BadData, match=CANNOT_OPEN):
                open_enveloped(message, leaf.key, leaf.certificate)


def test_gcm_inside_enveloped_data_is_refused() -> None:
    """No way round the tag: the same ciphertext as EnvelopedData, with the cipher said to be GCM (ALG-5)."""
    leaf = recipient()
    info = asn1.decode_der(cms.ContentInfo, sealed(Suite.AES_256_GCM, [leaf], b"hello"))
    parts = [asn1.encode_der(part) for part in cms.elements(info.content)][:3]
    oid = asn1.encode_der(cms.ENVELOPED_DATA)
    spoilt = definite(0x30, oid, definite(0xA0, definite(0x30, *parts)))
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_enveloped(spoilt, leaf.key, leaf.certificate)


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    leaf = recipient("p256")
    der = sealed(Suite.AES_256_CBC, [leaf], b"hello")
    (info,) = parse_enveloped(der).recipients
    assert isinstance(info, cms.KeyAgreeRecipientInfo)
    assert isinstance(info.originator, cms.OriginatorPublicKey)
    point = info.originator.public_key.as_bytes()
    at = der.index(point)
    with pytest.raises(BadData, match=CANNOT_OPEN):
        open_enveloped(der[: at + 1] + b"\x01" * 64 + der[at + 65 :], leaf.key, leaf.certificate)


# --- what a message is ---

SMIME = Field(b"Content-Type", b" application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m")
X_SMIME = Field(b"content-type", b" Application/X-PKCS7-MIME;\r\n\tname=smime.p7m")
OCTETS = Field(b"Content-Type", b" application/octet-stream")
NAMED = Field(b"Content-Type", b' application/octet-stream; name="SMIME.P7M"')
P7M = Field(b"Content-Disposition", b' attachment; filename="smime.p7m"')
BASE64 = Field(b"Content-Transfer-Encoding", b" Base64")
PLAIN = Field(b"Content-Type", b" text/plain")


def in_base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize(
    "fields",
    [(SMIME, BASE64), (X_SMIME, BASE64), (NAMED, BASE64), (OCTETS, P7M, BASE64)],
    ids=["type", "x", "name", "file"],
)
def test_sealed_mail_is_encrypted(fields: tuple[Field, ...], suite: Suite) -> None:
    der = sealed(suite, [recipient()], b"hello")
    assert classify(fields, in_base64(der)) is Protection.ENCRYPTED
    assert classify(fields, in_base64(as_ber(der, 3))) is Protection.ENCRYPTED
    assert classify(fields[:-1], der) is Protection.ENCRYPTED


def test_the_type_alone_is_only_a_claim() -> None:
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    claims = [
        (BASE64, b"aGVsbG8=\r\n"), (BASE64, b""), (BASE64, b"application/pkcs7-mime"), (BASE64, in_base64(der[:-1])),
        (BASE64, in_base64(der + b"secret text behind it")), (BASE64, in_base64(der) + b"\r\n-- \r\na footer\r\n"),
        (BASE64, der), (Field(b"Content-Transfer-Encoding", b" x-unknown"), in_base64(der)), (P7M, b"Dear Bob, the secret is"),
    ]  # fmt: skip
    for extra, body in claims:
        assert classify((SMIME, extra), body) is Protection.CLAIMED_ONLY, body[:40]


def test_two_encodings_or_two_types_claim_nothing() -> None:
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    assert classify((SMIME, BASE64, BASE64), in_base64(der)) is Protection.CLAIMED_ONLY
    assert classify((SMIME, PLAIN, BASE64), in_base64(der)) is Protection.NONE


def test_plain_mail_with_a_sealed_looking_body_is_plain() -> None:
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    for fields in ((PLAIN, BASE64), (BASE64,), (OCTETS, BASE64), ()):
        assert classify(fields, in_base64(der)) is Protection.NONE


def test_a_cipher_that_nobody_knows_is_only_a_claim() -> None:
    """An unknown OID in place of AES could stand for no encryption at all."""
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    aes = asn1.encode_der(cms.SUITE_OID[Suite.AES_256_CBC])
    assert der.count(aes) == 1
    assert classify((SMIME, BASE64), in_base64(der.replace(aes, aes[:-1] + b"\x63"))) is Protection.CLAIMED_ONLY


IV = bytes(range(16))


def labelled(
    content: bytes, algorithm: str = "2.16.840.1.101.3.4.1.42", parameters: bytes = definite(0x04, IV), key: bytes = bytes(256),
    tag: bytes = b"",
) -> bytes:  # fmt: skip
    """Content as it is, put into the form of encrypted CMS."""
    oids = {False: cms.ENVELOPED_DATA, True: cms.AUTH_ENVELOPED_DATA}
    rid = definite(0x30, b"\x30\x00\x02\x01\x01")
    rsa = definite(0x30, asn1.encode_der(cms.RSA_ENCRYPTION), b"\x05\x00")
    infos = definite(0x31, definite(0x30, b"\x02\x01\x00", rid, rsa, definite(0x04, key)))
    cipher = definite(0x30, asn1.encode_der(ObjectIdentifier(algorithm)), parameters)
    eci = definite(0x30, asn1.encode_der(ObjectIdentifier("1.2.840.113549.1.7.1")), cipher, definite(0x80, content))
    data = definite(0x30, b"\x02\x01\x00", infos, eci, definite(0x04, tag) if tag else b"")
    return definite(0x30, asn1.encode_der(oids[bool(tag)]), definite(0xA0, data))


@pytest.mark.parametrize(
    "octets",
    [
        labelled(b"Dear Bob, the secret is 42"),
        labelled(b""),
        labelled(bytes(32), parameters=b""),
        labelled(bytes(32), parameters=b"\x05\x00"),
        labelled(bytes(32), parameters=definite(0x04, IV[:8])),
        labelled(bytes(20), "1.2.840.113549.3.7", definite(0x04, IV[:8])),
        labelled(bytes(32), "1.2.840.113549.3.2", definite(0x30, b"\x02\x02\x00\xa0", definite(0x04, IV[:8]))),
        labelled(bytes(32), "2.16.840.1.101.3.4.1.46", definite(0x30, definite(0x04, IV[:12]))),
        labelled(b"Dear Bob", "2.16.840.1.101.3.4.1.46", b"", tag=bytes(16)),
        labelled(b"Dear Bob", "2.16.840.1.101.3.4.1.46", definite(0x30, definite(0x04, IV[:12])), tag=b"\0"),
        labelled(bytes(32), tag=bytes(16)),
        labelled(bytes(32), key=b""),
        labelled(bytes(32), key=b"no key"),
    ],
    ids=["text", "empty", "no IV", "NULL", "short IV", "odd 3DES", "RC2-40", "GCM without tag", "no nonce", "short tag",
         "CBC with tag", "no key", "short key"],
)  # fmt: skip
def test_what_no_key_can_open_is_only_a_claim(octets: bytes) -> None:
    """THR-11: plain text with the label of encryption must not pass for encrypted mail."""
    assert parse_enveloped(octets).recipients
    assert classify((SMIME, BASE64), in_base64(octets)) is Protection.CLAIMED_ONLY
    message = SMIME.line + BASE64.line + b"\r\n" + in_base64(octets)
    assert inspect(message)["protection"] == "claimed-only"
    assert octets[1] < 0x80 or inspect(octets)["protection"] == "claimed-only"


@pytest.mark.parametrize(
    "octets",
    [
        labelled(bytes(32)),
        labelled(bytes(24), "1.2.840.113549.3.7", definite(0x04, IV[:8])),
        labelled(b"", "2.16.840.1.101.3.4.1.46", definite(0x30, definite(0x04, IV[:12])), tag=bytes(12)),
        labelled(b"x", "2.16.840.1.101.3.4.1.47", definite(0x30, definite(0x04, IV[:12])), tag=bytes(8)),
        labelled(b"x", "1.2.840.113549.1.9.16.3.18", definite(0x04, IV[:12]), tag=bytes(16)),
    ],
    ids=["CBC", "3DES", "GCM", "CCM", "ChaCha20"],
)
def test_what_another_reader_may_open_is_encrypted(octets: bytes) -> None:
    assert classify((SMIME, BASE64), in_base64(octets)) is Protection.ENCRYPTED


def test_signed_mail_is_signed_whichever_form_it_has() -> None:
    multipart = Field(
        b"Content-Type", b' multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b'
    )
    assert classify((multipart,), b"--b\r\n") is Protection.SIGNED
    oid = asn1.encode_der(cms.SIGNED_DATA)
    opaque = definite(0x30, oid, definite(0xA0, definite(0x30, b"\x02\x01\x01")))
    assert well_formed_type(opaque) == cms.SIGNED_DATA
    assert classify((SMIME, BASE64), in_base64(opaque)) is Protection.SIGNED
    compressed = definite(0x30, asn1.encode_der(cms.COMPRESSED_DATA), definite(0xA0, definite(0x30, b"\x02\x01\x00")))
    assert classify((SMIME, BASE64), in_base64(compressed)) is Protection.NONE


def test_quoted_printable_and_binary_bodies_are_looked_into() -> None:
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    quoted = b"".join(b"=%02X" % octet for octet in der)
    assert classify((SMIME, Field(b"Content-Transfer-Encoding", b" quoted-printable")), quoted) is Protection.ENCRYPTED
    assert classify((SMIME, Field(b"Content-Transfer-Encoding", b" binary")), der) is Protection.ENCRYPTED


@pytest.mark.parametrize(
    "octets", [b"", b"0", b"hello", b"\x30\x80", b"\x30\x00", bytes.fromhex("300b06092a864886f70d010703")]
)
def test_what_is_no_cms_is_bad_data(octets: bytes) -> None:
    with pytest.raises(BadData, match="not a"):
        parse_enveloped(octets)


def test_nothing_hides_in_quoted_printable() -> None:
    """THR-11: the decoder drops what follows "=" and a bare CR; with plain text there it isn't encrypted mail."""
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    quoted = b"".join(b"=%02X" % octet for octet in der)
    fields = (SMIME, Field(b"Content-Transfer-Encoding", b" quoted-printable"))
    assert classify(fields, b"=\r\n" + quoted) is Protection.ENCRYPTED
    assert classify(fields, b"=\rin clear to all\n" + quoted) is Protection.CLAIMED_ONLY
