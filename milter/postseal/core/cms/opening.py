"""Opening encrypted CMS with private keys.

Every failure to decrypt looks and takes the same (ALG-6): which check failed is what a Bleichenbacher or padding oracle asks
for. Content is gone through twice: first to see that tag or padding are right, then to give it out. It is never joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.x509 import ObjectIdentifier as Oid

from postseal.core.certs import Certificate
from postseal.core.cms import structures as cms
from postseal.core.cms.parse import Enveloped, parse_enveloped
from postseal.core.cms.unwrapping import Holder, PrivateKey, content_keys
from postseal.core.der import Octets
from postseal.core.errors import BadData

# ALG-6: the one sentence for whatever went wrong once a key is involved.
CANNOT_OPEN = (
    "the message can't be decrypted: it isn't encrypted to this key, it is damaged, or what it holds is no message"
)
# ALG-7: CBC proves nothing about who wrote it, and parts of it may have been exchanged (EFAIL).
UNAUTHENTICATED = "CBC doesn't authenticate: without a signature inside, the content may have been changed"
WEAK_CIPHER = "the content was encrypted with Triple-DES, which is no protection for much content any more (Sweet32)"

_TRIPLE_DES = Oid("1.2.840.113549.3.7")
_MAX_ATTEMPTS = 100
# Attempts with GCM each go through the whole content: so many octets for all of them.
_MAX_ATTEMPTED = 4 * 1024**3
# How much of the content is looked at when several keys give good padding.
_GLANCE = 64
_TEXT = frozenset((9, 10, 13, *range(32, 127)))


@dataclass(frozen=True, slots=True)
class Reading:
    """What is accepted when reading."""

    # ALG-6: Triple-DES is read only where somebody asked for it.
    allow_3des: bool = False


_AS_EVER = Reading()


class Unsealed:
    """Content that opened. ``authenticated`` is ALG-7's mark: only then nobody without the key can have changed it.

    ``chunks`` gives the content, and may be asked for again. The octets that were opened must stay as they are until then.
    """

    __slots__ = ("_key", "_scheme", "authenticated", "cipher", "content_type", "length", "notes")

    def __init__(self, enveloped: Enveloped, scheme: _Scheme, key: bytes, length: int) -> None:
        self.authenticated = enveloped.authenticated
        self.cipher = scheme.name
        self.content_type = enveloped.content_type
        self.length = length
        weak = (WEAK_CIPHER,) if scheme.cipher is TripleDES else ()
        self.notes: tuple[str, ...] = weak if self.authenticated else (*weak, UNAUTHENTICATED)
        self._scheme = scheme
        self._key = key

    def chunks(self) -> Iterator[bytes]:
        """The content. Raises BadData when the octets have changed since they were checked."""
        left = self.length
        try:
            for piece in self._scheme.plain(self._key):
                if left:
                    # What is after it is padding.
                    yield bytes(piece[:left])
                left -= min(left, len(piece))
        except (ValueError, InvalidTag) as exc:
            raise BadData(CANNOT_OPEN) from exc
        if left:
            raise BadData(CANNOT_OPEN)


def open_enveloped(
    der: Octets, key: PrivateKey, certificate: Certificate | None = None, reading: Reading = _AS_EVER
) -> bytes:
    """The content of an Enveloped- or AuthEnvelopedData, for the holder of ``key``; nothing is given out unauthenticated.

    With ``certificate`` only the recipient that names it is tried, else all of the key's kind. Raises BadData: for octets
    that are no encrypted CMS with what is wrong, and once a key is involved with ``CANNOT_OPEN`` for every cause.
    """
    return b"".join(unseal(der, (Holder(key, certificate),), reading).chunks())


def unseal(octets: Octets, holders: Sequence[Holder], reading: Reading = _AS_EVER) -> Unsealed:
    """An Enveloped- or AuthEnvelopedData opened by whoever of the holders can, tag or padding checked. Raises BadData as
    ``open_enveloped`` does.
    """
    enveloped = parse_enveloped(octets)
    allow_3des = reading.allow_3des and enveloped.cipher == _TRIPLE_DES
    if enveloped.cipher not in cms.CONTENT_CIPHERS and not allow_3des:
        name = cms.FOREIGN_CIPHERS[enveloped.cipher]
        unless = " unless it is allowed" if enveloped.cipher == _TRIPLE_DES else ""
        raise BadData(f"the content is encrypted with {name}, which postseal doesn't open{unless}")
    scheme = _Scheme(enveloped)
    attempts = min(_MAX_ATTEMPTS, max(2, _MAX_ATTEMPTED // max(1, len(enveloped.content))))
    keys = content_keys(enveloped.recipients, scheme.key_length, holders, reading.allow_3des)
    best: tuple[int, bytes, int] | None = None
    last = b""
    for (last, possible), _ in zip(keys, range(attempts), strict=False):
        length = scheme.fits(last)
        if length is None or not possible:
            continue
        if scheme.gcm:
            return Unsealed(enveloped, scheme, last, length)
        # One wrong key in 256 gives padding that looks right. When two do, it is the one that gives text.
        looks = scheme.looks(last)
        if best is None or looks > best[0]:
            best = looks, last, length
    if best is not None:
        return Unsealed(enveloped, scheme, best[1], best[2])
    # ALG-6: what doesn't open takes as long as what does.
    scheme.waste(last)
    raise BadData(CANNOT_OPEN)


class _Scheme:
    """A content cipher with its parameters, over the content of one message; also with parameters that can't be."""

    __slots__ = ("_aad", "_content", "_iv", "_mac", "_sound", "block", "cipher", "gcm", "key_length", "name")

    def __init__(self, enveloped: Enveloped) -> None:
        default = (cms.FOREIGN_CIPHERS.get(enveloped.cipher, ""), 24, False)
        self.name, self.key_length, self.gcm = cms.CONTENT_CIPHERS.get(enveloped.cipher, default)
        self.cipher = TripleDES if enveloped.cipher == _TRIPLE_DES else AES
        self.block = 8 if self.cipher is TripleDES else 16
        self._content, self._mac, self._aad = enveloped.content, enveloped.mac, enveloped.aad
        try:
            self._iv = self._parameters(enveloped)
            self._sound = True
        except ValueError:
            self._iv, self._sound = bytes(12 if self.gcm else self.block), False

    def _parameters(self, enveloped: Enveloped) -> bytes:
        if self.gcm != enveloped.authenticated or enveloped.parameters is None:
            raise ValueError("cipher and kind don't fit")
        if self.gcm:
            parameters = enveloped.parameters.parse(cms.GcmParameters)
            # ALG-5: RFC 5084 §3.2 has 12 as default; only 12 to 16, and exactly as long as the tag that came. The nonce may
            # be of any length by §3.2, which recommends 12; no writer is known that uses another.
            icv_length = 12 if parameters.icv_length is None else parameters.icv_length
            if not 12 <= icv_length <= 16 or len(enveloped.mac) != icv_length or len(parameters.nonce) != 12:
                raise ValueError("tag or nonce of a length that isn't accepted")
            nonce: bytes = parameters.nonce
            return nonce
        iv: bytes = enveloped.parameters.parse(bytes)
        # RFC 5652 §6.3: padding is always there, so that empty content is one block.
        if len(iv) != self.block or not len(self._content) or len(self._content) % self.block:
            raise ValueError("IV or content of a length that can't be")
        return iv

    def fits(self, key: bytes) -> int | None:
        """The length of the content in clear when the key gives a good tag (GCM) or padding (CBC), else None."""
        if self.gcm:
            mac = self._mac if self._sound else bytes(16)
            try:
                for _ in self._through(Cipher(AES(key), GCM(self._iv, mac, min_tag_length=12)).decryptor()):
                    pass
            except InvalidTag:
                return None
            return len(self._content) if self._sound else None
        if not self._sound:
            return None
        # CBC: the last two blocks say what the last block of the content is.
        tail = self._content.last(2 * self.block)
        before, last = (tail[: self.block], tail[self.block :]) if len(tail) > self.block else (self._iv, tail)
        decryptor = Cipher(self.cipher(key), CBC(before)).decryptor()
        plain = decryptor.update(last) + decryptor.finalize()
        # RFC 5652 §6.3: n octets of n.
        pad = plain[-1]
        if not 1 <= pad <= self.block or plain[-pad:] != bytes((pad,)) * pad:
            return None
        return len(self._content) - pad

    def looks(self, key: bytes) -> int:
        """How many of the first octets are text."""
        decryptor = Cipher(self.cipher(key), CBC(self._iv)).decryptor()
        first = next(iter(self._content))[:_GLANCE]
        return sum(octet in _TEXT for octet in decryptor.update(bytes(first)))

    def plain(self, key: bytes) -> Iterator[memoryview]:
        """All of the content in clear, padding included, in a buffer that is used again. GCM raises InvalidTag at the end."""
        mode = GCM(self._iv, self._mac, min_tag_length=12) if self.gcm else CBC(self._iv)
        return self._through(Cipher(self.cipher(key), mode).decryptor())

    def waste(self, key: bytes) -> None:
        """The work of ``plain``, for nothing."""
        mode = GCM(self._iv, bytes(16)) if self.gcm else CBC(self._iv)
        for _ in self._through(Cipher(self.cipher(key), mode).decryptor(), finish=False):
            pass

    def _through(self, context: CipherContext, finish: bool = True) -> Iterator[memoryview]:
        if isinstance(context, AEADDecryptionContext):
            context.authenticate_additional_data(self._aad)
        buffer = bytearray(65536 + self.block)
        view = memoryview(buffer)
        for piece in self._content:
            yield view[: context.update_into(piece, buffer)]
        if finish:
            context.finalize()
