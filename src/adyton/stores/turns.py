"""Whose turn it is to write, among the processes of one broker: asked, and never waited for in one's sleep.

SQLite waits for another writer by sleeping, 1, 2, 5, 10 ms and more, whenever that one may be done. An event loop that
commits would stand still meanwhile, with requests to answer. Whoever asks here first knows; else it goes on
with its other work, gathers more rows, and asks again. The kernel gives the turn back when a process dies. It is a
courtesy and protects nothing: SQLite's own lock does.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from adyton.errors import PlatformError

FILE = "writers.lock"


class Turn:
    """One process's view of it, by a file in the data directory."""

    __slots__ = ("_descriptor",)

    def __init__(self, directory: Path) -> None:
        try:
            self._descriptor = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PlatformError(
                f"cannot open the writers' lock file: {error.strerror}",
                code="lock_unusable",
                field=str(directory / FILE),
                hint="the data directory must be writable by the broker's user",
            ) from error

    def take(self) -> bool:
        """Whether it is ours now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system that knows no locks, or has none left
            return True
        return True

    def give(self) -> None:
        """Let others have it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Ask no more."""
        os.close(self._descriptor)
