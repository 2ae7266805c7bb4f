"""What a broker's process needs before it can be one: its store, with the root key, and the admin's token."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime

from adyton.broker.custodians.custody import RootKeyFinder
from adyton.broker.running import replicas
from adyton.broker.settings import Settings
from adyton.errors import ConfigError
from adyton.stores.sql import Database
from adyton.stores.sqlite import Store


def open_store(
    settings: Settings, instance: str | None = None, root_key: bytes | Callable[[Database], bytes] | None = None
) -> Store:
    """The store of the data directory; the first to open it becomes its broker.

    ``root_key``: as the first process found it, or how it finds it; by default in the plain file.
    """
    store = Store.open(
        settings.directory,
        root_key=root_key or RootKeyFinder(settings),
        now=datetime.fromtimestamp(time.time(), UTC),
        instance=instance,
        database=replicas.opener(settings),
    )
    if settings.workers > 1 and not store.shared:
        store.among_others(settings.directory)
    return store


def read_token(settings: Settings) -> str:
    """The admin's token; ``ConfigError`` if its file is missing or too short to be one."""
    try:
        mode = stat.S_IMODE(settings.admin_token.stat().st_mode)
        token = settings.admin_token.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the admin token cannot be read", code="admin_token_unreadable", field=str(settings.admin_token)
        ) from error
    if mode & 0o077:
        raise ConfigError(
            "the admin token's file can be read by others",
            code="admin_token_exposed",
            field=str(settings.admin_token),
            expected="mode 0600",
            got=f"mode {mode:04o}",
            hint="treat the token as known: delete the file, and the broker makes a new one at its next start",
        )
    if len(token) < 32:
        raise ConfigError(
            "the admin token is too short",
            code="admin_token_short",
            field=str(settings.admin_token),
            expected="at least 32 characters",
            got=len(token),
            hint="delete the file: the broker makes a new one at its next start",
        )
    return token
