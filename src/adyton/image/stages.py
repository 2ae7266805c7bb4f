"""One stage of a pipeline in a thread of its own, with a bounded queue to the next.

Hashing, ciphers and decompression release the interpreter's lock, so stages run side by side. Queues are bounded, so
memory does not grow with the data. An error in a stage comes out where its results are taken.

Where there are fewer cores than stages, the last stage must not wait for a core that an earlier one has taken to run
ahead: the earlier ones ask for less of it (``nice``; measured, it takes a tenth off the whole).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Self

DEPTH = 8


class _End:
    """The last thing in a queue: the stage ended, with ``error`` if it failed."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Background(Iterator[bytes]):
    """Runs ``source`` in a thread, at most ``DEPTH`` pieces ahead. Leaving the context stops and joins it.

    ``nice`` is added to the thread's own (Linux: each thread has one), so that later stages come first.
    """

    def __init__(self, source: Generator[bytes], name: str, nice: int = 0) -> None:
        self._source = source
        self._nice = nice
        self._pieces: SimpleQueue[bytes | _End] = SimpleQueue()
        self._credit: SimpleQueue[None] = SimpleQueue()
        for _ in range(DEPTH):
            self._credit.put(None)
        self._stopped = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"layer-{name}", daemon=True)
        self._thread.start()

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        piece = self._pieces.get()
        if isinstance(piece, bytes):
            self._credit.put(None)
            return piece
        self._ended = True
        if piece.error is not None:
            raise piece.error
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = self._ended = True
        self._credit.put(None)
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._nice)
        try:
            for piece in self._source:
                self._credit.get()
                if self._stopped:
                    break
                self._pieces.put(piece)
        except BaseException as failure:  # noqa: BLE001 - it is raised again where the results are taken
            error = failure
        finally:
            self._source.close()
            self._pieces.put(_End(error))
