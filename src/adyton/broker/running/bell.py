"""Signals, noted when they come and looked at in between.

Nothing happens inside a handler but a note: an ``Event`` that is set there may wait for a lock that the interrupted code
holds. The interpreter writes a byte to a descriptor for each signal, so whoever waits is woken at once.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self


class Bell:
    """Hears ``numbers`` from ``with`` to its end, in the main thread; then they mean again what they meant before."""

    def __init__(self, numbers: Collection[int]) -> None:
        self._numbers = tuple(numbers)
        self._before: dict[int, signal.Handlers | int | None] = {}
        self._heard: list[int] = []
        self._reading = self._writing = self._wakeup = -1

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._note)  # type: ignore[assignment]  # None only of C's own
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._heard.append(number)

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Until a signal comes or one of ``descriptors`` has something to read; whether one of those has."""
        readable, _, _ = select.select((self._reading, *descriptors), (), (), max(0.0, seconds))
        if self._reading in readable:
            with suppress(BlockingIOError):
                os.read(self._reading, 4096)
        return any(one in readable for one in descriptors)

    def take(self) -> list[int]:
        """What was heard since it was last asked, in order."""
        heard = self._heard[:]
        del self._heard[: len(heard)]
        return heard
