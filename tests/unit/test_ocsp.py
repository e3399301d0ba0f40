"""OCSP on the wire: requests, the URL form, strict parsing of responses."""

from __future__ import annotations

import base64
from datetime import timedelta
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp as peer

from postseal.core.der import BadDer
from postseal.core.evidence import Question
from postseal.core.ocsp import (
    ResponderError,
    build_request,
    http_request,
    parse_response,
    refresh_window,
    response_status,
)
from support.evidence import (
    CRITICAL_UNKNOWN,
    OCSP_URL,
    UNKNOWN_OID,
    Answer,
    Ocsp,
    integer,
    node,
    octets,
    oid,
    seq,
)
from support.pki import DAY, HOUR, NOW, authority

CA = authority("OCSP CA", kind="p256")
ALICE = CA.issue("alice@example.test", kind="p256", serial=(1 << 159) - 12345)
QUESTION = Question(ALICE.certificate, CA.certificate, (), (OCSP_URL,))
GOOD = Ocsp([Answer(ALICE, CA)], CA)


@pytest.mark.parametrize(("hash_name", "algorithm"), [("sha256", hashes.SHA256), ("sha1", hashes.SHA1)])
def test_request(hash_name: str, algorithm: type[hashes.HashAlgorithm]) -> None:
    """OCSP-1: one certificate, SHA-256 or SHA-1 CertID, nothing else; the same bytes as another writer's."""
    der = build_request(QUESTION, hash_name)
    builder = peer.OCSPRequestBuilder().add_certificate(ALICE.certificate.x509, CA.certificate.x509, algorithm())
    theirs = peer.load_der_ocsp_request(der)
    assert theirs.serial_number == ALICE.certificate.serial
    expected = builder.build()
    assert (theirs.issuer_name_hash, theirs.issuer_key_hash) == (expected.issuer_name_hash, expected.issuer_key_hash)
    assert isinstance(theirs.hash_algorithm, algorithm)
    assert len(list(theirs.extensions)) == 0


@pytest.mark.parametrize("size", [1, 32, 128])
def test_t29_request_with_nonce(size: int) -> None:
    """OCSP-13, RFC 9654, T-29: a nonce of 1 to 128 octets, readable by another implementation."""
    der = build_request(QUESTION, nonce=b"n" * size)
    [extension] = peer.load_der_ocsp_request(der).extensions
    assert extension.value.nonce == b"n" * size  # type: ignore[attr-defined]


def test_a_nonce_of_more_than_128_octets_is_a_bug() -> None:
    """RFC 9654 §2.1, T-29: 129 octets aren't legal."""
    with pytest.raises(ValueError, match="at most 128"):
        build_request(QUESTION, nonce=b"n" * 129)


def test_t30_short_requests_go_by_get() -> None:
    """OCSP-14, T-30: a URL of at most 255 octets is a GET with escaped base64; SHA-256 with a 20-octet serial fits."""
    der = build_request(QUESTION)
    method, url, body = http_request(OCSP_URL, der)
    assert (method, body) == ("GET", b"")
    assert url.startswith(OCSP_URL)
    assert not set("+=").intersection(url)
    assert base64.b64decode(unquote(url[len(OCSP_URL) :]), validate=True) == der
    assert http_request(OCSP_URL.rstrip("/"), der)[1] == url


@pytest.mark.parametrize(
    ("length", "method"), [(255, "GET"), (256, "POST")], ids=["255 octets by GET", "256 octets by POST"]
)
def test_t30_the_limit_of_get(length: int, method: str) -> None:
    """OCSP-14, T-30: 255 octets of URL are the limit, and POST carries the DER as it is."""
    der = build_request(QUESTION)
    spare = length - len(http_request("http://o.test/", der)[1])
    base = "http://o.test/" + "p" * (spare - 1) + "/"
    found, url, body = http_request(base, der)
    assert found == method
    assert len(url) == 255 if method == "GET" else (url, body) == (base, der)


def test_a_query_goes_by_post() -> None:
    """OCSP-14: there is no place for the request behind a query."""
    assert http_request("http://o.test/ocsp?ca=1", build_request(QUESTION))[0] == "POST"


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "malformedRequest"), (2, "internalError"), (3, "tryLater"), (5, "sigRequired"), (6, "unauthorized"),
     (4, "status 4")],
)  # fmt: skip
def test_error_statuses(code: int, name: str) -> None:
    """OCSP-4: errors by name."""
    der = seq(node(0x0A, bytes((code,))))
    assert response_status(der) == name
    with pytest.raises(ResponderError, match=name):
        parse_response(der)


def test_missing_response_bytes() -> None:
    """OCSP-4: 30030a0100, success without a response, is broken and crashes nothing."""
    der = bytes.fromhex("30030a0100")
    assert response_status(der) == "successful"
    with pytest.raises(BadDer, match="no response in it"):
        parse_response(der)
    assert response_status(b"<html>") == "malformed"


def test_agrees_with_another_reader() -> None:
    """RFC 6960 §4.2.1: cryptography reads in our hand-made answer what we read."""
    der = Ocsp([Answer(ALICE, CA, "revoked", reason=4)], CA).der()
    ours, theirs = parse_response(der), peer.load_der_ocsp_response(der)
    [single] = ours.singles
    assert single.status == "revoked"
    assert (single.revoked_at, single.reason) == (theirs.revocation_time_utc, "superseded")
    assert (single.this_update, single.next_update) == (theirs.this_update_utc, theirs.next_update_utc)
    assert ours.tbs == theirs.tbs_response_bytes
    assert ours.signature == theirs.signature
    assert ours.produced_at == theirs.produced_at_utc


@pytest.mark.parametrize(
    ("der", "words"),
    [
        (b"", "ends inside"),
        (b"<html><body>Log in to the network</body></html>", "an HTML or XML page"),
        (GOOD.der() + b"\x00", "unexpected data"),
        (GOOD.der()[:-1], "longer than what holds it"),
        (Ocsp([], CA, response_type="1.3.6.1.5.5.7.48.1.9").der(), "isn't id-pkix-ocsp-basic"),
        (Ocsp([], CA, version=node(0xA0, integer(1))).der(), "isn't version 1"),
        (Ocsp([], CA, responder=node(0xA2, octets(b"x" * 32))).der(), "isn't SHA-1"),
        (Ocsp([], CA, responder=node(0xA3, octets(b"x" * 20))).der(), "expected tag"),
        (Ocsp([Answer(ALICE, CA)] * 300, CA).der(), "more than 256 elements"),
        (Ocsp([], CA, certificates=[CA] * 17).der(), "more than 16 elements"),
        (
            seq(node(0x0A, b"\x00"), node(0xA0, seq(oid("1.3.6.1.5.5.7.48.1.1"), octets(b"junk")))),
            "longer than what holds it",
        ),
        (seq(node(0x0A, b"\x00"), node(0xA0, seq(oid("1.3.6.1.5.5.7.48.1.1"), octets(b"\x05\x00")))), "expected tag"),
    ],
)
def test_refuses_with_the_cause(der: bytes, words: str) -> None:
    """OCSP-5, OCSP-9: only a complete BasicOCSPResponse version 1 within limits is parsed."""
    with pytest.raises(BadDer, match=words):
        parse_response(der)


def test_explicit_version_1_is_tolerated() -> None:
    """OCSP-5: DER leaves the default version out; writing it changes nothing."""
    assert len(parse_response(Ocsp([Answer(ALICE, CA)], CA, version=node(0xA0, integer(0))).der()).singles) == 1


def test_critical_extensions_are_seen_everywhere() -> None:
    """OCSP-5: also in one of several SingleResponses, where some libraries don't look."""
    answers = [Answer(ALICE, CA), Answer(ALICE, CA, extensions=[CRITICAL_UNKNOWN])]
    parsed = parse_response(Ocsp(answers, CA).der())
    assert [s.unknown_critical for s in parsed.singles] == ["", UNKNOWN_OID]
    assert parse_response(Ocsp(answers, CA, extensions=[CRITICAL_UNKNOWN]).der()).unknown_critical == UNKNOWN_OID


def test_the_window_for_a_newer_answer() -> None:
    """CACHE-2: between half and three quarters of the time to nextUpdate; none without nextUpdate or for garbage."""
    answer = Answer(ALICE, CA, this_update=NOW, next_update=NOW + 4 * DAY)
    assert refresh_window(Ocsp([answer], CA).der()) == (NOW + 2 * DAY, NOW + 3 * DAY)
    assert refresh_window(Ocsp([Answer(ALICE, CA, next_update=None)], CA).der()) is None
    assert refresh_window(Ocsp([Answer(ALICE, CA, next_update=NOW - DAY)], CA).der()) is None
    assert refresh_window(b"junk") is None
    sooner = Answer(ALICE, CA, this_update=NOW, next_update=NOW + timedelta(hours=4))
    assert refresh_window(Ocsp([answer, sooner], CA).der()) == (NOW + 2 * HOUR, NOW + 3 * HOUR)
