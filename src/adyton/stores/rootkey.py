"""The default place of a root key: a file of exactly 32 bytes, mode 0600, apart from the store.

Whoever can read the file can read the store. A passphrase, KMS, HSM or TPM replaces it by handing the store 32 bytes
from elsewhere; the store itself never opens this file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adyton.errors import ConfigError

SIZE = 32


def load_or_create(path: Path) -> tuple[bytes, bool]:
    """The key in ``path`` and whether it was made just now. ``ConfigError`` if others may read it, or it is no key.

    Creation is atomic and durable: of two that create at once, both get the same key.
    """
    try:
        if not path.exists():
            _create(path)
            return _load(path), True
        return _load(path), False
    except OSError as error:
        raise _unreadable(path, error) from error


def load(path: Path) -> bytes:
    """The key in ``path``, which must be there; errors as ``load_or_create``."""
    try:
        return _load(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot use the root key's file: {error.strerror}",
        code="root_key_unreadable",
        field=str(path),
        hint="the file must belong to the broker's user, with mode 0600",
    )


def _create(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.urandom(SIZE))
        os.fsync(descriptor)
        try:
            os.link(temporary, path)  # unlike rename, does not replace a key that is there already
        except FileExistsError:
            return
    finally:
        os.close(descriptor)
        temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _load(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise ConfigError(
                "the root key's file can be read by others",
                code="root_key_exposed",
                field=str(path),
                expected="a regular file of this user, mode 0600",
                got=f"mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid}",
                hint="treat the key as known: make a new store; then chmod 600",
            )
        key = os.read(descriptor, SIZE + 1)
    finally:
        os.close(descriptor)
    if len(key) != SIZE:
        raise ConfigError(
            "the root key's file does not hold a key",
            code="root_key_invalid",
            field=str(path),
            expected=f"exactly {SIZE} bytes",
            got=f"{status.st_size} bytes",
            hint="restore the file from a backup; with another key the store cannot be read",
        )
    return key
