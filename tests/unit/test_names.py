"""Names are compared as RFC 5280 §7.1 says, not byte by byte."""

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.names import name_key, prepared, same_name


def name(*attributes: tuple[x509.ObjectIdentifier, str, _ASN1Type]) -> bytes:
    return x509.Name([x509.NameAttribute(oid, text, kind) for oid, text, kind in attributes]).public_bytes()


def cn(text: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> bytes:
    return name((NameOID.COMMON_NAME, text, kind))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cn("Root CA"), cn("root ca")),
        (cn("Root CA"), cn("  Root \t  CA ")),
        (cn("Root CA"), cn("Root CA", _ASN1Type.PrintableString)),
        (cn("Straße"), cn("STRASSE")),
        (cn("A\u030angstrom"), cn("\u00c5ngstrom")),
        (cn("soft\u00adhyphen"), cn("softhyphen")),
        (cn("no\u00a0break"), cn("no break")),
        (
            name((NameOID.DOMAIN_COMPONENT, "EXAMPLE", _ASN1Type.IA5String)),
            name((NameOID.DOMAIN_COMPONENT, "example", _ASN1Type.IA5String)),
        ),
    ],
)
def test_equal(one: bytes, other: bytes) -> None:
    assert same_name(one, other)
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cn("Root CA"), cn("RootCA")),
        (cn("Root"), cn("Root CA")),
        (cn("Root"), name((NameOID.ORGANIZATION_NAME, "Root", _ASN1Type.UTF8String))),
        (cn("Root"), cn("Root", _ASN1Type.T61String)),
        (
            name(
                (NameOID.ORGANIZATION_NAME, "O", _ASN1Type.UTF8String), (NameOID.COMMON_NAME, "C", _ASN1Type.UTF8String)
            ),
            name(
                (NameOID.COMMON_NAME, "C", _ASN1Type.UTF8String), (NameOID.ORGANIZATION_NAME, "O", _ASN1Type.UTF8String)
            ),
        ),
    ],
)
def test_different(one: bytes, other: bytes) -> None:
    """Inner space counts, the attribute counts, the order of RDNs counts; odd string types are compared in binary."""
    assert not same_name(one, other)


def test_attributes_of_one_rdn_have_no_order() -> None:
    one = x509.NameAttribute(NameOID.COMMON_NAME, "a")
    two = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "b")
    joined = x509.Name([x509.RelativeDistinguishedName([one, two])]).public_bytes()
    turned = x509.Name([x509.RelativeDistinguishedName([two, one])]).public_bytes()
    assert same_name(joined, turned)
    assert not same_name(joined, x509.Name([one, two]).public_bytes())


def test_the_empty_name() -> None:
    assert name_key(b"\x30\x00") == ()
    assert name_key(cn("x")) != ()


@given(st.binary(max_size=64))
def test_bytes_that_are_no_name_equal_only_themselves(junk: bytes) -> None:
    assert same_name(junk, junk)
    assert not same_name(junk, cn("Root"))


@given(st.text(max_size=40))
def test_preparation_is_stable(text: str) -> None:
    """Preparing what is prepared changes nothing, so comparison is transitive."""
    once = prepared(text)
    assert prepared(once) == once
