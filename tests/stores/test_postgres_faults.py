"""PostgreSQL that is killed, cut off, full or damaged: what was acknowledged is there, and nothing is done twice."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.postgresql import Server
from tests.stores.proxy import Wire
from tests.waiting import until

from adyton.errors import AdytonError, ConfigError, Unavailable
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import migrations, postgres, schema
from adyton.stores.postgres import PostgresDatabase
from adyton.stores.postgres_address import DatabaseAddress
from adyton.stores.postgres_link import Link, Lost, Step
from adyton.stores.sql import Transaction
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
PATH = ResourcePath("a", "b", "c")
ROW = AuditRow("attest", "allowed")


def through(wire: Wire, url: str) -> DatabaseAddress:
    """The same schema by way of the wire."""
    name, _, options = url.partition("?")
    search = next(part for part in options.split("&") if part.startswith("options="))
    return DatabaseAddress.read(f"postgresql://adyton@127.0.0.1:{wire.port}/{name.rpartition('/')[2]}?{search}")


@pytest.fixture
def wired(postgresql: Server, tmp_path: Path) -> Iterator[tuple[Store, Wire, Store]]:
    """A store behind a wire, and the same one by another way."""
    url = postgresql.schema()
    wire = Wire(postgresql.port)
    opened = Store.open(
        tmp_path / "a", root_key=bytes(32), now=NOW, database=lambda: PostgresDatabase(through(wire, url))
    )
    other = Store.open(
        tmp_path / "b", root_key=bytes(32), now=NOW, database=lambda: PostgresDatabase(DatabaseAddress.read(url))
    )
    yield opened, wire, other
    wire.close()
    opened.close()
    other.close()


def at_commit(monkeypatch: pytest.MonkeyPatch, doing: Callable[[], object]) -> None:
    """Once, just before a COMMIT is sent."""
    done = False
    run = Link.run

    def watched(self: Link, steps: Sequence[Step], seconds: float) -> Any:
        nonlocal done
        if not done and steps and steps[-1][0] == "COMMIT":
            done = True
            doing()
        return run(self, steps, seconds)

    monkeypatch.setattr(Link, "run", watched)


# ---------------------------------------------------------------- a commit whose answer is lost


def cut_soon(wire: Wire, *, deaf: bool) -> None:
    """What is sent still arrives if ``deaf``; its answer never does."""
    wire.deaf = deaf
    if not deaf:
        wire.cut()
        return

    def later() -> None:
        until(lambda: wire.unheard)  # it is done, and nobody hears of it
        wire.cut()
        wire.deaf = False

    threading.Thread(target=later).start()


@pytest.mark.parametrize("arrived", [True, False])
def test_a_commit_without_an_answer_is_looked_up_not_repeated(
    wired: tuple[Store, Wire, Store], monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    store, wire, other = wired
    store.resources.set("default", PATH, b"first", Binding(), NOW)
    at_commit(monkeypatch, lambda: cut_soon(wire, deaf=arrived))
    if arrived:
        assert store.resources.set("default", PATH, b"second", Binding(), NOW).version == 2
    else:
        with pytest.raises(Unavailable) as caught:
            store.resources.set("default", PATH, b"second", Binding(), NOW)
        assert caught.value.code == "store_lost" and "nothing of this change was kept" in caught.value.message
    found = other.resources.get("default", PATH)
    assert found is not None
    assert (found.value, found.info.version) == ((b"second", 2) if arrived else (b"first", 1))
    assert store.resources.set("default", PATH, b"third", Binding(), NOW).version == (3 if arrived else 2)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_row_of_the_record_is_written_once(
    wired: tuple[Store, Wire, Store], monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    store, wire, other = wired
    assert store.audit.append("default", ROW, NOW) == 1
    at_commit(monkeypatch, lambda: cut_soon(wire, deaf=arrived))
    assert asyncio.run(store.audit.append_async("default", ROW, NOW)) == 2
    assert other.audit.verify("default").sequence == 2
    assert store.audit.append("default", ROW, NOW) == 3


def test_an_outcome_that_cannot_be_looked_up_is_said_to_be_unknown(
    wired: tuple[Store, Wire, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, wire, _ = wired
    monkeypatch.setattr(postgres, "RESOLVE_SECONDS", 0.3)
    monkeypatch.setattr(postgres, "TAKE_IN_THREAD", 0.3)
    monkeypatch.setattr(postgres, "THREAD_SECONDS", 0.3)
    at_commit(monkeypatch, lambda: setattr(wire, "silent", True))
    with pytest.raises(Unavailable) as caught:
        store.resources.set("default", PATH, b"x", Binding(), NOW)
    assert caught.value.code == "store_outcome_unknown" and caught.value.hint


# ---------------------------------------------------------------- silence


def test_a_silent_database_costs_an_event_loop_half_a_second_once(wired: tuple[Store, Wire, Store]) -> None:
    store, wire, other = wired
    store.references.set("default", "a", 1, None, NOW)

    def refused() -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            store.generation("default")
        assert caught.value.code == "store_unreachable"
        return time.monotonic() - began

    async def main() -> None:
        assert store.generation("default") == 1
        wire.silent = True
        other.references.set("default", "a", 2, None, NOW)  # acknowledged to somebody else
        assert refused() < 5  # never the old state
        assert sorted(refused() for _ in range(20))[10] < 0.1
        wire.silent = False
        for _ in range(1200):
            try:
                assert store.generation("default") == 2
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        else:
            pytest.fail("it does not come back by itself")

    asyncio.run(main())


def test_broken_connections_are_replaced_without_anybody_noticing(wired: tuple[Store, Wire, Store]) -> None:
    store, wire, _ = wired
    store.references.set("default", "a", 1, None, NOW)
    for turn in range(5):
        wire.cut()
        time.sleep(0.02 * turn)
        assert store.generation("default") == turn + 1
        wire.cut()
        store.references.set("default", "a", turn, None, NOW)


def test_a_holder_of_a_lock_that_stops_loses_it(wired: tuple[Store, Wire, Store]) -> None:
    store, wire, other = wired
    with pytest.raises(AdytonError), store._database.write() as transaction:
        transaction.execute("INSERT INTO tenants VALUES ('lost', 1, 1, 1)")
        wire.silent = True  # its machine is gone from the network, in the middle
        began = time.monotonic()
        assert other.resources.set("default", PATH, b"x", Binding(), NOW).version == 1
        assert time.monotonic() - began < 20
        wire.silent = False
        transaction.execute("SELECT 1")
    assert other.tenants() == ["default"]


# ---------------------------------------------------------------- kill -9


WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from adyton.errors import Unavailable
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.protocol.audit_row import AuditRow
from adyton.stores.postgres import PostgresDatabase
from adyton.stores.postgres_address import DatabaseAddress
from adyton.stores.sqlite import Store
now = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
directory, url, run = sys.argv[1:]
store = Store.open(Path(directory), root_key=bytes(32), now=now, database=lambda: PostgresDatabase(DatabaseAddress.read(url)))
def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()
async def writer(name):
    turn = 0
    while True:
        turn += 1
        peer = f"{run}.{name}.{turn}"
        try:
            say("audit", await store.audit.append_async("default", AuditRow("attest", "allowed", peer=peer), now), peer)
        except Unavailable as error:
            say("refused", error.code, peer)
            await asyncio.sleep(0.05)
        try:
            if turn % 7 == 0:
                path = ResourcePath("r", run, name)
                info = await asyncio.to_thread(store.resources.set, "default", path, f"{turn}".encode() * 50, Binding(), now)
                say("resource", path, turn, info.version)
        except Unavailable as error:
            say("unset", error.code, peer)
async def main():
    await asyncio.gather(*(writer(f"w{n}") for n in range(4)))
asyncio.run(main())
"""


def writers(directory: Path, url: str, numbers: Sequence[int]) -> list[subprocess.Popen[str]]:
    started = []
    for number in numbers:
        run = f"run{number}x{time.monotonic_ns()}"
        with (directory / f"said{number}").open("w") as said:
            command = [sys.executable, "-c", WRITER, str(directory / f"w{number}"), url, run]
            started.append(subprocess.Popen(command, stdout=said, text=True))
    return started


def check(store: Store, said: Sequence[Path]) -> int:
    """Everything acknowledged is there, once; what was refused is there at most once. How many rows there are."""
    rows = store.audit.verify("default").sequence
    entries = {entry.sequence: entry.row.peer for entry in store.audit.list("default", limit=10**6)}
    assert len(entries) == rows and len(set(entries.values())) == rows
    peers = set(entries.values())
    for file in said:
        turns: dict[str, tuple[int, int]] = {}
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            kind, *rest = line.split()
            if kind == "audit":
                assert entries[int(rest[0])] == rest[1]
            elif kind == "resource":
                turns[rest[0]] = (int(rest[1]), int(rest[2]))
            elif kind == "refused" and rest[0] != "store_outcome_unknown":
                assert rest[1] not in peers, line  # it was said that nothing was kept
        for path, (turn, version) in turns.items():
            found = store.resources.get("default", ResourcePath.parse(path))
            assert found is not None and found.info.version >= version
            assert int(found.value[: len(found.value) // 50]) >= turn
    return rows


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["kill", "immediate", "fast", "writers"])
def test_nothing_acknowledged_is_lost(tmp_path: Path, how: str) -> None:
    server = Server.make()
    server.start()
    running: list[subprocess.Popen[str]] = []
    try:
        url = server.url(server.database())
        chance = random.Random(how)
        running = writers(tmp_path, url, range(3))
        for _ in range(300):
            if all((tmp_path / f"said{n}").stat().st_size > 200 for n in range(3)):
                break
            time.sleep(0.1)
        before = sum((tmp_path / f"said{n}").stat().st_size for n in range(3))
        for _ in range(3):
            time.sleep(chance.uniform(0.3, 0.8))
            if how == "writers":
                running[0].kill()
                running[0].wait()
                (tmp_path / "said0").rename(tmp_path / f"old{time.monotonic_ns()}")
                running[0] = writers(tmp_path, url, [0])[0]
                time.sleep(1)
                continue
            if how == "kill":
                server.kill()
            else:
                server.stop(how)
            time.sleep(chance.uniform(0, 0.5))
            server.start()
        time.sleep(2)
        assert sum((tmp_path / f"said{n}").stat().st_size for n in range(3)) > before  # they went on by themselves
        assert [process.poll() for process in running] == [None] * 3
        for process in running:
            process.kill()
            process.wait()
        store = Store.open(
            tmp_path / "check",
            root_key=bytes(32),
            now=NOW,
            database=lambda: PostgresDatabase(DatabaseAddress.read(url)),
        )
        try:
            assert check(store, [*tmp_path.glob("said*"), *tmp_path.glob("old*")]) > 50
        finally:
            store.close()
    finally:
        for process in running:
            process.kill()
        server.close()


# ---------------------------------------------------------------- making and bringing up to date, interrupted


def steps_of(monkeypatch: pytest.MonkeyPatch, stop_at: int, seen: list[str]) -> None:
    run = Link.run

    def watched(self: Link, steps: Sequence[Step], seconds: float) -> Any:
        if len(steps) and not steps[0][0].startswith(("SET", "ROLLBACK")):
            seen.append(steps[-1][0])
            if len(seen) == stop_at:
                self.close()  # as the process and its sockets would be gone
                raise Lost(silent=False)
        return run(self, steps, seconds)

    monkeypatch.setattr(Link, "run", watched)


def test_making_the_tables_is_all_or_nothing(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = DatabaseAddress.read(postgresql.schema())
    everything: list[str] = []
    with monkeypatch.context() as patch:
        steps_of(patch, 0, everything)
        PostgresDatabase(DatabaseAddress.read(postgresql.schema())).close()
    assert len(everything) > len(schema.STATEMENTS)
    for number in range(1, len(everything) + 1, 4):
        seen: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "RESOLVE_SECONDS", 0.0)
            steps_of(patch, number, seen)
            try:
                PostgresDatabase(address, patience=0.0).close()
            except Unavailable:
                pass
            else:
                assert number == 1  # nothing had been done, so it was begun again on another connection
                address = DatabaseAddress.read(postgresql.schema())
                continue
        search = address.parameters["options"].partition("=")[2]
        tables = postgresql.sql(f"SELECT count(*) FROM pg_tables WHERE schemaname='{search}'", "tests")
        assert tables == "0", everything[number - 1]
    database = PostgresDatabase(address)
    assert database.read("SELECT count(*) FROM tenants") == [(0,)]
    database.close()


def test_a_migration_is_all_or_nothing(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = DatabaseAddress.read(postgresql.schema())
    PostgresDatabase(address).close()

    def fifth(transaction: Transaction) -> None:
        transaction.execute("CREATE TABLE notes (tenant TEXT NOT NULL, body BLOB, PRIMARY KEY (tenant)) STRICT")
        transaction.execute("ALTER TABLE tenants ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'")
        transaction.execute("INSERT INTO notes VALUES (?, ?)", ("t", b"x"))
        transaction.execute("UPDATE tenants SET colour=?", ("red",))

    monkeypatch.setattr(schema, "VERSION", 5)
    monkeypatch.setattr(migrations, "_STEPS", {**migrations._STEPS, 4: fifth})
    everything: list[str] = []
    for number in range(1, 20):
        everything.clear()
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "RESOLVE_SECONDS", 0.0)
            steps_of(patch, number, everything)
            try:
                PostgresDatabase(address, patience=0.0).close()
            except Unavailable:
                with monkeypatch.context() as older:
                    older.setattr(schema, "VERSION", 4)
                    database = PostgresDatabase(address)  # the older program still finds its tables
                    assert database.read("SELECT * FROM tenants") == []
                    with pytest.raises(AdytonError):
                        database.read("SELECT * FROM notes")
                    database.close()
                continue
        if len(everything) < number:
            break
        PostgresDatabase(address).close()
        break
    database = PostgresDatabase(address)
    assert database.read("SELECT body FROM notes") == [(b"x",)]
    database.close()
    with monkeypatch.context() as older:
        older.setattr(schema, "VERSION", 4)
        with pytest.raises(ConfigError) as caught:
            PostgresDatabase(address)
        assert caught.value.code == "store_version"


def test_a_broker_of_another_version_writes_nothing_from_then_on(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = DatabaseAddress.read(postgresql.schema())
    old = PostgresDatabase(address)
    with monkeypatch.context() as newer:
        newer.setattr(schema, "VERSION", 5)
        newer.setattr(migrations, "_STEPS", {**migrations._STEPS, 4: lambda _: None})
        PostgresDatabase(address).close()
    with pytest.raises(ConfigError) as caught, old.write() as transaction:
        transaction.execute("INSERT INTO tenants VALUES ('x', 1, 1, 1)")
    assert caught.value.code == "store_version"
    old.close()


# ---------------------------------------------------------------- the disk


@pytest.mark.root
@pytest.mark.slow
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120m", "adyton-test", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    for above in (tmp_path, *(one for one in tmp_path.parents if one.name.startswith(("pytest-", "popen-")))):
        above.chmod(0o755)  # another user makes the cluster; under xdist there is one directory more
    server: Server | None = None
    try:
        server = Server.make(place)
        server.start()
        address = DatabaseAddress.read(server.url(server.database()))
        store = Store.open(tmp_path / "s", root_key=bytes(32), now=NOW, database=lambda: PostgresDatabase(address))
        written: list[ResourcePath] = []
        codes: set[str] = set()
        for number in range(4000):
            path = ResourcePath("fill", "disk", str(number))
            try:
                store.resources.set("default", path, random.Random(number).randbytes(100_000), Binding(), NOW)
                written.append(path)
            except Unavailable as error:
                codes.add(error.code)
                if error.code == "store_disk" or len(codes) > 1:
                    break
        assert codes & {"store_disk", "store_lost", "store_unreachable", "store_outcome_unknown"}
        subprocess.run(["mount", "-o", "remount,size=400m", str(place)], check=True)  # somebody makes space
        if server.process is not None and server.process.poll() is not None:
            server.start()  # a full log stops it; that is its way of losing nothing
        for _ in range(100):
            try:
                store.resources.set("default", ResourcePath("after", "the", "flood"), b"x", Binding(), NOW)
                break
            except Unavailable:
                time.sleep(0.1)
        held = {info.path for info in store.resources.list("default")}
        assert held >= set(written)
        store.close()
    finally:
        if server is not None:
            server.close()
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_damaged_page_is_refused_by_name(tmp_path: Path) -> None:
    server = Server.make()
    try:
        server.start()
        name = server.database()
        address = DatabaseAddress.read(server.url(name))
        store = Store.open(tmp_path / "s", root_key=bytes(32), now=NOW, database=lambda: PostgresDatabase(address))
        for number in range(20):
            store.resources.set("default", ResourcePath("a", "b", str(number)), b"x" * 900, Binding(), NOW)
        store.close()
        server.sql("CHECKPOINT", name)
        file = server.data / server.sql("SELECT pg_relation_filepath('resources')", name)
        server.stop()
        content = bytearray(file.read_bytes())
        content[4000:4100] = b"\xa5" * 100
        file.write_bytes(content)
        server.start()
        store = Store.open(tmp_path / "s", root_key=bytes(32), now=NOW, database=lambda: PostgresDatabase(address))
        with pytest.raises(Unavailable) as caught:
            store.resources.list("default")
        assert caught.value.code == "store_corrupt" and caught.value.hint
        store.close()
    finally:
        server.close()
