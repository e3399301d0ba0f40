"""Multipart/signed taken apart to the octet: what is covered, what isn't, and what can't be told."""

from __future__ import annotations

import pytest

from postseal.core.cms.multipart import ClearSigned, smime_signed, split_signed
from postseal.core.cms.signed_reader import parse_signed
from postseal.core.cms.verifying import State, check_signers, cover
from postseal.core.errors import BadData
from postseal.core.message import HeaderFault, split_message
from support.signed import openssl_cms, read_signed

ENTITY = b"Content-Type: text/plain\r\n\r\nHello\r\n"
SIGNED = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="b"\r\n'
PART = b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\nMAA=\r\n"


def split(body: bytes, header: bytes = SIGNED) -> ClearSigned:
    taken = split_message(header + b"\r\n" + body)
    assert not isinstance(taken, HeaderFault)
    return split_signed(*taken)


def usual(entity: bytes = ENTITY, part: bytes = PART, before: bytes = b"", behind: bytes = b"\r\n") -> bytes:
    return before + b"--b\r\n" + entity + b"\r\n--b\r\n" + part + b"\r\n--b--" + behind


def test_the_line_end_before_the_boundary_belongs_to_it() -> None:
    """RFC 2046 §5.1.1."""
    found = split(usual())
    assert bytes(found.covered) == ENTITY
    assert found.signature == b"\x30\x00"
    assert (bytes(found.preamble), bytes(found.epilogue), found.notes) == (b"", b"", ())
    assert found.micalg == "sha-256"
    assert bytes(split(usual(ENTITY[:-2])).covered) == ENTITY[:-2]
    assert bytes(split(usual(ENTITY + b"\r\n")).covered) == ENTITY + b"\r\n"


@pytest.mark.parametrize("entity", [b"\r\nno header at all", b"\r\n", b"", b"Subject: x\r\n\r\n"])
def test_an_entity_without_content_fields_is_one(entity: bytes) -> None:
    """Peers 3.3 (2), RFC 2045 §5.2: what is signed is what is there, nothing is put before it."""
    assert bytes(split(usual(entity)).covered) == entity


def test_a_part_may_be_empty() -> None:
    """RFC 2046 §5.1.1: then one line end serves both delimiters."""
    assert bytes(split(b"--b\r\n--b\r\n" + PART + b"\r\n--b--").covered) == b""


def test_what_stands_around_the_parts_is_not_covered() -> None:
    """Peers 3.3 (1), THR-28: nobody signed preamble and epilogue."""
    found = split(usual(before=b"not signed\r\n", behind=b"\r\nnor this\r\n--b\r\nX: y\r\n\r\n"))
    assert bytes(found.covered) == ENTITY
    assert bytes(found.preamble) == b"not signed"
    assert bytes(found.epilogue) == b"nor this\r\n--b\r\nX: y\r\n\r\n"


def test_white_space_behind_the_boundary_is_padding() -> None:
    """RFC 2046 §5.1.1: gateways add it."""
    body = b"--b \t\r\n" + ENTITY + b"\r\n--b   \r\n" + PART + b"\r\n--b--  \r\n"
    assert bytes(split(body).covered) == ENTITY


def test_nested_boundaries_that_begin_alike_cut_nothing() -> None:
    """RFC 2046 §5.1.2."""
    nested = b'Content-Type: multipart/mixed; boundary="bb"\r\n\r\n--bb\r\n\r\none\r\n--bb\r\n\r\ntwo\r\n--bb--\r\n'
    found = split(usual(nested))
    assert bytes(found.covered) == nested
    assert "begins like the boundary" in found.notes[0]
    quoted = b"Content-Type: text/plain\r\n\r\n >--b\r\n--\r\n-- b\r\n"
    assert bytes(split(usual(quoted)).covered) == quoted


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n--b", b"\r\n--b-"])
def test_a_missing_final_boundary_is_told(end: bytes) -> None:
    body = b"--b\r\n" + ENTITY + b"\r\n--b\r\n" + PART.rstrip(b"\r\n") + end
    if end == b"\r\n--b":
        with pytest.raises(BadData, match="more than two parts"):
            split(body)
        return
    if end == b"\r\n--b-":
        with pytest.raises(BadData, match="transfer encoding"):
            split(body)
        return
    found = split(body)
    assert found.signature == b"\x30\x00"
    assert "final boundary is missing" in found.notes[0]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "no parts, not two"),
        (b"--b--\r\n", "no parts, not two"),
        (b"--b\r\n" + ENTITY + b"\r\n--b--\r\n", "1 part, not two"),
        (usual(behind=b"x").replace(b"--b--x", b"--b\r\nContent-Type: text/html\r\n\r\nhi\r\n--b--"), "more than two parts"),
        (usual(part=b"Content-Type: text/html\r\n\r\nhi"), "isn't an S/MIME signature"),
        (usual(part=b"no header\r\n\r\nMAA="), "malformed"),
        (usual(part=PART.replace(b"MAA=", b"MA*A=")), "transfer encoding is damaged"),
        (usual(part=b"X: " + b"y" * 70_000 + b"\r\n" + PART), "header that is too large"),
    ],
    ids=["empty", "end-only", "one", "three", "other-type", "no-header", "damaged", "large-header"],
)  # fmt: skip
def test_what_is_not_two_parts_is_refused(body: bytes, sentence: str) -> None:
    """RFC 1847 §2.1, THR-28: a third part would be shown as if it were signed."""
    with pytest.raises(BadData, match=sentence):
        split(body)


def test_headers_that_are_not_clear_signed_are_refused() -> None:
    for header, sentence in (
        (b"Content-Type: multipart/mixed; boundary=b\r\n", "isn't multipart/signed"),
        (SIGNED + SIGNED, "isn't multipart/signed"),
        (b"X: y\r\n", "isn't multipart/signed"),
        (b"Content-Type: multipart/signed\r\n", "no boundary"),
        (b"Content-Type: multipart/signed; boundary=b; boundary=c\r\n", "names two boundaries"),
        (b"Content-Type: multipart/signed; boundary=b; boundary*=us-ascii''c\r\n", "names two boundaries"),
        (b'Content-Type: multipart/signed; boundary="' + b"b" * 71 + b'"\r\n', "boundary that can't be"),
    ):
        with pytest.raises(BadData, match=sentence):
            split(usual(), header)


@pytest.mark.parametrize(
    ("part", "noted"),
    [
        (PART.replace(b"pkcs7-signature", b"x-pkcs7-signature"), False),
        (PART.replace(b"pkcs7-signature", b"octet-stream"), True),
        (b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=x.P7S\r\n"
         b"Content-Transfer-Encoding: base64\r\n\r\nMAA=", True),
        (PART.replace(b"Content-Transfer-Encoding: base64\r\n", b""), False),
        (PART.replace(b"Content-Transfer-Encoding: base64\r\n", b"").replace(
            b"MAA=", b"-----BEGIN PKCS7-----\r\nMAA=\r\n-----END PKCS7-----"), False),
        (b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: binary\r\n\r\n\x30\x00", False),
        (PART.replace(b"MAA=", b"M\r\nA\r\nA="), False),
    ],
    ids=["x-type", "octet-stream", "filename", "no-encoding", "pem", "binary", "lines"],
)  # fmt: skip
def test_signature_parts_come_in_many_forms(part: bytes, noted: bool) -> None:
    """Peers 3.3 (10): the type may be lost, the encoding too."""
    found = split(usual(part=part))
    assert found.signature == b"\x30\x00"
    assert any("typed as application/octet-stream" in note for note in found.notes) == noted


def test_protocol_and_micalg_decide_nothing() -> None:
    wrong = SIGNED.replace(b"sha-256", b"md5").replace(b'protocol="application/pkcs7-signature"; ', b"")
    found = split(usual(), wrong)
    assert (bytes(found.covered), found.micalg) == (ENTITY, "md5")
    assert "parameter protocol" in found.notes[0]
    pgp = b'Content-Type: multipart/signed; protocol="application/pgp-signature"; boundary=b\r\n\r\n'
    for header, ours in ((SIGNED + b"\r\n", True), (wrong + b"\r\n", True), (pgp, False), (b"X: y\r\n\r\n", False)):
        taken = split_message(header)
        assert not isinstance(taken, HeaderFault)
        assert smime_signed(taken[0]) is ours


def test_parameters_may_lack_their_quotes() -> None:
    """RFC 2045 §5.1 asks for them around "=" and "/"; many writers leave them out."""
    bare = (
        b"Content-Type: multipart/signed; protocol=application/pkcs7-signature; micalg=sha-256; boundary=--=_b/1?\r\n"
    )
    found = split(usual().replace(b"--b", b"----=_b/1?"), bare)
    assert (bytes(found.covered), found.notes) == (ENTITY, ())


def test_lines_like_the_boundary_cost_little() -> None:
    """THR-7: 2 MB of them."""
    with pytest.raises(BadData, match="over 10000 lines"):
        split(b"--b\r\n" + b"--bx\r\n" * 400_000)


def clear_signed(entity: bytes) -> bytes:
    signature = openssl_cms(entity, form="PEM").replace(b"\n", b"\r\n").split(b"-----")[2].strip()
    part = PART.replace(b"MAA=", signature)
    return b"From: alice@example.test\r\nMIME-Version: 1.0\r\n" + SIGNED + b"\r\n" + usual(entity, part)


@pytest.mark.parametrize("unix", [False, True], ids=["crlf", "lf"])
@pytest.mark.parametrize("entity", [ENTITY, ENTITY[:-2], b"\r\nno header\r\n\r\n", b"\r\n"])
def test_what_openssl_signs_is_cut_out_to_the_octet(entity: bytes, unix: bool) -> None:
    """RFC 8551 §3.1.1: what is signed has CRLF, however a message is kept."""
    mail = clear_signed(entity)
    assert read_signed(mail.replace(b"\r\n", b"\n") if unix else mail).intact
    assert not read_signed(mail.replace(b"--b\r\n" + entity, b"--b\r\n" + entity + b"\r\n", 1)).intact


def test_a_signature_brings_no_content_of_its_own() -> None:
    """The content between the boundaries is what is shown, so it is what must be signed."""
    found = split(usual())
    inside = parse_signed(openssl_cms(b"other content", "-nodetach"))
    (account,) = check_signers(inside, cover(inside, (found.covered,)))
    assert (account.state, account.code) == (State.BAD, "sig.wrong-content")


@pytest.mark.parametrize("end", [b"\n", b"\r"])
@pytest.mark.parametrize("where", ["preamble", "signed", "signature", "epilogue"])
def test_a_boundary_behind_a_bare_line_end_is_refused(where: str, end: bytes) -> None:
    """THR-11: who takes a CR or LF alone for a line end would show another part as the signed one."""
    hidden = b"x" + end + b"--b" + end + b"Content-Type: text/html" + end + end + b"<p>evil" + end
    forms = {
        "preamble": usual(before=hidden + b"\r\n"),
        "signed": usual(ENTITY + hidden),
        "signature": usual(part=PART + hidden),
        "epilogue": usual(behind=b"\r\n" + hidden),
    }
    with pytest.raises(BadData, match="behind a CR or LF alone"):
        split(forms[where])
    if where != "signature":
        other = forms[where].replace(end + b"--b" + end, end + b"--c" + end)
        assert bytes(split(other).covered).startswith(ENTITY)


def test_what_hides_behind_blanks_makes_no_boundary() -> None:
    """THR-11: what is behind a thousand blanks is behind the boundary too, for a reader that looks at all of the line."""
    for blanks in (990, 1500):
        body = b"--b" + b" " * blanks + b"x\r\n" + usual()
        found = split(body)
        assert bytes(found.covered) == ENTITY
        assert "begins like the boundary" in found.notes[0]
    with pytest.raises(BadData, match="it has 1 part, not two"):
        split(usual().replace(b"--b\r\n" + PART, b"--b" + b" " * 1500 + b"\r\n" + PART))


@pytest.mark.parametrize(
    "parameters",
    [
        b";(c)boundary=a; boundary=b",
        b"; boundary=a;(c)boundary=b",
        b"; boundary=b; boundary (c)=a",
        b"; boundary=b; boundary*0=a",
        b"; micalg=x boundary=a; boundary=b",
    ],
)
def test_a_boundary_behind_a_comment_is_one_too(parameters: bytes) -> None:
    """THR-11: readers disagree which of two counts, and which of them is a comment's."""
    with pytest.raises(BadData, match="two boundaries"):
        split(usual(), b"Content-Type: multipart/signed" + parameters + b"\r\n")


@pytest.mark.parametrize("media", [b"text/html", b"text/plain", b"image/png", b"multipart/mixed", b"message/rfc822"])
def test_a_signature_part_that_would_be_shown_is_none(media: bytes) -> None:
    """THR-28: beside what is signed stands nothing that readers show, whatever its file is named."""
    named = PART.replace(b"application/pkcs7-signature", media)
    with pytest.raises(BadData, match="isn't an S/MIME signature"):
        split(usual(part=named))
    lost = PART.replace(b"application/pkcs7-signature", b"application/octet-stream")
    assert split(usual(part=lost)).notes == ("the signature part is typed as application/octet-stream",)
