"""Progress bars on a terminal's standard error, and nothing at all elsewhere."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """A ``rats.ports.Progress``. Use as a context; ``quiet`` or a standard error that is no terminal: no bars."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._quiet = quiet or not sys.stderr.isatty()

    def __enter__(self) -> Self:
        if not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self._shown = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.stop()

    def advance(self, label: str, done: int, total: int | None) -> None:
        """As ``rats.ports.Progress``."""
        if self._shown is None:
            return
        with self._lock:
            task = self._tasks.get(label)
            if task is None:
                task = self._tasks[label] = self._shown.add_task(label, total=total)
            self._shown.update(task, completed=done, total=total)
