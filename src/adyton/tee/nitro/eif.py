"""Enclave image files (EIF): a header of 548 bytes, then sections, everything big-endian (evidence 13).

Header: magic ``.eif``, version u16, flags u16 (bit 0: Arm), default memory u64 and CPUs u64, reserved u16, number of sections u16,
32 offsets u64, 32 sizes u64, unused u32, CRC-32 over all but itself. A section: type u16, flags u16, size u64, content.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from adyton.errors import DocumentInvalid

SPEC = "evidence 13"
MAGIC = b".eif"
VERSIONS = (2, 3, 4)  # 2: the checksum; 3: the signature section; 4: the metadata section
MAX_SECTIONS = 32
ARM = 1

_HEAD = struct.Struct(">4sHHQQHH32Q32QI")
_CRC = struct.Struct(">I")
_SECTION = struct.Struct(">HHQ")
HEADER_SIZE = _HEAD.size + _CRC.size


class Kind(IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


_KINDS = frozenset(map(int, Kind))


@dataclass(frozen=True, slots=True)
class EnclaveImage:
    """The sections, in the file's order, without copying them."""

    version: int
    arm: bool
    sections: tuple[tuple[Kind, memoryview], ...]

    def all_of(self, kind: Kind) -> list[memoryview]:
        """The contents of the sections of one kind."""
        return [content for found, content in self.sections if found is kind]


def parse(data: bytes) -> EnclaveImage:
    """From a whole file, or ``DocumentInvalid``: header and sections agree, and the checksum is right.

    The hypervisor goes by the header, AWS's tools by the sections: where these two differ, nobody knows what will run.
    """
    if len(data) < HEADER_SIZE:
        raise invalid("length", "shorter than the header of an enclave image", HEADER_SIZE, len(data))
    magic, version, flags, _, _, _, count, *table, _ = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise invalid("magic", "no enclave image", MAGIC, magic)
    if version not in VERSIONS:
        raise invalid("version", "a version that is unknown here", [*VERSIONS], version)
    if not 1 <= count <= MAX_SECTIONS:
        raise invalid("sections", f"1 to {MAX_SECTIONS} sections are due", got=count)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    whole = memoryview(data)
    if zlib.crc32(whole[HEADER_SIZE:], zlib.crc32(whole[: _HEAD.size])) != crc:
        raise invalid("crc", "the checksum is wrong: the file was changed or cut off")
    offsets, sizes = table[:MAX_SECTIONS], table[MAX_SECTIONS:]
    sections = []
    at = HEADER_SIZE
    for number in range(count):
        if len(data) - at < _SECTION.size:
            raise invalid("sections", "a section is cut off", got=number)
        kind, _, size = _SECTION.unpack_from(data, at)
        if (offsets[number], sizes[number]) != (at, size):
            raise invalid(
                "sections", "header and section disagree on where it is", [at, size], [offsets[number], sizes[number]]
            )
        at += _SECTION.size
        if size > len(data) - at:
            raise invalid("sections", "a section is longer than the file", got=number)
        if kind not in _KINDS:
            raise invalid("sections", "a section of an unknown kind", sorted(_KINDS), kind)
        sections.append((Kind(kind), whole[at : at + size]))
        at += size
    if at != len(data):
        raise invalid("length", "bytes after the last section", at, len(data))
    if any(offsets[count:]) or any(sizes[count:]):
        raise invalid("sections", "the header names more sections than it counts", count)
    return EnclaveImage(version, bool(flags & ARM), tuple(sections))


def invalid(field: str, message: str, expected: object = None, got: object = None) -> DocumentInvalid:
    """An error about an enclave image."""
    return DocumentInvalid(
        f"enclave image, {field}: {message}",
        code=f"eif_{field}",
        tee="nitro",
        field=field,
        expected=expected,
        got=got,
        spec=SPEC,
    )
