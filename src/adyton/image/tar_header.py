"""The bytes of a tar header: numbers, checksum, extended records, sparse maps. Parsing only; nothing is touched.

POSIX.1-2017 pax interchange format (ustar headers, extended headers), GNU tar's manual ("Basic Tar Format", "Storing
Sparse Files"). Names are bytes from end to end. Where readers in use disagree about a header (two lengths, a sign, a
number that overflows), it is refused: two readings of one layer are two layers.
"""

from __future__ import annotations

import re
import struct
import zlib
from enum import Enum

import msgspec

from adyton.errors import MalformedImage

BLOCK = 512
ZEROS = bytes(BLOCK)
HEADER = struct.Struct("100s 24s 12s 12s 8s c 100s 8s 64x 16s 155s 12x")
MAX_ID = 0xFFFF_FFFE  # 0xFFFFFFFF is "leave as it is" for chown
MAX_SIZE = 1 << 62
MAX_SECONDS = 1 << 47
_DECIMAL_TIME = re.compile(rb"(-?)(\d{1,15})(?:\.(\d+))?\Z")
_GNU_SPARSE = struct.Struct("12s12s")


class Kind(Enum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    FIFO = "fifo"
    CHARACTER = "character device"
    BLOCK = "block device"


class Sparse(msgspec.Struct, frozen=True):
    """A sparse file: its apparent size and where its data lies, as ordered ``(offset, length)`` without overlap."""

    size: int
    extents: tuple[tuple[int, int], ...]


class TarEntry(msgspec.Struct, frozen=True):
    """One entry. ``size`` counts the data in the archive; ``mtime`` is in nanoseconds since 1970; ``name`` is raw."""

    kind: Kind
    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: Sparse | None = None


def printable(name: bytes) -> str:
    """A name as an error may show it: escaped and short."""
    return name[:200].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


def malformed(what: str, *, name: bytes = b"", code: str = "tar_malformed", **details: object) -> MalformedImage:
    """The error for an archive that breaks the format; ``name`` is the entry's."""
    return MalformedImage(
        f"the layer's archive: {what}" + (f" ({printable(name)})" if name else ""),
        code=code,
        field=printable(name) or None,
        expected=details.get("expected"),
        got=details.get("got"),
        spec="POSIX pax; OCI image-spec, layer.md",
    )


def check_sum(data: bytes, at: int, field: bytes) -> None:
    """The header at ``at`` against its checksum: the sum of its bytes with the checksum's own eight as spaces.

    The low half of an Adler-32 is one more than the sum of the bytes modulo 65521, and 256 bytes sum to at most 65280,
    so two of them are the exact sum at a tenth of the time.
    """
    total = (zlib.adler32(data[at : at + 256]) & 0xFFFF) + (zlib.adler32(data[at + 256 : at + BLOCK]) & 0xFFFF) - 2
    stated = number(field)
    if total - sum(field) + 256 != stated and _signed_sum(data[at : at + BLOCK]) != stated:
        raise malformed("a header's checksum is wrong", code="tar_checksum")


def _signed_sum(block: bytes) -> int:
    """The checksum as old tools with signed characters wrote it."""
    before: tuple[int, ...] = struct.unpack("148b", block[:148])
    after: tuple[int, ...] = struct.unpack("356b", block[156:])
    return sum(before) + 256 + sum(after)


def number(field: bytes) -> int:
    """An octal number with blanks or NULs around it, or a binary one in base 256 (GNU); empty is 0."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big", signed=bool(first & 0x40))
        return value if first & 0x40 else value - (0x80 << (8 * (len(field) - 1)))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit():
        raise malformed("a number in a header is not octal")
    try:
        parsed: int = int(digits, 8)
    except ValueError:
        raise malformed("a number in a header is not octal") from None
    return parsed


def text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    end = field.find(0)
    return field if end < 0 else field[:end]


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records of an extended header in order; each is ``<length> <key>=<value>`` and a line feed."""
    found = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        if space < 0 or not data[at:space].isdigit():
            raise malformed("an extended header has a record without length")
        end = at + int(data[at:space])
        if end > len(data) or end < space + 3 or data[end - 1] != 0x0A:
            raise malformed("an extended header has a record of wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise malformed("an extended header has a record without key")
        found.append((key, value))
        at = end
    return found


def decimal(value: bytes, what: str, limit: int = MAX_SIZE) -> int:
    """A decimal number of an extended header, 0 to ``limit``."""
    if not value.isdigit() or len(value) > 20 or int(value) > limit:
        raise malformed(f"an extended header's {what} is not a number in range", got=printable(value))
    return int(value)


def seconds(value: bytes) -> int:
    """A time of an extended header in nanoseconds, cut towards minus infinity as POSIX asks."""
    match = _DECIMAL_TIME.match(value)
    if match is None or int(match[2]) > MAX_SECONDS:
        raise malformed("an extended header's time is not a number in range", got=printable(value))
    fraction = (match[3] or b"")[:9].ljust(9, b"0")
    whole = int(match[2]) * 1_000_000_000 + int(fraction)
    return -whole if match[1] else whole


def gnu_extents(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    """Up to ``count`` extents of an old GNU sparse map at ``at``; an empty slot ends it."""
    found = []
    for index in range(count):
        offset, length = _GNU_SPARSE.unpack_from(block, at + 24 * index)
        if not length[0]:
            break
        found.append((number(offset), number(length)))
    return found


def sparse(size: int, extents: list[tuple[int, int]], data: int, name: bytes) -> Sparse:
    """The map of a sparse file, checked: ordered, inside ``size``, and of ``data`` bytes in all."""
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0 or offset + length > size:
            raise malformed("a sparse file's map is out of order or out of range", name=name)
        end = offset + length
        total += length
    if total != data or not 0 <= size <= MAX_SIZE:
        raise malformed("a sparse file's map does not fit its data", name=name, expected=data, got=total)
    return Sparse(size, tuple(extents))
