"""T-36 and ALG-6, ALG-7: what an attacker learns who changes a message and watches what becomes of it, which is nothing.

How long it takes is measured by ``bench/oracle.py``; here the work is counted.
"""

from __future__ import annotations

import base64
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from postseal.core.cms import structures as cms
from postseal.core.cms.opening import CANNOT_OPEN, open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.errors import BadData
from postseal.core.suite import Suite
from support.bombs import AUTH_ENVELOPED, DATA, tlv
from support.cms import open_sealed, recipient, sealed, sealed_parts

PLAIN = b"Content-Type: text/plain\r\n\r\nattack at dawn, all of you\r\n"


def outcome(octets: bytes, kind: str = "rsa2048", named: bool = True) -> bytes | str:
    """The content, or the sentence of the refusal; anything else that is raised fails the test."""
    leaf = recipient(kind)
    try:
        return open_enveloped(octets, leaf.key, leaf.certificate if named else None)
    except BadData as exc:
        refusal = exc
    # Once a key is involved, neither the type nor what led to the exception tells more than the sentence.
    if str(refusal) == CANNOT_OPEN:
        assert (type(refusal), refusal.args, refusal.__cause__, refusal.__context__) == (
            BadData,
            (CANNOT_OPEN,),
            None,
            None,
        )
    return str(refusal)


def with_tag(declared: int | None, length: int) -> bytes:
    """A good AES-GCM message with its tag cut (or made longer) to ``length``, and another declared length."""
    der = sealed(Suite.AES_256_GCM, [recipient()], PLAIN)
    parsed = parse_enveloped(der)
    assert parsed.parameters is not None
    nonce = parsed.parameters.parse(cms.GcmParameters).nonce
    oid = bytes.fromhex("060960864801650304012e")
    gcm = tlv(0x30, oid, tlv(0x30, tlv(4, nonce), b"" if declared is None else bytes((2, 1, declared))))
    infos = der[der.index(b"\x31\x82") :][: 4 + int.from_bytes(der[der.index(b"\x31\x82") + 2 :][:2], "big")]
    content = tlv(0x30, DATA, gcm, tlv(0x80, b"".join(map(bytes, parsed.content))))
    mac = tlv(4, (parsed.mac + bytes(2))[:length])
    return tlv(0x30, AUTH_ENVELOPED, tlv(0xA0, tlv(0x30, b"\x02\x01\0", infos, content, mac)))


@pytest.mark.parametrize("length", range(18))
def test_a_tag_counts_only_at_its_declared_length_of_12_to_16(length: int) -> None:
    """T-36, ALG-5: every length of tag with every declared length; a short one that is right is refused like a wrong one."""
    for declared in [None, *range(18)]:
        octets = with_tag(declared, length)
        good = length == (12 if declared is None else declared) and 12 <= length <= 16
        assert outcome(octets) == (PLAIN if good else CANNOT_OPEN), declared


def test_no_bit_of_an_authenticated_message_can_be_changed() -> None:
    """T-36: each bit of a small AES-GCM message: the same content, no CMS at all, or the one sentence."""
    head, ciphertext, tail = sealed_parts(Suite.AES_256_GCM, [recipient("p256")], PLAIN)
    whole = head + ciphertext + tail
    opened = 0
    for place in range(len(whole)):
        for bit in range(8):
            spoilt = bytearray(whole)
            spoilt[place] ^= 1 << bit
            found = outcome(bytes(spoilt), "p256", named=False)
            assert isinstance(found, str) or found == PLAIN
            if isinstance(found, bytes):
                # Versions and the identifier aren't authenticated, and change nothing that is shown.
                opened += 1
                assert place < len(head)
    assert 0 < opened < 8 * len(head)


def cbc_gadget() -> tuple[bytes, bytes]:
    """EFAIL: blocks whose plaintext the attacker chooses, made from one whose plaintext is known, before the rest."""
    head, ciphertext, _ = sealed_parts(Suite.AES_256_CBC, [recipient()], PLAIN)
    at = head.rindex(b"\x04\x10") + 2
    iv, known = head[at : at + 16], PLAIN[:16]
    wanted = b'X: <img src="//e'
    forged = bytes(a ^ b ^ c for a, b, c in zip(iv, known, wanted, strict=True))
    # Its first block says what the attacker wants, then one that is noise, then the message itself.
    changed = ciphertext[:16] + iv + ciphertext
    octets = head[:at] + forged + head[at + 16 :] + changed
    return _resized(octets, len(head), changed), wanted


def _resized(octets: bytes, content_at: int, content: bytes) -> bytes:
    """The same message with the lengths for another content."""
    parsed_head = octets[:content_at]
    algorithm = parsed_head[parsed_head.rindex(b"\x30\x1d\x06\x09") :][:31]
    infos_at = parsed_head.index(b"\x31\x82")
    infos = parsed_head[infos_at : infos_at + 4 + int.from_bytes(parsed_head[infos_at + 2 : infos_at + 4], "big")]
    enveloped = bytes.fromhex("06092a864886f70d010703")
    eci = tlv(0x30, DATA, algorithm, tlv(0x80, content))
    return tlv(0x30, enveloped, tlv(0xA0, tlv(0x30, b"\x02\x01\0", infos, eci)))


def test_a_cbc_gadget_is_marked_as_unauthenticated() -> None:
    """ALG-7, EFAIL: CBC can't tell; whoever reads it is told. The same with GCM doesn't open at all."""
    octets, wanted = cbc_gadget()
    leaf = recipient()
    opened = open_sealed(octets, leaf.key, leaf.certificate)
    assert opened.octets[:16] == wanted
    assert opened.octets.endswith(PLAIN[16:])
    assert opened.protection == "decrypted-unauthenticated"


@pytest.mark.parametrize(
    "wrapper",
    [
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<img src="//e/\r\n--b\r\n'
        b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n%b"
        b'\r\n--b\r\nContent-Type: text/html\r\n\r\n">\r\n--b--\r\n',
        b"Content-Type: text/html\r\n\r\n<p>\r\nContent-Type: application/pkcs7-mime\r\n\r\n%b",
        b"Content-Type: message/rfc822\r\n\r\nContent-Type: application/pkcs7-mime\r\n\r\n%b",
    ],
    ids=["parts", "text", "attached"],
)
def test_only_a_whole_message_is_decrypted(wrapper: bytes) -> None:
    """ALG-7, EFAIL: a sealed part between somebody's own is left as it is, so that nothing can be put around it."""

    leaf = recipient()
    message = wrapper.replace(
        b"%b", base64.encodebytes(sealed(Suite.AES_256_CBC, [leaf], PLAIN)).replace(b"\n", b"\r\n")
    )
    with pytest.raises(BadData, match=r"isn't sealed or signed|neither sealed nor signed as a whole") as caught:
        open_sealed(message, leaf.key, leaf.certificate)
    assert b"dawn" not in str(caught.value).encode()


# --- Bleichenbacher, Manger and their kin ---


def raw(key: rsa.RSAPrivateKey, block: bytes) -> bytes:
    """RSA without padding: what an attacker sends who tries ciphertexts."""
    numbers = key.public_key().public_numbers()
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")


def failures(key: rsa.RSAPrivateKey, length: int) -> Iterator[tuple[str, bytes]]:
    """Every way in which PKCS #1 v1.5 can be wrong, and the one in which only the key is."""
    filler = b"\x07" * (256 - 3 - length)
    other = os.urandom(length)
    yield "another key", b"\0\2" + filler + b"\0" + other
    yield "key too short", b"\0\2" + filler + b"\x07\0" + other[1:]
    yield "key too long", b"\0\2" + filler[1:] + b"\0" + other + b"x"
    yield "no key", b"\0\2" + b"\x07" * 253 + b"\0"
    yield "no separator", b"\0\2" + b"\x07" * 254
    yield "first octet", b"\1\2" + filler + b"\0" + other
    yield "block type", b"\0\1" + filler + b"\0" + other
    yield "short padding", b"\0\2" + b"\x07" * 7 + b"\0" + b"\x07" * (256 - 11 - length) + b"\0" + other
    yield "zero in the padding", b"\0\2" + filler[:8] + b"\0" + filler[9:] + b"\0" + other
    yield "zeros", bytes(255) + b"\1"


def crypto_calls(call: Callable[[], object]) -> Counter[str]:
    """How often each function of the crypto libraries is called."""
    counted: Counter[str] = Counter()

    def profile(frame: Any, event: str, function: Any) -> None:
        if event == "c_call":
            owner = getattr(function, "__self__", None)
            where = f"{getattr(function, '__module__', '')} {type(owner).__module__}"
            if "cryptography" in where or "hash" in where or "hmac" in where:
                counted[f"{type(owner).__name__}.{function.__name__}"] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize("suite", [Suite.AES_256_CBC, Suite.AES_128_GCM])
def test_every_failure_of_rsa_looks_alike_and_does_the_same_work(suite: Suite) -> None:
    """ALG-6, RFC 3218 §2.3: the same sentence, type and calls of the crypto library, whichever check fails."""
    leaf = recipient()
    head, ciphertext, tail = sealed_parts(suite, [leaf], PLAIN * 100)
    (info,) = parse_enveloped(head + ciphertext + tail).recipients
    assert isinstance(info, cms.KeyTransRecipientInfo)
    at = head.index(info.encrypted_key)
    work: dict[str, Counter[str]] = {}
    for name, block in failures(leaf.key, suite.key_length):
        spoilt = head[:at] + raw(leaf.key, block) + head[at + 256 :] + ciphertext + tail
        found: list[bytes | str] = []
        # One wrong key in 256 gives padding that looks right: then there is content, of noise, as with any key.
        for _ in range(3):
            work[name] = crypto_calls(lambda spoilt=spoilt, found=found: found.append(outcome(spoilt)))  # type: ignore[misc]
        if found[0] == CANNOT_OPEN:
            assert set(found) == {CANNOT_OPEN}
        else:
            del work[name]
            assert not suite.gcm
    assert len(work) >= 8
    assert sum(next(iter(work.values())).values()) > 5
    assert {name: calls for name, calls in work.items() if calls != work["key too short"]} == {}


def test_a_second_recipient_info_is_no_oracle() -> None:
    """CVE-2019-1563: an info of the attacker's before the good one; whether its padding is right changes nothing."""
    leaf = recipient()
    suite = Suite.AES_256_GCM
    der = sealed(suite, [leaf, recipient("rsa2048", 1)], PLAIN)
    good, other = (
        next(i for i in parse_enveloped(der).recipients if cms_serial(i) == leaf.certificate.x509.serial_number),
        next(i for i in parse_enveloped(der).recipients if cms_serial(i) != leaf.certificate.x509.serial_number),
    )
    assert isinstance(good, cms.KeyTransRecipientInfo)
    assert isinstance(other, cms.KeyTransRecipientInfo)
    at = der.index(other.encrypted_key)
    seen: dict[str, tuple[bytes | str, Counter[str]]] = {}
    for name, block in failures(leaf.key, suite.key_length):
        spoilt = der[:at] + raw(leaf.key, block) + der[at + 256 :]
        for named in (True, False):
            found: list[bytes | str] = []
            calls = crypto_calls(lambda s=spoilt, n=named, f=found: f.append(outcome(s, named=n)))  # type: ignore[misc]
            seen[f"{name} {named}"] = found[0], calls
    assert {found for found, _ in seen.values()} == {PLAIN}
    for named in (True, False):
        expected = seen[f"key too short {named}"][1]
        assert all(calls == expected for name, (_, calls) in seen.items() if name.endswith(str(named)))


def cms_serial(info: object) -> int:
    assert isinstance(info, cms.KeyTransRecipientInfo)
    assert isinstance(info.rid, cms.IssuerAndSerialNumber)
    return cms.integer(info.rid.serial)


@pytest.mark.parametrize("kind", ["p256", "p521"])
def test_every_failure_of_key_agreement_looks_alike(kind: str) -> None:
    """ALG-6: a point off the curve, a damaged wrapped key, one of another length: the one sentence."""
    head, ciphertext, tail = sealed_parts(Suite.AES_256_CBC, [recipient(kind)], PLAIN)
    whole = head + ciphertext + tail
    (info,) = parse_enveloped(whole).recipients
    assert isinstance(info, cms.KeyAgreeRecipientInfo)
    assert isinstance(info.originator, cms.OriginatorPublicKey)
    point = info.originator.public_key.as_bytes()
    wrapped = info.recipient_encrypted_keys[0].encrypted_key
    for original, changed in (
        (point, point[:1] + b"\x01" * (len(point) - 1)),
        (point, b"\x02" + point[1:]),
        (point, b"\0" * len(point)),
        (wrapped, os.urandom(len(wrapped))),
        (wrapped, wrapped[:-1] + bytes((wrapped[-1] ^ 1,))),
    ):
        assert outcome(whole.replace(original, changed), kind) == CANNOT_OPEN


def test_a_key_for_somebody_else_is_like_a_damaged_message() -> None:
    """ALG-6, THR-29: who holds another key learns nothing but that it isn't for that key, or damaged."""
    octets = sealed(Suite.AES_256_GCM, [recipient("rsa2048", 1)], PLAIN)
    assert outcome(octets) == CANNOT_OPEN
    assert outcome(octets, "p256") == CANNOT_OPEN
