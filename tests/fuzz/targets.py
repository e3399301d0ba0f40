"""What the fuzzer calls: readers of what strangers send, each with the rule that nothing is raised but BadData."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postseal.app.cms_inspect import inspect
from postseal.core.capabilities import encode_capabilities, parse_capabilities
from postseal.core.cms.armour import decode_body
from postseal.core.cms.ber import check_bounds, to_der
from postseal.core.cms.classify import classify
from postseal.core.cms.compressed import InflationLimits, decompress
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.opening import open_enveloped
from postseal.core.cms.parse import parse_enveloped
from postseal.core.cms.signed_reader import object_type, parse_signed
from postseal.core.cms.verifying import check_signers, cover
from postseal.core.errors import BadData
from postseal.core.message import HeaderFault, split_message

DATA = Path(__file__).resolve().parents[1] / "data" / "fuzz"


@cache
def key(kind: str):  # type: ignore[no-untyped-def]
    return load_pem_private_key((DATA / f"{kind}.key").read_bytes(), None)


def enveloped(data: bytes) -> None:
    """Parsing, and opening with a key of each kind."""
    with suppress(BadData):
        parse_enveloped(data)
    for kind in ("rsa", "ec"):
        with suppress(BadData):
            open_enveloped(data, key(kind))


def ber(data: bytes) -> None:
    """What comes out is DER: within bounds, and the same when it goes in again."""
    with suppress(BadData):
        der = to_der(data)
        check_bounds(der)
        assert to_der(der) == der


def message(data: bytes) -> None:
    """A whole message from its first octet on."""
    with suppress(BadData):
        inspect(data)
    parts = split_message(data)
    if not isinstance(parts, HeaderFault):
        classify(*parts)
        decode_body(*parts)
        with suppress(BadData):
            parts = split_signed(*parts)
            signed(parts.signature, parts.covered)


def signed(data: bytes, content: bytes | memoryview = b"") -> None:
    """Parsing, and an account of each signer, over the content inside or the one given."""
    object_type(data)
    with suppress(BadData):
        found = parse_signed(data)
        check_signers(found, cover(found, None if found.content is not None else [content]))


def compressed(data: bytes) -> None:
    """Never more than the cap comes out."""
    limits = InflationLimits(octets=100_000, free=100_000)
    with suppress(BadData):
        assert len(decompress(data, limits)) <= limits.most(len(data))


def capabilities(data: bytes) -> None:
    """What was read is written as it was read."""
    with suppress(BadData):
        found = parse_capabilities(data)
        assert parse_capabilities(encode_capabilities(found)) == found


TARGETS: dict[str, Callable[[bytes], None]] = {
    "enveloped": enveloped,
    "ber": ber,
    "signed": signed,
    "message": message,
    "compressed": compressed,
    "capabilities": capabilities,
}
