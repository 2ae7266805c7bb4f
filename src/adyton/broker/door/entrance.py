"""How connections come to a worker: accepted here, made by the loop, counted from the first moment on.

asyncio's own server is not asked, since it counts nothing before TLS stands, so peers that never speak could take every
descriptor; and since uvloop's closes its listener for good where accepting fails.

All places taken (``max_connections``, TLS being made included), whoever keeps the broker waiting longest makes way:

* at once: who has come and said nothing, neither a byte of TLS nor one of HTTP. Clients speak first in both;
* after a second: whose TLS is not finished, who is idle after an answer, whose head is not complete;
* after five: whose body is not, or who does not read an answer.

Nobody makes way while the broker makes its answer. If there is nobody, the newcomer is turned away: by an answer, or where it
would have TLS by the end of its connection. So a flood of peers that do nothing costs others nothing but
the time to turn it away, and is never an end of descriptors.

Where the process or the system has no descriptor left all the same, nothing is accepted for a moment. A worker that holds
more connections than another leaves a newcomer to that one, for a moment (``share.py``).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import ssl
import struct
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice

from adyton.broker.door.connection import Connection
from adyton.broker.door.share import STEP_SECONDS
from adyton.broker.door.worker import Worker

BATCH = 32
LOOK = 32
LOOK_AGAIN_SECONDS = 0.1
PAUSE_SECONDS = 0.1
COMPLAIN_SECONDS = 60.0
_GONE = frozenset(  # says something of that one connection, by accept(2), and nothing of the next
    {
        *(errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
_TOLD = struct.Struct("=B127xQ")  # tcpi_state and tcpi_bytes_received in Linux' struct tcp_info
_ESTABLISHED = 1
_LOG = logging.getLogger(__name__)


class Entrance:
    """Where ``worker``'s connections come in: ``listener`` becomes its own. With ``context`` over TLS."""

    def __init__(self, worker: Worker, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self._worker = worker
        self._share = worker.share
        self._listener = listener
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._pausing: asyncio.TimerHandle | None = None
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)
        self._complained = -COMPLAIN_SECONDS
        self._idlers: deque[Connection] = deque()
        self._looked = 0.0
        listener.setblocking(False)
        self._loop.add_reader(listener, self._come)
        self._open()

    @property
    def port(self) -> int:
        """The port it is at."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Take no more. What is being made is made."""
        if self._pausing is not None:
            self._pausing.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def take_all(self) -> None:
        """Take what is in the queue now, and leave nobody to others."""
        self._share = None
        while self._come():
            pass

    def _come(self) -> bool:
        """Take some; whether there may be more. Others of the loop have their turn in between."""
        share = self._share
        for _ in range(BATCH):
            if share is not None and share.leaves(self._worker.held, self._loop.time()):
                self._loop.remove_reader(self._listener)  # else it would be called all the time
                self._pausing = self._loop.call_later(STEP_SECONDS, self._look)
                return False
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                if share is not None:
                    share.taken()
                return False
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._pause(error)
                return False
            self._take(client)
        return True

    def _take(self, client: socket.socket) -> None:
        worker = self._worker
        worker.taken += 1
        if worker.held >= worker.limits.max_connections:
            worker.refused += 1
            if not self._make_way(self._loop.time()):
                self._turn_away(client)
                return
        connection = Connection(worker)
        seconds = None if self._context is None else worker.limits.head_seconds
        making = self._loop.create_task(
            self._loop.connect_accepted_socket(
                lambda: connection, client, ssl=self._context, ssl_handshake_timeout=seconds
            )
        )
        worker.arriving[connection] = making
        worker.unheard[connection] = client
        if worker.share is not None:
            worker.share.tell(worker.held)
        making.add_done_callback(partial(self._made, connection, client))

    def _made(self, connection: Connection, client: socket.socket, making: asyncio.Task[object]) -> None:
        self._worker.arriving.pop(connection, None)
        if making.cancelled() or making.exception() is not None:
            self._worker.forget(connection)
            self._worker.unmade += self._context is not None
            client.close()  # where it was cancelled before it began, nobody else does

    def _make_way(self, now: float) -> bool:
        """One that is kept waited for by its peer is cut; whether there was one."""
        for connection, client in islice(self._worker.unheard.items(), LOOK):  # the first have waited longest
            if connection.patience(now) <= 0 or _silent(client):
                connection.abort()
                return True
        if not self._idlers and now >= self._looked + LOOK_AGAIN_SECONDS:  # else each newcomer would look at everybody
            self._looked = now
            by_patience = sorted((one.patience(now), id(one), one) for one in self._worker.connections)
            self._idlers.extend(one for patience, _, one in by_patience if patience <= 0)
        while self._idlers:
            connection = self._idlers.popleft()
            if connection in self._worker.connections and connection.patience(now) <= 0:
                connection.abort()
                return True
        return False

    def _turn_away(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._context is None:
                client.setblocking(False)
                client.send(self._worker.overloaded.render(keep_alive=False))
                client.shutdown(socket.SHUT_WR)
                client.recv(65536)  # what is unread when it is closed would reset it, and take the answer along

    def _pause(self, error: OSError) -> None:
        """No descriptor left. Asking again at once would only burn the CPU: the connection stays in the queue."""
        now = self._loop.time()
        if now >= self._complained + COMPLAIN_SECONDS:
            self._complained = now
            _LOG.error(
                "connections wait: %s [accept_failed]; see --max-connections and the limit of open files",
                error.strerror,
            )
        self._make_way(now)
        if self._pausing is None:
            self._loop.remove_reader(self._listener)
            self._pausing = self._loop.call_later(PAUSE_SECONDS, self._resume)
            if self._share is not None:
                self._share.shut()

    def _resume(self) -> None:
        self._pausing = None
        self._loop.add_reader(self._listener, self._come)
        self._open()

    def _open(self) -> None:
        if self._share is not None and not self._worker.leaving:
            self._share.open(self._worker.held)

    def _look(self) -> None:
        """Whether somebody still waits who was left to others."""
        self._pausing = None
        if self._waiting.poll(0):
            self._come()
        elif self._share is not None:
            self._share.taken()
        if self._pausing is None:
            self._loop.add_reader(self._listener, self._come)


def _silent(client: socket.socket) -> bool:
    """Whether the peer has sent nothing, but for its end, which counts as one byte. Of a system that does not tell, nobody."""
    try:
        told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOLD.size)
        state, received = _TOLD.unpack(told)
    except (OSError, AttributeError, struct.error):
        return False
    return bool(received <= (state != _ESTABLISHED))
