"""Base64 and PEM as the world sends them: read leniently to open, strictly to say what a message is (THR-11)."""

from __future__ import annotations

import base64
import os
import random
from itertools import pairwise

import pytest

from postseal.core.cms.armour import Base64Decoder, cms_octets, decode_base64, decode_body, from_pem
from postseal.core.cms.classify import classify
from postseal.core.errors import BadData
from postseal.core.message import Field
from postseal.core.policy import Protection
from postseal.core.suite import Suite
from support.cms import recipient, sealed

SMIME = Field(b"Content-Type", b" application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m")
BASE64 = Field(b"Content-Transfer-Encoding", b" base64")
OCTETS = os.urandom(1000)
LINES = base64.encodebytes(OCTETS).replace(b"\n", b"\r\n")


def decoded(body: bytes, *cuts: int, lenient: bool = False) -> bytes:
    edges = [0, *cuts, len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    return b"".join(decode_base64(chunks, Base64Decoder(lenient)))


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 57, 1000])
def test_base64_is_decoded_however_it_is_cut(size: int, lenient: bool) -> None:
    octets, dice = os.urandom(size), random.Random(size)
    for form in (
        base64.b64encode(octets),
        base64.encodebytes(octets),
        b" " + base64.b64encode(octets) + b"\r\n\r\n \t",
    ):
        for bare in (form, form.rstrip(b"= \t\r\n")):
            for _ in range(50):
                cuts = sorted(dice.randint(0, len(bare)) for _ in range(dice.randint(0, 5)))
                if lenient or len(b"".join(bare.split())) % 4 == 0:
                    assert decoded(bare, *cuts, lenient=lenient) == octets
                    continue
                with pytest.raises(BadData, match="isn't base64"):
                    decoded(bare, *cuts)


@pytest.mark.parametrize("beside", [b"\r\n-- \r\nthe list's footer", b"\r\n***", b"\r\n<p>", b"\r\n\xe4\r\n"])
def test_what_stands_behind_is_left_out_when_opening_and_refused_when_deciding(beside: bytes) -> None:
    """THR-11: mailing lists append their footer to whatever body there is."""
    for octets in (OCTETS, OCTETS[:-1], OCTETS[:-2]):
        body = base64.encodebytes(octets).strip() + beside
        for cut in (0, 10, len(body) - len(beside) + 2, len(body) - 1):
            assert decoded(body, cut, lenient=True) == octets
            with pytest.raises(BadData, match="isn't base64"):
                decoded(body, cut)
    decoder = Base64Decoder(lenient=True)
    list(decode_base64((base64.encodebytes(OCTETS) + b"-- \r\nfooter\r\n", b"more"), decoder))
    assert decoder.left_out == len(b"--footermore")


def test_several_encodings_one_behind_the_other_are_joined_when_opening() -> None:
    """Some writers encode each of their buffers for itself, padding included."""
    parts = [os.urandom(size) for size in (100, 101, 102, 103)]
    body = b"\r\n".join(map(base64.b64encode, parts))
    for cut in range(len(body)):
        assert decoded(body, cut, lenient=True) == b"".join(parts), cut
    with pytest.raises(BadData, match="isn't base64"):
        decoded(body)
    with pytest.raises(BadData, match="isn't base64"):
        decoded(body, len(base64.b64encode(parts[0])))


@pytest.mark.parametrize("body", [b"A", b"QUJDR", b"QUJD RA= D", b"QUJD====RA", b"QUJD!", b"QUJD-_=="])
def test_what_is_no_base64_is_refused(body: bytes) -> None:
    for cut in range(len(body)):
        with pytest.raises(BadData, match="isn't base64"):
            decoded(body, cut)
    assert decode_body((BASE64,), body) is None


def pem(octets: bytes, label: bytes = b"PKCS7") -> bytes:
    return b"-----BEGIN " + label + b"-----\r\n" + base64.encodebytes(octets) + b"-----END " + label + b"-----\r\n"


@pytest.mark.parametrize("label", [b"CMS", b"PKCS7", b"ENCRYPTED MESSAGE", b"SIGNED MESSAGE"])
def test_pem_bodies_are_read(label: bytes) -> None:
    """The last two are what gpgsm --armor writes."""
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    for body in (pem(der, label), b"\r\n" + pem(der, label).replace(b"\r\n", b"\n") + b"\n \n"):
        assert from_pem(body) == cms_octets((SMIME,), body) == der
        assert classify((SMIME,), body) is Protection.ENCRYPTED
        assert classify((SMIME, BASE64), base64.encodebytes(body)) is Protection.ENCRYPTED


def test_text_beside_pem_is_no_encrypted_mail() -> None:
    """THR-11: what stands before and behind the lines goes in clear."""
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    for body in (b"the secret is\r\n" + pem(der), pem(der) + b"PS: the secret is", pem(der) + pem(der)):
        assert classify((SMIME,), body) is Protection.CLAIMED_ONLY
    lenient = cms_octets((SMIME,), pem(der) + b"-- \r\nfooter", lenient=True)
    assert lenient == der
    assert from_pem(pem(der).replace(b"END PKCS7", b"END CMS")) is None


def test_base64_that_nothing_told_of_is_read() -> None:
    """The field Content-Transfer-Encoding was lost on the way, or never written."""
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    assert cms_octets((SMIME,), base64.encodebytes(der)) == der
    assert classify((SMIME,), base64.encodebytes(der)) is Protection.ENCRYPTED
    assert classify((SMIME,), base64.encodebytes(der) + b"-- \r\nand in clear") is Protection.CLAIMED_ONLY
    assert cms_octets((SMIME,), b"Dear Bob", lenient=True) == b"Dear Bob"


@pytest.mark.parametrize(
    "content_type",
    [
        b" application/pkcs7-mime", b" Application/PKCS7-MIME;name=SMIME.P7M", b" application/x-pkcs7-mime; smime-type=x",
        b" application/pkcs7-mime; smime-type=signed-data", b' application/octet-stream; name="Mail.P7M"',
        b" application/octet-stream; name=smime.p7z", b" application/pkcs7-mime; ;; name",
    ],
)  # fmt: skip
def test_what_the_type_says_of_the_kind_is_not_believed(content_type: bytes) -> None:
    """RFC 8551 §3.2.2: smime-type is a hint, and often wrong or absent; what is in the body counts."""
    der = sealed(Suite.AES_256_CBC, [recipient()], b"hello")
    fields = (Field(b"Content-Type", content_type), Field(b"CONTENT-TRANSFER-ENCODING", b" BASE64"))
    assert classify(fields, base64.encodebytes(der)) is Protection.ENCRYPTED
    assert classify(fields, base64.encodebytes(der).rstrip()) is Protection.ENCRYPTED
    binary = (fields[0], Field(b"Content-Transfer-Encoding", b" binary"))
    assert classify(binary, der + b"\r\n") is Protection.ENCRYPTED
    assert classify(binary, der + b"\r\nsecret") is not Protection.ENCRYPTED
