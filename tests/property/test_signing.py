"""Whatever is signed: it survives transport, nothing of it is lost, and our own reader finds the octets that were covered."""

from __future__ import annotations

import email
import email.policy
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core.cms.armour import decode_body
from postseal.core.cms.clearsign import clear_signed, opaque_signed, prepared
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.seven_bit import Entity, seven_bit, survives
from postseal.core.cms.signed_reader import joined, parse_signed
from postseal.core.cms.signing import Signing
from postseal.core.cms.smime import split
from postseal.core.cms.verifying import State, check_signers, cover
from postseal.core.message import Field
from support.signers import AT, CAPABILITIES, signer

# What relays change, and what is mistaken for something else: NUL, blanks at the end, From_, dots, long lines, "=", hyphens.
LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"", b".", b"From me", b"From", b"-- ", b"=", b"=46", b"x" * 998, b"x" * 999, b"\t", b"--in", b"--in--"]
        ),
        st.binary(max_size=120).map(lambda line: line.translate(None, b"\r\n")),
    ),
    max_size=12,
)
BODIES = st.tuples(LINES, st.booleans()).map(lambda made: b"\r\n".join(made[0]) + b"\r\n" * made[1])
TYPES = st.sampled_from([b"text/plain; charset=utf-8", b"text/html", b"application/octet-stream", b"image/png; name=x"])
LABELS = st.sampled_from([b"", b"7bit", b"8bit", b"binary"])


def fields_of(kind: bytes, label: bytes) -> tuple[Field, ...]:
    typed = Field(b"Content-Type", b" " + kind)
    return (typed, Field(b"Content-Transfer-Encoding", b" " + label)) if label else (typed,)


@given(kind=TYPES, label=LABELS, body=BODIES)
def test_a_leaf_survives_and_says_the_same(kind: bytes, label: bytes, body: bytes) -> None:
    """P15, RFC 8551 §3.1.3."""
    made = seven_bit(Entity(fields_of(kind, label), body))
    assert isinstance(made, Entity)
    assert survives(made)
    assert decode_body(made.fields, made.body) == body
    again = seven_bit(made)
    assert again is made


PARTS = st.recursive(
    st.tuples(TYPES, LABELS, BODIES),
    lambda inner: st.tuples(st.just(b"multipart"), LABELS, st.lists(inner, min_size=1, max_size=3)),
    max_leaves=6,
)


def octets_of(part: object, path: bytes = b"b") -> tuple[bytes, list[bytes]]:
    """A part with its header, and the bodies of its leaves in order; boundaries are named by the place in the tree."""
    assert isinstance(part, tuple)
    kind, label, content = part
    header = b"Content-Transfer-Encoding: " + label + b"\r\n" if label else b""
    if kind != b"multipart":
        return b"Content-Type: " + kind + b"\r\n" + header + b"\r\n" + content, [content]
    made = [octets_of(each, path + b"%d" % number) for number, each in enumerate(content)]
    body = b"".join(b"--" + path + b".\r\n" + octets + b"\r\n" for octets, _ in made) + b"--" + path + b".--\r\n"
    head = b'Content-Type: multipart/mixed; boundary="' + path + b'."\r\n' + header
    return head + b"\r\n" + body, [leaf for _, leaves in made for leaf in leaves]


@given(part=PARTS)
def test_a_tree_of_parts_survives_and_says_the_same(part: object) -> None:
    octets, leaves = octets_of(part)
    header, _, body = octets.partition(b"\r\n\r\n")
    fields = tuple(Field(*line.split(b":", 1)) for line in header.split(b"\r\n"))
    made = prepared(split(fields), body)
    assert made.only_opaque == ""
    assert survives(made.entity)
    whole = b"".join(field.line for field in made.entity.fields) + b"\r\n" + made.entity.body
    read = email.message_from_bytes(whole, policy=email.policy.compat32)
    # The library takes a line end for the boundary's where a body has none at all.
    found = [each.get_payload(decode=True) for each in read.walk() if not each.is_multipart()]
    assert found == leaves


BOUNDARIES = st.text("0123456789abcdef", min_size=32, max_size=32)
SIGNING = st.sampled_from(["rsa2048", "p256", "ed25519"])
YEAR = 365 * 24 * 3600


@settings(deadline=None)
@given(body=BODIES, kind=SIGNING, boundary=BOUNDARIES)
def test_our_reader_finds_what_was_signed(body: bytes, kind: str, boundary: str) -> None:
    parts = split(fields_of(b"text/plain; charset=utf-8", b"8bit"))
    entity = prepared(parts, body).entity
    made = clear_signed(entity, Signing([signer(kind)], AT, CAPABILITIES), boundary)
    octets = b"".join(made.chunks)
    assert len(octets) == made.length
    taken = split_signed(made.fields, octets)
    assert bytes(taken.covered) == b"".join(field.line for field in entity.fields) + b"\r\n" + entity.body
    signed = parse_signed(taken.signature)
    (account,) = check_signers(signed, cover(signed, (taken.covered,)))
    assert (account.state, account.weak) == (State.INTACT, "")
    assert account.claims.signing_time == AT


@given(body=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_our_reader_finds_what_was_signed_opaque(body: bytes, cut: int) -> None:
    parts = split(fields_of(b"text/plain", b"binary"))
    made = opaque_signed(parts.content, (body[:cut], body[cut:]), len(body), Signing([signer("p256")], AT))
    octets = b"".join(made.chunks)
    assert len(octets) == made.length
    der = decode_body(made.fields, octets)
    assert der is not None
    signed = parse_signed(der)
    assert signed.content is not None
    assert joined(signed.content) == parts.inner + body
    (account,) = check_signers(signed, cover(signed))
    assert account.state is State.INTACT


@given(at=st.integers(-70 * YEAR, 7900 * YEAR).map(lambda seconds: AT + timedelta(seconds=seconds, microseconds=5)))
def test_any_signing_time_is_read_back(at: datetime) -> None:
    """RFC 8551 §2.5.1: in whole seconds."""
    (info,) = parse_signed(Signing([signer("p256")], at).finish()).signers
    (account,) = check_signers(parsed := parse_signed(Signing([signer("p256")], at).finish()), cover(parsed, (b"",)))
    assert info.sid == account.sid
    assert account.claims.signing_time == at.replace(microsecond=0)
