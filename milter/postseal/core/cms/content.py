"""Content encryption as a stream: plaintext chunks in, ciphertext chunks out, and back.

The content key and IV don't depend on the recipients, so content is encrypted while it arrives. Randomness for key and IV
comes from the caller.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, GCM
from cryptography.hazmat.primitives.padding import PKCS7

from postseal.core.errors import BadData
from postseal.core.suite import Suite

# ALG-5: the longest tag, always.
TAG_LENGTH = 16
_BLOCK = 16

# Output buffers, shared by all streams of the process: list.pop and list.append are atomic, and a stream holds a buffer only
# while one chunk is in the cipher. A buffer in each open session would cost 64 KB per idle SMTP connection.
PIECE = 65536
_buffers: list[bytearray] = []


def _through(context: CipherContext, data: bytes) -> bytes:
    """``data`` through a cipher context without the copies that ``update`` makes; the lock is released above 2 KB."""
    update_into = context.update_into
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = bytearray(PIECE + _BLOCK)
    view = memoryview(buffer)
    try:
        if len(data) <= PIECE:
            return bytes(view[: update_into(data, buffer)])
        source = memoryview(data)
        return b"".join(
            bytes(view[: update_into(source[start : start + PIECE], buffer)]) for start in range(0, len(data), PIECE)
        )
    finally:
        _buffers.append(buffer)


def check_lengths(suite: Suite, key: bytes, iv: bytes) -> None:
    if len(key) != suite.key_length or len(iv) != suite.iv_length:
        raise BadData(f"{suite} needs a key of {suite.key_length} octets and an IV of {suite.iv_length}")


class ContentSealer:
    """Encrypts one content as a stream. ``tag`` is there after ``finish``; it is empty for CBC.

    A pair of key and IV must be used for one sealer only (GCM loses everything when a nonce comes twice, ALG-5).
    """

    __slots__ = ("_context", "_gcm", "_total", "tag")

    def __init__(self, suite: Suite, key: bytes, iv: bytes) -> None:
        check_lengths(suite, key, iv)
        self._gcm = suite.gcm
        self._context = Cipher(AES(key), GCM(iv) if self._gcm else CBC(iv)).encryptor()
        self._total = 0
        self.tag = b""

    def update(self, chunk: bytes) -> bytes:
        """The next octets of plaintext -> as much ciphertext as is ready."""
        self._total += len(chunk)
        return _through(self._context, chunk)

    def update_into(self, chunk: bytes | memoryview, buffer: memoryview) -> int:
        """The same into ``buffer``, which has room for 16 octets more than ``chunk``; returns how many octets are ready."""
        self._total += len(chunk)
        return self._context.update_into(chunk, buffer)

    def finish(self) -> bytes:
        """The rest of the ciphertext. Nothing may be added afterwards."""
        if isinstance(self._context, AEADEncryptionContext):
            rest = self._context.finalize()
            self.tag = self._context.tag
            return rest
        # RFC 5652 §6.3: 1 to 16 octets of padding, each its number.
        pad = _BLOCK - self._total % _BLOCK
        return self._context.update(bytes((pad,)) * pad) + self._context.finalize()


class ContentOpener:
    """Decrypts what ``ContentSealer`` made. With GCM nothing may be believed before ``finish`` has returned (ALG-7)."""

    __slots__ = ("_context", "_gcm", "_held")

    def __init__(self, suite: Suite, key: bytes, iv: bytes, tag: bytes) -> None:
        check_lengths(suite, key, iv)
        self._gcm = suite.gcm
        if self._gcm and len(tag) != TAG_LENGTH:
            raise BadData(f"{suite} has a tag of {TAG_LENGTH} octets")
        self._context = Cipher(AES(key), GCM(iv, tag) if self._gcm else CBC(iv)).decryptor()
        self._held = b""

    def update(self, chunk: bytes) -> bytes:
        """The next octets of ciphertext -> as much plaintext as is ready."""
        plain = _through(self._context, chunk)
        if self._gcm or not plain:
            return plain
        ready = self._held + plain[:-_BLOCK]
        self._held = plain[-_BLOCK:]
        return ready

    def finish(self) -> bytes:
        """The rest of the plaintext. Raises BadData when the ciphertext is damaged."""
        try:
            rest = self._context.finalize()
            if self._gcm:
                return rest
            unpadder = PKCS7(8 * _BLOCK).unpadder()
            return unpadder.update(self._held) + unpadder.finalize()
        except (InvalidTag, ValueError) as exc:
            raise BadData("the content can't be decrypted: it is damaged or the key is wrong") from exc
