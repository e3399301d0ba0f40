"""The index of a large CRL as octets: written once when the CRL came, then mapped and searched by all processes.

It is a head of fixed size, which says what CRL it belongs to and hashes itself and all that follows, and four arrays in the
machine's own byte order: offsets of blocks, offsets of issuer marks, keys, and the block of each key. The reader believes
nothing that doesn't add up. An index that is torn, damaged, of another version, machine or CRL is none, and another is made:
everything in it can be had from the CRL again.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from postseal.core.crl import open_crl, signed_hash
from postseal.core.crl_entries import Entries, Scanned
from postseal.core.crl_scan import scanned_entries
from postseal.core.der import Octets

# The version of the format, and of what "understood" and "minimal" mean to the scan: raise it when either changes.
VERSION = 1
_MAGIC = b"postseal CRL idx"
_ENDIAN = 0x01020304
# magic, byte order, version; sha256 of the CRL, its size, its stamp; start and end of the list; counts of blocks, marks and
# entries; flags; length and text of an unknown critical OID; length and octets of the hash of the signed part; sha256 of the
# arrays.
_HEAD = struct.Struct("=16sII32sQ64sQQQQQIB82sB64s32s")
_HASH = hashlib.sha256().digest_size
HEAD_SIZE = _HEAD.size + _HASH
_ODD, _NOT_CRITICAL, _RAW = 1, 2, 4
_TYPES = "IIIH"


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says about the CRL ``sha256`` of ``size`` octets.

    ``stamp`` is how the file of the CRL looked from outside when it was last hashed, in words of the caller (at most 64
    octets); ``tbs_digest`` is the hash of the signed part by the signature's algorithm, empty if that signs no hash.
    ``scanned`` None is for the time until it is scanned: its octets may be searched (``RawEntries``).
    """

    sha256: str
    size: int
    stamp: bytes
    tbs_digest: bytes
    scanned: Scanned | None


def make_index(data: Octets, sha256: str, stamp: bytes, tbs_digest: bytes = b"") -> Index:
    """Check the whole CRL in ``data`` and index it. Raises BadData with the cause.

    CRL-6: with the hash of the signed part as received (``tbs_digest``, if it is known), nobody has to go through it again.
    """
    crl = open_crl(data, sha256, scanned_entries, tbs_digest)
    assert isinstance(crl.entries, Entries)
    return Index(sha256, len(data), stamp, signed_hash(crl), crl.entries.scanned)


_NOTHING = Scanned(0, 0, 0, (), (), (), ())


def index_octets(index: Index) -> Iterator[bytes]:
    """The file, in pieces: a head and four arrays."""
    known = index.scanned or _NOTHING
    arrays = [
        values if isinstance(values, array) else array(kind, values)
        for kind, values in zip(_TYPES, (known.starts, known.marks, known.keys, known.blocks), strict=True)
    ]
    hashed = hashlib.sha256()
    for values in arrays:
        hashed.update(values)
    oid = known.unknown_critical.encode("ascii")[:82]
    flags = (_ODD if known.odd else 0) | (_NOT_CRITICAL if known.issuer_not_critical else 0)
    flags |= _RAW if index.scanned is None else 0
    head = _HEAD.pack(
        _MAGIC, _ENDIAN, VERSION, bytes.fromhex(index.sha256), index.size, index.stamp, known.start, known.end,
        len(known.starts), len(known.marks), known.count, flags, len(oid), oid, len(index.tbs_digest), index.tbs_digest,
        hashed.digest(),
    )  # fmt: skip
    yield head + hashlib.sha256(head).digest()
    for values in arrays:
        yield values.tobytes()


def read_index(data: Octets, sha256: str, size: int) -> Index | None:
    """The index in ``data`` if it is whole and that of this CRL. Its arrays are views of ``data``, which must live on."""
    view = memoryview(data)
    if len(view) < HEAD_SIZE:
        return None
    head = bytes(view[: _HEAD.size])
    if hashlib.sha256(head).digest() != bytes(view[_HEAD.size : HEAD_SIZE]):
        return None
    (magic, endian, version, name, of_size, stamp, start, end, starts, marks, count, flags, oid_size, oid, digest_size,
     digest, body) = _HEAD.unpack(head)  # fmt: skip
    if (magic, endian, version) != (_MAGIC, _ENDIAN, VERSION) or (name.hex(), of_size) != (sha256, size):
        return None
    counts = (starts, marks, count, count)
    sizes = [n * array(kind).itemsize for n, kind in zip(counts, _TYPES, strict=True)]
    if len(view) != HEAD_SIZE + sum(sizes) or hashlib.sha256(view[HEAD_SIZE:]).digest() != body:
        return None
    if not 0 <= start <= end <= size or oid_size > len(oid) or digest_size > len(digest):
        return None
    ends = list(accumulate(sizes, initial=HEAD_SIZE))
    blocks, issuers, keys = (view[ends[n] : ends[n + 1]].cast("I") for n in range(3))
    places = view[ends[3] :].cast("H")
    # What a look-up relies on, as far as that is cheap to see: the rest is compared with the CRL when something is found.
    if (blocks and (blocks[-1] != end or blocks[0] != start)) or (count and len(blocks) < 2):
        return None
    scanned = Scanned(
        start, end, count, blocks, keys, places, issuers, bool(flags & _ODD), oid[:oid_size].decode("ascii", "replace"),
        bool(flags & _NOT_CRITICAL),
    )  # fmt: skip
    return Index(sha256, size, stamp.rstrip(b"\x00"), digest[:digest_size], None if flags & _RAW else scanned)
