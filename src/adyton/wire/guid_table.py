"""The table of GUIDs at the end of a virtual machine's firmware (OVMF, ResetVector): read backwards from a footer.

The footer ends 32 bytes before the end of the image. An entry is its content, then its length (2 bytes, little-endian,
with length and GUID) and its GUID (16 bytes); the footer's own length is that of the whole table.
"""

from __future__ import annotations

import struct
import uuid

FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
ENTRY = struct.Struct("<H16s")
RESET_VECTOR = 32  # bytes after the table


def read(image: bytes) -> dict[bytes, bytes] | None:
    """Content by GUID (its 16 bytes); ``None`` if the image has no such table, ``ValueError`` if it breaks its form."""
    end = len(image) - RESET_VECTOR - ENTRY.size
    if end < 0:
        return None
    size, guid = ENTRY.unpack_from(image, end)
    if guid != FOOTER:
        return None
    start = end + ENTRY.size - size
    if size < ENTRY.size or start < 0:
        raise ValueError("its table is longer than the image")
    entries: dict[bytes, bytes] = {}
    while end > start:
        head = end - ENTRY.size
        if head < start:
            raise ValueError("an entry of its table is cut off")
        length, guid = ENTRY.unpack_from(image, head)
        if length < ENTRY.size or end - length < start or guid in entries:
            raise ValueError("an entry of its table has a wrong length or comes twice")
        entries[guid] = image[end - length : head]
        end -= length
    return entries


def write(entries: dict[bytes, bytes]) -> bytes:
    """The table, footer included, that ``read`` gives ``entries`` for; 32 bytes of reset vector must follow it."""
    body = b"".join(content + ENTRY.pack(len(content) + ENTRY.size, guid) for guid, content in entries.items())
    return body + ENTRY.pack(len(body) + ENTRY.size, FOOTER)
