"""Exchange files, version 1: requests and responses as ``pvattest`` passes them between machines.

Big-endian: magic ``pvattest``, version 4, size 4, reserved 8, then (size, offset) of request, measurement, additional data, user
data and configuration uid. Size 0: not there. Offset 0: only the size is known, as in a file that is a request. What is there
stands in this order behind the header, without a gap, so that a file encodes to itself; another order is refused.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from adyton.tee.se.header import malformed

MAGIC = b"pvattest"
VERSION = 0x100
_HEADER = struct.Struct(">8sII8s")
_ENTRIES = struct.Struct(">10I")
HEADER_SIZE = _HEADER.size + _ENTRIES.size
NAMES = ("request", "measurement", "additional_data", "user_data", "cuid")
LIMITS = (0x100000, 0x8000, 0x8000, 256, 16)
_MAX_SIZE = HEADER_SIZE + sum(LIMITS)


class Exchange(NamedTuple):
    """One file. ``sizes`` of measurement and additional data are what the request asks for, where they are not there yet."""

    request: bytes
    measurement: bytes = b""
    additional_data: bytes = b""
    user_data: bytes = b""
    cuid: bytes = b""
    sizes: tuple[int, int] = (0, 0)

    @classmethod
    def parse(cls, data: bytes) -> Exchange:
        """From exactly one file, or ``MalformedEvidence``."""
        if not HEADER_SIZE <= len(data) <= _MAX_SIZE:
            raise _wrong("has an impossible length", "length", f"{HEADER_SIZE} to {_MAX_SIZE}", len(data))
        magic, version, size, reserved = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise _wrong("does not begin with its magic value", "magic", MAGIC, magic)
        if version != VERSION or any(reserved):
            raise _wrong("has an unknown version", "version", VERSION, version)
        if size != len(data):
            raise _wrong("has another length than it says", "size", len(data), size)
        entries = _ENTRIES.unpack_from(data, _HEADER.size)
        at, parts, asked = HEADER_SIZE, [], []
        for name, limit, length, offset in zip(NAMES, LIMITS, entries[::2], entries[1::2], strict=True):
            if length > limit:
                raise _wrong("has a part that is too long", name, limit, length)
            if length and offset:
                if offset != at or at + length > size:
                    raise _wrong("has a part that is not where it belongs", name, at, offset)
                at += length
                parts.append(data[offset:at])
            else:
                if offset or (length and name not in {"measurement", "additional_data"}):
                    raise _wrong("has a part without content", name, None, [length, offset])
                parts.append(b"")
            asked.append(length)
        if at != size:
            raise _wrong("has bytes that belong to no part", "size", at, size)
        if not parts[0]:
            raise _wrong("has no request", "request", None, None)
        if parts[4] and len(parts[4]) != LIMITS[4]:
            raise _wrong("has a configuration uid of the wrong length", "cuid", LIMITS[4], len(parts[4]))
        sizes = (asked[1], asked[2])
        return cls(parts[0], parts[1], parts[2], parts[3], parts[4], sizes)

    def encode(self) -> bytes:
        """The bytes that it was parsed from; ``ValueError`` if a part is too long."""
        parts = self[:5]
        if any(len(part) > limit for part, limit in zip(parts, LIMITS, strict=True)):
            raise ValueError("a part is too long")
        entries: list[int] = []
        at = HEADER_SIZE
        for number, part in enumerate(parts):
            asked = self.sizes[number - 1] if number in {1, 2} else 0
            entries += (len(part), at) if part else (asked, 0)
            at += len(part)
        return _HEADER.pack(MAGIC, VERSION, at, bytes(8)) + _ENTRIES.pack(*entries) + b"".join(parts)

    @property
    def is_response(self) -> bool:
        """Whether firmware has answered."""
        return bool(self.measurement and self.cuid)


def _wrong(reason: str, field: str, expected: object, got: object) -> Exception:
    return malformed("an exchange file", reason, field, expected, got)
