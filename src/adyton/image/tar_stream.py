"""A tar archive as a stream of entries, in constant memory: ustar, pax, GNU long names, sparse files.

``TarReader`` takes pieces of bytes in any sizes and gives entries in order; the data of an entry is taken with
``whole`` or ``body`` before the next one is asked for, or skipped. It trusts nothing and touches nothing: names are
handed on as they stand, and ``unpack`` judges them. What ends early is an error; what follows the end marker is read
(its digest counts) and ignored, as every reader does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adyton.image import limits as bounds
from adyton.image.limits import Limits
from adyton.image.tar_header import (
    BLOCK,
    HEADER,
    MAX_ID,
    MAX_SECONDS,
    MAX_SIZE,
    ZEROS,
    Kind,
    Sparse,
    TarEntry,
    check_sum,
    decimal,
    gnu_extents,
    malformed,
    number,
    printable,
    records,
    seconds,
    sparse,
    text,
)

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_DEVICES = frozenset({Kind.CHARACTER, Kind.BLOCK})
_POSIX = b"ustar\0"
_XATTR = b"SCHILY.xattr."
# What a global header may say. The rest of the keys would give every following entry one name or length.
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"GNU.sparse.", _XATTR)
_NO_RECORDS: dict[bytes, bytes] = {}


class TarReader:
    """Entries of the archive in ``pieces``. ``next`` gives ``None`` at the end; every refusal is ``MalformedImage``."""

    def __init__(self, pieces: Iterable[bytes], limits: Limits = bounds.DEFAULT) -> None:
        self._pieces = iter(pieces)
        self._limits = limits
        self._piece = b""
        self._view = memoryview(b"")
        self._at = 0
        self._end = 0
        self._left = 0  # data of the current entry that was not taken yet
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self.read_bytes = 0

    def next(self) -> TarEntry | None:
        """The next entry, or ``None`` after the last; the rest of the current one's data is skipped."""
        pax = _NO_RECORDS
        long_name = long_link = b""
        extents: list[tuple[int, int]] = []
        while True:
            if self._left or self._padding:
                self._skip(self._left + self._padding)
                self._left = self._padding = 0
            at = self._at
            if self._end - at >= BLOCK:
                data = self._piece
                self._at = at + BLOCK
            else:
                data = self._block()
                at = 0
                if not data:
                    break
            raw_name, owner, raw_size, raw_time, checksum, flag, link, magic, device, prefix = HEADER.unpack_from(
                data, at
            )
            if not raw_name[0] and data[at : at + BLOCK] == ZEROS:
                self._end_marker()
                break
            check_sum(data, at, checksum)
            size = number(raw_size)
            if not 0 <= size <= MAX_SIZE:
                raise malformed("an entry has a size out of range", got=size)
            if flag in b"xgLK":
                content = self._extension(size)
                if flag == b"x" and not pax:
                    pax = self._records(content)
                elif flag == b"g":
                    self._global(content)
                elif flag == b"L" and not long_name:
                    long_name = text(content)
                elif flag == b"K" and not long_link:
                    long_link = text(content)
                else:
                    raise malformed("an entry has two extended headers of one kind")
                continue
            name = text(raw_name)
            if prefix[0] and magic[:6] == _POSIX:
                name = text(prefix) + b"/" + name
            kind = _KINDS.get(flag)
            if kind is None:
                raise malformed("an entry of unknown type", name=name, code="tar_type", got=printable(flag))
            numbers = self._owners.get(owner)
            if numbers is None:
                numbers = self._owner(owner)
            mtime = number(raw_time)
            if not -MAX_SECONDS <= mtime <= MAX_SECONDS:
                raise malformed("an entry has a time out of range", name=name, got=mtime)
            hole_map: Sparse | None = None
            if flag == b"S":
                extents, real_size = self._old_sparse(data, at)
                hole_map = sparse(real_size, extents, size, name)
            entry = TarEntry(
                kind,
                long_name or name,
                numbers[0],
                numbers[1],
                numbers[2],
                size,
                mtime * 1_000_000_000,
                b"" if kind is Kind.FILE else long_link or text(link),
                (number(device[:8]), number(device[8:])) if kind in _DEVICES else (0, 0),
                (),
                hole_map,
            )
            if pax or self._globals:
                entry = self._extended({**self._globals, **pax}, entry)
            return self._finish(entry, flag)
        if pax or long_name or long_link:
            raise malformed("the archive ends after an extended header", code="tar_truncated")
        return None

    def whole(self) -> memoryview | None:
        """All data of the entry if it lies in one piece here, else ``None`` and ``body`` has it. Valid until ``next``."""
        at = self._at
        left = self._left
        if left > self._end - at:
            return None
        self._left = 0
        self._at = at + left
        return self._view[at : at + left]

    def body(self) -> Iterator[memoryview]:
        """What is left of the entry's data, piece by piece; each is valid until the following one is asked for."""
        while self._left:
            if self._at == self._end:
                self._refill()
            at = self._at
            count = min(self._left, self._end - at)
            self._left -= count
            self._at = at + count
            yield self._view[at : at + count]

    def drain(self) -> None:
        """Read the stream to its end after the last entry."""
        self._at = self._end
        while self._more():
            self._at = self._end

    def _finish(self, entry: TarEntry, flag: bytes) -> TarEntry:
        """Settle how much data follows, and the directory that old headers mark by a slash."""
        kind = entry.kind
        if kind is not Kind.FILE:
            # As Go's reader, which makes and unpacks nearly every layer: such headers carry no data whatever they say.
            self._left = self._padding = 0
            return entry
        if entry.name.endswith(b"/"):
            if flag != b"\0" or entry.size:
                raise malformed("a regular file's name ends with a slash", name=entry.name)
            return TarEntry(Kind.DIRECTORY, entry.name, entry.mode, entry.uid, entry.gid, 0, entry.mtime)
        size = entry.size
        # A pax 1.0 map was read from the data already, and the map is padded to whole blocks.
        self._left = size
        self._padding = -size % BLOCK
        return entry

    def _owner(self, fields: bytes) -> tuple[int, int, int]:
        mode, uid, gid = number(fields[:8]), number(fields[8:16]), number(fields[16:])
        if not (0 <= uid <= MAX_ID and 0 <= gid <= MAX_ID and 0 <= mode <= 0xFFFF_FFFF):
            raise malformed("an entry has an owner or mode out of range", got=f"{mode:o} {uid}:{gid}")
        if len(self._owners) > 1024:
            self._owners.clear()
        self._owners[fields] = found = (mode & 0o7777, uid, gid)
        return found

    def _extended(self, pax: dict[bytes, bytes], entry: TarEntry) -> TarEntry:
        """``entry`` with what its extended headers say instead; an empty value means the header's own."""
        name = pax.get(b"path") or entry.name
        link = pax.get(b"linkpath") or entry.link
        if b"\0" in name or b"\0" in link:
            raise malformed("a name with a NUL byte", name=name)
        size = decimal(pax[b"size"], "size") if pax.get(b"size") else entry.size
        mtime = seconds(pax[b"mtime"]) if pax.get(b"mtime") else entry.mtime
        uid = decimal(pax[b"uid"], "uid", MAX_ID) if pax.get(b"uid") else entry.uid
        gid = decimal(pax[b"gid"], "gid", MAX_ID) if pax.get(b"gid") else entry.gid
        xattrs = tuple(sorted((key[len(_XATTR) :], value) for key, value in pax.items() if key.startswith(_XATTR)))
        hole_map = entry.sparse
        if hole_map is not None and size != entry.size:
            raise malformed("a sparse file of two lengths", name=name, expected=entry.size, got=size)
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            if entry.kind is not Kind.FILE or hole_map is not None:
                raise malformed("a sparse map on something that is not a file", name=name)
            name = pax.get(b"GNU.sparse.name") or name
            size, hole_map = self._pax_sparse(pax, size, name)
        return TarEntry(
            entry.kind, name, entry.mode, uid, gid, size, mtime, link, entry.device, xattrs=xattrs, sparse=hole_map
        )

    def _records(self, content: bytes) -> dict[bytes, bytes]:
        """The records of one entry's extended header; GNU's sparse format 0.0, which repeats keys, becomes 0.1."""
        found: dict[bytes, bytes] = {}
        pairs: list[bytes] = []
        for key, value in records(content):
            if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
                if (key == b"GNU.sparse.offset") != (len(pairs) % 2 == 0):
                    raise malformed("a sparse map is out of order")
                pairs.append(value)
            else:
                found[key] = value
        if pairs:
            found[b"GNU.sparse.map"] = b",".join(pairs)
        return found or {b"comment": b""}

    def _global(self, content: bytes) -> None:
        for key, value in records(content):
            if key.startswith(_NOT_GLOBAL):
                raise malformed("a global header sets what belongs to one entry", got=printable(key))
            if key in {b"uid", b"gid", b"mtime"}:
                self._globals[key] = value

    def _pax_sparse(self, pax: dict[bytes, bytes], size: int, name: bytes) -> tuple[int, Sparse]:
        """GNU sparse formats 0.0, 0.1 (map in the header) and 1.0 (map before the data); the data's size, the map."""
        real = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b""
        real_size = decimal(real, "sparse size")
        version = (pax.get(b"GNU.sparse.major", b"0"), pax.get(b"GNU.sparse.minor", b"0"))
        if version == (b"1", b"0"):
            count = self._map_number(size)
            if count[0] > self._limits.extents:
                raise self._limits.exceeded("extents", self._limits.extents, count[0])
            numbers, used = self._map_numbers(2 * count[0], count[1], size)
            size -= used
        elif version[0] == b"0":
            fields = pax[b"GNU.sparse.map"].split(b",") if pax.get(b"GNU.sparse.map") else []
            if len(fields) > 2 * self._limits.extents:
                raise self._limits.exceeded("extents", self._limits.extents, len(fields) // 2)
            numbers = [decimal(field, "sparse map") for field in fields]
        else:
            raise malformed("a sparse format that is not known", name=name, got=printable(b".".join(version)))
        if len(numbers) % 2:
            raise malformed("a sparse map is cut off", name=name)
        return size, sparse(real_size, list(zip(numbers[::2], numbers[1::2], strict=True)), size, name)

    def _map_number(self, size: int) -> tuple[int, bytes]:
        """The number of extents that starts a 1.0 map, and the rest of its first block."""
        first, newline, rest = self._map_block(size, 0).partition(b"\n")
        if not newline:
            raise malformed("a sparse map is cut off")
        return decimal(first, "sparse map"), rest

    def _map_numbers(self, count: int, rest: bytes, size: int) -> tuple[list[int], int]:
        used = BLOCK
        numbers: list[int] = []
        while True:
            *lines, rest = rest.split(b"\n")
            numbers += [decimal(line, "sparse map") for line in lines[: count - len(numbers)]]
            if len(numbers) == count:
                return numbers, used
            if len(rest) > 20:
                raise malformed("a sparse map is not made of numbers")
            rest += self._map_block(size, used)
            used += BLOCK

    def _map_block(self, size: int, used: int) -> bytes:
        if used + BLOCK > size:
            raise malformed("a sparse map is cut off")
        return self._take(BLOCK)

    def _old_sparse(self, data: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
        """An old GNU sparse header: four extents, further blocks of 21 while they say so, and the apparent size."""
        real_size = number(data[at + 483 : at + 495])
        extents = gnu_extents(data, at + 386, 4)
        more = data[at + 482]
        while more:
            block = self._take(BLOCK)
            extents += gnu_extents(block, 0, 21)
            more = block[504]
            if len(extents) > self._limits.extents:
                raise self._limits.exceeded("extents", self._limits.extents, len(extents))
        return extents, real_size

    def _extension(self, size: int) -> bytes:
        if size > self._limits.extended_bytes:
            raise self._limits.exceeded("extended_bytes", self._limits.extended_bytes, size)
        self._padding = -size % BLOCK
        return self._take(size)

    def _end_marker(self) -> None:
        """One block of zeros was seen: the archive ends if another follows, or nothing at all."""
        second = self._block()
        if second and second != ZEROS:
            raise malformed("a lone block of zeros inside the archive")

    def _block(self) -> bytes:
        """The next block, or nothing at the clean end of the stream."""
        if self._at == self._end and not self._more():
            return b""
        return self._take(BLOCK)

    def _take(self, count: int) -> bytes:
        parts = []
        while True:
            part = self._piece[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            parts.append(part)
            if not count:
                return b"".join(parts)
            self._refill()

    def _skip(self, count: int) -> None:
        while True:
            here = min(count, self._end - self._at)
            self._at += here
            count -= here
            if not count:
                return
            self._refill()

    def _refill(self) -> None:
        if not self._more():
            raise malformed("the archive ends in the middle of an entry", code="tar_truncated")

    def _more(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._piece = piece
                self._view = memoryview(piece)
                self._at = 0
                self._end = len(piece)
                self.read_bytes += self._end
                if self.read_bytes > self._limits.unpacked_bytes:
                    raise self._limits.exceeded("unpacked_bytes", self._limits.unpacked_bytes)
                return True
        return False
