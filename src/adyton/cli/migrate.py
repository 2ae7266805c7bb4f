"""``adyton broker migrate``: from a file into a database that several brokers share."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from adyton.cli.output import json_option, print_json, say
from adyton.errors import ConfigError


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
@json_option
def migrate(source: str, target: str, database_password_file: Path | None, as_json: bool) -> None:
    """Move a broker's store from its file into a PostgreSQL database that several brokers share.

    Every row is compared, and the roots of the logs. Root key and admin token stay in DIR: all replicas need them.
    """
    from adyton.stores.database import SqliteDatabase
    from adyton.stores.lock import BrokerLock
    from adyton.stores.postgres_address import DatabaseAddress
    from adyton.stores.sqlite import FILE

    kind, _, place = source.partition(":")
    file = Path(place) / FILE
    if kind != "sqlite" or not file.is_file():
        raise ConfigError(
            "there is no broker's store", code="setting_invalid", field="from", expected="sqlite:DIR", got=source[:200]
        )
    address = DatabaseAddress.read(target, database_password_file)
    from adyton.stores.moving import move  # with the package that the line before asks for
    from adyton.stores.postgres import PostgresDatabase

    lock = BrokerLock.take(file.parent)
    try:
        with closing(SqliteDatabase(file)) as old, closing(PostgresDatabase(address)) as new:
            counts = move(old, new)
        file.rename(moved := file.with_name(FILE + ".moved"))  # two brokers that went on from it would be two histories
    finally:
        lock.release()
    rows = sum(counts.values())
    if as_json:
        print_json({"rows": rows, "tables": counts, "to": address.where, "old": str(moved)})
        return
    say(f"moved      {rows} rows, of the audit log {counts['audit']}, into the {address.where}; compared row by row")
    say(f"old file   {moved}")
