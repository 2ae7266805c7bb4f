"""How workers tell each other what they counted: one small file each, in a private directory.

A worker writes its file once a second; nobody waits for anybody. ``sequence ‖ length ‖ CRC-32 ‖ MessagePack``: what was
read while it was being written does not fit its checksum, and is read again. What an ended worker had counted is folded
into ``past`` by whoever started it, so that sums never go back. On a disk that is full nothing is told, and nobody ends.
"""

from __future__ import annotations

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
    if not directory.is_dir():
        directory.unlink(missing_ok=True)
    directory.mkdir(mode=0o700)
    return directory


class Report:
    """The file of one worker, for writing. Its room is reserved first, so that a later write finds it."""

    def __init__(self, directory: Path, process: int) -> None:
        self._path = directory / f"{process}.metrics"
        self._descriptor = -1
        self._sequence = 0

    def write(self, snapshot: Snapshot) -> None:
        """Tell; what does not fit, or cannot be written, is left out, and the old numbers stay."""
        body = _ENCODE(snapshot)
        if len(body) > SIZE - _HEAD.size:
            return
        self._sequence += 1
        with suppress(OSError):
            if self._descriptor < 0:
                self._descriptor = self._open()
            os.pwrite(self._descriptor, _HEAD.pack(self._sequence, len(body), zlib.crc32(body)) + body, 0)

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def close(self) -> None:
        """Write no more; the file stays, for ``fold``."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


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
