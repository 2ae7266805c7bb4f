"""Slots and rotation: what was changed is refused, what was replaced opens nothing, and no moment loses the key."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.postgresql import Server

from adyton.errors import AdytonError, ConfigError, Conflict, NotFound
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import rootkey
from adyton.stores.custody import keyring, slots
from adyton.stores.custody.keyring import Opened, Openers
from adyton.stores.custody.passphrase import Cost, PassphraseCustodian
from adyton.stores.custody.slots import Slot
from adyton.stores.database import SqliteDatabase
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
CHEAP = Cost(19 * 1024, 2, 1)
PATH = ResourcePath("default", "key", "1")
WORDS, OTHER = b"correct horse battery", b"staple incorrect donkey"


def maker(words: bytes, name: str) -> Callable[[bytes, bytes], Slot]:
    return lambda root_key, store: slots.make(name, PassphraseCustodian(words, CHEAP), root_key, store, NOW)


def by(words: bytes) -> Openers:
    return Openers(passphrase=lambda: words)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A store with one resource whose root key lies in a file."""
    path = tmp_path / "root.key"
    key, _ = rootkey.load_or_create(path)
    store = Store.open(tmp_path, root_key=key, now=NOW)
    store.resources.set("default", PATH, b"the secret", Binding(), NOW)
    store.close()
    return path


@pytest.fixture
def database(plain: Path) -> Iterator[SqliteDatabase]:
    opened = SqliteDatabase(plain.parent / FILE)
    yield opened
    opened.close()


def refused(code: str, action: Callable[[], Any]) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        action()
    assert caught.value.code == code
    return caught.value


def opened_by(database: SqliteDatabase, plain: Path, openers: Openers | None = None) -> Opened:
    found = keyring.unlock(database, plain, openers or Openers())
    assert found is not None
    return found


def reads(directory: Path, root_key: bytes) -> bytes:
    store = Store.open(directory, root_key=root_key, now=NOW)
    try:
        found = store.resources.get("default", PATH)
        assert found is not None
        return found.value
    finally:
        store.close()


def test_a_slot_that_somebody_planted_gets_no_root_key(database: SqliteDatabase, plain: Path) -> None:
    """Its public key is the attacker's: the next rotation would hand it the new root key."""
    opened = opened_by(database, plain)
    store, _ = keyring.identity(database)
    planted = maker(OTHER, "planted")(os.urandom(32), store)
    with database.write() as transaction:
        slots.add(transaction, planted)
    error = refused("slot_changed", lambda: keyring.rotate(database, opened, plain, NOW, keep_plain=True))
    assert error.field == "slot planted"
    assert opened_by(database, plain).root_key == opened.root_key
    assert not keyring.next_to(plain).exists()


@pytest.mark.parametrize("column", ["public", "sealed", "details", "kind", "name", "created", "root", "mac"])
def test_a_changed_slot_opens_nothing(database: SqliteDatabase, plain: Path, column: str) -> None:
    opened = opened_by(database, plain)
    keyring.add(database, opened, maker(WORDS, "words"))
    other = {"public": slots.read(database)[0].public[::-1], "created": 1.0, "name": "renamed", "kind": "tpm"}.get(
        column
    )
    with database.write() as transaction:
        if other is None:
            (value,) = transaction.execute(f"SELECT {column} FROM root_key_slots").fetchone()
            if isinstance(value, str):
                other = value.replace('"iterations":2', '"iterations":3')
            else:
                flipped = bytearray(value)
                flipped[len(flipped) // 2] ^= 1
                other = bytes(flipped)
        transaction.execute(f"UPDATE root_key_slots SET {column}=?", (other,))
    plain.unlink()
    refused("root_key_locked", lambda: keyring.unlock(database, plain, by(WORDS)))


def test_a_slot_of_another_store_opens_nothing(database: SqliteDatabase, plain: Path, tmp_path: Path) -> None:
    keyring.add(database, opened_by(database, plain), maker(WORDS, "words"))
    other = tmp_path / "other"
    other.mkdir()
    Store.open(other, root_key=plain.read_bytes(), now=NOW).close()  # even with the same root key
    second = SqliteDatabase(other / FILE)
    try:
        with second.write() as transaction:
            slots.add(transaction, slots.read(database)[0])
        refused("root_key_locked", lambda: keyring.unlock(second, other / "root.key", by(WORDS)))
    finally:
        second.close()


@pytest.mark.parametrize("words", [OTHER, WORDS + b" ", b"x"])
def test_another_passphrase_is_refused(database: SqliteDatabase, plain: Path, words: bytes) -> None:
    keyring.add(database, opened_by(database, plain), maker(WORDS, "words"))
    plain.unlink()
    error = refused("root_key_locked", lambda: keyring.unlock(database, plain, by(words)))
    assert "passphrase_wrong" in str(error.got)
    assert words.decode() not in str(error.got) or len(words) == 1


def test_what_is_missing_is_said(database: SqliteDatabase, plain: Path) -> None:
    keyring.add(database, opened_by(database, plain), maker(WORDS, "words"))
    key = plain.read_bytes()
    plain.unlink()
    assert "--passphrase-file" in str(
        refused("root_key_locked", lambda: keyring.unlock(database, plain, Openers())).got
    )
    with database.write() as transaction:
        slots.remove(transaction, "words")
    refused("root_key_missing", lambda: keyring.unlock(database, plain, by(WORDS)))
    plain.write_bytes(bytes(32))
    plain.chmod(0o600)
    refused("root_key_wrong", lambda: keyring.unlock(database, plain, by(WORDS)))
    plain.write_bytes(key)
    assert opened_by(database, plain).root_key == key


@pytest.mark.parametrize("words", [b"", b"short", "zu kurz äö".encode()])
def test_a_short_passphrase_is_not_taken(database: SqliteDatabase, plain: Path, words: bytes) -> None:
    opened = opened_by(database, plain)
    refused("passphrase_short", lambda: keyring.add(database, opened, maker(words, "words")))


def test_a_row_cannot_make_the_machine_work_forever(database: SqliteDatabase, plain: Path) -> None:
    opened = opened_by(database, plain)
    store, _ = keyring.identity(database)
    slot = maker(WORDS, "words")(opened.root_key, store)
    for name, value in (("memory_kib", 2**40), ("iterations", 10**9), ("lanes", 0), ("memory_kib", 8), ("kdf", "md5")):
        asking = replace(slot.kept, details={**slot.kept.details, name: value})
        refused("slot_changed", lambda: PassphraseCustodian(WORDS).open(asking, b""))  # noqa: B023


def test_the_last_way_in_cannot_be_removed(database: SqliteDatabase, plain: Path) -> None:
    opened = opened_by(database, plain)
    keyring.add(database, opened, maker(WORDS, "words"))
    plain.unlink()
    refused("last_slot", lambda: keyring.remove(database, opened, "words", plain))
    keyring.add(database, opened, maker(OTHER, "other"))
    keyring.remove(database, opened, "words", plain)
    refused("root_key_locked", lambda: keyring.unlock(database, plain, by(WORDS)))
    assert opened_by(database, plain, by(OTHER)) == Opened(opened.root_key, "other")
    with pytest.raises(NotFound):
        keyring.remove(database, opened, "words", plain)


def test_two_slots_of_one_name_are_refused(database: SqliteDatabase, plain: Path) -> None:
    opened = opened_by(database, plain)
    keyring.add(database, opened, maker(WORDS, "words"))
    with pytest.raises(Conflict):
        keyring.add(database, opened, maker(OTHER, "words"))
    assert opened_by(database, plain, by(WORDS)).root_key == opened.root_key


def test_a_process_with_a_replaced_root_key_wraps_nothing(database: SqliteDatabase, plain: Path) -> None:
    opened = opened_by(database, plain)
    running = Store.open(plain.parent, root_key=opened.root_key, now=NOW)
    try:
        keyring.rotate(database, opened, plain, NOW, keep_plain=True)
        refused("root_key_wrong", lambda: running.sealer.rotate(NOW))
        refused("root_key_wrong", lambda: keyring.add(database, opened, maker(WORDS, "words")))
    finally:
        running.close()


def test_the_old_root_key_opens_nothing(database: SqliteDatabase, plain: Path, tmp_path: Path) -> None:
    opened = opened_by(database, plain)
    keyring.add(database, opened, maker(WORDS, "words"))
    wrapped = [bytes(row[0]) for row in database.read("SELECT wrapped FROM data_keys")]
    wrapped += [bytes(row[0]) for row in database.read("SELECT wrapped FROM tenant_keys")]
    assert len(wrapped) == 2
    done = keyring.rotate(database, opened, plain, NOW, keep_plain=True)
    assert done.root_key != opened.root_key
    refused("root_key_wrong", lambda: Store.open(tmp_path, root_key=opened.root_key, now=NOW))
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("broker.sqlite*"))
    for old in wrapped:
        assert old not in raw
        assert old[12:40] not in raw
    assert opened_by(database, plain, by(WORDS)).root_key == done.root_key
    plain.unlink()
    assert opened_by(database, plain, by(WORDS)) == Opened(done.root_key, "words")
    assert reads(tmp_path, done.root_key) == b"the secret"


def test_what_comes_after_a_rotation_is_under_a_new_data_key(database: SqliteDatabase, plain: Path) -> None:
    done = keyring.rotate(database, opened_by(database, plain), plain, NOW, keep_plain=True)
    store = Store.open(plain.parent, root_key=done.root_key, now=NOW)
    try:
        assert store.sealer.seal(b"x", "t", "k", "n", 1)[1:5] == (2).to_bytes(4)
        with store._database.write() as transaction:
            assert store.sealer.seal_for(transaction, b"x", "default", "k", "n", 1)[:5] == b"\2" + (2).to_bytes(4)
    finally:
        store.close()


def test_changed_custody_leaves_no_plain_file(database: SqliteDatabase, plain: Path, tmp_path: Path) -> None:
    opened = opened_by(database, plain)
    keyring.add(database, opened, maker(WORDS, "old"))
    done = keyring.rotate(
        database, opened, plain, NOW, keep_plain=False, keep=lambda _: False, make=maker(OTHER, "new")
    )
    assert not plain.exists()
    refused("root_key_locked", lambda: keyring.unlock(database, plain, by(WORDS)))
    assert opened_by(database, plain, by(OTHER)) == Opened(done.root_key, "new")
    assert reads(tmp_path, done.root_key) == b"the secret"


def test_nobody_is_nobody(database: SqliteDatabase, plain: Path) -> None:
    opened = opened_by(database, plain)
    refused("last_slot", lambda: keyring.rotate(database, opened, plain, NOW, keep_plain=False))


def test_a_new_store_that_never_had_a_plain_file(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / FILE)
    try:
        assert keyring.unlock(database, tmp_path / "root.key", Openers()) is None
        key = keyring.begin(database, maker(WORDS, "words"))
        with pytest.raises(Conflict):
            keyring.begin(database, maker(WORDS, "again"))
        refused("root_key_locked", lambda: keyring.unlock(database, tmp_path / "root.key", Openers()))
        assert opened_by(database, tmp_path / "root.key", by(WORDS)) == Opened(key, "words")
    finally:
        database.close()
    Store.open(tmp_path, root_key=key, now=NOW).close()
    with pytest.raises(ConfigError):
        Store.open(tmp_path, root_key=bytes(32), now=NOW)
    assert [path.name for path in tmp_path.glob("root*")] == []


def test_no_secret_in_a_repr(database: SqliteDatabase, plain: Path) -> None:
    opened = opened_by(database, plain)
    shown = repr(opened) + repr(by(WORDS)) + repr(PassphraseCustodian(WORDS))
    assert WORDS.decode() not in shown
    assert repr(opened.root_key) not in shown


def _killed(lines: int, directory: Path, plain: Path, *, keep_plain: bool) -> bool:
    """Rotate in a child that is killed at the n-th line of the module; tells whether it got to the end before."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.endswith("custody/keyring.py"):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        database = SqliteDatabase(directory / FILE)
        opened = keyring.unlock(database, plain, Openers())
        assert opened is not None
        sys.settrace(trace)
        make = None if keep_plain else maker(OTHER, "new")
        keyring.rotate(database, opened, plain, NOW, keep_plain=keep_plain, keep=lambda _: keep_plain, make=make)
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("keep_plain", [True, False])
def test_killed_anywhere_the_store_opens(plain: Path, tmp_path: Path, *, keep_plain: bool) -> None:
    first = SqliteDatabase(tmp_path / FILE)
    keyring.add(first, opened_by(first, plain), maker(WORDS, "words"))
    first.close()
    kept = plain.read_bytes()
    begin = (tmp_path / FILE).read_bytes()
    outcomes = set()
    for lines in range(200):
        for leftover in tmp_path.glob("broker.sqlite-*"):
            leftover.unlink()
        (tmp_path / FILE).write_bytes(begin)
        plain.write_bytes(kept)
        plain.chmod(0o600)
        done = _killed(lines, tmp_path, plain, keep_plain=keep_plain)
        database = SqliteDatabase(tmp_path / FILE)
        try:
            opened = opened_by(database, plain, by(WORDS if keep_plain else OTHER))
            if keep_plain:
                plain.unlink()
                assert opened_by(database, plain, by(WORDS)).root_key == opened.root_key
        finally:
            database.close()
        outcomes.add(opened.root_key == kept)
        assert reads(tmp_path, opened.root_key) == b"the secret"
        if opened.root_key != kept:
            refused("root_key_wrong", lambda: Store.open(tmp_path, root_key=kept, now=NOW))
        if done:
            break
    else:
        raise AssertionError("it never ends")
    assert outcomes == {True, False}
    assert lines > 15


def test_the_same_in_postgresql(tmp_path: Path, postgresql: Server) -> None:
    opener = postgresql.opener()
    plain = tmp_path / "root.key"
    key, _ = rootkey.load_or_create(plain)
    store = Store.open(tmp_path, root_key=key, now=NOW, database=opener)
    store.resources.set("default", PATH, b"the secret", Binding(), NOW)
    running = store.sealer
    database = opener()
    try:
        opened = keyring.unlock(database, plain, Openers())
        assert opened is not None
        keyring.add(database, opened, maker(WORDS, "words"))
        with pytest.raises(Conflict):
            keyring.add(database, opened, maker(WORDS, "words"))
        done = keyring.rotate(database, opened, plain, NOW, keep_plain=False)
        refused("root_key_wrong", lambda: running.rotate(NOW))
        refused("root_key_locked", lambda: keyring.unlock(database, plain, Openers()))
        found = keyring.unlock(database, plain, by(WORDS))
        assert found == Opened(done.root_key, "words")
    finally:
        database.close()
        store.close()
    refused("root_key_wrong", lambda: Store.open(tmp_path, root_key=key, now=NOW, database=opener))
    again = Store.open(tmp_path, root_key=done.root_key, now=NOW, database=opener)
    stored = again.resources.get("default", PATH)
    again.close()
    assert stored is not None
    assert stored.value == b"the secret"


def test_pbkdf2_for_fips() -> None:
    from adyton.crypto.profile import FIPS, PBKDF2
    from adyton.stores.custody.port import Kept

    slow = PassphraseCustodian(WORDS, kdf=PBKDF2, rounds=600_000, profile=FIPS)
    kept = slow.seal(b"a secret", b"here")
    assert slow.open(kept, b"here") == b"a secret"
    refused("passphrase_wrong", lambda: slow.open(kept, b"there"))
    refused("passphrase_wrong", lambda: PassphraseCustodian(b"other words altogether").open(kept, b"here"))
    for change in ({"iterations": 599_999}, {"iterations": 10**9}, {"iterations": "x"}, {"salt": 7}, {"kdf": "scrypt"}):
        asking = Kept(kept.sealed, {**kept.details, **change})
        refused("slot_changed", lambda: slow.open(asking, b"here"))  # noqa: B023
    fast = PassphraseCustodian(WORDS, CHEAP)
    refused("fips_custody", lambda: PassphraseCustodian(WORDS, profile=FIPS).seal(b"x", b""))
    refused("fips_custody", lambda: PassphraseCustodian(WORDS, profile=FIPS).open(fast.seal(b"x", b""), b""))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"details": '{"pcrs":{"\u00b2":"00"}}'}, None),
        ({"details": '{"pcrs":{"07":"00"}}'}, None),
        ({"created": 1e300}, "slot_changed"),
        ({"created": "yesterday"}, "slot_changed"),
        ({"public": 10**9}, "slot_changed"),
        ({"mac": "text"}, "slot_changed"),
        ({"name": b"\xff"}, "slot_changed"),
        ({"kind": b"\xff"}, "slot_changed"),
        ({"details": "[]"}, "slot_changed"),
    ],
)
def test_a_planted_row_of_any_shape_is_refused_in_our_words(
    database: SqliteDatabase, plain: Path, change: dict[str, object], code: str | None
) -> None:
    """SQLite takes anything in any column of this table."""
    keyring.add(database, unlocked(database, plain), maker(WORDS, "words"))
    plain.unlink()
    row: dict[str, object] = {"name": "a", "kind": "tpm", "created": 0.0, "details": "{}"}
    row |= {"public": b"x", "sealed": b"y", "root": b"{}", "mac": b"m", **change}
    with database.write() as transaction:
        names, marks = ",".join(row), ",".join("?" * len(row))
        transaction.execute(
            f"INSERT INTO root_key_slots (tenant,{names}) VALUES ('',{marks})",
            tuple(row.values()),
        )
    if code is None:
        assert unlocked(database, plain, by(WORDS)).by == "words"
        return
    with pytest.raises(AdytonError) as caught:
        unlocked(database, plain, by(WORDS))
    assert caught.value.code == code


def unlocked(database: SqliteDatabase, plain: Path, openers: Openers | None = None) -> Opened:
    found = keyring.unlock(database, plain, openers or Openers())
    assert found is not None
    return found
