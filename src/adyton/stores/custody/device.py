"""A slot in a device: an HSM, a cloud's KMS or Vault's transit engine wraps the slot's private key, and never shows its own."""

from __future__ import annotations

from dataclasses import dataclass

from adyton.errors import ConfigError
from adyton.rats.types import JsonValue
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
        """Wrapped under the device's key, bound to the context where the device can (RSA-OAEP cannot)."""
        details: dict[str, JsonValue] = {"holder": self.holder_name, "handle": self.handle, "bound": True}
        try:
            sealed = self.holder.encrypt(self.handle, secret, context)
        except ConfigError as error:
            if error.code != _NOT_KNOWN:
                raise
            details["bound"] = False  # the row's own authentication binds it then
            sealed = self.holder.encrypt(self.handle, secret)
        return Kept(sealed, details)

    def open(self, kept: Kept, context: bytes) -> bytes:
        """What the device says, or refuses."""
        handle, bound = kept.details.get("handle"), kept.details.get("bound")
        if not isinstance(handle, str) or not isinstance(bound, bool):
            raise ConfigError("the slot's row is damaged", code="slot_changed", field="details")
        return self.holder.decrypt(handle, kept.sealed, context if bound else b"")
