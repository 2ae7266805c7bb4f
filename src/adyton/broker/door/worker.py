"""The connections of one listener in one process: what they may cost, how many there are, and how they end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from adyton.broker.door.answer import Answer
    from adyton.broker.door.connection import Application, Connection
    from adyton.broker.door.share import Share

STOPPING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost. Seconds and bytes. ``max_connections`` counts those whose TLS is still being made, too."""

    max_body: int = 2 * 1000 * 1000
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    max_connections: int = 1024
    linger_seconds: float = 2.0
    sweep_seconds: float = 1.0


class Worker:
    """The connections of one listener in one process, their limits and their sweep.

    ``arriving`` have been accepted and do not stand yet: their TLS is being made, by the task. ``unheard`` have not asked
    anything in full yet, with their sockets, in the order they came.
    ``leaving``: the end is near, so every connection is closed after its next answer; its client then asks elsewhere.
    ``stopping``: it has come. ``ciphers``: what its TLS may have come to use, if not anything. ``taken``, ``refused``
    (there were too many) and ``unmade`` (no TLS came to stand) count connections. ``share``: what other workers know of it.
    """

    def __init__(
        self, application: Application, limits: Limits, overloaded: Answer, refusals: dict[str, Answer]
    ) -> None:
        self.application = application
        self.limits = limits
        self.overloaded = overloaded
        self.refusals = refusals
        self.arriving: dict[Connection, asyncio.Task[object]] = {}
        self.unheard: dict[Connection, socket.socket] = {}
        self.connections: set[Connection] = set()
        self.ciphers: frozenset[str] | None = None
        self.busy = 0
        self.stopping = False
        self.leaving = False
        self.taken = self.refused = self.unmade = 0
        self.share: Share | None = None

    @property
    def held(self) -> int:
        """Connections, those that do not stand yet included."""
        return len(self.connections) + len(self.arriving)

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self.connections.discard(connection)
        self.unheard.pop(connection, None)
        if self.share is not None:
            self.share.tell(self.held)

    async def sweep(self) -> None:
        """Close what has passed its deadline, every ``sweep_seconds``, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            now = loop.time()
            for connection in [one for one in self.connections if one.deadline < now]:
                connection.expire()

    async def drain(self, seconds: float) -> None:
        """Answer what was asked, then close everything; at most ``seconds``."""
        self.stopping = self.leaving = True
        for connection in list(self.connections):
            connection.close_when_idle()
        loop = asyncio.get_running_loop()
        now = loop.time()
        while (self.connections and loop.time() < now + seconds) or (  # noqa: ASYNC110 -- they come and go while we wait
            self.arriving and loop.time() < now + min(seconds, STOPPING_SECONDS)
        ):
            await asyncio.sleep(0.02)
        for connection in [*self.arriving, *self.connections]:
            connection.abort()
