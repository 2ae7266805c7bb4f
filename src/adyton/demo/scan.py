"""Looking for plaintext: whether a marker lies anywhere under some paths, as it is or behind gzip.

A scan that cannot find anything proves nothing: callers run it first where the marker must be found.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What was read, and where the marker was found. ``unread`` lists files that could not be opened."""

    files: int
    bytes: int
    found: tuple[Path, ...]
    unread: tuple[Path, ...]


def scan(paths: Iterable[Path], marker: bytes) -> ScanResult:
    """Read every regular file under ``paths`` (links are not followed) and search it for ``marker``."""
    if len(marker) < 16:
        raise ValueError("a marker shorter than 16 bytes may occur by chance")
    files = size = 0
    found: list[Path] = []
    unread: list[Path] = []
    for path in _regular_files(paths):
        try:
            hit, length = _search(path, marker)
        except FileNotFoundError:
            continue  # a temporary file that its owner removed meanwhile
        except OSError:
            unread.append(path)
            continue
        files += 1
        size += length
        if hit:
            found.append(path)
    return ScanResult(files, size, tuple(found), tuple(unread))


def _regular_files(paths: Iterable[Path]) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for top in paths:
        entries = [top] if top.is_file() else [Path(root) / name for root, _, names in os.walk(top) for name in names]
        for path in entries:
            try:
                info = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                yield path


def _search(path: Path, marker: bytes) -> tuple[bool, int]:
    with path.open("rb") as file:
        hit, size = _search_stream(file, marker)
    if not hit:
        with path.open("rb") as file:
            if file.read(2) == _GZIP:
                file.seek(0)
                try:
                    with gzip.GzipFile(fileobj=file) as unpacked:
                        hit, _ = _search_stream(unpacked, marker)
                except (OSError, EOFError, zlib.error):
                    hit = False  # begins like gzip and is not
    return hit, size


def _search_stream(file: IO[bytes] | gzip.GzipFile, marker: bytes) -> tuple[bool, int]:
    size = 0
    tail = b""
    hit = False
    while piece := file.read(_CHUNK):
        size += len(piece)
        hit = hit or marker in tail + piece
        tail = piece[-(len(marker) - 1) :]
    return hit, size
