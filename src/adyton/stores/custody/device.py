"""A slot in a device: an HSM, a cloud's KMS or Vault's transit engine wraps the slot's private key, and never shows its own."""

from __future__ import annotations

from dataclasses import dataclass

from adyton.errors import ConfigError
from adyton.stores.backends.port import KeyHolder
from adyton.stores.custody.port import Kept

KIND = "kms"
_NOT_KNOWN = "not_by_this_device"


@dataclass(frozen=True, slots=True)
class DeviceCustodian:
    """A key of a ``KeyHolder``, by its handle. ``holder_name``: which of the configured ones, for the row."""

    holder: KeyHolder
    handle: str
    holder_name: str

    @property
    def kind(self) -> str:
        """``kms``."""
        return KIND

    def seal(self, secret: bytes, context: bytes) -> Kept:
        """Wrapped under the device's key and bound to the context.

        A key that cannot do that (RSA: anybody may encrypt to it) would open a slot that somebody else wrote, with a root
        key of theirs: ``ConfigError`` ``custody_unauthenticated``.
        """
        try:
            sealed = self.holder.encrypt(self.handle, secret, context)
        except ConfigError as error:
            if error.code != _NOT_KNOWN:
                raise
            raise ConfigError(
                "this key opens what anybody can write",
                code="custody_unauthenticated",
                field="handle",
                expected="a key that authenticates what it opens, such as AES-GCM",
                got=self.handle,
                hint="leave --handle out: the device makes an AES key",
            ) from error
        return Kept(sealed, {"holder": self.holder_name, "handle": self.handle})

    def open(self, kept: Kept, context: bytes) -> bytes:
        """What the device says, or refuses. Only with the context: what was not bound to it is not ours."""
        handle = kept.details.get("handle")
        if not isinstance(handle, str):
            raise ConfigError("the slot's row is damaged", code="slot_changed", field="details")
        return self.holder.decrypt(handle, kept.sealed, context)
