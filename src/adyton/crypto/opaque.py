"""Numbers as names that tell a stranger nothing: not how many there are, not which came first.

One block of AES-256 over the number (8 bytes, big-endian) and 8 bytes of SHA-256 over what it belongs to: a permutation,
so nothing need be stored, and a name that was guessed or belongs elsewhere opens as nothing (with 2^-64). Written in
lower-case base32, 26 characters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

KEY_SIZE = 32
_NAME = re.compile(r"[a-z2-7]{25}[aeimquy4]\Z")  # the last one has 3 bits
_BLOCK = 16


class Opaque:
    """Names numbers under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError("a key of 32 bytes")
        self._cipher = Cipher(AES(key), ECB())  # noqa: S305 -- one block, which no two numbers share

    def name(self, number: int, owner: str) -> str:
        """The name of ``number``, which belongs to ``owner``."""
        block = number.to_bytes(8, "big") + _owner(owner)
        sealed = self._cipher.encryptor().update(block)
        return base64.b32encode(sealed).decode("ascii").rstrip("=").lower()

    def number(self, name: str, owner: str) -> int | None:
        """The number behind ``name``, or ``None`` if it names nothing of this owner's."""
        if not _NAME.match(name):
            return None
        block = self._cipher.decryptor().update(base64.b32decode(name.upper() + "======"))
        if len(block) != _BLOCK or not hmac.compare_digest(block[8:], _owner(owner)):
            return None
        return int.from_bytes(block[:8], "big")


def _owner(owner: str) -> bytes:
    return hashlib.sha256(owner.encode()).digest()[:8]
