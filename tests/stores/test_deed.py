"""Several changes and the rows that say so as one transaction, on both engines: together or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.postgresql import Server
from tests.stores.conftest import Engine
from tests.stores.proxy import Wire
from tests.stores.test_postgres_faults import at_commit, cut_soon, through

from adyton.errors import AdytonError, Conflict, NotFound, Unavailable
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.key_record import make as make_record
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import postgres
from adyton.stores.keys import Material
from adyton.stores.postgres import PostgresDatabase
from adyton.stores.postgres_address import DatabaseAddress
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
PATH = ResourcePath("a", "b", "c")
T = "default"
ROWS = [AuditRow("resource.set", "allowed", resource=PATH.uri)]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Store]:
    opened = Store.open(tmp_path_factory.mktemp("store"), root_key=bytes(32), now=NOW, database=engine)
    yield opened
    opened.close()


def size(store: Store) -> int:
    return store.audit.verify(T).sequence


def in_thread(doing: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(doing).result(30)


# ---------------------------------------------------------------- not at all


def test_what_no_row_speaks_of_is_undone_and_said(store: Store) -> None:
    with pytest.raises(RuntimeError, match="no row"), store.deed():
        store.resources.set(T, PATH, b"x", Binding(), NOW)
    assert store.resources.get(T, PATH) is None and size(store) == 0
    store.resources.set(T, PATH, b"x", Binding(), NOW)  # the thread is as it was


def test_a_row_that_cannot_be_written_takes_the_change_with_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Unavailable("full", code="store_disk")

    with monkeypatch.context() as broken:
        broken.setattr("adyton.stores.audit_tree.complete", full)
        with pytest.raises(Unavailable), store.deed() as deed:
            store.resources.set(T, PATH, b"x", Binding(), NOW)
            store.record(T, ROWS, NOW)
            deed.settle()
    assert store.resources.get(T, PATH) is None and size(store) == 0


def test_a_second_change_that_is_refused_takes_the_first_with_it(store: Store) -> None:
    with pytest.raises(NotFound), store.deed() as deed:
        store.resources.set(T, PATH, b"x", Binding(), NOW)
        store.resources.bind(T, ResourcePath("no", "such", "thing"), Binding(), NOW)
        deed.settle()
    assert store.resources.get(T, PATH) is None


def test_who_passes_over_a_refusal_cannot_go_on(store: Store) -> None:
    """What came first is gone, so what comes next would be a part of nothing."""
    with store.deed() as deed:
        store.resources.set(T, PATH, b"x", Binding(), NOW)
        with pytest.raises(NotFound):
            store.resources.bind(T, ResourcePath("no", "such", "thing"), Binding(), NOW)
        with pytest.raises(RuntimeError):
            store.references.set(T, "a", 1, None, NOW)
        with pytest.raises(RuntimeError):
            deed.settle()
        deed.undo()
        store.references.set(T, "a", 1, None, NOW)
        store.record(T, ROWS, NOW)
        deed.settle()
    assert store.resources.get(T, PATH) is None
    assert [one.name for one in store.references.list(T)] == ["a"] and size(store) == 1


def test_a_first_change_that_is_refused_loses_nothing(store: Store) -> None:
    with store.deed() as deed:
        with pytest.raises(NotFound):
            store.resources.bind(T, PATH, Binding(), NOW)
        store.references.set(T, "a", 1, None, NOW)
        store.record(T, ROWS, NOW)
        deed.settle()
    assert size(store) == 1 and len(store.references.list(T)) == 1


def test_a_log_whose_end_was_changed_takes_no_row_and_so_no_change(store: Store) -> None:
    store.audit.append(T, ROWS[0], NOW)
    store.audit.append(T, ROWS[0], NOW)
    known = dict(store.audit._known)
    store.audit._known[T] = (known[T][0] + 1, bytes(32))
    with pytest.raises(AdytonError) as caught, store.deed() as deed:
        store.resources.set(T, PATH, b"x", Binding(), NOW)
        store.record(T, ROWS, NOW)
        deed.settle()
    assert caught.value.code == "log_end_changed"
    assert store.resources.get(T, PATH) is None


# ---------------------------------------------------------------- together


def test_both_are_there(store: Store) -> None:
    before = store.generation(T)
    with store.deed() as deed:
        store.resources.set(T, PATH, b"x", Binding(), NOW)
        store.references.set(T, "a", 1, None, NOW)
        store.record(T, [*ROWS, AuditRow("reference.set", "allowed", resource="a")], NOW)
        deed.settle()
        assert not deed.wrote
    assert size(store) == 2 and store.generation(T) == before + 1
    found = store.resources.get(T, PATH)
    assert found is not None and found.value == b"x"


def test_nobody_else_sees_it_before_and_who_writes_does(store: Store) -> None:
    with store.deed() as deed:
        store.references.set(T, "a", 1, None, NOW)
        assert [one.name for one in store.references.list(T)] == ["a"]
        seen: list[object] = []
        in_thread(lambda: seen.append((store.references.list(T), store.generation(T))))
        assert seen == [([], 0)]
        store.record(T, ROWS, NOW)
        deed.settle()
        in_thread(lambda: seen.append(store.generation(T)))
        assert seen[1] == 1


def test_others_write_until_it_does(store: Store) -> None:
    """Whatever is slow comes before the first write, and holds up nobody."""
    with store.deed() as deed:
        assert store.references.list(T) == []
        in_thread(lambda: store.audit.append(T, ROWS[0], NOW))
        store.references.set(T, "a", 1, None, NOW)
        store.record(T, ROWS, NOW)
        deed.settle()
        in_thread(lambda: store.audit.append(T, ROWS[0], NOW))
        store.references.set(T, "b", 1, None, NOW)
        store.record(T, ROWS, NOW)
        deed.settle()
    assert size(store) == 4


def test_only_rows(store: Store) -> None:
    with store.deed() as deed:
        store.record(T, ROWS * 3, NOW)
        deed.settle()
    assert size(store) == 3


def test_rows_of_many_deeds_and_of_decisions_are_one_log(store: Store) -> None:
    def change(name: str) -> None:
        for number in range(15):
            with store.deed() as deed:
                store.references.set(T, f"{name}{number}", 1, None, NOW)
                store.record(T, ROWS, NOW)
                deed.settle()

    def decide() -> None:
        for _ in range(40):
            store.audit.append(T, ROWS[0], NOW)

    threads = [threading.Thread(target=change, args=(name,)) for name in "xy"] + [threading.Thread(target=decide)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert size(store) == 70 and len(store.references.list(T)) == 30


# ---------------------------------------------------------------- apart, and afterwards


def test_nothing_apart_in_the_middle(store: Store) -> None:
    with store.deed() as deed:
        version, *_ = store.resources.seal_elsewhere(T, PATH, b"x", "kind", "name", NOW)
        store.references.set(T, "a", 1, None, NOW)
        with pytest.raises(RuntimeError, match="apart"):
            store.staged.announce(T, "resource", "p", 1, NOW)
        deed.undo()
        assert store.resources.seal_elsewhere(T, PATH, b"x", "kind", "name", NOW)[0] == version + 1
    assert store.references.list(T) == []


def test_one_deed_at_a_time(store: Store) -> None:
    with store.deed(), pytest.raises(RuntimeError, match="one deed"), store.deed():
        pass
    with store.deed():
        pass


def test_afterwards_and_otherwise(store: Store) -> None:
    said: list[str] = []

    def later(name: str) -> None:
        store.afterwards(lambda: said.append(f"{name} done"), lambda: said.append(f"{name} undone"))

    later("alone")
    assert said.pop() == "alone done"
    with store.deed() as deed:
        store.references.set(T, "a", 1, None, NOW)
        later("first")
        assert not said
        store.record(T, ROWS, NOW)
        deed.settle()
        assert said.pop() == "first done"
        later("second")
        deed.undo()
        assert said.pop() == "second undone"
        later("third")
    assert said == ["third undone"]


def test_erasure_waits_for_the_commit(store: Store) -> None:
    record = make_record("aes-256", KeyVersion(1, State.ENABLED, 1, 1))
    store.keys.create(T, PATH, record, Material(b"k" * 32), Binding(), NOW)
    with store.deed() as deed:
        stored = store.keys.destroy(T, PATH, None, NOW)
        assert stored.record.versions[0].state is State.DESTROYED
        store.record(T, ROWS, NOW)
        deed.settle()
    with pytest.raises(Conflict):
        store.keys.material(T, PATH, stored.record.versions[0])


def test_a_log_of_two_hundred_and_fifty_six_rows_gets_its_node_with_them(store: Store) -> None:
    for _ in range(3):
        with store.deed() as deed:
            store.record(T, ROWS * 200, NOW)
            deed.settle()
    assert size(store) == 600


# ---------------------------------------------------------------- PostgreSQL, cut off


@pytest.fixture
def wired(postgresql: Server, tmp_path: Path) -> Iterator[tuple[Store, Wire, Store]]:
    url = postgresql.schema()
    wire = Wire(postgresql.port)
    opened, other = (
        Store.open(tmp_path / name, root_key=bytes(32), now=NOW, database=database)
        for name, database in (
            ("a", lambda: PostgresDatabase(through(wire, url))),
            ("b", lambda: PostgresDatabase(DatabaseAddress.read(url))),
        )
    )
    yield opened, wire, other
    wire.close()
    opened.close()
    other.close()


@pytest.mark.slow
def test_erasure_that_cannot_be_done_says_that_and_nothing_else(wired: tuple[Store, Wire, Store]) -> None:
    """The change is committed: "nothing was kept" and "busy" would be lies about it."""
    store, _, other = wired
    with other._database.write("mine") as transaction:
        transaction.execute("SELECT 1")
        transaction.raw("SET LOCAL idle_in_transaction_session_timeout = 0")  # type: ignore[attr-defined]
        transaction.raw("LOCK TABLE resources IN SHARE UPDATE EXCLUSIVE MODE")  # type: ignore[attr-defined]
        with pytest.raises(Unavailable) as caught:
            store._database.purge()
    assert caught.value.code == "erasure_pending"
    store._database.purge(keys=True)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_commit_without_an_answer(
    wired: tuple[Store, Wire, Store], monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    store, wire, other = wired
    said: list[str] = []

    def done() -> None:
        with store.deed() as deed:
            store.resources.set(T, PATH, b"x", Binding(), NOW)
            store.afterwards(lambda: said.append("done"), lambda: said.append("undone"))
            store.record(T, ROWS, NOW)
            at_commit(monkeypatch, lambda: cut_soon(wire, deaf=arrived))
            deed.settle()

    if arrived:
        done()
    else:
        with pytest.raises(Unavailable) as caught:
            done()
        assert caught.value.code == "store_lost"
    assert (other.resources.get(T, PATH) is not None) is arrived
    assert size(other) == int(arrived) and said == (["done"] if arrived else ["undone"])


def test_of_an_outcome_that_nobody_knows_nothing_is_taken_back(
    wired: tuple[Store, Wire, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, wire, other = wired
    for name in ("RESOLVE_SECONDS", "TAKE_IN_THREAD", "THREAD_SECONDS"):
        monkeypatch.setattr(postgres, name, 0.3)
    said: list[str] = []
    with pytest.raises(Unavailable) as caught, store.deed() as deed:
        store.resources.set(T, PATH, b"x", Binding(), NOW)
        store.afterwards(lambda: said.append("done"), lambda: said.append("undone"))
        store.record(T, ROWS, NOW)
        at_commit(monkeypatch, lambda: setattr(wire, "silent", True))
        deed.settle()
    assert caught.value.code == "store_outcome_unknown" and not said
    assert (other.resources.get(T, PATH) is not None) is (size(other) == 1)


@pytest.mark.parametrize("when", ["before", "between", "reading"])
def test_a_connection_that_breaks_in_the_middle(wired: tuple[Store, Wire, Store], when: str) -> None:
    store, wire, other = wired
    store.references.set(T, "known", 1, None, NOW)
    with store.deed() as deed:
        if when == "before":
            wire.cut()  # nothing was under way: another connection does
            store.resources.set(T, PATH, b"x", Binding(), NOW)
        else:
            store.resources.set(T, PATH, b"x", Binding(), NOW)
            wire.cut()
            with pytest.raises(Unavailable):
                if when == "reading":
                    store.references.list(T)
                else:
                    store.record(T, ROWS, NOW)
            deed.undo()
            store.resources.set(T, PATH, b"x", Binding(), NOW)
        store.record(T, ROWS, NOW)
        deed.settle()
    assert other.resources.get(T, PATH) is not None and size(other) == 1


def test_two_brokers_at_once(wired: tuple[Store, Wire, Store]) -> None:
    first, _, second = wired

    def change(store: Store, name: str) -> None:
        for number in range(12):
            with store.deed() as deed:
                store.references.set(T, f"{name}{number}", 1, None, NOW)
                store.record(T, ROWS, NOW)
                deed.settle()
            store.audit.append(T, ROWS[0], NOW)

    threads = [threading.Thread(target=change, args=given) for given in ((first, "x"), (second, "y"), (first, "z"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert size(first) == 72 and len(second.references.list(T)) == 36
