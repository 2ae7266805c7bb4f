"""Bytes between the caller's descriptors and the workload's, one thread a stream.

The workload gets pipes (or a terminal of its own), never the caller's descriptors: it could change the modes of the
caller's terminal, read from it, or take over the ownership of the file that output goes to.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

_CHUNK = 1 << 16
# What a reader that went away looks like: a pipe, a terminal that hung up, a socket.
_READER_LEFT = frozenset({errno.EPIPE, errno.EIO, errno.ECONNRESET})
_T = TypeVar("_T")


def _nothing() -> None:
    pass


class Copier:
    """Copies until the source ends or the destination is closed; then calls ``finished`` once.

    ``lost``: why the rest could not be written although somebody wanted it.
    """

    def __init__(self, name: str, source: int, destination: int, finished: Callable[[], None] = _nothing) -> None:
        self.name = name
        self._source = source
        self._destination = destination
        self._finished = finished
        self.lost: OSError | None = None
        self._left = False
        self._thread = threading.Thread(target=self._copy, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything has been copied."""
        self._thread.join(timeout)

    def _copy(self) -> None:
        try:
            while piece := _patiently(self._source, select.POLLIN, partial(os.read, self._source, _CHUNK)):
                self._write(memoryview(piece))
                if self._left:
                    break
        except OSError:
            pass  # EIO: a terminal's last user closed it
        finally:
            self._finished()

    def _write(self, view: memoryview) -> None:
        try:
            while view:
                view = view[_patiently(self._destination, select.POLLOUT, partial(os.write, self._destination, view)) :]
        except OSError as error:
            self._left = True
            if error.errno not in _READER_LEFT:
                self.lost = error


def _patiently(descriptor: int, event: int, call: Callable[[], _T]) -> _T:
    """``call``, as often as needed: the caller's descriptors may be such that never wait."""
    while True:
        try:
            return call()
        except BlockingIOError:
            ready = select.poll()
            ready.register(descriptor, event)
            ready.poll()


def closer(descriptor: int) -> Callable[[], None]:
    """What closes ``descriptor``; a second call does nothing."""
    left = [descriptor]

    def close() -> None:
        if left:
            os.close(left.pop())

    return close
