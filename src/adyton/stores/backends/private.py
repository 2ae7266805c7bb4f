"""Files that hold a PIN, a token or a key for a back end: read whole, and refused if anybody else may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adyton.errors import ConfigError

MAX_BYTES = 64 * 1024


def read_secret(path: str, field: str) -> str:
    """The first line of ``path`` without its end; ``ConfigError`` naming ``field``, never what is in the file."""
    text = read_private(path, field).partition(b"\n")[0].removesuffix(b"\r")
    if not text or not text.isascii() or not text.decode("ascii").isprintable():
        raise ConfigError(
            "a back end's credential file holds no credential",
            code="backend_credential_invalid",
            field=f"{field}: {path}",
            expected="one line of printable ASCII",
        )
    return text.decode("ascii")


def read_private(path: str, field: str) -> bytes:
    """All of ``path``: a regular file of this user, or of root, that nobody else may read or write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _unreadable(path, field) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in {os.geteuid(), 0}:
            raise ConfigError(
                "a back end's credential can be read by others",
                code="backend_credential_exposed",
                field=f"{field}: {path}",
                expected="a regular file of this user, mode 0600",
                got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
                hint="treat it as known: change it where it is checked, then write it into a file of mode 0600",
            )
        content = os.read(descriptor, MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, field) from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise _unreadable(path, field)
    return content


def check_not_writable(path: Path, field: str) -> None:
    """``ConfigError`` if others may write ``path``: it names programs and servers that are then trusted."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(str(path), field) from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in {os.geteuid(), 0}:
        raise ConfigError(
            "others may write a file that the broker trusts",
            code="backend_config_exposed",
            field=f"{field}: {path}",
            expected="a regular file of this user that nobody else may write",
            got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
            hint="see that it says what you wrote; then chmod go-w",
        )


def _unreadable(path: str, field: str) -> ConfigError:
    return ConfigError(
        "a back end's file cannot be read",
        code="backend_file_unreadable",
        field=f"{field}: {path}",
        hint="is it yours?",
    )
