"""RPL-3, THR-7: no input makes an exception leave the engine. Valid DER is changed element by element and signed again.

What a byte more or less breaks is refused at the door; what is well formed and signed gets through to the judgement. So
elements are dropped, doubled, swapped, wrapped, given other tags, other contents or those of another element; then the
lengths around them are made right and the CA signs it. ``./dev fuzz`` runs these for longer.
"""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from postseal.app.verify import Report, Request, explain, verify
from postseal.core import bundle
from postseal.core.certs import Certificate, load_certificate
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, Evidence, OcspEvidence, issuer_urls, question_for
from postseal.core.fitness import fitness
from postseal.core.judgement import JudgementSettings
from postseal.core.path import Anchor, PathSettings, build_path
from postseal.core.path_values import Path
from postseal.core.revocation import RevocationSettings, refresh_window
from postseal.sources.ldap import Place, parse_url
from support.evidence import OCSP_URL, Answer, Ocsp, algorithm, kind_for, node, seq, sign
from support.generated import CA_USAGE, EMAIL_PROTECTION, LEAF_USAGE, Cert, Entry, Listing, Point
from support.judging import judge_question
from support.pki import NOW, authority, key, usage
from support.property_runs import examples
from support.strategies import POLICIES, SOME, URL_1

ROOT = Cert("Acme/Root", "Acme/Root", 0, 0, ca=True, usage=CA_USAGE)
SUB = Cert(
    "Acme/Sub", "Acme/Root", 1, 0, serial=61, ca=True, path_length=1, usage=CA_USAGE, eku=(EMAIL_PROTECTION,),
    permitted=("email:example.test", "dir:Acme/", "dns:example.test", "ip:10.0.0.0/8", "uri:.example.test"),
    excluded=("email:x@example.test",), policies=POLICIES[:2], mappings=((POLICIES[0], POLICIES[1]),), explicit_after=3,
    mapping_after=2, any_after=1, points=(Point((URL_1,), SOME), Point((URL_1,), issuer="Acme/Signer")),
)  # fmt: skip
LEAF = Cert(
    "Acme/Alice", "Acme/Sub", 2, 1, serial=62, ca=False, usage=LEAF_USAGE, eku=(EMAIL_PROTECTION,), email="a@example.test",
    names=("email:alice@example.test", "dns:www.example.test", "uri:http://www.example.test/", "ip:10.1.1.1", "dir:Acme/A"),
    policies=POLICIES[:2], points=(Point((URL_1,), SOME), Point((URL_1,), issuer="Acme/Signer")), freshest=(Point((URL_1,)),),
)  # fmt: skip
CRLS = (
    Listing("Acme/Sub", 1, 5, (Entry(7, 1), Entry(62, 6)), point=(URL_1,), user=True, reasons=SOME, freshest=True),
    Listing("Acme/Sub", 1, 6, (Entry(62, 8), Entry(8, None, "Acme/Root")), indirect=True, delta_of=5),
    Listing("Acme/Sub", 1, 7, (Entry(9, 4),)),
)
CA = authority("OCSP CA", kind="p256")
ALICE = CA.issue("alice@example.test", kind="p256", ocsp_urls=[OCSP_URL])
RESPONDER = CA.issue(None, kind="p256", slot="r", common_name="R", key_usage=usage("digital_signature"))
ANSWERS = (
    Ocsp([Answer(ALICE, CA), Answer(ALICE, CA, "revoked", reason=1, hash="sha1")], CA, certificates=[RESPONDER]).der(),
    Ocsp([Answer(ALICE, CA)], CA, by_key=True).der(),
)


@dataclass
class Element:
    """One element of DER; ``lead`` is the octet of unused bits where a BIT STRING holds DER."""

    tag: int
    content: bytes
    children: list[Element] | None = None
    lead: bytes = b""

    def der(self) -> bytes:
        inner = self.content if self.children is None else self.lead + b"".join(c.der() for c in self.children)
        return node(self.tag, inner)


def parsed(data: bytes) -> list[Element] | None:
    """The elements that ``data`` is made of, or None if it isn't DER."""
    found, at = [], 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F or data[at] == 0:
            return None
        size, body = data[at + 1], at + 2
        if size >= 0x80:
            count = size & 0x7F
            size, body = int.from_bytes(data[body : body + count], "big"), body + count
            if not 0 < count < 4:
                return None
        if body + size > len(data):
            return None
        found.append(_element(data[at], data[body : body + size]))
        at = body + size
    return found


def _element(tag: int, content: bytes) -> Element:
    if tag & 0x20:
        return Element(tag, content, parsed(content))
    if tag in (3, 4) and len(content) > 2:
        lead = content[:1] if tag == 3 else b""
        inside = parsed(content[len(lead) :])
        if inside:
            return Element(tag, content, inside, lead)
    return Element(tag, content)


def parents(element: Element) -> list[Element]:
    """All elements that have others in them."""
    if not element.children:
        return []
    return [element, *(p for child in element.children for p in parents(child))]


@st.composite
def changed(draw: st.DrawFn, original: bytes) -> bytes:
    (root,) = parsed(original) or ()
    for _ in range(draw(st.integers(1, 3))):
        every = parents(root)
        if not every:
            break
        parent = draw(st.sampled_from(every))
        assert parent.children
        at = draw(st.integers(0, len(parent.children) - 1))
        _change(draw, parent.children, at, every)
    return root.der()


def _change(draw: st.DrawFn, children: list[Element], at: int, every: list[Element]) -> None:
    how = draw(st.sampled_from(("drop", "double", "swap", "wrap", "tag", "content", "graft", "empty", "many")))
    child = children[at]
    if how == "drop":
        del children[at]
    elif how == "double":
        children.insert(at, deepcopy(child))
    elif how == "swap":
        other = draw(st.integers(0, len(children) - 1))
        children[at], children[other] = children[other], child
    elif how == "wrap":
        children[at] = Element(draw(st.sampled_from((0x30, 0x31, 0xA0, 0xA1, 0xA3, 0x04))), b"", [child])
    elif how == "tag":
        children[at] = Element(
            draw(st.integers(1, 0xFE).filter(lambda t: t & 0x1F != 0x1F)), child.content, child.children
        )
    elif how == "content":
        children[at] = Element(child.tag, draw(st.binary(max_size=24)))
    elif how == "graft":
        # A copy, so that nothing contains itself.
        children[at] = deepcopy(draw(st.sampled_from(draw(st.sampled_from(every)).children or [child])))
    elif how == "empty":
        children[at] = Element(child.tag, b"")
    elif how == "many":
        children[at:at] = [deepcopy(child) for _ in range(draw(st.sampled_from((2, 9, 33, 65))))]


def signed(tbs: bytes, private: object) -> bytes:
    kind = kind_for(private)
    return seq(tbs, algorithm(kind), node(3, b"\x00", sign(private, kind, tbs)))


def tbs_of(der: bytes) -> bytes:
    (outer,) = parsed(der) or ()
    assert outer.children
    return outer.children[0].der()


def judged(leaf: Certificate, *pool: Certificate, crls: tuple[CrlEvidence, ...] = ()) -> Report:
    """All that is done with a certificate; what it returns can be told in words."""
    report = verify(leaf, Request((Anchor(ROOT.loaded),), pool, crls), NOW)
    for check in explain(report):
        assert check.text
    fitness(leaf, None, NOW)
    issuer_urls(leaf)
    question_for(leaf, SUB.loaded)
    return report


@examples(200)
@given(tbs=changed(tbs_of(LEAF.der)))
def test_any_signed_certificate(tbs: bytes) -> None:
    """RPL-3: an end entity's certificate of whatever shape, by a CA that signs everything."""
    with suppress(BadData):
        judged(load_certificate(signed(tbs, key("p256", ("generated", 1)))), SUB.loaded)


@examples(200)
@given(tbs=changed(tbs_of(SUB.der)))
def test_any_signed_authority(tbs: bytes) -> None:
    """RPL-3: the same one step further up, with a leaf below."""
    with suppress(BadData):
        judged(LEAF.loaded, load_certificate(signed(tbs, key("p256", ("generated", 0)))))


PATH = build_path(LEAF.loaded, (Anchor(ROOT.loaded),), (SUB.loaded,), PathSettings(), NOW)
QUESTION = question_for(LEAF.loaded, SUB.loaded)
SETTINGS = JudgementSettings(PathSettings(), RevocationSettings())


@examples(250)
@given(data=st.data(), crl=st.sampled_from(CRLS))
def test_any_signed_crl(data: st.DataObject, crl: Listing) -> None:
    """RPL-3: a CRL of whatever shape, beside honest ones."""
    assert isinstance(PATH, Path)
    with suppress(BadData):
        strange = parse_crl(signed(data.draw(changed(tbs_of(crl.der))), key("p256", ("generated", 1))))
        evidence = CrlEvidence(strange, URL_1, NOW)
        refresh_window(evidence)
        honest = [CrlEvidence(parse_crl(c.der), URL_1, NOW) for c in CRLS]
        for together in ([evidence], [*honest, evidence], [evidence, *honest]):
            judge_question(QUESTION, PATH, (SUB.loaded,), lambda _, e=together: e, SETTINGS, NOW)


OCSP_QUESTION = question_for(ALICE.certificate, CA.certificate)


@examples(250)
@given(data=st.data(), answer=st.sampled_from(ANSWERS))
def test_any_signed_answer(data: st.DataObject, answer: bytes) -> None:
    """RPL-3: an OCSP answer of whatever shape, signed by the CA, or with any wrapping around what is signed."""
    (outer,) = parsed(answer) or ()
    assert outer.children
    if data.draw(st.booleans()):
        der = data.draw(changed(answer))
    else:
        (basic,) = outer.children[1].children[0].children[1].children or ()
        assert basic.children
        tbs = data.draw(changed(basic.children[0].der()))
        kind = kind_for(CA.key)
        inner = seq(
            tbs, algorithm(kind), node(3, b"\x00", sign(CA.key, kind, tbs)), *(c.der() for c in basic.children[3:])
        )
        oid = outer.children[1].children[0].children[0].der()
        der = seq(outer.children[0].der(), node(0xA0, seq(oid, node(4, inner))))
    path = build_path(ALICE.certificate, (Anchor(CA.certificate),), (), PathSettings(), NOW)
    assert isinstance(path, Path)
    evidence: list[Evidence] = [OcspEvidence(der, OCSP_URL, NOW)]
    judge_question(OCSP_QUESTION, path, (), lambda _: evidence, SETTINGS, NOW)


_ITEM = {"kind": "crl", "sha256": "0" * 64, "size": 5, "url": URL_1, "fetched_at": "2026-06-01T12:00:00Z"}
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([_ITEM, *_ITEM.values()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["node", "created", "since", "items", *_ITEM]), inner, max_size=7)
    ),
    max_leaves=12,
)


@examples(200)
@given(blob=st.one_of(st.binary(max_size=120), _JSON.map(lambda value: json.dumps(value).encode())))
def test_any_bundle(blob: bytes) -> None:
    """RPL-3: a manifest and the line before it."""
    with suppress(BadData):
        bundle.decode(blob)
    with suppress(BadData):
        bundle.parse_head(blob)


@examples(200)
@given(
    rest=st.text(max_size=40), head=st.sampled_from(["ldap://", "ldap:///", "ldap://h.test/", "LDAP://h:389/cn=a?", ""])
)
def test_any_directory_url(head: str, rest: str) -> None:
    """CRL-28: a place in a directory, or words why not."""
    found = parse_url(head + rest)
    assert isinstance(found, Place) or found
