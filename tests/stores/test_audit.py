from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.errors import AdytonError, Unavailable
from adyton.stores import audit as module
from adyton.stores.audit import AuditRow
from adyton.stores.sqlite import FILE, Store

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
ROW = AuditRow("release", "refused", resource="kbs:///a/b/c", reasons=("workload_not_bound",), request_id="r1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    yield store
    store.close()


def change(directory: Path, statement: str) -> None:
    connection = sqlite3.connect(directory / FILE)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit WHERE sequence=3",
        "DELETE FROM audit WHERE sequence=1",
        "UPDATE audit SET body=replace(body, 'refused', 'allowed') WHERE sequence=2",
        "UPDATE audit SET body=cast(replace(cast(body AS text), 'refused', 'allowed') AS blob) WHERE sequence=2",
        "UPDATE audit SET body=x'00' WHERE sequence=5",
        "UPDATE audit SET digest=zeroblob(32) WHERE sequence=5",
        "UPDATE audit SET sequence=9 WHERE sequence=5",
        "UPDATE audit SET tenant='other' WHERE sequence=5",
        "INSERT INTO audit SELECT tenant, 6, time, body, digest FROM audit WHERE sequence=5",
        "UPDATE audit SET (body, digest)=(SELECT body, digest FROM audit WHERE sequence=2) WHERE sequence=3",
    ],
)
def test_a_row_that_was_changed_or_taken_out_shows(store: Store, tmp_path: Path, statement: str) -> None:
    for _ in range(5):
        store.audit.append("default", ROW, NOW)
    head = store.audit.verify("default")
    try:
        change(tmp_path, statement)
    except sqlite3.IntegrityError:  # the schema refuses it
        return
    try:
        after = store.audit.verify("default")
    except Unavailable as error:
        assert error.code == "audit_broken" and error.hint
    else:  # cut off at the end: whoever wrote the head down sees it
        assert after != head


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
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.02)
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
    assert asyncio.run(without_end()) < 2
    assert commits[1] > 1
    assert sum(commits) == store.audit.verify("default").sequence


def test_threads_and_workers_write_one_chain(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path, root_key=bytes(32), now=NOW, instance=store.instance)
    try:
        with ThreadPoolExecutor(4) as threads:
            jobs = [
                threads.submit((store, other)[number % 2].audit.append, "default", ROW, NOW) for number in range(100)
            ]
            assert sorted(job.result() for job in jobs) == list(range(1, 101))
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
