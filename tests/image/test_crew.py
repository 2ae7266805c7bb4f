"""Stages that are worked by whoever is free: errors, order, bounds, and that nobody waits who could work."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.image.crew import Crew

THREADS = [0, 1, 3]
WAIT = 30.0


class Broken(Exception):
    pass


def given_pieces(pieces: Iterable[bytes], error: BaseException | None = None) -> Generator[bytes]:
    yield from pieces
    if error is not None:
        raise error


def doubled(pieces: Iterable[bytes]) -> Generator[bytes]:
    for piece in pieces:
        yield piece + piece


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_comes_out_after_the_pieces_before_it(threads: int) -> None:
    taken = []
    with Crew(threads) as crew:
        last = crew.stage(doubled(crew.stage(given_pieces([b"a", b"b"], Broken()))))
        crew.begin()
        with pytest.raises(Broken):
            for piece in last:
                taken.append(piece)  # noqa: PERF402 - what came before the error counts
        assert list(last) == []
    assert taken == [b"aa", b"bb"]


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_aside_comes_out_at_the_end_and_holds_nothing_up(threads: int) -> None:
    def broken(piece: bytes) -> None:
        raise Broken

    with Crew(threads) as crew:
        stage = crew.stage(given_pieces([b"x"] * 200))
        aside = crew.aside(stage, broken)
        crew.begin()
        assert len(list(stage)) == 200
        with pytest.raises(Broken):
            aside.finish()


def test_an_interruption_aside_comes_out_at_once() -> None:
    def interrupted(piece: bytes) -> None:
        raise KeyboardInterrupt

    taken = 0
    with pytest.raises(KeyboardInterrupt), Crew(0) as crew:
        stage = crew.stage(given_pieces([b"x"] * 2000))
        crew.aside(stage, interrupted)
        crew.begin()
        for _ in stage:
            taken += 1
    assert taken < 100


def test_where_no_thread_can_begin_the_caller_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    digest = hashlib.sha256()
    with Crew(2) as crew:
        stage = crew.stage(doubled(crew.stage(given_pieces([b"x"] * 200))))
        aside = crew.aside(stage, digest.update)
        crew.begin()
        assert b"".join(stage) == b"x" * 400
        aside.finish()
    assert digest.digest() == hashlib.sha256(b"x" * 400).digest()


@pytest.mark.parametrize("threads", THREADS)
def test_leaving_early_joins_the_threads_and_closes_the_sources(threads: int) -> None:
    closed = []

    def endless() -> Generator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append("first")

    def through(pieces: Iterable[bytes]) -> Generator[bytes]:
        try:
            yield from pieces
        finally:
            closed.append("second")

    before = threading.active_count()
    with pytest.raises(Broken), Crew(threads) as crew:
        last = crew.stage(through(crew.stage(endless())))
        crew.aside(last, hashlib.sha256().update)
        crew.begin()
        for _ in range(100):
            next(last)
        raise Broken
    assert sorted(closed) == ["first", "second"]
    assert threading.active_count() == before


def test_a_crew_that_never_began_leaves_nothing() -> None:
    with Crew(2) as crew:
        crew.stage(given_pieces([b"x"]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("layer-")]


@pytest.mark.parametrize("threads", THREADS)
def test_nobody_runs_further_ahead_than_he_may(threads: int) -> None:
    made = [0]
    aside_done = [0]
    gate = threading.Event()

    def counted() -> Generator[bytes]:
        for _ in range(400):
            made[0] += 1
            yield b"x"

    def slowly(piece: bytes) -> None:
        aside_done[0] += 1
        if threading.current_thread() is not threading.main_thread():
            gate.wait(0.001)

    with Crew(threads) as crew:
        first = crew.stage(counted(), 3)
        last = crew.stage(doubled(first), 5)
        aside = crew.aside(last, slowly)
        crew.begin()
        for taken, _ in enumerate(last, 1):
            assert made[0] - taken <= 3 + 5 + 3  # two queues, and a piece in each hand
            assert taken - aside_done[0] <= 2 * 5 + 1
        aside.finish()
    assert (made[0], aside_done[0]) == (400, 400)


@pytest.mark.parametrize("threads", THREADS)
def test_a_stage_is_worked_by_one_thread_at_a_time(threads: int) -> None:
    inside = threading.Lock()
    aside_inside = threading.Lock()

    def alone(pieces: Iterable[bytes]) -> Generator[bytes]:
        for piece in pieces:
            assert inside.acquire(blocking=False)
            digest = hashlib.sha256(piece * 50_000).digest()  # lets go of the interpreter's lock
            inside.release()
            yield digest

    def also_alone(piece: bytes) -> None:
        assert aside_inside.acquire(blocking=False)
        hashlib.sha256(piece * 50_000)
        aside_inside.release()

    with Crew(threads) as crew:
        last = crew.stage(alone(crew.stage(given_pieces(bytes([n]) for n in range(200)))))
        aside = crew.aside(last, also_alone)
        crew.begin()
        assert list(last) == [hashlib.sha256(bytes([n]) * 50_000).digest() for n in range(200)]
        aside.finish()


def test_the_caller_does_what_is_left_while_another_thread_is_held_up() -> None:
    held, helped = threading.Event(), threading.Event()
    workers: set[str] = set()

    def slow() -> Generator[bytes]:
        while threading.current_thread() is threading.main_thread() or len(aside.pieces) < 2:
            yield b"not yet"
        held.set()
        assert helped.wait(WAIT)  # only the caller can set it, who waits for this stage
        yield b"last"

    def work(piece: bytes) -> None:
        workers.add(threading.current_thread().name)
        if held.is_set():
            helped.set()

    with Crew(1) as crew:
        stage = crew.stage(slow(), 4)
        aside = crew.aside(stage, work)
        crew.begin()
        while next(stage) != b"last":
            pass
        aside.finish()
    assert threading.main_thread().name in workers


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=3000), max_size=60),
    threads=st.integers(0, 3),
    depths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_every_piece_arrives_once_and_in_order(pieces: list[bytes], threads: int, depths: tuple[int, int]) -> None:
    digest = hashlib.sha256()
    with Crew(threads) as crew:
        first = crew.stage(given_pieces(pieces), depths[0])
        last = crew.stage(doubled(first), depths[1])
        aside = crew.aside(last, digest.update)
        crew.begin()
        assert list(last) == [piece + piece for piece in pieces]
        aside.finish()
    assert digest.digest() == hashlib.sha256(b"".join(piece + piece for piece in pieces)).digest()
