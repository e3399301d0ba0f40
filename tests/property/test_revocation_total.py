"""RPL-3: whatever bytes come back from the network, judging gives a verdict, and never a GOOD that wasn't signed."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension, load_der_x509_crl
from cryptography.x509.ocsp import load_der_ocsp_response
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core.crl import parse_crl
from postseal.core.errors import BadData
from postseal.core.evidence import CrlEvidence, Evidence, OcspEvidence, Question
from postseal.core.judgement import JudgementSettings, judge_certificate
from postseal.core.path import Anchor, PathSettings
from postseal.core.revocation import Order, RevocationSettings, Status, Verdict, judge, refresh_window, still_needed
from support.evidence import (
    CRL_URL,
    OCSP_URL,
    Answer,
    Ocsp,
    certificate_issuer,
    crl,
    delta_of,
    directory_name,
    entry,
    full_name,
    name_of,
    node,
    number,
    reason,
    scope,
    seq,
    uri,
)
from support.pki import NOW, authority, usage

CA = authority("Issuing CA", kind="p256")
ALICE = CA.issue("alice@example.test", kind="p256", crl_urls=[CRL_URL], ocsp_urls=[OCSP_URL])
RESPONDER = CA.issue(None, kind="p256", slot="r", common_name="R", key_usage=usage("digital_signature"))
QUESTION = Question(ALICE.certificate, CA.certificate, (CRL_URL,), (OCSP_URL,))
GOOD_CRL = crl(CA, [entry(77, reason(1))], extensions=[scope(full_name(uri(CRL_URL)))])
BAD_CRL = crl(CA, [entry(n, reason(4)) for n in (1, 2)] + [entry(ALICE, reason(1))], extensions=[number(2)])
GOOD_OCSP = Ocsp([Answer(ALICE, CA)], CA, certificates=[RESPONDER]).der()
BAD_OCSP = Ocsp([Answer(ALICE, CA, "revoked", reason=1)], CA, by_key=True).der()

SIGNED = {
    **{der: load_der_x509_crl(der).tbs_certlist_bytes for der in (GOOD_CRL, BAD_CRL)},
    **{der: load_der_ocsp_response(der).tbs_response_bytes for der in (GOOD_OCSP, BAD_OCSP)},
}


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """An original and what a broken or hostile network made of it: octets changed, cut, doubled or put in between."""
    original = draw(st.sampled_from(originals))
    data = bytearray(original)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(("change", "cut", "insert", "repeat", "truncate")))
        if how == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 9))]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=9))
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        elif how == "truncate":
            del data[at:]
    return original, bytes(data)


def pieces(crl_der: bytes, ocsp_der: bytes) -> list[Evidence]:
    found: list[Evidence] = [OcspEvidence(ocsp_der, OCSP_URL, NOW)]
    with suppress(BadData):
        found.append(CrlEvidence(parse_crl(crl_der), CRL_URL, NOW))
    return found


@settings(max_examples=400, deadline=timedelta(seconds=2))
@given(mutated((GOOD_CRL, BAD_CRL)), mutated((GOOD_OCSP, BAD_OCSP)), st.sampled_from(list(Order)))
def test_mutated_evidence_gives_a_verdict(
    changed_crl: tuple[bytes, bytes], changed_ocsp: tuple[bytes, bytes], order: Order
) -> None:
    """RPL-3: parse_crl raises BadData or nothing, judge raises nothing, and GOOD comes from an untouched original only."""
    evidence = pieces(changed_crl[1], changed_ocsp[1])
    verdict = judge(QUESTION, evidence, RevocationSettings(order=order), NOW)
    assert isinstance(verdict, Verdict)
    assert isinstance(still_needed(QUESTION, evidence, RevocationSettings(order=order), NOW), bool)
    for item in evidence:
        assert isinstance(item, CrlEvidence | OcspEvidence)
        refresh_window(item)
    # What is outside of the signed part may change; a decision without the signed part of an original would be a forgery.
    if verdict.status is Status.GOOD:
        assert SIGNED[GOOD_CRL] in changed_crl[1] or SIGNED[GOOD_OCSP] in changed_ocsp[1]
    if verdict.status is Status.REVOKED:
        assert SIGNED[BAD_CRL] in changed_crl[1] or SIGNED[BAD_OCSP] in changed_ocsp[1]


ROOT = authority("Root", kind="p256")
SUB = ROOT.sub("Sub CA", kind="p256")
SIGNER = SUB.sub("CRL issuer", kind="p256")
DELTA_URL = "http://crl.example.test/delta.crl"
_POINT = seq(node(0xA0, full_name(uri(CRL_URL))), node(0xA2, directory_name(name_of(SIGNER))))
CAROL = SUB.issue(
    "carol@example.test", kind="p256", slot="c",
    extra=[(UnrecognizedExtension(ObjectIdentifier("2.5.29.31"), seq(_POINT)), False)],
)  # fmt: skip
_MINE = certificate_issuer(name_of(SUB))
HELD = crl(SUB, [entry(CAROL, reason(6))], extensions=[number(5)])
LIFTED = crl(SUB, [entry(CAROL, reason(8))], extensions=[number(6), delta_of(5)])
OTHERS = crl(SIGNER, [entry(7, _MINE), entry(8)], extensions=[number(1), scope(indirect=True)])
OF_SIGNER = crl(SUB, extensions=[number(4), scope(ca=True)])
SIGNED_TOO = {der: load_der_x509_crl(der).tbs_certlist_bytes for der in (HELD, LIFTED, OTHERS, OF_SIGNER)}


@settings(max_examples=400, deadline=timedelta(seconds=2))
@given(st.lists(mutated((HELD, LIFTED, OTHERS, OF_SIGNER)), max_size=4))
def test_mutated_deltas_and_indirect_crls_give_a_verdict(changed: list[tuple[bytes, bytes]]) -> None:
    """RPL-3: the whole judgement with signers and deltas raises nothing, and believes only what was signed."""
    evidence: list[Evidence] = [CrlEvidence(parse_crl(crl(ROOT)), "file:root", NOW)]
    for _, der in changed:
        with suppress(BadData):
            parsed = parse_crl(der)
            evidence.append(CrlEvidence(parsed, DELTA_URL if parsed.delta_base is not None else CRL_URL, NOW))
    both = JudgementSettings(PathSettings(), RevocationSettings())
    pool = (SUB.certificate, SIGNER.certificate)
    found = judge_certificate(CAROL.certificate, (Anchor(ROOT.certificate),), pool, lambda _: evidence, both, NOW)
    assert len(found.verdicts) == 2
    whole = {der for der, tbs in SIGNED_TOO.items() if any(tbs in mine for _, mine in changed)}
    if found.verdicts[0].status is Status.GOOD:
        assert whole >= {HELD, LIFTED} or whole >= {OTHERS, OF_SIGNER}
    if found.verdicts[0].status is Status.REVOKED:
        assert HELD in whole


@settings(max_examples=300, deadline=timedelta(seconds=2))
@given(st.binary(max_size=300))
def test_random_bytes_give_a_verdict(data: bytes) -> None:
    """RPL-3: bytes of no shape at all are UNKNOWN or refused as BadData."""
    verdict = judge(QUESTION, pieces(data, data), RevocationSettings(), NOW)
    assert verdict.status is Status.UNKNOWN


@settings(max_examples=200, deadline=timedelta(seconds=2))
@given(st.lists(st.integers(-(1 << 200), 1 << 200), max_size=60, unique=True), st.data())
def test_look_up_equals_a_set(serials: list[int], data: st.DataObject) -> None:
    """CRL-16: find() agrees with a set of numbers for any serial numbers."""
    parsed = parse_crl(crl(CA, [entry(s) for s in serials]))
    asked = data.draw(st.sampled_from(serials) if serials else st.integers(0, 9))
    for value in (asked, asked + 1, asked << 8, asked >> 8):
        content = value.to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)
        assert (parsed.find(content) is not None) == (value in serials)
