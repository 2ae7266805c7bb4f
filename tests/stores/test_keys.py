"""Keys in the store: whose they are, what a change leaves, and that what is destroyed is gone."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stores.conftest import Engine

from adyton.crypto import key_kinds
from adyton.crypto.key_kinds import Kind
from adyton.errors import AdytonError, Conflict, NotFound, Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyRecord, KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import database
from adyton.stores.keys import Material, StoredKey
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("keys", "aes", "one")
ROOT_KEY = bytes(range(32))
MARK = b"the very bytes of a secret key!!"
BINDING = Binding(any_workload_i_accept=True)


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data", root_key=ROOT_KEY, now=NOW, database=engine)
    yield opened
    opened.close()


def version(number: int) -> KeyVersion:
    return KeyVersion(number, State.ENABLED, 1, 1)


def made(
    store: Store, tenant: str = "default", path: ResourcePath = PATH, secret: bytes = MARK, never_export: bool = False
) -> StoredKey:
    record = key_record.make("aes-256", version(1), never_export=never_export)
    return store.keys.create(tenant, path, record, Material(secret), BINDING, NOW)


def rotated(store: Store, secret: bytes) -> StoredKey:
    found = store.keys.get("default", PATH)
    assert found is not None
    return store.keys.rotate(
        "default", PATH, Material(secret), version(found.record.newest.number + 1), found.record, NOW
    )


def code_of(call: object, *arguments: object, **named: object) -> str:
    assert callable(call)
    with pytest.raises(AdytonError) as error:
        call(*arguments, **named)
    return error.value.code


def test_another_tenant_finds_nothing(store: Store) -> None:
    stored = made(store)
    assert store.keys.get("other", PATH) is None
    assert store.keys.list("other") == []
    assert store.resources.get("other", PATH) is None
    for change in (store.keys.disable, store.keys.enable, store.keys.destroy):
        assert code_of(change, "other", PATH, 1, NOW) == "resource_absent"
    assert code_of(store.keys.material, "other", PATH, stored.record.newest) == "key_version_destroyed"
    other = made(store, "other", secret=bytes(32))
    assert store.keys.material("other", PATH, other.record.newest).secret == bytes(32)
    assert store.keys.material("default", PATH, stored.record.newest).secret == MARK
    store.keys.destroy("other", PATH, None, NOW)
    assert store.keys.material("default", PATH, stored.record.newest).secret == MARK


def test_a_row_opens_only_where_it_was_sealed(store: Store, tmp_path: Path) -> None:
    """A version's row moved to another tenant, path or serial does not open, nor does one half of another's."""
    made(store)
    second = made(store, path=ResourcePath("keys", "aes", "two"), secret=bytes(32))
    with sqlite3.connect(tmp_path / "data" / FILE) as connection:
        rows = connection.execute("SELECT path, serial, data_key, sealed FROM key_versions ORDER BY path").fetchall()
        (path_one, _, key_one, sealed_one), (path_two, *_) = rows
        assert path_one.endswith("one")
        for name, value in (("sealed", sealed_one), ("data_key", key_one)):
            connection.execute(f"UPDATE key_versions SET {name}=? WHERE path=?", (value, path_two))
            connection.commit()
            with pytest.raises(Unavailable) as error:
                store.keys.material("default", ResourcePath("keys", "aes", "two"), second.record.newest)
            assert error.value.code == "sealed_value_broken"


def test_a_key_is_not_replaced_by_a_value_nor_made_twice(store: Store) -> None:
    made(store)
    assert code_of(store.resources.set, "default", PATH, b"x", BINDING, NOW) == "resource_is_key"
    assert code_of(store.resources.set, "default", PATH, b"x", None, NOW) == "resource_is_key"
    assert code_of(made, store) == "resource_exists"
    plain = ResourcePath("keys", "aes", "plain")
    store.resources.set("default", plain, b"x", BINDING, NOW)
    assert code_of(made, store, path=plain) == "resource_exists"
    assert store.keys.get("default", plain) is None
    assert code_of(store.keys.disable, "default", plain, 1, NOW) == "resource_absent"


def test_what_was_stored_before_keys_came_still_opens(store: Store) -> None:
    plain = ResourcePath("a", "b", "c")
    store.resources.set("default", plain, b"\xff" * 70_000, BINDING, NOW)
    found = store.resources.get("default", plain)
    assert found is not None
    assert (found.value, found.key, found.info.size) == (b"\xff" * 70_000, None, 70_000)


def test_binding_a_key_keeps_its_versions(store: Store) -> None:
    made(store, never_export=True)
    rotated(store, bytes(32))
    info = store.resources.bind("default", PATH, Binding(), NOW)
    assert info.key is not None
    found = store.keys.get("default", PATH)
    assert found is not None
    assert found.info.binding == Binding()
    assert found.record.never_export
    assert len(found.record.versions) == 2
    assert store.resources.get("default", PATH).value == b""  # type: ignore[union-attr]


def test_a_rotation_of_what_changed_meanwhile_is_refused(store: Store) -> None:
    before = made(store)
    store.keys.disable("default", PATH, 1, NOW)
    with pytest.raises(Conflict) as error:
        store.keys.rotate("default", PATH, Material(bytes(32)), version(2), before.record, NOW)
    assert error.value.code == "key_changed"
    assert len(store.keys.get("default", PATH).record.versions) == 1  # type: ignore[union-attr]


def test_versions_live_on_after_a_restart(store: Store, tmp_path: Path) -> None:
    made(store)
    rotated(store, bytes(32))
    store.close()
    again = Store.open(tmp_path / "data", root_key=ROOT_KEY, now=NOW)
    found = again.keys.get("default", PATH)
    assert found is not None
    one, two = found.record.versions
    assert again.keys.material("default", PATH, one).secret == MARK
    assert again.keys.material("default", PATH, two).secret == bytes(32)
    again.close()


def everything(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.iterdir()) if file.is_file())


def pieces(blob: bytes) -> list[bytes]:
    """What would still be found of ``blob`` if pages had cut it."""
    return [blob[start : start + 16] for start in range(0, len(blob) - 16, 8)]


@pytest.mark.parametrize("size", [32, 3000, 60_000])
@pytest.mark.parametrize("how", ["destroy", "destroy all", "delete"])
def test_what_is_destroyed_is_in_no_file_any_more(store: Store, tmp_path: Path, how: str, size: int) -> None:
    """Neither the sealed data key nor the sealed material is left, in the file, its free pages or its log.

    So the root key and all files together do not give the value: there is nothing to open.
    """
    directory = tmp_path / "data"
    secret = bytes(range(256)) * (size // 256) + MARK
    kind = Kind.OPAQUE
    record = key_record.make(kind.value, version(1))
    store.keys.create("default", PATH, record, Material(secret), BINDING, NOW)
    for number in range(30):  # neighbours, so that pages are split, freed and used again
        made(store, path=ResourcePath("keys", "other", str(number)), secret=bytes([number]) * 32)
    with sqlite3.connect(directory / FILE) as connection:
        data_key, sealed = connection.execute(
            "SELECT data_key, sealed FROM key_versions WHERE path=?", (str(PATH),)
        ).fetchone()
    found = everything(directory)
    assert all(piece in found for piece in pieces(data_key))  # it was there
    if how == "destroy":
        store.keys.destroy("default", PATH, 1, NOW)
    elif how == "destroy all":
        store.keys.destroy("default", PATH, None, NOW)
    else:
        store.resources.delete("default", PATH)
    left = everything(directory)
    assert not [piece for piece in pieces(data_key) if piece in left]
    assert not [piece for piece in pieces(sealed) if piece in left]
    assert MARK not in left
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*lock*"))
    store.close()
    thief = Store.open(copy, root_key=ROOT_KEY, now=NOW)
    found_key = thief.keys.get("default", PATH)
    if found_key is not None:
        assert found_key.record.newest.state is State.DESTROYED
        forged = KeyVersion(1, State.ENABLED, 1, 1, found_key.record.newest.serial)
        assert code_of(thief.keys.material, "default", PATH, forged) == "key_version_destroyed"
    neighbour = thief.keys.get("default", ResourcePath("keys", "other", "7"))
    assert neighbour is not None
    assert thief.keys.material("default", neighbour.info.path, neighbour.record.newest).secret == b"\7" * 32
    thief.close()


def test_erasing_waits_for_readers_and_says_if_they_stay(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store)
    reader = sqlite3.connect(tmp_path / "data" / FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM key_versions").fetchall()
    store._database._writer.execute("PRAGMA busy_timeout=200")  # type: ignore[attr-defined]
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    assert code_of(store.keys.destroy, "default", PATH, 1, NOW) == "erasure_pending"
    found = store.keys.get("default", PATH)
    assert found is not None
    assert found.record.newest.state is State.DESTROYED  # whatever is left in the log, nobody is given it any more
    reader.execute("ROLLBACK")
    reader.close()
    store.keys.destroy("default", PATH, 1, NOW)


def test_while_erasure_waits_for_a_reader_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup reads one state for long; whoever destroys a key meanwhile holds up no decision's row."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 3.0)
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    reader = sqlite3.connect(tmp_path / "broker.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM meta").fetchall()
    store.check_writable()
    pending: list[str] = []

    def purge() -> None:
        try:
            store._database.purge()
        except Unavailable as error:
            pending.append(error.code)

    purging = threading.Thread(target=purge)
    purging.start()
    slowest = written = 0.0
    while purging.is_alive():
        began = time.monotonic()
        store.check_writable()
        slowest, written = max(slowest, time.monotonic() - began), written + 1
        time.sleep(0.005)
    assert pending == ["erasure_pending"] and written > 8 and slowest < 2, (slowest, written)
    reader.close()
    store._database.purge()
    store.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["rotate", "disable", "enable", "destroy", "bind", "create"]), st.integers(1, 4)),
    max_size=12,
)


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(STEPS)
def test_material_is_there_exactly_for_what_is_not_destroyed(store: Store, steps: list[tuple[str, int]]) -> None:
    path = ResourcePath("keys", "aes", f"p{len(store.keys.list('default'))}")
    record = key_record.make("aes-256", version(1))
    secrets = {1: key_kinds.generate(Kind.AES_256)}
    store.keys.create("default", path, record, Material(secrets[1]), BINDING, NOW)
    for turn, (step, number) in enumerate(steps):
        now = NOW + timedelta(seconds=turn)
        current = store.keys.get("default", path)
        assert current is not None
        try:
            if step == "rotate":
                following = current.record.newest.number + 1
                secrets[following] = key_kinds.generate(Kind.AES_256)
                material = Material(secrets[following])
                store.keys.rotate("default", path, material, version(following), current.record, now)
            elif step == "bind":
                store.resources.bind("default", path, Binding(), now)
            elif step == "create":
                store.keys.create("default", path, record, Material(bytes(32)), BINDING, now)
            else:
                getattr(store.keys, step)("default", path, number, now)
        except (Conflict, NotFound):
            pass
        held = store.keys.get("default", path)
        assert held is not None
        _same(store, path, held.record, secrets)


def _same(store: Store, path: ResourcePath, record: KeyRecord, secrets: dict[int, bytes]) -> None:
    for one in record.versions:
        if one.state is State.DESTROYED:
            assert code_of(store.keys.material, "default", path, one) == "key_version_destroyed"
        else:
            assert store.keys.material("default", path, one).secret == secrets[one.number]
