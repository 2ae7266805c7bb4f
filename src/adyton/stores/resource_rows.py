"""What a row of the table of resources holds, and how that is written: the binding, then the value or what stands for it."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec

from adyton.errors import Unavailable
from adyton.protocol.key_record import KeyRecord
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

_KEY = 1 << 31
_ELSEWHERE = 1 << 30


class Elsewhere(msgspec.Struct, frozen=True):
    """Where a value lies that is not in the store. ``size`` in bytes, of the value itself.

    What is there was sealed here, for this tenant and path, with ``sealed_version``; or, if that is 0, somebody else
    wrote it in plain, and nothing vouches for it but the back end.
    """

    backend: str
    pointer: str
    sealed_version: int
    size: int

    @property
    def foreign(self) -> bool:
        """Whether somebody else wrote it."""
        return self.sealed_version == 0


Kept: TypeAlias = bytes | KeyRecord | Elsewhere
"""What a row holds."""


class ResourceInfo(msgspec.Struct, frozen=True):
    """What may be shown of a resource: everything but its value. ``size`` in bytes."""

    path: ResourcePath
    binding: Binding
    version: int
    updated: datetime
    size: int
    key: KeyRecord | None = None
    elsewhere: Elsewhere | None = None


def info(path: ResourcePath, binding: Binding, version: int, updated: datetime, kept: Kept) -> ResourceInfo:
    """What is shown of it."""
    return ResourceInfo(
        path=path,
        binding=binding,
        version=version,
        updated=updated,
        size=size(kept),
        key=kept if isinstance(kept, KeyRecord) else None,
        elsewhere=kept if isinstance(kept, Elsewhere) else None,
    )


def size(kept: Kept) -> int:
    """Bytes of its value, wherever that lies; 0 of a key."""
    if isinstance(kept, bytes):
        return len(kept)
    return kept.size if isinstance(kept, Elsewhere) else 0


def pack(binding: Binding, kept: Kept) -> bytes:
    """Length of the binding with a mark of what follows (4 bytes, big-endian), the binding as JSON, what is kept."""
    encoded = msgspec.json.encode(binding)
    if isinstance(kept, bytes):
        return len(encoded).to_bytes(4, "big") + encoded + kept
    mark = _KEY if isinstance(kept, KeyRecord) else _ELSEWHERE
    return (len(encoded) | mark).to_bytes(4, "big") + encoded + msgspec.json.encode(kept)


_BINDING = msgspec.json.Decoder(Binding)
_RECORD = msgspec.json.Decoder(KeyRecord)
_POINTER = msgspec.json.Decoder(Elsewhere)


def unpack(opened: bytes) -> tuple[Binding, Kept]:
    """The two; ``Unavailable`` ``stored_value_foreign``."""
    head = int.from_bytes(opened[:4], "big")
    end = 4 + (head & ~(_KEY | _ELSEWHERE))
    try:
        binding, rest = _BINDING.decode(opened[4:end]), opened[end:]
        if head & _KEY:
            return binding, _RECORD.decode(rest)
        return binding, _POINTER.decode(rest) if head & _ELSEWHERE else rest
    except msgspec.DecodeError as error:
        raise Unavailable(
            "a stored binding was written by another version of Adyton",
            code="stored_value_foreign",
            hint="run the version that wrote it, or set the resource again",
        ) from error
