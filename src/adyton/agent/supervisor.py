"""Who may do what to the workload while it runs: signals and sizes in, an exit status out, orphans reaped.

The workload is signalled through a pidfd, so that a late signal never hits a process that took over its number.
Before it runs, a signal that asks to end ends the whole instance, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable
from types import FrameType

from adyton.agent.channel import Event
from adyton.protocol.devtee import STOP, Resize, Signal

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL}
_REAL_TIME = re.compile(r"(RTMIN|RTMAX)([+-]\d{1,2})\Z", re.ASCII)


class Supervisor:
    """``on_event`` is called by the channel's thread; ``wait`` by the main thread. ``leave`` ends the process."""

    def __init__(self, leave: Callable[[int], None]) -> None:
        self._leave = leave
        self._lock = threading.Lock()
        self._pidfd: int | None = None
        self._ended = False
        self._resize: Callable[[int, int], None] | None = None
        self._size: Resize | None = None
        self._stop_signal = int(signal.SIGTERM)
        for number in _ENDING - {signal.SIGKILL}:
            signal.signal(number, self._on_signal)

    def on_event(self, event: Event | None) -> None:
        """A frame from the platform; ``None``: it left, and nobody answers for this instance any more."""
        if isinstance(event, Resize):
            with self._lock:
                self._size = event
                resize = self._resize
            if resize is not None:
                resize(event.rows, event.columns)
        else:
            self.deliver(event.number if isinstance(event, Signal) else signal.SIGKILL)

    def deliver(self, number: int) -> None:
        """Send the workload a signal; before it runs, end the instance if the signal says so."""
        if number == STOP:
            number = self._stop_signal
        with self._lock:
            if self._ended:
                return
            if self._pidfd is not None:
                with contextlib.suppress(OSError, ValueError):  # it has just ended, or there is no such signal
                    signal.pidfd_send_signal(self._pidfd, number)
                return
        if number in _ENDING:
            self._leave(128 + number)

    def attach(self, pid: int, resize: Callable[[int, int], None], stop: int = signal.SIGTERM) -> None:
        """The workload runs; what was asked of its terminal meanwhile is done now. ``stop``: what ``STOP`` means to it."""
        with self._lock:
            self._stop_signal = stop
            self._pidfd = os.pidfd_open(pid)
            self._resize = resize
            size = self._size
        if size is not None:
            resize(size.rows, size.columns)

    def wait(self, pid: int) -> int:
        """Reap children until the workload ends; its status, 128 + n for signal n."""
        while True:
            found, status = os.wait()
            if found == pid:
                break
        with self._lock:
            self._ended = True
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.deliver(number)


def stop_signal(text: str | None) -> int:
    """The number of a signal as image configurations spell it (``SIGUSR1``, ``USR1``, ``10``, ``SIGRTMIN+3``); else TERM."""
    name = (text or "").upper().removeprefix("SIG")
    if found := _REAL_TIME.match(name):
        base, distance = found.groups()
        number = signal.SIGRTMIN + int(distance) if base == "RTMIN" else signal.SIGRTMAX + int(distance)
    elif name.isascii() and name.isdigit():
        number = int(name[:4])
    else:
        number = getattr(signal, f"SIG{name}", 0) if name.isalnum() else 0
    return int(number) if number in signal.valid_signals() else int(signal.SIGTERM)
