"""MRTD and RTMRs: what a trust domain's measurements must be (TDVF design guide; TDX module ABI; evidence 13).

MRTD is a SHA-384 over what the VMM adds to a domain before it runs: for each page a record of 128 bytes, and for each 256
bytes of a measured section another one with the bytes after it. The firmware's TDVF metadata lists the sections. VMMs
differ in the order, and so does the value: ``Order.PAGE`` measures each page as it is added, ``Order.SECTION`` adds all
pages of a section and then measures them. RTMRs are extended at run time: R := SHA-384(R, digest).
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import uuid
from collections.abc import Iterable
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from adyton.errors import DocumentInvalid
from adyton.wire import guid_table

SPEC = "TDVF design guide 11; TDX module ABI, TDH.MEM.PAGE.ADD, TDH.MR.EXTEND; evidence 13"
PAGE = 4096
CHUNK = 256
DIGEST = 48
RTMR_COUNT = 4
MAX_FIRMWARE = 1 << 28
MAX_MEMORY = 1 << 28  # bytes that all sections together may load

METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_HEADER = struct.Struct("<4sIII")
_SECTION = struct.Struct("<IIQQII")
_EXTENDED, _AUGMENTED = 1, 2
_ADD = struct.Struct("<16sQ104s")
_ADD_NAME, _EXTEND_NAME, _ZEROS = b"MEM.PAGE.ADD", b"MR.EXTEND", bytes(104)


class SectionKind(IntEnum):
    """What a section holds, in TDVF's numbers; those of further producers are kept as plain numbers."""

    FIRMWARE = 0
    CONFIGURATION = 1
    HAND_OFF = 2
    TEMPORARY = 3
    PERMANENT = 4
    PAYLOAD = 5
    PAYLOAD_PARAMETERS = 6


class Section(NamedTuple):
    """A range of guest-physical memory, whole pages, and the part of the image that is loaded there (may be shorter).

    ``measured``: its contents go into MRTD. ``augmented``: its pages are given to the running domain, and not measured.
    """

    kind: int
    address: int
    size: int
    data: bytes
    measured: bool
    augmented: bool


class Order(Enum):
    """How a VMM goes about it."""

    PAGE = "page"
    SECTION = "section"


def parse(image: bytes) -> tuple[Section, ...]:
    """The sections of a firmware's TDVF metadata, in their order. ``DocumentInvalid`` if it has none or a broken one."""
    if not image or len(image) > MAX_FIRMWARE:
        raise _invalid("the image is empty or too large", "firmware_size")
    try:
        table = guid_table.read(image)
    except ValueError as error:
        raise _invalid(str(error), "firmware_table") from error
    if table is None:
        raise _invalid("it has no table of GUIDs at its end", "firmware_table_missing")
    place = table.get(METADATA)
    if place is None:
        raise _invalid("it has no TDX metadata: it was not built for trust domains", "firmware_metadata_missing")
    if len(place) != 4:
        raise _invalid("the entry of its TDX metadata has not 4 bytes", "firmware_metadata")
    start = len(image) - struct.unpack("<I", place)[0]
    if start < 0 or start + _HEADER.size > len(image):
        raise _invalid("its TDX metadata lies outside the image", "firmware_metadata")
    magic, length, version, count = _HEADER.unpack_from(image, start)
    if magic != b"TDVF" or version != 1:
        raise _invalid("unknown TDX metadata", "firmware_metadata")
    if length != _HEADER.size + count * _SECTION.size or start + length > len(image) or not count:
        raise _invalid("its TDX metadata is cut off, empty or longer than its sections", "firmware_metadata")
    sections = tuple(_section(image, start + _HEADER.size + number * _SECTION.size) for number in range(count))
    if sum(section.size for section in sections if not section.augmented) > MAX_MEMORY:
        raise _invalid("its sections load too much memory", "firmware_section")
    spans = sorted((section.address, section.address + section.size) for section in sections)
    if any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans)):
        raise _invalid("its sections overlap", "firmware_section")
    return sections


def _section(image: bytes, at: int) -> Section:
    offset, raw, address, size, kind, attributes = _SECTION.unpack_from(image, at)
    if address % PAGE or size % PAGE or not size or address + size > 1 << 52:
        raise _invalid("a section is not made of whole pages", "firmware_section")
    if raw > size or offset + raw > len(image):
        raise _invalid("a section's contents lie outside the image or do not fit", "firmware_section")
    if attributes & ~(_EXTENDED | _AUGMENTED) or attributes == _EXTENDED | _AUGMENTED:
        raise _invalid("unknown attributes of a section", "firmware_section", hex(attributes))
    if attributes & _AUGMENTED and raw:
        raise _invalid("a section whose pages come later has contents", "firmware_section")
    return Section(
        kind, address, size, image[offset : offset + raw], bool(attributes & _EXTENDED), bool(attributes & _AUGMENTED)
    )


def mrtd(firmware: bytes, order: Order) -> bytes:
    """MRTD of a domain that starts with this firmware, 48 bytes. ``DocumentInvalid`` if it cannot be measured."""
    digest = hashlib.sha384()
    for section in parse(firmware):
        if section.augmented:
            continue
        pages = range(0, section.size, PAGE)
        if not section.measured:
            digest.update(b"".join([_record(_ADD_NAME, section.address + at) for at in pages]))
        elif order is Order.PAGE:
            for at in pages:
                digest.update(_record(_ADD_NAME, section.address + at))
                digest.update(_extensions(section, at))
        else:
            digest.update(b"".join([_record(_ADD_NAME, section.address + at) for at in pages]))
            for at in pages:
                digest.update(_extensions(section, at))
    return digest.digest()


def _record(name: bytes, address: int) -> bytes:
    return _ADD.pack(name, address, _ZEROS)


def _extensions(section: Section, at: int) -> bytes:
    """The sixteen records of one page, each with its 256 bytes."""
    page = section.data[at : at + PAGE].ljust(PAGE, b"\0")
    return b"".join(
        [
            part
            for offset in range(0, PAGE, CHUNK)
            for part in (_record(_EXTEND_NAME, section.address + at + offset), page[offset : offset + CHUNK])
        ]
    )


INITIAL: Final = bytes(DIGEST)
"""What an RTMR holds before anything is measured into it."""


def extend(register: bytes, digest: bytes) -> bytes:
    """The register after one more event: SHA-384(register, digest)."""
    if len(register) != DIGEST or len(digest) != DIGEST:
        raise ValueError("registers and the digests that extend them have 48 bytes")
    return hashlib.sha384(register + digest).digest()


def predict(events: Iterable[bytes], start: bytes = INITIAL) -> bytes:
    """What a register holds after these events' contents were measured into it, in order (each by its SHA-384)."""
    for event in events:
        start = extend(start, hashlib.sha384(event).digest())
    return start


def replay(events: Iterable[tuple[int, bytes]]) -> tuple[bytes, bytes, bytes, bytes]:
    """RTMR 0 to 3 after a list of (number of the register, digest). Another number is ``DocumentInvalid``."""
    registers = [INITIAL] * RTMR_COUNT
    for number, digest in events:
        if not 0 <= number < RTMR_COUNT or len(digest) != DIGEST:
            raise DocumentInvalid(
                "an event names no RTMR, or has no SHA-384",
                code="rtmr_event",
                tee="tdx",
                field="rtmr",
                expected="0 to 3, 48 bytes",
                got=f"{number}, {len(digest)} bytes",
                spec=SPEC,
            )
        registers[number] = extend(registers[number], digest)
    first, second, third, fourth = registers
    return first, second, third, fourth


def _invalid(reason: str, code: str, got: object = None) -> DocumentInvalid:
    return DocumentInvalid(f"the firmware cannot be measured: {reason}", code=code, tee="tdx", got=got, spec=SPEC)
