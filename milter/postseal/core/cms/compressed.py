"""CompressedData taken apart (RFC 3274), with a cap on what comes out (THR-4)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.cms import structures as cms
from postseal.core.cms.ber import Content, Walk, to_der
from postseal.core.cms.parse import enter_content_info, leave_content_info
from postseal.core.der import Octets
from postseal.core.errors import BadData

# RFC 3274 §2: id-alg-zlibCompress, the only one there is.
_ZLIB = Oid("1.2.840.113549.1.9.16.3.8")
_PIECE = 65536


@dataclass(frozen=True, slots=True)
class InflationLimits:
    """How much may come out. zlib makes up to 1032 octets of one; mail that somebody wrote shrinks to a fiftieth at most.

    ``free`` octets may come out of however little, so that a short message of blanks is no bomb. ``octets`` take zlib 0.15 s.
    """

    octets: int = 64 * 1024 * 1024
    ratio: int = 200
    free: int = 1024 * 1024

    def most(self, length: int) -> int:
        """What may come out of ``length`` octets."""
        return min(self.octets, max(self.free, self.ratio * length))

    def within(self, length: int) -> InflationLimits:
        """The limits for all layers of a message of ``length`` octets, so that bombs in bombs multiply nothing."""
        return InflationLimits(self.most(length), self.ratio, min(self.free, self.octets))


_LIMITS = InflationLimits()


def decompress(octets: Octets, limits: InflationLimits = _LIMITS) -> bytes:
    """The content of a CompressedData in DER or BER. Raises BadData, also when more than ``limits`` allows would come out."""
    return b"".join(inflated(octets, limits))


def inflated(octets: Octets, limits: InflationLimits = _LIMITS) -> Iterator[bytes]:
    """``decompress`` in pieces of 64 KB at most. What has come out is to be forgotten when BadData is raised later on."""
    walk = Walk(octets)
    try:
        kind = enter_content_info(walk)
        if kind != cms.COMPRESSED_DATA:
            raise BadData(f"not a compressed CMS message: it is of type {kind.dotted_string}")
        # RFC 3274 §1.1: version, compressionAlgorithm, encapContentInfo.
        walk.enter(0x30)
        walk.part(0x02)
        algorithm, _ = cms.algorithm_of(cms.tlv(to_der(walk.part(0x30))))
        if algorithm != _ZLIB:
            raise BadData(f"the content is compressed in a way that nobody knows: {algorithm.dotted_string}")
        walk.enter(0x30)
        asn1.decode_der(Oid, to_der(walk.part(0x06)))
        if walk.peek() < 0:
            raise BadData("not a compressed CMS message: the content isn't in it")
        walk.enter(0xA0)
        content = walk.content(0x04)
        for _ in range(3):
            walk.leave()
        leave_content_info(walk)
    except ValueError as exc:
        raise BadData(f"not a compressed CMS message: {exc}") from exc
    yield from _inflate(content, limits.most(len(content)))


def _inflate(pieces: Content, most: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    left = most
    try:
        for piece in pieces:
            waiting: bytes | memoryview = piece
            while len(waiting):
                if inflater.eof:
                    # What stands after the end is in no reader's content: a place to hide something.
                    raise BadData("the compressed content is damaged: there is something after its end")
                plain = inflater.decompress(waiting, min(_PIECE, left + 1))
                if len(plain) > left:
                    raise BadData(f"the compressed content would be more than {most} octets")
                left -= len(plain)
                if plain:
                    yield plain
                waiting = inflater.unconsumed_tail or inflater.unused_data
    except zlib.error as exc:
        raise BadData("the compressed content is damaged") from exc
    if not inflater.eof:
        raise BadData("the compressed content is damaged: it is cut off")
