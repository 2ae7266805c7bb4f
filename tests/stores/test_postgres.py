"""PostgreSQL under the store's tables: what is refused before it is used, and how statements are spelt for it."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.postgresql import Server

import adyton.stores
from adyton.errors import AdytonError, ConfigError, MalformedRequest, Unavailable
from adyton.stores.postgres import PostgresDatabase
from adyton.stores.postgres_address import DatabaseAddress
from adyton.stores.postgres_sql import translate
from adyton.stores.sql import Database

# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://u:hunter2@db/x", "database_password_shown"),
        ("postgresql://u@db/x?password=hunter2", "database_password_shown"),
        ("postgresql://u@db/x?sslpassword=hunter2", "database_password_shown"),
        ("postgresql://u@db/x?sslmode=prefer", "database_address"),
        ("postgresql://u@db/x?sslmode=allow", "database_address"),
        ("postgresql://u:hunter2@db/x?nonsense=1", "database_address"),
        ("mysql://u:hunter2@db/x", "database_address"),
        ("host=db password=hunter2", "database_address"),
        ("", "database_address"),
    ],
)
def test_addresses_that_are_refused_without_saying_the_password(url: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DatabaseAddress.read(url)
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value.as_dict()) and "hunter2" not in repr(caught.value.__cause__)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_an_error_of_the_tree(text: str) -> None:
    for url in (text, f"postgresql://{text}"):
        with contextlib.suppress(AdytonError):
            assert isinstance(DatabaseAddress.read(url), DatabaseAddress)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://u@db.example/x", "verify-full"),
        ("postgresql://u@127.0.0.1,db.example/x", "verify-full"),
        ("postgresql://u@db.example/x?sslmode=require", "require"),
        ("postgresql://u@localhost/x", None),
        ("postgresql://u@/x?host=/run/postgresql", None),
        ("postgresql:///x", None),
    ],
)
def test_a_server_elsewhere_is_checked_unless_words_say_otherwise(url: str, mode: str | None) -> None:
    assert DatabaseAddress.read(url).parameters.get("sslmode") == mode


def test_a_password_comes_from_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        DatabaseAddress.read("postgresql://u@db/x", file)
    assert caught.value.code == "database_password_exposed"
    file.chmod(0o600)
    address = DatabaseAddress.read("postgresql://u@db/x", file)
    assert address.parameters["password"] == "hunter2" and "hunter2" not in repr(address) + address.where
    with pytest.raises(ConfigError):
        DatabaseAddress.read("postgresql://u@db/x", tmp_path / "none")


def test_nobody_there_is_said_in_time() -> None:
    with pytest.raises(Unavailable) as caught:
        PostgresDatabase(DatabaseAddress.read("postgresql://u@127.0.0.1:1/x"), patience=0.2)
    assert caught.value.code == "store_unreachable"


def test_whom_the_server_does_not_let_in(postgresql: Server) -> None:
    url = postgresql.url("nowhere")
    with pytest.raises(ConfigError) as caught:
        PostgresDatabase(DatabaseAddress.read(url), patience=0.2)
    assert caught.value.code == "store_unusable"


def test_a_server_that_may_forget_is_refused(postgresql: Server) -> None:
    url = postgresql.schema() + "%20-csynchronous_commit%3Doff"
    with pytest.raises(ConfigError) as caught:
        PostgresDatabase(DatabaseAddress.read(url), patience=0.2)
    assert caught.value.code == "store_unsafe" and caught.value.got == "off"


def test_somebody_elses_tables_are_left_alone(postgresql: Server) -> None:
    url = postgresql.schema()
    schema = url.rpartition("%3D")[2]
    postgresql.sql(f"CREATE TABLE {schema}.meta (x int)", "tests")
    with pytest.raises(ConfigError) as caught:
        PostgresDatabase(DatabaseAddress.read(url), patience=0.2)
    assert caught.value.code == "store_foreign"


# ---------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("SELECT a FROM t WHERE b=? AND c=?", "SELECT a FROM t WHERE b=$1 AND c=$2"),
        ("SELECT '?', \"?\" FROM t -- what?\nWHERE a=?", "SELECT '?', \"?\" FROM t -- what?\nWHERE a=$1"),
        ("SELECT 'it''s ?' WHERE a=?", "SELECT 'it''s ?' WHERE a=$1"),
        ("SELECT x'0aFF', max('')", "SELECT '\\x0aFF'::bytea, max('')"),
        (
            "CREATE TABLE t (a TEXT NOT NULL, b BLOB, c REAL, d INTEGER, PRIMARY KEY (a)) WITHOUT ROWID, STRICT\n",
            'CREATE TABLE t (a TEXT COLLATE "C" NOT NULL, b BYTEA, c DOUBLE PRECISION, d BIGINT, PRIMARY KEY (a))',
        ),
        ("ALTER TABLE t ADD COLUMN e INTEGER", "ALTER TABLE t ADD COLUMN e BIGINT"),
        ("SELECT 'TEXT' AS INTEGER", "SELECT 'TEXT' AS INTEGER"),
    ],
)
def test_statements_are_spelt_for_postgresql(given: str, spelt: str) -> None:
    assert translate(given) == (spelt,)


@pytest.mark.parametrize(
    "statement", ["INSERT OR REPLACE INTO t VALUES (?)", "insert or ignore into t values (1)", "PRAGMA x"]
)
def test_what_only_sqlite_reads_is_a_mistake_of_ours(statement: str) -> None:
    with pytest.raises(ValueError, match="only SQLite"):
        translate(statement)


def test_no_table_says_what_only_sqlite_reads() -> None:
    for file in Path(adyton.stores.__path__[0]).rglob("*.py"):
        if file.name in {"database.py", "postgres_sql.py"} or "PRAGMA" in file.read_text():
            continue
        assert not re.search(r"\bINSERT OR\b|\bIFNULL\(", file.read_text()), file


@pytest.mark.parametrize(
    "value", [0, 1, -(2**63), 2**63 - 1, 1.5, -0.0, 1e300, 5e-324, "", "ä\U0001f600", b"", bytes(range(256)), None]
)
def test_values_come_back_as_they_went(postgresql: Server, shared: Database, value: Any) -> None:
    column = {int: "version", float: "expires", str: "name", bytes: "proof"}.get(type(value), "expires")
    row = {"version": 1, "expires": 0.5, "name": "n", "proof": b"p", column: value}
    with shared.write() as transaction:
        transaction.execute('DELETE FROM "references" WHERE tenant=?', ("t",))
        transaction.execute(
            "INSERT INTO \"references\" VALUES (?,?,0,?,1.0,NULL,?,'s','p',?,2,x'00')",
            ("t", row["name"], row["version"], row["expires"], row["proof"]),
        )
    found = shared.read(f'SELECT {column} FROM "references" WHERE tenant=?', ("t",))
    assert found == [(value,)] and type(found[0][0]) is type(value)


def test_a_text_that_postgresql_cannot_hold_is_the_askers_fault(shared: Database) -> None:
    with pytest.raises(MalformedRequest):
        shared.read("SELECT changes FROM tenants WHERE name=?", ("a\0b",))
    assert shared.read("SELECT sum(changes), count(*) FROM tenants") == [(None, 0)]


def test_texts_are_in_the_order_of_their_bytes(shared: Database) -> None:
    with shared.write() as transaction:
        transaction.executemany("INSERT INTO meta VALUES (?, x'00')", [("b",), ("A",), ("a",), ("Z",), ("ä",), ("_",)])
        assert transaction.execute("SELECT name FROM meta ORDER BY name").fetchmany(3) == [("A",), ("Z",), ("_",)]
    assert [row[0] for row in shared.read("SELECT name FROM meta ORDER BY name")] == ["A", "Z", "_", "a", "b", "ä"]
    with shared.write() as transaction:
        transaction.execute("DELETE FROM meta")


@pytest.mark.parametrize("change", ["UPDATE audit SET time=0", "DELETE FROM audit", "TRUNCATE audit"])
def test_the_record_is_append_only(shared: Database, change: str) -> None:
    with shared.write() as transaction:
        transaction.execute(
            "INSERT INTO audit VALUES (?,1,0.0,x'00',x'00') ON CONFLICT (tenant, sequence) DO NOTHING", ("t",)
        )
    with pytest.raises(Unavailable), shared.write() as transaction:
        transaction.execute(change)
    assert shared.read("SELECT count(*) FROM audit") == [(1,)]


def test_writers_of_one_name_come_one_after_the_other(shared: Database) -> None:
    inside: list[int] = []
    most = 0

    def write() -> None:
        nonlocal most
        for _ in range(10):
            with shared.write("one") as transaction:
                transaction.execute("SELECT 1")
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_of_several_that_make_the_tables_one_does(postgresql: Server) -> None:
    opener, failed = postgresql.opener(), []

    def opened() -> None:
        try:
            opener().close()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.fixture(scope="module")
def shared(postgresql: Server) -> Any:
    database = postgresql.opener()()
    yield database
    database.close()
