"""The port of a custodian: it keeps 32 bytes, the private key of a slot (``slots.py``), and gives them back.

Nothing foreign escapes, and the 32 bytes are in no error, argument list, environment or file of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adyton.rats.types import JsonValue


@dataclass(frozen=True, slots=True)
class Kept:
    """What a custodian wants stored: ``sealed`` and how to open it. Neither opens anything without the custodian."""

    sealed: bytes
    details: dict[str, JsonValue]


class Custodian(Protocol):
    """Laws: ``open(seal(x, c), c) == x``; with another context, or one flipped bit, ``open`` raises.

    Errors: ``ConfigError`` if it will never open this (wrong passphrase, other TPM, PCRs that differ); ``Unavailable``
    if it did not answer.
    """

    @property
    def kind(self) -> str:
        """What a slot of it is called: ``passphrase``, ``tpm``, ``kms``, ``shares``."""
        ...

    def seal(self, secret: bytes, context: bytes) -> Kept:
        """Keep 32 bytes for this ``context`` (which store and slot they are of)."""
        ...

    def open(self, kept: Kept, context: bytes) -> bytes:
        """The 32 bytes."""
        ...
