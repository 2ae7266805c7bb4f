"""AES-256-CTR and HMAC-SHA-256 over the ciphertext, as a stream (``coco-guest`` 5.1).

The counter is 128 bits, big-endian, starting at the nonce. The MAC comes at the end: what ``LayerDecryptor`` gives
before ``finish`` returned is unauthenticated and must stay where nobody acts on it. ``LayerMac`` alone checks a whole
ciphertext first, for callers that can read it twice from a place that nobody else can write.
"""

from __future__ import annotations

import hashlib
import hmac as hmac_module
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from adyton.errors import DecryptionFailed
from adyton.image.ocicrypt import LayerKey
from adyton.rats.types import Digest

_SPEC = "coco-guest 5.1"


class LayerMac:
    """HMAC-SHA-256 of a layer's ciphertext."""

    def __init__(self, symkey: bytes) -> None:
        self._mac = hmac_module.new(symkey, digestmod="sha256")

    def update(self, ciphertext: bytes | bytearray | memoryview) -> None:
        """Take in the next ciphertext."""
        self._mac.update(ciphertext)

    def value(self) -> bytes:
        """The MAC of what was taken in, 32 bytes."""
        return self._mac.digest()

    def check(self, key: LayerKey) -> None:
        """``DecryptionFailed`` unless the MAC is the annotated one; compared in constant time."""
        if not hmac_module.compare_digest(self._mac.digest(), key.hmac):
            raise DecryptionFailed(
                "a layer's authentication code is wrong: it was altered, or this is not its key",
                code="layer_mac",
                field="hmac",
                spec=_SPEC,
                hint="pull it again; if it stays so, the image in the registry is not what its owner encrypted",
            )


class LayerStream:
    """The cipher's key stream: encryption and decryption are the same."""

    def __init__(self, symkey: bytes, nonce: bytes) -> None:
        self._context = Cipher(AES(symkey), CTR(nonce)).encryptor()

    def update(self, data: bytes | bytearray | memoryview) -> bytes:
        """The next bytes, as many as were given."""
        return self._context.update(data)

    def update_into(self, data: bytes | bytearray | memoryview, into: bytearray | memoryview) -> int:
        """As ``update``, into a buffer of at least ``len(data)`` bytes; no copy."""
        return self._context.update_into(data, into)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an encryptor knows at the end. ``plain`` and ``cipher`` are digests of the blob before and after."""

    hmac: bytes
    plain: Digest
    cipher: Digest
    size: int


class LayerEncryptor:
    """Plain blob in, ciphertext out; both digests and the MAC at the end."""

    def __init__(self, symkey: bytes, nonce: bytes) -> None:
        self._stream = LayerStream(symkey, nonce)
        self._mac = LayerMac(symkey)
        self._plain = hashlib.sha256()
        self._cipher = hashlib.sha256()
        self._size = 0

    def update(self, data: bytes | memoryview) -> bytes:
        """The ciphertext of the next bytes."""
        self._plain.update(data)
        ciphertext = self._stream.update(data)
        self._mac.update(ciphertext)
        self._cipher.update(ciphertext)
        self._size += len(ciphertext)
        return ciphertext

    def finish(self) -> Sealed:
        """MAC and digests of everything."""
        return Sealed(
            hmac=self._mac.value(),
            plain=Digest("sha256", self._plain.digest()),
            cipher=Digest("sha256", self._cipher.digest()),
            size=self._size,
        )


class LayerDecryptor:
    """Ciphertext in, **unauthenticated** plain blob out; ``finish`` says whether it may be used.

    The digest in the wrapped options is not compared: skopeo writes down the layer that it was given and compresses it
    afterwards. The MAC covers all that the digest could, and the diff id, which the caller checks, says the rest.
    """

    def __init__(self, key: LayerKey) -> None:
        self._key = key
        self._stream = LayerStream(key.symkey, key.nonce)
        self._mac = LayerMac(key.symkey)
        self._plain = hashlib.sha256()

    def update(self, data: bytes | memoryview) -> bytes:
        """The plain bytes of the next ciphertext, not yet to be trusted."""
        self._mac.update(data)
        plain = self._stream.update(data)
        self._plain.update(plain)
        return plain

    def finish(self) -> Digest:
        """The SHA-256 of the plain blob, if the MAC is right; ``DecryptionFailed`` if not."""
        self._mac.check(self._key)
        return Digest("sha256", self._plain.digest())
