"""Whatever octets a stranger, a broken disk or a tired administrator puts in: a value comes out, or one sentence."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.config import load_config
from postseal.config.load import load_text
from postseal.core.certs import load_certificates
from postseal.core.crl import parse_crl
from postseal.core.errors import BadData, ConfigError
from postseal.core.fitness import fitness
from postseal.core.ocsp import about_responder, response_status, revokes_for_good
from postseal.core.path import Anchor, PathFault, PathSettings, build_path
from postseal.core.profile import profile
from postseal.sources import lookup_wire as wire
from support.evidence import node, seq
from support.pki import NOW, authority

CA = authority("Root", kind="p256")
LEAF = CA.issue("alice@example.test", kind="p256", crl_urls=["http://ca.test/x.crl"])
BUNDLE = pkcs7.serialize_certificates([LEAF.certificate.x509, CA.certificate.x509], Encoding.DER)
CERTIFICATES = (LEAF.certificate.der, LEAF.pem, LEAF.pem + CA.pem, BUNDLE)
CONFIG = b"""[general]
state_directory = "/var/lib/postseal"
[milter]
socket = "inet:9900@127.0.0.1"
internal_domains = ["corp.example"]
memory_limit = "16 MiB"
[[policy]]
name = "partners"
recipients = ["partner.example", ".sub.example", "one@person.example"]
seal = "must"
without_certificate = "refuse"
"""


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """An original with a few octets changed, taken out, put in, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = at + draw(st.integers(0, 12))
        data[at:end] = draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[at:end] * 2)), st.just(b"")))
        if draw(st.integers(0, 9)) == 0:
            del data[at:]
    return bytes(data)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(mutated(CERTIFICATES))
def test_certificates_from_anybody(blob: bytes) -> None:
    """THR-7: BadData, or certificates that can be judged without an exception; a changed one has no path."""
    try:
        found = load_certificates(blob)
    except BadData:
        return
    for certificate in found:
        profile(certificate)
        fitness(certificate, None, NOW)
        path = build_path(certificate, (Anchor(CA.certificate),), (), PathSettings(), NOW)
        assert isinstance(path, PathFault) or certificate in (LEAF.certificate, CA.certificate)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(mutated((CONFIG,)), st.binary(max_size=60)))
def test_any_configuration(blob: bytes) -> None:
    """A configuration with a last rule for all, or ConfigError that names the file."""
    text = blob.decode("utf-8", "surrogateescape")
    words = "/etc/postseal/postseal.toml"
    try:
        assert load_text(text, "/etc/postseal/postseal.toml").rules[-1].catch_all
    except ConfigError as exc:
        words = str(exc)
    assert "/etc/postseal/postseal.toml" in words


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=80), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["ask", "refresh"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["op", "budget", "names", "questions", "certificates"]), inner, max_size=5),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_request_on_the_lookup_socket(blob: bytes) -> None:
    """Whoever may write to the socket gets an answer of one sentence for nonsense."""
    with suppress(BadData):
        wire.decode_request(blob)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_answer_of_a_responder(blob: bytes) -> None:
    """OCSP-4: what is looked at before the signature is looked at without an exception."""
    assert response_status(blob)
    assert isinstance(about_responder(blob), bool)
    assert not revokes_for_good(blob)


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = node(0x30, inner)
    return inner


BOMBS = {
    "10 000 levels": nested(10_000),
    "length of 4 GiB": bytes.fromhex("3084ffffffff") + bytes(64),
    "length of 2^64": bytes.fromhex("3089010000000000000000") + bytes(64),
    "indefinite": b"\x30\x80" * 5000 + bytes(10_000),
    "indefinite inside": seq(b"\x30\x80" + LEAF.certificate.der + b"\x00\x00"),
    "a million empty pieces": seq(b"\x05\x00" * 500_000),
    "PEM of nothing": b"-----BEGIN CERTIFICATE-----\n" * 20_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    """T-15, THR-7: as certificate, CRL and OCSP answer; half a second for all three is more than enough."""
    started = time.monotonic()
    with pytest.raises(BadData):
        load_certificates(BOMBS[name])
    with pytest.raises(BadData):
        parse_crl(BOMBS[name])
    assert response_status(BOMBS[name])[:6] in ("malfor", "status")
    assert time.monotonic() - started < 0.5


def explicit_curve() -> bytes:
    """A public key with EC parameters of its own (CVE-2020-0601, CVE-2022-0778) in place of a curve's name."""
    prime = node(0x30, node(0x06, bytes.fromhex("2a8648ce3d0101")), node(0x02, b"\x00" + b"\xff" * 32))
    curve = seq(node(0x04, b"\x01" * 32), node(0x04, b"\x02" * 32))
    parameters = seq(node(0x02, b"\x01"), prime, curve, node(0x04, b"\x04" + b"\x03" * 64), node(0x02, b"\x07"))
    algorithm = seq(node(0x06, bytes.fromhex("2a8648ce3d0201")), parameters)
    return seq(algorithm, node(0x03, b"\x00\x04" + b"\x05" * 64))


def test_a_curve_of_ones_own_is_refused() -> None:
    """T-15, CERT-13: parsed or not, no mail is sealed for it and nothing is verified with it."""
    started = time.monotonic()
    signed = LEAF.certificate.parts.tbs
    # Both are longer than 255 octets, so their header has four; it is written anew around the other key.
    tbs = seq(signed[4:].replace(LEAF.certificate.spki, explicit_curve()))
    try:
        (certificate,) = load_certificates(seq(tbs, LEAF.certificate.der[4 + len(signed) :]))
    except BadData:
        return
    assert any(finding.fatal for finding in fitness(certificate, None, NOW))
    assert isinstance(build_path(certificate, (Anchor(CA.certificate),), (), PathSettings(), NOW), PathFault)
    assert time.monotonic() - started < 0.5


def test_a_file_that_is_no_text_is_a_configuration_error(tmp_path: Path) -> None:
    """Not even UTF-8: file and cause in one sentence."""
    file = tmp_path / "postseal.toml"
    file.write_bytes(b"\xff\xfe[general]")
    with pytest.raises(ConfigError, match=r"postseal\.toml"):
        load_config(str(file))
