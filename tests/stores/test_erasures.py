"""What was destroyed while somebody read the store: asked for again, or later by itself, its bytes go; and only then it is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.errors import NotFound, Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import database
from adyton.stores.keys import Material
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("keys", "a", "1")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    opened = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    record = key_record.make("aes-256", KeyVersion(1, State.ENABLED, 1, 1))
    opened.keys.create("default", PATH, record, Material(b"k" * 32), Binding(), NOW)
    yield opened
    opened.close()


@contextmanager
def reading(store: Store) -> Iterator[None]:
    path = store._database.path  # type: ignore[attr-defined]
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM key_versions").fetchall()
        yield
    finally:
        reader.close()


def bytes_of(directory: Path) -> bytes:
    return b"".join([path.read_bytes() for path in directory.glob(FILE + "*")])


def sealed(store: Store) -> bytes:
    [[found]] = store._database.read("SELECT sealed FROM key_versions")
    return bytes(found)


def pending(store: Store) -> None:
    with pytest.raises(Unavailable) as caught:
        store.resources.delete("default", PATH)
    assert caught.value.code == "erasure_pending"


def test_a_key_that_is_gone_is_asked_for_again_until_its_bytes_are(store: Store, tmp_path: Path) -> None:
    body = sealed(store)
    with reading(store):
        pending(store)
        assert store.keys.get("default", PATH) is None
        pending(store)
        assert body in bytes_of(tmp_path) and store.erasures.paths("default") == {str(PATH)}
    store.resources.delete("default", PATH)
    assert body not in bytes_of(tmp_path) and not store.erasures.paths("default")
    with pytest.raises(NotFound):
        store.resources.delete("default", PATH)


def test_a_broker_that_died_before_it_could_erase_does_it_later(store: Store, tmp_path: Path) -> None:
    body = sealed(store)
    with reading(store):
        pending(store)
        with pytest.raises(Unavailable):
            store.erasures.finish()
        assert store.erasures.paths("default")
    assert body in bytes_of(tmp_path)
    store.erasures.finish()
    assert body not in bytes_of(tmp_path) and not store.erasures.paths("default")


def test_what_is_destroyed_while_another_erasure_ends_is_not_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(store):
        pending(store)
    purge = store._database.purge

    def meanwhile() -> None:
        purge()
        with store._database.write(apart=True) as transaction:
            store.erasures.begin(transaction, "default", PATH)

    with monkeypatch.context() as busy:
        busy.setattr(store._database, "purge", meanwhile)
        store.erasures.finish()
    assert store.erasures.paths("default") == {str(PATH)}


def test_what_is_no_key_is_deleted_whatever_else_waits(store: Store) -> None:
    plain = ResourcePath("a", "plain", "value")
    store.resources.set("default", plain, b"x", Binding(), NOW)
    with reading(store):
        pending(store)
        store.resources.delete("default", plain)
    assert store.resources.get("default", plain) is None


def test_another_tenant_is_told_nothing(store: Store) -> None:
    with reading(store):
        pending(store)
        assert not store.erasures.paths("other")
        with pytest.raises(NotFound):
            store.resources.delete("other", PATH)


def test_a_key_made_anew_at_the_same_place_is_not_touched_by_what_waits(store: Store) -> None:
    with reading(store):
        pending(store)
        record = key_record.make("aes-256", KeyVersion(1, State.ENABLED, 1, 1))
        made = store.keys.create("default", PATH, record, Material(b"n" * 32), Binding(), NOW)
    store.erasures.finish()
    assert store.keys.material("default", PATH, made.record.newest).secret == b"n" * 32
