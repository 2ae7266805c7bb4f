"""The broker's own keys among several brokers, and under clocks that jump."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.postgresql import Server

from adyton.broker import keys
from adyton.broker.keys import COOKIE_SECONDS, HEAD_START, KEEP_SECONDS
from adyton.broker.running.replicas import STEADY_SECONDS, Clocks
from adyton.stores.sqlite import Store

NOW = 1_800_000_000.0
HOUR = 3600.0


@pytest.fixture
def stores(tmp_path: Path, postgresql: Server) -> Iterator[list[Store]]:
    opener = postgresql.opener()
    at = datetime.fromtimestamp(NOW, UTC)
    opened = [Store.open(tmp_path / str(n), root_key=bytes(32), now=at, database=opener) for n in range(4)]
    yield opened
    for store in opened:
        store.close()


def together(calls: list[Callable[[], object]]) -> list[object]:
    """All at once, each in a thread."""
    gate, found = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index: int, call: Callable[[], object]) -> None:
        gate.wait()
        found[index] = call()  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(found)


def test_of_several_brokers_that_start_at_once_all_have_the_same_keys(stores: list[Store]) -> None:
    loaded = together([lambda store=store: keys.load(store.secrets, NOW).source for store in stores])  # type: ignore[misc]
    assert len(set(loaded)) == 1


def test_exactly_one_turns_a_key_and_all_know_it_before_it_is_used(stores: list[Store]) -> None:
    first = keys.load(stores[0].secrets, NOW)
    late = NOW + COOKIE_SECONDS + 1
    turned = together([lambda store=store: keys.rotate(store.secrets, late) for store in stores])  # type: ignore[misc]
    assert sorted(map(bool, turned)) == [False, False, False, True]
    before = [keys.load(store.secrets, late + HEAD_START - 1) for store in stores]
    after = [keys.load(store.secrets, late + HEAD_START + 1) for store in stores]
    assert {one.cookies.current for one in before} == {first.cookies.current}
    assert len({one.cookies.current for one in after}) == 1
    sealed = after[0].cookies.seal(b"x", b"")
    assert all(one.cookies.open(sealed, b"") == b"x" for one in before)  # known, not used yet
    assert all(one.cookies.open(first.cookies.seal(b"y", b""), b"") == b"y" for one in after)


@pytest.mark.parametrize("jump", [-3e8, -30 * 24 * HOUR, -HOUR, HOUR, 40 * 24 * HOUR, 3e8])
def test_a_clock_that_jumps_for_a_while_loses_no_key(stores: list[Store], jump: float) -> None:
    secrets = stores[0].secrets
    clocks, monotonic = Clocks(), 0.0
    now = NOW
    known: list[bytes] = []
    for hour in range(24 * 5):
        wrong = 40 <= hour < 43  # three hours with another time
        now, monotonic = NOW + hour * HOUR, hour * HOUR
        for quarter in range(4):
            shown = now + quarter * HOUR / 4 + (jump if wrong else 0)
            keys.rotate(secrets, shown, drop=clocks.steady(shown, monotonic + quarter * HOUR / 4))
        loaded = keys.load(secrets, now + (jump if wrong else 0))
        known.append(loaded.cookies.seal(str(hour).encode(), b""))
        for age in range(min(hour, 12)):  # a session lasts hours at most here; all that are alive still open
            assert loaded.cookies.open(known[hour - age], b"") == str(hour - age).encode()
    assert len(loaded.cookies.keys) <= 8  # and old ones do go


def test_keys_go_when_nothing_made_with_them_can_be_valid(stores: list[Store]) -> None:
    secrets = stores[0].secrets
    first = keys.load(secrets, NOW).cookies.current
    now = NOW + COOKIE_SECONDS + 1
    assert keys.rotate(secrets, now)
    keys.rotate(secrets, now + HEAD_START + KEEP_SECONDS - 1)
    held = keys.load(secrets, now + HEAD_START + KEEP_SECONDS - 1)
    assert first in held.cookies.keys
    keys.rotate(secrets, now + HEAD_START + KEEP_SECONDS + 1)
    assert first not in keys.load(secrets, now).cookies.keys


def test_a_clock_is_steady_after_a_day_without_a_jump() -> None:
    clocks = Clocks()
    assert not clocks.steady(NOW, 0)
    assert not clocks.steady(NOW + STEADY_SECONDS / 2, STEADY_SECONDS / 2)
    assert clocks.steady(NOW + STEADY_SECONDS, STEADY_SECONDS)
    assert not clocks.steady(NOW + STEADY_SECONDS + 100, STEADY_SECONDS + 5)
    assert not clocks.steady(NOW + STEADY_SECONDS + 200, STEADY_SECONDS + 105)
    assert clocks.steady(NOW + 2 * STEADY_SECONDS + 100, 2 * STEADY_SECONDS + 5)
