"""A store moved from its file into PostgreSQL: everything, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.postgresql import Server

from adyton.errors import ConfigError, Unavailable
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import moving
from adyton.stores.database import SqliteDatabase
from adyton.stores.postgres import PostgresDatabase
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ROW = AuditRow("attest", "allowed")
ROOT_KEY = bytes(range(32))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "old", root_key=ROOT_KEY, now=NOW)
    for number in range(1203):
        store.resources.set("default", ResourcePath("a", "b", str(number)), b"v%d" % number, Binding(), NOW)
    store.audit._commit([("default", ROW, NOW)] * 700)
    store.audit._commit([("other", ROW, NOW)] * 3)
    store.references.set("other", "name", [1], None, NOW)
    store.policies.set("other", "resource", "p", "package policy", NOW)
    store.sealer.rotate(NOW)
    store.secrets.set("key", b"secret")
    store.close()
    return tmp_path / "old"


@pytest.fixture
def target(postgresql: Server) -> Iterator[PostgresDatabase]:
    opened = postgresql.opener()()
    yield opened
    opened.close()


def test_a_database_that_is_not_empty_is_left_alone(filled: Path, postgresql: Server, tmp_path: Path) -> None:
    opener = postgresql.opener()
    Store.open(tmp_path / "x", root_key=ROOT_KEY, now=NOW, database=opener).close()
    source, there = SqliteDatabase(filled / FILE), opener()
    with pytest.raises(ConfigError) as caught:
        moving.move(source, there)
    assert caught.value.code == "store_not_empty"
    assert there.read("SELECT count(*) FROM resources") == [(0,)]
    source.close()
    there.close()


def test_a_copy_that_differs_is_not_kept(
    filled: Path, target: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SqliteDatabase(filled / FILE)
    compare = moving._compare

    def meddled(source: Any, transaction: Any, table: str, *rest: Any) -> None:
        if table == "resources":
            transaction.execute("UPDATE resources SET size=size+1 WHERE path='a/b/1200'")
        compare(source, transaction, table, *rest)

    monkeypatch.setattr(moving, "_compare", meddled)
    with pytest.raises(Unavailable) as caught:
        moving.move(source, target)
    assert caught.value.code == "copy_differs" and caught.value.field == "resources"
    assert target.read("SELECT count(*) FROM resources") == [(0,)]
    source.close()


def test_everything_is_moved(filled: Path, postgresql: Server, tmp_path: Path) -> None:
    opener = postgresql.opener()
    source, there = SqliteDatabase(filled / FILE), opener()
    counts = moving.move(source, there)
    assert (counts["resources"], counts["audit"], counts["data_keys"]) == (1203, 703, 2)
    assert set(counts) >= {'"references"', "audit_nodes", "secrets", "policies"}
    source.close()
    there.close()
    old = Store.open(filled, root_key=ROOT_KEY, now=NOW)
    new = Store.open(tmp_path / "new", root_key=ROOT_KEY, now=NOW, database=opener)
    try:
        assert new.resources.list("default") == old.resources.list("default")
        assert new.audit.verify("default") == old.audit.verify("default")
        assert new.secrets.get("key") == b"secret" and new.generation("other") == old.generation("other")
        assert new.audit.append("default", ROW, NOW) == 701
        assert new.sealer.rotate(NOW) == 3
    finally:
        old.close()
        new.close()
