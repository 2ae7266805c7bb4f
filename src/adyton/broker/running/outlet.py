"""Lines on their way to a descriptor that may not take them: whoever writes them waits for nobody.

A thread of its own writes; so many bytes at most wait for it. What comes while they are full is dropped and counted, and
once somebody reads again, a line says how many are missing.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

MOST = 4 * 1024 * 1024
"""Bytes that wait."""
IDLE_SECONDS = 5.0
"""After which the thread ends that has nothing to do; it begins again when there is."""


class Outlet:
    """For ``descriptor``, which stays the caller's. ``told`` makes the line (with its end) that says how many are missing.

    From any thread.
    """

    def __init__(self, descriptor: int, told: Callable[[int], bytes], most: int = MOST) -> None:
        self._descriptor = descriptor
        self._told = told
        self._most = most
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._process = 0
        self._waiting: list[bytes] = []
        self._size = 0
        self._missing = 0
        self._cut = False  # the last line did not come out whole
        self.dropped = 0

    def put(self, data: bytes, lines: int = 1) -> None:
        """``data`` is ``lines`` whole lines. They are written soon, or dropped together."""
        with self._changed:
            if self._process != os.getpid():  # threads do not come over a fork
                self._process, self._thread, self._waiting, self._size = os.getpid(), None, [], 0
            if self._size + len(data) > self._most:
                self._missing += lines
                self.dropped += lines
                return
            self._waiting.append(data)
            self._size += len(data)
            if self._thread is None:
                self._begin()
            self._changed.notify_all()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # this process has as many as it may have: the next line tries again
            return
        self._thread = thread

    def drain(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._size and self._process == os.getpid():
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _write_all(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS):
                    self._thread = None
                    return
                data, self._waiting = b"".join(self._waiting), []
            size = len(data)
            with suppress(OSError):  # a reader that went away does not stop the broker
                self._write(data)
            with self._changed:
                self._size -= size
                missing, self._missing = self._missing, 0
                if missing:
                    line = self._told(missing)
                    self._waiting.append(line)
                    self._size += len(line)
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        """In pieces that a pipe takes whole, each of whole lines: several workers write to one."""
        data = b"\n" + data if self._cut else data
        view, begin = memoryview(data), 0
        while begin < len(data):
            end = data.rfind(b"\n", begin, begin + select.PIPE_BUF) + 1
            end = end or data.find(b"\n", begin) + 1 or len(data)
            self._write_piece(view[begin:end])
            begin = end

    def _write_piece(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
                self._cut = bool(rest)
            except BlockingIOError:  # whoever shares the descriptor made it one that never waits
                ready = select.poll()
                ready.register(self._descriptor, select.POLLOUT)
                ready.poll()
