"""A file that is there when all of it is, or never: written beside its name, then put in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written(path: Path, mode: int = 0o600, *, replace: bool = True, durable: bool = True) -> Iterator[BinaryIO]:
    """Write it piece by piece; it is at ``path`` once the block has ended well. ``OSError``.

    Not ``replace``: ``FileExistsError`` if anything is there by then. ``durable``: its bytes are on the disk before its
    name is; that the name is, ``sync`` of the directory says.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if replace:
            part.replace(path)
        else:
            os.link(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def sync(directory: Path) -> None:
    """Names in ``directory`` are on the disk on return."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
