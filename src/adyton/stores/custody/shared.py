"""A slot in shares: its private key is split among owners, and nobody keeps it whole.

The shares are of the slot, not of the root key: after a rotation the same owners open the new one with the same shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from adyton.crypto import shamir
from adyton.crypto.jwk import TeeKey
from adyton.crypto.shamir import Share, ShareSet
from adyton.errors import ConfigError
from adyton.protocol import shares
from adyton.protocol.shares import SetDocument
from adyton.stores.custody.port import Kept

KIND = "shares"


@dataclass(slots=True)
class SharesDealer:
    """Makes the slot. ``files`` are the sealed shares afterwards, one for each owner, in their order."""

    owners: Sequence[tuple[str, TeeKey]]
    threshold: int
    store: bytes
    slot: str
    files: list[bytes] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """``shares``."""
        return KIND

    def seal(self, secret: bytes, context: bytes) -> Kept:
        """Split, and seal each share to its owner; the row keeps what tells genuine shares from others."""
        fingerprints = [shares.fingerprint(key.public) for _, key in self.owners]
        if len(set(fingerprints)) != len(fingerprints):
            raise ConfigError("an owner would get two shares", code="owners_twice", field="owner")
        if not 2 <= self.threshold <= len(self.owners) <= shamir.MAX_COUNT:
            raise ConfigError(
                "this threshold makes no sense",
                code="threshold_invalid",
                field="threshold",
                expected=f"2 to {len(self.owners)}, with at most {shamir.MAX_COUNT} owners",
                got=self.threshold,
            )
        dealt = shamir.split(secret, self.threshold, len(self.owners))
        self.files = [
            shares.seal(share, self.store.hex(), self.slot, key)
            for share, (_, key) in zip(dealt, self.owners, strict=True)
        ]
        document = msgspec.to_builtins(SetDocument.of(dealt[0].set))
        return Kept(b"", {"set": document, "owners": [*fingerprints], "names": [name[:80] for name, _ in self.owners]})

    def open(self, kept: Kept, context: bytes) -> bytes:
        """Never: the dealer forgets."""
        raise ConfigError("the shares' slot is opened by its owners", code="shares_needed", field="slot")


@dataclass(frozen=True, slots=True)
class SharesCustodian:
    """Owners' shares, brought together."""

    given: Sequence[Share]

    @property
    def kind(self) -> str:
        """``shares``."""
        return KIND

    def seal(self, secret: bytes, context: bytes) -> Kept:
        """Never: shares are dealt to owners."""
        raise ConfigError("shares are dealt: adyton broker root-key split", code="shares_needed", field="slot")

    def open(self, kept: Kept, context: bytes) -> bytes:
        """The private key of the slot; ``DocumentInvalid`` names a share that is not of this slot."""
        return shamir.recover(self.given, set_of(kept))


def set_of(kept: Kept) -> ShareSet:
    """The set that a slot's shares are of."""
    try:
        return msgspec.convert(kept.details.get("set"), SetDocument).read()
    except ValueError as error:
        raise ConfigError("the slot's row is damaged", code="slot_changed", field="details") from error
