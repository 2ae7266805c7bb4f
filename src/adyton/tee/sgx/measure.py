"""MRENCLAVE: what an enclave's measurement must be, computed from what is loaded (Intel SDM 3D; evidence 13).

SHA-256 over records of 64 bytes: one ECREATE, an EADD for each page, an EEXTEND with 256 bytes for each measured chunk.
A ``.sgxs`` file is exactly that stream. ``measure`` reads one piece by piece in constant memory and refuses whatever
is no canonical stream (pages in ascending order, each chunk inside the page before it and once), so that nothing in it
can be read in two ways. UNMEASRD records, which load memory without measuring it, are passed over as their format says.

>>> enclave = Enclave(size=0x2000, ssa_frame_size=1)
>>> enclave.add_page(0, READ | EXECUTE | REGULAR, b"code")
>>> enclave.mrenclave.hex()[:16]
'83258c20ad1479f4'
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from adyton.errors import DocumentInvalid

SPEC = "Intel SDM 3D, ECREATE, EADD, EEXTEND; evidence 13"
PAGE = 4096
CHUNK = 256
RECORD = 64
MAX_SIZE = 1 << 47  # bytes of address space that an enclave can have

READ: Final = 1
WRITE: Final = 2
EXECUTE: Final = 4
THREAD_CONTROL: Final = 1 << 8
REGULAR: Final = 2 << 8
_PAGE_TYPES = {1: "TCS", 2: "REG", 5: "SS_FIRST", 6: "SS_REST"}  # what EADD takes

_CREATE = struct.Struct("<8sIQ44s")
_ADD = struct.Struct("<8sQQ40s")
_EXTEND = struct.Struct("<8sQ48s")
_ECREATE, _EADD, _EEXTEND = b"ECREATE\0", b"EADD\0\0\0\0", b"EEXTEND\0"
_UNMEASURED, _UNSIZED = b"UNMEASRD", b"UNSIZED\0"
_ZEROS = bytes(48)


class Measured(NamedTuple):
    """A stream's measurement, and what it loads. ``chunks`` of 256 bytes are measured, ``unmeasured`` ones are not."""

    mrenclave: bytes
    size: int
    ssa_frame_size: int
    pages: int
    chunks: int
    unmeasured: int


def create_record(size: int, ssa_frame_size: int) -> bytes:
    """ECREATE: an enclave of ``size`` bytes (a power of two, two pages or more), save areas of so many pages."""
    if not 2 * PAGE <= size <= MAX_SIZE or size & (size - 1) or not 0 < ssa_frame_size < 1 << 32:
        raise ValueError("an enclave's size is a power of two from two pages up, its save areas have a page at least")
    return _CREATE.pack(_ECREATE, ssa_frame_size, size, _ZEROS[:44])


def add_record(offset: int, flags: int) -> bytes:
    """EADD: a page at ``offset`` with SECINFO's ``flags`` (permissions and page type)."""
    if offset % PAGE or not 0 <= offset < MAX_SIZE:
        raise ValueError("a page begins at a multiple of 4096")
    return _ADD.pack(_EADD, offset, flags, _ZEROS[:40])


def extend_record(offset: int, chunk: bytes) -> bytes:
    """EEXTEND: 256 bytes at ``offset``."""
    if offset % CHUNK or not 0 <= offset < MAX_SIZE or len(chunk) != CHUNK:
        raise ValueError("a chunk has 256 bytes and begins at a multiple of 256")
    return _EXTEND.pack(_EEXTEND, offset, _ZEROS) + chunk


class Enclave:
    """An enclave that is put together page by page; ``write`` receives the stream, for a ``.sgxs`` file."""

    def __init__(self, *, size: int, ssa_frame_size: int, write: Callable[[bytes], object] | None = None) -> None:
        self._size = size
        self._write = write
        self._hash = hashlib.sha256()
        self._put(create_record(size, ssa_frame_size))

    def add_page(self, offset: int, flags: int, contents: bytes = b"", *, measured: bool = True) -> None:
        """Add a page; ``contents`` of at most 4096 bytes are filled up with zeros. All of it is measured, or nothing."""
        if len(contents) > PAGE or offset + PAGE > self._size:
            raise ValueError("a page has 4096 bytes and lies inside the enclave")
        self._put(add_record(offset, flags))
        if measured:
            page = contents.ljust(PAGE, b"\0")
            self._put(b"".join([extend_record(offset + at, page[at : at + CHUNK]) for at in range(0, PAGE, CHUNK)]))

    @property
    def mrenclave(self) -> bytes:
        """The measurement of what was added so far, 32 bytes."""
        return self._hash.digest()

    def _put(self, records: bytes) -> None:
        self._hash.update(records)
        if self._write is not None:
            self._write(records)


def measure(pieces: Iterable[bytes]) -> Measured:
    """Measure a ``.sgxs`` stream that comes in pieces of any size. ``DocumentInvalid`` if it is no such stream."""
    reader = _Reader()
    rest = b""
    for piece in pieces:
        data = rest + piece if rest else piece
        rest = data[reader.take(data) :]
    if rest or not reader.size:
        raise _invalid("the stream ends inside a record", "sgxs_cut_off")
    return Measured(
        reader.hash.digest(), reader.size, reader.ssa_frame_size, reader.pages, reader.chunks, reader.unmeasured
    )


class _Reader:
    """Where in the stream we are: one page is open at a time, ``seen`` has a bit for each of its chunks."""

    __slots__ = ("chunks", "hash", "page", "pages", "seen", "size", "ssa_frame_size", "unmeasured")

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.size = self.ssa_frame_size = self.pages = self.chunks = self.unmeasured = self.seen = 0
        self.page = -1

    def take(self, data: bytes) -> int:
        """Take all whole records at the beginning of ``data``; returns where they end."""
        at = measured_from = 0
        end = len(data) - RECORD
        while at <= end:
            tag = data[at : at + 8]
            if tag in {_EEXTEND, _UNMEASURED}:
                if at + RECORD + CHUNK > len(data):
                    break
                self._extend(data, at)
                if tag == _EEXTEND:
                    self.chunks += 1
                else:
                    self.unmeasured += 1
                    self.hash.update(memoryview(data)[measured_from:at])
                    measured_from = at + RECORD + CHUNK
                at += RECORD + CHUNK
                continue
            if tag == _EADD:
                self._add(data, at)
            elif tag == _ECREATE:
                self._create(data, at)
            else:
                raise _unknown(tag)
            at += RECORD
        self.hash.update(memoryview(data)[measured_from:at])
        return at

    def _create(self, data: bytes, at: int) -> None:
        _, frame, size, reserved = _CREATE.unpack_from(data, at)
        if self.size:
            raise _invalid("a second ECREATE", "sgxs_order")
        if size < 2 * PAGE or size > MAX_SIZE or size & (size - 1):
            raise _invalid("an enclave's size is a power of two from two pages up", "sgxs_size", size)
        if not frame or any(reserved):
            raise _invalid("ECREATE has reserved bytes or no save area", "sgxs_record")
        self.size, self.ssa_frame_size = size, frame

    def _add(self, data: bytes, at: int) -> None:
        _, offset, flags, reserved = _ADD.unpack_from(data, at)
        if offset % PAGE or offset <= self.page or offset + PAGE > self.size:
            raise _invalid(
                "pages come in ascending order, inside the enclave and after its ECREATE", "sgxs_order", offset
            )
        if (flags >> 8) & 0xFF not in _PAGE_TYPES or flags >> 16 or flags & 0xF8 or any(reserved):
            raise _invalid("flags that no page is added with", "sgxs_page_flags", hex(flags))
        self.page, self.seen = offset, 0
        self.pages += 1

    def _extend(self, data: bytes, at: int) -> None:
        _, offset, reserved = _EXTEND.unpack_from(data, at)
        bit = 1 << (offset % PAGE // CHUNK)
        if offset % CHUNK or offset - offset % PAGE != self.page or self.seen & bit:
            raise _invalid("a chunk that is not in the page before it, or comes twice", "sgxs_order", offset)
        if reserved != _ZEROS:
            raise _invalid("a chunk's record has reserved bytes", "sgxs_record")
        self.seen |= bit


def _unknown(tag: bytes) -> DocumentInvalid:
    if tag == _UNSIZED:
        return _invalid("the enclave's size is still open (UNSIZED): it has no measurement yet", "sgxs_unsized")
    return _invalid("not a record of an SGX stream", "sgxs_record", tag.hex())


def _invalid(message: str, code: str, got: object = None) -> DocumentInvalid:
    return DocumentInvalid(message, code=code, tee="sgx", field="sgxs", got=got, spec=SPEC)
