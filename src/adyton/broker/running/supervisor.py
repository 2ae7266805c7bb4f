"""Several workers: started, replaced when they die, told of new settings, and relieved one by one while all goes on.

Workers are processes of their own (elliptic curves hold the interpreter's lock) that share the listening sockets, which
stay open here: so a worker may come and go without a connection being refused.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from types import FrameType

import msgspec

from adyton.broker.custodians import attesting
from adyton.broker.running import notify, reports
from adyton.broker.running.serving import DRAIN_SECONDS, Listeners, Tell
from adyton.broker.running.worker_process import Start
from adyton.broker.settings import Settings
from adyton.errors import PlatformError, Unavailable
from adyton.stores.sqlite import Store

QUICK_DEATHS = 5
QUICK_SECONDS = 10.0
_TICK = 0.2
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
        self._stopping = Event()
        self._wake = Event()
        self._asked: set[int] = set()
        self._workers: dict[int, _Process] = {}
        self._leaving: list[_Process] = []
        self._deaths: list[float] = []

    def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT. SIGHUP reads settings again, SIGUSR2 relieves the workers."""
        for listener in self._listeners.values():
            listener.set_inheritable(True)
        if self._settings.metrics_listen:
            reports.fresh(self._settings.directory)
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
        before = {number: signal.signal(number, self._hear) for number in handled}
        try:
            for number in range(self._settings.workers):
                self._workers[number] = self._start(number)
            for worker in self._workers.values():
                _wait_ready(worker)
            ready()
            while not self._stopping.is_set():
                self._wake.wait(_TICK)
                self._wake.clear()
                self._serve_signals()
                self._replace_dead()
                self._bury()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._end()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._stopping.set()
        self._asked.add(number)
        self._wake.set()

    def _serve_signals(self) -> None:
        asked, self._asked = self._asked, set()
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
            new = self._start(number)
            try:
                _wait_ready(new)
            except PlatformError as error:
                _LOG.error("worker %d is not relieved, the old one stays: %s [%s]", number, error.message, error.code)
                _close(new)
                return
            self._workers[number] = new
            _tell(old, Tell(leave=True))
            _hang_up(old)
            self._leaving.append(old)
            if self._stopping.is_set():
                return
        _LOG.info("all workers were relieved")

    def _replace_dead(self) -> None:
        for number, worker in list(self._workers.items()):
            if worker.poll() is None or self._stopping.is_set():
                continue
            _LOG.error("worker %d ended with status %d; starting another", number, worker.returncode)
            self._fold(worker)
            now = time.monotonic()
            self._deaths = [*(death for death in self._deaths if now - death < QUICK_SECONDS), now]
            if len(self._deaths) >= QUICK_DEATHS:
                raise Unavailable(
                    "the broker's workers end as fast as they are started",
                    code="workers_failing",
                    got=worker.returncode,
                    hint="the log above has their errors",
                )
            self._workers[number] = self._start(number)
            with suppress(PlatformError):  # then it has ended, and counts as dead above
                _wait_ready(self._workers[number])

    def _bury(self) -> None:
        for worker in list(self._leaving):
            if worker.poll() is not None:
                self._leaving.remove(worker)
                self._fold(worker)
                _close(worker)

    def _fold(self, worker: _Process) -> None:
        if self._settings.metrics_listen:
            reports.fold(self._settings.directory / reports.DIRECTORY, worker.pid)

    def _start(self, number: int) -> _Process:
        descriptors = {name: listener.fileno() for name, listener in self._listeners.items()}
        channel = attesting.descriptor(self._settings.attester)
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "adyton.broker.running.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(*descriptors.values(), *([] if channel is None else [channel])),
            start_new_session=True,  # the terminal's Ctrl-C is for the first process, which tells the others
        )
        _write(worker, Start(self._settings, self._store.instance, descriptors, number, self._root_key))
        return worker

    def _end(self) -> None:
        everybody = [*self._workers.values(), *self._leaving]
        for worker in everybody:
            _hang_up(worker)
        if signal.SIGTERM in self._asked or signal.SIGINT in self._asked:
            notify.stopping()
        end = time.monotonic() + self._settings.drain_seconds + DRAIN_SECONDS + 5
        for worker in everybody:
            try:
                worker.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            _close(worker)


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


def _close(worker: _Process) -> None:
    _hang_up(worker)
    if worker.poll() is None:
        worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def _wait_ready(worker: _Process) -> None:
    assert worker.stdout is not None  # noqa: S101 -- asked for above
    if worker.stdout.readline() != b"ready\n":
        raise PlatformError(
            "a worker of the broker did not start", code="worker_failed", hint="its error is in the log above"
        )
