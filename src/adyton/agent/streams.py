"""Bytes between the caller's descriptors and the workload's, one thread a stream.

The workload gets pipes (or a terminal of its own), never the caller's descriptors: it could change the modes of the
caller's terminal, read from it, or take over the ownership of the file that output goes to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_CHUNK = 1 << 16


def _nothing() -> None:
    pass


class Copier:
    """Copies until the source ends or the destination is closed; then calls ``finished`` once."""

    def __init__(self, name: str, source: int, destination: int, finished: Callable[[], None] = _nothing) -> None:
        self._source = source
        self._destination = destination
        self._finished = finished
        self._thread = threading.Thread(target=self._copy, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything has been copied."""
        self._thread.join(timeout)

    def _copy(self) -> None:
        try:
            while piece := os.read(self._source, _CHUNK):
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._destination, view) :]
        except OSError:
            pass  # EPIPE: the reader left. EIO: a terminal's last user closed it. Both are the end.
        finally:
            self._finished()


def closer(descriptor: int) -> Callable[[], None]:
    """What closes ``descriptor``; a second call does nothing."""
    left = [descriptor]

    def close() -> None:
        if left:
            os.close(left.pop())

    return close
