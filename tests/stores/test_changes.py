"""What is acknowledged by one process is what all others decide by, wherever a process is killed; and else nothing is read."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adyton.broker.door.share import Board
from adyton.errors import AdytonError
from adyton.protocol.audit_row import AuditRow
from adyton.stores import changes
from adyton.stores.changes import Changes
from adyton.stores.sqlite import Store

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ROOT = bytes(32)
ROW = AuditRow(action="attest", decision="allowed")
_WRITER = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from adyton.broker.door.share import Board
from adyton.stores.changes import Changes
from adyton.stores.sqlite import Store
directory, instance, descriptor, dies = sys.argv[1:]
class Killed(Changes):
    def begin(self):
        super().begin()
        if dies == "begun":
            os.kill(os.getpid(), signal.SIGKILL)
    def end(self):
        if dies == "committed":
            os.kill(os.getpid(), signal.SIGKILL)
        super().end()
        if dies == "ended":
            os.kill(os.getpid(), signal.SIGKILL)
now = datetime(2026, 11, 21, tzinfo=UTC)
store = Store.open(Path(directory), root_key=bytes(32), now=now, instance=instance)
store.tell_changes(Killed(Board(int(descriptor)).changes, 1))
number = 0
while True:
    number += 1
    store.references.set("default", "value", number, None, now)
    print(store.generation("default"), flush=True)
"""


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(8 * 3)).cast("Q")


@pytest.fixture
def stores(tmp_path: Path, words: memoryview) -> Iterator[list[Store]]:
    """Three of one broker, as its processes have them."""
    first = Store.open(tmp_path, root_key=ROOT, now=NOW)
    opened = [first, *(Store.open(tmp_path, root_key=ROOT, now=NOW, instance=first.instance) for _ in range(2))]
    for place, store in enumerate(opened):
        store.tell_changes(Changes(words, place))
    yield opened
    for store in opened[::-1]:
        store.close()


def counted(store: Store) -> list[str]:
    """What it reads from the file from now on."""
    read: list[str] = []
    database: Any = store._database
    database._reader.set_trace_callback(read.append)
    database._writer.set_trace_callback(read.append)
    return read


def test_no_decision_by_what_was_changed_elsewhere(stores: list[Store]) -> None:
    for number in range(60):
        writer, *readers = random.sample(stores, 3)
        writer.references.set("default", "value", number, None, NOW)
        found = {store.generation("default") for store in (writer, *readers, *readers)}
        assert len(found) == 1 and found.pop() == number + 1


def test_rows_of_others_cost_no_reading_and_a_change_does(stores: list[Store]) -> None:
    one, other, _ = stores
    one.references.set("default", "value", 1, None, NOW)
    one.generation("default")
    read = counted(one)
    for _ in range(3):
        other.audit.append("default", ROW, NOW)
        assert one.generation("default") == 1 and not read
    with pytest.raises(AdytonError):
        other.references.set("default", "", 1, None, NOW)
    other.references.set("elsewhere", "value", 1, None, NOW)
    assert one.generation("default") == 1 and len(read) == 1, "whatever was changed is a reason to look"
    assert one.generation("default") == 1 and len(read) == 1


def test_while_a_change_is_under_way_everybody_reads(stores: list[Store], words: memoryview) -> None:
    one, other, third = stores
    one.references.set("default", "value", 1, None, NOW)
    third.generation("default")
    read = counted(third)
    with suppress(RuntimeError), other.deed():
        other.references.set("default", "value", 2, None, NOW)
        assert other.generation("default") == 2, "who changes it sees it"
        assert [third.generation("default") for _ in range(3)] == [1] * 3 and len(read) == 3
        raise RuntimeError("it comes to nothing")
    assert [other.generation("default"), third.generation("default"), third.generation("default")] == [1] * 3
    assert len(read) == 4 and not changes.under_way(words.tobytes())


def test_names_that_nobody_has_are_not_remembered(stores: list[Store]) -> None:
    assert [stores[0].generation(f"stranger-{number}") for number in range(100)] == [0] * 100
    assert not stores[0]._generations
    stores[1].references.set("stranger-7", "value", 1, None, NOW)
    assert stores[0].generation("stranger-7") == 1


def test_a_word_never_has_a_value_twice(words: memoryview) -> None:
    one = Changes(words, 0)
    values = [words[0]]
    for act in (one.begin, one.end, one.end, one.begin, one.begin, one.end):
        act()
        values.append(words[0])
    assert values == [0, 1, 2, 4, 5, 5, 6]
    words[0] = (1 << 64) - 1
    one.end()
    assert words[0] == 0


@contextmanager
def writing(directory: Path, board: Board, instance: str, dies: str = "") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(directory), instance, str(board.descriptor), dies],
        stdout=subprocess.PIPE, text=True, pass_fds=[board.descriptor],
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("dies", "kept"), [("begun", 0), ("committed", 1), ("ended", 1)])
def test_a_process_that_is_killed_at_any_point(tmp_path: Path, dies: str, kept: int) -> None:
    store, board = Store.open(tmp_path, root_key=ROOT, now=NOW), Board.make(2)
    store.tell_changes(Changes(board.changes, 0))
    store.references.set("default", "value", 0, None, NOW)
    assert [store.generation("default") for _ in range(2)] == [1, 1]
    with writing(tmp_path, board, store.instance, dies) as process:
        assert process.wait(60) == -signal.SIGKILL
    assert [store.generation("default") for _ in range(2)] == [1 + kept] * 2
    read = counted(store)
    store.generation("default")
    assert bool(read) == (dies != "ended"), "until its parent has waited for its end, all is read"
    board.clear(1)
    assert [store.generation("default") for _ in range(2)] == [1 + kept] * 2
    assert store.generation("default") == 1 + kept and len(read) == (2 if dies != "ended" else 1)
    store.references.set("default", "value", 9, None, NOW)
    assert store.generation("default") == 2 + kept
    store.close()
    board.close()


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_acknowledged_is_seen_at_once_while_writers_are_killed(tmp_path: Path, rounds: int) -> None:
    store, board = Store.open(tmp_path, root_key=ROOT, now=NOW), Board.make(2)
    store.tell_changes(Changes(board.changes, 0))
    acknowledged = 0
    for _ in range(rounds):
        with writing(tmp_path, board, store.instance) as process:
            assert process.stdout is not None
            end = 0.0
            while line := process.stdout.readline():
                end = end or time.monotonic() + random.uniform(0.01, 0.4)
                acknowledged = int(line)
                assert store.generation("default") >= acknowledged
                if time.monotonic() > end:
                    process.kill()
        assert store.generation("default") >= acknowledged
        board.clear(1)
        assert store.generation("default") == store.generation("default") >= acknowledged
    assert acknowledged
    store.close()
    board.close()
