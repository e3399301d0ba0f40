"""CERT-16: name constraints of every form, RFC 5280 §4.2.1.10 and RFC 9598 §6."""

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.certs import Certificate
from postseal.core.der import SEQUENCE, BadDer, context, tlv
from postseal.core.name_constraints import mail_constraints, parse_constraints, presented_names, violation
from postseal.core.path import Anchor, AnchorSettings, Path, PathFault, PathSettings, build_path
from support.pki import DAY, NOW, Authority, Leaf, authority, key, name

ROOT = authority("Root")
MAIL, DNS, URI = x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier
UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")


def text(tag: int, value: str) -> bytes:
    return tlv(tag, value.encode("latin-1"))


def subtree(base: bytes, *distances: bytes) -> bytes:
    return tlv(SEQUENCE, base, *distances)


def constraints(permitted: list[bytes] = [], excluded: list[bytes] = []) -> bytes:  # noqa: B006
    sides = ((0, permitted), (1, excluded))
    return tlv(SEQUENCE, *(tlv(context(n), *map(subtree, side)) for n, side in sides if side))


def judged(limits: bytes, *names: bytes, subject: bytes = b"\x30\x00", mails: tuple[str, ...] = ()) -> str:
    alternative = tlv(SEQUENCE, *names) if names else None
    found = violation(parse_constraints(limits), presented_names(subject, mails, alternative), "CN=CA")
    return "" if found is None else found.code


RFC822, DNS_NAME, URI_NAME, IP, DIRECTORY = 0x81, 0x82, 0x86, 0x87, 0xA4
OUTSIDE, UNSUPPORTED = "path.name-constraints", "path.unsupported-extension"
# form, constraint, names within, names outside
TABLE = [
    (RFC822, "alice@a.test", ["alice@a.test", "alice@A.TEST"], ["bob@a.test", "Alice@a.test", "alice@b.a.test"]),
    (RFC822, "a.test", ["x@a.test", "x@A.Test", '"a@b"@a.test'], ["x@b.a.test", "x@ba.test", "x@a.test.b"]),
    (RFC822, ".a.test", ["x@b.a.test", "x@c.b.a.test"], ["x@a.test", "x@ba.test"]),
    (RFC822, "", ["x@a.test"], []),
    (RFC822, "@a.test", ["x@a.test"], ["x@b.test"]),
    (RFC822, "a.test", [], ["nobody", "@a.test", "x@a.test.", "x@", "x@a test", "\xe9@a.test"]),
    (RFC822, "a.test", ['"b.test@"@a.test'], ["x@b.test@a.test", '"@@a.test', '"@"@b.test@a.test']),
    (DNS_NAME, "a.test", ["a.test", "b.a.test", "C.B.A.test", "*.a.test", "_x.a.test"], ["ba.test", "test", "*.test"]),
    (DNS_NAME, ".a.test", ["b.a.test", "*.a.test"], ["a.test"]),
    (DNS_NAME, "", ["a.test"], []),
    (DNS_NAME, "a.test", [], ["b..a.test", "b.a.test.", "-b.a.test", "b\x00.a.test", "", "b.*.a.test", "a" * 250 + ".a.test"]),
    (URI_NAME, "a.test", ["http://a.test/", "ldap://u@A.test:389/x", "https://a.test"], ["http://b.a.test/"]),
    (URI_NAME, ".a.test", ["http://b.a.test/?x"], ["http://a.test/"]),
    (URI_NAME, "a.test", [], ["urn:x:a.test", "http://10.0.0.1/", "http:///a.test", "http://a.test%2e/", "mailto:x@a.test"]),
]  # fmt: skip


def cases() -> list[Any]:
    return [
        pytest.param(form, base, value, inside, id=f"{form:x} {base!r} {value[:40]!a} {inside}")
        for form, base, within, outside in TABLE
        for inside, values in ((True, within), (False, outside))
        for value in values
    ]


@pytest.mark.parametrize(("form", "base", "value", "inside"), cases())
def test_text_forms(form: int, base: str, value: str, inside: bool) -> None:
    """A name is permitted within the subtree; it is excluded within it too, and when nobody can tell."""
    tree = [text(form, base)]
    assert judged(constraints(tree), text(form, value)) == ("" if inside else OUTSIDE)
    if inside:
        assert judged(constraints([], tree), text(form, value)) == OUTSIDE


@pytest.mark.parametrize(
    ("form", "base", "value", "code"),
    [
        (RFC822, "b.test", "x@a.test", ""),
        (RFC822, "b.test", "unreadable", OUTSIDE),
        (RFC822, "Alice@a.test", "aLICE@a.test", OUTSIDE),
        (DNS_NAME, "b.a.test", "*.a.test", OUTSIDE),
        (DNS_NAME, "c.b.a.test", "*.a.test", ""),
        (DNS_NAME, "b.test", "a.test", ""),
        (URI_NAME, "b.test", "http://a.test/", ""),
        (URI_NAME, "b.test", "urn:x", OUTSIDE),
    ],
)
def test_excluded(form: int, base: str, value: str, code: str) -> None:
    """CERT-2: exclusion is generous: mail for Alice reaches alice, and a wildcard may stand for the excluded name."""
    assert judged(constraints([], [text(form, base)]), text(form, value)) == code


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("10.0.0.0/8", "10.9.8.7", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("0.0.0.0/0", "1.2.3.4", True),
        ("0.0.0.0/0", "::1", False),
        ("192.0.2.1/32", "192.0.2.1", True),
        ("2001:db8::/33", "2001:db8:7fff::1", True),
        ("2001:db8::/33", "2001:db8:8000::1", False),
        ("::/0", "fe80::1", True),
    ],
)
def test_networks(network: str, address: str, inside: bool) -> None:
    parsed = ipaddress.ip_network(network)
    tree = [tlv(IP, parsed.network_address.packed, parsed.netmask.packed)]
    presented = tlv(IP, ipaddress.ip_address(address).packed)
    assert judged(constraints(tree), presented) == ("" if inside else OUTSIDE)
    assert judged(constraints([], tree), presented) == (OUTSIDE if inside else "")
    assert judged(constraints(tree), tlv(IP, b"\x01\x02")) == OUTSIDE


def dn(*values: str) -> bytes:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, v) for v in values]).public_bytes()


@pytest.mark.parametrize(
    ("base", "subject", "inside"),
    [
        (("A",), ("A",), True),
        (("A",), ("A", "B"), True),
        (("a  ",), ("A", "B"), True),
        (("A", "B"), ("A",), False),
        (("B",), ("A", "B"), False),
        ((), ("A",), True),
        (("A",), (), True),
    ],
)
def test_directory_names(base: tuple[str, ...], subject: tuple[str, ...], inside: bool) -> None:
    """RFC 5280 §7.1: compared as names are, RDN by RDN from the front; an empty subject is no name."""
    tree = [tlv(DIRECTORY, dn(*base))]
    assert judged(constraints(tree), subject=dn(*subject)) == ("" if inside else OUTSIDE)
    if subject:
        assert judged(constraints([], tree), subject=dn(*subject)) == (OUTSIDE if inside else "")
        assert judged(constraints(tree), tlv(DIRECTORY, dn(*subject))) == ("" if inside else OUTSIDE)


def test_only_the_form_that_is_constrained_counts() -> None:
    limits = constraints([text(RFC822, "a.test")])
    assert judged(limits, text(DNS_NAME, "b.test"), subject=dn("B")) == ""
    assert judged(limits, text(DNS_NAME, "b.test"), text(RFC822, "x@b.test")) == OUTSIDE


def test_mail_in_the_subject_counts_without_mail_in_subject_alt_name() -> None:
    """CERT-1: as long as the address could be used."""
    limits = constraints([text(RFC822, "a.test")])
    assert judged(limits, mails=("x@b.test",)) == OUTSIDE
    assert judged(limits, text(DNS_NAME, "x.test"), mails=("x@b.test",)) == OUTSIDE
    assert judged(limits, text(RFC822, "x@a.test"), mails=("x@b.test",)) == ""
    assert judged(limits, mails=("x@a.test",)) == ""


def utf8_mailbox(value: str) -> bytes:
    return tlv(0xA0, bytes.fromhex("06082b06010505070809"), tlv(context(0), tlv(0x0C, value.encode())))


def test_smtp_utf8_mailboxes_are_mailboxes() -> None:
    """CERT-5: RFC 9598 §6"""
    limits = constraints([text(RFC822, "a.test"), text(RFC822, ".c.test")])
    assert judged(limits, utf8_mailbox("jürgen@a.test")) == ""
    assert judged(limits, utf8_mailbox("jürgen@x.c.test")) == ""
    assert judged(limits, utf8_mailbox("jürgen@b.test")) == OUTSIDE
    assert judged(limits, utf8_mailbox("jürgen@bücher.test")) == OUTSIDE
    assert judged(constraints([], [text(RFC822, "a.test")]), utf8_mailbox("jürgen@a.test")) == OUTSIDE
    assert judged(limits, utf8_mailbox("jürgen@b.test"), text(RFC822, "x@a.test")) == OUTSIDE
    assert judged(constraints([utf8_mailbox("a.test")]), utf8_mailbox("jürgen@a.test")) == UNSUPPORTED


def other_name(oid: str, value: bytes = b"\x0c\x01x") -> bytes:
    return tlv(0xA0, tlv(6, bytes.fromhex(oid)), tlv(context(0), value))


@pytest.mark.parametrize("excluded", [False, True])
def test_forms_that_nobody_processes_refuse_names_of_theirs(excluded: bool) -> None:
    """RFC 5280 §4.2.1.10: process the constraint or reject the certificate. Types of otherName are forms of their own."""
    for base, same, different in (
        (other_name("2a0304"), other_name("2a0304"), other_name("2a0305")),
        (text(0x88, "\x2a\x03"), text(0x88, "\x2a\x04"), text(DNS_NAME, "a.test")),
        (tlv(0xA3, b""), tlv(0xA3, b"\x05\x00"), tlv(0xA5, b"")),
    ):
        limits = constraints([], [base]) if excluded else constraints([base])
        assert judged(limits, same) == UNSUPPORTED
        assert judged(limits, different) == ""


UNREADABLE = [
    (text(RFC822, "*@a.test"), text(RFC822, "x@a.test")),
    (text(RFC822, "@.a.test"), text(RFC822, "x@a.test")),
    (text(DNS_NAME, "*.a.test"), text(DNS_NAME, "a.test")),
    (text(DNS_NAME, "a.test."), text(DNS_NAME, "a.test")),
    (text(URI_NAME, "http://a.test"), text(URI_NAME, "http://a.test/")),
    (tlv(IP, b"\x0a\0\0\0"), tlv(IP, b"\x0a\0\0\1")),
    (tlv(IP, b"\x0a\0\0\0\xff\0\xff\0"), tlv(IP, b"\x0a\0\0\1")),
    (tlv(DIRECTORY, b"\x04\x00"), tlv(DIRECTORY, dn("A"))),
]


@pytest.mark.parametrize(("base", "presented"), UNREADABLE)
def test_constraints_that_cant_be_read_refuse_names_of_their_form(base: bytes, presented: bytes) -> None:
    assert judged(constraints([base]), presented) == UNSUPPORTED
    assert judged(constraints([], [base]), presented) == UNSUPPORTED
    assert judged(constraints([base]), text(0x88, "\x2a\x04")) == ""


def test_minimum_and_maximum_are_refused() -> None:
    """RFC 5280 §4.2.1.10: other values than zero and absent must be processed or refused."""
    tree = text(DNS_NAME, "a.test")
    for distance, unsupported in ((b"\x80\x01\x00", ""), (b"\x80\x01\x01", "minimum"), (b"\x81\x01\x00", "maximum")):
        parsed = parse_constraints(tlv(SEQUENCE, tlv(context(0), subtree(tree, distance))))
        assert unsupported in parsed.unsupported
        assert bool(parsed.unsupported) == bool(unsupported)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"\x30\x02\xa0\x00", b"\x30\x03\x02\x01\x00", b"\x30\x80\x00\x00"])
def test_broken_extensions(der: bytes) -> None:
    with pytest.raises(BadDer):
        parse_constraints(der)


@given(st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=20))
def test_no_input_is_an_exception_of_another_kind(limits: bytes, names: bytes, mail: str) -> None:
    presented = presented_names(names, (mail,), names)
    try:
        parsed = parse_constraints(limits)
    except BadDer:
        parsed = parse_constraints(constraints([text(RFC822, "a.test")], [text(DNS_NAME, "")]))
    found = violation(parsed, presented, "CN=CA")
    assert found is None or found.code.startswith("path.")


# --- in a path --------------------------------------------------------------------------------------------------------


def limited(
    parent: Authority, common_name: str, permitted: Any = None, excluded: Any = None, critical: bool = True
) -> Authority:
    return parent.sub(common_name, extra=[(x509.NameConstraints(permitted, excluded), critical)])


def code(leaf: Leaf, *others: Leaf, settings: AnchorSettings | None = None, anchor: Leaf = ROOT, **more: Any) -> str:
    trusted = Anchor(anchor.certificate, "", settings or AnchorSettings())
    found = build_path(leaf.certificate, (trusted,), tuple(o.certificate for o in others), PathSettings(**more), NOW)
    return "valid" if isinstance(found, Path) else found.code


def organization(*values: str) -> x509.DirectoryName:
    return x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, v) for v in values]))


def person(ca: Authority, organizations: tuple[str, ...], address: str, *more: x509.GeneralName) -> Leaf:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations])
    names = x509.SubjectAlternativeName([MAIL(address), *more])
    private = key("rsa2048", ("leaf", 0))
    certificate = ca._sign(subject, private.public_key(), [(names, False)], not_before=NOW - DAY, not_after=NOW + DAY)
    return Leaf(certificate, private)


def test_t33_a_constrained_sub_ca_of_the_baseline_requirements() -> None:
    """T-33, CERT-16: rfc822Name and directoryName permitted, DNS and IP excluded, critical: good, violating, SmtpUTF8."""
    ca = limited(
        ROOT, "Constrained", [MAIL("example.org"), MAIL(".example.org"), organization("Example")],
        [DNS(""), x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")), x509.IPAddress(ipaddress.ip_network("::/0"))],
    )  # fmt: skip
    assert code(person(ca, ("Example", "Sales"), "a@example.org"), ca) == "valid"
    assert code(person(ca, ("Example",), "a@sub.example.org"), ca) == "valid"
    assert code(person(ca, ("Example",), "a@example.com"), ca) == OUTSIDE
    assert code(person(ca, ("Other",), "a@example.org"), ca) == OUTSIDE
    assert code(person(ca, ("Example",), "a@example.org", DNS("example.org")), ca) == OUTSIDE
    inside = x509.OtherName(UTF8_MAILBOX, tlv(0x0C, "jürgen@example.org".encode()))
    outside = x509.OtherName(UTF8_MAILBOX, tlv(0x0C, "jürgen@example.com".encode()))
    assert code(person(ca, ("Example",), "a@example.org", inside), ca) == "valid"
    assert code(person(ca, ("Example",), "a@example.org", outside), ca) == OUTSIDE
    upn = x509.OtherName(UPN, tlv(0x0C, b"a@example.com"))
    assert code(person(ca, ("Example",), "a@example.org", upn), ca) == "valid"


def test_every_ca_above_limits() -> None:
    """RFC 5280 §6.1.4 (g): permitted subtrees intersect, excluded ones add up; also where a constraint isn't critical."""
    outer = limited(ROOT, "Outer", [MAIL("a.test"), MAIL("b.test")], critical=False)
    inner = limited(outer, "Inner", [MAIL("b.test"), MAIL("c.test")], [MAIL("x@b.test")])
    pool = (outer, inner)
    assert code(inner.issue("y@b.test"), *pool) == "valid"
    for address in ("y@a.test", "y@c.test", "x@b.test"):
        assert code(inner.issue(address), *pool) == OUTSIDE
    assert code(outer.issue("y@a.test"), outer) == "valid"


def test_names_of_cas_count_unless_they_are_self_issued() -> None:
    """RFC 5280 §6.1.3 (b), (c): self-issued certificates are exempt, but never the last one."""
    ca = limited(ROOT, "Outer", [organization("A")])
    below = ca.sub("No organization")
    assert code(below.issue(None), below, ca) == OUTSIDE
    fresh = key("rsa2048", "fresh")
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca=True, path_length=None), True)]
    again = ca._sign(ca.subject, fresh.public_key(), extensions, not_before=NOW - DAY, not_after=NOW + DAY)
    renewed = Authority(again, fresh, ca.subject)
    assert code(person(renewed, ("A",), "x@a.test"), renewed, ca) == "valid"
    assert code(renewed, ca) == OUTSIDE


def test_constraints_of_the_anchor_count() -> None:
    """RFC 5937, RFC 5280 §6.1.1 (h), (i): what its certificate states, and what its settings add."""
    private = key("rsa2048", ("ca", "Limited root"))
    blank = Authority(Certificate(b"", None), private, name("Limited root"))  # type: ignore[arg-type]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=None), True), (x509.NameConstraints([MAIL("a.test")], None), True),
    ]  # fmt: skip
    stated = blank._sign(blank.subject, private.public_key(), extensions, not_before=NOW - DAY, not_after=NOW + DAY)
    root = Authority(stated, private, blank.subject)
    assert code(root.issue("x@a.test"), anchor=root) == "valid"
    assert code(root.issue("x@b.test"), anchor=root) == OUTSIDE
    settings = AnchorSettings(domains=("a.test", ".a.test"), excluded_domains=("own.a.test",))
    for address, expected in (
        ("x@a.test", "valid"),
        ("x@b.a.test", "valid"),
        ("x@c.test", OUTSIDE),
        ("x@own.a.test", OUTSIDE),
    ):
        assert code(ROOT.issue(address), settings=settings) == expected


def test_only_a_ca_may_have_constraints() -> None:
    leaf = ROOT.issue("x@a.test", extra=[(x509.NameConstraints([MAIL("a.test")], None), False)])
    assert code(leaf) == "path.bad-extension"


def test_a_ca_with_distances_is_refused() -> None:
    der = tlv(SEQUENCE, tlv(context(0), subtree(text(RFC822, "a.test"), b"\x80\x01\x01")))
    odd = ROOT.sub("Distances", extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.30"), der), True)])
    assert code(odd.issue("x@a.test"), odd) == UNSUPPORTED


@pytest.mark.parametrize(
    ("base", "refused"),
    [
        (tlv(IP, bytes([10, 0, 0, 1, 255, 0, 0, 0])), {"10.0.0.9": "valid", "11.0.0.1": OUTSIDE}),
        (tlv(IP, bytes([10, 0, 0, 1])), {"10.0.0.1": UNSUPPORTED}),
        (tlv(0xA3, b"\x30\x00"), {"10.0.0.1": "valid"}),
        (tlv(0xA5, b"\xa1\x03\x0c\x01x"), {"10.0.0.1": "valid"}),
    ],
    ids=["host bits", "an address without mask", "x400Address", "ediPartyName"],
)
def test_constraints_that_the_library_refuses_are_read_all_the_same(base: bytes, refused: dict[str, str]) -> None:
    """A CA with odd subtrees is no broken CA: they count for names of their form only."""
    der = constraints([base, text(RFC822, "a.test")])
    extra = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.30"), der), True)]
    ca = ROOT.sub("Odd subtrees", extra=extra)
    with pytest.raises(Exception):  # noqa: B017
        _ = ca.certificate.x509.extensions
    assert code(ca.issue("x@a.test"), ca) == "valid"
    assert code(ca.issue("x@b.test"), ca) == OUTSIDE
    for address, expected in refused.items():
        names = [MAIL("x@a.test"), x509.IPAddress(ipaddress.ip_address(address))]
        assert code(ca.issue(None, extra=[(x509.SubjectAlternativeName(names), False)]), ca) == expected


def test_another_path_without_constraints_is_found() -> None:
    """The first issuer's constraints end that path, not the search."""
    first = limited(ROOT, "Twice", [MAIL("a.test")])
    second = ROOT.sub("Twice")
    leaf = second.issue("x@b.test")
    assert code(leaf, first) == OUTSIDE
    assert code(leaf, first, second) == "valid"


def test_many_names_and_constraints_are_given_up() -> None:
    """PRE-6: CVE-2023-0464 and its kin: the product of names and constraints is bounded."""
    ca = limited(ROOT, "Large", [MAIL(f"{n}.test") for n in range(1100)])
    few, many = ([MAIL(f"x@{n % 1100}.test") for n in range(size)] for size in (900, 1100))
    leaf = ca.issue(None, extra=[(x509.SubjectAlternativeName(few), False)])
    assert code(leaf, ca) == "valid"
    assert code(ca.issue(None, extra=[(x509.SubjectAlternativeName(many), False)]), ca) == "path.budget"


def test_the_detail_names_certificate_name_and_ca() -> None:
    ca = limited(ROOT, "Strict", [MAIL("a.test")])
    leaf = ca.issue("x@b.test").certificate
    found = build_path(leaf, (Anchor(ROOT.certificate),), (ca.certificate,), PathSettings(), NOW)
    assert isinstance(found, PathFault)
    assert found.detail == "CN=x@b.test: 'x@b.test' is outside of what CN=Strict permits"
    assert found.certificate == leaf


def test_domains_of_an_administrator() -> None:
    assert mail_constraints(("a.test",), (".b.test",)).size == 2
