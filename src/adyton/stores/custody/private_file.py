"""Reading and writing files that hold a secret: this user's, regular, mode 0600, never through a symbolic link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adyton.errors import ConfigError
from adyton.stores import whole_file


def read(path: Path, what: str, *, limit: int = 64 * 1024) -> bytes:
    """The file's bytes; ``ConfigError`` if others may read it, or it is a link, or too long."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"{what} cannot be read: {error.strerror}",
            code="secret_file_unreadable",
            field=str(path),
            hint="a regular file of this user with mode 0600, not a symbolic link",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}:
            raise ConfigError(
                f"{what} can be read by others",
                code="secret_file_exposed",
                field=str(path),
                expected="a regular file of this user, mode 0600",
                got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
                hint="treat what is in it as known, make a new one, and chmod 600",
            )
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ConfigError(f"{what} is too long", code="secret_file_unreadable", field=str(path), expected=limit)
    return content


def write(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write it whole or not at all, durable on return; ``ConfigError`` ``secret_file_exists`` unless ``replace``."""
    try:
        with whole_file.written(path, replace=replace) as file:
            file.write(content)
        whole_file.sync(path.parent)
    except FileExistsError as error:
        raise ConfigError("the file is there already", code="secret_file_exists", field=str(path)) from error
    except OSError as error:
        raise ConfigError(
            f"the file cannot be written: {error.strerror}", code="secret_file_unwritable", field=str(path)
        ) from error
