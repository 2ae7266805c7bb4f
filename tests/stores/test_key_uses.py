"""No version of an AES key encrypts more often than it may, whichever workers ask, and whichever of them die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.errors import Conflict
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.key_uses import BOUND, FIRST, MOST, KeyUses
from adyton.stores.keys import Material
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PATH = ResourcePath("keys", "a", "1")
ROOT = bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path, root_key=ROOT, now=NOW)
    yield made
    made.close()


def made(store: Store, kind: str = "aes-256", path: ResourcePath = PATH) -> KeyVersion:
    record = key_record.make(kind, KeyVersion(1, State.ENABLED, 1, 1), never_export=False)
    return store.keys.create("default", path, record, Material(b"k" * 32), Binding(), NOW).record.newest


def granted(uses: KeyUses, version: KeyVersion, most: int = 1 << 20) -> int:
    for number in range(most):
        try:
            uses.spend("default", PATH, version)
        except Conflict as error:
            assert error.code == "key_version_exhausted" and "rotate" in (error.hint or "")
            return number
    return most


@pytest.mark.parametrize("bound", [0, 1, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST + 3])
def test_exactly_as_often_as_it_may(store: Store, bound: int) -> None:
    uses, version = KeyUses(store._database, bound), made(store)
    assert granted(uses, version) == bound
    assert granted(uses, version) == 0
    assert uses.of("default") == {(str(PATH), version.serial): bound}
    assert uses.counters["key_uses_refused"] == 2


def test_workers_together_do_not_pass_it(store: Store, tmp_path: Path) -> None:
    version, bound = made(store), 20 * FIRST + 7
    workers = [Store.open(tmp_path, root_key=ROOT, now=NOW, instance=store.instance) for _ in range(4)]
    counters = [KeyUses(worker._database, bound) for worker in workers]
    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(lambda uses: granted(uses, version), [*counters, *counters]))
    assert total == bound  # all of them: what is left of one's block is that one's, and each went on to its end
    for worker in workers:
        worker.close()


def test_who_dies_loses_a_block_and_never_a_count(store: Store, tmp_path: Path) -> None:
    version, done = made(store), 3 * FIRST + 5
    child = os.fork()
    if child == 0:
        worker = Store.open(tmp_path, root_key=ROOT, now=NOW, instance=store.instance)
        for _ in range(done):
            worker.keys.uses.spend("default", PATH, version)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (taken,) = store.keys.uses.of("default").values()
    assert done <= taken <= done + MOST


def test_blocks_grow_with_what_is_used(store: Store) -> None:
    version = made(store)
    writes = []
    for number in range(300_000):
        before = store.keys.uses.counters["key_uses_reserved"]
        store.keys.uses.spend("default", PATH, version)
        if store.keys.uses.counters["key_uses_reserved"] != before:
            writes.append(number)
    assert len(writes) < 10


def test_the_last_uses_of_a_real_key(store: Store) -> None:
    version = made(store)
    with store._database.write() as transaction:
        transaction.execute("UPDATE key_uses SET uses=?", (BOUND - 3,))
    assert granted(store.keys.uses, version) == 3
    assert store.keys.uses.counters["key_uses_late_blocks"] == 1
    found = store.keys.get("default", PATH)
    assert found is not None
    second = KeyVersion(2, State.ENABLED, 2, 2)
    rotated = store.keys.rotate("default", PATH, Material(b"n" * 32), second, found.record, NOW).record
    store.keys.uses.spend("default", PATH, rotated.newest)
    assert store.keys.uses.of("default", PATH) == {
        (str(PATH), version.serial): BOUND,
        (str(PATH), rotated.newest.serial): FIRST,
    }


def test_it_ends_with_its_version(store: Store) -> None:
    version = made(store)
    hmac = made(store, "hmac-256", ResourcePath("keys", "a", "2"))
    store.keys.uses.spend("default", PATH, version)
    assert len(store.keys.uses.of("default")) == 1 and store.keys.uses.of("other") == {}
    with pytest.raises(Conflict):
        store.keys.uses.spend("default", ResourcePath("keys", "a", "2"), hmac)
    store.keys.destroy("default", PATH, None, NOW)
    assert store.keys.uses.of("default") == {}
    fresh = KeyUses(store._database)
    with pytest.raises(Conflict) as caught:
        fresh.spend("default", PATH, version)
    assert caught.value.code == "key_version_destroyed"
    assert fresh.of("default") == {}
