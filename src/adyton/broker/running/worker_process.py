"""One worker process: the parts of a broker put together over one store, on one event loop, serving one socket.

``python -m adyton.broker.running.worker_process`` is how a broker with several workers starts them: settings, the store's instance and
the listening socket's number come as one line of JSON on standard input, which then stays open for as long as the
parent lives. When it ends, the worker answers what it was asked and goes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

import msgspec
import uvloop

from adyton.broker.door.share import Board, Share
from adyton.broker.running import logs
from adyton.broker.running.logs import Format
from adyton.broker.running.opening import open_store
from adyton.broker.running.process import harden
from adyton.broker.running.reports import DIRECTORY
from adyton.broker.running.serving import Ending, Listeners, Tell
from adyton.broker.running.worker import Program
from adyton.broker.settings import Settings
from adyton.errors import AdytonError
from adyton.stores.changes import Changes

_LOG = logging.getLogger(__name__)
READY = b"ready\n"


class Failed(msgspec.Struct, frozen=True):
    """What a worker tells its parent that cannot start: an error's facts."""

    code: str
    message: str
    field: str | None = None
    expected: Any = None
    got: Any = None
    spec: str | None = None
    hint: str | None = None


class Serves(Protocol):
    """What a process serves with."""

    async def serve(self, listeners: Listeners, ending: Ending, ready: Callable[[], None]) -> None:
        """Until ``ending`` is wished for; ``ready`` is called once it answers."""
        ...


class Start(msgspec.Struct, frozen=True):
    """What a parent tells a worker, over a pipe that nobody else has. ``number`` 0 is the one that turns keys.

    ``board`` is the descriptor of the page on which workers tell how many connections they hold and what they change, and
    ``place`` this one's.
    """

    settings: Settings
    instance: str
    descriptors: dict[str, int]
    number: int
    root_key: bytes
    board: int
    place: int


def run(program: Serves, listeners: Listeners, ready: Callable[[Ending], None]) -> None:
    """Serve on this thread until SIGTERM or SIGINT, or until the ending given to ``ready`` is wished for."""

    async def main() -> None:
        ending = Ending()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.wish)
        await program.serve(listeners, ending, lambda: ready(ending))

    uvloop.run(main())


class _Parent:
    """What the parent says on standard input, a line of JSON each; its end is ours."""

    def __init__(self, program: Program, ending: Ending) -> None:
        self._program = program
        self._ending = ending
        ending.last = (
            False  # whatever else may end this process: the parent has its listeners, and gives them to another
        )
        self._read = b""

    def hear(self) -> None:
        """There is something to read."""
        more = os.read(0, 65536)
        if not more:
            asyncio.get_running_loop().remove_reader(0)
            self._ending.last = not self._ending.quick
            self._ending.wish()
            return
        *lines, self._read = (self._read + more).split(b"\n")
        for line in lines:
            told = msgspec.json.decode(line, type=Tell)
            if told.leave:
                self._ending.quick = True
            if told.settings is not None:
                try:
                    self._program.apply(told.settings)
                except Exception:  # noqa: BLE001 -- the next line may be the one that ends this worker
                    _LOG.exception("settings cannot be used")


def main() -> None:
    """Be one of several workers, until the parent goes. What keeps it from starting is told to the parent."""
    harden(0)  # before it holds the root key
    line = _first_line()
    if not line.endswith(b"\n"):  # the parent went, or was told to end
        return
    start = msgspec.json.decode(line, type=Start)
    logs.configure(cast("Format", start.settings.log_format), start.settings.log_level)
    harden(start.settings.connections)
    told: list[bytes] = []
    try:
        _work(start, told)
    except AdytonError as error:
        if told:  # it was ready: nobody listens any more
            raise
        _say(msgspec.json.encode(error.as_dict()) + b"\n")
        sys.exit(1)


def _say(line: bytes) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(line)
        sys.stdout.flush()


def _work(start: Start, told: list[bytes]) -> None:
    board = Board(start.board)
    changes = Changes(board.changes, start.place)
    changes.begin()  # opening it may change it; a worker that does not come so far has its word moved on by its parent
    store = open_store(start.settings, start.instance, start.root_key)
    store.tell_changes(changes)
    changes.end()
    try:
        program = Program(start.settings, store, number=start.number)
        if start.settings.metrics_listen:
            program.reports = start.settings.directory / DIRECTORY
        program.share = Share(board, start.place)
        listeners = {name: socket.socket(fileno=number) for name, number in start.descriptors.items()}

        def ready(ending: Ending) -> None:
            parent = _Parent(program, ending)
            asyncio.get_running_loop().add_reader(0, parent.hear)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent is told, and tells us
            told.append(READY)
            _say(READY)

        run(program, listeners, ready)
    finally:
        store.close()


def _first_line() -> bytes:
    """Byte by byte, so that nothing of what follows is lost in a buffer."""
    read = b""
    while not read.endswith(b"\n") and (more := os.read(0, 1)):
        read += more
    return read


if __name__ == "__main__":
    main()
