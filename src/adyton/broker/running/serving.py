"""A worker's doors: its listeners, opened, opened anew with other certificates, and closed so that nobody's answer is lost.

``public`` is for workloads, and for everybody where there is no other; ``admin`` for the API and the page; ``metrics``
for collectors. A door is opened anew by a second entrance at the same socket, and the first one's end: what is
connected stays connected, and what waits in the socket's queue finds the new one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import msgspec

from adyton.broker.door import refusals, tls
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import Application, HttpRequest
from adyton.broker.door.entrance import Entrance
from adyton.broker.door.share import Share
from adyton.broker.door.tls import Identity
from adyton.broker.door.worker import Limits, Worker
from adyton.broker.running.exposition import CONTENT_TYPE
from adyton.broker.running.process import turn_away
from adyton.broker.settings import Settings
from adyton.crypto import profile

PUBLIC, ADMIN, METRICS = "public", "admin", "metrics"
DRAIN_SECONDS = 10.0
QUEUE_SECONDS = 0.3  # for the last step of connections that have begun: a round trip
_METRICS_LIMITS = Limits(
    max_body=1024, head_seconds=5.0, body_seconds=5.0, idle_seconds=60.0, max_connections=16, sweep_seconds=1.0
)
Renderer: TypeAlias = Callable[[], Awaitable[bytes]]
Listeners: TypeAlias = Mapping[str, socket.socket]


class Tell(msgspec.Struct, frozen=True):
    """What a parent tells a worker that runs: go on with ``settings``, or ``leave``: another one has taken over."""

    settings: Settings | None = None
    leave: bool = False


class Ending:
    """The wish that a worker end. ``quick``: nobody must be told first. ``last``: nobody else has its listeners."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.quick = False
        self.last = True
        self._again = asyncio.Event()

    def wish(self) -> None:
        """End; a second wish shortens the wait for those who balance the load."""
        if self.event.is_set():
            self._again.set()
        self.event.set()

    async def grace(self, seconds: float) -> None:
        """Give others the time to see that the end is near."""
        if seconds > 0 and not self.quick:
            try:
                await asyncio.wait_for(self._again.wait(), seconds)
            except TimeoutError:
                return


class _Outside:
    """The port of workloads, where administration has one of its own."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, request: HttpRequest) -> Answer | Awaitable[Answer]:
        request.outside = True
        return self._application(request)


class _Collectors:
    """``/metrics``, and how the broker is, for who collects that."""

    def __init__(self, application: Application, render: Renderer) -> None:
        self._application = application
        self._render = render

    def __call__(self, request: HttpRequest) -> Answer | Awaitable[Answer]:
        path = request.target.partition(b"?")[0]
        if path in {b"/healthz", b"/readyz"}:
            return self._application(request)
        if path != b"/metrics":
            return refusals.NO_PATH
        return self._answer() if request.method in {"GET", "HEAD"} else refusals.NO_METHOD

    async def _answer(self) -> Answer:
        return Answer(200, await self._render(), content_type=CONTENT_TYPE)


class Doors:
    """All doors of one worker."""

    def __init__(
        self,
        settings: Settings,
        application: Application,
        render: Renderer,
        names: frozenset[str],
        share: Share | None = None,
    ) -> None:
        self._settings = settings
        split = ADMIN in names
        applications: dict[str, Application] = {
            PUBLIC: _Outside(application) if split else application,
            ADMIN: application,
            METRICS: _Collectors(application, render),
        }
        self.workers = {
            name: Worker(
                applications[name],
                _METRICS_LIMITS if name == METRICS else limits(settings),
                refusals.OVERLOADED,
                refusals.UNREADABLE,
            )
            for name in names
        }
        for worker in self.workers.values():
            worker.ciphers = profile.of(fips=settings.fips).ciphers
        if share is not None:
            self.workers[PUBLIC].share = share
        self._entrances: dict[str, Entrance] = {}
        self._listeners: Listeners = {}
        self._closed = False

    def open(self, listeners: Listeners, identity: Identity | None) -> None:
        """Answer on ``listeners``, which stay the caller's. On the loop that runs."""
        self._listeners = listeners
        for name in self.workers:
            self._entrances[name] = self._entrance(name, identity)

    def reopen(self, settings: Settings, identity: Identity | None) -> None:
        """Go on with another identity, or other client authorities."""
        self._settings = settings
        for name, old in list(self._entrances.items()):
            if name != METRICS and not self._closed:
                self._entrances[name] = self._entrance(name, identity)
                old.close()

    def limit(self, settings: Settings) -> None:
        """Go on with other limits."""
        self._settings = settings
        for name, worker in self.workers.items():
            if name != METRICS:
                worker.limits = limits(settings)

    def _entrance(self, name: str, identity: Identity | None) -> Entrance:
        context = None if name == METRICS else self._context(name, identity)
        return Entrance(self.workers[name], self._listeners[name].dup(), context)

    def _context(self, name: str, identity: Identity | None) -> ssl.SSLContext | None:
        if identity is None:
            return None
        asked = bool(identity.client_ca) and (name == ADMIN or ADMIN not in self.workers)
        return tls.context(identity, self._settings, clients=asked)

    def counters(self) -> dict[str, int]:
        """Of connections, for metrics."""
        workers = self.workers.values()
        return {
            "connections": sum(worker.taken for worker in workers),
            "connections_refused": sum(worker.refused for worker in workers),
            "tls_failures": sum(worker.unmade for worker in workers),
        }

    @property
    def standing(self) -> int:
        """Connections, those whose TLS is being made included."""
        return sum(worker.held for worker in self.workers.values())

    def leave(self) -> None:
        """Close every connection after its next answer; still take new ones."""
        for worker in self.workers.values():
            worker.leaving = True
            if worker.share is not None:
                worker.share.shut()

    async def close(self, *, last: bool) -> None:
        """Take no more, answer what was asked, and close.

        ``last``: nobody takes over the listeners. Then whoever comes now is to find nobody, rather than a queue that is
        thrown away, and whoever is in the queue already gets an answer. The filter is the socket's, so everybody's.
        """
        self._closed = True
        if last:
            for listener in self._listeners.values():
                turn_away(listener)
            await asyncio.sleep(QUEUE_SECONDS)
            for entrance in self._entrances.values():
                entrance.take_all()
        for entrance in self._entrances.values():
            entrance.close()
        await asyncio.gather(*(worker.drain(DRAIN_SECONDS) for worker in self.workers.values()))


def limits(settings: Settings) -> Limits:
    """What one client may cost."""
    return replace(
        Limits(),
        max_body=settings.max_body,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        idle_seconds=settings.idle_seconds,
        max_connections=settings.max_connections,
    )
