"""Certificates from files: DER, PEM, PKCS#7, and what isn't one of them."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.certs import Certificate, load_certificate, load_certificates
from postseal.core.errors import BadData
from support.pki import authority

ROOT = authority("Root")
SUB = ROOT.sub("Issuing")
ALICE = SUB.issue("alice@example.test")
ALL = (ALICE.certificate, SUB.certificate, ROOT.certificate)


def bundle(encoding: Encoding) -> bytes:
    return pkcs7.serialize_certificates([c.x509 for c in ALL], encoding)


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (ALICE.certificate.der, ALL[:1]),
        (ALICE.pem, ALL[:1]),
        (ALICE.pem + SUB.pem + ROOT.pem, ALL),
        (b"subject=alice\nissuer=Issuing\n" + ALICE.pem + b"\n\nthe CA:\n" + SUB.pem + b"# end", ALL[:2]),
        (ALICE.pem.replace(b"\n", b"\r\n"), ALL[:1]),
        (ALICE.key_pem + ALICE.pem, ALL[:1]),
        (ALICE.pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE"), ALL[:1]),
        (b"\xef\xbb\xbf\n" + ALICE.pem, ALL[:1]),
    ],
    ids=["der", "pem", "bundle", "text", "crlf", "key", "old-label", "bom"],
)
def test_loads(blob: bytes, expected: tuple[Certificate, ...]) -> None:
    assert load_certificates(blob) == expected


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_loads_pkcs7_without_content(encoding: Encoding) -> None:
    assert set(load_certificates(bundle(encoding))) == set(ALL)


def test_loads_what_openssl_calls_trusted() -> None:
    """TRUSTED CERTIFICATE has OpenSSL's trust settings behind the certificate."""
    import base64

    body = base64.encodebytes(ALICE.certificate.der + b"\x30\x00")
    blob = b"-----BEGIN TRUSTED CERTIFICATE-----\n" + body + b"-----END TRUSTED CERTIFICATE-----\n"
    assert load_certificates(blob) == ALL[:1]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"hello", "no certificate found"),
        (ALICE.key_pem, "it holds a private key"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n", "certificate request"),
        (b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", "it holds a CRL"),
        (
            pkcs12.serialize_key_and_certificates(b"a", ALICE.key, ALICE.certificate.x509, None, NoEncryption()),
            "a PKCS#12 file, which holds a private key",
        ),
        (ALICE.pem + SUB.pem[:-40], "PEM block 2: it has no END line"),
        (ALICE.pem.replace(b"END", b"EDN") + SUB.pem, "PEM block 1: it has no END line"),
        (ALICE.pem + SUB.pem.replace(b"MII", b"M*I", 1), "PEM block 2: not base64"),
        (
            ALICE.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "PEM block 2: not a certificate",
        ),
        (b"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n", "PEM block 1: not a PKCS#7 bundle"),
        (ALICE.certificate.der + b"\x00", "not a certificate"),
        (ALICE.certificate.der[:-1], "not a certificate"),
        (b"\x30\x80\x06\x09", "not a PKCS#7 bundle"),
        (SUB.crl(), "no certificate found: it holds a CRL (postseal evidence import takes it)"),
    ],
)
def test_says_what_is_wrong_in_one_line(blob: bytes, message: str) -> None:
    with pytest.raises(BadData) as caught:
        load_certificates(blob)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_has_a_limit() -> None:
    with pytest.raises(BadData, match="more than 2 certificates"):
        load_certificates(ALICE.pem * 3, limit=2)


def test_raw_fields_are_those_of_the_library() -> None:
    certificate = ALICE.certificate
    assert certificate.parts.tbs == certificate.x509.tbs_certificate_bytes
    assert certificate.parts.signature == certificate.x509.signature
    assert certificate.subject == certificate.x509.subject.public_bytes()
    assert certificate.issuer == SUB.certificate.subject
    assert certificate.name == "CN=alice@example.test"


@given(st.integers(0, len(ALICE.certificate.der) - 1), st.integers(1, 255))
def test_a_changed_octet_gives_a_certificate_or_bad_data(position: int, change: int) -> None:
    """No exception of the library leaves the loader, whichever octet is wrong."""
    der = bytearray(ALICE.certificate.der)
    der[position] ^= change
    try:
        certificate = load_certificate(bytes(der))
    except BadData:
        return
    assert certificate.name
    assert certificate.spki
