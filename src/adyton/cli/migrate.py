"""``adyton broker migrate``: from a file into a database that several brokers share."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adyton.cli.output import json_option, print_json, say
from adyton.errors import AdytonError, ConfigError

if TYPE_CHECKING:
    from adyton.stores.postgres_address import DatabaseAddress


@click.command()
@click.option(
    "--from", "source", required=True, metavar="sqlite:DIR", help="The data directory of a broker that is stopped."
)
@click.option("--to", "target", required=True, metavar="URL", help="An empty database, postgresql://USER@HOST/NAME.")
@click.option(
    "--database-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its password: a file that only you read. Never in the URL.",
)
@click.option("--take-back", is_flag=True, help="Go on with the file after a move that did not come to its end.")
@json_option
def migrate(source: str, target: str, database_password_file: Path | None, take_back: bool, as_json: bool) -> None:
    """Move a broker's store from its file into a PostgreSQL database that several brokers share.

    Every row is compared, and the roots of the logs. Root key and admin token stay in DIR: all replicas need them.
    Interrupted at any point, it is ended by the same command; until then no broker opens the file.
    """
    from adyton.stores import moved
    from adyton.stores.lock import BrokerLock
    from adyton.stores.postgres_address import DatabaseAddress

    kind, _, place = source.partition(":")
    directory = Path(place)
    if kind != "sqlite" or not any((directory / name).is_file() for name in (moved.FILE, moved.ASIDE)):
        raise ConfigError(
            "there is no broker's store", code="setting_invalid", field="from", expected="sqlite:DIR", got=source[:200]
        )
    address = DatabaseAddress.read(target, database_password_file)
    lock = BrokerLock.take(directory)
    try:
        if not (directory / moved.FILE).is_file():
            if moved.under_way(directory) is None:
                moved.check(directory)
            moved.begin(directory, address.where, b"")  # into that database, and no other
            if take_back:
                raise _kept(address)
            counts = None
        elif take_back:
            _take_back(directory, address)
            if as_json:
                print_json({"taken_back": str(directory / moved.FILE)})
            else:
                say(f"the store is {directory / moved.FILE} again")
            return
        else:
            counts = _moved(directory, address)
        aside = moved.end(directory)  # two brokers that went on from both would be two histories
    finally:
        lock.release()
    if as_json:
        rows = None if counts is None else sum(counts.values())
        print_json({"rows": rows, "tables": counts, "to": address.where, "old": str(aside)})
        return
    if counts is None:
        say(f"moved      an earlier move into the {address.where} was ended: it has all of it")
    else:
        rows = sum(counts.values())
        say(
            f"moved      {rows} rows, of the audit log {counts['audit']}, into the {address.where}; compared row by row"
        )
    say(f"old file   {aside}")


def _moved(directory: Path, address: DatabaseAddress) -> dict[str, int] | None:
    """The rows by table; ``None`` if an earlier move had them all in the database already."""
    from adyton.stores import moved
    from adyton.stores.database import SqliteDatabase
    from adyton.stores.moving import check_logs, held, move  # with the package that reading the address asks for
    from adyton.stores.postgres import PostgresDatabase

    with closing(SqliteDatabase(directory / moved.FILE)) as old, closing(PostgresDatabase(address)) as new:
        ours = held(old) or b""
        if moved.begin(directory, address.where, ours) and held(new) == ours:
            check_logs(old, new)
            return None
        try:
            return move(old, new)
        except BaseException:
            with suppress(AdytonError):  # if nobody knows, the next time it is looked
                if held(new) != ours:
                    moved.take_back(directory)
            raise


def _take_back(directory: Path, address: DatabaseAddress) -> None:
    from adyton.stores import moved
    from adyton.stores.database import SqliteDatabase
    from adyton.stores.moving import held
    from adyton.stores.postgres import PostgresDatabase

    with closing(SqliteDatabase(directory / moved.FILE)) as old, closing(PostgresDatabase(address)) as new:
        if moved.under_way(directory) is not None:
            moved.begin(directory, address.where, b"")  # of that database, and no other
        if held(new) == (held(old) or b""):
            raise _kept(address)
    moved.take_back(directory)


def _kept(address: DatabaseAddress) -> ConfigError:
    return ConfigError(
        "the database has all of this store, and somebody may go on with it there",
        code="store_moving",
        field="to",
        got=address.where,
        hint="end the move: the same command without --take-back; or empty that database first",
    )
