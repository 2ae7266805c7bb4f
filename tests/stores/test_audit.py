from __future__ import annotations

import asyncio
import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json, structs
from tests.stores.conftest import Engine
from tests.waiting import LONG

from adyton.crypto import merkle
from adyton.errors import AdytonError, LogBroken, NotFound
from adyton.protocol import audit_row
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.checkpoint import Checkpoint
from adyton.stores import audit as module
from adyton.stores import audit_tree, schema
from adyton.stores.audit_reading import AuditHead
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ROW = AuditRow("release", "refused", resource="kbs:///a/b/c", reasons=("workload_not_bound",), request_id="r1")


@pytest.fixture
def store(tmp_path: Path, engine: Engine) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW, database=engine)
    yield store
    store.close()


TRIGGERS = [trigger.split()[2] for trigger in schema.APPEND_ONLY]


def change(directory: Path, *statements: str) -> None:
    """As somebody does who may write the file, and knows that it has triggers."""
    connection = sqlite3.connect(directory / FILE)
    with connection:
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def rows_of(directory: Path) -> list[bytes]:
    connection = sqlite3.connect(directory / FILE)
    found = [row[0] for row in connection.execute("SELECT body FROM audit WHERE tenant='default' ORDER BY sequence")]
    connection.close()
    return found


def rewritten(directory: Path, first: int) -> None:
    """Everything from row ``first`` on written anew so that it fits together, stored hashes included."""
    bodies = rows_of(directory)
    connection = sqlite3.connect(directory / FILE)
    with connection:
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER {trigger}")
        for number in range(first, len(bodies) + 1):
            entry = audit_row.decode(bodies[number - 1])
            row = structs.replace(entry.row, peer="forged") if number == first else entry.row
            previous = audit_row.leaf(bodies[number - 2]).hex() if number > 1 else audit_row.START
            bodies[number - 1] = body = audit_row.encode(structs.replace(entry, row=row, previous=previous))
            connection.execute("UPDATE audit SET body=?, leaf=? WHERE sequence=?", (body, audit_row.leaf(body), number))
        connection.execute("DELETE FROM audit_nodes")
        audit_tree.complete(connection, "default", 0, len(bodies))
    connection.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Checkpoint]]:
    """A log of 600 rows, another tenant's beside it, and what an auditor wrote down at 300 and at 600."""
    directory = tmp_path_factory.mktemp("kept")
    store = Store.open(directory, root_key=bytes(32), now=NOW)
    store.audit._commit([("default", structs.replace(ROW, request_id=str(number)), NOW) for number in range(600)])
    store.audit._commit([("other", ROW, NOW)] * 600)
    checkpoints = [Checkpoint("log", size, store.audit.root("default", size)) for size in (300, 600)]
    store.close()
    return directory, checkpoints


def verified(directory: Path, checkpoints: Sequence[Checkpoint]) -> AuditHead:
    store = Store.open(directory, root_key=bytes(32), now=NOW)
    try:
        return store.audit.verify("default", checkpoints)
    finally:
        store.close()


_FLIP = "cast(replace(cast(body AS text), 'refused', 'allowed') AS blob)"
SQL: dict[str, tuple[tuple[str, ...], str, str]] = {
    "change a row": ((f"UPDATE audit SET body={_FLIP} WHERE sequence=7",), "row 7", "row_changed"),
    "change the last": ((f"UPDATE audit SET body={_FLIP} WHERE sequence=600",), "row 600", "row_changed"),
    "no row at all": (("UPDATE audit SET body=x'00' WHERE sequence=7",), "row 7", "row_malformed"),
    "change a hash": (("UPDATE audit SET leaf=zeroblob(32) WHERE sequence=7",), "row 7", "row_changed"),
    "delete a row": (("DELETE FROM audit WHERE tenant='default' AND sequence=7",), "row 7", "row_missing"),
    "delete the first": (("DELETE FROM audit WHERE tenant='default' AND sequence=1",), "row 1", "row_missing"),
    "delete and close the gap": (
        (
            "DELETE FROM audit WHERE tenant='default' AND sequence=7",
            "UPDATE audit SET sequence=-sequence+1 WHERE tenant='default' AND sequence>7",
            "UPDATE audit SET sequence=-sequence WHERE tenant='default' AND sequence<0",
        ),
        "row 7",
        "row_missing",
    ),
    "swap two": (
        (
            "UPDATE audit SET sequence=-7 WHERE tenant='default' AND sequence=7",
            "UPDATE audit SET sequence=7 WHERE tenant='default' AND sequence=8",
            "UPDATE audit SET sequence=8 WHERE tenant='default' AND sequence=-7",
        ),
        "row 7",
        "row_missing",
    ),
    "one row twice": (
        (
            ("UPDATE audit SET (body, leaf)=(SELECT body, leaf FROM audit WHERE tenant='default' AND sequence=2)"
            " WHERE tenant='default' AND sequence=3"),
        ),
        "row 3",
        "row_repeated",
    ),
    "another tenant's row": (
        (
            ("UPDATE audit SET (body, leaf)=(SELECT body, leaf FROM audit WHERE tenant='other' AND sequence=7)"
            " WHERE tenant='default' AND sequence=7"),
        ),
        "row 7",
        "row_foreign",
    ),
    "cut the end": (("DELETE FROM audit WHERE tenant='default' AND sequence>590",), "row 591", "rows_cut"),
    "cut a block and its hash": (
        ("DELETE FROM audit WHERE sequence>500", "DELETE FROM audit_nodes WHERE number=1"),
        "row 501",
        "rows_cut",
    ),
    "delete all": (("DELETE FROM audit", "DELETE FROM audit_nodes"), "row 1", "rows_cut"),
    "append a copy": (
        ("INSERT INTO audit SELECT tenant, 601, time, leaf, body FROM audit WHERE tenant='default' AND sequence=600",),
        "row 601",
        "row_repeated",
    ),
    "append far away": (
        ("INSERT INTO audit SELECT tenant, 700, time, leaf, body FROM audit WHERE tenant='default' AND sequence=600",),
        "row 601",
        "row_missing",
    ),
    "change a stored node": (("UPDATE audit_nodes SET hash=zeroblob(32) WHERE number=1",), "row 257", "nodes_changed"),
    "delete a stored node": (("DELETE FROM audit_nodes WHERE number=0",), "row 1", "nodes_changed"),
    "add a node": (("INSERT INTO audit_nodes VALUES ('default', 1, 2, zeroblob(32))",), "row 601", "nodes_changed"),
    "add a higher node": (("INSERT INTO audit_nodes VALUES ('default', 2, 0, zeroblob(32))",), "row 601", "nodes_changed"),
}  # fmt: skip


@pytest.mark.parametrize("way", SQL)
def test_whatever_is_done_to_the_file_is_found(kept: tuple[Path, list[Checkpoint]], tmp_path: Path, way: str) -> None:
    statements, where, code = SQL[way]
    directory = shutil.copytree(kept[0], tmp_path / "copy")
    change(directory, *statements)
    with pytest.raises(LogBroken) as caught:
        verified(directory, kept[1])
    assert (caught.value.field, caught.value.code) == (where, code)


@pytest.mark.parametrize(
    ("first", "where"), [(1, "row 1"), (7, "row 1"), (300, "row 1"), (301, "row 301"), (600, "row 301")]
)
def test_rows_written_anew_so_that_they_fit_are_found_by_the_checkpoints(
    kept: tuple[Path, list[Checkpoint]], tmp_path: Path, first: int, where: str
) -> None:
    directory = shutil.copytree(kept[0], tmp_path / "copy")
    rewritten(directory, first)
    assert verified(directory, []).sequence == 600  # nobody wrote anything down: nobody can tell
    with pytest.raises(LogBroken) as caught:
        verified(directory, kept[1])
    assert (caught.value.field, caught.value.code) == (where, "rows_changed")


def test_what_was_not_touched_verifies(kept: tuple[Path, list[Checkpoint]], tmp_path: Path) -> None:
    directory = shutil.copytree(kept[0], tmp_path / "copy")
    head = verified(directory, kept[1])
    assert head == AuditHead(600, kept[1][1].root.hex())
    change(directory, "DELETE FROM audit WHERE tenant='other' AND sequence=7")
    assert verified(directory, kept[1]) == head  # each tenant has a log of its own


@pytest.mark.parametrize("table", ["audit", "audit_nodes", "checkpoints"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET tenant='x'"])
def test_careless_tools_are_told_that_it_is_append_only(
    store: Store, tmp_path: Path, table: str, statement: str
) -> None:
    store.audit._commit([("default", ROW, NOW)] * 300)
    store.audit.keep_checkpoint("default", 300, "note", NOW)
    connection = sqlite3.connect(tmp_path / FILE)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement.format(table))
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit WHERE sequence=5",
        "DELETE FROM audit",
        f"UPDATE audit SET body={_FLIP}, leaf=zeroblob(32) WHERE sequence=5",
    ],
)
def test_nothing_is_written_after_an_end_that_was_changed(store: Store, tmp_path: Path, statement: str) -> None:
    for _ in range(5):
        store.audit.append("default", ROW, NOW)
    store.audit.append("other", ROW, NOW)
    change(
        tmp_path, statement + " AND tenant='default'" if "WHERE" in statement else statement + " WHERE tenant='default'"
    )
    for _ in range(2):
        with pytest.raises(LogBroken) as caught:
            store.audit.append("default", ROW, NOW)
        assert caught.value.code == "log_end_changed"
    assert store.audit.append("other", ROW, NOW) == 2


@pytest.mark.parametrize("sizes", [[1] * 5, [255, 1, 1], [256, 256], [257, 600, 3], [1000]])
def test_proofs_from_stored_hashes_are_those_of_the_rows(store: Store, tmp_path: Path, sizes: list[int]) -> None:
    for size in sizes:
        store.audit._commit([("default", ROW, NOW)] * size + [("other", ROW, NOW)])
    rows = rows_of(tmp_path)
    total = len(rows)
    assert total == sum(sizes) == store.audit.size("default")
    edge = merkle.Frontier()
    roots = [edge.root()]
    for row in rows:
        edge.push(audit_row.leaf(row))
        roots.append(edge.root())
    assert store.audit.verify("default") == AuditHead(total, roots[-1].hex())
    assert store.audit.frontier("default", total).peaks == edge.peaks
    for number in {1, total // 2 or 1, min(256, total), min(257, total), total}:
        path = store.audit.inclusion("default", number, total)
        merkle.verify_inclusion(audit_row.leaf(rows[number - 1]), number - 1, total, path, roots[-1])
        merkle.verify_consistency(
            number, roots[number], total, roots[-1], store.audit.consistency("default", number, total)
        )
        assert store.audit.root("default", number) == roots[number]
        assert store.audit.body("default", number) == rows[number - 1]
    assert store.audit.bodies("default", total - 3, 2) == rows[total - 3 :][:2]
    assert store.audit.tenants_with_rows() == ["default", "other"]


def test_what_is_not_there_cannot_be_proved(store: Store) -> None:
    store.audit._commit([("default", ROW, NOW)] * 5)
    for ask in (
        lambda: store.audit.inclusion("default", 6, 5),
        lambda: store.audit.inclusion("default", 0, 5),
        lambda: store.audit.inclusion("default", 1, 6),
        lambda: store.audit.inclusion("nobody", 1, 1),
        lambda: store.audit.consistency("default", 6, 5),
        lambda: store.audit.consistency("default", 5, 6),
        lambda: store.audit.root("default", 6),
        lambda: store.audit.frontier("default", -1),
        lambda: store.audit.body("default", 6),
    ):
        with pytest.raises(NotFound):
            ask()
    assert store.audit.root("nobody", 0) == merkle.EMPTY
    assert store.audit.tenants_with_rows() == ["default"]


def test_a_tree_of_three_stored_levels(store: Store) -> None:
    """65536 rows and more: nodes over nodes."""
    for _ in range(66):
        store.audit._commit([("default", ROW, NOW)] * 1000)
    head = store.audit.verify("default")
    path = store.audit.inclusion("default", 4711, 66_000)
    leaf = audit_row.leaf(store.audit.body("default", 4711))
    merkle.verify_inclusion(leaf, 4710, 66_000, path, bytes.fromhex(head.root))


def test_checkpoints_are_kept_as_they_were_first(store: Store) -> None:
    assert store.audit.latest_checkpoint("default") is None
    for size, note in ((3, "three"), (1, "one"), (3, "again")):
        store.audit.keep_checkpoint("default", size, note, NOW)
    store.audit.keep_checkpoint("other", 9, "nine", NOW)
    assert [(kept.size, kept.note, kept.time) for kept in store.audit.checkpoints("default")] == [
        (1, "one", NOW),
        (3, "three", NOW),
    ]
    assert [kept.size for kept in store.audit.checkpoints("default", after=1)] == [3]
    latest = store.audit.latest_checkpoint("default")
    assert latest is not None and latest.note == "three"


# --- stores of the schema before, whose rows were chained by digest

_OLD_ENCODE = json.Encoder().encode


def made_old(directory: Path, count: int) -> list[bytes]:
    """The store of ``directory`` as the version before wrote it, with ``count`` rows for each of two tenants."""
    Store.open(directory, root_key=bytes(32), now=NOW).close()
    connection = sqlite3.connect(directory / FILE)
    bodies = []
    with connection:
        newer = [made.split()[2] for made in schema.FOURTH if made.split()[1] == "TABLE"]
        for table in ("audit", "audit_nodes", "checkpoints", '"references"', "published", "providers", *newer):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(
            'CREATE TABLE "references" (tenant TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, updated REAL'
            " NOT NULL, expires REAL, sealed BLOB NOT NULL, PRIMARY KEY (tenant, name)) WITHOUT ROWID, STRICT"
        )
        connection.execute(
            "CREATE TABLE audit (tenant TEXT NOT NULL, sequence INTEGER NOT NULL, time REAL NOT NULL, body BLOB NOT NULL,"
            " digest BLOB NOT NULL, PRIMARY KEY (tenant, sequence)) WITHOUT ROWID, STRICT"
        )
        for tenant in ("default", "other"):
            previous = bytes(32)
            for number in range(1, count + 1):
                at = NOW.isoformat().replace("+00:00", "Z")
                row = {"action": "attest", "decision": "allowed", "tee": "snp"}
                entry = {"tenant": tenant, "sequence": number, "time": at, "previous": previous.hex(), "row": row}
                body = _OLD_ENCODE(entry)
                previous = hashlib.sha256(body).digest()
                connection.execute(
                    "INSERT INTO audit VALUES (?,?,?,?,?)", (tenant, number, NOW.timestamp(), body, previous)
                )
                if tenant == "default":
                    bodies.append(body)
        connection.execute("PRAGMA user_version=1")
    connection.close()
    return bodies


def test_an_older_store_keeps_its_rows_and_gets_a_tree(tmp_path: Path) -> None:
    bodies = made_old(tmp_path, 300)
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    try:
        assert rows_of(tmp_path) == bodies
        assert store.audit.append("default", ROW, NOW) == 301
        assert store.audit.verify("default").sequence == 301 and store.audit.verify("other").sequence == 300
        assert [entry.version for entry in store.audit.list("default", limit=2)] == [1, 2]
    finally:
        store.close()


def test_what_was_changed_before_the_tree_was_made_still_shows(tmp_path: Path) -> None:
    made_old(tmp_path, 10)
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute(
            "UPDATE audit SET body=cast(replace(cast(body AS text), 'allowed', 'refused') AS blob)"
            " WHERE tenant='default' AND sequence=7"
        )
    connection.close()
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    try:
        with pytest.raises(LogBroken) as caught:
            store.audit.verify("default")
        assert caught.value.field == "row 7"
        assert store.audit.verify("other").sequence == 10
    finally:
        store.close()


def test_an_older_store_that_lacks_a_row_is_left_as_it_was(tmp_path: Path) -> None:
    made_old(tmp_path, 10)
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute("DELETE FROM audit WHERE tenant='other' AND sequence=7")
    connection.close()
    before = rows_of(tmp_path)
    for _ in range(2):
        with pytest.raises(LogBroken) as caught:
            Store.open(tmp_path, root_key=bytes(32), now=NOW)
        assert caught.value.code == "row_missing"
    connection = sqlite3.connect(tmp_path / FILE)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM audit WHERE digest IS NOT NULL").fetchone() == (19,)
    connection.close()
    assert rows_of(tmp_path) == before


def test_rows_come_back_in_order(store: Store) -> None:
    for number in range(5):
        store.audit.append(
            "default", AuditRow("attest", "allowed", request_id=str(number)), NOW + timedelta(seconds=number)
        )
    store.audit.append("other", ROW, NOW)
    entries = store.audit.list("default")
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.row.request_id for entry in entries] == ["0", "1", "2", "3", "4"]
    assert entries[0].previous == "00" * 32 and entries[0].time == NOW and entries[0].tenant == "default"
    assert [entry.sequence for entry in store.audit.list("default", limit=2)] == [4, 5]
    assert [entry.sequence for entry in store.audit.list("default", limit=2, after=1)] == [2, 3]
    assert [entry.sequence for entry in store.audit.list("default", since=NOW + timedelta(seconds=3))] == [4, 5]
    assert [entry.row for entry in store.audit.list("other")] == [ROW]
    assert store.audit.list("nobody") == []
    assert store.audit.verify("default").sequence == 5 and store.audit.verify("nobody").sequence == 0


@pytest.mark.parametrize("slow", [float("inf"), -1.0])
def test_many_rows_at_once_share_commits_and_keep_their_order(
    store: Store, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", slow)  # in the loop, or by a thread
    commits: list[int] = []
    real = store.audit._commit

    def commit(rows: Sequence[tuple[str, AuditRow, datetime]]) -> list[int]:
        commits.append(len(rows))
        return real(rows)

    monkeypatch.setattr(store.audit, "_commit", commit)

    async def one(number: int) -> list[int]:
        return [
            await store.audit.append_async(
                f"t{number % 3}", AuditRow("attest", "allowed", peer=f"{number}.{turn}"), NOW
            )
            for turn in range(5)
        ]

    async def run() -> list[list[int]]:
        return await asyncio.gather(*(one(number) for number in range(30)))

    found = asyncio.run(run())
    assert all(numbers == sorted(numbers) for numbers in found)
    assert sum(commits) == 150 and len(commits) < 75
    for tenant in ("t0", "t1", "t2"):
        assert store.audit.verify(tenant).sequence == 50
        assert len({entry.row.peer for entry in store.audit.list(tenant, limit=1000)}) == 50


def test_a_commit_waits_for_rows_that_follow_but_never_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", LONG)
    monkeypatch.setattr(module, "GATHER_ROWS", 10**9)
    commits: list[int] = []
    real = store.audit._commit

    def commit(rows: Sequence[tuple[str, AuditRow, datetime]]) -> list[int]:
        commits.append(len(rows))
        return real(rows)

    monkeypatch.setattr(store.audit, "_commit", commit)

    async def soon(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await store.audit.append_async("default", ROW, NOW)

    async def one_a_turn() -> None:
        await asyncio.gather(*(soon(turns) for turns in range(5)))
        assert commits == [5]

    async def without_end() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = asyncio.ensure_future(store.audit.append_async("default", ROW, NOW))
        others = []
        while not first.done():
            others.append(asyncio.ensure_future(store.audit.append_async("default", ROW, NOW)))
            await asyncio.sleep(0)
        waited = loop.time() - began
        await asyncio.gather(*others)
        return waited

    asyncio.run(one_a_turn())
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.02)
    assert asyncio.run(without_end()) < LONG / 4
    assert commits[1] > 1
    assert sum(commits) == store.audit.verify("default").sequence


def test_threads_and_workers_write_one_log(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path, root_key=bytes(32), now=NOW, instance=store.instance)
    try:
        with ThreadPoolExecutor(4) as threads:
            jobs = [
                threads.submit((store, other)[number % 2].audit.append, "default", ROW, NOW) for number in range(300)
            ]
            assert sorted(job.result() for job in jobs) == list(range(1, 301))
        assert other.audit.verify("default") == store.audit.verify("default")
    finally:
        other.close()


@pytest.mark.parametrize("slow", [float("inf"), -1.0])
def test_a_row_that_cannot_be_written_is_told_to_everybody_who_waits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", slow)
    change(tmp_path, "ALTER TABLE audit RENAME TO gone")

    async def run() -> list[object]:
        return await asyncio.gather(
            *(store.audit.append_async("default", ROW, NOW) for _ in range(3)), return_exceptions=True
        )

    assert all(isinstance(found, AdytonError) for found in asyncio.run(run()))
    change(tmp_path, "ALTER TABLE gone RENAME TO audit")
    assert store.audit.append("default", ROW, NOW) == 1


@pytest.mark.parametrize("slow", [float("inf"), -1.0])
def test_a_request_that_is_abandoned_leaves_its_row(store: Store, monkeypatch: pytest.MonkeyPatch, slow: float) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", slow)

    async def run() -> int:
        task = asyncio.create_task(store.audit.append_async("default", ROW, NOW))
        await asyncio.sleep(0)
        task.cancel()
        return await store.audit.append_async("default", ROW, NOW)

    assert asyncio.run(run()) == 2
    assert store.audit.verify("default").sequence == 2


def test_a_loop_that_ended_in_the_middle_does_not_stop_the_next(store: Store) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(store.audit.append_async("default", ROW, NOW))
    loop.call_soon(loop.stop)
    loop.run_forever()  # the row is waiting for the next turn, which never comes
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert asyncio.run(store.audit.append_async("default", ROW, NOW)) >= 1
    assert store.audit.verify("default").sequence >= 1


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        AuditRow,
        action=st.text(max_size=20),
        decision=st.sampled_from(["allowed", "refused"]),
        resource=st.text(max_size=20),
        reasons=st.lists(st.text(max_size=10), max_size=3).map(tuple),
        reference_generation=st.none() | st.integers(0, 2**53),
    )
)
def test_any_row_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, row: AuditRow) -> None:
    store = Store.open(tmp_path_factory.mktemp("audit"), root_key=bytes(32), now=NOW)
    try:
        try:
            store.audit.append("default", row, NOW)
        except UnicodeEncodeError:  # half characters do not occur: rows are made of ASCII codes and digests
            return
        assert [entry.row for entry in store.audit.list("default")] == [row]
    finally:
        store.close()
