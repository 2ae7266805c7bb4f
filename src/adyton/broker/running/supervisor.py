"""Several workers: started, replaced when they die, told of new settings, and relieved one by one while all goes on.

Workers are processes of their own (elliptic curves hold the interpreter's lock) that share the listening sockets, which
stay open here: so a worker may come and go without a connection being refused.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from adyton.broker.custodians import attesting
from adyton.broker.door.share import Board
from adyton.broker.running import notify, reports
from adyton.broker.running.bell import Bell
from adyton.broker.running.serving import DRAIN_SECONDS, Listeners, Tell
from adyton.broker.running.worker_process import READY, Failed, Start
from adyton.broker.settings import Settings
from adyton.errors import PlatformError, Unavailable
from adyton.stores.changes import Changes
from adyton.stores.sqlite import Store

QUICK_DEATHS = 5
QUICK_SECONDS = 10.0
START_SECONDS = 120.0
_TICK = 0.2
_MAX_SAID = 64 * 1024
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
_Process = subprocess.Popen[bytes]
_LOG = logging.getLogger(__name__)


class Supervisor:
    """The parent. ``reread`` gives the settings as they stand now, merged with what cannot change, on SIGHUP."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        listeners: Listeners,
        root_key: bytes,
        reread: Callable[[Settings], Settings | None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._listeners = listeners
        self._root_key = root_key
        self._reread = reread
        self._bell = Bell((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2))
        self._stopping = self._serving = False
        self._asked: set[int] = set()
        self._board = Board.make(1 + 4 * settings.workers)  # for this process, for those who serve, and those who leave
        self._places: dict[_Process, int] = {}
        store.tell_changes(Changes(self._board.changes, 0))
        self._workers: dict[int, _Process] = {}
        self._leaving: dict[_Process, float] = {}
        self._deaths: list[float] = []
        self._next_start = 0.0

    def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT. SIGHUP reads settings again, SIGUSR2 relieves the workers."""
        for listener in self._listeners.values():
            listener.set_inheritable(True)
        if self._settings.metrics_listen:
            reports.fresh(self._settings.directory)
        with self._bell:
            try:
                self._begin()
                if self._serving:
                    ready()
                while not self._stopping:
                    self._listen(_TICK)
                    self._serve_signals()
                    self._replace_dead()
                    self._bury()
            finally:
                self._end()

    def _begin(self) -> None:
        for number in range(self._settings.workers):
            self._workers[number] = self._start(number)
        self._serving = all(self._began(worker) for worker in self._workers.values())

    def _listen(self, seconds: float, *descriptors: int) -> bool:
        """Wait, and note what signals ask for; whether a descriptor has something to read."""
        readable = self._bell.wait(seconds, *descriptors)
        heard = self._bell.take()
        self._stopping = self._stopping or not _ENDS.isdisjoint(heard)
        self._asked.update(heard)
        return readable

    def _serve_signals(self) -> None:
        asked, self._asked = self._asked, set()
        if self._stopping:
            return
        if signal.SIGHUP in asked:
            notify.reloading()
            settings = self._reread(self._settings)
            if settings is not None:
                self._settings = settings
                for worker in self._workers.values():
                    _tell(worker, Tell(settings=settings))
            notify.ready()
        if signal.SIGUSR2 in asked:
            notify.reloading()
            self._relieve()
            notify.ready()

    def _relieve(self) -> None:
        """A new worker for each, and only once it answers, the old one goes."""
        for number, old in list(self._workers.items()):
            new = None
            try:
                new = self._start(number)
                began = self._began(new)
            except PlatformError as error:
                _LOG.error("worker %d is not relieved, the old one stays: %s [%s]", number, error.message, error.code)
                if new is not None:
                    self._close(new)
                return
            if not began:
                self._leaving[new] = time.monotonic()
                return
            self._workers[number] = new
            _tell(old, Tell(leave=True))
            _hang_up(old)
            self._leaving[old] = time.monotonic() + DRAIN_SECONDS + 5
        _LOG.info("all workers were relieved")

    def _replace_dead(self) -> None:
        for number, worker in list(self._workers.items()):
            now = time.monotonic()
            if worker.poll() is None or self._stopping or now < self._next_start:
                continue
            _LOG.error("worker %d ended with status %d; starting another", number, worker.returncode)
            self._fold(worker)
            self._close(worker)
            self._deaths = [*(death for death in self._deaths if now - death < QUICK_SECONDS), now]
            if len(self._deaths) >= QUICK_DEATHS:
                raise Unavailable(
                    "the broker's workers end as fast as they are started",
                    code="workers_failing",
                    got=worker.returncode,
                    hint="the log above has their errors",
                )
            try:
                self._workers[number] = self._start(number)
                self._began(self._workers[number])
            except PlatformError as error:  # the next round finds it ended, or still the old one
                _LOG.error("worker %d does not start: %s [%s]", number, error.message, error.code)
                self._next_start = now + QUICK_SECONDS / QUICK_DEATHS

    def _bury(self) -> None:
        for worker, end in list(self._leaving.items()):
            if worker.poll() is None and time.monotonic() > end:
                _LOG.error("a worker that was relieved does not end, and is ended")
                worker.kill()
                worker.wait()
            if worker.poll() is not None:
                del self._leaving[worker]
                self._fold(worker)
                self._close(worker)

    def _fold(self, worker: _Process) -> None:
        if self._settings.metrics_listen:
            reports.fold(self._settings.directory / reports.DIRECTORY, worker.pid)

    def _start(self, number: int) -> _Process:
        descriptors = {name: listener.fileno() for name, listener in self._listeners.items()}
        channel = attesting.descriptor(self._settings.attester)
        place = min(set(range(1, self._board.places)).difference(self._places.values()), default=0)
        if not place:  # who has none could not tell what it changes
            raise PlatformError(
                "too many workers are about to end", code="worker_failed", hint="try again when they have ended"
            )
        try:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "adyton.broker.running.worker_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(*descriptors.values(), self._board.descriptor, *([] if channel is None else [channel])),
                start_new_session=True,  # the terminal's Ctrl-C is for the first process, which tells the others
            )
        except OSError as error:
            raise PlatformError(
                f"a worker of the broker cannot be started: {error.strerror}",
                code="worker_failed",
                hint="has this machine, or this user, as many processes as it may have?",
            ) from error
        self._places[worker] = place
        instance, board = self._store.instance, self._board.descriptor
        _write(worker, Start(self._settings, instance, descriptors, number, self._root_key, board, place))
        return worker

    def _began(self, worker: _Process) -> bool:
        """Wait until it answers requests; false if the broker is to end first. ``PlatformError`` with what went wrong."""
        assert worker.stdout is not None  # noqa: S101 -- asked for above
        end, said = time.monotonic() + START_SECONDS, b""
        while not said.endswith(b"\n"):
            readable = self._listen(end - time.monotonic(), worker.stdout.fileno())
            if self._stopping:
                return False
            more = os.read(worker.stdout.fileno(), _MAX_SAID) if readable else b""
            said += more
            if (readable and not more) or len(said) > _MAX_SAID:
                break
            if time.monotonic() > end:
                worker.kill()
                raise PlatformError(
                    "a worker of the broker did not start in time",
                    code="worker_failed",
                    expected=f"at most {START_SECONDS:.0f} s",
                    hint="does its database, or a back end, answer?",
                )
        if said != READY:
            raise _failed(said)
        return True

    def _end(self) -> None:
        """Let them answer what is under way, and go. Another signal to end is handed on: they wait for nobody then."""
        everybody = [*self._workers.values(), *self._leaving]
        for worker in everybody:
            if not self._serving:
                worker.terminate()
            _hang_up(worker)
        if self._stopping:
            notify.stopping()
        self._asked.clear()
        end = time.monotonic() + self._settings.drain_seconds + DRAIN_SECONDS + 5
        while time.monotonic() < end and any(worker.poll() is None for worker in everybody):
            self._listen(_TICK / 4)
            if not _ENDS.isdisjoint(self._asked):
                for worker in everybody:
                    worker.terminate()
            self._asked.clear()
        for worker in everybody:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            self._close(worker)

    def _close(self, worker: _Process) -> None:
        """Wait for one that has ended, or that will not serve; its place is another's."""
        _hang_up(worker)
        if worker.poll() is None:
            worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()
        if (place := self._places.pop(worker, 0)) > 0:
            self._board.clear(place)


def _failed(said: bytes) -> PlatformError:
    try:
        told = msgspec.json.decode(said, type=Failed)
    except ValueError:
        return PlatformError(
            "a worker of the broker did not start", code="worker_failed", hint="its error is in the log above"
        )
    return PlatformError(
        told.message,
        code=told.code,
        field=told.field,
        expected=told.expected,
        got=told.got,
        spec=told.spec,
        hint=told.hint,
    )


def _write(worker: _Process, message: msgspec.Struct) -> None:
    assert worker.stdin is not None  # noqa: S101 -- asked for above
    with suppress(BrokenPipeError):  # it has ended: noticed elsewhere
        worker.stdin.write(msgspec.json.encode(message) + b"\n")
        worker.stdin.flush()


def _tell(worker: _Process, told: Tell) -> None:
    _write(worker, told)


def _hang_up(worker: _Process) -> None:
    if worker.stdin is not None:
        with suppress(BrokenPipeError):
            worker.stdin.close()
