"""What a guest's firmware says about itself: OVMF's table of GUIDs and the SEV metadata that it points to.

The metadata lists the pages that the VMM must prepare; kind and order go into the launch digest (evidence 13).
``write`` makes the smallest image with such a table, for a guest that boots without firmware of its own.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from adyton.errors import DocumentInvalid
from adyton.wire import guid_table

SPEC = "evidence 13; OVMF OvmfPkg/ResetVector"
PAGE = 4096
FOUR_GIB = 1 << 32

HASH_TABLE_PLACE = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
RESET_BLOCK = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
SEV_METADATA = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le

_METADATA_HEADER = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")


class SectionKind(IntEnum):
    """What the VMM puts into a section's pages."""

    MEMORY = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CALLING_AREA = 4
    KERNEL_HASHES = 0x10


@dataclass(frozen=True, slots=True)
class Section:
    """A range of guest-physical memory, in bytes, whole pages."""

    kind: SectionKind
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Firmware:
    """An image that ends at 4 GiB.

    ``hash_table``: where the kernel's hashes lie; ``reset_address``: where further vCPUs begin. ``None``: it does not say.
    """

    image: bytes
    sections: tuple[Section, ...]
    hash_table: int | None
    reset_address: int | None

    @property
    def address(self) -> int:
        """Guest-physical address of the image's first byte."""
        return FOUR_GIB - len(self.image)

    @property
    def has_kernel_hashes(self) -> bool:
        """Whether the metadata reserves a page for the hashes of kernel, initrd and command line."""
        return any(section.kind is SectionKind.KERNEL_HASHES for section in self.sections)


def parse(image: bytes) -> Firmware:
    """Read the tables; ``DocumentInvalid`` if the image has none or they break their form."""
    if not image or len(image) % PAGE or len(image) > FOUR_GIB // 4:
        raise _invalid("the image is empty or not made of whole pages", "firmware_size")
    table = _table(image)
    place = table.get(HASH_TABLE_PLACE)
    reset = table.get(RESET_BLOCK)
    if (place is not None and len(place) < 8) or (reset is not None and len(reset) < 4):
        raise _invalid("an entry of its table is too short", "firmware_table")
    return Firmware(
        image=image,
        sections=_sections(image, table.get(SEV_METADATA)),
        hash_table=struct.unpack_from("<I", place)[0] or None if place is not None else None,
        reset_address=struct.unpack_from("<I", reset)[0] if reset is not None else None,
    )


def _table(image: bytes) -> dict[bytes, bytes]:
    try:
        entries = guid_table.read(image)
    except ValueError as error:
        raise _invalid(str(error), "firmware_table") from error
    if entries is None:
        raise _invalid("it has no table of GUIDs at its end", "firmware_table_missing")
    return entries


def _sections(image: bytes, entry: bytes | None) -> tuple[Section, ...]:
    if entry is None:
        return ()
    if len(entry) < 4:
        raise _invalid("an entry of its table is too short", "firmware_table")
    start = len(image) - struct.unpack_from("<I", entry)[0]
    if start < 0 or start + _METADATA_HEADER.size > len(image):
        raise _invalid("its SEV metadata lies outside the image", "firmware_metadata")
    magic, size, version, count = _METADATA_HEADER.unpack_from(image, start)
    if magic != b"ASEV" or version != 1:
        raise _invalid("unknown SEV metadata", "firmware_metadata")
    first = start + _METADATA_HEADER.size
    if count > 4096 or size < _METADATA_HEADER.size + count * _SECTION.size or start + size > len(image):
        raise _invalid("its SEV metadata is cut off", "firmware_metadata")
    sections = []
    for address, length, kind in (_SECTION.unpack_from(image, first + index * _SECTION.size) for index in range(count)):
        if kind not in SectionKind._value2member_map_:
            raise _invalid(f"unknown kind of SEV metadata section: {kind:#x}", "firmware_section")
        if address % PAGE or length % PAGE or not length or address + length > FOUR_GIB:
            raise _invalid("a SEV metadata section is not made of whole pages", "firmware_section")
        sections.append(Section(SectionKind(kind), address, length))
    return tuple(sections)


def write(sections: Iterable[Section], *, hash_table: int, reset_address: int) -> bytes:
    """One page of firmware that holds nothing but the tables; ``parse`` gives its arguments back."""
    listed = [_SECTION.pack(section.address, section.size, section.kind) for section in sections]
    metadata = _METADATA_HEADER.pack(b"ASEV", _METADATA_HEADER.size + 12 * len(listed), 1, len(listed)) + b"".join(
        listed
    )
    offset_at = 64 + len(metadata)  # the metadata begins 64 bytes into the page
    image = bytearray(PAGE)
    image[64:offset_at] = metadata
    table = guid_table.write(
        {
            HASH_TABLE_PLACE: struct.pack("<II", hash_table, 1024),
            RESET_BLOCK: struct.pack("<I", reset_address),
            SEV_METADATA: struct.pack("<I", PAGE - 64),
        }
    )
    end = PAGE - guid_table.RESET_VECTOR
    if offset_at > end - len(table):
        raise ValueError("too many sections for one page of firmware")
    image[end - len(table) : end] = table
    return bytes(image)


def _invalid(reason: str, code: str) -> DocumentInvalid:
    return DocumentInvalid(f"the firmware cannot be measured: {reason}", code=code, tee="snp", spec=SPEC)
