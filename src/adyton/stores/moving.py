"""A store in a file, moved into an empty shared database: all of it, compared row by row, or nothing.

Nobody else has either of them open meanwhile. Sealed values stay as they are: the root key, the store's own name and
its data keys are the same afterwards, and so are the logs' roots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from adyton.errors import ConfigError, LogBroken, Unavailable
from adyton.stores import schema
from adyton.stores.audit_reading import AuditReading
from adyton.stores.database import SqliteDatabase
from adyton.stores.postgres import PostgresDatabase, PostgresTransaction
from adyton.stores.sql import Database, Row, Transaction

PAGE = 500
_NAME = re.compile(r'\s*CREATE TABLE ("?\w+"?)')
_Read: TypeAlias = Callable[[str, tuple[object, ...]], Iterable[Row]]


def move(source: SqliteDatabase, target: PostgresDatabase) -> dict[str, int]:
    """Copy and compare; how many rows each table has. ``ConfigError`` ``store_not_empty``, ``Unavailable`` ``copy_differs``."""
    counts: dict[str, int] = {}
    with target.filling(_moved) as transaction:
        if transaction.execute("SELECT count(*) FROM meta").fetchone() != (0,):
            raise ConfigError(
                "the database holds a store already",
                code="store_not_empty",
                field=target.where,
                hint="give an empty database",
            )
        for table in tables():
            columns, key = _columns(source, table)
            counts[table] = _copy(source, transaction, table, columns, key)
            _compare(source, transaction, table, columns, key)
    check_logs(source, target)
    return counts


def check_logs(source: SqliteDatabase, target: PostgresDatabase) -> None:
    """``LogBroken`` ``copy_differs`` unless every log of ``source`` is the beginning of the same in ``target``."""
    here, there = AuditReading(source), AuditReading(target)
    for tenant in here.tenants_with_rows():
        size = here.size(tenant)
        if there.size(tenant) < size or here.root(tenant, size) != there.root(tenant, size):
            raise LogBroken(
                "the log that was moved is another one",
                code="copy_differs",
                field=tenant,
                hint="empty the database, and move the store again",
            )


def held(database: Database) -> bytes | None:
    """The name of the store that is in there, empty if it has none yet; ``None`` if there is no store at all."""
    found = {name: bytes(value) for name, value in database.read("SELECT name, value FROM meta")}
    return found.get("store", b"") if found else None


def tables() -> list[str]:
    """The names of all tables, as statements write them."""
    return [found[1] for statement in schema.STATEMENTS if (found := _NAME.match(statement))]


def _moved(transaction: Transaction) -> bool:
    return bool(transaction.execute("SELECT count(*) FROM meta").fetchone() != (0,))


def _columns(source: SqliteDatabase, table: str) -> tuple[list[str], list[str]]:
    found = source.read(f"SELECT name, pk FROM pragma_table_info('{table.strip(chr(34))}')")  # noqa: S608 -- our tables
    key = [name for name, place in sorted(found, key=lambda column: column[1]) if place]
    return [name for name, _ in found], key


def _copy(
    source: SqliteDatabase, transaction: PostgresTransaction, table: str, columns: list[str], key: list[str]
) -> int:
    marks = ",".join("?" * len(columns))
    statement = f"INSERT INTO {table} ({','.join(columns)}) VALUES ({marks})"  # noqa: S608 -- our tables
    count = 0
    for page in _pages(source.read, table, columns, key):
        transaction.executemany(statement, page)
        transaction.flush()
        count += len(page)
    return count


def _compare(
    source: SqliteDatabase, transaction: PostgresTransaction, table: str, columns: list[str], key: list[str]
) -> None:
    theirs = _pages(lambda text, given: transaction.execute(text, given).fetchall(), table, columns, key)
    for page in _pages(source.read, table, columns, key):
        if next(theirs, []) != page:
            raise _differs(table)
    if next(theirs, []):
        raise _differs(table)


def _pages(read: _Read, table: str, columns: list[str], key: list[str]) -> Iterator[list[Row]]:
    chosen, order = ",".join(columns), ",".join(key)
    first = f"SELECT {chosen} FROM {table} ORDER BY {order} LIMIT {PAGE}"  # noqa: S608 -- our tables
    marks = ",".join("?" * len(key))
    after = f"SELECT {chosen} FROM {table} WHERE ({order}) > ({marks}) ORDER BY {order} LIMIT {PAGE}"  # noqa: S608
    places = [columns.index(name) for name in key]
    page = [tuple(row) for row in read(first, ())]
    while page:
        yield page
        page = [tuple(row) for row in read(after, tuple(page[-1][place] for place in places))]


def _differs(table: str) -> Unavailable:
    return Unavailable(
        "a table is not the same after it was copied; nothing was kept",
        code="copy_differs",
        field=table,
        hint="was something else writing there? try again with an empty database",
    )
