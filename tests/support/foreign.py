"""Messages that others made, told in one line each: layer by layer, with what became of each signature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from postseal.core.certs import Certificate
from postseal.core.cms.armour import decode_body
from postseal.core.cms.compressed import decompress
from postseal.core.cms.multipart import split_signed
from postseal.core.cms.opening import Reading, unseal
from postseal.core.cms.signed_reader import SIGNED_DATA, joined, object_type, parse_signed
from postseal.core.cms.unwrapping import Holder
from postseal.core.cms.verifying import SignerAccount, check_signers, cover
from postseal.core.errors import BadData
from postseal.core.message import HeaderFault, only, parse_content_type, split_message
from postseal.core.pem import pem_blocks

FOREIGN = Path(__file__).resolve().parents[1] / "data" / "foreign"
COMPRESSED = bytes.fromhex("060b2a864886f70d0109100109")


def holders(folder: Path) -> tuple[Holder, ...]:
    """All keys of a folder."""
    found = []
    for path in sorted(folder.glob("*.key")):
        blob = path.read_bytes()
        found.append(Holder((load_der_private_key if blob[:1] == b"0" else load_pem_private_key)(blob, None)))  # type: ignore[arg-type]
    return tuple(found)


def story(octets: bytes, keys: Sequence[Holder] = (), content: bytes = b"", pool: Sequence[Certificate] = ()) -> str:
    """``octets``: a message, or a CMS object in DER, BER or PEM. ``content`` is what detached signatures are over."""
    try:
        if octets[:1] == b"\x30":
            return _object(octets, keys, content, pool)
        blocks = [der for _, der in pem_blocks(octets, ("PKCS7", "CMS"))]
        if blocks:
            return _object(blocks[0], keys, content, pool)
        return _message(octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), keys, pool)
    except BadData as exc:
        return f"refused: {exc}"


def _message(octets: bytes, keys: Sequence[Holder], pool: Sequence[Certificate]) -> str:
    parts = split_message(octets)
    if isinstance(parts, HeaderFault):
        return "text"
    field = only(parts[0], b"content-type")
    declared = parse_content_type(field.value) if field else None
    if declared is None:
        return "text"
    if declared.media == "multipart/signed":
        clear = split_signed(*parts)
        signed = parse_signed(clear.signature)
        accounts = check_signers(signed, cover(signed, [clear.covered]), pool)
        return f"clear-signed({_accounts(accounts)}) > {story(bytes(clear.covered), keys, pool=pool)}"
    if declared.media in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        return _object(decode_body(*parts) or b"", keys, b"", pool)
    return declared.media


def _object(octets: bytes, keys: Sequence[Holder], content: bytes, pool: Sequence[Certificate]) -> str:
    if object_type(octets) == SIGNED_DATA:
        signed = parse_signed(octets)
        if signed.certs_only:
            return f"certificates({len(signed.certificates)})"
        detached = signed.content is None
        accounts = _accounts(check_signers(signed, cover(signed, [content] if detached else None), pool))
        if signed.content is None:
            return f"detached({accounts})"
        return f"signed({accounts}) > {_content(joined(signed.content), keys, pool)}"
    if COMPRESSED in octets[:40]:
        return f"compressed > {_content(decompress(octets), keys, pool)}"
    if not keys:
        return "no key"
    opened = unseal(octets, keys, Reading(allow_3des=True))
    return f"{opened.cipher} > {_content(b''.join(opened.chunks()), keys, pool)}"


def _content(octets: bytes, keys: Sequence[Holder], pool: Sequence[Certificate]) -> str:
    return story(octets, keys, pool=pool) if octets[:13].lower() == b"content-type:" or octets[:1] == b"M" else "text"


def _accounts(accounts: Sequence[SignerAccount]) -> str:
    return ", ".join(f"{each.scheme or '?'} {each.digest} {each.code.removeprefix('sig.')}" for each in accounts)
