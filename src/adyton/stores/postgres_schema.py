"""The tables in PostgreSQL: made, checked and brought up to date in one transaction, by one process at a time.

``adyton_schema`` holds one row: whose tables these are and which version. Every transaction that writes reads it, so a
broker that runs on while another version takes the database over writes nothing from then on, and the taking over waits
for what is being written. ``adyton_outcomes`` remembers transactions by a random token for a day, so that a commit whose
answer was lost can be looked up.
"""

from __future__ import annotations

from typing import Protocol

from adyton.errors import ConfigError
from adyton.stores import migrations, schema
from adyton.stores.postgres_sql import REFUSE
from adyton.stores.sql import Transaction

OLDEST_SERVER = 130000
FIRST_VERSION = 4
VERSION = "SELECT version FROM adyton_schema"
OUTCOME_SECONDS = 86400
FORGET = "DELETE FROM adyton_outcomes WHERE at < extract(epoch from clock_timestamp()) - ?"
REMEMBER = "INSERT INTO adyton_outcomes VALUES ($1, extract(epoch from clock_timestamp()))"
OUTCOME = "SELECT 1 FROM adyton_outcomes WHERE token = $1"
OWN = (
    "CREATE TABLE adyton_schema (application BIGINT NOT NULL, version BIGINT NOT NULL)",
    "CREATE TABLE adyton_outcomes (token BYTEA PRIMARY KEY, at DOUBLE PRECISION NOT NULL)",
)
_THERE = "SELECT to_regclass('adyton_schema') IS NOT NULL, to_regclass('meta') IS NOT NULL"
_SETTINGS = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync'),"
    " current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('transaction_read_only')"
)


class Making(Protocol):
    """A transaction that may also be given PostgreSQL's own words."""

    def raw(self, statement: str, /) -> object:
        """Run a statement as it stands."""
        ...


class MakingTransaction(Transaction, Making, Protocol):
    """Both."""


def prepare(transaction: MakingTransaction, where: str) -> None:
    """Make the tables, or bring them up to date, inside ``transaction``; ``ConfigError`` for somebody else's."""
    ours, others = transaction.execute(_THERE).fetchone()
    if not ours:
        if others:
            raise foreign(where)
        for statement in (REFUSE, *OWN):
            transaction.raw(statement)
        for statement in schema.STATEMENTS:
            transaction.execute(statement)
        transaction.execute("INSERT INTO adyton_schema VALUES (?, ?)", (schema.APPLICATION_ID, schema.VERSION))
        return
    rows = transaction.execute("SELECT application, version FROM adyton_schema").fetchall()
    if len(rows) != 1 or rows[0][0] != schema.APPLICATION_ID:
        raise foreign(where)
    version = rows[0][1]
    if FIRST_VERSION <= version < schema.VERSION:
        transaction.raw("LOCK TABLE adyton_schema IN ACCESS EXCLUSIVE MODE")  # after what others are writing
        migrations.bring_up(transaction, version)
        transaction.execute("UPDATE adyton_schema SET version=?", (schema.VERSION,))
    elif version != schema.VERSION:
        raise another_version(where, version)


def check_server(transaction: Transaction, where: str) -> None:
    """``ConfigError`` for a server that may lose what it acknowledged, or cannot hold the tables."""
    version, encoding, *durable, read_only = transaction.execute(_SETTINGS).fetchone()
    if version < OLDEST_SERVER:
        raise _unfit(where, "server_version", f"{OLDEST_SERVER // 10000} or newer", version // 10000)
    if encoding != "UTF8":
        raise _unfit(where, "server_encoding", "UTF8", encoding)
    for name, got in zip(("fsync", "full_page_writes", "synchronous_commit"), durable, strict=True):
        if got == "off":
            raise _unfit(where, name, "on", got, "what it acknowledges may be lost when its machine stops")
    if read_only != "off":
        raise _unfit(where, "transaction_read_only", "off", read_only)


def foreign(where: str) -> ConfigError:
    """Somebody else's tables."""
    return ConfigError(
        "this database is not a broker's store",
        code="store_foreign",
        field=where,
        hint="give the brokers a database of their own",
    )


def another_version(where: str, got: int) -> ConfigError:
    """A schema that this program does not write."""
    return ConfigError(
        "the store was written by another version of Adyton",
        code="store_version",
        field=where,
        expected=schema.VERSION,
        got=got,
        hint="run the version that wrote it, or a newer one",
    )


def _unfit(where: str, name: str, expected: object, got: object, why: str = "the broker needs it") -> ConfigError:
    return ConfigError(
        f"the database is not set up for a broker: {why}",
        code="store_unsafe",
        field=f"{name} of the {where}",
        expected=expected,
        got=got,
        hint="have it set so by whoever runs the database",
    )
