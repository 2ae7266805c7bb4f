"""A few connections to one database, opened by a thread that does nothing else.

Whoever asks never waits for a connection to be made longer than it says; an event loop says a quarter of a second, and
is refused at once while the database is known to be away. Connections that broke are replaced without anybody's doing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from adyton.errors import AdytonError, Unavailable
from adyton.stores import postgres_errors
from adyton.stores.postgres_link import Link

SIZE = 8
READY = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Pool:
    """See the module. ``connect`` gives a link or raises an error of the tree; it may take seconds."""

    def __init__(self, connect: Callable[[], Link], where: str, *, size: int = SIZE) -> None:
        self._connect = connect
        self._where = where
        self._size = size
        self._idle: list[Link] = []
        self._busy = self._waiting = 0
        self._failed: AdytonError | None = None
        self._distrusted = 0
        self._closed = False
        self._changed = threading.Condition()
        self._keeper = threading.Thread(target=self._keep, name="database", daemon=True)
        self._keeper.start()

    @property
    def failed(self) -> AdytonError | None:
        """Why the database cannot be had at present, or ``None``."""
        return self._failed

    def take(self, seconds: float, *, at_once: bool = False) -> Link:
        """A live connection within ``seconds``; ``at_once`` is refused while the database is known to be away.

        ``Unavailable`` ``store_unreachable`` or ``store_busy``; ``ConfigError`` if the database would not let us in.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                if self._closed:
                    raise RuntimeError("the store is closed")
                while self._idle and (at_once or self._busy < self._size - 1):  # the last one is an event loop's
                    link = self._idle.pop()
                    if link.idle:
                        self._busy += 1
                        return link
                    link.close()
                    self._changed.notify_all()
                if at_once and self._failed is not None:
                    raise self._refusal()
                self._waiting += 1
                self._changed.notify_all()
                try:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        raise self._refusal()
                finally:
                    self._waiting -= 1

    def _refusal(self) -> AdytonError:
        error = self._failed
        if error is not None:  # a new one each time: an error that is raised twice would grow
            return type(error)(error.message, code=error.code, field=error.field, got=error.got, hint=error.hint)
        if self._busy < self._size - 1:
            return postgres_errors.unreachable(self._where)
        return Unavailable("the store is busy", code="store_busy", field=self._where, hint="try again")

    def give(self, link: Link) -> None:
        """Hand it back; one that broke is closed and replaced."""
        with self._changed:
            self._busy -= 1
            if link.broken or self._closed:
                link.close()
            else:
                self._idle.append(link)
            self._changed.notify_all()

    def distrust(self) -> None:
        """One fell silent, so all may be: none of those that lie idle is used again, and none until one is opened anew."""
        with self._changed:
            for link in self._idle:
                link.close()
            self._idle.clear()
            self._failed = self._failed or postgres_errors.unreachable(self._where)
            self._distrusted += 1
            self._changed.notify_all()

    def _keep(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                if pause:
                    self._pause(pause)
                while not self._closed and not self._wanted():
                    self._changed.wait()
                if self._closed:
                    return
                distrusted = self._distrusted
            try:
                link = self._connect()
            except AdytonError as error:
                pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
                with self._changed:
                    self._failed = error
                    self._changed.notify_all()
                continue
            pause = 0.0
            self._opened(link, distrusted)

    def _opened(self, link: Link, distrusted: int) -> None:
        with self._changed:
            if self._closed:
                link.close()
                return
            self._idle.append(link)
            if distrusted == self._distrusted:  # nothing has fallen silent since
                self._failed = None
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closed and (left := until - time.monotonic()) > 0:
            self._changed.wait(left)

    def _wanted(self) -> bool:
        held = len(self._idle) + self._busy
        return self._failed is not None or held < READY or (held < self._size and self._waiting > len(self._idle))

    def close(self) -> None:
        """Close what is idle; what is busy is closed when it is handed back."""
        with self._changed:
            self._closed = True
            for link in self._idle:
                link.close()
            self._idle.clear()
            self._changed.notify_all()
        self._keeper.join(5)
