"""Stages of a pipeline that are worked by whoever is free, so that no core waits while there is work.

With a thread per stage and fewer cores than stages, the system gives the last stage its share only; the earlier ones
fill their queues meanwhile and stop, and then all cores but one have nothing to do until the last has caught up. Here
there are as many threads as cores, the caller included. Each takes one piece at a time of what is wanted most: the stage
whose pieces the caller takes, or what that lacks; then what only has to be done by the end (``aside``); then what can be
done ahead. The caller, finding no piece ready, makes one, or does something else while another thread makes it.

A stage is worked by one thread at a time, and so in order. It is at most ``depth`` pieces ahead, and twice that of what
is done aside, so memory does not grow with the data. A stage that waits for the network would hold up a thread that
has other work: let it run in a ``Background``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Self

DEPTH = 16
KEPT_MEMORY = 16 << 20


class Aside:
    """What is done with every piece of a stage, in order, until ``finish``."""

    def __init__(self, crew: Crew, work: Callable[[bytes], object]) -> None:
        self.pieces: deque[bytes] = deque()
        self.busy = False
        self._crew = crew
        self._work = work
        self._error: BaseException | None = None

    @property
    def open(self) -> bool:
        """Whether one who is free may work it."""
        return bool(self.pieces) and not self.busy

    def once(self) -> None:
        """Work one piece."""
        try:
            self._work(self.pieces[0])
        except BaseException as failure:
            self._error = self._error or failure  # raised again in ``finish``
            if not isinstance(failure, Exception):
                raise  # Ctrl-C does not wait for the end of a layer
        finally:
            self.pieces.popleft()  # only now: what is in work takes memory too

    def finish(self) -> None:
        """Work what is left of a stage that has ended; raises what went wrong in it."""
        with self._crew.changed:
            while self.pieces:
                if self.busy:
                    self._crew.changed.wait()
                else:
                    self._crew.work(self)
            if self._error is not None:
                raise self._error


class Stage(Iterator[bytes]):
    """The pieces of one stage; an error in it comes out where they are taken, after the pieces before it."""

    def __init__(self, crew: Crew, source: Generator[bytes], before: Stage | None, depth: int) -> None:
        self.source = source
        self.before = before
        self.depth = depth
        self.asides: list[Aside] = []
        self.ready: deque[bytes] = deque()
        self.busy = False  # a thread works it
        self.ended = False
        self._resting = False  # it is far enough ahead
        self._error: BaseException | None = None
        self._crew = crew

    def __next__(self) -> bytes:
        crew = self._crew
        with crew.changed:
            while not self.ready:
                if self.ended:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    raise StopIteration
                work = crew.meanwhile(self) if self.busy or self.behind else self
                if work is None:
                    crew.changed.wait()
                else:
                    crew.work(work)
            piece = self.ready.popleft()
            if self._resting and len(self.ready) <= self.depth // 2:
                self._resting = False  # not at every piece: to wake a thread costs
                crew.changed.notify_all()
            return piece

    @property
    def open(self) -> bool:
        """Whether one who is free may work it."""
        return not (self.busy or self.ended or self._resting or self.behind)

    @property
    def behind(self) -> bool:
        """Whether what is done aside has to catch up first."""
        return any(len(aside.pieces) >= 2 * self.depth for aside in self.asides)

    @property
    def fed(self) -> bool:
        """Whether it has something to work on."""
        return self.before is None or bool(self.before.ready) or self.before.ended

    def once(self) -> None:
        """Make one piece."""
        try:
            piece = next(self.source)
        except StopIteration:
            self.ended = True
        except BaseException as failure:  # noqa: BLE001 - it is raised again where the pieces are taken
            self._error, self.ended = failure, True
        else:
            for aside in self.asides:
                aside.pieces.append(piece)
            self.ready.append(piece)
            self._resting = len(self.ready) >= self.depth


class Crew:
    """First ``stage`` after ``stage``, each over the one before, and ``aside``; then ``begin``.

    Leaving the context stops all and joins the threads. ``threads`` work beside the caller; by default as many as there
    are other cores.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.changed = threading.Condition(threading.Lock())
        self._free = len(os.sched_getaffinity(0)) - 1 if threads is None else threads
        self._stages: list[Stage] = []
        self._asides: list[Aside] = []
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def stage(self, source: Generator[bytes], depth: int = DEPTH) -> Stage:
        """One more stage, the last until now; ``source`` takes its pieces from the stage before."""
        stage = Stage(self, source, self._stages[-1] if self._stages else None, depth)
        self._stages.append(stage)
        return stage

    def aside(self, stage: Stage, work: Callable[[bytes], object]) -> Aside:
        """Let ``work`` be done with every piece of ``stage``, at any time before ``finish`` returns."""
        aside = Aside(self, work)
        stage.asides.append(aside)
        self._asides.append(aside)
        return aside

    def begin(self) -> None:
        """Let the threads begin."""
        keep_memory()
        for number in range(min(self._free, len(self._stages) + len(self._asides))):
            thread = threading.Thread(target=self._run, name=f"layer-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # this process has as many as it may have: the caller can do all of it
                break
            self._threads.append(thread)

    def work(self, work: Stage | Aside) -> None:
        """One piece of it. Called with the lock held, which is let go of meanwhile."""
        work.busy = True
        self.changed.release()
        try:
            work.once()
        finally:
            self.changed.acquire()
            work.busy = False
            self.changed.notify_all()

    def meanwhile(self, stage: Stage) -> Stage | Aside | None:
        """What one who waits for ``stage`` can do: what it will need, or what has to be done aside."""
        before = stage.before
        while before is not None:
            if before.open and before.fed:
                return before
            before = before.before
        return next((aside for aside in self._asides if aside.open), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
        for thread in self._threads:
            thread.join()
        for stage in reversed(self._stages):
            stage.source.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # Linux: each thread has its own; the caller's work comes first
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 1)
        with self.changed:
            while not self._stopped:
                work = self._wanted()
                if work is not None:
                    self.work(work)
                elif all(stage.ended for stage in self._stages):
                    return
                else:
                    self.changed.wait()

    def _wanted(self) -> Stage | Aside | None:
        for stage in reversed(self._stages):
            if not stage.open:
                break
            if stage.fed:
                return stage
        for aside in self._asides:
            if aside.open:
                return aside
        return next((stage for stage in reversed(self._stages) if stage.open and stage.fed), None)


def keep_memory() -> None:
    """Let the process keep what its pieces took, instead of giving it back and faulting it in anew with every piece.

    The C library maps what is larger than any block freed so far, and gives back what exceeds twice that. So a block
    that is made (not touched, so it takes no memory) and freed is the whole setting; elsewhere it does no harm.
    """
    bytes(KEPT_MEMORY)
