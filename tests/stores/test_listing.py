"""A list of resources opens no value, tells what each really is, and believes no row that was put in its place."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adyton.errors import Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.keys import Material
from adyton.stores.resource_rows import Elsewhere
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MINE, ANY = Binding(workloads=["sha256:" + "11" * 32]), Binding(any_workload_i_accept=True)
VALUE, KEY, FAR = (ResourcePath("a", "b", name) for name in ("value", "key", "zfar"))


def opened(directory: Path) -> Store:
    return Store.open(directory, root_key=bytes(32), now=NOW)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store = opened(tmp_path)
    store.resources.set("default", VALUE, bytes(5000), MINE, NOW)
    store.resources.set("default", FAR, Elsewhere("vault", "7", 3, 12), ANY, NOW)
    record = key_record.make("aes-256", KeyVersion(1, State.ENABLED, 1, 1))
    store.keys.create("default", KEY, record, Material(bytes(32)), MINE, NOW)
    store.resources.set("other", VALUE, b"theirs", ANY, NOW)
    store.close()
    return tmp_path


def change(directory: Path, statement: str, *given: Any) -> None:
    connection = sqlite3.connect(directory / FILE)
    with connection:
        assert connection.execute(statement, given).rowcount
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE resource_heads SET sealed=(SELECT sealed FROM resource_heads WHERE tenant='other') WHERE path='a/b/value'",
        "UPDATE resource_heads SET sealed=(SELECT sealed FROM resource_heads WHERE path='a/b/key') WHERE path='a/b/value'",
        "UPDATE resource_heads SET sealed=(SELECT sealed FROM resources WHERE path='a/b/value') WHERE path='a/b/value'",
        "UPDATE resource_heads SET sealed=zeroblob(80) WHERE path='a/b/value'",
    ],
)
def test_a_head_of_something_else_is_found_out(directory: Path, statement: str) -> None:
    change(directory, statement)
    store = opened(directory)
    with pytest.raises(Unavailable) as caught:
        store.resources.list("default")
    assert caught.value.code == "sealed_value_broken"
    found = store.resources.get("default", VALUE)  # what is released never was by the head
    assert found is not None and found.binding == MINE
    store.close()


def test_an_older_head_of_the_same_resource_does_not_count(directory: Path) -> None:
    connection = sqlite3.connect(directory / FILE)
    older = connection.execute(
        "SELECT version, sealed FROM resource_heads WHERE path='a/b/value' AND tenant='default'"
    ).fetchone()
    connection.close()
    store = opened(directory)
    store.resources.bind("default", VALUE, ANY, NOW)
    store.close()
    change(
        directory, "UPDATE resource_heads SET version=?, sealed=? WHERE path='a/b/value' AND tenant='default'", *older
    )
    store = opened(directory)
    assert [info.binding for info in store.resources.list("default") if info.path == VALUE] == [ANY]
    store.close()


def test_it_says_what_each_one_says_of_itself(directory: Path) -> None:
    store = opened(directory)
    listed = store.resources.list("default")
    assert [info for path in ("", *(str(one.path) for one in listed)) for info in
            store.resources.list("default", after=path, limit=1)] == listed  # fmt: skip
    assert store.resources.list("default", limit=2) == listed[:2] and not store.resources.list("nobody", limit=9)
    assert store.keys.list("default", after=str(KEY)) == [] and len(store.keys.list("default", limit=1)) == 1
    each = [store.resources.get("default", path) for path in (KEY, VALUE, FAR)]
    assert listed == [one.info for one in each if one is not None]
    assert [info.size for info in listed] == [0, 5000, 12]
    assert [one.info.path for one in store.keys.list("default")] == [KEY]
    store.resources.delete("default", VALUE)
    assert [info.path for info in store.resources.list("default")] == [KEY, FAR]
    store.close()
    connection = sqlite3.connect(directory / FILE)
    assert connection.execute("SELECT count(*) FROM resource_heads WHERE tenant='default'").fetchone() == (2,)
    connection.close()


def test_what_was_set_before_there_were_heads_is_listed(directory: Path) -> None:
    store = opened(directory)
    before = store.resources.list("default")
    store.close()
    change(directory, "DELETE FROM resource_heads")
    store = opened(directory)
    assert store.resources.list("default") == before
    store.resources.bind("default", VALUE, ANY, NOW)
    assert {info.path: info.binding for info in store.resources.list("default")}[VALUE] == ANY
    store.close()


def test_a_list_opens_no_value(directory: Path) -> None:
    change(directory, "UPDATE resources SET sealed=zeroblob(90)")
    store = opened(directory)
    assert [info.path for info in store.resources.list("default")] == [KEY, VALUE, FAR]
    with pytest.raises(Unavailable):
        store.resources.get("default", VALUE)
    store.close()
