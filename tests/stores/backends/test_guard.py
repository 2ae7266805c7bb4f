"""A back end that hangs, fails or comes back, and the threads and the breaker before it."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
from tests.waiting import LONG, until

from adyton.errors import ConfigError, Unavailable
from adyton.stores.backends import guard
from adyton.stores.backends.guard import FAILURES, WAITING, Guard


def _code(call: object) -> str:
    assert callable(call)
    with pytest.raises(Unavailable) as caught:
        call()
    return caught.value.code


def test_a_call_that_hangs_is_given_up_and_a_pool_that_is_full_says_so() -> None:
    release = threading.Event()
    one = Guard("slow", 0.05, 2)
    began = time.monotonic()
    assert _code(lambda: one.run(release.wait)) == "backend_slow"
    assert time.monotonic() - began < 20
    waiting = []

    async def many() -> list[str]:
        async def ask() -> str:
            try:
                await one.run_async(release.wait)
            except Unavailable as error:
                return error.code
            return "answered"

        return list(await asyncio.gather(*(ask() for _ in range(2 * (1 + WAITING) + 5))))

    waiting = asyncio.run(many())
    assert set(waiting) <= {"backend_slow", "backend_busy", "backend_resting"} and "backend_busy" in waiting
    assert one.state == "open"
    release.set()
    one.close()


def test_the_breaker_opens_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now))
    one = Guard("down", LONG, 2)
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise Unavailable("down", code="backend_unreachable")

    for _ in range(FAILURES):
        assert _code(lambda: one.run(fail)) == "backend_unreachable"
    assert one.state == "open" and _code(lambda: one.run(fail)) == "backend_resting" and calls == FAILURES
    now += guard.FIRST_PAUSE * 1.2
    assert one.state == "trying" and _code(lambda: one.run(fail)) == "backend_unreachable"
    assert _code(lambda: one.run(fail)) == "backend_resting"  # for twice as long
    now += guard.FIRST_PAUSE * 1.2
    assert one.state == "open"
    now += guard.FIRST_PAUSE * 1.2
    assert one.run(lambda: 7) == 7 and one.state == "closed" and one.run(lambda: 8) == 8
    one.close()


def test_answers_that_say_no_do_not_open_it() -> None:
    one = Guard("works", LONG, 1)

    def refuse() -> None:
        raise ConfigError("no", code="backend_forbidden")

    def garbled() -> None:
        raise Unavailable("no", code="ciphertext_refused")

    for _ in range(2 * FAILURES):
        with pytest.raises(ConfigError):
            one.run(refuse)
        with pytest.raises(Unavailable):
            one.run(garbled)
    assert one.state == "closed"
    one.close()


def test_answers_that_come_too_late_count_as_none() -> None:
    one = Guard("late", 0.02, 4)
    for _ in range(FAILURES):
        assert _code(lambda: one.run(lambda: time.sleep(0.04))) == "backend_slow"
        time.sleep(0.05)
    assert one.state == "open"
    one.close()


def test_a_programmers_error_comes_through_and_no_thread_is_left() -> None:
    one = Guard("bug", LONG, 1)
    with pytest.raises(ZeroDivisionError):
        one.run(lambda: 1 // 0)

    async def ask() -> int:
        return await one.run_async(lambda: 3)

    assert asyncio.run(ask()) == 3
    one.close()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "backend bug"])
