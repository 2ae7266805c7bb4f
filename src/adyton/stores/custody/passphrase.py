"""A slot under a passphrase: Argon2id (RFC 9106), its parameters in the row, and AES-256-GCM.

One guess costs whoever has the file 256 MiB and about half a second of one core: so a passphrase of six random words
(77 bits) is out of reach, and one of eight random lower-case letters (37 bits) is not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from adyton.errors import ConfigError
from adyton.stores.custody.port import Kept

KIND = "passphrase"
MIN_LENGTH = 12
MAX_LENGTH = 1024
MEMORY_KIB = 256 * 1024
ITERATIONS = 3
LANES = 4
_SALT = 16
# What a row may ask of us: somebody may have written it to exhaust the machine, or to make guessing cheap.
_MEMORY, _ITERATIONS, _LANES = range(19 * 1024, 1024 * 1024 + 1), range(2, 17), range(1, 17)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess costs. Tests may ask for the least that is accepted."""

    memory_kib: int = MEMORY_KIB
    iterations: int = ITERATIONS
    lanes: int = LANES


@dataclass(frozen=True, slots=True)
class PassphraseCustodian:
    """Whoever knows the passphrase. It is not in the ``repr``."""

    passphrase: bytes = field(repr=False)
    cost: Cost = Cost()

    @property
    def kind(self) -> str:
        """``passphrase``."""
        return KIND

    def seal(self, secret: bytes, context: bytes) -> Kept:
        """``ConfigError`` ``passphrase_short`` below ``MIN_LENGTH`` characters."""
        length = len(self.passphrase.decode("utf-8", "replace"))
        if length < MIN_LENGTH:
            raise ConfigError(
                "the passphrase is too short",
                code="passphrase_short",
                field="passphrase",
                expected=f"at least {MIN_LENGTH} characters",
                got=length,
                hint="six random words; whoever has the broker's file can guess as often as he likes",
            )
        salt, nonce = os.urandom(_SALT), os.urandom(12)
        key = _derive(self.passphrase, salt, self.cost)
        sealed = nonce + AESGCM(key).encrypt(nonce, secret, context)
        cost = self.cost
        return Kept(
            sealed,
            {
                "kdf": "argon2id",
                "salt": salt.hex(),
                "memory_kib": cost.memory_kib,
                "iterations": cost.iterations,
                "lanes": cost.lanes,
            },
        )

    def open(self, kept: Kept, context: bytes) -> bytes:
        """``ConfigError`` ``passphrase_wrong``."""
        details = kept.details
        memory, iterations, lanes = (details.get(name) for name in ("memory_kib", "iterations", "lanes"))
        salt = details.get("salt")
        if (
            details.get("kdf") != "argon2id"
            or not isinstance(memory, int)
            or not isinstance(iterations, int)
            or not isinstance(lanes, int)
            or not isinstance(salt, str)
            or memory not in _MEMORY
            or iterations not in _ITERATIONS
            or lanes not in _LANES
        ):
            raise ConfigError("the slot asks for a derivation that is not ours", code="slot_changed", field="details")
        try:
            key = _derive(self.passphrase, bytes.fromhex(salt), Cost(memory, iterations, lanes))
            return AESGCM(key).decrypt(kept.sealed[:12], kept.sealed[12:], context)
        except (InvalidTag, ValueError) as error:
            raise ConfigError(
                "the passphrase is not the one of this slot",
                code="passphrase_wrong",
                field="passphrase",
                hint="a line end at its end does not count; everything else does",
            ) from error


def _derive(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    derivation = Argon2id(
        salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return derivation.derive(passphrase)


def cleaned(raw: bytes, field_: str = "passphrase") -> bytes:
    """A passphrase as it was read: without one line end; ``ConfigError`` if nothing, or too much, is left."""
    passphrase = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(passphrase) <= MAX_LENGTH or b"\0" in passphrase:
        raise ConfigError(
            "no passphrase was given",
            code="passphrase_unreadable",
            field=field_,
            expected=f"one line of 1 to {MAX_LENGTH} bytes",
        )
    return passphrase
