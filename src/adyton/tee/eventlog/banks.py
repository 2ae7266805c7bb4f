"""Hash algorithms of measurement registers, by TCG identifier (TCG Algorithm Registry 1.34, table 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cryptography.hazmat.primitives import hashes


class Hashing(Protocol):
    """What ``hashlib`` hands out."""

    def digest(self) -> bytes:
        """The digest of all that was put in."""


class Bank(NamedTuple):
    """One algorithm: TCG identifier, Adyton's name, CoCo's name, bytes of a digest, and how to make one."""

    identifier: int
    name: str
    label: str
    size: int
    new: Callable[[bytes], Hashing]


class _Finished(NamedTuple):
    value: bytes

    def digest(self) -> bytes:
        return self.value


def _sm3(data: bytes) -> Hashing:
    """SM3 (GB/T 32905): from ``hashlib`` where its OpenSSL has it, else from ``cryptography``."""
    try:
        return hashlib.new("sm3", data)
    except ValueError:
        context = hashes.Hash(hashes.SM3())
        context.update(data)
        return _Finished(context.finalize())


_SHA1 = hashlib.sha1(usedforsecurity=False)


def _sha1(data: bytes) -> Hashing:
    """A copy of a started hash: asking OpenSSL for one "not for security" each time costs twice as much."""
    context = _SHA1.copy()
    context.update(data)
    return context


# SHA-1 is here because logs and PCR banks have it; no signature is verified with it.
SHA1: Final = Bank(0x0004, "sha1", "SHA-1", 20, _sha1)
SHA256: Final = Bank(0x000B, "sha256", "SHA-256", 32, hashlib.sha256)
SHA384: Final = Bank(0x000C, "sha384", "SHA-384", 48, hashlib.sha384)
SHA512: Final = Bank(0x000D, "sha512", "SHA-512", 64, hashlib.sha512)
SM3: Final = Bank(0x0012, "sm3", "SM3", 32, _sm3)
SHA3_256: Final = Bank(0x0027, "sha3-256", "SHA3-256", 32, hashlib.sha3_256)
SHA3_384: Final = Bank(0x0028, "sha3-384", "SHA3-384", 48, hashlib.sha3_384)
SHA3_512: Final = Bank(0x0029, "sha3-512", "SHA3-512", 64, hashlib.sha3_512)

BY_ID: Final = {bank.identifier: bank for bank in (SHA1, SHA256, SHA384, SHA512, SM3, SHA3_256, SHA3_384, SHA3_512)}
BY_NAME: Final = {bank.name: bank for bank in BY_ID.values()}
