"""What an instance wrote, if its document lets it leave: one file of records, bounded in size.

A record is one byte for the stream (1 or 2), four bytes of length, big-endian, then the data. When the file is over
``LIMIT`` it becomes ``<file>.1`` in place of the one before, so at most twice that much is kept, the latest.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from adyton.protocol.devtee import Output

LIMIT = 32 << 20
_HEADER = struct.Struct(">BI")
_PIECE = 1 << 16
_STREAMS = {1: "stdout", 2: "stderr"}


class Logbook:
    """Pumps the two streams of one instance into its file. ``version`` grows whenever something was added."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, int] = {}  # read end -> stream
        self.version = 0
        self.ended = asyncio.Event()
        self._grew = asyncio.Event()

    def open_streams(self) -> tuple[int, int]:
        """Write ends for standard output and error; the caller closes its copies."""
        ends = []
        for stream in _STREAMS:
            read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(write, True)
            self._pipes[read] = stream
            self._loop.add_reader(read, self._pump, read)
            ends.append(write)
        return ends[0], ends[1]

    def _pump(self, read: int) -> None:
        try:
            data = os.read(read, _PIECE)
        except BlockingIOError:
            return
        if data:
            self._append(self._pipes[read], data)
        else:
            self._loop.remove_reader(read)
            os.close(read)
            del self._pipes[read]
        self._grow()
        if not self._pipes:
            self.close()

    def _append(self, stream: int, data: bytes) -> None:
        record = _HEADER.pack(stream, len(data)) + data
        try:
            size = os.fstat(self._file).st_size
            if os.write(self._file, record) < len(record):
                os.ftruncate(self._file, size)  # half a record would make nonsense of every later one
            elif size + len(record) > self._limit:
                self._path.rename(f"{self._path}.1")
                os.close(self._file)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            pass  # the disk is full: the workload goes on, this piece is lost

    def close(self) -> None:
        """Read no more."""
        for read in self._pipes:
            self._loop.remove_reader(read)
            os.close(read)
        self._pipes.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.ended.set()
        self._grow()

    async def wait(self, version: int) -> None:
        """Until there is more than at ``version``, or there will be no more."""
        if self.version == version and not self.ended.is_set():
            await self._grew.wait()

    def _grow(self) -> None:
        self.version += 1
        grew, self._grew = self._grew, asyncio.Event()  # each waiter has the event of its own moment: none is missed
        grew.set()


class Reader:
    """Reads a logbook from its beginning, also while it grows and is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = -1
        self._at = 0

    def more(self) -> Iterator[Output]:
        """What came since the last call."""
        earlier = self._path.with_name(self._path.name + ".1")
        if self._inode == -1:
            if earlier.exists():
                yield from self._records(earlier, 0)
        elif self._path.exists() and self._path.stat().st_ino != self._inode:
            yield from self._records(earlier, self._at)
            self._at = 0
        if self._path.exists():
            self._inode = self._path.stat().st_ino
            yield from self._records(self._path, self._at)

    def _records(self, path: Path, start: int) -> Iterator[Output]:
        with path.open("rb") as file:
            file.seek(start)
            while len(header := file.read(_HEADER.size)) == _HEADER.size:
                stream, length = _HEADER.unpack(header)
                if stream not in _STREAMS:
                    break  # damaged from here on
                data = file.read(length)
                if len(data) < length:
                    break  # being written right now
                start += _HEADER.size + length
                yield Output(_STREAMS[stream], data)
        self._at = start


def remove(path: Path) -> None:
    """Forget what was written."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".1").unlink(missing_ok=True)
