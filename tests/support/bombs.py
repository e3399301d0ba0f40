"""Objects that mean to exhaust whoever reads them (T-15): each is built when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from postseal.core.cms.structures import header

DEEP = 10_000
MANY = 2_000_000


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return header(tag, len(body)) + body


def nested(depth: int, tag: int = 0x30) -> bytes:
    """``depth`` constructed values of definite length, each around the next."""
    heads, length = [], 0
    for _ in range(depth):
        head = header(tag, length)
        heads.append(head)
        length += len(head)
    return b"".join(reversed(heads))


def unending(depth: int, tag: int = 0x30) -> bytes:
    """The same in indefinite lengths, with all their ends."""
    return bytes((tag, 0x80)) * depth + b"\0\0" * depth


ENVELOPED = bytes.fromhex("06092a864886f70d010703")
AUTH_ENVELOPED = bytes.fromhex("060b2a864886f70d0109100117")
SIGNED = bytes.fromhex("06092a864886f70d010702")
COMPRESSED = bytes.fromhex("060b2a864886f70d0109100109")
DATA = bytes.fromhex("06092a864886f70d010701")
CBC = tlv(0x30, bytes.fromhex("060960864801650304012a"), tlv(4, bytes(16)))
RSA = tlv(0x30, bytes.fromhex("06092a864886f70d0101010500"))
SHA256 = tlv(0x30, bytes.fromhex("0609608648016503040201"))
WRAP = tlv(0x30, bytes.fromhex("060960864801650304012d"))
ECDH = tlv(0x30, bytes.fromhex("06062b81040b0101"), WRAP)
RID = tlv(0x30, tlv(0x30), b"\x02\x01\x01")


def key_transport(rid: bytes = RID, algorithm: bytes = RSA, version: bytes = b"\x02\x01\0", key: int = 256) -> bytes:
    return tlv(0x30, version, rid, algorithm, tlv(4, b"k" * key))


def key_agreement(recipients: bytes, point: bytes = b"\x04" + b"p" * 64) -> bytes:
    originator = tlv(0xA0, tlv(0xA1, tlv(0x30, bytes.fromhex("06072a8648ce3d0201")), tlv(3, b"\0" + point)))
    return tlv(0xA1, b"\x02\x01\x03", originator, ECDH, tlv(0x30, recipients))


def enveloped(
    infos: bytes | None = None, content: bytes | None = None, before: bytes = b"\x02\x01\0", after: bytes = b"",
    algorithm: bytes = CBC,
) -> bytes:  # fmt: skip
    """EnvelopedData with the part in question put in the place that it belongs to."""
    infos = tlv(0x31, key_transport()) if infos is None else infos
    content = tlv(0x80, bytes(32)) if content is None else content
    return tlv(0x30, ENVELOPED, tlv(0xA0, tlv(0x30, before, infos, tlv(0x30, DATA, algorithm, content), after)))


def auth_enveloped(attributes: bytes = b"", infos: bytes | None = None, content: bytes = bytes(32)) -> bytes:
    """AuthEnvelopedData with a tag that is wrong."""
    gcm = tlv(0x30, bytes.fromhex("060960864801650304012e"), tlv(0x30, tlv(4, bytes(12)), b"\x02\x01\x10"))
    infos = tlv(0x31, key_transport()) if infos is None else infos
    parts = (b"\x02\x01\0", infos, tlv(0x30, DATA, gcm, tlv(0x80, content)))
    signed = tlv(0xA1, attributes) if attributes else b""
    return tlv(0x30, AUTH_ENVELOPED, tlv(0xA0, tlv(0x30, *parts, signed, tlv(4, bytes(16)))))


def signed(
    digests: bytes = SHA256, content: bytes = b"", certificates: bytes = b"", signers: bytes | None = None
) -> bytes:
    """SignedData. ``certificates`` with their tag."""
    signers = signer() if signers is None else signers
    inner = (b"\x02\x01\x01", tlv(0x31, digests), tlv(0x30, DATA, content), certificates, tlv(0x31, signers))
    return tlv(0x30, SIGNED, tlv(0xA0, tlv(0x30, *inner)))


def signer(attributes: bytes = b"", rid: bytes = RID, unsigned: bytes = b"") -> bytes:
    return tlv(0x30, b"\x02\x01\x01", rid, SHA256, attributes, RSA, tlv(4, b"s" * 256), unsigned)


def _oid(length: int) -> bytes:
    return tlv(6, b"\x2a" + b"\x81" * length + b"\x01")


Bombs = dict[str, Callable[[], bytes]]

ENVELOPED_BOMBS: Bombs = {
    "nested": lambda: nested(DEEP),
    "nested without end": lambda: unending(DEEP),
    "nested and cut off": lambda: b"\x30\x80" * 1_000_000,
    "nested strings": lambda: unending(DEEP, 0x24),
    "nested sets": lambda: unending(DEEP, 0x31),
    "recipient infos": lambda: enveloped(tlv(0x31, nested(DEEP))),
    "recipient infos without end": lambda: enveloped(tlv(0x31, unending(DEEP))),
    "issuer's name": lambda: enveloped(tlv(0x31, key_transport(tlv(0x30, nested(DEEP), b"\x02\x01\x01")))),
    "algorithm's parameters": lambda: enveloped(tlv(0x31, key_transport(algorithm=tlv(0x30, RSA[2:13], nested(DEEP))))),
    "cipher's parameters": lambda: enveloped(algorithm=tlv(0x30, CBC[2:13], nested(DEEP))),
    "content": lambda: enveloped(content=tlv(0xA0, nested(DEEP, 0x24))),
    "content without end": lambda: enveloped(content=tlv(0xA0, unending(DEEP, 0x24))),
    "unprotected attributes": lambda: enveloped(after=tlv(0xA1, nested(DEEP))),
    "authenticated attributes": lambda: auth_enveloped(nested(DEEP)),
    "originator info": lambda: enveloped(before=b"\x02\x01\x02" + tlv(0xA0, nested(DEEP))),
    "other recipient": lambda: enveloped(tlv(0x31, tlv(0xA4, nested(DEEP)))),
    "pieces of one octet": lambda: enveloped(content=tlv(0xA0, tlv(4, b"x") * MANY)),
    "pieces of one octet without end": lambda: enveloped(content=b"\xa0\x80" + tlv(4, b"x") * MANY + b"\0\0"),
    "pieces of nothing": lambda: enveloped(content=tlv(0xA0, b"\x04\0" * MANY)),
    "tiny elements": lambda: tlv(0x30, b"\x05\0" * MANY),
    "tiny sequences": lambda: tlv(0x30, b"\x30\0" * MANY),
    "tiny sets": lambda: b"\x30\x80" + b"\x31\0" * MANY + b"\0\0",
    "tiny recipients": lambda: enveloped(tlv(0x31, b"\x30\0" * MANY)),
    "tiny attributes": lambda: enveloped(after=tlv(0xA1, b"\x05\0" * MANY)),
    "tiny authenticated attributes": lambda: auth_enveloped(b"\x05\0" * MANY),
    "tiny certificates": lambda: enveloped(before=b"\x02\x01\x02" + tlv(0xA0, b"\x05\0" * MANY)),
    "a set in the wrong order": lambda: enveloped(
        tlv(0x31, *(tlv(2, n.to_bytes(3, "big")) for n in range(199_000, 9, -1)))
    ),
    "100000 recipients": lambda: enveloped(tlv(0x31, key_transport(key=16) * 100_000)),
    "100000 agreed keys": lambda: enveloped(tlv(0x31, key_agreement(tlv(0x30, RID, tlv(4, b"k" * 24)) * 100_000))),
    "content type": lambda: tlv(0x30, _oid(1_000_000), tlv(0xA0, b"")),
    "algorithm": lambda: enveloped(tlv(0x31, key_transport(algorithm=tlv(0x30, _oid(1_000_000))))),
    "cipher": lambda: enveloped(algorithm=tlv(0x30, _oid(1_000_000))),
    "huge length": lambda: bytes.fromhex("3084ffffffff") + bytes(100),
    "huger length": lambda: bytes.fromhex("3088ffffffffffffffff") + bytes(100),
    "hugest length": lambda: b"\x30\xff" + b"\xff" * 127,
    "huge length inside": lambda: enveloped(content=bytes.fromhex("8084ffffffff") + bytes(100)),
    "high tag numbers": lambda: tlv(0x30, b"\x1f" + b"\xff" * 1_000_000),
}
"""Each is to be refused."""

SIGNED_BOMBS: Bombs = {
    "nested": lambda: nested(DEEP),
    "nested without end": lambda: unending(DEEP),
    "digest algorithms": lambda: signed(digests=nested(DEEP)),
    "content": lambda: signed(content=tlv(0xA0, nested(DEEP, 0x24))),
    "content without end": lambda: signed(content=b"\xa0\x80" + unending(DEEP, 0x24) + b"\0\0"),
    "certificates": lambda: signed(certificates=tlv(0xA0, nested(DEEP))),
    "signer": lambda: signed(signers=nested(DEEP)),
    "issuer's name": lambda: signed(signers=signer(rid=tlv(0x30, nested(DEEP), b"\x02\x01\x01"))),
    "signed attributes": lambda: signed(signers=signer(tlv(0xA0, nested(DEEP)))),
    "unsigned attributes": lambda: signed(signers=signer(unsigned=tlv(0xA1, nested(DEEP)))),
    "tiny digest algorithms": lambda: signed(digests=b"\x30\0" * MANY),
    "tiny pieces": lambda: signed(content=tlv(0xA0, tlv(0x24, tlv(4, b"x") * MANY))),
    "tiny certificates": lambda: signed(certificates=tlv(0xA0, b"\x30\0" * MANY)),
    "tiny signers": lambda: signed(signers=b"\x30\0" * MANY),
    "tiny attributes": lambda: signed(signers=signer(tlv(0xA0, b"\x30\0" * MANY))),
    "100000 signers": lambda: signed(signers=signer() * 100_000),
    "content type": lambda: tlv(0x30, _oid(1_000_000), tlv(0xA0, b"")),
    "huge length": lambda: signed(content=bytes.fromhex("a084ffffffff") + bytes(100)),
}
"""Each is to be refused, or to come out as a value that is small."""
