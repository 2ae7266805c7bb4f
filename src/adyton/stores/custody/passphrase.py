"""A slot under a passphrase: Argon2id (RFC 9106), its parameters in the row, and AES-256-GCM; or PBKDF2 for FIPS.

One guess costs whoever has the file 256 MiB and about half a second of one core: so a passphrase of six random words
(77 bits) is out of reach, and one of eight random lower-case letters (37 bits) is not. PBKDF2-HMAC-SHA-256 (SP 800-132), which needs no memory, is for
who must use what FIPS approves: hardware guesses thousands of times faster, so take eight words (103 bits).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from adyton.crypto.profile import ARGON2ID, PBKDF2, USUAL, Profile
from adyton.errors import ConfigError
from adyton.stores.custody.port import Kept

KIND = "passphrase"
MIN_LENGTH = 12
MAX_LENGTH = 1024
MEMORY_KIB = 256 * 1024
ITERATIONS = 3
LANES = 4
ROUNDS = 2_000_000
_SALT = 16
# What a row may ask of us: somebody may have written it to exhaust the machine, or to make guessing cheap.
_ROUNDS = range(600_000, 20_000_001)
_MEMORY, _ITERATIONS, _LANES = range(19 * 1024, 1024 * 1024 + 1), range(2, 17), range(1, 17)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess costs. Tests may ask for the least that is accepted."""

    memory_kib: int = MEMORY_KIB
    iterations: int = ITERATIONS
    lanes: int = LANES


@dataclass(frozen=True, slots=True)
class PassphraseCustodian:
    """Whoever knows the passphrase. It is not in the ``repr``. ``kdf`` is for a new slot, ``profile`` for every one."""

    passphrase: bytes = field(repr=False)
    cost: Cost = Cost()
    kdf: str = ARGON2ID
    rounds: int = ROUNDS
    profile: Profile = USUAL

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
        self.profile.check_kdf(self.kdf)
        salt, nonce = os.urandom(_SALT), os.urandom(12)
        if self.kdf == PBKDF2:
            key = _stretched(self.passphrase, salt, self.rounds)
            sealed = nonce + AESGCM(key).encrypt(nonce, secret, context)
            return Kept(sealed, {"kdf": PBKDF2, "salt": salt.hex(), "iterations": self.rounds})
        key = _derive(self.passphrase, salt, self.cost)
        sealed = nonce + AESGCM(key).encrypt(nonce, secret, context)
        cost = self.cost
        return Kept(
            sealed,
            {
                "kdf": ARGON2ID,
                "salt": salt.hex(),
                "memory_kib": cost.memory_kib,
                "iterations": cost.iterations,
                "lanes": cost.lanes,
            },
        )

    def open(self, kept: Kept, context: bytes) -> bytes:
        """``ConfigError`` ``passphrase_wrong``; ``fips_custody`` where the profile knows another derivation only."""
        details = kept.details
        kdf, rounds = details.get("kdf"), details.get("iterations")
        if kdf in {ARGON2ID, PBKDF2}:
            self.profile.check_kdf(kdf)
        if kdf == PBKDF2:
            salt = details.get("salt")
            if not isinstance(salt, str) or not isinstance(rounds, int) or rounds not in _ROUNDS:
                raise _not_ours()
            return self._opened(kept, context, lambda raw: _stretched(self.passphrase, raw, rounds), salt)
        memory, iterations, lanes = (details.get(name) for name in ("memory_kib", "iterations", "lanes"))
        salt = details.get("salt")
        if (
            kdf != ARGON2ID
            or not isinstance(memory, int)
            or not isinstance(iterations, int)
            or not isinstance(lanes, int)
            or not isinstance(salt, str)
            or memory not in _MEMORY
            or iterations not in _ITERATIONS
            or lanes not in _LANES
        ):
            raise _not_ours()
        cost = Cost(memory, iterations, lanes)
        return self._opened(kept, context, lambda raw: _derive(self.passphrase, raw, cost), salt)

    def _opened(self, kept: Kept, context: bytes, derive: Callable[[bytes], bytes], salt: str) -> bytes:
        try:
            return AESGCM(derive(bytes.fromhex(salt))).decrypt(kept.sealed[:12], kept.sealed[12:], context)
        except (InvalidTag, ValueError) as error:
            raise ConfigError(
                "the passphrase is not the one of this slot",
                code="passphrase_wrong",
                field="passphrase",
                hint="a line end at its end does not count; everything else does",
            ) from error


def _not_ours() -> ConfigError:
    return ConfigError("the slot asks for a derivation that is not ours", code="slot_changed", field="details")


def _stretched(passphrase: bytes, salt: bytes, rounds: int) -> bytes:
    return PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(passphrase)


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
