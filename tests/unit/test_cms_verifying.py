"""Reading SignedData: what OpenSSL signs in all its ways, what is changed afterwards, and what is built to deceive."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding

from postseal.core.cms.signed_reader import MAX_SIGNERS, joined, object_type, parse_signed
from postseal.core.cms.verifying import State, check_signers, cover
from postseal.core.der import INTEGER, OCTET_STRING, OID, SEQUENCE, SET, context, integer_content, oid_content, tlv
from postseal.core.errors import BadData
from support.pki import Leaf
from support.signed import accounts, openssl_cms, root, signer

CONTENT = b"Content-Type: text/plain\r\n\r\nwhat is signed\r\nwith two lines\r\n" * 10
SHA256, SHA1, SHA512 = "2.16.840.1.101.3.4.2.1", "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.3"
DATA, SIGNED = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.2"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
RSA, SHA256_RSA = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.11"


def oid(dotted: str) -> bytes:
    return tlv(OID, oid_content(dotted))


def algorithm(dotted: str, parameters: bytes = b"") -> bytes:
    return tlv(SEQUENCE, oid(dotted), parameters)


def attribute(dotted: str, *values: bytes) -> bytes:
    return tlv(SEQUENCE, oid(dotted), tlv(SET, *values))


def usual(content: bytes = CONTENT, kind: str = DATA) -> list[bytes]:
    digest = tlv(OCTET_STRING, hashlib.sha256(content).digest())
    return [attribute(CONTENT_TYPE, oid(kind)), attribute(MESSAGE_DIGEST, digest)]


def rsa_signature(message: bytes) -> bytes:
    signature: bytes = signer().key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return signature


def signer_info(
    attributes: list[bytes] | None,
    *,
    signed: bytes | None = None,
    digest: bytes = algorithm(SHA256),
    by: bytes = algorithm(RSA, b"\x05\x00"),
    leaf: Leaf | None = None,
) -> bytes:
    """``signed`` is what the signature is over when that isn't the DER of the attributes."""
    certificate = (leaf or signer()).certificate
    sid = tlv(SEQUENCE, certificate.issuer, tlv(INTEGER, integer_content(certificate.serial)))
    over = tlv(SET, *sorted(attributes)) if signed is None and attributes is not None else signed or CONTENT
    inside = b"" if attributes is None else tlv(context(0), *attributes)
    value = tlv(OCTET_STRING, rsa_signature(over))
    return tlv(SEQUENCE, tlv(INTEGER, b"\x01"), sid, digest, inside, by, value)


def signed_data(
    *infos: bytes, content: bytes | None = None, kind: str = DATA, choices: bytes | None = None, inside: bytes = b""
) -> bytes:
    inside = inside if content is None else tlv(OCTET_STRING, content)
    inside = tlv(context(0), inside) if inside else b""
    certificates = tlv(context(0), signer().certificate.der if choices is None else choices)
    data = tlv(SEQUENCE, tlv(INTEGER, b"\x01"), tlv(SET, algorithm(SHA256)), tlv(SEQUENCE, oid(kind), inside),
               certificates, tlv(SET, *infos))  # fmt: skip
    return tlv(SEQUENCE, oid(SIGNED), tlv(context(0), data))


def verdict(octets: bytes, content: bytes | None = CONTENT) -> tuple[str, str]:
    (account,) = accounts(octets, content)
    return str(account.state), account.code


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-noattr",),
        ("-nodetach",),
        ("-nodetach", "-noattr"),
        ("-keyid",),
        ("-md", "sha512"),
        ("-stream", "-nodetach"),
        ("-nosmimecap",),
        ("-keyopt", "rsa_padding_mode:pss"),
        ("-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20", "-noattr"),
    ],
    ids=" ".join,
)
def test_what_openssl_signs_verifies(options: tuple[str, ...]) -> None:
    """RFC 5652 §5.3 to §5.6: with attributes or without, content inside or beside, DER or BER in pieces."""
    octets = openssl_cms(CONTENT, *options)
    signed = parse_signed(octets)
    opaque = "-nodetach" in options
    assert (signed.content is not None) == opaque
    assert object_type(octets) == SIGNED
    (account,) = accounts(octets, None if opaque else CONTENT)
    assert (account.state, account.code, account.detail, account.weak) == (State.INTACT, "sig.intact", "", "")
    assert account.certificate == signer().certificate
    assert account.scheme == ("RSA-PSS" if "-keyopt" in options else "RSA")
    assert account.digest == ("sha512" if "-md" in options else "sha256")
    if opaque:
        assert joined(signed.content or ()) == CONTENT
        assert signed.length == len(CONTENT)
    assert (account.claims.signing_time is None) == ("-noattr" in options)
    assert (account.claims.capabilities == b"") == ("-noattr" in options or "-nosmimecap" in options)
    (other,) = accounts(octets, CONTENT + b"x")
    assert other.state is State.BAD


@pytest.mark.parametrize(("kind", "scheme"), [("p256", "ECDSA"), ("p384", "ECDSA"), ("p521", "ECDSA")])
@pytest.mark.parametrize("options", [(), ("-noattr",)], ids=["attributes", "none"])
def test_other_keys_verify(kind: str, scheme: str, options: tuple[str, ...]) -> None:
    """RFC 5753 §2.1, RFC 5652 §5.4."""
    octets = openssl_cms(CONTENT, *options, signers=(signer(kind),))
    (account,) = accounts(octets, CONTENT)
    assert (account.state, account.scheme) == (State.INTACT, scheme)
    assert accounts(octets, CONTENT[1:])[0].state is State.BAD


@pytest.mark.parametrize("with_attributes", [True, False])
def test_ed25519_verifies(with_attributes: bool) -> None:
    """RFC 8419 §3: over the attributes, or over the content itself; built here, this OpenSSL doesn't sign so."""
    leaf = signer("ed25519")
    digest = tlv(OCTET_STRING, hashlib.sha512(CONTENT).digest())
    attributes = [attribute(CONTENT_TYPE, oid(DATA)), attribute(MESSAGE_DIGEST, digest)]
    over = tlv(SET, *sorted(attributes)) if with_attributes else CONTENT
    certificate = leaf.certificate
    sid = tlv(SEQUENCE, certificate.issuer, tlv(INTEGER, integer_content(certificate.serial)))
    inside = tlv(context(0), *attributes) if with_attributes else b""
    info = tlv(SEQUENCE, tlv(INTEGER, b"\x01"), sid, algorithm(SHA512), inside, algorithm("1.3.101.112"),
               tlv(OCTET_STRING, leaf.key.sign(over)))  # fmt: skip
    octets = signed_data(info, choices=certificate.der)
    (account,) = accounts(octets, CONTENT)
    assert (account.state, account.scheme, account.digest) == (State.INTACT, "Ed25519", "sha512")
    assert accounts(octets, CONTENT + b" ")[0].state is State.BAD


def test_several_signers_have_an_account_each() -> None:
    """RFC 5652 §5.1: nothing is concluded from one about another."""
    octets = openssl_cms(CONTENT, "-nodetach", signers=(signer(), signer("p256"), signer("p384")))
    assert [each.state for each in accounts(octets)] == [State.INTACT] * 3
    assert {each.scheme for each in accounts(octets)} == {"RSA", "ECDSA"}
    damaged = octets.replace(accounts_signature(octets, 1), bytes(8) + accounts_signature(octets, 1)[8:])
    assert sorted(str(each.state) for each in accounts(damaged)) == ["bad", "intact", "intact"]


def accounts_signature(octets: bytes, number: int) -> bytes:
    return parse_signed(octets).signers[number].signature


def test_a_signer_whose_certificate_is_missing_is_unverified_until_it_is_given() -> None:
    octets = openssl_cms(CONTENT, "-nocerts")
    (account,) = accounts(octets, CONTENT)
    assert (account.state, account.code, account.certificate) == (State.UNVERIFIED, "sig.no-certificate", None)
    assert account.sid.issuer == signer().certificate.issuer
    (account,) = accounts(octets, CONTENT, (signer("p256").certificate, signer().certificate))
    assert (account.state, account.certificate) == (State.INTACT, signer().certificate)


def test_sha1_verifies_but_is_called_weak_and_md5_is_never_computed() -> None:
    """RFC 8551 §2.1, RFC 6151 §2."""
    (account,) = accounts(openssl_cms(CONTENT, "-md", "sha1"), CONTENT)
    assert (account.state, account.weak) == (State.INTACT, "signed with SHA-1")
    (account,) = accounts(openssl_cms(CONTENT, "-md", "md5"), CONTENT)
    assert (account.state, account.code, account.digest) == (State.BAD, "sig.broken-algorithm", "md5")


@pytest.mark.parametrize("digest", [algorithm(SHA256), algorithm(SHA256, b"\x05\x00")], ids=["absent", "null"])
@pytest.mark.parametrize(
    "by", [algorithm(RSA), algorithm(RSA, b"\x05\x00"), algorithm(SHA256_RSA), algorithm(SHA256_RSA, b"\x05\x00")],
    ids=["rsa", "rsa-null", "sha256-rsa", "sha256-rsa-null"],
)  # fmt: skip
def test_algorithms_are_written_in_many_ways(digest: bytes, by: bytes) -> None:
    """RFC 5754 §2, RFC 3370 §3.2, peers 3.3: with NULL and without, the key's algorithm or the combined one."""
    assert verdict(signed_data(signer_info(usual(), digest=digest, by=by))) == ("intact", "sig.intact")


def test_the_hash_of_the_signature_is_that_of_the_digest() -> None:
    """RFC 8933 §3.1."""
    info = signer_info(usual(), by=algorithm("1.2.840.113549.1.1.13", b"\x05\x00"))
    assert verdict(signed_data(info)) == ("bad", "sig.bad-attributes")
    info = signer_info(usual(), by=algorithm("1.2.840.113549.1.1.4", b"\x05\x00"))
    assert verdict(signed_data(info)) == ("bad", "sig.broken-algorithm")
    info = signer_info(usual(), by=algorithm("1.2.3.4"))
    assert verdict(signed_data(info)) == ("unverified", "sig.unknown-algorithm")


def test_ecdsa_may_name_the_kind_of_key_only() -> None:
    """RFC 5652 §10.1.2, as some cards write it."""
    leaf = signer("p256")
    attributes = usual()
    value = leaf.key.sign(tlv(SET, *sorted(attributes)), ec.ECDSA(hashes.SHA256()))
    certificate = leaf.certificate
    sid = tlv(SEQUENCE, certificate.issuer, tlv(INTEGER, integer_content(certificate.serial)))
    info = tlv(SEQUENCE, tlv(INTEGER, b"\x01"), sid, algorithm(SHA256), tlv(context(0), *attributes),
               algorithm("1.2.840.10045.2.1"), tlv(OCTET_STRING, value))  # fmt: skip
    assert verdict(signed_data(info, choices=certificate.der)) == ("intact", "sig.intact")


def test_attributes_are_signed_in_der_whatever_order_they_come_in() -> None:
    """RFC 5652 §5.4: the signature is over the sorted set; one over the order of sending is the same set."""
    attributes = sorted(usual(), reverse=True)
    assert verdict(signed_data(signer_info(attributes))) == ("intact", "sig.intact")
    assert verdict(signed_data(signer_info(attributes, signed=tlv(SET, *attributes)))) == ("intact", "sig.intact")
    assert verdict(signed_data(signer_info(attributes, signed=tlv(context(0), *attributes)))) == (
        "bad",
        "sig.wrong-key",
    )


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], "sig.bad-attributes"),
        (usual()[:1], "sig.bad-attributes"),
        (usual()[1:], "sig.bad-attributes"),
        ([*usual(), usual()[1]], "sig.bad-attributes"),
        ([attribute(CONTENT_TYPE, oid(DATA), oid(SIGNED)), usual()[1]], "sig.bad-attributes"),
        ([attribute(CONTENT_TYPE), usual()[1]], "sig.bad-attributes"),
        ([usual()[0], attribute(MESSAGE_DIGEST, b"\x05\x00")], "sig.bad-attributes"),
        (usual(kind=SIGNED), "sig.content-type"),
        (usual(CONTENT + b"x"), "sig.wrong-content"),
    ],
    ids=["none", "no-digest", "no-type", "twice", "two-types", "no-value", "no-octets", "other-type", "other-content"],
)
def test_attributes_that_contradict_are_refused(attributes: list[bytes], code: str) -> None:
    """RFC 5652 §5.3, §11.1, §11.2: the signature itself is right in each of them."""
    assert verdict(signed_data(signer_info(attributes))) == ("bad", code)


def test_whose_content_was_changed_is_told_apart_from_who_has_another_key() -> None:
    octets = signed_data(signer_info(usual()))
    (account,) = accounts(octets, CONTENT.replace(b"two", b"six"))
    assert (account.code, account.detail) == ("sig.wrong-content", "the signature itself is by that key")
    (account,) = accounts(signed_data(signer_info(usual(), signed=b"else")), CONTENT)
    assert (account.code, account.detail) == ("sig.wrong-key", "")


def test_content_of_another_type_needs_attributes() -> None:
    """RFC 5652 §5.3: only content of type id-data may go without."""
    assert verdict(signed_data(signer_info(None)))[0] == "intact"
    assert verdict(signed_data(signer_info(None), kind=SIGNED)) == ("bad", "sig.bad-attributes")
    assert verdict(signed_data(signer_info(usual(kind=SIGNED)), kind=SIGNED)) == ("intact", "sig.intact")


def test_somebody_s_attributes_are_not_content() -> None:
    """RFC 5652 §5.4: a signature over attributes, shown as one without attributes over content, is the same signature."""
    stolen = tlv(SET, *sorted(usual()))
    honest = parse_signed(signed_data(signer_info(usual()))).signers[0].signature
    forged = signed_data(signer_info(None, signed=stolen), content=stolen)
    assert parse_signed(forged).signers[0].signature == honest
    assert verdict(forged, None) == ("bad", "sig.confusion")
    assert verdict(signed_data(signer_info(None, signed=stolen)), stolen) == ("bad", "sig.confusion")
    pieces = [tlv(OCTET_STRING, b"")] * 20 + [tlv(OCTET_STRING, stolen[:1]), tlv(OCTET_STRING, stolen[1:])]
    hidden = signed_data(signer_info(None, signed=stolen), inside=tlv(0x24, *pieces))
    assert joined(parse_signed(hidden).content or ()) == stolen
    assert verdict(hidden, None) == ("bad", "sig.confusion")
    almost = stolen + b"\r\n"
    assert verdict(signed_data(signer_info(None, signed=almost)), almost)[0] == "intact"


SIGNING_CERTIFICATE, V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"


def ess(hash_name: str, der: bytes, algorithm_: bytes = b"", more: bytes = b"") -> bytes:
    identifier = tlv(SEQUENCE, algorithm_, tlv(OCTET_STRING, hashlib.new(hash_name, der).digest()), more)
    return tlv(SEQUENCE, tlv(SEQUENCE, identifier))


def issuer_serial(serial: int) -> bytes:
    names = tlv(SEQUENCE, tlv(context(4), signer().certificate.issuer))
    return tlv(SEQUENCE, names, tlv(INTEGER, integer_content(serial)))


def test_the_signing_certificate_is_the_one_that_is_named() -> None:
    """RFC 5035 §5.4, RFC 2634 §5.4: a second certificate for the same key can't be put in its place."""
    own, other = signer().certificate, signer("p256").certificate
    right = (
        attribute(V2, ess("sha256", own.der)),
        attribute(V2, ess("sha512", own.der, algorithm(SHA512))),
        attribute(SIGNING_CERTIFICATE, ess("sha1", own.der)),
        attribute(V2, ess("sha256", own.der, more=issuer_serial(own.serial))),
    )
    for each in right:
        assert verdict(signed_data(signer_info([*usual(), each]))) == ("intact", "sig.intact")
    wrong = (
        attribute(V2, ess("sha256", other.der)),
        attribute(SIGNING_CERTIFICATE, ess("sha1", other.der)),
        attribute(V2, ess("sha256", own.der, more=issuer_serial(own.serial + 1))),
    )
    for each in wrong:
        assert verdict(signed_data(signer_info([*usual(), each]))) == ("bad", "sig.wrong-certificate")
    unknown = attribute(V2, ess("sha256", own.der, algorithm("1.2.3")))
    assert verdict(signed_data(signer_info([*usual(), unknown]))) == ("bad", "sig.bad-attributes")


def test_protected_algorithms_are_those_outside() -> None:
    """RFC 6211 §2."""

    def protection(digest: str) -> bytes:
        return attribute("1.2.840.113549.1.9.52", tlv(SEQUENCE, algorithm(digest),
                         tlv(context(1), oid(RSA), b"\x05\x00")))  # fmt: skip

    assert verdict(signed_data(signer_info([*usual(), protection(SHA256)]))) == ("intact", "sig.intact")
    assert verdict(signed_data(signer_info([*usual(), protection(SHA512)]))) == ("bad", "sig.bad-attributes")


def test_times_and_capabilities_are_reported() -> None:
    time = attribute("1.2.840.113549.1.9.5", tlv(0x17, b"260601120000Z"))
    odd = attribute("1.2.840.113549.1.9.5", tlv(0x17, b"2606011200Z"))
    (account,) = accounts(signed_data(signer_info([*usual(), time])), CONTENT)
    assert account.claims.signing_time == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert account.claims.names == ("contentType", "messageDigest", "signingTime")
    (account,) = accounts(signed_data(signer_info([*usual(), odd])), CONTENT)
    assert (account.state, account.claims.signing_time) == (State.INTACT, None)


def test_certificates_of_other_kinds_are_left_alone() -> None:
    """RFC 5652 §10.2.2: attribute certificates and choices that come later are ignored, damaged ones are named."""
    strange = tlv(context(1), b"\x05\x00") + tlv(context(3), b"\x06\x01\x2a\x05\x00") + tlv(SEQUENCE, b"\x05\x00")
    signed = parse_signed(signed_data(signer_info(usual()), choices=strange + signer().certificate.der))
    assert (signed.ignored, len(signed.unreadable)) == (2, 1)
    assert signed.certificates == (signer().certificate,)
    assert check_signers(signed, cover(signed, (CONTENT,)))[0].state is State.INTACT


def test_certificates_and_crls_keep_their_octets_in_ber() -> None:
    crl = root().crl()
    octets = openssl_cms(CONTENT, "-stream", "-nodetach")
    assert octets[1] == 0x80
    assert parse_signed(octets).certificates[0].der == signer().certificate.der
    data = signed_data(signer_info(usual()))
    assert parse_signed(data).crls == ()
    # A CRL behind the certificates.
    inner = data[
        data.index(tlv(context(0), signer().certificate.der)) + len(tlv(context(0), signer().certificate.der)) :
    ]
    body = tlv(INTEGER, b"\x01") + tlv(SET, algorithm(SHA256)) + tlv(SEQUENCE, oid(DATA))
    body += tlv(context(0), signer().certificate.der) + tlv(context(1), crl, tlv(context(1), oid(DATA))) + inner
    found = parse_signed(tlv(SEQUENCE, oid(SIGNED), tlv(context(0), tlv(SEQUENCE, body))))
    assert found.crls == (crl,)


def test_certs_only_has_no_signer() -> None:
    """RFC 8551 §3.8."""
    signed = parse_signed(signed_data())
    assert signed.certs_only
    assert check_signers(signed, cover(signed)) == ()


def test_numbers_are_bounded() -> None:
    """THR-7."""
    info = signer_info(usual())
    assert len(accounts(signed_data(*[info] * MAX_SIGNERS), CONTENT)) == MAX_SIGNERS
    for octets, sentence in (
        (signed_data(*[info] * (MAX_SIGNERS + 1)), "more than 16 signers"),
        (signed_data(info, choices=tlv(SEQUENCE) * 257), "more than 256 certificates"),
        (signed_data(signer_info([attribute("1.2.3")] * 65)), "more than 64 elements"),
        (b"\x30\x80" * 10_000, "deep"),
        (b"\x30\x84\xff\xff\xff\xff", "cut off"),
        (tlv(SEQUENCE, oid(DATA), tlv(context(0), tlv(OCTET_STRING, b"x"))), "of type 1.2.840.113549.1.7.1"),
        (signed_data(info) + b"\x00", "something after its end"),
        (b"", "cut off"),
    ):
        with pytest.raises(BadData, match=sentence):
            parse_signed(octets)


def test_every_changed_octet_is_noticed_and_nothing_raises() -> None:
    """Only octets that nobody signed may change: certificates, names of what is outside, and versions."""
    octets = openssl_cms(CONTENT[:40], "-nodetach", "-nocerts", signers=(signer("p256"),))
    unnoticed = 0
    for place in range(len(octets)):
        changed = bytearray(octets)
        changed[place] ^= 0x01
        try:
            unnoticed += accounts(bytes(changed), None, (signer("p256").certificate,))[0].state is State.INTACT
        except BadData:
            continue
    assert unnoticed < 40
    for end in range(len(octets)):
        with pytest.raises(BadData):
            accounts(octets[:end])


def test_a_certificate_of_version_1_may_sign() -> None:
    """RFC 5280 §4.1.2.1: no extensions; who the signer is, is another question."""
    leaf = signer()
    old = root().issue(None, slot=("signer", 0), key_usage=None, eku=None, not_after=datetime.now(UTC) + timedelta(9))
    octets = openssl_cms(CONTENT, signers=(old,))
    assert accounts(octets, CONTENT)[0].certificate == old.certificate
    assert old.certificate.x509.public_bytes(Encoding.DER) != leaf.certificate.der
