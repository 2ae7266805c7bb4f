"""Where the store of a data directory is, while it is moved from its file into a shared database, and after that.

A marker lies beside the file from before anything is copied until the file is put aside. As long as it does, no broker
opens the file, and the move is to be done again: whatever was copied is found there, or is not. After that the file has
another name, and no new store is begun in its place. So at any moment exactly one store can be gone on with.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from adyton.errors import ConfigError
from adyton.stores import whole_file

FILE = "broker.sqlite"
MARKER, ASIDE = FILE + ".moving", FILE + ".moved"


class _Marker(msgspec.Struct, frozen=True):
    """``store``: the name of the store (hex) that is moved; ``to``: the database, as an address without a password."""

    to: str
    store: str


def check(directory: Path) -> None:
    """``ConfigError`` ``store_moving`` or ``store_moved`` where a broker must not go on with a file, or begin one."""
    if (found := _read(directory)) is not None:
        raise ConfigError(
            "this store is being moved into a database, and that was not ended",
            code="store_moving",
            field=str(directory / FILE),
            got=found.to,
            hint="end it with the same command: adyton broker migrate --from sqlite:DIR --to URL; or take it back: --take-back",
        )
    if (directory / ASIDE).exists() and not (directory / FILE).exists():
        raise ConfigError(
            "this store was moved into a database",
            code="store_moved",
            field=str(directory / ASIDE),
            hint="adyton broker serve --database URL; for a new store, give another --data DIR",
        )


def begin(directory: Path, to: str, store: bytes) -> bool:
    """Nobody opens the file from now on; whether it was begun before. ``ConfigError`` if that was to another database."""
    found = _read(directory)
    if found is not None:
        if found.to != to:
            raise ConfigError(
                "this store is being moved into another database",
                code="store_moving",
                field="to",
                expected=found.to,
                got=to,
                hint="end that, or take it back: adyton broker migrate --take-back",
            )
        return True
    with whole_file.written(directory / MARKER) as file:
        file.write(msgspec.json.encode(_Marker(to, store.hex())))
    whole_file.sync(directory)
    return False


def under_way(directory: Path) -> str | None:
    """The name of the store (hex) that is being moved, if one is."""
    found = _read(directory)
    return found.store if found is not None else None


def take_back(directory: Path) -> None:
    """The file is the store again."""
    (directory / MARKER).unlink(missing_ok=True)
    whole_file.sync(directory)


def end(directory: Path) -> Path:
    """The database is the store: put the file aside, if that was not done; where it is then."""
    aside = directory / ASIDE
    if (directory / FILE).exists():
        (directory / FILE).rename(aside)
        whole_file.sync(directory)
    (directory / MARKER).unlink(missing_ok=True)
    whole_file.sync(directory)
    return aside


def _read(directory: Path) -> _Marker | None:
    try:
        return msgspec.json.decode((directory / MARKER).read_bytes(), type=_Marker)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            "what says that this store is being moved cannot be read",
            code="store_moving",
            field=str(directory / MARKER),
        ) from error
