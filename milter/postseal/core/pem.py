"""PEM text (RFC 7468), read as leniently as its §2 allows: text around the blocks is ignored, line lengths don't matter."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import pybase64

from postseal.core.errors import BadData

_BEGIN = re.compile(rb"^[ \t]*-----BEGIN ([A-Z0-9 #]{1,40})-----[ \t]*\r?$", re.MULTILINE)


def pem_blocks(blob: bytes, labels: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(label, content) of each block whose label is one of ``labels``; other blocks are passed over.

    Raises BadData for a block that is cut short or isn't base64; the text gives its number among those that count.
    """
    number = 0
    for begin in _BEGIN.finditer(blob):
        label = begin.group(1).decode("ascii")
        if label not in labels:
            continue
        number += 1
        end = blob.find(b"-----END " + begin.group(1) + b"-----", begin.end())
        following = blob.find(b"-----BEGIN ", begin.end())
        if end < 0 or 0 <= following < end:
            raise BadData(f"PEM block {number}: it has no END line")
        try:
            yield label, pybase64.b64decode(b"".join(blob[begin.end() : end].split()), validate=True)
        except ValueError as exc:
            raise BadData(f"PEM block {number}: not base64: {exc}") from exc
