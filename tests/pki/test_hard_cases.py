"""Hard cases read out of the RFCs, one clause each, asked of ``postseal verify`` by its command line and JSON.

OpenSSL is asked the same where it has an opinion; ``differs`` says why it says something else.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postseal.shell.cli.main import main
from support.daemon import run_postseal
from support.generated import (
    ANY_POLICY,
    CA_USAGE,
    EMAIL_PROTECTION,
    LEAF_USAGE,
    SERVER_AUTH,
    Cert,
    Entry,
    Listing,
    Point,
    write_pem,
)
from support.openssl_verify import openssl_verify
from support.pki import NOW
from support.responders import WebServer
from support.strategies import POLICIES, REST, SOME

R, S, A, X = "Acme/Root", "Acme/Sub", "Acme/Alice", "Acme/Signer"
U1, U2 = "http://ca.test/1.crl", "http://ca.test/2.crl"
P1, P2, P3 = POLICIES
TOP = Cert(R, R, 0, 0, ca=True, usage=CA_USAGE)
MID = Cert(S, R, 1, 0, serial=61, ca=True, usage=CA_USAGE)
EE = Cert(A, S, 2, 1, serial=62, usage=LEAF_USAGE, names=("email:alice@example.test",), points=(Point((U1,)),))
SIGNER = Cert(X, R, 3, 0, serial=63, usage=("crl_sign",))
NEW = replace(MID, issuer=S, signer=1, key=4, serial=64)
ROOT_CRL, GOOD = Listing(R, 0), Listing(S, 1)
ON, HELD = Entry(62, 1), Entry(62, 6)


@dataclass(frozen=True)
class Case:
    """``why`` is the clause. No ``crls`` (None) leaves revocation out. ``day`` is when, counted from NOW."""

    why: str
    status: str
    leaf: Cert = EE
    pool: tuple[Cert, ...] = (MID,)
    crls: tuple[Listing, ...] | None = None
    anchors: tuple[Cert, ...] = (TOP,)
    options: tuple[str, ...] = ("--purpose", "any")
    day: float = 0
    openssl: tuple[str, ...] | None = ()
    differs: str = ""


def mid(**more: Any) -> tuple[Cert, ...]:
    return (replace(MID, **more),)


def ee(**more: Any) -> Cert:
    return replace(EE, **more)


def old(cert: Cert) -> Cert:
    return replace(cert, from_day=-5200, to_day=-4800)


EXPLICIT = ("--purpose", "any", "--require-explicit-policy")
MAIL: tuple[str, ...] = ()
SECOND = 1 / 86400
LOW = Cert("Acme/Low", S, 5, 1, ca=True, usage=CA_USAGE)
UNDER_LOW = ee(issuer="Acme/Low", signer=5)
PATHS = {
    "plain": Case("RFC 5280 §6.1", "good"),
    "an anchor itself": Case("RFC 5280 §6.1.1 (d): a trusted certificate has a path of one", "good", TOP, ()),
    "self-signed stranger": Case("RFC 5280 §6.1", "untrusted", Cert("Me", "Me", 8, 8), ()),
    "no basicConstraints": Case("§6.1.4 (k)", "untrusted", pool=mid(ca=None)),
    "cA FALSE": Case("§6.1.4 (k)", "untrusted", pool=mid(ca=False)),
    "no keyCertSign": Case("§6.1.4 (n)", "untrusted", pool=mid(usage=("crl_sign", "digital_signature"))),
    "no keyUsage": Case("§6.1.4 (n): only if present", "good", pool=mid(usage=None)),
    "one CA too many": Case("§6.1.4 (m)", "untrusted", UNDER_LOW, (*mid(path_length=0), LOW)),
    "enough room": Case("§6.1.4 (m)", "good", UNDER_LOW, (*mid(path_length=1), LOW)),
    "self-issued takes no room": Case("§6.1.4 (l)", "good", ee(signer=4), (*mid(path_length=0), NEW)),
    "last one is a CA": Case("§4.2.1.9: the last isn't counted", "good", ee(ca=True), mid(path_length=0)),
    "expired": Case("§6.1.3 (a)(2)", "untrusted", ee(to_day=-1.0)),
    "last second": Case(
        "§4.1.2.5: through notAfter, inclusive", "good", ee(to_day=0.0), differs="ends a second earlier"
    ),
    "a second later": Case("§4.1.2.5", "untrusted", ee(to_day=0.0), day=SECOND),
    "first second": Case("§4.1.2.5: from notBefore, inclusive", "good", ee(from_day=0.0)),
    "an hour early": Case("§6.1.3 (a)(2)", "untrusted", ee(from_day=1 / 24)),
    "expired issuer": Case("§6.1.3 (a)(2): no shell model", "untrusted", pool=mid(to_day=-1.0)),
    "2012": Case("--at in 2012", "good", old(EE), (old(MID),), anchors=(old(TOP),), day=-5000),
    "2012 seen from now": Case("§6.1.3 (a)(2)", "untrusted", old(EE), (old(MID),), anchors=(old(TOP),)),
    "unknown critical": Case("§6.1.5 (f)", "untrusted", ee(unknown=True)),
    "unknown critical above": Case("§6.1.4 (o)", "untrusted", pool=mid(unknown=True)),
    "case of names": Case("§7.1: compared without case", "good", ee(issuer="ACME/sub")),
    "space in names": Case("§7.1: spaces folded", "good", ee(issuer="Acme/ Sub "), mid(subject="Acme/Sub")),
    "broken signature": Case("§6.1.3 (a)(1)", "untrusted", ee(spoil=True)),
    "two keys, one name": Case("§6.1: the right one is found", "good", pool=(replace(NEW, issuer=R, signer=0), MID)),
    "wrong key identifier": Case("RFC 4158 §3.5.12: a hint", "good", ee(aki=9), differs="takes it for proof"),
    "cross-certificates in a ring": Case(
        "§6.1: no certificate twice",
        "untrusted",
        UNDER_LOW,
        (Cert("Acme/Low", "Acme/High", 5, 6, ca=True), Cert("Acme/High", "Acme/Low", 6, 5, ca=True)),
    ),
    "one of two roads": Case(
        "§6.1: any valid path",
        "good",
        pool=(replace(MID, to_day=-1.0), replace(MID, serial=65, unknown=True), MID),
        openssl=None,
    ),
}
NAMES = {
    "inside": Case("§4.2.1.10", "good", pool=mid(permitted=("email:example.test",))),
    "outside": Case("§6.1.3 (b)", "untrusted", pool=mid(permitted=("email:other.test",))),
    "excluded wins": Case(
        "§6.1.3 (c)", "untrusted", pool=mid(permitted=("email:example.test",), excluded=("email:alice@example.test",))
    ),
    "a host isn't its subdomains": Case(
        "§4.2.1.10: a host", "untrusted", ee(names=("email:a@m.example.test",)), mid(permitted=("email:example.test",))
    ),
    "a domain isn't its host": Case(
        "§4.2.1.10: leading period", "untrusted", pool=mid(permitted=("email:.example.test",))
    ),
    "another form": Case(
        "§6.1.3 (b): no name of that form", "good", pool=mid(permitted=("dns:other.test", "uri:other.test"))
    ),
    "subject outside": Case(
        "§4.2.1.10: directoryName holds for the subject",
        "untrusted",
        ee(subject="Other/Alice"),
        mid(permitted=("dir:Acme/",)),
    ),
    "two sets": Case(
        "§6.1.4 (g): intersection",
        "untrusted",
        UNDER_LOW,
        (*mid(permitted=("email:example.test",)), replace(LOW, permitted=("email:other.test",))),
    ),
    "self-issued is exempt": Case(
        "§6.1.3 (b): but the last", "good", ee(signer=4), (*mid(permitted=("dir:Acme/Alice",)), NEW)
    ),
    "address": Case("§4.2.1.10", "untrusted", ee(names=("ip:10.9.9.9",)), mid(permitted=("ip:192.0.2.0/24",))),
    "address excluded": Case("§4.2.1.10", "untrusted", ee(names=("ip:10.9.9.9",)), mid(excluded=("ip:10.0.0.0/8",))),
    "URI": Case(
        "§4.2.1.10: a host",
        "untrusted",
        ee(names=("uri:http://www.other.test/",)),
        mid(permitted=("uri:www.example.test",)),
    ),
    "URI of an address": Case(
        "§4.2.1.10: must be a name",
        "untrusted",
        ee(names=("uri:http://192.0.2.1/",)),
        mid(permitted=("uri:www.example.test",)),
    ),
    "mail in the subject": Case(
        "§4.2.1.10: without subjectAltName",
        "untrusted",
        ee(names=(), email="a@other.test"),
        mid(permitted=("email:example.test",)),
    ),
    "the anchor's": Case("RFC 5937 §3", "untrusted", anchors=(replace(TOP, permitted=("email:other.test",)),)),
}
POLICY = {
    "none required": Case("§6.1.5 (g)", "good"),
    "none there": Case("§6.1.5 (g)", "untrusted", options=EXPLICIT, openssl=("-explicit_policy",)),
    "the same all along": Case(
        "§6.1.3 (d)", "good", ee(policies=(P1,)), mid(policies=(P1,)), options=EXPLICIT, openssl=("-explicit_policy",)
    ),
    "never the same": Case(
        "§6.1.3 (d)",
        "untrusted",
        ee(policies=(P1,)),
        mid(policies=(P2,)),
        options=EXPLICIT,
        openssl=("-explicit_policy",),
    ),
    "any above": Case(
        "§6.1.3 (d)(1)(ii)",
        "good",
        ee(policies=(P1,)),
        mid(policies=(ANY_POLICY,)),
        options=EXPLICIT,
        openssl=("-explicit_policy",),
    ),
    "any is inhibited": Case(
        "§6.1.4 (j)", "untrusted", ee(policies=(ANY_POLICY,), explicit_after=0), mid(policies=(P1,), any_after=0)
    ),
    "mapped": Case(
        "§6.1.4 (b)", "good", ee(policies=(P2,), explicit_after=0), mid(policies=(P1,), mappings=((P1, P2),))
    ),
    "mapped away": Case(
        "§6.1.4 (b)", "untrusted", ee(policies=(P1,), explicit_after=0), mid(policies=(P1,), mappings=((P1, P2),))
    ),
    "mapping is inhibited": Case(
        "§6.1.4 (i)",
        "untrusted",
        ee(issuer="Acme/Low", signer=5, policies=(P2,), explicit_after=0),
        (*mid(policies=(P1,), mapping_after=0), replace(LOW, policies=(P1,), mappings=((P1, P2),))),
    ),
    "mapping of any": Case(
        "§6.1.4 (a)", "untrusted", ee(policies=(P1,)), mid(policies=(ANY_POLICY,), mappings=((ANY_POLICY, P1),))
    ),
    "required by the CA": Case("§6.1.4 (i), §6.1.5 (a)", "untrusted", pool=mid(explicit_after=0)),
    "wanted by the user": Case(
        "§6.1.5 (g)",
        "untrusted",
        ee(policies=(P1,)),
        mid(policies=(P1,)),
        options=(*EXPLICIT, "--policy", P3),
        openssl=None,
    ),
    "had by the user": Case(
        "§6.1.5 (g)", "good", ee(policies=(P1,)), mid(policies=(P1,)), options=(*EXPLICIT, "--policy", P1), openssl=None
    ),
}
PURPOSE = {
    "mail": Case("RFC 8550 §4.4.4", "good", ee(eku=(EMAIL_PROTECTION,)), options=MAIL, openssl=None),
    "no purpose named": Case("RFC 8550 §4.4.4: all", "good", options=MAIL, openssl=None),
    "a web server's": Case("RFC 8550 §4.4.4", "unfit", ee(eku=(SERVER_AUTH,)), options=MAIL, openssl=None),
    "a CA for web servers": Case(
        "RFC 5280 §4.2.1.12, nested",
        "untrusted",
        pool=mid(eku=(SERVER_AUTH,)),
        options=MAIL,
        openssl=("-purpose", "smimesign"),
    ),
    "signs only": Case("RFC 8550 §4.4.2", "unfit", ee(usage=("digital_signature",)), options=MAIL, openssl=None),
    "deciphers only": Case(
        "RFC 8550 §4.4.2", "unfit", ee(usage=("key_agreement", "decipher_only")), options=MAIL, openssl=None
    ),
    "a CA": Case("CERT-12", "unfit", ee(ca=True), options=MAIL, openssl=None),
    "another address": Case("RFC 8550 §3", "unfit", options=("--address", "bob@example.test"), openssl=None),
    "case of the domain": Case("RFC 8550 §3", "good", options=("--address", "alice@EXAMPLE.test"), openssl=None),
}


def crls(why: str, status: str, *listings: Listing, **more: Any) -> Case:
    return Case(why, status, crls=(ROOT_CRL, *listings), **more)


def user(**more: Any) -> Listing:
    return replace(GOOD, user=True, **more)


POINTS = (Point((U1,), issuer=X),)
INDIRECT = Listing(X, 3, indirect=True, point=(U1,))
BY_SIGNER = {"leaf": ee(points=POINTS), "pool": (MID, SIGNER)}
CRLS = {
    "not listed": crls("§6.3.3", "good", GOOD),
    "listed": crls("§6.3.3 (j)", "revoked", replace(GOOD, entries=(ON,))),
    "held": crls("§5.3.1: a hold is a revocation", "revoked", replace(GOOD, entries=(HELD,))),
    "issuer revoked": Case(
        "PRE-3: everybody of the path", "revoked", crls=(Listing(R, 0, entries=(Entry(61, 1),)), GOOD)
    ),
    "nothing about the issuer": Case("PRE-3", "unknown", crls=(GOOD,)),
    "out of date": crls("§6.3.3 (a)", "unknown", replace(GOOD, to_day=-0.5)),
    "out of date and listed": crls("RPL-4", "revoked", replace(GOOD, to_day=-0.5, entries=(ON,))),
    "of the future": crls("§5.1.2.4", "unknown", replace(GOOD, from_day=1.0)),
    "another key": crls("§6.3.3 (g)", "unknown", replace(GOOD, key=9, aki=1)),
    "broken": crls("§6.3.3 (g)", "unknown", replace(GOOD, spoil=True)),
    "no cRLSign": crls("§6.3.3 (f)", "unknown", GOOD, pool=mid(usage=("key_cert_sign",))),
    "for users": crls("§6.3.3 (b)(2)(ii)", "good", user()),
    "for users, about a CA": crls("§6.3.3 (b)(2)(ii)", "unknown", user(), leaf=ee(ca=True)),
    "for CAs": crls("§6.3.3 (b)(2)(iii)", "unknown", replace(GOOD, ca=True)),
    "for attributes": crls("§6.3.3 (b)(2)(iv)", "unknown", replace(GOOD, attribute=True)),
    "another part": crls("§6.3.3 (b)(2)(i)", "unknown", replace(GOOD, point=(U2,))),
    "one of its parts": crls("§6.3.3 (b)(2)(i)", "good", replace(GOOD, point=(U2, U1))),
    "the second point": crls(
        "§4.2.1.13: every point", "good", replace(GOOD, point=(U1,)), leaf=ee(points=(Point((U2,)), Point((U1,))))
    ),
    "some reasons": crls("§6.3.3 (l)", "unknown", replace(GOOD, reasons=SOME)),
    "all reasons in two": crls(
        "§6.3.3 (e)", "good", replace(GOOD, reasons=SOME), replace(GOOD, number=2, reasons=REST)
    ),
    "listed for some reasons": crls("§6.3.3 (j)", "revoked", replace(GOOD, reasons=SOME, entries=(ON,))),
    "unknown critical": crls("§5.2", "unknown", replace(GOOD, unknown=True)),
    "unknown critical entry": crls(
        "§5.3: for any certificate", "unknown", replace(GOOD, entries=(Entry(7, critical=True),))
    ),
    "by an appointed issuer": crls("§6.3.3 (b)(1)", "good", INDIRECT, **BY_SIGNER),
    "by an appointed issuer, listed": crls(
        "§5.3.3", "revoked", replace(INDIRECT, entries=(Entry(62, 1, S),)), **BY_SIGNER
    ),
    "another issuer's number": crls("§5.3.3", "good", replace(INDIRECT, entries=(Entry(62, 1),)), **BY_SIGNER),
    "inherited issuer": crls(
        "§5.3.3: until the next", "revoked", replace(INDIRECT, entries=(Entry(7, 1, S), Entry(62, 1))), **BY_SIGNER
    ),
    "issuer of a later entry": crls(
        "§5.3.3: not backwards", "good", replace(INDIRECT, entries=(Entry(62, 1), Entry(7, 1, S))), **BY_SIGNER
    ),
    "appointed but not indirect": crls("§6.3.3 (b)(1)", "unknown", replace(INDIRECT, indirect=False), **BY_SIGNER),
    "not appointed": crls("§6.3.3 (b)(1)", "unknown", INDIRECT, pool=(MID, SIGNER)),
    "appointed and revoked": Case(
        "PRE-7", "unknown", ee(points=POINTS), (MID, SIGNER), (Listing(R, 0, entries=(Entry(63, 1),)), INDIRECT)
    ),
    "signer of another CA": crls(
        "§6.3.3 (f): the same anchor",
        "unknown",
        INDIRECT,
        leaf=ee(points=POINTS),
        pool=(MID, replace(SIGNER, issuer="Other/Root", signer=7)),
        anchors=(TOP, Cert("Other/Root", "Other/Root", 7, 7, ca=True, usage=CA_USAGE)),
    ),
    "delta lists": crls(
        "§6.3.3 (i)",
        "revoked",
        GOOD,
        replace(GOOD, number=2, delta_of=1, entries=(ON,)),
        leaf=ee(freshest=(Point((U2,)),)),
    ),
    "delta lifts a hold": crls(
        "§5.3.1",
        "good",
        replace(GOOD, entries=(HELD,)),
        replace(GOOD, number=2, delta_of=1, from_day=-0.5, entries=(Entry(62, 8),)),
        leaf=ee(freshest=(Point((U2,)),)),
    ),
    "delta lifts more": crls(
        "CRL-19: only a hold can be lifted",
        "revoked",
        replace(GOOD, entries=(ON,)),
        replace(GOOD, number=2, delta_of=1, from_day=-0.5, entries=(Entry(62, 8),)),
        leaf=ee(freshest=(Point((U2,)),)),
        differs="lifts every reason",
    ),
    "delta alone": crls("§5.2.4", "unknown", replace(GOOD, number=2, delta_of=1)),
    "delta of a newer base": crls(
        "§5.2.4 (c)",
        "revoked",
        replace(GOOD, number=3, entries=(HELD,)),
        replace(GOOD, number=9, delta_of=5, from_day=-0.5, entries=(Entry(62, 8),)),
        leaf=ee(freshest=(Point((U2,)),)),
    ),
    "no nextUpdate": crls("CRL-23: for a day after it came", "good", replace(GOOD, to_day=None)),
    "old and new": crls(
        "CRL-25: revoked in either",
        "revoked",
        replace(GOOD, entries=(ON,)),
        replace(GOOD, number=2, from_day=-0.5),
        differs="believes the newer alone",
    ),
    "2012": Case(
        "--at in 2012",
        "revoked",
        old(EE),
        (old(MID),),
        tuple(replace(c, from_day=-5001, to_day=-4994) for c in (ROOT_CRL, replace(GOOD, entries=(ON,)))),
        (old(TOP),),
        day=-5000,
    ),
}
GROUPS = {"path": PATHS, "names": NAMES, "policy": POLICY, "purpose": PURPOSE, "crl": CRLS}
CASES = {f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()}


def ask(capsys: pytest.CaptureFixture[str], folder: Path, case: Case, *more: str) -> dict[str, Any]:
    arguments = [
        "verify",
        "--json",
        "--at",
        str(int((NOW + timedelta(days=case.day)).timestamp())),
        *case.options,
        *more,
    ]
    for option, certificates in (("--anchor", case.anchors), ("--intermediate", case.pool)):
        if certificates:
            arguments += [option, str(write_pem(folder / option, "CERTIFICATE", [c.der for c in certificates]))]
    if case.crls is None:
        arguments.append("--no-revocation")
    elif case.crls:
        arguments += ["--crl", str(write_pem(folder / "crls", "X509 CRL", [c.der for c in case.crls]))]
    code = main([*arguments, str(write_pem(folder / "leaf", "CERTIFICATE", [case.leaf.der]))])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    assert code == (0 if found["status"] == "good" else 1)
    return found


@pytest.mark.parametrize("name", CASES)
def test_case(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """RFC 5280 §6, RFC 8550 §4: the status of the case, and OpenSSL's word on it."""
    case = CASES[name]
    found = ask(capsys, tmp_path, case)
    assert found["status"] == case.status, f"{case.why}: {found['reason']}: {found['detail']}"
    if case.openssl is not None:
        at = NOW + timedelta(days=case.day)
        said = openssl_verify(tmp_path, case.leaf, case.anchors, case.pool, case.crls, *case.openssl, at=at)
        assert (said.ok == (case.status == "good")) is not bool(case.differs), said.text


ONLINE = {
    "good": ("good", GOOD, 200),
    "revoked": ("revoked", replace(GOOD, entries=(ON,)), 200),
    "gone": ("unknown", GOOD, 404),
}


@pytest.mark.parametrize("name", ONLINE)
def test_fetched(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """RFC 5280 §4.2.1.13: CRLs of both issuers from where the certificates point, on a network that is allowed."""
    status, listing, code = ONLINE[name]
    with WebServer() as web:
        web.put("/root.crl", ROOT_CRL.der)
        web.put("/sub.crl", listing.der, status=code)
        leaf, issuer = ee(points=(Point((web.url("/sub.crl"),)),)), mid(points=(Point((web.url("/root.crl"),)),))
        case = Case("", status, leaf, issuer, crls=())
        more = ("--online", "--allow-network", "127.0.0.0/8", "--allow-port", str(web.port))
        found = ask(capsys, tmp_path, case, *more)
        assert found["status"] == status, found["detail"]
        assert web.count("/sub.crl") >= 1


def test_oddities_of_strangers_are_no_warnings_of_ours(tmp_path: Path) -> None:
    """A name that is too long, a number that is negative: what the library thinks of them isn't on standard error."""
    anchor = write_pem(tmp_path / "anchor", "CERTIFICATE", [TOP.der])
    for odd in (Cert("x" * 100, R, 2, 0, names=EE.names), Cert(A, R, 2, 0, serial=-5, names=EE.names)):
        leaf = write_pem(tmp_path / "leaf", "CERTIFICATE", [odd.der])
        at = str(int(NOW.timestamp()))
        done = run_postseal("verify", "--json", "--anchor", str(anchor), "--no-revocation", "--at", at, str(leaf))
        assert (done.returncode, done.stderr) == (0, "")


def test_crls_that_come_with_certificates(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """CRL-26, RFC 8550 §4.2: a CRL beside the certificates of a message clears nobody and revokes nobody."""
    crls = write_pem(tmp_path / "crls", "X509 CRL", [ROOT_CRL.der, GOOD.der])
    certificates = write_pem(tmp_path / "certificates", "CERTIFICATE", [EE.der, MID.der])
    bundle = tmp_path / "bundle.p7"
    command = ["openssl", "crl2pkcs7", "-in", str(crls), "-certfile", str(certificates), "-outform", "DER"]
    bundle.write_bytes(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
    assert GOOD.der in bundle.read_bytes() or ROOT_CRL.der in bundle.read_bytes()
    anchor = write_pem(tmp_path / "anchor", "CERTIFICATE", [TOP.der])
    ask_all = ["verify", "--json", "--purpose", "any", "--anchor", str(anchor), "--at", str(int(NOW.timestamp()))]
    assert main([*ask_all, str(bundle)]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "rev.no-evidence"
    assert main([*ask_all, "--crl", str(crls), str(bundle)]) == 0
