"""The keys of audit logs that this machine has met, one file each: what is checked offline is checked with these.

As with host keys: the first key of a log that a command of ours gets from its broker, over its pinned connection, is
kept; another key under the same origin is an error from then on. ``--key`` replaces all of that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adyton.cli.output import say
from adyton.cli.places import places
from adyton.errors import ConfigError, LogBroken

if TYPE_CHECKING:
    from adyton.client.admin import Admin
    from adyton.protocol.checkpoint import LogKey


def _directory() -> Path:
    return places().home / "log-keys"


def _file(origin: str) -> Path:
    return _directory() / hashlib.sha256(origin.encode()).hexdigest()[:32]


def of_broker(admin: Admin) -> LogKey:
    """The key of this broker's log, kept for later; ``LogBroken`` ``log_key_changed`` if it was another one before."""
    from adyton.protocol.checkpoint import LogKey

    key = LogKey.parse(admin.audit_key().key)
    known = _known(key.name)
    if known is None:
        _keep(key)
    elif known != key:
        raise LogBroken(
            "this log is signed with another key than before",
            code="log_key_changed",
            field="key",
            expected=known.text(),
            got=key.text(),
            hint=f"if its owner says that this is right: delete {_file(key.name)}",
        )
    return key


def for_origin(origin: str, given: Sequence[str]) -> list[LogKey]:
    """The keys to believe of a log: those that were ``given`` (as text, or files that hold it), or the one that is known.

    ``ConfigError`` ``log_key_unknown`` where there is none: a checkpoint is worth what its key is.
    """
    from adyton.protocol.checkpoint import LogKey

    if given:
        return [LogKey.parse(_text(one)) for one in given]
    known = _known(origin)
    if known is None:
        raise ConfigError(
            "the key of this log is not known on this machine",
            code="log_key_unknown",
            field="key",
            expected=f"the key of {origin[:200]}",
            hint="give --key, with what `adyton audit key` says where the broker can be reached",
        )
    return [known]


def _known(origin: str) -> LogKey | None:
    from adyton.protocol.checkpoint import LogKey

    try:
        key = LogKey.parse(_file(origin).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:  # not *unknown*: then whatever key comes next would be believed
        raise ConfigError(
            "the key that this log had before cannot be read",
            code="log_key_unreadable",
            field=str(_file(origin)),
            hint="make it readable; or delete it, and whichever key the broker says next is believed",
        ) from error
    return key if key.name == origin else None


def _keep(key: LogKey) -> None:
    file = _file(key.name)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        try:
            part.write_text(key.text() + "\n")
            part.rename(file)
        finally:
            with suppress(OSError):
                part.unlink()
    except OSError as error:
        say(f"the log's key cannot be kept for later ({error.strerror}: {file.parent}): give --key where it is needed")


def _text(given: str) -> str:
    path = Path(given)
    if "+" in given and not path.exists():
        return given
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the log's key cannot be read",
            code="log_key_unreadable",
            field=given[:200],
            hint="a key, or a file with one",
        ) from error
