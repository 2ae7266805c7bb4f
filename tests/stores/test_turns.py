"""Processes that write to one file: they ask whose turn it is, gather meanwhile, and never wait for ever."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adyton.errors import PlatformError
from adyton.protocol.audit_row import AuditRow
from adyton.stores.sqlite import Store
from adyton.stores.turns import FILE, Turn

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ROW = AuditRow(action="attest", decision="allowed")
_HOLD = """
import sys, time
from pathlib import Path
from adyton.stores.turns import Turn
print(Turn(Path(sys.argv[1])).take(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    opened.among_others(tmp_path)
    yield opened
    opened.close()


def test_one_has_it_at_a_time_and_the_dead_give_it_back(tmp_path: Path) -> None:
    mine, other = Turn(tmp_path), Turn(tmp_path)
    assert mine.take() and not other.take()
    mine.give()
    assert other.take() and not mine.take()
    other.close()
    assert mine.take()
    mine.give()
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"True\n"
        assert not mine.take()
        process.kill()
        process.wait()
    assert mine.take()
    mine.close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as refused:
        Turn(tmp_path / "nowhere")
    assert refused.value.code == "lock_unusable"


def test_rows_gather_while_another_writes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.audit._flush.__func__, "__defaults__", (10_000,))  # type: ignore[attr-defined]
    commits: list[int] = []
    inner = store.audit._write

    def counted(rows: Sequence[tuple[str, AuditRow, datetime]]) -> list[int]:
        commits.append(len(rows))
        return inner(rows)

    monkeypatch.setattr(store.audit, "_write", counted)
    other = Turn(tmp_path)

    async def appended() -> list[int]:
        assert other.take()
        first = asyncio.ensure_future(store.audit.append_async("default", ROW, NOW))
        await asyncio.sleep(0.1)
        assert not commits and not first.done()
        more = [asyncio.ensure_future(store.audit.append_async("default", ROW, NOW)) for _ in range(9)]
        await asyncio.sleep(0.05)
        other.give()
        return list(await asyncio.gather(first, *more))

    assert asyncio.run(appended()) == list(range(1, 11)) and commits == [10]
    assert other.take(), "it was given back"
    other.close()


def test_whoever_keeps_it_is_waited_for_only_so_long(store: Store, tmp_path: Path) -> None:
    other = Turn(tmp_path)
    assert other.take()
    began = time.monotonic()
    assert asyncio.run(store.audit.append_async("default", ROW, NOW)) == 1
    assert time.monotonic() - began < 20
    assert not Turn(tmp_path).take(), "it is still the other's"
    other.close()


def test_a_failed_commit_gives_it_back(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: object) -> list[int]:
        raise PlatformError("no", code="store_disk")

    monkeypatch.setattr(store.audit, "_write", fail)
    with pytest.raises(PlatformError):
        asyncio.run(store.audit.append_async("default", ROW, NOW))
    other = Turn(tmp_path)
    assert other.take()
    other.close()


def test_reads_see_what_others_and_we_have_committed(store: Store) -> None:
    for number in range(1, 4):
        store.audit.append("default", ROW, NOW)
        assert store._database.read("SELECT max(sequence) FROM audit WHERE tenant=?", ("default",)) == [(number,)]
