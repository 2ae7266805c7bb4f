"""Kept connections over several workers: as many to each; and nobody waits for one that is stopped, killed or about to end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.broker import rig
from tests.waiting import until

from adyton.broker.door.share import PATIENCE_SECONDS, Board, Share

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make(4)
    yield made
    made.close()


def shares(board: Board, *held: int) -> list[Share]:
    made = [Share(board, place) for place in range(len(held))]
    for share, number in zip(made, held, strict=True):
        share.open(number)
    return made


def test_one_that_takes_nothing_is_waited_for_once_and_for_a_moment(board: Board) -> None:
    one, other = shares(board, 10, 0)
    assert one.leaves(10, 5.0) and one.leaves(10, 5.0 + PATIENCE_SECONDS / 2)
    assert not one.leaves(10, 5.0 + PATIENCE_SECONDS)
    assert not any(one.leaves(held, 6.0 + held) for held in range(10, 20)), "it is stopped, for all that is known"
    other.tell(1)
    assert one.leaves(10, 30.0), "it is there again"


def test_what_others_took_begins_another_wait(board: Board) -> None:
    one, _ = shares(board, 10, 0)
    assert one.leaves(10, 5.0)
    one.taken()
    assert one.leaves(10, 5.0 + 2 * PATIENCE_SECONDS)


def test_who_ends_or_has_ended_is_not_waited_for(board: Board) -> None:
    one, other, third = shares(board, 10, 0, 0)
    other.shut()
    other.tell(0)  # a connection of its own ends meanwhile
    board.clear(2)
    assert not one.leaves(10, 5.0)
    one.shut()
    assert not one.leaves(10, 5.0), "it ends, and is the last"
    third.open(20)
    assert one.leaves(0, 5.0) and not one.leaves(0, 5.0 + PATIENCE_SECONDS), "it ends: others first, for a moment"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**33), st.booleans()), max_size=60), st.integers(0, 2**40))
def test_whatever_the_page_says_a_newcomer_is_taken(told: list[tuple[int, int, bool]], rubbish: int) -> None:
    board = Board.make(4)
    one = shares(board, 0)[0]
    now = 0.0
    for place, held, write in told:
        if place and write:
            board.words[place] = (rubbish << 24 | held) & (1 << 64) - 1
        began = now
        while one.leaves(held, now):
            now += PATIENCE_SECONDS / 3
            assert now <= began + 2 * PATIENCE_SECONDS
        one.tell(held)
    board.close()


def test_the_page_cannot_be_made_smaller_under_who_looks_at_it(board: Board) -> None:
    with pytest.raises(PermissionError):
        os.truncate(board.descriptor, 0)


# real workers


@pytest.fixture
def two(tmp_path: Path) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path / "data", None, "--workers", "2", "--drain-seconds", "0")
    yield running
    if running.process is not None and running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def workers(running: rig.RunningBroker) -> list[int]:
    """The processes that serve."""
    assert running.process is not None
    below = [
        int(one)
        for task in Path(f"/proc/{running.process.pid}/task").iterdir()
        for one in (task / "children").read_text().split()
    ]
    return sorted(one for one in below if b"worker_process" in Path(f"/proc/{one}/cmdline").read_bytes())


def holders(running: rig.RunningBroker) -> Counter[int]:
    """How many connections to the broker's port each worker has taken."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and int(fields[1].partition(":")[2], 16) == running.port:
            inodes.add(f"socket:[{fields[9]}]")
    found: Counter[int] = Counter()
    for worker in workers(running):
        for entry in Path(f"/proc/{worker}/fd").iterdir():
            try:
                found[worker] += str(entry.readlink()) in inodes
            except FileNotFoundError:
                continue
    return found


def come(running: rig.RunningBroker, stack: ExitStack, *, timeout: float = 10.0) -> float:
    """Another kept connection; the seconds until it had its first answer."""
    began = time.monotonic()
    client = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=timeout))
    client.sendall(GET)
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    return time.monotonic() - began


def test_a_worker_that_is_stopped_or_killed_holds_up_nobody(two: rig.RunningBroker) -> None:
    first, second = workers(two)
    with ExitStack() as stack:
        for _ in range(6):
            come(two, stack)
        os.kill(first, signal.SIGSTOP)
        try:
            took = [come(two, stack) for _ in range(30)]
        finally:
            os.kill(first, signal.SIGCONT)
        held = holders(two)
        assert held[second] >= 30 and sum(took) < 5.0, "of thirty only one waits, for a moment"
        until(lambda: come(two, stack) < 5 and holders(two)[first] > held[first])  # it catches up
        os.kill(second, signal.SIGKILL)
        assert sum(come(two, stack) for _ in range(30)) < 5.0
    until(lambda: len(workers(two)) == 2 and second not in workers(two), 15)
    until(lambda: two.log().count("starting another") == 1)
    assert two.stop() == 0


@pytest.mark.slow
def test_sixteen_kept_connections_are_shared(two: rig.RunningBroker) -> None:
    for together in (False, True, False, True):
        with ExitStack() as stack:
            if together:
                comers = [threading.Thread(target=come, args=(two, stack)) for _ in range(16)]
                for comer in comers:
                    comer.start()
                for comer in comers:
                    comer.join()
            else:
                for _ in range(16):
                    come(two, stack)
            held = holders(two)
            assert sum(held.values()) == 16 and all(6 <= number <= 10 for number in held.values()), held
        until(lambda: not sum(holders(two).values()))
    assert two.stop() == 0


@pytest.mark.slow
def test_connections_are_shared_by_new_workers_too(two: rig.RunningBroker) -> None:
    assert two.process is not None
    for round_ in range(3):  # more workers come and go than the page has places
        before = workers(two)
        two.process.send_signal(signal.SIGUSR2)
        until(lambda: two.log().count("all workers were relieved") == round_ + 1, 30)  # noqa: B023
        until(lambda: len(workers(two)) == 2 and not set(before) & set(workers(two)), 30)  # noqa: B023
    with ExitStack() as stack:
        for _ in range(16):
            come(two, stack)
        held = holders(two)
        assert sum(held.values()) == 16 and all(6 <= number <= 10 for number in held.values()), held
        two.process.send_signal(signal.SIGTERM)
    assert two.process.wait(20) == 0


@pytest.mark.slow
def test_a_worker_that_drains_holds_up_nobody(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None, "--workers", "2", "--drain-seconds", "3")
    assert running.process is not None
    with ExitStack() as stack:
        for _ in range(8):
            come(running, stack)
        first, second = workers(running)
        os.kill(first, signal.SIGTERM)
        time.sleep(0.3)  # it says that it will end, and still answers
        assert sum(come(running, stack) for _ in range(20)) < 5.0
        assert holders(running)[second] >= 8
    until(lambda: len(workers(running)) == 2 and first not in workers(running), 20)
    assert running.stop() == 0
