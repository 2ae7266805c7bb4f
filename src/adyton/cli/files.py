"""Files that a command reads or writes because it was told to.

Reading is bounded: a device may never end. Writing is whole or not at all, and nothing but a regular file is replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from adyton.errors import ConfigError
from adyton.stores import whole_file

MAX_READ = 4 * 1024 * 1024  # keys, certificates, settings, documents: all of them are far smaller
_DEVICES = Path("/dev")


def read(path: Path, most: int = MAX_READ) -> bytes:
    """All of a file of at most ``most`` bytes; ``ConfigError`` ``file_unreadable``."""
    try:
        with path.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or type(error).__name__}", code="file_unreadable", field=str(path)
        ) from error
    except ValueError as error:  # a NUL byte in its name
        raise ConfigError(f"cannot read {path}: not a name", code="file_unreadable", field=str(path)) from error
    if len(content) > most:
        raise ConfigError(
            f"cannot read {path}: too large",
            code="file_unreadable",
            field=str(path),
            expected=f"at most {most} bytes",
            got="more",
        )
    return content


def read_text(path: Path, most: int = MAX_READ) -> str:
    """The same of a text in UTF-8."""
    try:
        return read(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: not UTF-8 text", code="file_unreadable", field=str(path)) from error


def write(path: Path, content: bytes, *, private: bool = False) -> None:
    """Put ``content`` at ``path`` in place of what was there; ``private``: only its owner reads it. ``ConfigError``.

    A device or a pipe (``/dev/null``, ``/dev/stdout``) is written to as it stands.
    """
    with unwritable(path):
        if _is_written_through(path):
            with path.open("wb") as opened:
                opened.write(content)
            return
        with whole_file.written(path, 0o600 if private else 0o666, durable=False) as opened:
            opened.write(content)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """As ``write``, piece by piece, for its owner's eyes alone: at ``path`` when all of it is there, or never."""
    with unwritable(path):
        if _is_written_through(path):
            with path.open("wb") as opened:
                yield opened
            return
        with whole_file.written(path, durable=False) as opened:
            yield opened


@contextmanager
def new(path: Path, hint: str) -> Iterator[BinaryIO]:
    """A new file for its owner alone, made before what shall stand in it; gone again if that fails. ``ConfigError``."""
    with unwritable(path):
        opened = _made(path, 0o600)
    try:
        yield opened
        with unwritable(path, hint):
            opened.close()
    except BaseException:
        with suppress(OSError):
            opened.close()
        path.unlink(missing_ok=True)
        raise


@contextmanager
def unwritable(path: Path, hint: str | None = None) -> Iterator[None]:
    """``ConfigError`` ``file_unwritable`` instead of what the system says."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", code="file_unwritable", field=str(path), hint=hint
        ) from error


def _made(path: Path, mode: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")


def _is_written_through(path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(found.st_mode) or path.absolute().parent == _DEVICES  # /dev/stdout may lead to a file
