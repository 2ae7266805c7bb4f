"""What a backup says about itself: which store, when, its file's digest, how far each tenant's log went.

It holds no secret. ``mac`` is HMAC-SHA-256 over everything else (canonical JSON) under a key derived from the root key,
where that was at hand; without it, digests find accidents, and signed checkpoints find a log that was changed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from adyton.crypto.aead import derive
from adyton.errors import DocumentInvalid
from adyton.wire import strict_json

FORMAT: Literal["adyton-backup/1"] = "adyton-backup/1"
MAX_SIZE = 16 * 1024 * 1024


class LogState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's log: its rows, the root over them in hex, and the last checkpoint that the broker signed, if any."""

    tenant: str
    size: int
    root: str
    checkpoint: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digests and ids are lower-case hex, ``created`` is RFC 3339; ``slots``: custodians whose slots are in the file."""

    format: Literal["adyton-backup/1"]
    created: str
    version: str
    schema: int
    store: str
    root: str
    file: str
    size: int
    sha256: str
    logs: list[LogState]
    slots: list[str]
    left_out: list[str]
    mac: str = ""

    def written(self) -> bytes:
        """The manifest's file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def with_mac(self, root_key: bytes) -> Manifest:
        """Authenticated under the root key."""
        return msgspec.structs.replace(self, mac=self._mac(root_key))

    def is_authentic(self, root_key: bytes) -> bool:
        """Whether who had the root key wrote it; false where there is no ``mac``."""
        return hmac.compare_digest(self._mac(root_key).encode(), self.mac.encode())

    def _mac(self, root_key: bytes) -> str:
        said = msgspec.json.encode(msgspec.structs.replace(self, mac=""), order="sorted")
        return hmac.new(derive(root_key, "backup"), said, hashlib.sha256).hexdigest()


_DECODER = msgspec.json.Decoder(Manifest)


def parse(raw: bytes) -> Manifest:
    """The manifest in these bytes; ``DocumentInvalid`` ``backup_malformed``."""
    try:
        strict_json.parse(raw, max_size=MAX_SIZE)
        return _DECODER.decode(raw)
    except strict_json.UNREADABLE as error:
        raise DocumentInvalid(
            "this is no backup of a broker",
            code="backup_malformed",
            field="manifest",
            expected=FORMAT,
            got=str(error)[:120],
            hint="give what adyton broker backup wrote: its directory or its file",
        ) from error
