"""Sealing small things under rotating keys: AES-256-GCM, the key named by an id in front.

A sealed text is ``id (4 bytes) ‖ nonce (12) ‖ ciphertext ‖ tag (16)``; the id and the caller's context are
authenticated with it. Nonces are random, so one key seals at most 2^32 texts: rotate long before (NIST SP 800-38D
section 8.3). Old keys open until their owner drops them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.errors import SessionInvalid

ID_SIZE = 4
OVERHEAD = ID_SIZE + 12 + 16


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys of 32 bytes by 4-byte id. ``current`` seals, all of them open. Never empty."""

    keys: Mapping[bytes, bytes] = field(repr=False)
    current: bytes
    _ciphers: Mapping[bytes, AESGCM] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.current not in self.keys:
            raise ValueError("the current key is not on the ring")
        if any(len(name) != ID_SIZE or len(key) != 32 for name, key in self.keys.items()):
            raise ValueError("a key has 32 bytes and an id of 4")
        object.__setattr__(self, "_ciphers", {name: AESGCM(key) for name, key in self.keys.items()})

    def seal(self, plaintext: bytes, context: bytes = b"") -> bytes:
        """Seal under the current key. The same ``context`` must be given to open it."""
        nonce = random_bytes(12)
        return self.current + nonce + self._ciphers[self.current].encrypt(nonce, plaintext, self.current + context)

    def open(self, sealed: bytes, context: bytes = b"") -> bytes:
        """What was sealed; ``SessionInvalid`` for a forgery, an unknown key (``seal_key_unknown``) or other context."""
        name = bytes(sealed[:ID_SIZE])
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise SessionInvalid("sealed under a key that is not known here", code="seal_key_unknown")
        try:
            return cipher.decrypt(sealed[ID_SIZE : ID_SIZE + 12], sealed[ID_SIZE + 12 :], name + context)
        except (InvalidTag, ValueError) as error:
            raise SessionInvalid("the seal is broken", code="seal_broken") from error


def random_bytes(count: int) -> bytes:
    """``count`` random bytes, 1 to 32, from pyca's generator."""
    if not 0 < count <= 32:
        raise ValueError("1 to 32 bytes")
    return AESGCM.generate_key(256)[:count]


def derive(root: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose: HMAC-SHA-256 of its name under ``root`` (32 bytes of full entropy)."""
    if len(root) != 32 or not purpose:
        raise ValueError("a root key has 32 bytes, a purpose a name")
    return hmac.new(root, b"adyton:" + purpose.encode(), hashlib.sha256).digest()
