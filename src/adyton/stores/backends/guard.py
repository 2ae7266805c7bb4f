"""What stands between the broker and a back end: a few threads, a deadline, and a breaker. Nothing waits for longer.

A call that outlasts its deadline is given up. Its thread stays with it until it ends, and counts against this back end
alone; what reads from a network ends soon, by the same deadline (``deadline``). After ``FAILURES`` calls in a row without an answer the breaker opens: calls fail at once, until after a pause one
is let through to see.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from adyton.errors import AdytonError, Unavailable
from adyton.stores.backends import deadline

FAILURES = 5
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
WAITING = 8
"""How many calls may wait for each thread."""
ANSWERED = frozenset(
    {
        *("ciphertext_refused", "backend_value_malformed", "backend_value_ambiguous", "backend_pointer_invalid"),
        *("backend_refused", "plugin_failed", "backend_search_unfinished"),
    }
)
"""Codes of ``Unavailable`` that a back end which works gives too: what somebody asks for does not shut others out."""
_T = TypeVar("_T")


class _Call:
    """One call on its way. ``late``: nobody waits for it any more; ``trial``: it was let through an open breaker."""

    __slots__ = ("future", "late", "run", "trial", "until")

    def __init__(self, run: Callable[[], Any], until: float) -> None:
        self.run = run
        self.until = until
        self.trial = False
        self.future: Future[Any] = Future()
        self.late = False


class Guard:
    """The threads of one back end. They are daemons: one that hangs does not hold up the end of the broker."""

    def __init__(self, name: str, seconds: float, calls: int) -> None:
        self.name = name
        self._seconds = seconds
        self._most = calls
        self._tasks: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._busy = self._failures = 0
        self._pause = FIRST_PAUSE
        self._opens_at = 0.0
        self._trying = False

    def run(self, call: Callable[[], _T]) -> _T:
        """The call's result, from a thread that may wait; ``Unavailable`` in time."""
        under_way = self._submit(call)
        try:
            result: _T = under_way.future.result(self._seconds)
        except FutureTimeout as error:
            if under_way.future.done():  # at the last moment, or the call itself said so
                return under_way.future.result()  # type: ignore[no-any-return]
            raise self._late(under_way) from error
        return result

    async def run_async(self, call: Callable[[], _T]) -> _T:
        """As ``run``, without holding up the event loop."""
        under_way = self._submit(call)
        waiting: asyncio.Future[_T] = asyncio.wrap_future(under_way.future)
        done, _ = await asyncio.wait([waiting], timeout=self._seconds)
        if not done:
            waiting.add_done_callback(_forget)
            raise self._late(under_way)
        return waiting.result()

    @property
    def state(self) -> str:
        """``closed`` (calls go through), ``open`` (they fail at once) or ``trying``."""
        with self._lock:
            if self._failures < FAILURES:
                return "closed"
            return "open" if time.monotonic() < self._opens_at else "trying"

    def close(self) -> None:
        """No more calls; threads end when they have answered."""
        with self._lock:
            for _ in range(self._threads):
                self._tasks.put(None)
            self._most = 0

    def _submit(self, run: Callable[[], _T]) -> _Call:
        call = _Call(run, time.monotonic() + self._seconds)
        with self._lock:
            if self._failures >= FAILURES:
                if self._trying or time.monotonic() < self._opens_at:
                    raise Unavailable(
                        f"the back end {self.name} has not answered lately and is left alone for a moment",
                        code="backend_resting",
                        field=self.name,
                        hint="adyton broker backends says what is wrong with it",
                    )
                self._trying = call.trial = True
            if self._busy >= self._most * (1 + WAITING):
                self._trying = self._trying and not call.trial
                raise Unavailable(
                    f"too many wait for the back end {self.name}",
                    code="backend_busy",
                    field=self.name,
                    hint="try again",
                )
            self._busy += 1
            if self._threads < min(self._most, self._busy):
                self._threads += 1
                threading.Thread(target=self._work, name=f"backend {self.name}", daemon=True).start()
        self._tasks.put(call)
        return call

    def _work(self) -> None:
        while (call := self._tasks.get()) is not None:
            try:
                if call.future.set_running_or_notify_cancel():
                    self._answer(call)
            finally:
                with self._lock:
                    self._busy -= 1
            del call  # no value stays in a thread that waits

    def _answer(self, call: _Call) -> None:
        try:
            with deadline.until(call.until):
                result = call.run()
        except BaseException as error:  # noqa: BLE001 -- it belongs to whoever waits
            if not call.late:
                self._count(call, failed=_silent(error))
            call.future.set_exception(error)
        else:
            if not call.late:  # else it was counted as a failure, and an answer that comes too late is none
                self._count(call, failed=False)
            call.future.set_result(result)

    def _late(self, call: _Call) -> Unavailable:
        call.late = True
        call.future.cancel()  # if it still waits its turn
        self._count(call, failed=True)
        return Unavailable(
            f"the back end {self.name} does not answer in time",
            code="backend_slow",
            field=self.name,
            expected=f"an answer in {self._seconds:g} s",
            hint="adyton broker backends says what is wrong with it",
        )

    def _count(self, call: _Call, *, failed: bool) -> None:
        with self._lock:
            if call.trial:
                self._trying = False
            if not failed:
                self._failures, self._pause = 0, FIRST_PAUSE
                return
            was_open = self._failures >= FAILURES
            self._failures += 1
            if was_open and not call.trial:  # on its way before it opened: tells nothing new
                return
            if self._failures >= FAILURES:
                self._pause = min(self._pause * 2, LONGEST_PAUSE) if was_open else FIRST_PAUSE
                self._opens_at = time.monotonic() + self._pause


def _forget(late: asyncio.Future[Any]) -> None:
    if not late.cancelled():
        late.exception()


def _silent(error: BaseException) -> bool:
    """Whether the back end was not there for this call."""
    if not isinstance(error, AdytonError):
        return True
    return isinstance(error, Unavailable) and error.code not in ANSWERED
