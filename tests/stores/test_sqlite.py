from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stores.conftest import Engine

from adyton.errors import AdytonError, ConfigError, DocumentInvalid, MalformedRequest, NotFound, TooLarge, Unavailable
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import tenants
from adyton.stores.database import SqliteDatabase as Database
from adyton.stores.resources import MAX_VALUE
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ROOT_KEY = bytes(range(32))
PATH = ResourcePath("models", "key", "one")
BINDING = Binding(images=["sha256:" + "a" * 64])


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW, database=engine)
    yield store
    store.close()


def reopen(store: Store, directory: Path) -> Store:
    store.close()
    return Store.open(directory, root_key=ROOT_KEY, now=NOW)


def raw(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / FILE)


def change(directory: Path, statement: str, *parameters: object) -> None:
    connection = raw(directory)
    with connection:
        assert connection.execute(statement, parameters).rowcount > 0
    connection.close()


# --- what is refused


def test_a_wrong_root_key_opens_nothing(store: Store, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(ConfigError) as caught:
        Store.open(tmp_path, root_key=b"x" * 32, now=NOW)
    assert caught.value.code == "root_key_wrong" and caught.value.hint


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33])
def test_a_root_key_has_32_bytes(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        Store.open(tmp_path, root_key=key, now=NOW)
    assert caught.value.code == "root_key_invalid"


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be read as one" * 100, b"SQLite format 3\0garbage"]
)
def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises((ConfigError, Unavailable)) as caught:
        Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    assert caught.value.code in {"store_foreign", "store_corrupt"} and caught.value.hint
    assert (tmp_path / FILE).read_bytes() == content


def test_somebody_elses_sqlite_file_is_refused(tmp_path: Path) -> None:
    connection = raw(tmp_path)
    connection.execute("CREATE TABLE cookies (x)")
    connection.close()
    with pytest.raises(ConfigError) as caught:
        Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    assert caught.value.code == "store_foreign"


def test_a_store_of_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    connection = raw(tmp_path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigError) as caught:
        Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    assert caught.value.code == "store_version" and caught.value.got == 99


def test_a_store_that_is_damaged_later_says_so(store: Store, tmp_path: Path) -> None:
    for number in range(200):
        store.resources.set("default", ResourcePath("a", "b", str(number)), b"x" * 3000, BINDING, NOW)
    store.close()
    file = tmp_path / FILE
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises((ConfigError, Unavailable)) as caught:
        opened = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
        try:
            opened.resources.list("default")
        finally:
            opened.close()
    assert caught.value.code in {"store_corrupt", "store_foreign"} and caught.value.hint


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("UPDATE resources SET tenant='other'", ()),
        ("UPDATE resources SET path='models/key/two'", ()),
        ("UPDATE resources SET version=version+1", ()),
        ("UPDATE resources SET sealed=substr(sealed, 1, 20)", ()),
        ("UPDATE resources SET sealed=zeroblob(60)", ()),
        ("UPDATE resources SET sealed=x''", ()),
    ],
)
def test_a_row_that_was_moved_or_changed_does_not_open(
    store: Store, tmp_path: Path, statement: str, parameters: tuple[object, ...]
) -> None:
    store.resources.set("default", PATH, b"secret", BINDING, NOW)
    change(tmp_path, statement, *parameters)
    refused = 0
    for tenant in ("default", "other"):
        for path in (PATH, ResourcePath("models", "key", "two")):
            try:
                assert store.resources.get(tenant, path) is None
            except Unavailable as error:
                assert error.code == "sealed_value_broken" and "secret" not in str(error.as_dict()).replace(
                    str(path), ""
                )
                refused += 1
    assert refused == 1


@settings(deadline=None)
@given(st.data())
def test_no_changed_byte_of_a_sealed_value_opens(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("sealed")
    store = Store.open(directory, root_key=ROOT_KEY, now=NOW)
    try:
        sealed = bytearray(store.sealer.seal(b"value", "default", "resource", "a/b/c", 1))
        index = data.draw(st.integers(0, len(sealed) - 1))
        sealed[index] ^= data.draw(st.integers(1, 255))
        with pytest.raises(Unavailable):
            store.sealer.open(bytes(sealed), "default", "resource", "a/b/c", 1)
    finally:
        store.close()


def test_a_policy_or_reference_changed_on_the_disk_does_not_open(store: Store, tmp_path: Path) -> None:
    store.policies.set("default", "attestation", "default_cpu", "package policy", NOW)
    store.policies.set("default", "attestation", "lax", "package policy\nlax := 1", NOW)
    store.references.set("default", "name", ["a"], NOW + timedelta(days=1), NOW)
    lax = raw(tmp_path).execute("SELECT sealed FROM policies WHERE name='lax'").fetchone()[0]
    change(tmp_path, "UPDATE policies SET sealed=? WHERE name='default_cpu'", lax)
    change(tmp_path, 'UPDATE "references" SET name=?', "another")
    with pytest.raises(Unavailable):
        store.policies.get("default", "attestation", "default_cpu")
    with pytest.raises(Unavailable):
        store.references.snapshot("default", NOW)


def test_an_expiry_cannot_be_prolonged_on_the_disk(store: Store, tmp_path: Path) -> None:
    store.references.set("default", "name", ["a"], NOW + timedelta(days=1), NOW)
    change(tmp_path, 'UPDATE "references" SET expires=expires+1e9')
    assert store.references.snapshot("default", NOW + timedelta(days=2)).get("name") is None


@pytest.mark.parametrize("tenant", ["", "A", "-a", "a-", "a/b", "a" * 64, "ä", "a\n"])
def test_a_tenant_has_a_name(store: Store, tenant: str) -> None:
    with pytest.raises(MalformedRequest):
        store.resources.set(tenant, PATH, b"x", BINDING, NOW)
    with pytest.raises(MalformedRequest):
        tenants.check(tenant)


def test_values_over_the_limit_are_refused(store: Store) -> None:
    with pytest.raises(TooLarge):
        store.resources.set("default", PATH, bytes(MAX_VALUE + 1), BINDING, NOW)
    with pytest.raises(TooLarge):
        store.references.set("default", "x", "a" * 300_000, None, NOW)
    assert store.generation("default") == 0


@pytest.mark.parametrize(
    ("name", "value", "days"), [("", 1, 1), ("a" * 300, 1, 1), ("a\n", 1, 1), ("a", None, 1), ("a", 1, 0)]
)
def test_reference_values_that_could_never_hold_are_refused(
    store: Store, name: str, value: int | None, days: int
) -> None:
    with pytest.raises(DocumentInvalid):
        store.references.set("default", name, value, NOW + timedelta(days=days), NOW)


def test_what_is_not_there_cannot_be_bound_or_deleted(store: Store) -> None:
    with pytest.raises(NotFound):
        store.resources.bind("default", PATH, BINDING, NOW)
    with pytest.raises(NotFound):
        store.resources.delete("default", PATH)
    with pytest.raises(NotFound):
        store.policies.delete("default", "resource", "x")
    with pytest.raises(NotFound):
        store.references.delete("default", "x")
    assert store.generation("default") == 0


# --- what works


def test_nothing_readable_lies_on_the_disk(store: Store, tmp_path: Path) -> None:
    marker = b"MARKER-0123456789-SECRET"
    store.resources.set("default", PATH, marker, Binding(images=["sha256:" + "7" * 64]), NOW)
    store.secrets.set("signing-key", marker)
    store.close()
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert marker not in content and b"7777777777" not in content, file
        assert file.stat().st_mode & 0o077 == 0, file


def test_what_was_set_is_there_after_reopening(store: Store, tmp_path: Path) -> None:
    store.resources.set("default", PATH, b"value-one", BINDING, NOW)
    store.resources.bind("default", PATH, Binding(any_workload_i_accept=True), NOW + timedelta(seconds=1))
    store.policies.set("default", "attestation", "default_cpu", "package policy", NOW)
    store.references.set("default", "name", {"a": [1, "x", None, True]}, None, NOW)
    assert store.secrets.get_or_create("key", lambda: b"k1") == b"k1"
    again = reopen(store, tmp_path)
    try:
        found = again.resources.get("default", PATH)
        assert found is not None and found.value == b"value-one" and found.binding.any_workload_i_accept
        assert "value-one" not in repr(found)
        assert [item.size for item in again.resources.list("default")] == [9]
        policy = again.policies.get("default", "attestation", "default_cpu")
        assert policy is not None and policy.text == "package policy" and len(policy.digest) == 64
        assert again.references.snapshot("default", NOW).get("name") == {"a": [1, "x", None, True]}
        assert again.secrets.get_or_create("key", lambda: b"k2") == b"k1"
    finally:
        again.close()


def test_tenants_do_not_see_each_other(store: Store) -> None:
    store.resources.set("a", PATH, b"of a", BINDING, NOW)
    store.references.set("a", "name", 1, None, NOW)
    store.policies.set("a", "resource", "p", "x", NOW)
    assert store.resources.get("b", PATH) is None
    assert not store.resources.list("b") and not store.policies.list("b", "resource") and not store.references.list("b")
    assert list(store.references.snapshot("b", NOW).names()) == []
    assert (store.generation("a"), store.generation("b")) == (2, 0)


def test_a_resource_comes_with_its_own_tenants_generation(store: Store, tmp_path: Path) -> None:
    assert store.resources.with_generation("default", PATH) == (0, None)  # a tenant that has nothing
    store.references.set("default", "name", 1, None, NOW)
    store.resources.set("other", PATH, b"of other", BINDING, NOW)
    assert store.resources.with_generation("default", PATH) == (1, None)
    store.resources.set("default", PATH, b"x", BINDING, NOW)
    assert store.resources.with_generation("default", PATH) == (1, store.resources.get("default", PATH))
    again = reopen(store, tmp_path)
    try:
        assert again.resources.with_generation("default", PATH)[0] == 1
    finally:
        again.close()


def test_a_read_sees_the_last_commit_and_nothing_of_a_transaction_that_is_under_way(store: Store) -> None:
    store.references.set("default", "name", 1, None, NOW)
    with store._database.write() as transaction:
        transaction.execute("UPDATE tenants SET generation = 99")
        assert store.generation("default") == 1
    assert store.generation("default") == 99


def test_the_generation_grows_with_what_appraisal_depends_on(store: Store) -> None:
    steps: list[tuple[Callable[[], object], int, int]] = [
        (lambda: store.resources.set("default", PATH, b"x", BINDING, NOW), 0, 0),
        (lambda: store.resources.bind("default", PATH, BINDING, NOW), 0, 0),
        (lambda: store.policies.set("default", "resource", "p", "x", NOW), 1, 0),
        (lambda: store.policies.set("default", "attestation", "p", "x", NOW), 2, 0),
        (lambda: store.policies.delete("default", "resource", "p"), 3, 0),
        (lambda: store.references.set("default", "n", 1, None, NOW), 4, 1),
        (lambda: store.references.delete("default", "n"), 5, 2),
        (lambda: store.resources.delete("default", PATH), 5, 2),
    ]
    for step, generation, references in steps:
        step()
        assert store.generation("default") == generation
        assert store.references.snapshot("default", NOW).generation == references


def test_a_deleted_resources_row_cannot_be_put_back_under_a_new_one(store: Store, tmp_path: Path) -> None:
    store.resources.set("default", PATH, b"old", Binding(any_workload_i_accept=True), NOW)
    row = raw(tmp_path).execute("SELECT sealed FROM resources").fetchone()[0]
    store.resources.delete("default", PATH)
    store.resources.set("default", PATH, b"new", BINDING, NOW)
    change(tmp_path, "UPDATE resources SET sealed=?", row)
    with pytest.raises(Unavailable):
        store.resources.get("default", PATH)


def test_reference_values_expire(store: Store) -> None:
    store.references.set("default", "short", 1, NOW + timedelta(hours=1), NOW)
    store.references.set("default", "long", 2, NOW + timedelta(hours=2), NOW)
    early = store.references.snapshot("default", NOW)
    late = store.references.snapshot("default", NOW + timedelta(hours=1))
    assert early.expires_next == NOW + timedelta(hours=1) and sorted(early.names()) == ["long", "short"]
    assert late.get("short") is None and late.get("long") == 2 and late.expires_next == NOW + timedelta(hours=2)


def test_a_new_data_key_leaves_old_values_readable_also_for_other_workers(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW, instance=store.instance)
    try:
        store.resources.set("default", PATH, b"old", BINDING, NOW)
        assert store.sealer.rotate(NOW) == 2
        store.resources.set("default", ResourcePath("a", "b", "c"), b"new", BINDING, NOW)
        assert {item.path.tag for item in other.resources.list("default")} == {"one", "c"}
    finally:
        other.close()


def test_claims_are_kept_until_they_expire(store: Store) -> None:
    digest = store.claims.put("default", b"{}", NOW + timedelta(minutes=5), NOW)
    assert store.claims.get("default", digest, NOW) == b"{}"
    assert store.claims.get("other", digest, NOW) is None
    assert store.claims.get("default", digest, NOW + timedelta(minutes=5)) is None
    store.claims.put("default", b"[]", NOW + timedelta(hours=1), NOW + timedelta(minutes=6))
    assert store.claims.get("default", digest, NOW) is None  # gone for good
    quiet = store.claims.put("quiet", b"{}", NOW + timedelta(minutes=5), NOW)
    store.claims.forget_expired(NOW + timedelta(minutes=4))
    assert store.claims.get("quiet", quiet, NOW) == b"{}"
    store.claims.forget_expired(NOW + timedelta(minutes=6))
    assert store.claims.get("quiet", quiet, NOW) is None


@settings(deadline=None)
@given(
    value=st.binary(max_size=300), images=st.lists(st.integers(0, 9).map(lambda n: "sha256:" + str(n) * 64), max_size=3)
)
def test_values_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, value: bytes, images: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("values")
    store = Store.open(directory, root_key=ROOT_KEY, now=NOW)
    try:
        store.resources.set("default", PATH, value, Binding(images=images), NOW)
        found = store.resources.get("default", PATH)
        assert found is not None and found.value == value and found.binding.images == images
    finally:
        store.close()


def test_a_store_is_not_carried_over_a_fork(store: Store) -> None:
    child = os.fork()
    if child == 0:
        try:
            store.generation("default")
        except RuntimeError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_every_error_is_of_the_tree(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for directory in (file, file / "below", Path("/proc/adyton")):
        with pytest.raises(AdytonError):
            Store.open(directory, root_key=ROOT_KEY, now=NOW)


class _FailingDisk:
    """The connection that writes, on a disk that neither commits nor rolls back while ``failing``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.failing = True

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if self.failing and statement in {"COMMIT", "ROLLBACK"}:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_what_was_never_committed_is_not_read(tmp_path: Path) -> None:
    """Not even by way of the connection that wrote it and could not take it back; the next change starts anew."""
    database = Database(tmp_path / "x.sqlite")
    with database.write() as transaction:
        transaction.execute("CREATE TABLE numbers (number)")
    real = database._writer
    disk = _FailingDisk(real)
    database._writer = disk  # type: ignore[assignment]
    with pytest.raises(Unavailable), database.write() as transaction:
        transaction.execute("INSERT INTO numbers VALUES (1)")
    assert real.in_transaction
    assert database.read("SELECT number FROM numbers") == []
    disk.failing = False
    assert database.read("SELECT number FROM numbers") == []
    with database.write() as transaction:
        transaction.execute("INSERT INTO numbers VALUES (2)")
    assert database.read("SELECT number FROM numbers") == [(2,)]
    database.close()
