"""One run as its caller sees it: descriptors in, signals and sizes forwarded, events out, an exit status at the end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from adyton.errors import AdytonError, Unavailable
from adyton.protocol import devtee
from adyton.runtime import terminal
from adyton.runtime.control import Control

FAILED, NOT_INVOCABLE, NOT_FOUND = 125, 126, 127
_STATUSES = {"command_not_found": NOT_FOUND, "command_not_invocable": NOT_INVOCABLE}
# Every signal that podman's --sig-proxy forwards and that Python may catch; a terminal's window has a frame of its own.
_FORWARDED = [
    signal.Signals[name]
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT", "SIGWINCH")
]


@dataclass(frozen=True, slots=True)
class Streams:
    """The descriptors that the workload's streams are connected to."""

    stdin: int
    stdout: int
    stderr: int


class Watcher(Protocol):
    """Who shows what an instance is doing. Laws: ``done`` is called before the workload may write, and at the end."""

    def started(self, message: devtee.Started) -> None:
        """The instance exists."""
        ...

    def phase(self, message: devtee.Phase) -> None:
        """It is doing this."""
        ...

    def done(self) -> None:
        """Show nothing any more."""
        ...


def exit_status(error: AdytonError) -> int:
    """Exit statuses as podman gives them: 127 and 126 blame the command, 125 everything else that kept the workload from running."""
    return _STATUSES.get(error.code, FAILED)


def attached(control: Control, run: devtee.Run, streams: Streams, watcher: Watcher) -> int:
    """Run and stay until the workload ends; its status. An ``AdytonError`` when it did not run."""
    with _null_where_unused(run, streams) as descriptors, contextlib.ExitStack() as undo:
        undo.callback(watcher.done)
        control.send(run, descriptors)
        undo.enter_context(_forwarding(control, run, streams))
        for message in control.replies():
            if isinstance(message, devtee.Started):
                watcher.started(message)
            elif isinstance(message, devtee.Phase):
                watcher.phase(message)
                if message.name == "runtime":  # from here on the streams are the workload's
                    watcher.done()
                    if run.terminal and run.interactive:  # else the caller's keys are the caller's, Ctrl-C above all
                        undo.enter_context(terminal.raw(streams.stdin))
            elif isinstance(message, devtee.Exited):
                return message.status
    raise Unavailable("the platform service left before the workload ended", code="platform_gone")


def detached(control: Control, run: devtee.Run, watcher: Watcher) -> str:
    """Start and leave; the instance's id once the workload runs."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    instance = ""
    try:
        control.send(run, (null, null, null))
        for message in control.replies():
            if isinstance(message, devtee.Started):
                instance = message.instance
                watcher.started(message)
            elif isinstance(message, devtee.Phase):
                watcher.phase(message)
            elif isinstance(message, devtee.Running | devtee.Exited):
                return instance
    finally:
        watcher.done()
        os.close(null)
    raise Unavailable("the platform service left before the workload ran", code="platform_gone")


@contextlib.contextmanager
def _null_where_unused(run: devtee.Run, streams: Streams) -> Iterator[tuple[int, int, int]]:
    """Without ``-i`` the caller's input stays the caller's."""
    if run.interactive:
        yield (streams.stdin, streams.stdout, streams.stderr)
        return
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield (null, streams.stdout, streams.stderr)
    finally:
        os.close(null)


@contextlib.contextmanager
def _forwarding(control: Control, run: devtee.Run, streams: Streams) -> Iterator[None]:
    """Signals of this process become the workload's; the system calls they interrupt go on by themselves."""

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(Unavailable):
            if number == signal.SIGWINCH:
                rows, columns = terminal.size(streams.stdout)
                control.send(devtee.Resize(rows, columns))
            else:
                control.send(devtee.Signal(number))

    wanted = [number for number in _FORWARDED if number != signal.SIGWINCH or run.terminal]
    before = {number: signal.signal(number, forward) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
