"""How workers tell each other what they counted: one small file each, mapped into memory, in a private directory.

A worker writes its file once a second; nobody waits for anybody. ``sequence ‖ length ‖ CRC-32 ‖ MessagePack``: what was
read while it was being written does not fit its checksum, and is read again. What an ended worker had counted is folded
into ``past`` by whoever started it, so that sums never go back.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from adyton.broker.running.metrics import Snapshot, together

DIRECTORY = "run"
SIZE = 256 * 1024
_PAST = "past.metrics"
_HEAD = struct.Struct("<QII")
_TRIES = 5
_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(Snapshot)


def fresh(data: Path) -> Path:
    """The directory, empty, readable by its owner only: for a broker that begins."""
    directory = data / DIRECTORY
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


class Report:
    """The file of one worker, for writing."""

    def __init__(self, directory: Path, process: int) -> None:
        path = directory / f"{process}.metrics"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, SIZE)
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._sequence = 0

    def write(self, snapshot: Snapshot) -> None:
        """Tell; what does not fit is left out, and the old numbers stay."""
        body = _ENCODE(snapshot)
        if len(body) > SIZE - _HEAD.size:
            return
        self._sequence += 1
        self._map[_HEAD.size : _HEAD.size + len(body)] = body
        self._map[: _HEAD.size] = _HEAD.pack(self._sequence, len(body), zlib.crc32(body))

    def close(self) -> None:
        """Write no more; the file stays, for ``fold``."""
        self._map.close()


def read(directory: Path, *, but: int = 0) -> list[Snapshot]:
    """What all workers, past and present, told last; ``but`` is a process that is left out."""
    paths = [path for path in directory.glob("*.metrics") if path.name != f"{but}.metrics"]
    return [one for path in paths if (one := _one(path)) is not None]


def fold(directory: Path, process: int) -> None:
    """Put what an ended worker told into the past, and remove its file."""
    path = directory / f"{process}.metrics"
    ended = _one(path)
    if ended is not None:
        past = [one for one in (_one(directory / _PAST),) if one is not None]
        whole = together([*past, ended]).past()
        body = _ENCODE(whole)
        temporary = directory / f".{_PAST}"
        with suppress(OSError):
            temporary.write_bytes(_HEAD.pack(1, len(body), zlib.crc32(body)) + body)
            temporary.replace(directory / _PAST)
    path.unlink(missing_ok=True)


def _one(path: Path) -> Snapshot | None:
    for _ in range(_TRIES):
        try:
            content = path.read_bytes()
            _, length, check = _HEAD.unpack_from(content)
            body = content[_HEAD.size : _HEAD.size + length]
            if length and zlib.crc32(body) == check:
                return _DECODER.decode(body)
        except (OSError, struct.error, msgspec.DecodeError):
            return None
    return None
