"""Showing what an instance is doing. On a terminal a bar, for work that takes long enough to be looked at; else nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from adyton.protocol.devtee import Phase, Started

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_WORTH_A_BAR = 0.7  # seconds since the instance began; importing rich takes a tenth of that


class Quiet:
    """A ``Watcher`` that shows nothing and notes when what began, for whoever asks where the time went."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._marks = [("platform", time.monotonic())]

    def started(self, message: Started) -> None:
        """The instance exists; its launcher and interpreter start."""
        self._marks.append(("boot", time.monotonic()))

    def phase(self, message: Phase) -> None:
        """Note it."""
        if message.name == "notice":
            self.notices.append(message.label)
        elif not message.label:
            self._marks.append((message.name, time.monotonic()))

    def stages(self) -> list[tuple[str, float]]:
        """What took how many seconds, up to now, in order."""
        ends = [*(moment for _, moment in self._marks[1:]), time.monotonic()]
        return [(name, end - begin) for (name, begin), end in zip(self._marks, ends, strict=True)]

    def done(self) -> None:
        """Nothing was shown."""


class Bars(Quiet):
    """A ``Watcher`` for a terminal on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def phase(self, message: Phase) -> None:
        """A bar for each label once the work takes its time."""
        super().phase(message)
        if not message.label or message.name == "notice" or message.seconds < _WORTH_A_BAR:
            return
        progress = self._progress or self._start()
        task = self._tasks.get(message.label)
        if task is None:
            task = self._tasks[message.label] = progress.add_task(message.label, total=message.total)
        progress.update(task, completed=message.done, total=message.total)

    def done(self) -> None:
        """Take the bars away; the terminal is the workload's."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._tasks.clear()

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()
        return self._progress
